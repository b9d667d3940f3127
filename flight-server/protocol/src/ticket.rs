//! Signed tickets: what a server gave out it recognises again, and nothing else.
//!
//! ```text
//! version u8 = 1 | expires u64 | principal length u16 | principal | payload … | HMAC-SHA256 of all before, 32 bytes
//! ```
//! Numbers are big-endian. The MAC covers every byte before it, so that any flipped bit, cut or extension is refused; it is
//! compared in constant time. The payload is the server's own word. It is signed, not hidden: put no secrets in it.

use bytes::Bytes;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
const HEAD_BYTES: usize = 1 + 8 + 2;
/// Nothing longer is looked at.
pub const TICKET_BYTES_MAX: usize = 1 << 20;

/// Signs tickets and recognises them. Tickets signed with an earlier key stay good until they expire.
#[derive(Clone)]
pub struct Signer {
    keys: Vec<[u8; 32]>,
}

/// What a good ticket says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Whom it was given to; the caller compares it with who asks. Empty: nobody in particular.
    pub principal: String,
    /// When it expires, seconds since the epoch.
    pub expires: u64,
    /// The server's own word.
    pub payload: Bytes,
}

/// Why a ticket is refused. Doors answer UNAUTHENTICATED for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// We did not sign this.
    #[error("this ticket was not given out by this server; ask GetFlightInfo for a new one")]
    Forged,
    /// It was good once.
    #[error("this ticket has expired; ask GetFlightInfo for a new one")]
    Expired,
}

impl Signer {
    /// Signs with `key`, 32 random bytes.
    pub fn new(key: [u8; 32]) -> Self {
        Self { keys: vec![key] }
    }

    /// Also recognises what was signed with `key`.
    #[must_use]
    pub fn recognising(mut self, key: [u8; 32]) -> Self {
        self.keys.push(key);
        self
    }

    /// A ticket for `principal`, good until `expires` (seconds since the epoch).
    pub fn sign(&self, expires: u64, principal: &str, payload: &[u8]) -> Bytes {
        let principal = &principal.as_bytes()[..principal.len().min(usize::from(u16::MAX))];
        let mut ticket = Vec::with_capacity(HEAD_BYTES + principal.len() + payload.len() + MAC_BYTES);
        ticket.push(VERSION);
        ticket.extend_from_slice(&expires.to_be_bytes());
        ticket.extend_from_slice(&(principal.len() as u16).to_be_bytes());
        ticket.extend_from_slice(principal);
        ticket.extend_from_slice(payload);
        let mac = mac(&self.keys[0], &ticket).finalize().into_bytes();
        ticket.extend_from_slice(&mac);
        ticket.into()
    }

    /// What `ticket` says, if we signed it and it has not expired at `now` (seconds since the epoch).
    pub fn open(&self, ticket: &Bytes, now: u64) -> Result<Opened, TicketError> {
        if ticket.len() < HEAD_BYTES + MAC_BYTES || ticket.len() > TICKET_BYTES_MAX {
            return Err(TicketError::Forged);
        }
        let (signed, tag) = ticket.split_at(ticket.len() - MAC_BYTES);
        if !self.keys.iter().any(|key| mac(key, signed).verify_slice(tag).is_ok()) {
            return Err(TicketError::Forged);
        }
        let opened = parse(ticket, signed).ok_or(TicketError::Forged)?;
        if opened.expires <= now {
            return Err(TicketError::Expired);
        }
        Ok(opened)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

fn mac(key: &[u8; 32], signed: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(signed);
    mac
}

fn parse(ticket: &Bytes, signed: &[u8]) -> Option<Opened> {
    let (version, rest) = signed.split_first()?;
    let (expires, rest) = rest.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (principal, payload) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    (*version == VERSION).then_some(())?;
    Some(Opened {
        principal: std::str::from_utf8(principal).ok()?.to_owned(),
        expires: u64::from_be_bytes(*expires),
        payload: ticket.slice_ref(payload),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn signer() -> Signer {
        Signer::new([7; 32])
    }

    #[test]
    fn what_was_signed_opens() {
        let ticket = signer().sign(NOW + 60, "ada", b"part 3");
        let opened = signer().open(&ticket, NOW).unwrap();
        assert_eq!(
            opened,
            Opened {
                principal: "ada".into(),
                expires: NOW + 60,
                payload: Bytes::from_static(b"part 3")
            }
        );
    }

    #[test]
    fn it_expires() {
        let ticket = signer().sign(NOW, "", b"");
        assert!(signer().open(&ticket, NOW - 1).is_ok());
        assert_eq!(signer().open(&ticket, NOW), Err(TicketError::Expired));
    }

    #[test]
    fn every_flipped_bit_cut_and_extension_is_refused() {
        let ticket = signer().sign(NOW + 60, "ada", b"{\"path\":\"/a\"}");
        for bit in 0..ticket.len() * 8 {
            let mut forged = ticket.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                signer().open(&forged.into(), NOW),
                Err(TicketError::Forged),
                "bit {bit}"
            );
        }
        for length in 0..ticket.len() {
            assert_eq!(
                signer().open(&ticket.slice(..length), NOW),
                Err(TicketError::Forged),
                "{length} bytes"
            );
        }
        for extra in 0..=255u8 {
            assert_eq!(
                signer().open(&[&ticket[..], &[extra]].concat().into(), NOW),
                Err(TicketError::Forged)
            );
        }
    }

    #[test]
    fn another_key_is_refused_and_an_earlier_one_recognised() {
        let ticket = signer().sign(NOW + 60, "", b"x");
        assert_eq!(Signer::new([8; 32]).open(&ticket, NOW), Err(TicketError::Forged));
        assert!(Signer::new([8; 32]).recognising([7; 32]).open(&ticket, NOW).is_ok());
    }

    #[test]
    fn keys_are_not_shown() {
        assert!(!format!("{:?}", Signer::new([0xAB; 32])).contains("171"));
    }
}
