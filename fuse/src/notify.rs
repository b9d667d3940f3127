//! Tells the kernel what to ask for again, from a thread of its own: inside a request it would wait for itself.

use crate::volume::{Invalidate, NodeId};
use async_trait::async_trait;
use fuser::{INodeNo, Notifier};
use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};
use tokio::sync::oneshot;

/// Longest wait for the kernel. It waits for requests under way, and those may wait for whoever made the change.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum What {
    Node(NodeId),
    Attributes(NodeId),
    Name(NodeId, Arc<[u8]>),
}

#[derive(Debug)]
enum Note {
    /// Somebody waits until the kernel has taken note.
    Changed(What, oneshot::Sender<()>),
    Forget(Vec<(NodeId, Arc<[u8]>)>),
}

/// Hands notes to the thread, which lives as long as this.
#[derive(Debug)]
pub(crate) struct Notify {
    notes: mpsc::Sender<Note>,
    forgetting: Arc<AtomicBool>,
}

impl Notify {
    pub(crate) fn start(notifier: Notifier) -> io::Result<Self> {
        let (notes, taken) = mpsc::channel();
        let forgetting = Arc::new(AtomicBool::new(false));
        let done_forgetting = Arc::clone(&forgetting);
        // It ends when the sender is gone.
        thread::Builder::new().name("fuse-notify".into()).spawn(move || {
            for note in taken {
                match note {
                    Note::Changed(what, done) => {
                        tell(&notifier, &what);
                        let _ = done.send(());
                    }
                    Note::Forget(names) => {
                        let names = names.into_iter().map(|(parent, name)| What::Name(parent, name));
                        names.for_each(|what| tell(&notifier, &what));
                        done_forgetting.store(false, Ordering::Release);
                    }
                }
            }
        })?;
        Ok(Self { notes, forgetting })
    }

    async fn note(&self, what: What) {
        let (done, told) = oneshot::channel();
        if self.notes.send(Note::Changed(what, done)).is_ok() && tokio::time::timeout(PATIENCE, told).await.is_err() {
            tracing::warn!("the kernel has not taken note of a change in time; it will when its requests are answered");
        }
    }
}

fn tell(notifier: &Notifier, what: &What) {
    let told = match what {
        What::Node(node) => notifier.inval_inode(INodeNo(*node), 0, 0),
        // An offset below zero: its pages stay.
        What::Attributes(node) => notifier.inval_inode(INodeNo(*node), -1, 0),
        What::Name(parent, name) => notifier.inval_entry(INodeNo(*parent), OsStr::from_bytes(name)),
    };
    match told {
        // It does not know it, or the mount is gone.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ENODEV)) => {
            tracing::debug!(?what, %error, "the kernel did not take note");
        }
        _ => {}
    }
}

#[async_trait]
impl Invalidate for Notify {
    async fn node(&self, node: NodeId) {
        self.note(What::Node(node)).await;
    }

    async fn attributes(&self, node: NodeId) {
        self.note(What::Attributes(node)).await;
    }

    async fn name(&self, parent: NodeId, name: &[u8]) {
        self.note(What::Name(parent, name.into())).await;
    }

    fn forget(&self, names: Vec<(NodeId, Arc<[u8]>)>) {
        self.forgetting.store(true, Ordering::Release);
        if self.notes.send(Note::Forget(names)).is_err() {
            self.forgetting.store(false, Ordering::Release);
        }
    }

    fn is_forgetting(&self) -> bool {
        self.forgetting.load(Ordering::Acquire)
    }
}
