//! Tells the kernel what to ask for again, from threads of its own: inside a request it would wait for itself.
//!
//! The kernel takes no note of a name while it holds the directory for somebody, nor of a content while a part of it is read. Whatever is
//! held up so holds up what is told of the same directory or node, and nothing else: a thread is at work on one of them at a time, and
//! where all threads are held up another one is started, up to [`THREADS_MAX`].

use crate::volume::{Invalidate, NodeId, Note, Told};
use fuser::{INodeNo, Notifier};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::{HashMap, VecDeque},
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

/// Threads of one mount.
const THREADS_MAX: usize = 8;
/// How long one that is not the only one waits for work.
const IDLE: Duration = Duration::from_secs(10);

/// Hands notes to the threads, which live as long as this.
#[derive(Debug)]
pub(crate) struct Notify {
    shared: Arc<Shared>,
    /// Kept by every name that is to be forgotten.
    forgetting: Mutex<Weak<()>>,
}

#[derive(Debug)]
struct Shared {
    notifier: Notifier,
    queue: Mutex<Queue>,
    wanted: Condvar,
}

/// What waits. It is in lanes, whose notes are told one after the other.
#[derive(Debug, Default)]
struct Queue {
    lanes: HashMap<Lane, VecDeque<Waiting>>,
    /// Lanes with something to tell that no thread is at work on.
    ready: VecDeque<Lane>,
    threads: usize,
    idle: usize,
    ended: bool,
}

/// What the kernel may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lane {
    Directory(NodeId),
    Node(NodeId),
}

#[derive(Debug)]
struct Waiting {
    note: Note,
    /// Dropped when it is told.
    _told: Option<Told>,
    _forgetting: Option<Arc<()>>,
}

impl Notify {
    pub(crate) fn start(notifier: Notifier) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            notifier,
            queue: Mutex::default(),
            wanted: Condvar::new(),
        });
        shared.start_thread(&mut shared.queue.lock())?;
        Ok(Self {
            shared,
            forgetting: Mutex::default(),
        })
    }
}

impl Shared {
    /// It ends when nobody hands notes over any more.
    fn start_thread(self: &Arc<Self>, queue: &mut Queue) -> io::Result<()> {
        let shared = Arc::clone(self);
        thread::Builder::new()
            .name("fuse-notify".into())
            .spawn(move || shared.work())?;
        queue.threads += 1;
        Ok(())
    }

    fn add(self: &Arc<Self>, waiting: impl IntoIterator<Item = Waiting>) {
        let mut queue = self.queue.lock();
        waiting.into_iter().for_each(|waiting| queue.add(waiting));
        self.find_threads(&mut queue);
    }

    /// Has somebody take what is ready.
    fn find_threads(self: &Arc<Self>, queue: &mut Queue) {
        if queue.ready.is_empty() {
            return;
        }
        if queue.idle > 0 {
            self.wanted.notify_one();
        } else if queue.threads < THREADS_MAX
            && let Err(error) = self.start_thread(queue)
        {
            tracing::warn!(%error, "no thread more to tell the kernel of changes");
        }
    }

    fn work(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        loop {
            if let Some((lane, waiting)) = queue.take() {
                self.find_threads(&mut queue);
                drop(queue);
                tell(&self.notifier, &waiting.note);
                drop(waiting);
                queue = self.queue.lock();
                queue.done(lane);
                continue;
            }
            if queue.ended {
                break;
            }
            queue.idle += 1;
            let waited = self.wanted.wait_for(&mut queue, IDLE).timed_out();
            queue.idle -= 1;
            if waited && queue.ready.is_empty() && queue.threads > 1 {
                break;
            }
        }
        queue.threads -= 1;
    }
}

impl Queue {
    fn add(&mut self, waiting: Waiting) {
        let lane = match &waiting.note {
            Note::Name(dir, _) => Lane::Directory(*dir),
            Note::Node(node) | Note::Attributes(node) => Lane::Node(*node),
        };
        let ready = &mut self.ready;
        let notes = self.lanes.entry(lane).or_insert_with(|| {
            ready.push_back(lane);
            VecDeque::new()
        });
        notes.push_back(waiting);
    }

    fn take(&mut self) -> Option<(Lane, Waiting)> {
        let lane = self.ready.pop_front()?;
        let waiting = self.lanes.get_mut(&lane)?.pop_front()?;
        Some((lane, waiting))
    }

    /// Nobody is at work on a lane any more.
    fn done(&mut self, lane: Lane) {
        match self.lanes.get(&lane) {
            Some(notes) if !notes.is_empty() => self.ready.push_back(lane),
            _ => drop(self.lanes.remove(&lane)),
        }
    }
}

fn tell(notifier: &Notifier, note: &Note) {
    let told = match note {
        Note::Node(node) => notifier.inval_inode(INodeNo(*node), 0, 0),
        // An offset below zero: its pages stay.
        Note::Attributes(node) => notifier.inval_inode(INodeNo(*node), -1, 0),
        Note::Name(parent, name) => notifier.inval_entry(INodeNo(*parent), OsStr::from_bytes(name)),
    };
    match told {
        // It does not know it, or the mount is gone.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV)) => {
            tracing::debug!(?note, %error, "the kernel did not take note");
        }
        _ => {}
    }
}

impl Invalidate for Notify {
    fn tell(&self, note: Note, told: Told) {
        self.shared.add([Waiting {
            note,
            _told: Some(told),
            _forgetting: None,
        }]);
    }

    fn forget(&self, names: Vec<(NodeId, Arc<[u8]>)>) {
        let forgetting = Arc::new(());
        *self.forgetting.lock() = Arc::downgrade(&forgetting);
        self.shared.add(names.into_iter().map(|(parent, name)| Waiting {
            note: Note::Name(parent, name),
            _told: None,
            _forgetting: Some(Arc::clone(&forgetting)),
        }));
    }

    fn is_forgetting(&self) -> bool {
        self.forgetting.lock().strong_count() > 0
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        self.shared.queue.lock().ended = true;
        self.shared.wanted.notify_all();
    }
}
