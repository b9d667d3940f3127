//! One publish over several datasets: one instant for readers, all or nothing for a crash, and what is refused.

use crate::support::{
    World, at,
    batches::{messages, rows},
    kind, writes,
};
use arrow_array::{Int64Array, RecordBatch};
use forebay_metastore::mem::{Call, Fault};
use forebay_understore::StoreError;
use forebay_writeback::{
    Cache, Error, ErrorKind,
    dataset::{
        At, Decoder, FollowSpec, Format, Member, PUBLISH_SESSIONS_MAX, Publish, Published, PutTarget, SessionId,
        SessionSpec, Task,
    },
    file::WriteMode,
    policy::Change,
    rows::table,
};
use futures::TryStreamExt;
use std::{pin::pin, sync::Arc, task::Poll, time::Duration};
use tokio::sync::Notify;

const DAYS: [&str; 3] = ["/kept/t/day=1", "/kept/t/day=2", "/kept/t/day=3"];
const MINUTE: Duration = Duration::from_secs(60);
/// Steps of a read of a few parts, at most.
const STEPS_MAX: i64 = 1000;

// ---- verbs in one line each

async fn begin(cache: &Cache, path: &str, mode: WriteMode) -> SessionId {
    let spec = SessionSpec {
        mode,
        ..SessionSpec::default()
    };
    cache.begin(&at(path), spec).await.unwrap()
}

async fn put_as(cache: &Cache, path: &str, session: &SessionId, task: Option<Task>, rows: &RecordBatch) {
    let target = PutTarget {
        path: at(path),
        session: Some(session.clone()),
        task,
        spec: SessionSpec::default(),
        token: None,
    };
    let [schema, batch] = messages(rows);
    let mut writer = cache.put(target, schema).await.unwrap();
    writer.append(batch).await.unwrap();
    writer.commit().await.unwrap();
}

async fn put(cache: &Cache, path: &str, session: &SessionId, numbers: impl IntoIterator<Item = i64>) {
    put_as(cache, path, session, None, &rows(numbers)).await;
}

/// A session on each of these with a row that tells the place of the path among them.
async fn staged<'a>(cache: &Cache, paths: impl IntoIterator<Item = &'a str>, mode: WriteMode) -> Vec<SessionId> {
    let mut sessions = Vec::new();
    for (n, path) in (0..).zip(paths) {
        let session = begin(cache, path, mode).await;
        put(cache, path, &session, [n]).await;
        sessions.push(session);
    }
    sessions
}

fn members(sessions: &[SessionId]) -> Vec<Member> {
    let member = |session: &SessionId| Member {
        session: session.clone(),
        tasks: None,
    };
    sessions.iter().map(member).collect()
}

async fn publish(cache: &Cache, sessions: &[SessionId]) -> Result<Vec<u64>, Error> {
    let published = cache.publish_together(members(sessions), false).await?;
    Ok(published.iter().map(|made| made.version).collect())
}

/// The numbers of a dataset; none when nothing is published there.
async fn numbers(cache: &Cache, path: &str, version: At) -> Option<Vec<i64>> {
    let plan = match cache.dataset(&at(path), version).await {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Precondition) => return None,
        plan => plan.unwrap(),
    };
    let mut decoder = Decoder::new(&plan.schema_message).unwrap();
    let mut numbers = Vec::new();
    for part in &plan.parts {
        let mut items = cache.read_part(part, 0).await.unwrap();
        while let Some(item) = items.try_next().await.unwrap() {
            if let Some((batch, _)) = decoder.push(item).unwrap() {
                let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
                numbers.extend(column.values());
            }
        }
    }
    Some(numbers)
}

async fn each(cache: &Cache) -> Vec<Option<Vec<i64>>> {
    let mut found = Vec::new();
    for path in DAYS {
        found.push(numbers(cache, path, At::Head).await);
    }
    found
}

fn once<T>(seed: u64, body: impl AsyncFnOnce(&Cache) -> T) -> T {
    World::new(seed).live(async |world| {
        let cache = world.open().await.unwrap();
        body(&cache).await
    })
}

// ---- one instant

