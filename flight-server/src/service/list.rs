//! ListFlights: the datasets under a prefix, as far as the caller may read them.

use super::{Answer, Call, Door, engine, info::Read};
use crate::{
    auth::{Principal, Right},
    error,
    reply::Said,
};
use arrow_flight::{Criteria, FlightDescriptor};
use forebay_protocol::{command::ReadCommand, path::WirePath};
use forebay_writeback::dataset::DatasetPlan;
use futures::StreamExt;
use std::sync::Arc;
use tonic::Status;

pub(super) async fn flights(door: Arc<Door>, call: Call) -> Result<Answer, Status> {
    let criteria: Criteria = call.messages.only().await?;
    let prefix = prefix(&criteria.expression)?;
    let principal = call.principal;
    let found = door.cache.datasets(&prefix);
    let said = found.filter_map(move |plan| {
        let told = match plan {
            Ok(plan) => tell(&door, &principal, plan).transpose(),
            Err(e) => Some(Err(error::engine(e))),
        };
        std::future::ready(told)
    });
    Ok(Answer::many(said))
}

/// One dataset, unless the caller may not know of it.
fn tell(door: &Door, principal: &Principal, plan: DatasetPlan) -> Result<Option<Said>, Status> {
    let path = engine::wire_path(&plan.path)?;
    if principal.may(Right::Read, &path).is_err() {
        return Ok(None);
    }
    let descriptor: FlightDescriptor = ReadCommand::new(path.clone()).to_descriptor();
    let info = Read::listed(path, plan).info(door, principal, descriptor)?;
    Said::message(&info).map(Some)
}

/// The prefix in decoded bytes. It may end within a name, and with a slash.
fn prefix(criteria: &[u8]) -> Result<Vec<u8>, Status> {
    let text = std::str::from_utf8(criteria).map_err(|_| error::wrong("the criteria are a path prefix in UTF-8"))?;
    if text.is_empty() || text == "/" {
        return Ok(b"/".to_vec());
    }
    let path = WirePath::parse(text).map_err(error::invalid)?;
    let mut bytes = path.as_bytes().to_vec();
    if text.ends_with('/') {
        bytes.push(b'/');
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_decoded_and_keep_their_slash() {
        for (text, bytes) in [
            ("", "/"),
            ("/", "/"),
            ("/t", "/t"),
            ("/t/", "/t/"),
            ("/t/a%20b", "/t/a b"),
        ] {
            assert_eq!(prefix(text.as_bytes()).unwrap(), bytes.as_bytes(), "{text}");
        }
        assert!(prefix(b"t").is_err() && prefix(b"/\xff").is_err() && prefix(b"/../x").is_err());
    }
}
