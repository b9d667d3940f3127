//! A put under way: messages are checked, framed and appended as they come; acknowledged when stable; sealed at the end.
//!
//! 1. *Begun*: the schema agrees; the first part is open (a named session has its row, so that a restart finds it).
//! 2. *Written*: each message is validated before a byte of it is written, then appended as it came. A dictionary that takes
//!    another's place closes the part and opens the next one, as the file format has it.
//! 3. *Ended*: the last part gets its footer and is sealed, a Parquet session's parts are transcoded; then one transaction makes the
//!    put part of its session, or publishes it when the session is its own.
//!
//! Whatever ends otherwise is taken back. It does not own sessions, nor what a publish does.

use super::{
    Format, IpcMessage, PutDone, PutTarget, SessionId, StableBatches, Task,
    encode::{Encoder, codec},
    growing::Growing,
    ipc::{
        frame::{self, DATA_START},
        schema::StoredSchema,
        validate::{Checked, Validator},
    },
    note::{Note, NoteKind},
    parquet,
    publish::{Made, NewPart, Publication, other_schema},
    registry::{Claim, Ended, Keys, Live, Phase},
    session::{Token, no_session},
};
use crate::{
    AckLevel, Cache, Error, ErrorKind, Result,
    cache::Inner,
    file::{ContentWriter, SealedContent, WriteMode},
    policy::Adds,
    rows::{self, DatasetAnswer, PartRow, PartState},
};
use arrow_array::RecordBatch;
use arrow_ipc::CompressionType;
use bytes::Bytes;
use forebay_metastore::Check;
use forebay_namespace::Plan;
use forebay_runtime::crash_point;
use forebay_segment::Layout;
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
use tokio::sync::watch;

/// A content is written once, so every part has this generation.
pub(super) const GENERATION: u32 = 1;
/// Messages of one part: a footer names them all. A put with more goes on in another part.
const MESSAGES_MAX: usize = 1 << 18;
/// Pieces in which a part of a session may lie.
const EXTENTS_MAX: usize = 48;
/// Longest wait of a put at level `persisted` before its outcome counts as unknown.
pub(super) const PERSISTED_MAX: Duration = Duration::from_secs(60);

/// A put under way. Dropped without [`PartWriter::commit`] it leaves nothing: a session of its own is aborted, in a named session
/// the part is taken back.
#[derive(Debug)]
pub struct PartWriter {
    state: State,
}

#[derive(Debug)]
enum State {
    Repeated {
        answer: PutDone,
        stable: watch::Sender<StableBatches>,
    },
    Writing(Box<Put>),
}

/// The put.
struct Put {
    inner: Arc<Inner>,
    live: Arc<Live>,
    number: u32,
    task: Option<Task>,
    token: Option<String>,
    token_scope: Vec<u8>,
    schema: Arc<StoredSchema>,
    validator: Validator,
    encoder: Option<Encoder>,
    /// The part being written.
    part: Option<OpenPart>,
    /// Parts of it that are sealed.
    done: Vec<DonePart>,
    /// The messages of each dictionary, to begin the next part with.
    dictionaries: BTreeMap<i64, Vec<IpcMessage>>,
    batches: u64,
    acks: watch::Sender<StableBatches>,
    /// As long as the put lives somebody listens: without anyone the watching task ends.
    _listens: watch::Receiver<StableBatches>,
    /// Why it can only be taken back.
    broken: Option<Error>,
    /// Whether its end was decided; else the drop takes it back.
    ended: bool,
    /// Whether it counts as joining.
    joined: bool,
}

struct OpenPart {
    number: u32,
    content: ContentWriter,
    growing: Arc<Growing>,
    at: u64,
    rows: u64,
    batches: u64,
}

/// A part that is sealed and not named by a row yet.
pub(super) struct DonePart {
    pub(super) number: u32,
    pub(super) ended: Ended,
    pub(super) sealed: SealedContent,
    pub(super) growing: Arc<Growing>,
}

