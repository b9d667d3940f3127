//! The live sessions of this node: what is open, who writes, what followers may see, in which order.
//!
//! Rows are the truth across restarts, this is the truth within one: a session's transitions are decided under its lock and then
//! written, and nothing here is held across an await.
//!
//! Order of delivery. Without tasks: puts in the order in which they began, the parts of a put together; a put that began later is
//! delivered once all before it have ended. With tasks: an attempt's parts once it has ended well, in that order. A session takes
//! puts of one of the two kinds.

use super::{Compression, Format, SessionId, Task, growing::Growing, ipc::schema::StoredSchema};
use crate::{
    AckLevel, Error, Result,
    file::WriteMode,
    rows::{SessionKeys, SessionRow},
};
use forebay_namespace::Path;
use forebay_runtime::clock::Timestamp;
use forebay_segment::Layout;
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// Parts of one session: what one publish can name in one transaction.
pub(crate) const PARTS_MAX: usize = 480;
/// Puts that one session may have under way at once.
pub(crate) const WRITERS_MAX: usize = 4096;

/// The live sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<SessionId, Arc<Live>>,
    by_path: BTreeMap<Path, Vec<Arc<Live>>>,
}

impl Sessions {
    /// Takes a session in.
    pub(crate) fn insert(&self, live: &Arc<Live>) {
        let mut state = self.state.lock();
        state.by_id.insert(live.id.clone(), Arc::clone(live));
        state
            .by_path
            .entry(live.path.clone())
            .or_default()
            .push(Arc::clone(live));
        drop(state);
        self.notify();
    }

    /// Lets an ended session go; its followers keep it.
    pub(crate) fn remove(&self, live: &Live) {
        let mut state = self.state.lock();
        state.by_id.remove(&live.id);
        if let Some(sessions) = state.by_path.get_mut(&live.path) {
            sessions.retain(|other| other.id != live.id);
            if sessions.is_empty() {
                state.by_path.remove(&live.path);
            }
        }
        drop(state);
        self.notify();
    }

    /// Something may have come into being.
    pub(crate) fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Changes when a session comes or goes, or a version is published.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn get(&self, id: &SessionId) -> Option<Arc<Live>> {
        self.state.lock().by_id.get(id).cloned()
    }

    /// The oldest live session of a dataset.
    pub(crate) fn oldest(&self, path: &Path) -> Option<Arc<Live>> {
        self.state.lock().by_path.get(path)?.first().cloned()
    }

    /// Whether a dataset has a live session.
    pub(crate) fn is_live(&self, path: &Path) -> bool {
        self.state.lock().by_path.contains_key(path)
    }

    /// All of them, by path, older ones first.
    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        self.state.lock().by_path.values().flatten().cloned().collect()
    }

    pub(crate) fn count(&self) -> u64 {
        self.state.lock().by_id.len() as u64
    }

    /// Bytes that were acknowledged of puts under way: the ledger does not know them yet.
    pub(crate) fn acknowledged_bytes(&self) -> u64 {
        self.all().iter().map(|live| live.look().acknowledged_bytes()).sum()
    }
}

/// Keys of a session, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) mode: WriteMode,
    pub(crate) format: Format,
    pub(crate) compression: Option<Compression>,
    pub(crate) ack: AckLevel,
    pub(crate) timeout: Duration,
    /// Who owns its parts.
    pub(crate) owner: u32,
}

impl Keys {
    pub(crate) fn to_row(self) -> SessionKeys {
        let mode = match self.mode {
            WriteMode::Append => 0,
            WriteMode::Overwrite => 1,
            WriteMode::Create => 2,
        };
        let timeout = u64::try_from(self.timeout.as_micros()).unwrap_or(u64::MAX);
        SessionKeys {
            mode,
            format: self.format,
            compression: self.compression,
            ack: self.ack,
            timeout,
        }
    }

    pub(crate) fn of_row(row: &SessionRow) -> Self {
        let SessionKeys {
            mode,
            format,
            compression,
            ack,
            timeout,
        } = row.spec;
        let mode = match mode {
            1 => WriteMode::Overwrite,
            2 => WriteMode::Create,
            _ => WriteMode::Append,
        };
        Self {
            mode,
            format,
            compression,
            ack,
            timeout: Duration::from_micros(timeout),
            owner: row.owner,
        }
    }
}

