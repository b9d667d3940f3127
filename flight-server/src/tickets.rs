//! What a ticket says: one endpoint of one read, bound to the principal it was given to. Signed by a key in the data folder, so that
//! tickets survive a restart; opaque to clients.

use crate::{error, server::StartError, service::view::View};
use bytes::Bytes;
use forebay_protocol::{path::WirePath, ticket::Signer};
use forebay_runtime::{
    chance::{Chance, OsChance},
    clock::ClockRef,
    task,
};
use forebay_writeback::dataset::PartRef;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};
use tonic::Status;

/// How long a ticket is good.
const GOOD_FOR: Duration = Duration::from_secs(3600);
/// How long a bearer token from Handshake is good.
const BEARER_GOOD_FOR: Duration = Duration::from_secs(24 * 3600);
/// How long a poll's descriptor is good: a session may take days.
const POLL_GOOD_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// The key's file in the data folder.
const KEY_FILE: &str = "tickets.key";

/// First byte of what is signed: one kind can not be shown in place of another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ticket = 1,
    Bearer = 2,
    Poll = 3,
}

/// One endpoint of one read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ticket {
    /// What is read; the permission is asked again when the ticket is shown.
    pub(crate) path: WirePath,
    /// The directory of the version that it counts in or names: another dataset may have the path when it is shown, whose versions are
    /// numbered alike.
    #[serde(default)]
    pub(crate) directory: Option<u64>,
    /// Which piece of it.
    pub(crate) piece: Piece,
    /// Columns, filter and limit.
    pub(crate) view: View,
}

/// Which piece of what a path holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Piece {
    /// One part, from a batch on.
    Part {
        /// The plan it is of, for the schema.
        of: State,
        /// Names the schema among those lately seen, so that most reads need no plan.
        schema: u64,
        /// The part.
        part: PartRef,
        /// Batches to skip.
        skip: u64,
    },
    /// All parts in order, from a batch on: what a limit needs.
    Whole {
        /// Which state.
        of: State,
        /// Batches to skip.
        skip: u64,
    },
    /// The head version and the live session, as it grows.
    Follow {
        /// Only this session.
        session: Option<String>,
        /// A resume token.
        from: Option<String>,
    },
    /// A range of a file.
    File {
        /// First byte.
        offset: u64,
        /// Most bytes.
        length: Option<u64>,
    },
}

/// Which state of a dataset, as the engine's `At`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    Head,
    Version(u64),
    Session(String),
}

/// Where a poller stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Poll {
    /// The command it began with.
    pub(crate) command: Vec<u8>,
    /// The session it follows.
    pub(crate) session: String,
    /// The version whose parts come first, if any do.
    pub(crate) head: Option<u64>,
    /// The directory of that version.
    #[serde(default)]
    pub(crate) directory: Option<u64>,
    /// Endpoints it was told.
    pub(crate) told: u64,
}

/// Gives out what it can recognise again.
#[derive(Clone, Debug)]
pub(crate) struct Office {
    signer: Signer,
    clock: ClockRef,
}

impl Office {
    /// Reads the key of the data folder; the first time it makes one.
    pub(crate) async fn open(data: &Path, clock: ClockRef) -> Result<Self, StartError> {
        let path = data.join(KEY_FILE);
        let at = path.clone();
        let key = task::blocking(move || read_or_make_key(&at))
            .await
            .map_err(|error| StartError::File {
                what: "the key that signs tickets",
                path,
                reason: error.to_string(),
            })?;
        Ok(Self::new(key, clock))
    }

    pub(crate) fn new(key: [u8; 32], clock: ClockRef) -> Self {
        Self {
            signer: Signer::new(key),
            clock,
        }
    }

    pub(crate) fn ticket(&self, principal: &str, ticket: &Ticket) -> Bytes {
        self.sign(Kind::Ticket, GOOD_FOR, principal, ticket)
    }

    /// The ticket and whom it was given to.
    pub(crate) fn read_ticket(&self, shown: &Bytes) -> Result<(Ticket, String), Status> {
        self.read(Kind::Ticket, shown)
    }

