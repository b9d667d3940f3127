//! Mounts: prefixes bound to under-stores, and the base listing they give the namespace.
//!
//! The table is kept in the metastore, so a mount stays until it is removed; mounts named at start are added to it. The longest
//! prefix wins. It does not own what is persisted (`persist`) nor the bytes that were read (`clean`).

mod ages;
mod base;
mod freshness;
mod health;
mod listings;
mod looks;
mod overwritten;
mod peeks;
mod readers;
mod sync;

use self::{
    base::{MountedBase, Remembered},
    freshness::Freshness,
    health::Health,
    listings::Listings,
    looks::Looks,
    overwritten::Overwritten,
    peeks::{Contents, Peeks},
    sync::Synced,
};
pub(crate) use self::{
    health::named, overwritten::went, peeks::CONTENT_BYTES_MAX as PEEKED_BYTES_MAX, readers::Readers,
};
use crate::{
    Cache, Components, Error, Result, Settings,
    cache::Inner,
    persist::{MountBacklog, Waiting},
    policy::Policies,
    rows::{self, Content, table},
    settings::MountSpec,
};
use forebay_metastore::{Check, MetaStoreRef, Op, Tx, prefix_end};
use forebay_namespace::{Base, Node, Path};
use forebay_runtime::clock::{ClockRef, Timestamp};
use forebay_understore::{
    StoreError, UnderStoreRef,
    limit::{Limited, Limits},
    packs::Packed,
};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::OnceCell;

/// Tries of a call that fails in passing.
const TRIES_MAX: u32 = 4;
/// Pause before the second try; longer before each further one.
const TRY_PAUSE: Duration = Duration::from_millis(50);
/// Most mounts.
const MOUNTS_MAX: usize = 256;
/// Longest wait of a removal that drains.
const DRAIN_MAX: Duration = Duration::from_secs(24 * 3600);
/// Pause between two looks at what a mount still waits for.
const DRAIN_PAUSE: Duration = Duration::from_millis(200);
/// Entries of one page of a walk.
const WALK_PAGE: usize = 500;

/// The mount table. Clones are the same table.
#[derive(Clone, Debug)]
pub(crate) struct Mounts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// By length of the path, the longest first.
    table: RwLock<Arc<Vec<Arc<Mount>>>>,
    remembered: Remembered,
    looks: Looks,
    contents: Contents,
    readers: Arc<Readers>,
    listings: Listings,
    overwritten: Overwritten,
    policies: Arc<Policies>,
    clock: ClockRef,
}

/// One mount.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) id: u32,
    pub(crate) path: Path,
    /// Without secrets.
    pub(crate) url: String,
    pub(crate) read_only: bool,
    pub(crate) store: UnderStoreRef,
    /// The same store behind the limits of the persister.
    pub(crate) upload: UnderStoreRef,
    /// Its packs, through `upload`. None where nothing can be written.
    pub(crate) packs: Option<Packed>,
    pub(crate) health: Health,
    /// Small contents that came with what was asked of their names.
    pub(crate) peeks: Peeks,
    /// Of all mounts.
    pub(crate) readers: Arc<Readers>,
    /// Whether its store refuses a second object under a name, once that is known.
    exclusive: OnceCell<bool>,
    /// Set while it is about to be removed: it takes no more changes.
    draining: AtomicBool,
    /// How often what was remembered of it was forgotten.
    epoch: AtomicU64,
    /// How the last comparison with what others may have changed went.
    synced: Mutex<Synced>,
}

/// A mount's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct MountRow {
    path: Vec<u8>,
    url: String,
    read_only: bool,
}

/// A mount, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// The prefix.
    pub path: Path,
    /// URL without secrets.
    pub url: String,
    /// Refuses writes.
    pub read_only: bool,
    /// `ready`, or what is wrong with the store.
    pub state: String,
    /// When the last comparison with what others may have changed ended well.
    pub synced: Option<Timestamp>,
    /// Why the one after that failed.
    pub sync_error: Option<String>,
    /// Pieces of work for it that wait.
    pub queued: u64,
    /// Bytes of its files that exist only here: of those that are queued, under way, kept back by a policy, or can not go.
    pub dirty_bytes: u64,
    /// Age of the oldest change that it has yet to get; 0 when there is none.
    pub lag: Duration,
}

