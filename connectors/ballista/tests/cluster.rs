//! A scheduler and two executors, as processes, against a real server: the binary that FOREBAY_BIN names.

#[path = "../../../flight-server/client/tests/support/mod.rs"]
mod support;

use arrow_array::{Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};
use datafusion::{error::Result, prelude::SessionContext};
use forebay_client::{Client, ErrorKind, ReadOptions, WriteOptions};
use std::{
    net::TcpListener,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};
use support::Server;
use tokio::time::{sleep, timeout};

/// Seconds after which the scheduler takes an executor for lost; they speak every second.
const LOST_AFTER: u64 = 10;
const LONG: Duration = Duration::from_secs(300);

/// A process of the cluster. Dropped, it is killed.
struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    fn start(server: &Server, log: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay-ballista"));
        command
            .args(["--addr", &server.flight])
            .args(arguments)
            .env("RUST_LOG", "warn,forebay_ballista=debug")
            .stderr(std::fs::File::create(log).unwrap());
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and touches no memory of ours.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        Self {
            child: command.spawn().unwrap(),
            log: log.to_owned(),
        }
    }

    fn signal(&self, signal: i32) {
        let id = i32::try_from(self.child.id()).unwrap();
        // SAFETY: the process is our child and was not waited for, so its id is nobody else's.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.said());
        }
    }
}

struct Cluster {
    ctx: SessionContext,
    client: Client,
    executors: Vec<Process>,
    _scheduler: Process,
    base: String,
    server: Server,
    _home: tempfile::TempDir,
}

/// A free port whose next is free too.
fn two_ports() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

async fn listens(port: u16) {
    let address = ("127.0.0.1", port);
    let up = async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, up)
        .await
        .unwrap_or_else(|_| panic!("nobody listens at {port}"));
}

impl Cluster {
    async fn start() -> Self {
        let (server, home) = (Server::start(false), tempfile::tempdir().unwrap());
        let at = two_ports();
        let address = format!("127.0.0.1:{at}");
        let log = |name: &str| home.path().join(name);
        let lost = LOST_AFTER.to_string();
        let scheduler = ["scheduler", "--listen", &address, "--executor-timeout", &lost];
        let scheduler = Process::start(&server, &log("scheduler.log"), &scheduler);
        listens(at).await;
        let mut executors = Vec::new();
        for name in ["first", "second"] {
            let port = two_ports();
            let (text, work) = (port.to_string(), log(name).display().to_string());
            std::fs::create_dir(log(name)).unwrap();
            let arguments = [
                "executor",
                "--scheduler",
                &address,
                "--port",
                &text,
                "--cores",
                "1",
                "--heartbeat",
                "1",
                "--work",
                &work,
            ];
            executors.push(Process::start(&server, &log(&format!("{name}.log")), &arguments));
            listens(port).await;
        }
        let client = server.client().await;
        let ctx = forebay_ballista::session(&format!("df://{address}"), &client)
            .await
            .unwrap();
        Self {
            ctx,
            client,
            executors,
            _scheduler: scheduler,
            base: server.flight.replace("grpc://", "forebay://"),
            server,
            _home: home,
        }
    }

    async fn run(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        let answer = async { self.ctx.sql(sql).await?.collect().await };
        timeout(LONG, answer)
            .await
            .unwrap_or_else(|_| panic!("no answer to {sql}"))
    }

    async fn number(&self, sql: &str) -> i64 {
        self.run(sql).await.unwrap()[0]
            .column(0)
            .as_primitive::<Int64Type>()
            .value(0)
    }

