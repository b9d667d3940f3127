//! Loading: jobs that bring what lies under paths into the cache, and show how far they are.
//!
//! 1. *Begun*: the job has a row, so a restart begins it again; what it holds by then it does not fetch again.
//! 2. *Running*: a walk finds files while a few of them at once are fetched. What it finds is the total, which is known when the walk
//!    has ended.
//! 3. *Ended*: everything is there, the cache has no room for more, it was cancelled, or a store failed. The row goes; how it ended
//!    is told for a while.
//!
//! What is held is taken for what was fetched, unless the job says to verify: then blocks, their copies in tiers and the local copies of
//! persisted files are read and compared with their checksums, what is damaged goes, and its bytes are fetched anew. A damaged copy of a
//! file goes after the store was seen to have its bytes. What is not persisted is read too; damage to that is a failure, and nothing goes.
//!
//! A job gives way: before each block it waits for as long as a reader waits for the under-store, up to a tenth of a second, so with readers
//! about it goes on slowly and never stops. What is loaded counts as used, so that it is not the first to make room.

use super::{
    CleanReader, ReadBack,
    walk::{Datasets, Walk},
};
use crate::{
    Cache, Error, ErrorKind, Result,
    cache::Inner,
    rows::{self, Content, LoadRow, StoreAt, table},
};
use forebay_metastore::{Key, Op, Tx, prefix_end};
use forebay_namespace::{Ino, Inode, Kind, Node, Path};
use forebay_runtime::{clock::Timestamp, units::ByteSize};
use forebay_segment::{SegmentError, StreamId};
use forebay_understore::Validator;
use futures::{TryStreamExt, stream};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Files fetched at once, unless the job says another number.
const FILES_PARALLEL: usize = 4;
/// Most of them.
pub const FILES_PARALLEL_MAX: usize = 64;
/// Most paths of one job.
const PATHS_MAX: usize = 10_000;
/// Most bytes of the paths of one job, so that its row fits.
const PATHS_BYTES_MAX: usize = 48 << 10;
/// Most jobs that run.
const JOBS_MAX: usize = 64;
/// Ended jobs that are told.
const ENDED_MAX: usize = 16;

/// What is to be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadSpec {
    /// Files, and directories with everything under them.
    pub paths: Vec<Path>,
    /// Files fetched at once; none: a few.
    pub parallel: Option<usize>,
    /// What is held already is read back, and fetched anew where it is damaged.
    pub verify: bool,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadJob {
    /// Its number.
    pub id: u64,
    /// Its first path.
    pub path: Path,
    /// How many paths it has.
    pub paths: usize,
    /// When it began.
    pub since: Timestamp,
    /// Files that it has done, and that it has found.
    pub files: (u64, u64),
    /// Their bytes.
    pub bytes: (u64, u64),
    /// Whether all are found.
    pub found_all: bool,
    /// Bytes that were held and read back to verify them: good, and damaged.
    pub read_back: (u64, u64),
    /// How it stands.
    pub state: LoadState,
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// It runs.
    Running,
    /// Everything is in the cache.
    Loaded,
    /// The cache had no room for more.
    Full,
    /// Somebody ended it.
    Cancelled,
    /// Not everything could be fetched.
    Failed(String),
}

/// What was loaded when a job was waited for, or nothing when it was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The job's number.
    pub job: u64,
    /// Files that the cache has now.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// It had no room for more.
    pub full: bool,
    /// Bytes that were held and read back to verify them: good, and damaged.
    pub read_back: (u64, u64),
}

impl Loaded {
    pub(super) fn told(&self) -> String {
        format!("{} files, {}", self.files, ByteSize(self.bytes).rounded())
    }
}

/// The jobs.
#[derive(Debug, Default)]
pub(super) struct Loads {
    jobs: Mutex<BTreeMap<u64, Arc<Job>>>,
}

