//! The log of packs: who may write the next one, what goes into it, and what becomes of old ones.
//!
//! Calls put what they want into the queue; one of them takes the turn, waits a moment for others, and writes a pack for all. So a
//! call that is dropped leaves nothing half done: whoever is next goes on. It owns no task.

use super::{
    FOLDER,
    format::{self, Builder, Built, FOOTER_BYTES, Footer, Index, Meta},
    index::{self, Lies, Pack, Packs, Victims},
};
use crate::{Expect, Found, StoreError, UnderStoreRef, Validator, Write, join, parent_and_name};
use bytes::Bytes;
use forebay_runtime::{clock::ClockRef, crash_point};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Files' bytes in one pack.
const PACK_BYTES_MAX: u64 = 64 << 20;
/// Records in one pack, and bytes of its index.
const RECORDS_MAX: usize = 20_000;
const INDEX_BYTES_MAX: usize = 8 << 20;
/// Bytes that wait for a pack or are on their way in one.
const ROOM_BYTES: u64 = 2 * PACK_BYTES_MAX;
/// Unit in which that room is given.
const ROOM_UNIT: u64 = 1024;
/// A pack waits for more until nothing came for this long, and no longer than the last of these. Where many have come more are likely
/// to, in the steps of a slow disk.
const GATHER_STEP: Duration = Duration::from_millis(5);
const GATHER_STEP_OF_MANY: Duration = Duration::from_millis(25);
const GATHER_MAX: Duration = Duration::from_millis(500);
const MANY: usize = 16;
/// How often packs of others are looked for: where there are packs, and where there are none.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY_IF_NONE: Duration = Duration::from_secs(60);
/// Packs whose indexes are read at once.
const LOADS_PARALLEL: usize = 16;
/// Requests at once that ask for single names, and that delete packs.
const REQUESTS_PARALLEL: usize = 16;
/// Bytes of a pack's end that are read first: most indexes lie in them.
const TAIL_BYTES: u64 = 128 << 10;
/// Most keys of files hidden by others that are remembered for the next pack.
const HIDDEN_MAX: usize = 10_000;
/// Tries to write a pack while others keep taking its number, or to look while packs come and go.
const TRIES_MAX: usize = 8;
/// Packs that are written between two that only put old ones in order, while there is something to do.
const TIDY_EVERY: u32 = 16;

/// What a call wants of the next pack.
#[derive(Debug)]
pub(super) enum Wanted {
    /// This file.
    File(Write, Vec<Bytes>),
    /// No file under this key.
    Gone(String, Expect),
    /// Just a pack, so that its number is taken.
    Fence,
}

#[derive(Debug)]
struct Op {
    wanted: Wanted,
    done: oneshot::Sender<Answer>,
}

type Answer = Result<Option<Found>, StoreError>;

#[derive(Debug)]
pub(super) struct Log {
    reads: UnderStoreRef,
    writes: UnderStoreRef,
    clock: ClockRef,
    packs: Mutex<Packs>,
    /// When packs were last looked for, by the monotonic clock.
    looked: Mutex<Option<Duration>>,
    looking: tokio::sync::Mutex<()>,
    queue: Mutex<VecDeque<Op>>,
    turn: tokio::sync::Mutex<()>,
    room: Arc<Semaphore>,
    /// A pack may arrive of which nothing is known: it was sent, by this life or an earlier one, and nobody was told what became of it.
    undecided: AtomicBool,
    /// This life has sent one.
    sent: AtomicBool,
    /// Whether the store refuses a second pack of one number.
    exclusive: Mutex<Option<bool>>,
    untidy: AtomicU32,
    /// Keys at which something with its own name was seen to hide a packed file. That one is over.
    hidden: Mutex<BTreeMap<String, Validator>>,
}

/// Where the pack of this number lies.
pub(super) fn pack_key(seq: u64) -> String {
    format!("{FOLDER}/{seq:020}")
}

fn seq_of(name: &str) -> Option<u64> {
    let digits = name.len() == 20 && name.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| name.parse().ok()).flatten()
}

fn unreadable(seq: u64, why: &str) -> StoreError {
    let key = pack_key(seq);
    StoreError::Refused(format!(
        "{key}: {why}; restore this pack, or delete it to give up the files in it"
    ))
}

fn passing(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_) | StoreError::Damaged(_))
}