/// A live session.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: SessionId,
    pub(crate) path: Path,
    pub(crate) keys: Keys,
    /// A put's own session: it has no rows before its publish.
    pub(crate) own: bool,
    pub(crate) begun: Timestamp,
    state: Mutex<LiveState>,
    changed: watch::Sender<u64>,
}

/// What changes of a session.
#[derive(Debug)]
pub(crate) struct LiveState {
    pub(crate) phase: Phase,
    pub(crate) schema: Option<Arc<StoredSchema>>,
    /// Whether rows hold the schema: they do before, or with, the first row of a part.
    pub(crate) schema_stored: bool,
    /// Parts by number. Those taken back stay, as such, when followers may have seen of them.
    pub(crate) parts: BTreeMap<u32, LivePart>,
    /// Parts that followers may see, in their order.
    pub(crate) order: Vec<u32>,
    next_part: u32,
    next_put: u32,
    next_ended: u32,
    puts: BTreeMap<u32, Put>,
    /// The put whose turn it is; all before it have ended.
    turn: u32,
    pub(crate) writers: usize,
    /// Puts that are just becoming part of the session: a publish or an abort waits for them.
    pub(crate) joining: usize,
    /// Since when nobody writes, monotonic.
    pub(crate) idle_since: Duration,
}

/// Where a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// A publish or an abort is under way.
    Ending,
    /// Its parts are the version; `excluded` parts did not count.
    Published {
        version: u64,
        excluded: Vec<u32>,
    },
    Aborted(String),
}

/// A put of a session.
#[derive(Debug)]
struct Put {
    task: Option<Task>,
    parts: Vec<u32>,
    /// Parts of it that are in the order.
    ordered: usize,
    open: bool,
    /// For a task's attempt: it is the one that counts, or is about to be.
    claims: bool,
}

/// A part of a live session.
#[derive(Clone, Debug)]
pub(crate) struct LivePart {
    pub(crate) put: u32,
    pub(crate) task: Option<Task>,
    pub(crate) token: Option<String>,
    pub(crate) state: LivePartState,
    /// The part as it was written, for followers that are in the middle of it.
    pub(crate) growing: Option<Arc<Growing>>,
    /// Whether its put has ended well: then it will not be taken back.
    pub(crate) settled: bool,
}

/// Where a live part stands.
#[derive(Clone, Debug)]
pub(crate) enum LivePartState {
    /// Being written.
    Open,
    /// All of it is there: so many messages in `growing`.
    Ended(Ended),
    /// Taken back.
    Dropped,
}

/// A part that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) ino: u64,
    pub(crate) generation: u32,
    pub(crate) format: Format,
    pub(crate) layout: Layout,
    pub(crate) crc: u32,
    pub(crate) rows: u64,
    pub(crate) batches: u64,
    pub(crate) bytes: u64,
    /// False: what was stable of a put when the server stopped.
    pub(crate) whole: bool,
    /// Order among tasks.
    pub(crate) ended: u32,
}

/// Whether an attempt of a task may end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is the one.
    Won,
    /// Another has ended, or the session has.
    Lost(String),
    /// Another is about to end: wait for a change.
    Wait,
}

impl Live {
    pub(crate) fn new(
        id: SessionId,
        path: Path,
        keys: Keys,
        own: bool,
        begun: Timestamp,
        idle_since: Duration,
    ) -> Arc<Self> {
        let state = LiveState {
            phase: Phase::Open,
            schema: None,
            schema_stored: false,
            parts: BTreeMap::new(),
            order: Vec::new(),
            next_part: 0,
            next_put: 0,
            next_ended: 1,
            puts: BTreeMap::new(),
            turn: 0,
            writers: 0,
            joining: 0,
            idle_since,
        };
        Arc::new(Self {
            id,
            path,
            keys,
            own,
            begun,
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        })
    }

    /// A look at the state. Keep it short.
    pub(crate) fn look(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock()
    }

