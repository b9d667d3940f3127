//! Against a real HDFS, when `FOREBAY_TEST_HDFS` names a NameNode (`tests/hdfs/with.sh`); else these pass at once and say so.

mod proxy;

use self::proxy::{Break, Proxy};
use super::{
    hidden::PARTS,
    uploads::{WITNESSES_MAX, part_path},
    *,
};
use crate::{UnderStoreRef, conformance, local::HIDDEN};
use futures::TryStreamExt;
use hdfs_native::{Client, ClientBuilder, WriteOptions, file::FileWriter};
use std::{net::SocketAddr, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::MutexGuard,
};

const SHORT: Duration = Duration::from_secs(2);

/// They end processes under each other: one at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// One test's folder of the real HDFS.
struct Real {
    url: String,
    folder: String,
    _alone: MutexGuard<'static, ()>,
}

impl Real {
    async fn new(folder: &str) -> Option<Real> {
        let Ok(url) = std::env::var("FOREBAY_TEST_HDFS") else {
            eprintln!("FOREBAY_TEST_HDFS is not set: nothing tested");
            return None;
        };
        let alone = ALONE.lock().await;
        // One that failed while it kept a process away does not take the others with it.
        node("heal").await;
        let real = Real {
            url,
            folder: format!("/{folder}"),
            _alone: alone,
        };
        real.theirs().delete(&real.folder, true).await.unwrap();
        Some(real)
    }

    fn address(&self) -> SocketAddr {
        self.url.strip_prefix("hdfs://").unwrap().parse().unwrap()
    }

    async fn store_at(&self, address: SocketAddr, timeout: Duration) -> Hdfs {
        let url = format!("hdfs://{address}{}", self.folder);
        let address::Address::Hdfs(at) = address::parse(&url).unwrap() else {
            panic!("{url}");
        };
        let settings = Settings {
            timeout,
            ..Settings::default()
        };
        let store = Hdfs::new(at, &settings).unwrap();
        // A machine that is busy with other tests loses nothing by our impatience, but answers Unavailable, which a test is not to try again.
        store.shared.wire.be_patient();
        store
    }

    async fn store(&self) -> Hdfs {
        self.store_at(self.address(), Settings::default().timeout).await
    }

    /// Behind a proxy, with little patience.
    async fn broken(&self) -> (Proxy, Hdfs) {
        let proxy = Proxy::start(self.address()).await;
        let store = self.store_at(proxy.address, SHORT).await;
        (proxy, store)
    }

    /// Somebody else, with nothing of ours between.
    fn theirs(&self) -> Client {
        ClientBuilder::new().with_url(&self.url).build().unwrap()
    }

    fn path(&self, key: &str) -> String {
        format!("{}/{key}", self.folder)
    }

    async fn write_theirs(&self, key: &str, bytes: &'static [u8]) {
        let how = WriteOptions::default().overwrite(self.theirs().get_file_info(&self.path(key)).await.is_ok());
        let mut file = self.theirs().create(&self.path(key), how).await.unwrap();
        file.write_bytes(Bytes::from_static(bytes)).await.unwrap();
        file.close().await.unwrap();
    }

    /// A file that its writer has synced and never closed. The client is told to whoever asks that the writer lives.
    async fn left_open(&self, path: &str, replace: bool) -> FileWriter {
        let how = WriteOptions::default().overwrite(replace);
        let mut file = self.theirs().create(path, how).await.unwrap();
        file.write_bytes(Bytes::from_static(b"torn")).await.unwrap();
        file.hsync().await.unwrap();
        self.assert_open(path).await;
        file
    }

    /// Proves that somebody holds the lease.
    async fn assert_open(&self, path: &str) {
        let append = self.theirs().append(path).await;
        assert!(
            append.is_err(),
            "{path} is open to be appended to, so nobody holds its lease"
        );
    }

    /// What lies in the hidden folder, directories apart.
    async fn hidden_files(&self) -> Vec<String> {
        let all = self.theirs().list_status(&self.path(HIDDEN), true).await.unwrap();
        all.into_iter().filter(|row| !row.isdir).map(|row| row.path).collect()
    }
}

/// Ends, starts and asks the processes of `with.sh`.
async fn node(args: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/hdfs/node.sh");
    let output = Command::new(script).args(args.split(' ')).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "node.sh {args}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// As `node`, for what must not depend on the output's end: a started process keeps it open.
async fn start(name: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/hdfs/node.sh");
    let mut command = Command::new(script);
    command
        .args(["start", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    assert!(command.status().await.unwrap().success());
}

fn write(key: &str, size: usize, expect: Expect) -> Write {
    Write {
        key: key.into(),
        size: size as u64,
        token: format!("life-{key}"),
        attributes: vec![("mtime".into(), "1700000000123456".into())],
        expect,
    }
}

/// Bytes that tell their place.
fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at % 251) as u8 ^ (at >> 16) as u8).collect()
}

