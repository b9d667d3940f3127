//! The first 4096 bytes of every file but the raw data: what it is, whose, and of which version.

use crate::{
    crc::crc32c,
    error::{Result, SegmentError},
    layout::{SegmentId, StreamId},
};
use bytes::Bytes;
use forebay_runtime::clock::Timestamp;
use std::path::Path;

/// Bytes of a header; what follows begins here.
pub(crate) const HEADER_BYTES: u64 = 4096;
/// The version of the format that this program writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Longest name of a node.
pub(crate) const NODE_BYTES_MAX: usize = 255;
/// Most members of an ensemble.
const MEMBERS_MAX: usize = 8;

const MAGIC: [u8; 8] = *b"FOREBAYS";
const MEMBER_BYTES: usize = 8 + 1 + NODE_BYTES_MAX;
const MEMBERS_AT: usize = 80;
/// Where an identity says which folder of its store it is the identity of.
const FOLDERS_AT: usize = MEMBERS_AT + MEMBERS_MAX * MEMBER_BYTES;
const TAGS_AT: usize = FOLDERS_AT + 16;
/// Most folders that a store ever had.
pub(crate) const FOLDERS_MAX: usize = 64;
const CRC_AT: usize = HEADER_BYTES as usize - 4;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum FileKind {
    Shared = 1,
    DedicatedLog = 2,
    Manifest = 3,
    Identity = 4,
}

/// A node that holds the segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Which life of the node's folder wrote or joined it.
    pub(crate) incarnation: u64,
    /// Its name.
    pub(crate) node: String,
}

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: FileKind,
    pub(crate) cluster: [u8; 16],
    /// 0 in files that are no segment.
    pub(crate) segment: SegmentId,
    /// Of the process that made the file.
    pub(crate) incarnation: u64,
    /// Fences members; 0 on a single node.
    pub(crate) epoch: u64,
    pub(crate) created: Timestamp,
    /// The one stream of a dedicated segment; zeros elsewhere.
    pub(crate) stream: StreamId,
    /// The ensemble; the first is the primary.
    pub(crate) members: Vec<Member>,
    /// In an identity: what tells the folder from any other that ever had its number. 0 before there could be several.
    pub(crate) tag: u64,
    /// In the identity of folder 0: the tags of all folders of the store, by number; 0 is one that was taken out.
    pub(crate) folders: Vec<u64>,
}

/// Why bytes are no header of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Shorter than a header, or not what was written.
    Damaged(&'static str),
    /// A later format.
    Newer(u32),
}

