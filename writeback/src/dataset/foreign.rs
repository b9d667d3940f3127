//! Datasets that others wrote: directories of Arrow and Parquet files without a head row, and single such files.
//!
//! Names that begin with `_` or `.` are aside. Folders `k=v` are walked into and become string columns behind the files' own
//! (`__HIVE_DEFAULT_PARTITION__` is null). A published dataset in such a folder counts with its head version. Which files of a
//! directory are data is told by their extensions; where no name has an extension, by their first bytes.

use super::{
    DatasetPlan, Format, PartRef, SessionId,
    instants::LOOKS,
    ipc::{
        index::{self, Index},
        schema::StoredSchema,
    },
    parquet::{self, ParquetIndex},
    publish::SUCCESS,
    source::Source,
    versions::Part,
};
use crate::{
    Error, Result,
    cache::Inner,
    rows::{Content, SessionEnd},
};
use arrow_schema::Schema;
use forebay_namespace::{Ino, Inode, Kind, LIST_PAGE_MAX, Node, NsError, Path};
use futures::stream::{self, StreamExt, TryStreamExt};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

/// Files of one such dataset.
const FILES_MAX: usize = 100_000;
/// Levels of `k=v` folders.
const FOLDERS_MAX: usize = 16;
/// Files whose footers are read at once.
const PARALLEL: usize = 8;
/// Files without an extension whose first bytes are looked at before a directory is said to be no dataset.
const SNIFFED_MAX: usize = 16;
/// Hive's name of a null.
const HIVE_NULL: &[u8] = b"__HIVE_DEFAULT_PARTITION__";

/// What was parsed from a file's footer.
#[derive(Clone, Debug)]
pub(super) enum Parsed {
    /// Arrow: where its messages lie, and its rows when they were counted.
    Arrow { index: Arc<Index>, rows: Option<u64> },
    /// Parquet.
    Parquet(Arc<ParquetIndex>),
}

impl Parsed {
    pub(super) fn schema(&self) -> &StoredSchema {
        match self {
            Parsed::Arrow { index, .. } => &index.schema,
            Parsed::Parquet(index) => &index.schema,
        }
    }

    fn batches(&self) -> u64 {
        match self {
            Parsed::Arrow { index, .. } => index.batches(),
            Parsed::Parquet(index) => index.batches(),
        }
    }

    pub(super) fn format(&self) -> Format {
        match self {
            Parsed::Arrow { .. } => Format::Arrow,
            Parsed::Parquet(_) => Format::Parquet,
        }
    }

    /// Bytes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Parsed::Arrow { index, .. } => index.bytes(),
            Parsed::Parquet(index) => index.bytes(),
        }
    }
}

/// Something that a directory of files holds.
#[derive(Clone, Debug)]
enum Found {
    File {
        path: Path,
        node: Node,
        partition: Partition,
    },
    Published {
        path: Path,
        dir: Ino,
        version: u64,
        partition: Partition,
    },
}

/// Columns that folder names add.
type Partition = Vec<(String, Option<String>)>;

impl Inner {
    /// Parses a file's footer, from memory when it was before. `None`: neither Arrow nor Parquet.
    pub(super) async fn parsed(&self, source: &Source) -> Result<Option<Parsed>> {
        let identity = source.identity();
        if let Some(parsed) = self.datasets.indexes.get(&identity) {
            return Ok(Some(parsed));
        }
        let parsed = match index::Kind::of(source).await? {
            None => return Ok(None),
            Some(index::Kind::Parquet) => Parsed::Parquet(Arc::new(ParquetIndex::read(source).await?)),
            Some(kind) => Parsed::Arrow {
                index: Arc::new(Index::read(source, kind).await?),
                rows: None,
            },
        };
        self.datasets.indexes.insert(identity, parsed.clone());
        Ok(Some(parsed))
    }

