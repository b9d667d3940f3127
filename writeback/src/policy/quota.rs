//! Quotas: how much may lie under a path.
//!
//! What counts are files that have a row: everything that is dirty, and what was persisted and is still known here. What only the
//! under-store knows does not count. A write takes its share of every quota along its path before its commit, and gives it back when
//! the commit fails. The count is taken from the rows when it is first needed and kept from then on; what it can not follow (a
//! delete, a file that was forgotten after it was persisted) makes it too high, so it is taken anew before anything is refused for
//! it. A write that is under way when the count is taken may count twice until the next one.
//!
//! The clean cache is held to the same number of bytes by making room (`clean`).

use crate::{Error, ErrorKind, Result, cache::Inner};
use forebay_namespace::{Ino, Kind, Node, NsError, Path, Plan};
use forebay_policy::{Key, Table, Value};
use forebay_runtime::units::ByteSize;
use parking_lot::{Mutex, RwLock};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A count that nothing is known against is good for this long before it is taken anew for a refusal.
const GOOD_FOR: Duration = Duration::from_secs(2);
/// Rows of one page of a count.
const PAGE: usize = 500;

/// The quotas that are set.
#[derive(Debug, Default)]
pub(crate) struct Quotas(RwLock<Arc<BTreeMap<Path, Arc<Quota>>>>);

#[derive(Debug)]
struct Quota {
    path: Path,
    limits: Mutex<Amount>,
    used: Mutex<Used>,
    counting: tokio::sync::Mutex<()>,
}

/// Bytes and files. Of a limit the largest numbers are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) bytes: i64,
    pub(crate) files: i64,
}

#[derive(Debug, Default)]
struct Used {
    now: Amount,
    /// Taken since the count began that is under way.
    since: Amount,
    counted: Option<Duration>,
    /// Something is known to have gone since.
    stale: bool,
}

/// A share of the quotas along a path. Dropped, it is given back.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Share {
    of: Vec<Arc<Quota>>,
    amount: Amount,
}

impl Amount {
    /// One file of so many bytes.
    pub(crate) fn file(bytes: u64) -> Self {
        Self {
            bytes: signed(bytes),
            files: 1,
        }
    }

    /// So many bytes more of a file.
    pub(crate) fn bytes(bytes: u64) -> Self {
        Self {
            bytes: signed(bytes),
            files: 0,
        }
    }

    /// What a file counts more when its bytes change from the one to the other.
    pub(crate) fn change(before: u64, now: u64) -> Self {
        Self::bytes(now).minus(Self::bytes(before))
    }

