//! The promises of the `ObjectStore` trait, one by one.

use super::support::Server;
use crate::ForebayStore;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    Attribute, Attributes, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion, WriteMultipart,
    list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore},
    multipart::MultipartStore,
    path::Path,
};

async fn store(server: &Server) -> ForebayStore {
    ForebayStore::new(server.client().await)
}

async fn keys(store: &ForebayStore, prefix: Option<&str>) -> Vec<String> {
    let prefix = prefix.map(Path::from);
    let mut keys: Vec<String> = store
        .list(prefix.as_ref())
        .map_ok(|m| m.location.to_string())
        .try_collect()
        .await
        .unwrap();
    keys.sort();
    keys
}

async fn content(store: &ForebayStore, key: &str) -> Bytes {
    store
        .get(&Path::parse(key).unwrap())
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap()
}

#[tokio::test]
async fn objects_are_put_read_in_ranges_and_deleted() {
    let server = Server::start(false);
    let store = store(&server).await;
    let path = Path::from("a/b/data.bin");
    store
        .put(
            &path,
            PutPayload::from_iter([Bytes::from_static(b"arbitrary "), Bytes::from_static(b"data")]),
        )
        .await
        .unwrap();
    assert_eq!(content(&store, "a/b/data.bin").await, "arbitrary data");
    assert_eq!(store.get_range(&path, 3..7).await.unwrap(), "itra");
    assert_eq!(store.get_ranges(&path, &[0..2, 10..14]).await.unwrap(), ["ar", "data"]);
    let tail = GetOptions::new().with_range(Some(GetRange::Suffix(4)));
    assert_eq!(
        store.get_opts(&path, tail).await.unwrap().bytes().await.unwrap(),
        "data"
    );
    let from = GetOptions::new().with_range(Some(GetRange::Offset(10)));
    assert_eq!(
        store.get_opts(&path, from).await.unwrap().bytes().await.unwrap(),
        "data"
    );
    let beyond = GetOptions::new().with_range(Some(GetRange::Bounded(100..200)));
    assert!(store.get_opts(&path, beyond).await.is_err());
    let meta = store.head(&path).await.unwrap();
    assert_eq!((meta.size, meta.location), (14, path.clone()));
    store.delete(&path).await.unwrap();
    assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
    assert!(matches!(store.delete(&path).await, Err(Error::NotFound { .. })));
    store.put(&path, PutPayload::default()).await.unwrap();
    assert_eq!(content(&store, "a/b/data.bin").await, "");
}

