//! Who asks, and what they may do.
//!
//! Without a file of users and without a client CA everybody is nobody in particular and may do all: such a door is only ever open
//! to the same machine, or by `--insecure`. A client is known by its certificate's common name, by a token whose SHA-256 stands in
//! the file, or by a token that Handshake gave for a password. Permissions are by path prefix and are asked before anything is
//! looked at, so that a refusal is the same whether something is there or not.

mod users;

use crate::{
    error,
    server::{ServerSettings, StartError},
    tickets::Office,
};
use argon2::{Argon2, PasswordHash, PasswordVerifier};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use forebay_protocol::path::WirePath;
use forebay_runtime::{clock::ClockRef, task};
use http::{HeaderMap, header::AUTHORIZATION};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tonic::{Code, Status};
pub(crate) use users::Right;
use users::{User, Users};

/// Base64 as clients write it, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Passwords checked at once: each costs 19 MiB and some tens of milliseconds on purpose.
const CHECKS_AT_ONCE: usize = 2;
/// Longest password that is looked at.
const PASSWORD_BYTES_MAX: usize = 1024;
/// A password that was right is not checked again for this long: a browser sends it with every request.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
const REMEMBERED_MAX: usize = 1024;
/// Checked where there is no such user, so that a guess at names takes as long as one at passwords. Of a password nobody knows.
const NOBODYS_HASH: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$9mdkvDh2hkxM7xKJRZDBBA$yAPTyvZ6VXrXxmbN+SUdRxULUYAu6jK+xYRGA2CpWfo";

/// Knows users.
#[derive(Debug)]
pub(crate) struct Auth {
    users: Option<Users>,
    /// A certificate alone makes someone known.
    certificates: bool,
    checks: Semaphore,
    remembered: Mutex<HashMap<[u8; 32], Duration>>,
    clock: ClockRef,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Principal {
    name: Arc<str>,
    rights: Rights,
}

#[derive(Clone, Debug)]
enum Rights {
    /// Nobody is told apart.
    All,
    Of(Arc<User>),
}

impl Principal {
    /// Empty: nobody in particular.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// PERMISSION_DENIED unless they have this right on `path`.
    pub(crate) fn may(&self, right: Right, path: &WirePath) -> Result<(), Status> {
        let Rights::Of(user) = &self.rights else { return Ok(()) };
        if user.may(right, path) {
            return Ok(());
        }
        let verb = match right {
            Right::Read => "read",
            Right::Write => "write",
        };
        let text = format!(
            "{} may not {verb} {path}; an administrator can allow it in the file of users",
            self.name
        );
        Err(error::status(Code::PermissionDenied, &text))
    }

    /// PERMISSION_DENIED unless they are an administrator.
    pub(crate) fn must_be_admin(&self, to: &str) -> Result<(), Status> {
        match &self.rights {
            Rights::Of(user) if !user.admin => {
                let text = format!("{} may not {to}; that takes an administrator", self.name);
                Err(error::status(Code::PermissionDenied, &text))
            }
            _ => Ok(()),
        }
    }

    fn nobody() -> Self {
        Self {
            name: "".into(),
            rights: Rights::All,
        }
    }

    fn user(user: &Arc<User>) -> Self {
        Self {
            name: user.name.as_str().into(),
            rights: Rights::Of(Arc::clone(user)),
        }
    }
}

impl Auth {
    /// Reads the file of users, if there is one.
    pub(crate) fn load(settings: &ServerSettings, clock: ClockRef) -> Result<Self, StartError> {
        let users = settings.users.as_deref().map(Users::load).transpose()?;
        let certificates = settings.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        Ok(Self::new(users, certificates, clock))
    }

    fn new(users: Option<Users>, certificates: bool, clock: ClockRef) -> Self {
        Self {
            users,
            certificates,
            checks: Semaphore::new(CHECKS_AT_ONCE),
            remembered: Mutex::default(),
            clock,
        }
    }

    /// Who makes a call, by its token or the certificate of its connection.
    pub(crate) fn identify(
        &self,
        office: &Office,
        headers: &HeaderMap,
        certificate: Option<&str>,
    ) -> Result<Principal, Status> {
        let Some(users) = &self.users else {
            return match certificate {
                Some(name) => Ok(Principal {
                    name: name.into(),
                    rights: Rights::All,
                }),
                None if self.certificates => Err(unknown("show a client certificate")),
                None => Ok(Principal::nobody()),
            };
        };
        if let Some(token) = token(headers) {
            return users
                .by_token(&token)
                .or_else(|| self.by_bearer(office, users, &token))
                .map(|u| Principal::user(&u))
                .ok_or_else(|| unknown("this token is not known here, or has expired"));
        }
        match certificate {
            Some(name) => users
                .by_name(name)
                .map(|u| Principal::user(&u))
                .ok_or_else(|| unknown(&format!("no user is called {name:?}, as the client certificate says"))),
            None => Err(unknown(
                "send a token (authorization: Bearer …), or a name and password by Handshake",
            )),
        }
    }