    /// Changes the state and wakes whoever waits for that.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut LiveState) -> T) -> T {
        let answer = change(&mut self.state.lock());
        self.changed.send_modify(|count| *count += 1);
        answer
    }

    /// Changes whenever the state does.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.look().phase.clone()
    }

    /// The error of a session that is not open.
    pub(crate) fn closed(&self, phase: &Phase) -> Option<Error> {
        let id = &self.id.0;
        match phase {
            Phase::Open => None,
            Phase::Ending => Some(Error::precondition(format!(
                "session {id} is just being ended; begin another one"
            ))),
            Phase::Published { version, .. } => Some(Error::precondition(format!(
                "session {id} is published as version {version}; begin another one"
            ))),
            Phase::Aborted(why) => Some(Error::precondition(format!(
                "session {id} was aborted ({why}); begin another one"
            ))),
        }
    }

    /// Begins a put: a writer more, and its number.
    pub(crate) fn begin_put(&self, task: Option<&Task>) -> Result<u32> {
        let begun = {
            let state = &mut *self.state.lock();
            match self.closed(&state.phase) {
                Some(error) => Err(error),
                None => state.begin_put(task),
            }
        };
        self.changed.send_modify(|count| *count += 1);
        begun
    }

    /// The session's schema: the first put decides. Precondition when it has another one.
    pub(crate) fn agree(&self, schema: &Arc<StoredSchema>) -> Result<()> {
        self.change(|state| {
            let first = state.schema.get_or_insert_with(|| Arc::clone(schema));
            first.agrees(&schema.schema).map_err(|difference| {
                Error::precondition(format!(
                    "{}: another schema than the session's: {difference}",
                    self.path
                ))
            })
        })
    }

    /// The schema, while no row holds it.
    pub(crate) fn schema_to_store(&self) -> Option<Arc<StoredSchema>> {
        let state = self.look();
        state.schema.clone().filter(|_| !state.schema_stored)
    }

    /// Turns to [`Phase::Ending`] once no other end is under way and no put is just joining, unless `refuse` says no.
    ///
    /// # Errors
    /// What `refuse` says; Ok(the phase) when it has ended already.
    pub(crate) async fn begin_end(&self, refuse: impl Fn(&LiveState) -> Result<()>) -> Result<Option<Phase>> {
        let mut changed = self.changed();
        let mut mine = false;
        loop {
            changed.borrow_and_update();
            {
                let state = &mut *self.state.lock();
                match &state.phase {
                    Phase::Ending if mine && state.joining == 0 => return Ok(None),
                    Phase::Open => {
                        refuse(state)?;
                        state.phase = Phase::Ending;
                        mine = true;
                        if state.joining == 0 {
                            return Ok(None);
                        }
                    }
                    Phase::Ending => {}
                    ended => return Ok(Some(ended.clone())),
                }
            }
            if changed.changed().await.is_err() {
                return Err(Error::internal("a session vanished"));
            }
        }
    }

    /// Takes back [`Live::begin_end`].
    pub(crate) fn go_on(&self) {
        self.change(|state| {
            if state.phase == Phase::Ending {
                state.phase = Phase::Open;
            }
        });
    }

    /// Waits for the schema. Aborted or Precondition when the session ends without one.
    pub(crate) async fn schema(&self) -> Result<Arc<StoredSchema>> {
        let mut changed = self.changed();
        loop {
            changed.borrow_and_update();
            {
                let state = self.look();
                if let Some(schema) = &state.schema {
                    return Ok(Arc::clone(schema));
                }
                match &state.phase {
                    Phase::Aborted(why) => {
                        return Err(Error::aborted(format!("session {} was aborted: {why}", self.id.0)));
                    }
                    Phase::Published { version, .. } => {
                        return Err(Error::precondition(format!(
                            "session {} made version {version} and has no schema",
                            self.id.0
                        )));
                    }
                    Phase::Open | Phase::Ending => {}
                }
            }
            if changed.changed().await.is_err() {
                return Err(Error::internal("a session vanished"));
            }
        }
    }
}

impl LiveState {
    fn begin_put(&mut self, task: Option<&Task>) -> Result<u32> {
        if self.writers >= WRITERS_MAX {
            return Err(Error::full(format!(
                "{WRITERS_MAX} puts are under way in this session; end some first"
            )));
        }
        let kinds = |put: &Put| put.task.is_some() != task.is_some();
        if self.puts.values().any(kinds) || self.parts.values().any(|part| part.task.is_some() != task.is_some()) {
            return Err(Error::precondition(
                "a session takes puts that name a task, or puts that do not, but not both",
            ));
        }
        let put = self.next_put;
        self.next_put += 1;
        self.puts.insert(
            put,
            Put {
                task: task.cloned(),
                parts: Vec::new(),
                ordered: 0,
                open: true,
                claims: false,
            },
        );
        self.writers += 1;
        Ok(put)
    }

