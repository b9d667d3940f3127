//! A multipart upload that any process can go on with by its id: parts in any order, each a session that is never published.
//!
//! 1. *Begun*: a session without content, whose id is the upload's. Where the object could not be written it is refused.
//! 2. *Put*: a part is a session of a dataset that only the upload names, beside the object. It is in no listing, and durable when it
//!    is answered. The number of a part has no meaning here: the completion names the parts in their order.
//! 3. *Completed*: the parts are copied into the object, one behind the other, which is visible whole at its end; or *aborted*.
//!
//! A part that is neither completed nor aborted is dropped [`PART_KEPT`] after it was put, as a session without a writer is. The copy is
//! the price of any order; `multipart` sends each byte once.

use super::{ForebayStore, failed, key, wire, written};
use arrow_array::{LargeBinaryArray, RecordBatch, cast::AsArray};
use arrow_schema::{DataType, Field, Schema};
use async_trait::async_trait;
use bytes::Bytes;
use forebay_client::{
    Error, ErrorKind, FileOptions, FilePut, PutDone, ReadOptions, Result as ClientResult, Session, SessionOptions,
    WirePath, WriteOptions,
};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    MultipartId, PutPayload, PutResult, Result,
    multipart::{MultipartStore, PartId},
    path::Path,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long a part waits for the completion.
const PART_KEPT: Duration = Duration::from_secs(24 * 3600);
/// A part goes over in batches of so many bytes.
const PIECE_BYTES: usize = 4 << 20;
/// How long an abort waits for a part that is only just begun.
const BEGUN_WAIT: Duration = Duration::from_secs(10);
/// Sessions ended at once.
const ENDS: usize = 16;

#[async_trait]
impl MultipartStore for ForebayStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let begun = self.begin(&place(path, "begun")?).await;
        Ok(begun.map_err(|e| failed(path, e))?.leave())
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, _part_idx: usize, data: PutPayload) -> Result<PartId> {
        let put = self.stage(&place(path, id)?, Bytes::from(data)).await;
        let content_id = put.map_err(|e| failed(path, e))?;
        Ok(PartId { content_id })
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let place = place(path, id)?;
        let joined = self.join(&place, &parts, &key(path)?).await;
        let made = joined.map_err(|e| failed(path, e))?;
        self.end_of(&parts).await;
        if let Err(error) = self.end(&place, id).await {
            tracing::debug!(%path, %error, "parts of a complete upload are left to their timeout");
        }
        Ok(written(made))
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.end(&place(path, id)?, id).await.map_err(|e| failed(path, e))
    }
}

impl ForebayStore {
    async fn begin(&self, place: &WirePath) -> ClientResult<Session> {
        let options = SessionOptions {
            timeout: Some(PART_KEPT),
            ..SessionOptions::default()
        };
        self.client.session(&place.to_string(), options).await
    }

    /// Makes a part durable. Answers its session, by which it is found again.
    async fn stage(&self, place: &WirePath, content: Bytes) -> ClientResult<String> {
        let session = self.begin(place).await?;
        let options = WriteOptions {
            session: Some(session.id().to_owned()),
            ..WriteOptions::default()
        };
        let batches = batches(&content)?;
        self.client.put_all(&place.to_string(), &batches, options).await?;
        Ok(session.leave())
    }

    /// Writes the object: the parts, one behind the other.
    async fn join(&self, place: &WirePath, parts: &[PartId], object: &str) -> ClientResult<PutDone> {
        let options = FileOptions {
            attributes: Some(BTreeMap::new()),
            ..FileOptions::default()
        };
        let mut object = self.client.write_file(object, options).await?;
        for part in parts {
            self.copy_part(place, part, &mut object).await?;
        }
        object.finish().await
    }

    async fn copy_part(&self, place: &WirePath, part: &PartId, object: &mut FilePut) -> ClientResult<()> {
        let read = ReadOptions {
            session: Some(part.content_id.clone()),
            ..ReadOptions::default()
        };
        let mut batches = self.client.scan(&place.to_string(), read).await.map_err(gone)?;
        while let Some(batch) = batches.try_next().await.map_err(gone)? {
            let pieces = batch.column_by_name("data").and_then(|data| data.as_binary_opt());
            let pieces: &LargeBinaryArray =
                pieces.ok_or_else(|| Error::new(ErrorKind::Precondition, "a part has other columns than its bytes"))?;
            for piece in pieces.iter().flatten() {
                object.write(Bytes::copy_from_slice(piece)).await?;
            }
        }
        Ok(())
    }

    /// Ends the sessions of parts that have done their work, as far as that can be done now: they end by themselves too.
    async fn end_of(&self, parts: &[PartId]) {
        let end = async |part: &PartId| drop(self.client.abort_session(&part.content_id).await);
        stream::iter(parts).for_each_concurrent(ENDS, end).await;
    }

    /// Ends the sessions of all parts, whoever put them, and the upload's own.
    async fn end(&self, place: &WirePath, id: &str) -> ClientResult<()> {
        loop {
            match self.oldest(&place.to_string()).await {
                Ok(Some(session)) => self.client.abort_session(&session).await?,
                Ok(None) => return self.client.abort_session(id).await,
                // It ended while it was asked for.
                Err(error) if error.kind() == ErrorKind::Aborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The oldest live session of a dataset that has no version.
    async fn oldest(&self, place: &str) -> ClientResult<Option<String>> {
        let everything = ReadOptions::default();
        let asked = tokio::time::timeout(BEGUN_WAIT, self.client.poll(place, &everything));
        match asked.await {
            Ok(Ok(poll)) => Ok(poll.info.note.session),
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                "a part of the upload is under way, or was given up before its first byte; abort again, or leave it to its timeout",
            )),
        }
    }
}

/// The dataset of an upload: beside the object, where whoever may write the object may write.
fn place(object: &Path, upload: &str) -> Result<WirePath> {
    let place = match wire(object)?.parent() {
        Some(dir) => dir.join(format!(".upload-{upload}").as_bytes()).map_err(Error::from),
        None => Err(Error::new(ErrorKind::Invalid, "/ is the root directory, and no object")),
    };
    place.map_err(|e| failed(object, e))
}

/// Not the object is missing, but one of its parts.
fn gone(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Aborted => Error::new(
            ErrorKind::Precondition,
            format!("a part of the upload is not there, put it again: {error}"),
        ),
        _ => error,
    }
}

/// The content as the batches of a file are; one at least, that a part without bytes has a schema.
fn batches(content: &Bytes) -> ClientResult<Vec<RecordBatch>> {
    let schema = Arc::new(Schema::new(vec![Field::new("data", DataType::LargeBinary, true)]));
    let pieces = content.chunks(PIECE_BYTES);
    let pieces = pieces.chain(content.is_empty().then_some(&[][..]));
    let batches = pieces.map(|piece| {
        let column = LargeBinaryArray::from_iter_values([piece]);
        RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)])
    });
    batches
        .collect::<Result<_, _>>()
        .map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))
}
