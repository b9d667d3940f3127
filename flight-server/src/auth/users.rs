//! The file of users: TOML with `[[user]]` entries, read at start.

use crate::server::StartError;
use forebay_protocol::path::WirePath;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{collections::HashSet, path::Path, str::FromStr, sync::Arc};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// What someone may do with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Read,
    Write,
}

/// An entry.
#[derive(Debug)]
pub(crate) struct User {
    pub(super) name: String,
    /// argon2id, in PHC form.
    pub(super) password_hash: Option<String>,
    token_sha256: Option<[u8; 32]>,
    allow: Vec<Allow>,
    pub(super) admin: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Users {
    users: Vec<Arc<User>>,
}

/// `r:/features`, `rw:/scratch`.
#[derive(Debug)]
struct Allow {
    read: bool,
    write: bool,
    prefix: WirePath,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    #[serde(default)]
    user: Vec<UserForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserForm {
    name: String,
    password_hash: Option<String>,
    token_sha256: Option<String>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    admin: bool,
}

impl User {
    /// Whether they have this right on `path`: by the file, or because they are an administrator.
    pub(super) fn may(&self, right: Right, path: &WirePath) -> bool {
        self.admin
            || self.allow.iter().any(|allow| {
                let has = match right {
                    Right::Read => allow.read,
                    Right::Write => allow.write,
                };
                has && path.starts_with(&allow.prefix)
            })
    }

    /// Changes with the password: tokens given for an old one are no longer good.
    pub(super) fn stamp(&self) -> String {
        let hash = Sha256::digest(self.password_hash.as_deref().unwrap_or_default());
        hex::encode(&hash[..16])
    }
}

impl Users {
    pub(super) fn load(path: &Path) -> Result<Self, StartError> {
        let refuse = |reason: String| StartError::File {
            what: "the file of users",
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        text.parse().map_err(refuse)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<Arc<User>> {
        self.users.iter().find(|user| user.name == name).cloned()
    }

    /// The user whose token this is. Looks at all of them, each in constant time.
    pub(super) fn by_token(&self, token: &str) -> Option<Arc<User>> {
        let shown = Sha256::digest(token);
        let mut found = u64::MAX;
        for (at, user) in (0u64..).zip(&self.users) {
            let known = user.token_sha256.as_ref();
            let same = known.map_or(Choice::from(0), |known| known.as_slice().ct_eq(shown.as_slice()));
            found.conditional_assign(&at, same);
        }
        self.users.get(usize::try_from(found).ok()?).cloned()
    }
}

impl FromStr for Users {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let file: FileForm = toml::from_str(text).map_err(|error| error.to_string())?;
        let users = file
            .user
            .into_iter()
            .map(|form| User::try_from(form).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let mut names = HashSet::new();
        if let Some(twice) = users.iter().find(|user| !names.insert(user.name.as_str())) {
            return Err(format!("two users are called {:?}", twice.name));
        }
        if users.is_empty() {
            return Err("it names no user, so nobody could ever enter; add one with `forebay user add`".to_owned());
        }
        Ok(Self { users })
    }
}

impl TryFrom<UserForm> for User {
    type Error = String;

    fn try_from(form: UserForm) -> Result<Self, String> {
        let UserForm {
            name,
            password_hash,
            token_sha256,
            allow,
            admin,
        } = form;
        if name.is_empty() || name.len() > 256 || name.contains(':') {
            return Err(format!("{name:?} is no name: one to 256 bytes, without a colon"));
        }
        if let Some(hash) = &password_hash {
            let fine = argon2::PasswordHash::new(hash).is_ok_and(|hash| hash.algorithm.as_str() == "argon2id");
            if !fine {
                return Err(format!(
                    "password_hash of {name} is no argon2id hash; `forebay user add` makes one"
                ));
            }
        }
        let token_sha256 = token_sha256.map(|text| {
            let bytes = hex::decode(&text)
                .ok()
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            bytes.ok_or_else(|| format!("token_sha256 of {name} is not 64 hex digits"))
        });
        let allow = allow
            .iter()
            .map(|text| text.parse().map_err(|why: String| format!("{why} (of {name})")));
        Ok(Self {
            password_hash,
            token_sha256: token_sha256.transpose()?,
            allow: allow.collect::<Result<_, _>>()?,
            admin,
            name,
        })
    }
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| format!("{text:?} allows nothing: {why}; write \"r:/path\" or \"rw:/path\"");
        let (rights, path) = text.split_once(':').ok_or_else(|| refuse("it has no colon"))?;
        let (read, write) = match rights {
            "r" => (true, false),
            "w" => (false, true),
            "rw" => (true, true),
            _ => return Err(refuse("rights are r, w and rw")),
        };
        let prefix = WirePath::parse(path).map_err(|error| refuse(&error.0))?;
        Ok(Self { read, write, prefix })
    }
}
