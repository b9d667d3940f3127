//! A private PostgreSQL: own folder, own port, fsync on. It ends when this process ends, however that ends.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::Mutex,
};
use tokio_postgres::NoTls;

/// A running server.
pub(crate) struct Cluster {
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    server: Mutex<Child>,
    // As long as these are open, the server and its folder are left alone.
    lives: Mutex<Vec<ChildStdin>>,
}

impl Cluster {
    /// Makes a cluster and waits until it answers. `settings`: lines of postgresql.conf.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let bin = find_binaries();
        let folder = tempfile::Builder::new()
            .prefix("forebay-postgres")
            .tempdir()
            .unwrap()
            .keep();
        give_away(&folder);
        let data = folder.join("data");
        run(as_server(&bin.join("initdb"))
            .args(["--auth=trust", "--no-sync", "--username=forebay", "-E", "UTF8", "-D"])
            .arg(&data));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut conf = fs::File::options()
            .append(true)
            .open(data.join("postgresql.conf"))
            .unwrap();
        writeln!(
            conf,
            "port = {port}\nlisten_addresses = '127.0.0.1'\nmax_connections = 400\nshared_buffers = 32MB"
        )
        .unwrap();
        writeln!(conf, "unix_socket_directories = ''\n{}", settings.join("\n")).unwrap();
        let (server, life) = spawn(&bin, &folder);
        let cluster = Self {
            bin,
            folder,
            port,
            server: Mutex::new(server),
            lives: Mutex::new(vec![life]),
        };
        cluster.wait();
        cluster
    }

    /// `postgres://…` of its one database.
    pub(crate) fn url(&self) -> String {
        format!("postgres://forebay@127.0.0.1:{}/postgres", self.port)
    }

    /// Its TCP port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills it without a word, as a power cut would, but for the page cache.
    pub(crate) fn crash(&self) {
        let pid = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        run(Command::new("kill").args(["-KILL", pid.lines().next().unwrap()]));
        self.server.lock().unwrap().wait().unwrap();
        fs::remove_file(self.folder.join("data/postmaster.pid")).unwrap();
    }

    /// Starts it again.
    pub(crate) fn restart(&self) {
        let (server, life) = spawn(&self.bin, &self.folder);
        *self.server.lock().unwrap() = server;
        self.lives.lock().unwrap().push(life);
        self.wait();
    }

    /// Runs SQL on a connection of its own.
    pub(crate) async fn execute(&self, sql: &str) {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        // Ends with the client.
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
    }

    /// The number that a query answers.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        // Ends with the client.
        tokio::spawn(connection);
        client.query_one(sql, &[]).await.unwrap().get(0)
    }

    fn wait(&self) {
        for _ in 0..300 {
            // Its last line says how far the server is.
            let pid = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
            if pid.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        panic!("PostgreSQL did not start:\n{log}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.lives.lock().unwrap().clear();
        let _ = self.server.lock().unwrap().wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A shell that becomes the server, and leaves behind one that waits for the end of its input, stops the server and tidies up.
fn spawn(bin: &Path, folder: &Path) -> (Child, ChildStdin) {
    let script = r#"
        exec 3<&0 </dev/null >>"$2/log" 2>&1
        (cat >/dev/null; kill -QUIT $$; while kill -0 $$; do sleep 0.1; done; rm -rf "$2") <&3 >/dev/null 2>&1 &
        exec "$1/postgres" -D "$2/data" 3<&-
    "#;
    let mut shell = as_server(Path::new("sh"));
    shell
        .args(["-c", script, "sh"])
        .arg(bin)
        .arg(folder)
        .stdin(Stdio::piped())
        .process_group(0);
    let mut server = shell.spawn().unwrap();
    // Waiting for a child closes its input, if it still has it.
    let life = server.stdin.take().unwrap();
    (server, life)
}

fn find_binaries() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"));
    let on_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .unwrap_or_default();
    let whole = |bin: &PathBuf| bin.join("initdb").exists() && bin.join("postgres").exists();
    installed
        .chain(on_path)
        .find(whole)
        .expect("PostgreSQL's initdb was not found; run tests/setup.sh, which installs it")
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    id.trim_ascii() == b"0"
}

/// PostgreSQL refuses to run as root, so root hands over to the user that its package made.
fn as_server(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"])
        .arg(program);
    command
}

fn give_away(folder: &Path) {
    if is_root() {
        run(Command::new("chown").arg("postgres:postgres").arg(folder));
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
