//! An under-store in memory, for simulation: it behaves as an object store does, and fails on demand, by seed or by script.
//!
//! It owns no clock and no randomness of its own: given the same seed and the same calls it gives the same answers.

use crate::{
    Capabilities, Expect, Found, Listed, PartId, Peeked, StoreError, StoreKey, UnderStore, UploadId, Validator, Write,
    check_key, local::check_visible,
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use forebay_runtime::{chance::ChanceRef, clock::ClockRef};
use futures::{StreamExt, stream::BoxStream};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::Arc,
    time::Duration,
};

const URL: &str = "memory:";
/// Wrong answers in a row that reads of one key get by chance. One more, and a reader that asks four times would rightly say that the
/// data is lost.
const WRONG_IN_A_ROW_MAX: u32 = 3;

/// What a call does; faults are scripted and calls counted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as the methods of the trait")]
pub enum Call {
    Head,
    List,
    Read,
    Put,
    Start,
    Part,
    Complete,
    Abort,
    Uploads,
    SetAttributes,
    Delete,
    MakeDir,
    RemoveDir,
    UnmarkDir,
}

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 503 before anything happened.
    Unavailable,
    /// It happened, and the answer was lost.
    LostAnswer,
    /// Nothing comes for ten seconds; by the flip of a coin it happened.
    Hang,
    /// A read answers too few bytes; other calls: as `Unavailable`.
    ShortRead,
    /// A body that is not the store's (an HTML page of a proxy); the call did not happen.
    WrongBody,
    /// Refused with this text (403).
    Refused(String),
}

/// How often things go wrong by chance, in thousandths of the calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the faults")]
pub struct FaultRates {
    pub unavailable: u32,
    pub lost_answer: u32,
    pub hang: u32,
    pub short_read: u32,
    pub wrong_body: u32,
}

