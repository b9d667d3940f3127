use super::*;
use forebay_runtime::chance::{Chance, SeededChance};

/// Reads items; whether they were taken for epochs after each.
fn watch(passes: &mut Passes<&'static str>, reads: impl IntoIterator<Item = u64>) -> Vec<bool> {
    reads.into_iter().map(|item| passes.read(&"d", &item)).collect()
}

fn shuffled(count: u64, seed: u64) -> Vec<u64> {
    let dice = SeededChance::new(seed);
    let mut items: Vec<u64> = (0..count).collect();
    for at in (1..items.len()).rev() {
        items.swap(at, usize::try_from(dice.below(at as u64 + 1)).unwrap());
    }
    items
}

#[test]
fn epochs_are_seen_after_two_whatever_the_order() {
    for count in [16, 100, 3_000, 50_000] {
        for shuffle in [false, true] {
            let mut passes = Passes::default();
            let epoch = |n| {
                if shuffle {
                    shuffled(count, n)
                } else {
                    (0..count).collect()
                }
            };
            assert!(
                watch(&mut passes, epoch(1)).iter().all(|epochs| !epochs),
                "one scan is no epoch"
            );
            assert!(watch(&mut passes, epoch(2)).last().unwrap(), "{count} {shuffle}");
            for n in 3..8 {
                assert!(
                    watch(&mut passes, epoch(n)).iter().all(|epochs| *epochs),
                    "{count} {shuffle}"
                );
            }
        }
    }
}

#[test]
fn a_few_that_are_read_twice_or_not_at_all_do_not_hide_epochs() {
    let mut passes = Passes::default();
    for n in 1..4 {
        let mut reads: Vec<u64> = shuffled(1000, n).into_iter().filter(|item| item % 20 != n).collect();
        reads.splice(500..500, reads[100..150].to_vec());
        watch(&mut passes, reads);
    }
    assert!(watch(&mut passes, [0]).last().unwrap());
}

#[test]
fn epochs_are_seen_from_wherever_one_begins_to_look_and_by_whomever_they_are_read() {
    for begin in [1, 250, 500, 900] {
        let mut passes = Passes::default();
        watch(&mut passes, shuffled(1000, 0).into_iter().skip(begin));
        for n in 1..5 {
            watch(&mut passes, shuffled(1000, n));
        }
        assert!(watch(&mut passes, [0]).last().unwrap(), "{begin}");
    }
    // Two jobs, each in its own order.
    let mut passes = Passes::default();
    for n in 0..5 {
        let both = shuffled(1000, n).into_iter().zip(shuffled(1000, n + 100));
        watch(
            &mut passes,
            both.flat_map(|(one, other)| [one, other]).collect::<Vec<_>>(),
        );
    }
    assert!(watch(&mut passes, [0]).last().unwrap());
}

#[test]
fn reads_that_come_back_to_what_they_like_are_no_epochs() {
    let dice = SeededChance::new(7);
    let mut passes = Passes::default();
    // The square of an even number likes small ones.
    let liked = (0..100_000).map(|_| {
        let one = dice.below(1000);
        one * one / 1000
    });
    assert!(
        watch(&mut passes, liked.collect::<Vec<_>>())
            .iter()
            .all(|epochs| !epochs)
    );
}

#[test]
fn what_was_read_in_epochs_may_change() {
    let mut passes = Passes::default();
    for n in 0..3 {
        watch(&mut passes, shuffled(1000, n));
    }
    assert!(watch(&mut passes, [0]).last().unwrap());
    let dice = SeededChance::new(3);
    let hot: Vec<u64> = (0..4000).map(|_| dice.below(50)).collect();
    assert!(!watch(&mut passes, hot).last().unwrap());
}

#[test]
fn no_more_is_remembered_than_is_allowed() {
    let mut passes = Passes::default();
    for dir in 0..3 * DIRS_MAX {
        passes.read(&dir, &1);
    }
    assert!(passes.dirs.len() <= DIRS_MAX);
    let mut passes = Passes::default();
    watch(&mut passes, 0..1_000_000);
    assert!(passes.dirs["d"].items.len() <= ITEMS_MAX + 1);
}
