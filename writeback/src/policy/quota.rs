//! Quotas: how much may lie under a path, of everybody together (`quota_bytes`, `quota_files`) and of each user (`user_quota_bytes`,
//! `user_quota_files`).
//!
//! Whose a file is its owner says, as `chown` and the doors' users set it. Who owns nothing by name, number 0, is held to no quota of
//! users: what nobody is known to have written, and the system's administrator.
//!
//! What counts are files that have a row: everything that is dirty, and what was persisted and is still known here. What only the
//! under-store knows does not count. A write takes its share of every quota along its path before its commit, and gives it back when
//! the commit fails. The count is taken from the rows when it is first needed and kept from then on; what it can not follow (a
//! delete, a file that was forgotten after it was persisted) makes it too high, so it is taken anew before anything is refused for
//! it. What is under way when the count is taken may count twice until the next one.
//!
//! The clean cache is held to the same number of bytes by making room (`clean`).

use crate::{Cache, Error, ErrorKind, Result, cache::Inner};
use forebay_namespace::{Ino, Kind, Node, NsError, Path, Plan};
use forebay_policy::{Key, Set, Table, Value};
use forebay_runtime::units::ByteSize;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// A count that nothing is known against is good for this long before it is taken anew for a refusal.
const GOOD_FOR: Duration = Duration::from_secs(2);
/// Rows of one page of a count.
const PAGE: usize = 500;
/// Users of one path whose counts are remembered, about; beyond it those of whom nothing is under way are counted anew.
const USERS_MAX: usize = 4096;
/// The owner of what is nobody's by name.
const NOBODYS: u32 = 0;

/// The quotas that are set.
#[derive(Debug, Default)]
pub(crate) struct Quotas(RwLock<Arc<BTreeMap<Path, AtPath>>>);

/// Those of one path.
#[derive(Clone, Debug, Default)]
struct AtPath {
    of_all: Option<Arc<Quota>>,
    of_each: Option<Arc<Users>>,
}

/// One for each user, made when the user first writes.
#[derive(Debug)]
struct Users {
    path: Path,
    limits: Arc<Mutex<Amount>>,
    quotas: Mutex<HashMap<u32, Arc<Quota>>>,
}

#[derive(Debug)]
struct Quota {
    path: Path,
    /// The user it is for.
    user: Option<u32>,
    limits: Arc<Mutex<Amount>>,
    used: Mutex<Used>,
    counting: tokio::sync::Mutex<()>,
}

/// Bytes and files. Of a limit the largest numbers are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    bytes: i64,
    files: i64,
}

/// What a change adds of whose files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Adds(BTreeMap<u32, Amount>);

#[derive(Debug, Default)]
struct Used {
    now: Amount,
    /// Taken since the count began that is under way, or before and not committed yet.
    since: Amount,
    /// Taken for what is not committed yet.
    pending: Amount,
    counted: Option<Duration>,
    /// Something is known to have gone since.
    stale: bool,
}

/// A share of the quotas along a path. Dropped, it is given back.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Share(Vec<(Arc<Quota>, Amount)>);

impl Amount {
    /// One file of so many bytes.
    fn file(bytes: u64) -> Self {
        Self {
            bytes: signed(bytes),
            files: 1,
        }
    }

    /// So many bytes more of a file.
    fn bytes(bytes: u64) -> Self {
        Self {
            bytes: signed(bytes),
            files: 0,
        }
    }

    /// What a file counts more when its bytes change from the one to the other.
    fn change(before: u64, now: u64) -> Self {
        Self::bytes(now).minus(Self::bytes(before))
    }

    fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            files: self.files.saturating_sub(other.files),
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Adds {
    /// One file of so many bytes.
    pub(crate) fn file(owner: u32, bytes: u64) -> Self {
        Self([(owner, Amount::file(bytes))].into())
    }

    /// So many bytes more of a file.
    pub(crate) fn bytes(owner: u32, bytes: u64) -> Self {
        Self([(owner, Amount::bytes(bytes))].into())
    }

    /// What a file counts more when its bytes change from the one to the other.
    pub(crate) fn change(owner: u32, before: u64, now: u64) -> Self {
        Self([(owner, Amount::change(before, now))].into())
    }

    /// What a node counts as; nothing when it has no row.
    pub(crate) fn of(node: &Node) -> Self {
        match node {
            Node::Row { inode, .. } if inode.kind == Kind::File => Self::file(inode.uid, inode.size),
            _ => Self::default(),
        }
    }

    pub(crate) fn plus(mut self, other: Self) -> Self {
        for (owner, amount) in other.0 {
            let of = self.0.entry(owner).or_default();
            *of = of.plus(amount);
        }
        self
    }

    pub(crate) fn minus(mut self, other: Self) -> Self {
        for (owner, amount) in other.0 {
            let of = self.0.entry(owner).or_default();
            *of = of.minus(amount);
        }
        self
    }

    /// Orders what makes room before what needs it.
    pub(crate) fn needs(&self) -> (i64, i64) {
        let total = self.total();
        (total.bytes, total.files)
    }

    fn total(&self) -> Amount {
        self.0.values().copied().fold(Amount::default(), Amount::plus)
    }

    fn of_user(&self, user: Option<u32>) -> Amount {
        match user {
            Some(user) => self.0.get(&user).copied().unwrap_or_default(),
            None => self.total(),
        }
    }
}

impl Share {
    /// The commit was made: the share stays taken.
    pub(crate) fn keep(mut self) {
        for (quota, amount) in self.0.drain(..) {
            let mut used = quota.used.lock();
            used.pending = used.pending.minus(amount);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        for (quota, amount) in self.0.drain(..) {
            quota.add(Amount::default().minus(amount));
            let mut used = quota.used.lock();
            used.pending = used.pending.minus(amount);
        }
    }
}

impl Users {
    fn quota(&self, user: u32) -> Arc<Quota> {
        let mut quotas = self.quotas.lock();
        if quotas.len() >= USERS_MAX && !quotas.contains_key(&user) {
            quotas.retain(|_, quota| Arc::strong_count(quota) > 1);
        }
        let quota = quotas
            .entry(user)
            .or_insert_with(|| Arc::new(Quota::new(&self.path, Some(user), Arc::clone(&self.limits))));
        Arc::clone(quota)
    }
}

impl AtPath {
    /// Those that `adds` concerns, with what it adds to each.
    fn concerned(&self, adds: &Adds) -> Vec<(Arc<Quota>, Amount)> {
        let of_all = self.of_all.iter().map(|quota| (Arc::clone(quota), adds.total()));
        let of_each = self.of_each.iter().flat_map(|users| {
            let named = adds
                .0
                .iter()
                .filter(|(owner, amount)| **owner != NOBODYS && **amount != Amount::default());
            named.map(|(owner, amount)| (users.quota(*owner), *amount))
        });
        of_all.chain(of_each).collect()
    }

    /// Those that anything is known of.
    fn known(&self) -> Vec<Arc<Quota>> {
        let of_each = self.of_each.iter().flat_map(|users| {
            let quotas = users.quotas.lock();
            quotas.values().cloned().collect::<Vec<_>>()
        });
        self.of_all.iter().cloned().chain(of_each).collect()
    }
}

impl Used {
    fn begin_count(&mut self) {
        (self.since, self.stale) = (self.pending, false);
    }

    fn end_count(&mut self, counted: Amount, at: Duration) {
        self.now = counted.plus(self.since);
        self.counted = Some(at);
        // What was taken meanwhile may be in the count too.
        self.stale |= self.since != Amount::default();
    }
}

impl Quota {
    fn new(path: &Path, user: Option<u32>, limits: Arc<Mutex<Amount>>) -> Self {
        Self {
            path: path.clone(),
            user,
            limits,
            used: Mutex::default(),
            counting: tokio::sync::Mutex::default(),
        }
    }

    fn add(&self, amount: Amount) {
        let mut used = self.used.lock();
        used.now = used.now.plus(amount);
        used.since = used.since.plus(amount);
    }

    /// Takes `amount` when it fits, and whatever makes less of it.
    fn take(&self, amount: Amount) -> bool {
        let limits = *self.limits.lock();
        let mut used = self.used.lock();
        let then = used.now.plus(amount);
        let fits =
            (amount.bytes <= 0 || then.bytes <= limits.bytes) && (amount.files <= 0 || then.files <= limits.files);
        if fits {
            used.now = then;
            used.since = used.since.plus(amount);
            used.pending = used.pending.plus(amount);
        }
        fits
    }

    fn refusal(&self, path: &Path, amount: Amount) -> Error {
        let (limits, used) = (*self.limits.lock(), self.used.lock().now);
        let size = |bytes: i64| ByteSize(bytes.max(0).unsigned_abs()).rounded();
        let over_bytes = used.bytes.saturating_add(amount.bytes) > limits.bytes;
        let (bytes, files, whose) = match self.user {
            Some(user) => ("user_quota_bytes", "user_quota_files", format!(" for user {user}")),
            None => ("quota_bytes", "quota_files", String::new()),
        };
        let (key, used, most, more) = match over_bytes {
            true => (bytes, size(used.bytes), size(limits.bytes), size(amount.bytes)),
            false => (
                files,
                format!("{} files", used.files),
                limits.files.to_string(),
                amount.files.to_string(),
            ),
        };
        Error::full(format!(
            "{path}: {key} of {} is reached{whose}: {used} of {most} are there, and this needs {more} more; delete something there, or raise {key}",
            self.path
        ))
    }
}

impl Quotas {
    /// Those of the table.
    pub(crate) fn of(table: &Table) -> Self {
        let quotas = Self::default();
        quotas.follow(table);
        quotas
    }

