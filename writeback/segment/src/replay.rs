//! Reads the records of a file from front to back and tells a torn tail from damage.
//!
//! The first record that is not whole ends the file, unless a later record says that the file had been flushed beyond that place
//! by then: then something that was durable is damaged, and the file is refused.

use crate::{
    crc::crc32c,
    header::HEADER_BYTES,
    layout::SegmentId,
    record::{ALIGN, HEAD_BYTES, Head, Kind},
};
use forebay_runtime::disk::DiskFile;
use std::{io, ops::Range};

/// Bytes read at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// A sliding view of a file.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        Ok(Window {
            file,
            len: file.len()?,
            start: 0,
            bytes: Vec::new(),
        })
    }

    /// Length of the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes `at..at + n`; `None` when the file ends before.
    pub(crate) fn get(&mut self, at: u64, n: usize) -> io::Result<Option<&[u8]>> {
        match at.checked_add(n as u64) {
            Some(end) if end <= self.len => {}
            _ => return Ok(None),
        }
        let inside = at >= self.start && at + n as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            let want = n.max(WINDOW_BYTES.min((self.len - at) as usize));
            self.bytes.resize(want, 0);
            self.start = at;
            let got = self.file.read_at(&mut self.bytes, at)?;
            self.bytes.truncate(got);
            if got < n {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let from = (at - self.start) as usize;
        Ok(Some(&self.bytes[from..from + n]))
    }
}

/// A whole record.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// Where it begins.
    pub(crate) at: u64,
    pub(crate) head: Head,
    pub(crate) note: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// How a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// End of the last whole record.
    pub(crate) end: u64,
    /// Whether anything follows it.
    pub(crate) torn: bool,
}

/// Why a replay gave up.
#[derive(Debug)]
pub(crate) enum ReplayError {
    Disk(io::Error),
    Damaged { range: Range<u64>, what: String },
}

impl From<io::Error> for ReplayError {
    fn from(e: io::Error) -> Self {
        ReplayError::Disk(e)
    }
}

