//! Following: the head version's batches, then those of a live session as they become stable, to its publish or abort.
//!
//! A follower reads from the segment at its own pace; the writer does not know of it, nothing is kept for it. Within a live
//! session it goes over the parts in the order of delivery (see `registry`): the growing part by its stable messages, a part that
//! has ended from its sealed bytes.

use super::{
    At, DatasetPlan, FollowSpec, FollowStream, PartItem, PartRef, Resume, SessionId,
    growing::Growing,
    plan::ended_well,
    publish::other_schema,
    registry::{Ended, Live, LivePartState, Phase},
};
use crate::{Cache, Error, ErrorKind, Result, cache::Inner, file::WriteMode};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use forebay_namespace::Path;
use futures::{
    TryStreamExt,
    stream::{self, BoxStream, StreamExt},
};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;

impl Cache {
    /// Follows a dataset: the head version's batches (none if the live session overwrites), then those of the live session as they
    /// become stable, to its publish or abort. Waits for the schema of a session that has none yet. Without a live session it ends
    /// after the head version.
    ///
    /// # Errors
    /// NotFound: nothing there; Aborted: the session named (also by `from`) was aborted; Precondition: what `from` counts in was
    /// overwritten meanwhile. The stream ends with Aborted when the session is aborted, or when batches it has delivered are taken
    /// back.
    pub async fn follow(&self, path: &Path, spec: FollowSpec) -> Result<FollowStream> {
        self.inner.follow(path, spec).await
    }
}

/// One stretch of what a follower reads.
enum Leg {
    /// Parts that are there, from a batch on (counted over all of them).
    Parts(VecDeque<PartRef>, u64),
    /// A live session, from a batch on.
    Live(Arc<Live>, u64),
}

/// What is to be read, under which schema.
struct Route {
    schema: SchemaRef,
    schema_message: Bytes,
    legs: VecDeque<Leg>,
}

impl Inner {
    async fn follow(self: &Arc<Self>, path: &Path, spec: FollowSpec) -> Result<FollowStream> {
        let route = match (&spec.session, &spec.from) {
            (Some(session), Some(Resume::Session(counted, read))) if session == counted => {
                self.session_route(path, session, *read).await?
            }
            (Some(_), Some(_)) => {
                return Err(Error::invalid(
                    "the resume token counts in something else than the session that is named",
                ));
            }
            (Some(session), None) => self.session_route(path, session, 0).await?,
            (None, Some(Resume::Session(session, read))) => self.resume_session(path, session, *read).await?,
            (None, Some(Resume::Version(version, read))) => self.resume_version(path, *version, *read).await?,
            (None, None) => self.whole_route(path, None).await?,
        };
        let Route {
            schema,
            schema_message,
            legs,
        } = route;
        let reader = Reader {
            inner: Arc::clone(self),
            schema: Arc::clone(&schema),
            legs,
            leg: None,
        };
        let items = stream::try_unfold(reader, |mut reader| async move {
            Ok(reader.next().await?.map(|item| (item, reader)))
        });
        Ok(FollowStream {
            schema,
            schema_message,
            items: items.boxed(),
        })
    }

    /// Only what one session has, to its end.
    async fn session_route(self: &Arc<Self>, path: &Path, session: &SessionId, read: u64) -> Result<Route> {
        if let Some(live) = self.datasets.sessions.get(session) {
            if live.path != *path {
                return Err(super::session::no_session(session));
            }
            return self.live_route(live, read, Vec::new()).await;
        }
        let plan = self.dataset(path, &At::Session(session.clone())).await?;
        Ok(Route::of(plan, read))
    }

    async fn live_route(self: &Arc<Self>, live: Arc<Live>, read: u64, before: Vec<Leg>) -> Result<Route> {
        let schema = self.live_schema(&live).await?;
        let legs = before.into_iter().chain([Leg::Live(live, read)]).collect();
        Ok(Route {
            schema: Arc::clone(&schema.schema),
            schema_message: schema.message.clone(),
            legs,
        })
    }

