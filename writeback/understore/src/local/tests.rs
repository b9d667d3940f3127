use super::*;

fn store() -> (tempfile::TempDir, Local) {
    let folder = tempfile::tempdir().unwrap();
    let store = Local::new(folder.path().to_owned());
    (folder, store)
}

fn write(key: &str, bytes: &'static [u8]) -> (Write, Vec<Bytes>) {
    let write = Write {
        key: key.into(),
        size: bytes.len() as u64,
        token: "t-1".into(),
        attributes: vec![("mode".into(), "600".into()), ("colour".into(), "blue".into())],
        expect: Expect::Absent,
    };
    (write, vec![Bytes::from_static(bytes)])
}

#[tokio::test]
async fn a_local_folder_passes_the_conformance_suite() {
    let (folder, store) = store();
    crate::conformance::run(Arc::new(store)).await;
    let left: Vec<_> = fs::read_dir(folder.path().join(HIDDEN)).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_upload_is_never_there_without_its_key() {
    let (folder, store) = store();
    let hidden = folder.path().join(HIDDEN);
    let (wanted, _) = write("a/b", b"x");
    let ended = std::sync::atomic::AtomicBool::new(false);
    let (mut seen, mut unknown) = (0, Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20_000 {
                let (_, name) = store.folder.start(&wanted).unwrap();
                store.folder.forget("a/b", &name).unwrap();
            }
            ended.store(true, Ordering::Release);
        });
        while !ended.load(Ordering::Acquire) {
            for entry in fs::read_dir(&hidden).into_iter().flatten().flatten() {
                match sys::get_xattr(&entry.path(), b"user.forebay.key") {
                    Ok(_) => seen += 1,
                    Err(e) if e.raw_os_error() == Some(libc::ENODATA) => unknown.push(entry.file_name()),
                    Err(_) => {} // It is gone already.
                }
            }
        }
    });
    assert!(seen > 0, "nothing was looked at in time");
    assert_eq!(unknown.len(), 0, "{:?}", unknown.first());
}

#[tokio::test]
async fn mode_and_mtime_are_native_and_user_attributes_come_back() {
    let (folder, store) = store();
    let (mut wanted, chunks) = write("a/b", b"x");
    wanted.attributes.push(("mtime".into(), "1600000000000001".into()));
    store.put(&wanted, chunks).await.unwrap();
    let metadata = fs::metadata(folder.path().join("a/b")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_600_000_000, 1000));
    let found = store.head("a/b").await.unwrap().unwrap();
    assert!(
        found.attributes.contains(&("colour".into(), "blue".into())),
        "{:?}",
        found.attributes
    );
}

#[tokio::test]
async fn symbolic_links_are_neither_shown_nor_followed() {
    let (folder, store) = store();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"s").unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("way-out")).unwrap();
    assert_eq!(store.head("way-out").await.unwrap(), None);
    assert_eq!(store.head("way-out/secret").await.unwrap(), None);
    assert_eq!(store.list("", None).collect::<Vec<_>>().await.len(), 0);
    let (wanted, chunks) = write("way-out/new", b"x");
    let answer = store.put(&wanted, chunks).await;
    assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    let answer = store.read("way-out/secret", 0..1, &Validator(String::new())).await;
    assert!(answer.is_err(), "{answer:?}");
}