    /// As [`Inner::parsed`], with the rows counted.
    async fn counted(&self, source: &Source) -> Result<Option<(Parsed, u64)>> {
        match self.parsed(source).await? {
            None => Ok(None),
            Some(Parsed::Parquet(index)) => {
                let rows = index.rows();
                Ok(Some((Parsed::Parquet(index), rows)))
            }
            Some(Parsed::Arrow { index, rows }) => {
                let rows = match rows {
                    Some(rows) => rows,
                    None => index.rows(source).await?,
                };
                let parsed = Parsed::Arrow {
                    index,
                    rows: Some(rows),
                };
                self.datasets.indexes.insert(source.identity(), parsed.clone());
                Ok(Some((parsed, rows)))
            }
        }
    }

    /// The dataset that one file is. Precondition: it is neither Arrow nor Parquet.
    pub(super) async fn file_plan(self: &Arc<Self>, path: &Path, node: &Node) -> Result<DatasetPlan> {
        let found = Found::File {
            path: path.clone(),
            node: node.clone(),
            partition: Vec::new(),
        };
        self.plan_of(path, vec![found]).await
    }

    /// The dataset that a directory of files is. Precondition: it holds none, or files of different schemas.
    pub(super) async fn directory_plan(self: &Arc<Self>, path: &Path) -> Result<DatasetPlan> {
        let found = self.found(path, false).await?;
        self.plan_of(path, found).await
    }

    /// Parts of a directory's files of others, beside a published version that begins with them.
    pub(super) async fn leading_parts(self: &Arc<Self>, path: &Path, schema: &StoredSchema) -> Result<Vec<PartRef>> {
        let found = self.found(path, true).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let plan = self.plan_of(path, found).await?;
        match schema.agrees(&plan.schema) {
            Ok(()) => Ok(plan.parts),
            Err(difference) => Err(Error::precondition(format!(
                "{path}: the files of others have another schema: {difference}"
            ))),
        }
    }

