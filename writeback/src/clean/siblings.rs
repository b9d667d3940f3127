//! Reading ahead over the small files of a directory.
//!
//! Whoever reads small files one after the other waits for the store once for each of them. Where they are read about in the order of
//! the directory's listing, by one reader or by several that take turns, those that come next are fetched before they are opened. A
//! directory goes through these states:
//!
//! 1. *Counted*: files were opened whose bytes are not here. After [`LOOK_MIN`] of them the listing is looked at: do they lie close
//!    together? If not, the next look comes after twice as many.
//! 2. *Ahead*: names after those are fetched, some more each time that half of them were opened: twice as many as before while they are opened
//!    soon, half as many where they wait, since what is known of a name is believed for a moment only.
//! 3. Back to *counted*: files were opened that are not among them, or the cache has no room.
//!
//! It owns no bytes: what is fetched lies in the clean cache as if it had been read.

use super::{BLOCK_BYTES, Clean, CleanReader, Why};
use crate::{Result, cache::Inner};
use forebay_namespace::{Node, Path};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound::{Excluded, Unbounded},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Largest file that is fetched ahead: what is larger is read ahead of within.
const FILE_BYTES_MAX: u64 = BLOCK_BYTES;
/// Opens after which the listing is looked at, and the most that are waited for.
const LOOK_MIN: usize = 8;
const LOOK_MAX: usize = 4096;
/// Names of a listing among which half of the last [`LOOK_MIN`] opens must lie.
const CLOSE_NAMES: usize = 64;
/// Fewest and most names fetched at a time.
const WINDOW_MIN: usize = 16;
const WINDOW_MAX: usize = 256;
/// Most bytes fetched ahead in one directory and not opened, and their share of the cache: what comes must not push out what came before and
/// waits.
const BYTES_MAX: u64 = 64 << 20;
const SHARE_OF_CACHE: u64 = 16;
/// How long a name may wait to be opened before fewer are fetched.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Fetches of one directory at once.
const PARALLEL: usize = 16;
/// Directories that are known.
const DIRS_MAX: usize = 16;

/// The directories whose files are read.
#[derive(Debug)]
pub(super) struct Siblings {
    bytes_max: u64,
    /// The one that was used last comes last.
    dirs: Mutex<VecDeque<Dir>>,
    /// Whether any names are fetched ahead, without the lock.
    any: AtomicBool,
}

#[derive(Debug)]
struct Dir {
    path: Path,
    /// Names that were opened last without their bytes being here.
    cold: VecDeque<Vec<u8>>,
    /// How many since the last look, and at how many comes the next.
    opened: usize,
    look_at: usize,
    ahead: Option<Ahead>,
    /// Somebody lists or fetches for it.
    is_busy: bool,
}

/// What is fetched ahead.
#[derive(Debug)]
struct Ahead {
    /// Names that were not opened yet.
    names: BTreeMap<Vec<u8>, Coming>,
    bytes: u64,
    /// The name after which the next ones come; none: there are no more.
    last: Option<Vec<u8>>,
    window: usize,
    /// Most bytes of the names.
    bytes_max: u64,
    /// Opens in a row of what is neither here nor among the names.
    missed: usize,
}

#[derive(Clone, Copy, Debug)]
struct Coming {
    bytes: u64,
    since: Duration,
}

/// What is to be done for a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Todo {
    /// See whether these names lie close together.
    Look(Vec<Vec<u8>>),
    /// Fetch so many names after this one.
    Fetch(Vec<u8>, usize),
}

impl Ahead {
    fn new(last: Vec<u8>, bytes_max: u64) -> Self {
        Self {
            names: BTreeMap::new(),
            bytes: 0,
            last: Some(last),
            window: WINDOW_MIN,
            bytes_max,
            missed: 0,
        }
    }

    /// Whether `name` is among the names; it is not any more, nor is what was left out far before it.
    fn open(&mut self, name: &[u8], cold: bool, now: Duration) -> bool {
        let Some(coming) = self.names.remove(name) else {
            self.missed += usize::from(cold);
            return false;
        };
        self.missed = 0;
        self.bytes -= coming.bytes;
        self.window = match now.saturating_sub(coming.since) > WAIT_MAX {
            true => (self.window / 2).max(WINDOW_MIN),
            false => self.window,
        };
        let before = self.names.range::<[u8], _>((Unbounded, Excluded(name))).count();
        for _ in CLOSE_NAMES..before {
            let left_out = self.names.pop_first();
            self.bytes -= left_out.map_or(0, |(_, coming)| coming.bytes);
        }
        true
    }

