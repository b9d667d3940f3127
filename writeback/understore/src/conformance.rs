//! What every under-store must do, as one suite: each engine's tests run it, the real S3 too.
//!
//! It panics where a promise of the trait is broken. It works below a prefix of its own and leaves nothing behind.

use crate::{
    Expect, Found, PartId, StoreError, UnderStore, UnderStoreRef, Validator, Write,
    attributes::{MODE, MTIME, XATTRS},
    local::{HIDDEN, is_hidden},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use std::time::Duration;

const ROOT: &str = "forebay-conformance";

/// Runs the whole suite against `store`.
///
/// # Panics
/// When a promise is broken.
pub async fn run(store: UnderStoreRef) {
    let store = &*store;
    let capabilities = store.probe().await.expect("probe");
    assert!(
        store
            .uploads("")
            .await
            .expect("uploads")
            .iter()
            .all(|(key, _)| !key.starts_with(".forebay"))
    );
    clear(store).await;
    what_was_put_is_found_and_read(store, capabilities.metadata).await;
    a_peek_is_a_head(store).await;
    attributes_change_and_the_bytes_stay(store).await;
    expectations_hold(store).await;
    a_read_never_mixes_versions(store).await;
    parts_become_one_object(store, capabilities.part_bytes_min).await;
    an_aborted_upload_leaves_nothing(store).await;
    listings_are_in_byte_order(store).await;
    directories_come_and_go(store, capabilities.atomic_rename).await;
    a_directory_dates_its_names(store).await;
    an_object_does_not_hide_a_directory_of_its_name(store).await;
    odd_names_and_bad_keys(store).await;
    at_keys_of_ours_there_is_nothing(store).await;
    absence_is_not_an_error_where_it_is_fine(store).await;
    clear(store).await;
    assert_eq!(
        store.head(ROOT).await.expect("head").map(|found| found.is_dir),
        None,
        "something was left behind"
    );
}

fn key(name: &str) -> String {
    format!("{ROOT}/{name}")
}

fn write(name: &str, size: u64, token: &str, expect: Expect) -> Write {
    Write {
        key: key(name),
        size,
        token: token.into(),
        attributes: Vec::new(),
        expect,
    }
}

async fn put(store: &dyn UnderStore, name: &str, bytes: &'static [u8], expect: Expect) -> Result<Found, StoreError> {
    let token = format!("token-of-{}", bytes.len());
    store
        .put(
            &write(name, bytes.len() as u64, &token, expect),
            vec![Bytes::from_static(bytes)],
        )
        .await
}

async fn names(store: &dyn UnderStore, name: &str, after: Option<&str>) -> Vec<String> {
    store
        .list(&key(name), after)
        .map_ok(|row| row.name)
        .try_collect()
        .await
        .expect("list")
}

/// Removes everything below the suite's prefix.
async fn clear(store: &dyn UnderStore) {
    let mut folders = vec![ROOT.to_owned()];
    let mut seen = Vec::new();
    while let Some(folder) = folders.pop() {
        let rows: Vec<_> = store.list(&folder, None).collect().await;
        seen.push(folder.clone());
        for row in rows {
            let row = match row {
                Ok(row) => row,
                Err(StoreError::NotFound(_)) => continue,
                Err(error) => panic!("list {folder}: {error}"),
            };
            let path = format!("{folder}/{}", row.name);
            if row.found.is_dir {
                folders.push(path);
            } else {
                store.delete(&path, &Expect::Any).await.expect("delete");
            }
        }
    }
    for folder in seen.iter().rev() {
        store.remove_dir(folder).await.expect("remove_dir");
    }
}

/// What `peek` says is what `head` says; the bytes that come with it are the object's, and all of them.
async fn a_peek_is_a_head(store: &dyn UnderStore) {
    let mut wanted = write("peeked/small", 5, "its-token", Expect::Absent);
    wanted.attributes = vec![(MODE.into(), "640".into())];
    let bytes = Bytes::from_static(b"bytes");
    store.put(&wanted, vec![bytes.clone()]).await.expect("put");
    put(store, "peeked/empty", b"", Expect::Absent).await.expect("put");
    for (name, bytes_max, whole) in [
        ("peeked/small", 4, &b""[..]),
        ("peeked/small", 5, b"bytes"),
        ("peeked/small", 1 << 18, b"bytes"),
        ("peeked/empty", 5, b""),
        ("peeked", 5, b""),
        ("peeked/nothing", 5, b""),
        ("nothing", 5, b""),
    ] {
        let head = store.head(&key(name)).await.expect("head");
        let peeked = store.peek(&key(name), bytes_max).await.expect("peek");
        let (found, bytes) = peeked.map(|peeked| (peeked.found, peeked.bytes)).unzip();
        assert_eq!(found, head, "{name}");
        if let Some(bytes) = bytes.flatten() {
            assert_eq!(bytes, whole, "{name} of at most {bytes_max}");
            let size = head.map(|head| head.size);
            assert_eq!(size, Some(bytes.len() as u64), "{name} of at most {bytes_max}");
        }
    }
}

async fn attributes_change_and_the_bytes_stay(store: &dyn UnderStore) {
    let mut wanted = write("dressed", 5, "its-token", Expect::Absent);
    let of = |mode: &str, mtime: &str| vec![(MODE.into(), mode.into()), (MTIME.into(), mtime.into())];
    wanted.attributes = of("640", "1700000000123000");
    wanted.attributes.push((XATTRS.into(), "user.colour=blue".into()));
    let bytes = Bytes::from_static(b"bytes");
    let before = store.put(&wanted, vec![bytes.clone()]).await.expect("put");
    let known = store.head(&wanted.key).await.expect("head").expect("there");
    wanted.expect = Expect::Match(Validator("0-0".into()));
    let stale = store.set_attributes(&wanted).await;
    assert!(matches!(stale, Ok(None) | Err(StoreError::Changed(_))), "{stale:?}");
    wanted.expect = Expect::Match(before.validator);
    wanted.attributes = of("600", "1600000000456000");
    let changed = store.set_attributes(&wanted).await.expect("set_attributes");
    let found = store.head(&wanted.key).await.expect("head").expect("there");
    match changed {
        None => assert_eq!(found, known, "nothing was changed"),
        Some(changed) => {
            assert_eq!(
                changed.validator, found.validator,
                "it and head answer the same validator"
            );
            assert_eq!((found.token, found.size), (known.token, 5));
            let value = |name: &str| found.attributes.iter().find(|(known, _)| known == name);
            let value = |name: &str| value(name).map(|(_, value)| value.as_str());
            assert_eq!((value(MODE), value(MTIME)), (Some("600"), Some("1600000000456000")));
            assert_eq!(value(XATTRS), None, "what is not among them goes");
        }
    }
    let read = store.read(&wanted.key, 0..5, &found.validator).await.expect("read");
    assert_eq!(read, bytes);
    store
        .delete(&wanted.key, &Expect::Match(found.validator))
        .await
        .expect("delete");
}

async fn what_was_put_is_found_and_read(store: &dyn UnderStore, metadata: bool) {
    let mut wanted = write("dir/whole", 11, "the-token", Expect::Absent);
    wanted.attributes = vec![
        ("mode".into(), "640".into()),
        ("mtime".into(), "1700000000123456".into()),
    ];
    let chunks = vec![
        Bytes::from_static(b"hello "),
        Bytes::new(),
        Bytes::from_static(b"world"),
    ];
    let answered = store.put(&wanted, chunks).await.expect("put");
    let found = store.head(&wanted.key).await.expect("head").expect("there");
    assert_eq!((found.size, found.is_dir), (11, false));
    assert_eq!(
        found.validator, answered.validator,
        "put and head answer the same validator"
    );
    if metadata {
        assert_eq!(found.token.as_deref(), Some("the-token"));
        let has = |name: &str, value: &str| found.attributes.contains(&(name.to_owned(), value.to_owned()));
        assert!(
            has("mode", "640") && has("mtime", "1700000000123456"),
            "{:?}",
            found.attributes
        );
    }
    for (range, expected) in [
        (0..11, &b"hello world"[..]),
        (4..8, b"o wo"),
        (10..11, b"d"),
        (3..3, b""),
    ] {
        let read = store
            .read(&wanted.key, range.clone(), &found.validator)
            .await
            .expect("read");
        assert_eq!(&read[..], expected, "{range:?}");
    }
    let listed: Vec<_> = store.list(&key("dir"), None).try_collect().await.expect("list");
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].found.size), ("whole", 11));
    assert_eq!(
        listed[0].found.validator, found.validator,
        "list and head answer the same validator"
    );
    let empty = put(store, "empty", b"", Expect::Absent).await.expect("an empty object");
    assert_eq!(
        store
            .read(&key("empty"), 0..0, &empty.validator)
            .await
            .expect("read nothing")
            .len(),
        0
    );
    assert_eq!(store.head(&key("empty")).await.expect("head").expect("there").size, 0);
}

