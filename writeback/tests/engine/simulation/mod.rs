//! The engine in a world that a seed decides: actors write, append, rename, delete and read while disk, metastore and under-store
//! fail, the process is killed and the power is cut; then everything must be what was acknowledged, here and in the under-store.
//!
//! `FOREBAY_SIM_SEEDS=N` runs N seeds from 1 on (default: some fixed ones and two of the moment), `FOREBAY_SEED=S` begins with seed S; a
//! failure names its seed, and the same seed gives the same history again; `FOREBAY_SIM_LOG=1` prints it.

mod actor;
mod model;
mod pair;
mod pipeline;
mod run;
mod shared;

/// Seeds of a quick run: the first ones, and those that found something.
const SEEDS: &[u64] = &[
    1, 2, 4, 5, 6, 8, 9, 11, 12, 14, 17, 23, 31, 36, 46, 48, 53, 55, 62, 71, 72, 76, 111, 127, 147, 182, 194, 245, 384,
    449, 489, 507, 532, 597, 699, 709, 799, 809, 810, 1001, 1003, 1005, 1007, 1009, 1011,
];
/// Seeds that nobody has run before, in each quick run.
const FRESH: u64 = 2;

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number"))
    })
}

/// The seeds asked for, or the quick ones.
fn seeds() -> Vec<u64> {
    if std::env::var("FOREBAY_SIM_SEEDS").is_err() && std::env::var("FOREBAY_SEED").is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let fresh = now.map_or(0, |now| now.as_secs()) * FRESH;
        return SEEDS.iter().copied().chain(fresh..fresh + FRESH).collect();
    }
    let first = from_env("FOREBAY_SEED", 1);
    (first..first + from_env("FOREBAY_SIM_SEEDS", 1)).collect()
}

#[test]
fn what_was_acknowledged_is_there_after_any_fault_and_arrives_in_the_under_store() {
    let mut parquet = 0;
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| run::run(seed));
        match outcome {
            Ok(report) => {
                println!("seed {seed}: {report}");
                parquet += report.parquet;
            }
            Err(panic) => {
                eprintln!("failed with FOREBAY_SEED={seed} FOREBAY_SIM_SEEDS=1");
                std::panic::resume_unwind(panic);
            }
        }
    }
    let all = std::env::var("FOREBAY_SIM_SEEDS").is_err() && std::env::var("FOREBAY_SEED").is_err();
    assert!(parquet > 0 || !all, "no part became Parquet in any world");
}

/// Seeds of a quick run in a world that is not the usual one.
const FEW: usize = 12;

#[test]
fn the_same_holds_where_small_files_go_into_packs() {
    run_few("packed", run::run_packed);
}

#[test]
fn the_same_holds_in_two_data_folders() {
    run_few("two folders", run::run_in_two_folders);
}

fn run_few(what: &str, run: fn(u64) -> run::Report) {
    let all = std::env::var("FOREBAY_SIM_SEEDS").is_ok() || std::env::var("FOREBAY_SEED").is_ok();
    let seeds = seeds();
    let count = if all { seeds.len() } else { FEW };
    for seed in seeds.into_iter().take(count) {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(report) => println!("seed {seed}, {what}: {report}"),
            Err(panic) => {
                eprintln!("failed with FOREBAY_SEED={seed} FOREBAY_SIM_SEEDS=1");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn with_packs_the_same_seed_gives_the_same_history_too() {
    let seed = 5;
    assert_eq!(run::run_packed(seed).history, run::run_packed(seed).history);
}

#[test]
fn nothing_is_lost_where_blocks_have_copies_in_a_tier() {
    for seed in 1..=8 {
        println!("seed {seed}");
        run::run_with_tier(seed);
    }
}

/// Its marker in the store was left behind, hidden by a file that took its name, and showed once the file was gone. In the first
/// world, where it was found, every file goes in one put.
#[test]
fn an_empty_directory_that_was_renamed_away_does_not_show_again() {
    run::run_in(crate::support::World::new(113));
    run::run(17);
}

/// It was removed while its directory hid what the store had, left no whiteout, and its object showed once the directory hid nothing.
#[test]
fn a_file_that_was_renamed_out_of_an_opaque_directory_does_not_show_again() {
    run::run_in(crate::support::World::new(921));
}

/// A renamed directory was looked through for what had to be moved; another one took its place before it was told to show the store at
/// its own path, and then that one no longer showed what it held.
#[test]
fn a_directory_that_takes_the_place_of_one_that_is_moved_keeps_what_it_shows() {
    run::run(485);
}

/// It was renamed to the name of the directory in which its only copy still lay, and that went to make room for it.
#[test]
fn a_file_that_takes_the_place_of_its_own_directory_can_be_read() {
    run::run(732);
}

#[test]
fn one_seed_twice_gives_the_same_history() {
    let seed = from_env("FOREBAY_SEED", SEEDS[0]);
    println!("seed {seed}");
    let (first, second) = (run::run(seed).history, run::run(seed).history);
    for (at, (a, b)) in first.iter().zip(&second).enumerate() {
        assert_eq!(a, b, "the histories differ from line {at} on");
    }
    assert_eq!(first.len(), second.len());
    assert!(first.len() > 50, "hardly anything happened");
}