    /// What to fetch next, when it is time.
    fn next(&mut self) -> Option<Todo> {
        if self.names.len() > self.window / 2 || self.bytes > self.bytes_max / 2 {
            return None;
        }
        let last = self.last.clone()?;
        let todo = Todo::Fetch(last, self.window);
        self.window = (self.window * 2).min(WINDOW_MAX);
        Some(todo)
    }

    /// Those of the files of a page to fetch now. Where most of them are here, or none has room, there is nothing to go on for.
    fn await_all(&mut self, page: Page, now: Duration) -> Vec<File> {
        let mut last = page.end;
        let mut wanted = Vec::with_capacity(page.files.len());
        let few = page.files.len() * 4 < page.names;
        for file in page.files {
            if self.bytes + file.bytes > self.bytes_max {
                last = wanted.last().map(|file: &File| file.name.clone());
                break;
            }
            self.bytes += file.bytes;
            let coming = Coming {
                bytes: file.bytes,
                since: now,
            };
            self.names.insert(file.name.clone(), coming);
            wanted.push(file);
        }
        self.last = last.filter(|_| !few);
        wanted
    }
}

impl Siblings {
    /// Where the cache holds so many bytes.
    pub(super) fn new(cache_bytes: u64) -> Self {
        Self {
            bytes_max: BYTES_MAX.min(cache_bytes / SHARE_OF_CACHE),
            dirs: Mutex::default(),
            any: AtomicBool::new(false),
        }
    }

    /// A small file was opened, `cold`: its bytes are not here. What is to be done then, by the one who gets to know it.
    fn opened(&self, path: &Path, cold: bool, now: Duration) -> Option<(Path, Todo)> {
        if !cold && !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let (dir, name) = (path.parent()?, path.name()?);
        let mut dirs = self.dirs.lock();
        let known = dirs.iter().rposition(|known| known.path == dir);
        let mut known = match known.and_then(|at| dirs.remove(at)) {
            Some(known) => known,
            None if cold => Dir {
                path: dir,
                cold: VecDeque::new(),
                opened: 0,
                look_at: LOOK_MIN,
                ahead: None,
                is_busy: false,
            },
            None => return None,
        };
        let todo = known.opened(name, cold, now);
        known.is_busy |= todo.is_some();
        let todo = todo.map(|todo| (known.path.clone(), todo));
        if dirs.len() == DIRS_MAX {
            dirs.pop_front();
        }
        dirs.push_back(known);
        todo
    }

    /// Whoever was busy for a directory says what came of it, and is told what else is to be done.
    fn done(&self, dir: &Path, change: impl FnOnce(&mut Dir)) -> Option<Todo> {
        let mut dirs = self.dirs.lock();
        let known = dirs.iter_mut().find(|known| known.path == *dir);
        let todo = known.and_then(|known| {
            change(known);
            let todo = known.ahead.as_mut().and_then(Ahead::next);
            known.is_busy = todo.is_some();
            todo
        });
        self.note(&dirs);
        todo
    }

    /// Those of the files of a page that are to be fetched; they are awaited from now on.
    fn await_all(&self, dir: &Path, page: Page, now: Duration) -> Vec<File> {
        let mut dirs = self.dirs.lock();
        let known = dirs.iter_mut().find(|known| known.path == *dir);
        let ahead = known.and_then(|known| known.ahead.as_mut());
        ahead.map(|ahead| ahead.await_all(page, now)).unwrap_or_default()
    }

    fn note(&self, dirs: &VecDeque<Dir>) {
        self.any
            .store(dirs.iter().any(|dir| dir.ahead.is_some()), Ordering::Relaxed);
    }
}