async fn expectations_hold(store: &dyn UnderStore) {
    let first = put(store, "expected", b"one", Expect::Absent)
        .await
        .expect("put where nothing is");
    let again = put(store, "expected", b"two!", Expect::Absent).await;
    assert!(
        matches!(again, Err(StoreError::Changed(_))),
        "put over something: {again:?}"
    );
    assert_eq!(
        &store
            .read(&key("expected"), 0..3, &first.validator)
            .await
            .expect("read")[..],
        b"one"
    );
    let second = put(store, "expected", b"second", Expect::Match(first.validator.clone()))
        .await
        .expect("put on a match");
    assert_ne!(first.validator, second.validator);
    let stale = put(store, "expected", b"third!!", Expect::Match(first.validator.clone())).await;
    assert!(
        matches!(stale, Err(StoreError::Changed(_))),
        "put on a stale validator: {stale:?}"
    );
    let missing = put(store, "never", b"x", Expect::Match(first.validator.clone())).await;
    assert!(
        matches!(missing, Err(StoreError::Changed(_))),
        "put on a match of nothing: {missing:?}"
    );
    assert_eq!(
        store.head(&key("never")).await.expect("head"),
        None,
        "nothing may be left of it"
    );
    let any = put(store, "expected", b"whatever", Expect::Any)
        .await
        .expect("put whatever is there");
    let stale = store.delete(&key("expected"), &Expect::Match(first.validator)).await;
    assert!(
        matches!(stale, Err(StoreError::Changed(_))),
        "delete on a stale validator: {stale:?}"
    );
    store
        .delete(&key("expected"), &Expect::Match(any.validator))
        .await
        .expect("delete on a match");
    assert_eq!(store.head(&key("expected")).await.expect("head"), None);
}

