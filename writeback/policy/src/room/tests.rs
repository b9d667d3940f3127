use super::*;
use forebay_runtime::chance::{Chance, SeededChance};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn path(text: &str) -> Arc<Path> {
    Arc::new(Path::parse(text.as_bytes()).unwrap())
}

fn auto(dir: &str) -> Arc<Place> {
    Arc::new(Place {
        dir: path(dir),
        evict: Evict::Auto,
        evict_at: None,
        pinned: false,
        quotas: Vec::new(),
        tier: Tier::auto(),
    })
}

fn set(dir: &str, evict: Evict) -> Arc<Place> {
    Arc::new(Place {
        evict,
        evict_at: Some(path(dir)),
        ..Place::clone(&auto(dir))
    })
}

fn pinned(dir: &str) -> Arc<Place> {
    Arc::new(Place {
        pinned: true,
        ..Place::clone(&auto(dir))
    })
}

fn under(quotas: &[(&str, u64)], place: Arc<Place>) -> Arc<Place> {
    Arc::new(Place {
        quotas: quotas.iter().map(|(at, most)| (path(at), *most)).collect(),
        ..Place::clone(&place)
    })
}

/// Reads an item of one byte as a cache does; whether it was a hit.
fn read(room: &mut Room<u64>, key: u64, place: &Arc<Place>, now: Duration) -> bool {
    let held = room.read(&key, place, now);
    if !held {
        room.admit(key, 1, place, now);
    }
    held
}

fn shuffled(count: u64, seed: u64) -> Vec<u64> {
    let chance = SeededChance::new(seed);
    let mut items: Vec<u64> = (0..count).collect();
    for at in (1..items.len()).rev() {
        items.swap(at, usize::try_from(chance.below(at as u64 + 1)).unwrap());
    }
    items
}

#[test]
fn epochs_are_found_and_then_hit_as_often_as_can_be() {
    let mut room = Room::new(500);
    let place = auto("/train");
    let mut ratios = Vec::new();
    for epoch in 0..8 {
        let hits = shuffled(1000, epoch)
            .into_iter()
            .filter(|key| read(&mut room, *key, &place, SECOND))
            .count();
        ratios.push(hits);
    }
    assert!(ratios[3..].iter().all(|hits| *hits == 500), "{ratios:?}");
}

#[test]
fn a_dataset_that_is_read_in_epochs_keeps_its_share_while_others_get_an_eighth() {
    let mut room = Room::new(800);
    let (train, other) = (auto("/train"), auto("/other"));
    for epoch in 0..4 {
        for key in shuffled(1000, epoch) {
            read(&mut room, key, &train, SECOND);
        }
    }
    for key in 0..5_000 {
        read(&mut room, 100_000 + key, &other, SECOND * 2);
    }
    let hits = shuffled(1000, 9)
        .into_iter()
        .filter(|key| room.read(key, &train, SECOND * 3))
        .count();
    assert_eq!(hits, 700);
    // Left alone for long enough it makes room for all of it.
    for key in 0..5_000 {
        read(&mut room, 200_000 + key, &other, SECOND * 3 + ASLEEP);
    }
    assert_eq!((0..1000).filter(|key| room.holds(key)).count(), 0);
}

#[test]
fn what_is_asked_for_is_taken_out_and_no_more_and_nothing_that_is_pinned() {
    let mut room = Room::new(1000);
    for key in 0..100 {
        room.enter(key, 2, &if key < 50 { pinned("/p") } else { auto("/x") }, SECOND);
    }
    let taken = room.take(9, |key| key % 2 == 0);
    assert_eq!(taken, [50, 52, 54, 56, 58]);
    assert_eq!(room.bytes(), 190);
    assert_eq!(room.take(u64::MAX, |key| key % 2 == 0).len(), 20);
    assert!((0..50).all(|key| room.holds(&key)) && (0..100).filter(|key| room.holds(key)).count() == 75);
}

#[test]
fn pinned_items_stay_whatever_comes_and_take_room_from_anyone() {
    let mut room = Room::new(100);
    let epochs = set("/e", Evict::Epoch);
    for key in 0..200 {
        read(&mut room, key, &epochs, SECOND);
    }
    assert_eq!((0..200).filter(|key| room.holds(key)).count(), 100);
    for key in 1000..1060 {
        assert!(room.enter(key, 1, &pinned("/p"), SECOND).kept);
    }
    assert_eq!((room.bytes(), room.pinned_bytes()), (100, 60));
    for key in 2000..5000 {
        read(&mut room, key, &auto("/x"), SECOND * 10_000);
    }
    assert!((1000..1060).all(|key| room.is_pinned(&key)));
    for key in 6000..6100 {
        room.enter(key, 1, &pinned("/p"), SECOND);
    }
    assert_eq!(room.pinned_bytes(), 100);
    let refused = room.enter(9999, 1, &auto("/x"), SECOND);
    assert_eq!(
        refused,
        Entered {
            kept: false,
            gone: vec![]
        }
    );
}

