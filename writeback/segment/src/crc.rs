//! CRC32C, the one checksum from ingest to reader.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm::Crc32Iscsi, Digest, checksum_combine, crc32_iscsi};
use std::fmt;

/// Of one run of bytes.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc32_iscsi(bytes)
}

/// Of chunks, one after the other.
pub(crate) fn crc32c_chunks(chunks: &[Bytes]) -> u32 {
    if let [only] = chunks {
        return crc32c(only);
    }
    let mut crc = Crc::new();
    chunks.iter().for_each(|chunk| crc.update(chunk));
    crc.value()
}

/// Of two runs one after the other, from the sums of both and the length of the second.
pub(crate) fn combine(first: u32, second: u32, second_len: u64) -> u32 {
    if second_len == 0 {
        return first;
    }
    checksum_combine(Crc32Iscsi, first.into(), second.into(), second_len) as u32
}

/// A sum in the making.
#[derive(Clone)]
pub(crate) struct Crc(Digest);

impl Crc {
    pub(crate) fn new() -> Self {
        Crc(Digest::new(Crc32Iscsi))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all bytes so far.
    pub(crate) fn value(&self) -> u32 {
        self.0.finalize() as u32
    }

    /// How many bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.0.get_amount()
    }

    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }
}

impl fmt::Debug for Crc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crc({:08x} of {})", self.value(), self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_crc32c_and_sums_of_parts_make_the_sum_of_the_whole() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        for at in [0, 1, 7, 64, 4096, 65_537, 100_000] {
            let (a, b) = bytes.split_at(at);
            assert_eq!(
                combine(crc32c(a), crc32c(b), b.len() as u64),
                crc32c(&bytes),
                "cut at {at}"
            );
            let chunks = [Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)];
            assert_eq!(crc32c_chunks(&chunks), crc32c(&bytes), "cut at {at}");
        }
        assert_eq!(crc32c_chunks(&[]), crc32c(b""));
    }
}
