//! The footer of a closed shared segment: one entry per record, so that a start need not read the records.

use crate::{
    crc::Crc,
    header::{u32_at, u64_at},
    layout::{SegmentId, StreamId},
    record::{Head, Kind},
};
use bytes::Bytes;

/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: usize = 56;
/// Bytes of the trailer, the last of the file.
pub(crate) const TRAILER_BYTES: usize = 24;
const TRAILER_MAGIC: [u8; 8] = *b"FOREBAYE";

/// What the footer keeps of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where the record begins.
    pub(crate) at: u64,
    pub(crate) kind: Kind,
    pub(crate) note_len: u32,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
    pub(crate) stream: StreamId,
    pub(crate) offset: u64,
    pub(crate) number: u64,
}

impl Entry {
    pub(crate) fn new(at: u64, head: &Head) -> Entry {
        Entry {
            at,
            kind: head.kind,
            note_len: head.note_len,
            payload_len: head.payload_len,
            payload_crc: head.payload_crc,
            stream: head.stream,
            offset: head.offset,
            number: head.number,
        }
    }

    /// The head that the record has, but for `synced`.
    pub(crate) fn head(&self) -> Head {
        Head {
            kind: self.kind,
            note_len: self.note_len,
            payload_len: self.payload_len,
            payload_crc: self.payload_crc,
            stream: self.stream,
            offset: self.offset,
            number: self.number,
            synced: 0,
        }
    }

    pub(crate) fn encode_all(entries: &[Entry]) -> Bytes {
        let mut out = Vec::with_capacity(entries.len() * ENTRY_BYTES);
        for entry in entries {
            out.extend_from_slice(&[entry.kind as u8, 0, 0, 0]);
            out.extend_from_slice(&entry.note_len.to_le_bytes());
            out.extend_from_slice(&entry.stream.0.to_le_bytes());
            out.extend_from_slice(&entry.stream.1.to_le_bytes());
            out.extend_from_slice(&entry.payload_len.to_le_bytes());
            out.extend_from_slice(&entry.payload_crc.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&entry.at.to_le_bytes());
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.number.to_le_bytes());
        }
        out.into()
    }

    /// `None` when the bytes are no entries.
    pub(crate) fn decode_all(bytes: &[u8]) -> Option<Vec<Entry>> {
        let entries = bytes.chunks_exact(ENTRY_BYTES);
        if !entries.remainder().is_empty() {
            return None;
        }
        entries
            .map(|b| {
                Some(Entry {
                    kind: Kind::from_byte(b[0])?,
                    note_len: u32_at(b, 4),
                    stream: StreamId(u64_at(b, 8), u32_at(b, 16)),
                    payload_len: u32_at(b, 20),
                    payload_crc: u32_at(b, 24),
                    at: u64_at(b, 32),
                    offset: u64_at(b, 40),
                    number: u64_at(b, 48),
                })
            })
            .collect()
    }
}

/// The last bytes of a closed segment: where its footer begins.
pub(crate) fn trailer(segment: SegmentId, footer_at: u64) -> Bytes {
    let mut out = [0; TRAILER_BYTES];
    out[0..8].copy_from_slice(&TRAILER_MAGIC);
    out[8..16].copy_from_slice(&footer_at.to_le_bytes());
    out[16..20].copy_from_slice(&trailer_crc(segment, footer_at).to_le_bytes());
    Bytes::copy_from_slice(&out)
}

/// Where the footer begins, if these are the last bytes of a closed segment.
pub(crate) fn footer_at(segment: SegmentId, bytes: &[u8]) -> Option<u64> {
    if bytes.len() != TRAILER_BYTES || bytes[..8] != TRAILER_MAGIC {
        return None;
    }
    let at = u64_at(bytes, 8);
    (trailer_crc(segment, at) == u32_at(bytes, 16)).then_some(at)
}

fn trailer_crc(segment: SegmentId, footer_at: u64) -> u32 {
    let mut crc = Crc::new();
    crc.update(&segment.0.to_le_bytes());
    crc.update(&footer_at.to_le_bytes());
    crc.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_trailer_read_back() {
        let entries: Vec<Entry> = (1..=5)
            .map(|i| Entry {
                at: i * 1000,
                kind: Kind::from_byte(i as u8).unwrap(),
                note_len: 2,
                payload_len: 3,
                payload_crc: 4,
                stream: StreamId(5, 6),
                offset: 7,
                number: 8,
            })
            .collect();
        let bytes = Entry::encode_all(&entries);
        assert_eq!(Entry::decode_all(&bytes), Some(entries));
        assert_eq!(Entry::decode_all(&bytes[1..]), None);
        let end = trailer(SegmentId(1), 77);
        assert_eq!(footer_at(SegmentId(1), &end), Some(77));
        assert_eq!(footer_at(SegmentId(2), &end), None);
        assert_eq!(footer_at(SegmentId(1), &end[1..]), None);
    }
}
