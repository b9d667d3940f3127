//! The engine for a cluster, against a private PostgreSQL that the tests start and stop.

mod cluster;
mod proxy;

use async_trait::async_trait;
use bytes::Bytes;
use cluster::Cluster;
use forebay_metastore::{
    Check, CommitError, MetaStore, MetaStoreRef, Op, OpenError, OpenOptions, Tx, Version,
    conformance::Subject,
    conformance_tests,
    dump::{dump, load},
    open,
    postgres::PostgresStore,
    sqlite::SqliteStore,
};
use proxy::Proxy;
use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU32, Ordering},
};

/// One server for all tests that do not stop it; it ends with this process.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(&[]));
static SCHEMAS: AtomicU32 = AtomicU32::new(0);

/// A URL whose tables are nobody else's.
async fn own_schema(cluster: &Cluster) -> String {
    let name = format!("s{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
    cluster.execute(&format!("CREATE SCHEMA {name}")).await;
    format!("{}?options=-csearch_path%3D{name}", cluster.url())
}

struct Postgres;

#[async_trait]
impl Subject for Postgres {
    async fn fresh(&self) -> MetaStoreRef {
        open(&own_schema(&CLUSTER).await, OpenOptions::default()).await.unwrap()
    }
}

conformance_tests!(Postgres);

fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(name: &str, value: &str) -> Tx {
    Tx {
        token: None,
        checks: vec![],
        ops: vec![Op::Put(key(name), key(value))],
    }
}

/// A transaction that can happen once only, and one that names itself.
fn once(name: &str, token: Option<[u8; 16]>) -> Tx {
    Tx {
        token,
        checks: vec![Check::Absent(key(name))],
        ..put(name, "")
    }
}

async fn version(store: &dyn MetaStore, name: &str) -> Option<Version> {
    store.get(&[key(name)]).await.unwrap()[0]
        .as_ref()
        .map(|entry| entry.version)
}

/// A store behind a proxy, with its one connection warm: the next thing sent is a commit.
async fn behind_a_proxy() -> (Arc<PostgresStore>, Proxy) {
    let url = own_schema(&CLUSTER).await;
    let proxy = Proxy::start(CLUSTER.port()).await;
    let store = PostgresStore::open(&url.replace(&CLUSTER.port().to_string(), &proxy.port().to_string()))
        .await
        .unwrap();
    store.commit(put("warm", "")).await.unwrap();
    (store, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_lost_after_the_commit_is_settled_by_its_token() {
    let (store, proxy) = behind_a_proxy().await;
    proxy.lose_answers(1);
    // Done twice, the second would lose its check.
    let committed = store.commit(once("a", Some([1; 16]))).await.unwrap();
    assert_eq!(proxy.lost(), 1, "the answer was lost indeed");
    assert_eq!(version(&*store, "a").await, Some(committed.version));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_lost_without_a_token_is_unknown_and_not_tried_again() {
    let (store, proxy) = behind_a_proxy().await;
    proxy.lose_answers(1);
    let error = store.commit(once("a", None)).await.unwrap_err();
    assert!(matches!(error, CommitError::Unknown(_)), "{error}");
    assert_eq!(proxy.lost(), 1, "the answer was lost indeed");
    assert!(version(&*store, "a").await.is_some(), "it had been done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_database_away_the_outcome_is_unknown_until_the_token_is_sent_again() {
    let (store, proxy) = behind_a_proxy().await;
    proxy.lose_answers(1);
    proxy.refuse_new_connections(true);
    let tx = once("a", Some([2; 16]));
    let error = store.commit(tx.clone()).await.unwrap_err();
    assert!(matches!(error, CommitError::Unknown(_)), "{error}");
    let error = store.commit(once("b", Some([3; 16]))).await.unwrap_err();
    assert!(
        matches!(error, CommitError::Unavailable(_)),
        "nothing of this one was ever sent: {error}"
    );
    proxy.refuse_new_connections(false);
    let committed = store.commit(tx).await.unwrap();
    assert_eq!(version(&*store, "a").await, Some(committed.version));
    assert_eq!(version(&*store, "b").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_has_lost_nothing_it_had_answered() {
    let cluster = Cluster::start(&[]);
    let store = PostgresStore::open(&cluster.url()).await.unwrap();
    let tx = once("last", Some([4; 16]));
    let committed = store.commit(tx.clone()).await.unwrap();
    let given = store.allocate("ino", 1).await.unwrap();
    cluster.crash();
    cluster.restart();
    assert_eq!(
        version(&*store, "last").await,
        Some(committed.version),
        "the pool finds the server again"
    );
    assert_eq!(store.commit(tx).await.unwrap(), committed);
    assert!(store.commit(put("next", "")).await.unwrap().version > committed.version);
    let other = PostgresStore::open(&cluster.url()).await.unwrap();
    assert!(other.allocate("ino", 1).await.unwrap().start >= given.end);
}

#[tokio::test]
async fn a_server_that_answers_before_it_has_written_is_refused() {
    let url = own_schema(&CLUSTER)
        .await
        .replace("options=", "options=-csynchronous_commit%3Doff%20");
    let error = PostgresStore::open(&url).await.unwrap_err();
    assert!(matches!(error, OpenError::NotDurable { .. }), "{error}");
    assert!(error.to_string().contains("synchronous_commit"), "{error}");
}

#[tokio::test]
async fn a_newer_format_and_a_missing_server_are_refused_by_name() {
    let url = own_schema(&CLUSTER).await;
    let schema = url.rsplit("%3D").next().unwrap();
    PostgresStore::open(&url).await.unwrap();
    PostgresStore::open(&url)
        .await
        .expect("the second time it is all there");
    CLUSTER
        .execute(&format!("UPDATE {schema}.forebay_meta_format SET format = 2"))
        .await;
    let error = PostgresStore::open(&url).await.unwrap_err();
    assert!(
        matches!(error, OpenError::NewerFormat { found: 2, known: 1, .. }),
        "{error}"
    );
    let error = PostgresStore::open("postgres://me:secret@127.0.0.1:1/db")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("127.0.0.1:1/db") && !error.contains("secret"), "{error}");
}

#[tokio::test]
async fn plans_go_by_key_whatever_the_statistics_say() {
    let url = own_schema(&CLUSTER).await;
    let schema = url.rsplit("%3D").next().unwrap();
    let store = PostgresStore::open(&url).await.unwrap();
    CLUSTER
        .execute(&format!(
            "ANALYZE {schema}.forebay_meta_kv; INSERT INTO {schema}.forebay_meta_kv \
             SELECT convert_to('k' || n, 'UTF8'), 1, '' FROM generate_series(1, 20000) n"
        ))
        .await;
    let checks: Vec<_> = (0..50)
        .map(|number| Check::Absent(key(&format!("no{number}"))))
        .collect();
    for round in 0..20 {
        let ops = vec![Op::Put(key("a"), key(&round.to_string())), Op::Delete(key("k7"))];
        store
            .commit(Tx {
                token: None,
                checks: checks.clone(),
                ops,
            })
            .await
            .unwrap();
        store.get(&[key("a"), key("k9")]).await.unwrap();
        store.scan(key("k")..key("l"), 10).await.unwrap();
    }
    // The server publishes its counts when a connection ends or has been idle for a while.
    drop(store);
    let count = |column: &str| {
        format!("SELECT {column} FROM pg_stat_all_tables WHERE relid = '{schema}.forebay_meta_kv'::regclass")
    };
    while CLUSTER.number(&count("idx_scan")).await < 1000 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let whole = CLUSTER.number(&count("seq_scan")).await;
    assert!(whole < 20, "the table was read {whole} times from end to end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_from_sqlite_to_postgres_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = |name: &str| -> MetaStoreRef { SqliteStore::open(&folder.path().join(name), true).unwrap() };
    let (source, back) = (sqlite("source.db"), sqlite("back.db"));
    for number in 0..700 {
        source
            .commit(put(&format!("k{number}"), &number.to_string()))
            .await
            .unwrap();
        if number == 0 {
            source.allocate("ino", 5).await.unwrap();
        }
    }
    let postgres = open(&own_schema(&CLUSTER).await, OpenOptions::default()).await.unwrap();
    load(Arc::clone(&postgres), dump(Arc::clone(&source))).await.unwrap();
    load(Arc::clone(&back), dump(postgres)).await.unwrap();
    let rows = async |store: &MetaStoreRef| {
        let rows = store.scan(key("")..key("z"), 4096).await.unwrap();
        rows.into_iter()
            .map(|(key, entry)| (key, entry.value))
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&source).await.len(), 700);
    assert_eq!(rows(&source).await, rows(&back).await);
    assert!(back.allocate("ino", 1).await.unwrap().start > 5);
}
