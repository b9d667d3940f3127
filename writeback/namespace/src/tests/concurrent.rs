//! Many at once: every step between two reads, and between plan and commit, lets others go first.

use super::{
    audit::audit,
    world::{World, file, p},
};
use crate::*;
use async_trait::async_trait;
use forebay_metastore::{CommitError, Committed, Entry, Key, MetaError, MetaStore, Tx, mem::MemStore};
use forebay_runtime::{
    chance::{ChanceRef, SeededChance},
    clock::RealClock,
};
use std::{collections::BTreeSet, ops::Range, sync::Arc};

/// A store that lets a random number of other tasks go first, at every call.
#[derive(Debug)]
struct Hesitant {
    store: MetaStoreRef,
    chance: ChanceRef,
}

impl Hesitant {
    async fn hesitate(&self) {
        for _ in 0..self.chance.below(4) {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl MetaStore for Hesitant {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>, MetaError> {
        self.hesitate().await;
        self.store.get(keys).await
    }

    async fn scan(&self, range: Range<Key>, limit: usize) -> Result<Vec<(Key, Entry)>, MetaError> {
        self.hesitate().await;
        self.store.scan(range, limit).await
    }

    async fn commit(&self, tx: Tx) -> Result<Committed, CommitError> {
        self.hesitate().await;
        self.store.commit(tx).await
    }

    async fn allocate(&self, counter: &str, count: u64) -> Result<Range<u64>, MetaError> {
        self.hesitate().await;
        self.store.allocate(counter, count).await
    }

    async fn counters(&self) -> Result<Vec<(String, u64)>, MetaError> {
        self.store.counters().await
    }
}

async fn hesitant(seed: u64) -> (World, ChanceRef) {
    println!("seed {seed}");
    let chance: ChanceRef = SeededChance::new(seed);
    let store = Hesitant {
        store: MemStore::new(),
        chance: Arc::clone(&chance),
    };
    (World::over(Arc::new(store)).await, chance)
}

/// An act at random, with retries; refusals are fine.
async fn something(ns: &Namespace, chance: &ChanceRef) {
    let name = |n: u64| [b"a".as_slice(), b"b", b"c"][usize::try_from(n).unwrap()].to_vec();
    let path = || {
        let names = (0..=chance.below(4)).map(|_| name(chance.below(3)));
        Path::from_components(names).unwrap()
    };
    let (kind, a, b) = (chance.below(8), path(), path());
    let clock = RealClock::shared();
    let outcome = retry(&clock, chance, || async {
        let mut planner = ns.planner();
        match kind {
            0 => drop(
                planner
                    .create(
                        &a,
                        Create {
                            parents: true,
                            ..file(1)
                        },
                    )
                    .await?,
            ),
            1 | 2 => drop(
                planner
                    .create(
                        &a,
                        Create {
                            parents: true,
                            ..Create::dir()
                        },
                    )
                    .await?,
            ),
            3 => drop(planner.rmdir(&a).await?),
            4 => drop(planner.unlink(&a).await?),
            _ => {
                let how = RenameHow {
                    replace: chance.below(2) == 0,
                    exchange: chance.below(3) == 0,
                    parents: false,
                };
                drop(planner.rename(&a, &b, how).await?);
            }
        }
        ns.commit(planner.finish()?, None).await
    })
    .await;
    if let Err(
        error @ (NsError::Conflict | NsError::Unknown(_) | NsError::Base(_) | NsError::Meta(_) | NsError::TooMany(_)),
    ) = outcome
    {
        panic!("{error}");
    }
}

#[tokio::test]
async fn directories_renamed_by_many_at_once_form_no_loop_and_lose_nothing() {
    for seed in 0..40 {
        let (world, chance) = hesitant(seed).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (ns, chance) = (world.ns.clone(), Arc::clone(&chance));
            tasks.spawn(async move {
                for _ in 0..25 {
                    something(&ns, &chance).await;
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        world.collect().await;
        audit(&world.ns).await;
    }
}

#[tokio::test]
async fn two_directories_moved_below_each_other_at_once_do_not_both_move() {
    for seed in 0..50 {
        let (world, chance) = hesitant(seed).await;
        for path in ["/x", "/x/a", "/y", "/y/b"] {
            world.mkdir(path).await.unwrap();
        }
        let clock = RealClock::shared();
        let go = |from: &'static str, to: &'static str| {
            let (ns, clock, chance) = (world.ns.clone(), Arc::clone(&clock), Arc::clone(&chance));
            async move {
                retry(&clock, &chance, || async {
                    let renamed = ns.plan_rename(&p(from), &p(to), RenameHow::default()).await?;
                    ns.commit(renamed.plan, None).await
                })
                .await
            }
        };
        let (a, b) = tokio::join!(go("/x", "/y/b/x"), go("/y", "/x/a/y"));
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
        audit(&world.ns).await;
    }
}

#[tokio::test]
async fn a_directory_is_never_removed_under_a_file_that_was_just_created() {
    for seed in 0..100 {
        let (world, _) = hesitant(seed).await;
        world.mkdir("/d").await.unwrap();
        let (created, removed) = tokio::join!(
            async {
                let planned = world.ns.plan_create(&p("/d/f"), file(1)).await?;
                world.ns.commit(planned.plan, None).await
            },
            world.rmdir("/d")
        );
        assert!(created.is_ok() != removed.is_ok(), "{created:?} {removed:?}");
        audit(&world.ns).await;
    }
}

#[tokio::test]
async fn creates_in_one_directory_do_not_refuse_each_other() {
    let (world, _) = hesitant(1).await;
    world.mkdir("/d").await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..50 {
        let ns = world.ns.clone();
        tasks.spawn(async move {
            let planned = ns.plan_create(&p(&format!("/d/{n}")), file(n)).await.unwrap();
            ns.commit(planned.plan, None).await.unwrap();
            planned.ino
        });
    }
    let mut inos = BTreeSet::new();
    while let Some(done) = tasks.join_next().await {
        assert!(inos.insert(done.unwrap()), "a number was given twice");
    }
    assert_eq!(world.names("/d", 7).await.len(), 50);
}

/// The doors run every call on a runtime of many threads.
#[test]
fn the_futures_may_cross_threads() {
    fn sent<T: Send>(_: impl FnOnce(&'static Namespace) -> T) {}
    sent(|ns| ns.resolve(Box::leak(Box::new(Path::root()))));
    sent(|ns| ns.list(Box::leak(Box::new(Path::root())), None, 1));
    sent(|ns| ns.path_of(ROOT));
    sent(|ns| ns.lookup(ROOT, b"x"));
    sent(|ns| ns.rebase(ROOT));
    sent(|ns| ns.plan_collect(1));
    sent(|ns| ns.plan_forget(ROOT, Box::leak(Box::new(Path::root()))));
}
