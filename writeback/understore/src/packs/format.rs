//! The bytes of a pack: what is in the files one after another, then an index, then a footer. docs/format.md draws it.
//!
//! Pure. An index that came from a store is checked whole, once ([`Index::parse`]); a record is then read at its position.

use bytes::{BufMut, Bytes, BytesMut};
use crc_fast::CrcAlgorithm;

/// Bytes of the footer.
pub(super) const FOOTER_BYTES: usize = 32;
/// Largest index that is read.
pub(super) const INDEX_BYTES_MAX: u64 = 64 << 20;

const MAGIC: &[u8; 8] = b"FOREBAYP";
const VERSION: u32 = 1;
const GONE: u8 = 0;
const FILE: u8 = 1;

/// What the index says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Where its bytes begin in the pack.
    pub(super) offset: u64,
    pub(super) size: u32,
    /// CRC32C of its bytes.
    pub(super) crc: u32,
    /// Microseconds since the epoch.
    pub(super) mtime: i64,
    pub(super) token: String,
    pub(super) attributes: Vec<(String, String)>,
}

/// One record of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) key: &'a str,
    /// `None`: whatever older packs have under this key is gone.
    pub(super) file: Option<Meta>,
}

/// CRC32C of bytes in pieces.
pub(super) fn crc(chunks: &[Bytes]) -> u32 {
    let mut digest = crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi);
    chunks.iter().for_each(|chunk| digest.update(chunk));
    digest.finalize() as u32
}

/// Bytes that a record takes; `None` when it does not fit the format.
pub(super) fn record_bytes(key: &str, token: &str, attributes: &[(String, String)]) -> Option<usize> {
    let fits = key.len() <= usize::from(u16::MAX)
        && token.len() <= usize::from(u16::MAX)
        && attributes.len() <= usize::from(u8::MAX)
        && attributes
            .iter()
            .all(|(name, value)| name.len() <= usize::from(u8::MAX) && value.len() <= usize::from(u16::MAX));
    let pairs: usize = attributes
        .iter()
        .map(|(name, value)| name.len() + value.len() + 3)
        .sum();
    fits.then_some(key.len() + token.len() + pairs + 30)
}

/// A pack that is being put together.
#[derive(Debug, Default)]
pub(super) struct Builder {
    chunks: Vec<Bytes>,
    data_bytes: u64,
    index: BytesMut,
    records: u32,
}

/// A pack in memory.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) chunks: Vec<Bytes>,
    pub(super) size: u64,
    pub(super) index: Index,
}

impl Builder {
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Adds a file with these bytes. Where they begin is the pack's to say. The caller has seen that it fits ([`record_bytes`]).
    pub(super) fn file(&mut self, key: &str, meta: &Meta, bytes: impl IntoIterator<Item = Bytes>) {
        self.records += 1;
        self.index.put_u8(FILE);
        self.text(key);
        self.index.put_u64_le(self.data_bytes);
        self.index.put_u32_le(meta.size);
        self.index.put_u32_le(meta.crc);
        self.index.put_i64_le(meta.mtime);
        self.text(&meta.token);
        self.index.put_u8(meta.attributes.len() as u8);
        for (name, value) in &meta.attributes {
            self.index.put_u8(name.len() as u8);
            self.index.put_slice(name.as_bytes());
            self.text(value);
        }
        self.data_bytes += u64::from(meta.size);
        self.chunks.extend(bytes);
    }

    /// Says that what older packs have under this key is gone.
    pub(super) fn gone(&mut self, key: &str) {
        self.records += 1;
        self.index.put_u8(GONE);
        self.text(key);
    }

    fn text(&mut self, text: &str) {
        self.index.put_u16_le(text.len() as u16);
        self.index.put_slice(text.as_bytes());
    }

    pub(super) fn finish(self) -> Built {
        let Builder {
            mut chunks,
            data_bytes,
            index,
            records,
        } = self;
        let mut footer = BytesMut::with_capacity(FOOTER_BYTES);
        footer.put_u64_le(data_bytes);
        footer.put_u32_le(index.len() as u32);
        footer.put_u32_le(records);
        footer.put_u32_le(VERSION);
        let index = index.freeze();
        let crc = crc(&[index.clone(), Bytes::copy_from_slice(&footer)]);
        footer.put_u32_le(crc);
        footer.put_slice(MAGIC);
        let size = data_bytes + (index.len() + footer.len()) as u64;
        chunks.extend([index.clone(), footer.freeze()]);
        let index = Index {
            bytes: index,
            data_bytes,
        };
        Built { chunks, size, index }
    }
}