#[derive(Clone, Debug)]
struct Object {
    bytes: Bytes,
    mtime: i64,
    version: u64,
    token: Option<String>,
    attributes: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
struct Upload {
    key: StoreKey,
    parts: BTreeMap<u32, Bytes>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<StoreKey, Object>,
    dirs: BTreeSet<StoreKey>,
    uploads: BTreeMap<String, Upload>,
    version: u64,
    script: VecDeque<(Call, Fault)>,
    rates: FaultRates,
    away: Option<StoreError>,
    /// Whether puts are not carried out, and those that were not.
    full: bool,
    held: Vec<(Write, Bytes)>,
    refused: Vec<StoreKey>,
    calls: HashMap<Call, u64>,
    faults: u64,
    /// Wrong answers in a row, by key.
    wrong: HashMap<StoreKey, u32>,
    /// The read under way answers too few bytes.
    cut: bool,
    /// When somebody else last made or took away a name, where directories tell that.
    named: Option<i64>,
}

/// Randomness and time, when faults shall come by chance.
#[derive(Clone, Debug)]
struct Weather {
    chance: ChanceRef,
    clock: ClockRef,
}

/// An under-store in memory. Clones share the contents.
#[derive(Clone, Debug)]
pub struct Memory {
    state: Arc<Mutex<State>>,
    weather: Option<Weather>,
    url: &'static str,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// Without faults, but those of [`Memory::fail_next`].
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            weather: None,
            url: URL,
        }
    }

    /// With faults by chance and with answers that take a while, so that calls interleave.
    pub fn seeded(chance: ChanceRef, clock: ClockRef, rates: FaultRates) -> Self {
        let state = State {
            rates,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            weather: Some(Weather { chance, clock }),
            url: URL,
        }
    }

    /// The same store, known by another URL: some of what is done depends on the kind of store.
    pub fn known_as(&self, url: &'static str) -> Self {
        Self { url, ..self.clone() }
    }

    /// Changes how often things go wrong.
    pub fn set_rates(&self, rates: FaultRates) {
        self.state.lock().rates = rates;
    }

    /// Lets the next call of this kind that is not yet scripted fail so.
    pub fn fail_next(&self, call: Call, fault: Fault) {
        self.state.lock().script.push_back((call, fault));
    }

    /// Answers every call with this error until told otherwise.
    pub fn set_away(&self, away: Option<StoreError>) {
        self.state.lock().away = away;
    }

    /// Answers no put while it is full, and carries out those that it was given, in their order, once it is not: as a gateway does
    /// whose pool is full.
    pub fn set_full(&self, full: bool) {
        self.state.lock().full = full;
        if !full {
            self.carry_out(|_| true);
        }
    }

    /// Takes puts again, and does not get round yet to those that it was given: see [`Memory::carry_out`].
    pub fn set_slow(&self) {
        self.state.lock().full = false;
    }

    /// Carries out those of the puts that it still has of which `which` is true, in their order. How many.
    pub fn carry_out(&self, mut which: impl FnMut(&Write) -> bool) -> usize {
        let mut state = self.state.lock();
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut state.held)
            .into_iter()
            .partition(|(write, _)| which(write));
        state.held = later;
        let carried_out = now.len();
        for (write, bytes) in now {
            let now = self.now(state.version + 1);
            // Its condition may not hold any more.
            let _ = state.store(&write, bytes, now);
        }
        carried_out
    }

    /// Keeps a put back when it is full.
    fn hold(&self, write: &Write, chunks: &[Bytes]) -> bool {
        let mut state = self.state.lock();
        if state.full {
            *state.calls.entry(Call::Put).or_default() += 1;
            state.held.push((write.clone(), joined(chunks)));
        }
        state.full
    }

    /// Refuses every write and delete of these keys and of all below them (403).
    pub fn refuse(&self, keys: &[&str]) {
        self.state.lock().refused = keys.iter().map(|key| (*key).to_owned()).collect();
    }

    /// Someone else writes an object.
    pub fn write_outside(&self, key: &str, bytes: impl Into<Bytes>) {
        let mut state = self.state.lock();
        let version = state.next_version();
        let mtime = self.now(version);
        if !state.objects.contains_key(key) {
            state.named = state.named.map(|_| mtime);
        }
        let object = Object {
            bytes: bytes.into(),
            mtime,
            version,
            token: None,
            attributes: Vec::new(),
        };
        state.objects.insert(key.to_owned(), object);
    }

    /// Someone else deletes an object.
    pub fn delete_outside(&self, key: &str) {
        let mut state = self.state.lock();
        let now = self.now(state.version + 1);
        if state.objects.remove(key).is_some() {
            state.named = state.named.map(|_| now);
        }
    }

    /// From now on directories tell when somebody else last made or took away a name anywhere.
    pub fn date_names(&self) {
        self.state.lock().named.get_or_insert_default();
    }

    /// Someone else aborts all uploads (a rule of the bucket that clears up).
    pub fn abort_outside(&self) {
        self.state.lock().uploads.clear();
    }

    /// All objects.
    pub fn contents(&self) -> BTreeMap<StoreKey, Bytes> {
        self.state
            .lock()
            .objects
            .iter()
            .map(|(key, object)| (key.clone(), object.bytes.clone()))
            .collect()
    }

    /// All directory markers.
    pub fn dirs(&self) -> Vec<StoreKey> {
        self.state.lock().dirs.iter().cloned().collect()
    }

    /// Uploads neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.state.lock().uploads.len()
    }

    /// Calls of this kind so far, failed ones too.
    pub fn calls(&self, call: Call) -> u64 {
        self.state.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// Faults that hit so far.
    pub fn faults(&self) -> u64 {
        self.state.lock().faults
    }

    fn now(&self, version: u64) -> i64 {
        match &self.weather {
            Some(weather) => weather.clock.now().0,
            None => i64::try_from(version).unwrap_or(i64::MAX),
        }
    }

    /// Takes a while, decides what goes wrong, runs `effect` unless it must not happen, and loses the answer where told.
    async fn call<T>(
        &self,
        call: Call,
        key: &str,
        effect: impl FnOnce(&mut State, i64) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        match call {
            Call::Put
            | Call::Start
            | Call::Part
            | Call::Complete
            | Call::SetAttributes
            | Call::Delete
            | Call::MakeDir => {
                check_visible(key)?;
            }
            _ => check_key(key)?,
        }
        if let Some(weather) = &self.weather {
            weather
                .clock
                .sleep(Duration::from_micros(weather.chance.u64() % 20_000))
                .await;
        }
        let fault = self.decide(call, key)?;
        let happens = match &fault {
            None | Some(Fault::LostAnswer) => true,
            Some(Fault::ShortRead) => call == Call::Read,
            Some(Fault::Hang) => self.coin(),
            Some(_) => false,
        };
        let answer = happens.then(|| {
            let mut state = self.state.lock();
            let now = self.now(state.version + 1);
            state.cut = fault == Some(Fault::ShortRead);
            effect(&mut state, now)
        });
        match (fault, answer) {
            (None | Some(Fault::ShortRead), Some(answer)) => answer,
            (Some(Fault::Hang), _) => {
                if let Some(weather) = &self.weather {
                    weather.clock.sleep(Duration::from_secs(10)).await;
                }
                Err(StoreError::Unavailable(format!("{key}: no answer within 10 s")))
            }
            (Some(Fault::WrongBody), _) => Err(StoreError::Damaged(format!("{key}: the answer is not the store's"))),
            (Some(Fault::Refused(text)), _) => Err(StoreError::Refused(text)),
            (_, _) => Err(StoreError::Unavailable(format!("{key}: 503 slow down"))),
        }
    }

    fn coin(&self) -> bool {
        self.weather
            .as_ref()
            .is_some_and(|weather| weather.chance.u64() & 1 == 1)
    }

    fn decide(&self, call: Call, key: &str) -> Result<Option<Fault>, StoreError> {
        let mut state = self.state.lock();
        *state.calls.entry(call).or_default() += 1;
        if let Some(error) = &state.away {
            return Err(error.clone());
        }
        let writes = !matches!(call, Call::Head | Call::List | Call::Read | Call::Uploads | Call::Abort);
        if writes
            && state
                .refused
                .iter()
                .any(|refused| key == refused || key.starts_with(&format!("{refused}/")))
        {
            return Err(StoreError::Refused(format!("{key}: 403 access denied")));
        }
        let scripted = state.script.iter().position(|(of, _)| *of == call);
        let fault = match scripted.and_then(|at| state.script.remove(at)) {
            Some((_, fault)) => Some(fault),
            None => {
                let weather = self.weather.as_ref();
                let fault = weather.and_then(|weather| by_chance(&state.rates, call, weather.chance.u64()));
                if call == Call::Read {
                    state.not_too_often_wrong(key, fault)
                } else {
                    fault
                }
            }
        };
        state.faults += u64::from(fault.is_some());
        Ok(fault)
    }
}

