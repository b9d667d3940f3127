//! What went wrong: one line on stderr and the exit code of INTERFACE: 0 done, 1 failed, 2 usage, 3 not found, 4 exists or
//! conflict, 5 not allowed, 6 unavailable or timed out.

use std::fmt;

/// Why a verb did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
    quiet: bool,
}

impl Failure {
    /// Exit code 1.
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self {
            code: 1,
            text: text.into(),
            quiet: false,
        }
    }

    /// Exit code 2: the command or the configuration is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self {
            code: 2,
            ..Self::failed(text)
        }
    }

    /// Exit code 4.
    pub(crate) fn exists(text: impl Into<String>) -> Self {
        Self {
            code: 4,
            ..Self::failed(text)
        }
    }

    /// Exit code 6.
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self {
            code: 6,
            ..Self::failed(text)
        }
    }

    /// What is documented for a later build.
    pub(crate) fn absent(what: &str) -> Self {
        Self::failed(format!("{what}: not in this build"))
    }

    /// Ends with `code`; everything was said already.
    pub(crate) fn silent(code: u8) -> Self {
        Self {
            code,
            text: String::new(),
            quiet: true,
        }
    }

    /// What it was about, put before what went wrong.
    pub(crate) fn about(self, what: impl fmt::Display) -> Self {
        Self {
            text: format!("{what}: {}", self.text),
            ..self
        }
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Says it on stderr.
    pub(crate) fn print(&self) {
        if !self.quiet {
            eprintln!("forebay: {}", self.text);
        }
    }
}

impl From<forebay_client::Error> for Failure {
    fn from(error: forebay_client::Error) -> Self {
        let token = error.token().map(|token| format!("; ask again with --token {token}"));
        Self {
            code: error.exit_code(),
            text: format!("{error}{}", token.unwrap_or_default()),
            quiet: false,
        }
    }
}

impl From<forebay_protocol::Invalid> for Failure {
    fn from(error: forebay_protocol::Invalid) -> Self {
        Self::usage(error.to_string())
    }
}

/// Result of a verb.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Names the local file at which an operation failed.
pub(crate) trait AtFile<T> {
    fn at(self, path: &std::path::Path) -> Outcome<T>;
}

impl<T> AtFile<T> for std::io::Result<T> {
    fn at(self, path: &std::path::Path) -> Outcome<T> {
        self.map_err(|error| {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => 3,
                std::io::ErrorKind::AlreadyExists => 4,
                std::io::ErrorKind::PermissionDenied => 5,
                _ => 1,
            };
            Failure {
                code,
                text: format!("{}: {error}", path.display()),
                quiet: false,
            }
        })
    }
}
