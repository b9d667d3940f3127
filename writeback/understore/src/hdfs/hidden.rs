//! Names below the hidden folder: where an upload lies, and what its name says of it.
//!
//! `.forebay-tmp/k<key>/u<token>~<size>~<mtime>~<serial>/`, key and token in percent encoding. A long key goes on in `k…` folders
//! below. The names alone say everything, for HDFS keeps nothing else of ours that this client can write. It asks no NameNode.

use crate::{
    StoreError, UploadId,
    local::{self, HIDDEN},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stands for itself in a name. A colon and a slash cannot be in one.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'=');

/// Bytes of a key in one name; a NameNode takes 255.
const KEY_BYTES_PER_NAME: usize = 200;

/// Longest token in percent encoding.
const TOKEN_BYTES_MAX: usize = 180;

/// Within an upload's folder: the file that becomes the object.
pub(super) const WHOLE: &str = "whole";

/// Within an upload's folder: what arrived of it in parts.
pub(super) const PARTS: &str = "parts";

/// What the name of an upload's folder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upload {
    pub(super) token: String,
    pub(super) size: u64,
    /// Milliseconds since the epoch that the object will have.
    pub(super) mtime: u64,
    /// Tells uploads of one content apart.
    pub(super) serial: String,
}

impl Upload {
    pub(super) fn id(&self) -> Result<UploadId, StoreError> {
        let token = utf8_percent_encode(&self.token, &ESCAPED).to_string();
        if token.len() > TOKEN_BYTES_MAX {
            return Err(StoreError::Refused(format!("token of {} bytes: too long", token.len())));
        }
        Ok(UploadId(format!(
            "{token}~{:x}~{:x}~{}",
            self.size, self.mtime, self.serial
        )))
    }

    /// The upload that an id means; it came from outside this process's memory.
    pub(super) fn parse(id: &str) -> Option<Upload> {
        let mut fields = id.split('~');
        let token = percent_decode_str(fields.next()?).decode_utf8().ok()?.into_owned();
        let size = u64::from_str_radix(fields.next()?, 16).ok()?;
        let mtime = u64::from_str_radix(fields.next()?, 16).ok()?;
        let serial = fields.next()?.to_owned();
        let upload = Upload {
            token,
            size,
            mtime,
            serial,
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        // Written back it must be the same, so that no two names are one upload and no name leads out of the folder.
        let same = upload.serial.bytes().all(plain) && upload.id().is_ok_and(|same| same.0 == id);
        same.then_some(upload)
    }
}

/// The folder of everything that is on its way to `key`, from the mount's root.
pub(super) fn folder_of_key(key: &str) -> String {
    let escaped = utf8_percent_encode(key, &ESCAPED).to_string();
    let mut folder = HIDDEN.to_owned();
    for chunk in escaped.as_bytes().chunks(KEY_BYTES_PER_NAME) {
        folder.push_str("/k");
        folder.extend(chunk.iter().map(|byte| char::from(*byte)));
    }
    folder
}

/// The folder of an upload, from the mount's root.
pub(super) fn folder_of(key: &str, upload: &UploadId) -> Result<String, StoreError> {
    match Upload::parse(&upload.0) {
        Some(_) => Ok(format!("{}/u{}", folder_of_key(key), upload.0)),
        None => Err(StoreError::NotFound(format!("upload {:?}", upload.0))),
    }
}

/// What a name in the hidden folder is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name<'a> {
    /// The next piece of a key, still in percent encoding.
    Key(&'a str),
    /// An upload's id.
    Upload(&'a str),
    /// Not ours.
    Other,
}

pub(super) fn name(name: &str) -> Name<'_> {
    match (name.strip_prefix('k'), name.strip_prefix('u')) {
        (Some(piece), _) if !piece.is_empty() => Name::Key(piece),
        (_, Some(id)) if Upload::parse(id).is_some() => Name::Upload(id),
        _ => Name::Other,
    }
}

/// The key that pieces make together; `None` when they are none of ours.
pub(super) fn key_of(pieces: &str) -> Option<String> {
    percent_decode_str(pieces)
        .decode_utf8()
        .ok()
        .map(|key| key.into_owned())
}

/// Whether a key that begins with these pieces, or is them, may begin with `prefix`.
pub(super) fn may_begin_with(pieces: &str, prefix: &str) -> bool {
    let prefix = utf8_percent_encode(prefix, &ESCAPED).to_string();
    pieces.starts_with(&prefix) || prefix.starts_with(pieces)
}

/// The key, when it may be one and is not ours.
pub(super) fn checked(key: &str) -> Result<&str, StoreError> {
    local::check_visible(key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(token: &str) -> Upload {
        Upload {
            token: token.into(),
            size: 0x1f,
            mtime: 1_700_000_000_123,
            serial: "5-a".into(),
        }
    }

    #[test]
    fn an_id_says_what_the_upload_was_started_with() {
        for token in ["", "w1-77-3", "with/slash and ~ and ü:%2F"] {
            let id = upload(token).id().unwrap();
            assert!(!id.0.contains(['/', ':', ' ']), "{id:?}");
            assert_eq!(Upload::parse(&id.0), Some(upload(token)));
        }
        assert!(matches!(upload(&"t".repeat(181)).id(), Err(StoreError::Refused(_))));
    }

    #[test]
    fn ids_that_are_not_ours_name_no_upload() {
        let good = upload("t").id().unwrap().0;
        for bad in [
            "",
            "..",
            "a/b",
            "t~1f~1~x/..",
            "t~+1f~1~x",
            "t~01f~1~x",
            "t~1F~1~x",
            "t~1~2",
            &format!("{good}~"),
        ] {
            let id = UploadId(bad.into());
            assert!(matches!(folder_of("a", &id), Err(StoreError::NotFound(_))), "{bad}");
        }
        assert!(folder_of("a", &UploadId(good)).is_ok());
    }

    #[test]
    fn a_key_of_any_length_comes_back_from_the_names_of_its_folders() {
        for key in ["a", "day=1/part 0:ü.parquet", &"日本/".repeat(146), &"k".repeat(1024)] {
            let folder = folder_of_key(key);
            let pieces: Vec<&str> = folder.split('/').skip(1).collect();
            assert!(pieces.iter().all(|piece| piece.len() <= 255), "{pieces:?}");
            let pieces: String = pieces
                .iter()
                .map(|piece| match name(piece) {
                    Name::Key(piece) => piece,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(key_of(&pieces).as_deref(), Some(key));
        }
    }

    #[test]
    fn prefixes_are_recognised_before_a_key_is_whole() {
        let escaped = utf8_percent_encode("day=1/ü", &ESCAPED).to_string();
        for (prefix, expected) in [("", true), ("day=1/", true), ("day=1/ü/longer", true), ("day=2", false)] {
            assert_eq!(may_begin_with(&escaped, prefix), expected, "{prefix}");
        }
    }
}
