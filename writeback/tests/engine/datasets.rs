//! Datasets through the engine's own door: sessions, versions, followers, and what a crash leaves of them.

use crate::support::{World, at, get, kind, put as put_file};
use arrow_array::{
    ArrayRef, DictionaryArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, types::Int32Type,
};
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use forebay_metastore::mem::{Call, Fault};
use forebay_runtime::chance::{Chance, SeededChance};
use forebay_understore::StoreError;
use forebay_writeback::{
    Cache, Error, ErrorKind,
    dataset::{
        At, Compression, DatasetPlan, Decoder, FollowSpec, Format, IpcMessage, PartItem, PartWriter, Publish, PutDone,
        PutTarget, Resume, SessionId, SessionSpec, Task,
    },
    file::WriteMode,
    names::{Make, MakeKind, Rename},
    persist::Resolve,
    policy::Change,
};
use futures::{StreamExt, TryStreamExt};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

// ---- batches and messages

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

fn rows(numbers: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    RecordBatch::try_new(schema(), vec![column]).unwrap()
}

fn texts(texts: &[&str]) -> RecordBatch {
    RecordBatch::try_from_iter([("s", Arc::new(StringArray::from_iter_values(texts)) as ArrayRef)]).unwrap()
}

fn coded(texts: &[&str]) -> RecordBatch {
    let column: DictionaryArray<Int32Type> = texts.iter().copied().collect();
    RecordBatch::try_from_iter([("s", Arc::new(column) as ArrayRef)]).unwrap()
}

fn schema_message(schema: &Schema) -> IpcMessage {
    let mut tracker = DictionaryTracker::new(false);
    let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        schema,
        &mut tracker,
        &IpcWriteOptions::default(),
    );
    IpcMessage {
        header: encoded.ipc_message.into(),
        ..IpcMessage::default()
    }
}

/// The messages of a stream of batches, without the schema.
fn messages(batches: &[RecordBatch]) -> Vec<IpcMessage> {
    let (mut tracker, mut context, options) = (
        DictionaryTracker::new(false),
        IpcWriteContext::default(),
        IpcWriteOptions::default(),
    );
    let generator = IpcDataGenerator::default();
    let Some(first) = batches.first() else {
        return Vec::new();
    };
    generator.schema_to_bytes_with_dictionary_tracker(&first.schema(), &mut tracker, &options);
    let mut out = Vec::new();
    for batch in batches {
        let (dictionaries, batch) = generator.encode(batch, &mut tracker, &options, &mut context).unwrap();
        out.extend(dictionaries.into_iter().chain([batch]).map(|encoded| IpcMessage {
            header: encoded.ipc_message.into(),
            body: vec![Bytes::from(encoded.arrow_data)],
            app_metadata: Bytes::new(),
        }));
    }
    out
}

// ---- verbs in one line each

fn target(path: &str) -> PutTarget {
    PutTarget {
        path: at(path),
        session: None,
        task: None,
        spec: SessionSpec::default(),
        token: None,
    }
}

fn with_mode(path: &str, mode: WriteMode) -> PutTarget {
    PutTarget {
        spec: SessionSpec {
            mode,
            ..SessionSpec::default()
        },
        ..target(path)
    }
}

fn into(path: &str, session: &SessionId) -> PutTarget {
    PutTarget {
        session: Some(session.clone()),
        ..target(path)
    }
}

fn task(task: u64, attempt: u64) -> Task {
    Task {
        job: "j".into(),
        stage: 0,
        task,
        attempt,
    }
}

async fn begin(cache: &Cache, path: &str) -> SessionId {
    cache.begin(&at(path), SessionSpec::default()).await.unwrap()
}

async fn begin_overwrite(cache: &Cache, path: &str) -> SessionId {
    let spec = SessionSpec {
        mode: WriteMode::Overwrite,
        ..SessionSpec::default()
    };
    cache.begin(&at(path), spec).await.unwrap()
}

async fn open(cache: &Cache, target: PutTarget, first: &RecordBatch) -> Result<PartWriter, Error> {
    cache.put(target, schema_message(&first.schema())).await
}

async fn put(cache: &Cache, target: PutTarget, batches: &[RecordBatch]) -> Result<PutDone, Error> {
    let mut writer = open(cache, target, &batches[0]).await?;
    for message in messages(batches) {
        writer.append(message).await?;
    }
    writer.commit().await
}

/// Appends and waits until it is acknowledged.
async fn acked(writer: &mut PartWriter, batch: &RecordBatch) {
    for message in messages(std::slice::from_ref(batch)) {
        let mut stable = writer.stable();
        let before = stable.borrow_and_update().batches;
        writer.append(message).await.unwrap();
        stable
            .wait_for(|stable| stable.batches > before || stable.failed.is_some())
            .await
            .unwrap();
        assert_eq!(stable.borrow().failed, None);
    }
}

/// The paths of everything.
async fn tree(cache: &Cache) -> Vec<String> {
    crate::support::tree(cache, "/")
        .await
        .unwrap()
        .into_iter()
        .map(|stat| stat.path.to_string())
        .collect()
}

async fn read_plan(cache: &Cache, plan: &DatasetPlan, mut skip: u64) -> Vec<RecordBatch> {
    let mut decoder = Decoder::new(&plan.schema_message).unwrap();
    let mut out = Vec::new();
    for part in &plan.parts {
        if skip >= part.batches {
            skip -= part.batches;
            continue;
        }
        let items: Vec<PartItem> = cache.read_part(part, skip).await.unwrap().try_collect().await.unwrap();
        skip = 0;
        out.extend(
            items
                .into_iter()
                .filter_map(|item| decoder.push(item).unwrap())
                .map(|(batch, _)| batch),
        );
    }
    out
}

async fn read(cache: &Cache, path: &str) -> Vec<RecordBatch> {
    let plan = cache.dataset(&at(path), At::Head).await.unwrap();
    read_plan(cache, &plan, 0).await
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    let column = |batch: &RecordBatch| {
        batch
            .column(0)
            .as_any()
            .downcast_ref::<Int64Array>()
            .unwrap()
            .values()
            .to_vec()
    };
    batches.iter().flat_map(column).collect()
}

