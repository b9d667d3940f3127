//! What is there: the status of a name, listings whole and in pages, and sums over a tree.
//!
//! A listing goes out page by page as the engine reads it. A name that is not UTF-8 is shown with replacement characters, because JSON has
//! no other way; by its percent-encoded bytes it can be asked for all the same. No page of LISTSTATUS_BATCH ends at one, or the
//! client could not say where to go on.

use super::{Answer, Call, WebHdfs, error::Fault, json_answer};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use forebay_writeback::{
    Path,
    names::{List, Stat, StatKind},
    owners::OwnerKind,
};
use futures::{StreamExt, stream};
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::json;
use std::{collections::VecDeque, io, sync::Arc};

/// Entries of a page.
const PAGE: usize = 1000;
/// What a file is said to lie in, so that programs split their work well.
pub(super) const BLOCK_BYTES: u64 = 128 << 20;

/// A FileStatus.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FileStatus {
    path_suffix: String,
    #[serde(rename = "type")]
    kind: &'static str,
    length: u64,
    owner: Arc<str>,
    group: Arc<str>,
    permission: String,
    access_time: i64,
    modification_time: i64,
    block_size: u64,
    replication: u16,
    file_id: i64,
    storage_policy: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    symlink: Option<String>,
}

impl WebHdfs {
    /// The status of what is called `suffix` where it is told.
    async fn file_status(&self, stat: &Stat, suffix: String) -> Result<FileStatus, Fault> {
        let (kind, blocks) = match stat.kind {
            StatKind::Dir => ("DIRECTORY", 0),
            StatKind::Symlink => ("SYMLINK", 0),
            // A pipe or device is a name without content for those who can not open it.
            StatKind::File | StatKind::Special => ("FILE", 1),
        };
        Ok(FileStatus {
            path_suffix: suffix,
            kind,
            length: stat.size,
            owner: self.door.owners.name(OwnerKind::User, stat.uid).await?,
            group: self.door.owners.name(OwnerKind::Group, stat.gid).await?,
            permission: format!("{:o}", stat.mode & 0o1777),
            access_time: stat.atime.0 / 1000,
            modification_time: stat.mtime.0 / 1000,
            block_size: blocks * BLOCK_BYTES,
            replication: blocks as u16,
            // Java has no unsigned numbers.
            file_id: (stat.id & i64::MAX as u64) as i64,
            storage_policy: 0,
            symlink: stat
                .target
                .as_ref()
                .map(|target| String::from_utf8_lossy(target).into_owned()),
        })
    }

    async fn statuses(&self, stats: &[Stat]) -> Result<Vec<FileStatus>, Fault> {
        let mut told = Vec::with_capacity(stats.len());
        for stat in stats {
            let name = stat.path.name().unwrap_or_default();
            told.push(
                self.file_status(stat, String::from_utf8_lossy(name).into_owned())
                    .await?,
            );
        }
        Ok(told)
    }
}

impl Call {
    /// What is at the path. Below a file there is nothing.
    pub(super) async fn stat(&self) -> Result<Stat, Fault> {
        self.stat_of(&self.path)
            .await?
            .ok_or_else(|| Fault::missing(&self.wire))
    }