async fn a_read_never_mixes_versions(store: &dyn UnderStore) {
    let old = put(store, "version", b"old bytes", Expect::Absent).await.expect("put");
    put(store, "version", b"newer bytes", Expect::Any).await.expect("put");
    let read = store.read(&key("version"), 0..3, &old.validator).await;
    assert!(
        matches!(read, Err(StoreError::Changed(_))),
        "read with an old validator: {read:?}"
    );
    let gone = store.read(&key("not-there"), 0..3, &old.validator).await;
    assert!(
        matches!(gone, Err(StoreError::NotFound(_) | StoreError::Changed(_))),
        "{gone:?}"
    );
}

async fn parts_become_one_object(store: &dyn UnderStore, part_bytes_min: u64) {
    let part = usize::try_from(part_bytes_min.max(1000)).expect("a part fits memory");
    let bytes: Vec<u8> = (0..part * 2 + 77).map(|index| (index % 251) as u8).collect();
    let bytes = Bytes::from(bytes);
    let mut wanted = write("parts", bytes.len() as u64, "multi", Expect::Absent);
    let upload = store.start(&wanted).await.expect("start");
    assert_eq!(
        store.head(&wanted.key).await.expect("head"),
        None,
        "visible before complete"
    );
    let started = store.uploads(&wanted.key).await.expect("uploads");
    assert!(started.contains(&(wanted.key.clone(), upload.clone())), "{started:?}");
    let mut parts: Vec<PartId> = Vec::new();
    // Out of order, one of them twice.
    for index in [2_usize, 0, 1, 0] {
        let range = index * part..((index + 1) * part).min(bytes.len());
        let offset = range.start as u64;
        let chunks = vec![
            bytes.slice(range.start..range.start + 5),
            bytes.slice(range.start + 5..range.end),
        ];
        let id = store
            .part(&wanted, &upload, index as u32, offset, chunks)
            .await
            .expect("part");
        parts.retain(|part| part.index != id.index);
        parts.push(id);
    }
    parts.sort_by_key(|part| part.index);
    let found = store.complete(&wanted, &upload, &parts).await.expect("complete");
    let size = bytes.len() as u64;
    assert_eq!(
        &store.read(&wanted.key, 0..size, &found.validator).await.expect("read"),
        &bytes
    );
    let head = store.head(&wanted.key).await.expect("head").expect("there");
    assert_eq!((head.size, head.validator), (size, found.validator));
    assert_eq!(head.token.unwrap_or_else(|| "multi".into()), "multi");
    assert!(store.uploads(&wanted.key).await.expect("uploads").is_empty());

    // The same again where something is: refused at the end, and the object is untouched.
    wanted.token = "late".into();
    let upload = store.start(&wanted).await.expect("start");
    let mut late = Vec::new();
    for index in 0..3_usize {
        let range = index * part..((index + 1) * part).min(bytes.len());
        let offset = range.start as u64;
        late.push(
            store
                .part(&wanted, &upload, index as u32, offset, vec![bytes.slice(range)])
                .await
                .expect("part"),
        );
    }
    let refused = store.complete(&wanted, &upload, &late).await;
    assert!(
        matches!(refused, Err(StoreError::Changed(_))),
        "complete over something: {refused:?}"
    );
    store.abort(&wanted.key, &upload).await.expect("abort");
    let head = store.head(&wanted.key).await.expect("head").expect("there");
    assert_ne!(head.token.as_deref(), Some("late"));
}

