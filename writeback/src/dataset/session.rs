//! Sessions: begun, idle, aborted. What their puts stage is `part_writer`'s, what becomes of it `publish`'s.
//!
//! A session that was begun has a row from then on, and is found again after a restart. A put's own session has no row before its
//! publish: it lives and dies with the put.

use super::{
    Format, SessionId, SessionSpec,
    ipc::schema::StoredSchema,
    registry::{Ended, Keys, Live, LivePartState, Phase},
};
use crate::{
    Cache, Error, ErrorKind, Result,
    cache::Inner,
    file::WriteMode,
    rows::{self, DatasetAnswer, SessionEnd, SessionRow, TokenRow},
};
use bytes::{Bytes, BytesMut};
use forebay_metastore::{Check, Entry, Key};
use forebay_namespace::{NsError, Path, Plan};
use forebay_segment::StreamId;
use std::{sync::Arc, time::Duration};

/// Characters of a session's id.
const ID_CHARS: usize = 16;
const ID_ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// A stranger's session id may not be longer.
const ID_CHARS_MAX: usize = 64;
/// Bounds of a session's timeout.
const TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(30 * 24 * 3600);
/// How often idle sessions are looked for, at the longest.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);
/// Piece of a schema in one row.
const SCHEMA_PIECE_BYTES: usize = 60 << 10;
/// A schema up to this size goes into the transaction that needs it; a larger one is written in pieces before it.
pub(super) const SCHEMA_INLINE_BYTES: usize = 256 << 10;
/// Rows deleted in one transaction when a session is aborted.
const ABORT_STEP: usize = 400;

/// What a client's token has to say.
#[derive(Debug)]
pub(super) enum Token {
    /// None was given.
    None,
    /// Not seen before: to be written with this check.
    New(Key, Check, Vec<u8>),
    /// Answered before.
    Known(DatasetAnswer),
}

impl Cache {
    /// Opens a session.
    ///
    /// # Errors
    /// Exists in mode create when anything is at the path; Precondition when a file is there, or the level can not be reached;
    /// Denied below a read-only mount; Invalid: the root, or a timeout out of bounds.
    pub async fn begin(&self, path: &Path, spec: SessionSpec) -> Result<SessionId> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        self.inner
            .to_the_end("begin", async move { inner.begin(&path, spec).await })
            .await
    }

    /// Drops the session and what it staged. Repeated: fine. Precondition after its publish.
    pub async fn abort(&self, session: &SessionId) -> Result<()> {
        let (inner, session) = (Arc::clone(&self.inner), session.clone());
        self.inner
            .to_the_end(
                "abort",
                async move { inner.abort(&session, "a client asked for it").await },
            )
            .await
    }

    /// Path of a session (open or ended). NotFound.
    pub async fn session_path(&self, session: &SessionId) -> Result<Path> {
        if let Some(live) = self.inner.datasets.sessions.get(session) {
            return Ok(live.path.clone());
        }
        let row = self
            .inner
            .session_row(session)
            .await?
            .ok_or_else(|| no_session(session))?
            .0;
        Ok(Path::parse(&row.path)?)
    }

    /// The live session of the dataset at `path`, if any: the oldest, which is the one that is followed.
    pub fn live_session(&self, path: &Path) -> Option<SessionId> {
        let live = self.inner.datasets.sessions.oldest(path)?;
        Some(live.id.clone())
    }
}

impl SessionId {
    /// The error for a session that nobody knows, and for one that whoever asks is not to know.
    pub fn unknown(&self) -> Error {
        no_session(self)
    }
}

/// The error for a session that nobody knows; and for one of another path than the one asked for, since who may use that need not be
/// allowed to know of the other.
pub(super) fn no_session(session: &SessionId) -> Error {
    Error::not_found(format!(
        "no session {:?}; begin one",
        session.0.chars().take(ID_CHARS_MAX).collect::<String>()
    ))
}

