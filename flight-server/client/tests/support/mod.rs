//! A real server for tests: a child process on a fixed free port, so that it can come back at the same address.

use forebay_client::{Client, Options};
use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A running server. Dropped, it is killed and its files are removed.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) flight: String,
    home: tempfile::TempDir,
    under: bool,
    child: Option<Child>,
}

impl Server {
    /// A server; with `under`, a folder is its under-store at `/lake`.
    pub(crate) fn start(under: bool) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("lake")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut server = Self {
            flight: format!("grpc://127.0.0.1:{port}"),
            home,
            under,
            child: None,
        };
        server.restart();
        server
    }

    pub(crate) fn lake(&self) -> PathBuf {
        self.home.path().join("lake")
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.flight, Options::default()).await.unwrap()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it on what it left.
    pub(crate) fn restart(&mut self) {
        let home = self.home.path();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(home.join("log"))
            .unwrap();
        let mut command = Command::new(binary());
        command
            .args([
                "serve",
                "--http",
                "127.0.0.1:0",
                "--listen",
                self.flight.strip_prefix("grpc://").unwrap(),
                "--data",
            ])
            .arg(home.join("data"))
            .stdout(Stdio::piped())
            .stderr(log);
        if self.under {
            command.arg(format!("--under=/lake=file://{}", self.lake().display()));
        }
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and touches no memory of ours.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        self.child = Some(child);
        let log = || std::fs::read_to_string(home.join("log")).unwrap_or_default();
        assert!(
            line.starts_with("forebay ready "),
            "the server did not come up; its log:\n{}",
            log()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            eprintln!("the server's log:\n{log}");
        }
    }
}

fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("FOREBAY_BIN") {
        return named.into();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|p| p.join("Cargo.lock").exists())
        .unwrap();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let binary = target.join("release/forebay");
    assert!(
        binary.exists(),
        "no server at {}: build it (cargo build --release -p forebay) or set FOREBAY_BIN",
        binary.display()
    );
    binary
}