async fn put(store: &Hdfs, key: &str, bytes: &Bytes, expect: Expect) -> Result<Found, StoreError> {
    store.put(&write(key, bytes.len(), expect), vec![bytes.clone()]).await
}

async fn content(store: &Hdfs, key: &str) -> Bytes {
    let found = store.head(key).await.unwrap().expect("there");
    store.read(key, 0..found.size, &found.validator).await.unwrap()
}

async fn token(store: &Hdfs, key: &str) -> Option<String> {
    store.head(key).await.unwrap().expect("there").token
}

fn is_unavailable<T>(answer: &Result<T, StoreError>, why: &str) -> bool {
    matches!(answer, Err(StoreError::Unavailable(text)) if text.contains(why) && !text.contains('\n'))
}

#[tokio::test]
async fn a_real_hdfs_passes_the_conformance_suite() {
    let Some(real) = Real::new("conformance").await else {
        return;
    };
    let (url, settings) = (format!("{}{}", real.url, real.folder), Settings::default());
    let store: UnderStoreRef = crate::open(&url, &settings).await.unwrap();
    conformance::run(Arc::clone(&store)).await;
    assert_eq!(store.uploads("").await.unwrap(), []);
    assert_eq!(real.hidden_files().await, Vec::<String>::new());
    // The same at the root of the file system.
    conformance::run(crate::open(&real.url, &settings).await.unwrap()).await;
}

#[tokio::test]
async fn mode_mtime_and_owner_are_native() {
    let Some(real) = Real::new("native").await else { return };
    let store = real.store().await;
    for mode in ["600", "444", "000"] {
        let mut wanted = write(&format!("of/{mode}"), 3, Expect::Absent);
        wanted.attributes.extend([
            ("mode".into(), mode.into()),
            ("uid".into(), "1".into()),
            ("gid".into(), "2".into()),
        ]);
        let found = store.put(&wanted, vec![Bytes::from_static(b"one")]).await.unwrap();
        let status = real.theirs().get_file_info(&real.path(&wanted.key)).await.unwrap();
        assert_eq!(format!("{:03o}", status.permission), mode);
        assert_eq!(
            (status.modification_time, found.mtime),
            (1_700_000_000_123, 1_700_000_000_123_000)
        );
        assert_eq!((status.owner.as_str(), status.group.as_str()), ("daemon", "bin"));
        let head = store.head(&wanted.key).await.unwrap().unwrap();
        assert!(
            head.attributes
                .contains(&("mode".into(), mode.trim_start_matches("00").into())),
            "{head:?}"
        );
    }
}

#[tokio::test]
async fn a_user_without_rights_and_a_full_quota_are_refused_in_the_servers_words() {
    let Some(real) = Real::new("refused").await else { return };
    let bytes = pattern(2 << 20);
    real.theirs().mkdirs(&real.folder, 0o755, true).await.unwrap();
    let url = format!("{}{}?user=nobody", real.url, real.folder);
    let nobody = crate::open(&url, &Settings::default()).await.unwrap();
    assert_eq!(nobody.url(), url);
    let answer = nobody
        .put(&write("a", bytes.len(), Expect::Absent), vec![bytes.clone()])
        .await;
    assert!(
        matches!(&answer, Err(StoreError::Refused(why)) if why.contains("Permission denied: user=nobody")),
        "{answer:?}"
    );
    node(&format!("admin -setSpaceQuota 1m {}", real.folder)).await;
    let store = real.store().await;
    let answer = put(&store, "a", &bytes, Expect::Absent).await;
    assert!(
        matches!(&answer, Err(StoreError::Refused(why)) if why.contains("quota") && !why.contains('\n')),
        "{answer:?}"
    );
    assert_eq!(store.head("a").await.unwrap(), None);
    assert_eq!(real.hidden_files().await, Vec::<String>::new());
    node(&format!("admin -clrSpaceQuota {}", real.folder)).await;
    put(&store, "a", &bytes, Expect::Absent).await.unwrap();
}