async fn an_aborted_upload_leaves_nothing(store: &dyn UnderStore) {
    let wanted = write("aborted", 4, "t", Expect::Absent);
    let upload = store.start(&wanted).await.expect("start");
    store
        .part(&wanted, &upload, 0, 0, vec![Bytes::from_static(b"four")])
        .await
        .expect("part");
    store.abort(&wanted.key, &upload).await.expect("abort");
    store
        .abort(&wanted.key, &upload)
        .await
        .expect("abort of what is unknown");
    assert_eq!(store.head(&wanted.key).await.expect("head"), None);
    assert!(store.uploads(&wanted.key).await.expect("uploads").is_empty());
    let part = store
        .part(&wanted, &upload, 0, 0, vec![Bytes::from_static(b"four")])
        .await;
    assert!(part.is_err(), "a part of an aborted upload: {part:?}");
}

async fn listings_are_in_byte_order(store: &dyn UnderStore) {
    // `a` is a directory whose key sorts, with its slash, after `a-b` and `a.b`.
    let all = ["a-b", "a.b", "a/below", "a!", "aa", "b/x/y", "c", "Z", "é"];
    for name in all {
        put(store, &format!("order/{name}"), b"1", Expect::Absent)
            .await
            .expect("put");
    }
    let expected = ["Z", "a", "a!", "a-b", "a.b", "aa", "b", "c", "é"];
    assert_eq!(names(store, "order", None).await, expected);
    for (at, after) in expected.iter().enumerate() {
        assert_eq!(
            names(store, "order", Some(after)).await,
            expected[at + 1..],
            "after {after}"
        );
    }
    assert_eq!(
        names(store, "order", Some("b0")).await,
        ["c", "é"],
        "after a name that is not there"
    );
    let rows: Vec<_> = store.list(&key("order"), None).try_collect().await.expect("list");
    let dirs: Vec<&str> = rows
        .iter()
        .filter(|row| row.found.is_dir)
        .map(|row| row.name.as_str())
        .collect();
    assert_eq!(dirs, ["a", "b"]);
    assert!(store.head(&key("order/a")).await.expect("head").expect("there").is_dir);
    assert!(
        store
            .head("")
            .await
            .expect("head")
            .expect("the root is always there")
            .is_dir
    );
}

