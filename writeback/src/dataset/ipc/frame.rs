//! The bytes of a part: an Arrow IPC file that is a valid stream while it grows.
//!
//! ```text
//!      0  "ARROW1", zeros to 64                 a tail is read from offset 64
//!     64  the schema message
//!    ...  dictionaries and batches, each:
//!           ff ff ff ff | i32 metadata length   the length is padded so that the body begins at a multiple of 64
//!           metadata:
//!             flatbuffer Message
//!             [app_metadata | zeros | u32 flatbuffer length | u32 app_metadata length | "FBAYNOTE"]
//!           body                                as it was sent
//!    end  ff ff ff ff 00 00 00 00               end of stream
//!           Footer flatbuffer | i32 footer length | "ARROW1"
//! ```
//!
//! app_metadata rides in the padding that the format leaves behind a flatbuffer: readers of Arrow files do not see it, the file
//! alone suffices to give it back, and neither the footer nor the memory of a writer grows with it.

use super::{HEADER_BYTES_MAX, split_front, verifier};
use crate::{Error, Result, dataset::IpcMessage};
use arrow_ipc::{Block, FooterBuilder, MetadataVersion, convert::IpcSchemaEncoder, writer::DictionaryTracker};
use arrow_schema::Schema;
use bytes::{BufMut, Bytes, BytesMut};
use flatbuffers::FlatBufferBuilder;
use std::collections::VecDeque;

/// What an Arrow file begins and ends with.
pub(crate) const MAGIC: &[u8; 6] = b"ARROW1";
/// Offset of the schema message.
pub(crate) const DATA_START: u64 = 64;
/// Bodies begin at multiples of it.
const ALIGN: usize = 64;
/// Marks the beginning of a message.
pub(crate) const CONTINUATION: [u8; 4] = [0xff; 4];
/// Marks metadata that carries app_metadata behind the flatbuffer.
const NOTE_MAGIC: &[u8; 8] = b"FBAYNOTE";
/// Bytes of the lengths and the mark behind app_metadata.
const NOTE_TAIL: usize = 16;

/// Where a message lies in a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Offset of its prefix.
    pub(crate) offset: u64,
    /// Bytes of prefix and metadata.
    pub(crate) meta: u32,
    /// Bytes of the body.
    pub(crate) body: u64,
    /// A dictionary; else a batch.
    pub(crate) dictionary: bool,
}

impl Entry {
    /// Offset of the first byte behind it.
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.meta) + self.body
    }
}

/// The first bytes of a part.
pub(crate) fn opening() -> Bytes {
    let mut bytes = [0; DATA_START as usize];
    bytes[..MAGIC.len()].copy_from_slice(MAGIC);
    Bytes::copy_from_slice(&bytes)
}

/// The bytes of `message` at offset `at`: prefix, header, note and padding in one piece, then the body's own pieces.
///
/// A body that is not a multiple of 8 is padded, and so says the header: what follows must be aligned.
pub(crate) fn framed(at: u64, message: &IpcMessage, dictionary: bool) -> (Vec<Bytes>, Entry) {
    let body_len: u64 = message.body.iter().map(|piece| piece.len() as u64).sum();
    let padding = body_len.next_multiple_of(8) - body_len;
    let mut header = message.header.clone();
    if padding > 0 {
        header = with_body_length(&header, body_len + padding);
    }
    let meta = metadata(at, &header, &message.app_metadata);
    let entry = Entry {
        offset: at,
        meta: u32::try_from(meta.len()).expect("bounded by validation"),
        body: body_len + padding,
        dictionary,
    };
    let mut chunks = Vec::with_capacity(message.body.len() + 2);
    chunks.push(meta);
    chunks.extend(message.body.iter().filter(|piece| !piece.is_empty()).cloned());
    if padding > 0 {
        chunks.push(Bytes::from_static(
            &[0; 8][..usize::try_from(padding).expect("less than 8")],
        ));
    }
    (chunks, entry)
}

/// Prefix and metadata of a message whose prefix is at `at`.
fn metadata(at: u64, header: &[u8], app_metadata: &[u8]) -> Bytes {
    let noted = !app_metadata.is_empty() || header.ends_with(NOTE_MAGIC);
    let content = header.len() + if noted { app_metadata.len() + NOTE_TAIL } else { 0 };
    let begin = usize::try_from(at % ALIGN as u64).expect("less than 64");
    let total = (begin + 8 + content).next_multiple_of(ALIGN) - begin;
    let mut out = BytesMut::with_capacity(total);
    out.put_slice(&CONTINUATION);
    out.put_i32_le(i32::try_from(total - 8).expect("bounded by validation"));
    out.put_slice(header);
    if noted {
        out.put_slice(app_metadata);
        out.put_bytes(0, total - NOTE_TAIL - out.len());
        out.put_u32_le(u32::try_from(header.len()).expect("bounded by validation"));
        out.put_u32_le(u32::try_from(app_metadata.len()).expect("bounded by validation"));
        out.put_slice(NOTE_MAGIC);
    } else {
        out.put_bytes(0, total - out.len());
    }
    out.freeze()
}