impl Mount {
    /// Finds out what its store honours, once, and answers whether it refuses a second object under a name. Whoever writes asks first: what
    /// is sent before that is known goes without a condition.
    ///
    /// # Errors
    ///
    /// Unavailable: it can not be found out now. Of a store that refuses to be tried the answer is no.
    pub(crate) async fn is_exclusive(&self) -> Result<bool, StoreError> {
        let probe = async || {
            let capabilities = self.store.probe().await?;
            tracing::info!(path = %self.path, url = self.url, ?capabilities, "under-store ready");
            Ok(capabilities.put_if_absent)
        };
        match self.exclusive.get_or_try_init(probe).await {
            Ok(exclusive) => Ok(*exclusive),
            Err(error @ StoreError::Unavailable(_)) => Err(error),
            Err(error) => {
                tracing::debug!(path = %self.path, url = self.url, %error, "what the under-store honours can not be tried");
                Ok(false)
            }
        }
    }

    /// Whether it is about to be removed.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// A number that differs once everything that was remembered of it is to be forgotten.
    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    fn forget_answers(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether asking is cheap.
    pub(crate) fn is_local(&self) -> bool {
        self.url.starts_with("file:")
    }

    /// Whether a directory of its store is only what lies under it, so that an empty one needs a marker.
    pub(crate) fn has_markers(&self) -> bool {
        !self.is_local() && !self.url.starts_with("hdfs:")
    }

    /// Whether its store says by itself that a file changed then.
    pub(crate) fn shows_mtime(&self, mtime: Timestamp) -> bool {
        self.is_local() || self.url.starts_with("hdfs:") && mtime.0 % 1000 == 0
    }

    /// Whether a call that a reader waits for shall be made again: after a failure in passing, a short pause later.
    pub(crate) async fn again(&self, error: &StoreError, tries: &mut u32) -> bool {
        let passing = matches!(error, StoreError::Unavailable(_) | StoreError::Damaged(_));
        passing && *tries < TRIES_MAX && {
            let tried = *tries;
            *tries += 1;
            self.health.rest(TRY_PAUSE * tried).await
        }
    }

    /// Path of a key.
    pub(crate) fn path_of(&self, key: &str) -> Result<Path> {
        let mut components = self.path.components().to_vec();
        components.extend(
            key.split('/')
                .filter(|name| !name.is_empty())
                .map(|name| name.as_bytes().to_vec()),
        );
        Ok(Path::from_components(components)?)
    }
}

impl Mounts {
    /// Reads the table and adds what the settings name; also answers the prefixes that were added. Stores need not be reachable.
    /// Precondition when the settings bind a prefix to another store than the table does.
    pub(crate) async fn open(
        settings: &Settings,
        components: &Components,
        policies: &Arc<Policies>,
    ) -> Result<(Mounts, Vec<Path>)> {
        let mut added = Vec::new();
        let shared = Shared {
            table: RwLock::default(),
            remembered: Remembered::new(),
            looks: Looks::default(),
            contents: peeks::contents(),
            readers: Arc::default(),
            listings: Listings::new(),
            overwritten: Overwritten::default(),
            policies: Arc::clone(policies),
            clock: components.clock.clone(),
        };
        let mounts = Mounts {
            shared: Arc::new(shared),
        };
        let mut rows = read_rows(&components.meta).await?;
        for spec in &settings.mounts {
            // What is refused is written nowhere: a URL may hold what must not be kept.
            let opened = components.stores.open(&spec.url).await;
            opened.map_err(|error| Error::invalid(format!("{}: {error}", spec.path)))?;
            let known = rows.iter_mut().find(|(_, row)| row.path == spec.path.as_bytes());
            match known {
                Some((id, row)) if same_store(&row.url, &spec.url) => {
                    *row = row_of(spec);
                    write_row(&components.meta, *id, row, None).await?;
                }
                Some((_, row)) => {
                    return Err(Error::precondition(format!(
                        "{}: is bound to {} in this data folder, not to {}; `under rm {}` first",
                        spec.path, row.url, spec.url, spec.path
                    )));
                }
                None => {
                    let id = fresh_id(&components.meta).await?;
                    write_row(&components.meta, id, &row_of(spec), Some(Check::Absent(row_key(id)))).await?;
                    rows.push((id, row_of(spec)));
                    added.push(spec.path.clone());
                }
            }
        }
        for (id, row) in rows {
            let mount = mounts.open_mount(settings, components, id, &row).await?;
            mounts.insert(mount);
        }
        Ok((mounts, added))
    }