fn words(batches: &[RecordBatch]) -> Vec<String> {
    let column = |batch: &RecordBatch| {
        let column = batch
            .column(0)
            .as_any()
            .downcast_ref::<DictionaryArray<Int32Type>>()
            .unwrap();
        let typed = column.downcast_dict::<StringArray>().unwrap();
        typed
            .into_iter()
            .map(|word| word.unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    batches.iter().flat_map(column).collect()
}

async fn ids(cache: &Cache, path: &str) -> Vec<i64> {
    numbers(&read(cache, path).await)
}

/// A follower in a task of its own; what it got, and how it ended.
struct Follower {
    task: tokio::task::JoinHandle<(Vec<i64>, Option<Error>)>,
    seen: tokio::sync::watch::Receiver<usize>,
}

impl Follower {
    fn start(cache: &Cache, path: &str, spec: FollowSpec) -> Self {
        let (cache, path) = (cache.clone(), at(path));
        let (tell, seen) = tokio::sync::watch::channel(0);
        let task = tokio::spawn(async move {
            let mut got = Vec::new();
            let stream = match cache.follow(&path, spec).await {
                Ok(stream) => stream,
                Err(error) => return (got, Some(error)),
            };
            let mut decoder = Decoder::new(&stream.schema_message).unwrap();
            let mut items = stream.items;
            while let Some(item) = items.next().await {
                match item {
                    Err(error) => return (got, Some(error)),
                    Ok(item) => {
                        if let Some((batch, _)) = decoder.push(item).unwrap() {
                            got.extend(numbers(&[batch]));
                            tell.send_replace(got.len());
                        }
                    }
                }
            }
            (got, None)
        });
        Self { task, seen }
    }

    async fn wait_for(&mut self, count: usize) {
        let _ = self.seen.wait_for(|seen| *seen >= count).await;
        assert!(*self.seen.borrow() >= count, "the follower ended early");
    }

    async fn end(self) -> (Vec<i64>, Option<ErrorKind>) {
        let (got, error) = self.task.await.unwrap();
        (got, error.map(|error| error.kind()))
    }
}

fn resume(session: &SessionId, read: u64) -> FollowSpec {
    FollowSpec {
        session: None,
        from: Some(Resume::Session(session.clone(), read)),
    }
}

fn once<T>(seed: u64, body: impl AsyncFnOnce(&Cache) -> T) -> T {
    World::new(seed).live(async |world| {
        let cache = world.open().await.unwrap();
        body(&cache).await
    })
}

// ---- reading and versions

/// Found by the simulation: a follower that looked before the first version was there read the parts by their names.
#[test]
fn parts_published_while_a_directory_is_looked_at_come_in_their_order() {
    for seed in 0..40 {
        let mut world = World::new(3000 + seed);
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            cache.mkdir(&at("/kept/d"), true).await.unwrap();
            let write = async {
                for first in [0, 10] {
                    tokio::time::sleep(Duration::from_millis(seed % 10)).await;
                    put(&cache, target("/kept/d"), &[rows(first..first + 3)]).await.unwrap();
                }
            };
            let look = async {
                let mut versions = Vec::new();
                for _ in 0..40 {
                    versions.extend(cache.dataset(&at("/kept/d"), At::Head).await.map(|plan| plan.version));
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                versions
            };
            let ((), versions) = futures::join!(write, look);
            assert!(versions.iter().all(Option::is_some), "seed {seed}: {versions:?}");
        });
    }
}

#[test]
fn batches_and_their_app_metadata_come_back_as_they_were_sent() {
    once(1, async |cache| {
        let batches = [rows(0..10), rows(10..11), rows(0..0), rows(11..5000)];
        let mut writer = open(cache, target("/d/a"), &batches[0]).await.unwrap();
        let notes = [
            Bytes::new(),
            Bytes::from(vec![0; 100_000]),
            Bytes::from_static(b"FBAYNOTE"),
            Bytes::from_static(b"\xff"),
        ];
        for (message, note) in messages(&batches).into_iter().zip(&notes) {
            writer
                .append(IpcMessage {
                    app_metadata: note.clone(),
                    ..message
                })
                .await
                .unwrap();
        }
        assert_eq!(writer.commit().await.unwrap().version, Some(1));
        let plan = cache.dataset(&at("/d/a"), At::Head).await.unwrap();
        assert_eq!(
            (
                plan.version,
                plan.parts.len(),
                plan.parts[0].rows,
                plan.parts[0].batches
            ),
            (Some(1), 1, 5000, 4)
        );
        let items: Vec<PartItem> = cache
            .read_part(&plan.parts[0], 0)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        let mut decoder = Decoder::new(&plan.schema_message).unwrap();
        for ((item, batch), note) in items.into_iter().zip(&batches).zip(&notes) {
            assert_eq!(decoder.push(item).unwrap().unwrap(), (batch.clone(), note.clone()));
        }
        assert_eq!(cache.stat(&at("/d/a")).await.unwrap().version, Some(1));
    });
}

#[test]
fn the_part_is_an_arrow_file_that_stock_readers_open() {
    once(2, async |cache| {
        put(cache, target("/d"), &[texts(&["a", "b"]), texts(&["c"])])
            .await
            .unwrap();
        let [name] = &tree(cache)
            .await
            .into_iter()
            .filter(|name| name.ends_with(".arrow"))
            .collect::<Vec<_>>()[..]
        else {
            panic!("one part")
        };
        let content = get(cache, name).await.unwrap();
        let stock = arrow_ipc::reader::FileReader::try_new(std::io::Cursor::new(content), None).unwrap();
        assert_eq!(
            stock.map(Result::unwrap).collect::<Vec<_>>(),
            [texts(&["a", "b"]), texts(&["c"])]
        );
    });
}

#[test]
fn versions_append_overwrite_travel_and_are_kept_by_number() {
    once(3, async |cache| {
        put(cache, target("/d"), &[rows(0..3)]).await.unwrap();
        put(cache, target("/d"), &[rows(3..5)]).await.unwrap();
        let overwritten = put(cache, with_mode("/d", WriteMode::Overwrite), &[rows(9..10)])
            .await
            .unwrap();
        assert_eq!(overwritten.version, Some(3));
        for (version, expected) in [(1, vec![0, 1, 2]), (2, vec![0, 1, 2, 3, 4]), (3, vec![9])] {
            let plan = cache.dataset(&at("/d"), At::Version(version)).await.unwrap();
            assert_eq!(
                numbers(&read_plan(cache, &plan, 0).await),
                expected,
                "version {version}"
            );
        }
        let listed = cache.versions(&at("/d")).await.unwrap();
        assert_eq!(
            listed.iter().map(|v| (v.version, v.rows, v.parts)).collect::<Vec<_>>(),
            [(1, 3, 1), (2, 5, 2), (3, 1, 1)]
        );
        assert_eq!(
            tree(cache).await.iter().filter(|name| name.contains("part-")).count(),
            1,
            "old parts are out of sight"
        );

        let dirty = cache.status().await.unwrap().dirty_files;
        for n in 0..4 {
            put(cache, with_mode("/d", WriteMode::Overwrite), &[rows(n..n + 1)])
                .await
                .unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let listed = cache.versions(&at("/d")).await.unwrap();
        assert_eq!(listed.iter().map(|v| v.version).collect::<Vec<_>>(), [5, 6, 7]);
        assert_eq!(
            kind(cache.dataset(&at("/d"), At::Version(2)).await),
            ErrorKind::NotFound
        );
        assert_eq!(dirty, 3);
        assert_eq!(
            cache.status().await.unwrap().dirty_files,
            3,
            "what no version needs is free"
        );
    });
}

#[test]
fn the_policy_of_a_path_says_how_many_versions_are_kept() {
    once(3, async |cache| {
        let keep = async |path: &str, count: u32| {
            let change = Change::parse("versions_kept", Some(&count.into())).unwrap();
            cache.policy_set(&at(path), vec![change]).await.unwrap();
        };
        let kept = async |path: &str| {
            let listed = cache.versions(&at(path)).await.unwrap();
            listed.iter().map(|v| v.version).collect::<Vec<_>>()
        };
        keep("/many", 6).await;
        keep("/many/one", 1).await;
        for path in ["/many/d", "/many/one/d", "/three/d"] {
            for n in 0..8 {
                put(cache, with_mode(path, WriteMode::Overwrite), &[rows(n..n + 1)])
                    .await
                    .unwrap();
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(kept("/many/d").await, [3, 4, 5, 6, 7, 8]);
        assert_eq!(kept("/many/one/d").await, [8]);
        assert_eq!(kept("/three/d").await, [6, 7, 8]);
        assert_eq!(cache.status().await.unwrap().dirty_files, 6 + 1 + 3);
        keep("/many", 2).await;
        put(cache, with_mode("/many/d", WriteMode::Overwrite), &[rows(9..10)])
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(
            kept("/many/d").await,
            [8, 9],
            "a lower number holds from the next publish on"
        );
    });
}

#[test]
fn a_deleted_dataset_leaves_nothing_and_its_name_begins_anew() {
    once(4, async |cache| {
        for n in 0..3 {
            put(cache, with_mode("/d/e", WriteMode::Overwrite), &[rows(n..n + 1)])
                .await
                .unwrap();
        }
        cache.delete(&at("/d"), true).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.dirty_bytes), (0, 0));
        assert_eq!(kind(cache.dataset(&at("/d/e"), At::Head).await), ErrorKind::NotFound);
        assert_eq!(
            put(cache, target("/d/e"), &[rows(7..8)]).await.unwrap().version,
            Some(1)
        );
        assert_eq!(ids(cache, "/d/e").await, [7]);
    });
}

#[test]
fn a_token_makes_a_put_and_a_begin_exactly_once() {
    once(5, async |cache| {
        let tokened = || PutTarget {
            token: Some("same".into()),
            ..target("/d")
        };
        let first = put(cache, tokened(), &[rows(0..3)]).await.unwrap();
        let again = open(cache, tokened(), &rows(0..3)).await.unwrap();
        assert!(again.repeated());
        assert_eq!(put(cache, tokened(), &[rows(0..3)]).await.unwrap(), first);
        assert_eq!(ids(cache, "/d").await, [0, 1, 2]);

        // Two tries of one put at once: one counts.
        let tokened = || PutTarget {
            token: Some("race".into()),
            ..target("/d")
        };
        let (a, b) = (
            open(cache, tokened(), &rows(0..1)).await.unwrap(),
            open(cache, tokened(), &rows(0..1)).await.unwrap(),
        );
        let (a, b) = tokio::join!(a.commit(), b.commit());
        assert_eq!((a.unwrap().version, b.unwrap().version), (Some(2), Some(2)));

        let spec = || SessionSpec {
            token: Some("begin".into()),
            ..SessionSpec::default()
        };
        let session = cache.begin(&at("/d"), spec()).await.unwrap();
        assert_eq!(cache.begin(&at("/d"), spec()).await.unwrap(), session);
    });
}

#[test]
fn odd_shapes_no_batches_no_rows_no_columns() {
    once(6, async |cache| {
        let writer = open(cache, target("/empty"), &rows(0..1)).await.unwrap();
        writer.commit().await.unwrap();
        let plan = cache.dataset(&at("/empty"), At::Head).await.unwrap();
        assert_eq!((plan.schema.clone(), plan.parts.len()), (schema(), 1));
        assert!(read_plan(cache, &plan, 0).await.is_empty());
        put(cache, target("/empty"), &[rows(0..0)]).await.unwrap();
        assert_eq!(read(cache, "/empty").await, [rows(0..0)]);

        let options = RecordBatchOptions::new().with_row_count(Some(7));
        let bare = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        put(cache, target("/bare"), &[bare.clone(), bare.clone()])
            .await
            .unwrap();
        assert_eq!(read(cache, "/bare").await, [bare.clone(), bare]);

        let fields: Vec<_> = (0..10_000)
            .map(|k| Field::new(format!("column {k}"), DataType::Int64, true))
            .collect();
        let wide = Arc::new(Schema::new(fields));
        let columns = (0..10_000)
            .map(|k| Arc::new(Int64Array::from(vec![k])) as ArrayRef)
            .collect();
        let wide = RecordBatch::try_new(wide, columns).unwrap();
        put(cache, target("/wide"), std::slice::from_ref(&wide)).await.unwrap();
        assert_eq!(read(cache, "/wide").await, [wide]);
    });
}

#[test]
fn dictionaries_that_grow_or_are_replaced() {
    once(7, async |cache| {
        let batches = [
            coded(&["a", "b"]),
            coded(&["a", "b"]),
            coded(&["a", "b", "c"]),
            coded(&["z"]),
            coded(&["z", "a"]),
        ];
        put(cache, target("/d"), &batches).await.unwrap();
        let plan = cache.dataset(&at("/d"), At::Head).await.unwrap();
        assert_eq!(plan.parts.len(), 4, "a replacement closes the part");
        let expected = ["a", "b", "a", "b", "a", "b", "c", "z", "z", "a"];
        assert_eq!(words(&read(cache, "/d").await), expected);
        for skip in 0..=5 {
            let rest = read_plan(cache, &plan, skip).await;
            assert_eq!(rest.len() as u64, 5 - skip);
        }
    });
}

#[test]
fn compression_of_the_part() {
    once(8, async |cache| {
        let batch = rows(0..50_000);
        for (name, compression) in [("/lz4", Compression::Lz4), ("/zstd", Compression::Zstd)] {
            let spec = SessionSpec {
                compression: Some(compression),
                ..SessionSpec::default()
            };
            put(cache, PutTarget { spec, ..target(name) }, std::slice::from_ref(&batch))
                .await
                .unwrap();
            let plan = cache.dataset(&at(name), At::Head).await.unwrap();
            assert!(plan.parts[0].bytes < 400_000, "{}", plan.parts[0].bytes);
            assert_eq!(read_plan(cache, &plan, 0).await, std::slice::from_ref(&batch));
        }
    });
}

// ---- refusals

#[test]
fn another_schema_is_refused_with_the_first_difference() {
    once(9, async |cache| {
        put(cache, target("/d"), &[rows(0..1)]).await.unwrap();
        let error = put(cache, target("/d"), &[texts(&["x"])]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(error.to_string().contains("\"n\""), "{error}");
        let session = begin(cache, "/e").await;
        put(cache, into("/e", &session), &[rows(0..1)]).await.unwrap();
        assert_eq!(
            kind(put(cache, into("/e", &session), &[texts(&["x"])]).await),
            ErrorKind::Precondition
        );
        put(cache, with_mode("/d", WriteMode::Overwrite), &[texts(&["x"])])
            .await
            .unwrap();
        assert_eq!(read(cache, "/d").await, [texts(&["x"])]);
        let old = cache.dataset(&at("/d"), At::Version(1)).await.unwrap();
        assert_eq!(numbers(&read_plan(cache, &old, 0).await), [0]);
    });
}

/// What is appended was asked for its schema when it began; the dataset may have got another one since.
#[test]
fn another_schema_is_refused_at_the_publish_too() {
    once(49, async |cache| {
        let numbers_first = begin(cache, "/d").await;
        let texts_second = begin(cache, "/d").await;
        put(cache, into("/d", &numbers_first), &[rows(0..2)]).await.unwrap();
        put(cache, into("/d", &texts_second), &[texts(&["x"])]).await.unwrap();
        let mut writer = open(cache, target("/d"), &texts(&["x"])).await.unwrap();
        acked(&mut writer, &texts(&["x"])).await;
        cache.publish(&numbers_first, Publish::default()).await.unwrap();
        let error = cache.publish(&texts_second, Publish::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition);
        assert!(
            error.to_string().contains("another schema than the dataset's"),
            "{error}"
        );
        assert_eq!(kind(writer.commit().await), ErrorKind::Precondition);
        assert_eq!(ids(cache, "/d").await, [0, 1]);
        // Whoever follows the session that can not be published any more is not given its batches as the dataset's.
        let follower = Follower::start(cache, "/d", FollowSpec::default());
        assert_eq!(follower.end().await, (vec![], Some(ErrorKind::Precondition)));

        // Of files that somebody put there meanwhile.
        let session = begin(cache, "/files").await;
        put(cache, into("/files", &session), &[rows(0..2)]).await.unwrap();
        put_file(cache, "/files/a.arrow", &arrow_file(&[texts(&["x"])]))
            .await
            .unwrap();
        assert_eq!(
            kind(cache.publish(&session, Publish::default()).await),
            ErrorKind::Precondition
        );
        assert_eq!(read(cache, "/files").await, [texts(&["x"])]);
        // An overwrite may change it.
        put(cache, with_mode("/d", WriteMode::Overwrite), &[texts(&["y"])])
            .await
            .unwrap();
        assert_eq!(read(cache, "/d").await, [texts(&["y"])]);
    });
}

/// Whoever may read one dataset need not be allowed to read another one.
#[test]
fn a_published_session_is_read_where_it_was_published_and_nowhere_else() {
    once(54, async |cache| {
        put(cache, target("/open"), &[rows(0..1)]).await.unwrap();
        let session = begin(cache, "/secret").await;
        put(cache, into("/secret", &session), &[rows(5..6)]).await.unwrap();
        for published in [false, true] {
            if published {
                cache.publish(&session, Publish::default()).await.unwrap();
            }
            for path in ["/open", "/nothing"] {
                let plan = cache.dataset(&at(path), At::Session(session.clone())).await;
                assert!(plan.is_err(), "{path}, published: {published}");
                let named = FollowSpec {
                    session: Some(session.clone()),
                    ..FollowSpec::default()
                };
                for spec in [named, resume(&session, 0)] {
                    let (got, error) = Follower::start(cache, path, spec).end().await;
                    assert!(
                        got.is_empty() && error.is_some(),
                        "{path}, published: {published}: {got:?}"
                    );
                }
            }
            let plan = cache
                .dataset(&at("/secret"), At::Session(session.clone()))
                .await
                .unwrap();
            assert_eq!(numbers(&read_plan(cache, &plan, 0).await), [5]);
        }
        cache
            .rename(&at("/secret"), &at("/moved"), Rename::default())
            .await
            .unwrap();
        let plan = cache
            .dataset(&at("/moved"), At::Session(session.clone()))
            .await
            .unwrap();
        assert_eq!(numbers(&read_plan(cache, &plan, 0).await), [5]);
    });
}

#[test]
fn a_follower_never_takes_batches_of_another_schema_for_its_own() {
    once(50, async |cache| {
        put(cache, target("/d"), &[rows(0..2)]).await.unwrap();
        let session = begin(cache, "/d").await;
        let mut follower = Follower::start(cache, "/d", FollowSpec::default());
        follower.wait_for(2).await;
        put(cache, with_mode("/d", WriteMode::Overwrite), &[texts(&["x"])])
            .await
            .unwrap();
        put(cache, into("/d", &session), &[texts(&["y"])]).await.unwrap();
        assert_eq!(follower.end().await, (vec![0, 1], Some(ErrorKind::Precondition)));
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(read(cache, "/d").await, [texts(&["x"]), texts(&["y"])]);
    });
}

#[test]
fn wrong_requests_are_refused_by_kind_and_leave_nothing() {
    once(10, async |cache| {
        put_file(cache, "/file", b"x").await.unwrap();
        put(cache, target("/set"), &[rows(0..1)]).await.unwrap();
        let unknown = SessionId("nosuchsession123".into());
        assert_eq!(
            kind(put(cache, target("/file"), &[rows(0..1)]).await),
            ErrorKind::Precondition
        );
        assert_eq!(
            kind(put(cache, with_mode("/set", WriteMode::Create), &[rows(0..1)]).await),
            ErrorKind::Exists
        );
        assert_eq!(
            kind(put(cache, into("/set", &unknown), &[rows(0..1)]).await),
            ErrorKind::NotFound
        );
        assert_eq!(
            kind(cache.publish(&unknown, Publish::default()).await),
            ErrorKind::NotFound
        );
        assert_eq!(kind(cache.abort(&unknown).await), ErrorKind::NotFound);
        assert_eq!(
            kind(cache.begin(&at("/"), SessionSpec::default()).await),
            ErrorKind::Invalid
        );
        assert_eq!(kind(cache.versions(&at("/nix")).await), ErrorKind::NotFound);
        assert_eq!(
            kind(cache.dataset(&at("/set"), At::Version(9)).await),
            ErrorKind::NotFound
        );
        let session = begin(cache, "/other").await;
        assert_eq!(
            kind(put(cache, into("/set", &session), &[rows(0..1)]).await),
            ErrorKind::NotFound,
            "a session is known at its own path only"
        );
        assert_eq!(
            kind(cache.publish(&session, Publish::default()).await),
            ErrorKind::Precondition,
            "no schema"
        );

        let mut writer = open(cache, target("/new"), &rows(0..1)).await.unwrap();
        let [text]: [IpcMessage; 1] = messages(&[texts(&["x"])]).try_into().unwrap();
        assert_eq!(kind(writer.append(text).await), ErrorKind::Invalid);
        assert_eq!(
            kind(writer.append(messages(&[rows(0..1)]).remove(0)).await),
            ErrorKind::Invalid,
            "a broken put stays broken"
        );
        assert_eq!(kind(writer.commit().await), ErrorKind::Invalid);
        assert_eq!(
            tree(cache).await.iter().filter(|name| name.starts_with("/new")).count(),
            0
        );
    });
}

#[test]
fn a_writer_that_vanishes_leaves_nothing_and_its_space_is_free() {
    once(11, async |cache| {
        let mut writer = open(cache, target("/gone"), &rows(0..1)).await.unwrap();
        acked(&mut writer, &rows(0..50_000)).await;
        drop(writer);
        let session = begin(cache, "/kept").await;
        let mut writer = open(cache, into("/kept", &session), &rows(0..1)).await.unwrap();
        acked(&mut writer, &rows(0..1000)).await;
        drop(writer);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(kind(cache.dataset(&at("/gone"), At::Head).await), ErrorKind::NotFound);
        put(cache, into("/kept", &session), &[rows(1..2)]).await.unwrap();
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(ids(cache, "/kept").await, [1]);
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.sessions), (1, 0));
    });
}

// ---- sessions

#[test]
fn nothing_of_a_session_is_seen_before_its_publish_and_all_after() {
    once(12, async |cache| {
        let session = begin(cache, "/d").await;
        put(cache, into("/d", &session), &[rows(0..3)]).await.unwrap();
        put(cache, into("/d", &session), &[rows(3..6)]).await.unwrap();
        assert!(tree(cache).await.iter().all(|name| !name.starts_with("/d")));
        assert_eq!(kind(cache.dataset(&at("/d"), At::Head).await), ErrorKind::NotFound);
        let how = || Publish {
            success_file: true,
            ..Publish::default()
        };
        assert_eq!(cache.publish(&session, how()).await.unwrap(), 1);
        assert_eq!(
            cache.publish(&session, how()).await.unwrap(),
            1,
            "twice is the same version"
        );
        assert_eq!(kind(cache.abort(&session).await), ErrorKind::Precondition);
        assert_eq!(
            kind(put(cache, into("/d", &session), &[rows(0..1)]).await),
            ErrorKind::Precondition
        );
        assert_eq!(ids(cache, "/d").await, [0, 1, 2, 3, 4, 5]);
        let names: Vec<_> = tree(cache)
            .await
            .into_iter()
            .filter(|name| name.starts_with("/d/"))
            .collect();
        let part = |k: usize| format!("/d/part-{k:05}-{}.arrow", session.0);
        assert_eq!(names, ["/d/_SUCCESS".to_owned(), part(0), part(1)]);
    });
}

#[test]
fn an_abort_leaves_nothing() {
    once(13, async |cache| {
        let session = begin(cache, "/d").await;
        put(cache, into("/d", &session), &[rows(0..30_000)]).await.unwrap();
        cache.abort(&session).await.unwrap();
        cache.abort(&session).await.unwrap();
        assert_eq!(
            kind(cache.publish(&session, Publish::default()).await),
            ErrorKind::Precondition
        );
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.dirty_bytes, status.sessions), (0, 0, 0));
        assert_eq!(
            kind(cache.dataset(&at("/d"), At::Session(session)).await),
            ErrorKind::Aborted
        );
    });
}

