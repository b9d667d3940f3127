//! `load` and `pin`.

use super::{Answer, one, readable, writable};
use crate::{auth::Principal, error, service::Door};
use chrono::DateTime;
use forebay_protocol::action;
use forebay_runtime::{clock::Timestamp, units::parse_duration};
use forebay_writeback::clean::{LoadSpec, Loaded, PinEnd};
use tonic::{Code, Status};

pub(super) async fn load(door: &Door, by: &Principal, body: action::Load) -> Result<Answer, Status> {
    let action::Load {
        path,
        paths,
        parallel,
        verify,
        wait,
        cancel,
    } = body;
    let single = paths.is_empty();
    let named = path.iter().chain(&paths).map(|path| readable(by, path));
    let paths = named.collect::<Result<Vec<_>, Status>>()?;
    let Some(first) = paths.first() else {
        return Err(error::wrong("load: name a `path`, or several in `paths`"));
    };
    if cancel {
        return match door.cache.cancel_loads(first) {
            0 => Err(error::status(
                Code::NotFound,
                &format!("{first}: no load of it is under way"),
            )),
            _ => one(&action::Done {}),
        };
    }
    // What is not there is an error of the one, and passed over among many.
    if single {
        door.cache.stat(first).await.map_err(error::engine)?;
    }
    let spec = LoadSpec {
        paths,
        parallel,
        verify,
    };
    let loading = async { door.cache.load_all(spec, wait).await.map_err(error::engine) };
    one(&told(door.unless_draining(loading).await?))
}

pub(super) async fn pin(door: &Door, by: &Principal, body: action::PinPath) -> Result<Answer, Status> {
    let path = writable(by, &body.path)?;
    let until = body.until.as_deref().map(until).transpose()?;
    let pinning = async { door.cache.pin(&path, until, body.wait).await.map_err(error::engine) };
    one(&told(door.unless_draining(pinning).await?))
}

fn until(text: &str) -> Result<PinEnd, Status> {
    let time = || DateTime::parse_from_rfc3339(text).map(|time| PinEnd::At(Timestamp(time.timestamp_micros())));
    parse_duration(text).map(PinEnd::In).or_else(|_| time()).map_err(|_| {
        error::wrong(format!(
            "pin: until {text:?} is neither a time as in \"2030-01-31T12:00:00Z\" nor a span as in \"7d\""
        ))
    })
}

fn told(loaded: Loaded) -> action::Loaded {
    action::Loaded {
        bytes: loaded.bytes,
        files: loaded.files,
        job: loaded.job,
        full: loaded.full,
        verified_bytes: loaded.read_back.0,
        damaged_bytes: loaded.read_back.1,
    }
}