    /// Files that others wrote directly into a directory, at most `limit`.
    pub(super) async fn foreign_files(&self, path: &Path, limit: usize) -> Result<Vec<Path>> {
        let (mut files, mut ours) = (Vec::new(), self.parts_in(path).await?);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.names.list(path, after.as_deref(), LIST_PAGE_MAX).await;
            let page = match page {
                Err(NsError::NotFound(_)) => return Ok(files),
                other => other?,
            };
            let full = page.len() >= LIST_PAGE_MAX;
            after = page.last().map(|(name, _)| name.clone());
            for (name, node) in page {
                if is_file(&node) && is_data(&name) && !self.is_our_part(&mut ours, &name, Leads::of(&node)).await? {
                    files.push(path.join(&name)?);
                    if files.len() >= limit {
                        return Ok(files);
                    }
                }
            }
            if !full {
                return Ok(files);
            }
        }
    }

    /// Whether a directory holds data files, its own or in `k=v` folders.
    pub(super) async fn has_data_files(self: &Arc<Self>, path: &Path) -> Result<bool> {
        let mut folders = vec![(path.clone(), 0)];
        let mut sniffed = 0;
        while let Some((folder, depth)) = folders.pop() {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = self.names.list(&folder, after.as_deref(), LIST_PAGE_MAX).await?;
                let full = page.len() >= LIST_PAGE_MAX;
                after = page.last().map(|(name, _)| name.clone());
                for (name, node) in page.into_iter().filter(|(name, node)| counts(name, node)) {
                    let path = folder.join(&name)?;
                    match (node.is_dir(), has_data_extension(&name)) {
                        (true, _) if depth < FOLDERS_MAX && hive(&name).is_some() => folders.push((path, depth + 1)),
                        (true, _) => {}
                        (false, true) => return Ok(true),
                        (false, false) if !name.contains(&b'.') && sniffed < SNIFFED_MAX => {
                            sniffed += 1;
                            if self.kind_of(&path, &node).await?.is_some() {
                                return Ok(true);
                            }
                        }
                        (false, false) => {}
                    }
                }
                if !full {
                    break;
                }
            }
        }
        Ok(false)
    }

    /// Those of them that have rows in the directory, for which no store is asked.
    pub(super) async fn foreign_rows(&self, dir: Ino, path: &Path, limit: usize) -> Result<Vec<Path>> {
        let (mut files, mut ours) = (Vec::new(), OurParts::of(Some(dir)));
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.names.rows_in(dir, after.as_deref(), LIST_PAGE_MAX).await?;
            let Some((last, ..)) = page.last() else {
                return Ok(files);
            };
            after = Some(last.clone());
            for (name, ino, inode) in page {
                if inode.kind == Kind::File
                    && is_data(&name)
                    && !self.is_our_part(&mut ours, &name, Leads::of_row(ino, &inode)).await?
                {
                    files.push(path.join(&name)?);
                    if files.len() >= limit {
                        return Ok(files);
                    }
                }
            }
        }
    }

    /// What a file is, by its first bytes.
    pub(super) async fn kind_of(self: &Arc<Self>, path: &Path, node: &Node) -> Result<Option<index::Kind>> {
        index::Kind::of(&self.node_source(path, node)?).await
    }

    /// A file's bytes.
    pub(super) fn node_source(self: &Arc<Self>, path: &Path, node: &Node) -> Result<Source> {
        Ok(Source::File {
            reader: self.read_node(path.to_string(), node)?,
            name: path.to_string(),
        })
    }

    /// Everything that counts below a directory, in path order, as it was at one instant of publishes. With `beside` the parts of
    /// ours are left out.
    async fn found(self: &Arc<Self>, path: &Path, beside: bool) -> Result<Vec<Found>> {
        let instants = &self.datasets.instants;
        for _ in 0..LOOKS {
            let before = instants.count().await;
            let found = self.find(path, beside).await;
            if instants.count().await == before {
                return found;
            }
        }
        let _held = instants.hold().await;
        self.find(path, beside).await
    }

    async fn find(self: &Arc<Self>, path: &Path, beside: bool) -> Result<Vec<Found>> {
        let (mut found, mut bare) = (Vec::new(), Vec::new());
        let mut ours = match beside {
            true => self.parts_in(path).await?,
            false => OurParts::of(None),
        };
        let mut folders = vec![(path.clone(), Vec::new(), 0)];
        while let Some((folder, partition, depth)) = folders.pop() {
            let mut below = Vec::new();
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = self.names.list(&folder, after.as_deref(), LIST_PAGE_MAX).await?;
                let full = page.len() >= LIST_PAGE_MAX;
                after = page.last().map(|(name, _)| name.clone());
                for (name, node) in page.into_iter().filter(|(name, node)| counts(name, node)) {
                    // Folders below with a head are taken whole; in all others nothing was published.
                    if depth == 0 && self.is_our_part(&mut ours, &name, Leads::of(&node)).await? {
                        continue;
                    }
                    let path = folder.join(&name)?;
                    let partition: Partition = partition.clone();
                    if !node.is_dir() {
                        let file = Found::File { path, node, partition };
                        if has_data_extension(&name) {
                            found.push(file)
                        } else if !name.contains(&b'.') {
                            bare.push(file)
                        }
                    } else if let Some(pair) = hive(&name).filter(|_| depth < FOLDERS_MAX) {
                        let partition: Partition = partition.into_iter().chain([pair]).collect();
                        match self.head_of(&node).await? {
                            Some(version) => {
                                let dir = node
                                    .ino()
                                    .ok_or_else(|| Error::internal("a head without a directory"))?;
                                found.push(Found::Published {
                                    path,
                                    dir,
                                    version,
                                    partition,
                                });
                            }
                            None => below.push((path, partition, depth + 1)),
                        }
                    }
                }
                if found.len() + bare.len() > FILES_MAX {
                    return Err(Error::precondition(format!(
                        "{path}: more than {FILES_MAX} files; read a folder below it"
                    )));
                }
                if !full {
                    break;
                }
            }
            folders.extend(below.into_iter().rev());
        }
        if found.is_empty() {
            for file in bare {
                if let Found::File { path, node, .. } = &file
                    && self.kind_of(path, node).await?.is_some()
                {
                    found.push(file);
                }
            }
        }
        found.sort_by(|a, b| a.path().cmp(b.path()));
        Ok(found)
    }

    /// The parts that were published in the directory at a path, whatever its path was then.
    pub(crate) async fn parts_in(&self, path: &Path) -> Result<OurParts> {
        let dir = match self.names.resolve(path).await {
            Err(NsError::NotFound(_) | NsError::NotADirectory(_)) => None,
            node => node?.and_then(|node| node.ino()),
        };
        Ok(OurParts::of(dir))
    }

    /// Whether a file in a directory is a part that was published there. Any other file is somebody's, also one that was copied or moved
    /// there with a part's name, and one that was written over a part.
    pub(crate) async fn is_our_part(&self, ours: &mut OurParts, name: &[u8], leads: Leads) -> Result<bool> {
        let (Some(dir), Some((position, session))) = (ours.dir, part_in_name(name)) else {
            return Ok(false);
        };
        let parts = match ours.sessions.entry(session) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let row = self.session_row(new.key()).await?.map(|(row, ..)| row.end);
                let parts = match row.flatten() {
                    Some(SessionEnd::Published { dir: of, .. }) if of == dir.0 => self.session_parts(new.key()).await?,
                    _ => Vec::new(),
                };
                new.insert(parts)
            }
        };
        // The file of before, when it became another one since the name was read.
        Ok(parts
            .get(position)
            .is_some_and(|part| part.name() != name || part.leads(leads)))
    }

    async fn head_of(&self, node: &Node) -> Result<Option<u64>> {
        match node.ino() {
            Some(dir) => Ok(self.head_entry(dir).await?.map(|(head, _)| head.version)),
            None => Ok(None),
        }
    }

    /// One plan over all that was found.
    async fn plan_of(self: &Arc<Self>, path: &Path, found: Vec<Found>) -> Result<DatasetPlan> {
        let opened: Vec<Opened> = stream::iter(found)
            .map(|found| self.open_found(found))
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let mut whole: Option<(StoredSchema, Vec<String>, bool)> = None;
        let mut parts = Vec::new();
        for Opened {
            path: file,
            schema,
            parts: of_file,
            partition,
            canonical,
        } in opened
        {
            let columns: Vec<String> = partition.iter().map(|(name, _)| name.clone()).collect();
            match &whole {
                None => whole = Some((schema, columns, canonical)),
                Some((first, keys, _)) => {
                    if let Err(difference) = first.agrees(&schema.schema) {
                        return Err(Error::precondition(format!(
                            "{file}: another schema than the files before it: {difference}"
                        )));
                    }
                    if *keys != columns {
                        return Err(Error::precondition(format!(
                            "{file}: lies in folders {columns:?}, the files before it in {keys:?}"
                        )));
                    }
                }
            }
            parts.extend(of_file);
        }
        let Some((schema, keys, canonical)) = whole else {
            return Err(Error::precondition(format!("{path}: no Arrow or Parquet files there")));
        };
        let added = keys.into_iter().filter(|key| schema.schema.index_of(key).is_err());
        let added: Vec<String> = added.collect();
        let schema = match (added.is_empty(), canonical) {
            (true, true) => schema,
            _ => {
                let fields = schema.schema.fields().iter().cloned();
                let fields = fields.chain(added.iter().map(|key| Arc::new(parquet::constant_field(key))));
                StoredSchema::encode(&Schema::new_with_metadata(
                    fields.collect::<Vec<_>>(),
                    schema.schema.metadata().clone(),
                ))?
            }
        };
        let parts = parts.into_iter().enumerate();
        let parts = parts
            .map(|(k, part)| PartRef {
                index: u32::try_from(k).unwrap_or(u32::MAX),
                ..part
            })
            .collect();
        Ok(DatasetPlan {
            path: path.clone(),
            schema: Arc::clone(&schema.schema),
            schema_message: schema.message,
            version: None,
            directory: None,
            session: None,
            live: false,
            folders: added,
            parts,
        })
    }

    async fn open_found(self: &Arc<Self>, found: Found) -> Result<Opened> {
        match found {
            Found::Published {
                path,
                dir,
                version,
                partition,
            } => {
                let plan = Box::pin(self.plan_version_of(&path, dir, version)).await?;
                let schema = StoredSchema::parse(&plan.schema_message)?;
                let within = |part: PartRef| PartRef {
                    partition: partition.iter().cloned().chain(part.partition).collect(),
                    ..part
                };
                let parts = plan.parts.into_iter().map(within).collect();
                Ok(Opened {
                    path,
                    schema,
                    parts,
                    partition,
                    canonical: true,
                })
            }
            Found::File { path, node, partition } => {
                let source = self.node_source(&path, &node)?;
                let counted = self.counted(&source).await.map_err(|error| error.at(&path))?;
                let (parsed, rows) = counted
                    .ok_or_else(|| Error::precondition(format!("{path}: is neither an Arrow nor a Parquet file")))?;
                let content = match &node {
                    Node::Row { ino, inode, .. } => Some((ino.0, inode.generation)),
                    Node::Base { .. } => None,
                };
                let part = PartRef {
                    index: 0,
                    path: path.as_bytes(),
                    content,
                    live: None,
                    format: parsed.format(),
                    rows,
                    batches: parsed.batches(),
                    bytes: source.size(),
                    partition: partition.clone(),
                    origin: None,
                };
                let schema = parsed.schema().clone();
                let canonical = schema.is_canonical();
                Ok(Opened {
                    path,
                    schema,
                    parts: vec![part],
                    partition,
                    canonical,
                })
            }
        }
    }
}

