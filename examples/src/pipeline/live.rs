//! Progress as it happens: three bars on stderr when it is a terminal. It only looks; nothing waits for it.

use forebay_client::Client;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{task::JoinHandle, time::sleep};

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The bars.
#[derive(Debug)]
pub(super) struct Live {
    _all: MultiProgress,
    written: ProgressBar,
    trained: ProgressBar,
    persisted: ProgressBar,
    watcher: Mutex<Option<JoinHandle<()>>>,
}

impl Live {
    pub(super) fn start(client: Client) -> Arc<Self> {
        let all = MultiProgress::new();
        let bar = |name: &'static str, unit: &str| {
            let style = ProgressStyle::with_template(&format!("{{prefix:10}} {unit} {{msg}} [{{elapsed}}]"));
            all.add(
                ProgressBar::no_length()
                    .with_style(style.expect("the template is right"))
                    .with_prefix(name),
            )
        };
        let live = Arc::new(Self {
            written: bar("written", "{human_pos:>12} rows  {per_sec}"),
            trained: bar("trained", "{human_pos:>12} rows  {per_sec}"),
            persisted: bar("persisted", "{binary_bytes:>12}"),
            _all: all,
            watcher: Mutex::new(None),
        });
        let watcher = tokio::spawn(watch(client, live.persisted.clone()));
        *live.watcher.lock().expect("nobody panics with it") = Some(watcher);
        live
    }

    pub(super) fn written(&self, rows: u64) {
        self.written.set_position(rows);
    }

    pub(super) fn trained(&self, rows: usize) {
        self.trained.inc(rows as u64);
    }

    pub(super) fn committed(&self) {
        self.written.abandon_with_message("published");
    }

    pub(super) async fn stop(&self) {
        let watcher = self.watcher.lock().expect("nobody panics with it").take();
        if let Some(watcher) = watcher {
            watcher.abort();
            let _ = watcher.await;
        }
        self.trained.abandon();
        self.persisted.abandon_with_message("all of it");
    }
}

/// Shows what the server says of its under-store, until it is stopped.
async fn watch(client: Client, bar: ProgressBar) {
    loop {
        if let Ok(status) = client.status().await {
            bar.set_position(status.persisted_bytes);
            bar.set_message(format!("{} MiB to go", status.dirty_bytes >> 20));
        }
        sleep(LOOK_EVERY).await;
    }
}
