//! `policy_set`, `policy_get`, `policy_list`, `policy_explain`.
//!
//! Whoever may write at a path may set what concerns only what lies there. What takes room or work from everyone (a quota lifted,
//! more copies, a faster tier) takes an administrator.

use super::{Answer, Done, many, one, readable, writable};
use crate::{
    auth::{Principal, Right},
    error,
    service::{Door, engine},
};
use forebay_protocol::action::{self, Explained, PolicyAt};
use forebay_writeback::{
    Error,
    policy::{Change, Key},
};
use tonic::Status;

/// Keys that only an administrator sets.
const ADMINS: [Key; 6] = [
    Key::QuotaBytes,
    Key::QuotaFiles,
    Key::UserQuotaBytes,
    Key::UserQuotaFiles,
    Key::Replicas,
    Key::Tier,
];

pub(super) async fn set(door: &Door, by: &Principal, body: action::PolicySet) -> Result<Answer, Status> {
    let path = writable(by, &body.path)?;
    let parse = |(key, value): &(String, Option<serde_json::Value>)| Change::parse(key, value.as_ref());
    let changes: Result<Vec<Change>, _> = body.set.iter().map(parse).collect();
    let changes = changes.map_err(|invalid| error::engine(Error::from(invalid)))?;
    for change in &changes {
        let key = match change {
            Change::Put(value) => value.key(),
            Change::Take(key) => *key,
        };
        if ADMINS.contains(&key) {
            by.must_be_admin(&format!("set {}", key.name()))?;
        }
    }
    let cache = door.cache.clone();
    let set = async move { cache.policy_set(&path, changes).await.map_err(error::engine) };
    door.finish("policy_set", set).await?;
    one(&Done {})
}

pub(super) fn get(door: &Door, by: &Principal, body: &action::At) -> Result<Answer, Status> {
    one(&door.cache.policy_get(&readable(by, &body.path)?).json())
}

/// What is set under a path, of paths that the caller may read: they need not be able to read the path itself.
pub(super) fn list(door: &Door, by: &Principal, body: &action::PolicyList) -> Result<Answer, Status> {
    let path = body.path.as_ref().map(engine::path).transpose()?.unwrap_or_default();
    let mut told = Vec::new();
    for (path, set) in door.cache.policy_list(&path) {
        let path = engine::wire_path(&path)?;
        if by.may(Right::Read, &path).is_ok() {
            told.push(PolicyAt { path, set: set.json() });
        }
    }
    many(told)
}

pub(super) fn explain(door: &Door, by: &Principal, body: &action::At) -> Result<Answer, Status> {
    let lines = door.cache.policy_explain(&readable(by, &body.path)?);
    let told = lines.into_iter().map(|line| {
        let from = match &line.from {
            Some(path) => engine::wire_path(path)?.to_string(),
            None => "default".to_owned(),
        };
        Ok(Explained {
            key: line.value.key().name().to_owned(),
            value: line.value.json(),
            from,
        })
    });
    many(told.collect::<Result<Vec<_>, Status>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_and_the_engine_know_the_same_keys() {
        let names: Vec<&str> = Key::ALL.iter().map(|key| key.name()).collect();
        assert_eq!(names, action::POLICY_KEYS);
    }
}