    /// Everything: what is published (from `read` batches on, when a token says so), then the live session.
    async fn whole_route(self: &Arc<Self>, path: &Path, read: Option<u64>) -> Result<Route> {
        loop {
            let live = self.datasets.sessions.oldest(path);
            let overwrites = live.as_ref().is_some_and(|live| live.keys.mode == WriteMode::Overwrite);
            let head = match self.dataset(path, &At::Head).await {
                Ok(plan) => Some(plan),
                Err(error) if live.is_some() && (error.kind() == ErrorKind::NotFound || error.is_away()) => None,
                Err(error) => return Err(error),
            };
            let Some(live) = live else {
                let plan = head.ok_or_else(|| Error::not_found(format!("{path}: not found")))?;
                return Ok(Route::of(plan, read.unwrap_or(0)));
            };
            // Published between the two looks: then its batches are the head's, or would be missed.
            if !matches!(live.phase(), Phase::Open | Phase::Ending) {
                continue;
            }
            // The transaction is done and the session does not know yet: its batches are the head's.
            let head = match head {
                Some(plan) if plan.holds(&live.id) && !overwrites => return Ok(Route::of(plan, read.unwrap_or(0))),
                other => other,
            };
            let head = head.filter(|_| !overwrites || read.is_some());
            let before = head
                .map(|plan| Leg::Parts(plan.parts.into(), read.unwrap_or(0)))
                .into_iter()
                .collect();
            match self.live_route(Arc::clone(&live), 0, before).await {
                // It ended before it had a schema.
                Err(_) if !matches!(live.phase(), Phase::Open | Phase::Ending) => {}
                other => return other,
            }
        }
    }

    /// After `read` batches of a session, which may be published by now.
    async fn resume_session(self: &Arc<Self>, path: &Path, session: &SessionId, read: u64) -> Result<Route> {
        if let Some(live) = self.datasets.sessions.get(session).filter(|live| live.path == *path) {
            return self.live_route(live, read, Vec::new()).await;
        }
        let row = self
            .session_row(session)
            .await?
            .ok_or_else(|| super::session::no_session(session))?
            .0;
        self.check_of(path, session, &row).await?;
        let Some((dir, version)) = ended_well(&row, session)? else {
            return Err(Error::unavailable(format!(
                "session {} is just being opened; try again",
                session.0
            )));
        };
        let head = self.head_with(path, session, dir).await?;
        self.same_chain(path, version, head.version).await?;
        let mut own: VecDeque<PartRef> = self.delivered_parts(path, session).await?.into();
        // Versions after it go on behind it.
        let mut later = self.dataset(path, &At::Head).await?;
        let of_session = |part: &PartRef| part.origin.as_ref().is_some_and(|(of, _)| of == session);
        let behind = later
            .parts
            .iter()
            .rposition(of_session)
            .map_or(later.parts.len(), |last| last + 1);
        own.extend(later.parts.drain(behind.min(later.parts.len())..));
        let leg = Leg::Parts(own, read);
        match self.datasets.sessions.oldest(path) {
            Some(live) => self.live_route(live, 0, vec![leg]).await,
            None => Ok(Route {
                schema: later.schema,
                schema_message: later.schema_message,
                legs: [leg].into(),
            }),
        }
    }

    /// After `read` batches of a version, which later ones may have appended to.
    async fn resume_version(self: &Arc<Self>, path: &Path, version: u64, read: u64) -> Result<Route> {
        let (_, head) = self
            .published_head(path)
            .await?
            .ok_or_else(|| Error::not_found(format!("{path}: not found")))?;
        if version > head.version || version == 0 {
            return Err(Error::not_found(format!(
                "{path}: there is no version {version}; the head is {}",
                head.version
            )));
        }
        self.same_chain(path, version, head.version).await?;
        self.whole_route(path, Some(read)).await
    }

