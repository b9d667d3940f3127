use super::*;
use crate::{
    conformance,
    local::Local,
    memory::{Call, Fault, Memory},
};
use forebay_runtime::{
    chance::{Chance, SeededChance},
    clock::{SimClock, Timestamp},
};
use futures::{TryStreamExt, future::join_all};
use std::{collections::BTreeMap, time::Duration};

fn packed(store: &Memory) -> Packed {
    let clock = SimClock::new(Timestamp(1_700_000_000_000_000));
    Packed::new(Arc::new(store.clone()), Arc::new(store.clone()), clock)
}

fn write(key: &str, size: usize, token: &str, expect: Expect) -> Write {
    Write {
        key: key.into(),
        size: size as u64,
        token: token.into(),
        attributes: vec![
            ("mode".into(), "640".into()),
            ("mtime".into(), "1600000000000000".into()),
        ],
        expect,
    }
}

async fn pack(store: &Packed, write: &Write, bytes: &Bytes) -> Result<Found, StoreError> {
    assert!(store.takes(write).await?, "{write:?}");
    let room = store.room(write.size).await;
    store.put_packed(write, vec![bytes.clone()], room).await
}

async fn put(store: &Packed, key: &str, bytes: impl Into<Bytes>) -> Found {
    let bytes = bytes.into();
    let wanted = write(key, bytes.len(), &format!("t-{key}"), Expect::Absent);
    pack(store, &wanted, &bytes).await.unwrap()
}

async fn read(store: &Packed, key: &str) -> Option<Bytes> {
    let found = store.head(key).await.unwrap().filter(|found| !found.is_dir)?;
    Some(store.read(key, 0..found.size, &found.validator).await.unwrap())
}

/// Everything that shows, by listings.
async fn tree(store: &Packed) -> BTreeMap<String, Bytes> {
    let (mut open, mut tree) = (vec![String::new()], BTreeMap::new());
    while let Some(dir) = open.pop() {
        let rows: Vec<Listed> = store.list(&dir, None).try_collect().await.unwrap();
        for row in rows {
            let key = join(&dir, &row.name);
            if row.found.is_dir {
                open.push(key);
                continue;
            }
            let bytes = store.read(&key, 0..row.found.size, &row.found.validator).await.unwrap();
            tree.insert(key, bytes);
        }
    }
    tree
}

fn packs(store: &Memory) -> Vec<String> {
    let keys = store.contents().into_keys();
    keys.filter(|key| key.starts_with(FOLDER)).collect()
}

/// Puts everything that fits into packs, as a persister does where the policy says so.
#[derive(Debug)]
struct Everything(Packed);

