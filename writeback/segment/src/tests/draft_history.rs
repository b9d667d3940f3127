//! Random changes of a draft against a plain vector, with faults, kills and power cuts in between. The seed is printed when one fails.

use super::*;
use crate::crc::crc32c;
use forebay_runtime::{
    chance::{Chance, SeededChance},
    disk::Fault,
};
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

/// Longest that a draft grows.
const LEN_MAX: u64 = 700_000;

/// What the model knows of the draft under way.
#[derive(Debug, Default)]
struct Model {
    content: Vec<u8>,
    /// What the last sync made durable.
    synced: Option<Vec<u8>>,
    /// Which bytes of it were changed since, by calls that went well or not.
    touched: Vec<bool>,
    /// Longest that the file may be.
    len_max: usize,
    ended: bool,
    /// A seal failed, so it may have been sealed.
    seal_tried: bool,
}

impl Model {
    fn touch(&mut self, range: Range<usize>) {
        let n = self.touched.len();
        self.touched[range.start.min(n)..range.end.min(n)].fill(true);
        self.len_max = self.len_max.max(self.content.len());
    }

    fn resize(&mut self, len: usize) {
        self.touch(len.min(self.content.len())..usize::MAX);
        self.content.resize(len, 0);
        self.len_max = self.len_max.max(len);
    }

    fn write(&mut self, at: usize, piece: &[u8]) {
        let end = at + piece.len();
        if end > self.content.len() {
            self.resize(end);
        }
        self.touch(at..end);
        self.content[at..end].copy_from_slice(piece);
    }

    fn durable(&mut self) {
        self.synced = Some(self.content.clone());
        self.touched = vec![false; self.content.len()];
        self.len_max = self.content.len();
    }

    /// Whether `found` may be what a crash left.
    fn check(&self, found: &[u8], seed: u64) {
        assert!(
            found.len() <= self.len_max,
            "seed {seed}: {} of at most {}",
            found.len(),
            self.len_max
        );
        let Some(synced) = &self.synced else { return };
        for (at, byte) in synced.iter().enumerate().filter(|(at, _)| !self.touched[*at]) {
            assert_eq!(found.get(at), Some(byte), "seed {seed}: byte {at}, which was synced");
        }
    }
}

struct History {
    seed: u64,
    chance: Arc<SeededChance>,
    bench: Bench,
    store: SegmentStore,
    stream: StreamId,
    draft: Draft,
    model: Model,
    sealed: Vec<(StreamId, Layout, Vec<u8>)>,
    faulty: bool,
    /// The disk did not let a new draft begin.
    stuck: bool,
    counts: HashMap<&'static str, u32>,
}

