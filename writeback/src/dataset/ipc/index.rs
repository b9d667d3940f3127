//! Where the messages of a sealed Arrow file lie: read from the footer, or, for a stream that someone stored as a file, by going
//! over it once. Small, so that it is kept while the bytes are not.

use super::{
    frame::{CONTINUATION, DATA_START, Entry, MAGIC, META_BYTES_MAX, unframed},
    joined, message,
    schema::StoredSchema,
    verifier,
};
use crate::{
    Error, Result,
    dataset::{PartItem, source::Source},
};
use arrow_ipc::MessageHeader;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use std::{collections::VecDeque, ops::Range, sync::Arc};

/// Most messages of one file.
const ENTRIES_MAX: usize = 4_000_000;
/// Most bytes of a footer.
const FOOTER_BYTES_MAX: u64 = 256 << 20;
/// Neighbouring messages are read together up to so many bytes.
const WINDOW_BYTES: u64 = 1 << 20;
/// And up to so many messages.
const WINDOW_MESSAGES: usize = 256;

/// Where the messages of one file lie.
#[derive(Debug)]
pub(crate) struct Index {
    /// The schema of the file.
    pub(crate) schema: StoredSchema,
    /// Dictionaries and batches in the order in which they are read.
    pub(crate) entries: Vec<Entry>,
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An Arrow IPC file.
    ArrowFile,
    /// An Arrow IPC stream.
    ArrowStream,
    /// Parquet.
    Parquet,
}

impl Kind {
    /// `None`: neither.
    pub(crate) async fn of(source: &Source) -> Result<Option<Self>> {
        if source.size() < 8 {
            return Ok(None);
        }
        let first = joined(&source.read(0..8).await?);
        Ok(match &first[..4] {
            b"PAR1" => Some(Kind::Parquet),
            b"ARRO" if first.starts_with(MAGIC) => Some(Kind::ArrowFile),
            start if *start == CONTINUATION && first[4..] != [0; 4] => Some(Kind::ArrowStream),
            _ => None,
        })
    }
}

impl Index {
    /// Reads it. Precondition: the file is no whole Arrow file (the text names it); DataLoss: a part of ours is damaged.
    pub(crate) async fn read(source: &Source, kind: Kind) -> Result<Self> {
        let read = match kind {
            Kind::ArrowStream => Self::of_stream(source, 0).await,
            _ => Self::of_file(source).await,
        };
        read.map_err(|error| error.at(source.name()))
    }