/// Visits the records of `segment` from the header on. Ends after a footer. What `visit` refuses is damage.
pub(crate) fn replay(
    window: &mut Window<'_>,
    segment: SegmentId,
    mut visit: impl FnMut(Record<'_>) -> Result<(), String>,
) -> Result<Replayed, ReplayError> {
    let mut at = HEADER_BYTES;
    loop {
        let (head, what) = match read_head(window, segment, at)? {
            Found::Nothing => return Ok(Replayed { end: at, torn: false }),
            Found::Bad => (None, "record fails its checksum"),
            Found::Head(head) => {
                if let Some(record) = whole(window, at, head)? {
                    visit(record).map_err(|what| ReplayError::Damaged {
                        range: at..at + head.record_len(),
                        what,
                    })?;
                    at += head.record_len();
                    if head.kind == Kind::Footer {
                        return Ok(Replayed {
                            end: at,
                            torn: at < window.len(),
                        });
                    }
                    continue;
                }
                (Some(head), "payload of a record fails its checksum")
            }
        };
        let len = head.map_or(HEAD_BYTES as u64, |h| h.record_len());
        let next = at + head.map_or(ALIGN, |h| h.record_len());
        if durable_successor(window, segment, at, next)? {
            return Err(ReplayError::Damaged {
                range: at..at + len,
                what: format!("{what}, and good ones follow"),
            });
        }
        return Ok(Replayed { end: at, torn: true });
    }
}

/// The record at `at`, if it is whole.
pub(crate) fn record_at<'w>(window: &'w mut Window<'_>, segment: SegmentId, at: u64) -> io::Result<Option<Record<'w>>> {
    match read_head(window, segment, at)? {
        Found::Head(head) => whole(window, at, head),
        Found::Nothing | Found::Bad => Ok(None),
    }
}

enum Found {
    /// The file ends here.
    Nothing,
    /// No good head, or one that claims more than there is.
    Bad,
    Head(Head),
}

fn read_head(window: &mut Window<'_>, segment: SegmentId, at: u64) -> io::Result<Found> {
    if at >= window.len() {
        return Ok(Found::Nothing);
    }
    let Some(head) = window.get(at, HEAD_BYTES)?.and_then(Head::parse) else {
        return Ok(Found::Bad);
    };
    let good = match window.get(at, HEAD_BYTES + head.note_len as usize)? {
        Some(bytes) => head.verify(segment, at, bytes),
        None => false,
    };
    Ok(if good { Found::Head(head) } else { Found::Bad })
}

/// The record at `at`, if its payload is there and good.
fn whole<'w>(window: &'w mut Window<'_>, at: u64, head: Head) -> io::Result<Option<Record<'w>>> {
    let note_end = HEAD_BYTES + head.note_len as usize;
    let Some(bytes) = window.get(at, note_end + head.payload_len as usize)? else {
        return Ok(None);
    };
    let (before, payload) = bytes.split_at(note_end);
    let good = crc32c(payload) == head.payload_crc;
    Ok(good.then(|| Record {
        at,
        head,
        note: &before[HEAD_BYTES..],
        payload,
    }))
}

/// Whether a good head at or after `from` says that the file had been flushed beyond `bad`.
fn durable_successor(window: &mut Window<'_>, segment: SegmentId, bad: u64, from: u64) -> io::Result<bool> {
    let mut at = from;
    while at + HEAD_BYTES as u64 <= window.len() {
        let n = (window.len() - at).min(WINDOW_BYTES as u64) as usize;
        let bytes = window.get(at, n)?.expect("within the file");
        let candidates: Vec<u64> = (0..n.saturating_sub(HEAD_BYTES) + 1)
            .step_by(ALIGN as usize)
            .filter(|i| Head::parse(&bytes[*i..]).is_some_and(|head| head.synced > bad))
            .map(|i| at + i as u64)
            .collect();
        for candidate in candidates {
            if matches!(read_head(window, segment, candidate)?, Found::Head(_)) {
                return Ok(true);
            }
        }
        // Heads that straddle the end of this stretch are seen in the next one.
        at += (n.saturating_sub(HEAD_BYTES) as u64 / ALIGN + 1) * ALIGN;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{layout::StreamId, record::frame};
    use bytes::Bytes;
    use forebay_runtime::disk::{Disk, OpenHow, SimDisk};
    use std::{path::Path, sync::Arc};

    const ID: SegmentId = SegmentId(9);

    /// Five records of which the first three were flushed before the last two were written. Answers where each begins.
    fn five() -> (SimDisk, Arc<dyn DiskFile>, Vec<u64>) {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/f"), OpenHow::CreateNew).unwrap();
        file.write_all_at(&[Bytes::from(vec![0; HEADER_BYTES as usize])], 0)
            .unwrap();
        let (mut at, mut begins) = (HEADER_BYTES, Vec::new());
        let mut synced = 0;
        for i in 0..5u8 {
            let (note, payload) = (Bytes::from(vec![i; 10]), Bytes::from(vec![i; 100 + usize::from(i)]));
            if i == 3 {
                synced = at;
            }
            let head = Head {
                note_len: 10,
                payload_len: payload.len() as u32,
                payload_crc: crc32c(&payload),
                stream: StreamId(1, 1),
                ..Head::bare(Kind::Append, synced)
            };
            file.write_all_at(&frame(&head, ID, at, &note, &[payload]), at).unwrap();
            begins.push(at);
            at += head.record_len();
        }
        begins.push(at);
        (disk, file, begins)
    }

    fn run(file: &dyn DiskFile) -> (usize, Result<Replayed, ReplayError>) {
        let mut seen = 0;
        let answer = replay(&mut Window::new(file).unwrap(), ID, |record| {
            assert_eq!(record.note, &[seen as u8; 10]);
            assert_eq!(record.payload[0], seen as u8);
            seen += 1;
            Ok(())
        });
        (seen, answer)
    }

    #[test]
    fn whole_records_are_visited_in_order() {
        let (_, file, begins) = five();
        let (seen, answer) = run(&*file);
        assert_eq!(
            (seen, answer.unwrap()),
            (
                5,
                Replayed {
                    end: begins[5],
                    torn: false
                }
            )
        );
    }

    #[test]
    fn a_flip_before_what_a_later_record_knows_to_be_flushed_is_damage_and_named() {
        for record in 0..3 {
            for offset in [0, 5, 20, 50, 66, 80, 150] {
                let (disk, file, begins) = five();
                disk.flip(Path::new("/d/f"), begins[record] + offset, 4);
                let (seen, answer) = run(&*file);
                assert_eq!(seen, record, "offset {offset}");
                match answer {
                    Err(ReplayError::Damaged { range, .. }) => assert_eq!(range.start, begins[record]),
                    other => panic!("record {record}, offset {offset}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_flip_in_what_nobody_knows_to_be_flushed_is_a_torn_tail() {
        for record in 3..5 {
            let (disk, file, begins) = five();
            disk.flip(Path::new("/d/f"), begins[record] + 90, 4);
            let (seen, answer) = run(&*file);
            assert_eq!(
                (seen, answer.unwrap()),
                (
                    record,
                    Replayed {
                        end: begins[record],
                        torn: true
                    }
                )
            );
        }
    }

    #[test]
    fn a_file_cut_anywhere_keeps_its_whole_records() {
        let (_, _, begins) = five();
        for len in (HEADER_BYTES..begins[5]).step_by(13) {
            let (disk, file, _) = five();
            disk.cut(Path::new("/d/f"), len);
            let whole = begins[1..].iter().filter(|end| **end - 7 <= len).count();
            let (seen, answer) = run(&*file);
            assert!(
                seen == whole || seen + 1 == whole,
                "cut at {len}: saw {seen} of {whole}"
            );
            assert_eq!(answer.unwrap().end, begins[seen], "cut at {len}");
        }
    }
}