async fn directories_come_and_go(store: &dyn UnderStore, are_real: bool) {
    store.make_dir(&key("made")).await.expect("make_dir");
    store.make_dir(&key("made")).await.expect("make_dir again");
    assert!(store.head(&key("made")).await.expect("head").expect("there").is_dir);
    assert_eq!(names(store, "made", None).await, Vec::<String>::new());
    put(store, "made/x", b"1", Expect::Absent).await.expect("put");
    assert_eq!(names(store, "made", None).await, ["x"], "the marker is not a name");
    let full = store.remove_dir(&key("made")).await;
    assert!(
        matches!(full, Err(StoreError::Changed(_))),
        "remove_dir of a full directory: {full:?}"
    );
    let unmarked = store.unmark_dir(&key("made")).await.expect("unmark_dir");
    assert_eq!(
        store.unmark_dir(&key("made")).await.expect("unmark_dir again"),
        unmarked
    );
    assert_eq!(names(store, "made", None).await, ["x"]);
    store.delete(&key("made/x"), &Expect::Any).await.expect("delete");
    let left = store.head(&key("made")).await.expect("head");
    // Where a directory is only what lies under it, its marker is gone, or it was told that it is not: what is packed makes none.
    assert_eq!(left.is_some(), are_real || !unmarked, "{left:?}");
    store.make_dir(&key("made")).await.expect("make_dir");
    let unmarked = store.unmark_dir(&key("made")).await;
    assert_eq!(unmarked.expect("unmark_dir of an empty one"), are_real);
    let kept = store.head(&key("made")).await.expect("head").expect("there");
    assert!(kept.is_dir, "an empty directory keeps its marker");
    store.remove_dir(&key("made")).await.expect("remove_dir");
    store.remove_dir(&key("made")).await.expect("remove_dir of nothing");
    assert_eq!(store.head(&key("made")).await.expect("head"), None);
}

/// Where directories tell when a name came or went, they tell it of each.
async fn a_directory_dates_its_names(store: &dyn UnderStore) {
    if !store.dates_names() {
        return;
    }
    put(store, "dated/a", b"1", Expect::Absent).await.expect("put");
    let mut times = Vec::new();
    for step in 0..5 {
        // Times may be those of the kernel's clock, which goes in steps of some milliseconds.
        tokio::time::sleep(Duration::from_millis(50)).await;
        match step {
            0 => {}
            1 => drop(put(store, "dated/b", b"1", Expect::Absent).await.expect("put")),
            2 => store.make_dir(&key("dated/c")).await.expect("make_dir"),
            3 => store.remove_dir(&key("dated/c")).await.expect("remove_dir"),
            _ => store.delete(&key("dated/a"), &Expect::Any).await.expect("delete"),
        }
        let found = store.head(&key("dated")).await.expect("head").expect("there");
        times.push(found.mtime);
    }
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
}

async fn an_object_does_not_hide_a_directory_of_its_name(store: &dyn UnderStore) {
    put(store, "twice/a", b"1", Expect::Absent).await.expect("put");
    if store.make_dir(&key("twice/a")).await.is_ok() {
        put(store, "twice/a-b", b"1", Expect::Absent).await.expect("put");
        let rows: Vec<_> = store.list(&key("twice"), None).try_collect().await.expect("list");
        let rows: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.found.is_dir)).collect();
        assert_eq!(rows, [("a", false), ("a", true), ("a-b", false)]);
        assert_eq!(
            names(store, "twice", Some("a")).await,
            ["a-b"],
            "both come before the cursor"
        );
        store.remove_dir(&key("twice/a")).await.expect("remove_dir");
    }
    let found = store.head(&key("twice/a")).await.expect("head").expect("there");
    assert!(!found.is_dir, "the object stays");
}

