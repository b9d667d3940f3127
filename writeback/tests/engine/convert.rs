//! Arrow parts that become Parquet on their way to the under-store: what readers see of it, what arrives, and what a crash leaves.

use crate::support::{World, at, get, kind, put as put_file, writes};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, FixedSizeListArray, Int32Array, Int64Array, ListArray, RecordBatch,
    RecordBatchOptions, StringArray, StructArray, TimestampSecondArray, UnionArray,
    types::{Int32Type, Int64Type},
};
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_schema::{DataType, Field, Schema, UnionFields};
use async_trait::async_trait;
use bytes::Bytes;
use forebay_metastore::{
    Op,
    mem::{Call, Fault},
};
use forebay_runtime::{clock::Clock, units::ByteSize};
use forebay_understore::StoreError;
use forebay_writeback::{
    Cache, Error, ErrorKind,
    changes::{Change as Changed, Observer},
    dataset::{
        At, Compression, DatasetPlan, Decoder, FollowSpec, Format, IpcMessage, PartItem, PartWriter, Publish,
        PutTarget, Resume, SessionId, SessionSpec,
    },
    file::WriteMode,
    names::{Rename, State},
    policy::Change,
    rows::table,
};
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use parquet::{
    arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
    basic::Compression as Codec,
    file::metadata::{ParquetMetaData, ParquetMetaDataReader},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

const MINUTE: Duration = Duration::from_secs(60);

// ---- batches, written and read

fn rows(numbers: impl IntoIterator<Item = i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, true)]);
    RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap()
}

/// Numbers that do not compress.
fn spread(n: i64) -> i64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64)
}

fn coded(words: &[&str]) -> RecordBatch {
    let column: DictionaryArray<Int32Type> = words.iter().copied().collect();
    RecordBatch::try_from_iter([("s", Arc::new(column) as ArrayRef)]).unwrap()
}

fn message(header: impl Into<Bytes>, body: impl Into<Bytes>, app_metadata: &Bytes) -> IpcMessage {
    IpcMessage {
        header: header.into(),
        body: vec![body.into()],
        app_metadata: app_metadata.clone(),
    }
}

fn target(path: &str, mode: WriteMode) -> PutTarget {
    PutTarget {
        path: at(path),
        session: None,
        task: None,
        spec: SessionSpec {
            mode,
            ..SessionSpec::default()
        },
        token: None,
    }
}

async fn open(cache: &Cache, target: PutTarget, schema: &Schema) -> Result<PartWriter, Error> {
    let mut tracker = DictionaryTracker::new(false);
    let encoded = IpcDataGenerator::default().schema_to_bytes_with_dictionary_tracker(
        schema,
        &mut tracker,
        &IpcWriteOptions::default(),
    );
    let none = Bytes::new();
    cache
        .put(target, message(encoded.ipc_message, none.clone(), &none))
        .await
}

/// Puts batches, each with its app_metadata.
async fn put_noted(cache: &Cache, target: PutTarget, batches: &[(RecordBatch, Bytes)]) -> Result<Option<u64>, Error> {
    let (options, generator) = (IpcWriteOptions::default(), IpcDataGenerator::default());
    let (mut tracker, mut context) = (DictionaryTracker::new(false), IpcWriteContext::default());
    let (schema, none) = (batches[0].0.schema(), Bytes::new());
    generator.schema_to_bytes_with_dictionary_tracker(&schema, &mut tracker, &options);
    let mut writer = open(cache, target, &schema).await?;
    for (batch, note) in batches {
        let (dictionaries, encoded) = generator.encode(batch, &mut tracker, &options, &mut context).unwrap();
        for dictionary in dictionaries {
            writer
                .append(message(dictionary.ipc_message, dictionary.arrow_data, &none))
                .await?;
        }
        writer
            .append(message(encoded.ipc_message, encoded.arrow_data, note))
            .await?;
    }
    Ok(writer.commit().await?.version)
}

async fn put(cache: &Cache, path: &str, mode: WriteMode, batches: &[RecordBatch]) -> u64 {
    let noted: Vec<_> = batches.iter().map(|batch| (batch.clone(), Bytes::new())).collect();
    put_noted(cache, target(path, mode), &noted).await.unwrap().unwrap()
}

async fn append(cache: &Cache, path: &str, batches: &[RecordBatch]) -> u64 {
    put(cache, path, WriteMode::Append, batches).await
}

async fn deliver(cache: &Cache, plan: &DatasetPlan) -> Result<Vec<(RecordBatch, Bytes)>, Error> {
    let mut out = Vec::new();
    for part in &plan.parts {
        let mut decoder = Decoder::new(&plan.schema_message)?;
        let items: Vec<PartItem> = cache.read_part(part, 0).await?.try_collect().await?;
        for item in items {
            out.extend(decoder.push(item)?);
        }
    }
    Ok(out)
}