    /// Precondition unless the head only appended to the version.
    async fn same_chain(&self, path: &Path, version: u64, head: u64) -> Result<()> {
        let Some((dir, _)) = self.published_head(path).await? else {
            return Err(Error::not_found(format!("{path}: not found")));
        };
        let base = self.version_row(dir, head).await?.base;
        match base <= version {
            true => Ok(()),
            false => Err(Error::precondition(format!(
                "{path}: version {version} was overwritten by version {base}; read the dataset from its beginning"
            ))),
        }
    }
}

impl Route {
    fn of(plan: DatasetPlan, read: u64) -> Self {
        let DatasetPlan {
            schema,
            schema_message,
            parts,
            ..
        } = plan;
        Self {
            schema,
            schema_message,
            legs: [Leg::Parts(parts.into(), read)].into(),
        }
    }
}

/// Reads leg after leg.
struct Reader {
    inner: Arc<Inner>,
    schema: SchemaRef,
    legs: VecDeque<Leg>,
    leg: Option<Current>,
}

/// The leg that is being read.
enum Current {
    Parts {
        parts: VecDeque<PartRef>,
        skip: u64,
        items: Option<BoxStream<'static, Result<PartItem>>>,
    },
    Live(Box<Tail>),
}

impl Reader {
    async fn next(&mut self) -> Result<Option<PartItem>> {
        loop {
            let item = match &mut self.leg {
                None => None,
                Some(Current::Live(tail)) => tail.next().await?,
                Some(Current::Parts { parts, skip, items }) => next_of_parts(&self.inner, parts, skip, items).await?,
            };
            if item.is_some() {
                return Ok(item);
            }
            self.leg = match self.legs.pop_front() {
                None => return Ok(None),
                Some(Leg::Parts(parts, skip)) => Some(Current::Parts {
                    parts,
                    skip,
                    items: None,
                }),
                Some(Leg::Live(live, skip)) => {
                    let tail = Tail::new(Arc::clone(&self.inner), live, Arc::clone(&self.schema), skip);
                    Some(Current::Live(Box::new(tail)))
                }
            };
        }
    }
}

async fn next_of_parts(
    inner: &Arc<Inner>,
    parts: &mut VecDeque<PartRef>,
    skip: &mut u64,
    items: &mut Option<BoxStream<'static, Result<PartItem>>>,
) -> Result<Option<PartItem>> {
    loop {
        if let Some(open) = items {
            match open.try_next().await? {
                Some(item) => return Ok(Some(item)),
                None => *items = None,
            }
        }
        let Some(part) = parts.pop_front() else { return Ok(None) };
        if *skip >= part.batches {
            *skip -= part.batches;
            continue;
        }
        *items = Some(inner.part_items(&part, std::mem::take(skip)).await?);
    }
}

/// Reads a live session to its end.
struct Tail {
    inner: Arc<Inner>,
    live: Arc<Live>,
    /// Under which it is read.
    schema: SchemaRef,
    changed: watch::Receiver<u64>,
    /// Batches still to be passed over.
    skip: u64,
    /// Position in the session's order.
    position: usize,
    /// The part that is being read.
    part: Option<Open>,
    /// Parts of which batches were read: none of them may be taken back.
    read: Vec<u32>,
    ready: VecDeque<PartItem>,
}

/// A part that is being read.
struct Open {
    number: u32,
    from: From,
    /// Batches of it that were delivered or passed over.
    batches: u64,
}