#[derive(Debug)]
struct Job {
    id: u64,
    spec: LoadSpec,
    since: Timestamp,
    files: AtomicU64,
    files_found: AtomicU64,
    bytes: AtomicU64,
    bytes_found: AtomicU64,
    found_all: AtomicBool,
    read_back: ReadBack,
    full: AtomicBool,
    cancelled: AtomicBool,
    /// Files that were not loaded, and what the first error says.
    failed: Mutex<Option<(u64, Error)>>,
    end: CancellationToken,
    state: watch::Sender<LoadState>,
}

impl Cache {
    /// Loads what lies under `path`; answers when it has, or at once. Loading ends where the cache is full.
    pub async fn load(&self, path: &Path, wait: bool) -> Result<Loaded> {
        self.inner.must_be_there(path).await?;
        let spec = LoadSpec {
            paths: vec![path.clone()],
            ..LoadSpec::default()
        };
        self.load_all(spec, wait).await
    }

    /// Loads what lies under all the paths. What is not there is passed over.
    ///
    /// # Errors
    /// Invalid for too many paths, or none; Full when too many jobs run; with `wait` also what kept it from loading everything.
    pub async fn load_all(&self, spec: LoadSpec, wait: bool) -> Result<Loaded> {
        check(&spec)?;
        let inner = Arc::clone(&self.inner);
        let begin = async move {
            let _entered = inner.enter()?;
            inner.begin_load(spec).await
        };
        let job = self.inner.to_the_end("load", begin).await?;
        if !wait {
            return Ok(Loaded {
                job: job.id,
                ..Loaded::default()
            });
        }
        let mut state = job.state.subscribe();
        let ended = state.wait_for(|state| *state != LoadState::Running).await;
        let state = ended.map(|state| state.clone()).unwrap_or(LoadState::Cancelled);
        match state {
            LoadState::Cancelled => Err(Error::aborted(format!("load {}: was cancelled", job.id))),
            LoadState::Failed(_) => Err(job.error()),
            _ => Ok(job.loaded()),
        }
    }

    /// The jobs that run, and those that ended lately.
    pub fn loads(&self) -> Vec<LoadJob> {
        let jobs = self.inner.clean.shared.loads.jobs.lock();
        jobs.values().map(|job| job.told()).collect()
    }

    /// Ends the jobs that load this path; how many there were.
    pub fn cancel_loads(&self, path: &Path) -> usize {
        let jobs = self.inner.clean.shared.loads.jobs.lock();
        let mut cancelled = 0;
        for job in jobs.values() {
            if job.spec.paths.contains(path) && *job.state.borrow() == LoadState::Running {
                job.cancelled.store(true, Ordering::Relaxed);
                job.end.cancel();
                cancelled += 1;
            }
        }
        cancelled
    }
}

fn check(spec: &LoadSpec) -> Result<()> {
    let bytes: usize = spec.paths.iter().map(|path| path.as_bytes().len() + 4).sum();
    if spec.paths.is_empty() || spec.paths.len() > PATHS_MAX || bytes > PATHS_BYTES_MAX {
        return Err(Error::invalid(format!(
            "load: {} paths of {bytes} bytes; 1 to {PATHS_MAX} paths of {PATHS_BYTES_MAX} bytes together are allowed: load directories, or in several calls",
            spec.paths.len()
        )));
    }
    if spec
        .parallel
        .is_some_and(|parallel| !(1..=FILES_PARALLEL_MAX).contains(&parallel))
    {
        return Err(Error::invalid(format!(
            "load: parallel is between 1 and {FILES_PARALLEL_MAX}"
        )));
    }
    Ok(())
}

impl Job {
    fn new(id: u64, spec: LoadSpec, since: Timestamp) -> Arc<Self> {
        Arc::new(Self {
            id,
            spec,
            since,
            files: AtomicU64::new(0),
            files_found: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            bytes_found: AtomicU64::new(0),
            found_all: AtomicBool::new(false),
            read_back: ReadBack::default(),
            full: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            failed: Mutex::new(None),
            end: CancellationToken::new(),
            state: watch::Sender::new(LoadState::Running),
        })
    }

