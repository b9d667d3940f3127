//! `user add`: entries of the file of users. Secrets are stored as hashes only; the token is shown once.

use crate::{
    args::UserAdd,
    failure::{AtFile, Failure, Outcome},
    output::Output,
};
use argon2::{
    Argon2, PasswordHasher,
    password_hash::{SaltString, rand_core::OsRng},
};
use forebay_client::WirePath;
use forebay_runtime::chance::{Chance, OsChance};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

const TOKEN_BYTES: usize = 32;
/// As the server takes it.
const PASSWORD_BYTES_MAX: u64 = 1024;

/// What was added.
#[derive(Debug, Serialize)]
struct Added {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// An entry, in the order in which it is written.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_sha256: Option<String>,
    allow: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
}

pub(super) fn add(add: &UserAdd, output: &mut Output) -> Outcome {
    check(add)?;
    let before = match fs::read_to_string(&add.users) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.at(&add.users)?,
    };
    if names(&before, &add.users)?.contains(&add.name) {
        return Err(Failure::exists(format!(
            "{}: there is a user {:?} already",
            add.users.display(),
            add.name
        )));
    }
    let password_hash = if add.password_stdin {
        Some(hash(&read_password()?)?)
    } else {
        None
    };
    let token = (!add.no_token).then(fresh_token);
    if token.is_none() && password_hash.is_none() {
        return Err(Failure::usage(
            "--no-token without --password-stdin leaves nothing to enter with",
        ));
    }
    let entry = Entry {
        name: &add.name,
        password_hash,
        token_sha256: token.as_ref().map(|token| hex::encode(Sha256::digest(token))),
        allow: &add.allow,
        admin: add.admin,
    };
    let entry = toml::to_string(&entry).map_err(|error| Failure::failed(error.to_string()))?;
    let gap = if before.is_empty() || before.ends_with("\n\n") {
        ""
    } else {
        "\n"
    };
    replace(&add.users, &format!("{before}{gap}[[user]]\n{entry}"))?;
    let added = Added {
        name: add.name.clone(),
        token,
    };
    output.one(&added, |added| added.token.clone().unwrap_or_default())
}

/// What the server would refuse at its next start is refused now.
fn check(add: &UserAdd) -> Outcome {
    let name = &add.name;
    if name.is_empty() || name.len() > 256 || name.contains(':') {
        return Err(Failure::usage(format!(
            "{name:?} is no name: one to 256 bytes, without a colon"
        )));
    }
    for text in &add.allow {
        let wrong = |why: &str| Failure::usage(format!("--allow {text:?}: {why}; write r:/features or rw:/scratch"));
        let (right, prefix) = text.split_once(':').ok_or_else(|| wrong("no colon"))?;
        if !matches!(right, "r" | "w" | "rw") {
            return Err(wrong("rights are r, w and rw"));
        }
        WirePath::parse(prefix).map_err(|error| wrong(&error.to_string()))?;
    }
    if add.allow.is_empty() && !add.admin {
        return Err(Failure::usage(
            "a user may do something: --allow RIGHT:PREFIX or --admin",
        ));
    }
    Ok(())
}

/// The names in the file, which must read.
fn names(text: &str, path: &Path) -> Outcome<Vec<String>> {
    #[derive(Deserialize)]
    struct Users {
        #[serde(default)]
        user: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let users: Users = toml::from_str(text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(users.user.into_iter().map(|user| user.name).collect())
}

fn read_password() -> Outcome<String> {
    let mut password = String::new();
    let read = io::stdin().take(PASSWORD_BYTES_MAX + 2).read_to_string(&mut password);
    read.at(Path::new("stdin"))?;
    password.truncate(password.trim_end_matches(['\r', '\n']).len());
    if password.is_empty() || password.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(Failure::usage(format!(
            "a password has 1 to {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    Ok(password)
}

fn hash(password: &str) -> Outcome<String> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    Ok(hash
        .map_err(|error| Failure::failed(format!("argon2: {error}")))?
        .to_string())
}

fn fresh_token() -> String {
    let mut bytes = [0; TOKEN_BYTES];
    OsChance.fill(&mut bytes);
    hex::encode(bytes)
}

/// Puts `text` in the file's place, whole or not at all, readable by its owner only (or as it was).
fn replace(path: &Path, text: &str) -> Outcome {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let mode = fs::metadata(path).map_or(0o600, |found| found.permissions().mode() & 0o777);
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().at(path).inspect_err(|_| drop(fs::remove_file(&part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(name: &str, users: &Path) -> UserAdd {
        UserAdd {
            name: name.into(),
            users: users.into(),
            allow: vec!["r:/features".into()],
            admin: false,
            password_stdin: false,
            no_token: false,
        }
    }

    #[test]
    fn entries_are_added_and_only_the_hash_of_the_token_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let mut output = Output::new(true);
        add(&flags("ada", &path), &mut output).unwrap();
        add(&flags("bob", &path), &mut output).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(names(&text, &path).unwrap(), ["ada", "bob"]);
        assert_eq!(text.matches("token_sha256").count(), 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(add(&flags("ada", &path), &mut output).unwrap_err().code(), 4);
    }

    #[test]
    fn what_the_server_would_refuse_is_refused() {
        let path = Path::new("/nonexistent/users.toml");
        let with = |allow: &str| UserAdd {
            allow: vec![allow.into()],
            ..flags("ada", path)
        };
        for wrong in [
            with("x:/a"),
            with("r:a"),
            with("r"),
            flags("", path),
            flags("a:b", path),
        ] {
            assert_eq!(check(&wrong).unwrap_err().code(), 2, "{wrong:?}");
        }
        assert!(
            check(&UserAdd {
                allow: vec![],
                ..flags("ada", path)
            })
            .is_err()
        );
        assert!(
            check(&UserAdd {
                allow: vec![],
                admin: true,
                ..flags("ada", path)
            })
            .is_ok()
        );
    }
}