    /// Takes over what the table says now; counts are kept.
    pub(crate) fn follow(&self, table: &Table) {
        let before = Arc::clone(&self.0.read());
        let mut quotas = BTreeMap::new();
        for (path, set) in table.iter() {
            let known = before.get(path).cloned().unwrap_or_default();
            let of_all = limits(set, Key::QuotaBytes, Key::QuotaFiles).map(|limits| {
                let quota = known
                    .of_all
                    .unwrap_or_else(|| Arc::new(Quota::new(path, None, Arc::default())));
                *quota.limits.lock() = limits;
                quota
            });
            let of_each = limits(set, Key::UserQuotaBytes, Key::UserQuotaFiles).map(|limits| {
                let users = known.of_each.unwrap_or_else(|| {
                    Arc::new(Users {
                        path: path.clone(),
                        limits: Arc::default(),
                        quotas: Mutex::default(),
                    })
                });
                *users.limits.lock() = limits;
                users
            });
            if of_all.is_some() || of_each.is_some() {
                quotas.insert(path.clone(), AtPath { of_all, of_each });
            }
        }
        *self.0.write() = Arc::new(quotas);
    }

    /// Those that are set at `path` and above.
    fn along(&self, path: &Path) -> Vec<AtPath> {
        self.among(path, |_| true)
    }

    /// The same, of the paths for which `holds` does.
    fn among(&self, path: &Path, holds: impl Fn(&Path) -> bool) -> Vec<AtPath> {
        let quotas = Arc::clone(&self.0.read());
        if quotas.is_empty() {
            return Vec::new();
        }
        let above = (0..=path.components().len()).map(|depth| path.prefix(depth));
        let above = above.filter(|at| holds(at));
        above.filter_map(|at| quotas.get(&at).cloned()).collect()
    }

    /// Whether what lies at `path` counts for its owner.
    fn count_users(&self, path: &Path) -> bool {
        self.along(path).iter().any(|at| at.of_each.is_some())
    }

    /// What is at `path` counts so much more, or less, now, and nobody may refuse it.
    pub(crate) fn changed(&self, path: &Path, adds: &Adds) {
        let concerned = self.along(path).into_iter().flat_map(|at| at.concerned(adds));
        concerned.for_each(|(quota, amount)| quota.add(amount));
    }

    /// Something under `path` is gone.
    pub(crate) fn gone(&self, path: &Path) {
        for quota in self.along(path).iter().flat_map(AtPath::known) {
            quota.used.lock().stale = true;
        }
    }
}

/// What the two keys set; none: neither does.
fn limits(set: &Set, bytes: Key, files: Key) -> Option<Amount> {
    let bytes = match set.get(bytes) {
        Some(Value::QuotaBytes(size) | Value::UserQuotaBytes(size)) => size.map(|size| signed(size.bytes)),
        _ => None,
    };
    let files = match set.get(files) {
        Some(Value::QuotaFiles(count) | Value::UserQuotaFiles(count)) => count.map(signed),
        _ => None,
    };
    (bytes.is_some() || files.is_some()).then(|| Amount {
        bytes: bytes.unwrap_or(i64::MAX),
        files: files.unwrap_or(i64::MAX),
    })
}

impl Cache {
    /// Whether files at `path` count for whoever owns them, so that a door gives them to the user who writes.
    pub fn counts_users(&self, path: &Path) -> bool {
        self.inner.quotas.count_users(path)
    }
}

impl Inner {
    /// Takes a share of every quota along `path` for a change of files there. Full when one has not so much left.
    pub(crate) async fn take_share(&self, path: &Path, adds: &Adds) -> Result<Share> {
        let concerned = self.quotas.along(path).into_iter().flat_map(|at| at.concerned(adds));
        self.take_of(concerned.collect(), path).await
    }

    /// Refuses what could not be committed anyway.
    pub(crate) async fn check_share(&self, path: &Path, adds: &Adds) -> Result<()> {
        self.take_share(path, adds).await.map(drop)
    }