#[test]
fn a_quota_holds_for_all_under_its_path_and_harms_nobody_else() {
    let mut room = Room::new(1000);
    let other = auto("/other");
    for key in 0..500 {
        read(&mut room, key, &other, SECOND);
    }
    let outer = [("/q", 100)];
    let inner = [("/q", 100), ("/q/in", 30)];
    for key in 1000..2000 {
        read(&mut room, key, &under(&outer, auto("/q/a")), SECOND);
        read(&mut room, key + 1000, &under(&inner, set("/q/in", Evict::Lru)), SECOND);
    }
    let held = |from: u64, to: u64| (from..to).filter(|key| room.holds(key)).count();
    assert_eq!(held(0, 500), 500);
    assert!(held(2000, 3000) <= 30, "{}", held(2000, 3000));
    assert_eq!(held(1000, 3000), 100);
    let (big, place) = (room.bytes(), under(&outer, auto("/q")));
    assert!(
        !room.enter(9999, 101, &place, SECOND).kept,
        "more than the quota at once"
    );
    assert_eq!(room.bytes(), big);
}

#[test]
fn what_a_changed_policy_asks_for_is_done_to_what_is_held() {
    let mut room = Room::new(100);
    for key in 0..100 {
        read(&mut room, key, &auto("/a"), SECOND);
    }
    let gone = room.replace(|_, _| pinned("/a"), SECOND);
    assert!(gone.is_empty() && room.pinned_bytes() == 100);
    let gone = room.replace(|_, _| under(&[("/a", 40)], auto("/a")), SECOND);
    assert_eq!((gone.len(), room.bytes(), room.pinned_bytes()), (60, 40, 0));
}

#[test]
fn a_scan_beside_what_is_used_takes_nothing_from_it_and_is_hardly_written() {
    let (hot, scan) = (auto("/hot"), auto("/scan"));
    let mut room = Room::new(1000);
    for _ in 0..4 {
        for key in 0..700 {
            read(&mut room, key, &hot, SECOND);
        }
    }
    let chance = SeededChance::new(3);
    let (mut written, mut hits) = (0, 0);
    for key in 10_000..30_000 {
        read(&mut room, key, &scan, SECOND);
        written += u64::from(room.holds(&key));
        hits += u64::from(read(&mut room, chance.below(700), &hot, SECOND));
    }
    assert!(hits >= 19_800, "{hits} of 20000 reads of what is used");
    assert!(written < 20_000 / 12, "{written} of 20000");
}

#[test]
fn a_scan_is_found_beside_readers_that_come_back_now_and_then() {
    let (some, scan) = (auto("/some"), auto("/scan"));
    let mut room = Room::new(1000);
    // Far more is read of the low numbers.
    let chance = SeededChance::new(4);
    let skewed = || (1..=3).fold(5000, |most, _| chance.below(most + 1));
    let hits = |room: &mut Room<u64>, with_scan: bool| {
        let mut hits = 0;
        for n in 0..40_000 {
            hits += u64::from(read(room, skewed(), &some, SECOND));
            if with_scan {
                read(room, 1_000_000 + n, &scan, SECOND);
            }
        }
        hits
    };
    hits(&mut room, false);
    let (alone, beside) = (hits(&mut room, false), hits(&mut room, true));
    assert!(beside * 100 > alone * 97, "{beside} beside a scan, {alone} alone");
    let of_scan = (1_000_000..1_040_000).filter(|key| room.holds(key)).count();
    assert!(of_scan <= 110, "{of_scan} of the scan are held");
}

#[test]
fn other_orders_and_what_is_brought_know_no_scan() {
    let mut room = Room::new(100);
    for key in 0..10_000 {
        read(&mut room, key, &auto("/scan"), SECOND);
    }
    assert!(!room.admit(20_001, 1, &auto("/scan"), SECOND).kept || !room.admit(20_002, 1, &auto("/scan"), SECOND).kept);
    for key in 30_000..30_100 {
        assert!(room.enter(key, 1, &auto("/scan"), SECOND).kept, "loaded");
        assert!(room.admit(key + 1000, 1, &set("/l", Evict::Lru), SECOND).kept);
    }
}