enum From {
    Growing { growing: Arc<Growing>, next: usize },
    Sealed(BoxStream<'static, Result<PartItem>>),
}

/// What to do next, as the session stands.
enum Step {
    /// Open the part at the position.
    Open(u32, Option<Arc<Growing>>, Option<Ended>),
    /// Read stable messages of the open part up to this one.
    Read(usize),
    /// The open part is at its end.
    PartDone,
    /// Nothing yet.
    Wait,
    /// All is read.
    End,
}

impl Tail {
    fn new(inner: Arc<Inner>, live: Arc<Live>, schema: SchemaRef, skip: u64) -> Self {
        let changed = live.changed();
        Self {
            inner,
            live,
            schema,
            changed,
            skip,
            position: 0,
            part: None,
            read: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    async fn next(&mut self) -> Result<Option<PartItem>> {
        loop {
            while let Some(item) = self.ready.pop_front() {
                if let Some(item) = self.count(item) {
                    return Ok(Some(item));
                }
            }
            if let Some(item) = self.next_sealed().await? {
                self.ready.push_back(item);
                continue;
            }
            self.changed.borrow_and_update();
            let mut stable = match &self.part {
                Some(Open {
                    from: From::Growing { growing, .. },
                    ..
                }) => Some(growing.stable()),
                _ => None,
            };
            stable.as_mut().map(|stable| stable.borrow_and_update().bytes);
            match self.step()? {
                Step::Open(number, growing, ended) => self.open(number, growing, ended).await?,
                Step::Read(until) => self.read(until).await?,
                Step::PartDone => self.part_done(),
                Step::End => return Ok(None),
                Step::Wait => self.wait(stable).await?,
            }
        }
    }

    /// Counts a batch, and passes over those read before.
    fn count(&mut self, item: PartItem) -> Option<PartItem> {
        if matches!(item, PartItem::Dictionary(_)) {
            return Some(item);
        }
        if let Some(part) = &mut self.part {
            part.batches += 1;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(item)
    }

    /// The next item when the part is read from its sealed bytes; at its end the part is done.
    async fn next_sealed(&mut self) -> Result<Option<PartItem>> {
        let Some(Open {
            from: From::Sealed(items),
            ..
        }) = &mut self.part
        else {
            return Ok(None);
        };
        let item = items.try_next().await?;
        if item.is_none() {
            self.part_done();
        }
        Ok(item)
    }

    fn part_done(&mut self) {
        self.read
            .extend(self.part.take().filter(|part| part.batches > 0).map(|part| part.number));
        self.position += 1;
    }

    /// What to do as the session stands now. Aborted: it was, or what was delivered is taken back.
    fn step(&mut self) -> Result<Step> {
        let state = self.live.look();
        let id = &self.live.id.0;
        if let Phase::Aborted(why) = &state.phase {
            return Err(Error::aborted(format!("session {id} was aborted: {why}")));
        }
        let counts = |number: &u32| {
            let excluded = matches!(&state.phase, Phase::Published { excluded, .. } if excluded.contains(number));
            let part = state.parts.get(number).filter(|_| !excluded);
            part.filter(|part| !matches!(part.state, LivePartState::Dropped))
        };
        let open = self
            .part
            .as_ref()
            .filter(|open| open.batches > 0)
            .map(|open| &open.number);
        if let Some(gone) = self.read.iter().chain(open).find(|number| counts(number).is_none()) {
            return Err(Error::aborted(format!(
                "part {gone} of session {id}, of which batches were delivered, was taken back"
            )));
        }
        let Some(number) = state.order.get(self.position).copied() else {
            return Ok(match state.phase {
                Phase::Published { .. } => Step::End,
                _ => Step::Wait,
            });
        };
        let Some(part) = counts(&number) else {
            return Ok(Step::PartDone);
        };
        let ended = match &part.state {
            LivePartState::Ended(ended) => Some(ended.clone()),
            _ => None,
        };
        let Some(open) = &self.part else {
            // What it was to be appended to was overwritten before its first batch came.
            if let Some(Err(difference)) = state.schema.as_ref().map(|own| own.agrees(&self.schema)) {
                return Err(other_schema(&self.live.path, &difference));
            }
            return Ok(Step::Open(number, part.growing.clone(), ended));
        };
        let From::Growing { growing, next } = &open.from else {
            return Ok(Step::PartDone);
        };
        debug_assert_eq!(open.number, number);
        let (stable, poisoned) = growing.stable_messages();
        match (stable > *next, ended) {
            (true, _) => Ok(Step::Read(stable)),
            (false, Some(_)) if *next >= growing.len() => Ok(Step::PartDone),
            (false, None) if poisoned.is_some() => Err(Error::aborted(format!(
                "session {id}: {}",
                poisoned.unwrap_or_default()
            ))),
            (false, _) => Ok(Step::Wait),
        }
    }

    async fn open(&mut self, number: u32, growing: Option<Arc<Growing>>, ended: Option<Ended>) -> Result<()> {
        let (from, batches) = match (growing, ended) {
            (Some(growing), None) => (From::Growing { growing, next: 0 }, 0),
            (_, Some(ended)) if self.skip >= ended.batches => {
                // Read before, all of it.
                self.skip -= ended.batches;
                self.read.extend((ended.batches > 0).then_some(number));
                self.position += 1;
                return Ok(());
            }
            (_, Some(ended)) => {
                let skip = std::mem::take(&mut self.skip);
                (
                    From::Sealed(self.inner.ended_items(&self.live, number, &ended, skip).await?),
                    skip,
                )
            }
            (None, None) => {
                return Err(Error::internal(format!(
                    "part {number} of session {} can not be read",
                    self.live.id.0
                )));
            }
        };
        self.part = Some(Open { number, from, batches });
        Ok(())
    }

    async fn read(&mut self, until: usize) -> Result<()> {
        let Some(open) = &mut self.part else { return Ok(()) };
        let From::Growing { growing, next } = &mut open.from else {
            return Ok(());
        };
        match growing.read(*next, until).await {
            Ok((items, behind)) => {
                *next = behind;
                self.ready.extend(items);
                Ok(())
            }
            Err(error) => {
                let (number, batches) = (open.number, open.batches);
                let state = self.live.look().parts.get(&number).map(|part| part.state.clone());
                match state {
                    // Its bytes have moved on (a Parquet part that was encoded): go on from there, at the same batch.
                    Some(LivePartState::Ended(ended)) => {
                        let items = self.inner.ended_items(&self.live, number, &ended, batches).await?;
                        self.part = Some(Open {
                            number,
                            from: From::Sealed(items),
                            batches,
                        });
                        Ok(())
                    }
                    // Taken back: the next step says so.
                    Some(LivePartState::Dropped) | None => Ok(()),
                    Some(LivePartState::Open) if matches!(self.live.phase(), Phase::Aborted(_)) => Ok(()),
                    Some(LivePartState::Open) => Err(error),
                }
            }
        }
    }

    /// Waits until the session or the stable length changes.
    async fn wait(&mut self, stable: Option<forebay_segment::StableWatch>) -> Result<()> {
        let gone = || Error::internal("a session vanished");
        let Some(mut stable) = stable else {
            return self.changed.changed().await.map_err(|_| gone());
        };
        tokio::select! {
            biased;
            changed = self.changed.changed() => changed.map_err(|_| gone()),
            changed = stable.changed() => match changed {
                Ok(()) => Ok(()),
                // Sealed or dropped: the session says which.
                Err(_) => self.changed.changed().await.map_err(|_| gone()),
            },
        }
    }
}

impl Inner {
    /// The items of an ended part, also when its session was published since.
    async fn ended_items(
        self: &Arc<Self>,
        live: &Live,
        number: u32,
        ended: &Ended,
        skip: u64,
    ) -> Result<BoxStream<'static, Result<PartItem>>> {
        if matches!(live.phase(), Phase::Open | Phase::Ending) {
            match self.sealed_items(ended, skip).await {
                Ok(items) => return Ok(items),
                // Published and moved on meanwhile.
                Err(_) if self.is_published(&live.id).await? => {}
                Err(error) => return Err(error),
            }
        }
        let part = PartRef {
            index: 0,
            path: live.path.as_bytes(),
            content: None,
            live: None,
            format: ended.format,
            rows: ended.rows,
            batches: ended.batches,
            bytes: ended.bytes,
            partition: Vec::new(),
            origin: Some((live.id.clone(), number)),
        };
        self.part_items(&part, skip).await
    }
}