impl Dir {
    fn opened(&mut self, name: &[u8], cold: bool, now: Duration) -> Option<Todo> {
        if let Some(ahead) = &mut self.ahead {
            if ahead.open(name, cold, now) {
                return (!self.is_busy).then(|| ahead.next()).flatten();
            }
            if ahead.missed < LOOK_MIN * 2 {
                return None;
            }
            self.give_up();
        }
        if !cold {
            return None;
        }
        if self.cold.len() == LOOK_MIN {
            self.cold.pop_front();
        }
        self.cold.push_back(name.to_vec());
        self.opened += 1;
        if self.is_busy || self.opened < self.look_at {
            return None;
        }
        self.opened = 0;
        Some(Todo::Look(self.cold.iter().cloned().collect()))
    }

    /// What comes after this name is fetched.
    fn begin(&mut self, last: Vec<u8>, bytes_max: u64) {
        self.look_at = LOOK_MIN;
        self.ahead = Some(Ahead::new(last, bytes_max));
    }

    /// The cache has no room for what is fetched ahead.
    fn full(&mut self) {
        self.give_up();
        self.look_at = LOOK_MAX;
    }

    /// Nothing is fetched until further files were opened, more of them than before.
    fn give_up(&mut self) {
        self.ahead = None;
        self.opened = 0;
        self.cold.clear();
        self.look_at = (self.look_at * 2).min(LOOK_MAX);
    }
}

/// A file that may be fetched.
#[derive(Debug)]
struct File {
    name: Vec<u8>,
    bytes: u64,
}

/// A page of a listing.
#[derive(Debug)]
struct Page {
    /// How many names it has.
    names: usize,
    /// Those of them that are small files whose bytes are not here.
    files: Vec<File>,
    /// The last name, where others follow.
    end: Option<Vec<u8>>,
}