impl Cache {
    /// Begins a put with its schema message.
    ///
    /// # Errors
    /// Precondition when the dataset or the session has another schema (the text names the first difference), the session has
    /// ended, or the session takes puts of another kind; Invalid: a malformed schema, one that Parquet can not hold, keys that
    /// are not the session's; NotFound: no such session; Exists in mode create; Denied below a read-only mount.
    pub async fn put(&self, target: PutTarget, schema: IpcMessage) -> Result<PartWriter> {
        let inner = Arc::clone(&self.inner);
        self.inner
            .to_the_end("begin-put", async move { inner.begin_put(target, &schema).await })
            .await
    }
}

impl PartWriter {
    /// Whether the token has committed before: what is appended is ignored and `commit` repeats the first answer.
    pub fn repeated(&self) -> bool {
        matches!(self.state, State::Repeated { .. })
    }

    /// Takes one message: a dictionary or a record batch. Waits at the dirty limit.
    ///
    /// # Errors
    /// Invalid: malformed, or not of the schema; nothing of the put will be visible. Aborted: the session was.
    pub async fn append(&mut self, message: IpcMessage) -> Result<()> {
        match &mut self.state {
            State::Repeated { stable, .. } => {
                let batch =
                    super::ipc::message(&message.header)?.header_type() == arrow_ipc::MessageHeader::RecordBatch;
                stable.send_modify(|stable| stable.batches += u64::from(batch));
                Ok(())
            }
            State::Writing(put) => put.append(message).await,
        }
    }

    /// How many batches are durable at the level.
    pub fn stable(&self) -> watch::Receiver<StableBatches> {
        match &self.state {
            State::Repeated { stable, .. } => stable.subscribe(),
            State::Writing(put) => put.acks.subscribe(),
        }
    }

    /// The level this put is acknowledged at. In a named session `persisted` is only reached by the publish: its puts are `local`.
    pub fn level(&self) -> AckLevel {
        match &self.state {
            State::Repeated { answer, .. } => answer.level,
            State::Writing(put) => put.level(),
        }
    }

    /// The session it belongs to: named, or its own. `None` for a repeated one.
    pub fn session(&self) -> Option<SessionId> {
        match &self.state {
            State::Repeated { .. } => None,
            State::Writing(put) => Some(put.live.id.clone()),
        }
    }

    /// Seals the put; without a named session also publishes. Once begun it goes on to its end, also when the caller does not wait.
    ///
    /// # Errors
    /// Aborted when another attempt of the task won, or the session was aborted; Deadline: outcome unknown, ask with the token.
    pub async fn commit(self) -> Result<PutDone> {
        match self.state {
            State::Repeated { answer, .. } => Ok(answer),
            State::Writing(put) => {
                let inner = Arc::clone(&put.inner);
                inner.to_the_end("commit-put", async move { put.commit().await }).await
            }
        }
    }
}

impl Inner {
    async fn begin_put(self: &Arc<Self>, target: PutTarget, schema: &IpcMessage) -> Result<PartWriter> {
        let _entered = self.enter()?;
        let schema = Arc::new(StoredSchema::parse(&schema.header)?);
        let keys = self.session_keys(&target.path, &target.spec)?;
        let token_scope = match &target.session {
            Some(session) => [b"session:".as_slice(), session.0.as_bytes()].concat(),
            None => [b"dataset:".as_slice(), &target.path.as_bytes()].concat(),
        };
        let level = match &target.session {
            Some(_) => within_session(keys.ack),
            None => keys.ack,
        };
        if let Token::Known(answer) = self.dataset_token(&token_scope, target.token.as_deref()).await? {
            if let Some(session) = &target.session {
                self.check_begun_at(session, &target.path).await?;
            }
            let answer = PutDone {
                version: answer.version,
                level,
            };
            return Ok(PartWriter {
                state: State::Repeated {
                    answer,
                    stable: watch::Sender::default(),
                },
            });
        }
        let live = match &target.session {
            Some(session) => self.session_for(session, &target, keys).await?,
            None => {
                self.check_place(&target.path, keys.mode).await?;
                self.new_live(&target.path, keys, true)
            }
        };
        self.check_schema(&live, &schema).await?;
        if live.keys.mode != WriteMode::Overwrite {
            // What could not be published anyway is not taken in.
            self.check_share(&live.path, &Adds::file(live.keys.owner, 1)).await?;
        }
        if let (false, Some(token)) = (live.own, target.token.as_deref()) {
            self.take_unfinished(&live, token).await?;
        }
        let mut put = self.new_put(&live, &target, token_scope, &schema)?;
        if live.own {
            self.datasets.sessions.insert(&live);
        }
        put.open_part().await?;
        Ok(PartWriter {
            state: State::Writing(Box::new(put)),
        })
    }

