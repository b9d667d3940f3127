//! GETFILECHECKSUM: the checksum that HDFS would have of the same bytes, so that tools that compare file systems find them equal.
//!
//! HDFS takes a CRC32C of every 512 bytes, an MD5 of each block's CRCs, and an MD5 of the blocks' MD5s: of the whole buffer in which it
//! gathers them, which has 32 bytes and is doubled when it is full, so zeros follow. It is made from the bytes each time, a few files at
//! once.

use super::{
    Answer, Call,
    error::{Exception, Fault},
    json_answer, read,
    status::BLOCK_BYTES,
};
use crc_fast::{CrcAlgorithm, Digest as Crc};
use forebay_writeback::file::FileReader;
use futures::TryStreamExt;
use md5::{Digest, Md5};
use serde_json::json;

/// Bytes of one CRC.
pub(super) const CHUNK_BYTES: u64 = 512;
/// Files of which checksums are made at once.
pub(super) const AT_ONCE: usize = 4;
/// CRCs of one block.
const CRCS_PER_BLOCK: u64 = BLOCK_BYTES / CHUNK_BYTES;
/// Bytes of an MD5.
const MD5_BYTES: u64 = 16;
/// Bytes of the buffer for the blocks' MD5s at first.
const BUFFER_BYTES: u64 = 32;

/// GETFILECHECKSUM. The first request is sent on, as the protocol has it.
pub(super) async fn file_checksum(call: Call) -> Answer {
    call.may_read()?;
    let reader = read::reader(&call).await?;
    if !call.query.flag("data", false)? {
        return call.redirect("data=true");
    }
    let _place = call.hdfs.checksums.acquire().await;
    let sum = sum(reader).await?;
    json_answer(json!({"FileChecksum": {
        "algorithm": sum.algorithm(),
        "bytes": hex::encode(sum.bytes()),
        "length": sum.bytes().len(),
    }}))
}

/// A file's checksum.
#[derive(Debug, PartialEq, Eq)]
struct Sum {
    chunk_bytes: u32,
    crcs_per_block: u64,
    md5: [u8; 16],
}

impl Sum {
    fn algorithm(&self) -> String {
        // HDFS gives a file without blocks a name of its own.
        let crc = if self.chunk_bytes == 0 { "CRC32" } else { "CRC32C" };
        format!("MD5-of-{}MD5-of-{}{crc}", self.crcs_per_block, self.chunk_bytes)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.chunk_bytes.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.crcs_per_block.to_be_bytes());
        bytes.extend_from_slice(&self.md5);
        bytes
    }
}

async fn sum(reader: FileReader) -> Result<Sum, Fault> {
    let size = reader.size();
    let mut summer = Summer::default();
    let mut pieces = read::pieces(reader, 0..size);
    while let Some(piece) = pieces.try_next().await? {
        piece.iter().for_each(|bytes| summer.add(bytes));
        tokio::task::yield_now().await;
    }
    if summer.bytes != size {
        let text = format!("{} of {size} bytes were read for a checksum", summer.bytes);
        return Err(Fault::new(Exception::Failed, text));
    }
    Ok(summer.finish())
}

/// Takes bytes in.
struct Summer {
    bytes: u64,
    crc: Crc,
    block: Md5,
    file: Md5,
}

impl Default for Summer {
    fn default() -> Self {
        Self {
            bytes: 0,
            crc: Crc::new(CrcAlgorithm::Crc32Iscsi),
            block: Md5::new(),
            file: Md5::new(),
        }
    }
}

