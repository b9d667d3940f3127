//! An upload in parts that was cut off goes on where it was, with nothing that is not its own.

use crate::support::{World, at, part_notes as notes, pattern, put};
use forebay_metastore::{Entry, Key, MetaStore, Op, Tx};
use forebay_runtime::{clock::Clock, units::ByteSize};
use forebay_understore::{
    StoreError,
    memory::{Call, FaultRates},
};
use forebay_writeback::{
    Cache,
    names::Rename,
    persist::Resolve,
    rows::{self, PartNote},
};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
const LARGE: &str = "/kept/large";
/// Ten parts, the last one shorter.
const SIZE: usize = 9 * 30_000 + 12_345;
const PARTS: u64 = 10;

fn world(seed: u64) -> World {
    let mut world = World::new(seed);
    world.settings.persist.single_put_bytes_max = ByteSize(50_000);
    world.settings.persist.part_bytes = ByteSize(30_000);
    world
}

async fn tamper(world: &World, ops: Vec<Op>) {
    let tx = Tx { ops, ..Tx::default() };
    world.meta.commit(tx).await.unwrap();
}

async fn persisted(cache: &Cache) {
    cache.wait_persisted(&at("/kept"), DAY).await.unwrap();
}

/// What the store had been asked for when the process was killed, and what was noted of it.
struct Cut {
    parts: u64,
    noted: u64,
}

/// Writes a file and is killed when at least four of its parts have been acknowledged.
fn cut_off(world: &mut World, content: &[u8]) -> Cut {
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, LARGE, content).await.unwrap();
        // Four are on their way at once, so when the eighth begins four have ended.
        while world.store.calls(Call::Part) < 8 {
            world.clock.sleep(Duration::from_millis(1)).await;
        }
        let noted = notes(world).await.len() as u64;
        assert_eq!(world.store.contents().len(), 0, "it was too late to cut it off");
        Cut {
            parts: world.store.calls(Call::Part),
            noted,
        }
    })
}

/// The next life, in which everything arrives.
fn finish(world: &mut World) {
    world.live(async |world| persisted(&world.open().await.unwrap()).await);
}

/// The object is `content`, alone, and nothing of the upload is left.
fn arrived(world: &mut World, content: &[u8]) {
    assert_eq!(world.store.contents().keys().collect::<Vec<_>>(), ["large"]);
    assert!(world.store.contents()["large"] == content, "other bytes arrived");
    nothing_left(world);
}

fn nothing_left(world: &mut World) {
    assert_eq!(world.store.open_uploads(), 0);
    world.live(async |world| assert_eq!(notes(world).await, []));
}

#[test]
fn an_upload_goes_on_after_a_crash_and_sends_only_what_the_store_has_not() {
    for (seed, power_cut) in (1..20).map(|seed| (seed, seed % 2 == 0)) {
        let mut world = world(seed);
        let content = pattern(1, SIZE);
        let cut = cut_off(&mut world, &content);
        if power_cut {
            world.cut_power();
        }
        finish(&mut world);
        assert_eq!(world.store.calls(Call::Start), 1, "seed {seed}: it began anew");
        assert!(cut.noted >= 4, "seed {seed}: only {} noted", cut.noted);
        let sent = world.store.calls(Call::Part) - cut.parts;
        assert_eq!(sent, PARTS - cut.noted, "seed {seed}");
        assert!(world.store.calls(Call::Part) <= PARTS + 4, "seed {seed}");
        arrived(&mut world, &content);
    }
}

#[test]
fn an_upload_that_is_cut_off_again_and_again_under_faults_arrives() {
    for seed in 100..120 {
        let mut world = world(seed);
        let content = pattern(2, SIZE);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            put(&cache, LARGE, &content).await.unwrap();
        });
        world.store.set_rates(FaultRates {
            unavailable: 100,
            lost_answer: 100,
            hang: 20,
            wrong_body: 50,
            ..FaultRates::default()
        });
        for life in 0..12 {
            world.live(async |world| {
                let _cache = world.open().await.unwrap();
                world.clock.sleep(Duration::from_millis(20 + life * 10)).await;
            });
        }
        world.store.set_rates(FaultRates::default());
        finish(&mut world);
        arrived(&mut world, &content);
    }
}