impl Inner {
    /// The file at `path` was opened for reading, and a store has its bytes.
    pub(crate) fn opened_clean(self: &Arc<Self>, path: &Path, object: &CleanReader) {
        if object.size > FILE_BYTES_MAX || object.size == 0 || object.mount.is_local() {
            return;
        }
        let siblings = &self.clean.shared.siblings;
        let cold = self.clean.held(object) == 0;
        let now = self.components.clock.monotonic();
        let Some((dir, todo)) = siblings.opened(path, cold, now) else {
            return;
        };
        let inner = Arc::clone(self);
        self.tasks.spawn("prefetch", async move {
            let shutdown = inner.tasks.shutdown().clone();
            let work = async {
                let mut todo = Some(todo);
                while let Some(now) = todo {
                    todo = inner.fetch_siblings(&dir, now).await.unwrap_or_else(|error| {
                        // What keeps it from being fetched ahead its reader will be told.
                        tracing::debug!(%dir, %error, "files are not fetched ahead");
                        inner.clean.shared.siblings.done(&dir, Dir::give_up)
                    });
                }
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// Does it, and answers what is to be done then.
    async fn fetch_siblings(&self, dir: &Path, todo: Todo) -> Result<Option<Todo>> {
        let siblings = &self.clean.shared.siblings;
        let (after, count) = match todo {
            Todo::Fetch(after, count) => (after, count),
            Todo::Look(opened) => {
                let last = self.close_together(dir, opened).await?;
                return Ok(siblings.done(dir, |known| match last {
                    Some(last) => known.begin(last, siblings.bytes_max),
                    None => known.give_up(),
                }));
            }
        };
        let listed = self.names.list(dir, Some(&after), count).await?;
        let names = listed.len();
        let end = listed.last().filter(|_| names == count).map(|(name, _)| name.clone());
        let files = listed.into_iter().filter_map(|(name, node)| self.to_fetch(name, &node));
        let page = Page {
            names,
            files: files.collect(),
            end,
        };
        let wanted = siblings.await_all(dir, page, self.components.clock.monotonic());
        let count = wanted.len();
        let held = stream::iter(wanted)
            .map(|file| self.fetch_sibling(dir, file))
            .buffered(PARALLEL);
        let held = held.take_while(|held| std::future::ready(*held)).count().await;
        Ok(siblings.done(dir, |known| {
            if held < count {
                known.full();
            }
        }))
    }

    /// The last one of those names that lie close together, when half of them do.
    async fn close_together(&self, dir: &Path, mut opened: Vec<Vec<u8>>) -> Result<Option<Vec<u8>>> {
        opened.sort_unstable();
        opened.dedup();
        // Most of those that were opened lately are where the readers are now; one far before them is from somewhere else.
        for first in 0..opened.len().div_ceil(2) {
            let page = self.names.list(dir, Some(&opened[first]), CLOSE_NAMES).await?;
            let end = page.last().map(|(name, _)| name);
            let close = opened[first..].partition_point(|name| end.is_some_and(|end| name <= end));
            if close * 2 >= LOOK_MIN {
                return Ok(opened.get(first + close - 1).cloned());
            }
        }
        Ok(None)
    }

    fn to_fetch(&self, name: Vec<u8>, node: &Node) -> Option<File> {
        let object = self.object_of(node).ok().flatten()?;
        let small = (1..=FILE_BYTES_MAX).contains(&object.size);
        (small && self.clean.held(&object) == 0).then_some(File {
            name,
            bytes: object.size,
        })
    }

    /// Fetches one. Whether there was room for it.
    async fn fetch_sibling(&self, dir: &Path, file: File) -> bool {
        let Ok(path) = dir.join(&file.name) else { return true };
        if let Some((mount, _)) = self.mounts.resolve(&path) {
            // The lookup that comes now is followed by a read.
            mount.peeks.earn();
        }
        // Looked at by its name, so that the one who opens it need not.
        let node = self.names.resolve(&path).await.ok().flatten();
        let object = node.and_then(|node| self.object_of(&node).ok().flatten());
        let Some(object) = object.filter(|object| object.size <= FILE_BYTES_MAX) else {
            return true;
        };
        self.clean.fetch_whole(&object).await
    }
}

impl Clean {
    /// Fetches an object of one block for whoever reads it later, unless he came first. Whether there was room for it, in the cache or in memory,
    /// as far as it was fetched.
    async fn fetch_whole(&self, object: &CleanReader) -> bool {
        let id = (object.id(), 0);
        if self.shared.passing.lock().has_ended(&id) {
            return true;
        }
        match self.block(object, 0, Why::Ahead).await {
            Ok(bytes) => {
                let (len, now) = (bytes.len() as u64, self.shared.clock.monotonic());
                len == 0 || self.held(object) > 0 || self.shared.passing.lock().has_room(len, now)
            }
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn path(number: usize) -> Path {
        Path::parse(format!("/d/f{number:05}").as_bytes()).unwrap()
    }

    fn name(number: usize) -> Vec<u8> {
        path(number).name().unwrap().to_vec()
    }

    fn dir() -> Path {
        Path::parse(b"/d").unwrap()
    }

    fn siblings() -> Siblings {
        Siblings::new(1 << 40)
    }

    /// As the engine does it where the files around the first lie close together. Answers the number of the last that was fetched.
    fn begin(siblings: &Siblings, bytes: u64) -> usize {
        siblings.opened(&path(0), true, NOW);
        let todo = siblings.done(&dir(), |known| known.begin(name(0), siblings.bytes_max));
        fetch(siblings, todo, bytes, &mut Vec::new(), NOW)
    }

    /// Fetches of files that are all here in the listing, until nothing is to be done; notes how many at a time.
    fn fetch(siblings: &Siblings, todo: Option<Todo>, bytes: u64, windows: &mut Vec<usize>, now: Duration) -> usize {
        let (mut todo, mut end) = (todo, 0);
        while let Some(Todo::Fetch(after, count)) = todo {
            let after: usize = std::str::from_utf8(&after[1..]).unwrap().parse().unwrap();
            windows.push(count);
            let file = |number| File {
                name: name(number),
                bytes,
            };
            let page = Page {
                names: count,
                files: (after + 1..=after + count).map(file).collect(),
                end: Some(name(after + count)),
            };
            let wanted = siblings.await_all(&dir(), page, now);
            end = after + wanted.len();
            todo = siblings.done(&dir(), |_| {});
        }
        end
    }

    #[test]
    fn nothing_is_listed_before_some_files_were_opened_and_then_ever_more_rarely() {
        let siblings = siblings();
        let mut looks = Vec::new();
        for number in 0..1000 {
            if let Some((of, todo)) = siblings.opened(&path(number), true, NOW) {
                assert_eq!(of, dir());
                let last = (number + 1 - LOOK_MIN..=number).map(name).collect();
                assert_eq!(todo, Todo::Look(last));
                looks.push(number + 1);
                siblings.done(&dir(), Dir::give_up);
            }
        }
        assert_eq!(looks, [8, 24, 56, 120, 248, 504]);
    }

    #[test]
    fn files_that_are_here_make_no_work() {
        let siblings = siblings();
        for number in 0..1000 {
            assert_eq!(siblings.opened(&path(number), false, NOW), None);
        }
        assert!(siblings.dirs.lock().is_empty());
    }

    #[test]
    fn the_window_grows_while_files_are_opened_soon_and_shrinks_where_they_wait() {
        let siblings = siblings();
        let (mut windows, mut end) = (Vec::new(), begin(&siblings, 10));
        assert_eq!(end, 16 + 32);
        for number in 1..1000 {
            if let Some((_, todo)) = siblings.opened(&path(number), false, NOW) {
                end = fetch(&siblings, Some(todo), 10, &mut windows, NOW);
            }
            assert!(number <= end, "{number} was not fetched");
        }
        assert_eq!(windows[..4], [64, 128, 256, 256]);
        let later = NOW + WAIT_MAX * 2;
        windows.clear();
        for number in 1000..2000 {
            if let Some((_, todo)) = siblings.opened(&path(number), false, later) {
                fetch(&siblings, Some(todo), 10, &mut windows, NOW);
            }
        }
        assert_eq!(windows[0], WINDOW_MIN);
    }

    #[test]
    fn readers_that_take_turns_and_leave_files_out_stay_ahead() {
        let siblings = siblings();
        let mut end = begin(&siblings, 10);
        // Each opens every second one, from another place on.
        for step in 0..500 {
            for place in [16, 0, 8] {
                let opened = siblings.opened(&path(1 + place + step * 2), false, NOW);
                if let Some((_, todo)) = opened {
                    end = fetch(&siblings, Some(todo), 10, &mut Vec::new(), NOW);
                }
            }
            assert!(siblings.dirs.lock()[0].ahead.is_some(), "step {step}");
        }
        assert!(end > 1000, "{end}");
    }

    #[test]
    fn no_more_is_fetched_than_may_wait() {
        // Nothing is begun beyond half of what may wait.
        for (bytes, fetched) in [(1 << 20, 48), (2 << 20, 32), (40 << 20, 1), (65 << 20, 0)] {
            let siblings = siblings();
            assert_eq!(begin(&siblings, bytes), fetched, "of {bytes} bytes");
            let dirs = siblings.dirs.lock();
            let ahead = dirs[0].ahead.as_ref().unwrap();
            assert_eq!((ahead.bytes, ahead.names.len()), (bytes * fetched as u64, fetched));
        }
        // What waits must not push out itself.
        let small = Siblings::new(16_000);
        assert_eq!(begin(&small, 100), 10);
    }

    #[test]
    fn where_most_files_are_here_the_listing_is_not_gone_through() {
        let siblings = siblings();
        siblings.opened(&path(0), true, NOW);
        let todo = siblings.done(&dir(), |known| known.begin(name(0), siblings.bytes_max));
        assert_eq!(todo, Some(Todo::Fetch(name(0), WINDOW_MIN)));
        let page = Page {
            names: WINDOW_MIN,
            files: Vec::new(),
            end: Some(name(WINDOW_MIN)),
        };
        siblings.await_all(&dir(), page, NOW);
        assert_eq!(siblings.done(&dir(), |_| {}), None);
    }

    #[test]
    fn files_that_are_opened_elsewhere_end_it() {
        let siblings = siblings();
        begin(&siblings, 10);
        for number in 0..LOOK_MIN * 2 {
            siblings.opened(&path(10_000 + number * 100), true, NOW);
        }
        assert!(siblings.dirs.lock()[0].ahead.is_none());
    }

    #[test]
    fn so_many_directories_are_known_and_no_more() {
        let siblings = siblings();
        for number in 0..1000 {
            let path = Path::parse(format!("/d{number}/f").as_bytes()).unwrap();
            siblings.opened(&path, true, NOW);
        }
        assert_eq!(siblings.dirs.lock().len(), DIRS_MAX);
    }
}