#[test]
fn an_idle_session_is_aborted_after_its_timeout_but_not_while_someone_writes() {
    once(14, async |cache| {
        let spec = || SessionSpec {
            timeout: Some(Duration::from_secs(30)),
            ..SessionSpec::default()
        };
        let idle = cache.begin(&at("/idle"), spec()).await.unwrap();
        let busy = cache.begin(&at("/busy"), spec()).await.unwrap();
        put(cache, into("/idle", &idle), &[rows(0..1)]).await.unwrap();
        let writer = open(cache, into("/busy", &busy), &rows(0..1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(
            kind(cache.publish(&idle, Publish::default()).await),
            ErrorKind::Precondition
        );
        writer.commit().await.unwrap();
        assert_eq!(cache.publish(&busy, Publish::default()).await.unwrap(), 1);
        assert_eq!(cache.status().await.unwrap().sessions, 0);
    });
}

#[test]
fn an_idle_session_of_a_short_timeout_is_aborted_in_time() {
    once(20, async |cache| {
        let spec = || SessionSpec {
            timeout: Some(Duration::from_secs(2)),
            ..SessionSpec::default()
        };
        // In the middle of the time between two looks at all of them.
        tokio::time::sleep(Duration::from_secs(13)).await;
        let idle = cache.begin(&at("/idle"), spec()).await.unwrap();
        let left = cache.begin(&at("/left"), spec()).await.unwrap();
        let writer = open(cache, into("/left", &left), &rows(0..1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1900)).await;
        writer.commit().await.unwrap();
        put(cache, into("/idle", &idle), &[rows(0..1)]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1900)).await;
        assert_eq!(cache.status().await.unwrap().sessions, 2);
        tokio::time::sleep(Duration::from_millis(200)).await;
        for session in [&idle, &left] {
            let published = cache.publish(session, Publish::default()).await;
            assert_eq!(kind(published), ErrorKind::Precondition);
        }
    });
}

#[test]
fn of_two_attempts_of_a_task_the_first_to_end_counts_and_parts_are_ordered_by_task() {
    once(15, async |cache| {
        let session = begin(cache, "/d").await;
        let attempt = |of: u64, attempt: u64| PutTarget {
            task: Some(task(of, attempt)),
            ..into("/d", &session)
        };
        let slow = open(cache, attempt(5, 0), &rows(0..1)).await.unwrap();
        put(cache, attempt(5, 1), &[rows(10..12)]).await.unwrap();
        assert_eq!(kind(slow.commit().await), ErrorKind::Aborted);
        assert_eq!(
            kind(put(cache, attempt(5, 2), &[rows(20..22)]).await),
            ErrorKind::Aborted
        );
        put(cache, attempt(2, 0), &[rows(50..52)]).await.unwrap();
        assert_eq!(
            kind(put(cache, into("/d", &session), &[rows(0..1)]).await),
            ErrorKind::Precondition,
            "one kind of puts"
        );
        let never_ended = Publish {
            tasks: Some(vec![task(5, 0)]),
            ..Publish::default()
        };
        assert_eq!(
            kind(cache.publish(&session, never_ended).await),
            ErrorKind::Precondition
        );
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(ids(cache, "/d").await, [50, 51, 10, 11]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(cache.status().await.unwrap().dirty_files, 2);
    });
}

#[test]
fn publish_names_the_attempts_that_count() {
    once(16, async |cache| {
        let session = begin(cache, "/d").await;
        for of in 0..3 {
            let target = PutTarget {
                task: Some(task(of, 0)),
                ..into("/d", &session)
            };
            put(cache, target, &[rows([i64::try_from(of).unwrap()])]).await.unwrap();
        }
        let mut follower = Follower::start(cache, "/d", FollowSpec::default());
        follower.wait_for(3).await;
        let how = Publish {
            tasks: Some(vec![task(2, 0), task(0, 0)]),
            ..Publish::default()
        };
        cache.publish(&session, how).await.unwrap();
        assert_eq!(ids(cache, "/d").await, [0, 2]);
        assert_eq!(cache.status().await.unwrap().dirty_files, 2);
        assert_eq!(
            follower.end().await.1,
            Some(ErrorKind::Aborted),
            "it was given a batch that did not count"
        );
    });
}

#[test]
fn a_publish_waits_for_no_one_but_refuses_while_a_put_is_under_way() {
    once(17, async |cache| {
        let session = begin(cache, "/d").await;
        let mut writer = open(cache, into("/d", &session), &rows(0..1)).await.unwrap();
        acked(&mut writer, &rows(0..1)).await;
        assert_eq!(
            kind(cache.publish(&session, Publish::default()).await),
            ErrorKind::Precondition
        );
        acked(&mut writer, &rows(1..2)).await;
        writer.commit().await.unwrap();
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(ids(cache, "/d").await, [0, 1]);
    });
}

#[test]
fn many_parts_are_published_at_once_and_overwritten() {
    once(18, async |cache| {
        let session = begin(cache, "/d").await;
        for n in 0..400 {
            put(cache, into("/d", &session), &[rows(n..n + 1)]).await.unwrap();
        }
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(ids(cache, "/d").await, (0..400).collect::<Vec<_>>());
        put(cache, with_mode("/d", WriteMode::Overwrite), &[rows(7..8)])
            .await
            .unwrap();
        assert_eq!(ids(cache, "/d").await, [7]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(
            tree(cache).await.iter().filter(|name| name.contains("part-")).count(),
            1
        );
        let old = cache.dataset(&at("/d"), At::Version(1)).await.unwrap();
        assert_eq!(numbers(&read_plan(cache, &old, 0).await), (0..400).collect::<Vec<_>>());
    });
}

#[test]
fn as_many_parts_as_a_session_takes_are_published_under_a_mount_and_one_more_is_refused() {
    once(19, async |cache| {
        let session = begin(cache, "/kept/d").await;
        let mut last = Ok(());
        let mut count = 0;
        while last.is_ok() {
            // Small appends, so that a part would lie in many pieces.
            let batches: Vec<_> = (0..60).map(|k| rows([count * 60 + k])).collect();
            last = put(cache, into("/kept/d", &session), &batches).await.map(drop);
            count += i64::from(last.is_ok());
        }
        assert_eq!(last.unwrap_err().kind(), ErrorKind::Precondition);
        assert_eq!(count, 480);
        cache
            .publish(
                &session,
                Publish {
                    success_file: true,
                    ..Publish::default()
                },
            )
            .await
            .unwrap();
        assert_eq!(ids(cache, "/kept/d").await, (0..count * 60).collect::<Vec<_>>());
    });
}

#[test]
fn an_old_version_keeps_what_the_under_store_loses() {
    let mut world = World::new(23);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, target("/kept/d"), &[rows(0..20_000)]).await.unwrap();
        cache
            .wait_persisted(&at("/kept/d"), Duration::from_secs(600))
            .await
            .unwrap();
        cache.free(&at("/kept/d")).await.unwrap();
        assert_eq!(cache.status().await.unwrap().dirty_bytes, 0);
        assert_eq!(
            ids(&cache, "/kept/d").await,
            (0..20_000).collect::<Vec<_>>(),
            "read through once its copy and row went"
        );
        put(&cache, with_mode("/kept/d", WriteMode::Overwrite), &[rows(7..8)])
            .await
            .unwrap();
        cache
            .wait_persisted(&at("/kept"), Duration::from_secs(600))
            .await
            .unwrap();
        assert!(
            world
                .store
                .contents()
                .keys()
                .filter(|key| key.contains("part-"))
                .count()
                == 1,
            "{:?}",
            world.store.contents().keys()
        );
        let old = cache.dataset(&at("/kept/d"), At::Version(1)).await.unwrap();
        assert_eq!(
            numbers(&read_plan(&cache, &old, 0).await),
            (0..20_000).collect::<Vec<_>>()
        );
        assert!(
            cache.status().await.unwrap().dirty_bytes > 100_000,
            "only the old version has it"
        );
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        let old = cache.dataset(&at("/kept/d"), At::Version(1)).await.unwrap();
        assert_eq!(
            numbers(&read_plan(&cache, &old, 0).await),
            (0..20_000).collect::<Vec<_>>()
        );
        for n in 0..3 {
            put(&cache, with_mode("/kept/d", WriteMode::Overwrite), &[rows(n..n + 1)])
                .await
                .unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        cache
            .wait_persisted(&at("/kept"), Duration::from_secs(600))
            .await
            .unwrap();
        // Two small parts of old versions; the head's is in the under-store.
        let status = cache.status().await.unwrap();
        assert!(status.dirty_bytes < 10_000 && status.dirty_files == 2, "{status:?}");
    });
}

// ---- crashes

#[test]
fn a_session_and_its_acknowledged_batches_survive_a_power_cut() {
    let mut world = World::new(20);
    let session = world.live(async |world| {
        let cache = world.open().await.unwrap();
        let session = begin(&cache, "/d").await;
        put(&cache, into("/d", &session), &[rows(0..3)]).await.unwrap();
        let mut cut_off = open(&cache, into("/d", &session), &rows(0..1)).await.unwrap();
        acked(&mut cut_off, &rows(3..4)).await;
        acked(&mut cut_off, &rows(4..5)).await;
        let mut of_task = open(&cache, target("/own"), &rows(0..1)).await.unwrap();
        acked(&mut of_task, &rows(0..1)).await;
        std::mem::forget((cut_off, of_task));
        session
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(kind(cache.dataset(&at("/own"), At::Head).await), ErrorKind::NotFound);
        let mut follower = Follower::start(&cache, "/d", FollowSpec::default());
        follower.wait_for(5).await;
        put(&cache, into("/d", &session), &[rows(5..6)]).await.unwrap();
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(ids(&cache, "/d").await, [0, 1, 2, 3, 4, 5]);
        assert_eq!(follower.end().await, (vec![0, 1, 2, 3, 4, 5], None));
        assert_eq!(cache.status().await.unwrap().dirty_files, 3);
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(ids(&cache, "/d").await, [0, 1, 2, 3, 4, 5]);
        assert_eq!(cache.publish(&session, Publish::default()).await.unwrap(), 1);
        // A token counts batches: [0, 1, 2], [3], [4], [5].
        assert_eq!(
            Follower::start(&cache, "/d", resume(&session, 3)).end().await,
            (vec![5], None)
        );
    });
}

/// Found by the simulation: the schema of a put that failed to begin counted as written, and was missing from what was published.
#[test]
fn a_put_that_fails_to_begin_takes_no_schema_away_from_those_that_follow() {
    for (nth, cut) in (0..3).flat_map(|nth| [(nth, false), (nth, true)]) {
        let mut world = World::new(25);
        let session = world.live(async |world| {
            let cache = world.open().await.unwrap();
            let session = begin(&cache, "/d").await;
            let mut left = nth;
            world.meta.set_hook(move |call| match call {
                Call::Commit(_) => {
                    left -= 1;
                    if left == -1 { Fault::Unavailable } else { Fault::None }
                }
                Call::Other(_) => Fault::None,
            });
            let failed = put(&cache, into("/d", &session), &[rows(0..1)]).await;
            world.meta.clear_hook();
            assert_eq!(failed.is_err(), nth < 2, "commit {nth}: {failed:?}");
            let mut writer = open(&cache, into("/d", &session), &rows(0..1)).await.unwrap();
            acked(&mut writer, &rows(1..2)).await;
            if cut {
                std::mem::forget(writer);
            } else {
                writer.commit().await.unwrap();
                cache.publish(&session, Publish::default()).await.unwrap();
            }
            session
        });
        world.cut_power();
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            if cut {
                cache.publish(&session, Publish::default()).await.unwrap();
            }
            let first = i64::from(nth < 2);
            assert_eq!(
                ids(&cache, "/d").await,
                Vec::from_iter(first..2),
                "commit {nth}, cut {cut}"
            );
        });
    }
}