#[tokio::test]
async fn a_create_fails_where_something_is_and_an_update_where_something_else_is() {
    let server = Server::start(false);
    let store = store(&server).await;
    let path = Path::from("once");
    let made = store.put_opts(&path, "a".into(), PutMode::Create.into()).await.unwrap();
    let again = store.put_opts(&path, "b".into(), PutMode::Create.into()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    assert_eq!(content(&store, "once").await, "a");
    let update = PutOptions::from(PutMode::Update(made.into()));
    let updated = store.put_opts(&path, "c".into(), update.clone()).await.unwrap();
    assert_eq!(store.head(&path).await.unwrap().e_tag, updated.e_tag);
    let late = store.put_opts(&path, "d".into(), update.clone()).await;
    assert!(matches!(late, Err(Error::Precondition { .. })), "{late:?}");
    let none = store.put_opts(&Path::from("none"), "d".into(), update).await;
    assert!(matches!(none, Err(Error::Precondition { .. })), "{none:?}");
    assert_eq!(content(&store, "once").await, "c");
    for (e_tag, version) in [(None, None), (updated.e_tag, Some("1".to_owned()))] {
        let update = PutOptions::from(PutMode::Update(UpdateVersion { e_tag, version }));
        assert!(store.put_opts(&path, "e".into(), update).await.is_err());
    }
    assert_eq!(
        (keys(&store, None).await, content(&store, "once").await),
        (vec!["once".into()], "c".into())
    );
}

#[tokio::test]
async fn what_a_put_tells_is_the_etag_of_its_own_content() {
    let server = Server::start(false);
    let store = store(&server).await;
    let path = Path::from("contended");
    let puts = (0..16_u8).map(|n| {
        let (store, path) = (&store, &path);
        async move { (n, store.put(path, vec![n].into()).await.unwrap().e_tag.unwrap()) }
    });
    let made = futures::future::join_all(puts).await;
    let (last, now) = (
        content(&store, "contended").await,
        store.head(&path).await.unwrap().e_tag.unwrap(),
    );
    let of_last: Vec<u8> = made
        .into_iter()
        .filter(|(_, tag)| *tag == now)
        .map(|(n, _)| n)
        .collect();
    assert_eq!(of_last, last, "the others were told of contents that are gone");

    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part("parts".into()).await.unwrap();
    let made = upload.complete().await.unwrap();
    assert_eq!(store.head(&path).await.unwrap().e_tag, made.e_tag);
}

#[tokio::test]
async fn attributes_come_and_go_with_the_content() {
    let server = Server::start(true);
    let store = store(&server).await;
    let path = Path::from("lake/typed");
    let typed = Attributes::from_iter([
        (Attribute::ContentType, "text/html; charset=utf-8"),
        (Attribute::Metadata("colour".into()), "dark  blue"),
    ]);
    let of = async |path: &str| store.get(&Path::from(path)).await.unwrap().attributes;
    store.put_opts(&path, "x".into(), typed.clone().into()).await.unwrap();
    assert_eq!(of("lake/typed").await, typed);
    // They go with the object, into the under-store too.
    store.copy(&path, &Path::from("lake/copy")).await.unwrap();
    store.rename(&path, &Path::from("lake/moved")).await.unwrap();
    let client = server.client().await;
    let wait = std::time::Duration::from_secs(30);
    client.wait_persisted("/lake", wait).await.unwrap();
    client.free("/lake").await.unwrap();
    assert_eq!(
        (of("lake/copy").await, of("lake/moved").await),
        (typed.clone(), typed.clone())
    );
    // Whatever is written next has its own, or none.
    let mut upload = store.put_multipart_opts(&path, typed.clone().into()).await.unwrap();
    upload.put_part("y".into()).await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(of("lake/typed").await, typed);
    store.put(&path, "z".into()).await.unwrap();
    assert_eq!(of("lake/typed").await, Attributes::default());
    let class = Attributes::from_iter([(Attribute::StorageClass, "cold")]);
    let refused = store.put_opts(&path, "x".into(), class.into()).await;
    assert!(matches!(refused, Err(Error::NotImplemented { .. })), "{refused:?}");
    assert_eq!(content(&store, "lake/typed").await, "z");
}

#[tokio::test]
async fn an_etag_changes_with_the_content_and_conditions_hold() {
    let server = Server::start(false);
    let store = store(&server).await;
    let path = Path::from("tagged");
    let first = store.put(&path, "one".into()).await.unwrap().e_tag.unwrap();
    assert_eq!(store.head(&path).await.unwrap().e_tag.as_ref(), Some(&first));
    let second = store.put(&path, "two".into()).await.unwrap().e_tag.unwrap();
    assert_ne!(first, second);
    let matches = |tag: &str| GetOptions::new().with_if_match(Some(tag.to_owned()));
    assert!(store.get_opts(&path, matches(&second)).await.is_ok());
    assert!(matches!(
        store.get_opts(&path, matches(&first)).await,
        Err(Error::Precondition { .. })
    ));
    let unless = GetOptions::new().with_if_none_match(Some(second));
    assert!(matches!(
        store.get_opts(&path, unless).await,
        Err(Error::NotModified { .. })
    ));
}

#[tokio::test]
async fn keys_are_listed_as_they_were_put() {
    let server = Server::start(false);
    let store = store(&server).await;
    let all = [
        "HELLO%2Ffoo.parquet",
        "%Q.parquet",
        "foo bar/I contain spaces",
        "foo/x.json",
        "foo.bar/y.json",
        "🇦🇺/$shenanigans@@~.txt",
    ];
    for key in all {
        store.put(&Path::parse(key).unwrap(), "x".into()).await.unwrap();
    }
    let mut expected: Vec<_> = all.map(str::to_owned).into();
    expected.sort();
    assert_eq!(keys(&store, None).await, expected);
    assert!(matches!(
        store.head(&Path::from("HELLO/foo.parquet")).await,
        Err(Error::NotFound { .. })
    ));
    // A prefix is whole components; a file has nothing under it.
    assert_eq!(keys(&store, Some("foo")).await, ["foo/x.json"]);
    assert!(keys(&store, Some("foo/x.json")).await.is_empty() && keys(&store, Some("none")).await.is_empty());
    let listed = store.list_with_delimiter(None).await.unwrap();
    let mut prefixes: Vec<_> = listed.common_prefixes.iter().map(Path::as_ref).collect();
    prefixes.sort_unstable();
    assert_eq!(prefixes, ["foo", "foo bar", "foo.bar", "🇦🇺"]);
    assert_eq!(listed.objects.len(), 2);
    let after: Vec<_> = store
        .list_with_offset(None, &Path::from("foo.bar/y.json"))
        .try_collect()
        .await
        .unwrap();
    assert!(
        after.iter().all(|m| m.location > Path::from("foo.bar/y.json")) && after.len() == 2,
        "{after:?}"
    );
}

#[tokio::test]
async fn many_are_deleted_and_each_answer_is_in_its_place() {
    let server = Server::start(false);
    let store = store(&server).await;
    for key in ["a", "c"] {
        store.put(&Path::from(key), "x".into()).await.unwrap();
    }
    let wanted = ["a", "b", "c"].map(Path::from);
    let answers: Vec<_> = store
        .delete_stream(stream::iter(wanted.clone()).map(Ok).boxed())
        .collect()
        .await;
    assert_eq!(answers[0].as_ref().unwrap(), &wanted[0]);
    assert!(matches!(answers[1], Err(Error::NotFound { .. })));
    assert_eq!(answers[2].as_ref().unwrap(), &wanted[2]);
}

#[tokio::test]
async fn copies_and_renames_replace_or_refuse() {
    let server = Server::start(false);
    let store = store(&server).await;
    let (cats, dogs, nested) = (Path::from("cats"), Path::from("dogs"), Path::from("new/nested/pets"));
    store.put(&cats, "cats".into()).await.unwrap();
    store.put(&dogs, "dogs".into()).await.unwrap();
    assert!(matches!(
        store.copy_if_not_exists(&cats, &dogs).await,
        Err(Error::AlreadyExists { .. })
    ));
    assert!(matches!(
        store.rename_if_not_exists(&cats, &dogs).await,
        Err(Error::AlreadyExists { .. })
    ));
    store.copy_if_not_exists(&cats, &nested).await.unwrap();
    assert_eq!(content(&store, "new/nested/pets").await, "cats");
    store.copy(&cats, &dogs).await.unwrap();
    assert_eq!(content(&store, "dogs").await, "cats");
    store.rename(&cats, &Path::from("other/cats")).await.unwrap();
    assert_eq!(keys(&store, None).await, ["dogs", "new/nested/pets", "other/cats"]);
    for answer in [store.copy(&cats, &dogs).await, store.rename(&cats, &dogs).await] {
        assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
    }
}

#[tokio::test]
async fn a_multipart_upload_is_visible_at_its_completion_only() {
    let server = Server::start(false);
    let store = store(&server).await;
    let path = Path::from("big/upload");
    let part = |k: u8| Bytes::from(vec![k; 3_000_000]);
    let mut upload = store.put_multipart(&path).await.unwrap();
    let (first, second) = (upload.put_part(part(1).into()), upload.put_part(part(2).into()));
    // Parts are in the order of the calls, in whatever order they are waited for.
    second.await.unwrap();
    assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
    first.await.unwrap();
    upload.complete().await.unwrap();
    assert!(content(&store, "big/upload").await == [part(1), part(2)].concat());

    let mut given_up = store.put_multipart(&path).await.unwrap();
    given_up.put_part(part(3).into()).await.unwrap();
    given_up.abort().await.unwrap();
    let mut dropped = store.put_multipart(&Path::from("dropped")).await.unwrap();
    dropped.put_part(part(3).into()).await.unwrap();
    drop(dropped);
    assert!(content(&store, "big/upload").await.len() == 6_000_000);
    assert_eq!(keys(&store, None).await, ["big/upload"]);

    let mut writer = WriteMultipart::new(store.put_multipart(&path).await.unwrap());
    for k in 0..20 {
        writer.wait_for_capacity(2).await.unwrap();
        writer.write(&vec![k; 1_000_000]);
    }
    writer.finish().await.unwrap();
    let expected: Vec<u8> = (0..20).flat_map(|k| vec![k; 1_000_000]).collect();
    assert!(content(&store, "big/upload").await == expected);
}

#[tokio::test]
async fn an_object_reaches_the_under_store_under_its_own_name() {
    let server = Server::start(true);
    let store = store(&server).await;
    store.put(&Path::from("lake/a/b"), "lake".into()).await.unwrap();
    server
        .client()
        .await
        .wait_persisted("/lake", std::time::Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(std::fs::read(server.lake().join("a/b")).unwrap(), b"lake");
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended() {
    let server = Server::start(false);
    let store = store(&server).await;
    let all = ["a/1", "a/2", "a.b", "ab/c/1", "ab/d", "b/x"];
    for key in all {
        store.put(&Path::from(key), "x".into()).await.unwrap();
    }
    let pages = async |prefix: &str, opts: PaginatedListOptions| {
        let (mut opts, mut found) = (opts, Vec::new());
        loop {
            let PaginatedListResult { result, page_token } =
                store.list_paginated(Some(prefix), opts.clone()).await.unwrap();
            let objects = result.objects.into_iter().map(|meta| meta.location.to_string());
            let prefixes = result.common_prefixes.into_iter().map(|prefix| format!("{prefix}/"));
            let page: Vec<_> = objects.chain(prefixes).collect();
            assert!(page.len() <= opts.max_keys.unwrap_or(1000), "{page:?}");
            found.extend(page);
            opts.page_token = page_token;
            if opts.page_token.is_none() {
                found.sort();
                return found.join(" ");
            }
        }
    };
    for most in [1, 2, 5, 1000] {
        let opts = PaginatedListOptions {
            max_keys: Some(most),
            ..PaginatedListOptions::default()
        };
        let folded = PaginatedListOptions {
            delimiter: Some("/".into()),
            ..opts.clone()
        };
        let behind = |offset: &str, opts: &PaginatedListOptions| PaginatedListOptions {
            offset: Some(offset.to_owned()),
            ..opts.clone()
        };
        for (prefix, opts, expected) in [
            ("", &opts, "a.b a/1 a/2 ab/c/1 ab/d b/x"),
            ("", &folded, "a.b a/ ab/ b/"),
            ("a", &opts, "a.b a/1 a/2 ab/c/1 ab/d"),
            ("a", &folded, "a.b a/ ab/"),
            ("a.", &opts, "a.b"),
            ("a.b", &opts, "a.b"),
            ("ab/", &folded, "ab/c/ ab/d"),
            ("ab/c", &folded, "ab/c/"),
            ("ab/c", &opts, "ab/c/1"),
            ("", &behind("a/1", &opts), "a/2 ab/c/1 ab/d b/x"),
            ("", &behind("a/1", &folded), "a/ ab/ b/"),
            ("", &behind("a0", &folded), "ab/ b/"),
            ("c", &opts, ""),
            ("b/x/", &opts, ""),
            ("/", &opts, ""),
        ] {
            assert_eq!(pages(prefix, opts.clone()).await, expected, "{prefix:?} {opts:?}");
        }
    }
    let other = PaginatedListOptions {
        delimiter: Some(".".into()),
        ..PaginatedListOptions::default()
    };
    assert!(matches!(
        store.list_paginated(None, other).await,
        Err(Error::NotImplemented { .. })
    ));
}

#[tokio::test]
async fn an_upload_goes_on_elsewhere_by_its_id_and_after_a_crash_of_the_server() {
    let mut server = Server::start(false);
    let here = store(&server).await;
    let path = Path::from("big/parts");
    here.put(&path, "before".into()).await.unwrap();
    let part = |k: u8, size: usize| PutPayload::from(vec![k; size]);
    let id = here.create_multipart(&path).await.unwrap();
    let last = here.put_part(&path, &id, 2, part(3, 7)).await.unwrap();
    let dropped = here.put_part(&path, &id, 0, part(9, 10)).await.unwrap();
    server.kill();
    server.restart();
    let there = store(&server).await;
    let first = there.put_part(&path, &id, 0, part(1, 5_000_000)).await.unwrap();
    let empty = there.put_part(&path, &id, 1, PutPayload::default()).await.unwrap();
    assert_eq!(content(&there, "big/parts").await, "before");
    assert_eq!(keys(&there, None).await, ["big/parts"]);
    let listed = there.list_with_delimiter(Some(&Path::from("big"))).await.unwrap();
    assert_eq!((listed.objects.len(), listed.common_prefixes.len()), (1, 0));

    let made = there
        .complete_multipart(&path, &id, vec![first, empty, last])
        .await
        .unwrap();
    assert_eq!(there.head(&path).await.unwrap().e_tag, made.e_tag);
    assert!(content(&there, "big/parts").await == [vec![1; 5_000_000], vec![3; 7]].concat());
    // With the upload all its parts have ended, those too that it did not take.
    let again = there.complete_multipart(&path, &id, vec![dropped]).await;
    assert!(matches!(again, Err(Error::Precondition { .. })), "{again:?}");
    assert_eq!(content(&there, "big/parts").await.len(), 5_000_007);
}

#[tokio::test]
async fn an_upload_that_is_aborted_leaves_nothing_but_what_was_there() {
    let server = Server::start(false);
    let store = store(&server).await;
    let path = Path::from("given/up");
    let id = store.create_multipart(&path).await.unwrap();
    let mut parts = Vec::new();
    for k in 0..3 {
        parts.push(store.put_part(&path, &id, k, vec![1; 1000].into()).await.unwrap());
    }
    store.abort_multipart(&path, &id).await.unwrap();
    assert!(keys(&store, None).await.is_empty());
    for part in parts {
        let late = store.complete_multipart(&path, &id, vec![part]).await;
        assert!(matches!(late, Err(Error::Precondition { .. })), "{late:?}");
    }
    assert!(matches!(store.head(&path).await, Err(Error::NotFound { .. })));
    // Nobody else's upload is taken for it.
    let other = store.create_multipart(&path).await.unwrap();
    let part = store.put_part(&path, &other, 0, "x".into()).await.unwrap();
    let mixed = store.complete_multipart(&path, &id, vec![part.clone()]).await;
    assert!(mixed.is_err(), "{mixed:?}");
    store.complete_multipart(&path, &other, vec![part]).await.unwrap();
    assert_eq!(content(&store, "given/up").await, "x");
}