#[tokio::test]
async fn files_of_several_blocks_come_back_from_anywhere() {
    let Some(real) = Real::new("blocks").await else { return };
    let store = real.store().await;
    // Ends within a block, at its end, and right after it.
    for len in [(5 << 20) + 77, 3 << 20, (2 << 20) + 1] {
        let bytes = pattern(len);
        let chunks = (0..len)
            .step_by(300_000)
            .map(|at| bytes.slice(at..len.min(at + 300_000)))
            .collect();
        let wanted = write(&format!("f{len}"), len, Expect::Absent);
        let found = store.put(&wanted, chunks).await.unwrap();
        let status = real.theirs().get_file_info(&real.path(&wanted.key)).await.unwrap();
        assert_eq!(status.blocksize, Some(1 << 20), "one block would prove nothing");
        assert!(content(&store, &wanted.key).await == bytes);
        for range in [0..len, 1..2, (1 << 20) - 5..(2 << 20) + 1, len - 1..len] {
            let read = store
                .read(&wanted.key, range.start as u64..range.end as u64, &found.validator)
                .await
                .unwrap();
            assert!(read == bytes.slice(range.clone()), "{range:?} of {len}");
        }
        let beyond = store.read(&wanted.key, 0..len as u64 + 1, &found.validator).await;
        assert!(matches!(beyond, Err(StoreError::Damaged(_))), "{beyond:?}");
    }
}

#[tokio::test]
async fn every_block_is_synced_to_the_disk_before_it_is_shown() {
    let Some(real) = Real::new("synced").await else { return };
    let store = real.store().await;
    let syncs = async || {
        // The number is up to a second old.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        node("metric datanode FsyncCount").await.trim().parse::<u64>().unwrap()
    };
    let bytes = pattern((3 << 20) + 77);
    let before = syncs().await;
    let mut theirs = real
        .theirs()
        .create(&real.path("theirs"), WriteOptions::default())
        .await
        .unwrap();
    theirs.write_bytes(bytes.clone()).await.unwrap();
    theirs.close().await.unwrap();
    let between = syncs().await;
    put(&store, "ours", &bytes, Expect::Absent).await.unwrap();
    let (closed, synced) = (between - before, syncs().await - between);
    assert!(
        synced >= closed + 4,
        "{synced} syncs of four blocks, where {closed} come with the close alone"
    );
}

#[tokio::test]
async fn a_nameservice_is_found_in_the_configuration_and_its_dead_namenode_passed_over() {
    let Some(real) = Real::new("nameservice").await else {
        return;
    };
    let url = format!("hdfs://forebay-tests{}", real.folder);
    let store = crate::open(&url, &Settings::default()).await.unwrap();
    store
        .put(&write("a", 3, Expect::Absent), vec![Bytes::from_static(b"one")])
        .await
        .unwrap();
    assert_eq!(content(&real.store().await, "a").await, "one");
}

#[tokio::test]
async fn the_same_size_and_mtime_get_another_validator() {
    let Some(real) = Real::new("same").await else { return };
    let store = real.store().await;
    let first = put(&store, "a", &Bytes::from_static(b"one"), Expect::Absent)
        .await
        .unwrap();
    let second = put(
        &store,
        "a",
        &Bytes::from_static(b"two"),
        Expect::Match(first.validator.clone()),
    )
    .await
    .unwrap();
    assert_eq!(
        (first.mtime, second.mtime),
        (1_700_000_000_123_000, 1_700_000_000_124_000)
    );
    let stale = store.read("a", 0..3, &first.validator).await;
    assert!(matches!(stale, Err(StoreError::Changed(_))), "{stale:?}");
    assert_eq!(content(&store, "a").await, "two");
}

#[tokio::test]
async fn names_stay_in_order_over_many_pages() {
    let Some(real) = Real::new("pages").await else { return };
    let store = real.store().await;
    let mut expected: Vec<String> = (0..450).map(|at| format!("part-{at:05}.parquet")).collect();
    expected.extend((0..150).map(|at| format!("part-{at:05}é日本-{at}")));
    expected.extend(["ä", "Ä", "\u{ff5e}", "𝄞", "part", "zz", ".hidden"].map(str::to_owned));
    for name in &expected {
        real.theirs().mkdirs(&real.path(name), 0o755, true).await.unwrap();
    }
    expected.sort();
    let list = async |after: Option<&str>| -> Vec<String> {
        store
            .list("", after)
            .map_ok(|row| row.name)
            .try_collect()
            .await
            .unwrap()
    };
    assert_eq!(list(None).await, expected);
    for at in [0, 1, 200, 449, 450, 601, expected.len() - 1] {
        assert_eq!(
            list(Some(&expected[at])).await,
            expected[at + 1..],
            "after {}",
            expected[at]
        );
    }
    // Without our order it would be another: the NameNode's is by signed bytes.
    let raw = real.theirs().list_status(&real.folder, false).await.unwrap();
    let raw: Vec<&str> = raw.iter().map(name_of).collect();
    assert!(
        !raw.is_sorted() && raw.len() == expected.len(),
        "the NameNode sorts as we do"
    );
}