impl Summer {
    fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.bytes % CHUNK_BYTES;
            let (now, rest) = bytes.split_at(bytes.len().min(room as usize));
            self.crc.update(now);
            self.bytes += now.len() as u64;
            bytes = rest;
            if self.bytes.is_multiple_of(CHUNK_BYTES) {
                self.end_chunk();
            }
            if self.bytes.is_multiple_of(BLOCK_BYTES) {
                self.end_block();
            }
        }
    }

    fn end_chunk(&mut self) {
        let crc = self.crc.finalize() as u32;
        self.block.update(crc.to_be_bytes());
        self.crc = Crc::new(CrcAlgorithm::Crc32Iscsi);
    }

    fn end_block(&mut self) {
        let md5 = self.block.finalize_reset();
        self.file.update(md5);
    }

    /// What is left of the buffer behind the blocks' MD5s.
    fn fill_buffer(&mut self) {
        let gathered = self.bytes.div_ceil(BLOCK_BYTES) * MD5_BYTES;
        let mut buffer = BUFFER_BYTES;
        while buffer < gathered {
            buffer *= 2;
        }
        let zeros = [0u8; BUFFER_BYTES as usize];
        let mut left = buffer - gathered;
        while left > 0 {
            let now = left.min(BUFFER_BYTES);
            self.file.update(&zeros[..now as usize]);
            left -= now;
        }
    }

    fn finish(mut self) -> Sum {
        if self.bytes == 0 {
            self.fill_buffer();
            return Sum {
                chunk_bytes: 0,
                crcs_per_block: 0,
                md5: self.file.finalize().into(),
            };
        }
        if !self.bytes.is_multiple_of(CHUNK_BYTES) {
            self.end_chunk();
        }
        if !self.bytes.is_multiple_of(BLOCK_BYTES) {
            self.end_block();
        }
        self.fill_buffer();
        Sum {
            chunk_bytes: CHUNK_BYTES as u32,
            crcs_per_block: if self.bytes > BLOCK_BYTES { CRCS_PER_BLOCK } else { 0 },
            md5: self.file.finalize().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8], pieces: usize) -> Sum {
        let mut summer = Summer::default();
        bytes.chunks(pieces).for_each(|piece| summer.add(piece));
        summer.finish()
    }

    #[test]
    fn an_empty_file_has_what_hdfs_says_of_one() {
        let sum = of(b"", 1);
        assert_eq!(sum.algorithm(), "MD5-of-0MD5-of-0CRC32");
        assert_eq!(
            hex::encode(sum.bytes()),
            "00000000000000000000000070bc8f4b72a86921468bf8e8441dce51"
        );
    }

    /// The first bytes of the numbers from 0 to 255, over and over.
    fn of_pattern(mut left: usize) -> Sum {
        let piece: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        let mut summer = Summer::default();
        while left > 0 {
            let now = left.min(piece.len());
            summer.add(&piece[..now]);
            left -= now;
        }
        summer.finish()
    }

    #[test]
    fn files_have_what_hdfs_said_of_the_same_bytes() {
        // As `hdfs dfs -checksum` of HDFS 3.4.3 told it: a file of one block, of three and of six.
        let hello = of(b"hello\n", 6);
        assert_eq!(hex::encode(hello.md5), "2b559725e23eb93541b0675b41e25ab3");
        for (bytes, md5) in [
            (300_000_123, "9e9bc2e5f9a1a986f458fcd847559151"),
            (700_000_000, "5d3fed48180b6871ff79f3b4b5b354e8"),
        ] {
            let sum = of_pattern(bytes);
            assert_eq!(sum.algorithm(), "MD5-of-262144MD5-of-512CRC32C");
            assert_eq!(hex::encode(sum.md5), md5);
        }
    }

    #[test]
    fn how_the_bytes_came_does_not_matter() {
        let bytes: Vec<u8> = (0..5000u32).map(|k| (k * 7) as u8).collect();
        let whole = of(&bytes, 5000);
        assert_eq!(whole.algorithm(), "MD5-of-0MD5-of-512CRC32C");
        assert_eq!(whole.bytes().len(), 28);
        for pieces in [1, 511, 512, 513, 1024] {
            assert_eq!(of(&bytes, pieces), whole);
        }
        assert_ne!(of(&bytes[1..], 512), whole);
    }
}