    pub(crate) fn poll(&self, principal: &str, poll: &Poll) -> Bytes {
        self.sign(Kind::Poll, POLL_GOOD_FOR, principal, poll)
    }

    pub(crate) fn read_poll(&self, shown: &Bytes) -> Result<(Poll, String), Status> {
        self.read(Kind::Poll, shown)
    }

    /// A bearer token for `principal`; `stamp` must still be true of them when it is shown.
    pub(crate) fn bearer(&self, principal: &str, stamp: &str) -> Bytes {
        self.sign(Kind::Bearer, BEARER_GOOD_FOR, principal, &stamp)
    }

    /// The stamp of a bearer token and whose it is.
    pub(crate) fn read_bearer(&self, shown: &Bytes) -> Result<(String, String), Status> {
        self.read(Kind::Bearer, shown)
    }

    /// Seconds since the epoch until which a ticket given out now is good.
    pub(crate) fn ticket_expires(&self) -> u64 {
        self.now() + GOOD_FOR.as_secs()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().0 / 1_000_000).unwrap_or(0)
    }

    fn sign(&self, kind: Kind, good_for: Duration, principal: &str, what: &impl Serialize) -> Bytes {
        let mut payload = vec![kind as u8];
        serde_json::to_writer(&mut payload, what).expect("plain data has a JSON form");
        self.signer.sign(self.now() + good_for.as_secs(), principal, &payload)
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, kind: Kind, shown: &Bytes) -> Result<(T, String), Status> {
        let opened = self.signer.open(shown, self.now()).map_err(error::ticket)?;
        let other = || error::ticket(forebay_protocol::ticket::TicketError::Forged);
        let (found, what) = opened.payload.split_first().ok_or_else(other)?;
        if *found != kind as u8 {
            return Err(other());
        }
        // Signed by us and yet not understood: by an earlier or later version of us.
        let what = serde_json::from_slice(what).map_err(|_| other())?;
        Ok((what, opened.principal))
    }
}

fn read_or_make_key(path: &Path) -> io::Result<[u8; 32]> {
    match fs::read(path) {
        Ok(key) => key.try_into().map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "is not 32 bytes long; remove it to make a new one (old tickets end)",
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(path),
        Err(error) => Err(error),
    }
}

/// Writes a key beside its place and moves it there, so that a crash leaves none or a whole one.
fn make_key(path: &Path) -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    OsChance.fill(&mut key);
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_runtime::clock::{RealClock, SimClock, Timestamp};
    use tonic::Code;

    fn a_ticket() -> Ticket {
        Ticket {
            path: WirePath::parse("/a").unwrap(),
            directory: None,
            piece: Piece::File {
                offset: 3,
                length: None,
            },
            view: View::default(),
        }
    }

    #[tokio::test]
    async fn tickets_come_back_and_expire_and_are_no_bearer_tokens() {
        let clock = SimClock::new(Timestamp(1_700_000_000_000_000));
        let office = Office::new([7; 32], clock.clone());
        let ticket = office.ticket("ada", &a_ticket());
        assert_eq!(office.read_ticket(&ticket).unwrap(), (a_ticket(), "ada".to_owned()));
        assert_eq!(office.read_bearer(&ticket).unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(
            office.read_ticket(&office.bearer("ada", "s")).unwrap_err().code(),
            Code::Unauthenticated
        );
        clock.jump(3601 * 1_000_000);
        assert_eq!(office.read_ticket(&ticket).unwrap_err().code(), Code::Unauthenticated);
    }

    #[tokio::test]
    async fn the_key_survives_a_restart_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("forebay-tickets-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let ticket = Office::open(&folder, RealClock::shared())
            .await
            .unwrap()
            .ticket("", &a_ticket());
        let again = Office::open(&folder, RealClock::shared()).await.unwrap();
        assert_eq!(again.read_ticket(&ticket).unwrap().0, a_ticket());
        assert_eq!(
            fs::metadata(folder.join(KEY_FILE)).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::write(folder.join(KEY_FILE), b"short").unwrap();
        assert!(Office::open(&folder, RealClock::shared()).await.is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
