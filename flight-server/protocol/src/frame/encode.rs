//! From a message to what precedes its body on the wire.

use super::{
    FrameError,
    parse::{APP_METADATA, BODY, DESCRIPTOR, HEADER},
};
use arrow_flight::FlightDescriptor;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// The beginning of a FlightData message in gRPC framing: prefix, fields, and the tag and length of the body. The `body_len` bytes
/// of the body follow it on the wire as they are.
///
/// A message of 4 GiB or more is refused: gRPC has no length for it.
pub fn head(
    descriptor: Option<&FlightDescriptor>,
    data_header: &[u8],
    app_metadata: &[u8],
    body_len: usize,
) -> Result<Bytes, FrameError> {
    let descriptor = descriptor.map(Message::encode_to_vec).unwrap_or_default();
    let small = [
        (DESCRIPTOR, &descriptor[..]),
        (HEADER, data_header),
        (APP_METADATA, app_metadata),
    ];
    let field = |tag: u64, len: usize| {
        if len == 0 {
            0
        } else {
            varint_len(tag) + varint_len(len as u64) + len
        }
    };
    let message = small.iter().map(|(tag, bytes)| field(*tag, bytes.len())).sum::<usize>() + field(BODY, body_len);
    let mut out = BytesMut::with_capacity(5 + message - body_len);
    out.put_slice(&prefix(message)?);
    for (tag, bytes) in small.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        put_varint(&mut out, tag);
        put_varint(&mut out, bytes.len() as u64);
        out.put_slice(bytes);
    }
    if body_len > 0 {
        put_varint(&mut out, BODY);
        put_varint(&mut out, body_len as u64);
    }
    Ok(out.freeze())
}

/// The gRPC prefix of a message of `len` bytes.
pub fn prefix(len: usize) -> Result<[u8; 5], FrameError> {
    let most = u32::MAX as usize;
    let length = u32::try_from(len)
        .map_err(|_| FrameError::TooLarge {
            what: "message",
            bytes: len as u64,
            most,
        })?
        .to_be_bytes();
    Ok([0, length[0], length[1], length[2], length[3]])
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}