#[async_trait]
impl UnderStore for Everything {
    fn url(&self) -> &str {
        self.0.url()
    }
    fn read_only(&self) -> bool {
        self.0.read_only()
    }
    async fn probe(&self) -> Result<Capabilities, StoreError> {
        self.0.probe().await
    }
    async fn head(&self, key: &str) -> Result<Option<Found>, StoreError> {
        self.0.head(key).await
    }
    async fn peek(&self, key: &str, bytes_max: u64) -> Result<Option<Peeked>, StoreError> {
        self.0.peek(key, bytes_max).await
    }
    fn list(&self, key: &str, after: Option<&str>) -> BoxStream<'static, Result<Listed, StoreError>> {
        self.0.list(key, after)
    }
    async fn read(&self, key: &str, range: Range<u64>, validator: &Validator) -> Result<Bytes, StoreError> {
        self.0.read(key, range, validator).await
    }
    async fn put(&self, write: &Write, chunks: Vec<Bytes>) -> Result<Found, StoreError> {
        if !self.0.takes(write).await? {
            return self.0.put(write, chunks).await;
        }
        let room = self.0.room(write.size).await;
        self.0.put_packed(write, chunks, room).await
    }
    async fn start(&self, write: &Write) -> Result<UploadId, StoreError> {
        self.0.start(write).await
    }
    async fn part(
        &self,
        write: &Write,
        upload: &UploadId,
        index: u32,
        offset: u64,
        chunks: Vec<Bytes>,
    ) -> Result<PartId, StoreError> {
        self.0.part(write, upload, index, offset, chunks).await
    }
    async fn complete(&self, write: &Write, upload: &UploadId, parts: &[PartId]) -> Result<Found, StoreError> {
        self.0.complete(write, upload, parts).await
    }
    async fn settle(&self, key: &str) -> Result<(), StoreError> {
        self.0.settle(key).await
    }
    async fn abort(&self, key: &str, upload: &UploadId) -> Result<(), StoreError> {
        self.0.abort(key, upload).await
    }
    async fn uploads(&self, prefix: &str) -> Result<Vec<(StoreKey, UploadId)>, StoreError> {
        self.0.uploads(prefix).await
    }
    async fn set_attributes(&self, write: &Write) -> Result<Option<Found>, StoreError> {
        self.0.set_attributes(write).await
    }
    async fn delete(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        self.0.delete(key, expect).await
    }
    async fn make_dir(&self, key: &str) -> Result<(), StoreError> {
        self.0.make_dir(key).await
    }
    async fn remove_dir(&self, key: &str) -> Result<(), StoreError> {
        self.0.remove_dir(key).await
    }

    async fn unmark_dir(&self, key: &str) -> Result<bool, StoreError> {
        self.0.unmark_dir(key).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_with_packs_passes_the_conformance_suite_whether_it_packs_or_not() {
    conformance::run(Arc::new(packed(&Memory::new()))).await;
    let store = Memory::new();
    conformance::run(Arc::new(Everything(packed(&store)))).await;
    assert!(!packs(&store).is_empty(), "nothing was packed");
}

#[tokio::test]
async fn a_folder_with_packs_passes_the_conformance_suite() {
    let folder = tempfile::tempdir().unwrap();
    let local: UnderStoreRef = Arc::new(Local::new(folder.path().to_owned()));
    let clock = SimClock::new(Timestamp(1_700_000_000_000_000));
    let store = Packed::new(Arc::clone(&local), Arc::clone(&local), clock.clone());
    conformance::run(Arc::new(Everything(store.clone()))).await;
    assert!(folder.path().join(FOLDER).is_dir(), "nothing was packed");
    // What shows after a crash is made sure of, wherever it lies.
    put(&store, "d/packed", "1").await;
    let own = write("d/own", 1, "t", Expect::Absent);
    store.put(&own, vec![Bytes::from_static(b"2")]).await.unwrap();
    for store in [store, Packed::new(Arc::clone(&local), local, clock)] {
        store.settle("d/packed").await.unwrap();
        store.settle("d/own").await.unwrap();
    }
}

#[tokio::test]
async fn what_a_process_left_that_ended_within_a_pack_goes_with_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let local: UnderStoreRef = Arc::new(Local::new(folder.path().to_owned()));
    let clock = SimClock::new(Timestamp(1_700_000_000_000_000));
    let opened = || Packed::new(Arc::clone(&local), Arc::clone(&local), clock.clone());
    put(&opened(), "d/packed", "1").await;
    for seq in [1, 2] {
        let cut_off = write(&log::pack_key(seq), 100, "pack", Expect::Absent);
        local.start(&cut_off).await.unwrap();
    }
    let other = write("d/large", 100, "t", Expect::Absent);
    let other = local.start(&other).await.unwrap();
    let store = opened();
    store.probe().await.unwrap();
    let left = local.uploads("").await.unwrap();
    assert_eq!(
        left,
        [("d/large".to_owned(), other)],
        "of other writes nothing is taken away"
    );
    assert_eq!(read(&store, "d/packed").await.unwrap(), "1");
    put(&store, "d/more", "2").await;
    assert_eq!(read(&opened(), "d/more").await.unwrap(), "2");
}

