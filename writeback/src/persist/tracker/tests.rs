use super::*;
use crate::rows::{Place, Work};
use forebay_metastore::Version;

fn put(seq: u64, version: u64, places: &[(u32, &str)]) -> Row {
    let places = places
        .iter()
        .map(|(mount, key)| Place::file(*mount, *key, None))
        .collect();
    let what = WorkKind::Put {
        ino: seq,
        generation: 1,
    };
    Row {
        seq,
        version: Version(version),
        work: Work {
            what,
            since: 1000 + seq as i64,
            state: WorkState::Queued,
            places,
        },
    }
}

fn tracker(rows: &[Row]) -> Tracker {
    let mut tracker = Tracker::default();
    rows.iter()
        .for_each(|row| tracker.refresh(row.seq, Some(row), Duration::ZERO));
    tracker
}

const NOW: Duration = Duration::from_secs(100);

fn at(mount: u32, key: &str) -> At {
    (mount, key.to_owned())
}

#[test]
fn the_oldest_goes_first_and_mounts_take_turns() {
    let mut tracker = tracker(&[
        put(1, 1, &[(1, "a")]),
        put(2, 2, &[(1, "b")]),
        put(3, 3, &[(2, "c")]),
        put(4, 4, &[(2, "d")]),
    ]);
    let order: Vec<u64> = std::iter::from_fn(|| tracker.next(NOW)).collect();
    assert_eq!(order, [1, 3, 2, 4]);
}

#[test]
fn urgent_work_goes_before_older_work() {
    let mut tracker = tracker(&[put(1, 1, &[]), put(2, 2, &[]), put(3, 3, &[])]);
    tracker.urge(&[3]);
    assert_eq!(tracker.next(NOW), Some(3));
    assert_eq!(tracker.next(NOW), Some(1));
}

#[test]
fn what_is_asked_for_while_it_runs_is_not_kept_back_by_what_the_run_found() {
    let mut tracker = tracker(&[put(1, 1, &[]), put(2, 2, &[])]);
    assert_eq!((tracker.next(NOW), tracker.next(NOW)), (Some(1), Some(2)));
    tracker.urge(&[1]);
    tracker.finish(1, Outcome::Withheld(None), NOW);
    tracker.finish(2, Outcome::Withheld(None), NOW);
    assert_eq!((tracker.next(NOW), tracker.next(NOW)), (Some(1), None));
}

#[test]
fn what_gathers_goes_together_and_what_is_gone_by_then_does_not_count() {
    let rows: Vec<Row> = (1..=5).map(|seq| put(seq, seq, &[])).collect();
    let mut tracker = tracker(&rows);
    let gathers = |root: &str, bytes| Outcome::Gathers {
        root: Path::parse(root.as_bytes()).unwrap(),
        bytes,
        goal: 10,
        time: None,
    };
    while tracker.next(NOW).is_some() {}
    tracker.finish(1, gathers("/a", 6), NOW);
    tracker.finish(2, gathers("/b", 6), NOW);
    tracker.refresh(1, None, NOW);
    tracker.finish(3, gathers("/a", 6), NOW);
    assert_eq!((tracker.next(NOW), tracker.withheld()), (None, 2));
    tracker.finish(4, gathers("/a", 4), NOW);
    assert_eq!((tracker.next(NOW), tracker.next(NOW)), (Some(3), Some(4)));
    assert_eq!((tracker.next(NOW), tracker.withheld()), (None, 1));
    // One that is large enough by itself waits for nothing.
    tracker.finish(5, gathers("/c", 10), NOW);
    assert_eq!(tracker.next(NOW), Some(5));
}

#[test]
fn what_becomes_another_file_stays_urgent_and_is_named_by_its_new_inode() {
    let mut tracker = tracker(&[put(1, 1, &[])]);
    tracker.urge(&[1]);
    tracker.next(NOW);
    let mut row = put(1, 2, &[]);
    row.work.what = WorkKind::Put { ino: 77, generation: 1 };
    tracker.note_version(1, &row);
    tracker.finish(1, Outcome::Moved, NOW);
    tracker.refresh(1, Some(&row), NOW);
    assert!(tracker.is_urgent(1) && tracker.all()[0].what == row.work.what);
    assert_eq!(tracker.next(NOW), Some(1));
}