#[test]
fn several_datasets_get_their_versions_at_one_instant_and_twice_the_same() {
    let mut world = World::new(700);
    let (sessions, made) = world.live(async |world| {
        let cache = world.open().await.unwrap();
        let sessions = staged(&cache, DAYS, WriteMode::Append).await;
        assert_eq!(each(&cache).await, [None, None, None]);
        assert_eq!(numbers(&cache, "/kept/t", At::Head).await, None);
        let made = cache.publish_together(members(&sessions), true).await.unwrap();
        let expected: Vec<_> = DAYS
            .iter()
            .zip(&sessions)
            .map(|(path, session)| Published {
                path: at(path),
                session: session.clone(),
                version: 1,
            })
            .collect();
        assert_eq!(made, expected);
        assert_eq!(each(&cache).await, [Some(vec![0]), Some(vec![1]), Some(vec![2])]);
        assert_eq!(numbers(&cache, "/kept/t", At::Head).await.unwrap(), [0, 1, 2]);
        assert_eq!(cache.publish_together(members(&sessions), true).await.unwrap(), made);
        assert_eq!(cache.publish(&sessions[1], Publish::default()).await.unwrap(), 1);
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        let stored = world.store.contents();
        for day in 1..=3 {
            let of_day = stored.keys().filter(|key| key.contains(&format!("t/day={day}/")));
            assert_eq!(of_day.count(), 2, "its part and the marker");
        }
        (sessions, made)
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(cache.publish_together(members(&sessions), true).await.unwrap(), made);
        assert_eq!(numbers(&cache, "/kept/t", At::Head).await.unwrap(), [0, 1, 2]);
    });
}

