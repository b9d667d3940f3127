//! Policies of the cache: what is set by path, kept in the metastore and in memory, and which of it this version can honour.
//!
//! Keys, values and inheritance are the policy crate's; here is where they come from and who may rely on them. Others ask
//! [`Policies::effective`] whenever they need one: it is a walk along the path in memory, and with no policy set anywhere nothing at
//! all. What a value *does* lies with whom it concerns (`dataset` for `versions_kept`, `clean` for `pin` and `evict`, …).
//!
//! A policy belongs to its path. It may be set before anything is there, and stays when what is there is renamed or deleted: a
//! directory that is moved lives under the policies of its new place.
//!
//! What this version can not honour is refused when it is set, and at start when the settings have it.

mod pins;
mod quota;
mod ttl;

use crate::{
    AckLevel, Cache, Components, Error, ErrorKind, Result, Settings,
    cache::Inner,
    rows::{self, PolicyRow, table},
};
use forebay_metastore::{Check, Entry, Key as RowKey, MetaStoreRef, Op, Tx, prefix_end};
use forebay_namespace::Path;
use forebay_policy::room::Place;
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::sync::{Notify, futures::Notified};

pub(crate) use quota::{Adds, Quotas};

pub use forebay_policy::{Change, Defaults, Effective, Invalid, Key, Set, Table, Value, value};

/// Most paths with policies.
const PATHS_MAX: usize = 10_000;
/// Rows of one page of a scan.
const PAGE: usize = 500;
/// Tries of a change that others keep coming before.
const TRIES_MAX: usize = 20;

impl From<Invalid> for Error {
    fn from(error: Invalid) -> Self {
        Self::invalid(error.to_string())
    }
}

/// The policies in effect. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Policies {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: RwLock<Arc<Table>>,
    meta: MetaStoreRef,
    /// Names that the policy `tier` may have.
    tiers: Vec<String>,
    /// Changes take turns: the table in memory follows the rows in their order.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
}

/// One line of an explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The key with the value that holds.
    pub value: Value,
    /// The path it is set at; none: the default.
    pub from: Option<Path>,
}

impl Policies {
    /// Reads the rows and adds what the settings name.
    pub(crate) async fn open(settings: &Settings, components: &Components) -> Result<Self> {
        let defaults = Defaults {
            ack: ack_of(settings.ack),
            versions_kept: settings.versions_kept,
        };
        let sets = read_rows(&components.meta).await?;
        let own = [value::Tier::AUTO, value::Tier::DISK].map(String::from);
        let named = settings.tiers.iter().map(|tier| tier.name.clone());
        let shared = Shared {
            table: RwLock::new(Arc::new(Table::new(defaults, sets))),
            meta: components.meta.clone(),
            tiers: own.into_iter().chain(named).collect(),
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        };
        let policies = Self {
            shared: Arc::new(shared),
        };
        for (path, set) in policies.table().iter() {
            if let Some(Value::Tier(tier)) = set.get(Key::Tier)
                && !policies.shared.tiers.iter().any(|name| name == tier.name())
            {
                tracing::warn!(%path, tier = tier.name(), "a policy names a tier that this server has not; what lies there stays in the data folders");
            }
        }
        for (path, set) in &settings.policies {
            let changes: Vec<Change> = set.values().cloned().map(Change::Put).collect();
            let set = policies.set(path, &changes).await;
            set.map_err(|error| error.at(format!("policy of {path}")))?;
        }
        Ok(policies)
    }

    /// What holds at `path`.
    pub(crate) fn effective(&self, path: &Path) -> Arc<Effective> {
        Arc::clone(self.shared.table.read().effective(path))
    }

    /// Paths at which `key` has a value of its own.
    pub(crate) fn paths_with(&self, key: Key) -> Vec<Path> {
        let table = self.table();
        let with = table.iter().filter(|(_, set)| set.get(key).is_some());
        with.map(|(path, _)| path.clone()).collect()
    }