    /// The dataset /in of `parts` parts with `rows` rows each, and the table for it.
    async fn input(&self, parts: i64, rows: i64) {
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
        for part in 0..parts {
            let ids = Int64Array::from_iter_values(part * rows..(part + 1) * rows);
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(ids)]).unwrap();
            self.client
                .put_all("/in", &[batch], WriteOptions::default())
                .await
                .unwrap();
        }
        self.table("input", "(id BIGINT NOT NULL)", "/in").await;
    }

    async fn table(&self, name: &str, columns: &str, path: &str) {
        let Self { base, .. } = self;
        let sql = format!("CREATE EXTERNAL TABLE {name} {columns} STORED AS FOREBAY LOCATION '{base}{path}'");
        self.run(&sql).await.unwrap();
    }

    /// What the server itself says of a dataset: how many versions it has, and all ids in order.
    async fn ids(&self, path: &str) -> (usize, Vec<i64>) {
        use futures::TryStreamExt;
        let scan = self.client.scan(path, ReadOptions::default()).await.unwrap();
        let batches: Vec<RecordBatch> = scan.try_collect().await.unwrap();
        let ids = batches.iter().map(|b| b.column(0).as_primitive::<Int64Type>());
        let mut ids: Vec<i64> = ids.flat_map(|ids| ids.values().to_vec()).collect();
        ids.sort_unstable();
        (self.client.versions(path).await.unwrap().len(), ids)
    }

    async fn nothing_at(&self, path: &str) -> bool {
        let info = self.client.info(path, &ReadOptions::default()).await;
        info.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }
}

/// An INSERT that takes a while, in as many tasks as /in has parts.
const SLOW: &str = "INSERT INTO output SELECT id, sha512(sha512(sha512(CAST(id AS VARCHAR)))) FROM input";

impl Cluster {
    /// Begins [`SLOW`], and waits until a task of it has put its rows and others have not.
    async fn slowly(&self) -> tokio::task::JoinHandle<Result<Vec<RecordBatch>>> {
        self.input(12, 8_000).await;
        self.table("output", "(id BIGINT NOT NULL, digest BYTEA)", "/out").await;
        let frame = self.ctx.sql(SLOW).await.unwrap();
        let query = tokio::spawn(async move { frame.collect().await });
        let read = ReadOptions {
            wait: Some(LONG),
            ..ReadOptions::default()
        };
        let mut follow = self.client.follow("/out", read).await.unwrap();
        let first = timeout(LONG, follow.next_batch()).await.unwrap().unwrap();
        assert!(first.is_some() && !query.is_finished(), "it is in the middle");
        assert!(self.nothing_at("/out").await, "nothing is visible yet");
        query
    }