    /// The named session, if the put's keys agree with it.
    async fn session_for(&self, session: &SessionId, target: &PutTarget, keys: Keys) -> Result<Arc<Live>> {
        let Some(live) = self.datasets.sessions.get(session) else {
            return Err(self.ended_at(session, &target.path).await);
        };
        if live.own || live.path != target.path {
            return Err(no_session(session));
        }
        let (of, spec) = (&live.keys, &target.spec);
        let differs = [
            ("mode", spec.mode != WriteMode::default() && keys.mode != of.mode),
            ("format", spec.format != Format::default() && keys.format != of.format),
            (
                "compression",
                spec.compression.is_some() && keys.compression != of.compression,
            ),
            ("ack", spec.ack.is_some() && keys.ack != of.ack),
            ("timeout", spec.timeout.is_some() && keys.timeout != of.timeout),
        ];
        match differs.into_iter().find(|(_, differs)| *differs) {
            Some((key, _)) => Err(Error::invalid(format!(
                "{key} is not the one that session {} was begun with; leave it out",
                session.0
            ))),
            None => Ok(live),
        }
    }

    /// Whether a put of this schema may go there.
    async fn check_schema(self: &Arc<Self>, live: &Arc<Live>, schema: &Arc<StoredSchema>) -> Result<()> {
        if live.keys.format == Format::Parquet {
            parquet::check_schema(&schema.schema)?;
        }
        let before = match live.keys.mode {
            WriteMode::Append => self.schema_at(&live.path).await,
            _ => Ok(None),
        };
        let before = match before {
            // It is asked again at the publish.
            Err(error) if error.is_away() => None,
            before => before?,
        };
        if let Some(before) = before
            && let Err(difference) = before.agrees(&schema.schema)
        {
            return Err(other_schema(&live.path, &difference));
        }
        live.agree(schema)
    }

    /// What a put with this token left at a restart gives way to the same put again.
    async fn take_unfinished(&self, live: &Live, token: &str) -> Result<()> {
        let taken = live.change(|state| state.take_unfinished(token));
        if taken.is_empty() {
            return Ok(());
        }
        let mut plan = Plan::default();
        for (number, _) in &taken {
            plan.delete(rows::part_key(&live.id.0, *number));
        }
        self.commit(plan).await?;
        taken.iter().for_each(|(_, ended)| self.free_ended(ended));
        Ok(())
    }

    fn new_put(
        self: &Arc<Self>,
        live: &Arc<Live>,
        target: &PutTarget,
        token_scope: Vec<u8>,
        schema: &Arc<StoredSchema>,
    ) -> Result<Put> {
        // Of a Parquet session the staging is as sent: it is encoded anew anyway.
        let wanted = live.keys.compression.filter(|_| live.keys.format == Format::Arrow);
        let encoder = wanted
            .and_then(codec)
            .map(|codec| Encoder::new(codec, schema))
            .transpose()?;
        let number = live.begin_put(target.task.as_ref())?;
        let (acks, listens) = watch::channel(StableBatches::default());
        Ok(Put {
            inner: Arc::clone(self),
            live: Arc::clone(live),
            number,
            task: target.task.clone(),
            token: target.token.clone(),
            token_scope,
            schema: Arc::clone(schema),
            validator: Validator::new(StoredSchema::clone(schema)),
            encoder,
            part: None,
            done: Vec::new(),
            dictionaries: BTreeMap::new(),
            batches: 0,
            acks,
            _listens: listens,
            broken: None,
            ended: false,
            joined: false,
        })
    }
}