/// Whatever is read, the limit holds, and a pin with it.
#[test]
fn random_traces_never_break_the_limit() {
    for seed in 0..40 {
        let chance = SeededChance::new(seed);
        let places = [
            auto("/a"),
            auto("/b"),
            set("/s", Evict::S3Fifo),
            under(&[("/q", 300)], auto("/q")),
            pinned("/p"),
        ];
        let mut room = Room::new(1000);
        let mut now = SECOND;
        for _ in 0..300 {
            let (span, from) = (1 + chance.below(400), chance.below(5000));
            let place = &places[usize::try_from(chance.below(21) / 5).unwrap()];
            now += SECOND * u32::try_from(chance.below(20)).unwrap();
            for key in from..from + chance.below(span) {
                if !room.read(&key, place, now) {
                    let bytes = 1 + key % 40;
                    let entered = match chance.below(10) {
                        0 => room.enter(key, bytes, place, now),
                        _ => room.admit(key, bytes, place, now),
                    };
                    assert_eq!(entered.kept, room.holds(&key), "seed {seed}");
                    assert!(entered.kept || !entered.gone.contains(&key), "seed {seed}");
                }
                assert!(room.bytes() <= 1000, "seed {seed}: {} bytes", room.bytes());
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Read(u64, usize),
    Admit(u64, u64, usize),
    Enter(u64, u64, usize),
    Leave(u64),
    Wait,
    Replace(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..60_u64;
    let step = prop_oneof![
        8 => (key.clone(), 0..6_usize).prop_map(|(key, place)| Step::Read(key, place)),
        4 => (key.clone(), 1..12_u64, 0..6_usize).prop_map(|(key, bytes, place)| Step::Enter(key, bytes, place)),
        8 => (key.clone(), 1..12_u64, 0..6_usize).prop_map(|(key, bytes, place)| Step::Admit(key, bytes, place)),
        2 => key.prop_map(Step::Leave),
        1 => Just(Step::Wait),
        1 => (0..6_usize).prop_map(Step::Replace),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    /// Limits hold, pinned items stay, and the numbers are those of a plain map.
    #[test]
    fn whatever_happens_the_limits_hold_and_the_numbers_are_right(steps in steps()) {
        let places = [
            auto("/a"),
            set("/l", Evict::Lru),
            set("/e", Evict::Epoch),
            pinned("/p"),
            under(&[("/q", 20)], auto("/q")),
            under(&[("/q", 20), ("/q/r", 8)], set("/q/r", Evict::S3Fifo)),
        ];
        let (mut room, mut held, mut now) = (Room::new(50), BTreeMap::<u64, (u64, Arc<Place>)>::new(), SECOND);
        for step in steps {
            match step {
                Step::Read(key, place) => prop_assert_eq!(room.read(&key, &places[place], now), held.contains_key(&key)),
                Step::Enter(key, bytes, place) | Step::Admit(key, bytes, place) => {
                    held.remove(&key);
                    let Entered { kept, gone } = match step {
                        Step::Admit(..) => room.admit(key, bytes, &places[place], now),
                        _ => room.enter(key, bytes, &places[place], now),
                    };
                    for gone in gone {
                        let (_, of) = held.remove(&gone).expect("only what was held can go");
                        prop_assert!(!of.pinned);
                    }
                    if kept {
                        held.insert(key, (bytes, Arc::clone(&places[place])));
                    }
                }
                Step::Leave(key) => prop_assert_eq!(room.leave(&key), held.remove(&key).map(|(bytes, _)| bytes)),
                Step::Wait => now += ASLEEP,
                Step::Replace(place) => {
                    let place = &places[place];
                    let to = |_: &u64, before: &Place| if before.dir == path("/a") { Arc::clone(place) } else { Arc::new(before.clone()) };
                    for (_, of) in held.values_mut().filter(|(_, of)| of.dir == path("/a")) {
                        *of = Arc::clone(place);
                    }
                    for gone in room.replace(to, now) {
                        held.remove(&gone).expect("only what was held can go");
                    }
                }
            }
            let sum = |of: &dyn Fn(&Place) -> bool| held.values().filter(|(_, place)| of(place)).map(|(bytes, _)| bytes).sum::<u64>();
            prop_assert_eq!(room.bytes(), sum(&|_| true));
            prop_assert_eq!(room.pinned_bytes(), sum(&|place| place.pinned));
            prop_assert!(room.bytes() <= 50);
            prop_assert!(sum(&|place| place.quotas.iter().any(|(at, _)| *at == path("/q"))) <= 20);
            prop_assert!(sum(&|place| place.quotas.iter().any(|(at, _)| *at == path("/q/r"))) <= 8);
            for key in 0..60 {
                prop_assert_eq!(room.holds(&key), held.contains_key(&key));
            }
        }
    }
}
