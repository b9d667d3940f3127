//! What a Hadoop program asks about the file system itself: where bytes lie, homes, defaults, space.
//!
//! Bytes lie with this server, whatever part of them is asked for; they are told in blocks because programs split their work by blocks.

use super::{Answer, Call, error::Fault, json_answer, status::BLOCK_BYTES};
use forebay_writeback::names::StatKind;
use serde_json::{Value, json};
use std::ops::Range;

/// Most blocks that are told of one file; a larger file has larger blocks.
const BLOCKS_MAX: u64 = 16_384;
/// A token that says nothing, as Hadoop writes one: four lengths of nothing.
const NO_TOKEN: &str = "AAAAAA";

/// A file's blocks, as far as they are asked for.
struct Blocks {
    size: u64,
    id: u64,
    ranges: Vec<Range<u64>>,
}

impl Blocks {
    async fn of(call: &Call) -> Result<Self, Fault> {
        call.may_read()?;
        let stat = call.stat().await?;
        if stat.kind == StatKind::Dir {
            return Ok(Self {
                size: 0,
                id: 0,
                ranges: Vec::new(),
            });
        }
        let offset = call.query.count("offset")?.unwrap_or(0);
        let length = call.query.count("length")?.unwrap_or(u64::MAX);
        let wanted = offset..offset.saturating_add(length).min(stat.size);
        Ok(Self {
            size: stat.size,
            id: stat.id & i64::MAX as u64,
            ranges: ranges(stat.size, wanted),
        })
    }
}

/// The blocks of a file of `size` bytes that have some of the bytes of `wanted`.
fn ranges(size: u64, wanted: Range<u64>) -> Vec<Range<u64>> {
    let block = BLOCK_BYTES.max(size.div_ceil(BLOCKS_MAX));
    let first = wanted.start / block;
    let starts = (first..).map(|k| k.saturating_mul(block));
    starts
        .take_while(|start| *start < wanted.end && !wanted.is_empty())
        .map(|start| start..start.saturating_add(block).min(size))
        .collect()
}

/// GETFILEBLOCKLOCATIONS.
pub(super) async fn block_locations(call: Call) -> Answer {
    let blocks = Blocks::of(&call).await?;
    let (host, port) = (call.origin.host(), call.origin.port());
    let name = format!("{host}:{port}");
    let told = blocks.ranges.into_iter().map(|range| {
        json!({
            "offset": range.start,
            "length": range.end - range.start,
            "hosts": [host],
            "names": [name],
            "topologyPaths": [format!("/default-rack/{name}")],
            "cachedHosts": [],
            "storageIds": [],
            "storageTypes": ["DISK"],
            "corrupt": false,
        })
    });
    json_answer(json!({"BlockLocations": {"BlockLocation": told.collect::<Vec<_>>()}}))
}

/// GET_BLOCK_LOCATIONS: the same for older clients.
pub(super) async fn located_blocks(call: Call) -> Answer {
    let blocks = Blocks::of(&call).await?;
    let node = node(&call);
    let told: Vec<Value> = blocks
        .ranges
        .iter()
        .map(|range| located_block(blocks.id, range, &node))
        .collect();
    let last = ranges(blocks.size, blocks.size.saturating_sub(1)..blocks.size);
    json_answer(json!({"LocatedBlocks": {
        "fileLength": blocks.size,
        "isUnderConstruction": false,
        "isLastBlockComplete": true,
        "lastLocatedBlock": last.first().map(|range| located_block(blocks.id, range, &node)),
        "locatedBlocks": told,
    }}))
}

fn located_block(file: u64, range: &Range<u64>, node: &Value) -> Value {
    json!({
        "block": {
            "blockId": file,
            "blockPoolId": "forebay",
            "generationStamp": 1,
            "numBytes": range.end - range.start,
        },
        "blockToken": {"urlString": NO_TOKEN},
        "cachedLocations": [],
        "isCorrupt": false,
        "locations": [node],
        "startOffset": range.start,
        "storageTypes": ["DISK"],
    })
}

/// This server as a node of HDFS.
fn node(call: &Call) -> Value {
    let (host, port) = (call.origin.host(), call.origin.port());
    json!({
        "adminState": "NORMAL",
        "hostName": host,
        "infoPort": port,
        "infoSecurePort": 0,
        "ipAddr": host,
        "ipcPort": port,
        "name": format!("{host}:{port}"),
        "networkLocation": "/default-rack",
        "storageID": "forebay",
        "xferPort": port,
    })
}

/// GETHOMEDIRECTORY.
pub(super) fn home_directory(call: Call) -> Answer {
    json_answer(json!({"Path": format!("/user/{}", call.user_name())}))
}

/// GETTRASHROOT.
pub(super) fn trash_root(call: Call) -> Answer {
    json_answer(json!({"Path": format!("/user/{}/.Trash", call.user_name())}))
}

/// GETSERVERDEFAULTS.
pub(super) fn server_defaults() -> Answer {
    json_answer(json!({"FsServerDefaults": {
        "blockSize": BLOCK_BYTES,
        "bytesPerChecksum": super::checksum::CHUNK_BYTES,
        "checksumType": 2,
        "defaultStoragePolicyId": 0,
        "encryptDataTransfer": false,
        "fileBufferSize": 65_536,
        "keyProviderUri": "",
        "replication": 1,
        "snapshotTrashRootEnabled": false,
        "trashInterval": 0,
        "writePacketSize": 65_536,
    }}))
}

/// GETSTATUS: the disk of the data folder.
pub(super) fn space(call: Call) -> Answer {
    call.may_read()?;
    let (total, free) = call.cache().space()?;
    json_answer(json!({"FsStatus": {
        "capacity": total,
        "remaining": free,
        "used": total.saturating_sub(free),
    }}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_blocks_of_128_mib_and_never_too_many() {
        let block = BLOCK_BYTES;
        assert_eq!(ranges(0, 0..0), []);
        assert_eq!(ranges(10, 0..10), std::slice::from_ref(&(0..10)));
        assert_eq!(ranges(block + 1, 0..block + 1), [0..block, block..block + 1]);
        assert_eq!(
            ranges(block * 3, block..block + 1),
            std::slice::from_ref(&(block..block * 2))
        );
        assert_eq!(ranges(10, 10..10), []);
        let huge = 1 << 60;
        assert_eq!(ranges(huge, 0..huge).len() as u64, BLOCKS_MAX);
    }
}
