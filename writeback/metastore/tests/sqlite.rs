//! The embedded engine.

use async_trait::async_trait;
use bytes::Bytes;
use forebay_metastore::{
    Check, CommitError, MetaStore, MetaStoreRef, Op, OpenError, OpenOptions, Tx, conformance::Subject,
    conformance_tests, open, sqlite::SqliteStore,
};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};
use tempfile::TempDir;

struct Sqlite {
    folder: TempDir,
    opened: AtomicU32,
}

#[async_trait]
impl Subject for Sqlite {
    async fn fresh(&self) -> MetaStoreRef {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let url = format!(
            "sqlite:{}",
            self.folder.path().join(format!("new/{number}.db")).display()
        );
        open(&url, OpenOptions::default()).await.unwrap()
    }
}

conformance_tests!(Sqlite {
    folder: tempfile::tempdir().unwrap(),
    opened: AtomicU32::new(0)
});

fn put(key: &str, value: &str) -> Tx {
    let op = Op::Put(
        Bytes::copy_from_slice(key.as_bytes()),
        Bytes::copy_from_slice(value.as_bytes()),
    );
    Tx {
        token: None,
        checks: vec![],
        ops: vec![op],
    }
}

async fn value(store: &SqliteStore, key: &str) -> Option<Bytes> {
    store.get(&[Bytes::copy_from_slice(key.as_bytes())]).await.unwrap()[0]
        .clone()
        .map(|entry| entry.value)
}

#[tokio::test]
async fn everything_is_there_after_closing_and_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.db");
    let (first, given);
    {
        let store = SqliteStore::open(&path, true).unwrap();
        first = store
            .commit(Tx {
                token: Some([1; 16]),
                ..put("a", "1")
            })
            .await
            .unwrap();
        given = store.allocate("ino", 3).await.unwrap();
        store.commit(put("a", "2")).await.unwrap();
    }
    let store = SqliteStore::open(&path, true).unwrap();
    assert_eq!(value(&store, "a").await.unwrap(), "2");
    assert_eq!(
        store
            .commit(Tx {
                token: Some([1; 16]),
                ..put("a", "1")
            })
            .await
            .unwrap(),
        first,
        "tokens outlive the process"
    );
    assert!(
        store.commit(put("b", "")).await.unwrap().version.0 > first.version.0 + 1,
        "versions go on"
    );
    assert!(store.allocate("ino", 1).await.unwrap().start >= given.end);
}

#[test]
fn one_process_at_a_time_and_nobody_elses_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.db");
    let store = SqliteStore::open(&path, true).unwrap();
    assert!(matches!(SqliteStore::open(&path, true), Err(OpenError::Locked(_))));
    drop(store);

    let raw = rusqlite::Connection::open(&path).unwrap();
    raw.pragma_update(None, "user_version", 2).unwrap();
    drop(raw);
    assert!(matches!(
        SqliteStore::open(&path, true),
        Err(OpenError::NewerFormat { found: 2, known: 1, .. })
    ));

    let other = folder.path().join("other.db");
    rusqlite::Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE photos (x)")
        .unwrap();
    assert!(matches!(
        SqliteStore::open(&other, true),
        Err(OpenError::Foreign { .. })
    ));
    let photos: i64 = rusqlite::Connection::open(&other)
        .unwrap()
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .unwrap();
    assert_eq!(photos, 1, "the refused file was not touched");

    let text = folder.path().join("text");
    std::fs::write(&text, "not a database, and long enough to be read as one".repeat(100)).unwrap();
    assert!(matches!(SqliteStore::open(&text, true), Err(OpenError::Foreign { .. })));
    assert!(matches!(
        SqliteStore::open(folder.path(), true),
        Err(OpenError::Failed { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_one_flush() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("meta.db"), true).unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(put(&number.to_string(), "")).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(
        store.group_commits() < 100,
        "{} flushes for 200 commits at once",
        store.group_commits()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_commits_share_one_flush_and_one_that_does_not_come_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&folder.path().join("meta.db"), true).unwrap());
    let announced: Vec<_> = (0..20).map(|_| store.announce()).collect();
    let before = store.group_commits();
    let commits: Vec<_> = announced
        .into_iter()
        .enumerate()
        .map(|(k, announced)| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                // One after the other: unannounced, each would have a flush of its own.
                tokio::time::sleep(std::time::Duration::from_millis(k as u64)).await;
                drop(announced);
                store.commit(put(&format!("k{k}"), "v")).await
            })
        })
        .collect();
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    let shared = store.group_commits() - before;
    assert!(shared <= 10, "{shared} flushes for 20 announced commits");

    let _never_comes = store.announce();
    let alone = tokio::time::timeout(std::time::Duration::from_secs(10), store.commit(put("alone", "v")));
    alone.await.expect("it waits for one who does not come").unwrap();
}

#[tokio::test]
async fn a_full_disk_fails_commits_by_name_and_they_go_on_when_there_is_room() {
    let mount = Tmpfs::new("1m");
    let store = SqliteStore::open(&mount.folder.path().join("meta.db"), true).unwrap();
    store.commit(put("kept", "yes")).await.unwrap();
    let ballast = mount.folder.path().join("ballast");
    let free = Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(mount.folder.path())
        .output()
        .unwrap();
    let free: usize = String::from_utf8(free.stdout)
        .unwrap()
        .lines()
        .nth(1)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    std::fs::write(&ballast, vec![1; free]).unwrap();
    let big = "x".repeat(60 << 10);
    let error = store.commit(put("lost", &big)).await.unwrap_err();
    assert!(matches!(error, CommitError::Unavailable(_)), "{error}");
    assert_eq!(value(&store, "kept").await.unwrap(), "yes", "reads go on");
    std::fs::remove_file(&ballast).unwrap();
    store.commit(put("later", &big)).await.unwrap();
    assert_eq!(value(&store, "lost").await, None);
}

