//! Modes, owners, times, replication, extended attributes, and what stands for access control lists and delegation tokens.
//!
//! Modes and owners are kept and shown; what somebody may do is decided by the file of users alone.

use super::{
    Answer, Call, boolean, done,
    error::{Exception, Fault},
    json_answer,
};
use crate::auth::Right;
use base64::{Engine, engine::general_purpose::STANDARD};
use forebay_writeback::{
    SetAttributes,
    names::{Stat, StatKind, State},
    owners::OwnerKind,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What begins the names of extended attributes.
const KINDS: [&str; 5] = ["user.", "trusted.", "system.", "security.", "raw."];
/// What begins those that Forebay itself tells.
const OWN: &str = "user.forebay.";

impl Call {
    /// Changes attributes of what is there.
    async fn set(&self, change: SetAttributes) -> Result<(), Fault> {
        self.stat().await?;
        self.cache().set_attributes(&self.path, change).await?;
        Ok(())
    }
}

/// SETPERMISSION.
pub(super) async fn set_permission(call: Call) -> Answer {
    call.may_write()?;
    let mode = call.query.permission("permission")?;
    let mode = mode.ok_or_else(|| Fault::parameter("permission", "it is missing"))?;
    let change = SetAttributes {
        mode: Some(mode),
        ..SetAttributes::default()
    };
    call.set(change).await?;
    done()
}

/// SETOWNER.
pub(super) async fn set_owner(call: Call) -> Answer {
    call.may_write()?;
    let (owner, group) = (call.query.text("owner")?, call.query.text("group")?);
    if owner.is_none() && group.is_none() {
        return Err(Fault::new(
            Exception::IllegalArgument,
            "Both owner and group are empty.",
        ));
    }
    call.stat().await?;
    let mut change = SetAttributes::default();
    if let Some(owner) = owner {
        if call.cache().counts_users(&call.path) {
            call.by.must_be_admin("give away files that count for their owner")?;
        }
        change.uid = Some(call.hdfs.door.owners.number(OwnerKind::User, owner).await?);
    }
    if let Some(group) = group {
        change.gid = Some(call.hdfs.door.owners.number(OwnerKind::Group, group).await?);
    }
    call.set(change).await?;
    done()
}

/// SETTIMES; -1 leaves a time.
pub(super) async fn set_times(call: Call) -> Answer {
    call.may_write()?;
    let change = SetAttributes {
        mtime: call.query.time("modificationtime")?,
        atime: call.query.time("accesstime")?,
        ..SetAttributes::default()
    };
    call.set(change).await?;
    done()
}

/// SETREPLICATION: whether there is a file that could have copies. How many there are is the under-store's affair.
pub(super) async fn set_replication(call: Call) -> Answer {
    call.may_write()?;
    let copies = call.query.count("replication")?.unwrap_or(1);
    if !(1..=512).contains(&copies) {
        return Err(Fault::parameter("replication", "it is a number from 1 to 512"));
    }
    let there = call.stat_of(&call.path).await?;
    boolean(there.is_some_and(|stat| stat.kind == StatKind::File))
}

/// How values of extended attributes are written.
#[derive(Clone, Copy)]
enum Encoding {
    Text,
    Hex,
    Base64,
}

impl Encoding {
    fn read(call: &Call) -> Result<Self, Fault> {
        let name = call.query.text("encoding")?.map(str::to_ascii_lowercase);
        match name.as_deref() {
            None | Some("text") => Ok(Self::Text),
            Some("hex") => Ok(Self::Hex),
            Some("base64") => Ok(Self::Base64),
            Some(_) => Err(Fault::parameter("encoding", "it is text, hex or base64")),
        }
    }

    fn write(self, value: &[u8]) -> String {
        match self {
            Self::Text => format!("\"{}\"", String::from_utf8_lossy(value)),
            Self::Hex => format!("0x{}", hex::encode(value)),
            Self::Base64 => format!("0s{}", STANDARD.encode(value)),
        }
    }
}

/// A value as it is written: `0x…` in hex, `0s…` in base64, else text, with or without quotes.
fn read_value(text: &[u8]) -> Result<Vec<u8>, Fault> {
    let wrong = |why: &str| Fault::parameter("xattr.value", why);
    match text {
        [b'0', b'x' | b'X', digits @ ..] => {
            hex::decode(digits).map_err(|_| wrong("0x is followed by pairs of hex digits"))
        }
        [b'0', b's' | b'S', base64 @ ..] => STANDARD.decode(base64).map_err(|_| wrong("0s is followed by base64")),
        [b'"', quoted @ .., b'"'] => Ok(quoted.to_vec()),
        text => Ok(text.to_vec()),
    }
}

fn check_name(name: &str) -> Result<(), Fault> {
    if KINDS
        .iter()
        .any(|kind| name.len() > kind.len() && name.starts_with(kind))
    {
        return Ok(());
    }
    let why = "an extended attribute is called user.…, trusted.…, security.…, system.… or raw.…";
    Err(Fault::parameter("xattr.name", why))
}

/// SETXATTR.
pub(super) async fn set_xattr(call: Call) -> Answer {
    call.may_write()?;
    let name = call.query.need("xattr.name")?;
    check_name(name)?;
    if name.starts_with(OWN) {
        let text = format!("{name} is told by Forebay and can not be set");
        return Err(Fault::new(Exception::AccessControl, text));
    }
    let value = read_value(call.query.bytes("xattr.value").unwrap_or_default())?;
    let flags = call.query.text("flag")?.unwrap_or_default().to_ascii_uppercase();
    let (create, replace) = (flags.contains("CREATE"), flags.contains("REPLACE"));
    call.stat().await?;
    let there = call.cache().xattrs(&call.path).await?.contains_key(name.as_bytes());
    let refusal = match (there, create || !replace, replace || !create) {
        (true, _, false) => Some("already exists. The REPLACE flag must be specified."),
        (false, false, _) => Some("does not exist. The CREATE flag must be specified."),
        _ => None,
    };
    if let Some(refusal) = refusal {
        return Err(Fault::new(Exception::Io, format!("XAttr: {name} {refusal}")));
    }
    let change = SetAttributes {
        xattrs: [(name.as_bytes().to_vec(), Some(value))].into(),
        ..SetAttributes::default()
    };
    call.set(change).await?;
    done()
}

/// REMOVEXATTR.
pub(super) async fn remove_xattr(call: Call) -> Answer {
    call.may_write()?;
    let name = call.query.need("xattr.name")?;
    check_name(name)?;
    call.stat().await?;
    if !call.cache().xattrs(&call.path).await?.contains_key(name.as_bytes()) {
        let text = "No matching attributes found for remove operation";
        return Err(Fault::new(Exception::Io, text));
    }
    let change = SetAttributes {
        xattrs: [(name.as_bytes().to_vec(), None)].into(),
        ..SetAttributes::default()
    };
    call.set(change).await?;
    done()
}

/// GETXATTRS: all, or those that are named. Forebay's own are told to who asks for them by name.
pub(super) async fn get_xattrs(call: Call) -> Answer {
    call.may_read()?;
    let encoding = Encoding::read(&call)?;
    let stat = call.stat().await?;
    let there = call.cache().xattrs(&call.path).await?;
    let names: Vec<&[u8]> = call.query.all("xattr.name").collect();
    let told = match names.is_empty() {
        true => there.iter().map(|(name, value)| xattr(name, value, encoding)).collect(),
        false => named(&call, &stat, &there, &names, encoding)?,
    };
    json_answer(json!({ "XAttrs": told }))
}

fn named(
    call: &Call,
    stat: &Stat,
    there: &BTreeMap<Vec<u8>, Vec<u8>>,
    names: &[&[u8]],
    encoding: Encoding,
) -> Result<Vec<Value>, Fault> {
    let mut told = Vec::with_capacity(names.len());
    for name in names {
        let text = std::str::from_utf8(name).unwrap_or_default();
        check_name(text)?;
        let own = text.strip_prefix(OWN).and_then(|own| own_value(call, stat, own));
        let value = own.or_else(|| there.get(*name).cloned());
        let missing = || Fault::new(Exception::Io, "At least one of the attributes provided was not found.");
        told.push(xattr(name, &value.ok_or_else(missing)?, encoding));
    }
    Ok(told)
}

fn xattr(name: &[u8], value: &[u8], encoding: Encoding) -> Value {
    json!({"name": String::from_utf8_lossy(name), "value": encoding.write(value)})
}

/// What Forebay itself says of a name.
fn own_value(call: &Call, stat: &Stat, name: &str) -> Option<Vec<u8>> {
    let in_store = matches!(stat.state, State::Persisted | State::Clean);
    let text = match name {
        "state" => match stat.state {
            State::Open => "open",
            State::Sealed => "sealed",
            State::Persisted => "persisted",
            State::Clean => "clean",
        }
        .to_owned(),
        "level" if in_store => "persisted".to_owned(),
        "level" => call.cache().ack_level_at(&stat.path).name().to_owned(),
        "persisted" => in_store.to_string(),
        "etag" => stat.etag.clone()?,
        "version" => stat.version?.to_string(),
        _ => return None,
    };
    Some(text.into_bytes())
}

/// LISTXATTRS.
pub(super) async fn list_xattrs(call: Call) -> Answer {
    call.may_read()?;
    call.stat().await?;
    let there = call.cache().xattrs(&call.path).await?;
    let names: Vec<_> = there.keys().map(|name| String::from_utf8_lossy(name)).collect();
    // A list in a string: so the protocol has it.
    let names = serde_json::to_string(&names).expect("texts have a JSON form");
    json_answer(json!({ "XAttrNames": names }))
}

/// GETACLSTATUS: the mode, and no entries beside it.
pub(super) async fn acl_status(call: Call) -> Answer {
    call.may_read()?;
    let stat = call.stat().await?;
    let owners = &call.hdfs.door.owners;
    json_answer(json!({"AclStatus": {
        "owner": &*owners.name(OwnerKind::User, stat.uid).await?,
        "group": &*owners.name(OwnerKind::Group, stat.gid).await?,
        "permission": format!("{:o}", stat.mode & 0o1777),
        "stickyBit": stat.mode & 0o1000 != 0,
        "entries": [],
    }}))
}

/// CHECKACCESS: what the file of users says, of what is there.
pub(super) async fn check_access(call: Call) -> Answer {
    let action = call.query.text("fsaction")?.unwrap_or("---");
    if action.len() != 3
        || !action
            .bytes()
            .zip(*b"rwx")
            .all(|(is, may_be)| is == may_be || is == b'-')
    {
        return Err(Fault::parameter("fsaction", "it is three characters, like r-x"));
    }
    call.may_read()?;
    if action.contains('w') {
        call.by.may(Right::Write, &call.wire)?;
    }
    call.stat().await?;
    done()
}

/// GETDELEGATIONTOKEN: none, which tells Hadoop's client that it needs none.
pub(super) fn delegation_token(call: Call) -> Answer {
    match call.by.name() {
        "" => json_answer(json!({ "Token": null })),
        _ => Err(no_tokens()),
    }
}

pub(super) fn no_tokens() -> Fault {
    let text = "delegation tokens are not given here; send a token or a password with each request";
    Fault::new(Exception::UnsupportedOperation, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_in_every_encoding() {
        for value in [&b""[..], b"plain", b"\x00\xff", "ü\"".as_bytes()] {
            for encoding in [Encoding::Hex, Encoding::Base64] {
                assert_eq!(read_value(encoding.write(value).as_bytes()).unwrap(), value);
            }
        }
        assert_eq!(read_value(Encoding::Text.write(b"plain").as_bytes()).unwrap(), b"plain");
        assert_eq!(read_value(b"bare").unwrap(), b"bare");
        assert!(read_value(b"0xg").is_err() && read_value(b"0s%").is_err());
    }

    #[test]
    fn names_have_a_kind() {
        assert!(check_name("user.a").is_ok() && check_name("raw.x").is_ok());
        assert!(check_name("user.").is_err() && check_name("a").is_err() && check_name("other.a").is_err());
    }
}