    /// Bytes it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Entry>() + 4 * self.schema.message.len() + 1024
    }

    /// Batches in it.
    pub(crate) fn batches(&self) -> u64 {
        self.entries.iter().filter(|entry| !entry.dictionary).count() as u64
    }

    /// Counts the rows, by the headers of all batches.
    pub(crate) async fn rows(&self, source: &Source) -> Result<u64> {
        let mut rows: u64 = 0;
        for entry in self.entries.iter().filter(|entry| !entry.dictionary) {
            let mut pieces = VecDeque::from(source.read(entry.offset..entry.offset + u64::from(entry.meta)).await?);
            let bare = Entry { body: 0, ..*entry };
            if let PartItem::Batch(_, of_batch) = item(&bare, &mut pieces).map_err(|error| error.at(source.name()))? {
                rows = rows.saturating_add(of_batch);
            }
        }
        Ok(rows)
    }

    async fn of_file(source: &Source) -> Result<Self> {
        let size = source.size();
        let unfinished =
            || Error::precondition("no whole Arrow file: its footer is missing; close the writer that wrote it");
        let tail = size.checked_sub(10).filter(|at| *at >= 8).ok_or_else(unfinished)?;
        let last = joined(&source.read(tail..size).await?);
        let length = u64::try_from(i32::from_le_bytes(last[..4].try_into().expect("ten bytes"))).ok();
        let length = length
            .filter(|length| last[4..] == MAGIC[..] && (1..=FOOTER_BYTES_MAX).contains(length))
            .ok_or_else(unfinished)?;
        let begin = tail.checked_sub(length).ok_or_else(unfinished)?;
        let footer = joined(&source.read(begin..tail).await?);
        let footer = arrow_ipc::root_as_footer_with_opts(&verifier(), &footer)
            .map_err(|error| Error::precondition(format!("no valid footer: {error}")))?;
        let blocks = |blocks: Option<flatbuffers::Vector<'_, arrow_ipc::Block>>, dictionary| {
            let blocks: Vec<_> = blocks
                .into_iter()
                .flatten()
                .map(|block| entry(block, begin, dictionary))
                .collect();
            blocks.into_iter().collect::<Result<Vec<_>>>()
        };
        let mut entries = blocks(footer.dictionaries(), true)?;
        entries.extend(blocks(footer.recordBatches(), false)?);
        let (schema, ours) = schema_of(source).await?;
        if ours {
            // Deltas lie between the batches that need them; files of others may have any order, where all dictionaries go first.
            entries.sort_by_key(|entry| entry.offset);
        }
        bound(entries.len())?;
        Ok(Self { schema, entries })
    }

    async fn of_stream(source: &Source, begin: u64) -> Result<Self> {
        let (schema, mut at) = read_schema(source, begin).await?;
        let mut entries = Vec::new();
        while let Some((entry, header)) = read_header(source, at).await? {
            let kind = message(&header)?.header_type();
            if kind != MessageHeader::DictionaryBatch && kind != MessageHeader::RecordBatch {
                return Err(Error::precondition(format!("an unexpected message at offset {at}")));
            }
            entries.push(Entry {
                dictionary: kind == MessageHeader::DictionaryBatch,
                ..entry
            });
            bound(entries.len())?;
            at = entry.end();
        }
        Ok(Self { schema, entries })
    }
}

fn bound(entries: usize) -> Result<()> {
    match entries <= ENTRIES_MAX {
        true => Ok(()),
        false => Err(Error::precondition(format!(
            "more than {ENTRIES_MAX} messages in one file"
        ))),
    }
}

/// A footer's block, which must lie before the footer.
fn entry(block: &arrow_ipc::Block, limit: u64, dictionary: bool) -> Result<Entry> {
    let number = |value: i64| u64::try_from(value).ok();
    let entry = (|| {
        let meta = number(block.metaDataLength().into()).filter(|meta| (8..=META_BYTES_MAX).contains(meta))?;
        let (offset, body) = (number(block.offset())?, number(block.bodyLength())?);
        let meta = u32::try_from(meta).ok()?;
        let end = offset.checked_add(meta.into())?.checked_add(body)?;
        (end <= limit).then_some(Entry {
            offset,
            meta,
            body,
            dictionary,
        })
    })();
    entry.ok_or_else(|| Error::precondition("the footer names a message outside of the file"))
}

/// The schema of a file, and whether the file is laid out as ours are.
async fn schema_of(source: &Source) -> Result<(StoredSchema, bool)> {
    let end = (DATA_START + 4).min(source.size());
    let first = joined(&source.read(0..end).await?);
    let ours = first.len() as u64 == end
        && first[8..DATA_START as usize].iter().all(|byte| *byte == 0)
        && first.ends_with(&CONTINUATION);
    let begin = if ours { DATA_START } else { 8 };
    Ok((read_schema(source, begin).await?.0, ours))
}

/// The schema message at `at`, and the offset behind it.
async fn read_schema(source: &Source, at: u64) -> Result<(StoredSchema, u64)> {
    let (entry, header) = read_header(source, at)
        .await?
        .ok_or_else(|| Error::precondition("no schema message at its beginning"))?;
    Ok((StoredSchema::parse_any(&header)?, entry.end()))
}

