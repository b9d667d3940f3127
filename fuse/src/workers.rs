//! The threads on which requests go on that had to wait for something.
//!
//! Each is a runtime of its own: a wake reaches one thread. In a runtime of many threads a wake that finds all of them asleep wakes one
//! after the other to look for work, which on a virtual machine costs more than a small file's whole request.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};
use tokio::runtime::{Builder, Handle};

/// As many as there are cores, within these.
const COUNT: std::ops::RangeInclusive<usize> = 2..=8;

/// All mounts share them, for as long as the process lives: what the engine begins on them may outlive the mount.
static WORKERS: OnceLock<Vec<Handle>> = OnceLock::new();

/// The workers, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Workers {
    handles: &'static [Handle],
    next: AtomicUsize,
}

impl Workers {
    pub(crate) fn start() -> io::Result<Self> {
        let handles = match WORKERS.get() {
            Some(handles) => handles,
            None => {
                let cores = thread::available_parallelism().map_or(*COUNT.start(), usize::from);
                let started = (0..cores.clamp(*COUNT.start(), *COUNT.end())).map(start_one);
                let started = started.collect::<io::Result<_>>()?;
                WORKERS.get_or_init(|| started)
            }
        };
        Ok(Self {
            handles,
            next: AtomicUsize::new(0),
        })
    }

    /// The one for the next request.
    pub(crate) fn next(&self) -> &'static Handle {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        &self.handles[turn % self.handles.len()]
    }
}

fn start_one(number: usize) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    // It ends with the process.
    thread::Builder::new()
        .name(format!("fuse-work-{number}"))
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}