/// The parts that were published in one directory, by session and place, as far as names in it were compared with them.
#[derive(Debug)]
pub(crate) struct OurParts {
    /// None were published in what has no row.
    dir: Option<Ino>,
    sessions: HashMap<SessionId, Vec<Part>>,
}

impl OurParts {
    fn of(dir: Option<Ino>) -> Self {
        Self {
            dir,
            sessions: HashMap::new(),
        }
    }
}

/// What a file's name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leads {
    /// The row of this number, with the bytes of a content that only the under-store has.
    Row(Ino, Option<u64>),
    /// So many bytes in the under-store.
    Base(u64),
    /// No file.
    Nothing,
}

impl Leads {
    pub(super) fn of(node: &Node) -> Self {
        match node {
            Node::Row { ino, inode, .. } => Leads::of_row(*ino, inode),
            Node::Base { entry, .. } if !entry.is_dir => Leads::Base(entry.size),
            Node::Base { .. } => Leads::Nothing,
        }
    }

    fn of_row(ino: Ino, inode: &Inode) -> Self {
        let content = (inode.kind == Kind::File).then(|| Content::decode(&inode.content));
        let in_store = matches!(content, Some(Ok(Content::Persisted { layout: None, .. })));
        Leads::Row(ino, in_store.then_some(inode.size))
    }