    fn found(&self, bytes: u64) {
        self.files_found.fetch_add(1, Ordering::Relaxed);
        self.bytes_found.fetch_add(bytes, Ordering::Relaxed);
    }

    fn has(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn fails(&self, error: Error) {
        let mut failed = self.failed.lock();
        match failed.as_mut() {
            Some((count, _)) => *count += 1,
            None => *failed = Some((1, error)),
        }
    }

    fn error(&self) -> Error {
        match &*self.failed.lock() {
            Some((1, error)) => error.clone(),
            Some((count, error)) => Error::new(
                error.kind(),
                format!("{count} files were not loaded; the first: {error}"),
            ),
            None => Error::internal(format!("load {}: failed without a reason", self.id)),
        }
    }

    fn loaded(&self) -> Loaded {
        Loaded {
            job: self.id,
            files: self.files.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            full: self.full.load(Ordering::Relaxed),
            read_back: self.read_back.bytes(),
        }
    }

    fn told(&self) -> LoadJob {
        let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
        LoadJob {
            id: self.id,
            path: self.spec.paths.first().cloned().unwrap_or_default(),
            paths: self.spec.paths.len(),
            since: self.since,
            files: (number(&self.files), number(&self.files_found)),
            bytes: (number(&self.bytes), number(&self.bytes_found)),
            found_all: self.found_all.load(Ordering::Relaxed),
            read_back: self.read_back.bytes(),
            state: self.state.borrow().clone(),
        }
    }
}

fn row_key(id: u64) -> Key {
    let mut key = vec![table::LOAD];
    key.extend_from_slice(&id.to_be_bytes());
    key.into()
}

impl Inner {
    async fn begin_load(self: &Arc<Self>, spec: LoadSpec) -> Result<Arc<Job>> {
        {
            let jobs = self.clean.shared.loads.jobs.lock();
            let running = jobs.values().filter(|job| *job.state.borrow() == LoadState::Running);
            if running.count() >= JOBS_MAX {
                return Err(Error::full(format!(
                    "load: {JOBS_MAX} jobs run already; wait for one of them"
                )));
            }
        }
        let id = self.components.meta.allocate("load", 1).await?.start;
        let since = self.components.clock.now();
        let row = LoadRow {
            paths: spec.paths.iter().map(Path::as_bytes).collect(),
            parallel: spec.parallel.map(|parallel| parallel as u64),
            since: since.0,
            verify: spec.verify,
        };
        self.write_load(Op::Put(row_key(id), rows::encode(&row))).await?;
        Ok(self.run_load(Job::new(id, spec, since)))
    }

    async fn write_load(&self, op: Op) -> Result<()> {
        let tx = Tx {
            token: None,
            checks: Vec::new(),
            ops: vec![op],
        };
        self.components.meta.commit(tx).await?;
        Ok(())
    }

    /// Begins again the jobs that a stop or crash cut off, and loads what is pinned: the blocks of an earlier life are gone.
    pub(crate) async fn resume_loads(self: &Arc<Self>) -> Result<()> {
        let range = Key::from(vec![table::LOAD])..prefix_end(&[table::LOAD]);
        for (key, entry) in self.components.meta.scan(range, JOBS_MAX * 2).await? {
            let row = LoadRow::decode(&entry.value)?;
            let id = key.get(1..9).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes);
            let id =
                id.ok_or_else(|| Error::data_loss("metastore: the row of a load has a key that makes no sense"))?;
            let paths: Result<Vec<Path>, _> = row.paths.iter().map(|path| Path::parse(path)).collect();
            let spec = LoadSpec {
                paths: paths?,
                parallel: row.parallel.and_then(|parallel| usize::try_from(parallel).ok()),
                verify: row.verify,
            };
            self.run_load(Job::new(id, spec, Timestamp(row.since)));
        }
        let pinned: Vec<Path> = self.policies.pinned();
        if !pinned.is_empty() {
            let spec = LoadSpec {
                paths: pinned,
                ..LoadSpec::default()
            };
            let id = self.components.meta.allocate("load", 1).await?.start;
            self.run_load(Job::new(id, spec, self.components.clock.now()));
        }
        Ok(())
    }