async fn plan(cache: &Cache, path: &str, at_: At) -> DatasetPlan {
    cache.dataset(&at(path), at_).await.unwrap()
}

async fn read(cache: &Cache, path: &str, at_: At) -> Vec<RecordBatch> {
    let plan = plan(cache, path, at_).await;
    deliver(cache, &plan)
        .await
        .unwrap()
        .into_iter()
        .map(|(batch, _)| batch)
        .collect()
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    let column = |batch: &RecordBatch| {
        let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
        column.values().to_vec()
    };
    batches.iter().flat_map(column).collect()
}

async fn ids(cache: &Cache, path: &str) -> Vec<i64> {
    numbers(&read(cache, path, At::Head).await)
}

async fn follow(cache: &Cache, path: &str, from: Option<Resume>) -> Vec<i64> {
    let spec = FollowSpec { session: None, from };
    let mut stream = cache.follow(&at(path), spec).await.unwrap();
    let mut decoder = Decoder::new(&stream.schema_message).unwrap();
    let mut batches = Vec::new();
    while let Some(item) = stream.items.next().await {
        batches.extend(decoder.push(item.unwrap()).unwrap().map(|(batch, _)| batch));
    }
    numbers(&batches)
}

// ---- policies, names, the store

async fn set(cache: &Cache, path: &str, key: &str, value: impl Into<serde_json::Value>) {
    let change = Change::parse(key, Some(&value.into())).unwrap();
    cache.policy_set(&at(path), vec![change]).await.unwrap();
}

/// Parquet under `/kept`, which nothing leaves before [`arrive`].
async fn parquet_later(cache: &Cache) {
    set(cache, "/kept", "persist_format", "parquet").await;
    set(cache, "/kept", "persist", "never").await;
}

async fn arrive(cache: &Cache) {
    cache.persist(&at("/kept")).await.unwrap();
    cache.wait_persisted(&at("/kept"), 60 * MINUTE).await.unwrap();
}

async fn names(cache: &Cache, path: &str) -> Vec<String> {
    let stats = crate::support::tree(cache, path).await.unwrap();
    stats.into_iter().map(|stat| stat.path.to_string()).collect()
}

/// Keys of the store with their bytes.
fn stored(world: &World) -> Vec<(String, Bytes)> {
    world.store.contents().into_iter().collect()
}

fn extensions(world: &World) -> Vec<String> {
    let extension = |(key, _): (String, Bytes)| key.rsplit_once('.').map_or(key.clone(), |(_, end)| end.to_owned());
    stored(world).into_iter().map(extension).collect()
}

fn stock(file: &Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone())
        .unwrap()
        .build()
        .unwrap();
    reader.map(Result::unwrap).collect()
}

fn footer(file: &Bytes) -> ParquetMetaData {
    ParquetMetaDataReader::new().parse_and_finish(file).unwrap()
}

fn once<T>(seed: u64, body: impl AsyncFnOnce(&World, &Cache) -> T) -> T {
    World::new(seed).live(async |world| {
        let cache = world.open().await.unwrap();
        let answer = body(world, &cache).await;
        cache.shutdown().await;
        answer
    })
}

// ---- what readers see

#[test]
fn a_part_becomes_a_parquet_file_of_the_same_version_and_nobody_reads_anything_else() {
    once(1, async |world, cache| {
        parquet_later(cache).await;
        let notes = [&b"first"[..], b"", b"\xff\x00", b"last"].map(Bytes::from_static);
        let batches: Vec<_> = [rows(0..10), rows(10..11), rows(0..0), rows(11..5000)]
            .into_iter()
            .zip(notes)
            .collect();
        put_noted(cache, target("/kept/d", WriteMode::Append), &batches)
            .await
            .unwrap();
        let before = plan(cache, "/kept/d", At::Head).await;
        let [arrow] = &names(cache, "/kept/d").await[..] else {
            panic!("one part")
        };
        assert!(arrow.ends_with(".arrow"), "{arrow}");
        let mut open = cache.read_part(&before.parts[0], 0).await.unwrap();
        let first = open.next().await.unwrap().unwrap();
        let file = cache.read_file(&at(arrow)).await.unwrap();
        arrive(cache).await;

        // What was opened before goes on, what was named before is found.
        let rest: Vec<PartItem> = open.try_collect().await.unwrap();
        let mut decoder = Decoder::new(&before.schema_message).unwrap();
        let decoded: Vec<_> = std::iter::once(first)
            .chain(rest)
            .filter_map(|item| decoder.push(item).unwrap())
            .collect();
        assert_eq!(decoded, batches);
        assert_eq!(file.read(0..8).await.unwrap().concat()[..6], *b"ARROW1");
        assert_eq!(
            deliver(cache, &before).await.unwrap(),
            batches,
            "by a ticket of the time before"
        );

        let now = plan(cache, "/kept/d", At::Head).await;
        assert_eq!((now.version, now.parts[0].format), (Some(1), Format::Parquet));
        assert_eq!((now.parts[0].batches, now.parts[0].rows), (4, 5000));
        assert_eq!(deliver(cache, &now).await.unwrap(), batches);
        let parquet = arrow.replace(".arrow", ".parquet");
        assert_eq!(names(cache, "/kept/d").await, std::slice::from_ref(&parquet));
        let stat = cache.stat(&at(&parquet)).await.unwrap();
        assert_eq!((stat.state, stat.size), (State::Persisted, now.parts[0].bytes));
        let [version] = &cache.versions(&at("/kept/d")).await.unwrap()[..] else {
            panic!("one version")
        };
        assert_eq!(
            (version.version, version.bytes, version.rows, version.parts),
            (1, stat.size, 5000, 1)
        );

        let [(key, bytes)] = &stored(world)[..] else {
            panic!("{:?}", extensions(world))
        };
        assert_eq!((format!("/kept/{key}"), bytes.len() as u64), (parquet, stat.size));
        assert_eq!(numbers(&stock(bytes)), (0..5000).collect::<Vec<_>>());
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.dirty_bytes, status.queued), (0, 0, 0));
        assert!(cache.unconverted().is_empty());
        // A restart knows the same.
        assert_eq!(kind(get(cache, arrow).await), ErrorKind::NotFound);
    });
}