/// A small file system of its own; needs root, as the other suites that mount do.
struct Tmpfs {
    folder: TempDir,
}

impl Tmpfs {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path())
            .status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "this test mounts a tmpfs, which needs root"
        );
        Self { folder }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

/// Not a test of its own: the writer that the tests below start as a process. It prints what each commit was answered.
#[tokio::test]
#[ignore = "started by the tests that kill it"]
async fn child_that_commits() {
    let Ok(path) = std::env::var("FOREBAY_TEST_DB") else {
        return;
    };
    let commits: u32 = std::env::var("FOREBAY_TEST_COMMITS").unwrap().parse().unwrap();
    let store = SqliteStore::open(Path::new(&path), true).unwrap();
    let failed = Arc::new(AtomicBool::new(false));
    let workers = (0..8).map(|worker| {
        let (store, failed) = (Arc::clone(&store), Arc::clone(&failed));
        tokio::spawn(async move {
            for number in (worker..commits).step_by(8) {
                let key = Bytes::from(number.to_string());
                let tx = Tx {
                    token: None,
                    checks: vec![Check::Absent(key.clone())],
                    ops: vec![Op::Put(key, Bytes::new())],
                };
                // What was answered before the failure may be printed after it, so the order of lines proves nothing.
                let asked_after_failure = failed.load(Ordering::SeqCst);
                let answer = store.commit(tx).await;
                failed.fetch_or(answer.is_err(), Ordering::SeqCst);
                match answer {
                    Ok(_) if asked_after_failure => println!("acknowledged after a failure {number}"),
                    Ok(_) => println!("acknowledged {number}"),
                    Err(CommitError::Unknown(_)) => println!("unknown {number}"),
                    Err(error) => println!("refused {number}: {error}"),
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

fn child(program: &[&str], path: &Path, commits: u32) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut words = program.iter().map(PathBuf::from).chain([this]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args([
        "--exact",
        "child_that_commits",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
        .env("FOREBAY_TEST_DB", path)
        .env("FOREBAY_TEST_COMMITS", commits.to_string())
        .stdout(Stdio::piped());
    command
}

fn acknowledged(line: &str) -> Option<u32> {
    line.split_once("acknowledged ")?.1.trim().parse().ok()
}

#[tokio::test]
async fn a_killed_process_has_lost_nothing_it_had_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.db");
    let mut process = child(&[], &path, u32::MAX).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut answered: Vec<u32> = lines
        .by_ref()
        .filter_map(|line| acknowledged(&line.unwrap()))
        .take(500)
        .collect();
    process.kill().unwrap();
    process.wait().unwrap();
    answered.extend(lines.map_while(Result::ok).filter_map(|line| acknowledged(&line)));
    assert!(answered.len() >= 500);
    let store = SqliteStore::open(&path, true).unwrap();
    for number in answered {
        assert!(
            value(&store, &number.to_string()).await.is_some(),
            "{number} was acknowledged and is gone"
        );
    }
}

#[test]
fn the_flushes_are_real_and_few() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("strace");
    let tracing = [
        "strace",
        "-f",
        "-qq",
        "-o",
        log.to_str().unwrap(),
        "-e",
        "trace=fsync,fdatasync",
    ];
    let output = child(&tracing, &folder.path().join("meta.db"), 1000).output();
    let output = output.expect("strace is installed (tests/setup.sh installs it)");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(acknowledged)
            .count(),
        1000
    );
    let flushes = std::fs::read_to_string(&log)
        .unwrap()
        .lines()
        .filter(|line| line.contains("sync("))
        .count();
    println!("{flushes} flushes for 1000 commits of 8 writers");
    // 8 writers wait for their answers, so 125 groups are the fewest.
    assert!((125..=300).contains(&flushes), "{flushes} flushes");
}

#[tokio::test]
async fn after_a_failed_flush_nothing_is_acknowledged_until_a_restart_has_looked() {
    let folder = tempfile::tempdir().unwrap();
    let (path, log) = (folder.path().join("meta.db"), folder.path().join("strace"));
    // The writer's thread fails its twentieth flush; those after it would succeed.
    let fault = [
        "strace",
        "-f",
        "-qq",
        "-o",
        log.to_str().unwrap(),
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:error=EIO:when=20",
    ];
    let output = child(&fault, &path, 1000)
        .output()
        .expect("strace is installed (tests/setup.sh installs it)");
    assert!(
        std::fs::read_to_string(&log).unwrap().contains("INJECTED"),
        "the fault was never met"
    );
    let output = String::from_utf8(output.stdout).unwrap();
    let said = |word: &str| output.lines().filter(|line| line.contains(word)).count();
    assert!(
        said("unknown ") >= 1 && said("refused ") >= 800,
        "{} unknown, {} refused",
        said("unknown "),
        said("refused ")
    );
    assert_eq!(said("acknowledged after a failure"), 0, "{output}");
    let store = SqliteStore::open(&path, true).unwrap();
    for number in output.lines().filter_map(acknowledged) {
        assert!(
            value(&store, &number.to_string()).await.is_some(),
            "{number} was acknowledged and is gone"
        );
    }
    store.commit(put("again", "")).await.unwrap();
}