impl Inner {
    async fn begin(self: &Arc<Self>, path: &Path, spec: SessionSpec) -> Result<SessionId> {
        let _entered = self.enter()?;
        let keys = self.session_keys(path, &spec)?;
        let scope = [b"begin:".as_slice(), &path.as_bytes()].concat();
        let mut attempts = self.attempts(format!("begin {path}"));
        loop {
            let token = self.dataset_token(&scope, spec.token.as_deref()).await?;
            if let Token::Known(answer) = token {
                return Ok(SessionId(answer.session));
            }
            self.check_place(path, keys.mode).await?;
            let live = self.new_live(path, keys, false);
            let row = self.open_row(&live);
            let mut plan = Plan::default();
            let key = rows::session_key(&live.id.0);
            plan.check(Check::Absent(key.clone())).put(key, rows::encode(&row));
            self.plan_dataset_token(
                &mut plan,
                token,
                &DatasetAnswer {
                    session: live.id.0.clone(),
                    version: None,
                },
            );
            match self.commit(plan).await {
                Ok(_) => {
                    self.datasets.sessions.insert(&live);
                    self.idles(&live);
                    return Ok(live.id.clone());
                }
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// The row of a session that is open.
    pub(super) fn open_row(&self, live: &Live) -> SessionRow {
        SessionRow {
            path: live.path.as_bytes(),
            spec: live.keys.to_row(),
            begun: live.begun.0,
            end: None,
            owner: live.keys.owner,
        }
    }

    /// A session, known to nobody yet.
    pub(super) fn new_live(&self, path: &Path, keys: Keys, own: bool) -> Arc<Live> {
        let clock = &self.components.clock;
        Live::new(
            self.new_session_id(),
            path.clone(),
            keys,
            own,
            clock.now(),
            clock.monotonic(),
        )
    }

    fn new_session_id(&self) -> SessionId {
        let letter = |below: usize| {
            let at = usize::try_from(self.components.chance.below(below as u64)).expect("below the alphabet's length");
            char::from(ID_ALPHABET[at])
        };
        // A letter first: an id is never mistaken for a version's number.
        SessionId(
            std::iter::once(letter(26))
                .chain((1..ID_CHARS).map(|_| letter(ID_ALPHABET.len())))
                .collect(),
        )
    }

    /// Keys of a session on `path`, defaults filled in.
    pub(super) fn session_keys(&self, path: &Path, spec: &SessionSpec) -> Result<Keys> {
        if path.is_root() {
            return Err(Error::invalid("/: the root can not be a dataset; name a directory"));
        }
        self.check_writable(path)?;
        let ack = self.level_of(path, spec.ack);
        self.check_level(path, ack)?;
        let timeout = spec.timeout.unwrap_or(self.settings.session_timeout);
        if !TIMEOUT_RANGE.contains(&timeout) {
            return Err(Error::invalid(format!(
                "a timeout of {timeout:?}; {TIMEOUT_RANGE:?} are allowed"
            )));
        }
        Ok(Keys {
            mode: spec.mode,
            format: spec.format,
            compression: spec.compression,
            ack,
            timeout,
            owner: spec.owner.unwrap_or_default(),
        })
    }

    /// Whether a dataset may be written at `path` in this mode.
    pub(super) async fn check_place(&self, path: &Path, mode: WriteMode) -> Result<()> {
        let there = match self.names.resolve(path).await {
            Err(NsError::Base(_)) if self.need_not_know(path, mode) => return Ok(()),
            there => there?,
        };
        match there {
            None => Ok(()),
            Some(_) if mode == WriteMode::Create => Err(Error::exists(format!(
                "{path}: exists already; write with mode append or overwrite"
            ))),
            Some(node) if !node.is_dir() => Err(Error::precondition(format!(
                "{path}: a file is there, not a dataset; write it as a file"
            ))),
            Some(_) => Ok(()),
        }
    }

    /// Whether what the store has at `path`, which can not be said, does not matter: what goes behind whatever is there need not know it,
    /// and what takes its place need not while the store is away.
    pub(super) fn need_not_know(&self, path: &Path, mode: WriteMode) -> bool {
        match mode {
            WriteMode::Append => true,
            WriteMode::Overwrite => self.mounts.is_away(path),
            WriteMode::Create => false,
        }
    }

    /// The row of a session, open or ended, with its key and version.
    pub(super) async fn session_row(&self, session: &SessionId) -> Result<Option<(SessionRow, Key, Entry)>> {
        if session.0.len() > ID_CHARS_MAX {
            return Ok(None);
        }
        let keys = [
            rows::session_key(&session.0),
            rows::published_key(&session.0),
            rows::aborted_key(&session.0),
        ];
        let found = self.components.meta.get(&keys).await?;
        let found = keys.into_iter().zip(found).find_map(|(key, entry)| Some((key, entry?)));
        found
            .map(|(key, entry)| Ok((SessionRow::decode(&entry.value)?, key, entry)))
            .transpose()
    }

    /// NotFound unless a session was begun at `path`, open or ended.
    pub(super) async fn check_begun_at(&self, session: &SessionId, path: &Path) -> Result<()> {
        match self.session_row(session).await? {
            Some((row, ..)) if row.path == path.as_bytes() => Ok(()),
            _ => Err(no_session(session)),
        }
    }

    /// NotFound unless a session with this row is of `path`: it was begun there, or published in the dataset that is there now.
    pub(super) async fn check_of(&self, path: &Path, session: &SessionId, row: &SessionRow) -> Result<()> {
        if row.path == path.as_bytes() {
            return Ok(());
        }
        let Some(SessionEnd::Published { dir, .. }) = &row.end else {
            return Err(no_session(session));
        };
        match self.published_head(path).await {
            Ok(Some((here, _))) if here.0 == *dir => Ok(()),
            Err(error) if error.is_away() => Err(error),
            _ => Err(no_session(session)),
        }
    }

    /// Why a session that is not live takes nothing at `path`.
    pub(super) async fn ended_at(&self, session: &SessionId, path: &Path) -> Error {
        match self.check_begun_at(session, path).await {
            Ok(()) => self.ended(session).await,
            Err(error) => error,
        }
    }

    /// Why a session that is not live takes nothing.
    pub(super) async fn ended(&self, session: &SessionId) -> Error {
        match self.session_row(session).await {
            Ok(Some((
                SessionRow {
                    end: Some(SessionEnd::Published { version, .. }),
                    ..
                },
                ..,
            ))) => Error::precondition(format!(
                "session {} is published as version {version}; begin another one",
                session.0
            )),
            Ok(Some((
                SessionRow {
                    end: Some(SessionEnd::Aborted { why, .. }),
                    ..
                },
                ..,
            ))) => Error::precondition(format!("session {} was aborted ({why}); begin another one", session.0)),
            Ok(_) => no_session(session),
            Err(error) => error,
        }
    }

    /// What a token has to say. Invalid when it is malformed.
    pub(super) async fn dataset_token(&self, scope: &[u8], token: Option<&str>) -> Result<Token> {
        let Some(token) = token else { return Ok(Token::None) };
        let key = rows::token_key(scope, token)?;
        let Some(entry) = self
            .components
            .meta
            .get(std::slice::from_ref(&key))
            .await?
            .pop()
            .flatten()
        else {
            return Ok(Token::New(key.clone(), Check::Absent(key), scope.to_vec()));
        };
        let row: TokenRow = rows::decode(&entry.value)?;
        match row.scope == scope {
            true => Ok(Token::Known(rows::decode(&row.result)?)),
            // Another scope with the same hash: that one's token is given up rather than mistaken for ours.
            false => Ok(Token::New(key.clone(), Check::At(key, entry.version), scope.to_vec())),
        }
    }

    /// Writes a new token's answer with the transaction that makes it true.
    pub(super) fn plan_dataset_token(&self, plan: &mut Plan, token: Token, answer: &DatasetAnswer) {
        let Token::New(key, check, scope) = token else { return };
        let row = TokenRow {
            scope,
            at: self.components.clock.now().0,
            result: rows::encode(answer).to_vec(),
        };
        plan.check(check).put(key, rows::encode(&row));
    }

    /// Writes a session's schema into `plan`, or before it when it is large; nothing refers to it yet.
    pub(super) async fn plan_schema(&self, plan: &mut Plan, session: &SessionId, schema: &StoredSchema) -> Result<()> {
        let pieces = schema.message.chunks(SCHEMA_PIECE_BYTES).enumerate();
        let pieces = pieces.map(|(k, piece)| {
            let number = u32::try_from(k).expect("headers are bounded");
            (rows::schema_key(&session.0, number), Bytes::copy_from_slice(piece))
        });
        if schema.message.len() <= SCHEMA_INLINE_BYTES {
            for (key, piece) in pieces {
                plan.put(key, piece);
            }
            return Ok(());
        }
        for (key, piece) in pieces {
            let mut alone = Plan::default();
            alone.put(key, piece);
            self.commit(alone).await?;
        }
        Ok(())
    }

    /// The schema that a session's rows hold. DataLoss when they hold none.
    pub(super) async fn session_schema(&self, session: &str) -> Result<Arc<StoredSchema>> {
        if let Some(schema) = self.datasets.schemas.get(session) {
            return Ok(schema);
        }
        let mut message = BytesMut::new();
        for (_, entry) in self.scan_all(rows::schema_prefix(session)).await? {
            message.extend_from_slice(&entry.value);
        }
        if message.is_empty() {
            return Err(Error::data_loss(format!(
                "metastore: the schema of session {session} is missing"
            )));
        }
        let schema = Arc::new(StoredSchema::parse(&message.freeze())?);
        self.datasets.schemas.insert(session.to_owned(), Arc::clone(&schema));
        Ok(schema)
    }

    /// All rows whose keys begin with `prefix`.
    pub(super) async fn scan_all(&self, prefix: Key) -> Result<Vec<(Key, Entry)>> {
        let end = forebay_metastore::prefix_end(&prefix);
        self.scan_range(prefix..end).await
    }

    /// All rows of a range, page by page.
    pub(super) async fn scan_range(&self, mut range: std::ops::Range<Key>) -> Result<Vec<(Key, Entry)>> {
        let page = self.components.meta.limits().scan_rows_max;
        let mut found = Vec::new();
        loop {
            let rows = self.components.meta.scan(range.clone(), page).await?;
            let full = rows.len() >= page;
            if let Some((last, _)) = rows.last() {
                range.start = [last.as_ref(), &[0]].concat().into();
            }
            found.extend(rows);
            if !full {
                return Ok(found);
            }
        }
    }

    /// Aborts a session, whoever asks.
    pub(super) async fn abort(self: &Arc<Self>, session: &SessionId, why: &str) -> Result<()> {
        let _entered = self.enter()?;
        let Some(live) = self.datasets.sessions.get(session) else {
            return match self.session_row(session).await? {
                Some((
                    SessionRow {
                        end: Some(SessionEnd::Aborted { .. }),
                        ..
                    },
                    ..,
                )) => Ok(()),
                _ => Err(self.ended(session).await),
            };
        };
        match live.begin_end(|_| Ok(())).await? {
            None => {}
            Some(Phase::Aborted(_)) => return Ok(()),
            Some(phase) => {
                return Err(live
                    .closed(&phase)
                    .unwrap_or_else(|| Error::internal("a session ended in no way")));
            }
        }
        match self.write_abort(&live, why).await {
            Ok(()) => {
                self.end_aborted(&live, why);
                Ok(())
            }
            Err(error) => {
                live.go_on();
                Err(error)
            }
        }
    }

    /// The rows of an abort: the session's end first, so that a crash between the steps leaves nothing that counts.
    async fn write_abort(&self, live: &Live, why: &str) -> Result<()> {
        if live.own {
            return Ok(());
        }
        let row = SessionRow {
            end: Some(SessionEnd::Aborted {
                at: self.components.clock.now().0,
                why: why.to_owned(),
            }),
            ..self.open_row(live)
        };
        let mut plan = Plan::default();
        plan.delete(rows::session_key(&live.id.0))
            .put(rows::aborted_key(&live.id.0), rows::encode(&row));
        self.commit(plan).await?;
        // The session has ended; what is left of its rows is garbage, cleared when the row of the end is pruned.
        if let Err(error) = self.delete_parts(&live.id).await {
            tracing::warn!(session = live.id.0, %error, "rows of an aborted session stay until it is pruned");
        }
        Ok(())
    }

    /// Deletes the part and schema rows of a session.
    pub(super) async fn delete_parts(&self, session: &SessionId) -> Result<()> {
        let mut keys: Vec<Key> = self
            .scan_all(rows::part_prefix(&session.0))
            .await?
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        keys.extend(
            self.scan_all(rows::schema_prefix(&session.0))
                .await?
                .into_iter()
                .map(|(key, _)| key),
        );
        for step in keys.chunks(ABORT_STEP) {
            let mut plan = Plan::default();
            for key in step {
                plan.delete(key.clone());
            }
            self.commit(plan).await?;
        }
        Ok(())
    }

    /// After the rows say so: followers learn it, bytes are free.
    pub(super) fn end_aborted(&self, live: &Live, why: &str) {
        let staged = live.change(|state| {
            state.phase = Phase::Aborted(why.to_owned());
            let ended = |part: &super::registry::LivePart| match &part.state {
                // What a running put has sealed is still its own.
                LivePartState::Ended(ended) if part.settled => Some(ended.clone()),
                _ => None,
            };
            state.parts.values().filter_map(ended).collect::<Vec<_>>()
        });
        self.datasets.sessions.remove(live);
        staged.iter().for_each(|ended| self.free_ended(ended));
        tracing::info!(session = live.id.0, path = %live.path, why, "session aborted");
    }

    /// The bytes of a part that had ended and will not be published.
    pub(super) fn free_ended(&self, ended: &Ended) {
        let stream = StreamId(ended.ino, ended.generation);
        self.dirty.settle(1, ended.bytes);
        self.dirty.forget(stream);
        self.segments.release(stream, &ended.layout);
    }

    /// Aborts sessions without a writer for their timeout, for as long as the cache runs; and sweeps what versions left.
    pub(crate) async fn start_datasets(self: &Arc<Self>) -> Result<()> {
        let inner = Arc::clone(self);
        self.tasks
            .spawn("sessions", async move { inner.expire_for_ever().await });
        let inner = Arc::clone(self);
        self.tasks
            .spawn("versions", async move { inner.sweep_for_ever().await });
        Ok(())
    }

    async fn expire_for_ever(self: &Arc<Self>) {
        let shutdown = self.tasks.shutdown().clone();
        loop {
            let pause = self.expire_idle().await;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.datasets.idle.notified() => {}
                () = self.components.clock.sleep(pause) => {}
            }
        }
    }

    /// Nobody writes to a session from now on: it is looked at in time.
    pub(super) fn idles(&self, live: &Live) {
        if !live.own && live.keys.timeout < EXPIRY_INTERVAL {
            self.datasets.idle.notify_one();
        }
    }

    /// Aborts what is due, and says when to look again.
    pub(super) async fn expire_idle(self: &Arc<Self>) -> Duration {
        let now = self.components.clock.monotonic();
        let mut next = EXPIRY_INTERVAL;
        for live in self.datasets.sessions.all().into_iter().filter(|live| !live.own) {
            let (writers, idle_since, phase) = {
                let state = live.look();
                (state.writers, state.idle_since, state.phase.clone())
            };
            if writers > 0 || phase != Phase::Open {
                continue;
            }
            let due = idle_since.saturating_add(live.keys.timeout);
            if due > now {
                next = next.min(due - now);
                continue;
            }
            let why = format!("no writer for {:?}", live.keys.timeout);
            match self.abort(&live.id, &why).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Precondition => {}
                Err(error) => {
                    tracing::warn!(session = live.id.0, %error, "an idle session could not be aborted; trying again")
                }
            }
        }
        next.max(Duration::from_millis(1))
    }

    /// Bytes that were acknowledged of puts under way.
    pub(crate) fn acknowledged_bytes(&self) -> u64 {
        self.datasets.sessions.acknowledged_bytes()
    }

    /// Sessions that are open.
    pub(crate) fn session_count(&self) -> u64 {
        self.datasets.sessions.count()
    }
}

impl Format {
    /// What the names of its files end with.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Format::Arrow => "arrow",
            Format::Parquet => "parquet",
        }
    }
}
