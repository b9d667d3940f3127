//! The bounds that all engines share, checked before anything is sent to an engine.

use crate::{Check, CommitError, Key, LIMITS, MetaError, Op, Tx};
use std::collections::HashSet;

/// Longest name of a counter, bytes.
const COUNTER_NAME_MAX: usize = 64;
/// Most numbers in one allocation; engines count with 63 bits.
const ALLOCATE_MAX: u64 = 1 << 62;

/// Checks the bounds of a transaction; answers its size in bytes.
pub(crate) fn check_tx(tx: &Tx) -> Result<usize, CommitError> {
    let refuse = |text: String| Err(CommitError::Limit(text));
    let count = tx.checks.len() + tx.ops.len();
    if count > LIMITS.tx_keys_max {
        return refuse(format!("{count} checks and ops, at most {} fit", LIMITS.tx_keys_max));
    }
    let mut bytes = 0;
    let mut written = HashSet::with_capacity(tx.ops.len());
    for key in tx.checks.iter().flat_map(check_keys).chain(tx.ops.iter().map(op_key)) {
        check_key(key).map_err(CommitError::Limit)?;
        bytes += key.len();
    }
    for op in &tx.ops {
        if !written.insert(op_key(op)) {
            return refuse(format!("key {:?} is written twice", op_key(op)));
        }
        let value = if let Op::Put(_, value) = op { value.len() } else { 0 };
        if value > LIMITS.value_bytes_max {
            return refuse(format!(
                "a value of {value} bytes, at most {} fit",
                LIMITS.value_bytes_max
            ));
        }
        bytes += value;
    }
    if bytes > LIMITS.tx_bytes_max {
        return refuse(format!("{bytes} bytes, at most {} fit", LIMITS.tx_bytes_max));
    }
    Ok(bytes)
}

/// Checks the bounds of a read by keys.
pub(crate) fn check_get(keys: &[Key]) -> Result<(), MetaError> {
    if keys.len() > LIMITS.tx_keys_max {
        return Err(MetaError::Limit(format!(
            "{} keys, at most {} fit",
            keys.len(),
            LIMITS.tx_keys_max
        )));
    }
    keys.iter().try_for_each(check_key).map_err(MetaError::Limit)
}

/// Checks the bounds of an allocation.
pub(crate) fn check_allocate(counter: &str, count: u64) -> Result<(), MetaError> {
    if counter.is_empty() || counter.len() > COUNTER_NAME_MAX || counter.contains('\0') {
        return Err(MetaError::Limit(format!(
            "a counter's name has 1 to {COUNTER_NAME_MAX} bytes, none of them NUL"
        )));
    }
    if count > ALLOCATE_MAX {
        return Err(MetaError::Limit(format!(
            "{count} numbers at once, at most {ALLOCATE_MAX} are given"
        )));
    }
    Ok(())
}

/// A counter has reached the end of the numbers.
pub(crate) fn counter_exhausted(counter: &str) -> MetaError {
    MetaError::Limit(format!("counter {counter} has no such many numbers left"))
}

/// The key an op writes.
pub(crate) fn op_key(op: &Op) -> &Key {
    match op {
        Op::Put(key, _) | Op::Delete(key) => key,
    }
}

fn check_keys(check: &Check) -> impl Iterator<Item = &Key> {
    let (first, second) = match check {
        Check::Absent(key) | Check::At(key, _) | Check::SharedAt(key, _) => (key, None),
        Check::EmptyRange { prefix, guard, .. } => (prefix, Some(guard)),
    };
    std::iter::once(first).chain(second)
}

fn check_key(key: &Key) -> Result<(), String> {
    if key.len() <= LIMITS.key_bytes_max {
        return Ok(());
    }
    Err(format!(
        "a key of {} bytes, at most {} fit",
        key.len(),
        LIMITS.key_bytes_max
    ))
}