#[test]
fn tokens_and_followers_go_on_over_it() {
    once(2, async |world, cache| {
        set(cache, "/kept", "persist_format", "parquet").await;
        let session = cache.begin(&at("/kept/d"), SessionSpec::default()).await.unwrap();
        let into = |session: &SessionId| PutTarget {
            session: Some(session.clone()),
            ..target("/kept/d", WriteMode::Append)
        };
        let noted = |batch: RecordBatch| (batch, Bytes::new());
        put_noted(
            cache,
            into(&session),
            &[noted(rows(0..3)), noted(rows(3..5)), noted(rows(5..9))],
        )
        .await
        .unwrap();
        let spec = FollowSpec::default();
        let mut follower = cache.follow(&at("/kept/d"), spec).await.unwrap();
        let mut decoder = Decoder::new(&follower.schema_message).unwrap();
        let mut got = Vec::new();
        for _ in 0..2 {
            let item = follower.items.next().await.unwrap().unwrap();
            got.extend(decoder.push(item).unwrap().map(|(batch, _)| batch));
        }
        put_noted(cache, into(&session), &[noted(rows(9..12))]).await.unwrap();
        cache.publish(&session, Publish::default()).await.unwrap();
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        assert_eq!(extensions(world), ["parquet", "parquet"]);
        while let Some(item) = follower.items.next().await {
            got.extend(decoder.push(item.unwrap()).unwrap().map(|(batch, _)| batch));
        }
        assert_eq!(numbers(&got), (0..12).collect::<Vec<_>>());
        for (read, from) in [(0, 0), (1, 3), (2, 5), (3, 9), (4, 12)] {
            let expected: Vec<i64> = (from..12).collect();
            assert_eq!(
                follow(cache, "/kept/d", Some(Resume::Session(session.clone(), read))).await,
                expected
            );
            assert_eq!(follow(cache, "/kept/d", Some(Resume::Version(1, read))).await, expected);
        }
        append(cache, "/kept/d", &[rows(12..13)]).await;
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        assert_eq!(
            follow(cache, "/kept/d", Some(Resume::Version(1, 3))).await,
            [9, 10, 11, 12]
        );
        let bytes: Vec<u64> = cache
            .versions(&at("/kept/d"))
            .await
            .unwrap()
            .iter()
            .map(|v| v.bytes)
            .collect();
        let sizes: Vec<u64> = stored(world).iter().map(|(_, file)| file.len() as u64).collect();
        assert_eq!(bytes[1], sizes.iter().sum::<u64>());
        assert!(
            bytes[0] < bytes[1] && sizes.contains(&(bytes[1] - bytes[0])),
            "{bytes:?} {sizes:?}"
        );
    });
}

#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

#[async_trait]
impl Observer for Told {
    async fn changed(&self, change: &Changed) {
        if let Changed::Name(path) = change {
            self.0.lock().push(path.to_string());
        }
    }
}

#[test]
fn those_who_remember_names_are_told_of_both() {
    once(3, async |_, cache| {
        parquet_later(cache).await;
        append(cache, "/kept/d", &[rows(0..3)]).await;
        let told = Arc::new(Told::default());
        let observer: Arc<dyn Observer> = told.clone();
        cache.observe(&observer);
        let [arrow] = &names(cache, "/kept/d").await[..] else {
            panic!("one part")
        };
        arrive(cache).await;
        assert_eq!(*told.0.lock(), [arrow.clone(), arrow.replace(".arrow", ".parquet")]);
    });
}