/// The level of a put within a session.
fn within_session(level: AckLevel) -> AckLevel {
    match level {
        AckLevel::Persisted => AckLevel::Local,
        other => other,
    }
}

impl Put {
    fn level(&self) -> AckLevel {
        if self.live.own {
            self.live.keys.ack
        } else {
            within_session(self.live.keys.ack)
        }
    }

    async fn append(&mut self, message: IpcMessage) -> Result<()> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let taken = match self.check_open() {
            Ok(()) => self.take(message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &taken {
            self.broken = Some(error.clone());
        }
        taken
    }

    /// Aborted when the session is over.
    fn check_open(&self) -> Result<()> {
        match &self.live.look().phase {
            Phase::Open | Phase::Ending => Ok(()),
            Phase::Published { .. } => Err(Error::aborted(format!(
                "session {} was published meanwhile",
                self.live.id.0
            ))),
            Phase::Aborted(why) => Err(Error::aborted(format!("session {} was aborted: {why}", self.live.id.0))),
        }
    }

    async fn take(&mut self, message: IpcMessage) -> Result<()> {
        match self.validator.check(&message)? {
            Checked::Dictionary { id, delta } => self.take_dictionary(message, id, delta).await,
            Checked::Batch {
                rows,
                compression,
                decoded,
            } => {
                let message = self.recompressed(message, compression, decoded)?;
                if self
                    .part
                    .as_ref()
                    .is_some_and(|part| part.growing.len() >= MESSAGES_MAX)
                {
                    self.next_part().await?;
                }
                self.store(&message, false, rows).await?;
                self.batches += 1;
                if self.level() == AckLevel::Memory {
                    let batches = self.batches;
                    self.acks.send_modify(|stable| stable.batches = batches);
                }
                Ok(())
            }
        }
    }

    async fn take_dictionary(&mut self, message: IpcMessage, id: i64, delta: bool) -> Result<()> {
        let before = self.dictionaries.get(&id);
        if !delta && before.is_some_and(|messages| matches!(&messages[..], [one] if same(one, &message))) {
            return Ok(()); // It is there already.
        }
        let replaces = !delta && before.is_some();
        let messages = self.dictionaries.entry(id).or_default();
        if replaces {
            messages.clear();
        }
        messages.push(message.clone());
        match replaces {
            // The next part begins with all dictionaries, this one among them.
            true => self.next_part().await,
            false => self.store(&message, true, 0).await,
        }
    }

    async fn store(&mut self, message: &IpcMessage, dictionary: bool, rows: u64) -> Result<()> {
        let part = self.part.as_mut().expect("a put that is not broken has an open part");
        let (chunks, entry) = frame::framed(part.at, message, dictionary);
        part.growing.push(entry);
        let kind = if dictionary {
            NoteKind::Dictionary
        } else {
            NoteKind::Batch
        };
        part.content
            .append(
                &chunks,
                Note {
                    kind,
                    meta: entry.meta,
                    rows,
                }
                .encode(),
            )
            .await?;
        part.at = entry.end();
        if !dictionary {
            part.rows = part.rows.saturating_add(rows);
            part.batches += 1;
        }
        Ok(())
    }

    /// The message in the compression that the session asks for.
    fn recompressed(
        &mut self,
        message: IpcMessage,
        is: Option<CompressionType>,
        decoded: Option<RecordBatch>,
    ) -> Result<IpcMessage> {
        let Some(encoder) = self.encoder.as_mut().filter(|encoder| is != Some(encoder.codec)) else {
            return Ok(message);
        };
        let batch = match decoded {
            Some(batch) => batch,
            None => self.validator.decode(&message)?,
        };
        encoder.encode(&batch, message.app_metadata)
    }

    /// Opens the first or next part: its row in a named session, then the opening and the schema as one append.
    async fn open_part(&mut self) -> Result<()> {
        self.live.look().check_parts()?;
        let ino = self.inner.fresh_ino().await?;
        let mut content = self.inner.content_writer(ino, GENERATION, None);
        let growing = Arc::new(Growing::new(content.follow()));
        let number = self
            .live
            .change(|state| state.begin_part(self.number, self.token.clone(), Arc::clone(&growing)))?;
        if !self.live.own {
            let row = self.row(ino.0, Format::Arrow, PartState::Open, 0);
            self.inner.write_part(&self.live, number, &row).await?;
        }
        let first = IpcMessage {
            header: self.schema.message.clone(),
            ..IpcMessage::default()
        };
        let (mut chunks, entry) = frame::framed(DATA_START, &first, false);
        chunks.insert(0, frame::opening());
        content
            .append(
                &chunks,
                Note {
                    kind: NoteKind::Opening,
                    meta: entry.meta,
                    rows: 0,
                }
                .encode(),
            )
            .await?;
        self.follow_stable(&growing);
        self.part = Some(OpenPart {
            number,
            content,
            growing,
            at: entry.end(),
            rows: 0,
            batches: 0,
        });
        Ok(())
    }

    fn row(&self, ino: u64, format: Format, state: PartState, ended: u32) -> PartRow {
        let (task, token) = (self.task.clone(), self.token.clone());
        PartRow {
            put: self.number,
            task,
            token,
            ino,
            generation: GENERATION,
            format,
            ended,
            state,
        }
    }

    /// Tells whoever waits for acknowledgements how many batches are stable, as the part's stable length grows.
    fn follow_stable(&self, growing: &Arc<Growing>) {
        if self.level() == AckLevel::Memory {
            return;
        }
        let (before, growing, acks) = (self.batches, Arc::clone(growing), self.acks.clone());
        let shutdown = self.inner.tasks.shutdown().clone();
        self.inner.tasks.spawn("acknowledge", async move {
            let mut stable = growing.stable();
            loop {
                let failed = stable.borrow_and_update().poisoned.clone();
                let batches = before + growing.stable_batches();
                let over = failed.is_some();
                acks.send_if_modified(|acks| acks.advance(batches, failed));
                if over {
                    return;
                }
                tokio::select! {
                    biased;
                    changed = stable.changed() => if changed.is_err() { return },
                    // The put and everyone who waits for it are gone.
                    () = acks.closed() => return,
                    () = shutdown.cancelled() => return,
                }
            }
        });
    }

    /// Closes the part and opens the next, which begins with the dictionaries as they are.
    async fn next_part(&mut self) -> Result<()> {
        self.close_part().await?;
        self.open_part().await?;
        for message in self.dictionaries.values().flatten().cloned().collect::<Vec<_>>() {
            self.store(&message, true, 0).await?;
        }
        Ok(())
    }

    /// Gives the open part its footer and seals it.
    async fn close_part(&mut self) -> Result<()> {
        let Some(part) = self.part.take() else { return Ok(()) };
        let OpenPart {
            number,
            mut content,
            growing,
            rows,
            batches,
            ..
        } = part;
        let closing = frame::closing(&self.schema.schema, &growing.entries());
        content
            .append(
                &[closing],
                Note {
                    kind: NoteKind::Closing,
                    meta: 0,
                    rows: 0,
                }
                .encode(),
            )
            .await?;
        let sealed = self.compacted(content.seal().await?).await?;
        let ended = Ended {
            ino: sealed.stream().0,
            generation: GENERATION,
            format: Format::Arrow,
            layout: sealed.layout.clone(),
            crc: sealed.crc,
            rows,
            batches,
            bytes: sealed.len,
            whole: true,
            ended: 0,
        };
        self.live.change(|state| state.end_part(number, ended.clone()));
        self.done.push(DonePart {
            number,
            ended,
            sealed,
            growing,
        });
        Ok(())
    }

    /// One publish writes the rows of all parts in one transaction, so each of them must say in few words where its bytes lie: a
    /// small part of very many appends is written once more, in one piece.
    async fn compacted(&self, sealed: SealedContent) -> Result<SealedContent> {
        if self.live.own || !matches!(&sealed.layout, Layout::Packed(extents) if extents.len() > EXTENTS_MAX) {
            return Ok(sealed);
        }
        let reader = self.inner.segments.reader(sealed.stream(), &sealed.layout)?;
        let alone = self.inner.settings.segment.dedicated_from_bytes.0 + 1;
        let mut content = self
            .inner
            .content_writer(self.inner.fresh_ino().await?, GENERATION, Some(alone));
        content.append(&reader.read(0..sealed.len).await?, Bytes::new()).await?;
        content.seal().await
    }

    async fn commit(mut self: Box<Self>) -> Result<PutDone> {
        let inner = Arc::clone(&self.inner);
        let _entered = inner.enter()?;
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        self.join().await?;
        self.close_part().await?;
        let batches = self.batches;
        self.acks.send_if_modified(|acks| acks.advance(batches, None));
        if self.live.keys.format == Format::Parquet {
            self.transcode().await?;
        }
        inner.reach(crash_point!("part-sealed-not-published"))?;
        match self.live.own {
            true => self.publish_own().await,
            false => self.join_session().await,
        }
    }

    /// Waits until this attempt is the one that counts. Aborted when another is.
    async fn join(&mut self) -> Result<()> {
        let mut changed = self.live.changed();
        loop {
            changed.borrow_and_update();
            let claim = self.live.look().begin_join(self.number);
            match claim {
                Claim::Won => {
                    self.joined = true;
                    return Ok(());
                }
                Claim::Lost(why) => return Err(Error::aborted(format!("{}: {why}", self.live.path))),
                Claim::Wait if changed.changed().await.is_err() => return Err(Error::internal("a session vanished")),
                Claim::Wait => {}
            }
        }
    }

    /// Encodes the sealed parts as Parquet. The staged bytes go when the new ones are named.
    async fn transcode(&mut self) -> Result<()> {
        let encoding = self.inner.encoding(&self.live.path, self.live.keys.compression);
        for part in &mut self.done {
            let sealed = self.inner.transcode(&self.schema, part, encoding).await?;
            part.ended = Ended {
                ino: sealed.stream().0,
                format: Format::Parquet,
                layout: sealed.layout.clone(),
                crc: sealed.crc,
                bytes: sealed.len,
                ..part.ended.clone()
            };
            part.sealed = sealed;
        }
        Ok(())
    }

    async fn publish_own(&mut self) -> Result<PutDone> {
        let level = self.level();
        let parts: Vec<NewPart> = self
            .done
            .iter()
            .map(|part| NewPart::of(part, self.number, self.task.as_ref()))
            .collect();
        let row = |part: &DonePart| self.row(part.ended.ino, part.ended.format, part.ended.to_state(), 0);
        let rows: Vec<_> = self.done.iter().map(|part| (part.number, row(part))).collect();
        let publication = Publication {
            live: &self.live,
            parts: &parts,
            schema: Some(&self.schema),
            success_file: false,
            excluded: &[],
            rows: &rows,
        };
        let token = self.token.as_deref().map(|token| (self.token_scope.as_slice(), token));
        let made = self.inner.publish_parts(&[publication], token).await;
        match made {
            Ok(Made::Before(version)) => Ok(PutDone {
                version: Some(version),
                level,
            }),
            Ok(Made::Now(versions)) => {
                let version = versions[0];
                self.ended = true;
                self.keep();
                self.live.change(|state| state.end_put(self.number));
                self.inner.end_published(&self.live, version, Vec::new());
                self.leave();
                self.inner.reach(crash_point!("published-not-acked"))?;
                if level == AckLevel::Persisted {
                    let cache = Cache {
                        inner: Arc::clone(&self.inner),
                    };
                    let wait = cache.persist_now(&self.live.path, PERSISTED_MAX).await;
                    wait.map_err(|error| self.with_token(error))?;
                }
                Ok(PutDone {
                    version: Some(version),
                    level,
                })
            }
            Err(error) if error.kind() == ErrorKind::Deadline => {
                self.done.drain(..).for_each(|part| part.sealed.in_doubt());
                Err(self.with_token(error))
            }
            Err(error) => Err(error),
        }
    }

    fn with_token(&self, error: Error) -> Error {
        match (&self.token, error.kind()) {
            (Some(token), ErrorKind::Deadline) => Error::deadline(format!(
                "{}: {error}; ask by putting again with the token {token:?}",
                self.live.path
            )),
            _ => error.at(&self.live.path),
        }
    }

    /// Makes the parts the session's, for good.
    async fn join_session(&mut self) -> Result<PutDone> {
        let level = self.level();
        let order = if self.task.is_some() {
            self.live.look().next_ended()
        } else {
            0
        };
        self.done.iter_mut().for_each(|part| part.ended.ended = order);
        let mut attempts = self.inner.attempts(format!("put into {}", self.live.path));
        loop {
            let token = self
                .inner
                .dataset_token(&self.token_scope, self.token.as_deref())
                .await?;
            if let Token::Known(_) = token {
                return Ok(PutDone { version: None, level });
            }
            match self.try_join(token).await {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::Deadline => {
                    // The publish reads the rows, which know.
                    self.ended = true;
                    self.done.drain(..).for_each(|part| part.sealed.in_doubt());
                    self.live.change(|state| state.end_put(self.number));
                    self.leave();
                    return Err(self.with_token(error));
                }
                Err(error) => attempts.after(error).await?,
            }
        }
        self.ended = true;
        let ended: Vec<_> = self.done.iter().map(|part| (part.number, part.ended.clone())).collect();
        self.keep();
        self.live.change(|state| {
            ended
                .iter()
                .for_each(|(number, ended)| state.end_part(*number, ended.clone()));
            state.end_put(self.number);
        });
        self.leave();
        Ok(PutDone { version: None, level })
    }

    async fn try_join(&self, token: Token) -> Result<()> {
        let mut plan = Plan::default();
        plan.check(self.inner.session_is_open(&self.live.id).await?);
        for part in &self.done {
            let row = self.row(
                part.ended.ino,
                part.ended.format,
                part.ended.to_state(),
                part.ended.ended,
            );
            plan.put(rows::part_key(&self.live.id.0, part.number), rows::encode(&row));
        }
        let answer = DatasetAnswer {
            session: self.live.id.0.clone(),
            version: None,
        };
        self.inner.plan_dataset_token(&mut plan, token, &answer);
        self.inner.commit(plan).await.map(drop)
    }

    /// After the commit: the bytes stay.
    fn keep(&mut self) {
        self.done.drain(..).for_each(|part| part.sealed.keep());
    }

    /// A writer less.
    fn leave(&self) {
        let now = self.inner.components.clock.monotonic();
        self.live.change(|state| state.leave(now, self.joined));
        self.inner.idles(&self.live);
    }
}

impl Drop for Put {
    /// Takes back what was not committed.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let numbers: Vec<u32> = self
            .part
            .iter()
            .map(|part| part.number)
            .chain(self.done.iter().map(|part| part.number))
            .collect();
        if !self.live.own && self.task.is_none() && self.inner.tasks.shutdown().is_cancelled() && self.broken.is_none()
        {
            // The server stops: what is stable stays part of the session, as after a crash.
            self.part.take().into_iter().for_each(|part| part.content.leave());
            return;
        }
        let why = self
            .broken
            .as_ref()
            .map_or_else(|| "its writer went away".to_owned(), Error::to_string);
        self.acks.send_if_modified(|acks| acks.advance(0, Some(why.clone())));
        self.live.change(|state| state.drop_put(self.number));
        self.leave();
        if self.live.own {
            self.inner.end_aborted(&self.live, &why);
            return;
        }
        if numbers.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (inner, live) = (Arc::clone(&self.inner), Arc::clone(&self.live));
        self.inner.tasks.spawn("take-back", async move {
            let mut plan = Plan::default();
            for number in numbers {
                plan.delete(rows::part_key(&live.id.0, number));
            }
            if let Err(error) = inner.commit(plan).await {
                tracing::warn!(session = live.id.0, %error, "the row of a part that was taken back stays until the session ends");
            }
        });
    }
}

