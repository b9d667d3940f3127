//! The volume without a kernel, over a cache on a folder of this machine.

use super::*;
use async_trait::async_trait;
use forebay_metastore::mem::MemStore;
use forebay_runtime::{chance::OsChance, clock::RealClock, disk::RealDisk, units::ByteSize};
use forebay_understore::{StoreError, UnderStoreRef};
use forebay_writeback::{
    Components, Settings, StoreOpener,
    file::{WriteFile, WriteMode},
    names::Rename,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::time::Instant;
use tempfile::TempDir;

const READ: i32 = libc::O_RDONLY;
const WRITE: i32 = libc::O_RDWR;
const NOBODY: Caller = Caller { uid: 0, gid: 0 };

#[derive(Debug)]
struct NoStores;

#[async_trait]
impl StoreOpener for NoStores {
    async fn open(&self, url: &str) -> Result<UnderStoreRef, StoreError> {
        Err(StoreError::Refused(url.into()))
    }
}

/// What outlives a cache.
struct World {
    folder: TempDir,
    meta: Arc<MemStore>,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            meta: MemStore::new(),
        }
    }

    async fn open(&self) -> (Cache, Arc<Volume>) {
        let cache = self.cache().await;
        let volume = Volume::new(cache.clone(), VolumeOptions::default());
        (cache, volume)
    }

    async fn cache(&self) -> Cache {
        self.cache_with(|_| {}).await
    }

    async fn cache_with(&self, set: impl FnOnce(&mut Settings)) -> Cache {
        let components = Components {
            disk: RealDisk::shared(),
            clock: RealClock::shared(),
            chance: OsChance::shared(),
            meta: self.meta.clone(),
            stores: Arc::new(NoStores),
        };
        let mut settings = Settings::new(self.folder.path());
        // The folder of a test may be anywhere.
        settings.ack = forebay_writeback::AckLevel::Memory;
        set(&mut settings);
        Cache::open(settings, components).await.unwrap()
    }
}

async fn create(volume: &Volume, name: &str) -> (NodeId, u64) {
    let (entry, opened) = volume
        .create(ROOT, name.as_bytes(), 0o644, WRITE, NOBODY)
        .await
        .unwrap();
    (entry.attr.node, opened.handle)
}

async fn write_file(volume: &Volume, name: &str, content: &[u8]) -> NodeId {
    let (node, handle) = create(volume, name).await;
    volume.write(handle, 0, content).await.unwrap();
    close(volume, handle).await;
    node
}

async fn close(volume: &Volume, handle: u64) {
    volume.flush(handle).await.unwrap();
    volume.release(handle).await.unwrap();
}

async fn content(volume: &Volume, node: NodeId) -> Vec<u8> {
    let opened = volume.open(node, READ).await.unwrap();
    let bytes = read_all(volume, opened.handle).await;
    close(volume, opened.handle).await;
    bytes
}

async fn read_all(volume: &Volume, handle: u64) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let bytes = volume.read(handle, all.len() as u64, 1 << 20).await.unwrap();
        if bytes.is_empty() {
            return all;
        }
        all.extend_from_slice(&bytes);
    }
}

async fn elsewhere(cache: &Cache, path: &str) -> Option<Vec<u8>> {
    let reader = cache.read_file(&at(path)).await.ok()?;
    Some(reader.read(0..reader.size()).await.unwrap().concat())
}

async fn put_elsewhere(cache: &Cache, path: &str, content: &'static [u8]) {
    let how = WriteFile {
        mode: WriteMode::Overwrite,
        ..WriteFile::default()
    };
    let mut writer = cache.write_file(&at(path), how).await.unwrap();
    writer.append(vec![content.into()]).await.unwrap();
    writer.commit().await.unwrap();
}

async fn names(volume: &Volume) -> Vec<String> {
    let handle = volume.opendir(ROOT).await.unwrap().handle;
    let mut names = Vec::new();
    let mut offset = 0;
    loop {
        let before = names.len();
        let taken = volume.readdir(handle, offset, true, |entry| {
            // Small answers, so that a listing takes many.
            if names.len() - before == 7 {
                return false;
            }
            offset = entry.offset;
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            true
        });
        taken.await.unwrap();
        if names.len() == before {
            break;
        }
    }
    volume.releasedir(handle);
    names.split_off(2)
}

