//! From DATA frames to messages. Incremental: what a frame leaves unfinished waits for the next, and nothing is read twice
//! but a varint cut in two. Tolerant of field order and of fields it does not know; a field that comes twice counts the last time.

use super::{Caps, Collect, FlightMessage, FrameError, Slices, queue::Queue};
use arrow_flight::FlightDescriptor;
use bytes::Bytes;
use prost::Message;

/// Parses the FlightData messages of one stream. `C` says what becomes of bodies; by default they stay slices of the frames.
#[derive(Debug)]
pub struct Parser<C = Slices> {
    caps: Caps,
    queue: Queue,
    state: State,
    message: FlightMessage<()>,
    body: C,
}

/// Where in a message the parser stands.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Before the prefix of a message.
    Prefix,
    /// Before a field, with `left` bytes of the message to come.
    Field { left: usize },
    /// Before the `length` bytes of a small field that is taken whole.
    Small { field: Small, length: usize, left: usize },
    /// In the body, with `length` bytes of it to come.
    Body { length: usize, left: usize },
    /// In a field that is not known.
    Skip { length: usize, left: usize },
}

#[derive(Clone, Copy, Debug)]
enum Small {
    Descriptor,
    Header,
    AppMetadata,
}

impl Parser {
    /// A parser at the beginning of a stream, that leaves bodies where they are.
    pub fn new(caps: Caps) -> Self {
        Self::collecting(caps, Slices::default())
    }
}

impl<C: Collect> Parser<C> {
    /// A parser at the beginning of a stream, that gives the pieces of bodies to `body`.
    pub fn collecting(caps: Caps, body: C) -> Self {
        Self {
            caps,
            queue: Queue::default(),
            state: State::Prefix,
            message: FlightMessage::default(),
            body,
        }
    }

    /// Takes the next DATA frame.
    pub fn push(&mut self, frame: Bytes) {
        self.queue.push(frame);
    }

    /// The next message, when it is complete; `None`: push more. After an error the stream is lost.
    pub fn next_message(&mut self) -> Result<Option<FlightMessage<C::Body>>, FrameError> {
        loop {
            let next = match self.state {
                State::Prefix => read_prefix(&mut self.queue, self.caps.message)?.map(|left| State::Field { left }),
                State::Field { left: 0 } => {
                    self.state = State::Prefix;
                    let FlightMessage {
                        descriptor,
                        data_header,
                        app_metadata,
                        body: (),
                    } = std::mem::take(&mut self.message);
                    let body = self.body.finish();
                    return Ok(Some(FlightMessage {
                        descriptor,
                        data_header,
                        app_metadata,
                        body,
                    }));
                }
                State::Field { left } => self.field(left)?,
                State::Small { field, length, left } => self.small(field, length)?.map(|()| State::Field { left }),
                State::Body { length: 0, left } | State::Skip { length: 0, left } => Some(State::Field { left }),
                State::Body { length, left } => {
                    let piece = self.queue.take_some(length);
                    let length = length - piece.len();
                    let more = !piece.is_empty();
                    self.body.push(piece);
                    more.then_some(State::Body { length, left })
                }
                State::Skip { length, left } => {
                    let skipped = self.queue.skip(length);
                    (skipped > 0).then_some(State::Skip {
                        length: length - skipped,
                        left,
                    })
                }
            };
            match next {
                Some(state) => self.state = state,
                None => return Ok(None),
            }
        }
    }

    /// Says whether the stream may end here.
    pub fn finish(&self) -> Result<(), FrameError> {
        if matches!(self.state, State::Prefix) && self.queue.len() == 0 {
            Ok(())
        } else {
            Err(FrameError::Truncated)
        }
    }

    /// Reads a field's tag and length. Both or neither are consumed.
    fn field(&mut self, left: usize) -> Result<Option<State>, FrameError> {
        let mut bytes = self.queue.peek().take(left);
        let Some((tag, tag_len)) = varint(&mut bytes, left)? else {
            return Ok(None);
        };
        let number = tag >> 3;
        if number == 0 || tag > u64::from(u32::MAX) {
            return Err(FrameError::Malformed(
                "a field with a number that protobuf does not have",
            ));
        }
        let left = left - tag_len;
        let (length, length_len) = match tag & 7 {
            0 => match varint(&mut bytes, left)? {
                Some((_, len)) => (0, len),
                None => return Ok(None),
            },
            1 => (8, 0),
            5 => (4, 0),
            2 => match varint(&mut bytes, left)? {
                Some(found) => found,
                None => return Ok(None),
            },
            _ => {
                return Err(FrameError::Malformed(
                    "a field of a wire type that proto3 does not have",
                ));
            }
        };
        drop(bytes);
        let left = left - length_len;
        if length > left as u64 {
            return Err(FrameError::Malformed("a field that is longer than its message"));
        }
        let length = length as usize;
        let left = left - length;
        let state = self.state_of(tag, length, left)?;
        self.queue.skip(tag_len + length_len);
        Ok(Some(state))
    }

