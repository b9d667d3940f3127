//! Arrow parts that become Parquet before they are persisted: which files are such parts, what they become, and what a dataset's rows
//! say of them from then on.
//!
//! The new part has the batches and rows of the old one in their order, its number and its place in the version: only its file is
//! another one, under a name that ends in `.parquet`. So resume tokens and tickets that name the old file stay good: a part is found by
//! its session and number, whatever its file is by now (`read`). Parts of versions that were overwritten are left alone, since the
//! sweep takes their names away.
//!
//! It does not own when that happens, nor the transaction (`persist`).

use super::{
    Compression, Format, SessionId,
    foreign::{Parsed, session_in_name},
    ipc::index,
    parquet::{self, ParquetIndex, check_schema},
    part_writer::GENERATION,
    publish::part_name,
    source::Source,
    versions::{Part, version_of},
};
use crate::{
    Cache, Error, Result,
    cache::Inner,
    file::SealedContent,
    rows::{self, PartRow, PartState, SessionEnd, VersionRow},
};
use forebay_metastore::Check;
use forebay_namespace::{Ino, Path, Plan};
use forebay_runtime::{clock::Timestamp, task, units::ByteSize};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Datasets of which parts that were left as they are are told.
const LEFT_MAX: usize = 100;

/// An Arrow part of a published version, as its rows are.
#[derive(Clone, Debug)]
pub(crate) struct ArrowPart {
    part: Part,
    /// The dataset's directory.
    dir: Ino,
    /// The version that added it.
    version: u64,
    /// What its session asked for.
    compression: Option<Compression>,
}

/// Parts of a dataset that go to the under-store as they are, although a policy wants another form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconverted {
    /// The dataset.
    pub path: Path,
    /// Why, of the last one.
    pub reason: String,
    /// When that was.
    pub since: Timestamp,
    /// How many.
    pub parts: u64,
}

/// Those since the start; of many datasets the latest.
#[derive(Debug, Default)]
pub(crate) struct Left {
    datasets: Mutex<BTreeMap<Path, Unconverted>>,
    parts: AtomicU64,
}

impl Left {
    /// One part more.
    fn add(&self, path: &Path, reason: String, now: Timestamp) {
        self.parts.fetch_add(1, Ordering::Relaxed);
        let mut left = self.datasets.lock();
        let known = left.remove(path).map_or(0, |known| known.parts);
        while left.len() >= LEFT_MAX
            && let Some(oldest) = left.values().min_by_key(|one| one.since).map(|one| one.path.clone())
        {
            left.remove(&oldest);
        }
        let one = Unconverted {
            path: path.clone(),
            reason,
            since: now,
            parts: known + 1,
        };
        left.insert(path.clone(), one);
    }
}

impl Cache {
    /// Datasets of which parts went to the under-store as they are since the start although `persist_format` is another one: a type that
    /// Parquet can not hold, too much app_metadata, or no room to encode them. Of more than a hundred the latest.
    pub fn unconverted(&self) -> Vec<Unconverted> {
        self.inner.datasets.left.datasets.lock().values().cloned().collect()
    }
}

impl ArrowPart {
    /// The name of the file that it becomes.
    pub(crate) fn parquet_name(&self) -> Vec<u8> {
        part_name(self.part.position, &self.part.session.0, Format::Parquet)
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.part.bytes
    }
}