/// A publish comes at each step of a read of the directory above in turn, and puts another number into every dataset.
#[test]
fn a_reader_of_the_directory_above_sees_all_of_a_publish_or_nothing() {
    const FOLDERS: [&str; 3] = [
        "/kept/t/month=1/day=1",
        "/kept/t/month=2/day=1",
        "/kept/t/month=3/day=1",
    ];
    once(710, async |cache| {
        let stage = async |number: i64| {
            let mut sessions = Vec::new();
            for path in FOLDERS {
                let session = begin(cache, path, WriteMode::Overwrite).await;
                put(cache, path, &session, [number]).await;
                sessions.push(session);
            }
            sessions
        };
        publish(cache, &stage(-1).await).await.unwrap();
        let mut seen = [0, 0];
        for step in 0..STEPS_MAX {
            let (before, after) = ([step - 1; 3], [step; 3]);
            let sessions = stage(step).await;
            let mut read = pin!(numbers(cache, "/kept/t", At::Head));
            for _ in 0..step {
                if let Poll::Ready(found) = futures::poll!(read.as_mut()) {
                    assert_eq!(found.unwrap(), before, "read to the end, {step} steps");
                    assert!(seen[0] > 0 && seen[1] > 3, "{seen:?}: no publish came in the middle");
                    return;
                }
                // What it waits for goes on, time too.
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            publish(cache, &sessions).await.unwrap();
            let found = read.await.unwrap();
            assert!(found == before || found == after, "after {step} steps: {found:?}");
            seen[usize::from(found == after)] += 1;
        }
        panic!("a read takes more than {STEPS_MAX} steps");
    });
}

#[test]
fn followers_of_each_dataset_end_with_the_publish() {
    once(730, async |cache| {
        let sessions = staged(cache, DAYS, WriteMode::Append).await;
        let mut followers = Vec::new();
        for path in DAYS {
            let stream = cache.follow(&at(path), FollowSpec::default()).await.unwrap();
            followers.push(tokio::spawn(stream.items.map_ok(drop).try_collect::<Vec<()>>()));
        }
        publish(cache, &sessions).await.unwrap();
        for follower in followers {
            assert_eq!(follower.await.unwrap().unwrap().len(), 1);
        }
    });
}

#[test]
fn each_session_has_its_own_mode_and_an_overwrite_with_nothing_empties() {
    once(731, async |cache| {
        publish(cache, &staged(cache, DAYS, WriteMode::Append).await)
            .await
            .unwrap();
        let (append, overwrite, empty) = (
            begin(cache, DAYS[0], WriteMode::Append).await,
            begin(cache, DAYS[1], WriteMode::Overwrite).await,
            begin(cache, DAYS[2], WriteMode::Overwrite).await,
        );
        put(cache, DAYS[0], &append, [10]).await;
        put(cache, DAYS[1], &overwrite, [11]).await;
        assert_eq!(publish(cache, &[append, overwrite, empty]).await.unwrap(), [2, 2, 2]);
        assert_eq!(
            each(cache).await,
            [Some(vec![0, 10]), Some(vec![11]), Some(vec![])],
            "an emptied dataset has its schema still"
        );
        assert_eq!(numbers(cache, "/kept/t", At::Head).await.unwrap(), [0, 10, 11]);
        assert_eq!(numbers(cache, DAYS[2], At::Version(1)).await.unwrap(), [2]);
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
    });
}

#[test]
fn several_datasets_are_overwritten_at_one_instant_while_the_store_is_away() {
    let mut world = World::new(735);
    world.live(async |world| {
        for day in 1..=3 {
            world.store.write_outside(&format!("t/day={day}/old.arrow"), "theirs");
        }
        world
            .store
            .set_away(Some(StoreError::Unavailable("503 slow down".into())));
        let cache = world.open().await.unwrap();
        let sessions = staged(&cache, DAYS, WriteMode::Overwrite).await;
        assert_eq!(publish(&cache, &sessions).await.unwrap(), [1, 1, 1]);
        assert_eq!(each(&cache).await, [Some(vec![0]), Some(vec![1]), Some(vec![2])]);
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(each(&cache).await, [Some(vec![0]), Some(vec![1]), Some(vec![2])]);
        world.store.set_away(None);
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        assert_eq!(numbers(&cache, "/kept/t", At::Head).await.unwrap(), [0, 1, 2]);
        let stored = world.store.contents();
        assert!(
            stored.len() == 3 && stored.keys().all(|key| key.contains("/part-")),
            "{stored:?}"
        );
    });
}

#[test]
fn the_attempts_that_count_are_named_for_each_session() {
    let task = |task, attempt| Task {
        job: "j".into(),
        stage: 0,
        task,
        attempt,
    };
    once(732, async |cache| {
        let mut together = Vec::new();
        for (k, path) in DAYS.into_iter().enumerate() {
            let session = begin(cache, path, WriteMode::Append).await;
            // Of a task two attempts that do not know of each other, as of two runs of a stage.
            for attempt in 0..2 {
                let other_stage = Task {
                    stage: attempt,
                    ..task(0, attempt)
                };
                let number = 10 * i64::try_from(attempt).unwrap();
                put_as(cache, path, &session, Some(other_stage), &rows([number])).await;
            }
            let counts = Task {
                stage: k as u64 % 2,
                ..task(0, k as u64 % 2)
            };
            together.push(Member {
                session,
                tasks: Some(vec![counts]),
            });
        }
        let mut unknown = together.clone();
        unknown[2].tasks = Some(vec![task(7, 0)]);
        let refused = cache.publish_together(unknown, false).await;
        assert_eq!(kind(refused), ErrorKind::Precondition);
        assert_eq!(each(cache).await, [None, None, None]);
        cache.publish_together(together, false).await.unwrap();
        assert_eq!(each(cache).await, [Some(vec![0]), Some(vec![10]), Some(vec![0])]);
        let status = cache.status().await.unwrap();
        assert_eq!(status.dirty_files, 3, "what does not count is gone");
    });
}

#[test]
fn parquet_sessions_and_arrow_sessions_are_published_together() {
    let mut world = World::new(733);
    let sessions = world.live(async |world| {
        let cache = world.open().await.unwrap();
        let parquet = SessionSpec {
            format: Format::Parquet,
            ..SessionSpec::default()
        };
        let mut sessions = vec![cache.begin(&at(DAYS[0]), parquet).await.unwrap()];
        sessions.push(begin(&cache, DAYS[1], WriteMode::Append).await);
        for (path, session) in DAYS.iter().zip(&sessions) {
            let target = PutTarget {
                path: at(path),
                session: Some(session.clone()),
                task: None,
                spec: SessionSpec::default(),
                token: None,
            };
            let [schema, batch] = messages(&rows([5]));
            let mut writer = cache.put(target, schema).await.unwrap();
            let mut stable = writer.stable();
            writer.append(batch).await.unwrap();
            stable.wait_for(|stable| stable.batches == 1).await.unwrap();
            // Cut off: what was acknowledged is staged as Arrow, and encoded by the publish.
            std::mem::forget(writer);
        }
        sessions
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(publish(&cache, &sessions).await.unwrap(), [1, 1]);
        assert_eq!(numbers(&cache, "/kept/t", At::Head).await.unwrap(), [5, 5]);
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        let stored = world.store.contents();
        let ends: Vec<_> = stored.keys().filter_map(|key| key.rsplit('.').next()).collect();
        assert_eq!(ends, ["parquet", "arrow"]);
    });
}

// ---- what is refused

#[test]
fn what_is_refused_leaves_every_session_open_and_nothing_visible() {
    once(740, async |cache| {
        let sessions = staged(cache, DAYS, WriteMode::Append).await;
        let [first, second, third] = [&sessions[0], &sessions[1], &sessions[2]];
        let refused = async |of: &[SessionId], why: ErrorKind, text: &str| {
            let error = publish(cache, of).await.unwrap_err();
            assert_eq!(error.kind(), why, "{error}");
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!(each(cache).await, [None, None, None]);
        };
        refused(&[], ErrorKind::Invalid, "0 sessions").await;
        let unknown = SessionId("z999999999999999".into());
        refused(&[first.clone(), unknown], ErrorKind::NotFound, "no session").await;
        refused(&[first.clone(), first.clone()], ErrorKind::Invalid, "named twice").await;
        let aborted = begin(cache, "/kept/other", WriteMode::Append).await;
        cache.abort(&aborted).await.unwrap();
        refused(&[first.clone(), aborted], ErrorKind::Precondition, "was aborted").await;
        let same = begin(cache, DAYS[0], WriteMode::Append).await;
        refused(&[first.clone(), same.clone()], ErrorKind::Precondition, "are both of").await;
        cache.abort(&same).await.unwrap();
        let bare = begin(cache, "/kept/bare", WriteMode::Append).await;
        refused(&[first.clone(), bare.clone()], ErrorKind::Precondition, "schema").await;
        let file = begin(cache, "/kept/file", WriteMode::Append).await;
        put(cache, "/kept/file", &file, [1]).await;
        crate::support::put(cache, "/kept/file", b"x").await.unwrap();
        refused(&[first.clone(), file], ErrorKind::Precondition, "/kept/file").await;
        let many = vec![first.clone(); PUBLISH_SESSIONS_MAX + 1];
        refused(&many, ErrorKind::Invalid, "1001 sessions").await;

        let target = PutTarget {
            path: at(DAYS[1]),
            session: Some(second.clone()),
            task: None,
            spec: SessionSpec::default(),
            token: None,
        };
        let writer = cache.put(target, messages(&rows([7]))[0].clone()).await.unwrap();
        refused(&sessions, ErrorKind::Precondition, "under way").await;
        drop(writer);
        tokio::time::sleep(Duration::from_secs(1)).await;

        cache.publish(third, Publish::default()).await.unwrap();
        let error = publish(cache, &sessions).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(error.to_string().contains("is published already"), "{error}");
        assert_eq!(each(cache).await, [None, None, Some(vec![2])]);
        assert_eq!(publish(cache, &[first.clone(), second.clone()]).await.unwrap(), [1, 1]);
        assert_eq!(
            publish(cache, &sessions).await.unwrap(),
            [1, 1, 1],
            "all of them are visible"
        );
    });
}

#[test]
fn two_publishes_of_the_same_sessions_never_wait_for_each_other() {
    for seed in 750..770 {
        once(seed, async |cache| {
            let sessions = staged(cache, DAYS, WriteMode::Append).await;
            let backwards: Vec<_> = sessions.iter().rev().cloned().collect();
            let both = async { tokio::join!(publish(cache, &sessions), publish(cache, &backwards)) };
            let (one, other) = tokio::time::timeout(MINUTE, both).await.unwrap();
            assert_eq!((one.unwrap(), other.unwrap()), (vec![1; 3], vec![1; 3]));
        });
    }
}

#[test]
fn a_quota_that_holds_for_all_of_them_refuses_all() {
    once(771, async |cache| {
        let limit = Change::parse("quota_files", Some(&2.into())).unwrap();
        cache.policy_set(&at("/kept/t"), vec![limit]).await.unwrap();
        let sessions = staged(cache, DAYS, WriteMode::Append).await;
        let more = begin(cache, DAYS[1], WriteMode::Append).await;
        put(cache, DAYS[1], &more, [3]).await;
        assert_eq!(kind(publish(cache, &sessions).await), ErrorKind::Full);
        assert_eq!(each(cache).await, [None, None, None]);
        publish(cache, &sessions[..2]).await.unwrap();
        // What one gives up, another takes.
        let empty = begin(cache, DAYS[0], WriteMode::Overwrite).await;
        assert_eq!(kind(publish(cache, &[sessions[2].clone()]).await), ErrorKind::Full);
        publish(cache, &[more, empty]).await.unwrap();
        assert_eq!(each(cache).await, [Some(vec![]), Some(vec![1, 3]), None]);
    });
}

#[test]
fn a_quota_of_users_counts_parts_for_who_began_their_session() {
    once(773, async |cache| {
        let limit = Change::parse("user_quota_files", Some(&1.into())).unwrap();
        cache.policy_set(&at("/kept/t"), vec![limit]).await.unwrap();
        let mut sessions = Vec::new();
        for (owner, path) in [1001, 1001, 1002].into_iter().zip(DAYS) {
            let spec = SessionSpec {
                owner: Some(owner),
                ..SessionSpec::default()
            };
            let session = cache.begin(&at(path), spec).await.unwrap();
            put(cache, path, &session, [i64::from(owner)]).await;
            sessions.push(session);
        }
        let [first, second, others] = &sessions[..] else {
            unreachable!()
        };
        publish(cache, std::slice::from_ref(first)).await.unwrap();
        let error = publish(cache, std::slice::from_ref(second)).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Full && error.to_string().contains("for user 1001"),
            "{error}"
        );
        publish(cache, std::slice::from_ref(others)).await.unwrap();
        assert_eq!(each(cache).await, [Some(vec![1001]), None, Some(vec![1002])]);
    });
}