impl Header {
    pub(crate) fn encode(&self) -> Bytes {
        assert!(
            self.members.len() <= MEMBERS_MAX,
            "an ensemble has at most {MEMBERS_MAX} members"
        );
        let mut out = vec![0; HEADER_BYTES as usize];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(self.kind as u32).to_le_bytes());
        out[16..32].copy_from_slice(&self.cluster);
        out[32..40].copy_from_slice(&self.segment.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.incarnation.to_le_bytes());
        out[48..56].copy_from_slice(&self.epoch.to_le_bytes());
        out[56..64].copy_from_slice(&self.created.0.to_le_bytes());
        out[64..72].copy_from_slice(&self.stream.0.to_le_bytes());
        out[72..76].copy_from_slice(&self.stream.1.to_le_bytes());
        out[76..78].copy_from_slice(&(self.members.len() as u16).to_le_bytes());
        for (member, at) in self.members.iter().zip((MEMBERS_AT..).step_by(MEMBER_BYTES)) {
            let name = member.node.as_bytes();
            out[at..at + 8].copy_from_slice(&member.incarnation.to_le_bytes());
            out[at + 8] = u8::try_from(name.len()).expect("names were checked at open");
            out[at + 9..at + 9 + name.len()].copy_from_slice(name);
        }
        assert!(
            self.folders.len() <= FOLDERS_MAX,
            "a store has at most {FOLDERS_MAX} folders"
        );
        out[FOLDERS_AT..FOLDERS_AT + 8].copy_from_slice(&self.tag.to_le_bytes());
        out[FOLDERS_AT + 8..FOLDERS_AT + 10].copy_from_slice(&(self.folders.len() as u16).to_le_bytes());
        for (tag, at) in self.folders.iter().zip((TAGS_AT..).step_by(8)) {
            out[at..at + 8].copy_from_slice(&tag.to_le_bytes());
        }
        let crc = crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Header, BadHeader> {
        let bytes = bytes
            .get(..HEADER_BYTES as usize)
            .ok_or(BadHeader::Damaged("shorter than a header"))?;
        if bytes[..8] != MAGIC {
            return Err(BadHeader::Damaged("no header of ours"));
        }
        // Place and extent of this sum are the same in every version, so a newer one can be told from a damaged one.
        if crc32c(&bytes[..CRC_AT]) != u32_at(bytes, CRC_AT) {
            return Err(BadHeader::Damaged("header fails its checksum"));
        }
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            return Err(BadHeader::Newer(version));
        }
        let kind = match u32_at(bytes, 12) {
            1 => FileKind::Shared,
            2 => FileKind::DedicatedLog,
            3 => FileKind::Manifest,
            4 => FileKind::Identity,
            _ => return Err(BadHeader::Damaged("header of an unknown kind of file")),
        };
        let count = usize::from(u16_at(bytes, 76));
        if count > MEMBERS_MAX {
            return Err(BadHeader::Damaged("header with too many members"));
        }
        let folders = usize::from(u16_at(bytes, FOLDERS_AT + 8));
        if folders > FOLDERS_MAX {
            return Err(BadHeader::Damaged("header with too many folders"));
        }
        Ok(Header {
            kind,
            cluster: bytes[16..32].try_into().expect("16 bytes"),
            segment: SegmentId(u64_at(bytes, 32)),
            incarnation: u64_at(bytes, 40),
            epoch: u64_at(bytes, 48),
            created: Timestamp(u64_at(bytes, 56) as i64),
            stream: StreamId(u64_at(bytes, 64), u32_at(bytes, 72)),
            members: (0..count)
                .map(|i| member(&bytes[MEMBERS_AT + i * MEMBER_BYTES..][..MEMBER_BYTES]))
                .collect(),
            tag: u64_at(bytes, FOLDERS_AT),
            folders: (0..folders).map(|i| u64_at(bytes, TAGS_AT + i * 8)).collect(),
        })
    }

    /// Reads the header of `file`, whose first bytes these are, and refuses what is not of `kind` and `cluster`.
    pub(crate) fn expect(
        bytes: &[u8],
        file: &Path,
        kind: FileKind,
        segment: SegmentId,
        cluster: Option<&[u8; 16]>,
    ) -> Result<Header> {
        let header = Self::of_kind(bytes, file, kind, segment, cluster)?;
        if header.segment == segment {
            return Ok(header);
        }
        Err(another_file(file, segment))
    }

    /// As [`Header::expect`], whatever number the header says; `segment` is for the text of an error.
    pub(crate) fn of_kind(
        bytes: &[u8],
        file: &Path,
        kind: FileKind,
        segment: SegmentId,
        cluster: Option<&[u8; 16]>,
    ) -> Result<Header> {
        let corrupt = |what: &str| SegmentError::Corrupt {
            segment,
            file: file.to_owned(),
            range: 0..HEADER_BYTES,
            what: what.to_owned(),
        };
        let header = Header::decode(bytes).map_err(|bad| match bad {
            BadHeader::Damaged(what) => corrupt(what),
            BadHeader::Newer(found) => SegmentError::NewerFormat {
                file: file.to_owned(),
                found,
                known: FORMAT_VERSION,
            },
        })?;
        if let Some(cluster) = cluster.filter(|c| **c != header.cluster) {
            return Err(SegmentError::Foreign {
                folder: file.to_owned(),
                found: hex(&header.cluster),
                expected: hex(cluster),
            });
        }
        if header.kind != kind {
            return Err(another_file(file, segment));
        }
        Ok(header)
    }
}

fn another_file(file: &Path, segment: SegmentId) -> SegmentError {
    SegmentError::Corrupt {
        segment,
        file: file.to_owned(),
        range: 0..HEADER_BYTES,
        what: "header of another file".into(),
    }
}

fn member(bytes: &[u8]) -> Member {
    let name = &bytes[9..9 + usize::from(bytes[8])];
    Member {
        incarnation: u64_at(bytes, 0),
        node: String::from_utf8_lossy(name).into_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The little-endian number at `at`; the caller knows that it is there.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

/// The little-endian number at `at`; the caller knows that it is there.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The little-endian number at `at`; the caller knows that it is there.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: FileKind::DedicatedLog,
            cluster: [7; 16],
            segment: SegmentId(0x1_0000_0002),
            incarnation: 3,
            epoch: 4,
            created: Timestamp(-5),
            stream: StreamId(6, 7),
            members: vec![
                Member {
                    incarnation: 3,
                    node: "é".repeat(127),
                },
                Member {
                    incarnation: 9,
                    node: String::new(),
                },
            ],
            tag: 8,
            folders: (1..=FOLDERS_MAX as u64).map(|n| n << 40).collect(),
        }
    }

    #[test]
    fn a_header_reads_back() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let good = header().encode();
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            assert!(matches!(Header::decode(&bad), Err(BadHeader::Damaged(_))), "byte {at}");
        }
        assert!(matches!(Header::decode(&good[..100]), Err(BadHeader::Damaged(_))));
    }

    #[test]
    fn a_newer_version_another_cluster_and_another_file_are_told_apart() {
        let mut newer = header().encode().to_vec();
        newer[8] = 2;
        let crc = crc32c(&newer[..CRC_AT]);
        newer[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let path = Path::new("/f");
        let expect = |bytes: &[u8], cluster: &[u8; 16], id| {
            Header::expect(bytes, path, FileKind::DedicatedLog, SegmentId(id), Some(cluster))
        };
        assert!(matches!(
            expect(&newer, &[7; 16], 1),
            Err(SegmentError::NewerFormat { found: 2, .. })
        ));
        let good = header().encode();
        assert!(expect(&good, &[7; 16], 0x1_0000_0002).is_ok());
        assert!(matches!(
            expect(&good, &[8; 16], 0x1_0000_0002),
            Err(SegmentError::Foreign { .. })
        ));
        assert!(matches!(expect(&good, &[7; 16], 1), Err(SegmentError::Corrupt { .. })));
    }
}
