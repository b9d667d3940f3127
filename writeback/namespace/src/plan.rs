//! Checks and writes of one transaction.

use crate::{Ino, Inode, NsError, Result, keys, row, row::Stored};
use bytes::Bytes;
use forebay_metastore::{Check, Key, LIMITS, Op, Token, Tx};
use std::collections::{BTreeMap, BTreeSet};

/// Checks and ops to go into one transaction; plans of several operations may be merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Conditions.
    pub checks: Vec<Check>,
    /// Writes.
    pub ops: Vec<Op>,
}

impl Plan {
    /// Whether it has nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds a condition of the caller's.
    pub fn check(&mut self, check: Check) -> &mut Self {
        self.checks.push(check);
        self
    }

    /// Adds a write of the caller's, to a table of its own.
    pub fn put(&mut self, key: Key, value: Bytes) -> &mut Self {
        self.ops.push(Op::Put(key, value));
        self
    }

    /// Adds a removal of the caller's, in a table of its own.
    pub fn delete(&mut self, key: Key) -> &mut Self {
        self.ops.push(Op::Delete(key));
        self
    }

    /// Takes `other` in. Plans that were made apart may share conditions (kept once, the stricter of two) but not writes, and
    /// must have seen the same versions: [`NsError::Invalid`] when a key is written by both, [`NsError::Conflict`] when they
    /// saw different things.
    pub fn merge(&mut self, other: Plan) -> Result<()> {
        let written: BTreeSet<&Key> = self.ops.iter().map(op_key).collect();
        if let Some(op) = other.ops.iter().find(|op| written.contains(op_key(op))) {
            return Err(NsError::Invalid(format!(
                "two plans write the key {}",
                op_key(op).escape_ascii()
            )));
        }
        let mut merged = Self {
            checks: std::mem::take(&mut self.checks),
            ops: std::mem::take(&mut self.ops),
        };
        merged.checks.extend(other.checks);
        merged.ops.extend(other.ops);
        merged.checks = distinct(merged.checks)?;
        *self = merged;
        Ok(())
    }

    /// Changes the inode that this plan writes: the engine's hand on `content` after the plan was made.
    /// [`NsError::Invalid`] when the plan does not write that inode.
    pub fn amend(&mut self, ino: Ino, change: impl FnOnce(&mut Inode)) -> Result<()> {
        let key = keys::inode(ino);
        let value = self.ops.iter_mut().find_map(|op| match op {
            Op::Put(k, value) if *k == key => Some(value),
            _ => None,
        });
        let value = value.ok_or_else(|| NsError::Invalid(format!("the plan does not write inode {}", ino.0)))?;
        let mut stored: Stored = row::decode(value)?;
        change(&mut stored.inode);
        *value = row::encode(&stored);
        Ok(())
    }

    /// The inode that this plan writes, as it stands in it.
    pub fn inode(&self, ino: Ino) -> Result<Option<Inode>> {
        let key = keys::inode(ino);
        let value = self.ops.iter().find_map(|op| match op {
            Op::Put(k, value) if *k == key => Some(value),
            _ => None,
        });
        let stored: Option<Stored> = value.map(|value| row::decode(value)).transpose()?;
        Ok(stored.map(|stored| stored.inode))
    }

    /// Keys as a transaction counts them: checks and ops together.
    pub fn keys(&self) -> usize {
        self.checks.len() + self.ops.len()
    }

    /// The transaction: everything in key order. [`NsError::TooMany`] when it breaks a limit of the metastore.
    pub fn into_tx(self, token: Option<Token>) -> Result<Tx> {
        let mut tx = Tx {
            token,
            checks: distinct(self.checks)?,
            ops: self.ops,
        };
        tx.ops.sort_by(|a, b| op_key(a).cmp(op_key(b)));
        if let Some(pair) = tx.ops.windows(2).find(|pair| op_key(&pair[0]) == op_key(&pair[1])) {
            return Err(NsError::Invalid(format!(
                "a plan writes the key {} twice",
                op_key(&pair[0]).escape_ascii()
            )));
        }
        within_limits(&tx)?;
        Ok(tx)
    }
}

/// The key that an op writes.
fn op_key(op: &Op) -> &Key {
    match op {
        Op::Put(key, _) | Op::Delete(key) => key,
    }
}

/// The key by which a check is ordered, and a rank that puts the stricter check of one key first.
fn check_order(check: &Check) -> (&Key, u8) {
    match check {
        Check::Absent(key) | Check::At(key, _) => (key, 0),
        Check::SharedAt(key, _) => (key, 1),
        Check::EmptyRange { prefix, .. } => (prefix, 2),
    }
}

/// The checks in key order, each key once. A guard is not checked again beside its range.
fn distinct(mut checks: Vec<Check>) -> Result<Vec<Check>> {
    checks.sort_by(|a, b| check_order(a).cmp(&check_order(b)));
    let mut kept: Vec<Check> = Vec::with_capacity(checks.len());
    for check in checks {
        match kept.last() {
            Some(last) if check_order(last).0 == check_order(&check).0 => {
                if seen(last) != seen(&check) {
                    return Err(NsError::Conflict);
                }
            }
            _ => kept.push(check),
        }
    }
    drop_guarded(kept)
}

/// What a check says of its key: `None` absent, else the version.
fn seen(check: &Check) -> Option<u64> {
    match check {
        Check::Absent(_) => None,
        Check::At(_, version) | Check::SharedAt(_, version) | Check::EmptyRange { at: version, .. } => Some(version.0),
    }
}

fn drop_guarded(checks: Vec<Check>) -> Result<Vec<Check>> {
    let guards: BTreeMap<Key, u64> = checks
        .iter()
        .filter_map(|check| match check {
            Check::EmptyRange { guard, at, .. } => Some((guard.clone(), at.0)),
            _ => None,
        })
        .collect();
    let mut kept = Vec::with_capacity(checks.len());
    for check in checks {
        match &check {
            Check::Absent(key) | Check::At(key, _) | Check::SharedAt(key, _) if guards.contains_key(key) => {
                if seen(&check) != guards.get(key).copied() {
                    return Err(NsError::Conflict);
                }
            }
            _ => kept.push(check),
        }
    }
    Ok(kept)
}

fn within_limits(tx: &Tx) -> Result<()> {
    let keys = tx.checks.len() + tx.ops.len();
    if keys > LIMITS.tx_keys_max {
        return Err(NsError::TooMany(format!("{keys} keys, at most {}", LIMITS.tx_keys_max)));
    }
    let mut bytes = tx.checks.iter().map(|check| check_order(check).0.len()).sum::<usize>();
    for op in &tx.ops {
        bytes += op_key(op).len();
        if let Op::Put(_, value) = op {
            if value.len() > LIMITS.value_bytes_max {
                return Err(NsError::TooMany(format!(
                    "a row of {} bytes, at most {}",
                    value.len(),
                    LIMITS.value_bytes_max
                )));
            }
            bytes += value.len();
        }
    }
    if bytes > LIMITS.tx_bytes_max {
        return Err(NsError::TooMany(format!(
            "{bytes} bytes, at most {}",
            LIMITS.tx_bytes_max
        )));
    }
    Ok(())
}