fn by_chance(rates: &FaultRates, call: Call, draw: u64) -> Option<Fault> {
    let mut draw = u32::try_from(draw % 1000).unwrap_or(0);
    for (rate, fault) in [
        (rates.unavailable, Fault::Unavailable),
        (rates.lost_answer, Fault::LostAnswer),
        (rates.hang, Fault::Hang),
        (rates.short_read, Fault::ShortRead),
        (rates.wrong_body, Fault::WrongBody),
    ] {
        if draw < rate {
            let applies = call == Call::Read || fault != Fault::ShortRead;
            return applies.then_some(fault);
        }
        draw -= rate;
    }
    None
}

fn joined(chunks: &[Bytes]) -> Bytes {
    match chunks {
        [one] => one.clone(),
        many => {
            let mut all = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
            many.iter().for_each(|chunk| all.extend_from_slice(chunk));
            all.freeze()
        }
    }
}

/// A part's name tells its bytes, as an etag does: the end of an upload refuses another one's.
fn part_id(bytes: &Bytes) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

impl Object {
    fn found(&self) -> Found {
        Found {
            size: self.bytes.len() as u64,
            mtime: self.mtime,
            validator: Validator(format!("v{}", self.version)),
            token: self.token.clone(),
            attributes: self.attributes.clone(),
            is_dir: false,
        }
    }
}