    /// As [`Auth::identify`], and a name and password too: what browsers and curl have.
    pub(crate) async fn identify_page(
        &self,
        office: &Office,
        headers: &HeaderMap,
        certificate: Option<&str>,
    ) -> Result<Principal, Status> {
        match (basic(headers), &self.users) {
            (Some((name, password)), Some(users)) => {
                self.check(users, &name, &password).await.map(|u| Principal::user(&u))
            }
            _ => self.identify(office, headers, certificate),
        }
    }

    /// The user to whom Handshake gave this token, if their password is still the same.
    fn by_bearer(&self, office: &Office, users: &Users, token: &str) -> Option<Arc<User>> {
        let shown = Bytes::from(BASE64.decode(token).ok()?);
        let (stamp, name) = office.read_bearer(&shown).ok()?;
        users.by_name(&name).filter(|user| user.stamp() == stamp)
    }

    /// A bearer token for the name and password in `authorization: Basic`, if there is one.
    pub(crate) async fn login_by_header(&self, office: &Office, headers: &HeaderMap) -> Result<Option<String>, Status> {
        match basic(headers) {
            Some((name, password)) => self.login(office, &name, &password).await.map(Some),
            None => Ok(None),
        }
    }

    /// A bearer token for a name and password. Where nobody is told apart, anyone gets one, and it says nothing.
    pub(crate) async fn login(&self, office: &Office, name: &str, password: &str) -> Result<String, Status> {
        let token = match &self.users {
            None => office.bearer("", ""),
            Some(users) => {
                let user = self.check(users, name, password).await?;
                office.bearer(&user.name, &user.stamp())
            }
        };
        Ok(BASE64.encode(token))
    }

    /// A bearer token for a name and what proves it: a password, or a token of the file of users, which is then the answer itself.
    pub(crate) async fn login_client(&self, office: &Office, name: &str, secret: &str) -> Result<String, Status> {
        let known = self.users.as_ref().and_then(|users| users.by_token(secret));
        match known.filter(|user| user.name == name) {
            Some(_) => Ok(secret.to_owned()),
            None => self.login(office, name, secret).await,
        }
    }

    /// The user, if the password is right. Takes as long whether they exist or not.
    async fn check(&self, users: &Users, name: &str, password: &str) -> Result<Arc<User>, Status> {
        let refuse = || unknown("name or password is wrong");
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(refuse());
        }
        let user = users.by_name(name).filter(|user| user.password_hash.is_some());
        let hash = user
            .as_ref()
            .and_then(|user| user.password_hash.clone())
            .unwrap_or_else(|| NOBODYS_HASH.to_owned());
        let seen = fingerprint(name, password, &hash);
        let now = self.clock.monotonic();
        let known = self
            .remembered
            .lock()
            .get(&seen)
            .is_some_and(|at| now.saturating_sub(*at) < REMEMBERED_FOR);
        if !known {
            let _place = self.checks.acquire().await.map_err(|_| refuse())?;
            let password = password.to_owned();
            let right = task::blocking(move || {
                let parsed = PasswordHash::new(&hash);
                parsed.is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
            });
            if !right.await {
                return Err(refuse());
            }
        }
        let user = user.ok_or_else(refuse)?;
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(seen, now);
        Ok(user)
    }
}

fn fingerprint(name: &str, password: &str, hash: &str) -> [u8; 32] {
    let mut sha = Sha256::new();
    for part in [name, password, hash] {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    sha.finalize().into()
}

/// `authorization: Bearer …`, or the token that the older Handshake gave.
fn token(headers: &HeaderMap) -> Option<String> {
    if let Some(token) = scheme(headers, "bearer") {
        return Some(token);
    }
    let bytes = BASE64.decode(headers.get("auth-token-bin")?.as_bytes()).ok()?;
    String::from_utf8(bytes).ok()
}

/// Name and password of `authorization: Basic …`.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let decoded = BASE64.decode(scheme(headers, "basic")?).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

fn scheme(headers: &HeaderMap, wanted: &str) -> Option<String> {
    headers.get_all(AUTHORIZATION).iter().find_map(|value| {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case(wanted).then(|| rest.trim().to_owned())
    })
}

fn unknown(what_to_do: &str) -> Status {
    error::status(Code::Unauthenticated, &format!("not known who asks: {what_to_do}"))
}

#[cfg(test)]
mod tests;