#[test]
fn what_a_cut_off_put_left_gives_way_to_the_same_put_again_and_tasks_leave_nothing() {
    let mut world = World::new(21);
    let session = world.live(async |world| {
        let cache = world.open().await.unwrap();
        let session = begin(&cache, "/d").await;
        let tokened = PutTarget {
            token: Some("t".into()),
            ..into("/d", &session)
        };
        let mut cut_off = open(&cache, tokened, &rows(0..1)).await.unwrap();
        acked(&mut cut_off, &rows(0..2)).await;
        let other = begin(&cache, "/t").await;
        let mut of_task = open(
            &cache,
            PutTarget {
                task: Some(task(1, 0)),
                ..into("/t", &other)
            },
            &rows(0..1),
        )
        .await
        .unwrap();
        acked(&mut of_task, &rows(0..2)).await;
        std::mem::forget((cut_off, of_task));
        (session, other)
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(cache.status().await.unwrap().dirty_files, 1);
        let (session, other) = session;
        let tokened = || PutTarget {
            token: Some("t".into()),
            ..into("/d", &session)
        };
        put(&cache, tokened(), &[rows(0..2), rows(2..3)]).await.unwrap();
        put(&cache, tokened(), &[rows(0..2), rows(2..3)]).await.unwrap();
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(ids(&cache, "/d").await, [0, 1, 2]);
        put(
            &cache,
            PutTarget {
                task: Some(task(1, 1)),
                ..into("/t", &other)
            },
            &[rows(7..8)],
        )
        .await
        .unwrap();
        cache.publish(&other, Publish::default()).await.unwrap();
        assert_eq!(ids(&cache, "/t").await, [7]);
    });
}

