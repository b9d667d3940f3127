//! Compressed buffers, without decompressing them: what they may decode to, and whether they are what their format says.

use super::{DECODED_BYTES_MAX, joined, validate::compression};
use crate::{Error, Result};
use arrow_ipc::CompressionType;
use bytes::Bytes;

/// How a compressed buffer must be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frames {
    /// Any way that our decoder reads: files of others, and what is stored.
    Readable,
    /// One frame and nothing behind it: what every reader takes. Our decoder also reads LZ4 frames that are cut or follow each other.
    One,
}

/// Refuses compressed buffers that claim to be more than [`DECODED_BYTES_MAX`] together (the decoder believes them), or that are not
/// made as they must be. Goes over the headers of blocks only: that blocks hold what is claimed, the decoder finds out.
pub(crate) fn check(batch: &arrow_ipc::RecordBatch<'_>, body: &[Bytes], frames: Frames) -> Result<()> {
    let Some(codec) = compression(batch)? else {
        return Ok(());
    };
    let body = joined(body);
    let mut decoded: u64 = 0;
    for (number, buffer) in batch.buffers().into_iter().flatten().enumerate() {
        let bytes = slice(&body, buffer)?;
        if bytes.is_empty() {
            continue;
        }
        let (length, content) = bytes
            .split_at_checked(8)
            .ok_or_else(|| Error::invalid("a compressed buffer of less than 8 bytes"))?;
        let claim = i64::from_le_bytes(length.try_into().expect("split at 8"));
        let bound = match (claim, codec) {
            (-1, _) => content.len() as u64,
            (claim, CompressionType::LZ4_FRAME) if claim >= 0 => (claim.unsigned_abs()).max(lz4_bound(content)),
            (claim, _) if claim >= 0 => claim.unsigned_abs(),
            _ => {
                return Err(Error::invalid(format!(
                    "a compressed buffer claims a length of {claim}"
                )));
            }
        };
        decoded = decoded.saturating_add(bound);
        let is_stored = claim == -1 || (claim == 0 && content.is_empty());
        if frames == Frames::One && !is_stored && !is_one_frame(codec, content) {
            let name = codec.variant_name().unwrap_or("a compressed");
            return Err(Error::invalid(format!(
                "buffer {number} is not exactly one frame of {name}: it is cut, or something follows"
            )));
        }
    }
    if decoded > DECODED_BYTES_MAX {
        return Err(Error::invalid(format!(
            "a compressed body that decodes to {decoded} bytes; at most {DECODED_BYTES_MAX} are taken in one message"
        )));
    }
    Ok(())
}

/// The bytes of one buffer.
fn slice<'a>(body: &'a [u8], buffer: &arrow_ipc::Buffer) -> Result<&'a [u8]> {
    let range = usize::try_from(buffer.offset())
        .ok()
        .zip(usize::try_from(buffer.length()).ok());
    range
        .and_then(|(start, len)| body.get(start..start.checked_add(len)?))
        .ok_or_else(|| Error::invalid("a buffer lies outside of the body"))
}

fn is_one_frame(codec: CompressionType, content: &[u8]) -> bool {
    match codec {
        CompressionType::LZ4_FRAME => Lz4Blocks::of(content).is_some_and(Lz4Blocks::are_all),
        _ => is_one_zstd_frame(content).unwrap_or(false),
    }
}

/// The most that an LZ4 frame can decode to. The Arrow crate reads such a frame to its end, whatever the claim beside it says.
fn lz4_bound(frame: &[u8]) -> u64 {
    // Of any block at most 255 bytes come out of one byte; a block is not larger than the frame's descriptor says.
    let any = (frame.len() as u64).saturating_mul(255);
    let Some(blocks) = Lz4Blocks::of(frame) else { return any };
    blocks.bound().min(any)
}

/// The blocks of an LZ4 frame.
struct Lz4Blocks<'a> {
    rest: &'a [u8],
    block_max: u64,
    block_checksums: bool,
    content_checksum: bool,
}

impl<'a> Lz4Blocks<'a> {
    fn of(frame: &'a [u8]) -> Option<Self> {
        let rest = frame.strip_prefix(&0x184d_2204_u32.to_le_bytes())?;
        let (&flags, rest) = rest.split_first()?;
        let (&descriptor, rest) = rest.split_first()?;
        let block_max = match (descriptor >> 4) & 7 {
            4 => 64 << 10,
            5 => 256 << 10,
            6 => 1 << 20,
            7 => 4 << 20,
            _ => return None,
        };
        let optional = if flags & 8 != 0 { 8 } else { 0 } + if flags & 1 != 0 { 4 } else { 0 };
        Some(Self {
            rest: rest.get(optional + 1..)?,
            block_max,
            block_checksums: flags & 16 != 0,
            content_checksum: flags & 4 != 0,
        })
    }

    /// Sums the bounds of the blocks. What follows the end mark (another frame) is bounded without a look.
    fn bound(mut self) -> u64 {
        let mut sum: u64 = 0;
        while let Some((word, rest)) = self.rest.split_first_chunk::<4>() {
            let word = u32::from_le_bytes(*word);
            if word == 0 {
                return sum + (rest.len() as u64).saturating_mul(255);
            }
            let len = word & 0x7fff_ffff;
            let grows = if word == len { 255 } else { 1 };
            sum = sum.saturating_add((u64::from(len) * grows).min(self.block_max));
            self.rest = rest.get(self.skipped(len)..).unwrap_or_default();
        }
        sum
    }

    /// Whether the end mark is there, and the frame's end with it.
    fn are_all(mut self) -> bool {
        while let Some((word, rest)) = self.rest.split_first_chunk::<4>() {
            let word = u32::from_le_bytes(*word);
            if word == 0 {
                return rest.len() == if self.content_checksum { 4 } else { 0 };
            }
            let Some(rest) = rest.get(self.skipped(word & 0x7fff_ffff)..) else {
                return false;
            };
            self.rest = rest;
        }
        false
    }

    fn skipped(&self, len: u32) -> usize {
        len as usize + if self.block_checksums { 4 } else { 0 }
    }
}

/// Whether a frame of Zstandard (RFC 8878, 3.1.1) begins and ends with `frame`. None: it is cut.
fn is_one_zstd_frame(frame: &[u8]) -> Option<bool> {
    let (&flags, rest) = frame.strip_prefix(&0xfd2f_b528_u32.to_le_bytes())?.split_first()?;
    let single_segment = flags & 32 != 0;
    let window = usize::from(!single_segment);
    let dictionary = [0, 1, 2, 4][usize::from(flags & 3)];
    let content_size = match flags >> 6 {
        0 => usize::from(single_segment),
        wide => 1 << wide,
    };
    let checksum = if flags & 4 != 0 { 4 } else { 0 };
    let mut rest = rest.get(window + dictionary + content_size..)?;
    loop {
        let (&[low, middle, high], content) = rest.split_first_chunk::<3>()?;
        let word = u32::from_le_bytes([low, middle, high, 0]);
        let len = match (word >> 1) & 3 {
            1 => 1, // One byte, repeated.
            3 => return Some(false),
            _ => (word >> 3) as usize,
        };
        rest = content.get(len..)?;
        if word & 1 == 1 {
            return Some(rest.len() == checksum);
        }
    }
}