    /// Commits what the share was taken for.
    pub(crate) async fn commit_with(&self, plan: Plan, share: Share) -> Result<()> {
        self.commit_with_all(plan, vec![share]).await
    }

    /// Commits what all the shares were taken for.
    pub(crate) async fn commit_with_all(&self, plan: Plan, shares: Vec<Share>) -> Result<()> {
        let committed = self.commit(plan).await.map(drop);
        // One that is unknown may have come through: rather too much is counted, until the next count.
        if committed
            .as_ref()
            .err()
            .is_none_or(|error| error.kind() == ErrorKind::Deadline)
        {
            shares.into_iter().for_each(Share::keep);
        }
        committed
    }

    /// The share that a rename takes of quotas that did not hold for what it moves.
    pub(crate) async fn take_share_of_move(&self, from: &Path, to: &Path) -> Result<Share> {
        let quotas = self.quotas.among(to, |at| !from.starts_with(at));
        if quotas.is_empty() {
            return Ok(Share::default());
        }
        let adds = self.count_rows(from).await?;
        let concerned = quotas.iter().flat_map(|at| at.concerned(&adds));
        self.take_of(concerned.collect(), to).await
    }

    async fn take_of(&self, quotas: Vec<(Arc<Quota>, Amount)>, path: &Path) -> Result<Share> {
        let mut share = Share::default();
        for (quota, amount) in quotas {
            let counted = quota.used.lock().counted.is_some();
            if !counted {
                self.count(&quota).await?;
            }
            if !quota.take(amount) {
                self.count_anew(&quota).await?;
                if !quota.take(amount) {
                    return Err(quota.refusal(path, amount));
                }
            }
            share.0.push((quota, amount));
        }
        Ok(share)
    }

    async fn count_anew(&self, quota: &Quota) -> Result<()> {
        let now = self.components.clock.monotonic();
        let worth_it = {
            let used = quota.used.lock();
            used.stale || used.counted.is_none_or(|counted| now >= counted + GOOD_FOR)
        };
        match worth_it {
            true => self.count(quota).await,
            false => Ok(()),
        }
    }

    async fn count(&self, quota: &Quota) -> Result<()> {
        let _one = quota.counting.lock().await;
        let now = self.components.clock.monotonic();
        quota.used.lock().begin_count();
        let counted = self.count_rows(&quota.path).await?;
        quota.used.lock().end_count(counted.of_user(quota.user), now);
        Ok(())
    }

    /// Files with rows at `path` or under it.
    async fn count_rows(&self, path: &Path) -> Result<Adds> {
        let node = match self.names.resolve(path).await {
            Err(NsError::NotFound(_) | NsError::NotADirectory(_)) | Ok(None) => return Ok(Adds::default()),
            Err(error) => return Err(error.into()),
            Ok(Some(node)) => node,
        };
        let mut sum = Adds::of(&node);
        let mut dirs: Vec<Ino> = node.ino().filter(|_| node.is_dir()).into_iter().collect();
        while let Some(dir) = dirs.pop() {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = self.names.rows_in(dir, after.as_deref(), PAGE).await?;
                for (_, ino, inode) in &page {
                    match inode.kind {
                        Kind::File => sum = sum.plus(Adds::file(inode.uid, inode.size)),
                        Kind::Dir { .. } => dirs.push(*ino),
                        _ => {}
                    }
                }
                match page.last() {
                    Some((name, ..)) => after = Some(name.clone()),
                    None => break,
                }
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_forgets_no_share_of_a_commit_that_is_under_way() {
        let limit = Amount { bytes: 10, files: 10 };
        let quota = Arc::new(Quota::new(&Path::root(), None, Arc::new(Mutex::new(limit))));
        let share = |bytes| {
            let amount = Amount::file(bytes);
            quota.take(amount).then(|| Share(vec![(Arc::clone(&quota), amount)]))
        };
        let before = share(6).unwrap();
        quota.used.lock().begin_count();
        let meanwhile = share(2).unwrap();
        quota.used.lock().end_count(Amount::default(), Duration::ZERO);
        assert!(share(3).is_none(), "8 of 10 are taken");
        before.keep();
        quota.used.lock().begin_count();
        quota.used.lock().end_count(Amount::file(6), Duration::ZERO);
        assert!(share(3).is_none());
        drop(meanwhile);
        share(4).unwrap().keep();
        assert_eq!(quota.used.lock().pending, Amount::default());
    }

    #[test]
    fn amounts_do_not_overflow() {
        let all = Amount::file(u64::MAX);
        assert_eq!(all.plus(all).bytes, i64::MAX);
        assert_eq!(all.minus(all), Amount::default());
    }
}
