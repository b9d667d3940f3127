//! What every engine must do, as functions that panic when it does not. An engine's tests call [`conformance_tests!`](crate::conformance_tests)
//! with a [`Subject`].
//!
//! Not here, for only the engine's own tests can bring it about: durability over a crash, lost answers, full disks.

use crate::{
    Check, CommitError, Committed, Entry, Key, LIMITS, MetaError, MetaStoreRef, Op, Tx, Version,
    dump::{LoadError, Record, dump, load},
    mem::MemStore,
    prefix_end,
};
use async_trait::async_trait;
use bytes::Bytes;
use forebay_runtime::chance::{Chance, SeededChance};
use futures::{TryStreamExt, future::join_all};
use std::{collections::BTreeSet, fmt::Debug, future::Future, sync::Arc, time::Duration};

/// The engine under test.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A new and empty store.
    async fn fresh(&self) -> MetaStoreRef;
}

/// Makes one test of each case: `conformance_tests!(expression that gives a Subject)`.
#[macro_export]
macro_rules! conformance_tests {
    ($subject:expr) => {
        $crate::conformance_tests!($subject;
            a_commit_is_read_back_with_its_version
            each_kind_of_check_holds_and_fails_as_it_should
            a_failed_check_writes_nothing_and_is_named
            versions_grow_with_every_write
            scans_are_ordered_bounded_and_half_open
            gets_answer_in_the_order_of_asking
            limits_are_kept_and_what_is_within_them_passes
            a_token_makes_a_commit_exactly_once
            one_token_sent_many_times_at_once_takes_effect_once
            absent_keys_are_locked_too
            a_directory_is_never_removed_under_a_new_child
            shared_checks_let_many_through
            compare_and_set_loses_no_increment
            money_is_conserved_among_32_writers_and_nobody_waits_for_ever
            large_and_small_transactions_exclude_each_other
            counters_never_hand_out_a_number_twice
            a_dump_loads_into_another_engine_and_back
        );
    };
    ($subject:expr; $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::conformance::$case(&$subject).await;
            }
        )*
    };
}

fn key(text: impl AsRef<[u8]>) -> Key {
    Bytes::copy_from_slice(text.as_ref())
}

