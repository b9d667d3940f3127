//! The client against a real server: the binary that FOREBAY_BIN names, else `target/release/forebay`.

mod support;

use arrow_array::{Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use forebay_client::{
    AckLevel, Client, Compression, EntryKind, Error, ErrorKind, FileOptions, Format, Mode, Options, ReadOptions,
    Result, ResumeToken, Scan, Session, SessionOptions, Staged, Task, WirePath, WriteOptions, action,
};
use futures::TryStreamExt;
use std::{sync::Arc, time::Duration};
use support::Server;

fn rows(from: i64, to: i64) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("s", DataType::Utf8, true),
    ]);
    let n = Int64Array::from_iter_values(from..to);
    let s = StringArray::from_iter((from..to).map(|n| (n % 3 > 0).then(|| format!("row {n}"))));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(n), Arc::new(s)]).unwrap()
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    batches
        .iter()
        .flat_map(|b| {
            b.column_by_name("n")
                .unwrap()
                .as_primitive::<Int64Type>()
                .values()
                .to_vec()
        })
        .collect()
}

async fn scan(client: &Client, path: &str, options: ReadOptions) -> Result<Vec<RecordBatch>> {
    client.scan(path, options).await?.try_collect().await
}

async fn kind_of<T>(answer: impl Future<Output = Result<T>>) -> Option<ErrorKind> {
    answer.await.err().map(|e: Error| e.kind())
}

#[tokio::test]
async fn batches_come_back_as_they_were_put() {
    let server = Server::start(false);
    let client = server.client().await;
    let batches = [rows(0, 10), rows(10, 5000), rows(5000, 5001)];
    let mut put = client
        .put(
            "/t/a",
            WriteOptions {
                acks: true,
                ..WriteOptions::default()
            },
        )
        .await
        .unwrap();
    let mut acks = put.acks().unwrap();
    for (k, batch) in batches.iter().enumerate() {
        put.send_with_metadata(batch, format!("note {k}").as_bytes())
            .await
            .unwrap();
        assert_eq!(acks.next().await.unwrap().app_metadata, format!("note {k}"));
    }
    let done = put.finish().await.unwrap();
    assert_eq!(
        (done.batches, done.version.is_some(), done.level),
        (3, true, Some(AckLevel::Local))
    );

    let mut scan = client.scan("/t/a", ReadOptions::default()).await.unwrap();
    let mut got = Vec::new();
    while let Some(batch) = scan.try_next().await.unwrap() {
        assert_eq!(scan.app_metadata(), format!("note {}", got.len()).as_bytes());
        got.push(batch);
    }
    assert_eq!(got, batches);
    assert_eq!(
        scan.token().unwrap().to_string(),
        format!("{}:3", done.version.unwrap())
    );
    let info = client.info("/t/a", &ReadOptions::default()).await.unwrap();
    assert_eq!(
        (info.rows, info.note.batches, info.note.version),
        (Some(5001), 3, done.version)
    );
    assert_eq!(
        client.schema("/t/a", &ReadOptions::default()).await.unwrap(),
        batches[0].schema()
    );
}

#[tokio::test]
async fn a_put_without_its_own_metadata_learns_what_is_stable() {
    let server = Server::start(false);
    let client = server.client().await;
    let mut put = client.put("/t/stable", WriteOptions::default()).await.unwrap();
    let mut progress = put.watch();
    for n in 0..5 {
        put.send(&rows(n, n + 1)).await.unwrap();
    }
    progress.wait_for(|p| p.acked == 5).await.unwrap();
    assert!(put.progress().stable <= 5);
    assert_eq!(put.finish().await.unwrap().batches, 5);
}

#[tokio::test]
async fn a_dropped_put_and_an_aborted_one_leave_nothing() {
    let server = Server::start(false);
    let client = server.client().await;
    let mut put = client.put("/t/dropped", WriteOptions::default()).await.unwrap();
    let mut progress = put.watch();
    put.send(&rows(0, 10)).await.unwrap();
    progress.wait_for(|p| p.acked == 1).await.unwrap();
    drop(put);
    let mut put = client.put("/t/aborted", WriteOptions::default()).await.unwrap();
    put.send(&rows(0, 10)).await.unwrap();
    put.abort().await;
    for path in ["/t/dropped", "/t/aborted"] {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(
            kind_of(client.info(path, &ReadOptions::default())).await,
            Some(ErrorKind::NotFound),
            "{path}"
        );
    }
}