    fn state_of(&mut self, tag: u64, length: usize, left: usize) -> Result<State, FrameError> {
        let (field, what, most) = match tag {
            DESCRIPTOR => (Small::Descriptor, "descriptor", self.caps.header),
            HEADER => (Small::Header, "data_header", self.caps.header),
            APP_METADATA => (Small::AppMetadata, "app_metadata", self.caps.app_metadata),
            BODY => {
                self.body.start(length);
                return Ok(State::Body { length, left });
            }
            _ => return Ok(State::Skip { length, left }),
        };
        if length > most {
            return Err(FrameError::TooLarge {
                what,
                bytes: length as u64,
                most,
            });
        }
        Ok(State::Small { field, length, left })
    }

    fn small(&mut self, field: Small, length: usize) -> Result<Option<()>, FrameError> {
        let Some(bytes) = self.queue.take_exact(length) else {
            return Ok(None);
        };
        match field {
            Small::Header => self.message.data_header = bytes,
            Small::AppMetadata => self.message.app_metadata = bytes,
            Small::Descriptor => {
                let descriptor =
                    FlightDescriptor::decode(bytes).map_err(|_| FrameError::Malformed("a descriptor that is none"))?;
                self.message.descriptor = Some(descriptor);
            }
        }
        Ok(Some(()))
    }
}

/// Tags with wire type 2.
pub(super) const DESCRIPTOR: u64 = 1 << 3 | 2;
pub(super) const HEADER: u64 = 2 << 3 | 2;
pub(super) const APP_METADATA: u64 = 3 << 3 | 2;
pub(super) const BODY: u64 = 1000 << 3 | 2;

/// Splits a stream into its messages, each whole.
#[derive(Debug)]
pub struct Messages {
    most: usize,
    queue: Queue,
    length: Option<usize>,
}

impl Messages {
    /// A splitter at the beginning of a stream of messages of at most `most` bytes each.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            queue: Queue::default(),
            length: None,
        }
    }

    /// Takes the next DATA frame.
    pub fn push(&mut self, frame: Bytes) {
        self.queue.push(frame);
    }

    /// The next message, when it is complete; `None`: push more. After an error the stream is lost.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.length.is_none() {
            self.length = read_prefix(&mut self.queue, self.most)?;
        }
        let Some(length) = self.length else { return Ok(None) };
        let message = self.queue.take_exact(length);
        if message.is_some() {
            self.length = None;
        }
        Ok(message)
    }

    /// Says whether the stream may end here.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.length.is_none() && self.queue.len() == 0 {
            Ok(())
        } else {
            Err(FrameError::Truncated)
        }
    }
}

/// Reads the length of a message, if its prefix is there.
fn read_prefix(queue: &mut Queue, most: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = queue.take_exact(5) else {
        return Ok(None);
    };
    match prefix[0] {
        0 => {}
        1 => return Err(FrameError::Compressed),
        _ => return Err(FrameError::Malformed("a message that begins with neither 0 nor 1")),
    }
    let length = u32::from_be_bytes(prefix[1..5].try_into().expect("four bytes"));
    match usize::try_from(length) {
        Ok(length) if length <= most => Ok(Some(length)),
        _ => Err(FrameError::TooLarge {
            what: "message",
            bytes: length.into(),
            most,
        }),
    }
}

/// Reads a varint and its length in bytes; `None` while bytes are missing that may still come, of the `left` that can.
fn varint(bytes: &mut impl Iterator<Item = u8>, left: usize) -> Result<Option<(u64, usize)>, FrameError> {
    const LONGEST: usize = 10;
    let mut value = 0u64;
    for at in 0..LONGEST.min(left) {
        let Some(byte) = bytes.next() else { return Ok(None) };
        value |= u64::from(byte & 0x7f).checked_shl(7 * at as u32).unwrap_or(0);
        if byte < 0x80 {
            return Ok(Some((value, at + 1)));
        }
    }
    Err(FrameError::Malformed("a number without an end"))
}