    /// What the stores show, for the namespace.
    pub(crate) fn base(&self) -> Arc<dyn Base> {
        Arc::new(MountedBase {
            shared: Arc::clone(&self.shared),
        })
    }

    /// The mount that covers `path` and the key there; `None` when no mount does (everything there stays dirty).
    /// Names that are not UTF-8 have no key: the persister blocks them with the reason.
    pub(crate) fn resolve(&self, path: &Path) -> Option<(Arc<Mount>, Option<String>)> {
        self.shared.resolve(path)
    }

    /// A mount by its number.
    pub(crate) fn by_id(&self, id: u32) -> Option<Arc<Mount>> {
        self.all().iter().find(|mount| mount.id == id).cloned()
    }

    /// Mount points at `path` or below it.
    pub(crate) fn below(&self, path: &Path) -> Vec<Path> {
        let mut found: Vec<Path> = self
            .all()
            .iter()
            .filter(|mount| mount.path.starts_with(path))
            .map(|mount| mount.path.clone())
            .collect();
        found.sort();
        found
    }

    /// All mounts, the longest path first.
    pub(crate) fn all(&self) -> Arc<Vec<Arc<Mount>>> {
        self.shared.table()
    }

    /// The persister changed what the store has at this key.
    pub(crate) fn changed(&self, mount: u32, key: &str) {
        self.uncovered(mount, key);
        self.written(mount, key);
    }

    /// What the store has at this key shows without a row or whiteout of ours over it from now on. To be called before that is so.
    pub(crate) fn uncovered(&self, mount: u32, key: &str) {
        let parent = key.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.shared.listings.changed(&(mount, parent.to_owned()));
    }

    /// The persister wrote the object at this key; the row of its name lies over it.
    pub(crate) fn written(&self, mount: u32, key: &str) {
        let mut key = key;
        loop {
            self.shared.remembered.forget(mount, key);
            match key.rsplit_once('/') {
                Some((parent, _)) => key = parent,
                None => return,
            }
        }
    }

    /// Whether a persisted file at `path` is taken to be in the store as it was written, until a sync says otherwise.
    pub(crate) fn believes_rows(&self, mount: &Mount, path: &Path) -> bool {
        self.shared.freshness(mount, path) == Freshness::UntilSync
    }

    /// Listings that are under way begin anew.
    pub(crate) fn listings_changed(&self) {
        self.shared.listings.changed_all();
    }

    /// Everything may have changed.
    pub(crate) fn changed_all(&self) {
        self.shared.remembered.forget_all();
        self.shared.listings.changed_all();
    }

    /// The directories at these keys were overwritten at `since` while their store was away, says the piece of work `seq`; without any,
    /// that this is over.
    pub(crate) fn note_overwritten(&self, seq: u64, dirs: Vec<(u32, String)>, since: i64) {
        self.shared.overwritten.note(seq, dirs, since);
    }

    /// Until when a file at this key was overwritten with its directory.
    pub(crate) fn overwritten_until(&self, mount: u32, key: &str) -> Option<i64> {
        self.shared.overwritten.since_of_file(&(mount, key.to_owned()))
    }

    /// Whether the store that has `path` does not answer, as far as is known.
    pub(crate) fn is_away(&self, path: &Path) -> bool {
        self.resolve(path).is_some_and(|(mount, _)| mount.health.is_away())
    }