    /// All of them, as they are now.
    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.shared.table.read())
    }

    /// Whether none is set anywhere.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.table.read().is_empty()
    }

    /// Ends when policies are changed.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.shared.changed.notified()
    }

    /// Whether everything at and under the one path is under the same policies as at and under the other.
    pub(crate) fn same_for_all(&self, one: &Path, other: &Path) -> bool {
        let table = self.table();
        table.is_empty()
            || (Arc::ptr_eq(table.effective(one), table.effective(other))
                && !table.any_below(one)
                && !table.any_below(other))
    }

    /// Whether nothing is set at this very path, so that what holds in its directory holds for it.
    pub(crate) fn same_as_parent(&self, path: &Path) -> bool {
        let table = self.shared.table.read();
        table.is_empty() || table.at(path).is_none()
    }

    /// Paths at which a pin is set, none under another.
    pub(crate) fn pinned(&self) -> Vec<Path> {
        let mut pinned: Vec<Path> = Vec::new();
        for (path, set) in self.table().iter() {
            if matches!(set.get(Key::Pin), Some(Value::Pin(pin)) if pin.holds())
                && !pinned.last().is_some_and(|last| path.starts_with(last))
            {
                pinned.push(path.clone());
            }
        }
        pinned
    }

    /// What they say of clean data at `path`.
    pub(crate) fn place(&self, path: &Path) -> Arc<Place> {
        Arc::new(Place::of(path, &self.table()))
    }

    /// Makes the changes at `path`, all or none, durably.
    async fn set(&self, path: &Path, changes: &[Change]) -> Result<()> {
        changes.iter().try_for_each(|change| self.check_honoured(change))?;
        self.change(path, |set| {
            changes.iter().cloned().for_each(|change| set.change(change))
        })
        .await
    }

    /// Changes what is set at `path`, durably. `change` may be called again, and gives the same of the same.
    async fn change(&self, path: &Path, change: impl Fn(&mut Set)) -> Result<()> {
        let _turn = self.shared.turn.lock().await;
        let mut failed = Error::lost();
        for _ in 0..TRIES_MAX {
            let key = rows::policy_key(&path.as_bytes());
            let found = self.shared.meta.get(std::slice::from_ref(&key)).await?.pop().flatten();
            let (mut set, check) = match found {
                Some(entry) => (set_of(path, &entry)?, Check::At(key.clone(), entry.version)),
                None => (Set::default(), Check::Absent(key.clone())),
            };
            change(&mut set);
            let table = self.table().with(path, set.clone());
            if table.len() > PATHS_MAX {
                return Err(Error::full(format!(
                    "{path}: {PATHS_MAX} paths have policies already; set them at directories further up"
                )));
            }
            match self.write(key, check, path, &set).await {
                // Whether it came through or not, making the same changes again gives the same.
                Err(error) if error.is_lost() || error.kind() == ErrorKind::Deadline => failed = error,
                Err(error) => return Err(error),
                Ok(()) => {
                    *self.shared.table.write() = Arc::new(table);
                    return Ok(());
                }
            }
        }
        Err(failed.at(format!("policies of {path}")))
    }

    /// Refuses a value that would do nothing here.
    fn check_honoured(&self, change: &Change) -> Result<()> {
        let Change::Put(value) = change else { return Ok(()) };
        let refuse = |why: &str| {
            let (key, json) = (value.key().name(), value.json());
            Err(Error::unsupported(format!(
                "{key}: {json} is not offered by this version: {why}"
            )))
        };
        match value {
            Value::Replicas(copies) if *copies > 1 => refuse("one node keeps one copy; leave it at 1"),
            Value::Ack(value::Ack::Replicated(_)) => refuse("one node keeps one copy; use local or persisted"),
            Value::Tier(tier) if !self.shared.tiers.iter().any(|name| name == tier.name()) => {
                let (key, json, tiers) = (value.key().name(), value.json(), self.shared.tiers.join(", "));
                Err(Error::invalid(format!(
                    "{key}: {json} is no tier of this server, which has {tiers}; name one of them, or add a [[tier]] to its configuration"
                )))
            }
            _ => Ok(()),
        }
    }

    async fn write(&self, key: RowKey, check: Check, path: &Path, set: &Set) -> Result<()> {
        let op = match set.is_empty() {
            true if matches!(check, Check::Absent(_)) => return Ok(()),
            true => Op::Delete(key),
            false => Op::Put(key, rows::encode(&row_of(path, set))),
        };
        let tx = Tx {
            token: None,
            checks: vec![check],
            ops: vec![op],
        };
        self.shared.meta.commit(tx).await?;
        Ok(())
    }
}

fn row_of(path: &Path, set: &Set) -> PolicyRow {
    let pairs = set
        .values()
        .map(|value| (value.key().name().to_owned(), value.json().to_string()));
    PolicyRow {
        path: path.as_bytes(),
        set: pairs.collect(),
    }
}

