//! A transaction as the arguments of the commit function.

use super::lock::Locks;
use crate::{Check, Op, Tx, Version, prefix_end};
use tokio_postgres::types::ToSql;

/// The arguments, in columns.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    token: Option<&'a [u8]>,
    locks: Locks,
    /// Keys that must be at a version (0: absent), and the index of the check that says so.
    key: Vec<&'a [u8]>,
    at: Vec<i64>,
    key_check: Vec<i32>,
    /// Ranges that must be empty.
    from: Vec<&'a [u8]>,
    to: Vec<Vec<u8>>,
    range_check: Vec<i32>,
    put: Vec<&'a [u8]>,
    value: Vec<&'a [u8]>,
    delete: Vec<&'a [u8]>,
}

impl<'a> Request<'a> {
    pub(super) fn new(tx: &'a Tx) -> Self {
        let token = tx.token.as_ref().map(|token| &token[..]);
        let mut request = Self {
            token,
            locks: Locks::of(tx),
            ..Self::default()
        };
        for (index, check) in (0..).zip(&tx.checks) {
            request.check(index, check);
        }
        for op in &tx.ops {
            match op {
                Op::Put(key, value) => {
                    request.put.push(key);
                    request.value.push(value);
                }
                Op::Delete(key) => request.delete.push(key),
            }
        }
        request
    }

    fn check(&mut self, index: i32, check: &'a Check) {
        let (key, at) = match check {
            Check::Absent(key) => (key, 0),
            Check::At(key, at) | Check::SharedAt(key, at) => (key, version(*at)),
            Check::EmptyRange { prefix, guard, at } => {
                self.from.push(prefix);
                self.to.push(prefix_end(prefix).to_vec());
                self.range_check.push(index);
                (guard, version(*at))
            }
        };
        self.key.push(key);
        self.at.push(at);
        self.key_check.push(index);
    }

    /// In the order of `schema::COMMIT`.
    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 12] {
        let Self {
            token,
            locks,
            key,
            at,
            key_check,
            from,
            to,
            range_check,
            put,
            value,
            delete,
        } = self;
        let Locks { ids, exclusive } = locks;
        [
            token,
            ids,
            exclusive,
            key,
            at,
            key_check,
            from,
            to,
            range_check,
            put,
            value,
            delete,
        ]
    }
}

/// A version that no key can have does not hold.
fn version(at: Version) -> i64 {
    i64::try_from(at.0).ok().filter(|&at| at > 0).unwrap_or(-1)
}
