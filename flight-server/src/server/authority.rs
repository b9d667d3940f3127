//! Authorities that name a socket, made such that a server in Rust takes them.
//!
//! On a Unix socket a client of gRPC's C core (pyarrow, grpcio, C++) says the socket's path, percent-encoded, for `:authority`:
//! `run%2Fforebay.sock`. RFC 3986 (section 3.2.2) allows that, the `http` crate does not, and every such call ends as malformed.
//! Nothing here asks what the authority of a Flight call is, so on the way from the socket to `h2` each octet of it that may not
//! stay becomes a `-`.
//!
//! # How
//! [`Authorities`] sees each octet once, as it was read: it follows frames (RFC 9113, sections 3.4, 4.1, 6.2 and 6.10) to the
//! header blocks, and there the fields (RFC 7541, sections 5 and 6) to the values of a literal `:authority`, by the static index
//! or spelled out. Octets are changed where they lie and none is added or taken. So frames keep their lengths, entries of the
//! dynamic table their sizes (RFC 7541, section 4.1), and both sides evict the same ones; what later comes by index needs
//! nothing. And so nothing is held back: all that is kept is where in a field the last read ended.
//!
//! # What it does not do
//! It keeps no dynamic table and decodes no Huffman code: the C core codes this field never (only binary metadata). It judges
//! nothing either: at the first octet that is not HTTP/2 (HTTP/1 at the other door, TLS) it lets go, and what follows is the
//! server's to refuse. A client gains nothing by leading it astray, as it might have sent what comes out.

#[cfg(test)]
mod tests;

/// What a client of HTTP/2 says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// What stands before the block with [`PRIORITY`].
const PRIORITY_BYTES: usize = 5;

const NAME: &[u8] = b":authority";
/// The index of [`NAME`] in the static table.
const NAME_INDEX: u32 = 1;
/// The shift of the last octet of an integer, as `h2` limits them: below 2^29 whatever the prefix.
const SHIFT_MAX: u32 = 21;

/// Follows what one client sends.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    at: At,
    /// The header block that is not at its end.
    block: Option<Block>,
}

/// Where in the connection the next octet stands.
#[derive(Debug)]
enum At {
    Preface {
        seen: usize,
    },
    Head {
        octets: [u8; FRAME_HEAD_BYTES],
        seen: usize,
    },
    Fragment(Fragment),
    Skipped {
        left: usize,
    },
    /// It is not HTTP/2; nothing is looked at any more.
    Lost,
}

/// What is left of a frame with a part of a header block.
#[derive(Debug)]
struct Fragment {
    /// An octet says how much padding there is.
    padded: bool,
    /// Octets before the block.
    ahead: usize,
    /// Octets of the block.
    left: usize,
    /// Octets after it.
    padding: usize,
    /// The block ends with this frame.
    ends: bool,
}

/// It is not HTTP/2, or not in order.
struct Strange;

impl Authorities {
    /// Changes what may not stay in octets that follow those of the call before.
    pub(super) fn pass(&mut self, mut octets: &mut [u8]) {
        while !octets.is_empty() && !matches!(self.at, At::Lost) {
            match self.step(octets) {
                Ok(passed) => octets = &mut octets[passed..],
                Err(Strange) => self.at = At::Lost,
            }
        }
    }

    /// How many octets were dealt with; it may be none where a frame ends, which the next step is past.
    fn step(&mut self, octets: &mut [u8]) -> Result<usize, Strange> {
        match &mut self.at {
            At::Preface { seen } => {
                if octets[0] != PREFACE[*seen] {
                    return Err(Strange);
                }
                *seen += 1;
                if *seen == PREFACE.len() {
                    self.at = At::head();
                }
                Ok(1)
            }
            At::Head { octets: head, seen } => {
                let passed = octets.len().min(FRAME_HEAD_BYTES - *seen);
                head[*seen..*seen + passed].copy_from_slice(&octets[..passed]);
                *seen += passed;
                if *seen == FRAME_HEAD_BYTES {
                    let head = *head;
                    self.at = self.enter(head)?;
                }
                Ok(passed)
            }
            At::Fragment(fragment) => {
                let block = self.block.as_mut().ok_or(Strange)?;
                if let Some(passed) = fragment.pass(octets, block)? {
                    return Ok(passed);
                }
                if fragment.ends {
                    if !matches!(block.next, Next::Field) {
                        return Err(Strange);
                    }
                    self.block = None;
                }
                self.at = At::Skipped { left: fragment.padding };
                Ok(0)
            }
            At::Skipped { left } => {
                let passed = octets.len().min(*left);
                *left -= passed;
                if *left == 0 {
                    self.at = At::head();
                }
                Ok(passed)
            }
            At::Lost => Ok(octets.len()),
        }
    }

    /// The payload behind this head.
    fn enter(&mut self, head: [u8; FRAME_HEAD_BYTES]) -> Result<At, Strange> {
        let [l0, l1, l2, kind, flags, ..] = head;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let has = |flag| kind == HEADERS && flags & flag != 0;
        let (padded, ahead) = (has(PADDED), if has(PRIORITY) { PRIORITY_BYTES } else { 0 });
        match (kind, &self.block) {
            (HEADERS, None) => self.block = Some(Block::default()),
            (CONTINUATION, Some(_)) => {}
            (CONTINUATION, None) | (_, Some(_)) => return Err(Strange),
            (_, None) => return Ok(At::Skipped { left: length }),
        }
        Ok(At::Fragment(Fragment {
            padded,
            ahead,
            left: length.checked_sub(usize::from(padded) + ahead).ok_or(Strange)?,
            padding: 0,
            ends: flags & END_HEADERS != 0,
        }))
    }
}

