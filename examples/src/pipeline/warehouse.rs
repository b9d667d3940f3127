//! A second under-store in the same namespace: an HDFS that has the input tables already, and gets a summary.
//!
//! What is done here by HDFS's own client happens beside Forebay, as other programs would: it puts the tables there before the server
//! starts, and reads what arrived.

use super::{
    PATIENCE,
    input::{Input, Tables},
    job::Job,
    verify::{self, Objects},
};
use anyhow::{Context, Result, ensure};
use forebay_client::Client;
use futures::{StreamExt, TryStreamExt};
use hdfs_native::{ClientBuilder, WriteOptions};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

/// Where it is mounted.
const MOUNT: &str = "/warehouse";
/// The dataset that goes there.
const SUMMARY: &str = "/warehouse/summary";
/// Bytes written at once.
const PIECE: usize = 4 << 20;

/// An HDFS folder of a run's own.
pub(super) struct Warehouse {
    url: String,
    folder: String,
    hdfs: hdfs_native::Client,
}

/// What happened there. Times are seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Warehoused {
    /// Bytes of the input tables, which the job read through Forebay.
    pub read_through_bytes: u64,
    /// Rows of the summary, one an order.
    pub summary_rows: u64,
    /// Files of the summary that were compared with what Forebay serves, by listing and SHA-256.
    pub files_verified: usize,
    /// From the commit of the summary to its being in HDFS.
    pub commit_to_persisted: f64,
}

impl Warehouse {
    /// `FOREBAY_TEST_HDFS` as `hdfs://HOST:PORT`; under a folder that no other run has.
    pub(super) fn from_env() -> Result<Self> {
        let root =
            env::var("FOREBAY_TEST_HDFS").context("--hdfs needs FOREBAY_TEST_HDFS (tests/hdfs/with.sh sets it)")?;
        let hdfs = ClientBuilder::new().with_url(&root).build().context("HDFS")?;
        let folder = format!("/pipeline-{}", std::process::id());
        let url = format!("{}{folder}", root.trim_end_matches('/'));
        Ok(Self { url, folder, hdfs })
    }

    /// The argument of `--under`.
    pub(super) fn mount(&self) -> String {
        format!("{MOUNT}={}", self.url)
    }

    /// Puts the tables there, past Forebay.
    pub(super) async fn stock(&self, input: &Input) -> Result<()> {
        self.hdfs.mkdirs(&self.folder, 0o777, true).await?;
        for path in [&input.lineitem, &input.orders] {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .context("a table's name")?;
            self.put(path, &format!("{}/{name}", self.folder)).await?;
        }
        Ok(())
    }

    async fn put(&self, from: &Path, to: &str) -> Result<()> {
        let mut file = File::open(from)?;
        let mut writer = self.hdfs.create(to, WriteOptions::default()).await?;
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            if file.by_ref().take(PIECE as u64).read_to_end(&mut piece)? == 0 {
                break;
            }
            writer.write_bytes(piece.into()).await?;
        }
        writer.close().await?;
        Ok(())
    }

    /// The tables as Forebay shows them.
    pub(super) fn tables(&self, input: &Input, flight: &str) -> Result<Tables> {
        let place = flight.split_once("://").context("the server's address")?.1;
        let at = |path: &Path| Some(format!("forebay://{place}{MOUNT}/{}", path.file_name()?.to_str()?));
        let tables = at(&input.lineitem).zip(at(&input.orders));
        let (lineitem, orders) = tables.context("a table's name")?;
        Ok(Tables { lineitem, orders })
    }

    /// Makes the summary out of the features, waits until HDFS has it, and compares.
    pub(super) async fn summarise(&self, client: &Client, job: &Job, features: &str) -> Result<Warehoused> {
        let summary_rows = job.summarise(client, features, SUMMARY).await?;
        let committed = Instant::now();
        client.wait_persisted(SUMMARY, PATIENCE).await?;
        let persisted = committed.elapsed();
        let compared = verify::compare(client, SUMMARY, self).await.context("what HDFS has")?;
        Ok(Warehoused {
            read_through_bytes: self.stocked(client).await?,
            summary_rows,
            files_verified: compared.objects,
            commit_to_persisted: seconds(persisted),
        })
    }

    /// Bytes of the tables; all of them must have passed through the cache and be none of its own.
    async fn stocked(&self, client: &Client) -> Result<u64> {
        let mut entries = std::pin::pin!(client.list(MOUNT, false, None)?);
        let mut bytes = 0;
        while let Some(entry) = entries.try_next().await? {
            if entry.path.to_string().ends_with(".parquet") {
                ensure!(entry.state == "clean", "{}: {} and not clean", entry.path, entry.state);
                bytes += entry.size;
            }
        }
        ensure!(bytes > 0, "no table is shown under {MOUNT}");
        Ok(bytes)
    }
}

impl Objects for Warehouse {
    async fn sizes(&self, below: &str) -> Result<BTreeMap<String, u64>> {
        let root = format!("{}/", self.folder);
        let found = self.hdfs.list_status(&format!("{root}{below}"), true).await?;
        let files = found.into_iter().filter(|status| !status.isdir);
        files
            .map(|status| {
                let key = status.path.strip_prefix(&root).context("a file outside the folder")?;
                Ok((key.to_owned(), status.length as u64))
            })
            .collect()
    }

    async fn sha256(&self, key: &str) -> Result<[u8; 32]> {
        let file = self.hdfs.read(&format!("{}/{key}", self.folder)).await?;
        let mut pieces = std::pin::pin!(file.read_range_stream(0, file.file_length()));
        let mut hash = Sha256::new();
        while let Some(piece) = pieces.next().await {
            hash.update(&piece?);
        }
        Ok(hash.finalize().into())
    }
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 1e4
}