fn nested() -> RecordBatch {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let fixed = FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(
        [Some(vec![Some(1), Some(2)]), None, Some(vec![None, Some(4)])],
        2,
    );
    let inner: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("c")]));
    let field = Arc::new(Field::new("x", DataType::Utf8, true));
    let words: DictionaryArray<Int32Type> = [Some("red"), None, Some("red")].into_iter().collect();
    let keys = Int32Array::from(vec![Some(0), Some(1), None]);
    let coded = DictionaryArray::new(keys, Arc::new(Int64Array::from(vec![7, -7])));
    RecordBatch::try_from_iter_with_nullable([
        ("list", Arc::new(list) as ArrayRef, true),
        ("fixed", Arc::new(fixed) as ArrayRef, true),
        (
            "struct",
            Arc::new(StructArray::from(vec![(field, inner)])) as ArrayRef,
            true,
        ),
        ("word", Arc::new(words) as ArrayRef, true),
        ("coded", Arc::new(coded) as ArrayRef, true),
        (
            "second",
            Arc::new(TimestampSecondArray::from(vec![Some(1), None, Some(-9)])) as ArrayRef,
            true,
        ),
    ])
    .unwrap()
}

#[test]
fn odd_shapes_come_back_as_they_were() {
    once(4, async |world, cache| {
        set(cache, "/kept", "persist_format", "parquet").await;
        let shapes: Vec<(&str, Vec<RecordBatch>)> = vec![
            ("no-rows", vec![rows(0..0)]),
            (
                "words",
                vec![coded(&["a", "b", "a"]), coded(&["a", "b", "b"]), coded(&["c", "a"])],
            ),
            ("nested", vec![nested(), nested().slice(1, 2), nested().slice(0, 0)]),
        ];
        for (name, batches) in &shapes {
            append(cache, &format!("/kept/{name}"), batches).await;
        }
        // A put of a schema and nothing else.
        let writer = open(cache, target("/kept/none", WriteMode::Append), &rows(0..0).schema()).await;
        writer.unwrap().commit().await.unwrap();
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        let left: Vec<String> = cache
            .unconverted()
            .iter()
            .map(|one| format!("{} {}", one.path, one.reason))
            .collect();
        assert_eq!(left, Vec::<String>::new());
        assert!(
            extensions(world).iter().all(|extension| extension == "parquet"),
            "{:?}",
            stored(world)
        );
        for (name, batches) in &shapes {
            assert_eq!(
                read(cache, &format!("/kept/{name}"), At::Head).await,
                *batches,
                "{name}"
            );
        }
        let none = plan(cache, "/kept/none", At::Head).await;
        assert_eq!((none.schema.clone(), none.parts.len()), (rows(0..0).schema(), 1));
        assert!(deliver(cache, &none).await.unwrap().is_empty());
    });
}

// ---- what the policies say

#[test]
fn the_policies_say_how_it_is_written_and_a_session_which_compression() {
    once(5, async |world, cache| {
        set(cache, "/kept", "persist_format", "parquet").await;
        set(cache, "/kept/a", "parquet_compression", "zstd").await;
        set(cache, "/kept/a", "parquet_row_group", "1MiB").await;
        set(cache, "/kept/a", "parquet_statistics", "chunk").await;
        set(cache, "/kept/b", "parquet_statistics", "none").await;
        let batches: Vec<_> = (0..8)
            .map(|k| rows((0..50_000).map(|n| spread(n + 50_000 * k))))
            .collect();
        append(cache, "/kept/a", &batches).await;
        let mut asked = target("/kept/b", WriteMode::Append);
        asked.spec.compression = Some(Compression::Lz4);
        put_noted(cache, asked, &[(rows(0..1000), Bytes::new())]).await.unwrap();
        append(cache, "/kept/c", &[rows(0..1000)]).await;
        // One that is Parquet by itself is written so too.
        let mut parquet = target("/kept/a/p", WriteMode::Append);
        parquet.spec.format = Format::Parquet;
        put_noted(cache, parquet, &[(rows(0..1000), Bytes::new())])
            .await
            .unwrap();
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        let files = stored(world);
        let of = |dir: &str| {
            let found = files.iter().find(|(key, _)| key.starts_with(&format!("{dir}/part-")));
            footer(&found.unwrap_or_else(|| panic!("no {dir} in {files:?}")).1)
        };
        let (a, b, c, p) = (of("a"), of("b"), of("c"), of("a/p"));
        assert!(
            a.num_row_groups() >= 3,
            "3.2 MB in groups of 1 MiB: {}",
            a.num_row_groups()
        );
        let chunk = |file: &ParquetMetaData| file.row_group(0).column(0).clone();
        assert!(
            matches!(chunk(&a).compression(), Codec::ZSTD(_)),
            "{:?}",
            chunk(&a).compression()
        );
        assert!(matches!(chunk(&p).compression(), Codec::ZSTD(_)));
        assert_eq!(
            (chunk(&b).compression(), chunk(&c).compression()),
            (Codec::LZ4_RAW, Codec::SNAPPY)
        );
        assert!(chunk(&a).statistics().is_some() && chunk(&a).column_index_offset().is_none());
        assert!(chunk(&b).statistics().is_none());
        assert!(chunk(&c).statistics().is_some() && chunk(&c).column_index_offset().is_some());
    });
}

