//! What is kept of a name beside its bytes, as names and values that travel with an object: `mode` (octal), `uid`, `gid`, `mtime`
//! (microseconds) and `xattrs`, all extended attributes of users in one value. What is absent is as usual: 644 or 755, owner 0.

use std::collections::BTreeMap;

/// Permission bits, octal.
pub const MODE: &str = "mode";
/// Number of the owner.
pub const UID: &str = "uid";
/// Number of the group.
pub const GID: &str = "gid";
/// Microseconds since the epoch, UTC.
pub const MTIME: &str = "mtime";
/// Extended attributes: `name=value&…`, both percent-encoded.
pub const XATTRS: &str = "xattrs";

/// Extended attributes that belong to programs, not to the system or to us.
const USERS: &[u8] = b"user.";
/// Ours.
const OURS: &[u8] = b"user.forebay.";
/// All that is read of one name.
const XATTRS_BYTES_MAX: usize = 128 << 10;

/// Whether an extended attribute goes with the bytes.
pub fn travels(name: &[u8]) -> bool {
    name.starts_with(USERS) && !name.starts_with(OURS)
}

/// Those extended attributes that go with the bytes, as a value of [`XATTRS`]; `None` when there are none.
pub fn encode_xattrs<'a>(xattrs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Option<String> {
    const PLAIN: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'.')
        .remove(b'_')
        .remove(b'-');
    let encoded = |bytes| percent_encoding::percent_encode(bytes, PLAIN);
    let pairs: Vec<String> = xattrs
        .into_iter()
        .filter(|(name, _)| travels(name))
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

/// What [`encode_xattrs`] made. What others wrote there and can not be read is left out.
pub fn decode_xattrs(value: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    if value.len() > 3 * XATTRS_BYTES_MAX {
        return BTreeMap::new();
    }
    let decoded = |text| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
    value
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .filter(|(name, _)| travels(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_attributes_come_back_as_they_were() {
        let kept: [(&[u8], &[u8]); 3] = [
            (b"user.\xff&=", b"\0=&%"),
            (b"user.colour", b"blue"),
            (b"user.empty", b""),
        ];
        let others: [(&[u8], &[u8]); 3] = [
            (b"user.forebay.token", b"t"),
            (b"security.selinux", b"s"),
            (b"user", b""),
        ];
        let value = encode_xattrs(kept.into_iter().chain(others)).unwrap();
        assert!(value.is_ascii(), "{value}");
        let expected: BTreeMap<_, _> = kept
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        assert_eq!(decode_xattrs(&value), expected);
        assert_eq!(encode_xattrs(others), None);
        assert_eq!(
            decode_xattrs("user.a=1&&nonsense&security.x=2"),
            BTreeMap::from([(b"user.a".to_vec(), b"1".to_vec())])
        );
    }
}