#[test]
fn two_that_wait_for_each_other_do_not_go_in_step() {
    let clear = |seq, key| {
        let row = put(seq, seq, &[(1, key)]);
        let work = Work {
            what: WorkKind::Clear,
            ..row.work
        };
        Row { work, ..row }
    };
    let mut tracker = tracker(&[clear(1, "a"), clear(2, "b")]);
    let mut now = NOW;
    let alone = (0..100).map(|_| {
        now = tracker.next_due().map_or(now, |due| due.max(now));
        tracker.release_due(now);
        let running: Vec<u64> = std::iter::from_fn(|| tracker.next(now)).collect();
        running
            .iter()
            .for_each(|seq| tracker.finish(*seq, Outcome::Wait(3 - seq), now));
        running.len() == 1
    });
    assert!(alone.skip(50).any(|alone| alone));
}

#[test]
fn work_that_only_waits_does_not_end_the_pause_of_a_mount() {
    let mut tracker = tracker(&[put(1, 1, &[(1, "a")]), put(2, 2, &[(1, "b")])]);
    assert_eq!((tracker.next(NOW), tracker.next(NOW)), (Some(1), Some(2)));
    tracker.finish(1, Outcome::Away(1, "503".into()), NOW);
    tracker.finish(2, Outcome::Wait(1), NOW);
    assert_eq!(tracker.next(NOW), None);
    assert!(tracker.next_due().unwrap() > NOW);
}

#[test]
fn a_mount_that_is_away_pauses_alone_and_for_longer_each_time() {
    let mut tracker = tracker(&[put(1, 1, &[(1, "a")]), put(2, 2, &[(2, "b")])]);
    let mut pauses = Vec::new();
    let mut now = NOW;
    for _ in 0..10 {
        assert_eq!(tracker.next(now), Some(1));
        tracker.finish(1, Outcome::Away(1, "503".into()), now);
        let due = tracker.next_due().unwrap();
        assert!(
            tracker.next(now) == Some(2) || !pauses.is_empty(),
            "the other mount goes on"
        );
        pauses.push(due - now);
        now = due;
    }
    assert!(pauses[0] < Duration::from_millis(300), "{pauses:?}");
    assert!(
        pauses[9] > Duration::from_secs(10) && pauses[9] <= PAUSE_MAX,
        "{pauses:?}"
    );
}

#[test]
fn one_key_belongs_to_one_piece_of_work_at_a_time() {
    let mut tracker = tracker(&[put(1, 1, &[]), put(2, 2, &[])]);
    tracker.next(NOW);
    tracker.next(NOW);
    assert_eq!(tracker.acquire(1, &at(1, "k")), Acquired::Yes);
    assert_eq!(tracker.acquire(2, &at(1, "k")), Acquired::Owned(1));
    tracker.finish(2, Outcome::Wait(1), NOW);
    assert_eq!(tracker.next(NOW), None);
    tracker.finish(1, Outcome::Moved, NOW);
    tracker.refresh(1, None, NOW);
    assert_eq!(tracker.next(NOW), Some(2));
    assert_eq!(tracker.acquire(2, &at(1, "k")), Acquired::Yes);
}

#[test]
fn what_a_run_claimed_stays_its_own_when_the_run_is_over() {
    let mut tracker = tracker(&[put(1, 1, &[]), put(2, 2, &[])]);
    tracker.next(NOW);
    assert_eq!(tracker.acquire(1, &at(1, "k")), Acquired::Yes);
    let claimed = put(1, 3, &[(1, "k")]);
    tracker.note_version(1, &claimed);
    tracker.finish(1, Outcome::Soon(NOW), NOW);
    tracker.refresh(1, Some(&claimed), NOW);
    assert_eq!(tracker.acquire(2, &at(1, "k")), Acquired::Owned(1));
}

#[test]
fn a_run_whose_row_was_taken_over_is_waited_for_before_its_key_is_cleared() {
    let mut tracker = tracker(&[put(1, 1, &[]), put(2, 2, &[(1, "k")])]);
    tracker.next(NOW);
    tracker.next(NOW);
    assert_eq!(tracker.acquire(2, &at(1, "k")), Acquired::Yes);
    tracker.refresh(1, Some(&put(1, 3, &[(1, "k")])), NOW);
    tracker.refresh(2, None, NOW);
    assert_eq!(tracker.writer_at(1, &at(1, "k")), Some(2));
    tracker.finish(2, Outcome::Moved, NOW);
    tracker.refresh(2, None, NOW);
    assert_eq!(tracker.writer_at(1, &at(1, "k")), None);
}

#[test]
fn a_directory_that_goes_from_a_key_goes_before_the_file_that_comes_there() {
    let mut row = put(1, 1, &[(1, "d")]);
    row.work.what = WorkKind::Clear;
    row.work.places[0].kind = PlaceKind::Prune;
    let mut tracker = tracker(&[row, put(2, 2, &[]), put(3, 3, &[(1, "d")])]);
    assert_eq!(tracker.acquire(2, &at(1, "d")), Acquired::Owned(1));
    assert_eq!(
        tracker.owner_below(1, &at(1, "d"), Below::Any),
        None,
        "or both would wait"
    );
    assert_eq!(tracker.acquire(2, &at(1, "d/x")), Acquired::Yes);
    assert_eq!(tracker.owner_below(1, &at(1, "d"), Below::Any), Some(2));
}

