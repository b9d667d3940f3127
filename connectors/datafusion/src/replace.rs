//! What an overwrite of a table of folders does beside writing: it finds out which folders hold something, and empties those that get
//! no rows, by sessions that are published with the others.
//!
//! The folders are looked at twice. Once before the first row: a table that can not be replaced is told of before anything is written. And
//! again when all rows are staged, so that folders that came meanwhile go as well. What others publish between that look and the publish
//! stays where it is in a folder that was not there or held no rows: nothing tells it from what is written a moment after the overwrite.
//! In every other folder it is overwritten.
//!
//! Folders without rows are left as they are, so that those that were emptied once do not count for ever among the folders that one
//! publish takes.

use crate::{
    external,
    listing::{Folder, Listing, PARALLEL, is_aside},
    sink::Target,
};
use arrow_schema::SchemaRef;
use datafusion::common::{Result, plan_err};
use forebay_client::{EntryKind, ErrorKind, ReadOptions, Session, WirePath, WriteOptions};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;

/// The table that is replaced.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) listing: Listing,
    /// The schema of its datasets from then on.
    pub(crate) stored: SchemaRef,
}

/// A folder that holds something.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) path: WirePath,
    /// Whether it is a dataset of the table's schema, which it keeps when it is emptied. A dataset of another schema would not be read as
    /// part of the table any more, and files of others have none to keep: both are told it.
    fits: bool,
}

impl Replaced {
    /// The folders that hold something.
    pub(crate) async fn filled(&self) -> Result<Vec<Filled>> {
        let folders = self.listing.folders(None).await?;
        let looks = stream::iter(folders).map(|folder| self.look(folder));
        let filled: Vec<Option<Filled>> = looks.buffered(PARALLEL).try_collect().await?;
        Ok(filled.into_iter().flatten().collect())
    }

    async fn look(&self, folder: Folder) -> Result<Option<Filled>> {
        let Folder { path, version, .. } = folder;
        if version.is_none() {
            return self.look_at_files(path).await;
        }
        let read = ReadOptions::default();
        match self.listing.client.info(&path.to_string(), &read).await {
            Ok(info) => {
                let fits = info.schema.fields() == self.stored.fields();
                let left_alone = fits && info.rows == Some(0);
                Ok((!left_alone).then_some(Filled { path, fits }))
            }
            // It was deleted since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(external(error)),
        }
    }

    /// A folder that is no dataset.
    async fn look_at_files(&self, path: WirePath) -> Result<Option<Filled>> {
        let listing = self.listing.client.list(&path.to_string(), false, None);
        let mut listing = std::pin::pin!(listing.map_err(external)?);
        let mut holds_files = false;
        loop {
            let entry = match listing.try_next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(external(error)),
            };
            let name = entry.path.name().unwrap_or_default();
            match entry.kind {
                _ if is_aside(name) => {}
                EntryKind::Dir if name.contains(&b'=') => {
                    return plan_err!(
                        "{}: lies below the folders of this table, and an overwrite of them would leave it; say its column in \
                         PARTITIONED BY, or delete it",
                        entry.path
                    );
                }
                EntryKind::Dir => {}
                _ => holds_files = true,
            }
        }
        Ok(holds_files.then_some(Filled { path, fits: false }))
    }

    /// Begins what empties a folder when it is published.
    pub(crate) async fn empty(&self, target: &Target, filled: Filled) -> Result<(WirePath, Session)> {
        let Filled { path, fits } = filled;
        let session = target.begin(&self.listing.client, &path.to_string()).await?;
        if !fits {
            let mut put = session.put(WriteOptions::default()).await.map_err(external)?;
            put.begin(Arc::clone(&self.stored)).map_err(external)?;
            put.finish().await.map_err(external)?;
        }
        Ok((path, session))
    }
}
