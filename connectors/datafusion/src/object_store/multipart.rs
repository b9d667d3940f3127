//! A multipart upload as one growing file, visible at its completion.
//!
//! Parts are in the order of `put_part`, and are sent by one task whether or not their futures are polled, so that awaiting them in
//! any order cannot stand still. What waits is bounded by the caller, who holds a future for each part (`WriteMultipart` bounds them).
//! It ends with its process; uploads that others can go on with are `parts`.

use super::{failed, written};
use async_trait::async_trait;
use forebay_client::{Error, ErrorKind, FilePut, PutDone, Result as ClientResult};
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart, path::Path};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// An upload under way. Dropped without `complete` it leaves nothing.
#[derive(Debug)]
pub(super) struct Upload {
    location: Path,
    parts: Option<mpsc::UnboundedSender<Message>>,
    task: Option<JoinHandle<ClientResult<PutDone>>>,
}

enum Message {
    Part(PutPayload, oneshot::Sender<()>),
    Complete,
}

impl Upload {
    pub(super) fn new(location: Path, put: FilePut) -> Self {
        let (parts, waiting) = mpsc::unbounded_channel();
        // `complete` and `abort` wait for it; without either it ends when the sender is dropped, and gives the file up.
        let task = tokio::spawn(send(put, waiting));
        Self {
            location,
            parts: Some(parts),
            task: Some(task),
        }
    }

    /// How the sending ended.
    async fn join(&mut self) -> ClientResult<PutDone> {
        match self.task.take() {
            Some(task) => task
                .await
                .unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, e.to_string()))),
            None => Err(Error::new(ErrorKind::Precondition, "this upload has ended")),
        }
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (sent, wait) = oneshot::channel();
        let handed = self
            .parts
            .as_ref()
            .is_some_and(|parts| parts.send(Message::Part(data, sent)).is_ok());
        let location = self.location.clone();
        Box::pin(async move {
            let broken = || Error::new(ErrorKind::Aborted, "the upload broke off; its completion says why");
            if !handed || wait.await.is_err() {
                return Err(failed(&location, broken()));
            }
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        if let Some(parts) = self.parts.take() {
            let _ = parts.send(Message::Complete);
        }
        self.join().await.map(written).map_err(|e| failed(&self.location, e))
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts = None;
        // The task ends with "given up": that is what was asked for.
        let _ = self.join().await;
        Ok(())
    }
}

/// Sends parts in order; finishes the file only when told to.
async fn send(mut put: FilePut, mut waiting: mpsc::UnboundedReceiver<Message>) -> ClientResult<PutDone> {
    while let Some(message) = waiting.recv().await {
        match message {
            Message::Part(payload, sent) => {
                for bytes in payload {
                    put.write(bytes).await?;
                }
                let _ = sent.send(());
            }
            Message::Complete => return put.finish().await,
        }
    }
    put.abort().await;
    Err(Error::new(ErrorKind::Aborted, "the upload was given up"))
}
