//! Against a real S3, when `FOREBAY_TEST_S3_URL` names a bucket (credentials in the environment); else these pass at once and say so.

use super::*;
use crate::{
    UnderStoreRef, conformance,
    fault::{Break, FaultProxy},
};
use futures::StreamExt;
use std::time::Duration;

fn real_url() -> Option<url::Url> {
    let Ok(text) = std::env::var("FOREBAY_TEST_S3_URL") else {
        eprintln!("FOREBAY_TEST_S3_URL is not set: nothing tested");
        return None;
    };
    Some(url::Url::parse(&text).unwrap())
}

/// The bucket behind a proxy, below a prefix of the test's own, with little patience.
async fn broken(prefix: &str) -> Option<(FaultProxy, UnderStoreRef)> {
    behind_proxy(prefix, Duration::from_secs(2)).await
}

async fn behind_proxy(prefix: &str, timeout: Duration) -> Option<(FaultProxy, UnderStoreRef)> {
    let mut url = real_url()?;
    let endpoint = url
        .query_pairs()
        .find(|(name, _)| name == "endpoint")
        .map(|(_, value)| value.into_owned());
    let endpoint = url::Url::parse(&endpoint.expect("the URL must name an endpoint")).unwrap();
    let upstream = endpoint.socket_addrs(|| None).unwrap()[0];
    let proxy = FaultProxy::start(upstream).await.unwrap();
    url.set_query(Some(&format!("endpoint=http://{}", proxy.address())));
    url.set_path(&format!("{}/{prefix}", url.path().trim_end_matches('/')));
    let settings = Settings {
        timeout,
        ..Settings::default()
    };
    let store = crate::open(url.as_str(), &settings).await.unwrap();
    Some((proxy, store))
}

fn write(key: &str, size: usize, expect: Expect) -> Write {
    Write {
        key: key.into(),
        size: size as u64,
        token: format!("token-{key}"),
        attributes: Vec::new(),
        expect,
    }
}

#[tokio::test]
async fn a_real_s3_passes_the_conformance_suite() {
    let Some(url) = real_url() else { return };
    let store = crate::open(url.as_str(), &Settings::default()).await.unwrap();
    conformance::run(store).await;
}

#[tokio::test]
async fn faults_before_the_effect_leave_nothing_and_are_passing() {
    let Some((proxy, store)) = broken("before").await else {
        return;
    };
    let body = vec![Bytes::from(vec![7_u8; 100_000])];
    for (at, breaks) in [
        Break::Status(503, "SlowDown"),
        Break::ResetAfter(50_000),
        Break::Hang,
        Break::ErrorBody(false),
    ]
    .into_iter()
    .enumerate()
    {
        proxy.break_next("PUT", "/before/", 1, breaks.clone());
        let wanted = write(&format!("k{at}"), 100_000, Expect::Absent);
        let answer = store.put(&wanted, body.clone()).await;
        assert!(
            matches!(answer, Err(StoreError::Unavailable(_))),
            "{breaks:?}: {answer:?}"
        );
        assert_eq!(proxy.hits(), at as u64 + 1, "{breaks:?} did not hit");
        assert_eq!(store.head(&wanted.key).await.unwrap(), None, "{breaks:?}");
    }
    proxy.break_next("PUT", "/before/", 1, Break::Status(403, "AccessDenied"));
    let answer = store.put(&write("k9", 100_000, Expect::Absent), body).await;
    assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
}