    /// Bytes of a content that only the under-store has.
    pub(super) fn in_store(self) -> Option<u64> {
        match self {
            Leads::Row(_, bytes) => bytes,
            Leads::Base(bytes) => Some(bytes),
            Leads::Nothing => None,
        }
    }
}

/// A file, or a published dataset, with its parts.
struct Opened {
    path: Path,
    schema: StoredSchema,
    parts: Vec<PartRef>,
    partition: Partition,
    canonical: bool,
}

impl Found {
    fn path(&self) -> &Path {
        match self {
            Found::File { path, .. } | Found::Published { path, .. } => path,
        }
    }
}

/// A published part, as a plan lists it.
pub(super) fn published_ref(dir: &Path, part: &Part) -> Result<PartRef> {
    Ok(PartRef {
        index: 0,
        path: dir.join(&part.name())?.as_bytes(),
        content: Some((part.ino, part.generation)),
        live: None,
        format: part.format,
        rows: part.rows,
        batches: part.batches,
        bytes: part.bytes,
        partition: Vec::new(),
        origin: Some((part.session.clone(), part.number)),
    })
}

/// Whether it may be data, or hold some. Links, pipes and devices are none.
fn counts(name: &[u8], node: &Node) -> bool {
    !is_aside(name) && (node.is_dir() || is_file(node))
}

