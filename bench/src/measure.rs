//! Pairs of measurements, A B A B, and what is said of them: the median of the pairs' ratios and its quartiles, with the CPU
//! seconds that each side took. A ratio is only ever formed within one pair, since these machines are noisy.

use anyhow::{Context, Result};
use std::{
    fmt::Write as _,
    future::Future,
    time::{Duration, Instant},
};

/// One measured run of one side.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// What was done: bytes, puts, or 1 for a pure duration.
    pub(crate) amount: f64,
    /// Wall seconds.
    pub(crate) seconds: f64,
    /// CPU seconds of client and server together.
    pub(crate) cpu: f64,
}

impl Sample {
    fn rate(&self) -> f64 {
        self.amount / self.seconds
    }
}

/// What a row's figure is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Amounts are bytes; rates are GB/s, and CPU is told per GB.
    Bytes,
    /// Amounts are operations; rates are 1/s.
    Operations,
    /// Amounts are those of `seconds` cases that came out well.
    Share,
    /// The figure is the amount itself, and the ratio is of amounts.
    Count,
    /// The figure is the duration itself, in ms; the ratio is of durations.
    Duration,
}

/// Which side of a goal is good.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// The ratio should be at least this.
    AtLeast(f64),
    /// The ratio should be at most this.
    AtMost(f64),
    /// Told, not judged.
    Report,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) goal: Goal,
    pub(crate) ours: Vec<Sample>,
    pub(crate) theirs: Vec<Sample>,
}

/// Runs `count` pairs, after one of each that does not count (caches, allocators, connections).
pub(crate) async fn pairs<A, B>(
    count: usize,
    mut ours: impl FnMut() -> A,
    mut theirs: impl FnMut() -> B,
) -> Result<(Vec<Sample>, Vec<Sample>)>
where
    A: Future<Output = Result<Sample>>,
    B: Future<Output = Result<Sample>>,
{
    ours().await?;
    theirs().await?;
    let mut out = (Vec::new(), Vec::new());
    for _ in 0..count {
        out.0.push(ours().await?);
        out.1.push(theirs().await?);
    }
    Ok(out)
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    quantile(&sorted(values), 0.5)
}

impl Row {
    /// Lower quartile, median and upper quartile of the pairs' ratios, ours over theirs.
    pub(crate) fn ratio(&self) -> [f64; 3] {
        let ratios = sorted(self.ours.iter().zip(&self.theirs).map(|(a, b)| match self.unit {
            Unit::Duration => a.seconds / b.seconds,
            _ => a.rate() / b.rate(),
        }));
        [0.25, 0.5, 0.75].map(|q| quantile(&ratios, q))
    }

    /// Whether the whole middle half of the ratios is on the good side.
    pub(crate) fn reached(&self) -> Option<bool> {
        let [low, _, high] = self.ratio();
        match self.goal {
            Goal::AtLeast(goal) => Some(low >= goal),
            Goal::AtMost(goal) => Some(high <= goal),
            Goal::Report => None,
        }
    }

    fn figure(&self, samples: &[Sample]) -> String {
        match self.unit {
            Unit::Bytes => format!("{:.2} GB/s", median(samples.iter().map(Sample::rate)) / 1e9),
            Unit::Operations => format!("{:.0}/s", median(samples.iter().map(Sample::rate))),
            Unit::Share => format!("{:.3}", median(samples.iter().map(Sample::rate))),
            Unit::Count => format!("{:.0}", median(samples.iter().map(|s| s.amount))),
            Unit::Duration => format!("{:.2} ms", median(samples.iter().map(|s| s.seconds)) * 1e3),
        }
    }

    fn cpu_per_gb(&self, samples: &[Sample]) -> String {
        match self.unit {
            Unit::Bytes => format!("{:.2}", median(samples.iter().map(|s| s.cpu / s.amount * 1e9))),
            _ => "–".into(),
        }
    }

    /// The row as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let [low, middle, high] = self.ratio();
        let goal = match self.goal {
            Goal::AtLeast(goal) => format!("≥ {goal}"),
            Goal::AtMost(goal) => format!("≤ {goal}"),
            Goal::Report => "–".into(),
        };
        let reached = self.reached().map_or("–", |yes| if yes { "yes" } else { "no" });
        format!(
            "| {} | {} | {} | {} | **{middle:.3}** ({low:.3}–{high:.3}) | {goal} | {reached} | {} / {} |",
            self.id,
            self.what,
            self.figure(&self.ours),
            self.figure(&self.theirs),
            self.cpu_per_gb(&self.ours),
            self.cpu_per_gb(&self.theirs),
        )
    }

    /// The row for machines.
    pub(crate) fn json(&self) -> serde_json::Value {
        let [low, middle, high] = self.ratio();
        let side = |samples: &[Sample]| {
            let each = samples
                .iter()
                .map(|s| serde_json::json!({"amount": s.amount, "seconds": s.seconds, "cpu_seconds": s.cpu}));
            each.collect::<Vec<_>>()
        };
        serde_json::json!({"id": self.id, "what": self.what, "ratio": {"low": low, "median": middle, "high": high},
            "reached": self.reached(), "ours": side(&self.ours), "theirs": side(&self.theirs)})
    }
}

/// The table's head and rows.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "| id | ours / theirs | ours | theirs | ratio, median (quartiles) | goal | reached | CPU s per GB, ours / theirs |\n|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        writeln!(out, "{}", row.markdown()).expect("a string takes everything");
    }
    out
}

/// CPU seconds that a process has used so far, all its threads; our own for `std::process::id()`.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    let after_name = stat.rsplit_once(") ").context("stat without a name")?.1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    // SAFETY: sysconf has no preconditions.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Ok(ticks / per_second)
}

/// Times `work` and the CPU that this process and `server` spend on it.
pub(crate) async fn timed<T>(server: u32, work: impl Future<Output = Result<T>>) -> Result<(T, Duration, f64)> {
    let spent = || Ok::<f64, anyhow::Error>(cpu_seconds(server)? + cpu_seconds(std::process::id())?);
    let (before, begin) = (spent()?, Instant::now());
    let out = work.await?;
    let wall = begin.elapsed();
    Ok((out, wall, spent()? - before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: &[f64], theirs: &[f64], unit: Unit, goal: Goal) -> Row {
        let samples = |seconds: &[f64]| {
            seconds
                .iter()
                .map(|&seconds| Sample {
                    amount: 1e9,
                    seconds,
                    cpu: 1.0,
                })
                .collect()
        };
        Row {
            id: "T",
            what: String::new(),
            unit,
            goal,
            ours: samples(ours),
            theirs: samples(theirs),
        }
    }

    #[test]
    fn ratios_are_formed_within_pairs() {
        let it = row(&[1.0, 10.0, 2.0], &[2.0, 20.0, 4.0], Unit::Bytes, Goal::AtLeast(1.9));
        assert_eq!(it.ratio(), [2.0, 2.0, 2.0]);
        assert_eq!(it.reached(), Some(true));
    }

    #[test]
    fn durations_are_better_when_smaller_and_a_straddling_quartile_fails() {
        let it = row(
            &[1.0, 1.0, 1.0, 4.0, 4.0],
            &[10.0; 5],
            Unit::Duration,
            Goal::AtMost(0.2),
        );
        assert_eq!((it.ratio()[1], it.reached()), (0.1, Some(false)));
    }
}