fn directory() -> Found {
    Found {
        size: 0,
        mtime: 0,
        validator: Validator(String::new()),
        token: None,
        attributes: Vec::new(),
        is_dir: true,
    }
}

impl State {
    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// The fault of a read by chance, unless too many wrong answers came right before it.
    fn not_too_often_wrong(&mut self, key: &str, fault: Option<Fault>) -> Option<Fault> {
        let is_wrong = matches!(fault, Some(Fault::ShortRead | Fault::WrongBody));
        let before = self.wrong.remove(key).unwrap_or(0);
        if !is_wrong {
            return fault;
        }
        if before == WRONG_IN_A_ROW_MAX {
            return None;
        }
        self.wrong.insert(key.to_owned(), before + 1);
        fault
    }

    fn expect(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        let holds = match (expect, self.objects.get(key)) {
            (Expect::Any, _) | (Expect::Absent, None) => true,
            (Expect::Match(validator), Some(object)) => object.found().validator == *validator,
            (Expect::Absent, Some(_)) | (Expect::Match(_), None) => false,
        };
        if holds {
            Ok(())
        } else {
            Err(StoreError::Changed(key.to_owned()))
        }
    }

    fn store(&mut self, write: &Write, bytes: Bytes, mtime: i64) -> Result<Found, StoreError> {
        if bytes.len() as u64 != write.size {
            return Err(StoreError::Damaged(format!(
                "{}: {} bytes, {} announced",
                write.key,
                bytes.len(),
                write.size
            )));
        }
        self.expect(&write.key, &write.expect)?;
        let version = self.next_version();
        let object = Object {
            bytes,
            mtime,
            version,
            token: Some(write.token.clone()),
            attributes: write.attributes.clone(),
        };
        let found = object.found();
        self.objects.insert(write.key.clone(), object);
        Ok(found)
    }

    fn set_attributes(&mut self, write: &Write) -> Result<Option<Found>, StoreError> {
        self.expect(&write.key, &write.expect)?;
        let version = self.next_version();
        let object = self.objects.get_mut(&write.key);
        let Some(object) = object.filter(|object| object.token.is_some()) else {
            return Ok(None);
        };
        object.version = version;
        object.token = Some(write.token.clone());
        object.attributes = write.attributes.clone();
        Ok(Some(object.found()))
    }

    fn find(&self, key: &str) -> Option<Found> {
        if let Some(object) = self.objects.get(key) {
            return Some(object.found());
        }
        let below = if key.is_empty() {
            String::new()
        } else {
            format!("{key}/")
        };
        let has = |keys: &mut dyn Iterator<Item = &StoreKey>| keys.next().is_some_and(|next| next.starts_with(&below));
        let is_dir = key.is_empty()
            || self.dirs.contains(key)
            || has(&mut self.objects.range(below.clone()..).map(|(key, _)| key))
            || has(&mut self.dirs.range(below.clone()..));
        is_dir.then(directory)
    }

    /// What lies directly in a directory, by name and by whether it is a directory.
    fn names(&self, key: &str) -> BTreeMap<(String, bool), Found> {
        let below = if key.is_empty() {
            String::new()
        } else {
            format!("{key}/")
        };
        let mut names = BTreeMap::new();
        let dirs = self.dirs.range(below.clone()..).map(|dir| (dir, None));
        let objects = self
            .objects
            .range(below.clone()..)
            .map(|(key, object)| (key, Some(object)));
        for (full, object) in dirs
            .take_while(|(key, _)| key.starts_with(&below))
            .chain(objects.take_while(|(key, _)| key.starts_with(&below)))
        {
            let found = match (full[below.len()..].split_once('/'), object) {
                (None, Some(object)) => Found {
                    token: None,
                    attributes: Vec::new(),
                    ..object.found()
                },
                _ => directory(),
            };
            let name = full[below.len()..].split('/').next().unwrap_or_default();
            names.insert((name.to_owned(), found.is_dir), found);
        }
        names
    }
}

#[async_trait]
impl UnderStore for Memory {
    fn url(&self) -> &str {
        self.url
    }

    fn read_only(&self) -> bool {
        false
    }