/// Whether it is a file with content.
pub(super) fn is_file(node: &Node) -> bool {
    match node {
        Node::Row { inode, .. } => inode.kind == Kind::File,
        Node::Base { entry, .. } => !entry.is_dir,
    }
}

/// Whether a file of this name goes when its directory is overwritten: one that counts as data, or tells of what was there.
pub(crate) fn goes_with_an_overwrite(name: &[u8]) -> bool {
    name == SUCCESS || is_data(name)
}

/// Whether an overwrite takes a file of this name for data.
fn is_data(name: &[u8]) -> bool {
    !is_aside(name) && has_data_extension(name)
}

/// Names that are no data.
fn is_aside(name: &[u8]) -> bool {
    name.starts_with(b"_") || name.starts_with(b".")
}

/// Whether a name says that the file is Arrow or Parquet.
fn has_data_extension(name: &[u8]) -> bool {
    const KNOWN: [&[u8]; 7] = [b"arrow", b"arrows", b"feather", b"ipc", b"parquet", b"parq", b"pq"];
    let extension = name
        .iter()
        .rposition(|byte| *byte == b'.')
        .map(|dot| name[dot + 1..].to_ascii_lowercase());
    extension.is_some_and(|extension| KNOWN.contains(&&extension[..]))
}

/// The session in the name of a published part.
pub(crate) fn session_in_name(name: &[u8]) -> Option<SessionId> {
    part_in_name(name).map(|(_, session)| session)
}

/// Its place among the parts of the session, and the session, in the name of a published part.
fn part_in_name(name: &[u8]) -> Option<(usize, SessionId)> {
    let (stem, extension) = std::str::from_utf8(name).ok()?.rsplit_once('.')?;
    let (number, session) = stem.strip_prefix("part-")?.split_once('-')?;
    let fits = matches!(extension, "arrow" | "parquet")
        && number.len() == 5
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && session.len() == 16
        && session
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    fits.then_some(())?;
    Some((number.parse().ok()?, SessionId(session.to_owned())))
}

/// The key and value of a folder named `k=v`, as Hive escapes them.
fn hive(name: &[u8]) -> Option<(String, Option<String>)> {
    let equals = name.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    let (key, value) = (&name[..equals], &name[equals + 1..]);
    Some((unescaped(key), (value != HIVE_NULL).then(|| unescaped(value))))
}

fn unescaped(text: &[u8]) -> String {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(16 * high + low).expect("two hexadecimal digits"));
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are() {
        for name in ["x.arrow", "a.b.PARQUET", "y.feather"] {
            assert!(has_data_extension(name.as_bytes()), "{name}");
        }
        for name in ["x", "x.csv", "arrow", "x.arrow.crc"] {
            assert!(!has_data_extension(name.as_bytes()), "{name}");
        }
        assert_eq!(
            session_in_name(b"part-00012-abcdefghij012345.arrow"),
            Some(SessionId("abcdefghij012345".into()))
        );
        for name in [
            "part-0001-abcdefghij012345.arrow",
            "part-00012-abcdefghij012345.csv",
            "part-00012-ABCDEFGHIJ012345.arrow",
            "x.arrow",
        ] {
            assert_eq!(session_in_name(name.as_bytes()), None, "{name}");
        }
        assert!(is_aside(b"_SUCCESS") && is_aside(b".hidden") && !is_aside(b"x"));
    }

    #[test]
    fn folders_become_columns_as_hive_writes_them() {
        assert_eq!(hive(b"day=1"), Some(("day".into(), Some("1".into()))));
        assert_eq!(hive(b"a=b=c"), Some(("a".into(), Some("b=c".into()))));
        assert_eq!(hive(b"t=12%3A30%20x"), Some(("t".into(), Some("12:30 x".into()))));
        assert_eq!(hive(b"day=__HIVE_DEFAULT_PARTITION__"), Some(("day".into(), None)));
        assert_eq!(hive(b"day="), Some(("day".into(), Some(String::new()))));
        assert_eq!((hive(b"plain"), hive(b"=x")), (None, None));
    }
}
