//! CRC32C, the one checksum from ingest to reader.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm::Crc32Iscsi, Digest, crc32_iscsi};
use std::{array, fmt, iter, sync::LazyLock};

/// The polynomial, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

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

/// Of two runs one after the other, from the sums of both and the length of the second. Takes well under a microsecond, where
/// the usual way (squaring anew for each length) takes fifty: it is done for every append and every block.
pub(crate) fn combine(first: u32, second: u32, second_len: u64) -> u32 {
    let powers = (0..64).filter(|k| second_len >> k & 1 == 1);
    powers.fold(first, |crc, k| ZEROS[k].times(crc)) ^ second
}

/// What 2^k zero bytes do to a sum, for each k.
static ZEROS: LazyLock<[Matrix; 64]> = LazyLock::new(|| {
    let one = Matrix(array::from_fn(|bit| {
        (0..8).fold(1 << bit, |crc, _| crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 })
    }));
    let mut powers = iter::successors(Some(one), |m| Some(m.squared()));
    array::from_fn(|_| powers.next().expect("it never ends"))
});

/// A linear map of 32 bits: where each bit goes.
struct Matrix([u32; 32]);

impl Matrix {
    fn times(&self, vector: u32) -> u32 {
        self.0.iter().enumerate().fold(0, |sum, (bit, column)| {
            sum ^ (column & (vector >> bit & 1).wrapping_neg())
        })
    }

    fn squared(&self) -> Matrix {
        Matrix(self.0.map(|column| self.times(column)))
    }
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