#[test]
fn plain_files_parts_that_were_renamed_and_what_is_there_already_stay_as_they_are() {
    once(6, async |world, cache| {
        append(cache, "/kept/early", &[rows(0..3)]).await;
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        parquet_later(cache).await;
        put_file(cache, "/kept/d/part-00000-abcdefghij012345.arrow", b"not ours")
            .await
            .unwrap();
        append(cache, "/kept/d2", &[rows(0..3)]).await;
        let [arrow] = &names(cache, "/kept/d2").await[..] else {
            panic!("one part")
        };
        cache
            .rename(&at(arrow), &at("/kept/mine.arrow"), Rename::default())
            .await
            .unwrap();
        append(cache, "/kept/early", &[rows(3..4)]).await;
        arrive(cache).await;
        let keys: Vec<String> = stored(world).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 4, "{keys:?}");
        assert!(
            keys.iter().any(|key| key == "d/part-00000-abcdefghij012345.arrow")
                && keys.iter().any(|key| key == "mine.arrow")
        );
        let early: Vec<_> = keys.iter().filter(|key| key.starts_with("early/")).collect();
        assert_eq!(
            early.iter().filter(|key| key.ends_with(".arrow")).count(),
            1,
            "{early:?}"
        );
        assert_eq!(
            early.iter().filter(|key| key.ends_with(".parquet")).count(),
            1,
            "{early:?}"
        );
        assert_eq!(ids(cache, "/kept/early").await, [0, 1, 2, 3]);
        assert_eq!(ids(cache, "/kept/d2").await, [0, 1, 2]);
    });
}

#[test]
fn an_upload_that_was_begun_goes_on_as_it_is() {
    once(7, async |world, cache| {
        set(cache, "/kept", "persist", "never").await;
        append(cache, "/kept/d", &[rows(0..3)]).await;
        world.store.set_away(Some(StoreError::Unavailable("off".into())));
        set(cache, "/kept", "persist", "asap").await;
        world.clock.sleep(Duration::from_secs(5)).await;
        set(cache, "/kept", "persist_format", "parquet").await;
        append(cache, "/kept/d", &[rows(3..4)]).await;
        world.clock.sleep(Duration::from_secs(5)).await;
        world.store.set_away(None);
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        let mut extensions = extensions(world);
        extensions.sort();
        assert_eq!(extensions, ["arrow", "parquet"]);
        assert_eq!(ids(cache, "/kept/d").await, [0, 1, 2, 3]);
    });
}

#[test]
fn what_parquet_can_not_hold_goes_as_it_is_and_is_told() {
    once(8, async |world, cache| {
        set(cache, "/kept", "persist_format", "parquet").await;
        let fields = UnionFields::from_fields([Field::new("x", DataType::Int64, true)]);
        let ids = vec![0_i8; 3].into();
        let union = UnionArray::try_new(fields, ids, None, vec![Arc::new(Int64Array::from(vec![1, 2, 3]))]).unwrap();
        let union = RecordBatch::try_from_iter([("odd", Arc::new(union) as ArrayRef)]).unwrap();
        append(cache, "/kept/union", std::slice::from_ref(&union)).await;
        append(cache, "/kept/union", std::slice::from_ref(&union)).await;
        let much = Bytes::from(vec![7; 2 << 20]);
        put_noted(
            cache,
            target("/kept/noted", WriteMode::Append),
            &[(rows(0..3), much.clone())],
        )
        .await
        .unwrap();
        let options = RecordBatchOptions::new().with_row_count(Some(7));
        let bare = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        append(cache, "/kept/bare", &[bare]).await;
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        assert_eq!(extensions(world), ["arrow"; 4]);
        let told = cache.unconverted();
        let told: Vec<_> = told
            .iter()
            .map(|one| (one.path.to_string(), one.parts, one.reason.as_str()))
            .collect();
        let [bare, noted, unions] = &told[..] else {
            panic!("{told:?}")
        };
        assert!(bare.0 == "/kept/bare" && bare.2.contains("without columns"), "{bare:?}");
        assert!(
            noted.0 == "/kept/noted" && noted.2.contains("app_metadata"),
            "{noted:?}"
        );
        assert!(
            (unions.0.as_str(), unions.1) == ("/kept/union", 2) && unions.2.contains("\"odd\""),
            "{unions:?}"
        );
        assert_eq!(read(cache, "/kept/union", At::Head).await, [union.clone(), union]);
        let noted = deliver(cache, &plan(cache, "/kept/noted", At::Head).await)
            .await
            .unwrap();
        assert_eq!(noted, [(rows(0..3), much)]);
        let status = cache.status().await.unwrap();
        assert_eq!((status.dirty_files, status.queued), (0, 0));
    });
}