#[tokio::test]
async fn after_an_unclear_answer_the_token_tells_that_it_happened() {
    let Some((proxy, store)) = broken("after").await else {
        return;
    };
    for (at, breaks) in [
        Break::LostAnswer,
        Break::ErrorBody(true),
        Break::StatusAfter(500, "InternalError"),
    ]
    .into_iter()
    .enumerate()
    {
        proxy.break_next("PUT", "/after/", 1, breaks.clone());
        let wanted = write(&format!("k{at}"), 5, Expect::Absent);
        let answer = store.put(&wanted, vec![Bytes::from_static(b"hello")]).await;
        assert!(
            matches!(answer, Err(StoreError::Unavailable(_))),
            "{breaks:?}: {answer:?}"
        );
        let found = store.head(&wanted.key).await.unwrap().expect("it happened");
        assert_eq!(
            (found.token.as_deref(), found.size),
            (Some(wanted.token.as_str()), 5),
            "{breaks:?}"
        );
        store
            .delete(&wanted.key, &Expect::Match(found.validator))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_bit_that_turned_on_the_way_is_noticed_in_what_is_small_and_whole() {
    let Some((proxy, store)) = behind_proxy("flipped", Settings::default().timeout).await else {
        return;
    };
    store.probe().await.unwrap();
    let body = Bytes::from(vec![7_u8; 100_000]);
    let wanted = write("k", body.len(), Expect::Absent);
    let validator = store.put(&wanted, vec![body.clone()]).await.unwrap().validator;
    for _ in 0..3 {
        proxy.break_next("GET", "/flipped/k", 1, Break::FlippedBit);
        let read = store.read("k", 0..100_000, &validator).await;
        assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
        assert_eq!(store.read("k", 0..100_000, &validator).await.unwrap(), body);
    }
    proxy.break_next("GET", "/flipped/k", 1, Break::FlippedBit);
    let peeked = store.peek("k", 1 << 20).await.unwrap().unwrap();
    assert_eq!((peeked.found.size, peeked.bytes), (100_000, None));
    let peeked = store.peek("k", 1 << 20).await.unwrap().unwrap();
    assert_eq!(peeked.bytes, Some(body.clone()));
    assert_eq!(proxy.hits(), 4);
    // What is sent in parts has no sum of its own, and of a range there is none.
    assert_eq!(store.read("k", 1..100_000, &validator).await.unwrap(), body.slice(1..));
    store.delete("k", &Expect::Match(validator)).await.unwrap();
}

#[tokio::test]
async fn the_end_of_an_upload_may_succeed_behind_any_answer() {
    let Some((proxy, store)) = broken("end").await else {
        return;
    };
    let answers = [
        Break::LostAnswer,
        Break::ErrorBody(true),
        Break::StatusAfter(404, "NoSuchUpload"),
        Break::StatusAfter(500, "InternalError"),
    ];
    for (at, breaks) in answers.into_iter().enumerate() {
        let wanted = write(&format!("k{at}"), 4, Expect::Absent);
        let upload = store.start(&wanted).await.unwrap();
        let part = store
            .part(&wanted, &upload, 0, 0, vec![Bytes::from_static(b"four")])
            .await
            .unwrap();
        proxy.break_next("POST", "uploadId", 1, breaks.clone());
        let answer = store.complete(&wanted, &upload, &[part]).await;
        let expected = matches!(answer, Err(StoreError::Unavailable(_) | StoreError::NotFound(_)));
        assert!(expected, "{breaks:?}: {answer:?}");
        let found = store.head(&wanted.key).await.unwrap().expect("it happened");
        assert_eq!(found.token.as_deref(), Some(wanted.token.as_str()), "{breaks:?}");
        assert!(store.uploads(&wanted.key).await.unwrap().is_empty());
        store.delete(&wanted.key, &Expect::Any).await.unwrap();
    }
}

#[tokio::test]
async fn a_short_or_stopped_read_is_never_taken_for_whole() {
    let Some((proxy, store)) = broken("short").await else {
        return;
    };
    let bytes = Bytes::from(vec![9_u8; 300_000]);
    let found = store
        .put(&write("k", 300_000, Expect::Any), vec![bytes.clone()])
        .await
        .unwrap();
    for breaks in [Break::ShortBody(1000), Break::ShortBody(0), Break::Hang] {
        proxy.break_next("GET", "/short/k", 1, breaks.clone());
        let answer = store.read("k", 0..300_000, &found.validator).await;
        let expected = matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Damaged(_)));
        assert!(expected, "{breaks:?}: {:?}", answer.map(|bytes| bytes.len()));
    }
    assert_eq!(store.read("k", 0..300_000, &found.validator).await.unwrap(), bytes);
    assert_eq!(proxy.hits(), 3);
    store.delete("k", &Expect::Any).await.unwrap();
}

#[tokio::test]
async fn names_stay_in_order_over_many_pages() {
    let Some((_proxy, store)) = broken("pages").await else {
        return;
    };
    // More than one page of a thousand, with directories whose names are prefixes of files'.
    let mut expected: Vec<String> = (0..1100).map(|index| format!("part-{index:05}.parquet")).collect();
    expected.extend(["part".into(), "part-00500".into(), "zz".into()]);
    let keys = expected.iter().map(|name| {
        if name.contains('.') {
            name.clone()
        } else {
            format!("{name}/x")
        }
    });
    let puts = keys.map(|key| {
        let store = Arc::clone(&store);
        async move { store.put(&write(&key, 0, Expect::Any), Vec::new()).await.unwrap() }
    });
    let _: Vec<_> = futures::stream::iter(puts).buffer_unordered(16).collect().await;
    expected.sort();
    let rows: Vec<_> = store.list("", None).collect().await;
    let names: Vec<String> = rows.into_iter().map(|row| row.unwrap().name).collect();
    assert_eq!(names, expected);
    let rows: Vec<_> = store.list("", Some("part-00499.parquet")).collect().await;
    assert_eq!(rows[0].as_ref().unwrap().name, "part-00500");
    let removes = expected.iter().map(|name| {
        let (store, key) = (
            Arc::clone(&store),
            if name.contains('.') {
                name.clone()
            } else {
                format!("{name}/x")
            },
        );
        async move { store.delete(&key, &Expect::Any).await.unwrap() }
    });
    let _: Vec<_> = futures::stream::iter(removes).buffer_unordered(16).collect().await;
}