    /// A part more of a put. Precondition beyond [`PARTS_MAX`].
    pub(crate) fn begin_part(&mut self, put: u32, token: Option<String>, growing: Arc<Growing>) -> Result<u32> {
        self.check_parts()?;
        let number = self.next_part;
        self.next_part += 1;
        let task = self.puts.get(&put).and_then(|put| put.task.clone());
        let part = LivePart {
            put,
            task,
            token,
            state: LivePartState::Open,
            growing: Some(growing),
            settled: false,
        };
        self.insert_part(number, part);
        Ok(number)
    }

    /// Whether one part more may begin.
    pub(crate) fn check_parts(&self) -> Result<()> {
        let count = self
            .parts
            .values()
            .filter(|part| !matches!(part.state, LivePartState::Dropped))
            .count();
        if count < PARTS_MAX {
            return Ok(());
        }
        Err(Error::precondition(format!(
            "the session has {PARTS_MAX} parts, which is what one publish can name; publish it and begin another one \
             (a put makes a part, and one more whenever it replaces a dictionary)"
        )))
    }

    fn insert_part(&mut self, number: u32, part: LivePart) {
        if let Some(put) = self.puts.get_mut(&part.put) {
            put.parts.push(number);
        }
        self.parts.insert(number, part);
        self.advance();
    }

    /// A part as recovery found it.
    pub(crate) fn restore(&mut self, number: u32, put: u32, task: Option<Task>, token: Option<String>, ended: Ended) {
        self.next_part = self.next_part.max(number + 1);
        self.next_put = self.next_put.max(put + 1);
        self.next_ended = self.next_ended.max(ended.ended + 1);
        let begun = Put {
            task: task.clone(),
            parts: Vec::new(),
            ordered: 0,
            open: false,
            claims: true,
        };
        self.puts.entry(put).or_insert(begun);
        let part = LivePart {
            put,
            task,
            token,
            state: LivePartState::Ended(ended),
            growing: None,
            settled: true,
        };
        if let Some(put) = self.puts.get_mut(&part.put) {
            put.parts.push(number);
        }
        self.parts.insert(number, part);
    }

    /// After all parts were restored.
    pub(crate) fn restored(&mut self) {
        let mut tasks: Vec<_> = self.parts.iter().filter(|(_, part)| part.task.is_some()).collect();
        tasks.sort_by_key(|(number, part)| (part.ended_order(), **number));
        self.order = tasks.into_iter().map(|(number, _)| *number).collect();
        self.advance();
    }

    /// A part is there whole.
    pub(crate) fn end_part(&mut self, number: u32, ended: Ended) {
        if let Some(part) = self.parts.get_mut(&number) {
            part.state = LivePartState::Ended(ended);
        }
    }

    /// The put has ended well: its parts stay.
    pub(crate) fn end_put(&mut self, put: u32) {
        let Some(ended) = self.puts.get_mut(&put) else { return };
        ended.open = false;
        let (parts, tasked) = (ended.parts.clone(), ended.task.is_some());
        for number in &parts {
            if let Some(part) = self.parts.get_mut(number) {
                part.settled = true;
            }
        }
        if tasked {
            self.order.extend(parts);
        }
        self.advance();
    }

    /// Bytes that were acknowledged of parts whose put has not ended.
    fn acknowledged_bytes(&self) -> u64 {
        let stable = |growing: &Arc<Growing>| growing.stable().borrow().bytes;
        let bytes = |part: &LivePart| match &part.state {
            LivePartState::Open => part.growing.as_ref().map_or(0, stable),
            LivePartState::Ended(ended) => ended.bytes,
            LivePartState::Dropped => 0,
        };
        self.parts.values().filter(|part| !part.settled).map(bytes).sum()
    }

    /// The put came to nothing: its parts are taken back.
    pub(crate) fn drop_put(&mut self, put: u32) {
        let Some(dropped) = self.puts.remove(&put) else { return };
        for number in dropped.parts {
            // Followers that are within it must learn that it is gone.
            match self.parts.get_mut(&number) {
                Some(part) if self.order.contains(&number) => {
                    part.state = LivePartState::Dropped;
                    part.growing = None;
                }
                _ => drop(self.parts.remove(&number)),
            }
        }
        self.advance();
    }

