//! Reading one part: as stored where a stream of messages can carry it, decoded where not.

use super::{
    Format, PartItem, PartRef, SessionId,
    foreign::{Leads, Parsed, published_ref},
    growing::Growing,
    ipc::{decode::Decoder, index},
    parquet,
    registry::{Ended, LivePartState, Phase},
    source::Source,
};
use crate::{Cache, Error, ErrorKind, Result, cache::Inner, rows::SessionEnd};
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::Schema;
use forebay_namespace::{Ino, Path};
use forebay_segment::StreamId;
use futures::{
    TryStreamExt,
    stream::{self, BoxStream, StreamExt},
};
use std::{collections::VecDeque, sync::Arc};

impl Cache {
    /// Reads a part, from its `skip`-th batch on. Dictionaries come before the batches that need them.
    ///
    /// # Errors
    /// NotFound: its version was dropped, or the dataset deleted; Precondition: its file was deleted or replaced, and nobody has its bytes;
    /// Aborted: it was taken back, or its session aborted; DataLoss: damaged; Unavailable: the under-store that has it is away.
    pub async fn read_part(&self, part: &PartRef, skip: u64) -> Result<BoxStream<'static, Result<PartItem>>> {
        self.inner.part_items(part, skip).await
    }
}

impl Inner {
    pub(super) async fn part_items(
        self: &Arc<Self>,
        part: &PartRef,
        skip: u64,
    ) -> Result<BoxStream<'static, Result<PartItem>>> {
        let items = match &part.live {
            Some((session, number)) => match self.live_items(session, *number, skip).await? {
                Some(items) => items,
                None => self.published_items(part, skip).await?,
            },
            None => self.published_items(part, skip).await?,
        };
        match part.partition.is_empty() {
            true => Ok(items),
            false => self.with_partition(part, items).await,
        }
    }

    /// The items of a part of a live session; `None` when it is published.
    async fn live_items(
        self: &Arc<Self>,
        session: &SessionId,
        number: u32,
        skip: u64,
    ) -> Result<Option<BoxStream<'static, Result<PartItem>>>> {
        let Some(live) = self.datasets.sessions.get(session) else {
            return Ok(None);
        };
        let found = {
            let state = live.look();
            match &state.phase {
                Phase::Aborted(why) => return Err(Error::aborted(format!("session {} was aborted: {why}", session.0))),
                Phase::Published { .. } => return Ok(None),
                Phase::Open | Phase::Ending => {}
            }
            state
                .parts
                .get(&number)
                .map(|part| (part.state.clone(), part.growing.clone()))
        };
        match found {
            Some((LivePartState::Ended(ended), _)) => match self.sealed_items(&ended, skip).await {
                Err(_) if self.is_published(session).await? => Ok(None),
                items => items.map(Some),
            },
            Some((LivePartState::Open, Some(growing))) => Ok(Some(stable_items(growing, skip))),
            _ => Err(Error::aborted(format!(
                "part {number} of session {} was taken back",
                session.0
            ))),
        }
    }

    /// Whether the session is published, which it may be a moment before it knows. Then the bytes of a part may be elsewhere already.
    pub(super) async fn is_published(&self, session: &SessionId) -> Result<bool> {
        let row = self.session_row(session).await?;
        Ok(row.is_some_and(|(row, ..)| matches!(row.end, Some(SessionEnd::Published { .. }))))
    }

    /// The items of a part that has ended and has no name yet.
    pub(super) async fn sealed_items(
        self: &Arc<Self>,
        ended: &Ended,
        skip: u64,
    ) -> Result<BoxStream<'static, Result<PartItem>>> {
        let stream = StreamId(ended.ino, ended.generation);
        let source = Source::Sealed {
            reader: self.segments.reader(stream, &ended.layout)?,
            stream,
        };
        self.items_of(source, skip).await
    }

    async fn published_items(
        self: &Arc<Self>,
        part: &PartRef,
        skip: u64,
    ) -> Result<BoxStream<'static, Result<PartItem>>> {
        let source = self.published_source(part).await?;
        self.items_of(source, skip).await
    }

    /// The bytes of a part that has, or had, a name.
    async fn published_source(self: &Arc<Self>, part: &PartRef) -> Result<Source> {
        let named = match (&part.origin, part.content) {
            // A ticket of the time when it had no name.
            (Some((session, number)), None) => Some(self.named_since(session, *number).await?),
            _ => None,
        };
        let part = named.as_ref().unwrap_or(part);
        let name = String::from_utf8_lossy(&part.path).into_owned();
        let Some((ino, generation)) = part.content else {
            let reader = Cache {
                inner: Arc::clone(self),
            }
            .read_file(&Path::parse(&part.path)?)
            .await?;
            return Ok(Source::File { reader, name });
        };
        match self.read_inode(Ino(ino), generation).await {
            Ok(reader) => Ok(Source::File { reader, name }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if let Some(part) = self.converted_ref(part).await? {
                    return Box::pin(self.published_source(&part)).await;
                }
                // What versions keep comes first: its name may have gone to a file of the same length.
                if let Some(source) = self.retired_source(part).await? {
                    return Ok(source);
                }
                match self.evicted_source(part, &name).await? {
                    Some(source) => Ok(source),
                    None => Err(self.no_part(part, &name).await?),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// The part as it is by now, when it became another file since it was named.
    async fn converted_ref(&self, part: &PartRef) -> Result<Option<PartRef>> {
        let (Some((session, number)), Some((ino, _))) = (&part.origin, part.content) else {
            return Ok(None);
        };
        match self.is_other_file(session, *number, ino).await? {
            true => self.named_since(session, *number).await.map(Some),
            false => Ok(None),
        }
    }

    /// A part whose row went when it was persisted and evicted: what the under-store has under its name.
    async fn evicted_source(self: &Arc<Self>, part: &PartRef, name: &str) -> Result<Option<Source>> {
        let path = Path::parse(&part.path)?;
        match self.names.resolve(&path).await? {
            Some(node) if Leads::of(&node).in_store() == Some(part.bytes) => Ok(Some(Source::File {
                reader: self.read_node(name.to_owned(), &node)?,
                name: name.to_owned(),
            })),
            _ => Ok(None),
        }
    }

    /// What versions keep of a part without a name.
    async fn retired_source(&self, part: &PartRef) -> Result<Option<Source>> {
        let retired = match &part.origin {
            Some((session, number)) => self.retired(session, *number).await?,
            None => None,
        };
        let Some(row) = retired else { return Ok(None) };
        let stream = StreamId(row.ino, row.generation);
        Ok(Some(Source::Sealed {
            reader: self.segments.reader(stream, &row.layout)?,
            stream,
        }))
    }

    /// Why nobody has the bytes of a part: its version is gone, or the version is there and its file is not.
    async fn no_part(&self, part: &PartRef, name: &str) -> Result<Error> {
        let published = match &part.origin {
            Some((session, _)) => self.session_row(session).await?.and_then(|(row, ..)| row.end),
            None => None,
        };
        let is_kept = match published {
            Some(SessionEnd::Published { dir, version }) => match self.head_entry(Ino(dir)).await? {
                // A directory that was deleted has no path from then on; its rows go later.
                Some((head, _)) if self.names.path_of(Ino(dir)).await?.is_some() => {
                    version >= self.version_row(Ino(dir), head.oldest).await?.base
                }
                _ => false,
            },
            _ => false,
        };
        Ok(match is_kept {
            true => Error::precondition(format!(
                "{name}: the file of this part of the dataset was deleted or replaced, and nothing is left of what was published; \
                 publish the dataset anew in mode overwrite, or delete its directory"
            )),
            false => Error::not_found(format!(
                "{name}: this part is gone; its version was dropped, or the dataset deleted"
            )),
        })
    }

    /// A part of a session that was published since, under its name.
    async fn named_since(&self, session: &SessionId, number: u32) -> Result<PartRef> {
        let row = self
            .session_row(session)
            .await?
            .ok_or_else(|| super::session::no_session(session))?
            .0;
        let dir = match super::plan::ended_well(&row, session)? {
            Some((dir, _)) => self.names.path_of(dir).await?,
            None => None,
        };
        let dir = dir.ok_or_else(|| Error::not_found(format!("the dataset of session {} was deleted", session.0)))?;
        let parts = self.session_parts(session).await?;
        let part = parts.iter().find(|part| part.number == number);
        let part =
            part.ok_or_else(|| Error::aborted(format!("part {number} of session {} did not count", session.0)))?;
        published_ref(&dir, part)
    }

    /// The items of a sealed file, whoever wrote it.
    pub(super) async fn items_of(
        self: &Arc<Self>,
        source: Source,
        skip: u64,
    ) -> Result<BoxStream<'static, Result<PartItem>>> {
        match self.parsed(&source).await? {
            Some(Parsed::Parquet(index)) => parquet::items(source, &index, Arc::clone(&index.schema.schema), skip),
            Some(Parsed::Arrow { index, .. }) => {
                let canonical = index.schema.is_canonical();
                let decoder = Decoder::new(&index.schema.message)?;
                let items = index::items(source, index, skip);
                // Messages with other dictionary ids than the dataset's can not go under its schema.
                Ok(if canonical { items } else { decoded(decoder, items) })
            }
            None => Err(Error::data_loss(format!(
                "{}: is neither an Arrow nor a Parquet file any more",
                source.name()
            ))),
        }
    }

    /// Adds the columns that folder names say.
    async fn with_partition(
        self: &Arc<Self>,
        part: &PartRef,
        items: BoxStream<'static, Result<PartItem>>,
    ) -> Result<BoxStream<'static, Result<PartItem>>> {
        let decoder = match part.format {
            Format::Arrow => {
                let source = self.published_source(part).await?;
                self.parsed(&source)
                    .await?
                    .map(|parsed| Decoder::new(&parsed.schema().message))
                    .transpose()?
            }
            Format::Parquet => None,
        };
        let items = match decoder {
            Some(decoder) => decoded(decoder, items),
            None => items,
        };
        let partition = part.partition.clone();
        let widened = items.map(move |item| match item? {
            PartItem::Decoded(batch, app_metadata) => Ok(PartItem::Decoded(widened(&batch, &partition)?, app_metadata)),
            other => Ok(other),
        });
        Ok(widened.boxed())
    }
}

/// Decodes what is passed on otherwise.
fn decoded(decoder: Decoder, items: BoxStream<'static, Result<PartItem>>) -> BoxStream<'static, Result<PartItem>> {
    let state = (decoder, items);
    stream::try_unfold(state, |(mut decoder, mut items)| async move {
        while let Some(item) = items.try_next().await? {
            if let Some((batch, app_metadata)) = decoder.push(item)? {
                return Ok(Some((PartItem::Decoded(batch, app_metadata), (decoder, items))));
            }
        }
        Ok(None)
    })
    .boxed()
}

fn widened(batch: &RecordBatch, partition: &[(String, Option<String>)]) -> Result<RecordBatch> {
    let schema = batch.schema();
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    let mut columns = batch.columns().to_vec();
    for (name, value) in partition.iter().filter(|(name, _)| schema.index_of(name).is_err()) {
        fields.push(Arc::new(parquet::constant_field(name)));
        columns.push(parquet::constant(value.as_deref(), batch.num_rows()));
    }
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let widened = RecordBatch::try_new_with_options(schema, columns, &options);
    widened.map_err(|error| Error::internal(format!("folder columns do not fit: {error}")))
}

/// What is stable of a growing part now, from its `skip`-th batch on.
fn stable_items(growing: Arc<Growing>, skip: u64) -> BoxStream<'static, Result<PartItem>> {
    let until = growing.stable_messages().0;
    let state = (growing, 0, skip, VecDeque::new());
    stream::try_unfold(state, move |(growing, mut at, mut skip, mut ready)| async move {
        loop {
            while let Some(item) = ready.pop_front() {
                if matches!(item, PartItem::Batch(..)) && skip > 0 {
                    skip -= 1;
                    continue;
                }
                return Ok(Some((item, (growing, at, skip, ready))));
            }
            if at >= until {
                return Ok(None);
            }
            let (items, next) = growing.read(at, until).await?;
            (at, ready) = (next, items.into());
        }
    })
    .boxed()
}