#[test]
fn a_thousand_are_published_at_once_and_what_one_transaction_can_not_hold_is_refused_by_name() {
    once(772, async |cache| {
        let paths: Vec<String> = (0..1000).map(|day| format!("/kept/t/day={day}")).collect();
        let sessions = staged(cache, paths.iter().map(String::as_str), WriteMode::Append).await;
        publish(cache, &sessions).await.unwrap();
        let found = numbers(cache, "/kept/t", At::Head).await.unwrap();
        assert_eq!(found.iter().sum::<i64>(), (0..1000).sum::<i64>());
        let mut sessions = Vec::new();
        for path in &paths {
            let session = begin(cache, path, WriteMode::Append).await;
            for n in 0..4 {
                put(cache, path, &session, [n]).await;
            }
            sessions.push(session);
        }
        let error = publish(cache, &sessions).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(
            error.to_string().contains("1000 sessions with 4000 new parts"),
            "{error}"
        );
        assert_eq!(numbers(cache, "/kept/t", At::Head).await.unwrap().len(), 1000);
        publish(cache, &sessions[..500]).await.unwrap();
    });
}

// ---- crashes

/// Whether a transaction publishes: it moves heads and ends sessions.
fn publishes(call: &Call<'_>) -> bool {
    let Call::Commit(tx) = call else { return false };
    writes(tx, table::HEAD) && writes(tx, table::SESSION)
}

