//! Whose folder it is, and in which life: one header-sized file, replaced whole at every open.

use crate::{
    context::header,
    error::{Result, SegmentError},
    folder::{Folder, Name, parse},
    header::{FileKind, Header, NODE_BYTES_MAX},
    layout::{SegmentId, StreamId},
    manifest,
    settings::Identity,
};
use forebay_runtime::{
    clock::Timestamp,
    disk::{DiskEntry, DiskRef, OpenHow},
};
use std::io::ErrorKind;

/// Reads the identity. `None` for a folder that never was one of ours; a folder with segments but no identity is refused.
pub(crate) fn read(
    disk: &DiskRef,
    folder: &Folder,
    entries: &[DiskEntry],
    cluster: Option<&[u8; 16]>,
) -> Result<Option<Header>> {
    let path = folder.identity();
    let failed = |e| SegmentError::disk("read", &path, e);
    let file = match disk.open(&path, OpenHow::Read) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let segments = entries
                .iter()
                .filter(|e| !matches!(parse(&e.name), Name::Other | Name::Temporary))
                .count();
            if segments > 0 {
                let what = format!("the folder's identity; {segments} segment files lie there");
                return Err(SegmentError::Missing { file: path, what });
            }
            return Ok(None);
        }
        opened => opened.map_err(failed)?,
    };
    let mut bytes = vec![0; file.len().map_err(failed)?.min(crate::header::HEADER_BYTES) as usize];
    let got = file.read_at(&mut bytes, 0).map_err(failed)?;
    Header::of_kind(&bytes[..got], &path, FileKind::Identity, SegmentId(0), cluster).map(Some)
}

/// Which folder of its store it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) number: u8,
    pub(crate) tag: u64,
    /// In folder 0: the tags of all.
    pub(crate) folders: Vec<u64>,
}

/// Writes the identity of a new life. Durable when this returns.
pub(crate) fn write(
    disk: &DiskRef,
    folder: &Folder,
    identity: &Identity,
    place: &Place,
    (incarnation, now): (u64, Timestamp),
    fsync: bool,
) -> Result<()> {
    let segment = SegmentId::new(place.number, 0, 0);
    let header = Header {
        tag: place.tag,
        folders: place.folders.clone(),
        ..header(identity, incarnation, now, FileKind::Identity, segment, StreamId(0, 0))
    };
    manifest::replace(disk, folder, &folder.identity(), &[header.encode()], fsync).map(drop)
}

/// Refuses names that the format has no room for.
pub(crate) fn check(identity: &Identity) -> Result<()> {
    if identity.node.len() <= NODE_BYTES_MAX {
        return Ok(());
    }
    Err(SegmentError::Invalid {
        stream: StreamId(0, 0),
        what: format!(
            "the node's name has {} bytes, {NODE_BYTES_MAX} are the most",
            identity.node.len()
        ),
    })
}
