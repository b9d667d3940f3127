//! Keys of a store: from the environment, from the platform, or from a file that is read again when it changes.
//!
//! `credentials=PATH` in a mount's URL names a file, or a folder with one file per key, as Kubernetes mounts a secret. It is looked
//! at again at most every second while requests are made, so a key that is rotated there is used without a restart. While it can
//! not be read, the keys read last stay in use.
//!
//! Values are in no log and no error; names are.

use crate::StoreError;
use object_store::CredentialProvider;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How often the file is looked at again, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest file.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Most files of a folder.
const FILES_MAX: usize = 64;

/// Keys by name, in small letters.
pub(crate) type Keys = BTreeMap<String, String>;

/// Gives credentials of one kind.
pub(crate) type Provider<C> = Arc<dyn CredentialProvider<Credential = C>>;

/// Makes a provider, from the environment when there are no keys.
type Make<C> = Box<dyn Fn(Option<&Keys>) -> Result<Provider<C>, StoreError> + Send + Sync>;

/// Credentials that may change.
pub(crate) struct Credentials<C> {
    file: Option<PathBuf>,
    /// What to do when there are none.
    hint: &'static str,
    make: Make<C>,
    now: Mutex<Now<C>>,
}

struct Now<C> {
    provider: Option<Provider<C>>,
    digest: Option<[u8; 32]>,
    looked: Option<Instant>,
}

impl<C> fmt::Debug for Credentials<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl<C: Send + Sync + 'static> Credentials<C> {
    /// Credentials that `make` makes of the keys in `file`, or of the environment where there is none. A file that can not be read
    /// yet is no error; wrong settings of the environment are.
    pub(crate) fn new(
        file: Option<PathBuf>,
        hint: &'static str,
        make: impl Fn(Option<&Keys>) -> Result<Provider<C>, StoreError> + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let provider = match file {
            Some(_) => None,
            None => Some(make(None)?),
        };
        let now = Now {
            provider,
            digest: None,
            looked: None,
        };
        Ok(Self {
            file,
            hint,
            make: Box::new(make),
            now: Mutex::new(now),
        })
    }

    /// The credentials to use now.
    pub(crate) async fn get(&self, timeout: Duration) -> Result<Arc<C>, StoreError> {
        if let Some(file) = &self.file
            && self.looks_again()
        {
            let read_from = file.clone();
            let read = tokio::task::spawn_blocking(move || read(&read_from)).await;
            let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
            self.take_in(file, read)?;
        }
        let provider = self.now.lock().provider.clone();
        let provider = provider.ok_or_else(|| StoreError::Refused("no credentials were read yet".into()))?;
        match tokio::time::timeout(timeout, provider.get_credential()).await {
            Err(_) => Err(StoreError::Unavailable("no credentials in time".into())),
            Ok(Err(error)) => Err(StoreError::Refused(format!("no credentials: {error}; {}", self.hint))),
            Ok(Ok(credential)) => Ok(credential),
        }
    }

    fn looks_again(&self) -> bool {
        let mut now = self.now.lock();
        let due = now.provider.is_none() || now.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL);
        if due {
            now.looked = Some(Instant::now());
        }
        due
    }

    fn take_in(&self, file: &Path, read: io::Result<(Keys, [u8; 32])>) -> Result<(), StoreError> {
        let mut now = self.now.lock();
        let made = match read {
            Ok((_, digest)) if now.digest == Some(digest) => return Ok(()),
            Ok((keys, digest)) => (self.make)(Some(&keys)).map(|provider| (provider, digest)),
            Err(error) => Err(StoreError::Refused(error.to_string())),
        };
        match made {
            Ok((provider, digest)) => {
                if now.digest.is_some() {
                    tracing::info!(file = %file.display(), "credentials were changed; the new ones are used from now on");
                }
                (now.provider, now.digest) = (Some(provider), Some(digest));
                Ok(())
            }
            Err(error) if now.provider.is_some() => {
                tracing::warn!(file = %file.display(), %error, "credentials can not be read; the last ones stay in use");
                Ok(())
            }
            Err(error) => Err(StoreError::Refused(format!("credentials {}: {error}", file.display()))),
        }
    }
}

/// The first of these keys that is there.
pub(crate) fn first<'k>(keys: &'k Keys, names: &[&str]) -> Option<&'k str> {
    names.iter().find_map(|name| keys.get(*name)).map(String::as_str)
}

