//! After a start: open sessions live again, with what is stable of their puts.
//!
//! - A part that had ended is as it was.
//! - A part that was being written is sealed at its stable length: its acknowledged batches survive. But not when its put names a
//!   task, because only attempts that ended count; and it gives way when the put comes again with its token.
//! - Puts without a named session left no rows; their streams are nobody's.
//!
//! It answers the streams that rows of datasets keep; what no row keeps is garbage.

use super::{
    SessionId,
    ipc::{frame, frame::Entry, schema::StoredSchema},
    note::{Note, NoteKind},
    registry::{Ended, Keys, Live},
};
use crate::{
    Error, Result,
    cache::Inner,
    rows::{self, PartRow, RetiredRow, SessionRow, table},
};
use bytes::Bytes;
use forebay_metastore::Key;
use forebay_namespace::{Path, Plan};
use forebay_runtime::clock::Timestamp;
use forebay_segment::{RecoveredStream, StreamId};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

impl Inner {
    /// Brings open sessions back. Answers every stream that rows of datasets keep beyond inode rows, and counts their dirty bytes.
    pub(crate) async fn recover_datasets(
        self: &Arc<Self>,
        streams: &mut HashMap<StreamId, RecoveredStream>,
    ) -> Result<HashSet<StreamId>> {
        let mut kept = HashSet::new();
        for (_, entry) in self.scan_all(Key::from_static(&[table::RETIRED])).await? {
            let row: RetiredRow = rows::decode(&entry.value)?;
            self.dirty.adopt(1, row.bytes);
            kept.insert(StreamId(row.ino, row.generation));
        }
        let mut sessions = Vec::new();
        for (key, entry) in self.scan_all(Key::from_static(&[table::SESSION, b'o'])).await? {
            let id = SessionId(String::from_utf8_lossy(&key[2..]).into_owned());
            sessions.push((id, SessionRow::decode(&entry.value)?));
        }
        sessions.sort_by(|a, b| (a.1.begun, &a.0).cmp(&(b.1.begun, &b.0)));
        for (id, row) in sessions {
            let live = self.recover_session(id, &row, streams, &mut kept).await?;
            self.datasets.sessions.insert(&live);
        }
        Ok(kept)
    }

    async fn recover_session(
        self: &Arc<Self>,
        id: SessionId,
        row: &SessionRow,
        streams: &mut HashMap<StreamId, RecoveredStream>,
        kept: &mut HashSet<StreamId>,
    ) -> Result<Arc<Live>> {
        let now = self.components.clock.monotonic();
        let live = Live::new(
            id,
            Path::parse(&row.path)?,
            Keys::of_row(row),
            false,
            Timestamp(row.begun),
            now,
        );
        let parts = self.part_rows(&live.id).await?;
        let schema = match parts.is_empty() {
            // What is there is of a put that came to nothing, and perhaps only the first pieces of it.
            true => {
                self.delete_parts(&live.id).await?;
                None
            }
            false => Some(self.session_schema(&live.id.0).await?),
        };
        for (number, part) in parts {
            let stream = StreamId(part.ino, part.generation);
            let ended = match Ended::of_row(&part) {
                Some(ended) => {
                    self.dirty.adopt(1, ended.bytes);
                    ended
                }
                None => match self
                    .seal_rest(&live, &part, schema.as_deref(), streams.remove(&stream))
                    .await?
                {
                    Some(ended) => {
                        self.write_rest(&live, number, &part, &ended).await?;
                        ended
                    }
                    None => {
                        self.drop_rest(&live, number).await?;
                        continue;
                    }
                },
            };
            kept.insert(stream);
            live.change(|state| state.restore(number, part.put, part.task.clone(), part.token.clone(), ended));
        }
        live.change(|state| {
            state.schema_stored = schema.is_some();
            state.schema = schema;
            state.restored();
        });
        tracing::info!(session = live.id.0, path = %live.path, "session goes on");
        Ok(live)
    }