    fn run_load(self: &Arc<Self>, job: Arc<Job>) -> Arc<Job> {
        {
            let mut jobs = self.clean.shared.loads.jobs.lock();
            let ended = jobs.values().filter(|job| *job.state.borrow() != LoadState::Running);
            let ended: Vec<u64> = ended.map(|job| job.id).collect();
            for id in ended.iter().rev().skip(ENDED_MAX - 1) {
                jobs.remove(id);
            }
            jobs.insert(job.id, Arc::clone(&job));
        }
        let (inner, running) = (Arc::clone(self), Arc::clone(&job));
        self.tasks.spawn("load", async move {
            let shutdown = inner.tasks.shutdown().clone();
            tokio::select! {
                biased;
                // The next start goes on with it.
                () = shutdown.cancelled() => {}
                () = inner.load_job(&running) => {}
            }
        });
        job
    }

    async fn load_job(self: &Arc<Self>, job: &Arc<Job>) {
        let parallel = job.spec.parallel.unwrap_or(FILES_PARALLEL);
        let loading = self
            .files_of(job)
            .try_for_each_concurrent(parallel, |(path, node)| async move {
                if let Err(error) = self.load_file(job, &node).await {
                    job.fails(error.at(&path));
                }
                Ok(())
            });
        let walked = tokio::select! {
            biased;
            () = job.end.cancelled() => Ok(()),
            walked = loading => walked,
        };
        if let Err(error) = walked {
            job.fails(error);
        }
        // A row that stays is a load that begins again at the next start: nothing is lost by that.
        if let Err(error) = self.write_load(Op::Delete(row_key(job.id))).await {
            tracing::warn!(job = job.id, %error, "the row of a load that ended stays until the next start");
        }
        let failed = job.failed.lock().is_some();
        let state = match () {
            () if job.cancelled.load(Ordering::Relaxed) => LoadState::Cancelled,
            () if failed => LoadState::Failed(job.error().to_string()),
            () if job.full.load(Ordering::Relaxed) => LoadState::Full,
            () => LoadState::Loaded,
        };
        if state != LoadState::Loaded {
            tracing::info!(
                job = job.id,
                loaded = job.loaded().told(),
                ?state,
                "loading ended early"
            );
        }
        job.state.send_replace(state);
    }

    /// Files under the job's paths, page by page.
    fn files_of<'a>(&'a self, job: &'a Job) -> impl stream::Stream<Item = Result<(Path, Node)>> + 'a {
        let walk = Walk::over(&job.spec.paths, Datasets::Files);
        let found = stream::try_unfold(walk, move |mut walk| async move {
            if job.full.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let next = walk.next(self).await?;
            if next.is_none() {
                job.found_all.store(true, Ordering::Relaxed);
            }
            Ok::<_, Error>(next.map(|next| (next, walk)))
        });
        found.inspect_ok(|(_, node)| job.found(node_bytes(node)))
    }