    /// What is at `path`, if anything is.
    pub(super) async fn stat_of(&self, path: &Path) -> Result<Option<Stat>, Fault> {
        use forebay_writeback::{ErrorKind, Mismatch};
        match self.cache().stat(path).await {
            Ok(stat) => Ok(Some(stat)),
            Err(e) if e.kind() == ErrorKind::NotFound || e.mismatch() == Some(Mismatch::NotADirectory) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// GETFILESTATUS. Links are not followed, so GETFILELINKSTATUS is the same.
pub(super) async fn file_status(call: Call) -> Answer {
    call.may_read()?;
    let stat = call.stat().await?;
    let status = call.hdfs.file_status(&stat, String::new()).await?;
    json_answer(json!({ "FileStatus": status }))
}

/// LISTSTATUS.
pub(super) async fn list(call: Call) -> Answer {
    call.may_read()?;
    let stat = call.stat().await?;
    if stat.kind != StatKind::Dir {
        let status = call.hdfs.file_status(&stat, String::new()).await?;
        return json_answer(json!({"FileStatuses": {"FileStatus": [status]}}));
    }
    let mut listing = Listing {
        hdfs: Arc::clone(&call.hdfs),
        dir: call.path.clone(),
        after: None,
        ended: false,
        entries: 0,
    };
    // What is wrong with the first page is still the answer.
    let first = listing.page().await?;
    let begun = stream::iter([
        Ok(Bytes::from_static(b"{\"FileStatuses\":{\"FileStatus\":[\n")),
        Ok(first),
    ]);
    let more = stream::unfold(listing, |mut listing| async move {
        if listing.ended {
            return None;
        }
        let page = listing
            .page()
            .await
            .map_err(|fault| io::Error::other(fault.message().to_owned()));
        listing.ended |= page.is_err();
        Some((page, listing))
    });
    let end = stream::iter([Ok(Bytes::from_static(b"\n]}}\n"))]);
    Ok(json_stream(Body::from_stream(begun.chain(more).chain(end))))
}

fn json_stream(body: Body) -> Response {
    let kind = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// A listing on its way out.
struct Listing {
    hdfs: Arc<WebHdfs>,
    dir: Path,
    after: Option<Vec<u8>>,
    ended: bool,
    entries: u64,
}

impl Listing {
    /// The next entries, with the commas between them.
    async fn page(&mut self) -> Result<Bytes, Fault> {
        let cache = &self.hdfs.door.cache;
        let stats = cache.list_page(&self.dir, self.after.as_deref(), PAGE).await?;
        self.ended = stats.len() < PAGE;
        self.after = stats.last().and_then(|stat| stat.path.name()).map(<[u8]>::to_vec);
        let mut text = Vec::new();
        for status in self.hdfs.statuses(&stats).await? {
            if self.entries > 0 {
                text.extend_from_slice(b",\n");
            }
            self.entries += 1;
            serde_json::to_writer(&mut text, &status).expect("plain data has a JSON form");
        }
        Ok(text.into())
    }
}

/// LISTSTATUS_BATCH. How many entries remain is exact up to a page of them, and at least a page beyond.
pub(super) async fn list_batch(call: Call) -> Answer {
    call.may_read()?;
    let stat = call.stat().await?;
    let (statuses, remaining) = match stat.kind {
        StatKind::Dir => {
            let after = call.query.bytes("startafter").map(<[u8]>::to_vec);
            let (page, remaining) = batch(&call, after).await?;
            (call.hdfs.statuses(&page).await?, remaining)
        }
        _ => (vec![call.hdfs.file_status(&stat, String::new()).await?], 0),
    };
    json_answer(json!({"DirectoryListing": {
        "partialListing": {"FileStatuses": {"FileStatus": statuses}},
        "remainingEntries": remaining,
    }}))
}

/// The page after a name, and how many come after it.
async fn batch(call: &Call, after: Option<Vec<u8>>) -> Result<(Vec<Stat>, usize), Fault> {
    let mut page = call.cache().list_page(&call.path, after.as_deref(), PAGE).await?;
    let mut rest = VecDeque::new();
    if page.len() == PAGE {
        rest = rest_of(call, &page).await?;
    }
    let tellable = |stat: &Stat| stat.path.name().is_some_and(|name| std::str::from_utf8(name).is_ok());
    while !rest.is_empty() && !page.last().is_some_and(tellable) {
        page.extend(rest.pop_front());
        if rest.is_empty() {
            rest = rest_of(call, &page).await?;
        }
    }
    Ok((page, rest.len()))
}

/// A page of what comes after the last entry of `page`.
async fn rest_of(call: &Call, page: &[Stat]) -> Result<VecDeque<Stat>, Fault> {
    let after = page.last().and_then(|stat| stat.path.name());
    Ok(call.cache().list_page(&call.path, after, PAGE).await?.into())
}

/// Sums over what is at the path and everything below.
#[derive(Debug, Default)]
struct Sums {
    files: u64,
    directories: u64,
    bytes: u64,
}

impl Sums {
    fn add(&mut self, stat: &Stat) {
        match stat.kind {
            StatKind::Dir => self.directories += 1,
            _ => self.files += 1,
        }
        self.bytes += if stat.kind == StatKind::File { stat.size } else { 0 };
    }

    async fn of(call: &Call) -> Result<Self, Fault> {
        let stat = call.stat().await?;
        let mut sums = Self::default();
        sums.add(&stat);
        if stat.kind == StatKind::Dir {
            let how = List {
                recursive: true,
                ..List::default()
            };
            let mut found = call.cache().list(&call.path, how);
            while let Some(stat) = found.next().await {
                sums.add(&stat?);
            }
        }
        Ok(sums)
    }
}

/// GETCONTENTSUMMARY.
pub(super) async fn content_summary(call: Call) -> Answer {
    call.may_read()?;
    let sums = Sums::of(&call).await?;
    json_answer(json!({"ContentSummary": {
        "directoryCount": sums.directories,
        "fileCount": sums.files,
        "length": sums.bytes,
        "quota": -1,
        "spaceConsumed": sums.bytes,
        "spaceQuota": -1,
        "typeQuota": {},
        "ecPolicy": "",
        "snapshotDirectoryCount": 0,
        "snapshotFileCount": 0,
        "snapshotLength": 0,
        "snapshotSpaceConsumed": 0,
    }}))
}

/// GETQUOTAUSAGE: there is no quota of Hadoop's kind.
pub(super) async fn quota_usage(call: Call) -> Answer {
    call.may_read()?;
    let sums = Sums::of(&call).await?;
    json_answer(json!({"QuotaUsage": {
        "fileAndDirectoryCount": sums.files + sums.directories,
        "quota": -1,
        "spaceConsumed": sums.bytes,
        "spaceQuota": -1,
        "typeQuota": {},
    }}))
}
