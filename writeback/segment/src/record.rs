//! The frame of everything in a segment: a 64-byte head, a note, a payload, zeros up to a multiple of 8.
//!
//! The head's checksum also covers the segment's id and the record's place, so that a record of another segment, or one that
//! landed elsewhere, is not taken for what should be there. `synced` is how far the file was flushed when the record was
//! written: it tells a torn tail from damage. A bad record before the `synced` of a later one had been durable; one after it never was.

use crate::{
    crc::{Crc, crc32c},
    header::{u32_at, u64_at},
    layout::{SegmentId, StreamId},
};
use bytes::Bytes;

/// Bytes of a record's head.
pub(crate) const HEAD_BYTES: usize = 64;
/// Records begin at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// Longest note.
pub(crate) const NOTE_BYTES_MAX: usize = 16 << 20;

const MAGIC: [u8; 4] = *b"FbRc";
const ZEROS: &[u8] = &[0; ALIGN as usize];

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Shared: bytes of a stream.
    Append = 1,
    /// The stream ended at `offset`.
    Seal = 2,
    /// Shared: nobody needs the stream's packed bytes any more.
    Drop = 3,
    /// Dedicated: what one flush made durable.
    Progress = 4,
    /// Nothing but `synced`.
    Mark = 5,
    /// Shared: all records before it, for a quick start.
    Footer = 6,
    /// Dedicated: the data is changed in place; it has no checksums before a seal.
    Draft = 7,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Append,
            2 => Kind::Seal,
            3 => Kind::Drop,
            4 => Kind::Progress,
            5 => Kind::Mark,
            6 => Kind::Footer,
            7 => Kind::Draft,
            _ => return None,
        })
    }
}

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) note_len: u32,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
    pub(crate) stream: StreamId,
    /// Where the payload begins in the stream; where the stream ends, in a seal.
    pub(crate) offset: u64,
    /// Which append of the stream this is, from 0; how many there are, in a seal.
    pub(crate) number: u64,
    /// Bytes of the file that were flushed when this was written.
    pub(crate) synced: u64,
}

impl Head {
    /// One that says nothing but its kind.
    pub(crate) fn bare(kind: Kind, synced: u64) -> Head {
        Head {
            kind,
            note_len: 0,
            payload_len: 0,
            payload_crc: crc32c(b""),
            stream: StreamId(0, 0),
            offset: 0,
            number: 0,
            synced,
        }
    }

    /// Bytes of the whole record in the file.
    pub(crate) fn record_len(&self) -> u64 {
        (HEAD_BYTES as u64 + u64::from(self.note_len) + u64::from(self.payload_len)).next_multiple_of(ALIGN)
    }

    /// Where the payload of a record at `at` begins.
    pub(crate) fn payload_at(&self, at: u64) -> u64 {
        at + HEAD_BYTES as u64 + u64::from(self.note_len)
    }

    /// The head as bytes, for a record at `at` of `segment`.
    pub(crate) fn encode(&self, segment: SegmentId, at: u64, note: &[u8]) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[8] = self.kind as u8;
        out[12..16].copy_from_slice(&self.note_len.to_le_bytes());
        out[16..20].copy_from_slice(&self.payload_len.to_le_bytes());
        out[20..24].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[24..32].copy_from_slice(&self.stream.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.stream.1.to_le_bytes());
        out[40..48].copy_from_slice(&self.offset.to_le_bytes());
        out[48..56].copy_from_slice(&self.number.to_le_bytes());
        out[56..64].copy_from_slice(&self.synced.to_le_bytes());
        let crc = head_crc(segment, at, &out, note);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The fields of a head, if the bytes can be one. The checksum is still to be compared: it covers the note, too.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Head> {
        let bytes = bytes.get(..HEAD_BYTES)?;
        if bytes[..4] != MAGIC {
            return None;
        }
        Some(Head {
            kind: Kind::from_byte(bytes[8])?,
            note_len: Some(u32_at(bytes, 12)).filter(|len| *len as usize <= NOTE_BYTES_MAX)?,
            payload_len: u32_at(bytes, 16),
            payload_crc: u32_at(bytes, 20),
            stream: StreamId(u64_at(bytes, 24), u32_at(bytes, 32)),
            offset: u64_at(bytes, 40),
            number: u64_at(bytes, 48),
            synced: u64_at(bytes, 56),
        })
    }

    /// Whether head and note at `at` are as they were written. `bytes` begins with the head.
    pub(crate) fn verify(&self, segment: SegmentId, at: u64, bytes: &[u8]) -> bool {
        let note = &bytes[HEAD_BYTES..HEAD_BYTES + self.note_len as usize];
        head_crc(segment, at, &bytes[..HEAD_BYTES], note) == u32_at(bytes, 4)
    }
}

fn head_crc(segment: SegmentId, at: u64, head: &[u8], note: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(&segment.0.to_le_bytes());
    crc.update(&at.to_le_bytes());
    crc.update(&head[8..HEAD_BYTES]);
    crc.update(note);
    crc.value()
}