/// Overwrites and appends in one publish, killed at its transaction: before it, after it, with the power or without.
#[test]
fn a_kill_at_the_transaction_leaves_all_of_them_or_none() {
    for (seed, fault, cut) in [
        (780, Fault::UnknownLost, false),
        (781, Fault::UnknownLost, true),
        (782, Fault::UnknownCommitted, false),
        (783, Fault::UnknownCommitted, true),
    ] {
        let mut world = World::new(seed);
        let sessions = world.live(async |world| {
            let cache = world.open().await.unwrap();
            publish(&cache, &staged(&cache, DAYS, WriteMode::Append).await)
                .await
                .unwrap();
            // Nothing but the publish changes rows from here on: a check that it lost would look like an answer that was.
            cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
            tokio::time::sleep(MINUTE).await;
            let mut sessions = Vec::new();
            for (path, mode) in DAYS
                .into_iter()
                .zip([WriteMode::Append, WriteMode::Overwrite, WriteMode::Overwrite])
            {
                let session = begin(&cache, path, mode).await;
                put(&cache, path, &session, [10]).await;
                sessions.push(session);
            }
            let reached = Arc::new(Notify::new());
            let hit = Arc::clone(&reached);
            world.meta.set_hook(move |call| match publishes(call) {
                true => {
                    hit.notify_one();
                    fault
                }
                false => Fault::None,
            });
            // The life ends when the transaction has come through, or not; the answer never comes.
            let asked = sessions.clone();
            tokio::spawn(async move { publish(&cache, &asked).await });
            reached.notified().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            sessions
        });
        world.meta.clear_hook();
        if cut {
            world.cut_power();
        } else {
            world.disk.disarm();
        }
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            let (before, after) = (
                [Some(vec![0]), Some(vec![1]), Some(vec![2])],
                [Some(vec![0, 10]), Some(vec![10]), Some(vec![10])],
            );
            let expected = match fault {
                Fault::UnknownCommitted => &after,
                _ => &before,
            };
            assert_eq!(each(&cache).await, *expected, "{seed}");
            assert_eq!(publish(&cache, &sessions).await.unwrap(), [2, 2, 2], "{seed}");
            assert_eq!(each(&cache).await, after, "{seed}");
            cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
            let parts = world.store.contents();
            let parts = parts.keys().filter(|key| key.contains("part-"));
            assert_eq!(parts.count(), 4, "{seed}");
        });
    }
}