/// The header with another body length. A message with a body has that field: it is not the default.
pub(super) fn with_body_length(header: &Bytes, body_length: u64) -> Bytes {
    let mut bytes = header.to_vec();
    let place = arrow_ipc::root_as_message_with_opts(&verifier(), header)
        .ok()
        .and_then(|message| {
            let field = message._tab.vtable().get(arrow_ipc::Message::VT_BODYLENGTH);
            (field != 0).then(|| message._tab.loc() + usize::from(field))
        });
    if let Some(place) = place.and_then(|place| bytes.get_mut(place..place + 8)) {
        place.copy_from_slice(&i64::try_from(body_length).expect("bounded by validation").to_le_bytes());
    }
    bytes.into()
}

/// The message whose prefix and metadata (`entry.meta` bytes) and body begin `pieces`, without a copy of the body.
/// DataLoss when they are no message.
pub(crate) fn unframed(entry: &Entry, pieces: &mut VecDeque<Bytes>) -> Result<IpcMessage> {
    let meta = super::joined(&split_front(pieces, entry.meta as usize));
    let body = split_front(pieces, usize::try_from(entry.body).unwrap_or(usize::MAX));
    let (header, app_metadata) = header_and_note(&meta)
        .ok_or_else(|| Error::data_loss(format!("no Arrow message at offset {}", entry.offset)))?;
    Ok(IpcMessage {
        header,
        body,
        app_metadata,
    })
}

/// The flatbuffer and the app_metadata in prefix and metadata.
fn header_and_note(meta: &Bytes) -> Option<(Bytes, Bytes)> {
    // Old writers have a prefix of four bytes.
    let skip = if meta.starts_with(&CONTINUATION) { 8 } else { 4 };
    let content = (meta.len() >= skip).then(|| meta.slice(skip..))?;
    let Some(tail) = content.strip_suffix(NOTE_MAGIC).filter(|rest| rest.len() >= 8) else {
        return Some((content, Bytes::new()));
    };
    let number = |at: usize| u32::from_le_bytes(tail[at..at + 4].try_into().expect("four bytes")) as usize;
    let (header, note) = (number(tail.len() - 8), number(tail.len() - 4));
    (header.checked_add(note)? <= tail.len() - 8)
        .then(|| (content.slice(..header), content.slice(header..header + note)))
}

/// The last bytes of a part whose messages end at a multiple of 8: end of stream, footer, its length, magic.
pub(crate) fn closing(schema: &Schema, entries: &[Entry]) -> Bytes {
    let mut fbb = FlatBufferBuilder::new();
    let block = |entry: &Entry| {
        let meta = i32::try_from(entry.meta).expect("bounded by validation");
        let (offset, body) = (i64::try_from(entry.offset), i64::try_from(entry.body));
        Block::new(
            offset.expect("files are shorter than 2^63"),
            meta,
            body.expect("bodies are shorter than 2^31"),
        )
    };
    let of_kind = |dictionary| {
        entries
            .iter()
            .filter(move |entry| entry.dictionary == dictionary)
            .map(block)
            .collect::<Vec<_>>()
    };
    let dictionaries = fbb.create_vector(&of_kind(true));
    let batches = fbb.create_vector(&of_kind(false));
    let mut tracker = DictionaryTracker::new(false);
    let schema = IpcSchemaEncoder::new()
        .with_dictionary_tracker(&mut tracker)
        .schema_to_fb_offset(&mut fbb, schema);
    let root = {
        let mut footer = FooterBuilder::new(&mut fbb);
        footer.add_version(MetadataVersion::V5);
        footer.add_schema(schema);
        footer.add_dictionaries(dictionaries);
        footer.add_recordBatches(batches);
        footer.finish()
    };
    fbb.finish(root, None);
    let footer = fbb.finished_data();
    let mut out = BytesMut::with_capacity(footer.len() + 24);
    out.put_slice(&CONTINUATION);
    out.put_i32_le(0);
    out.put_slice(footer);
    out.put_i32_le(i32::try_from(footer.len()).expect("the entries of a part are bounded"));
    out.put_slice(MAGIC);
    out.freeze()
}

/// Most bytes of prefix and metadata.
pub(crate) const META_BYTES_MAX: u64 =
    (HEADER_BYTES_MAX + super::APP_METADATA_BYTES_MAX + NOTE_TAIL + 2 * ALIGN) as u64;