#[test]
fn a_tree_that_is_to_go_holds_back_what_comes_under_it() {
    let mut row = put(1, 1, &[(1, "d")]);
    row.work.what = WorkKind::Clear;
    row.work.places[0].kind = PlaceKind::Tree;
    let mut tracker = tracker(&[row, put(2, 2, &[])]);
    assert_eq!(tracker.acquire(2, &at(1, "d/x")), Acquired::Owned(1));
    assert_eq!(tracker.acquire(2, &at(2, "d/x")), Acquired::Yes, "another mount");
    assert_eq!(tracker.acquire(2, &at(1, "dd")), Acquired::Yes, "only begins like it");
}

#[test]
fn a_directory_that_was_overwritten_lets_what_is_new_come_and_waits_for_what_is_older() {
    let mut row = put(2, 1, &[(1, "d")]);
    row.work.what = WorkKind::Clear;
    row.work.places[0].kind = PlaceKind::Overwritten;
    let mut tracker = tracker(&[put(1, 1, &[(1, "d/1")]), row, put(3, 3, &[(1, "d/3")])]);
    [1, 3].into_iter().for_each(|seq| tracker.set_source(seq, None));
    let below = |tracker: &Tracker| tracker.owner_below(2, &at(1, "d"), Below::Older);
    assert_eq!(below(&tracker), None, "none of them is under way");
    assert_eq!(tracker.next(NOW), Some(1));
    assert_eq!(tracker.acquire(1, &at(1, "d/1")), Acquired::Yes);
    assert_eq!(below(&tracker), Some(1));
    tracker.finish(1, Outcome::Moved, NOW);
    tracker.refresh(1, None, NOW);
    assert_eq!((tracker.next(NOW), tracker.next(NOW)), (Some(2), Some(3)));
    assert_eq!(below(&tracker), None, "what comes later is not waited for");
    tracker.set_source(3, Some(at(1, "d/old")));
    assert_eq!(below(&tracker), Some(3), "it needs what lies there");
}

#[test]
fn a_directory_from_which_something_was_moved_stays_until_what_was_overwritten_there_is_gone() {
    let mut row = put(2, 1, &[(1, "d/e"), (1, "f")]);
    row.work.what = WorkKind::Clear;
    row.work
        .places
        .iter_mut()
        .for_each(|place| place.kind = PlaceKind::Overwritten);
    let mut tracker = tracker(&[row]);
    for key in ["d", "d/e", "f"] {
        assert_eq!(tracker.overwritten_from(1, &at(1, key)), Some(2), "{key}");
    }
    for at in [at(1, "d/e/x"), at(1, "d/"), at(1, "ff"), at(2, "d")] {
        assert_eq!(tracker.overwritten_from(1, &at), None, "{at:?}");
    }
    assert_eq!(tracker.overwritten_from(2, &at(1, "d")), None, "its own");
    tracker.refresh(2, None, NOW);
    assert_eq!(tracker.overwritten_from(1, &at(1, "d")), None);
}

#[test]
fn a_ring_of_waits_unwinds() {
    // 1 is to be written where 2 has its old place, and the other way round.
    let mut tracker = tracker(&[put(1, 1, &[(1, "a")]), put(2, 2, &[(1, "b")])]);
    tracker.next(NOW);
    tracker.set_source(1, None);
    assert_eq!(tracker.acquire(1, &at(1, "b")), Acquired::Owned(2));
    tracker.finish(1, Outcome::Wait(2), NOW);
    assert_eq!(tracker.next(NOW), Some(2));
    assert_eq!(tracker.acquire(2, &at(1, "a")), Acquired::Owned(1));
    tracker.finish(2, Outcome::Wait(1), NOW);
    tracker.release_due(NOW);
    // One of them goes on, and finds that the other only waits.
    let first = tracker.next(NOW).unwrap();
    assert!(tracker.unwinds(first));
}

#[test]
fn what_changes_while_it_runs_runs_again() {
    let mut tracker = tracker(&[put(1, 1, &[])]);
    tracker.next(NOW);
    let changed = Row {
        work: Work {
            what: WorkKind::Clear,
            ..put(1, 2, &[]).work
        },
        ..put(1, 2, &[])
    };
    tracker.refresh(1, Some(&changed), NOW);
    tracker.finish(1, Outcome::Held, NOW);
    assert_eq!(tracker.next(NOW), Some(1));
}

