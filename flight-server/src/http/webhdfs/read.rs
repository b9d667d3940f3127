//! OPEN: a file's bytes, from an offset on, as many as are wanted or there are.
//!
//! The first request opens the file and is sent on with a name for what was opened; the second, and every later one of the same
//! reader, gets bytes of that content. They go out in pieces that the engine reads while the piece before is being sent, so a reader
//! costs a few pieces of memory however large the file is, and a slow one holds nobody back.

use super::{
    Answer, Call,
    error::{Exception, Fault},
    opened::OpenedName,
};
use crate::http::metrics;
use axum::{body::Body, response::IntoResponse};
use bytes::Bytes;
use forebay_writeback::{Error, ErrorKind, file::FileReader, names::StatKind};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::{HeaderValue, header};
use std::ops::Range;

/// Bytes read at once.
const PIECE: u64 = 1 << 20;
/// Pieces read ahead of the one that is being sent.
const PIECES_AHEAD: usize = 2;

/// OPEN.
pub(super) async fn open(call: Call) -> Answer {
    call.may_read()?;
    let (offset, length) = (call.query.count("offset")?.unwrap_or(0), call.query.count("length")?);
    let Some(name) = call.query.text("opened")? else {
        let reader = reader(&call).await?;
        check_offset(&reader, offset)?;
        let name = call.hdfs.opened.keep(&call.wire, &reader);
        return call.redirect(&format!("opened={name}"));
    };
    let name = name.parse().map_err(|why| Fault::parameter("opened", why))?;
    let reader = reopened(&call, name).await?;
    // Who seeks beyond the end finds the end.
    let end = length.map_or(reader.size(), |length| offset.saturating_add(length).min(reader.size()));
    send(reader, offset..end).await
}

/// The file at the path. Only files can be read.
pub(super) async fn reader(call: &Call) -> Result<FileReader, Fault> {
    let stat = call.stat().await?;
    let what = match stat.kind {
        StatKind::File => return read_file(call).await,
        StatKind::Dir => "is a directory",
        StatKind::Symlink => "is a symbolic link; open what GETLINKTARGET names",
        StatKind::Special => "is a pipe, socket or device",
    };
    Err(Fault::new(
        Exception::FileNotFound,
        format!("Path is not a file: {} {what}", call.wire),
    ))
}

async fn read_file(call: &Call) -> Result<FileReader, Fault> {
    match call.cache().read_file(&call.path).await {
        Err(e) if e.kind() == ErrorKind::NotFound => Err(Fault::missing(&call.wire)),
        other => Ok(other?),
    }
}

/// The reader that was opened, or another one of the same content.
async fn reopened(call: &Call, name: OpenedName) -> Result<FileReader, Fault> {
    if let Some(reader) = call.hdfs.opened.find(name, &call.wire) {
        return Ok(reader);
    }
    let reader = reader(call).await?;
    if !name.is_of(&reader) {
        let text = format!(
            "{} has another content than when it was opened; open it again",
            call.wire
        );
        return Err(Fault::new(Exception::Io, text));
    }
    Ok(reader)
}

fn check_offset(reader: &FileReader, offset: u64) -> Result<(), Fault> {
    if offset <= reader.size() {
        return Ok(());
    }
    let text = format!("Offset={offset} out of the range [0, {}]", reader.size());
    Err(Fault::new(Exception::EndOfFile, text))
}

async fn send(reader: FileReader, range: Range<u64>) -> Answer {
    let length = range.end.saturating_sub(range.start);
    let mut pieces = pieces(reader, range).peekable();
    // What is wrong with the first piece is still the answer.
    if let Some(Err(_)) = std::pin::Pin::new(&mut pieces).peek().await
        && let Some(Err(error)) = pieces.next().await
    {
        return Err(error.into());
    }
    let sent = pieces.map_ok(|piece| {
        let bytes = piece.iter().map(Bytes::len).sum::<usize>();
        metrics::webhdfs().sent_bytes.increment(bytes as u64);
        stream::iter(piece.into_iter().map(Ok::<_, Error>))
    });
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    Ok((headers, Body::from_stream(sent.try_flatten())).into_response())
}

/// The range's bytes in pieces, read a little ahead.
pub(super) fn pieces(
    reader: FileReader,
    range: Range<u64>,
) -> impl Stream<Item = Result<Vec<Bytes>, Error>> + Send + Unpin + 'static {
    let Range { start, end } = range;
    let starts = (0..).map(move |k: u64| start.saturating_add(k.saturating_mul(PIECE)));
    let ranges = starts
        .take_while(move |at| *at < end)
        .map(move |at| at..at.saturating_add(PIECE).min(end));
    let reads = stream::iter(ranges).map(move |range| {
        let reader = reader.clone();
        async move { reader.read(range).await }
    });
    reads.buffered(PIECES_AHEAD + 1).boxed()
}