    /// Takes back what a put with this token left at a restart, before the token is put again. Answers the parts.
    pub(crate) fn take_unfinished(&mut self, token: &str) -> Vec<(u32, Ended)> {
        let unfinished = |part: &LivePart| matches!(&part.state, LivePartState::Ended(ended) if !ended.whole);
        let of_token = |part: &LivePart| part.token.as_deref() == Some(token);
        let puts: Vec<u32> = self
            .parts
            .values()
            .filter(|part| of_token(part) && unfinished(part))
            .map(|part| part.put)
            .collect();
        let mut taken = Vec::new();
        for put in puts {
            for (number, part) in self.parts.iter().filter(|(_, part)| part.put == put) {
                if let LivePartState::Ended(ended) = &part.state {
                    taken.push((*number, ended.clone()));
                }
            }
            self.drop_put(put);
        }
        taken
    }

    /// A put asks to end: once it may, it counts as joining until [`LiveState::leave`].
    pub(crate) fn begin_join(&mut self, put: u32) -> Claim {
        let claim = match &self.phase {
            Phase::Open => self.claim(put),
            Phase::Ending => Claim::Wait,
            Phase::Published { version, .. } => {
                Claim::Lost(format!("the session was published as version {version} meanwhile"))
            }
            Phase::Aborted(why) => Claim::Lost(format!("the session was aborted: {why}")),
        };
        self.joining += usize::from(claim == Claim::Won);
        claim
    }

    fn claim(&mut self, put: u32) -> Claim {
        let Some(task) = self.puts.get(&put).and_then(|put| put.task.clone()) else {
            return Claim::Won;
        };
        let rival = self.puts.iter().find(|(number, other)| {
            **number != put && other.claims && other.task.as_ref().is_some_and(|other| other.same_task(&task))
        });
        match rival {
            Some((_, other)) if other.open => return Claim::Wait,
            Some((_, other)) => {
                let attempt = other.task.as_ref().map_or(0, |task| task.attempt);
                return Claim::Lost(format!("attempt {attempt} of task {} has ended before", task.task));
            }
            None => {}
        }
        if let Some(put) = self.puts.get_mut(&put) {
            put.claims = true;
        }
        Claim::Won
    }

    /// The order in which the next attempt ends.
    pub(crate) fn next_ended(&mut self) -> u32 {
        self.next_ended += 1;
        self.next_ended - 1
    }

    /// A writer less.
    pub(crate) fn leave(&mut self, now: Duration, joined: bool) {
        self.writers = self.writers.saturating_sub(1);
        self.joining = self.joining.saturating_sub(usize::from(joined));
        self.idle_since = now;
    }

    /// Puts without a task that are under way.
    pub(crate) fn open_puts(&self) -> usize {
        self.puts.values().filter(|put| put.open && put.task.is_none()).count()
    }

    /// Parts that have ended with their put, in the order of delivery, none missing before them.
    pub(crate) fn delivered(&self) -> Vec<(u32, Ended)> {
        let mut parts = Vec::new();
        for number in &self.order {
            match self.parts.get(number) {
                Some(LivePart {
                    state: LivePartState::Ended(ended),
                    settled: true,
                    ..
                }) => parts.push((*number, ended.clone())),
                Some(LivePart {
                    state: LivePartState::Dropped,
                    ..
                })
                | None => {}
                Some(_) => break,
            }
        }
        parts
    }

    /// Moves the turn on, as far as puts have ended. Puts that were taken back leave gaps.
    fn advance(&mut self) {
        while self.turn < self.next_put {
            if let Some(put) = self.puts.get_mut(&self.turn).filter(|put| put.task.is_none()) {
                self.order.extend_from_slice(&put.parts[put.ordered..]);
                put.ordered = put.parts.len();
                if put.open {
                    return;
                }
            }
            self.turn += 1;
        }
    }
}

impl LivePart {
    fn ended_order(&self) -> u32 {
        match &self.state {
            LivePartState::Ended(ended) => ended.ended,
            _ => u32::MAX,
        }
    }
}

impl Task {
    /// Whether two attempts are of one task.
    pub(crate) fn same_task(&self, other: &Self) -> bool {
        (&self.job, self.stage, self.task) == (&other.job, other.stage, other.task)
    }
}