#[test]
fn the_persister_does_not_wait_at_the_dirty_limit_for_itself() {
    let mut world = World::new(9);
    world.settings.dirty_max = Some(ByteSize(1 << 20));
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        parquet_later(&cache).await;
        // Such numbers take as much room in Parquet.
        let many = |k: i64| rows((0..12_000).map(|n| spread(n * 5 + k)));
        for k in 0..10 {
            append(&cache, "/kept/d", &[many(k)]).await;
        }
        assert!(cache.status().await.unwrap().dirty_bytes > 950_000);
        let begun = world.clock.monotonic();
        set(&cache, "/kept", "persist", "asap").await;
        append(&cache, "/kept/d", &[many(10), many(11)]).await;
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        assert!(world.clock.monotonic() - begun < Duration::from_secs(30));
        assert_eq!(extensions(world), ["parquet"; 11]);
    });
}

#[test]
fn a_marker_comes_after_all_parts_in_their_new_form() {
    once(10, async |world, cache| {
        set(cache, "/kept", "persist_format", "parquet").await;
        set(cache, "/kept", "persist", "commit").await;
        let session = cache.begin(&at("/kept/d"), SessionSpec::default()).await.unwrap();
        for k in 0..20 {
            let into = PutTarget {
                session: Some(session.clone()),
                ..target("/kept/d", WriteMode::Append)
            };
            put_noted(cache, into, &[(rows(100 * k..100 * k + 100), Bytes::new())])
                .await
                .unwrap();
        }
        let how = Publish {
            success_file: true,
            ..Publish::default()
        };
        cache.publish(&session, how).await.unwrap();
        while !world.store.contents().contains_key("d/_SUCCESS") {
            world.clock.sleep(Duration::from_millis(1)).await;
        }
        let parts = stored(world)
            .iter()
            .filter(|(key, _)| key.ends_with(".parquet"))
            .count();
        assert_eq!(parts, 20);
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        assert_eq!(ids(cache, "/kept/d").await, (0..2000).collect::<Vec<_>>());
        assert_eq!(stored(world).len(), 21);
    });
}

// ---- versions, names, quotas

#[test]
fn overwriting_appending_and_deleting_go_on_from_what_the_parts_are_by_now() {
    once(11, async |world, cache| {
        set(cache, "/kept", "persist_format", "parquet").await;
        append(cache, "/kept/d", &[rows(0..5)]).await;
        // Before they become Parquet a reader may have looked at them.
        assert_eq!(ids(cache, "/kept/d").await, [0, 1, 2, 3, 4]);
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        append(cache, "/kept/d", &[rows(5..6)]).await;
        assert_eq!(ids(cache, "/kept/d").await, (0..6).collect::<Vec<_>>());
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        put(cache, "/kept/d", WriteMode::Overwrite, &[rows(10..12)]).await;
        assert_eq!(
            names(cache, "/kept/d").await.len(),
            1,
            "old parts lost their names with the overwrite"
        );
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        world.clock.sleep(MINUTE).await;
        assert_eq!(extensions(world), ["parquet"]);
        assert_eq!(
            numbers(&read(cache, "/kept/d", At::Version(1)).await),
            (0..5).collect::<Vec<_>>()
        );
        assert_eq!(
            numbers(&read(cache, "/kept/d", At::Version(2)).await),
            (0..6).collect::<Vec<_>>()
        );
        assert_eq!(ids(cache, "/kept/d").await, [10, 11]);
        let status = cache.status().await.unwrap();
        assert_eq!(status.dirty_files, 2, "what old versions keep");
        cache.delete(&at("/kept/d"), true).await.unwrap();
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        world.clock.sleep(MINUTE).await;
        assert!(stored(world).is_empty(), "{:?}", extensions(world));
        assert_eq!(cache.status().await.unwrap().dirty_files, 0);
    });
}

