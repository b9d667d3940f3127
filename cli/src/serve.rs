//! Components to a running server, and its end.
//!
//! 1. Settings are read, limits raised, the data folders made.
//! 2. The metastore, then the engine (which locks, replays and recovers), then the doors.
//! 3. One line on stdout says that it can serve.
//! 4. SIGTERM or SIGINT: the doors close, calls under way may end, folders are unmounted, the engine drains; exit code 0. Dirty data stays in the data
//!    folders, the next start goes on with it. A second signal ends it at once.

use crate::{
    args::ServeFlags,
    config::{self, ServeSettings},
    failure::{Failure, Outcome},
    folders::MountedFolders,
    limits,
    own::OwnFolders,
};
use async_trait::async_trait;
use forebay_flight_server::{FolderMode, Folders, Server, ServerSettings};
use forebay_metastore::OpenOptions;
use forebay_runtime::{chance::OsChance, clock::RealClock, disk::RealDisk, failpoint};
use forebay_understore::{StoreError, UnderStoreRef};
use forebay_writeback::{Cache, Components, MountSpec, StoreOpener};
use std::{
    io::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long calls under way may go on after the doors were closed.
const DOORS_DRAIN_MAX: Duration = Duration::from_secs(15);

/// Runs the server until it is told to end.
pub(crate) async fn serve(flags: ServeFlags) -> Outcome {
    let settings = config::resolve(flags)?;
    failpoint::init().map_err(|error| Failure::usage(error.to_string()))?;
    let open_files = limits::raise_open_files();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data = ?settings.cache.data, open_files, "starting");
    let mut signals = Signals::listen()?;
    let server = tokio::select! {
        running = start(settings) => running?,
        name = signals.next() => {
            tracing::info!(signal = name, "told to end before it was ready");
            return Ok(());
        }
    };
    announce(&server.doors)?;
    let name = signals.next().await;
    tracing::info!(signal = name, "draining");
    tokio::select! {
        () = server.end() => Ok(()),
        name = signals.next() => Err(Failure::failed(format!("a second {name} ended it before it was drained"))),
    }
}

struct Running {
    cache: Cache,
    doors: Server,
    folders: Arc<MountedFolders>,
}

impl Running {
    async fn end(self) {
        self.doors.shutdown(DOORS_DRAIN_MAX).await;
        self.folders.end().await;
        self.cache.shutdown().await;
        tracing::info!("ended");
    }
}

async fn start(settings: ServeSettings) -> Outcome<Running> {
    let ServeSettings {
        cache,
        doors,
        meta_url,
        fsync,
        fuse,
        stay_awake,
    } = settings;
    // Before the engine makes its handles, else they count into nothing.
    forebay_flight_server::install_metrics();
    for folder in &cache.data {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|error| Failure::failed(format!("--data {}: {error}", folder.display())))?;
    }
    // A server that was killed may be stuck in its mounts, with the locks of the data folders.
    forebay_fuse::abort_stuck_mounts().await;
    let own = Arc::new(OwnFolders::new(&cache));
    if let Some(folder) = &fuse {
        own.mounts(folder);
    }
    refuse_own(&own, &cache.mounts).await?;
    let meta = forebay_metastore::open(&meta_url, OpenOptions { fsync }).await;
    let meta = meta.map_err(|error| Failure::failed(error.to_string()))?;
    let stores = Arc::new(Stores {
        timeout: cache.under_timeout,
        md5_bytes_max: cache.under_md5_max.0,
        own: Arc::clone(&own),
        started: AtomicBool::new(false),
    });
    let components = Components {
        disk: RealDisk::shared(),
        clock: RealClock::shared(),
        chance: OsChance::shared(),
        meta,
        stores: Arc::clone(&stores) as _,
    };
    let cache = Cache::open(cache, components)
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    stores.started.store(true, Ordering::Relaxed);
    let folders = Arc::new(MountedFolders::new(cache.clone(), own, stay_awake));
    let opened = open_doors(&cache, doors, &folders, fuse).await;
    match opened {
        Ok(doors) => Ok(Running { cache, doors, folders }),
        Err(failure) => {
            folders.end().await;
            cache.shutdown().await;
            Err(failure)
        }
    }
}

/// Of the mounts that are named at start: before anything is written that remembers them.
async fn refuse_own(own: &OwnFolders, mounts: &[MountSpec]) -> Outcome {
    for MountSpec { path, url, .. } in mounts {
        let store = forebay_understore::open(url, &forebay_understore::Settings::default()).await;
        // What is wrong with a URL is the engine's to say.
        if let Ok(store) = store
            && let Some(why) = own.refuses(store.url()).await
        {
            return Err(Failure::usage(format!("--under {path} ([[mount]]): {why}")));
        }
    }
    Ok(())
}

async fn open_doors(
    cache: &Cache,
    settings: ServerSettings,
    folders: &Arc<MountedFolders>,
    fuse: Option<PathBuf>,
) -> Outcome<Server> {
    if let Some(folder) = fuse {
        let mounted = folders.mount(&folder, FolderMode::default()).await;
        mounted.map_err(|error| Failure::failed(format!("--fuse {error}")))?;
    }
    let shared: Arc<dyn Folders> = Arc::clone(folders) as _;
    let doors = Server::start(cache.clone(), settings, shared).await;
    doors.map_err(|error| Failure::failed(error.to_string()))
}

/// The line that scripts wait for.
fn announce(doors: &Server) -> Outcome {
    let mut out = std::io::stdout().lock();
    let told =
        writeln!(out, "forebay ready flight={} http={}", doors.flight_url, doors.http_url).and_then(|()| out.flush());
    told.map_err(|error| Failure::failed(format!("stdout: {error}")))
}

/// Opens under-stores for the engine.
#[derive(Debug)]
struct Stores {
    timeout: Duration,
    md5_bytes_max: u64,
    own: Arc<OwnFolders>,
    /// Until then those are opened that the data folder remembers, whatever they are: a server has to run for one to be removed.
    started: AtomicBool,
}

#[async_trait]
impl StoreOpener for Stores {
    async fn open(&self, url: &str) -> Result<UnderStoreRef, StoreError> {
        let settings = forebay_understore::Settings {
            timeout: self.timeout,
            md5_bytes_max: self.md5_bytes_max,
            ..Default::default()
        };
        let store = forebay_understore::open(url, &settings).await?;
        if self.started.load(Ordering::Relaxed)
            && let Some(why) = self.own.refuses(store.url()).await
        {
            return Err(StoreError::Refused(why));
        }
        Ok(store)
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Outcome<Self> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