/// What stands in the store where we persist, with what it is called.
fn stand_in_the_way(at: &Path, kind: &str) {
    match kind {
        "a symbolic link" => std::os::unix::fs::symlink("nowhere", at).unwrap(),
        "a pipe" => {
            let name = std::ffi::CString::new(at.as_os_str().as_encoded_bytes()).unwrap();
            // SAFETY: the name ends in NUL.
            assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        }
        "a socket" => drop(std::os::unix::net::UnixListener::bind(at).unwrap()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_is_not_shown_blocks_its_name_until_it_is_removed() {
    for kind in ["a symbolic link", "a pipe", "a socket"] {
        let (folder, store) = store();
        let refused = |answer: Result<Found, StoreError>| match answer {
            Err(StoreError::Refused(why)) => assert!(why.contains(kind) && why.contains("remove or rename"), "{why}"),
            other => panic!("{kind}: {other:?}"),
        };
        let at = folder.path().join("a");
        stand_in_the_way(&at, kind);
        let (wanted, chunks) = write("a", b"one");
        refused(store.put(&wanted, chunks.clone()).await);
        let (below, of_below) = write("a/b", b"one");
        refused(store.put(&below, of_below).await);
        let upload = store.start(&wanted).await.unwrap();
        store.part(&wanted, &upload, 0, 0, chunks.clone()).await.unwrap();
        refused(store.complete(&wanted, &upload, &[]).await);
        let made = store.make_dir("a").await;
        assert!(
            matches!(&made, Err(StoreError::Refused(why)) if why.contains(kind)),
            "{made:?}"
        );
        store.delete("a", &Expect::Any).await.unwrap();
        store.remove_dir("a").await.unwrap();
        assert!(fs::symlink_metadata(&at).is_ok(), "{kind} is not ours to take away");
        fs::remove_file(&at).unwrap();
        store.complete(&wanted, &upload, &[]).await.unwrap();
        assert_eq!(fs::read(&at).unwrap(), b"one");
    }
}

#[tokio::test]
async fn what_is_no_folder_has_no_names() {
    let (folder, store) = store();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    link("/", "way-out");
    link("loop", "loop");
    fs::write(folder.path().join("file"), b"1").unwrap();
    for key in ["way-out", "way-out/etc", "loop", "loop/a", "file", "file/a", "nothing"] {
        let rows: Vec<_> = store.list(key, None).collect().await;
        assert!(rows.is_empty(), "{key}: {rows:?}");
        let is_folder = store.head(key).await.unwrap().is_some_and(|found| found.is_dir);
        assert!(!is_folder, "{key}");
    }
}

#[tokio::test]
async fn a_folder_that_is_away_is_unavailable_and_never_empty() {
    let (folder, store) = store();
    fs::remove_dir_all(folder.path()).unwrap();
    assert!(matches!(store.head("a").await, Err(StoreError::Unavailable(_))));
    let rows: Vec<_> = store.list("", None).collect().await;
    assert!(matches!(rows[..], [Err(StoreError::Unavailable(_))]), "{rows:?}");
}

#[tokio::test]
async fn another_file_system_in_its_place_is_not_the_store() {
    let (disk, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
    let at = disk.path().join("store");
    let (before, other) = (disk.path().join("before"), memory.path());
    fs::create_dir(&before).unwrap();
    std::os::unix::fs::symlink(&before, &at).unwrap();
    let store = Local::new(at.clone());
    let put = async || {
        let (wanted, chunks) = write("a", b"one");
        store.put(&wanted, chunks).await
    };
    put().await.unwrap();
    fs::remove_file(&at).unwrap();
    std::os::unix::fs::symlink(other, &at).unwrap();
    assert!(matches!(put().await, Err(StoreError::Unavailable(_))));
    assert_eq!(fs::read_dir(other).unwrap().count(), 0);
    fs::remove_file(&at).unwrap();
    std::os::unix::fs::symlink(&before, &at).unwrap();
    assert!(store.head("a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_rewrite_in_place_changes_the_validator() {
    let (folder, store) = store();
    let (wanted, chunks) = write("a", b"one");
    let before = store.put(&wanted, chunks).await.unwrap();
    fs::write(folder.path().join("a"), b"two").unwrap();
    let answer = store.read("a", 0..3, &before.validator).await;
    assert!(matches!(answer, Err(StoreError::Changed(_))), "{answer:?}");
}

#[tokio::test]
async fn a_rewrite_in_place_takes_the_token_away() {
    let (folder, store) = store();
    let (wanted, chunks) = write("a", b"one");
    store.put(&wanted, chunks).await.unwrap();
    let before = store.head("a").await.unwrap().unwrap();
    assert_eq!(before.token.as_deref(), Some(wanted.token.as_str()));
    fs::write(folder.path().join("a"), b"theirs").unwrap();
    let after = store.head("a").await.unwrap().unwrap();
    assert_eq!(after.token, None, "it stood for other bytes");
}

#[tokio::test]
async fn the_hidden_folder_is_out_of_reach() {
    let (_folder, store) = store();
    store.probe().await.unwrap();
    let (wanted, chunks) = write(".forebay-tmp/x", b"one");
    assert!(matches!(store.put(&wanted, chunks).await, Err(StoreError::Refused(_))));
    assert_eq!(store.head(".forebay-tmp").await.unwrap(), None);
    assert_eq!(store.list("", None).collect::<Vec<_>>().await.len(), 0);
    let upload = UploadId("../../etc/passwd".into());
    let (wanted, chunks) = write("a", b"one");
    assert!(matches!(
        store.part(&wanted, &upload, 0, 0, chunks).await,
        Err(StoreError::NotFound(_))
    ));
}

#[tokio::test]
async fn a_large_folder_is_listed_in_order_over_several_calls() {
    let (folder, store) = store();
    for index in 0..LISTED_PER_CALL * 2 + 10 {
        fs::write(folder.path().join(format!("f{index:04}")), b"").unwrap();
    }
    let rows: Vec<_> = store.list("", Some("f0003")).collect().await;
    let names: Vec<String> = rows.into_iter().map(|row| row.unwrap().name).collect();
    assert_eq!(names.len(), LISTED_PER_CALL * 2 + 6);
    assert!(names.is_sorted() && names[0] == "f0004");
}

#[test]
fn names_of_uploads_from_outside_are_checked() {
    for bad in ["", "a/b", "..", &"x".repeat(300)] {
        assert!(upload_name(&UploadId(bad.into())).is_err(), "{bad}");
    }
    assert!(Path::new("/proc/self/fd").exists());
}
