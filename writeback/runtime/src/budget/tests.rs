use super::*;
use crate::chance::{Chance, SeededChance};
use futures::{FutureExt, poll};
use std::{pin::pin, task::Poll};

#[test]
fn try_acquire_stops_at_the_limit_and_drop_gives_back() {
    let budget = Budget::new("dirty", 10);
    let first = budget.try_acquire(7).unwrap();
    assert!(budget.try_acquire(4).is_none());
    let second = budget.try_acquire(3).unwrap();
    assert_eq!(
        *budget.watch().borrow(),
        Level {
            used: 10,
            limit: 10,
            waiting: 0
        }
    );
    drop((first, second));
    assert_eq!(budget.used(), 0);
    assert!(budget.try_acquire(u64::MAX).is_none(), "no overflow");
}

#[tokio::test]
async fn the_line_is_first_come_first_served_even_behind_a_large_one() {
    let budget = Budget::new("dirty", 10);
    let held = budget.try_acquire(5).unwrap();
    let mut large = pin!(budget.acquire(8));
    let mut small = pin!(budget.acquire(1));
    assert!(poll!(&mut large).is_pending());
    assert!(
        poll!(&mut small).is_pending(),
        "there would be room, but the large one came first"
    );
    assert!(budget.try_acquire(1).is_none());
    assert_eq!(budget.watch().borrow().waiting, 2);
    drop(held);
    let Poll::Ready(large) = poll!(&mut large) else {
        panic!("not granted")
    };
    let Poll::Ready(small) = poll!(&mut small) else {
        panic!("not granted")
    };
    assert_eq!((large.bytes(), small.bytes(), budget.used()), (8, 1, 9));
}

#[tokio::test]
async fn whoever_gives_up_does_not_block_those_behind() {
    let budget = Budget::new("dirty", 10);
    let _held = budget.try_acquire(5).unwrap();
    let mut large = Box::pin(budget.acquire(8));
    let mut small = pin!(budget.acquire(2));
    assert!(poll!(&mut large).is_pending() && poll!(&mut small).is_pending());
    drop(large);
    assert!(poll!(&mut small).is_ready());
}

#[tokio::test]
async fn a_grant_to_someone_who_has_just_left_comes_back() {
    let budget = Budget::new("dirty", 10);
    let held = budget.try_acquire(10).unwrap();
    let mut waiting = Box::pin(budget.acquire(4));
    assert!(poll!(&mut waiting).is_pending());
    drop(held);
    assert_eq!(budget.used(), 4, "granted, not yet picked up");
    drop(waiting);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn a_request_beyond_the_limit_goes_alone() {
    let budget = Budget::new("dirty", 10);
    let held = budget.try_acquire(1).unwrap();
    let mut huge = pin!(budget.acquire(50));
    assert!(poll!(&mut huge).is_pending());
    drop(held);
    let Poll::Ready(huge) = poll!(&mut huge) else {
        panic!("not granted")
    };
    assert_eq!(huge.bytes(), 50);
    assert!(budget.try_acquire(1).is_none());
}

#[tokio::test]
async fn the_limit_may_change_while_others_wait() {
    let budget = Budget::new("dirty", 0);
    let mut waiting = pin!(budget.acquire(3));
    // 3 > 0, but nothing is held: it goes alone.
    let Poll::Ready(alone) = poll!(&mut waiting) else {
        panic!("not granted")
    };
    let mut next = pin!(budget.acquire(3));
    assert!(poll!(&mut next).is_pending());
    budget.set_limit(6);
    assert!(poll!(&mut next).is_ready());
    budget.set_limit(2);
    drop(alone);
    assert!(budget.try_acquire(3).is_none());
}

#[test]
fn bytes_can_be_split_merged_shrunk_forced_and_forgotten() {
    let budget = Budget::new("dirty", 10);
    let mut permit = budget.force(15);
    assert_eq!(budget.watch().borrow().free(), 0);
    let part = permit.split(5).unwrap();
    assert!(permit.split(11).is_none());
    drop(part);
    let rest = permit.split(4).unwrap();
    permit.merge(rest);
    assert_eq!(permit.bytes(), 10);
    permit.shrink_to(6);
    permit.shrink_to(100);
    assert_eq!((permit.bytes(), budget.used()), (6, 6));
    assert_eq!(permit.forget(), 6);
    assert_eq!(budget.used(), 6);
    budget.release(6);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn whatever_happens_the_books_balance() {
    let seed = 2026;
    println!("seed {seed}");
    let chance = SeededChance::new(seed);
    let budget = Budget::new("dirty", 100);
    let (mut held, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..3_000 {
        match chance.below(6) {
            0 | 1 => waiting.push(Box::pin({
                let (budget, bytes) = (budget.clone(), chance.below(40));
                async move { budget.acquire(bytes).await }
            })),
            2 if !held.is_empty() => drop(held.swap_remove(pick(&*chance, held.len()))),
            3 if !waiting.is_empty() => drop(waiting.swap_remove(pick(&*chance, waiting.len()))),
            4 => held.extend(budget.try_acquire(chance.below(20))),
            _ => budget.set_limit(50 + chance.below(100)),
        }
        let mut still = Vec::new();
        for mut future in waiting.drain(..) {
            match future.as_mut().now_or_never() {
                Some(permit) => held.push(permit),
                None => still.push(future),
            }
        }
        waiting = still;
        let sum: u64 = held.iter().map(Permit::bytes).sum();
        assert!(budget.used() >= sum);
    }
    drop(waiting);
    drop(held);
    assert_eq!(
        *budget.watch().borrow(),
        Level {
            used: 0,
            limit: budget.limit(),
            waiting: 0
        }
    );
}

fn pick(chance: &dyn Chance, len: usize) -> usize {
    usize::try_from(chance.below(len as u64)).unwrap()
}