fn at(path: &str) -> Path {
    Path::parse(path.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_is_here_at_once_and_at_other_doors_with_its_close() {
    let world = World::new();
    let (cache, volume) = world.open().await;
    let (node, handle) = create(&volume, "f").await;
    volume.write(handle, 0, b"hello").await.unwrap();
    assert_eq!(volume.lookup(ROOT, b"f").await.unwrap().attr.size, 5);
    assert_eq!(
        (names(&volume).await, elsewhere(&cache, "/f").await),
        (vec!["f".to_owned()], None)
    );
    volume.flush(handle).await.unwrap();
    assert_eq!(elsewhere(&cache, "/f").await.unwrap(), b"hello");
    volume.release(handle).await.unwrap();
    assert_eq!(content(&volume, node).await, b"hello");
    assert_eq!(names(&volume).await, ["f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_lost_its_name_goes_on_for_those_who_have_it_open() {
    let world = World::new();
    let (cache, volume) = world.open().await;
    let node = write_file(&volume, "f", b"before").await;
    let reader = volume.open(node, READ).await.unwrap();
    let writer = volume.open(node, WRITE).await.unwrap();
    volume.unlink(ROOT, b"f").await.unwrap();
    volume.write(writer.handle, 6, b" and after").await.unwrap();
    assert_eq!(read_all(&volume, reader.handle).await, b"before and after");
    assert_eq!(volume.getattr(node).await.unwrap().attr.nlink, 0);
    close(&volume, writer.handle).await;
    close(&volume, reader.handle).await;
    assert_eq!((elsewhere(&cache, "/f").await, names(&volume).await.len()), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_anywhere_are_what_a_plain_buffer_would_hold() {
    let seed: u64 = std::env::var("SEED").map_or_else(|_| rand::rng().random(), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut chance = SmallRng::seed_from_u64(seed);
    let world = World::new();
    let (cache, volume) = world.open().await;
    let (node, mut handle) = create(&volume, "f").await;
    let mut model: Vec<u8> = Vec::new();
    for step in 0..400_u32 {
        let offset = chance.random_range(0..3_000_000_usize);
        match chance.random_range(0..10) {
            0 => {
                model.resize(offset, 0);
                let change = SetAttr {
                    size: Some(offset as u64),
                    handle: Some(handle),
                    ..SetAttr::default()
                };
                volume.setattr(node, change).await.unwrap();
            }
            1 => volume.fsync(handle).await.unwrap(),
            2 => {
                close(&volume, handle).await;
                assert!(elsewhere(&cache, "/f").await.unwrap() == model, "step {step}");
                handle = volume.open(node, WRITE).await.unwrap().handle;
            }
            3 => {
                let end = (offset + 70_000).min(model.len());
                if offset < end {
                    model[offset..end].fill(0);
                }
                let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                let range = offset as u64..offset as u64 + 70_000;
                volume.fallocate(handle, range, punch).await.unwrap();
            }
            _ => {
                let data: Vec<u8> = (0..chance.random_range(1..100_000)).map(|_| chance.random()).collect();
                model.resize(model.len().max(offset + data.len()), 0);
                model[offset..offset + data.len()].copy_from_slice(&data);
                volume.write(handle, offset as u64, &data).await.unwrap();
            }
        }
        assert!(read_all(&volume, handle).await == model, "step {step}");
    }
    close(&volume, handle).await;
    assert!(elsewhere(&cache, "/f").await.unwrap() == model);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_door_replaces_is_another_file() {
    let world = World::new();
    let (cache, volume) = world.open().await;
    let kernel = Arc::new(KernelTold::default());
    let _observer = volume.follow_changes(kernel.clone());
    let old = write_file(&volume, "f", b"old").await;
    assert!(kernel.0.lock().is_empty(), "the kernel knows what it asked for");
    let opened = volume.open(old, READ).await.unwrap();
    put_elsewhere(&cache, "/f", b"new content").await;
    assert!(kernel.0.lock().contains(&"f".to_owned()));
    assert_eq!(read_all(&volume, opened.handle).await, b"old");
    let new = volume.lookup(ROOT, b"f").await.unwrap().attr;
    assert_ne!(new.node, old);
    assert_eq!(content(&volume, new.node).await, b"new content");
    close(&volume, opened.handle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_through_another_door_takes_open_files_along() {
    let world = World::new();
    let (cache, volume) = world.open().await;
    let _observer = volume.follow_changes(Arc::new(KernelTold::default()));
    let dir = volume.mkdir(ROOT, b"d", 0o755, NOBODY).await.unwrap().attr.node;
    let (_, opened) = volume.create(dir, b"f", 0o644, WRITE, NOBODY).await.unwrap();
    volume.write(opened.handle, 0, b"x").await.unwrap();
    cache.rename(&at("/d"), &at("/e"), Rename::default()).await.unwrap();
    close(&volume, opened.handle).await;
    assert_eq!(elsewhere(&cache, "/e/f").await.unwrap(), b"x");
    assert!(cache.stat(&at("/d")).await.is_err());
}

/// The volume is told of a rename after its commit, and a lookup may come between the two.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_looked_up_before_its_rename_was_told_stays() {
    let world = World::new();
    let (cache, volume) = world.open().await;
    cache.mkdir(&at("/d"), false).await.unwrap();
    cache.rename(&at("/d"), &at("/e"), Rename::default()).await.unwrap();
    let dir = volume.lookup(ROOT, b"e").await.unwrap().attr.node;
    let (_, opened) = volume.create(dir, b"f", 0o644, WRITE, NOBODY).await.unwrap();
    volume.write(opened.handle, 0, b"x").await.unwrap();
    let observer = volume.follow_changes(Arc::new(KernelTold::default()));
    let change = forebay_writeback::changes::Change::Renamed {
        from: at("/d"),
        to: at("/e"),
        exchange: false,
    };
    observer.changed(&change).await;
    close(&volume, opened.handle).await;
    assert_eq!(elsewhere(&cache, "/e/f").await.unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_that_was_synced_and_not_closed_outlives_the_process() {
    let world = World::new();
    let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    {
        let (cache, volume) = world.open().await;
        write_file(&volume, "changed", &data).await;
        let node = volume.lookup(ROOT, b"changed").await.unwrap().attr.node;
        let changed = volume.open(node, WRITE).await.unwrap().handle;
        volume.write(changed, 5, b"in the middle").await.unwrap();
        volume.fsync(changed).await.unwrap();
        assert_eq!(elsewhere(&cache, "/changed").await.unwrap(), data, "not closed");
        let (_, new) = create(&volume, "new").await;
        volume.write(new, 0, &data).await.unwrap();
        volume.fsync(new).await.unwrap();
        cache.shutdown().await;
    }
    let (cache, _) = world.open().await;
    let mut expected = data.clone();
    expected[5..18].copy_from_slice(b"in the middle");
    assert!(elsewhere(&cache, "/changed").await.unwrap() == expected);
    assert!(elsewhere(&cache, "/new").await.unwrap() == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_holds_every_name_once_and_begins_anew_when_it_is_rewound() {
    let world = World::new();
    let (_, volume) = world.open().await;
    let mut expected = Vec::new();
    for k in 0..40 {
        let name = format!("f{k:02}");
        write_file(&volume, &name, b"").await;
        expected.push(name);
    }
    let (_, pending) = create(&volume, "f10x").await;
    let mut listed = names(&volume).await;
    listed.sort();
    expected.push("f10x".into());
    expected.sort();
    assert_eq!(listed, expected);
    close(&volume, pending).await;
    assert_eq!(
        names(&volume).await,
        expected,
        "once it is placed it has its place among the others"
    );
}

/// What the kernel remembers of an earlier listing it does not ask for, and then goes on in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_begins_in_the_middle_misses_nothing_whatever_came_or_went() {
    let world = World::new();
    let (cache, volume) = world.open().await;
    for k in 0..40 {
        write_file(&volume, &format!("f{k:02}"), b"").await;
    }
    let (_, pending) = create(&volume, "f10x").await;
    let list = async |from: u64| {
        let handle = volume.opendir(ROOT).await.unwrap().handle;
        let mut listed = Vec::new();
        let take = |entry: &DirEntry<'_>| {
            listed.push((entry.offset, String::from_utf8(entry.name.to_vec()).unwrap()));
            true
        };
        volume.readdir(handle, from, false, take).await.unwrap();
        volume.releasedir(handle);
        listed
    };
    let whole = list(0).await;
    for (offset, _) in &whole {
        assert_eq!(list(*offset).await, whole[usize::try_from(*offset).unwrap()..]);
    }
    close(&volume, pending).await;
    cache.delete(&at("/f05"), false).await.unwrap();
    put_elsewhere(&cache, "/f01x", b"x").await;
    let middle: Vec<String> = list(20).await.into_iter().map(|(_, name)| name).collect();
    let mut expected: Vec<String> = whole[20..].iter().map(|(_, name)| name.clone()).collect();
    expected.insert(0, "f01x".into());
    assert_eq!(
        middle, expected,
        "what is new is shown, and the rest neither twice nor not at all"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_under_way_shows_what_was_changed_since_it_was_read() {
    let world = World::new();
    let (cache, volume) = world.open().await;
    let _observer = volume.follow_changes(Arc::new(KernelTold::default()));
    for k in 0..40 {
        write_file(&volume, &format!("f{k:02}"), b"").await;
    }
    let handle = volume.opendir(ROOT).await.unwrap().handle;
    let list = async |from: u64, count: usize| {
        let mut listed = Vec::new();
        let take = |entry: &DirEntry<'_>| {
            let room = listed.len() < count;
            if room {
                listed.push((String::from_utf8(entry.name.to_vec()).unwrap(), entry.entry.attr.size));
            }
            room
        };
        volume.readdir(handle, from, true, take).await.unwrap();
        listed
    };
    assert_eq!(list(0, 12).await.last().unwrap().0, "f09");
    cache.delete(&at("/f20"), false).await.unwrap();
    put_elsewhere(&cache, "/f21", b"by another door").await;
    let node = volume.lookup(ROOT, b"f22").await.unwrap().attr.node;
    let opened = volume.open(node, WRITE).await.unwrap();
    volume.write(opened.handle, 0, b"here").await.unwrap();
    close(&volume, opened.handle).await;
    volume.rename((ROOT, b"f23"), (ROOT, b"f23x"), 0).await.unwrap();
    let mut expected: Vec<_> = (10..40).map(|k| (format!("f{k:02}"), 0)).collect();
    (expected[11].1, expected[12].1, expected[13].0) = (15, 4, "f23x".into());
    expected.remove(10);
    assert_eq!(list(12, usize::MAX).await, expected);
    volume.releasedir(handle);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_forgotten_when_the_kernel_lets_go_of_them() {
    let world = World::new();
    let (_, volume) = world.open().await;
    let node = write_file(&volume, "f", b"x").await;
    assert_eq!(volume.known_nodes(), 2);
    volume.lookup(ROOT, b"f").await.unwrap();
    volume.forget(node, 2);
    assert_eq!(volume.known_nodes(), 1);
    assert_eq!(volume.lookup(ROOT, b"f").await.unwrap().attr.size, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_knows_too_many_names_lets_go_of_what_is_not_open() {
    let world = World::new();
    let (_, volume) = world.open().await;
    let kernel = Arc::new(KernelTold::default());
    let _observer = volume.follow_changes(Arc::clone(&kernel) as Arc<dyn Invalidate>);
    write_file(&volume, "f0", b"x").await;
    let (_, open) = create(&volume, "f1").await;
    write_file(&volume, "f2", b"x").await;
    volume.limit_names(volume.known_nodes());
    assert!(kernel.0.lock().is_empty(), "it may know so many");
    volume.limit_names(volume.known_nodes() - 1);
    assert_eq!(*kernel.0.lock(), ["f0", "f2"]);
    close(&volume, open).await;
}

/// What another door may do to a file that is open here.
#[derive(Clone, Copy, Debug)]
enum Elsewhere {
    Overwrite,
    Append,
    Truncate,
    Delete,
    DeleteAndPut,
    RenameOver,
    DeleteDirectory,
}

const ELSEWHERE: [Elsewhere; 7] = [
    Elsewhere::Overwrite,
    Elsewhere::Append,
    Elsewhere::Truncate,
    Elsewhere::Delete,
    Elsewhere::DeleteAndPut,
    Elsewhere::RenameOver,
    Elsewhere::DeleteDirectory,
];

impl Elsewhere {
    /// Does it to `/d/f`. Answers what is there then.
    async fn act(self, cache: &Cache) -> Option<Vec<u8>> {
        match self {
            Elsewhere::Overwrite => put_elsewhere(cache, "/d/f", b"theirs").await,
            Elsewhere::Append => {
                let how = WriteFile {
                    mode: WriteMode::Append,
                    ..WriteFile::default()
                };
                let mut writer = cache.write_file(&at("/d/f"), how).await.unwrap();
                writer.append(vec![b"+theirs"[..].into()]).await.unwrap();
                writer.commit().await.unwrap();
            }
            Elsewhere::Truncate => cache.truncate(&at("/d/f"), 2).await.unwrap(),
            Elsewhere::Delete => cache.delete(&at("/d/f"), false).await.unwrap(),
            Elsewhere::DeleteAndPut => {
                cache.delete(&at("/d/f"), false).await.unwrap();
                put_elsewhere(cache, "/d/f", b"theirs").await;
            }
            Elsewhere::RenameOver => {
                put_elsewhere(cache, "/other", b"theirs").await;
                let how = Rename {
                    replace: true,
                    ..Rename::default()
                };
                cache.rename(&at("/other"), &at("/d/f"), how).await.unwrap();
            }
            Elsewhere::DeleteDirectory => cache.delete(&at("/d"), true).await.unwrap(),
        }
        elsewhere(cache, "/d/f").await
    }
}

/// A volume that follows changes, with a file `/d/f` of this content; its node.
async fn with_file(
    world: &World,
    content: &[u8],
) -> (
    Cache,
    Arc<Volume>,
    Arc<dyn forebay_writeback::changes::Observer>,
    NodeId,
) {
    let (cache, volume) = world.open().await;
    let observer = volume.follow_changes(Arc::new(KernelTold::default()));
    let dir = volume.mkdir(ROOT, b"d", 0o755, NOBODY).await.unwrap().attr.node;
    let (entry, opened) = volume.create(dir, b"f", 0o640, WRITE, NOBODY).await.unwrap();
    volume.write(opened.handle, 0, content).await.unwrap();
    close(&volume, opened.handle).await;
    (cache, volume, observer, entry.attr.node)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_keeps_its_content_and_attributes_whatever_another_door_does_with_its_name() {
    for change in ELSEWHERE {
        let world = World::new();
        let (cache, volume, _observer, node) = with_file(&world, b"0123456789").await;
        let before = volume.getattr(node).await.unwrap().attr;
        let opened = volume.open(node, READ).await.unwrap();
        change.act(&cache).await;
        assert_eq!(read_all(&volume, opened.handle).await, b"0123456789", "{change:?}");
        let after = volume.getattr(node).await.unwrap().attr;
        assert_eq!(
            (after.size, after.mode, after.mtime, after.nlink),
            (10, 0o640, before.mtime, 0),
            "{change:?}"
        );
        close(&volume, opened.handle).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_to_a_file_that_another_door_changed_are_refused_and_not_dropped() {
    for change in ELSEWHERE {
        for written_before in [false, true] {
            let world = World::new();
            let (cache, volume, _observer, node) = with_file(&world, b"0123456789").await;
            let handle = volume.open(node, WRITE).await.unwrap().handle;
            if written_before {
                volume.write(handle, 0, b"early").await.unwrap();
            }
            let theirs = change.act(&cache).await;
            volume.write(handle, 3, b"late").await.unwrap();
            assert_eq!(volume.fsync(handle).await, Err(Errno(libc::ESTALE)), "{change:?}");
            assert_eq!(volume.flush(handle).await, Err(Errno(libc::ESTALE)), "{change:?}");
            assert_eq!(read_all(&volume, handle).await.get(3..7).unwrap(), b"late");
            volume.release(handle).await.unwrap_err();
            assert_eq!(elsewhere(&cache, "/d/f").await, theirs, "{change:?}");
            assert!(volume.files.lock().is_empty(), "{change:?}: nothing of it stays");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_placed_before_another_door_came_is_no_reason_to_refuse() {
    for change in ELSEWHERE {
        let world = World::new();
        let (cache, volume, _observer, node) = with_file(&world, b"0123456789").await;
        let handle = volume.open(node, WRITE).await.unwrap().handle;
        volume.write(handle, 0, b"placed").await.unwrap();
        volume.fsync(handle).await.unwrap();
        let theirs = change.act(&cache).await;
        close(&volume, handle).await;
        assert_eq!(elsewhere(&cache, "/d/f").await, theirs, "{change:?}");
    }
}

/// The volume is told of a change after its commit; whoever closes between the two must not undo it.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_nobody_told_of_yet_is_not_overwritten_by_a_close() {
    for size in [10, 3_000_000] {
        for change in ELSEWHERE {
            let world = World::new();
            let (cache, volume) = world.open().await;
            let dir = volume.mkdir(ROOT, b"d", 0o755, NOBODY).await.unwrap().attr.node;
            let (_, created) = volume.create(dir, b"f", 0o640, WRITE, NOBODY).await.unwrap();
            volume.write(created.handle, 0, &vec![7; size]).await.unwrap();
            close(&volume, created.handle).await;
            let node = volume.lookup(dir, b"f").await.unwrap().attr.node;
            let handle = volume.open(node, WRITE).await.unwrap().handle;
            volume.write(handle, 3, b"late").await.unwrap();
            let theirs = change.act(&cache).await;
            assert_eq!(
                volume.flush(handle).await,
                Err(Errno(libc::ESTALE)),
                "{change:?} {size}"
            );
            assert_eq!(elsewhere(&cache, "/d/f").await, theirs, "{change:?} {size}");
            volume.release(handle).await.unwrap_err();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_door_created_first_is_theirs() {
    for size in [5, 3_000_000] {
        for synced_before in [false, true] {
            let world = World::new();
            let (cache, volume) = world.open().await;
            let _observer = volume.follow_changes(Arc::new(KernelTold::default()));
            let (node, handle) = create(&volume, "f").await;
            volume.write(handle, 0, &vec![7; size]).await.unwrap();
            if synced_before {
                volume.fsync(handle).await.unwrap();
            }
            put_elsewhere(&cache, "/f", b"theirs").await;
            volume.write(handle, 0, b"late").await.unwrap();
            assert_eq!(volume.fsync(handle).await, Err(Errno(libc::ESTALE)));
            assert_eq!(volume.flush(handle).await, Err(Errno(libc::ESTALE)));
            volume.release(handle).await.unwrap_err();
            assert_eq!(elsewhere(&cache, "/f").await.unwrap(), b"theirs");
            let found = volume.lookup(ROOT, b"f").await.unwrap().attr.node;
            assert!(found != node);
            assert_eq!(content(&volume, found).await, b"theirs");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_created_stays_when_its_directory_is_looked_at_again() {
    let world = World::new();
    let (cache, volume) = world.open().await;
    let observer = volume.follow_changes(Arc::new(KernelTold::default()));
    let (_, handle) = create(&volume, "f").await;
    volume.write(handle, 0, b"mine").await.unwrap();
    let change = forebay_writeback::changes::Change::Under(at("/"));
    observer.changed(&change).await;
    close(&volume, handle).await;
    assert_eq!(elsewhere(&cache, "/f").await.unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_opened_a_node_is_read_as_it_was_looked_up() {
    for size in [10, 3_000_000] {
        for read_before in [false, true] {
            for change in ELSEWHERE {
                let world = World::new();
                let cache = world.cache().await;
                cache.mkdir(&at("/d"), false).await.unwrap();
                let content: &'static [u8] = vec![7; size].leak();
                put_elsewhere(&cache, "/d/f", content).await;
                let options = VolumeOptions {
                    mode: Mode::Dataset,
                    ..VolumeOptions::default()
                };
                let volume = Volume::new(cache.clone(), options);
                let kernel = Arc::new(KernelTold::default());
                let _observer = volume.follow_changes(kernel.clone());
                let dir = volume.lookup(ROOT, b"d").await.unwrap().attr.node;
                let before = volume.lookup(dir, b"f").await.unwrap().attr;
                let read = async || {
                    volume
                        .read_node(before.node, 0, u32::MAX)
                        .await
                        .map(|bytes| bytes == content)
                };
                if read_before {
                    assert_eq!(read().await, Ok(true));
                }
                let theirs = change.act(&cache).await;
                assert_eq!(read().await, Ok(true), "{change:?} {size}");
                let after = volume.getattr(before.node).await.unwrap().attr;
                assert_eq!(
                    (after.size, after.mtime, after.nlink),
                    (size as u64, before.mtime, 0),
                    "{change:?}"
                );
                if let Some(theirs) = theirs {
                    let now = volume.lookup(dir, b"f").await.unwrap().attr.node;
                    assert_ne!(now, before.node);
                    assert!(volume.read_node(now, 0, u32::MAX).await.unwrap() == theirs);
                }
                volume.forget(before.node, 1);
                assert!(
                    volume.open_file(before.node).is_none(),
                    "its bytes are not held any longer"
                );
            }
        }
    }
}

/// A volume whose cache is full of dirty bytes, up to a few; and how long a writer waits for more. `/cached` and `/d` are there.
async fn at_the_limit(world: &World, stall: Duration) -> Arc<Volume> {
    let cache = world
        .cache_with(|settings| {
            settings.dirty_max = Some(ByteSize(100_000));
            settings.stall_max = stall;
        })
        .await;
    let volume = Volume::new(cache, VolumeOptions::default());
    write_file(&volume, "cached", b"cached").await;
    volume.mkdir(ROOT, b"d", 0o755, NOBODY).await.unwrap();
    write_file(&volume, "fill", &[7; 99_000]).await;
    volume
}

async fn soon<T>(what: &str, done: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(5), done).await;
    done.unwrap_or_else(|_| panic!("it waits for room: {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_room_holds_nobody_up_and_a_close_is_refused_once() {
    let world = World::new();
    let stall = Duration::from_secs(15);
    let volume = at_the_limit(&world, stall).await;
    let began = Instant::now();
    let (node, handle) = create(&volume, "f").await;
    volume.write(handle, 0, &[1; 50_000]).await.unwrap();
    let closing = tokio::spawn({
        let volume = Arc::clone(&volume);
        async move { (volume.flush(handle).await, volume.release(handle).await) }
    });
    // One that is renamed before it is placed waits for the same.
    let (_, pending) = create(&volume, "pending").await;
    volume.write(pending, 0, &[2; 50_000]).await.unwrap();
    let moving = tokio::spawn({
        let volume = Arc::clone(&volume);
        async move { volume.rename((ROOT, b"pending"), (ROOT, b"moved"), 0).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    for turn in 0..2 {
        let (from, to) = [(b"d", b"e"), (b"e", b"d")][turn];
        soon("rename", volume.rename((ROOT, from), (ROOT, to), 0))
            .await
            .unwrap();
        let cached = soon("lookup", volume.lookup(ROOT, b"cached")).await.unwrap().attr.node;
        assert_eq!(soon("read", content(&volume, cached)).await, b"cached");
        soon("list", names(&volume)).await;
        soon("stat", volume.getattr(node)).await.unwrap();
        assert_eq!(soon("open", content(&volume, node)).await, [1; 50_000]);
    }
    assert!(!closing.is_finished() && !moving.is_finished() && began.elapsed() < stall);
    let full = Err(Errno(libc::ENOSPC));
    assert_eq!(closing.await.unwrap(), (full, full));
    assert!(began.elapsed() < stall * 2, "a release waits no second time");
    assert_eq!(moving.await.unwrap(), full);
    assert_eq!(
        volume.lookup(ROOT, b"f").await,
        Err(Errno(libc::ENOENT)),
        "it is given up"
    );
    soon("release", volume.release(pending)).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_goes_on_with_the_room_that_becomes_free() {
    let world = World::new();
    let volume = at_the_limit(&world, Duration::from_secs(60)).await;
    let (_, handle) = create(&volume, "f").await;
    volume.write(handle, 0, &[1; 50_000]).await.unwrap();
    let closing = tokio::spawn({
        let volume = Arc::clone(&volume);
        async move { close(&volume, handle).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!closing.is_finished());
    // It grows meanwhile, so that what was waited for is not enough.
    let node = volume.lookup(ROOT, b"f").await.unwrap().attr.node;
    let other = volume.open(node, WRITE).await.unwrap().handle;
    volume.write(other, 50_000, &[1; 10_000]).await.unwrap();
    volume.unlink(ROOT, b"fill").await.unwrap();
    soon("close", closing).await.unwrap();
    soon("close of the other one", close(&volume, other)).await;
    assert_eq!(content(&volume, node).await, [1; 60_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_ends_waits_for_room_for_a_short_while() {
    let world = World::new();
    let volume = at_the_limit(&world, Duration::from_secs(60)).await;
    for name in ["f", "g"] {
        let (_, handle) = create(&volume, name).await;
        volume.write(handle, 0, &[1; 50_000]).await.unwrap();
    }
    let ended = tokio::time::timeout(Duration::from_secs(15), volume.settle_all()).await;
    ended.expect("it waits no longer, for all files together");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_draft_that_waits_for_room_is_read_meanwhile() {
    let world = World::new();
    let cache = world
        .cache_with(|settings| {
            settings.dirty_max = Some(ByteSize(3 << 20));
            settings.stall_max = Duration::from_secs(60);
        })
        .await;
    let volume = Volume::new(cache, VolumeOptions::default());
    let (_, handle) = create(&volume, "f").await;
    volume.write(handle, 0, &[1; 2 << 20]).await.unwrap();
    write_file(&volume, "fill", &[7; 1 << 20]).await;
    let writing = tokio::spawn({
        let volume = Arc::clone(&volume);
        async move { volume.write(handle, 2 << 20, &[2; 1 << 20]).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!writing.is_finished());
    assert_eq!(soon("read", read_all(&volume, handle)).await, [1; 2 << 20]);
    soon("fsync", volume.fsync(handle)).await.unwrap();
    volume.unlink(ROOT, b"fill").await.unwrap();
    soon("write", writing).await.unwrap().unwrap();
    soon("close", close(&volume, handle)).await;
    assert_eq!(volume.lookup(ROOT, b"f").await.unwrap().attr.size, 3 << 20);
}

/// The kernel of a mount, which takes no note of a name in a directory while it waits for the answer to a change there.
#[derive(Debug, Default)]
struct LockingKernel {
    held: Mutex<Vec<NodeId>>,
    waiting: Mutex<Vec<(Note, Told)>>,
    took: Mutex<Vec<String>>,
}

impl LockingKernel {
    fn take(&self, note: &Note) {
        if let Note::Name(_, name) = note {
            self.took.lock().push(String::from_utf8_lossy(name).into_owned());
        }
    }

    async fn rename(&self, volume: &Volume, dir: NodeId, from: &[u8], to: &[u8]) -> Result<()> {
        self.held.lock().push(dir);
        let renamed = volume.rename((dir, from), (dir, to), 0).await;
        self.held.lock().clear();
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.iter().for_each(|(note, _)| self.take(note));
        renamed
    }
}

impl Invalidate for LockingKernel {
    fn tell(&self, note: Note, told: Told) {
        if let Note::Name(dir, _) = note
            && self.held.lock().contains(&dir)
        {
            return self.waiting.lock().push((note, told));
        }
        self.take(&note);
    }

    fn forget(&self, _names: Vec<(NodeId, Arc<[u8]>)>) {}

    fn is_forgetting(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_mounts_that_rename_in_one_directory_do_not_wait_for_each_other() {
    const RENAMES: usize = 30;
    let world = World::new();
    let cache = world.cache().await;
    cache.mkdir(&at("/d"), false).await.unwrap();
    let mut mounts = Vec::new();
    for name in ["a0", "b0"] {
        cache.mkdir(&at(&format!("/d/{name}")), false).await.unwrap();
    }
    for _ in 0..2 {
        let volume = Volume::new(cache.clone(), VolumeOptions::default());
        let kernel = Arc::new(LockingKernel::default());
        let observer = volume.follow_changes(Arc::clone(&kernel) as Arc<dyn Invalidate>);
        let dir = volume.lookup(ROOT, b"d").await.unwrap().attr.node;
        for name in [&b"a0"[..], b"b0"] {
            volume.lookup(dir, name).await.unwrap();
        }
        mounts.push((volume, kernel, dir, observer));
    }
    let began = Instant::now();
    let movers = ["a", "b"]
        .into_iter()
        .zip(&mounts)
        .map(|(name, (volume, kernel, dir, _))| {
            let (volume, kernel, dir) = (Arc::clone(volume), Arc::clone(kernel), *dir);
            tokio::spawn(async move {
                for k in 0..RENAMES {
                    let (from, to) = (format!("{name}{k}"), format!("{name}{}", k + 1));
                    let renamed = kernel.rename(&volume, dir, from.as_bytes(), to.as_bytes());
                    renamed.await.unwrap();
                }
            })
        });
    for mover in movers.collect::<Vec<_>>() {
        mover.await.unwrap();
    }
    assert!(
        began.elapsed() < Duration::from_millis(500) * RENAMES as u32,
        "they waited for each other: {:?}",
        began.elapsed()
    );
    for ((_, kernel, _, _), other) in mounts.iter().zip(["b", "a"]) {
        let took = kernel.took.lock();
        for k in 0..RENAMES {
            assert!(
                took.contains(&format!("{other}{k}")),
                "{other}{k}: the kernel was never told"
            );
        }
    }
}

/// A door that holds no directory is acknowledged when the kernel has taken note, also where it has to wait for a change of the mount.
#[tokio::test(flavor = "multi_thread")]
async fn another_door_waits_until_a_change_in_the_same_directory_is_answered() {
    let world = World::new();
    let (cache, volume) = world.open().await;
    let kernel = Arc::new(KernelTold::default());
    let _observer = volume.follow_changes(Arc::clone(&kernel) as Arc<dyn Invalidate>);
    write_file(&volume, "f", b"x").await;
    let busy = volume.begin_in([ROOT]);
    let deleting = tokio::spawn({
        let cache = cache.clone();
        async move { cache.delete(&at("/f"), false).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!deleting.is_finished() && kernel.0.lock().is_empty());
    drop(busy);
    deleting.await.unwrap().unwrap();
    assert_eq!(*kernel.0.lock(), ["f"]);
}

/// Names that the kernel was told of.
#[derive(Debug, Default)]
struct KernelTold(Mutex<Vec<String>>);

impl Invalidate for KernelTold {
    fn tell(&self, note: Note, _told: Told) {
        if let Note::Name(_, name) = note {
            self.0.lock().push(String::from_utf8_lossy(&name).into_owned());
        }
    }

    fn forget(&self, names: Vec<(NodeId, Arc<[u8]>)>) {
        let names = names.iter().map(|(_, name)| String::from_utf8_lossy(name).into_owned());
        self.0.lock().extend(names);
    }

    fn is_forgetting(&self) -> bool {
        false
    }
}