#[test]
fn old_versions_survive_a_restart_and_are_swept_after_it() {
    let mut world = World::new(22);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for n in 0..3 {
            put(&cache, with_mode("/d", WriteMode::Overwrite), &[rows(n..n + 1)])
                .await
                .unwrap();
        }
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for version in 1..=3u64 {
            let plan = cache.dataset(&at("/d"), At::Version(version)).await.unwrap();
            assert_eq!(
                numbers(&read_plan(&cache, &plan, 0).await),
                [i64::try_from(version).unwrap() - 1]
            );
        }
        assert_eq!(cache.status().await.unwrap().dirty_files, 3);
        put(&cache, with_mode("/d", WriteMode::Overwrite), &[rows(7..8)])
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(cache.status().await.unwrap().dirty_files, 3);
    });
}

// ---- followers

#[test]
fn a_follower_sees_each_batch_once_it_is_acknowledged_and_then_the_end() {
    once(30, async |cache| {
        let session = begin(cache, "/d").await;
        let mut early = Follower::start(cache, "/d", FollowSpec::default());
        let mut writer = open(cache, into("/d", &session), &rows(0..1)).await.unwrap();
        for n in 0..5 {
            acked(&mut writer, &rows([n])).await;
            early.wait_for(usize::try_from(n).unwrap() + 1).await;
        }
        let mut late = Follower::start(cache, "/d", FollowSpec::default());
        late.wait_for(5).await;
        writer.commit().await.unwrap();
        put(cache, into("/d", &session), &[rows(5..6)]).await.unwrap();
        early.wait_for(6).await;
        assert_eq!(kind(cache.dataset(&at("/d"), At::Head).await), ErrorKind::NotFound);
        cache.publish(&session, Publish::default()).await.unwrap();
        for follower in [early, late] {
            assert_eq!(follower.end().await, ((0..6).collect(), None));
        }
        assert_eq!(
            Follower::start(cache, "/d", FollowSpec::default()).end().await,
            ((0..6).collect(), None),
            "nothing is live"
        );
    });
}

#[test]
fn a_put_without_a_session_is_followed_as_it_grows() {
    once(31, async |cache| {
        let waiting = {
            let cache = cache.clone();
            tokio::spawn(async move { cache.wait_dataset(&at("/d"), At::Follow, Duration::from_secs(10)).await })
        };
        let mut writer = open(cache, target("/d"), &rows(0..1)).await.unwrap();
        assert!(waiting.await.unwrap().unwrap().live);
        let mut follower = Follower::start(cache, "/d", FollowSpec::default());
        for n in 0..3 {
            acked(&mut writer, &rows([n])).await;
            follower.wait_for(usize::try_from(n).unwrap() + 1).await;
        }
        writer.commit().await.unwrap();
        assert_eq!(follower.end().await, (vec![0, 1, 2], None));
    });
}

#[test]
fn the_head_comes_first_unless_the_session_overwrites_or_is_named() {
    once(32, async |cache| {
        put(cache, target("/d"), &[rows(0..2)]).await.unwrap();
        let session = begin(cache, "/d").await;
        put(cache, into("/d", &session), &[rows(2..3)]).await.unwrap();
        let mut whole = Follower::start(cache, "/d", FollowSpec::default());
        let mut own = Follower::start(
            cache,
            "/d",
            FollowSpec {
                session: Some(session.clone()),
                from: None,
            },
        );
        whole.wait_for(3).await;
        own.wait_for(1).await;
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(whole.end().await, (vec![0, 1, 2], None));
        assert_eq!(own.end().await, (vec![2], None));

        let session = begin_overwrite(cache, "/d").await;
        let mut follower = Follower::start(cache, "/d", FollowSpec::default());
        put(cache, into("/d", &session), &[rows(9..10)]).await.unwrap();
        follower.wait_for(1).await;
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(follower.end().await, (vec![9], None));
    });
}

#[test]
fn an_abort_and_a_part_taken_back_end_a_follower_with_an_error() {
    once(33, async |cache| {
        let session = begin(cache, "/d").await;
        put(cache, into("/d", &session), &[rows(0..1)]).await.unwrap();
        let mut follower = Follower::start(cache, "/d", FollowSpec::default());
        follower.wait_for(1).await;
        let mut writer = open(cache, into("/d", &session), &rows(0..1)).await.unwrap();
        acked(&mut writer, &rows(1..2)).await;
        follower.wait_for(2).await;
        drop(writer);
        assert_eq!(follower.end().await, (vec![0, 1], Some(ErrorKind::Aborted)));
        let mut follower = Follower::start(cache, "/d", FollowSpec::default());
        follower.wait_for(1).await;
        cache.abort(&session).await.unwrap();
        assert_eq!(follower.end().await, (vec![0], Some(ErrorKind::Aborted)));
    });
}

#[test]
fn two_puts_at_once_are_delivered_one_after_the_other_as_begun() {
    once(34, async |cache| {
        let session = begin(cache, "/d").await;
        let mut first = open(cache, into("/d", &session), &rows(0..1)).await.unwrap();
        let mut second = open(cache, into("/d", &session), &rows(0..1)).await.unwrap();
        acked(&mut second, &rows(10..11)).await;
        acked(&mut first, &rows(0..1)).await;
        let mut follower = Follower::start(cache, "/d", FollowSpec::default());
        follower.wait_for(1).await;
        second.commit().await.unwrap();
        acked(&mut first, &rows(1..2)).await;
        first.commit().await.unwrap();
        follower.wait_for(3).await;
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(follower.end().await, (vec![0, 1, 10], None));
        assert_eq!(ids(cache, "/d").await, [0, 1, 10]);
    });
}

#[test]
fn tasks_are_followed_in_the_order_in_which_they_ended_and_tokens_stay_good() {
    once(35, async |cache| {
        let session = begin(cache, "/d").await;
        let mut follower = Follower::start(cache, "/d", FollowSpec::default());
        for of in [5, 1, 3] {
            let target = PutTarget {
                task: Some(task(of, 0)),
                ..into("/d", &session)
            };
            put(cache, target, &[rows([i64::try_from(of).unwrap()])]).await.unwrap();
        }
        follower.wait_for(3).await;
        let polled = cache.dataset(&at("/d"), At::Follow).await.unwrap();
        assert_eq!(numbers(&read_plan(cache, &polled, 0).await), [5, 1, 3]);
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(follower.end().await, (vec![5, 1, 3], None));
        assert_eq!(ids(cache, "/d").await, [1, 3, 5]);
        assert_eq!(
            Follower::start(cache, "/d", resume(&session, 1)).end().await,
            (vec![1, 3], None)
        );
        let published = cache.dataset(&at("/d"), At::Follow).await.unwrap();
        assert_eq!(
            numbers(&read_plan(cache, &published, 0).await),
            [5, 1, 3],
            "a publish reorders nothing for a poller"
        );
        assert_eq!(
            numbers(&read_plan(cache, &polled, 0).await),
            [5, 1, 3],
            "old endpoints stay readable"
        );
    });
}

#[test]
fn resume_tokens_stay_good_after_the_publish_and_a_restart() {
    let mut world = World::new(36);
    let session = world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, target("/d"), &[rows(100..101)]).await.unwrap();
        let session = begin(&cache, "/d").await;
        for n in 0..4 {
            put(&cache, into("/d", &session), &[rows([n])]).await.unwrap();
        }
        for read in [0, 1, 4] {
            let mut follower = Follower::start(&cache, "/d", resume(&session, read));
            follower.wait_for(4 - usize::try_from(read).unwrap()).await;
            follower.task.abort();
        }
        cache.publish(&session, Publish::default()).await.unwrap();
        session
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(&cache, target("/d"), &[rows(50..51)]).await.unwrap();
        for read in [0u64, 1, 4] {
            let expected: Vec<i64> = (i64::try_from(read).unwrap()..4).chain([50]).collect();
            assert_eq!(
                Follower::start(&cache, "/d", resume(&session, read)).end().await,
                (expected, None)
            );
        }
        let from = |version, read| FollowSpec {
            session: None,
            from: Some(Resume::Version(version, read)),
        };
        assert_eq!(
            Follower::start(&cache, "/d", from(1, 1)).end().await,
            (vec![0, 1, 2, 3, 50], None)
        );
        assert_eq!(Follower::start(&cache, "/d", from(3, 6)).end().await, (vec![], None));
        assert_eq!(
            Follower::start(&cache, "/d", from(9, 0)).end().await.1,
            Some(ErrorKind::NotFound)
        );
        put(&cache, with_mode("/d", WriteMode::Overwrite), &[rows(7..8)])
            .await
            .unwrap();
        assert_eq!(
            Follower::start(&cache, "/d", from(1, 1)).end().await.1,
            Some(ErrorKind::Precondition)
        );
        assert_eq!(
            Follower::start(&cache, "/d", resume(&session, 1)).end().await.1,
            Some(ErrorKind::Precondition)
        );
    });
}

#[test]
fn a_follower_goes_over_replaced_dictionaries() {
    once(37, async |cache| {
        let session = begin(cache, "/d").await;
        let path = at("/d");
        let stream = cache.follow(&path, FollowSpec::default());
        let batches = [coded(&["a", "b"]), coded(&["c"]), coded(&["d", "a"])];
        let (stream, _) = tokio::join!(stream, async {
            put(cache, into("/d", &session), &batches).await.unwrap();
            cache.publish(&session, Publish::default()).await.unwrap();
        });
        let stream = stream.unwrap();
        let mut decoder = Decoder::new(&stream.schema_message).unwrap();
        let items: Vec<PartItem> = stream.items.try_collect().await.unwrap();
        let got: Vec<_> = items
            .into_iter()
            .filter_map(|item| decoder.push(item).unwrap())
            .map(|(batch, _)| batch)
            .collect();
        assert_eq!(words(&got), ["a", "b", "c", "d", "a"]);
    });
}

