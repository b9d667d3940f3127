//! A trace of what is read, for `policy simulate`: which blocks, when, with how many bytes. Whether a block was held is left
//! out: the simulation finds that out for other policies and sizes than those that were in force.
//!
//! Off unless the settings name a file. Lines are handed to a task through a queue of bounded length and written in batches; when the
//! queue is full, lines are left out, and the file says how many. It ends at its size limit. A trace that can not be written is no
//! error for anybody who reads.

use crate::Settings;
use forebay_namespace::Path;
use forebay_policy::trace::{HEADER, Read};
use forebay_runtime::task::{Tasks, blocking};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

/// Reads that wait to be written.
const QUEUE: usize = 8192;

/// Takes reads in.
#[derive(Debug, Default)]
pub(super) struct Trace {
    queue: OnceLock<mpsc::Sender<Read>>,
    left_out: AtomicU64,
}

impl Trace {
    /// Whether anybody wants to know.
    pub(super) fn is_on(&self) -> bool {
        self.queue.get().is_some()
    }

    /// A read of a block.
    pub(super) fn read(&self, at: i64, bytes: u64, block: u64, path: &Path) {
        let Some(queue) = self.queue.get() else { return };
        let read = Read {
            at,
            bytes,
            block,
            path: path.clone(),
        };
        if queue.try_send(read).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Begins to write where the settings say so.
pub(super) fn start(settings: &Settings, tasks: &Tasks, clean: &super::Clean) {
    let Some(file) = settings.trace_file.clone() else {
        return;
    };
    let (send, reads) = mpsc::channel(QUEUE);
    // Set once: this is the only start.
    let _ = clean.shared.trace.queue.set(send);
    let (clean, bytes_max, shutdown) = (clean.clone(), settings.trace_bytes_max.0, tasks.shutdown().clone());
    tasks.spawn("trace", async move {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = write(file, bytes_max, reads, clean) => {}
        }
    });
}

async fn write(path: PathBuf, bytes_max: u64, mut reads: mpsc::Receiver<Read>, clean: super::Clean) {
    let name = path.display().to_string();
    let open = blocking(move || {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{HEADER}")?;
        file.flush()?;
        std::io::Result::Ok(file)
    });
    let mut file = match open.await {
        Ok(file) => file,
        Err(error) => {
            return tracing::error!(file = name, %error, "there is no trace of reads: the file can not be written");
        }
    };
    tracing::info!(file = name, bytes_max, "every read of clean data is traced");
    let mut bytes = HEADER.len() as u64 + 1;
    let mut batch = Vec::new();
    while reads.recv_many(&mut batch, QUEUE).await > 0 {
        let mut text = String::new();
        let left_out = clean.shared.trace.left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            text.push_str(&format!("# {left_out} reads are left out here\n"));
        }
        for read in batch.drain(..) {
            text.push_str(&read.line());
            text.push('\n');
        }
        bytes += text.len() as u64;
        if bytes > bytes_max {
            reads.close();
            tracing::info!(file = name, bytes_max, "the trace of reads ends: it has its size");
            return;
        }
        let written = blocking(move || {
            file.write_all(text.as_bytes())?;
            file.flush()?;
            std::io::Result::Ok(file)
        });
        file = match written.await {
            Ok(file) => file,
            Err(error) => return tracing::error!(file = name, %error, "the trace of reads ends"),
        };
    }
}