    /// Seals a part that was being written at what is stable of it. `None`: nothing of it counts.
    async fn seal_rest(
        self: &Arc<Self>,
        live: &Live,
        part: &PartRow,
        schema: Option<&StoredSchema>,
        found: Option<RecoveredStream>,
    ) -> Result<Option<Ended>> {
        let (Some(found), Some(schema), None) = (found, schema, &part.task) else {
            return Ok(None);
        };
        let Some(written) = Written::of(&found)? else {
            return Ok(None);
        };
        let stream = StreamId(part.ino, part.generation);
        let mut content = self.resume_content(stream, found)?;
        if !written.closed {
            let note = Note {
                kind: NoteKind::Closing,
                meta: 0,
                rows: 0,
            };
            content
                .append(&[frame::closing(&schema.schema, &written.entries)], note.encode())
                .await?;
        }
        let sealed = content.seal().await?;
        let ended = Ended {
            ino: part.ino,
            generation: part.generation,
            format: super::Format::Arrow,
            layout: sealed.layout.clone(),
            crc: sealed.crc,
            rows: written.rows,
            batches: written.batches,
            bytes: sealed.len,
            whole: false,
            ended: 0,
        };
        tracing::info!(
            session = live.id.0,
            batches = ended.batches,
            "a put was cut off; what was acknowledged of it stays"
        );
        sealed.keep();
        Ok(Some(ended))
    }

    async fn write_rest(&self, live: &Live, number: u32, part: &PartRow, ended: &Ended) -> Result<()> {
        let row = PartRow {
            state: ended.to_state(),
            ..part.clone()
        };
        let mut plan = Plan::default();
        plan.put(rows::part_key(&live.id.0, number), rows::encode(&row));
        self.commit(plan).await.map(drop)
    }

    async fn drop_rest(&self, live: &Live, number: u32) -> Result<()> {
        let mut plan = Plan::default();
        plan.delete(rows::part_key(&live.id.0, number));
        self.commit(plan).await.map(drop)
    }
}

/// What the appends of a stream say that it holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    entries: Vec<Entry>,
    rows: u64,
    batches: u64,
    closed: bool,
}

impl Written {
    /// `None` when there is no batch. DataLoss when the notes make no sense.
    fn of(found: &RecoveredStream) -> Result<Option<Self>> {
        let mut written = Self::default();
        for append in &found.appends {
            let note = note_of(&append.note)?;
            match note.kind {
                NoteKind::Opening => {}
                NoteKind::Closing => written.closed = true,
                NoteKind::Dictionary | NoteKind::Batch => {
                    let len = append.range.end - append.range.start;
                    let body = len
                        .checked_sub(note.meta.into())
                        .ok_or_else(|| Error::data_loss("an append shorter than its header"))?;
                    let dictionary = note.kind == NoteKind::Dictionary;
                    written.entries.push(Entry {
                        offset: append.range.start,
                        meta: note.meta,
                        body,
                        dictionary,
                    });
                    written.rows = written.rows.saturating_add(note.rows);
                    written.batches += u64::from(!dictionary);
                }
            }
        }
        Ok((written.batches > 0).then_some(written))
    }
}

fn note_of(note: &Bytes) -> Result<Note> {
    Note::decode(note)
        .ok_or_else(|| Error::data_loss("an append of a part has a note that makes no sense to this version"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_segment::{Append, Layout};

    fn found(notes: &[(NoteKind, u64)]) -> RecoveredStream {
        let mut at = 0;
        let appends = notes.iter().map(|(kind, len)| {
            let range = at..at + len;
            at += len;
            Append {
                range,
                note: Note {
                    kind: *kind,
                    meta: 64,
                    rows: 3,
                }
                .encode(),
            }
        });
        RecoveredStream {
            appends: appends.collect(),
            layout: Layout::Empty,
            sealed: false,
            draft: false,
            crc: 0,
        }
    }

    #[test]
    fn notes_tell_where_messages_lie() {
        let stream = found(&[
            (NoteKind::Opening, 256),
            (NoteKind::Dictionary, 128),
            (NoteKind::Batch, 192),
            (NoteKind::Batch, 64),
        ]);
        let written = Written::of(&stream).unwrap().unwrap();
        let offsets: Vec<_> = written
            .entries
            .iter()
            .map(|entry| (entry.offset, entry.body, entry.dictionary))
            .collect();
        assert_eq!(offsets, [(256, 64, true), (384, 128, false), (576, 0, false)]);
        assert_eq!((written.batches, written.rows, written.closed), (2, 6 + 3, false));
    }

    #[test]
    fn a_part_without_a_batch_is_nothing() {
        assert_eq!(
            Written::of(&found(&[(NoteKind::Opening, 256), (NoteKind::Dictionary, 128)])).unwrap(),
            None
        );
    }
}