/// The message whose prefix is at `at`: where it lies and its header. `None` at the end of the stream.
async fn read_header(source: &Source, at: u64) -> Result<Option<(Entry, Bytes)>> {
    let size = source.size();
    if at + 8 > size {
        return Ok(None);
    }
    let prefix = joined(&source.read(at..at + 8).await?);
    let word = |from: usize| u32::from_le_bytes(prefix[from..from + 4].try_into().expect("eight bytes"));
    let (skip, length) = if prefix.starts_with(&CONTINUATION) {
        (8, word(4))
    } else {
        (4, word(0))
    };
    if length == 0 {
        return Ok(None);
    }
    let meta = skip + u64::from(length);
    if meta > META_BYTES_MAX || at + meta > size {
        return Err(Error::precondition(format!("a message at offset {at} is cut short")));
    }
    let mut pieces = VecDeque::from(source.read(at..at + meta).await?);
    let mut entry = Entry {
        offset: at,
        meta: u32::try_from(meta).expect("bounded"),
        body: 0,
        dictionary: false,
    };
    let header = unframed(&entry, &mut pieces)?.header;
    entry.body =
        u64::try_from(message(&header)?.bodyLength()).map_err(|_| Error::precondition("a negative body length"))?;
    match entry
        .offset
        .checked_add(meta)
        .and_then(|end| end.checked_add(entry.body))
    {
        Some(end) if end <= size => Ok(Some((entry, header))),
        _ => Err(Error::precondition(format!("the message at offset {at} is cut short"))),
    }
}

/// Reads the items of a file from its `skip`-th batch on. All dictionaries before that batch come too.
pub(crate) fn items(source: Source, index: Arc<Index>, skip: u64) -> BoxStream<'static, Result<PartItem>> {
    let cursor = Cursor {
        source,
        index,
        next: 0,
        skip,
        ready: VecDeque::new(),
    };
    stream::try_unfold(cursor, |mut cursor| async move {
        Ok(cursor.next().await?.map(|item| (item, cursor)))
    })
    .boxed()
}

/// Goes over a file's messages, a window of neighbours at a time.
struct Cursor {
    source: Source,
    index: Arc<Index>,
    next: usize,
    skip: u64,
    ready: VecDeque<PartItem>,
}

impl Cursor {
    async fn next(&mut self) -> Result<Option<PartItem>> {
        if self.ready.is_empty() {
            let window = self.window();
            if window.is_empty() {
                return Ok(None);
            }
            self.read(window).await?;
        }
        Ok(self.ready.pop_front())
    }

    /// The next entries that lie behind each other and are read together. Skips batches that are not wanted.
    fn window(&mut self) -> Range<usize> {
        let entries = &self.index.entries;
        while self.skip > 0
            && let Some(entry) = entries.get(self.next)
            && !entry.dictionary
        {
            self.skip -= 1;
            self.next += 1;
        }
        let begin = self.next;
        while let Some(entry) = entries.get(self.next) {
            let first = &entries[begin];
            let grows = self.next > begin;
            let joins = entry.offset == entries[self.next.saturating_sub(1)].end()
                && entry.end() - first.offset <= WINDOW_BYTES;
            if grows && (!joins || self.next - begin >= WINDOW_MESSAGES || (self.skip > 0 && !entry.dictionary)) {
                break;
            }
            self.next += 1;
        }
        begin..self.next
    }

    async fn read(&mut self, window: Range<usize>) -> Result<()> {
        let entries = &self.index.entries[window];
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let mut pieces = VecDeque::from(self.source.read(first.offset..last.end()).await?);
        for entry in entries {
            let item = item(entry, &mut pieces).map_err(|error| error.at(self.source.name()))?;
            self.ready.push_back(item);
        }
        Ok(())
    }
}

/// The stored message whose bytes begin `pieces`.
pub(crate) fn item(entry: &Entry, pieces: &mut VecDeque<Bytes>) -> Result<PartItem> {
    let stored = unframed(entry, pieces)?;
    if entry.dictionary {
        return Ok(PartItem::Dictionary(stored));
    }
    let damaged = |error: Error| Error::data_loss(format!("at offset {}: {error}", entry.offset));
    let rows = message(&stored.header)
        .map_err(damaged)?
        .header_as_record_batch()
        .map(|batch| batch.length());
    let rows = rows.and_then(|rows| u64::try_from(rows).ok());
    let rows = rows.ok_or_else(|| Error::data_loss(format!("no record batch at offset {}", entry.offset)))?;
    Ok(PartItem::Batch(stored, rows))
}