/// What a row sets. One that makes no sense to this version must not be taken for no policy.
fn set_of(path: &Path, entry: &Entry) -> Result<Set> {
    let (of, set) = decode(entry)?;
    if of != *path {
        return Err(Error::data_loss(format!(
            "metastore: the row of the policies of {path} holds those of {of}"
        )));
    }
    Ok(set)
}

fn decode(entry: &Entry) -> Result<(Path, Set)> {
    let row: PolicyRow = rows::decode(&entry.value)?;
    let path = Path::parse(&row.path)?;
    let foreign = |why: String| {
        Error::precondition(format!(
            "metastore: policies of {path} are not of this version ({why}); start the version that set them, or a newer one"
        ))
    };
    let mut set = Set::default();
    for (name, text) in &row.set {
        let json = serde_json::from_str(text).map_err(|error| foreign(error.to_string()))?;
        let change = Change::parse(name, Some(&json)).map_err(|error| foreign(error.to_string()))?;
        set.change(change);
    }
    Ok((path, set))
}

async fn read_rows(meta: &MetaStoreRef) -> Result<Vec<(Path, Set)>> {
    let (mut start, end): (RowKey, _) = (vec![table::POLICY].into(), prefix_end(&[table::POLICY]));
    let mut sets = Vec::new();
    loop {
        let page = meta.scan(start..end.clone(), PAGE).await?;
        for (_, entry) in &page {
            sets.push(decode(entry)?);
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => start = [key, &[0][..]].concat().into(),
            _ => return Ok(sets),
        }
    }
}

fn ack_of(level: AckLevel) -> value::Ack {
    match level {
        AckLevel::Memory => value::Ack::Memory,
        AckLevel::Local => value::Ack::Local,
        AckLevel::Persisted => value::Ack::Persisted,
    }
}

impl Inner {
    /// Level of a write at `path` that names none.
    pub(crate) fn ack_level_at(&self, path: &Path) -> AckLevel {
        self.level_of(path, None)
    }

    /// Level of a write at `path`. What is written through the cache or around it is in the under-store before it is acknowledged,
    /// whatever the write asks for.
    pub(crate) fn level_of(&self, path: &Path, asked: Option<AckLevel>) -> AckLevel {
        let effective = self.policies.effective(path);
        if effective.write != value::Write::Back {
            return AckLevel::Persisted;
        }
        asked.unwrap_or(match effective.ack {
            value::Ack::Memory => AckLevel::Memory,
            // One that names copies is refused when it is set.
            value::Ack::Local | value::Ack::Replicated(_) => AckLevel::Local,
            value::Ack::Persisted => AckLevel::Persisted,
        })
    }

    /// Policies were changed: those who keep something of them look again.
    fn policies_changed(&self) {
        self.quotas.follow(&self.policies.table());
        self.clean.policies_changed();
        self.policies.shared.changed.notify_waiters();
    }

    /// Versions that are kept of the dataset at `path`.
    pub(crate) fn versions_kept(&self, path: &Path) -> u32 {
        self.policies.effective(path).versions_kept
    }
}

impl Cache {
    /// Makes the changes of what is set at `path`, all of them or none; durable when it returns.
    ///
    /// # Errors
    /// Unsupported when this version can not honour a value; Full when too many paths have policies.
    pub async fn policy_set(&self, path: &Path, changes: Vec<Change>) -> Result<()> {
        let (inner, path) = (Arc::clone(&self.inner), path.clone());
        self.inner
            .to_the_end("policy-set", async move {
                let _entered = inner.enter()?;
                inner.policies.set(&path, &changes).await?;
                inner.persist.policies_changed();
                inner.policies_changed();
                Ok(())
            })
            .await
    }

    /// What is set at this very path.
    pub fn policy_get(&self, path: &Path) -> Set {
        self.inner.policies.table().at(path).cloned().unwrap_or_default()
    }

    /// What is set at `path` and at every path under it, by path; at most ten thousand paths have policies.
    pub fn policy_list(&self, path: &Path) -> Vec<(Path, Set)> {
        let table = self.inner.policies.table();
        let below = table.iter().filter(|(at, _)| at.starts_with(path));
        below.map(|(at, set)| (at.clone(), set.clone())).collect()
    }

    /// What holds at `path`, key by key, and where it comes from.
    pub fn policy_explain(&self, path: &Path) -> Vec<Explained> {
        let effective = self.inner.policies.effective(path);
        let explain = |key: &Key| Explained {
            value: effective.value(*key),
            from: effective.from(*key).cloned(),
        };
        Key::ALL.iter().map(explain).collect()
    }
}