impl Inner {
    /// The part of a published version that the file `ino` at `path` is, when it is Arrow and lies where it was published.
    pub(crate) async fn arrow_part(&self, ino: Ino, path: &Path) -> Result<Option<ArrowPart>> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Ok(None);
        };
        let Some(session) = session_in_name(name) else {
            return Ok(None);
        };
        let Some((row, ..)) = self.session_row(&session).await? else {
            return Ok(None);
        };
        let Some(SessionEnd::Published { dir, version }) = row.end else {
            return Ok(None);
        };
        let dir = Ino(dir);
        if self.names.path_of(dir).await?.as_ref() != Some(&parent) || !self.is_in_head(dir, version).await? {
            return Ok(None);
        }
        let parts = self.session_parts(&session).await?;
        let is_it = |part: &Part| part.ino == ino.0 && part.format == Format::Arrow && part.name() == name;
        Ok(parts.into_iter().find(is_it).map(|part| ArrowPart {
            part,
            dir,
            version,
            compression: row.spec.compression,
        }))
    }

    /// Whether the head goes on from this version.
    async fn is_in_head(&self, dir: Ino, version: u64) -> Result<bool> {
        let Some((head, _)) = self.head_entry(dir).await? else {
            return Ok(false);
        };
        Ok(self.version_row(dir, head.version).await?.base <= version)
    }

    /// Encodes a part as Parquet, into a content of its own that is compared with the part. The error says why it stays as it is.
    pub(crate) async fn parquet_of(self: &Arc<Self>, part: &ArrowPart, path: &Path) -> Result<SealedContent> {
        let ArrowPart { part, compression, .. } = part;
        if !self.dirty.has_room_for(part.bytes)? {
            let bytes = ByteSize(part.bytes).rounded();
            return Err(Error::full(format!("the disk has no room for {bytes} more")));
        }
        let reader = self.read_inode(Ino(part.ino), part.generation).await?;
        let source = Source::File {
            reader,
            name: path.to_string(),
        };
        let Some(Parsed::Arrow { index, .. }) = self.parsed(&source).await? else {
            return Err(Error::data_loss("it is no Arrow file any more"));
        };
        let schema = Arc::clone(&index.schema.schema);
        task::blocking(move || check_schema(&schema)).await?;
        let content = self.persisters_writer(self.fresh_ino().await?, GENERATION, None);
        let encoding = self.encoding(path, *compression).with_app_metadata();
        let items = index::items(source, Arc::clone(&index), 0);
        let sealed = parquet::encode(content, &index.schema, items, encoding).await?;
        let encoded = Source::Sealed {
            reader: self.segments.reader(sealed.stream(), &sealed.layout)?,
            stream: sealed.stream(),
        };
        let read = ParquetIndex::read(&encoded).await?;
        let same = (read.batches(), read.rows()) == (part.batches, part.rows);
        match read.schema.agrees(&index.schema.schema) {
            Ok(()) if same => Ok(sealed),
            Ok(()) => Err(Error::internal("the encoded file has other batches than the part")),
            Err(difference) => Err(Error::invalid(format!("it would come back changed: {difference}"))),
        }
    }

    /// Adds what a dataset's rows say of the part from now on. Lost when it is not as it was any more. Then [`Inner::part_converted`].
    pub(crate) async fn plan_part_converted(
        &self,
        plan: &mut Plan,
        part: &ArrowPart,
        sealed: &SealedContent,
    ) -> Result<RangeInclusive<u64>> {
        let ArrowPart { part, dir, version, .. } = part;
        self.plan_part_row(plan, part, sealed).await?;
        let (head, entry) = self.head_entry(*dir).await?.ok_or_else(Error::lost)?;
        // The same again: whoever publishes meanwhile, or takes another part, plans anew.
        plan.check(Check::At(rows::head_key(*dir), entry.version))
            .put(rows::head_key(*dir), rows::encode(&head));
        // What is older than the oldest that is kept is not shown; what is appended goes on from the newest.
        let shown = (*version).max(head.oldest)..=head.version;
        let range = rows::version_key(*dir, *shown.start())..rows::version_key(*dir, head.version + 1);
        for (key, entry) in self.scan_range(range).await? {
            let mut row: VersionRow = rows::decode(&entry.value)?;
            if row.base > *version {
                return Err(Error::lost());
            }
            debug_assert!(version_of(&key).is_ok_and(|of| shown.contains(&of)));
            row.bytes = row.bytes.saturating_sub(part.bytes).saturating_add(sealed.len);
            plan.put(key, rows::encode(&row));
        }
        Ok(*version..=head.version)
    }

    async fn plan_part_row(&self, plan: &mut Plan, part: &Part, sealed: &SealedContent) -> Result<()> {
        let key = rows::part_key(&part.session.0, part.number);
        let found = self
            .components
            .meta
            .get(std::slice::from_ref(&key))
            .await?
            .pop()
            .flatten();
        let entry = found.ok_or_else(Error::lost)?;
        let row: PartRow = rows::decode(&entry.value)?;
        let PartState::Sealed { whole, .. } = row.state else {
            return Err(Error::lost());
        };
        if (row.ino, row.generation) != (part.ino, part.generation) {
            return Err(Error::lost());
        }
        let row = PartRow {
            ino: sealed.stream().0,
            generation: GENERATION,
            format: Format::Parquet,
            state: PartState::Sealed {
                layout: sealed.layout.clone(),
                crc: sealed.crc,
                rows: part.rows,
                batches: part.batches,
                bytes: sealed.len,
                whole,
            },
            ..row
        };
        plan.check(Check::At(key.clone(), entry.version))
            .put(key, rows::encode(&row));
        Ok(())
    }

    /// After the commit: what is remembered of these versions is read anew.
    pub(crate) fn part_converted(&self, part: &ArrowPart, versions: RangeInclusive<u64>) {
        self.datasets.versions.changed(part.dir, versions);
    }

    /// The part goes to the under-store as it is, which people are told.
    pub(crate) fn part_left(&self, path: &Path, reason: &Error) {
        tracing::warn!(
            %path,
            %reason,
            "a part goes to the under-store as it is, not as Parquet, which the policy persist_format asks for"
        );
        let dataset = path.parent().unwrap_or_default();
        let now = self.components.clock.now();
        self.datasets.left.add(&dataset, reason.to_string(), now);
    }

    /// Parts that were left as they are since the start.
    pub(crate) fn parts_left(&self) -> u64 {
        self.datasets.left.parts.load(Ordering::Relaxed)
    }

    /// Whether a part is another file by now than this one.
    pub(super) async fn is_other_file(&self, session: &SessionId, number: u32, ino: u64) -> Result<bool> {
        let key = rows::part_key(&session.0, number);
        let found = self.components.meta.get(&[key]).await?.pop().flatten();
        let row = found.map(|entry| rows::decode::<PartRow>(&entry.value)).transpose()?;
        Ok(row.is_some_and(|row| row.ino != ino))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_datasets_the_latest_are_told() {
        let left = Left::default();
        let path = |n: usize| Path::parse(format!("/d{n}").as_bytes()).unwrap();
        for n in 0..LEFT_MAX {
            left.add(&path(n), "first".into(), Timestamp(n as i64));
        }
        left.add(&path(0), "again".into(), Timestamp(1000));
        left.add(&path(500), "new".into(), Timestamp(1001));
        let told = left.datasets.lock();
        assert_eq!(told.len(), LEFT_MAX);
        assert_eq!((told[&path(0)].parts, told[&path(0)].reason.as_str()), (2, "again"));
        assert!(told.contains_key(&path(500)) && !told.contains_key(&path(1)));
    }
}