    /// What a node counts as; nothing when it has no row.
    pub(crate) fn of(node: &Node) -> Self {
        match node {
            Node::Row { inode, .. } if inode.kind == Kind::File => Self::file(inode.size),
            _ => Self::default(),
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            files: self.files.saturating_add(other.files),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            files: self.files.saturating_sub(other.files),
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Share {
    /// The commit was made: the share stays taken.
    pub(crate) fn keep(mut self) {
        self.of.clear();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        for quota in self.of.drain(..) {
            quota.add(Amount::default().minus(self.amount));
        }
    }
}

impl Quota {
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
        }
        fits
    }

    fn refusal(&self, path: &Path, amount: Amount) -> Error {
        let (limits, used) = (*self.limits.lock(), self.used.lock().now);
        let size = |bytes: i64| ByteSize(bytes.max(0).unsigned_abs()).rounded();
        let over_bytes = used.bytes.saturating_add(amount.bytes) > limits.bytes;
        let (key, used, most, more) = match over_bytes {
            true => ("quota_bytes", size(used.bytes), size(limits.bytes), size(amount.bytes)),
            false => (
                "quota_files",
                format!("{} files", used.files),
                limits.files.to_string(),
                amount.files.to_string(),
            ),
        };
        Error::full(format!(
            "{path}: {key} of {} is reached: {used} of {most} are there, and this needs {more} more; delete something there, or raise {key}",
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
            let bytes = match set.get(Key::QuotaBytes) {
                Some(Value::QuotaBytes(Some(size))) => Some(size.bytes),
                _ => None,
            };
            let files = match set.get(Key::QuotaFiles) {
                Some(Value::QuotaFiles(count)) => *count,
                _ => None,
            };
            if bytes.is_none() && files.is_none() {
                continue;
            }
            let limits = Amount {
                bytes: bytes.map_or(i64::MAX, signed),
                files: files.map_or(i64::MAX, signed),
            };
            let quota = before.get(path).cloned().unwrap_or_else(|| {
                Arc::new(Quota {
                    path: path.clone(),
                    limits: Mutex::default(),
                    used: Mutex::default(),
                    counting: tokio::sync::Mutex::default(),
                })
            });
            *quota.limits.lock() = limits;
            quotas.insert(path.clone(), quota);
        }
        *self.0.write() = Arc::new(quotas);
    }

    /// Those that hold for `path`.
    fn along(&self, path: &Path) -> Vec<Arc<Quota>> {
        let quotas = Arc::clone(&self.0.read());
        if quotas.is_empty() {
            return Vec::new();
        }
        let depths = 0..=path.components().len();
        depths
            .filter_map(|depth| quotas.get(&path.prefix(depth)).cloned())
            .collect()
    }

    /// What is at `path` counts so much more, or less, now, and nobody may refuse it.
    pub(crate) fn changed(&self, path: &Path, amount: Amount) {
        self.along(path).iter().for_each(|quota| quota.add(amount));
    }

    /// Something under `path` is gone.
    pub(crate) fn gone(&self, path: &Path) {
        for quota in self.along(path) {
            quota.used.lock().stale = true;
        }
    }
}

impl Inner {
    /// Takes a share of every quota along `path` for a change that adds `amount`. Full when one has not so much left.
    pub(crate) async fn take_share(&self, path: &Path, amount: Amount) -> Result<Share> {
        self.take_of(self.quotas.along(path), path, amount).await
    }

    /// Refuses what could not be committed anyway.
    pub(crate) async fn check_share(&self, path: &Path, amount: Amount) -> Result<()> {
        self.take_share(path, amount).await.map(drop)
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
        let mut quotas = self.quotas.along(to);
        quotas.retain(|quota| !from.starts_with(&quota.path));
        if quotas.is_empty() {
            return Ok(Share::default());
        }
        let amount = self.count_rows(from).await?;
        self.take_of(quotas, to, amount).await
    }

    async fn take_of(&self, quotas: Vec<Arc<Quota>>, path: &Path, amount: Amount) -> Result<Share> {
        let mut share = Share { of: Vec::new(), amount };
        for quota in quotas {
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
            share.of.push(quota);
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
        {
            let mut used = quota.used.lock();
            (used.since, used.stale) = (Amount::default(), false);
        }
        let counted = self.count_rows(&quota.path).await?;
        let mut used = quota.used.lock();
        let since = used.since;
        used.now = counted.plus(since);
        used.counted = Some(now);
        // What was taken meanwhile may be in the count too.
        used.stale |= since != Amount::default();
        Ok(())
    }

    /// Files with rows at `path` or under it.
    async fn count_rows(&self, path: &Path) -> Result<Amount> {
        let node = match self.names.resolve(path).await {
            Err(NsError::NotFound(_) | NsError::NotADirectory(_)) | Ok(None) => return Ok(Amount::default()),
            Err(error) => return Err(error.into()),
            Ok(Some(node)) => node,
        };
        let mut sum = Amount::of(&node);
        let mut dirs: Vec<Ino> = node.ino().filter(|_| node.is_dir()).into_iter().collect();
        while let Some(dir) = dirs.pop() {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = self.names.rows_in(dir, after.as_deref(), PAGE).await?;
                for (_, ino, inode) in &page {
                    match inode.kind {
                        Kind::File => sum = sum.plus(Amount::file(inode.size)),
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
    fn amounts_do_not_overflow() {
        let all = Amount::file(u64::MAX);
        assert_eq!(all.plus(all).bytes, i64::MAX);
        assert_eq!(all.minus(all), Amount::default());
    }
}
