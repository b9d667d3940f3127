//! Contents that lose their names while a door has shown them to somebody who reads without having opened anything.
//!
//! A reader that is open keeps its content by itself. A door that opens nothing, because its kernel asks for bytes by a number alone, is
//! asked here before the bytes of a number go, and takes a reader of those that it has shown. What it takes it holds for as long as it
//! holds the reader: when it lets go is its affair. Contents that are in an under-store alone are not offered: their object goes with
//! its name.

use super::FileReader;
use crate::{
    Cache, Error, Result,
    cache::Inner,
    dataset::{SessionId, session_in_name},
    rows::{self, PartRow, RetiredRow},
};
use forebay_metastore::{Key, prefix_end};
use forebay_namespace::Ino;
use forebay_segment::{Layout, Reader, SegmentStore, StreamId};
use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Arc, Weak},
};

/// A door that reads by number.
pub trait Keeper: Debug + Send + Sync {
    /// The bytes of a content are about to go. Whoever may still be asked for them takes them now.
    fn goes(&self, content: &GoingContent<'_>);
}

/// A content whose name is gone and whose bytes follow.
#[derive(Debug)]
pub struct GoingContent<'a> {
    segments: &'a SegmentStore,
    stream: StreamId,
    layout: &'a Layout,
    size: u64,
}

/// The bytes of a content that has no row any more.
#[derive(Debug)]
pub struct KeptContent {
    stream: StreamId,
    reader: Reader,
    size: u64,
}

impl GoingContent<'_> {
    /// The number of its row ([`crate::names::Stat::id`]).
    pub fn id(&self) -> u64 {
        self.stream.0
    }

    /// Holds the bytes; `None` when they can not be had.
    pub fn keep(&self) -> Option<KeptContent> {
        match self.segments.reader(self.stream, self.layout) {
            Ok(reader) => Some(KeptContent {
                stream: self.stream,
                reader,
                size: self.size,
            }),
            Err(error) => {
                tracing::warn!(stream = %self.stream, %error, "a content that somebody may read could not be kept");
                None
            }
        }
    }
}

impl Cache {
    /// Asks `keeper` before contents go, for as long as it lives.
    pub fn keep_for(&self, keeper: &Arc<dyn Keeper>) {
        let mut keepers = self.inner.files.keepers.write();
        keepers.retain(|known| known.strong_count() > 0);
        keepers.push(Arc::downgrade(keeper));
    }

    /// Reads a content that was kept.
    pub fn read_kept(&self, kept: KeptContent) -> FileReader {
        let KeptContent { stream, reader, size } = kept;
        self.inner
            .read_local(format!("inode {}", stream.0), stream, size, reader)
    }

    /// Opens the content of a row by its number ([`crate::names::Stat::id`]), whether it has a name or not. NotFound when it is gone.
    pub async fn read_content(&self, id: u64) -> Result<FileReader> {
        let found = self.inner.names.inode(Ino(id)).await?;
        let (inode, _) = found.ok_or_else(|| Error::not_found(format!("inode {id}: not found")))?;
        self.inner.read_inode(Ino(id), inode.generation).await
    }

    /// What old versions keep of parts that have lost their names: readers by the numbers of their rows, of those that are kept.
    /// `parts`: names and numbers that they had.
    pub async fn read_retired(&self, parts: &[(Arc<[u8]>, u64)]) -> Result<HashMap<u64, FileReader>> {
        let mut of_session: HashMap<SessionId, Vec<u64>> = HashMap::new();
        for (name, id) in parts {
            if let Some(session) = session_in_name(name) {
                of_session.entry(session).or_default().push(*id);
            }
        }
        let mut readers = HashMap::new();
        for (session, wanted) in of_session {
            let keys = self.inner.retired_keys(&session.0, &wanted).await?;
            let entries = self
                .inner
                .components
                .meta
                .get(&keys.iter().map(|(_, key)| key.clone()).collect::<Vec<_>>())
                .await?;
            for ((id, _), entry) in keys.iter().zip(entries) {
                let Some(entry) = entry else { continue };
                let row: RetiredRow = rows::decode(&entry.value)?;
                let stream = StreamId(row.ino, row.generation);
                // The version may be dropped right now.
                if let Ok(reader) = self.inner.segments.reader(stream, &row.layout) {
                    let name = format!("inode {}", stream.0);
                    readers.insert(*id, self.inner.read_local(name, stream, row.bytes, reader));
                }
            }
        }
        Ok(readers)
    }
}

impl Inner {
    /// Asks whoever may have shown this content, before its bytes go.
    pub(super) fn offer(&self, stream: StreamId, layout: &Layout, size: u64) {
        let keepers = self.files.keepers.read();
        if keepers.is_empty() {
            return;
        }
        let content = GoingContent {
            segments: &self.segments,
            stream,
            layout,
            size,
        };
        let alive = keepers.iter().filter_map(Weak::upgrade);
        alive.for_each(|keeper| keeper.goes(&content));
    }

    /// Where the rows would be that keep these parts of a session.
    async fn retired_keys(&self, session: &str, wanted: &[u64]) -> Result<Vec<(u64, Key)>> {
        let prefix = rows::part_prefix(session);
        let mut range = prefix.clone()..prefix_end(&prefix);
        let page = self.components.meta.limits().scan_rows_max;
        let mut keys = Vec::new();
        loop {
            let found = self.components.meta.scan(range.clone(), page).await?;
            for (key, entry) in &found {
                let part: PartRow = rows::decode(&entry.value)?;
                let number = key.last_chunk().map(|bytes| u32::from_be_bytes(*bytes));
                if let Some(number) = number
                    && wanted.contains(&part.ino)
                {
                    keys.push((part.ino, rows::retired_key(session, number)));
                }
            }
            match found.last() {
                Some((last, _)) if found.len() >= page => range.start = [last.as_ref(), &[0]].concat().into(),
                _ => return Ok(keys),
            }
        }
    }
}

/// Whoever is asked.
pub(super) type Keepers = parking_lot::RwLock<Vec<Weak<dyn Keeper>>>;