impl At {
    fn head() -> Self {
        Self::Head {
            octets: [0; FRAME_HEAD_BYTES],
            seen: 0,
        }
    }
}

impl Default for At {
    fn default() -> Self {
        Self::Preface { seen: 0 }
    }
}

impl Fragment {
    /// `None` where only padding is left.
    fn pass(&mut self, octets: &mut [u8], block: &mut Block) -> Result<Option<usize>, Strange> {
        if self.padded {
            self.padded = false;
            self.padding = octets[0].into();
            self.left = self.left.checked_sub(self.padding).ok_or(Strange)?;
            return Ok(Some(1));
        }
        if self.ahead > 0 {
            let passed = octets.len().min(self.ahead);
            self.ahead -= passed;
            return Ok(Some(passed));
        }
        if self.left > 0 {
            let passed = octets.len().min(self.left);
            self.left -= passed;
            block.pass(&mut octets[..passed])?;
            return Ok(Some(passed));
        }
        Ok(None)
    }
}

/// A header block: one field after the other.
#[derive(Debug, Default)]
struct Block {
    next: Next,
    /// The field is an authority, as far as its name was seen, and its value is not coded.
    authority: bool,
    /// Its value had a colon.
    port: bool,
}

/// What the next octet of a header block is.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Field,
    NameLength,
    Name {
        left: u32,
    },
    ValueLength,
    Value {
        left: u32,
    },
    /// More of an integer.
    More {
        value: u32,
        shift: u32,
        of: Integer,
    },
}

/// What an integer says.
#[derive(Clone, Copy, Debug)]
enum Integer {
    /// A field that is in a table, or the table's size.
    Whole,
    /// Which name; 0 when it is spelled out.
    NameIndex,
    NameLength {
        coded: bool,
    },
    ValueLength {
        coded: bool,
    },
}

impl Block {
    fn pass(&mut self, mut octets: &mut [u8]) -> Result<(), Strange> {
        while let Some(&first) = octets.first() {
            let mut passed = 1;
            self.next = match self.next {
                Next::Field => self.field(first),
                Next::NameLength => self.integer(
                    first,
                    7,
                    Integer::NameLength {
                        coded: first & 0x80 != 0,
                    },
                ),
                Next::ValueLength => self.integer(
                    first,
                    7,
                    Integer::ValueLength {
                        coded: first & 0x80 != 0,
                    },
                ),
                Next::More { value, shift, of } => self.more(value, shift, of, first)?,
                Next::Name { left } => {
                    passed = octets.len().min(left as usize);
                    self.authority &= NAME[NAME.len().saturating_sub(left as usize)..].starts_with(&octets[..passed]);
                    match left - passed as u32 {
                        0 => Next::ValueLength,
                        left => Next::Name { left },
                    }
                }
                Next::Value { left } => {
                    passed = octets.len().min(left as usize);
                    if self.authority {
                        octets[..passed].iter_mut().for_each(|octet| *octet = self.fit(*octet));
                    }
                    match left - passed as u32 {
                        0 => Next::Field,
                        left => Next::Value { left },
                    }
                }
            };
            octets = &mut octets[passed..];
        }
        Ok(())
    }

    /// The first octet of a field (RFC 7541, section 6).
    fn field(&mut self, first: u8) -> Next {
        match first {
            0x80.. => self.integer(first, 7, Integer::Whole),
            0x40.. => self.integer(first, 6, Integer::NameIndex),
            0x20.. => self.integer(first, 5, Integer::Whole),
            _ => self.integer(first, 4, Integer::NameIndex),
        }
    }

    /// The first octet of an integer (RFC 7541, section 5.1).
    fn integer(&mut self, first: u8, prefix_bits: u32, of: Integer) -> Next {
        let full = (1 << prefix_bits) - 1;
        match u32::from(first) & full {
            value if value < full => self.known(value, of),
            value => Next::More { value, shift: 0, of },
        }
    }

    fn more(&mut self, value: u32, shift: u32, of: Integer, octet: u8) -> Result<Next, Strange> {
        let value = value + (u32::from(octet & 0x7F) << shift);
        match octet & 0x80 {
            0 => Ok(self.known(value, of)),
            _ if shift == SHIFT_MAX => Err(Strange),
            _ => Ok(Next::More {
                value,
                shift: shift + 7,
                of,
            }),
        }
    }

    /// What follows an integer.
    fn known(&mut self, value: u32, of: Integer) -> Next {
        match of {
            Integer::Whole => Next::Field,
            Integer::NameIndex if value == 0 => Next::NameLength,
            Integer::NameIndex => {
                self.authority = value == NAME_INDEX;
                Next::ValueLength
            }
            Integer::NameLength { coded } => {
                self.authority = !coded && value as usize == NAME.len();
                match value {
                    0 => Next::ValueLength,
                    left => Next::Name { left },
                }
            }
            Integer::ValueLength { coded } => {
                self.authority &= !coded;
                self.port = false;
                match value {
                    0 => Next::Field,
                    left => Next::Value { left },
                }
            }
        }
    }

    /// The octet itself where a host and a port may have it. Each is judged by those before it, so that no value has to be held
    /// together; thus what hosts rarely are, as an IPv6 address in brackets, goes too.
    fn fit(&mut self, octet: u8) -> u8 {
        match octet {
            b':' if !self.port => {
                self.port = true;
                octet
            }
            b'-' | b'.' | b'_' | b'~' => octet,
            _ if octet.is_ascii_alphanumeric() => octet,
            _ => b'-',
        }
    }
}
