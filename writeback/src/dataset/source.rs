//! Bytes of a part, wherever they lie: a named file, or a sealed stream of a session that has no name yet.

use crate::{Error, Result, file::FileReader};
use bytes::Bytes;
use forebay_segment::{Reader, StreamId};
use std::ops::Range;

/// Something with an end that can be read in ranges.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A file.
    File {
        /// Its bytes.
        reader: FileReader,
        /// For error texts.
        name: String,
    },
    /// A sealed stream.
    Sealed {
        /// Its bytes.
        reader: Reader,
        /// Its identity.
        stream: StreamId,
    },
    /// Bytes of a test.
    #[cfg(test)]
    Memory(Bytes),
}

impl Source {
    /// Bytes in all.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Source::File { reader, .. } => reader.size(),
            Source::Sealed { reader, .. } => reader.len(),
            #[cfg(test)]
            Source::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Exactly `range`, in pieces; without a copy where the bytes are local. DataLoss when it is not there whole.
    pub(crate) async fn read(&self, range: Range<u64>) -> Result<Vec<Bytes>> {
        let wanted = range.end.saturating_sub(range.start);
        let pieces = match self {
            Source::File { reader, .. } => reader.read(range).await?,
            Source::Sealed { reader, .. } => reader.read(range).await?,
            #[cfg(test)]
            Source::Memory(bytes) => {
                let at = |offset: u64| usize::try_from(offset).unwrap().min(bytes.len());
                vec![bytes.slice(at(range.start)..at(range.end))]
            }
        };
        let found: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        match found == wanted {
            true => Ok(pieces),
            false => Err(Error::data_loss(format!(
                "{}: {found} bytes where {wanted} were asked for",
                self.name()
            ))),
        }
    }

    /// Names this exact content, for caches of what was parsed from it.
    pub(crate) fn identity(&self) -> String {
        match self {
            Source::File { reader, .. } => reader.identity(),
            Source::Sealed { stream, .. } => format!("sealed {stream}"),
            #[cfg(test)]
            Source::Memory(bytes) => format!("memory {:p}", bytes.as_ptr()),
        }
    }

    /// For error texts.
    pub(crate) fn name(&self) -> String {
        match self {
            Source::File { name, .. } => name.clone(),
            Source::Sealed { stream, .. } => format!("part {stream}"),
            #[cfg(test)]
            Source::Memory(_) => "memory".into(),
        }
    }
}