impl fmt::Debug for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Put")
            .field("path", &self.live.path)
            .field("session", &self.live.id.0)
            .field("number", &self.number)
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// Holds for as long as the session is open. Aborted when it is not.
    pub(super) async fn session_is_open(&self, session: &SessionId) -> Result<Check> {
        let key = rows::session_key(&session.0);
        match self
            .components
            .meta
            .get(std::slice::from_ref(&key))
            .await?
            .pop()
            .flatten()
        {
            Some(entry) => Ok(Check::SharedAt(key, entry.version)),
            None => Err(Error::aborted(format!("session {} has ended", session.0))),
        }
    }

    /// Writes the row of a part that begins. Until one is known to be written the session's schema goes with it, so that there is no
    /// part without one, whichever put came first and however it ended.
    async fn write_part(&self, live: &Live, number: u32, row: &PartRow) -> Result<()> {
        let mut attempts = self.attempts(format!("begin a part of {}", live.path));
        loop {
            let mut plan = Plan::default();
            plan.check(self.session_is_open(&live.id).await?);
            plan.put(rows::part_key(&live.id.0, number), rows::encode(row));
            if let Some(schema) = live.schema_to_store() {
                self.plan_schema(&mut plan, &live.id, &schema).await?;
            }
            match self.commit(plan).await {
                Ok(_) => {
                    live.look().schema_stored = true;
                    return Ok(());
                }
                Err(error) => attempts.after(error).await?,
            }
        }
    }
}