async fn odd_names_and_bad_keys(store: &dyn UnderStore) {
    for name in [
        "with space",
        "plus+plus",
        "100%",
        "%41",
        "a=b&c?d#e",
        "q'\"<>`",
        "日本",
        "~tilde",
        "day=1",
        "back\\slash",
    ] {
        let found = match put(store, &format!("odd/{name}"), b"odd", Expect::Absent).await {
            Ok(found) => found,
            // One store takes it for a slash, and must say so instead.
            Err(StoreError::Refused(_)) if name.contains('\\') => continue,
            Err(error) => panic!("{name}: {error}"),
        };
        let read = store
            .read(&key(&format!("odd/{name}")), 0..3, &found.validator)
            .await
            .expect(name);
        assert_eq!(&read[..], b"odd", "{name}");
        assert!(
            names(store, "odd", None).await.iter().any(|listed| listed == name),
            "{name} is not listed"
        );
        store
            .delete(&key(&format!("odd/{name}")), &Expect::Match(found.validator))
            .await
            .expect(name);
    }
    for bad in ["../out", "a/../b", "a//b", "/a", "a/", "a/./b"] {
        assert!(
            matches!(store.head(bad).await, Err(StoreError::Refused(_))),
            "head of {bad}"
        );
        assert!(
            matches!(store.make_dir(bad).await, Err(StoreError::Refused(_))),
            "make_dir of {bad}"
        );
    }
}

/// What keeps the store's own things at the root of a mount is a name like any other below it.
async fn at_keys_of_ours_there_is_nothing(store: &dyn UnderStore) {
    for ours in [HIDDEN, ".forebay-tmp/below", ".forebay-probe", ".forebay-probe-x/below"] {
        assert_eq!(store.head(ours).await.expect(ours), None, "head of {ours}");
        assert_eq!(store.peek(ours, 5).await.expect(ours), None, "peek of {ours}");
        let rows: Vec<_> = store.list(ours, None).try_collect().await.expect(ours);
        assert_eq!(rows, [], "list of {ours}");
        let wanted = Write {
            key: ours.into(),
            ..write("", 1, "t", Expect::Absent)
        };
        let put = store.put(&wanted, vec![Bytes::from_static(b"1")]).await;
        assert!(matches!(put, Err(StoreError::Refused(_))), "put of {ours}: {put:?}");
        let started = store.start(&wanted).await;
        assert!(
            matches!(started, Err(StoreError::Refused(_))),
            "start of {ours}: {started:?}"
        );
        let made = store.make_dir(ours).await;
        assert!(
            matches!(made, Err(StoreError::Refused(_))),
            "make_dir of {ours}: {made:?}"
        );
        let deleted = store.delete(ours, &Expect::Any).await;
        assert!(
            matches!(deleted, Err(StoreError::Refused(_))),
            "delete of {ours}: {deleted:?}"
        );
        store.remove_dir(ours).await.expect(ours);
    }
    let root: Vec<_> = store.list("", None).try_collect().await.expect("list");
    assert!(root.iter().all(|row| !is_hidden(&row.name)), "{root:?}");
    let name = format!("deep/{HIDDEN}");
    put(store, &name, b"1", Expect::Absent).await.expect("put");
    assert!(store.head(&key(&name)).await.expect("head").is_some());
    assert_eq!(names(store, "deep", None).await, [HIDDEN]);
}

async fn absence_is_not_an_error_where_it_is_fine(store: &dyn UnderStore) {
    assert_eq!(store.head(&key("nowhere/at/all")).await.expect("head"), None);
    store
        .delete(&key("nowhere/at/all"), &Expect::Any)
        .await
        .expect("delete of nothing");
    store
        .remove_dir(&key("nowhere/at/all"))
        .await
        .expect("remove_dir of nothing");
    let rows: Vec<_> = store.list(&key("nowhere"), None).collect().await;
    assert!(
        rows.is_empty() || matches!(rows[0], Err(StoreError::NotFound(_))),
        "{rows:?}"
    );
}