#[test]
fn what_is_let_go_while_it_runs_is_not_kept_back_by_what_the_run_found() {
    for kept in [Outcome::Held, Outcome::Withheld(None)] {
        let mut tracker = tracker(&[put(1, 1, &[])]);
        tracker.next(NOW);
        let mut moved = put(2, 2, &[]);
        moved.work.what = WorkKind::MoveTree { ino: 7 };
        tracker.refresh(2, Some(&moved), NOW);
        tracker.finish(1, kept.clone(), NOW);
        assert_eq!(tracker.next(NOW), Some(1), "{kept:?}");
        tracker.finish(1, kept, NOW);
        assert_eq!(tracker.next(NOW), Some(2));
        assert_eq!(tracker.next(NOW), None);
    }
}

#[test]
fn what_is_waited_for_and_was_kept_back_meanwhile_is_asked_for_again() {
    let mut tracker = tracker(&[put(1, 1, &[]), put(2, 2, &[])]);
    assert_eq!((tracker.next(NOW), tracker.next(NOW)), (Some(1), Some(2)));
    // The second sees the first on its way, which ends before the second has begun to wait.
    assert!(tracker.before(2, 10).withheld.is_empty());
    tracker.finish(1, Outcome::Withheld(None), NOW);
    tracker.finish(2, Outcome::Wait(1), NOW);
    assert_eq!(tracker.next(NOW), Some(2));
    let Before { withheld, older, all } = tracker.before(2, 10);
    assert_eq!((withheld, older.len(), all), (vec![(1, 1)], 0, true));
    tracker.urge(&[1]);
    tracker.finish(2, Outcome::Wait(1), NOW);
    assert_eq!((tracker.next(NOW), tracker.next(NOW)), (Some(1), None));
}

#[test]
fn staging_names_are_looked_at_again_when_a_directory_was_renamed() {
    let mut tracker = tracker(&[put(1, 1, &[])]);
    tracker.next(NOW);
    tracker.finish(1, Outcome::Held, NOW);
    assert_eq!(tracker.next(NOW), None);
    let mut moved = put(2, 2, &[]);
    moved.work.what = WorkKind::MoveTree { ino: 7 };
    tracker.refresh(2, Some(&moved), NOW);
    assert_eq!((tracker.next(NOW), tracker.next(NOW)), (Some(1), Some(2)));
}

#[test]
fn what_lay_in_a_directory_is_looked_at_again_when_that_has_another_path() {
    let mut tracker = tracker(&[put(1, 1, &[]), put(2, 1, &[(1, "a")]), put(3, 1, &[(1, "b")])]);
    for outcome in [
        Outcome::Blocked {
            path: Path::root(),
            reason: "403".to_owned(),
        },
        Outcome::Conflict(Conflicted {
            mount: 1,
            key: "a".to_owned(),
            reason: "written by someone else".to_owned(),
            since: 7,
            mine: "content 2.1".to_owned(),
            theirs: None,
            seen: "nothing".to_owned(),
        }),
        Outcome::Held,
    ] {
        let seq = tracker.next(NOW).unwrap();
        tracker.finish(seq, outcome, NOW);
    }
    assert_eq!(tracker.troubles(), (1, 1));
    assert!(!tracker.take_directories_moved());
    let mut moved = put(4, 1, &[]);
    moved.work.what = WorkKind::MoveTree { ino: 9 };
    tracker.refresh(4, Some(&moved), NOW);
    assert!(tracker.take_directories_moved() && !tracker.take_directories_moved());
    // Only what is troubled is let go by this; staging names go with any rename.
    tracker.look_again(&[1, 2, 17]);
    assert_eq!(tracker.troubles(), (0, 0));
    let ready: Vec<u64> = std::iter::from_fn(|| tracker.next(NOW)).collect();
    assert_eq!(ready.len(), 4, "{ready:?}");
}

#[test]
fn a_conflict_of_which_the_mount_is_not_known_is_found_anew() {
    let mut row = put(1, 1, &[(3, "b")]);
    let conflict = |key: &str| WorkState::Conflict {
        reason: "written by someone else".to_owned(),
        since: 7,
        key: key.to_owned(),
        theirs: None,
        seen: "nothing".to_owned(),
    };
    row.work.state = conflict("b");
    assert!(matches!(
        phase_of(&row, NOW),
        Phase::Conflict(Conflicted { mount: 3, .. })
    ));
    row.work.state = conflict("c");
    assert_eq!(phase_of(&row, NOW), Phase::Ready);
}