    async fn open_mount(&self, settings: &Settings, components: &Components, id: u32, row: &MountRow) -> Result<Mount> {
        let path = Path::parse(&row.path)?;
        let opened = components.stores.open(&row.url).await;
        let store = opened.map_err(|error| Error::invalid(format!("{path}: {error}")))?;
        let limits = Limits {
            bytes_per_second: settings.persist.bandwidth.map(|rate| rate.0),
            requests_per_second: settings.persist.requests_per_second,
        };
        let upload = Limited::wrap(Arc::clone(&store), limits);
        let packs = (!store.read_only())
            .then(|| Packed::new(Arc::clone(&store), Arc::clone(&upload), components.clock.clone()));
        let (store, upload): (UnderStoreRef, UnderStoreRef) = match &packs {
            Some(packs) => (Arc::new(packs.clone()), Arc::new(packs.for_uploads())),
            None => (store, upload),
        };
        Ok(Mount {
            id,
            path,
            url: store.url().to_owned(),
            read_only: row.read_only || store.read_only(),
            store,
            upload,
            packs,
            health: Health::new(components.clock.clone(), settings.under_timeout),
            peeks: Peeks::new(id, Arc::clone(&self.shared.contents)),
            readers: Arc::clone(&self.shared.readers),
            exclusive: OnceCell::new(),
            draining: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            synced: Mutex::default(),
        })
    }

    fn insert(&self, mount: Mount) {
        let mut table = self.shared.table.write();
        let mut mounts: Vec<Arc<Mount>> = table.iter().cloned().collect();
        mounts.push(Arc::new(mount));
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.path.components().len()));
        *table = Arc::new(mounts);
    }

    fn remove(&self, id: u32) {
        let mut table = self.shared.table.write();
        *table = Arc::new(table.iter().filter(|mount| mount.id != id).cloned().collect());
    }
}

impl Shared {
    fn table(&self) -> Arc<Vec<Arc<Mount>>> {
        Arc::clone(&self.table.read())
    }

    fn freshness(&self, mount: &Mount, path: &Path) -> Freshness {
        Freshness::of(&self.policies.effective(path), mount.is_local())
    }

    fn resolve(&self, path: &Path) -> Option<(Arc<Mount>, Option<String>)> {
        let table = self.table();
        let mount = table.iter().find(|mount| path.starts_with(&mount.path))?;
        let below = path.strip_prefix(&mount.path)?;
        let names: Option<Vec<&str>> = below.iter().map(|name| std::str::from_utf8(name).ok()).collect();
        Some((Arc::clone(mount), names.map(|names| names.join("/"))))
    }
}

fn row_key(id: u32) -> forebay_metastore::Key {
    let mut key = vec![table::MOUNT];
    key.extend_from_slice(&id.to_be_bytes());
    key.into()
}

fn row_of(spec: &MountSpec) -> MountRow {
    MountRow {
        path: spec.path.as_bytes(),
        url: spec.url.clone(),
        read_only: spec.read_only,
    }
}

/// Whether two URLs name the same store: the way to it (endpoint, region) may differ.
fn same_store(a: &str, b: &str) -> bool {
    let place = |url: &str| {
        url.split(['?', '#'])
            .next()
            .unwrap_or_default()
            .trim_end_matches('/')
            .to_owned()
    };
    place(a) == place(b)
}

async fn read_rows(meta: &MetaStoreRef) -> Result<Vec<(u32, MountRow)>> {
    let rows = meta
        .scan(vec![table::MOUNT].into()..prefix_end(&[table::MOUNT]), MOUNTS_MAX + 1)
        .await?;
    rows.into_iter()
        .map(|(key, entry)| {
            let id = key.get(1..5).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes);
            let id = id.ok_or_else(|| Error::data_loss("metastore: a mount row has a key that makes no sense"))?;
            Ok((id, rows::decode(&entry.value)?))
        })
        .collect()
}

async fn fresh_id(meta: &MetaStoreRef) -> Result<u32> {
    let number = meta.allocate("mount", 1).await?.start;
    u32::try_from(number).map_err(|_| Error::full("mounts: all numbers are used up"))
}