    async fn load_file(&self, job: &Job, node: &Node) -> Result<()> {
        let mut read_back = job.spec.verify.then_some(&job.read_back);
        let mut object = self.object_of(node)?;
        if let (None, Some(told), Node::Row { ino, inode, .. }) = (&object, read_back, node) {
            object = self.verify_local(*ino, inode, told).await?;
            // What was fetched in place of a damaged copy is fresh.
            read_back = None;
        }
        let Some(object) = object else {
            // What lies here anyway is loaded; what is no file has nothing to load.
            job.has(node_bytes(node));
            return Ok(());
        };
        match self.clean.load(&object, read_back).await {
            // Changed or removed meanwhile is no failure of the rest.
            Err(error) if matches!(error.kind(), ErrorKind::Precondition | ErrorKind::NotFound) => return Ok(()),
            other => other?,
        }
        let held = self.clean.held(&object);
        if held == object.size {
            job.has(held);
        }
        let all = job.bytes.load(Ordering::Relaxed);
        if held < object.size || all > self.clean.limit() {
            // Those that are on their way may still fit; no more are begun.
            job.full.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Reads back what lies in segments. A damaged copy of what is persisted goes; the object that has its bytes.
    async fn verify_local(&self, ino: Ino, inode: &Inode, read_back: &ReadBack) -> Result<Option<CleanReader>> {
        if inode.kind != Kind::File {
            return Ok(None);
        }
        let (content, stream) = (Content::decode(&inode.content)?, StreamId(ino.0, inode.generation));
        let Some(layout) = content.layout() else {
            return Ok(None);
        };
        let compared = match self.segments.reader(stream, layout) {
            Ok(reader) => reader.compare().await,
            Err(error) => Err(error),
        };
        let Err(error) = compared else {
            read_back.verified.fetch_add(inode.size, Ordering::Relaxed);
            return Ok(None);
        };
        let now = self.names.inode(ino).await?;
        if now.is_none_or(|(now, _)| now.content != inode.content || now.generation != inode.generation) {
            // Persisted, evicted or replaced meanwhile is no damage.
            return Ok(None);
        }
        read_back.damaged.fetch_add(inode.size, Ordering::Relaxed);
        match content {
            Content::Persisted { at, .. } => self.replace_copy(ino, inode, at, &error).await,
            Content::Open | Content::Sealed { .. } => Err(error.into()),
        }
    }

    /// Drops a damaged copy once its store has given the bytes.
    async fn replace_copy(
        &self,
        ino: Ino,
        inode: &Inode,
        at: StoreAt,
        error: &SegmentError,
    ) -> Result<Option<CleanReader>> {
        let Some(object) = self.persisted_object(at, inode) else {
            return Err(Error::unavailable(format!(
                "{error}; its under-store is not mounted any more: mount it again"
            )));
        };
        tracing::warn!(key = object.key, %error, "a local copy is damaged; fetching it again");
        let fetched = self.clean.load(&object, None).await;
        if fetched
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Precondition)
        {
            // Whoever opens it next is shown what the store has now.
            self.noticed(&object.mount, &object.key).await?;
        }
        fetched?;
        self.evict(ino, inode.generation).await?;
        Ok(Some(object))
    }

    /// The object that has the bytes of a clean file which are not here.
    pub(super) fn object_of(&self, node: &Node) -> Result<Option<CleanReader>> {
        let (mount, key, size, validator, changed) = match node {
            Node::Base { at, entry } if !entry.is_dir => match self.mounts.resolve(at) {
                Some((mount, Some(key))) => (mount, key, entry.size, entry.validator.clone(), entry.mtime),
                _ => return Ok(None),
            },
            Node::Row { inode, .. } if inode.kind == Kind::File => match Content::decode(&inode.content)? {
                Content::Persisted { at, layout: None, .. } => return Ok(self.persisted_object(at, inode)),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(CleanReader {
            mount,
            key,
            size,
            validator: Validator(validator),
            changed,
        }))
    }

    fn persisted_object(&self, at: StoreAt, inode: &Inode) -> Option<CleanReader> {
        Some(CleanReader {
            mount: self.mounts.by_id(at.mount)?,
            key: at.key,
            size: inode.size,
            validator: Validator(at.validator),
            changed: inode.mtime.max(inode.ctime),
        })
    }
}

fn node_bytes(node: &Node) -> u64 {
    match node {
        Node::Row { inode, .. } if inode.kind == Kind::File => inode.size,
        Node::Base { entry, .. } if !entry.is_dir => entry.size,
        _ => 0,
    }
}