#[tokio::test]
async fn columns_filter_limit_and_version_are_the_servers_work() {
    let server = Server::start(false);
    let client = server.client().await;
    let first = client
        .put_all("/t/q", &[rows(0, 10), rows(10, 20)], WriteOptions::default())
        .await
        .unwrap();
    client
        .put_all("/t/q", &[rows(20, 30)], WriteOptions::default())
        .await
        .unwrap();
    let filter = ReadOptions {
        filter: Some("n >= 7 AND n < 9".into()),
        ..ReadOptions::default()
    };
    assert_eq!(numbers(&scan(&client, "/t/q", filter).await.unwrap()), [7, 8]);
    let columns = ReadOptions {
        columns: Some(vec!["s".into(), "n".into()]),
        ..ReadOptions::default()
    };
    assert_eq!(
        scan(&client, "/t/q", columns).await.unwrap()[0]
            .schema()
            .field(0)
            .name(),
        "s"
    );
    let limit = ReadOptions {
        limit: Some(13),
        ..ReadOptions::default()
    };
    assert_eq!(
        numbers(&scan(&client, "/t/q", limit).await.unwrap()),
        (0..13).collect::<Vec<_>>()
    );
    let version = ReadOptions {
        version: first.version,
        ..ReadOptions::default()
    };
    assert_eq!(
        numbers(&scan(&client, "/t/q", version).await.unwrap()),
        (0..20).collect::<Vec<_>>()
    );
    assert_eq!(client.versions("/t/q").await.unwrap().len(), 2);
}

