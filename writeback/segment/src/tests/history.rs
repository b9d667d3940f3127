//! Random histories against a plain model, with faults, kills and power cuts in between. The seed is printed when one fails.

use super::*;
use crate::crc::crc32c;
use forebay_runtime::{
    chance::{Chance, SeededChance},
    disk::Fault,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// What the model knows of a stream.
#[derive(Debug, Default)]
struct Expected {
    /// Appends that were accepted: bytes and note.
    appends: Vec<(Bytes, Bytes)>,
    /// How many of them were acknowledged.
    acked: usize,
    /// Appends that were refused at this place; one of them may be there all the same.
    refused: Vec<(usize, Bytes, Bytes)>,
    sealed: Option<Layout>,
    given_up: bool,
}

impl Expected {
    fn content(&self) -> Vec<u8> {
        self.appends
            .iter()
            .flat_map(|(bytes, _)| bytes.iter().copied())
            .collect()
    }
}

struct History {
    seed: u64,
    chance: Arc<SeededChance>,
    bench: Bench,
    store: SegmentStore,
    model: BTreeMap<StreamId, Expected>,
    writers: BTreeMap<StreamId, (Writer, Follower)>,
    next: u64,
    restarts: u32,
    faulty: bool,
    /// Tell every step: `TRACE=1 SEED=… SEEDS=1`.
    trace: bool,
}

impl History {
    async fn new(seed: u64, bench: Bench) -> History {
        let (store, _) = bench.open().await;
        History {
            seed,
            chance: SeededChance::new(seed),
            bench,
            store,
            model: BTreeMap::new(),
            writers: BTreeMap::new(),
            next: 1,
            restarts: 0,
            faulty: false,
            trace: std::env::var_os("TRACE").is_some(),
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{}", what());
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.chance.u64() % n
    }

    fn some_writer(&self) -> Option<StreamId> {
        let n = self.writers.len() as u64;
        (n > 0).then(|| *self.writers.keys().nth(self.below(n) as usize).unwrap())
    }

    async fn step(&mut self) {
        match self.below(100) {
            0..12 => self.create(),
            12..50 => self.append().await,
            50..62 => self.sync().await,
            62..72 => self.follow().await,
            72..82 => self.seal().await,
            82..85 => self.discard(),
            85..90 => self.release(),
            90..92 => tokio::time::sleep(Duration::from_millis(self.below(10))).await,
            92..96 => self.arm(),
            _ => self.restart().await,
        }
    }

    fn create(&mut self) {
        if self.writers.len() >= 8 {
            return;
        }
        let stream = StreamId(self.next, 1);
        self.next += 1;
        let hint = [None, None, Some(10), Some(1 << 20)][self.below(4) as usize];
        let writer = self.store.create(stream, hint);
        let follower = writer.follow();
        self.writers.insert(stream, (writer, follower));
        self.model.insert(stream, Expected::default());
    }

    async fn append(&mut self) {
        let Some(stream) = self.some_writer() else { return };
        let len = [0, 1, 100, 5000, 40_000, 70_000, 200_000][self.below(7) as usize] + self.below(50);
        let (content, note) = (
            bytes(self.chance.u64(), len as usize),
            note("x".repeat(self.below(20) as usize)),
        );
        let half = content.len() / 2;
        let (writer, _) = self.writers.get_mut(&stream).unwrap();
        let added = writer
            .append(&[content.slice(..half), content.slice(half..)], note.clone())
            .await;
        self.say(|| format!("{stream} append {len}: {added:?}"));
        let expected = self.model.get_mut(&stream).unwrap();
        match added {
            Ok(_) => expected.appends.push((content, note)),
            Err(e) => {
                assert!(
                    self.faulty || (self.is_tight() && e.is_full()),
                    "seed {}: {e:?}",
                    self.seed
                );
                let expected = self.model.get_mut(&stream).unwrap();
                expected.refused.push((expected.appends.len(), content, note));
                if !e.is_full() {
                    self.writers.remove(&stream);
                }
            }
        }
    }

    async fn sync(&mut self) {
        let Some(stream) = self.some_writer() else { return };
        let synced = self.writers.get_mut(&stream).unwrap().0.sync().await;
        self.acknowledged(stream, synced.map(|stable| stable.appends));
    }

    fn acknowledged(&mut self, stream: StreamId, appends: Result<u64, SegmentError>) {
        self.say(|| format!("{stream} acknowledged: {appends:?}"));
        let expected = self.model.get_mut(&stream).unwrap();
        match appends {
            Ok(appends) => {
                assert_eq!(appends as usize, expected.appends.len(), "seed {}", self.seed);
                expected.acked = expected.appends.len();
            }
            Err(e) => {
                assert!(self.faulty, "seed {}: {e:?}", self.seed);
                drop(self.writers.remove(&stream));
            }
        }
    }

    async fn follow(&mut self) {
        let Some(stream) = self.some_writer() else { return };
        let follower = self.writers[&stream].1.clone();
        let stable = follower.stable().borrow().clone();
        let expected = self.model.get_mut(&stream).unwrap();
        expected.acked = expected.acked.max(stable.appends as usize);
        let content = expected.content();
        let from = self.below(stable.bytes + 1);
        let to = from + self.below(stable.bytes - from + 1);
        match follower.read(from..to).await {
            Ok(found) => assert_eq!(
                found.concat(),
                content[from as usize..to as usize],
                "seed {}",
                self.seed
            ),
            Err(e) => assert!(self.faulty, "seed {}: {e:?}", self.seed),
        }
    }

    async fn seal(&mut self) {
        let Some(stream) = self.some_writer() else { return };
        let (writer, follower) = self.writers.remove(&stream).unwrap();
        let (crc, content) = (writer.crc(), self.model[&stream].content());
        assert_eq!(crc, crc32c(&content), "seed {}", self.seed);
        let sealed = writer.seal().await;
        self.acknowledged(stream, sealed.clone().map(|_| self.model[&stream].appends.len() as u64));
        let Ok(layout) = sealed else {
            self.model.get_mut(&stream).unwrap().given_up = true;
            return;
        };
        self.say(|| format!("{stream} sealed: {layout:?}"));
        assert_eq!(layout.len(), content.len() as u64, "seed {}", self.seed);
        for found in [
            read(&self.store, stream, &layout).await,
            follower.read(0..layout.len()).await.map(|c| c.concat().into()),
        ] {
            match found {
                Ok(found) => assert_eq!(found, content, "seed {}", self.seed),
                Err(e) => assert!(self.faulty, "seed {}: {e:?}", self.seed),
            }
        }
        self.model.get_mut(&stream).unwrap().sealed = Some(layout);
    }

    fn discard(&mut self) {
        let Some(stream) = self.some_writer() else { return };
        self.say(|| format!("{stream} discarded"));
        self.writers.remove(&stream).unwrap().0.discard();
        self.model.get_mut(&stream).unwrap().given_up = true;
    }

    fn release(&mut self) {
        let seed = self.below(1 << 30) as usize;
        let sealed: Vec<_> = self
            .model
            .iter_mut()
            .filter(|(_, e)| e.sealed.is_some() && !e.given_up)
            .collect();
        if sealed.is_empty() {
            return;
        }
        let n = sealed.len();
        let (stream, expected) = sealed.into_iter().nth(seed % n).unwrap();
        expected.given_up = true;
        let (stream, layout) = (*stream, expected.sealed.clone().unwrap());
        self.store.release(stream, &layout);
        self.say(|| format!("{stream} released"));
    }

    fn arm(&mut self) {
        self.faulty = true;
        let n = 1 + self.below(12);
        let fault = match self.below(4) {
            0 => Fault::Sync(n),
            1 => Fault::Write(n),
            2 => Fault::Full(n),
            _ => Fault::PowerOff(n),
        };
        self.say(|| format!("arm {fault:?}"));
        self.some_disk().arm(fault);
    }

    fn some_disk(&self) -> &SimDisk {
        let n = self.bench.disks().count() as u64;
        let nth = if n > 1 { self.below(n) } else { 0 };
        self.bench.disks().nth(nth as usize).unwrap()
    }

    /// Whether a disk is so small that it may be full without any fault.
    fn is_tight(&self) -> bool {
        self.bench.second.is_some() && self.seed.is_multiple_of(2)
    }

    /// Ends the process, with or without the power, and starts again, perhaps at the second or third attempt.
    async fn restart(&mut self) {
        for (stream, (writer, _)) in std::mem::take(&mut self.writers) {
            let stable = writer.stable().borrow().appends as usize;
            let expected = self.model.get_mut(&stream).unwrap();
            expected.acked = expected.acked.max(stable);
        }
        let how = self.below(6);
        self.say(|| format!("restart, way {how}"));
        match how {
            0 if !self.faulty => self.store.shutdown().await,
            1 | 2 => self.bench.kill(),
            _ => self.bench.restart(),
        }
        self.faulty = false;
        self.restarts += 1;
        for _ in 0..self.below(3) {
            self.some_disk().arm(Fault::PowerOff(self.below(25)));
            let attempt = self
                .bench
                .try_open()
                .await
                .map(|(_, recovered)| recovered.streams.len());
            self.say(|| format!("attempt: {attempt:?}"));
            self.bench.restart();
        }
        // A power cut may have been left over from before the kill.
        let opened = match self.bench.try_open().await {
            Err(e) if e.to_string().contains("power") => {
                self.bench.restart();
                self.bench.try_open().await
            }
            opened => opened,
        };
        let (store, recovered) = opened.unwrap_or_else(|e| panic!("seed {}: {e:?}", self.seed));
        self.store = store;
        self.compare(recovered).await;
    }

    async fn compare(&mut self, recovered: Recovered) {
        let mut streams = recovered.streams;
        let (mut live, mut resume) = (HashSet::new(), Vec::new());
        for (stream, found) in &streams {
            let lens: Vec<u64> = found.appends.iter().map(|a| a.range.end - a.range.start).collect();
            self.say(|| format!("found {stream}: {lens:?} sealed {} {:?}", found.sealed, found.layout));
        }
        for (stream, expected) in &mut self.model {
            let found = streams.remove(stream);
            if expected.given_up {
                continue;
            }
            if let Some(layout) = &expected.sealed {
                let content = read(&self.store, *stream, layout).await;
                let content = content.unwrap_or_else(|e| panic!("seed {}: sealed {stream}: {e:?}", self.seed));
                assert_eq!(content, expected.content(), "seed {}: sealed {stream}", self.seed);
                if !layout.is_empty() {
                    assert_eq!(
                        found.map(|f| f.layout).as_ref(),
                        Some(layout),
                        "seed {}: {stream}",
                        self.seed
                    );
                }
                live.insert(*stream);
                continue;
            }
            match found {
                None => {
                    assert_eq!(expected.acked, 0, "seed {}: {stream} is gone", self.seed);
                    expected.given_up = true;
                }
                Some(found) => {
                    Self::compare_open(self.seed, &self.store, *stream, expected, &found).await;
                    resume.push((*stream, found));
                }
            }
        }
        for (stream, found) in resume {
            let go_on = !self.chance.u64().is_multiple_of(3);
            self.say(|| format!("{stream} resumed: {go_on}"));
            if go_on {
                let sealed_for_good = found.sealed && matches!(found.layout, Layout::Dedicated { .. });
                let mut writer = self.store.resume(stream, found).unwrap();
                if sealed_for_good {
                    assert!(
                        writer.append(&[bytes(1, 1)], Bytes::new()).await.is_err(),
                        "seed {}",
                        self.seed
                    );
                    let layout = writer.seal().await.unwrap();
                    self.model.get_mut(&stream).unwrap().sealed = Some(layout);
                    live.insert(stream);
                } else {
                    let follower = writer.follow();
                    self.writers.insert(stream, (writer, follower));
                }
            } else {
                self.model.get_mut(&stream).unwrap().given_up = true;
            }
        }
        self.store.retain(&live).await;
    }

    /// What came back is what was acknowledged and perhaps more of what was written.
    async fn compare_open(
        seed: u64,
        store: &SegmentStore,
        stream: StreamId,
        expected: &mut Expected,
        found: &RecoveredStream,
    ) {
        let n = found.appends.len();
        assert!(
            n >= expected.acked,
            "seed {seed}: {stream}: {n} appends of {} acknowledged",
            expected.acked
        );
        let content = read(store, stream, &found.layout)
            .await
            .unwrap_or_else(|e| panic!("seed {seed}: {stream}: {e:?}"));
        assert_eq!(found.crc, crc32c(&content), "seed {seed}: {stream}");
        let pieces: Vec<(Bytes, Bytes)> = found
            .appends
            .iter()
            .map(|a| {
                (
                    Bytes::copy_from_slice(&content[a.range.start as usize..a.range.end as usize]),
                    a.note.clone(),
                )
            })
            .collect();
        let same = pieces.iter().zip(&expected.appends).take_while(|(a, b)| a == b).count();
        if same < n {
            let (bytes, note) = &pieces[n - 1];
            let refused = expected
                .refused
                .iter()
                .any(|(at, b, t)| (*at, b, t) == (same, bytes, note));
            assert!(
                same + 1 == n && same >= expected.acked && refused,
                "seed {seed}: {stream}: {same} of {n} appends are right"
            );
        }
        *expected = Expected {
            appends: pieces,
            acked: n,
            ..Expected::default()
        };
    }

    /// At the end everything is given up, and nothing is left.
    async fn end(mut self) {
        self.bench.disks().for_each(SimDisk::disarm);
        self.restart().await;
        for (_, (writer, _)) in std::mem::take(&mut self.writers) {
            writer.discard();
        }
        for (stream, expected) in &self.model {
            if let Some(layout) = expected.sealed.as_ref().filter(|_| !expected.given_up) {
                self.store.release(*stream, layout);
            }
        }
        self.store.shutdown().await;
        for folder in self.bench.folders() {
            let report = fsck(&folder, &self.bench.tree()).unwrap();
            assert!(report.findings.is_empty(), "seed {}: {report:?}", self.seed);
        }
        let (store, _) = self.bench.open().await;
        store.retain(&HashSet::new()).await;
        let left: Vec<_> = self
            .bench
            .folders()
            .iter()
            .flat_map(|folder| self.bench.files_of(folder))
            .filter(|(name, _)| name.contains('.'))
            .collect();
        assert!(left.is_empty(), "seed {}: {left:?}", self.seed);
    }
}

async fn run(seed: u64, steps: u32, bench: Bench) -> HashMap<&'static str, u32> {
    let mut history = History::new(seed, bench).await;
    if history.is_tight() {
        history.bench.second.as_ref().unwrap().set_capacity(1 << 20);
    }
    for _ in 0..steps {
        history.step().await;
    }
    let counts = HashMap::from([
        ("restarts", history.restarts),
        ("streams", history.model.len() as u32),
        (
            "faults",
            history
                .bench
                .disks()
                .map(|disk| disk.calls().faults as u32)
                .sum::<u32>(),
        ),
        (
            "sealed",
            history.model.values().filter(|e| e.sealed.is_some()).count() as u32,
        ),
    ]);
    history.end().await;
    counts
}

#[tokio::test(start_paused = true)]
async fn random_histories_lose_nothing_acknowledged_and_invent_nothing() {
    run_all(Bench::new).await;
}

#[tokio::test(start_paused = true)]
async fn random_histories_in_two_folders_lose_nothing_acknowledged_and_invent_nothing() {
    run_all(Bench::two).await;
}

async fn run_all(bench: impl Fn(u64) -> Bench) {
    let from: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let count: u64 = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let mut sums = HashMap::<&str, u32>::new();
    for seed in from..from + count {
        println!("seed {seed}");
        for (what, n) in run(seed, 150, bench(seed)).await {
            *sums.entry(what).or_default() += n;
        }
    }
    println!("{sums:?}");
    if count >= 20 {
        assert!(
            sums.values().all(|n| u64::from(*n) > count),
            "the histories hardly did anything: {sums:?}"
        );
    }
}