/// Found by the conformance suite on a busy machine: the first try had ended the file, and the next one was told that nobody writes it.
#[tokio::test]
async fn a_file_that_was_ended_while_nobody_waited_is_written() {
    let Some(real) = Real::new("ended").await else { return };
    let store = real.store().await;
    let mut cut_short = 0;
    for nth in 0..120 {
        let mut body = store
            .shared
            .wire
            .create(&real.path(&format!("f{nth}")), 0o644, false)
            .await
            .unwrap();
        body.write(Bytes::from_static(b"x")).await.unwrap();
        // About as long as an answer takes.
        let patience = Duration::from_micros(1000 + 200 * (nth % 40));
        match body.end(patience).await {
            Ok(()) => {}
            Err(StoreError::Unavailable(why)) if why.contains("not reported") => cut_short += 1,
            Err(error) => panic!("{patience:?}: {error}"),
        }
    }
    assert!(cut_short < 120, "none was ever ended");
}

#[tokio::test]
async fn a_witness_speaks_for_what_was_written_and_goes_when_its_time_has_come() {
    let Some(real) = Real::new("witness").await else { return };
    let store = real.store().await;
    let bytes = Bytes::from_static(b"ours");
    put(&store, "d/a", &bytes, Expect::Absent).await.unwrap();
    let again = real.store().await;
    assert_eq!(
        token(&again, "d/a").await.as_deref(),
        Some("life-d/a"),
        "another life must know it"
    );
    assert_eq!(again.uploads("").await.unwrap(), []);
    let folders = again.shared.folders("").await.unwrap();
    let [(key, id, _)] = &folders[..] else {
        panic!("{folders:?}")
    };
    again.abort(key, id).await.unwrap();
    assert!(
        token(&again, "d/a").await.is_some(),
        "an abort that comes too late takes nothing back"
    );
    real.write_theirs("d/a", b"theirs").await;
    assert_eq!(token(&again, "d/a").await, None, "it stood for other bytes");
    again.shared.sweep(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(again.shared.folders("").await.unwrap().len(), 1);
    again.shared.sweep(Duration::ZERO).await.unwrap();
    assert_eq!(
        real.theirs().list_status(&real.path(HIDDEN), true).await.unwrap().len(),
        0
    );
}

#[tokio::test]
async fn nothing_is_below_a_file() {
    let Some(real) = Real::new("file").await else { return };
    let store = real.store().await;
    let one = Bytes::from_static(b"one");
    put(&store, "a", &one, Expect::Absent).await.unwrap();
    assert_eq!(store.head("a/b").await.unwrap(), None);
    assert_eq!(store.head("a/b/c").await.unwrap(), None);
    assert_eq!(store.list("a", None).count().await, 0);
    let answer = put(&store, "a/b", &one, Expect::Absent).await;
    assert!(
        matches!(answer, Err(StoreError::Refused(_) | StoreError::Changed(_))),
        "{answer:?}"
    );
    store.make_dir("d/e").await.unwrap();
    for expect in [Expect::Absent, Expect::Any] {
        let answer = put(&store, "d", &one, expect).await;
        assert!(matches!(answer, Err(StoreError::Changed(_))), "{answer:?}");
    }
    let answer = store.delete("d", &Expect::Any).await;
    assert!(matches!(answer, Err(StoreError::Changed(_))), "{answer:?}");
    let answer = put(&store, "", &one, Expect::Any).await;
    assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    assert_eq!(real.hidden_files().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_upload_that_is_not_shown_speaks_for_nothing() {
    let Some(real) = Real::new("twin").await else { return };
    let store = real.store().await;
    let wanted = write("a", 6, Expect::Any);
    let upload = store.start(&wanted).await.unwrap();
    // By chance it has the size and the mtime of the upload.
    real.write_theirs("a", b"theirs").await;
    real.theirs()
        .set_times(&real.path("a"), 1_700_000_000_123, u64::MAX)
        .await
        .unwrap();
    assert_eq!(token(&store, "a").await, None);
    let part = store
        .part(&wanted, &upload, 0, 0, vec![Bytes::from_static(b"ours!!")])
        .await
        .unwrap();
    assert_eq!(token(&store, "a").await, None);
    store.complete(&wanted, &upload, &[part]).await.unwrap();
    assert_eq!(content(&store, "a").await, "ours!!");
    assert_eq!(token(&store, "a").await.as_deref(), Some("life-a"));
}

#[tokio::test]
async fn no_more_than_so_many_witnesses_stay() {
    let Some(real) = Real::new("many").await else { return };
    let store = real.store().await;
    let before = WITNESSES_MAX + 3;
    for at in 0..before {
        store.shared.remember("gone", &format!("{}/u{at}", real.folder));
    }
    put(&store, "a", &Bytes::new(), Expect::Absent).await.unwrap();
    put(&store, "b", &Bytes::new(), Expect::Absent).await.unwrap();
    assert_eq!(store.shared.witnesses.lock().len(), WITNESSES_MAX);
    assert!(token(&store, "a").await.is_some() && token(&store, "b").await.is_some());
}

#[tokio::test]
async fn an_upload_in_parts_goes_on_in_another_life() {
    let Some(real) = Real::new("parts").await else { return };
    let bytes = pattern((5 << 20) + 99);
    let wanted = write("big", bytes.len(), Expect::Absent);
    let part = |index: usize| vec![bytes.slice(index * (2 << 20)..bytes.len().min((index + 1) * (2 << 20)))];
    let store = real.store().await;
    let upload = store.start(&wanted).await.unwrap();
    let mut parts = vec![store.part(&wanted, &upload, 2, 4 << 20, part(2)).await.unwrap()];
    let store = real.store().await;
    for index in [0, 1] {
        parts.push(
            store
                .part(&wanted, &upload, index as u32, 0, part(index))
                .await
                .unwrap(),
        );
    }
    let short = store.complete(&wanted, &upload, &parts[..2]).await;
    assert!(matches!(short, Err(StoreError::Damaged(_))), "{short:?}");
    let found = store.complete(&wanted, &upload, &parts).await.unwrap();
    assert!(content(&store, "big").await == bytes);
    // Once more, as after a lost answer.
    assert_eq!(
        real.store().await.complete(&wanted, &upload, &parts).await.unwrap(),
        found
    );
    real.write_theirs("big", b"theirs").await;
    let late = store.complete(&wanted, &upload, &parts).await;
    assert!(matches!(late, Err(StoreError::NotFound(_))), "{late:?}");
}

#[tokio::test]
async fn a_lost_answer_to_the_rename_is_cleared_up_by_the_witness() {
    let Some(real) = Real::new("lost").await else { return };
    let (proxy, store) = real.broken().await;
    let bytes = pattern(100_000);
    proxy.break_next("rename2", Break::LostAnswer);
    let answer = put(&store, "a/b", &bytes, Expect::Absent).await;
    assert_eq!(proxy.hits(), 1, "the first rename finds no parent");
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    real.theirs().mkdirs(&real.path("a"), 0o755, true).await.unwrap();
    store
        .abort("a/b", &store.uploads("a/b").await.unwrap()[0].1)
        .await
        .unwrap();
    proxy.break_next("rename2", Break::LostAnswer);
    let answer = put(&store, "a/b", &bytes, Expect::Absent).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert_eq!(proxy.hits(), 2);
    assert_eq!(token(&store, "a/b").await.as_deref(), Some("life-a/b"));
    assert_eq!(store.uploads("").await.unwrap(), []);
    assert!(content(&store, "a/b").await == bytes);

    let wanted = write("a/c", 4, Expect::Absent);
    let upload = store.start(&wanted).await.unwrap();
    let part = store
        .part(&wanted, &upload, 0, 0, vec![Bytes::from_static(b"four")])
        .await
        .unwrap();
    proxy.break_next("rename2", Break::LostAnswer);
    let answer = store.complete(&wanted, &upload, std::slice::from_ref(&part)).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert_eq!(proxy.hits(), 3);
    assert_eq!(token(&store, "a/c").await.as_deref(), Some("life-a/c"));
    store.complete(&wanted, &upload, &[part]).await.unwrap();
}

#[tokio::test]
async fn a_late_rename_never_brings_back_what_was_given_up() {
    let Some(real) = Real::new("late").await else { return };
    let (proxy, store) = real.broken().await;
    let [one, two, three] = [&b"one"[..], b"two", b"three"].map(Bytes::from_static);
    let first = put(&store, "a", &one, Expect::Absent).await.unwrap();
    proxy.break_next("rename2", Break::Late(SHORT * 2));
    let answer = put(&store, "a", &two, Expect::Match(first.validator.clone())).await;
    assert!(is_unavailable(&answer, "no answer"), "{answer:?}");
    assert_eq!((proxy.hits(), proxy.arrived()), (1, 0));
    // Not through the proxy, where the late call holds up all others.
    let direct = real.store().await;
    let head = direct.head("a").await.unwrap().unwrap();
    assert_eq!(head.validator, first.validator, "it has not happened");
    let uploads = direct.uploads("a").await.unwrap();
    assert_eq!(uploads.len(), 1);
    direct.abort("a", &uploads[0].1).await.unwrap();
    put(&direct, "a", &three, Expect::Match(first.validator)).await.unwrap();
    while proxy.arrived() == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(content(&direct, "a").await, three);
    assert_eq!(real.hidden_files().await, Vec::<String>::new());

    // One that arrives before anybody gives it up has happened.
    proxy.break_next("rename2", Break::Late(SHORT * 2));
    let answer = put(&store, "b", &two, Expect::Absent).await;
    assert!(is_unavailable(&answer, "no answer"), "{answer:?}");
    assert_eq!(direct.head("b").await.unwrap(), None);
    while proxy.arrived() == 1 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(token(&direct, "b").await.as_deref(), Some("life-b"));
}

#[tokio::test]
async fn a_datanode_that_dies_while_it_is_written_to() {
    let Some(real) = Real::new("datanode").await else {
        return;
    };
    let store = real.store_at(real.address(), SHORT * 3).await;
    let kept = pattern(300_000);
    put(&store, "kept", &kept, Expect::Absent).await.unwrap();
    // Each chunk is the same memory: enough to be at it still when the DataNode dies.
    let (chunk, count) = (pattern(1 << 20), 400);
    let wanted = write("big", chunk.len() * count, Expect::Absent);
    let upload = store.start(&wanted).await.unwrap();
    let writer = tokio::spawn({
        let (store, wanted, upload) = (store.clone(), wanted.clone(), upload.clone());
        let chunks = vec![chunk.clone(); count];
        async move { store.part(&wanted, &upload, 0, 0, chunks).await }
    });
    let path = part_path(&store.shared.started("big", &upload).unwrap(), 0);
    let length = async || {
        real.theirs()
            .get_file_info(&path)
            .await
            .map_or(0, |status| status.length)
    };
    while length().await < 2 << 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node("kill datanode").await;
    let answer = writer.await.unwrap();
    let arrived = length().await;
    assert!(
        (2 << 20..chunk.len() * count).contains(&arrived),
        "it died at {arrived} bytes, not in the middle"
    );
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    let read = store
        .read(
            "kept",
            0..300_000,
            &store.head("kept").await.unwrap().unwrap().validator,
        )
        .await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let answer = put(&store, "other", &kept, Expect::Absent).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert_eq!(store.head("other").await.unwrap(), None);
    start("datanode").await;
    node("wait").await;
    assert!(content(&store, "kept").await == kept);
    let small = write("big", chunk.len() * 3, Expect::Absent);
    let part = store.part(&small, &upload, 0, 0, vec![chunk.clone(); 3]).await.unwrap();
    // The upload was of another size: begun anew it is whole.
    let wrong = store.complete(&small, &upload, std::slice::from_ref(&part)).await;
    assert!(wrong.is_err(), "{wrong:?}");
    store.abort("big", &upload).await.unwrap();
    put(&store, "big", &chunk, Expect::Absent).await.unwrap();
    assert!(content(&store, "big").await == chunk);
}

#[tokio::test]
async fn a_namenode_that_is_killed_or_stopped_and_comes_back() {
    let Some(real) = Real::new("namenode").await else {
        return;
    };
    // A NameNode that has just come back may be slow.
    let store = real.store().await;
    let bytes = pattern((1 << 20) + 5);
    put(&store, "before", &bytes, Expect::Absent).await.unwrap();
    let wanted = write("parts", bytes.len() * 2, Expect::Absent);
    let upload = store.start(&wanted).await.unwrap();
    let mut parts = vec![store.part(&wanted, &upload, 0, 0, vec![bytes.clone()]).await.unwrap()];

    node("kill namenode").await;
    for answer in [
        put(&store, "during", &bytes, Expect::Absent).await.map(|_| ()),
        store
            .part(&wanted, &upload, 1, 0, vec![bytes.clone()])
            .await
            .map(|_| ()),
        store.head("before").await.map(|_| ()),
    ] {
        // A closed connection or port needs no waiting.
        assert!(
            is_unavailable(&answer, "") && !is_unavailable(&answer, "no answer"),
            "{answer:?}"
        );
    }
    start("namenode").await;
    node("wait").await;
    parts.push(store.part(&wanted, &upload, 1, 0, vec![bytes.clone()]).await.unwrap());
    store.complete(&wanted, &upload, &parts).await.unwrap();
    assert!(content(&store, "parts").await == [&bytes[..], &bytes[..]].concat());
    assert!(content(&store, "before").await == bytes);
    assert_eq!(token(&store, "before").await.as_deref(), Some("life-before"));
    assert_eq!(store.head("during").await.unwrap(), None);

    let impatient = real.store_at(real.address(), SHORT).await;
    node("stop namenode").await;
    let began = Instant::now();
    let answer = impatient.head("before").await;
    let waited = began.elapsed();
    node("cont namenode").await;
    assert!(is_unavailable(&answer, "no answer from HDFS in 2s"), "{answer:?}");
    assert!(waited >= SHORT, "{waited:?}");
    assert!(content(&store, "before").await == bytes);
}

#[tokio::test]
async fn safe_mode_is_passing_and_reads_go_on() {
    let Some(real) = Real::new("safe").await else { return };
    let store = real.store().await;
    let bytes = pattern(1000);
    put(&store, "a", &bytes, Expect::Absent).await.unwrap();
    let mode = node("admin -safemode enter").await;
    assert!(mode.contains("Safe mode is ON"), "{mode}");
    let answer = put(&store, "b", &bytes, Expect::Absent).await;
    assert!(is_unavailable(&answer, "safe mode"), "{answer:?}");
    let answer = store.delete("a", &Expect::Any).await;
    assert!(is_unavailable(&answer, "safe mode"), "{answer:?}");
    assert!(content(&store, "a").await == bytes);
    node("admin -safemode leave").await;
    put(&store, "b", &bytes, Expect::Absent).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_nobody_gives_back_is_in_nobodys_way() {
    let Some(real) = Real::new("lease").await else { return };
    let store = real.store().await;
    let wanted = write("a", 8, Expect::Any);
    let upload = store.start(&wanted).await.unwrap();
    let started = store.shared.started("a", &upload).unwrap();
    let open = [
        real.left_open(&part_path(&started, 0), false).await,
        real.left_open(&started.whole(), false).await,
        real.left_open(&real.path("a"), false).await,
    ];
    let four = || vec![Bytes::from_static(b"four")];
    let mut parts = Vec::new();
    for index in 0..2 {
        parts.push(store.part(&wanted, &upload, index, 0, four()).await.unwrap());
    }
    let absent = Write {
        expect: Expect::Absent,
        ..wanted.clone()
    };
    let answer = store.complete(&absent, &upload, &parts).await;
    assert!(matches!(answer, Err(StoreError::Changed(_))), "{answer:?}");
    store.complete(&wanted, &upload, &parts).await.unwrap();
    assert_eq!(content(&store, "a").await, "fourfour");

    // A `whole` without parts is recovered, and not believed.
    let upload = store.start(&wanted).await.unwrap();
    let started = store.shared.started("a", &upload).unwrap();
    let torn = real.left_open(&started.whole(), false).await;
    real.theirs()
        .delete(&format!("{}/{PARTS}", started.folder), true)
        .await
        .unwrap();
    let answer = store.complete(&wanted, &upload, &parts).await;
    assert!(matches!(answer, Err(StoreError::Damaged(_))), "{answer:?}");
    real.theirs().append(&started.whole()).await.expect("its lease is free");
    store.abort("a", &upload).await.unwrap();
    assert_eq!(store.uploads("").await.unwrap(), []);
    drop((open, torn));
}

/// The process that `a_writer_that_was_killed` kills.
#[tokio::test]
async fn dying_writer() {
    let Ok(url) = std::env::var("FOREBAY_DYING_WRITER") else {
        return;
    };
    let store = crate::open(&url, &Settings::default()).await.unwrap();
    let wanted = write("big", 3 << 20, Expect::Absent);
    let upload = store.start(&wanted).await.unwrap();
    let part = store
        .part(&wanted, &upload, 0, 0, vec![pattern(1 << 20)])
        .await
        .unwrap();
    println!("upload {} {}", upload.0, part.id);
    let _ = store.part(&wanted, &upload, 1, 0, vec![pattern(1 << 20); 4000]).await;
}

#[tokio::test]
async fn a_writer_that_was_killed_leaves_an_upload_that_goes_on() {
    let Some(real) = Real::new("killed").await else { return };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hdfs::tests::dying_writer", "--nocapture"])
        .env("FOREBAY_DYING_WRITER", format!("{}{}", real.url, real.folder))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (id, len) = loop {
        let line = lines.next_line().await.unwrap().expect("it says its upload");
        if let Some((_, rest)) = line.split_once("upload ") {
            let (id, len) = rest.split_once(' ').unwrap();
            break (UploadId(id.into()), len.to_owned());
        }
    };
    let store = real.store().await;
    let path = part_path(&store.shared.started("big", &id).unwrap(), 1);
    while real
        .theirs()
        .get_file_info(&path)
        .await
        .map_or(0, |status| status.length)
        == 0
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    child.kill().await.unwrap();
    real.assert_open(&path).await;
    assert_eq!(store.uploads("big").await.unwrap(), [("big".to_owned(), id.clone())]);
    let wanted = write("big", 3 << 20, Expect::Absent);
    let mut parts = vec![PartId { index: 0, id: len }];
    for index in [1, 2] {
        parts.push(
            store
                .part(&wanted, &id, index, 0, vec![pattern(1 << 20)])
                .await
                .unwrap(),
        );
    }
    store.complete(&wanted, &id, &parts).await.unwrap();
    assert!(content(&store, "big").await == pattern(1 << 20).repeat(3));
}

#[tokio::test]
async fn a_block_that_rots_is_never_read_as_good() {
    let Some(real) = Real::new("rot").await else { return };
    let store = real.store().await;
    let bytes = Bytes::from("rotten-soon-".repeat(5000));
    put(&store, "a", &bytes, Expect::Absent).await.unwrap();
    let data = format!("{}/data", std::env::var("FOREBAY_HDFS").unwrap());
    let found = Command::new("grep")
        .args(["-rl", "--include=blk_*", "rotten-soon", &data])
        .output()
        .await
        .unwrap();
    let block = String::from_utf8(found.stdout).unwrap();
    let mut rotten = std::fs::read(block.trim()).unwrap();
    rotten[30_000] ^= 1;
    std::fs::write(block.trim(), rotten).unwrap();
    let found = store.head("a").await.unwrap().unwrap();
    let read = store.read("a", 0..found.size, &found.validator).await;
    assert!(
        matches!(read, Err(StoreError::Damaged(_) | StoreError::Unavailable(_))),
        "{read:?}"
    );
}

/// Says what this machine does; it fails only when nothing comes back.
#[tokio::test]
async fn throughput() {
    let Some(real) = Real::new("throughput").await else {
        return;
    };
    let store = real.store().await;
    let bytes = pattern(64 << 20);
    let mega = |began: Instant, bytes: usize| bytes as f64 / 1e6 / began.elapsed().as_secs_f64();
    let began = Instant::now();
    put(&store, "whole", &bytes, Expect::Absent).await.unwrap();
    println!("put of 64 MiB: {:.0} MB/s", mega(began, bytes.len()));
    let began = Instant::now();
    assert!(content(&store, "whole").await == bytes);
    println!("read of 64 MiB: {:.0} MB/s", mega(began, bytes.len()));
    let wanted = write("parts", bytes.len(), Expect::Absent);
    let began = Instant::now();
    let upload = store.start(&wanted).await.unwrap();
    let parts = (0..4).map(|index| {
        let (store, wanted, upload) = (&store, &wanted, &upload);
        let part = bytes.slice(index * (16 << 20)..(index + 1) * (16 << 20));
        async move { store.part(wanted, upload, index as u32, 0, vec![part]).await }
    });
    let parts = futures::future::try_join_all(parts).await.unwrap();
    println!("four parts of 16 MiB: {:.0} MB/s", mega(began, bytes.len()));
    store.complete(&wanted, &upload, &parts).await.unwrap();
    println!("the same with complete: {:.0} MB/s", mega(began, bytes.len()));
    for parallel in [1, 4, 16] {
        let began = Instant::now();
        let puts = (0..32).map(|at| {
            let store = store.clone();
            let small = bytes.slice(..10_000);
            async move {
                put(&store, &format!("small-{parallel}/{at}"), &small, Expect::Absent)
                    .await
                    .unwrap()
            }
        });
        let _: Vec<_> = futures::stream::iter(puts).buffer_unordered(parallel).collect().await;
        println!(
            "small files, {parallel} at once: {:.0}/s",
            32.0 / began.elapsed().as_secs_f64()
        );
    }
}