#[tokio::test]
async fn formats_and_compressions_keep_rows() {
    let server = Server::start(false);
    let client = server.client().await;
    for (k, options) in [
        WriteOptions {
            compression: Some(Compression::Zstd),
            ..WriteOptions::default()
        },
        WriteOptions {
            compression: Some(Compression::Lz4),
            ..WriteOptions::default()
        },
        WriteOptions {
            wire_compression: Compression::Zstd,
            ..WriteOptions::default()
        },
        WriteOptions {
            format: Some(Format::Parquet),
            ..WriteOptions::default()
        },
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/t/format{k}");
        client.put_all(&path, &[rows(0, 1000)], options).await.unwrap();
        assert_eq!(
            numbers(&scan(&client, &path, ReadOptions::default()).await.unwrap()),
            (0..1000).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn a_repeated_token_writes_once() {
    let server = Server::start(false);
    let client = server.client().await;
    let options = WriteOptions {
        token: Some("same".into()),
        ..WriteOptions::default()
    };
    let first = client.put_all("/t/once", &[rows(0, 3)], options.clone()).await.unwrap();
    let again = client.put_all("/t/once", &[rows(0, 3)], options).await.unwrap();
    assert_eq!(first.version, again.version);
    assert_eq!(
        numbers(&scan(&client, "/t/once", ReadOptions::default()).await.unwrap()),
        [0, 1, 2]
    );
}

#[tokio::test]
async fn a_session_publishes_all_of_its_puts_at_once() {
    let server = Server::start(false);
    let client = server.client().await;
    let session = client.session("/s/a", SessionOptions::default()).await.unwrap();
    for task in [1, 0] {
        let task = Task {
            job: "j".into(),
            stage: 0,
            task,
            attempt: 0,
        };
        let first = task.task as i64 * 10;
        let mut put = session
            .put(WriteOptions {
                task: Some(task),
                ..WriteOptions::default()
            })
            .await
            .unwrap();
        put.send(&rows(first, first + 10)).await.unwrap();
        put.finish().await.unwrap();
    }
    assert_eq!(
        kind_of(client.info("/s/a", &ReadOptions::default())).await,
        Some(ErrorKind::NotFound)
    );
    let version = session.publish(true).await.unwrap();
    assert_eq!(
        client.info("/s/a", &ReadOptions::default()).await.unwrap().note.version,
        Some(version)
    );
    assert_eq!(
        numbers(&scan(&client, "/s/a", ReadOptions::default()).await.unwrap()),
        (0..20).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn sessions_of_several_datasets_are_published_at_one_instant() {
    let server = Server::start(false);
    let client = server.client().await;
    let paths = ["/s/t/k=1", "/s/t/k=2"];
    let begin = async || {
        let mut staged = Vec::new();
        for path in paths {
            let session = client.session(path, SessionOptions::default()).await.unwrap();
            stage(&session, 0..3).await;
            staged.push(Staged::from(session));
        }
        staged
    };
    let read = async || scan(&client, "/s/t", ReadOptions::default()).await;
    let mut refused = begin().await;
    refused[1].tasks = Some(vec![Task {
        job: "j".into(),
        stage: 0,
        task: 0,
        attempt: 0,
    }]);
    let id = refused[0].session.id().to_owned();
    let answer = client.publish_together(refused, false).await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Precondition);
    assert_eq!(kind_of(read()).await, Some(ErrorKind::NotFound));
    let made = client.publish_together(begin().await, true).await.unwrap();
    let made: Vec<_> = made.iter().map(|made| (made.path.to_string(), made.version)).collect();
    assert_eq!(made, paths.map(|path| (path.to_owned(), 1)));
    assert_eq!(numbers(&read().await.unwrap()), [0, 1, 2, 0, 1, 2]);
    assert_eq!(client.publish_together(Vec::new(), true).await.unwrap(), []);
    let alone = begin().await.swap_remove(0);
    let made = client.publish_together(vec![alone], false).await.unwrap();
    assert_eq!((made[0].path.to_string().as_str(), made[0].version), (paths[0], 2));
    // What was refused is aborted, as a session is whose publish fails.
    let body = serde_json::json!({ "session": id });
    assert_eq!(
        kind_of(client.action("publish", body)).await,
        Some(ErrorKind::Precondition)
    );
}

#[tokio::test]
async fn a_dropped_session_is_aborted() {
    let server = Server::start(false);
    let client = server.client().await;
    let session = client.session("/s/dropped", SessionOptions::default()).await.unwrap();
    let id = session.id().to_owned();
    let mut put = session.put(WriteOptions::default()).await.unwrap();
    put.send(&rows(0, 10)).await.unwrap();
    put.finish().await.unwrap();
    drop(session);
    let body = || serde_json::json!({ "session": id });
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if kind_of(client.put_all(
            "/s/dropped",
            &[rows(0, 1)],
            WriteOptions {
                session: Some(id.clone()),
                ..WriteOptions::default()
            },
        ))
        .await
        .is_some()
        {
            break;
        }
    }
    assert_eq!(
        kind_of(client.action("publish", body())).await,
        Some(ErrorKind::Precondition)
    );
}

#[tokio::test]
async fn a_follower_reads_while_it_is_written_and_resumes_by_token() {
    let server = Server::start(false);
    let client = server.client().await;
    let follower = server.client().await;
    let early = ReadOptions {
        wait: Some(Duration::from_secs(10)),
        ..ReadOptions::default()
    };
    let reader = tokio::spawn(async move {
        let mut follow = follower.follow("/live", early).await?;
        let mut seen = Vec::new();
        while seen.len() < 7 {
            seen.extend(numbers(&[follow.next_batch().await?.expect("more is to come")]));
        }
        Ok::<_, Error>((seen, follow.token().unwrap()))
    });
    let session = client.session("/live", SessionOptions::default()).await.unwrap();
    let mut put = session.put(WriteOptions::default()).await.unwrap();
    for n in 0..10 {
        put.send(&rows(n, n + 1)).await.unwrap();
    }
    let (mut seen, token) = reader.await.unwrap().unwrap();
    assert_eq!(token.to_string(), format!("{}:7", session.id()));
    let rest = ReadOptions {
        from: Some(token),
        ..ReadOptions::default()
    };
    let mut follow = client.follow("/live", rest).await.unwrap();
    for n in 10..20 {
        put.send(&rows(n, n + 1)).await.unwrap();
    }
    put.finish().await.unwrap();
    session.publish(false).await.unwrap();
    while let Some(batch) = follow.next_batch().await.unwrap() {
        seen.extend(numbers(&[batch]));
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

/// Puts batches of one row each into a session, and ends the put.
async fn stage(session: &Session, numbers: std::ops::Range<i64>) {
    let mut put = session.put(WriteOptions::default()).await.unwrap();
    for n in numbers {
        put.send(&rows(n, n + 1)).await.unwrap();
    }
    put.finish().await.unwrap();
}

/// Reads one batch from a token on, and says where it stands then.
async fn one_from(client: &Client, path: &str, from: Option<ResumeToken>) -> (i64, ResumeToken) {
    let options = ReadOptions {
        from,
        ..ReadOptions::default()
    };
    let mut follow = client.follow(path, options).await.unwrap();
    let batch = follow.next_batch().await.unwrap().expect("more is to come");
    (numbers(&[batch])[0], follow.token().unwrap())
}

/// A follower that asks anew after every batch, while the session it is in is published and another one is begun.
#[tokio::test]
async fn each_batch_comes_once_where_sessions_are_published_between_two_requests() {
    let server = Server::start(false);
    let client = server.client().await;
    for in_session in [false, true] {
        let path = format!("/between/{in_session}");
        let first = client.session(&path, SessionOptions::default()).await.unwrap();
        stage(&first, 0..2).await;
        first.publish(false).await.unwrap();
        let second = client.session(&path, SessionOptions::default()).await.unwrap();
        stage(&second, 2..4).await;
        // It stands in the version, or already in the session behind it.
        let (mut seen, mut token) = (Vec::new(), None);
        for _ in 0..if in_session { 3 } else { 1 } {
            let (n, at) = one_from(&client, &path, token).await;
            seen.push(n);
            token = Some(at);
        }
        second.publish(false).await.unwrap();
        let other = client.session(&path, SessionOptions::default()).await.unwrap();
        let third = client.session(&path, SessionOptions::default()).await.unwrap();
        stage(&other, 4..7).await;
        while seen.len() < 6 {
            let (n, at) = one_from(&client, &path, token).await;
            seen.push(n);
            token = Some(at);
        }
        // A session that began later is published before the one that is followed.
        stage(&third, 10..13).await;
        third.publish(false).await.unwrap();
        let (n, at) = one_from(&client, &path, token).await;
        seen.push(n);
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6], "began within a session: {in_session}");
        assert_eq!(at.to_string(), format!("{}:3", other.id()));
        other.publish(false).await.unwrap();
    }
}

/// "Ends at its publish", also where that came while nobody was connected, and says where to go on.
#[tokio::test]
async fn a_follower_that_missed_the_publish_ends_at_it() {
    let mut server = Server::start(false);
    let client = server.client().await;
    let session = client.session("/missed", SessionOptions::default()).await.unwrap();
    stage(&session, 0..3).await;
    let id = session.leave();
    let follower = server.client().await;
    let mut follow = follower.follow("/missed", ReadOptions::default()).await.unwrap();
    assert_eq!(numbers(&[follow.next_batch().await.unwrap().unwrap()]), [0]);
    server.kill();
    server.restart();
    let client = server.client().await;
    client
        .action("publish", serde_json::json!({"session": id}))
        .await
        .unwrap();
    let other = client.session("/missed", SessionOptions::default()).await.unwrap();
    stage(&other, 3..5).await;
    let rest = async {
        let mut seen = Vec::new();
        while let Some(batch) = follow.next_batch().await.unwrap() {
            seen.extend(numbers(&[batch]));
        }
        seen
    };
    let rest = tokio::time::timeout(Duration::from_secs(30), rest).await;
    assert_eq!(
        rest.expect("it ends, and does not go on into the other session"),
        [1, 2]
    );
    assert_eq!(follow.token().unwrap().to_string(), "1:3");
    let (next, at) = one_from(&client, "/missed", follow.token()).await;
    assert_eq!((next, at.to_string()), (3, format!("{}:1", other.id())));
}

#[tokio::test]
async fn a_session_is_shared_by_its_token() {
    let server = Server::start(false);
    let (client, other) = (server.client().await, server.client().await);
    let options = SessionOptions {
        token: Some("a query".to_owned()),
        ..SessionOptions::default()
    };
    let session = client.session("/shared", options.clone()).await.unwrap();
    let same = other.session("/shared", options.clone()).await.unwrap();
    assert_eq!(session.id(), same.id());
    stage(&same, 0..1).await;
    same.leave();
    stage(&session, 1..2).await;
    assert_eq!(session.publish(false).await.unwrap(), 1);
    // One that comes late is in the session too, which takes nothing more and is published as what it was.
    let late = other.session("/shared", options).await.unwrap();
    let mut put = late.put(WriteOptions::default()).await.unwrap();
    let refused = async {
        put.send(&rows(2, 3)).await?;
        put.finish().await
    };
    assert_eq!(kind_of(refused).await, Some(ErrorKind::Precondition));
    assert_eq!(late.publish(false).await.unwrap(), 1);
    let all = scan(&client, "/shared", ReadOptions::default()).await.unwrap();
    assert_eq!(numbers(&all), [0, 1]);
}

#[tokio::test]
async fn an_abort_ends_a_follower_with_aborted() {
    let server = Server::start(false);
    let client = server.client().await;
    let session = client.session("/gone", SessionOptions::default()).await.unwrap();
    let mut put = session.put(WriteOptions::default()).await.unwrap();
    put.send(&rows(0, 1)).await.unwrap();
    put.finish().await.unwrap();
    let mut follow = client.follow("/gone", ReadOptions::default()).await.unwrap();
    assert!(follow.next_batch().await.unwrap().is_some());
    session.abort().await.unwrap();
    assert_eq!(follow.next_batch().await.unwrap_err().kind(), ErrorKind::Aborted);
}

#[tokio::test]
async fn a_follower_survives_a_killed_server() {
    let mut server = Server::start(false);
    let client = server.client().await;
    let session = client.session("/survive", SessionOptions::default()).await.unwrap();
    let mut put = session.put(WriteOptions::default()).await.unwrap();
    for n in 0..5 {
        put.send(&rows(n, n + 1)).await.unwrap();
    }
    put.finish().await.unwrap();
    let mut follow = client.follow("/survive", ReadOptions::default()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.extend(numbers(&[follow.next_batch().await.unwrap().unwrap()]));
    }
    let reader = tokio::spawn(async move {
        while let Some(batch) = follow.next_batch().await? {
            seen.extend(numbers(&[batch]));
        }
        Ok::<_, Error>(seen)
    });
    server.kill();
    server.restart();
    // The connection does not know yet that it is dead: a put that may be repeated is.
    let into = WriteOptions {
        session: Some(session.id().to_owned()),
        ..WriteOptions::default()
    };
    client.put_all("/survive", &[rows(5, 6)], into).await.unwrap();
    session.publish(false).await.unwrap();
    assert_eq!(reader.await.unwrap().unwrap(), (0..6).collect::<Vec<_>>());
}

#[tokio::test]
async fn files_are_written_and_read_in_ranges() {
    let server = Server::start(false);
    let client = server.client().await;
    let content = Bytes::from((0..10_000_000u32).map(|i| (i * 7 / 3) as u8).collect::<Vec<_>>());
    client
        .put_file("/f/big", content.clone(), FileOptions::default())
        .await
        .unwrap();
    let whole = client
        .read_file("/f/big", None)
        .await
        .unwrap()
        .bytes(usize::MAX)
        .await
        .unwrap();
    assert!(whole == content);
    for range in [
        0..1,
        4_194_300..4_194_310,
        9_999_990..20_000_000,
        10_000_000..10_000_001,
    ] {
        let expected =
            content.slice((range.start as usize).min(content.len())..(range.end as usize).min(content.len()));
        let got = client
            .read_file("/f/big", Some(range.clone()))
            .await
            .unwrap()
            .bytes(1 << 20)
            .await
            .unwrap();
        assert!(
            got == expected,
            "{range:?}: {} bytes, not {}",
            got.len(),
            expected.len()
        );
    }
    let append = |offset| FileOptions {
        mode: Mode::Append,
        offset: Some(offset),
        ..FileOptions::default()
    };
    assert_eq!(
        kind_of(client.put_file("/f/big", Bytes::from_static(b"x"), append(3))).await,
        Some(ErrorKind::Precondition)
    );
    client
        .put_file("/f/big", Bytes::from_static(b"end"), append(10_000_000))
        .await
        .unwrap();
    assert_eq!(client.stat("/f/big").await.unwrap().size, 10_000_003);
    let mut given_up = client.write_file("/f/big", FileOptions::default()).await.unwrap();
    given_up.write(Bytes::from_static(b"other")).await.unwrap();
    given_up.abort().await;
    assert_eq!(client.stat("/f/big").await.unwrap().size, 10_000_003);
    let create = FileOptions {
        mode: Mode::Create,
        ..FileOptions::default()
    };
    assert_eq!(
        kind_of(client.put_file("/f/big", Bytes::new(), create)).await,
        Some(ErrorKind::Exists)
    );
    assert_eq!(
        kind_of(client.read_file("/f/none", None)).await,
        Some(ErrorKind::NotFound)
    );
}

#[tokio::test]
async fn names_are_listed_renamed_and_deleted() {
    let server = Server::start(false);
    let client = server.client().await;
    let names = ["a b", "ü", "%FF", "+&=?#", "\n", "x"];
    for name in names {
        client
            .put_file(
                &format!("/names/{name}"),
                Bytes::from_static(b"1"),
                FileOptions::default(),
            )
            .await
            .unwrap();
    }
    let listed: Vec<_> = client.list("/names", false, None).unwrap().try_collect().await.unwrap();
    let mut paths: Vec<_> = listed.iter().map(|e| e.path.to_string()).collect();
    paths.sort();
    let mut expected: Vec<_> = names.iter().map(|n| format!("/names/{n}")).collect();
    expected.sort();
    assert_eq!(paths, expected);
    let after = WirePath::parse("/names/a b").unwrap();
    let rest: Vec<_> = client
        .list("/names", true, Some(after))
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert!(rest.len() < names.len() && rest.iter().all(|e| e.path.to_string() != "/names/a b"));

    client.mkdir("/d/e", true).await.unwrap();
    assert_eq!(client.stat("/d/e").await.unwrap().kind, EntryKind::Dir);
    client.rename("/names/x", "/d/e/y", false).await.unwrap();
    assert_eq!(
        kind_of(client.rename("/names/ü", "/d/e/y", false)).await,
        Some(ErrorKind::Exists)
    );
    client.rename("/names/ü", "/d/e/y", true).await.unwrap();
    assert_eq!(kind_of(client.delete("/d", false)).await, Some(ErrorKind::Precondition));
    client.truncate("/d/e/y", 0).await.unwrap();
    client.delete("/d", true).await.unwrap();
    assert_eq!(kind_of(client.stat("/d")).await, Some(ErrorKind::NotFound));
}

#[tokio::test]
async fn what_is_written_reaches_the_under_store() {
    let server = Server::start(true);
    let client = server.client().await;
    client
        .put_file("/lake/x", Bytes::from_static(b"lake"), FileOptions::default())
        .await
        .unwrap();
    let state = client.wait_persisted("/lake", Duration::from_secs(30)).await.unwrap();
    assert!(state == "persisted" || state == "clean", "{state}");
    assert_eq!(std::fs::read(server.lake().join("x")).unwrap(), b"lake");
    let status = client.status().await.unwrap();
    assert_eq!(
        (status.dirty_bytes, status.mounts.len(), status.ack.as_str()),
        (0, 1, "local")
    );
    let freed = client.free("/lake").await.unwrap();
    assert_eq!(freed.dirty_bytes, 0);
    client.load("/lake/x", true).await.unwrap();
}

#[tokio::test]
async fn every_action_is_documented_by_the_server() {
    let server = Server::start(false);
    let told = server.client().await.actions().await.unwrap();
    for doc in action::ACTIONS {
        assert!(
            told.iter().any(|(name, text)| name == doc.name && !text.is_empty()),
            "{}",
            doc.name
        );
    }
}

#[tokio::test]
async fn endpoints_can_be_shared_out() {
    let server = Server::start(false);
    let client = server.client().await;
    for n in 0..3 {
        client
            .put_all("/t/parts", &[rows(n * 10, n * 10 + 10)], WriteOptions::default())
            .await
            .unwrap();
    }
    let info = client.info("/t/parts", &ReadOptions::default()).await.unwrap();
    let mut all = Vec::new();
    for endpoint in info.endpoints.clone() {
        let part: Scan = client.scan_endpoint(&info, endpoint);
        all.extend(numbers(&part.try_collect::<Vec<_>>().await.unwrap()));
    }
    assert_eq!((info.endpoints.len(), all), (3, (0..30).collect::<Vec<_>>()));
}

#[tokio::test]
async fn a_growing_dataset_can_be_polled() {
    let server = Server::start(false);
    let client = server.client().await;
    let session = client.session("/polled", SessionOptions::default()).await.unwrap();
    let mut put = session.put(WriteOptions::default()).await.unwrap();
    put.send(&rows(0, 10)).await.unwrap();
    put.finish().await.unwrap();
    let poll = client.poll("/polled", &ReadOptions::default()).await.unwrap();
    let next = poll.next.expect("a session is open");
    session.publish(false).await.unwrap();
    let end = client.poll_next(&next).await.unwrap();
    assert!(end.next.is_none() && end.info.endpoints.len() >= poll.info.endpoints.len());
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_and_calls_are_repeated_until_it_is_back() {
    let mut server = Server::start(false);
    let quick = Client::connect(
        &server.flight,
        Options {
            retry_for: Duration::ZERO,
            ..Options::default()
        },
    )
    .await
    .unwrap();
    let patient = server.client().await;
    patient
        .put_file("/f/x", Bytes::from_static(b"1"), FileOptions::default())
        .await
        .unwrap();
    server.kill();
    assert_eq!(kind_of(quick.stat("/f/x")).await, Some(ErrorKind::Unavailable));
    let waits = tokio::spawn(async move { patient.stat("/f/x").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.restart();
    assert_eq!(waits.await.unwrap().unwrap().size, 1);
}
