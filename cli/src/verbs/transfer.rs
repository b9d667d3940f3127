//! One file from here to there: local to cache, cache to local, cache to cache.

use crate::failure::{AtFile, Outcome};
use bytes::{Bytes, BytesMut};
use forebay_client::{Client, FileOptions, PutDone, WirePath};
use indicatif::ProgressBar;
use std::{
    io,
    path::{Path, PathBuf},
};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
};

/// Bytes read from a local file at a time.
const PIECE_BYTES: usize = 4 << 20;

/// Writes all that `from` gives to the path; also says how many bytes that were. `len`: how many there probably are.
pub(super) async fn upload(
    client: &Client,
    (mut from, len): (impl AsyncRead + Unpin, Option<u64>),
    name: &Path,
    to: (&WirePath, FileOptions),
    bar: &ProgressBar,
) -> Outcome<(PutDone, u64)> {
    let (path, options) = to;
    let mut put = client.write_file(&path.to_string(), options).await?;
    // One more than there are, so that the end is seen without a second buffer. Should there be more after all, whole pieces follow.
    let mut piece_bytes = len.map_or(PIECE_BYTES, |len| {
        PIECE_BYTES.min(usize::try_from(len).unwrap_or(PIECE_BYTES) + 1)
    });
    let (mut size, mut ended) = (0, false);
    while !ended {
        let mut piece = BytesMut::with_capacity(piece_bytes);
        while piece.len() < piece_bytes && !ended {
            match from.read_buf(&mut piece).await {
                Ok(read) => ended = read == 0,
                Err(error) => {
                    put.abort().await;
                    return Err(error).at(name);
                }
            }
        }
        let len = piece.len() as u64;
        put.write(piece.freeze()).await?;
        piece_bytes = PIECE_BYTES;
        size += len;
        bar.inc(len);
    }
    Ok((put.finish().await?, size))
}

/// Reads `path` into the local file `to`, which is there whole or not at all. Answers its size.
pub(super) async fn download(client: &Client, path: &WirePath, to: &Path, bar: &ProgressBar) -> Outcome<u64> {
    let part = part_of(to)?;
    let written = fill(client, path, &part, bar).await;
    let placed = match &written {
        Ok(_) => tokio::fs::rename(&part, to).await.at(to),
        Err(_) => Ok(()),
    };
    if written.is_err() || placed.is_err() {
        // What is left of it is of no use; that it cannot be removed changes nothing for the caller.
        let _ = tokio::fs::remove_file(&part).await;
    }
    placed.and(written)
}

async fn fill(client: &Client, path: &WirePath, part: &Path, bar: &ProgressBar) -> Outcome<u64> {
    let mut read = client.read_file(&path.to_string(), None).await?;
    let mut file = File::create(part).await.at(part)?;
    let mut size = 0;
    while let Some(bytes) = read.next_bytes().await? {
        file.write_all(&bytes).await.at(part)?;
        size += bytes.len() as u64;
        bar.inc(bytes.len() as u64);
    }
    file.flush().await.at(part)?;
    Ok(size)
}

/// A name beside `to` that nobody else uses.
fn part_of(to: &Path) -> Outcome<PathBuf> {
    let name = to
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        .at(to)?;
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(format!(".{}.part", std::process::id()));
    Ok(to.with_file_name(part))
}

/// Copies within the server. The bytes pass through here: there is no server-side copy.
pub(super) async fn copy(
    client: &Client,
    from: &WirePath,
    (to, options): (&WirePath, FileOptions),
    bar: &ProgressBar,
) -> Outcome<u64> {
    let mut read = client.read_file(&from.to_string(), None).await?;
    let mut put = client.write_file(&to.to_string(), options).await?;
    let mut size = 0;
    loop {
        match read.next_bytes().await {
            Ok(Some(bytes)) => {
                let len = bytes.len() as u64;
                put.write(bytes).await?;
                size += len;
                bar.inc(len);
            }
            Ok(None) => break,
            Err(error) => {
                put.abort().await;
                return Err(error.into());
            }
        }
    }
    put.finish().await?;
    Ok(size)
}

/// Whether two files have the same content.
pub(super) async fn equal(client: &Client, one: &WirePath, other: &WirePath) -> Outcome<bool> {
    let (mut reads, mut left) = (
        [
            client.read_file(&one.to_string(), None).await?,
            client.read_file(&other.to_string(), None).await?,
        ],
        [Bytes::new(), Bytes::new()],
    );
    loop {
        for (read, left) in reads.iter_mut().zip(&mut left) {
            while left.is_empty()
                && let Some(bytes) = read.next_bytes().await?
            {
                *left = bytes;
            }
        }
        let len = left[0].len().min(left[1].len());
        if len == 0 {
            return Ok(left[0].is_empty() && left[1].is_empty());
        }
        if left[0].split_to(len) != left[1].split_to(len) {
            return Ok(false);
        }
    }
}