/// The power goes at each commit of staging and publishing in turn.
#[test]
fn a_power_cut_at_any_commit_leaves_all_of_them_or_none() {
    let mut ends = [0, 0];
    for nth in 0.. {
        let mut world = World::new(790);
        let through = world.live(async |world| {
            let cache = world.open().await.unwrap();
            let reached = Arc::new(Notify::new());
            let hit = Arc::clone(&reached);
            let mut left = nth;
            world.meta.set_hook(move |call| match call {
                Call::Commit(_) if left == 0 => {
                    hit.notify_one();
                    Fault::UnknownCommitted
                }
                Call::Commit(_) => {
                    left -= 1;
                    Fault::None
                }
                Call::Other(_) => Fault::None,
            });
            let work = async {
                let sessions = staged(&cache, DAYS, WriteMode::Append).await;
                publish(&cache, &sessions).await.unwrap();
            };
            tokio::select! {
                biased;
                () = reached.notified() => false,
                () = work => true,
            }
        });
        world.meta.clear_hook();
        world.cut_power();
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            let found = each(&cache).await;
            let all = found == [Some(vec![0]), Some(vec![1]), Some(vec![2])];
            assert!(all || found == [None, None, None], "commit {nth}: {found:?}");
            assert!(all || !through, "what was acknowledged is there");
            ends[usize::from(all)] += 1;
        });
        if through {
            break;
        }
    }
    assert!(ends[0] >= 6 && ends[1] >= 1, "{ends:?} cuts before and after");
}

#[test]
fn an_answer_that_was_lost_is_asked_for_again() {
    for (seed, fault) in [
        (800, Fault::UnknownLost),
        (801, Fault::UnknownCommitted),
        (802, Fault::Unavailable),
    ] {
        World::new(seed).live(async |world| {
            let cache = world.open().await.unwrap();
            let sessions = staged(&cache, DAYS, WriteMode::Append).await;
            let mut left = 3;
            world.meta.set_hook(move |call| match publishes(call) && left > 0 {
                true => {
                    left -= 1;
                    fault
                }
                false => Fault::None,
            });
            let mut versions = publish(&cache, &sessions).await;
            while matches!(&versions, Err(error) if error.kind() == ErrorKind::Unavailable) {
                assert_eq!(each(&cache).await, [None, None, None]);
                versions = publish(&cache, &sessions).await;
            }
            assert_eq!(versions.unwrap(), [1, 1, 1], "{seed}");
            assert_eq!(each(&cache).await, [Some(vec![0]), Some(vec![1]), Some(vec![2])]);
            assert_eq!(cache.status().await.unwrap().dirty_files, 3);
        });
    }
}