/// The footer of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) index_at: u64,
    pub(super) index_bytes: u32,
    records: u32,
    crc: u32,
}

impl Footer {
    /// From the last bytes of a pack of `size` bytes.
    pub(super) fn parse(tail: &[u8], size: u64) -> Result<Self, String> {
        let footer = tail
            .len()
            .checked_sub(FOOTER_BYTES)
            .and_then(|at| tail.get(at..))
            .ok_or_else(|| format!("{} bytes are too few for a pack", tail.len()))?;
        if &footer[24..] != MAGIC {
            return Err("it does not end as a pack does".into());
        }
        let u32_at = |at: usize| u32::from_le_bytes(footer[at..at + 4].try_into().expect("four bytes"));
        let version = u32_at(16);
        if version != VERSION {
            return Err(format!("a pack of format {version}, and this version reads {VERSION}"));
        }
        let found = Self {
            index_at: u64::from_le_bytes(footer[..8].try_into().expect("eight bytes")),
            index_bytes: u32_at(8),
            records: u32_at(12),
            crc: u32_at(20),
        };
        let ends = found
            .index_at
            .checked_add(u64::from(found.index_bytes) + FOOTER_BYTES as u64);
        if ends != Some(size) || u64::from(found.index_bytes) > INDEX_BYTES_MAX {
            return Err(format!(
                "its index of {} bytes at {} does not fit a pack of {size} bytes",
                found.index_bytes, found.index_at
            ));
        }
        Ok(found)
    }

    fn checked(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u64_le(self.index_at);
        bytes.put_u32_le(self.index_bytes);
        bytes.put_u32_le(self.records);
        bytes.put_u32_le(VERSION);
        bytes.freeze()
    }
}

/// An index that was checked.
#[derive(Clone, Debug)]
pub(super) struct Index {
    bytes: Bytes,
    /// Bytes of all files.
    pub(super) data_bytes: u64,
}

impl Index {
    /// Checks the whole index.
    pub(super) fn parse(bytes: Bytes, footer: &Footer) -> Result<Self, String> {
        if crc(&[bytes.clone(), footer.checked()]) != footer.crc {
            return Err("the checksum of its index is wrong".into());
        }
        let index = Self {
            bytes,
            data_bytes: footer.index_at,
        };
        let (mut at, mut records) = (0, 0);
        while at < index.bytes.len() {
            let (record, next) =
                record_at(&index.bytes, at).ok_or_else(|| format!("record {records} makes no sense"))?;
            let ends = record
                .file
                .as_ref()
                .map_or(Some(0), |meta| meta.offset.checked_add(u64::from(meta.size)));
            if record.key.is_empty() || ends.is_none_or(|end| end > index.data_bytes) {
                return Err(format!("record {records} ({}) makes no sense", record.key));
            }
            (at, records) = (next, records + 1);
        }
        if records != footer.records {
            return Err(format!("{records} records, {} announced", footer.records));
        }
        Ok(index)
    }

    /// The record at this position.
    pub(super) fn at(&self, at: u32) -> Record<'_> {
        let record = record_at(&self.bytes, at as usize);
        record.expect("positions are those of an index that was checked").0
    }

    /// All records with their positions.
    pub(super) fn records(&self) -> impl Iterator<Item = (u32, Record<'_>)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (record, next) = record_at(&self.bytes, at)?;
            let found = (at as u32, record);
            at = next;
            Some(found)
        })
    }

    /// Tells this index from others.
    pub(super) fn sum(&self) -> u64 {
        crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &self.bytes)
    }
}

/// Reads on in bytes that may end anywhere.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn text(&mut self) -> Option<&'a str> {
        let count = u16::from_le_bytes(self.array()?);
        std::str::from_utf8(self.take(usize::from(count))?).ok()
    }
}

