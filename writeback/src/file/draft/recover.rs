//! What a crash left of synced drafts becomes the content of their files.

use super::PlaceDraft;
use crate::{
    Error, Result,
    cache::Inner,
    file::{
        SealedContent,
        place::{GENERATION, Ground},
    },
    rows::{self, DraftRow, draft_key, table},
};
use bytes::Bytes;
use forebay_metastore::prefix_end;
use forebay_namespace::Ino;
use forebay_segment::{Layout, RecoveredStream, StreamId};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Rows of drafts read at once.
const ROWS_PAGE: usize = 512;

impl Inner {
    /// Places what a crash left of synced drafts. Answers the streams that stay because of them.
    pub(crate) async fn recover_drafts(
        self: &Arc<Self>,
        streams: &mut HashMap<StreamId, RecoveredStream>,
    ) -> Result<HashSet<StreamId>> {
        let mut kept = HashSet::new();
        loop {
            let prefix = [table::DRAFT];
            let range = Bytes::copy_from_slice(&prefix)..prefix_end(&prefix);
            let page = self.components.meta.scan(range, ROWS_PAGE).await?;
            if page.is_empty() {
                return Ok(kept);
            }
            for (key, entry) in page {
                let number = key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes));
                let number = number.ok_or_else(|| Error::data_loss("metastore: a draft's key makes no sense"))?;
                let stream = StreamId(number, GENERATION);
                let row: DraftRow = rows::decode(&entry.value)?;
                kept.extend(self.recover_draft(stream, row, streams.remove(&stream)).await?);
            }
        }
    }

    /// Answers the stream if it is a file's content now. The row is gone afterwards.
    async fn recover_draft(
        self: &Arc<Self>,
        stream: StreamId,
        row: DraftRow,
        found: Option<RecoveredStream>,
    ) -> Result<Option<StreamId>> {
        let Some(path) = self.names.path_of(Ino(row.over)).await? else {
            tracing::info!(%stream, "a draft belongs to a file that was removed");
            self.forget_draft(stream).await?;
            return Ok(None);
        };
        let mut unplaced = Some(self.sealed_draft(stream, found).await?);
        // The row that it was written for is still the one at that name: whoever writes anew makes another.
        let mut target = self.draft_target(&path, PlaceDraft::default(), Ground::Any);
        target.note = Some(draft_key(stream.0));
        let placed = self.place_sealed(&target, &mut unplaced).await;
        if let Some(sealed) = unplaced {
            // The next start tries again.
            sealed.in_doubt();
        }
        placed?;
        tracing::info!(%path, "went on with a file that was being written");
        Ok(Some(stream))
    }

    async fn sealed_draft(self: &Arc<Self>, stream: StreamId, found: Option<RecoveredStream>) -> Result<SealedContent> {
        let (layout, crc) = match found {
            Some(found) if found.draft => self.segments.resume_draft(stream, found)?.seal().await?,
            // The crash came between its seal and the commit that was to name it.
            Some(found) => return self.resume_content(stream, found)?.seal().await,
            // The same, of an empty one, whose files go with its seal. Files that are missing refuse the start before this.
            None => (Layout::Empty, 0),
        };
        let reservation = self.dirty.take(layout.len());
        Ok(self.sealed_content(stream, layout, crc, reservation))
    }
}