// ---- Parquet and files of others

#[test]
fn parquet_parts_hold_the_rows_and_where_batches_began() {
    let mut world = World::new(40);
    let spec = || SessionSpec {
        format: Format::Parquet,
        ..SessionSpec::default()
    };
    let session = world.live(async |world| {
        let cache = world.open().await.unwrap();
        put(
            &cache,
            PutTarget {
                spec: spec(),
                ..target("/p")
            },
            &[rows(0..10), rows(10..20), rows(0..0), rows(20..21)],
        )
        .await
        .unwrap();
        let [name] = &tree(&cache)
            .await
            .into_iter()
            .filter(|name| name.ends_with(".parquet"))
            .collect::<Vec<_>>()[..]
        else {
            panic!("one part")
        };
        let content = Bytes::from(get(&cache, name).await.unwrap());
        let stock = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(content)
            .unwrap()
            .build()
            .unwrap();
        assert_eq!(
            numbers(&stock.map(Result::unwrap).collect::<Vec<_>>()),
            (0..21).collect::<Vec<_>>()
        );
        assert_eq!(
            read(&cache, "/p").await,
            [rows(0..10), rows(10..20), rows(0..0), rows(20..21)]
        );
        let plan = cache.dataset(&at("/p"), At::Head).await.unwrap();
        assert_eq!(
            numbers(&read_plan(&cache, &plan, 1).await),
            (10..21).collect::<Vec<_>>()
        );

        let session = cache.begin(&at("/s"), spec()).await.unwrap();
        let mut follower = Follower::start(&cache, "/s", FollowSpec::default());
        let mut writer = open(&cache, into("/s", &session), &rows(0..1)).await.unwrap();
        acked(&mut writer, &rows(0..3)).await;
        follower.wait_for(3).await;
        acked(&mut writer, &rows(3..5)).await;
        writer.commit().await.unwrap();
        follower.wait_for(5).await;
        let mut late = Follower::start(&cache, "/s", resume(&session, 1));
        late.wait_for(2).await;
        let mut cut_off = open(&cache, into("/s", &session), &rows(0..1)).await.unwrap();
        acked(&mut cut_off, &rows(5..6)).await;
        std::mem::forget(cut_off);
        session
    });
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(ids(&cache, "/s").await, (0..6).collect::<Vec<_>>());
        assert_eq!(
            tree(&cache)
                .await
                .iter()
                .filter(|name| name.starts_with("/s/") && name.ends_with(".parquet"))
                .count(),
            2
        );
        assert_eq!(cache.status().await.unwrap().dirty_files, 3);
    });
}

fn parquet_file(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn arrow_file(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

#[test]
fn files_that_anyone_wrote_are_a_dataset_and_the_first_publish_goes_on_from_them() {
    once(41, async |cache| {
        put_file(cache, "/d/x.parquet", &parquet_file(&rows(0..5)))
            .await
            .unwrap();
        put_file(cache, "/d/y.arrow", &arrow_file(&[rows(5..7), rows(7..8)]))
            .await
            .unwrap();
        put_file(cache, "/d/_SUCCESS", b"").await.unwrap();
        put_file(cache, "/d/.hidden.arrow", b"noise").await.unwrap();
        assert!(cache.is_dataset(&at("/d")).await.unwrap());
        assert_eq!(ids(cache, "/d").await, (0..8).collect::<Vec<_>>());
        assert_eq!(ids(cache, "/d/x.parquet").await, (0..5).collect::<Vec<_>>());
        let plan = cache.dataset(&at("/d"), At::Head).await.unwrap();
        assert_eq!(
            (
                plan.version,
                plan.parts
                    .iter()
                    .map(|part| (part.rows, part.batches))
                    .collect::<Vec<_>>()
            ),
            (None, vec![(5, 1), (3, 2)])
        );
        assert_eq!(
            kind(put(cache, target("/d"), &[texts(&["x"])]).await),
            ErrorKind::Precondition
        );
        assert_eq!(put(cache, target("/d"), &[rows(8..9)]).await.unwrap().version, Some(1));
        assert_eq!(ids(cache, "/d").await, (0..9).collect::<Vec<_>>());
        put(cache, with_mode("/d", WriteMode::Overwrite), &[rows(1..2)])
            .await
            .unwrap();
        assert_eq!(ids(cache, "/d").await, [1]);
        assert!(tree(cache).await.iter().all(|name| !name.ends_with("x.parquet")));

        put_file(cache, "/mixed/a.arrow", &arrow_file(&[rows(0..1)]))
            .await
            .unwrap();
        put_file(cache, "/mixed/b.arrow", &arrow_file(&[texts(&["x"])]))
            .await
            .unwrap();
        let error = cache.dataset(&at("/mixed"), At::Head).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Precondition && error.to_string().contains("/mixed/b.arrow"),
            "{error}"
        );
        assert!(!cache.is_dataset(&at("/nothing")).await.unwrap());
        put_file(cache, "/notes/readme.txt", b"text").await.unwrap();
        assert!(
            !cache.is_dataset(&at("/notes")).await.unwrap()
                && !cache.is_dataset(&at("/notes/readme.txt")).await.unwrap()
        );
    });
}

/// A folder that others had written counts whole when something was published into it.
#[test]
fn a_directory_of_folders_shows_what_was_there_before_a_publish_into_one() {
    once(51, async |cache| {
        for (day, numbers) in [(1, 0..2), (2, 2..3)] {
            put_file(cache, &format!("/h/day={day}/a.arrow"), &arrow_file(&[rows(numbers)]))
                .await
                .unwrap();
        }
        put(cache, target("/h/day=1"), &[rows(7..8)]).await.unwrap();
        assert_eq!(ids(cache, "/h/day=1").await, [0, 1, 7]);
        assert_eq!(ids(cache, "/h").await, [0, 1, 7, 2]);
    });
}

#[test]
fn what_is_appended_while_the_store_is_away_is_read_and_followed_and_arrives() {
    let mut world = World::new(53);
    world.live(async |world| {
        world.store.write_outside("theirs/a.arrow", arrow_file(&[rows(0..2)]));
        world.store.write_outside("odd/a.arrow", arrow_file(&[texts(&["x"])]));
        world.store.set_away(Some(StoreError::Unavailable("away".into())));
        let cache = world.open().await.unwrap();
        for path in ["/kept/new", "/kept/deep/below/new", "/kept/theirs", "/kept/odd"] {
            put(&cache, target(path), &[rows(5..7)]).await.unwrap();
            assert_eq!(ids(&cache, path).await, [5, 6], "{path}");
        }
        let session = begin(&cache, "/kept/live").await;
        is_followed(&cache, "/kept/live", session).await;
        // What has to know what is there waits for the store.
        let refused = put(&cache, with_mode("/kept/other", WriteMode::Create), &[rows(0..1)]).await;
        assert_eq!(kind(refused), ErrorKind::Unavailable);

        world.store.set_away(None);
        cache
            .wait_persisted(&at("/kept"), Duration::from_secs(3600))
            .await
            .unwrap();
        assert_eq!(ids(&cache, "/kept/new").await, [5, 6]);
        assert_eq!(ids(&cache, "/kept/theirs").await, [0, 1, 5, 6], "files of others count");
        let error = cache.dataset(&at("/kept/odd"), At::Head).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Precondition, "{error}");
        put(&cache, target("/kept/theirs"), &[rows(7..8)]).await.unwrap();
        assert_eq!(ids(&cache, "/kept/theirs").await, [0, 1, 5, 6, 7]);
    });
}

// ---- overwritten while the store is away

fn away(world: &World) {
    world.store.set_away(Some(StoreError::Unavailable("away".into())));
}

/// Who follows sees what is put into the session, and its end at the publish.
async fn is_followed(cache: &Cache, path: &str, session: SessionId) {
    let mut follower = Follower::start(cache, path, FollowSpec::default());
    put(cache, into(path, &session), &[rows(1..2)]).await.unwrap();
    follower.wait_for(1).await;
    cache.publish(&session, Publish::default()).await.unwrap();
    assert_eq!(follower.end().await, (vec![1], None));
}

async fn overwrite(cache: &Cache, path: &str, batch: RecordBatch) {
    put(cache, with_mode(path, WriteMode::Overwrite), &[batch])
        .await
        .unwrap();
}

async fn pause(world: &World, millis: u64) {
    use forebay_runtime::clock::Clock;
    world.clock.sleep(Duration::from_millis(millis)).await;
}

async fn persisted(cache: &Cache) {
    cache
        .wait_persisted(&at("/kept"), Duration::from_secs(3600))
        .await
        .unwrap();
}

/// What others wrote into a directory: files that an overwrite takes away, and what it leaves.
const GOES: [&str; 4] = ["a.arrow", "b.parquet", "part-00000-abcdefghij012345.arrow", "_SUCCESS"];
const STAYS: [&str; 4] = [".hidden.arrow", "_notes.arrow", "k=v/deep.arrow", "notes.txt"];

fn write_theirs(world: &World, dir: &str) {
    for name in GOES.iter().chain(&STAYS) {
        let bytes = match name.ends_with(".parquet") {
            true => parquet_file(&rows(0..2)),
            false => arrow_file(&[rows(0..2)]),
        };
        world.store.write_outside(&format!("{dir}/{name}"), bytes);
    }
}

/// What the store has below a directory, without the parts of ours.
fn stored_of_others(world: &World, dir: &str) -> Vec<String> {
    let names = world.store.contents().into_keys();
    let names = names.filter_map(|key| Some(key.strip_prefix(&format!("{dir}/"))?.to_owned()));
    names
        .filter(|name| !name.starts_with("part-") || GOES.contains(&&name[..]))
        .collect()
}

/// The parts of ours that the store has directly in a directory.
fn stored_parts(world: &World, dir: &str) -> usize {
    let of_dir = format!("{dir}/part-");
    let names = world.store.contents().into_keys();
    names
        .filter(|key| key.starts_with(&of_dir) && !key.ends_with(GOES[2]))
        .count()
}

