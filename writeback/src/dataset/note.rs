//! What the writer of a part says of each append, durable with it: enough for recovery to find the messages again without a look at
//! the bytes.

use bytes::{BufMut, Bytes, BytesMut};

/// What the writer says of each append, for recovery: enough to find the messages again without a look at the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) kind: NoteKind,
    pub(super) meta: u32,
    pub(super) rows: u64,
}

/// What an append holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoteKind {
    Opening = 0,
    Dictionary = 1,
    Batch = 2,
    Closing = 3,
}

impl Note {
    pub(super) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(13);
        out.put_u8(self.kind as u8);
        out.put_u32(self.meta);
        out.put_u64(self.rows);
        out.freeze()
    }

    pub(super) fn decode(note: &[u8]) -> Option<Self> {
        let note: &[u8; 13] = note.try_into().ok()?;
        let kind = match note[0] {
            0 => NoteKind::Opening,
            1 => NoteKind::Dictionary,
            2 => NoteKind::Batch,
            3 => NoteKind::Closing,
            _ => return None,
        };
        let meta = u32::from_be_bytes(note[1..5].try_into().expect("four bytes"));
        Some(Self {
            kind,
            meta,
            rows: u64::from_be_bytes(note[5..].try_into().expect("eight bytes")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_go_to_bytes_and_back() {
        for kind in [
            NoteKind::Opening,
            NoteKind::Dictionary,
            NoteKind::Batch,
            NoteKind::Closing,
        ] {
            let note = Note {
                kind,
                meta: 7,
                rows: u64::MAX,
            };
            assert_eq!(Note::decode(&note.encode()), Some(note));
        }
        assert_eq!((Note::decode(b""), Note::decode(&[9; 13])), (None, None));
    }
}