#[tokio::test(start_paused = true)]
async fn what_comes_together_is_one_object_and_shows_one_by_one() {
    let memory = Memory::new();
    let store = packed(&memory);
    let names: Vec<String> = (0..300).map(|nth| format!("d/e{}/f{nth}", nth % 3)).collect();
    join_all(names.iter().map(|name| put(&store, name, name.clone().into_bytes()))).await;
    assert_eq!(packs(&memory), [format!("{FOLDER}/00000000000000000001")]);
    assert_eq!(memory.contents().len(), 1);
    for store in [store, packed(&memory)] {
        for name in &names {
            assert_eq!(read(&store, name).await.unwrap(), name.as_bytes());
        }
        let found = store.head(&names[7]).await.unwrap().unwrap();
        assert_eq!(found.token, Some(format!("t-{}", names[7])));
        assert_eq!((found.mtime, found.attributes.len()), (1_600_000_000_000_000, 2));
        assert!(store.head("d/e1").await.unwrap().unwrap().is_dir);
        assert_eq!(store.head(FOLDER).await.unwrap(), None);
        assert_eq!(store.head(&packs(&memory)[0]).await.unwrap(), None);
        let tree = tree(&store).await;
        assert_eq!(tree.len(), 300);
        assert!(tree.iter().all(|(name, bytes)| name.as_bytes() == bytes));
        let validator = store.head(&names[0]).await.unwrap().unwrap().validator;
        let part = store.read(&names[0], 2..4, &validator);
        assert_eq!(&part.await.unwrap()[..], b"e0");
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_files_are_few_requests() {
    let memory = Memory::new();
    let store = packed(&memory);
    let names: Vec<String> = (0..10_000).map(|nth| format!("d/f{nth:05}")).collect();
    join_all(names.iter().map(|name| put(&store, name, vec![7; 20_000]))).await;
    // 200 MB in packs of 64 MiB: for each one put, and one listing of what is there under own names.
    assert!(memory.calls(Call::Put) <= 5, "{}", memory.calls(Call::Put));
    assert!(memory.calls(Call::List) <= 8, "{}", memory.calls(Call::List));
    assert!(memory.calls(Call::Head) <= 5, "{}", memory.calls(Call::Head));
    assert!(packs(&memory).len() <= 5);
    assert_eq!(tree(&packed(&memory)).await.len(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn what_others_wrote_under_its_name_is_neither_hidden_nor_overwritten() {
    let memory = Memory::new();
    let store = packed(&memory);
    put(&store, "d/zero", "0").await;
    for nth in 0..1500 {
        memory.write_outside(&format!("d/n{nth:04}"), "theirs");
    }
    let names: Vec<String> = (0..1500).step_by(2).map(|nth| format!("d/n{nth:04}x")).collect();
    let taken = ["d/n0000", "d/n0751", "d/n1499"].map(str::to_owned);
    let writes = names.iter().chain(&taken).map(|name| {
        let wanted = write(name, 4, &format!("t-{name}"), Expect::Absent);
        let store = &store;
        async move { pack(store, &wanted, &Bytes::from_static(b"ours")).await }
    });
    let answers = join_all(writes).await;
    assert!(answers[..names.len()].iter().all(Result::is_ok));
    for answer in &answers[names.len()..] {
        assert!(matches!(answer, Err(StoreError::Changed(_))), "{answer:?}");
    }
    assert_eq!(read(&store, "d/n0751").await.unwrap(), "theirs");
    // Seen over a packed file, theirs is what was there last, also when it goes.
    put(&store, "d/over", "0").await;
    memory.write_outside("d/over", "theirs");
    assert_eq!(read(&store, "d/over").await.unwrap(), "theirs");
    put(&store, "d/another", "0").await;
    memory.delete_outside("d/over");
    assert_eq!(read(&store, "d/over").await, None);
    assert_eq!(read(&packed(&memory), "d/over").await, None);
    // Written over a packed file later: theirs shows, and goes when it is deleted, without ours coming back.
    memory.write_outside("d/zero", "theirs");
    assert_eq!(read(&store, "d/zero").await.unwrap(), "theirs");
    let found = store.head("d/zero").await.unwrap().unwrap();
    store.delete("d/zero", &Expect::Match(found.validator)).await.unwrap();
    assert_eq!(read(&store, "d/zero").await, None);
    assert_eq!(read(&packed(&memory), "d/zero").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_no_loss_and_no_second_pack() {
    let memory = Memory::new();
    let store = packed(&memory);
    memory.fail_next(Call::Put, Fault::LostAnswer);
    put(&store, "a", "1").await;
    // Nothing is known: the answer of the look afterwards is lost too. Of three names a listing tells, so that this is the first head.
    let writes = ["b", "c", "d"].map(|key| write(key, 1, &format!("t-{key}"), Expect::Absent));
    let all = || {
        join_all(
            writes
                .iter()
                .map(|wanted| async { pack(&store, wanted, &Bytes::from_static(b"2")).await }),
        )
    };
    memory.fail_next(Call::Put, Fault::LostAnswer);
    memory.fail_next(Call::Head, Fault::Unavailable);
    let heads = memory.calls(Call::Head);
    for unclear in all().await {
        assert!(matches!(unclear, Err(StoreError::Unavailable(_))), "{unclear:?}");
    }
    assert_eq!(memory.calls(Call::Head), heads + 1);
    for (found, wanted) in all().await.into_iter().zip(&writes) {
        assert_eq!(found.unwrap().token.as_ref(), Some(&wanted.token));
    }
    assert_eq!(packs(&memory).len(), 2);
    assert_eq!(tree(&packed(&memory)).await.len(), 4);
}

/// A pack of an earlier life that was sent and never heard of: once its file's fate was asked for it can not arrive any more.
#[tokio::test(start_paused = true)]
async fn a_pack_that_comes_late_brings_nothing_back() {
    let memory = Memory::new();
    let store = packed(&memory);
    put(&store, "a", "1").await;
    let sent = packed(&memory);
    memory.fail_next(Call::Put, Fault::Unavailable);
    let late = write("late", 4, "t-late", Expect::Absent);
    let answer = pack(&sent, &late, &Bytes::from_static(b"late")).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    // What it had sent.
    let next = format!("{FOLDER}/00000000000000000002");
    let mut builder = format::Builder::default();
    let meta = format::Meta {
        offset: 0,
        size: 4,
        crc: format::crc(&[Bytes::from_static(b"late")]),
        mtime: 0,
        token: "t-late".into(),
        attributes: Vec::new(),
    };
    builder.file("late", &meta, [Bytes::from_static(b"late")]);
    let built = builder.finish();
    let arrives = Write {
        key: next.clone(),
        size: built.size,
        token: "pack".into(),
        attributes: Vec::new(),
        expect: Expect::Absent,
    };
    let later = packed(&memory);
    assert!(later.uploads("late").await.unwrap().is_empty());
    assert_eq!(later.head("late").await.unwrap(), None);
    let arrived = memory.put(&arrives, built.chunks).await;
    assert!(matches!(arrived, Err(StoreError::Changed(_))), "{arrived:?}");
    assert_eq!(packed(&memory).head("late").await.unwrap(), None);
    // Without a doubt nothing is written.
    let before = memory.calls(Call::Put);
    later.uploads("late").await.unwrap();
    assert_eq!(memory.calls(Call::Put), before);
}

#[tokio::test(start_paused = true)]
async fn packs_of_another_server_are_found_and_neither_writes_over_the_other() {
    let memory = Memory::new();
    let (one, two) = (packed(&memory), packed(&memory));
    put(&one, "a", "1").await;
    put(&two, "b", "2").await;
    // The number that it takes for the next is taken.
    put(&one, "c", "3").await;
    let wanted = write("b", 1, "other", Expect::Absent);
    let answer = pack(&one, &wanted, &Bytes::from_static(b"x")).await;
    assert!(matches!(answer, Err(StoreError::Changed(_))), "{answer:?}");
    assert_eq!(packs(&memory).len(), 3);
    tokio::time::sleep(Duration::from_secs(6)).await;
    for store in [one, two, packed(&memory)] {
        let tree = tree(&store).await;
        assert_eq!(
            tree.into_iter().collect::<Vec<_>>(),
            [
                ("a".to_owned(), Bytes::from_static(b"1")),
                ("b".to_owned(), Bytes::from_static(b"2")),
                ("c".to_owned(), Bytes::from_static(b"3")),
            ]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_pack_that_others_deleted_or_damaged_is_found_out() {
    let memory = Memory::new();
    let store = packed(&memory);
    put(&store, "a", "1").await;
    put(&store, "b", "2").await;
    memory.write_outside("own", "o");
    let keys = packs(&memory);
    memory.delete_outside(&keys[0]);
    // At once when it is read, within seconds when it is asked for.
    let validator = index::validator("t-a");
    let gone = store.read("a", 0..1, &validator).await;
    assert!(
        matches!(gone, Err(StoreError::Changed(_) | StoreError::NotFound(_))),
        "{gone:?}"
    );
    assert_eq!(store.head("a").await.unwrap(), None);
    assert_eq!(read(&store, "b").await.unwrap(), "2");

    let mut bytes = memory.contents()[&keys[1]].to_vec();
    bytes[0] ^= 1;
    memory.write_outside(&keys[1], bytes.clone());
    tokio::time::sleep(Duration::from_secs(6)).await;
    let validator = store.head("b").await.unwrap().unwrap().validator;
    let rotten = store.read("b", 0..1, &validator).await;
    assert!(matches!(rotten, Err(StoreError::Damaged(_))), "{rotten:?}");

    bytes.truncate(bytes.len() - 3);
    memory.write_outside(&keys[1], bytes);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let refused = store.head("b").await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Refused(text) if text.contains(&keys[1]) && text.contains("delete it")),
        "{refused:?}"
    );
    assert!(store.list("", None).try_collect::<Vec<_>>().await.is_err());
    assert_eq!(read(&store, "own").await.unwrap(), "o");
    memory.delete_outside(&keys[1]);
    assert_eq!(store.head("b").await.unwrap(), None);
    put(&store, "b", "3").await;
    assert_eq!(tree(&packed(&memory)).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_gives_its_room_back() {
    let memory = Memory::new();
    let store = packed(&memory);
    let names: Vec<String> = (0..100).map(|nth| format!("f{nth:02}")).collect();
    join_all(names.iter().map(|name| put(&store, name, vec![1; 10_000]))).await;
    let held = |memory: &Memory| -> usize { memory.contents().values().map(Bytes::len).sum() };
    assert!(held(&memory) > 1_000_000);
    let delete = |name: String| {
        let store = store.clone();
        async move {
            let found = store.head(&name).await.unwrap().unwrap();
            store.delete(&name, &Expect::Match(found.validator)).await.unwrap();
        }
    };
    join_all(names[..60].iter().cloned().map(&delete)).await;
    assert!(
        held(&memory) < 450_000,
        "{} bytes for 40 files of 10,000",
        held(&memory)
    );
    // The validators are those of before.
    assert_eq!(tree(&store).await.len(), 40);
    assert_eq!(tree(&packed(&memory)).await.len(), 40);
    join_all(names[60..].iter().cloned().map(&delete)).await;
    assert!(held(&memory) < 3_000, "{} bytes for nothing", held(&memory));
    assert_eq!(packs(&memory).len(), 1);
    assert!(tree(&packed(&memory)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn single_files_do_not_become_countless_packs() {
    let memory = Memory::new();
    let store = packed(&memory);
    for nth in 0..200 {
        put(&store, &format!("f{nth}"), "1").await;
        assert!(
            packs(&memory).len() <= 33,
            "{} packs of {nth} files",
            packs(&memory).len()
        );
    }
    assert_eq!(tree(&packed(&memory)).await.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_not_carried_over_as_if_it_were_good() {
    let memory = Memory::new();
    let store = packed(&memory);
    join_all(["a", "b", "c"].map(|name| put(&store, name, vec![b'x'; 1000]))).await;
    let key = packs(&memory)[0].clone();
    let mut bytes = memory.contents()[&key].to_vec();
    for at in [10, 1010, 2010] {
        bytes[at] ^= 1;
    }
    memory.write_outside(&key, bytes);
    tokio::time::sleep(Duration::from_secs(6)).await;
    for name in ["a", "b"] {
        let found = store.head(name).await.unwrap().unwrap();
        store.delete(name, &Expect::Match(found.validator)).await.unwrap();
    }
    assert!(memory.contents().contains_key(&key), "the damaged pack must stay");
    let found = store.head("c").await.unwrap().unwrap();
    let read = store.read("c", 0..1000, &found.validator).await;
    assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn names_of_the_packs_folder_are_refused_and_what_is_large_is_not_taken() {
    let memory = Memory::new();
    let store = packed(&memory);
    for key in [FOLDER, &format!("{FOLDER}/x")] {
        let wanted = write(key, 1, "t", Expect::Absent);
        assert!(!store.takes(&wanted).await.unwrap());
        let refused = store.put(&wanted, vec![Bytes::from_static(b"1")]).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        assert!(matches!(store.make_dir(key).await, Err(StoreError::Refused(_))));
        assert!(matches!(
            store.delete(key, &Expect::Any).await,
            Err(StoreError::Refused(_))
        ));
        assert_eq!(store.head(key).await.unwrap(), None);
        store.remove_dir(key).await.unwrap();
    }
    assert!(store.takes(&write("k", 1 << 20, "t", Expect::Absent)).await.unwrap());
    let of_the_store = write(".forebay-tmp", 1, "t", Expect::Absent);
    assert!(
        !store.takes(&of_the_store).await.unwrap(),
        "the store refuses that name"
    );
    assert!(
        !store
            .takes(&write("k", (1 << 20) + 1, "t", Expect::Absent))
            .await
            .unwrap()
    );
    assert!(!store.takes(&write("k", 1, "t", Expect::Any)).await.unwrap());
    assert!(
        !store
            .takes(&write("k", 1, "t", Expect::Match(Validator("v1".into()))))
            .await
            .unwrap()
    );
}

/// What a file must be, and its validator as far as it is known.
type Model = BTreeMap<String, Bytes>;

/// A writer that does as the persister does: whatever is unclear it asks for, by the token, and tries again.
struct Writer {
    store: Packed,
    chance: Arc<SeededChance>,
}

impl Writer {
    async fn put(&self, key: &str, bytes: Bytes, token: String, in_pack: bool) {
        let mut wanted = write(key, bytes.len(), &token, Expect::Absent);
        for _ in 0..200 {
            let there = match self.store.head(key).await {
                Ok(there) => there,
                Err(error) => {
                    self.passing(error).await;
                    continue;
                }
            };
            if there.as_ref().is_some_and(|found| found.token.as_ref() == Some(&token)) {
                match self.store.settle(key).await {
                    Ok(()) => return,
                    Err(error) => self.passing(error).await,
                }
                continue;
            }
            wanted.expect = there.map_or(Expect::Absent, |found| Expect::Match(found.validator));
            let done = match self.store.takes(&wanted).await {
                Ok(true) if in_pack => pack(&self.store, &wanted, &bytes).await,
                Ok(_) => self.store.put(&wanted, vec![bytes.clone()]).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(found) => {
                    assert_eq!(found.token.as_ref(), Some(&token));
                    return;
                }
                Err(error) => self.passing(error).await,
            }
        }
        panic!("{key}: never written");
    }

    async fn delete(&self, key: &str) {
        for _ in 0..200 {
            let deleted = async {
                self.store.uploads(key).await?;
                let Some(found) = self.store.head(key).await? else {
                    return Ok(());
                };
                self.store.delete(key, &Expect::Match(found.validator)).await?;
                Ok(())
            };
            match deleted.await {
                Ok(()) => return,
                Err(error) => self.passing(error).await,
            }
        }
        panic!("{key}: never deleted");
    }

    async fn passing(&self, error: StoreError) {
        assert!(!matches!(error, StoreError::Refused(_)), "{error}");
        tokio::time::sleep(Duration::from_millis(self.chance.below(50))).await;
    }
}

fn break_something(memory: &Memory, chance: &SeededChance) {
    let calls = [Call::Put, Call::Put, Call::Head, Call::List, Call::Read, Call::Delete];
    let faults = [Fault::Unavailable, Fault::LostAnswer, Fault::WrongBody, Fault::Hang];
    for _ in 0..chance.below(4) {
        let call = calls[chance.below(calls.len() as u64) as usize];
        memory.fail_next(call, faults[chance.below(faults.len() as u64) as usize].clone());
    }
}

async fn patiently<T>(mut what: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    loop {
        match what().await {
            Ok(done) => return done,
            Err(StoreError::Refused(error)) => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Writes, overwrites and deletes by packs and under own names, with calls that fail or lose their answers and instances that end in the
/// middle: what shows, here and to one that knows nothing, is what was written last.
async fn history(seed: u64) {
    let chance = SeededChance::new(seed);
    let memory = Memory::new();
    let mut model = Model::new();
    let mut serial = 0;
    for _ in 0..12 {
        let writer = Writer {
            store: packed(&memory),
            chance: Arc::clone(&chance),
        };
        for _ in 0..chance.below(8) {
            break_something(&memory, &chance);
            let count = if chance.below(3) == 0 { 40 } else { 1 + chance.below(4) };
            let mut calls = BTreeMap::new();
            for _ in 0..count {
                let key = format!("d{}/f{}", chance.below(3), chance.below(25));
                serial += 1;
                let bytes = Bytes::from(vec![serial as u8; chance.below(3000) as usize]);
                let call = chance.below(10);
                calls.insert(key, (bytes, serial, call));
            }
            let cut = chance.below(6) == 0;
            let all = join_all(calls.iter().map(|(key, (bytes, serial, call))| {
                let writer = &writer;
                async move {
                    match call {
                        0..=2 => writer.delete(key).await,
                        3 => writer.put(key, bytes.clone(), format!("w-{serial}"), false).await,
                        _ => writer.put(key, bytes.clone(), format!("w-{serial}"), true).await,
                    }
                }
            }));
            let ended = if cut {
                let time = Duration::from_millis(chance.below(30));
                tokio::time::timeout(time, all).await.is_ok()
            } else {
                all.await;
                true
            };
            if !ended {
                // The next life ends what this one has begun, as the persister does from its rows.
                let next = Writer {
                    store: packed(&memory),
                    chance: Arc::clone(&chance),
                };
                for (key, (bytes, serial, call)) in &calls {
                    match call {
                        0..=2 => next.delete(key).await,
                        _ => next.put(key, bytes.clone(), format!("w-{serial}"), *call != 3).await,
                    }
                }
            }
            for (key, (bytes, _, call)) in calls {
                match call {
                    0..=2 => drop(model.remove(&key)),
                    _ => drop(model.insert(key, bytes)),
                }
            }
            if !ended {
                break;
            }
            let shown = patiently(async || try_tree(&writer.store).await).await;
            assert_eq!(shown, model, "seed {seed}: what it shows itself");
        }
        let fresh = packed(&memory);
        let shown = patiently(async || try_tree(&fresh).await).await;
        assert_eq!(shown, model, "seed {seed}: what one shows that knows nothing");
    }
    let live: usize = model.values().map(|bytes| bytes.len() + 400).sum();
    let held: usize = memory.contents().values().map(Bytes::len).sum();
    assert!(held <= 3 * live + 200_000, "seed {seed}: {held} bytes held for {live}");
}

async fn try_tree(store: &Packed) -> Result<Model, StoreError> {
    let mut tree = Model::new();
    let dirs: Vec<Listed> = store.list("", None).try_collect().await?;
    for dir in dirs {
        for row in store.list(&dir.name, None).try_collect::<Vec<_>>().await? {
            let key = format!("{}/{}", dir.name, row.name);
            let bytes = store.read(&key, 0..row.found.size, &row.found.validator).await?;
            tree.insert(key, bytes);
        }
    }
    Ok(tree)
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_what_was_written_last_shows_and_nothing_else() {
    let seeds = std::env::var("FOREBAY_SIM_SEEDS").map_or(60, |seeds| seeds.parse().unwrap());
    for seed in 1..=seeds {
        history(seed).await;
    }
}