fn put(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Op {
    Op::Put(key(name), key(value))
}

fn tx(checks: impl Into<Vec<Check>>, ops: impl Into<Vec<Op>>) -> Tx {
    Tx {
        token: None,
        checks: checks.into(),
        ops: ops.into(),
    }
}

async fn read(store: &MetaStoreRef, name: impl AsRef<[u8]>) -> Option<Entry> {
    store
        .get(&[key(name)])
        .await
        .expect("a read works")
        .pop()
        .expect("one answer for one key")
}

async fn version(store: &MetaStoreRef, name: impl AsRef<[u8]>) -> Version {
    read(store, name).await.expect("the key is there").version
}

async fn commit(
    store: &MetaStoreRef,
    checks: impl Into<Vec<Check>>,
    ops: impl Into<Vec<Op>>,
) -> Result<Committed, CommitError> {
    store.commit(tx(checks, ops)).await
}

/// Like [`commit`], for one that must not fail.
async fn done(store: &MetaStoreRef, checks: impl Into<Vec<Check>>, ops: impl Into<Vec<Op>>) -> Version {
    commit(store, checks, ops)
        .await
        .expect("the commit goes through")
        .version
}

fn is_conflict<T: Debug>(result: &Result<T, CommitError>, at: usize) -> bool {
    matches!(result, Err(CommitError::Conflict(index)) if *index == at)
}

fn everything() -> std::ops::Range<Key> {
    Key::new()..prefix_end(&[])
}

/// Runs so many tasks at once; a deadlock fails the test instead of stopping it.
async fn together<F, T>(count: u64, task: impl Fn(u64) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    // Joined right here.
    let tasks = (0..count).map(|number| tokio::spawn(task(number)));
    let all = tokio::time::timeout(Duration::from_secs(120), join_all(tasks))
        .await
        .expect("nobody waits for ever");
    all.into_iter().map(|ended| ended.expect("no task panics")).collect()
}

/// Puts are read back, whatever their bytes; deletes remove.
pub async fn a_commit_is_read_back_with_its_version(subject: &dyn Subject) {
    let store = subject.fresh().await;
    assert_eq!(read(&store, "a").await, None);
    let binary = [0, 0xff, 0x27, b'\\', 0];
    let committed = done(
        &store,
        [],
        [
            put("a", "1"),
            put(binary, binary),
            put("", ""),
            Op::Delete(key("never there")),
        ],
    )
    .await;
    assert!(committed > Version(0));
    assert_eq!(
        read(&store, "a").await,
        Some(Entry {
            value: key("1"),
            version: committed
        })
    );
    assert_eq!(
        read(&store, binary).await,
        Some(Entry {
            value: key(binary),
            version: committed
        })
    );
    assert_eq!(
        read(&store, "").await,
        Some(Entry {
            value: key(""),
            version: committed
        })
    );
    let later = done(&store, [], [put("a", "2"), Op::Delete(key(binary))]).await;
    assert_eq!(
        read(&store, "a").await,
        Some(Entry {
            value: key("2"),
            version: later
        })
    );
    assert_eq!(read(&store, binary).await, None);
    assert_eq!(version(&store, "").await, committed, "untouched");
    done(&store, [], []).await;
}

/// A table: each kind of check, alone, against a key that is there, one that was changed and one that is not there.
pub async fn each_kind_of_check_holds_and_fails_as_it_should(subject: &dyn Subject) {
    let store = subject.fresh().await;
    let old = done(
        &store,
        [],
        [
            put("there", "1"),
            put("dir", ""),
            put("dir/child", ""),
            put("empty", ""),
            put("dirt", ""),
        ],
    )
    .await;
    let now = done(&store, [], [put("there", "2")]).await;
    let empty = |prefix: &str, guard: &str, at| Check::EmptyRange {
        prefix: key(prefix),
        guard: key(guard),
        at,
    };
    let table = [
        (Check::Absent(key("no")), true),
        (Check::Absent(key("there")), false),
        (Check::At(key("there"), now), true),
        (Check::At(key("there"), old), false),
        (Check::At(key("there"), Version(u64::MAX)), false),
        (Check::At(key("no"), now), false),
        (Check::At(key("no"), Version(0)), false),
        (Check::SharedAt(key("there"), now), true),
        (Check::SharedAt(key("there"), old), false),
        (Check::SharedAt(key("no"), Version(0)), false),
        (empty("dir/", "dir", old), false),
        (empty("empty/", "empty", old), true),
        (empty("empty/", "empty", now), false),
        (empty("empty/", "no", old), false),
        (empty("dir/child/", "dir", old), true),
        (empty("dirt", "dir", old), false),
    ];
    for (number, (check, holds)) in table.into_iter().enumerate() {
        let probe = format!("probe{number}");
        let result = commit(&store, [check.clone()], [put(&probe, "")]).await;
        assert_eq!(result.is_ok(), holds, "{check:?}: {result:?}");
        assert!(holds || is_conflict(&result, 0), "{check:?}: {result:?}");
        assert_eq!(read(&store, &probe).await.is_some(), holds, "{check:?}");
    }
}

/// All or nothing, and the index is that of a check which did not hold.
pub async fn a_failed_check_writes_nothing_and_is_named(subject: &dyn Subject) {
    let store = subject.fresh().await;
    let at = done(&store, [], [put("a", "old"), put("b", "old")]).await;
    let checks = [
        Check::At(key("a"), at),
        Check::SharedAt(key("b"), at),
        Check::Absent(key("a")),
        Check::At(key("b"), at),
    ];
    let result = commit(&store, checks, [put("a", "new"), put("c", "new"), Op::Delete(key("b"))]).await;
    assert!(is_conflict(&result, 2), "{result:?}");
    let rows = store.scan(everything(), 10).await.expect("a scan works");
    let rows: Vec<_> = rows
        .iter()
        .map(|(key, entry)| (&key[..], &entry.value[..], entry.version))
        .collect();
    assert_eq!(rows, [(&b"a"[..], &b"old"[..], at), (&b"b"[..], &b"old"[..], at)]);
}

/// Also over a delete, so that a version never comes back.
pub async fn versions_grow_with_every_write(subject: &dyn Subject) {
    let store = subject.fresh().await;
    let first = done(&store, [], [put("a", ""), put("b", "")]).await;
    assert_eq!((version(&store, "a").await, version(&store, "b").await), (first, first));
    let second = done(&store, [], [put("a", "")]).await;
    done(&store, [], [Op::Delete(key("a"))]).await;
    let third = done(&store, [Check::Absent(key("a"))], [put("a", "")]).await;
    assert!(first < second && second < third);
    assert!(is_conflict(&commit(&store, [Check::At(key("a"), second)], []).await, 0));
}

/// Byte order, `start <= key < end`, pages of the asked size.
pub async fn scans_are_ordered_bounded_and_half_open(subject: &dyn Subject) {
    let store = subject.fresh().await;
    let names: Vec<&[u8]> = vec![
        b"",
        b"\0",
        b"a",
        b"a\0",
        b"aa",
        b"b",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xff\xff",
    ];
    done(
        &store,
        [],
        names.iter().rev().map(|name| put(name, name)).collect::<Vec<_>>(),
    )
    .await;
    let keys = async |range: std::ops::Range<Key>, limit| {
        let rows = store.scan(range, limit).await.expect("a scan works");
        assert!(rows.iter().all(|(key, entry)| entry.value == key));
        rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(keys(everything(), 100).await, names);
    assert_eq!(keys(everything(), 3).await, names[..3]);
    assert_eq!(keys(key("a")..key("b"), 100).await, names[2..5]);
    assert_eq!(keys(key("a\0")..prefix_end(b"a"), 100).await, names[3..5]);
    assert_eq!(keys(key("b")..key("b"), 100).await, names[..0]);
    assert_eq!(keys(key("b")..key("a"), 100).await, names[..0]);
    assert_eq!(keys(everything(), 0).await, names[..0]);
    let many: Vec<_> = (0..2000_u32)
        .map(|number| {
            let name = [b"m", &number.to_be_bytes()[..]].concat();
            put(&name, &name)
        })
        .collect();
    for _ in 0..3 {
        done(&store, [], many.clone()).await;
    }
    assert_eq!(keys(everything(), usize::MAX).await.len(), names.len() + 2000);
}

/// One answer for each key, in order, also for a key that is asked for twice.
pub async fn gets_answer_in_the_order_of_asking(subject: &dyn Subject) {
    let store = subject.fresh().await;
    let names: Vec<String> = (0..100).map(|number| format!("{number:03}")).collect();
    done(&store, [], names.iter().map(|name| put(name, name)).collect::<Vec<_>>()).await;
    let mut asked: Vec<Key> = names.iter().rev().map(key).collect();
    asked.insert(50, key("no"));
    asked.push(key("007"));
    let entries = store.get(&asked).await.expect("a read works");
    let values: Vec<Option<Key>> = entries
        .into_iter()
        .map(|entry| entry.map(|entry| entry.value))
        .collect();
    let expected: Vec<Option<Key>> = asked
        .iter()
        .map(|key| Some(key.clone()).filter(|key| &key[..] != b"no"))
        .collect();
    assert_eq!(values, expected);
    assert!(store.get(&[]).await.expect("a read works").is_empty());
}

/// At the limit all is well, one beyond nothing is written.
pub async fn limits_are_kept_and_what_is_within_them_passes(subject: &dyn Subject) {
    let store = subject.fresh().await;
    let long_key = vec![b'k'; LIMITS.key_bytes_max];
    let big_value = vec![b'v'; LIMITS.value_bytes_max];
    done(&store, [], [put(&long_key, &big_value)]).await;
    assert_eq!(read(&store, &long_key).await.expect("it is there").value, big_value);
    let at = version(&store, &long_key).await;
    let number = |number: usize| Bytes::from((number as u32).to_be_bytes().to_vec());
    let many: Vec<Op> = (1..LIMITS.tx_keys_max)
        .map(|key| Op::Put(number(key), Bytes::new()))
        .collect();
    done(&store, [Check::At(key(&long_key), at)], many.clone()).await;
    for from in (1..LIMITS.tx_keys_max).step_by(LIMITS.scan_rows_max) {
        let rows = store.scan(number(from)..key("k"), LIMITS.scan_rows_max).await;
        let left = LIMITS.tx_keys_max - from;
        assert_eq!(rows.expect("a scan works").len(), left.min(LIMITS.scan_rows_max));
    }

    let full = || {
        (1..LIMITS.tx_bytes_max / LIMITS.value_bytes_max)
            .map(|key| Op::Put(number(key), big_value.clone().into()))
            .collect::<Vec<_>>()
    };
    done(&store, [], full()).await;
    let refused = [
        tx([], [put(vec![b'k'; LIMITS.key_bytes_max + 1], "")]),
        tx([Check::Absent(vec![b'k'; LIMITS.key_bytes_max + 1].into())], []),
        tx([], [put("v", vec![0; LIMITS.value_bytes_max + 1])]),
        tx([Check::Absent(key("x")), Check::Absent(key("y"))], many),
        tx(
            [],
            [full(), vec![put("v1", &big_value), put("v2", &big_value)]].concat(),
        ),
        tx([], [put("v", "1"), Op::Delete(key("v"))]),
    ];
    for (number, tx) in refused.into_iter().enumerate() {
        let result = store.commit(tx).await;
        assert!(
            matches!(result, Err(CommitError::Limit(_))),
            "number {number}: {result:?}"
        );
    }
    assert_eq!(read(&store, "v").await, None);
    let too_many = vec![key("a"); LIMITS.tx_keys_max + 1];
    assert!(matches!(store.get(&too_many).await, Err(MetaError::Limit(_))));
    assert!(matches!(store.allocate("", 1).await, Err(MetaError::Limit(_))));
}

/// The same token again answers the same version and does nothing, whatever has happened since. A conflict uses no token up.
pub async fn a_token_makes_a_commit_exactly_once(subject: &dyn Subject) {
    let store = subject.fresh().await;
    let token = Some(*b"0123456789abcdef");
    let first = Tx {
        token,
        ..tx([Check::Absent(key("a"))], [put("a", "1")])
    };
    let version = store.commit(first.clone()).await.expect("the commit goes through");
    assert_eq!(store.commit(first.clone()).await.expect("known by its token"), version);
    done(&store, [], [put("a", "2")]).await;
    assert_eq!(store.commit(first).await.expect("known by its token"), version);
    assert_eq!(read(&store, "a").await.expect("it is there").value, "2");

    let token = Some(*b"fedcba9876543210");
    let second = Tx {
        token,
        ..tx([Check::Absent(key("a"))], [put("b", "1")])
    };
    assert!(is_conflict(&store.commit(second.clone()).await, 0));
    done(&store, [], [Op::Delete(key("a"))]).await;
    store.commit(second).await.expect("the token was not used up");
}

/// As a client does that retries while the first attempt is still under way.
pub async fn one_token_sent_many_times_at_once_takes_effect_once(subject: &dyn Subject) {
    let store = subject.fresh().await;
    for round in 0..10_u8 {
        let results = together(8, |_| {
            let store = Arc::clone(&store);
            let ops = [put([round], "")];
            async move {
                store
                    .commit(Tx {
                        token: Some([round; 16]),
                        ..tx([Check::Absent(key([round]))], ops)
                    })
                    .await
            }
        });
        let versions: Vec<_> = results
            .await
            .into_iter()
            .map(|result| result.expect("known by its token").version)
            .collect();
        assert!(versions.iter().all(|&other| other == versions[0]), "{versions:?}");
        assert_eq!(version(&store, [round]).await, versions[0]);
    }
}

/// Two transactions that each require the other's key to be absent: exactly one wins.
pub async fn absent_keys_are_locked_too(subject: &dyn Subject) {
    let store = subject.fresh().await;
    for round in 0..50 {
        let won = together(2, |me| {
            let store = Arc::clone(&store);
            let (mine, theirs) = (format!("{round}/{me}"), format!("{round}/{}", 1 - me));
            async move {
                commit(&store, [Check::Absent(key(theirs))], [put(mine, "")])
                    .await
                    .is_ok()
            }
        });
        assert_eq!(won.await.into_iter().filter(|&won| won).count(), 1, "round {round}");
    }
}

/// The phantom of rmdir: of a removal and the creations that run beside it, either the removal or the creations succeed.
pub async fn a_directory_is_never_removed_under_a_new_child(subject: &dyn Subject) {
    let store = subject.fresh().await;
    let (mut removed, mut created) = (0, 0);
    for round in 0..40 {
        let dir = format!("d{round}");
        let at = done(&store, [], [put(&dir, "")]).await;
        let results = together(4, |me| {
            let (store, dir) = (Arc::clone(&store), dir.clone());
            async move {
                let guard = key(&dir);
                if me == round % 4 {
                    let empty = Check::EmptyRange {
                        prefix: key(format!("{dir}/")),
                        guard: guard.clone(),
                        at,
                    };
                    return (true, commit(&store, [empty], [Op::Delete(guard)]).await.is_ok());
                }
                let child = format!("{dir}/{me}");
                let checks = [Check::SharedAt(guard, at), Check::Absent(key(&child))];
                (false, commit(&store, checks, [put(&child, "")]).await.is_ok())
            }
        });
        let results = results.await;
        let removal = results.contains(&(true, true));
        let creations = results.iter().filter(|&&result| result == (false, true)).count();
        assert_eq!(creations, if removal { 0 } else { 3 }, "round {round}: {results:?}");
        let children = store
            .scan(key(format!("{dir}/"))..key(format!("{dir}0")), 10)
            .await
            .expect("a scan works");
        assert_eq!(
            (children.len(), read(&store, &dir).await.is_none()),
            (creations, removal),
            "round {round}"
        );
        removed += u32::from(removal);
        created += u32::from(!removal);
    }
    println!("{removed} removals and {created} creations came first");
}

/// Creations in one directory do not fail each other, while a change of the directory itself fails them.
pub async fn shared_checks_let_many_through(subject: &dyn Subject) {
    let store = subject.fresh().await;
    let at = done(&store, [], [put("dir", "")]).await;
    let create = |me: u64| {
        let store = Arc::clone(&store);
        async move {
            commit(
                &store,
                [Check::SharedAt(key("dir"), at)],
                [put(format!("dir/{me}"), "")],
            )
            .await
        }
    };
    assert!(together(32, create).await.iter().all(Result::is_ok));
    done(&store, [Check::At(key("dir"), at)], [put("dir", "renamed")]).await;
    assert!(together(4, create).await.iter().all(|result| is_conflict(result, 0)));
}

/// Optimistic increments of one number by many.
pub async fn compare_and_set_loses_no_increment(subject: &dyn Subject) {
    let store = subject.fresh().await;
    done(&store, [], [put("n", "0")]).await;
    together(8, |_| {
        let store = Arc::clone(&store);
        async move {
            for _ in 0..10 {
                loop {
                    let entry = read(&store, "n").await.expect("it is there");
                    let next = number(&entry.value) + 1;
                    let result = commit(
                        &store,
                        [Check::At(key("n"), entry.version)],
                        [put("n", next.to_string())],
                    )
                    .await;
                    if result.is_ok() {
                        break;
                    }
                    assert!(is_conflict(&result, 0), "{result:?}");
                }
            }
        }
    })
    .await;
    assert_eq!(number(&read(&store, "n").await.expect("it is there").value), 80);
}

fn number(value: &[u8]) -> i64 {
    std::str::from_utf8(value).expect("text").parse().expect("a number")
}

/// Random transfers between few accounts with keys in random order, shared checks on others, and readers that must see every
/// transfer whole.
pub async fn money_is_conserved_among_32_writers_and_nobody_waits_for_ever(subject: &dyn Subject) {
    const ACCOUNTS: u64 = 10;
    let seed = 32;
    println!("seed {seed}");
    let store = subject.fresh().await;
    done(
        &store,
        [],
        (0..ACCOUNTS)
            .map(|account| put(format!("acc{account}"), "100"))
            .collect::<Vec<_>>(),
    )
    .await;
    let transfers = together(32, |me| {
        let (store, chance) = (Arc::clone(&store), SeededChance::new(seed + me));
        async move {
            let mut transfers = 0;
            for _ in 0..12 {
                let [from, to, third] = distinct(&*chance, ACCOUNTS).map(|account| key(format!("acc{account}")));
                let entries = store
                    .get(&[from.clone(), to.clone(), third.clone()])
                    .await
                    .expect("a read works");
                let entries: Vec<Entry> = entries.into_iter().map(|entry| entry.expect("it is there")).collect();
                let amount = chance.below(50) as i64;
                let ops = [
                    put(&from, (number(&entries[0].value) - amount).to_string()),
                    put(&to, (number(&entries[1].value) + amount).to_string()),
                ];
                let checks = [
                    Check::SharedAt(third, entries[2].version),
                    Check::At(to, entries[1].version),
                    Check::At(from, entries[0].version),
                ];
                match commit(&store, checks, ops).await {
                    Ok(_) => transfers += 1,
                    Err(CommitError::Conflict(_)) => {}
                    Err(error) => panic!("{error}"),
                }
                let rows = store.scan(key("acc")..key("acd"), 100).await.expect("a scan works");
                let sum: i64 = rows.iter().map(|(_, entry)| number(&entry.value)).sum();
                assert_eq!(sum, 100 * ACCOUNTS as i64, "a scan saw half a transfer");
            }
            transfers
        }
    });
    let transfers: u32 = transfers.await.into_iter().sum();
    assert!(transfers >= 12, "only {transfers} transfers went through");
}

fn distinct(chance: &dyn Chance, bound: u64) -> [u64; 3] {
    loop {
        let numbers = [(); 3].map(|()| chance.below(bound));
        if numbers.iter().collect::<BTreeSet<_>>().len() == 3 {
            return numbers;
        }
    }
}

/// A transaction of hundreds of keys against transactions of one of them.
pub async fn large_and_small_transactions_exclude_each_other(subject: &dyn Subject) {
    const KEYS: u64 = 300;
    let store = subject.fresh().await;
    let name = |number: u64| format!("k{number:03}");
    done(
        &store,
        [],
        (0..KEYS).map(|number| put(name(number), "0")).collect::<Vec<_>>(),
    )
    .await;
    together(6, |me| {
        let store = Arc::clone(&store);
        async move {
            // Two raise all keys by one, four raise one key each; every loser tries again.
            let mine: Vec<Key> = if me < 2 {
                (0..KEYS).map(|number| key(name(number))).collect()
            } else {
                vec![key(name(me))]
            };
            for _ in 0..5 {
                loop {
                    let entries = store.get(&mine).await.expect("a read works");
                    let entries = entries.into_iter().map(|entry| entry.expect("it is there"));
                    let (checks, ops): (Vec<_>, Vec<_>) = mine
                        .iter()
                        .zip(entries)
                        .map(|(key, entry)| {
                            (
                                Check::At(key.clone(), entry.version),
                                put(key, (number(&entry.value) + 1).to_string()),
                            )
                        })
                        .unzip();
                    match commit(&store, checks, ops).await {
                        Ok(_) => break,
                        Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
    })
    .await;
    for (place, (_, entry)) in store
        .scan(everything(), 1000)
        .await
        .expect("a scan works")
        .into_iter()
        .enumerate()
    {
        assert_eq!(
            number(&entry.value),
            if (2..6).contains(&place) { 15 } else { 10 },
            "key {place}"
        );
    }
}

/// Whatever the sizes and however many ask.
pub async fn counters_never_hand_out_a_number_twice(subject: &dyn Subject) {
    let store = subject.fresh().await;
    assert_eq!(store.counters().await.expect("a read works"), []);
    let ranges = together(8, |me| {
        let store = Arc::clone(&store);
        async move {
            let mut ranges = Vec::new();
            for count in [1, 1, 7, 0, 1500, me, 1] {
                let range = store.allocate("ino", count).await.expect("there are numbers left");
                assert_eq!(range.end - range.start, count);
                ranges.push(range);
            }
            ranges
        }
    });
    let mut ranges: Vec<_> = ranges
        .await
        .into_iter()
        .flatten()
        .filter(|range| !range.is_empty())
        .collect();
    ranges.sort_by_key(|range| range.start);
    assert!(ranges[0].start >= 1);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:?}");
    assert_eq!(
        store.allocate("other", 1).await.expect("there are numbers left").start,
        1,
        "counters are apart"
    );
    let counters = store.counters().await.expect("a read works");
    let names: Vec<_> = counters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ino", "other"]);
    let last = ranges.last().expect("some were given").end;
    assert!(counters[0].1 >= last, "{counters:?} {last}");
    let mut left = 0;
    let refused = loop {
        match store.allocate("ino", 1 << 62).await {
            Ok(_) if left < 5 => left += 1,
            other => break other,
        }
    };
    assert!(matches!(refused, Err(MetaError::Limit(_))), "{refused:?}");
}

/// To memory and back: the same rows, and no counter begins anew.
pub async fn a_dump_loads_into_another_engine_and_back(subject: &dyn Subject) {
    let (source, between, target): (_, MetaStoreRef, _) =
        (subject.fresh().await, MemStore::new(), subject.fresh().await);
    let big = vec![b'v'; LIMITS.value_bytes_max];
    done(
        &source,
        [],
        (0..1500_u32)
            .map(|number| put(number.to_be_bytes(), number.to_string()))
            .collect::<Vec<_>>(),
    )
    .await;
    // More than one transaction holds.
    for tenth in 0..7 {
        done(
            &source,
            [],
            (0..10)
                .map(|number| put(format!("big{tenth}{number}"), &big))
                .collect::<Vec<_>>(),
        )
        .await;
    }
    let given = source.allocate("ino", 5000).await.expect("there are numbers left");
    for (from, to) in [(&source, &between), (&between, &target)] {
        let loaded = load(Arc::clone(to), dump(Arc::clone(from)))
            .await
            .expect("the load goes through");
        assert_eq!((loaded.rows, loaded.counters), (1570, 1));
    }
    let records = async |store: &MetaStoreRef| {
        dump(Arc::clone(store))
            .try_collect::<Vec<_>>()
            .await
            .expect("the dump goes through")
    };
    let rows = |records: Vec<Record>| {
        records
            .into_iter()
            .filter(|record| matches!(record, Record::Row { .. }))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(records(&target).await), rows(records(&source).await));
    assert!(target.allocate("ino", 1).await.expect("there are numbers left").start >= given.end);
    let again = load(Arc::clone(&target), dump(source)).await;
    assert!(matches!(again, Err(LoadError::NotEmpty)), "{again:?}");
}