impl History {
    async fn new(seed: u64) -> History {
        let bench = Bench::new(seed);
        let (store, _) = bench.open().await;
        let stream = StreamId(1, 1);
        let draft = store.draft(stream).unwrap();
        History {
            seed,
            chance: SeededChance::new(seed),
            bench,
            store,
            stream,
            draft,
            model: Model::default(),
            sealed: Vec::new(),
            faulty: false,
            stuck: false,
            counts: HashMap::new(),
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.chance.below(n)
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn range(&self) -> Range<u64> {
        let at = self.below(LEN_MAX);
        let len = [1, 100, 512, 5000, 100_000][self.below(5) as usize] + self.below(1000);
        at..(at + len).min(LEN_MAX)
    }

    /// Somewhere around the content, so that most changes overlap.
    fn near(&self) -> Range<u64> {
        let range = self.range();
        let at = self.below(self.model.content.len() as u64 + 1000);
        at..(at + range.end - range.start).min(LEN_MAX.max(at))
    }

    async fn step(&mut self) {
        if self.stuck {
            return self.restart().await;
        }
        match self.below(100) {
            0..30 => self.write(),
            30..36 => self.set_len(),
            36..42 => self.punch(),
            42..45 => self.allocate(),
            45..60 => self.read(),
            60..74 => self.sync().await,
            74..80 => self.seal().await,
            80..82 => self.discard(),
            82..90 => self.arm(),
            _ => self.restart().await,
        }
    }

    /// Whether a call went well. One that did not says `Full`, or it was the last one.
    fn went_well(&mut self, answer: Result<(), SegmentError>) -> bool {
        let seed = self.seed;
        match answer {
            Ok(()) => {
                assert!(!self.model.ended, "seed {seed}: went on after a failure");
                true
            }
            Err(e) => {
                assert!(self.faulty, "seed {seed}: {e:?}");
                self.model.ended |= !e.is_full();
                self.count(if e.is_full() { "full" } else { "failed" });
                false
            }
        }
    }

    fn write(&mut self) {
        let range = self.near();
        let (at, piece) = (
            range.start as usize,
            bytes(self.chance.u64(), (range.end - range.start) as usize),
        );
        let answer = self.draft.write_at(&piece, range.start);
        if self.went_well(answer) {
            return self.model.write(at, &piece);
        }
        let (len, end) = (self.model.content.len(), range.end as usize);
        self.model.touch(at..end);
        self.model.len_max = self.model.len_max.max(end);
        if !self.model.ended {
            let (found, seed) = (self.content(), self.seed);
            assert_eq!(found.len(), len, "seed {seed}: a write without room moved the end");
            for (i, byte) in found.iter().enumerate().filter(|(i, b)| **b != self.model.content[*i]) {
                assert!(
                    (at..end).contains(&i) && *byte == piece[i - at],
                    "seed {seed}: byte {i}"
                );
            }
            self.model.content = found;
        }
    }

    fn set_len(&mut self) {
        let len = self.range().start;
        let answer = self.draft.set_len(len);
        match self.went_well(answer) {
            true => self.model.resize(len as usize),
            false => self.model.touch(len as usize..usize::MAX),
        }
    }

    fn punch(&mut self) {
        let range = self.near();
        let (at, answer) = (range.start as usize..range.end as usize, self.draft.punch(range));
        self.model.touch(at.clone());
        if self.went_well(answer) {
            let n = self.model.content.len();
            self.model.content[at.start.min(n)..at.end.min(n)].fill(0);
        }
    }

    fn allocate(&mut self) {
        let range = self.near();
        let (end, answer) = (range.end as usize, self.draft.allocate(range.clone()));
        self.model.len_max = self.model.len_max.max(end);
        if self.went_well(answer) && !range.is_empty() && end > self.model.content.len() {
            self.model.resize(end);
        }
    }

    fn content(&self) -> Vec<u8> {
        let mut out = vec![0; self.draft.len().unwrap() as usize];
        assert_eq!(self.draft.read_at(&mut out, 0).unwrap(), out.len());
        out
    }

    fn read(&mut self) {
        let range = self.near();
        let mut out = vec![0; (range.end - range.start) as usize];
        match self.draft.read_at(&mut out, range.start) {
            Ok(n) if !self.model.ended => {
                let all = &self.model.content;
                let at = all.len().min(range.start as usize);
                assert_eq!(
                    out[..n],
                    all[at..all.len().min(range.end as usize)],
                    "seed {}",
                    self.seed
                );
            }
            Ok(_) => {}
            Err(e) => assert!(self.faulty, "seed {}: {e:?}", self.seed),
        }
    }

    async fn sync(&mut self) {
        let answer = self.draft.sync().await;
        if self.went_well(answer) {
            self.model.durable();
            self.count("synced");
        }
    }

    async fn seal(&mut self) {
        let answer = self.draft.seal().await;
        let sealed = answer.as_ref().ok().cloned();
        if !self.went_well(answer.map(drop)) {
            self.model.seal_tried = true;
            return;
        }
        let (layout, crc) = sealed.expect("it went well");
        let content = std::mem::take(&mut self.model.content);
        assert_eq!(
            (layout.len(), crc),
            (content.len() as u64, crc32c(&content)),
            "seed {}",
            self.seed
        );
        self.sealed.push((self.stream, layout, content));
        self.count("sealed");
        self.begin();
    }

    fn discard(&mut self) {
        self.draft.discard();
        self.begin();
    }

    /// Goes on with a new draft, on a disk that lets it.
    fn begin(&mut self) {
        self.model = Model::default();
        self.stream.0 += 1;
        match self.store.draft(self.stream) {
            Ok(draft) => self.draft = draft,
            Err(e) => {
                assert!(self.faulty, "seed {}: {e:?}", self.seed);
                self.stuck = true;
            }
        }
    }

    fn arm(&mut self) {
        self.faulty = true;
        let n = 1 + self.below(8);
        self.bench.disk.arm(match self.below(5) {
            0 => Fault::Sync(n),
            1 => Fault::Write(n),
            2 | 3 => Fault::Full(1 + n % 2),
            _ => Fault::PowerOff(n),
        });
    }

    /// Ends the process, with or without the power, and starts again, perhaps at the second or third attempt.
    async fn restart(&mut self) {
        let mut cut = false;
        match self.below(6) {
            0 if !self.faulty => self.store.shutdown().await,
            1 | 2 => self.bench.disk.kill(),
            _ => {
                cut = true;
                self.bench.disk.restart();
            }
        }
        for _ in 0..self.below(3) {
            self.bench.disk.arm(Fault::PowerOff(self.below(25)));
            // Only the way to the folder as it is then matters.
            let _ = self.bench.try_open().await;
            self.bench.disk.restart();
            cut = true;
        }
        // A power cut may have been left over from before the kill.
        let opened = match self.bench.try_open().await {
            Err(e) if e.to_string().contains("power") => {
                cut = true;
                self.bench.disk.restart();
                self.bench.try_open().await
            }
            opened => opened,
        };
        let (store, recovered) = opened.unwrap_or_else(|e| panic!("seed {}: {e:?}", self.seed));
        self.store = store;
        (self.faulty, self.stuck) = (false, false);
        self.count("restarts");
        self.compare(recovered, cut).await;
    }

    async fn compare(&mut self, mut recovered: Recovered, cut: bool) {
        let seed = self.seed;
        for (stream, layout, content) in &self.sealed {
            let found = read(&self.store, *stream, layout).await;
            assert_eq!(&found.unwrap(), content, "seed {seed}: sealed {stream}");
        }
        let live: HashSet<_> = self.sealed.iter().map(|(stream, ..)| *stream).collect();
        let stream = self.stream;
        let found = recovered.streams.remove(&stream);
        let (store, was) = (self.store.clone(), std::mem::take(&mut self.model));
        match found {
            Some(found) if found.draft => {
                self.draft = store.resume_draft(stream, found).unwrap();
                let content = self.content();
                was.check(&content, seed);
                if !cut && !was.ended {
                    assert_eq!(content, was.content, "seed {seed}: a kill loses nothing");
                }
                self.model.content = content;
                self.model.durable();
                self.count("resumed");
            }
            Some(found) => {
                assert!(was.seal_tried && found.sealed, "seed {seed}: {found:?}");
                let content = read(&store, stream, &found.layout).await;
                assert_eq!(content.unwrap(), was.content, "seed {seed}: sealed unheard");
                self.begin();
            }
            None => {
                let empty_seal = was.seal_tried && was.content.is_empty();
                assert!(
                    was.synced.is_none() || empty_seal,
                    "seed {seed}: a synced draft is gone"
                );
                self.begin();
            }
        }
        store.retain(&live).await;
    }

    /// At the end everything is given up, and nothing is left.
    async fn end(mut self) {
        self.bench.disk.disarm();
        self.restart().await;
        self.draft.discard();
        for (stream, layout, _) in &self.sealed {
            self.store.release(*stream, layout);
        }
        self.store.shutdown().await;
        let report = fsck(&folder(), &self.bench.disk.shared()).unwrap();
        assert!(report.findings.is_empty(), "seed {}: {report:?}", self.seed);
        let left = self.bench.files_like(".data").len() + self.bench.files_like(".log").len();
        assert_eq!(left, 0, "seed {}: {:?}", self.seed, self.bench.files());
    }
}

#[tokio::test(start_paused = true)]
async fn random_changes_of_drafts_lose_nothing_that_was_synced() {
    let from: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let count: u64 = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let mut sums = HashMap::<&str, u32>::new();
    for seed in from..from + count {
        println!("seed {seed}");
        let mut history = History::new(seed).await;
        for _ in 0..150 {
            history.step().await;
        }
        for (what, n) in &history.counts {
            *sums.entry(what).or_default() += n;
        }
        history.end().await;
    }
    println!("{sums:?}");
    if count >= 20 {
        let enough = ["restarts", "resumed", "synced", "sealed", "full", "failed"];
        assert!(
            enough
                .iter()
                .all(|what| sums.get(what).is_some_and(|n| u64::from(*n) > count)),
            "the histories hardly did anything: {sums:?}"
        );
    }
}