    async fn probe(&self) -> Result<Capabilities, StoreError> {
        self.call(Call::Head, "", |_, _| Ok(())).await?;
        if self.state.lock().full {
            return Err(StoreError::Unavailable("full: no put is answered".into()));
        }
        Ok(Capabilities {
            put_if_absent: true,
            put_if_match: true,
            complete_conditional: true,
            metadata: true,
            parallel_parts: true,
            part_bytes_min: 1,
            parts_max: 10_000,
            atomic_rename: false,
        })
    }

    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let head = |state: &mut State, _: i64| {
            let (found, named) = (state.find(key), state.named);
            let dated = |found: Found| match named {
                Some(mtime) if found.is_dir => Found { mtime, ..found },
                _ => found,
            };
            Ok(found.map(dated))
        };
        self.call(Call::Head, key, head).await
    }

    /// One call, and with it the faults, of `Head`.
    async fn peek(&self, key: &str, bytes_max: u64) -> Result<Option<Peeked>, StoreError> {
        let peek = |state: &mut State, _: i64| {
            let small = |found: &Found| !found.is_dir && found.size <= bytes_max;
            Ok(state.find(key).map(|found| Peeked {
                bytes: small(&found).then(|| state.objects[key].bytes.clone()),
                found,
            }))
        };
        self.call(Call::Head, key, peek).await
    }

    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        let (this, key, after) = (self.clone(), key.to_owned(), after.map(str::to_owned));
        let names = async move {
            let names = this.call(Call::List, &key, |state, _| Ok(state.names(&key))).await;
            let rows: Vec<Result<Listed, StoreError>> = match names {
                Ok(names) => names
                    .into_iter()
                    .filter(|((name, _), _)| after.as_ref().is_none_or(|after| name > after))
                    .map(|((name, _), found)| Ok(Listed { name, found }))
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(rows)
        };
        futures::stream::once(names).flatten().boxed()
    }

    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        let bytes = self.call(Call::Read, key, |state, _| {
            let object = state
                .objects
                .get(key)
                .ok_or_else(|| StoreError::NotFound(key.to_owned()))?;
            if object.found().validator != *validator {
                return Err(StoreError::Changed(key.to_owned()));
            }
            if range.start > range.end || range.end > object.bytes.len() as u64 {
                return Err(StoreError::Damaged(format!("{key}: no bytes {range:?}")));
            }
            let end = if state.cut {
                range.start + (range.end - range.start) / 2
            } else {
                range.end
            };
            Ok(object.bytes.slice(range.start as usize..end as usize))
        });
        bytes.await
    }

    async fn put(&self, write: &Write, chunks: Vec<Bytes>) -> Result<Found, StoreError> {
        if self.hold(write, &chunks) {
            return Err(StoreError::Unavailable(format!("{}: no answer in time", write.key)));
        }
        self.call(Call::Put, &write.key, |state, now| {
            state.store(write, joined(&chunks), now)
        })
        .await
    }

    async fn start(&self, write: &Write) -> Result<UploadId, StoreError> {
        let start = |state: &mut State, _: i64| {
            let id = format!("upload-{}", state.next_version());
            state.uploads.insert(
                id.clone(),
                Upload {
                    key: write.key.clone(),
                    parts: BTreeMap::new(),
                },
            );
            Ok(UploadId(id))
        };
        self.call(Call::Start, &write.key, start).await
    }

    async fn part(
        &self,
        write: &Write,
        upload: &UploadId,
        index: u32,
        _offset: u64,
        chunks: Vec<Bytes>,
    ) -> Result<PartId, StoreError> {
        let bytes = joined(&chunks);
        let id = part_id(&bytes);
        let part = |state: &mut State, _: i64| {
            let gone = || StoreError::NotFound(format!("{}: upload {}", write.key, upload.0));
            let found = state.uploads.get_mut(&upload.0).ok_or_else(gone)?;
            found.parts.insert(index, bytes);
            Ok(PartId { index, id })
        };
        self.call(Call::Part, &write.key, part).await
    }

    async fn complete(&self, write: &Write, upload: &UploadId, parts: &[PartId]) -> Result<Found, StoreError> {
        let complete = |state: &mut State, now: i64| {
            let gone = || StoreError::NotFound(format!("{}: upload {}", write.key, upload.0));
            let found = state.uploads.get(&upload.0).ok_or_else(gone)?;
            let known = |part: &PartId| {
                let bytes = found.parts.get(&part.index);
                bytes.filter(|bytes| part_id(bytes) == part.id).cloned()
            };
            let chunks: Option<Vec<Bytes>> = parts.iter().map(known).collect();
            let chunks = chunks.ok_or_else(gone)?;
            let found = state.store(write, joined(&chunks), now)?;
            state.uploads.remove(&upload.0);
            Ok(found)
        };
        self.call(Call::Complete, &write.key, complete).await
    }

    async fn settle(&self, key: &str) -> Result<(), StoreError> {
        let settle = |state: &mut State, _: i64| match state.find(key) {
            Some(_) => Ok(()),
            None => Err(StoreError::NotFound(key.to_owned())),
        };
        self.call(Call::Head, key, settle).await
    }

    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError> {
        let abort = |state: &mut State, _: i64| {
            state.uploads.remove(&upload.0);
            Ok(())
        };
        self.call(Call::Abort, key, abort).await
    }

    async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        let uploads = |state: &mut State, _: i64| {
            let of_prefix = state
                .uploads
                .iter()
                .filter(|(_, upload)| upload.key.starts_with(prefix));
            Ok(of_prefix
                .map(|(id, upload)| (upload.key.clone(), UploadId(id.clone())))
                .collect())
        };
        self.call(Call::Uploads, prefix, uploads).await
    }

    async fn set_attributes(&self, write: &Write) -> Result<Option<Found>, StoreError> {
        self.call(Call::SetAttributes, &write.key, |state, _| state.set_attributes(write))
            .await
    }

    async fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        let delete = |state: &mut State, _: i64| {
            if *expect != Expect::Absent {
                state.expect(key, expect)?;
            }
            state.objects.remove(key);
            Ok(())
        };
        self.call(Call::Delete, key, delete).await
    }

    async fn make_dir(&self, key: &str) -> Result<(), StoreError> {
        let make = |state: &mut State, _: i64| {
            state.dirs.insert(key.to_owned());
            Ok(())
        };
        self.call(Call::MakeDir, key, make).await
    }

    async fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        let remove = |state: &mut State, _: i64| {
            if !state.names(key).is_empty() {
                return Err(StoreError::Changed(format!("{key}: not empty")));
            }
            state.dirs.remove(key);
            Ok(())
        };
        self.call(Call::RemoveDir, key, remove).await
    }

    fn dates_names(&self) -> bool {
        self.state.lock().named.is_some()
    }

    async fn unmark_dir(&self, key: &str) -> Result<bool, StoreError> {
        let unmark = |state: &mut State, _: i64| {
            if !state.names(key).is_empty() {
                state.dirs.remove(key);
            }
            Ok(!state.dirs.contains(key))
        };
        self.call(Call::UnmarkDir, key, unmark).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_memory_passes_the_conformance_suite() {
        crate::conformance::run(Arc::new(Memory::new())).await;
    }

    #[tokio::test]
    async fn a_lost_answer_has_its_effect_and_is_unavailable() {
        let store = Memory::new();
        store.fail_next(Call::Put, Fault::LostAnswer);
        let write = Write {
            key: "k".into(),
            size: 1,
            token: "t".into(),
            attributes: Vec::new(),
            expect: Expect::Absent,
        };
        let answer = store.put(&write, vec![Bytes::from_static(b"x")]).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        assert_eq!(store.head("k").await.unwrap().unwrap().token.as_deref(), Some("t"));
        assert_eq!(store.faults(), 1);
    }

    #[tokio::test]
    async fn a_refused_prefix_does_not_hold_up_others() {
        let store = Memory::new();
        store.refuse(&["closed"]);
        assert!(matches!(store.make_dir("closed/a").await, Err(StoreError::Refused(_))));
        store.make_dir("closed-not").await.unwrap();
    }
}
