//! Uploads in parts for stores that have no handle for one.
//!
//! An upload has a marker of its own in the hidden folder of the mount, an empty object that names the key. It is an upload as long as
//! the marker is there: what is listed, what a part is checked against, what an abort removes. Parts lie where the bucket puts them; a
//! marker goes last, so that what a crash left of an upload is found.

use super::{Bucket, PageAsk, fresh_id};
use crate::{Expect, StoreError, UploadId, Write, join, local::HIDDEN};

/// The attribute of a marker that names the key.
const KEY: &str = "key";
/// Longest id, as it may come back from a note.
const ID_BYTES: usize = 32;

/// Where markers lie.
#[derive(Clone, Debug)]
pub(crate) struct Staging {
    folder: String,
}

impl Staging {
    /// Markers below the mount's `prefix`.
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            folder: format!("{}/", join(prefix, HIDDEN)),
        }
    }

    /// The key of an upload's marker.
    pub(crate) fn marker(&self, upload: &UploadId) -> Result<String, StoreError> {
        let id = &upload.0;
        if id.len() != ID_BYTES || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(StoreError::NotFound(format!("upload {id:?}: not one of ours")));
        }
        Ok(format!("{}{id}", self.folder))
    }

    /// Starts an upload of `key`.
    pub(crate) async fn start(&self, bucket: &impl Bucket, key: &str) -> Result<UploadId, StoreError> {
        let upload = UploadId(fresh_id()?);
        let marker = self.marker(&upload)?;
        let write = Write {
            key: marker.clone(),
            size: 0,
            token: upload.0.clone(),
            attributes: vec![(KEY.to_owned(), key.to_owned())],
            expect: Expect::Any,
        };
        bucket.put(&marker, Some(&write), Vec::new()).await?;
        Ok(upload)
    }

    /// `NotFound` when the upload was completed or aborted.
    pub(crate) async fn check(&self, bucket: &impl Bucket, upload: &UploadId) -> Result<(), StoreError> {
        match bucket.head(&self.marker(upload)?).await? {
            Some(_) => Ok(()),
            None => Err(StoreError::NotFound(format!("upload {}: ended already", upload.0))),
        }
    }

    /// Ends an upload.
    pub(crate) async fn end(&self, bucket: &impl Bucket, upload: &UploadId) -> Result<(), StoreError> {
        match self.marker(upload) {
            Ok(marker) => bucket.delete(&marker, None).await,
            Err(_) => Ok(()),
        }
    }

    /// Uploads of keys that begin with `prefix`.
    pub(crate) async fn uploads(
        &self,
        bucket: &impl Bucket,
        prefix: &str,
    ) -> Result<Vec<(String, UploadId)>, StoreError> {
        let mut uploads = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let ask = PageAsk {
                prefix: &self.folder,
                by_directory: true,
                token: token.as_deref(),
                ..PageAsk::default()
            };
            let page = bucket.page(&ask).await?;
            for (marker, _) in page.objects {
                let Some(found) = bucket.head(&marker).await? else {
                    continue;
                };
                let key = found.attributes.into_iter().find(|(name, _)| name == KEY);
                if let (Some((_, key)), Some(id)) = (key, marker.strip_prefix(&self.folder))
                    && key.starts_with(prefix)
                {
                    uploads.push((key, UploadId(id.to_owned())));
                }
            }
            token = page.next;
            if token.is_none() {
                return Ok(uploads);
            }
        }
    }
}