/// The record at `at` and where the next one begins.
fn record_at(bytes: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let mut cursor = Cursor { bytes, at };
    let kind = cursor.byte()?;
    let key = cursor.text()?;
    let file = match kind {
        GONE => None,
        FILE => {
            let offset = u64::from_le_bytes(cursor.array()?);
            let size = u32::from_le_bytes(cursor.array()?);
            let crc = u32::from_le_bytes(cursor.array()?);
            let mtime = i64::from_le_bytes(cursor.array()?);
            let token = cursor.text()?.to_owned();
            let mut attributes = Vec::new();
            for _ in 0..cursor.byte()? {
                let count = cursor.byte()?;
                let name = std::str::from_utf8(cursor.take(usize::from(count))?).ok()?;
                attributes.push((name.to_owned(), cursor.text()?.to_owned()));
            }
            Some(Meta {
                offset,
                size,
                crc,
                mtime,
                token,
                attributes,
            })
        }
        _ => return None,
    };
    Some((Record { key, file }, cursor.at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(content: &'static [u8], nth: i64) -> Meta {
        Meta {
            offset: 0,
            size: content.len() as u32,
            crc: crc(&[Bytes::from_static(content)]),
            mtime: 1_700_000_000_000_000 + nth,
            token: format!("one-{nth}-0"),
            attributes: vec![
                ("mode".into(), "640".into()),
                ("user.x".into(), "é".repeat(nth as usize)),
            ],
        }
    }

    fn pack() -> Built {
        let mut builder = Builder::default();
        builder.file(
            "a/b",
            &meta(b"hello", 1),
            [Bytes::from_static(b"hel"), Bytes::from_static(b"lo")],
        );
        builder.gone("a/c");
        builder.file("empty", &meta(b"", 300), []);
        builder.file("日本", &meta(b"world", 0), [Bytes::from_static(b"world")]);
        builder.finish()
    }

    fn bytes_of(built: &Built) -> Vec<u8> {
        built.chunks.concat()
    }

    fn parse(bytes: &[u8]) -> Result<Index, String> {
        let footer = Footer::parse(&bytes[bytes.len().saturating_sub(100)..], bytes.len() as u64)?;
        let index = footer.index_at as usize..footer.index_at as usize + footer.index_bytes as usize;
        Index::parse(Bytes::copy_from_slice(&bytes[index]), &footer)
    }

    #[test]
    fn what_was_packed_is_what_the_index_says() {
        let built = pack();
        let bytes = bytes_of(&built);
        assert_eq!(bytes.len() as u64, built.size);
        let index = parse(&bytes).unwrap();
        let found: Vec<_> = index.records().collect();
        let keys: Vec<&str> = found.iter().map(|(_, record)| record.key).collect();
        assert_eq!(keys, ["a/b", "a/c", "empty", "日本"]);
        for (at, record) in &found {
            assert_eq!(index.at(*at), *record);
            let Some(meta) = &record.file else {
                assert_eq!(record.key, "a/c");
                continue;
            };
            let range = meta.offset as usize..meta.offset as usize + meta.size as usize;
            assert_eq!(
                crc(&[Bytes::copy_from_slice(&bytes[range])]),
                meta.crc,
                "{}",
                record.key
            );
        }
        let last = found[3].1.file.as_ref().unwrap();
        assert_eq!(
            (last.offset, last.token.as_str(), last.mtime),
            (5, "one-0-0", 1_700_000_000_000_000)
        );
        let third = found[2].1.file.as_ref().unwrap();
        assert_eq!(third.attributes[1].1, "é".repeat(300));
    }

    #[test]
    fn a_pack_without_records_is_one() {
        let bytes = bytes_of(&Builder::default().finish());
        assert_eq!(parse(&bytes).unwrap().records().count(), 0);
    }

    #[test]
    fn no_damage_of_index_or_footer_passes_for_a_pack() {
        let good = bytes_of(&pack());
        for at in 10..good.len() {
            for bit in [1, 0x80] {
                let mut bad = good.clone();
                bad[at] ^= bit;
                assert!(parse(&bad).is_err(), "byte {at}");
            }
        }
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn nonsense_with_a_right_checksum_is_refused() {
        for index in [
            &b"\x02\x01\0k"[..],
            b"\x01\x01\0k",
            b"\0\0\0",
            b"\0\xff\xffk",
            b"\0\x01\0\xff",
        ] {
            let built = Builder {
                index: BytesMut::from(index),
                records: 1,
                ..Builder::default()
            }
            .finish();
            assert!(parse(&bytes_of(&built)).is_err(), "{index:?}");
        }
        // A file that goes on beyond the files' bytes.
        let mut builder = Builder::default();
        builder.file("k", &meta(b"longer", 1), [Bytes::from_static(b"long")]);
        builder.data_bytes = 4;
        assert!(parse(&bytes_of(&builder.finish())).is_err());
    }

    #[test]
    fn what_does_not_fit_a_record_is_known_before() {
        let long = "x".repeat(70_000);
        assert_eq!(record_bytes("k", "t", &[]), Some(32));
        assert_eq!(record_bytes(&long, "t", &[]), None);
        assert_eq!(record_bytes("k", "t", &[("a".into(), long.clone())]), None);
        assert_eq!(record_bytes("k", "t", &[("n".repeat(256), String::new())]), None);
        assert_eq!(record_bytes("k", "t", &vec![(String::new(), String::new()); 256]), None);
    }
}
