//! Settings of the doors as plain data, and why a door stays shut.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `host:port`; port 0 takes a free one.
    Tcp(String),
    /// A socket in the file system, `unix:/path`.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(format!(
                    "{text:?}: a socket's path is absolute, like unix:/run/forebay.sock"
                ))
            };
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Self::Tcp(text.to_owned())),
            _ => Err(format!("{text:?} is no address; write 127.0.0.1:47470 or unix:/path")),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listen {
    /// Whether only this machine can reach it. A host name counts as reachable by others unless it is `localhost`.
    fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(address) => {
                let host = address.rsplit_once(':').map_or("", |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']');
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

/// Files for TLS, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate and what it is signed by.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who signs clients' certificates; a client's common name is then its user name.
    pub client_ca: Option<PathBuf>,
}

/// Settings of the doors.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Flight. Default `127.0.0.1:47470`.
    pub listen: Listen,
    /// Console, metrics, health. Default `127.0.0.1:47471`.
    pub http: Listen,
    /// The data folder: the key that signs tickets lies there, so that tickets survive a restart.
    pub data: PathBuf,
    /// The file of users; once given, every door asks.
    pub users: Option<PathBuf>,
    /// TLS on both doors.
    pub tls: Option<TlsSettings>,
    /// Allows a bind that others can reach without TLS and users.
    pub insecure: bool,
}

impl ServerSettings {
    /// The defaults, for this data folder.
    pub fn new(data: PathBuf) -> Self {
        Self {
            listen: Listen::Tcp("127.0.0.1:47470".to_owned()),
            http: Listen::Tcp("127.0.0.1:47471".to_owned()),
            data,
            users: None,
            tls: None,
            insecure: false,
        }
    }

    /// Refuses what would be open to the network.
    pub(super) fn check(&self) -> Result<(), StartError> {
        let knows_users = self.users.is_some() || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let lacking = match (self.tls.is_some(), knows_users) {
            _ if self.insecure => return Ok(()),
            (true, true) => return Ok(()),
            (false, _) => "TLS (--tls-cert, --tls-key)",
            (true, false) => "users (--users or --tls-client-ca)",
        };
        match [&self.listen, &self.http].into_iter().find(|listen| !listen.is_local()) {
            Some(open) => Err(StartError::Open {
                address: open.to_string(),
                lacking,
            }),
            None => Ok(()),
        }
    }
}

/// Why the doors stay shut.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Others could reach it unprotected.
    #[error(
        "{address} can be reached from other machines and has no {lacking}; give both, listen on 127.0.0.1, or say --insecure"
    )]
    Open {
        /// Where it would listen.
        address: String,
        /// What is missing.
        lacking: &'static str,
    },
    /// An address that cannot be had.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// Which.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// A file that does not read, or holds something else.
    #[error("{what} {}: {reason}", path.display())]
    File {
        /// What it should be.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The engine could not answer at start.
    #[error("{0}")]
    Engine(#[from] forebay_writeback::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_and_write() {
        for text in ["127.0.0.1:0", "[::1]:47470", "localhost:1", "unix:/run/forebay.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        assert_eq!("unix:///x".parse(), Ok(Listen::Unix("/x".into())));
        for text in ["", ":80", "host", "host:port", "host:70000", "unix:x", "unix:"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_others_can_reach_needs_tls_and_users() {
        let users = || Some(PathBuf::from("users.toml"));
        let tls = |ca: bool| {
            Some(TlsSettings {
                cert: "c".into(),
                key: "k".into(),
                client_ca: ca.then(|| "ca".into()),
            })
        };
        for (listen, users, tls, insecure, fine) in [
            ("127.0.0.1:1", None, None, false, true),
            ("[::1]:1", None, None, false, true),
            ("unix:/x", None, None, false, true),
            ("0.0.0.0:1", None, None, false, false),
            ("[::]:1", None, None, false, false),
            ("example.org:1", None, None, false, false),
            ("0.0.0.0:1", users(), None, false, false),
            ("0.0.0.0:1", None, tls(false), false, false),
            ("0.0.0.0:1", users(), tls(false), false, true),
            ("0.0.0.0:1", None, tls(true), false, true),
            ("0.0.0.0:1", None, None, true, true),
        ] {
            let listen: Listen = listen.parse().unwrap();
            let case = format!("{listen} {users:?} {tls:?} {insecure}");
            let mut settings = ServerSettings {
                users,
                tls,
                insecure,
                ..ServerSettings::new("/data".into())
            };
            settings.listen = listen.clone();
            assert_eq!(settings.check().is_ok(), fine, "{case}");
            (settings.listen, settings.http) = (settings.http, listen);
            assert_eq!(settings.check().is_ok(), fine, "{case}, as the HTTP door");
        }
    }
}