/// The chunks of a record at `at`, ready to be written there.
pub(crate) fn frame(head: &Head, segment: SegmentId, at: u64, note: &Bytes, payload: &[Bytes]) -> Vec<Bytes> {
    let mut chunks = Vec::with_capacity(payload.len() + 3);
    chunks.push(Bytes::copy_from_slice(&head.encode(segment, at, note)));
    chunks.push(note.clone());
    chunks.extend_from_slice(payload);
    let bare = HEAD_BYTES as u64 + u64::from(head.note_len) + u64::from(head.payload_len);
    chunks.push(Bytes::from_static(&ZEROS[..(head.record_len() - bare) as usize]));
    chunks
}

/// What one flush of a dedicated segment made durable: the payload of a [`Kind::Progress`] record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes of the stream that are durable.
    pub(crate) bytes: u64,
    /// Checksum of the last, incomplete block; of nothing when `bytes` ends with a block.
    pub(crate) tail_crc: u32,
    /// Checksums of the blocks that became complete.
    pub(crate) blocks: Vec<u32>,
    /// Where each append ends that became durable, and its note.
    pub(crate) appends: Vec<(u64, Bytes)>,
}

impl Progress {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let notes: usize = self.appends.iter().map(|(_, note)| 12 + note.len()).sum();
        let mut out = Vec::with_capacity(20 + 4 * self.blocks.len() + notes);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.tail_crc.to_le_bytes());
        out.extend_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.appends.len() as u32).to_le_bytes());
        for crc in &self.blocks {
            out.extend_from_slice(&crc.to_le_bytes());
        }
        for (end, note) in &self.appends {
            out.extend_from_slice(&end.to_le_bytes());
            out.extend_from_slice(&(note.len() as u32).to_le_bytes());
            out.extend_from_slice(note);
        }
        out
    }

    /// `None` when the bytes are no such payload. Notes are copied out.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Progress> {
        let (fixed, mut rest) = bytes.split_at_checked(20)?;
        let (blocks, appends) = (u32_at(fixed, 12) as usize, u32_at(fixed, 16) as usize);
        let (sums, notes) = rest.split_at_checked(blocks.checked_mul(4)?)?;
        rest = notes;
        // Each append takes 12 bytes or more, so the count cannot make us reserve more than is there.
        let mut found = Vec::with_capacity(appends.min(rest.len() / 12));
        for _ in 0..appends {
            let (head, after) = rest.split_at_checked(12)?;
            let (note, after) = after.split_at_checked(u32_at(head, 8) as usize)?;
            found.push((u64_at(head, 0), Bytes::copy_from_slice(note)));
            rest = after;
        }
        rest.is_empty().then(|| Progress {
            bytes: u64_at(fixed, 0),
            tail_crc: u32_at(fixed, 8),
            blocks: sums.chunks_exact(4).map(|c| u32_at(c, 0)).collect(),
            appends: found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> impl Strategy<Value = (Head, Vec<u8>, Vec<u8>)> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..100);
        (1u8..=7, bytes(), bytes(), any::<(u64, u32, u64, u64, u64)>()).prop_map(|(kind, note, payload, numbers)| {
            let head = Head {
                kind: Kind::from_byte(kind).unwrap(),
                note_len: note.len() as u32,
                payload_len: payload.len() as u32,
                payload_crc: crc32c(&payload),
                stream: StreamId(numbers.0, numbers.1),
                offset: numbers.2,
                number: numbers.3,
                synced: numbers.4,
            };
            (head, note, payload)
        })
    }

    proptest! {
        #[test]
        fn a_record_reads_back_at_its_place_and_nowhere_else((head, note, payload) in head(), id: u64, at: u64, bit in 0usize..512) {
            let (id, note) = (SegmentId(id), Bytes::from(note));
            let written = frame(&head, id, at, &note, &[Bytes::from(payload.clone())]).concat();
            prop_assert_eq!(written.len() as u64, head.record_len());
            prop_assert_eq!(Head::parse(&written), Some(head));
            prop_assert!(head.verify(id, at, &written));
            prop_assert!(!head.verify(SegmentId(id.0 ^ 1), at, &written));
            prop_assert!(!head.verify(id, at ^ 8, &written));
            let from = head.payload_at(0) as usize;
            prop_assert_eq!(&written[from..from + payload.len()], &payload[..]);

            let mut flipped = written;
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Some(bad) = Head::parse(&flipped).filter(|bad| HEAD_BYTES + bad.note_len as usize <= flipped.len()) {
                prop_assert!(!bad.verify(id, at, &flipped));
            }
        }

        #[test]
        fn progress_reads_back_and_nonsense_is_refused(
            bytes: u64, tail_crc: u32, blocks: Vec<u32>,
            appends in proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..20),
            nonsense: Vec<u8>,
        ) {
            let appends = appends.into_iter().map(|(end, note)| (end, Bytes::from(note))).collect();
            let progress = Progress { bytes, tail_crc, blocks, appends };
            let written = progress.encode();
            prop_assert_eq!(Progress::decode(&written), Some(progress));
            prop_assert_eq!(Progress::decode(&written[..written.len() - 1]), None);
            let _ = Progress::decode(&nonsense);
        }
    }
}
