//! Many names: small durable files made, directories listed with the attributes of all that is in them, directories renamed.

use super::{Dice, Measure, place::Place};
use crate::{
    Bench,
    measure::{Goal, Row, Sample, Unit, timed},
};
use anyhow::{Result, ensure};
use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

const WRITERS: usize = 8;
const FRESH_FILES: usize = 800;
const FRESH_BYTES: usize = 10 << 10;
const LISTED_FILES: usize = 5000;
const LISTINGS: usize = 20;
const RENAMES: usize = 1000;
/// Of those that make the names of G8, which are many.
const MAKERS: usize = 64;

pub(super) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if bench.wants("G18") || bench.wants("G19") {
        rows.extend(few(bench).await?);
    }
    if bench.wants("G8") || bench.wants("G8b") {
        rows.extend(many(bench).await?);
    }
    Ok(rows)
}

async fn few(bench: &Bench) -> Result<Vec<Row>> {
    let (place, content) = (Place::start(bench)?, Dice::new().bytes(FRESH_BYTES));
    let (mut rows, run) = (Vec::new(), AtomicUsize::new(0));
    if bench.wants("G18") {
        let fresh = Measure {
            id: "G18",
            what: "create, write 10 KiB, fsync, close, 8 threads",
            unit: Unit::Operations,
            goal: Goal::AtLeast(0.8),
            amount: FRESH_FILES as f64,
            work: |at: &Path| {
                let folder = at.join(format!("fresh-{}", run.fetch_add(1, Ordering::Relaxed)));
                make(&folder, FRESH_FILES, WRITERS, &content, true)
            },
        };
        rows.push(fresh.run(bench, &place, place.mount()).await?);
    }
    if bench.wants("G19") {
        for at in [place.mount(), place.plain()] {
            make(&at.join("listed"), LISTED_FILES, MAKERS, &content, false)?;
        }
        let listed = Measure {
            id: "G19",
            what: "scandir and stat of 5,000 files",
            unit: Unit::Operations,
            goal: Goal::Report,
            amount: (LISTED_FILES * LISTINGS) as f64,
            work: |at: &Path| (0..LISTINGS).try_for_each(|_| list(&at.join("listed"), LISTED_FILES)),
        };
        rows.push(listed.run(bench, &place, place.mount()).await?);
        let renamed = Measure {
            id: "G19",
            what: "rename of a directory of 5,000 files",
            unit: Unit::Operations,
            goal: Goal::Report,
            amount: RENAMES as f64,
            work: |at: &Path| rename(&at.join("listed"), &at.join("renamed")),
        };
        rows.push(renamed.run(bench, &place, place.mount()).await?);
    }
    Ok(rows)
}

/// Makes a directory of `count` files by `writers` threads.
fn make(folder: &Path, count: usize, writers: usize, content: &[u8], sync: bool) -> Result<()> {
    std::fs::create_dir(folder)?;
    let share = |writer: usize| {
        for k in (writer..count).step_by(writers) {
            let mut file = File::create_new(folder.join(format!("{k:07}")))?;
            file.write_all(content)?;
            if sync {
                file.sync_all()?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|k| scope.spawn(move || share(k))).collect();
        threads
            .into_iter()
            .try_for_each(|t| t.join().expect("it does not panic"))
    })
}

/// What `ls -l` asks for.
fn list(folder: &Path, count: usize) -> Result<()> {
    let mut listed = 0;
    for entry in std::fs::read_dir(folder)? {
        listed += usize::from(entry?.metadata()?.is_file());
    }
    ensure!(listed == count, "{listed} of {count} files in {}", folder.display());
    Ok(())
}

fn rename(a: &Path, b: &Path) -> Result<()> {
    for _ in 0..RENAMES / 2 {
        std::fs::rename(a, b)?;
        std::fs::rename(b, a)?;
    }
    Ok(())
}

/// A fresh mount for every first listing, since the kernel remembers what it was told.
async fn many(bench: &Bench) -> Result<Vec<Row>> {
    let (place, count) = (Place::start(bench)?, bench.names);
    for at in [place.mount(), place.plain()] {
        make(&at.join("many"), count, MAKERS, &[], false)?;
        list(&at.join("many"), count)?;
    }
    let listing = async |at: &Path| {
        let ((), wall, cpu) = timed(place.pid(), async { list(&at.join("many"), count) }).await?;
        let seconds = wall.as_secs_f64();
        Ok::<_, anyhow::Error>(Sample {
            amount: 1.0,
            seconds,
            cpu,
        })
    };
    let (mut first, mut again, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.pairs.min(3) {
        let mount = place.attach("pipeline")?;
        first.push(listing(mount.path()).await?);
        theirs.push(listing(place.plain()).await?);
        again.push(listing(mount.path()).await?);
    }
    let row = |id, what, goal, ours| Row {
        id,
        what: format!("list {count} names with their attributes, {what}"),
        unit: Unit::Duration,
        goal: Goal::AtMost(goal),
        ours,
        theirs: theirs.clone(),
    };
    Ok(vec![
        row("G8", "for the first time", 2.5, first),
        row("G8b", "again", 1.4, again),
    ])
}