impl Ended {
    /// As a part's row has it.
    pub(super) fn to_state(&self) -> PartState {
        let Self {
            layout,
            crc,
            rows,
            batches,
            bytes,
            whole,
            ..
        } = self.clone();
        PartState::Sealed {
            layout,
            crc,
            rows,
            batches,
            bytes,
            whole,
        }
    }

    /// From a part's row; `None` while it is open.
    pub(super) fn of_row(row: &PartRow) -> Option<Self> {
        let PartState::Sealed {
            layout,
            crc,
            rows,
            batches,
            bytes,
            whole,
        } = row.state.clone()
        else {
            return None;
        };
        let PartRow {
            ino,
            generation,
            format,
            ended,
            ..
        } = *row;
        Some(Self {
            ino,
            generation,
            format,
            layout,
            crc,
            rows,
            batches,
            bytes,
            whole,
            ended,
        })
    }
}

impl StableBatches {
    /// Counts only grow, and the first failure stays. Whether it changed.
    fn advance(&mut self, batches: u64, failed: Option<String>) -> bool {
        let before = self.clone();
        self.batches = self.batches.max(batches);
        self.failed = self.failed.take().or(failed);
        *self != before
    }
}

fn same(a: &IpcMessage, b: &IpcMessage) -> bool {
    a.header == b.header && super::ipc::joined(&a.body) == super::ipc::joined(&b.body)
}