#[test]
fn an_upload_that_someone_aborted_meanwhile_begins_anew() {
    let mut world = world(30);
    let content = pattern(3, SIZE);
    cut_off(&mut world, &content);
    world.store.abort_outside();
    finish(&mut world);
    assert_eq!(world.store.calls(Call::Start), 2);
    arrived(&mut world, &content);
}

#[test]
fn of_a_file_that_was_overwritten_meanwhile_no_old_part_is_used() {
    let mut world = world(31);
    cut_off(&mut world, &pattern(4, SIZE));
    // Of the same size, so that each old part would fit.
    let content = pattern(5, SIZE);
    world.store.set_away(Some(StoreError::Unavailable("503".into())));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, LARGE, &content).await.unwrap();
        world.store.set_away(None);
        persisted(&cache).await;
    });
    assert_eq!(world.store.calls(Call::Start), 2);
    arrived(&mut world, &content);
}

#[test]
fn of_a_file_that_is_overwritten_while_its_upload_goes_on_no_old_part_is_used() {
    for seed in 200..230 {
        let mut world = world(seed);
        cut_off(&mut world, &pattern(6, SIZE));
        let content = pattern(7, SIZE);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            world.clock.sleep(Duration::from_millis(seed - 200)).await;
            put(&cache, LARGE, &content).await.unwrap();
            persisted(&cache).await;
        });
        arrived(&mut world, &content);
    }
}

#[test]
fn of_a_file_that_was_renamed_or_deleted_meanwhile_nothing_is_left_at_its_old_key() {
    let mut world = world(32);
    let content = pattern(8, SIZE);
    cut_off(&mut world, &content);
    let how = Rename {
        replace: true,
        parents: false,
        ..Rename::default()
    };
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        cache.rename(&at(LARGE), &at("/kept/other"), how).await.unwrap();
        persisted(&cache).await;
    });
    assert_eq!(world.store.contents().keys().collect::<Vec<_>>(), ["other"]);
    assert!(world.store.contents()["other"] == content);
    nothing_left(&mut world);

    let mut world = self::world(33);
    cut_off(&mut world, &content);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        cache.delete(&at(LARGE), false).await.unwrap();
        persisted(&cache).await;
    });
    assert_eq!(world.store.contents().len(), 0);
    nothing_left(&mut world);
}

#[test]
fn a_target_that_someone_wrote_meanwhile_is_a_conflict_as_ever() {
    let mut world = world(34);
    let content = pattern(9, SIZE);
    cut_off(&mut world, &content);
    world.store.write_outside("large", "theirs");
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        world.clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(world.store.contents()["large"], "theirs");
        assert_eq!(cache.status().await.unwrap().conflicts.len(), 1);
        cache.persist_resolve(&at(LARGE), Resolve::KeepMine).await.unwrap();
        persisted(&cache).await;
    });
    arrived(&mut world, &content);
}

/// Part `at` of the notes, changed.
fn changed(notes: &[(Key, Entry)], at: usize, change: impl FnOnce(&mut PartNote)) -> Op {
    let (key, entry) = &notes[at];
    let mut note: PartNote = rows::decode(&entry.value).unwrap();
    change(&mut note);
    Op::Put(key.clone(), rows::encode(&note))
}

#[test]
fn a_note_that_is_torn_or_another_content_s_only_means_that_the_part_is_sent_again() {
    type Tampering = fn(&[(Key, Entry)]) -> Op;
    let tamperings: [Tampering; 4] = [
        |notes| Op::Put(notes[1].0.clone(), notes[1].1.value.slice(..5)),
        |notes| Op::Put(notes[1].0.clone(), Key::new()),
        |notes| Op::Delete(notes[1].0.clone()),
        |notes| changed(notes, 1, |note| note.token.push('0')),
    ];
    for tampering in tamperings {
        let mut world = world(35);
        let content = pattern(10, SIZE);
        let cut = cut_off(&mut world, &content);
        world.live(async |world| tamper(world, vec![tampering(&notes(world).await)]).await);
        finish(&mut world);
        assert_eq!(world.store.calls(Call::Start), 1);
        assert_eq!(world.store.calls(Call::Part), cut.parts + PARTS - (cut.noted - 1));
        arrived(&mut world, &content);
    }
}