/// What of it shows in a directory of what others had there, as far as the store answers.
async fn shows(cache: &Cache, dir: &str) -> Option<Vec<String>> {
    let listed = match crate::support::tree(cache, dir).await {
        Ok(listed) => listed,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            return None;
        }
    };
    let below = format!("{dir}/");
    let names = listed.iter().map(|stat| stat.path.to_string());
    let names = names.filter_map(|name| Some(name.strip_prefix(&below)?.to_owned()));
    let mut shown: Vec<String> = names.filter(|name| GOES.contains(&&name[..])).collect();
    for old in GOES {
        match cache.stat(&at(&format!("{below}{old}"))).await {
            Ok(_) => shown.push(old.to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
    Some(shown)
}

/// Lets the store come back, first so that nothing can be removed from its directory `key` which `dir` shows, and looks all the time
/// until everything is persisted: what was overwritten never shows.
async fn back(world: &World, cache: &Cache, dir: &str, key: &str) {
    let keys = GOES.map(|name| format!("{key}/{name}"));
    world.store.refuse(&keys.each_ref().map(String::as_str));
    world.store.set_away(None);
    let mut looked = 0;
    while looked < 20 {
        if let Some(shown) = shows(cache, dir).await {
            assert_eq!(shown, Vec::<String>::new());
            looked += 1;
        }
        pause(world, 200).await;
    }
    assert!(keys.iter().all(|key| world.store.contents().contains_key(key)));
    world.store.refuse(&[]);
    let mut ends = std::pin::pin!(persisted(cache));
    while futures::poll!(ends.as_mut()).is_pending() {
        if let Some(shown) = shows(cache, dir).await {
            assert_eq!(shown, Vec::<String>::new());
        }
        pause(world, 20).await;
    }
    assert_eq!(shows(cache, dir).await, Some(Vec::new()));
    assert!(keys.iter().all(|key| !world.store.contents().contains_key(key)));
}

#[test]
fn what_is_overwritten_while_the_store_is_away_is_all_there_is_and_the_old_files_go() {
    let mut world = World::new(54);
    world.live(async |world| {
        write_theirs(world, "theirs");
        write_theirs(world, "deep/below/theirs");
        away(world);
        let cache = world.open().await.unwrap();
        for path in ["/kept/new", "/kept/theirs", "/kept/deep/below/theirs"] {
            overwrite(&cache, path, rows(5..7)).await;
            assert_eq!(ids(&cache, path).await, [5, 6], "{path}");
        }
        let session = begin_overwrite(&cache, "/kept/live").await;
        is_followed(&cache, "/kept/live", session).await;
        // Whether anything is there has to be known for this.
        let refused = put(&cache, with_mode("/kept/other", WriteMode::Create), &[rows(0..1)]).await;
        assert_eq!(kind(refused), ErrorKind::Unavailable);

        // What others write into a directory after its overwrite is no part of it.
        pause(world, 1000).await;
        world
            .store
            .write_outside("theirs/late.arrow", arrow_file(&[rows(0..2)]));
        world.store.write_outside("theirs/late.txt", "text");
        back(world, &cache, "/kept/theirs", "theirs").await;
        for (path, later) in [("new", None), ("theirs", Some("late")), ("deep/below/theirs", None)] {
            assert_eq!(ids(&cache, &format!("/kept/{path}")).await, [5, 6], "{path}");
            assert_eq!(stored_parts(world, path), 1, "{path}");
            let mut stays: Vec<String> = match path {
                "new" => Vec::new(),
                _ => STAYS.map(str::to_owned).to_vec(),
            };
            stays.extend(
                later
                    .into_iter()
                    .flat_map(|_| ["late.arrow".to_owned(), "late.txt".to_owned()]),
            );
            stays.sort();
            assert_eq!(stored_of_others(world, path), stays, "{path}");
        }
        let status = cache.status().await.unwrap();
        assert_eq!((status.conflicts, status.blocked), (Vec::new(), Vec::new()));
        // What stayed shows, and the next overwrite takes away what it sees.
        assert_eq!(get(&cache, "/kept/theirs/late.txt").await.unwrap(), b"text");
        assert_eq!(
            get(&cache, "/kept/theirs/notes.txt").await.unwrap(),
            arrow_file(&[rows(0..2)])
        );
        overwrite(&cache, "/kept/theirs", rows(9..10)).await;
        persisted(&cache).await;
        assert_eq!(ids(&cache, "/kept/theirs").await, [9]);
        assert!(!world.store.contents().contains_key("theirs/late.arrow"));
        assert_eq!(stored_parts(world, "theirs"), 1);
    });
}

#[test]
fn an_overwrite_while_the_store_is_away_is_overwritten_and_appended_to_meanwhile() {
    let mut world = World::new(55);
    world.live(async |world| {
        write_theirs(world, "theirs");
        away(world);
        let cache = world.open().await.unwrap();
        overwrite(&cache, "/kept/theirs", rows(5..7)).await;
        put(&cache, target("/kept/theirs"), &[rows(7..8)]).await.unwrap();
        assert_eq!(ids(&cache, "/kept/theirs").await, [5, 6, 7]);
        // Between the two somebody else wrote: that is overwritten too.
        pause(world, 1000).await;
        world
            .store
            .write_outside("theirs/between.arrow", arrow_file(&[rows(0..2)]));
        pause(world, 1000).await;
        for _ in 0..2 {
            overwrite(&cache, "/kept/theirs", rows(1..2)).await;
        }
        put(&cache, target("/kept/theirs"), &[rows(2..4)]).await.unwrap();
        assert_eq!(ids(&cache, "/kept/theirs").await, [1, 2, 3]);
        back(world, &cache, "/kept/theirs", "theirs").await;
        assert_eq!(ids(&cache, "/kept/theirs").await, [1, 2, 3]);
        assert_eq!(stored_of_others(world, "theirs"), STAYS);
        assert_eq!(stored_parts(world, "theirs"), 2);
    });
}

#[test]
fn an_overwrite_while_the_store_is_away_survives_a_power_cut_at_any_moment_of_its_return() {
    for steps in 0..16 {
        let mut world = World::new(56);
        world.live(async |world| {
            write_theirs(world, "theirs");
            away(world);
            let cache = world.open().await.unwrap();
            overwrite(&cache, "/kept/theirs", rows(5..7)).await;
        });
        world.cut_power();
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            assert_eq!(ids(&cache, "/kept/theirs").await, [5, 6]);
            put(&cache, target("/kept/theirs"), &[rows(7..8)]).await.unwrap();
            world.store.set_away(None);
            pause(world, 70 * steps).await;
        });
        world.cut_power();
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            loop {
                assert_eq!(
                    shows(&cache, "/kept/theirs").await.unwrap_or_default(),
                    Vec::<String>::new()
                );
                let status = cache.status().await.unwrap();
                if status.queued + status.uploading == 0 {
                    break;
                }
                pause(world, 10).await;
            }
            assert_eq!(shows(&cache, "/kept/theirs").await, Some(Vec::new()));
            assert_eq!(ids(&cache, "/kept/theirs").await, [5, 6, 7]);
            assert_eq!(stored_of_others(world, "theirs"), STAYS, "{steps}");
            assert_eq!(stored_parts(world, "theirs"), 2, "{steps}");
        });
    }
}

#[test]
fn a_file_in_the_place_of_a_dataset_that_was_overwritten_unseen_is_a_conflict() {
    for (how, left) in [(Resolve::KeepMine, None), (Resolve::KeepTheirs, Some("a file"))] {
        let mut world = World::new(57);
        world.live(async |world| {
            world.store.write_outside("x", "a file");
            away(world);
            let cache = world.open().await.unwrap();
            overwrite(&cache, "/kept/x", rows(5..7)).await;
            world.store.set_away(None);
            let waited = cache.wait_persisted(&at("/kept"), Duration::from_secs(60)).await;
            assert_eq!(kind(waited), ErrorKind::Deadline);
        });
        world.cut_power();
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            pause(world, 10_000).await;
            let conflicts = cache.status().await.unwrap().conflicts;
            assert_eq!(conflicts.len(), 1, "{conflicts:?}");
            assert_eq!(conflicts[0].path, at("/kept/x"));
            assert!(conflicts[0].reason.contains("a file"), "{conflicts:?}");
            assert_eq!(world.store.contents()["x"], "a file");
            assert_eq!(stored_parts(world, "x"), 1);
            assert_eq!(ids(&cache, "/kept/x").await, [5, 6]);
            cache.persist_resolve(&at("/kept/x"), how).await.unwrap();
            persisted(&cache).await;
            let file = world.store.contents().remove("x");
            assert_eq!(file.as_deref(), left.map(str::as_bytes), "{how:?}");
            assert_eq!(ids(&cache, "/kept/x").await, [5, 6], "{how:?}");
            assert_eq!(cache.status().await.unwrap().conflicts, [], "{how:?}");
        });
    }
}

/// A store that answers, if only with a refusal, is asked as ever.
#[test]
fn an_overwrite_asks_a_store_that_answers() {
    let mut world = World::new(58);
    world.live(async |world| {
        world.store.write_outside("file", "a file");
        let cache = world.open().await.unwrap();
        let refused = put(&cache, with_mode("/kept/file", WriteMode::Overwrite), &[rows(0..1)]).await;
        assert_eq!(kind(refused), ErrorKind::Precondition);
        world.store.set_away(Some(StoreError::Refused("403".into())));
        let refused = put(&cache, with_mode("/kept/d", WriteMode::Overwrite), &[rows(0..1)]).await;
        assert_eq!(kind(refused), ErrorKind::Unavailable);
    });
}

#[test]
fn files_written_where_a_dataset_was_overwritten_unseen_arrive_under_their_names() {
    let mut world = World::new(59);
    world.live(async |world| {
        write_theirs(world, "theirs");
        away(world);
        let cache = world.open().await.unwrap();
        let session = begin_overwrite(&cache, "/kept/theirs").await;
        put(&cache, into("/kept/theirs", &session), &[rows(5..7)])
            .await
            .unwrap();
        let how = Publish {
            success_file: true,
            ..Publish::default()
        };
        cache.publish(&session, how).await.unwrap();
        // A name that was overwritten, and names of which nothing is known.
        put_file(&cache, "/kept/theirs/a.arrow", b"a new file").await.unwrap();
        put_file(&cache, "/kept/p/q/file", b"content").await.unwrap();
        world.store.set_away(None);
        persisted(&cache).await;
        let contents = world.store.contents();
        assert_eq!(contents["theirs/a.arrow"], "a new file");
        assert_eq!(contents["theirs/_SUCCESS"], "");
        assert_eq!(contents["p/q/file"], "content");
        assert!(!contents.contains_key("theirs/b.parquet"));
        assert_eq!(cache.status().await.unwrap().conflicts, []);
        assert_eq!(ids(&cache, "/kept/theirs").await, [5, 6]);
    });
}