    async fn is_there_once(&self, answered: Vec<RecordBatch>) {
        let count = answered[0]
            .column(0)
            .as_primitive::<arrow_array::types::UInt64Type>()
            .value(0);
        let expected: Vec<i64> = (0..12 * 8_000).collect();
        assert_eq!(count, expected.len() as u64);
        let (versions, ids) = self.ids("/out").await;
        assert_eq!(versions, 1);
        assert!(ids == expected, "{} rows, {} of them different", ids.len(), {
            let mut ids = ids.clone();
            ids.dedup();
            ids.len()
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_executors_read_and_write_one_version() {
    let cluster = Cluster::start().await;
    cluster.input(8, 1000).await;
    assert_eq!(cluster.number("SELECT count(*) FROM input").await, 8000);
    assert_eq!(
        cluster.number("SELECT sum(id) FROM input WHERE id % 2 = 0").await,
        15_996_000
    );
    assert_eq!(
        cluster
            .number("SELECT count(*) FROM (SELECT id FROM input LIMIT 10)")
            .await,
        10
    );
    let joined = "SELECT count(*) FROM input a JOIN input b ON a.id = b.id + 1 WHERE a.id > 5000";
    assert_eq!(cluster.number(joined).await, 2999);

    cluster.table("output", "(id BIGINT NOT NULL)", "/out").await;
    for adaptive in [true, false] {
        cluster
            .run(&format!("SET ballista.planner.adaptive.enabled = {adaptive}"))
            .await
            .unwrap();
        cluster
            .run("INSERT OVERWRITE output SELECT id FROM input WHERE id >= 10")
            .await
            .unwrap();
        let (_, ids) = cluster.ids("/out").await;
        assert_eq!(ids, (10..8000).collect::<Vec<_>>(), "adaptive: {adaptive}");
        cluster
            .run("INSERT INTO output SELECT DISTINCT id % 10 FROM input")
            .await
            .unwrap();
        let (_, ids) = cluster.ids("/out").await;
        assert_eq!(ids, (0..8000).collect::<Vec<_>>(), "adaptive: {adaptive}");
    }
    let versions = cluster.client.versions("/out").await.unwrap();
    assert_eq!(versions.last().unwrap().version, 4, "one version a statement");
    for executor in &cluster.executors {
        assert!(
            executor.said().contains("stages"),
            "each has put rows: {}",
            executor.said()
        );
    }
    // One row, one partition; and none.
    cluster.run("INSERT OVERWRITE output VALUES (7)").await.unwrap();
    assert_eq!(cluster.ids("/out").await.1, [7]);
    cluster.table("none", "(id BIGINT NOT NULL)", "/none").await;
    cluster
        .run("INSERT INTO none SELECT id FROM input WHERE id < 0")
        .await
        .unwrap();
    assert_eq!(cluster.ids("/none").await, (1, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fails_and_what_is_not_distributed() {
    let cluster = Cluster::start().await;
    cluster.input(4, 1000).await;
    cluster.table("output", "(id BIGINT NOT NULL)", "/out").await;
    let error = cluster
        .run("INSERT INTO output SELECT 10 / (3500 - id) FROM input")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("DivideByZero"), "{error}");
    assert!(cluster.nothing_at("/out").await);
    let Cluster { base, .. } = &cluster;
    let folders = format!(
        "CREATE EXTERNAL TABLE folders (id BIGINT, day INT) STORED AS FOREBAY PARTITIONED BY (day) LOCATION '{base}/folders'"
    );
    cluster.run(&folders).await.unwrap();
    let error = cluster.run("INSERT INTO folders VALUES (1, 1)").await.unwrap_err();
    assert!(error.to_string().contains("DataFusion alone does it"), "{error}");
    // Written by one process, read by two.
    let alone = SessionContext::new();
    forebay_datafusion::register(&alone, &cluster.client).unwrap();
    alone.sql(&folders).await.unwrap();
    let insert = "INSERT INTO folders SELECT value, value % 5 FROM generate_series(0, 99)";
    alone.sql(insert).await.unwrap().collect().await.unwrap();
    assert_eq!(cluster.number("SELECT sum(day) FROM folders WHERE day >= 3").await, 140);
    let copy = format!("COPY (SELECT id FROM input) TO '{base}/copy' STORED AS FOREBAY");
    assert!(cluster.run(&copy).await.is_err());
    cluster
        .run(&format!(
            "CREATE UNBOUNDED EXTERNAL TABLE live STORED AS FOREBAY LOCATION '{base}/in'"
        ))
        .await
        .unwrap();
    let error = cluster.run("SELECT * FROM live").await.unwrap_err();
    assert!(error.to_string().contains("without an end"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_killed_in_the_middle_leaves_one_version_with_every_row_once() {
    let mut cluster = Cluster::start().await;
    let query = cluster.slowly().await;
    cluster.executors.remove(0).signal(libc::SIGKILL);
    let answered = timeout(LONG, query).await.expect("it ends").unwrap().unwrap();
    cluster.is_there_once(answered).await;
}

/// One that was only taken for lost goes on with its task when the version is there.
#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_comes_back_after_the_publish_changes_nothing() {
    let cluster = Cluster::start().await;
    let query = cluster.slowly().await;
    cluster.executors[0].signal(libc::SIGSTOP);
    let answered = timeout(LONG, query).await.expect("it ends").unwrap().unwrap();
    cluster.is_there_once(answered.clone()).await;
    cluster.executors[0].signal(libc::SIGCONT);
    sleep(Duration::from_secs(5)).await;
    cluster.is_there_once(answered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_lost_leaves_nothing() {
    let mut cluster = Cluster::start().await;
    let query = cluster.slowly().await;
    cluster.executors.clear();
    query.abort();
    assert!(cluster.nothing_at("/out").await);
    cluster.server.kill();
    cluster.server.restart();
    let client = cluster.server.client().await;
    let info = client.info("/out", &ReadOptions::default()).await;
    assert!(info.is_err_and(|error| error.kind() == ErrorKind::NotFound));
}