#[test]
fn many_parts_are_overwritten_while_some_of_them_become_parquet() {
    for pause in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55] {
        let mut world = World::new(100 + pause);
        world.settings.versions_kept = 1;
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            parquet_later(&cache).await;
            let session = cache.begin(&at("/kept/d"), SessionSpec::default()).await.unwrap();
            for k in 0..150 {
                let into = PutTarget {
                    session: Some(session.clone()),
                    ..target("/kept/d", WriteMode::Append)
                };
                put_noted(&cache, into, &[(rows(k..k + 1), Bytes::new())])
                    .await
                    .unwrap();
            }
            cache.publish(&session, Publish::default()).await.unwrap();
            cache.persist(&at("/kept")).await.unwrap();
            for _ in 0..pause {
                world.clock.sleep(Duration::from_millis(1)).await;
            }
            put(&cache, "/kept/d", WriteMode::Overwrite, &[rows(1000..1001)]).await;
            assert_eq!(ids(&cache, "/kept/d").await, [1000]);
            world.clock.sleep(MINUTE).await;
            arrive(&cache).await;
            assert_eq!(names(&cache, "/kept/d").await.len(), 1, "pause {pause}");
            assert_eq!(extensions(world), ["parquet"], "pause {pause}");
            assert_eq!(cache.status().await.unwrap().dirty_files, 0, "pause {pause}");
        });
    }
}

#[test]
fn renames_of_directories_meet_it_at_any_moment() {
    for pause in 0..40 {
        once(200 + pause, async |world, cache| {
            parquet_later(cache).await;
            for k in 0..6 {
                append(cache, "/kept/d", &[rows(k..k + 1)]).await;
            }
            cache.persist(&at("/kept")).await.unwrap();
            for _ in 0..pause {
                tokio::task::yield_now().await;
            }
            world.clock.sleep(Duration::from_micros(500 * (pause % 10))).await;
            cache
                .rename(&at("/kept/d"), &at("/kept/e"), Rename::default())
                .await
                .unwrap();
            assert_eq!(ids(cache, "/kept/e").await, (0..6).collect::<Vec<_>>());
            arrive(cache).await;
            assert_eq!(ids(cache, "/kept/e").await, (0..6).collect::<Vec<_>>());
            let files = stored(world);
            assert_eq!(files.len(), 6, "pause {pause}: {:?}", extensions(world));
            assert!(
                files
                    .iter()
                    .all(|(key, _)| key.starts_with("e/") && key.ends_with(".parquet"))
            );
            assert_eq!(cache.status().await.unwrap().dirty_files, 0);
        });
    }
}

#[test]
fn a_part_that_went_and_came_back_leaves_nothing_at_its_old_name() {
    once(12, async |world, cache| {
        parquet_later(cache).await;
        append(cache, "/kept/d", &[rows(0..3)]).await;
        let [arrow] = &names(cache, "/kept/d").await[..] else {
            panic!("one part")
        };
        for (from, to) in [(arrow.as_str(), "/kept/aside"), ("/kept/aside", arrow.as_str())] {
            cache.rename(&at(from), &at(to), Rename::default()).await.unwrap();
        }
        arrive(cache).await;
        assert_eq!(extensions(world), ["parquet"]);
        assert_eq!(
            names(cache, "/kept").await,
            ["/kept/d".to_owned(), arrow.replace(".arrow", ".parquet")]
        );
        assert_eq!(ids(cache, "/kept/d").await, [0, 1, 2]);
        // Nothing hides the old name any more.
        world.store.write_outside(&arrow["/kept/".len()..], &b"theirs"[..]);
        cache.sync(&at("/kept"), true).await.unwrap();
        assert_eq!(get(cache, arrow).await.unwrap(), b"theirs");
    });
}

#[test]
fn a_quota_counts_what_the_part_became() {
    once(13, async |_, cache| {
        parquet_later(cache).await;
        set(cache, "/kept", "quota_bytes", 500_000).await;
        append(cache, "/kept/d", &[rows(std::iter::repeat_n(7, 50_000))]).await;
        assert_eq!(
            kind(put_file(cache, "/kept/f", &vec![1; 200_000]).await),
            ErrorKind::Full
        );
        arrive(cache).await;
        put_file(cache, "/kept/f", &vec![1; 200_000]).await.unwrap();
        put_file(cache, "/kept/g", &vec![1; 200_000]).await.unwrap();
        assert_eq!(
            kind(put_file(cache, "/kept/h", &vec![1; 200_000]).await),
            ErrorKind::Full
        );
    });
}

#[test]
fn what_people_set_of_the_file_stays() {
    once(14, async |_, cache| {
        parquet_later(cache).await;
        append(cache, "/kept/d", &[rows(0..3)]).await;
        let [arrow] = &names(cache, "/kept/d").await[..] else {
            panic!("one part")
        };
        let before = cache.stat(&at(arrow)).await.unwrap();
        arrive(cache).await;
        let after = cache.stat(&at(&arrow.replace(".arrow", ".parquet"))).await.unwrap();
        assert_eq!(
            (after.mtime, after.mode, after.uid),
            (before.mtime, before.mode, before.uid)
        );
        assert_ne!(after.etag, before.etag);
    });
}

// ---- crashes

