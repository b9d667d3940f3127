//! Copies between contents, in bounded pieces.

use super::{ContentWriter, FileReader};
use crate::Result;
use bytes::Bytes;
use std::ops::Range;

/// Bytes in flight of one copy.
pub(super) const PIECE: u64 = 1 << 20;

static ZEROS: [u8; PIECE as usize] = [0; PIECE as usize];

/// Appends `range` of `from` to `content`. Answers how many appends it took.
pub(super) async fn range(from: &FileReader, range: Range<u64>, content: &mut ContentWriter) -> Result<u64> {
    let mut appends = 0;
    let mut at = range.start;
    while at < range.end {
        let end = range.end.min(at + PIECE);
        content.append(&from.read(at..end).await?, Bytes::new()).await?;
        (at, appends) = (end, appends + 1);
    }
    Ok(appends)
}

/// Appends so many zeros.
pub(super) async fn zeros(mut count: u64, content: &mut ContentWriter) -> Result<()> {
    while count > 0 {
        let piece = count.min(PIECE);
        let length = usize::try_from(piece).expect("a piece fits into memory");
        content
            .append(&[Bytes::from_static(&ZEROS[..length])], Bytes::new())
            .await?;
        count -= piece;
    }
    Ok(())
}
