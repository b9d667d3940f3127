//! Tells the kernel what to ask for again, from a thread of its own: inside a request it would wait for itself.

use crate::volume::{Invalidate, NodeId};
use async_trait::async_trait;
use fuser::{INodeNo, Notifier};
use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, sync::mpsc, thread, time::Duration};
use tokio::sync::oneshot;

/// Longest wait for the kernel. It waits for requests under way, and those may wait for whoever made the change.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
enum What {
    Node(NodeId),
    Name(NodeId, Vec<u8>),
}

/// Hands notes to the thread, which lives as long as this.
#[derive(Debug)]
pub(crate) struct Notify {
    notes: mpsc::Sender<(What, oneshot::Sender<()>)>,
}

impl Notify {
    pub(crate) fn start(notifier: Notifier) -> io::Result<Self> {
        let (notes, taken) = mpsc::channel::<(What, oneshot::Sender<()>)>();
        // It ends when the sender is gone.
        thread::Builder::new().name("fuse-notify".into()).spawn(move || {
            for (what, done) in taken {
                tell(&notifier, &what);
                let _ = done.send(());
            }
        })?;
        Ok(Self { notes })
    }

    async fn note(&self, what: What) {
        let (done, told) = oneshot::channel();
        if self.notes.send((what, done)).is_ok() && tokio::time::timeout(PATIENCE, told).await.is_err() {
            tracing::warn!("the kernel has not taken note of a change in time; it will when its requests are answered");
        }
    }
}

fn tell(notifier: &Notifier, what: &What) {
    let told = match what {
        What::Node(node) => notifier.inval_inode(INodeNo(*node), 0, 0),
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

    async fn name(&self, parent: NodeId, name: &[u8]) {
        self.note(What::Name(parent, name.to_vec())).await;
    }
}