async fn write_row(meta: &MetaStoreRef, id: u32, row: &MountRow, check: Option<Check>) -> Result<()> {
    let tx = Tx {
        token: None,
        checks: check.into_iter().collect(),
        ops: vec![Op::Put(row_key(id), rows::encode(row))],
    };
    meta.commit(tx).await?;
    Ok(())
}

impl Cache {
    /// Binds a prefix to an under-store. Exists when it is bound already; Invalid when the URL makes no sense. The store need not
    /// be reachable. What lies under the prefix already is persisted from now on.
    pub async fn under_add(&self, path: &Path, url: &str, read_only: bool) -> Result<()> {
        let inner = &self.inner;
        let _entered = inner.enter()?;
        let mounts = inner.mounts.all();
        if mounts.iter().any(|mount| mount.path == *path) {
            return Err(Error::exists(format!(
                "{path}: an under-store is bound there already; `under rm {path}` first"
            )));
        }
        if mounts.len() >= MOUNTS_MAX {
            return Err(Error::full(format!("{path}: there are {MOUNTS_MAX} mounts already")));
        }
        if let Some(node) = inner.names.resolve(path).await?
            && !node.is_dir()
        {
            return Err(Error::precondition(format!(
                "{path}: is a file; an under-store is bound to a directory"
            )));
        }
        let row = MountRow {
            path: path.as_bytes(),
            url: url.to_owned(),
            read_only,
        };
        let id = fresh_id(&inner.components.meta).await?;
        let mount = inner
            .mounts
            .open_mount(&inner.settings, &inner.components, id, &row)
            .await?;
        write_row(&inner.components.meta, id, &row, Some(Check::Absent(row_key(id)))).await?;
        inner.mounts.insert(mount);
        inner.probe(id).await;
        inner.queue_below(path).await
    }

    /// The mounts, by path.
    pub fn under_list(&self) -> Vec<MountInfo> {
        let mounts = self.inner.mounts.all();
        let now = self.inner.components.clock.now();
        let info = |mount: &Arc<Mount>| {
            let synced = mount.synced.lock().clone();
            let MountBacklog {
                queued,
                dirty_bytes,
                oldest,
            } = self.inner.persist.backlog(mount.id);
            MountInfo {
                path: mount.path.clone(),
                url: mount.url.clone(),
                read_only: mount.read_only,
                state: mount.health.problem().unwrap_or_else(|| "ready".into()),
                synced: synced.last,
                sync_error: synced.failed,
                queued,
                dirty_bytes,
                lag: oldest.map_or(Duration::ZERO, |oldest| now.since(oldest)),
            }
        };
        let mut infos: Vec<MountInfo> = mounts.iter().map(info).collect();
        infos.sort_by(|a, b| a.path.cmp(&b.path));
        infos
    }

    /// Unbinds a prefix. Precondition while anything in its store's keeping is not there yet. With `drain` it waits for that, while
    /// the mount takes no more changes; whoever drops the wait leaves the mount as it was.
    pub async fn under_remove(&self, path: &Path, drain: bool) -> Result<()> {
        let mounts = self.inner.mounts.all();
        let mount = mounts.iter().find(|mount| mount.path == *path);
        let mount =
            Arc::clone(mount.ok_or_else(|| Error::not_found(format!("{path}: no under-store is bound there")))?);
        let _draining = match drain {
            true => Some(self.drain(&mount).await?),
            false => None,
        };
        let inner = Arc::clone(&self.inner);
        let remove = async move { inner.under_remove(&mount).await };
        self.inner.to_the_end("under-remove", remove).await
    }

    /// Waits until everything of this mount is in its store. Precondition when staging names are left, which go nowhere by themselves.
    async fn drain(&self, mount: &Arc<Mount>) -> Result<Draining> {
        let inner = &self.inner;
        if mount.draining.swap(true, Ordering::Relaxed) {
            return Err(Error::precondition(format!("{}: is being drained already", mount.path)));
        }
        let draining = Draining(Arc::clone(mount));
        self.persist(&mount.path).await?;
        let ended = inner.components.clock.monotonic() + DRAIN_MAX;
        while inner.waiting_on(mount.id).await?.goes > 0 {
            if inner.components.clock.monotonic() > ended {
                return Err(Error::deadline(format!(
                    "{}: not drained within {DRAIN_MAX:?}",
                    mount.path
                )));
            }
            inner.components.clock.sleep(DRAIN_PAUSE).await;
        }
        Ok(draining)
    }
}

