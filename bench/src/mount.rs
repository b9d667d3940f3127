//! G4, G5, G6, G8, G18, G19: files through the mount beside the same files on the disk under it, by the same system calls.

mod data;
mod names;
mod place;

use crate::{
    Bench,
    measure::{Goal, Row, Sample, Unit, pairs, timed},
};
use anyhow::Result;
use place::Place;
use std::path::Path;

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = data::rows(bench).await?;
    rows.extend(names::rows(bench).await?);
    Ok(rows)
}

/// One row to be measured: `amount` of what `unit` counts, done by `work` in a directory of either side.
struct Measure<W> {
    id: &'static str,
    what: &'static str,
    unit: Unit,
    goal: Goal,
    amount: f64,
    work: W,
}

impl<W: FnMut(&Path) -> Result<()>> Measure<W> {
    /// Ours is `mount`, theirs the plain directory of `place`.
    async fn run(self, bench: &Bench, place: &Place, mount: &Path) -> Result<Row> {
        let Self {
            id,
            what,
            unit,
            goal,
            amount,
            work,
        } = self;
        let (pid, work) = (place.pid(), std::cell::RefCell::new(work));
        let side = |at: &Path| {
            let (at, work) = (at.to_owned(), &work);
            async move {
                let ((), wall, cpu) = timed(pid, async { (work.borrow_mut())(&at) }).await?;
                Ok(Sample {
                    amount,
                    seconds: wall.as_secs_f64(),
                    cpu,
                })
            }
        };
        let (ours, theirs) = pairs(bench.pairs, || side(mount), || side(place.plain())).await?;
        Ok(Row {
            id,
            what: what.into(),
            unit,
            goal,
            ours,
            theirs,
        })
    }
}

/// Numbers that look random and are the same in every run.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}