/// Whether a transaction replaces a part: it writes a part's row and takes a name away.
fn replaces(call: &Call<'_>) -> bool {
    let Call::Commit(tx) = call else { return false };
    let deletes = tx
        .ops
        .iter()
        .any(|op| matches!(op, Op::Delete(key) if key.first() != Some(&table::PART)));
    writes(tx, table::PART) && writes(tx, table::HEAD) && !writes(tx, table::SESSION) && deletes
}

#[test]
fn a_crash_at_the_transaction_leaves_the_one_or_the_other_form() {
    for (seed, fault, cut) in [
        (300, Fault::UnknownLost, false),
        (301, Fault::UnknownLost, true),
        (302, Fault::UnknownCommitted, false),
        (303, Fault::UnknownCommitted, true),
    ] {
        let mut world = World::new(seed);
        let batches = [rows(0..10), rows(10..2000)];
        world.live(async |world| {
            let cache = world.open().await.unwrap();
            parquet_later(&cache).await;
            append(&cache, "/kept/d", &batches).await;
            let reached = Arc::new(Notify::new());
            let hit = Arc::clone(&reached);
            world.meta.set_hook(move |call| match replaces(call) {
                true => {
                    hit.notify_one();
                    fault
                }
                false => Fault::None,
            });
            cache.persist(&at("/kept")).await.unwrap();
            // The life ends right here: the answer never comes.
            reached.notified().await;
        });
        world.meta.clear_hook();
        if cut {
            world.cut_power();
        } else {
            world.disk.disarm();
        }
        world.live(async |world| {
            // What is left to do waits until it was looked at.
            world.meta.set_hook(|call| match replaces(call) {
                true => Fault::Unavailable,
                false => Fault::None,
            });
            let cache = world.open().await.unwrap();
            let names = names(&cache, "/kept/d").await;
            let extension = if matches!(fault, Fault::UnknownCommitted) {
                ".parquet"
            } else {
                ".arrow"
            };
            assert!(names.len() == 1 && names[0].ends_with(extension), "{seed}: {names:?}");
            assert_eq!(read(&cache, "/kept/d", At::Head).await, batches, "{seed}");
            world.meta.clear_hook();
            arrive(&cache).await;
            assert_eq!(extensions(world), ["parquet"], "{seed}");
            assert_eq!(read(&cache, "/kept/d", At::Head).await, batches, "{seed}");
            let status = cache.status().await.unwrap();
            assert_eq!((status.dirty_files, status.dirty_bytes), (0, 0), "{seed}");
        });
    }
}

#[test]
fn a_transaction_whose_answer_was_lost_is_asked_for_again() {
    for (seed, fault) in [
        (310, Fault::UnknownLost),
        (311, Fault::UnknownCommitted),
        (312, Fault::Unavailable),
    ] {
        once(seed, async |world, cache| {
            set(cache, "/kept", "persist_format", "parquet").await;
            let mut left = 3;
            world.meta.set_hook(move |call| match replaces(call) && left > 0 {
                true => {
                    left -= 1;
                    fault
                }
                false => Fault::None,
            });
            append(cache, "/kept/d", &[rows(0..10)]).await;
            cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
            assert_eq!(extensions(world), ["parquet"]);
            assert_eq!(ids(cache, "/kept/d").await, (0..10).collect::<Vec<_>>());
            let status = cache.status().await.unwrap();
            assert_eq!((status.dirty_files, status.dirty_bytes), (0, 0));
        });
    }
}

#[test]
fn a_restart_in_the_middle_of_many_goes_on() {
    let mut world = World::new(320);
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        parquet_later(&cache).await;
        for k in 0..30 {
            append(&cache, "/kept/d", &[rows(k..k + 1)]).await;
        }
        let reached = Arc::new(Notify::new());
        let hit = Arc::clone(&reached);
        let mut seen = 0;
        world.meta.set_hook(move |call| {
            seen += usize::from(replaces(call));
            if seen == 12 {
                hit.notify_one();
            }
            Fault::None
        });
        cache.persist(&at("/kept")).await.unwrap();
        reached.notified().await;
    });
    world.meta.clear_hook();
    world.cut_power();
    world.live(async |world| {
        let cache = world.open().await.unwrap();
        assert_eq!(ids(&cache, "/kept/d").await, (0..30).collect::<Vec<_>>());
        set(&cache, "/kept", "persist", "asap").await;
        cache.wait_persisted(&at("/kept"), MINUTE).await.unwrap();
        assert_eq!(extensions(world), ["parquet"; 30]);
        assert_eq!(ids(&cache, "/kept/d").await, (0..30).collect::<Vec<_>>());
        let sum: u64 = stored(world).iter().map(|(_, file)| file.len() as u64).sum();
        assert_eq!(cache.versions(&at("/kept/d")).await.unwrap().last().unwrap().bytes, sum);
    });
}