/// A mount takes no changes while this lives.
#[derive(Debug)]
struct Draining(Arc<Mount>);

impl Drop for Draining {
    fn drop(&mut self) {
        self.0.draining.store(false, Ordering::Relaxed);
    }
}

impl Inner {
    async fn under_remove(&self, mount: &Mount) -> Result<()> {
        let _entered = self.enter()?;
        let Waiting { goes, held } = self.waiting_on(mount.id).await?;
        let (path, url) = (&mount.path, &mount.url);
        if goes > 0 {
            return Err(Error::precondition(format!(
                "{path}: {goes} changes are not in {url} yet; wait for them (`forebay under rm {path} --drain`), or resolve what \
                 `forebay status` shows as blocked or in conflict"
            )));
        }
        if held > 0 {
            return Err(Error::precondition(format!(
                "{path}: {held} staging files wait for the commit of their job and are not in {url}; commit the job, or delete them"
            )));
        }
        let tx = Tx {
            token: None,
            checks: Vec::new(),
            ops: vec![Op::Delete(row_key(mount.id))],
        };
        self.forget_rows(mount.id).await?;
        self.components.meta.commit(tx).await?;
        self.mounts.remove(mount.id);
        self.mounts.changed_all();
        Ok(())
    }

    /// Asks a store what it honours, so that its state is known; a store that is away is asked again by whoever needs it.
    pub(crate) async fn probe(&self, mount: u32) -> bool {
        let Some(mount) = self.mounts.by_id(mount) else {
            return true;
        };
        if mount.read_only {
            let answered = mount.health.ask(mount.store.head("")).await;
            return !matches!(answered, Err(StoreError::Unavailable(_)));
        }
        match mount.health.ask(mount.is_exclusive()).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(path = %mount.path, url = mount.url, %error, "under-store does not answer as it should");
                false
            }
        }
    }

    /// Rows below `path`, page by page: calls `visit` with each path and node that has a row.
    pub(crate) async fn rows_below(&self, path: &Path) -> Result<Vec<(Path, Node)>> {
        let mut found = Vec::new();
        let mut open = vec![path.clone()];
        while let Some(dir) = open.pop() {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = match self.names.list(&dir, after.as_deref(), WALK_PAGE).await {
                    Err(forebay_namespace::NsError::NotFound(_)) => break,
                    other => other?,
                };
                let ended = page.len() < WALK_PAGE;
                after = page.last().map(|(name, _)| name.clone());
                for (name, node) in page {
                    if !matches!(node, Node::Row { .. }) {
                        continue;
                    }
                    let path = dir.join(&name)?;
                    if node.is_dir() {
                        open.push(path.clone());
                    }
                    found.push((path, node));
                }
                if ended {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Takes rows away that only say what a store has, before the store goes. It is asked nothing: it may be away for good.
    async fn forget_rows(&self, mount: u32) -> Result<()> {
        self.mounts.changed_all();
        let mut after = None;
        loop {
            let page = self.names.inodes(after, WALK_PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(*last);
            for (ino, inode) in page {
                let content = Content::decode(&inode.content);
                if inode.is_dir() || !matches!(content, Ok(Content::Persisted { at, .. }) if at.mount == mount) {
                    continue;
                }
                let (path, row) = (self.names.path_of(ino).await?, self.names.inode(ino).await?);
                if let (Some(path), Some((inode, version))) = (path, row)
                    && let Some(plan) = self.names.plan_forget(ino, &path).await?
                {
                    self.commit(plan).await?;
                    self.discard_node(&Node::Row { ino, inode, version });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_a_store_is_not_its_identity() {
        assert!(same_store(
            "s3://b/p?endpoint=http://a:1",
            "s3://b/p/?endpoint=http://b:2"
        ));
        assert!(!same_store("s3://b/p", "s3://b/q"));
        assert!(!same_store("file:///a", "file:///b"));
    }
}