#[test]
fn a_dataset_that_is_known_is_overwritten_while_the_store_is_away() {
    let mut world = World::new(60);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        for path in ["/kept/d", "/kept/evicted"] {
            put(&cache, target(path), &[rows(0..2)]).await.unwrap();
        }
        persisted(&cache).await;
        cache.free(&at("/kept/evicted")).await.unwrap();
        write_theirs(world, "d");
        pause(world, 60_000).await;
        away(world);
        overwrite(&cache, "/kept/d", rows(5..7)).await;
        // An old version has to be read that only the store has.
        let refused = put(&cache, with_mode("/kept/evicted", WriteMode::Overwrite), &[rows(0..1)]).await;
        assert_eq!(kind(refused), ErrorKind::Unavailable);
        let old = cache.dataset(&at("/kept/d"), At::Version(1)).await.unwrap();
        assert_eq!(numbers(&read_plan(&cache, &old, 0).await), [0, 1]);
        back(world, &cache, "/kept/d", "d").await;
        assert_eq!(ids(&cache, "/kept/d").await, [5, 6]);
        assert_eq!(stored_of_others(world, "d"), STAYS);
        assert_eq!(stored_parts(world, "d"), 1);
        assert_eq!(ids(&cache, "/kept/evicted").await, [0, 1]);
    });
}

#[test]
fn a_directory_that_was_overwritten_unseen_takes_along_what_it_kept_when_it_is_renamed() {
    let mut world = World::new(61);
    world.live(async |world| {
        write_theirs(world, "theirs");
        let cache = world.open().await.unwrap();
        put_file(&cache, "/kept/z/file", b"goes").await.unwrap();
        persisted(&cache).await;
        away(world);
        overwrite(&cache, "/kept/theirs", rows(5..7)).await;
        // The name is free, which is known here.
        cache.delete(&at("/kept/z"), true).await.unwrap();
        cache
            .rename(&at("/kept/theirs"), &at("/kept/z"), Rename::default())
            .await
            .unwrap();
        assert_eq!(ids(&cache, "/kept/z").await, [5, 6]);
        back(world, &cache, "/kept/z", "theirs").await;
        assert_eq!(stored_of_others(world, "z"), STAYS);
        assert_eq!((stored_parts(world, "z"), stored_parts(world, "theirs")), (1, 0));
        assert_eq!(stored_of_others(world, "theirs"), Vec::<String>::new());
        assert_eq!(ids(&cache, "/kept/z").await, [5, 6]);
        assert_eq!(kind(cache.stat(&at("/kept/theirs")).await), ErrorKind::NotFound);
    });
}

#[test]
fn a_dataset_that_is_emptied_while_the_store_is_away_stays_as_an_empty_directory() {
    let mut world = World::new(62);
    world.live(async |world| {
        world.store.write_outside("d/a.arrow", arrow_file(&[rows(0..2)]));
        away(world);
        let cache = world.open().await.unwrap();
        overwrite(&cache, "/kept/d", rows(0..2)).await;
        let session = begin_overwrite(&cache, "/kept/d").await;
        cache.publish(&session, Publish::default()).await.unwrap();
        assert_eq!(ids(&cache, "/kept/d").await, Vec::<i64>::new());
        world.store.set_away(None);
        persisted(&cache).await;
        assert_eq!(world.store.contents().len(), 0);
        assert_eq!(world.store.dirs(), ["d"]);
        assert_eq!(ids(&cache, "/kept/d").await, Vec::<i64>::new());
    });
}

#[test]
fn links_and_pipes_are_no_data_and_are_passed_over() {
    once(52, async |cache| {
        put_file(cache, "/d/a.arrow", &arrow_file(&[rows(0..2)])).await.unwrap();
        put_file(cache, "/bare/a", &arrow_file(&[rows(0..2)])).await.unwrap();
        let kinds = [MakeKind::Symlink(b"nowhere".to_vec()), MakeKind::Special(0o010_000, 0)];
        for (kind, name) in kinds.into_iter().zip(["b", "c"]) {
            for path in [format!("/d/{name}.arrow"), format!("/bare/{name}"), format!("/{name}")] {
                let make = Make {
                    kind: kind.clone(),
                    ..Make::dir()
                };
                cache.make(&at(&path), make).await.unwrap();
            }
        }
        for path in ["/d", "/bare"] {
            assert_eq!(ids(cache, path).await, [0, 1], "{path}");
        }
        let listed: Vec<_> = cache
            .datasets(b"/")
            .map(|plan| plan.unwrap().path.to_string())
            .collect()
            .await;
        assert_eq!(listed, ["/bare", "/d"]);
        assert!(!cache.is_dataset(&at("/d/b.arrow")).await.unwrap());
        put(cache, with_mode("/d", WriteMode::Overwrite), &[rows(5..6)])
            .await
            .unwrap();
        assert_eq!(ids(cache, "/d").await, [5]);
    });
}

#[test]
fn folders_with_values_become_columns() {
    once(42, async |cache| {
        put_file(cache, "/h/day=1/a.arrow", &arrow_file(&[rows(0..2)]))
            .await
            .unwrap();
        put_file(
            cache,
            "/h/day=__HIVE_DEFAULT_PARTITION__/b.parquet",
            &parquet_file(&rows(2..3)),
        )
        .await
        .unwrap();
        put(cache, target("/h/day=3"), &[rows(7..8)]).await.unwrap();
        let plan = cache.dataset(&at("/h"), At::Head).await.unwrap();
        assert_eq!(
            plan.schema
                .fields()
                .iter()
                .map(|field| field.name().as_str())
                .collect::<Vec<_>>(),
            ["n", "day"]
        );
        let batches = read_plan(cache, &plan, 0).await;
        let days: Vec<Option<String>> = batches
            .iter()
            .flat_map(|batch| {
                let days = batch.column(1).as_any().downcast_ref::<StringArray>().unwrap();
                days.iter().map(|day| day.map(str::to_owned)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(numbers(&batches), [0, 1, 7, 2]);
        let day = |day: &str| Some(day.to_owned());
        assert_eq!(days, [day("1"), day("1"), day("3"), None]);
    });
}

#[test]
fn all_datasets_are_listed_by_prefix_in_path_order() {
    once(43, async |cache| {
        for path in ["/t/a", "/t/b/c", "/u/b"] {
            put(cache, target(path), &[rows(0..1)]).await.unwrap();
        }
        put_file(cache, "/t/files/x.parquet", &parquet_file(&rows(0..1)))
            .await
            .unwrap();
        put_file(cache, "/t/mixed/readme.txt", b"no data").await.unwrap();
        let listed = async |prefix: &str| {
            let plans: Vec<DatasetPlan> = cache.datasets(prefix.as_bytes()).try_collect().await.unwrap();
            plans.iter().map(|plan| plan.path.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(listed("/t").await, ["/t/a", "/t/b/c", "/t/files"]);
        assert_eq!(listed("/t/").await, ["/t/a", "/t/b/c", "/t/files"]);
        assert_eq!(listed("/t/b").await, ["/t/b/c"]);
        assert_eq!(listed("").await.len(), 4);
        assert_eq!(listed("/nix").await.len(), 0);
    });
}

// ---- random histories

/// Puts, sessions, publishes, aborts, overwrites and power cuts against a plain model.
#[test]
fn random_histories_agree_with_a_plain_model() {
    let seed = std::env::var("FOREBAY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(7);
    println!("seed {seed}");
    for seed in seed..seed + 4 {
        history(seed);
    }
}

#[derive(Default)]
struct Model {
    head: BTreeMap<String, Vec<i64>>,
    sessions: Vec<(SessionId, String, bool, Vec<i64>)>,
    next: i64,
}

fn history(seed: u64) {
    let chance = SeededChance::new(seed);
    let mut world = World::new(seed);
    let mut model = Model::default();
    for _ in 0..4 {
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            check(&cache, &model, seed).await;
            for _ in 0..25 {
                step(&cache, &mut model, &*chance).await;
            }
            check(&cache, &model, seed).await;
        });
        world.cut_power();
    }
}

async fn step(cache: &Cache, model: &mut Model, chance: &dyn Chance) {
    let path = format!("/m/{}", chance.below(3));
    let overwrite = chance.below(4) == 0;
    let mode = if overwrite {
        WriteMode::Overwrite
    } else {
        WriteMode::Append
    };
    let mut fresh = || {
        model.next += 2;
        [rows([model.next]), rows([model.next + 1])]
    };
    match chance.below(10) {
        0..=2 => {
            let batches = fresh();
            put(cache, with_mode(&path, mode), &batches).await.unwrap();
            let head = model.head.entry(path).or_default();
            if overwrite {
                head.clear();
            }
            head.extend(numbers(&batches));
        }
        3..=4 => {
            let spec = SessionSpec {
                mode,
                ..SessionSpec::default()
            };
            let session = cache.begin(&at(&path), spec).await.unwrap();
            model.sessions.push((session, path, overwrite, Vec::new()));
        }
        5..=7 if !model.sessions.is_empty() => {
            let batches = fresh();
            let k = usize::try_from(chance.below(model.sessions.len() as u64)).unwrap();
            let (session, path, _, staged) = &mut model.sessions[k];
            if chance.below(4) == 0 {
                let mut writer = open(cache, into(path, session), &batches[0]).await.unwrap();
                acked(&mut writer, &batches[0]).await;
                drop(writer);
            } else {
                put(cache, into(path, session), &batches).await.unwrap();
                staged.extend(numbers(&batches));
            }
        }
        8 if !model.sessions.is_empty() => {
            let k = usize::try_from(chance.below(model.sessions.len() as u64)).unwrap();
            let (session, path, overwrite, staged) = model.sessions.remove(k);
            match cache.publish(&session, Publish::default()).await {
                Ok(_) => {
                    let head = model.head.entry(path).or_default();
                    if overwrite {
                        head.clear();
                    }
                    head.extend(staged);
                }
                Err(error) => {
                    assert!(staged.is_empty() && error.kind() == ErrorKind::Precondition, "{error}");
                    cache.abort(&session).await.unwrap();
                }
            }
        }
        9 if !model.sessions.is_empty() => {
            let k = usize::try_from(chance.below(model.sessions.len() as u64)).unwrap();
            let (session, ..) = model.sessions.remove(k);
            cache.abort(&session).await.unwrap();
        }
        _ => {}
    }
}

async fn check(cache: &Cache, model: &Model, seed: u64) {
    for (path, expected) in &model.head {
        assert_eq!(ids(cache, path).await, *expected, "seed {seed} {path}");
        for version in cache.versions(&at(path)).await.unwrap() {
            let plan = cache.dataset(&at(path), At::Version(version.version)).await.unwrap();
            let rows = numbers(&read_plan(cache, &plan, 0).await).len() as u64;
            assert_eq!(rows, version.rows, "seed {seed} {path} version {}", version.version);
        }
    }
    for (session, path, _, staged) in &model.sessions {
        if staged.is_empty() {
            continue;
        }
        let plan = cache.dataset(&at(path), At::Session(session.clone())).await.unwrap();
        assert_eq!(
            numbers(&read_plan(cache, &plan, 0).await),
            *staged,
            "seed {seed} session of {path}"
        );
    }
}
