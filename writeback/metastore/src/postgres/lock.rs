//! Which advisory locks a transaction takes, and in which order.
//!
//! All processes of a cluster must agree on this; it is part of the format.

use crate::{Check, Tx, limits::op_key};
use std::collections::BTreeMap;

/// Most locks of one transaction: what PostgreSQL's lock table holds per connection with its default settings.
pub(super) const LOCKS_MAX: usize = 64;
/// Everyone holds this one shared; a transaction of many keys holds it alone.
const ROOT: i64 = 0x466f_7265_6261_7900;

/// The locks of a transaction, in the order in which to take them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Locks {
    pub(super) ids: Vec<i64>,
    pub(super) exclusive: Vec<bool>,
}

impl Locks {
    pub(super) fn of(tx: &Tx) -> Self {
        let mut wanted = BTreeMap::new();
        let mut want = |id: i64, exclusive: bool| *wanted.entry(id).or_insert(false) |= exclusive;
        for check in &tx.checks {
            match check {
                Check::Absent(key) | Check::At(key, _) | Check::EmptyRange { guard: key, .. } => {
                    want(id(b'k', key), true)
                }
                Check::SharedAt(key, _) => want(id(b'k', key), false),
            }
        }
        tx.ops.iter().for_each(|op| want(id(b'k', op_key(op)), true));
        // The same transaction sent twice must not be evaluated twice at once.
        tx.token.iter().for_each(|token| want(id(b't', token), true));
        if wanted.len() >= LOCKS_MAX {
            return Self {
                ids: vec![ROOT],
                exclusive: vec![true],
            };
        }
        let (mut ids, mut exclusive) = (vec![ROOT], vec![false]);
        ids.extend(wanted.keys());
        exclusive.extend(wanted.values());
        Self { ids, exclusive }
    }
}

/// FNV-1a with a final mix.
fn id(kind: u8, bytes: &[u8]) -> i64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = std::iter::once(&kind).chain(bytes).fold(0xcbf2_9ce4_8422_2325, step);
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let id = i64::from_ne_bytes((mixed ^ (mixed >> 29)).to_ne_bytes());
    // Whoever holds the root shared must not ask for it alone.
    if id == ROOT { ROOT + 1 } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Op, Version};
    use bytes::Bytes;

    #[test]
    fn locks_come_in_one_order_and_the_stronger_wish_wins() {
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        let checks = vec![
            Check::SharedAt(a.clone(), Version(1)),
            Check::SharedAt(b.clone(), Version(1)),
        ];
        let locks = Locks::of(&Tx {
            token: None,
            checks,
            ops: vec![Op::Delete(b.clone())],
        });
        assert_eq!((locks.ids[0], locks.exclusive[0]), (ROOT, false));
        assert!(locks.ids[1..].is_sorted());
        let exclusive =
            |key: &Bytes| locks.exclusive[locks.ids.iter().position(|&lock| lock == id(b'k', key)).unwrap()];
        assert_eq!((exclusive(&a), exclusive(&b)), (false, true));
    }

    #[test]
    fn many_keys_take_one_lock() {
        let ops = (0..100_u32)
            .map(|key| Op::Delete(Bytes::copy_from_slice(&key.to_be_bytes())))
            .collect();
        let locks = Locks::of(&Tx { ops, ..Tx::default() });
        assert_eq!(
            locks,
            Locks {
                ids: vec![ROOT],
                exclusive: vec![true]
            }
        );
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(id(b'k', b"forebay"), ID_OF_FOREBAY);
        assert_ne!(id(b'k', b"0123456789abcdef"), id(b't', b"0123456789abcdef"));
    }

    const ID_OF_FOREBAY: i64 = 842_644_204_086_135_623;
}