#[test]
fn notes_that_do_not_tell_the_truth_only_mean_that_the_upload_begins_anew() {
    type Tampering = fn(&[(Key, Entry)]) -> Vec<Op>;
    let swapped: Tampering = |notes| {
        vec![
            Op::Put(notes[0].0.clone(), notes[1].1.value.clone()),
            Op::Put(notes[1].0.clone(), notes[0].1.value.clone()),
        ]
    };
    let of_other_parts: Tampering = |notes| vec![changed(notes, 0, |note| note.part_bytes *= 2)];
    let all_of_other_parts: Tampering = |notes| {
        let other = |at| changed(notes, at, |note| note.part_bytes *= 2);
        (0..notes.len()).map(other).collect()
    };
    let of_no_bytes: Tampering = |notes| {
        let none = |at| changed(notes, at, |note| note.part_bytes = 0);
        (0..notes.len()).map(none).collect()
    };
    for tampering in [swapped, of_other_parts, all_of_other_parts, of_no_bytes] {
        let mut world = world(36);
        let content = pattern(11, SIZE);
        cut_off(&mut world, &content);
        world.live(async |world| tamper(world, tampering(&notes(world).await)).await);
        finish(&mut world);
        assert_eq!(world.store.calls(Call::Start), 2);
        arrived(&mut world, &content);
    }
}

#[test]
fn notes_of_uploads_that_no_place_names_go_at_the_next_start() {
    let mut world = world(37);
    let content = pattern(12, SIZE);
    let cut = cut_off(&mut world, &content);
    let strays: Vec<Key> = (0..5000)
        .map(|index| rows::part_note_key(7, "nobody's", index))
        .collect();
    world.live(async |world| {
        for strays in strays.chunks(1000) {
            let put = |key: &Key| Op::Put(key.clone(), Key::from_static(b"x"));
            tamper(world, strays.iter().map(put).collect()).await;
        }
        world.store.set_away(Some(StoreError::Unavailable("503".into())));
        let _cache = world.open().await.unwrap();
        assert_eq!(
            notes(world).await.len() as u64,
            cut.noted,
            "those of the upload are kept"
        );
        world.store.set_away(None);
    });
    finish(&mut world);
    assert_eq!(world.store.calls(Call::Start), 1);
    arrived(&mut world, &content);
}

#[test]
fn other_settings_in_the_next_life_do_not_mix_parts() {
    let content = pattern(13, SIZE);
    for part_bytes in [7_000, 45_000] {
        let mut world = world(38);
        cut_off(&mut world, &content);
        world.settings.persist.part_bytes = ByteSize(part_bytes);
        finish(&mut world);
        assert_eq!(world.store.calls(Call::Start), 1, "it goes on in parts as they were");
        arrived(&mut world, &content);
    }
    let mut world = world(39);
    cut_off(&mut world, &content);
    world.settings.persist.single_put_bytes_max = ByteSize(1 << 20);
    finish(&mut world);
    assert_eq!((world.store.calls(Call::Start), world.store.calls(Call::Put)), (1, 1));
    arrived(&mut world, &content);
}

/// Parts in a local folder are durable with the whole only.
#[test]
fn an_upload_to_a_local_folder_begins_anew() {
    let mut world = world(40);
    world.settings.mounts[0].url = "file:/elsewhere".into();
    world.store = world.store.known_as("file:/elsewhere");
    let content = pattern(14, SIZE);
    let cut = cut_off(&mut world, &content);
    assert_eq!(cut.noted, 0);
    finish(&mut world);
    assert_eq!(world.store.calls(Call::Start), 2);
    arrived(&mut world, &content);
}