/// What is said when a file has none of the keys that a store takes.
pub(crate) fn lacks(keys: &Keys, wanted: &str) -> StoreError {
    let names: Vec<&str> = keys.keys().map(String::as_str).collect();
    StoreError::Refused(format!("holds {names:?}; wanted are {wanted}"))
}

/// The keys at `path`, and what recognises a change.
fn read(path: &Path) -> io::Result<(Keys, [u8; 32])> {
    let keys = match fs::metadata(path)?.is_dir() {
        true => read_folder(path)?,
        false => parse(&read_text(path)?)?,
    };
    let mut digest = Sha256::new();
    for (name, value) in &keys {
        for text in [name, value] {
            digest.update(text.len().to_le_bytes());
            digest.update(text);
        }
    }
    Ok((keys, digest.finalize().into()))
}

fn read_folder(path: &Path) -> io::Result<Keys> {
    let mut keys = Keys::new();
    for entry in fs::read_dir(path)?.take(FILES_MAX) {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        // Kubernetes keeps its versions in hidden folders and links the names to them.
        if name.is_empty() || name.starts_with('.') || !fs::metadata(entry.path())?.is_file() {
            continue;
        }
        let text = read_text(&entry.path())?;
        keys.insert(key_of(&name), text.trim().to_owned());
    }
    Ok(keys)
}

fn read_text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        let text = format!("longer than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    fs::read_to_string(path)
}

/// A table of strings in TOML or JSON. A service account of Google, a JSON document of its own, is the key `service_account_key`.
fn parse(text: &str) -> io::Result<Keys> {
    // The parsers' own words would show what stands around the mistake.
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("is {what}"));
    let json = text.trim_start().starts_with('{');
    let table: BTreeMap<String, serde_json::Value> = match json {
        true => serde_json::from_str(text).map_err(|_| wrong("no JSON object"))?,
        false => toml::from_str(text).map_err(|_| wrong("no TOML table"))?,
    };
    if json && table.get("type").and_then(|kind| kind.as_str()) == Some("service_account") {
        return Ok(Keys::from([("service_account_key".to_owned(), text.to_owned())]));
    }
    let string = |(name, value): (String, serde_json::Value)| match value {
        serde_json::Value::String(value) => Ok((key_of(&name), value)),
        _ => Err(wrong(&format!("no table of strings: {name:?} is none"))),
    };
    table.into_iter().map(string).collect()
}

/// A key's name as the environment would have it, in small letters.
fn key_of(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::StaticCredentialProvider;

    fn secret(file: Option<PathBuf>) -> Credentials<String> {
        Credentials::new(file, "give some", |keys| {
            let keys = keys.expect("a file was given");
            let secret = first(keys, &["aws_secret", "secret"]).ok_or_else(|| lacks(keys, "secret"))?;
            Ok(Arc::new(StaticCredentialProvider::new(secret.to_owned())))
        })
        .unwrap()
    }

    async fn now(credentials: &Credentials<String>) -> Result<String, StoreError> {
        credentials.now.lock().looked = None;
        credentials
            .get(Duration::from_secs(1))
            .await
            .map(|secret| (*secret).clone())
    }

    #[tokio::test]
    async fn a_file_in_any_form_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        let credentials = secret(Some(file.clone()));
        assert!(
            matches!(now(&credentials).await, Err(StoreError::Refused(_))),
            "not there yet"
        );
        for (text, expected) in [("Secret = \"one\"", "one"), (r#"{"AWS_SECRET": "two"}"#, "two")] {
            fs::write(&file, text).unwrap();
            assert_eq!(now(&credentials).await.unwrap(), expected);
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(now(&credentials).await.unwrap(), "two", "the last ones stay in use");
        fs::create_dir(&file).unwrap();
        fs::write(file.join("secret"), "three\n").unwrap();
        fs::create_dir(file.join("..data")).unwrap();
        assert_eq!(now(&credentials).await.unwrap(), "three");
    }

    #[tokio::test]
    async fn no_error_shows_a_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        for text in [
            "other = \"hush\"",
            "secret = hush",
            "{\"secret\": \"hush\"",
            "secret = [\"hush\"]",
        ] {
            fs::write(&file, text).unwrap();
            let error = now(&secret(Some(file.clone()))).await.unwrap_err().to_string();
            assert!(error.contains("keys") && !error.contains("hush"), "{error}");
        }
    }
}