impl Log {
    pub(super) fn new(reads: UnderStoreRef, writes: UnderStoreRef, clock: ClockRef) -> Self {
        let room = usize::try_from(ROOM_BYTES / ROOM_UNIT).expect("a constant that fits");
        Self {
            reads,
            writes,
            clock,
            packs: Mutex::default(),
            looked: Mutex::new(None),
            looking: tokio::sync::Mutex::default(),
            queue: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            room: Arc::new(Semaphore::new(room)),
            undecided: AtomicBool::new(true),
            sent: AtomicBool::new(false),
            exclusive: Mutex::new(None),
            untidy: AtomicU32::new(0),
            hidden: Mutex::default(),
        }
    }

    /// What is packed, once [`Log::look`] has answered.
    pub(super) fn packs(&self) -> parking_lot::MutexGuard<'_, Packs> {
        self.packs.lock()
    }

    /// Whether the store refuses a second pack of one number: without that there are none.
    pub(super) async fn is_exclusive(&self) -> Result<bool, StoreError> {
        let known = *self.exclusive.lock();
        match known {
            Some(known) => Ok(known),
            None => {
                let honoured = self.writes.probe().await?.put_if_absent;
                self.note_exclusive(honoured);
                Ok(honoured)
            }
        }
    }

    pub(super) fn note_exclusive(&self, honoured: bool) {
        *self.exclusive.lock() = Some(honoured);
    }

    /// Room for so many bytes on their way into a pack.
    pub(super) async fn room(&self, bytes: u64) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes.min(PACK_BYTES_MAX).div_ceil(ROOM_UNIT)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(units).await;
        room.expect("the room is never closed")
    }

    // ---- what there is

    /// Takes in the packs that are in the store, unless that was done lately. `again`: in any case.
    pub(super) async fn look(&self, again: bool) -> Result<(), StoreError> {
        let asked = self.clock.monotonic();
        if !again && !self.is_due(asked) {
            return Ok(());
        }
        let _looking = self.looking.lock().await;
        let looked = *self.looked.lock();
        // Somebody else has just looked.
        if looked.is_some_and(|looked| looked >= asked) || !again && !self.is_due(asked) {
            return Ok(());
        }
        for _ in 0..TRIES_MAX {
            let now = self.clock.monotonic();
            if self.look_once().await? {
                *self.looked.lock() = Some(now);
                return Ok(());
            }
        }
        Err(StoreError::Unavailable(format!("{FOLDER}: its packs keep changing")))
    }

    fn is_due(&self, now: Duration) -> bool {
        let every = match self.packs.lock().is_empty() {
            true => LOOK_EVERY_IF_NONE,
            false => LOOK_EVERY,
        };
        self.looked.lock().is_none_or(|looked| now >= looked + every)
    }

    /// False when a pack went away before it was read.
    async fn look_once(&self) -> Result<bool, StoreError> {
        let known: BTreeSet<u64> = self.packs.lock().seqs().into_iter().collect();
        let listed = match self.reads.list(FOLDER, None).try_collect::<Vec<_>>().await {
            Err(StoreError::NotFound(_)) => Vec::new(),
            listed => listed?,
        };
        let listed: Vec<(u64, Found)> = listed
            .into_iter()
            .filter(|row| !row.found.is_dir)
            .filter_map(|row| Some((seq_of(&row.name)?, row.found)))
            .collect();
        let there: BTreeSet<u64> = listed.iter().map(|(seq, _)| *seq).collect();
        let fresh: Vec<(u64, Found)> = {
            let packs = self.packs.lock();
            let fresh = listed
                .into_iter()
                .filter(|(seq, found)| !packs.knows(*seq, &found.validator));
            fresh.collect()
        };
        let any = !fresh.is_empty();
        // In their order, so that what was taken in when this is cut off is what was there at some time.
        let mut loads = futures::stream::iter(fresh)
            .map(|(seq, found)| async move { (seq, self.load(seq, &found).await) })
            .buffered(LOADS_PARALLEL);
        while let Some((seq, loaded)) = loads.next().await {
            match loaded {
                Ok(pack) => self.packs.lock().add(seq, pack),
                Err(StoreError::NotFound(_) | StoreError::Changed(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let mut packs = self.packs.lock();
        packs.lose(&known.difference(&there).copied().collect());
        packs.forget_removed(&there);
        if any {
            packs.forget_needless();
        }
        Ok(true)
    }

    /// Reads the index of a pack.
    async fn load(&self, seq: u64, found: &Found) -> Result<Pack, StoreError> {
        let (key, size) = (pack_key(seq), found.size);
        let read = |range: Range<u64>| {
            let key = &key;
            async move { exactly(self.reads.read(key, range.clone(), &found.validator).await?, &range) }
        };
        let tail_at = size.saturating_sub(TAIL_BYTES);
        let tail = read(tail_at..size).await?;
        let footer = Footer::parse(&tail, size).map_err(|why| unreadable(seq, &why))?;
        let ends = size - FOOTER_BYTES as u64;
        let bytes = if footer.index_at >= tail_at {
            tail.slice((footer.index_at - tail_at) as usize..(ends - tail_at) as usize)
        } else {
            read(footer.index_at..ends).await?
        };
        // The tail may be a piece of a larger buffer that would stay with it.
        let bytes = Bytes::copy_from_slice(&bytes);
        let index = Index::parse(bytes, &footer).map_err(|why| unreadable(seq, &why))?;
        Ok(Pack::new(found.validator.clone(), size, index))
    }

    /// The file at a key.
    pub(super) fn file(&self, key: &str) -> Option<Lies> {
        self.packs.lock().file(key)
    }

    /// An object with its own name was seen over a packed file: the next pack says that it is gone.
    pub(super) fn note_hidden(&self, key: &str, validator: Validator) {
        let mut hidden = self.hidden.lock();
        if hidden.len() < HIDDEN_MAX {
            hidden.insert(key.to_owned(), validator);
        }
    }

    /// The bytes of a file, verified; whoever wants a part of them gets it from these.
    pub(super) async fn read(
        &self,
        store: &UnderStoreRef,
        key: &str,
        validator: &Validator,
    ) -> Result<Bytes, StoreError> {
        self.look(false).await?;
        let mut looked = false;
        loop {
            let lies = self
                .file(key)
                .filter(|lies| index::validator(&lies.meta.token) == *validator);
            let read = match &lies {
                Some(lies) => read_file(store, key, lies).await,
                None => Err(StoreError::Changed(key.to_owned())),
            };
            match read {
                // It may have been carried over to another pack, by another server.
                Err(StoreError::NotFound(_) | StoreError::Changed(_)) if !looked => {
                    looked = true;
                    self.look(true).await?;
                }
                read => return read,
            }
        }
    }

    // ---- what is to be

    /// What is wanted, in the next pack. After `Unavailable` it may be so or not.
    pub(super) async fn submit(&self, wanted: Wanted) -> Answer {
        let (done, mut answer) = oneshot::channel();
        self.queue.lock().push_back(Op { wanted, done });
        loop {
            tokio::select! {
                biased;
                answered = &mut answer => {
                    return answered.unwrap_or_else(|_| Err(StoreError::Unavailable(format!("{FOLDER}: writing a pack was cut off"))));
                }
                turn = self.turn.lock() => {
                    self.gather().await;
                    let batch = self.take();
                    if self.write_batch(batch).await {
                        self.tidy().await;
                    }
                    drop(turn);
                }
            }
        }
    }

    /// What was sent and may still arrive is decided: its number is taken.
    pub(super) async fn decide(&self) -> Result<(), StoreError> {
        self.look(false).await?;
        let begun = self.sent.load(Ordering::SeqCst) || !self.packs.lock().is_empty();
        if begun && self.undecided.load(Ordering::SeqCst) {
            self.submit(Wanted::Fence).await?;
        }
        Ok(())
    }

    /// Takes away what a process left behind that ended while it wrote a pack. That pack may only be told from one that somebody else is
    /// writing right now once its number is taken, so it is.
    pub(super) async fn clear_up(&self) -> Result<(), StoreError> {
        let uploads = self.writes.uploads(&format!("{FOLDER}/")).await?;
        let cut_off: Vec<_> = uploads
            .into_iter()
            .filter_map(|(key, upload)| Some((seq_of(parent_and_name(&key).1)?, key, upload)))
            .collect();
        if cut_off.is_empty() {
            return Ok(());
        }
        self.look(true).await?;
        let next = self.packs.lock().next_seq();
        if cut_off.iter().any(|(seq, ..)| *seq == next) {
            self.submit(Wanted::Fence).await?;
        }
        let next = self.packs.lock().next_seq();
        for (_, key, upload) in cut_off.iter().filter(|(seq, ..)| *seq < next) {
            self.writes.abort(key, upload).await?;
        }
        Ok(())
    }

    /// Waits for others that are about to come.
    async fn gather(&self) {
        let begun = self.clock.monotonic();
        let mut waiting = self.queue.lock().len();
        while waiting < RECORDS_MAX && self.queued_bytes() < PACK_BYTES_MAX {
            let step = match waiting >= MANY {
                true => GATHER_STEP_OF_MANY,
                false => GATHER_STEP,
            };
            self.clock.sleep(step).await;
            let now = self.queue.lock().len();
            if now == waiting || self.clock.monotonic() >= begun + GATHER_MAX {
                break;
            }
            waiting = now;
        }
    }

    fn queued_bytes(&self) -> u64 {
        self.queue.lock().iter().map(Op::bytes).sum()
    }

    /// As much of the queue as one pack takes, no key twice.
    fn take(&self) -> Vec<Op> {
        let mut queue = self.queue.lock();
        let (mut batch, mut left) = (Vec::new(), VecDeque::new());
        let (mut keys, mut bytes, mut index_bytes) = (HashSet::new(), 0, 0);
        while let Some(op) = queue.pop_front() {
            // Nobody waits for it any more.
            if op.done.is_closed() {
                continue;
            }
            let full = batch.len() >= RECORDS_MAX
                || index_bytes + op.index_bytes() > INDEX_BYTES_MAX
                || bytes + op.bytes() > PACK_BYTES_MAX;
            if full && !batch.is_empty() {
                left.push_back(op);
                break;
            }
            if op.key().is_some_and(|key| !keys.insert(key.to_owned())) {
                left.push_back(op);
                continue;
            }
            bytes += op.bytes();
            index_bytes += op.index_bytes();
            batch.push(op);
        }
        left.append(&mut queue);
        *queue = left;
        batch
    }

    /// Writes a pack and answers everyone in the batch. Answers whether a pack was written.
    async fn write_batch(&self, mut batch: Vec<Op>) -> bool {
        for again in [false; 1].into_iter().chain([true; TRIES_MAX]) {
            if batch.is_empty() {
                return false;
            }
            if let Err(error) = self.look(again).await {
                refuse(batch, &error);
                return false;
            }
            if again {
                // Its number is taken: what was on its way there can not arrive any more.
                self.undecided.store(false, Ordering::SeqCst);
            }
            // The number first: what others write from now on takes it, and then this is judged anew.
            let seq = self.packs.lock().next_seq();
            batch = self.judge(batch).await;
            let mut builder = Builder::default();
            batch.iter().for_each(|op| self.add_to(&mut builder, op));
            let fences = batch.iter().any(|op| matches!(op.wanted, Wanted::Fence));
            if !builder.is_empty() || fences {
                self.bury_hidden(&mut builder, &batch);
            }
            if builder.is_empty() && !fences {
                return false;
            }
            match self.write(seq, builder.finish()).await {
                Ok(()) => {
                    self.answer(batch);
                    return true;
                }
                Err(StoreError::Changed(_)) => {}
                Err(error) => {
                    refuse(batch, &error);
                    return false;
                }
            }
        }
        let error = StoreError::Unavailable(format!("{FOLDER}: others keep writing packs"));
        refuse(batch, &error);
        false
    }

    /// Answers those whose expectation does not hold, and those that have what they want; the rest is left.
    async fn judge(&self, batch: Vec<Op>) -> Vec<Op> {
        let mut left = Vec::new();
        for op in batch {
            let there = op.key().and_then(|key| self.file(key));
            let answer = match (&op.wanted, &there) {
                (Wanted::File(write, ..), Some(lies)) if lies.is(write) => Some(Ok(Some(index::found(&lies.meta)))),
                (Wanted::File(write, ..), there) if !holds(&write.expect, there.as_ref()) => {
                    Some(Err(StoreError::Changed(write.key.clone())))
                }
                (Wanted::Gone(..), None) => Some(Ok(None)),
                (Wanted::Gone(key, expect), there) if !holds(expect, there.as_ref()) => {
                    Some(Err(StoreError::Changed(key.clone())))
                }
                _ => None,
            };
            match answer {
                // Whoever is gone needs no answer.
                Some(answer) => drop(op.done.send(answer)),
                None => left.push(op),
            }
        }
        let occupied = self.occupied(&left).await;
        let (mut stay, mut occupied) = (Vec::new(), occupied.into_iter().collect::<BTreeMap<_, _>>());
        for op in left {
            let verdict = op.key().filter(|_| op.is_file()).and_then(|key| occupied.remove(key));
            match verdict {
                Some(error) => drop(op.done.send(Err(error))),
                None => stay.push(op),
            }
        }
        stay
    }

    /// Keys of the batch's files at which the store has something of its own, or could not tell, with what that means for them.
    async fn occupied(&self, batch: &[Op]) -> Vec<(String, StoreError)> {
        let mut by_dir: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for key in batch.iter().filter(|op| op.is_file()).filter_map(Op::key) {
            let (dir, name) = parent_and_name(key);
            by_dir.entry(dir.to_owned()).or_default().insert(name.to_owned());
        }
        let mut asked = Vec::new();
        for (dir, names) in by_dir {
            asked.push(self.occupied_in(dir, names));
        }
        let answers = futures::stream::iter(asked).buffered(REQUESTS_PARALLEL);
        answers.collect::<Vec<_>>().await.concat()
    }

    /// Of many names in one directory a listing tells, of few, or where the listing is long, each is asked for.
    async fn occupied_in(&self, dir: String, mut names: BTreeSet<String>) -> Vec<(String, StoreError)> {
        let (dir, mut occupied) = (dir.as_str(), Vec::new());
        if names.len() > 2 && !self.reads.url().starts_with("file:") {
            let mut rows_left = 1000 + names.len();
            // All but the last character sorts before the first name, and after most that sort before it.
            let mut after = names.first().expect("more than two").clone();
            after.pop();
            let last = names.last().expect("more than two").clone();
            let mut rows = self
                .reads
                .list(dir, Some(after.as_str()).filter(|after| !after.is_empty()));
            loop {
                match rows.next().await {
                    Some(Ok(row)) if row.name <= last => {
                        if names.remove(row.name.as_str()) && !row.found.is_dir {
                            let key = join(dir, &row.name);
                            occupied.push((key.clone(), StoreError::Changed(key)));
                        }
                        rows_left -= 1;
                        if rows_left == 0 {
                            names = names.split_off(row.name.as_str());
                            break;
                        }
                    }
                    Some(Ok(_)) | None | Some(Err(StoreError::NotFound(_))) => return occupied,
                    Some(Err(error)) => {
                        occupied.extend(names.iter().map(|name| (join(dir, name), error.clone())));
                        return occupied;
                    }
                }
            }
        }
        let asked = names.into_iter().map(|name| async move {
            let key = join(dir, &name);
            match self.reads.head(&key).await {
                Ok(found) if found.as_ref().is_none_or(|found| found.is_dir) => None,
                Ok(_) => Some((key.clone(), StoreError::Changed(key))),
                Err(error) => Some((key, error)),
            }
        });
        let answers: Vec<_> = futures::stream::iter(asked).buffered(REQUESTS_PARALLEL).collect().await;
        occupied.extend(answers.into_iter().flatten());
        occupied
    }

    fn add_to(&self, builder: &mut Builder, op: &Op) {
        match &op.wanted {
            Wanted::File(write, chunks) => {
                let meta = Meta {
                    offset: 0,
                    size: u32::try_from(write.size).expect("what is packed is small"),
                    crc: format::crc(chunks),
                    mtime: mtime_of(write, &self.clock),
                    token: write.token.clone(),
                    attributes: write.attributes.clone(),
                };
                builder.file(&write.key, &meta, chunks.iter().cloned());
            }
            Wanted::Gone(key, _) => builder.gone(key),
            Wanted::Fence => {}
        }
    }

    /// Says of files that are hidden by others that they are gone. If this pack is not written they are hidden still, and seen again.
    fn bury_hidden(&self, builder: &mut Builder, batch: &[Op]) {
        let mut hidden = std::mem::take(&mut *self.hidden.lock());
        for key in batch.iter().filter_map(Op::key) {
            hidden.remove(key);
        }
        for (key, validator) in hidden {
            // A look may have been slow, and another file be there by now.
            let now = self.file(&key);
            if now.is_some_and(|lies| index::validator(&lies.meta.token) == validator) {
                builder.gone(&key);
            }
        }
    }

    /// Writes the pack of this number, the next one, and takes it in. `Changed`: the number is taken.
    ///
    /// A pack whose outcome is unknown keeps its number: the next one goes to the same key, where only one of them can be.
    async fn write(&self, seq: u64, built: Built) -> Result<(), StoreError> {
        let write = Write {
            key: pack_key(seq),
            size: built.size,
            token: format!("pack-{seq}-{:016x}", built.index.sum()),
            attributes: Vec::new(),
            expect: Expect::Absent,
        };
        self.sent.store(true, Ordering::SeqCst);
        self.undecided.store(true, Ordering::SeqCst);
        let found = match self.writes.put(&write, built.chunks).await {
            Err(error) if passing(&error) || matches!(error, StoreError::Changed(_)) => {
                self.what_became(&write).await.unwrap_or(Err(error))?
            }
            put => put?,
        };
        if crash_point!("pack-visible-not-told").is_some() {
            return Err(StoreError::Unavailable("stopped by a crash point".into()));
        }
        let mut packs = self.packs.lock();
        packs.add(seq, Pack::new(found.validator, built.size, built.index));
        self.undecided.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// After an unclear answer: the pack when it is there, `Changed` when another one is; `None` when nothing is, or it is not known.
    async fn what_became(&self, write: &Write) -> Option<Result<Found, StoreError>> {
        let found = self.writes.head(&write.key).await.ok()??;
        let ours = found.token.as_ref() == Some(&write.token) && found.size == write.size;
        if !ours {
            return Some(Err(StoreError::Changed(write.key.clone())));
        }
        Some(self.writes.settle(&write.key).await.map(|()| found))
    }

    /// The pack is there.
    fn answer(&self, batch: Vec<Op>) {
        for op in batch {
            let found = match &op.wanted {
                Wanted::File(write, ..) => self.file(&write.key).map(|lies| index::found(&lies.meta)),
                Wanted::Gone(..) | Wanted::Fence => None,
            };
            // Whoever is gone needs no answer.
            let _ = op.done.send(Ok(found));
        }
    }

    // ---- what is over

    /// Deletes packs that hold nothing any more, and puts those together that are mostly dead or small. It is done again by whoever
    /// writes next, so that failures only put it off.
    async fn tidy(&self) {
        self.delete_dead().await;
        let written = self.untidy.fetch_add(1, Ordering::Relaxed);
        if !self.queue.lock().is_empty() && written < TIDY_EVERY {
            return;
        }
        let (seq, victims) = {
            let packs = self.packs.lock();
            (packs.next_seq(), packs.victims(PACK_BYTES_MAX))
        };
        if victims.files.is_empty() && victims.gone.is_empty() {
            return;
        }
        self.untidy.store(0, Ordering::Relaxed);
        match self.carry_over(seq, victims).await {
            Ok(()) => self.delete_dead().await,
            Err(error) => tracing::debug!(%error, "old packs stay for now"),
        }
    }

    async fn carry_over(&self, seq: u64, victims: Victims) -> Result<(), StoreError> {
        let mut builder = Builder::default();
        let mut files = victims.files.as_slice();
        while let Some((_, first)) = files.first() {
            let of_pack = files.iter().take_while(|(_, lies)| lies.seq == first.seq).count();
            let (these, rest) = files.split_at(of_pack);
            files = rest;
            let span = span_of(these);
            let read = self
                .writes
                .read(&pack_key(first.seq), span.clone(), &first.pack)
                .await?;
            let bytes = exactly(read, &span)?;
            for (key, lies) in these {
                let range = range_of(&lies.meta);
                let bytes = bytes.slice((range.start - span.start) as usize..(range.end - span.start) as usize);
                if format::crc(std::slice::from_ref(&bytes)) != lies.meta.crc {
                    self.packs.lock().leave_alone(lies.seq);
                    tracing::error!(
                        pack = pack_key(lies.seq),
                        key,
                        "the bytes of a packed file are damaged in the store; it stays as it is"
                    );
                    return Err(StoreError::Damaged(key.clone()));
                }
                builder.file(key, &lies.meta, [bytes]);
            }
        }
        victims.gone.iter().for_each(|key| builder.gone(key));
        self.write(seq, builder.finish()).await?;
        // Only an abort: what follows is done again by the next one.
        let _ = crash_point!("pack-rewritten-not-deleted");
        Ok(())
    }

    /// Deletes dead packs. What one kept from coming back may be all that another one is kept for: so once more until none is dead.
    async fn delete_dead(&self) {
        while self.delete_some_dead().await {}
    }

    /// Whether any was deleted.
    async fn delete_some_dead(&self) -> bool {
        let dead = self.packs.lock().dead();
        let deletes = dead.into_iter().map(|(seq, validator)| async move {
            self.packs.lock().doom(seq);
            let deleted = self.writes.delete(&pack_key(seq), &Expect::Match(validator)).await;
            match deleted {
                Ok(()) | Err(StoreError::NotFound(_)) => {
                    self.packs.lock().deleted(seq);
                    true
                }
                Err(error) => {
                    self.packs.lock().spare(seq);
                    tracing::debug!(%error, "a dead pack stays for now");
                    false
                }
            }
        });
        let deleted = futures::stream::iter(deletes).buffered(REQUESTS_PARALLEL);
        deleted.collect::<Vec<bool>>().await.contains(&true)
    }
}

impl Op {
    fn key(&self) -> Option<&str> {
        match &self.wanted {
            Wanted::File(write, ..) => Some(&write.key),
            Wanted::Gone(key, _) => Some(key),
            Wanted::Fence => None,
        }
    }

    fn is_file(&self) -> bool {
        matches!(self.wanted, Wanted::File(..))
    }

    fn bytes(&self) -> u64 {
        match &self.wanted {
            Wanted::File(write, ..) => write.size,
            Wanted::Gone(..) | Wanted::Fence => 0,
        }
    }

    fn index_bytes(&self) -> usize {
        match &self.wanted {
            Wanted::File(write, ..) => format::record_bytes(&write.key, &write.token, &write.attributes).unwrap_or(0),
            Wanted::Gone(key, _) => format::record_bytes(key, "", &[]).unwrap_or(0),
            Wanted::Fence => 0,
        }
    }
}

impl Lies {
    /// Whether this is the very file.
    fn is(&self, write: &Write) -> bool {
        self.meta.token == write.token && u64::from(self.meta.size) == write.size
    }
}

/// Whether what is packed under a key is what is expected.
pub(super) fn holds(expect: &Expect, there: Option<&Lies>) -> bool {
    match (expect, there) {
        (Expect::Any, _) | (Expect::Absent, None) => true,
        (Expect::Match(expected), Some(lies)) => index::validator(&lies.meta.token) == *expected,
        (Expect::Absent, Some(_)) | (Expect::Match(_), None) => false,
    }
}

fn refuse(batch: Vec<Op>, error: &StoreError) {
    for op in batch {
        // Whoever is gone needs no answer.
        let _ = op.done.send(Err(error.clone()));
    }
}

/// The modification time that came with a write; now, where none did.
fn mtime_of(write: &Write, clock: &ClockRef) -> i64 {
    let told = write.attributes.iter().find(|(name, _)| name == "mtime");
    told.and_then(|(_, value)| value.parse().ok())
        .unwrap_or_else(|| clock.now().0)
}

fn range_of(meta: &Meta) -> Range<u64> {
    meta.offset..meta.offset + u64::from(meta.size)
}

/// From the first of these files to the last.
fn span_of(files: &[(String, Lies)]) -> Range<u64> {
    let ranges = || files.iter().map(|(_, lies)| range_of(&lies.meta));
    let start = ranges().map(|range| range.start).min().unwrap_or(0);
    start..ranges().map(|range| range.end).max().unwrap_or(0).max(start)
}

fn exactly(bytes: Bytes, range: &Range<u64>) -> Result<Bytes, StoreError> {
    if bytes.len() as u64 == range.end - range.start {
        return Ok(bytes);
    }
    Err(StoreError::Damaged(format!(
        "a pack: {} bytes came of {range:?}",
        bytes.len()
    )))
}

async fn read_file(store: &UnderStoreRef, key: &str, lies: &Lies) -> Result<Bytes, StoreError> {
    let range = range_of(&lies.meta);
    let bytes = exactly(
        store.read(&pack_key(lies.seq), range.clone(), &lies.pack).await?,
        &range,
    )?;
    if format::crc(std::slice::from_ref(&bytes)) != lies.meta.crc {
        return Err(StoreError::Damaged(format!(
            "{key}: its bytes in {} do not have their checksum",
            pack_key(lies.seq)
        )));
    }
    Ok(bytes)
}
