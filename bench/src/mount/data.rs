//! One large file: written and synced, read through, read here and there. And small files, opened, read and closed.

use super::{
    Dice, Measure,
    place::{Place, check},
};
use crate::{
    Bench,
    measure::{Goal, Row, Unit},
};
use anyhow::{Context, Result, ensure};
use std::{
    fs::File,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

/// Reads a file once through.
type Probe = fn(&Path) -> Result<()>;

const BLOCK_BYTES: usize = 1 << 20;
const BLOCKS: usize = 1024;
const PAGE_BYTES: usize = 4096;
const PAGES: usize = BLOCKS * BLOCK_BYTES / PAGE_BYTES;
const PROBES: usize = 500_000;
/// Times through the file, or through all small files, so that a sample takes a while.
const PASSES: usize = 10;
const SMALL_BYTES: usize = 100 << 10;
const SMALL_FILES: usize = 1000;
const FILE_BYTES: f64 = (BLOCKS * BLOCK_BYTES) as f64;

pub(super) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if ["G4", "G4w", "G5", "G5m"].iter().any(|id| bench.wants(id)) {
        rows.extend(large(bench).await?);
    }
    if bench.wants("G6") || bench.wants("G6b") {
        rows.extend(small(bench).await?);
    }
    Ok(rows)
}

async fn large(bench: &Bench) -> Result<Vec<Row>> {
    let (place, block) = (Place::start(bench)?, Dice::new().bytes(BLOCK_BYTES));
    let mut rows = Vec::new();
    if bench.wants("G4w") {
        let written = Measure {
            id: "G4w",
            what: "write 1 GiB in 1 MB, fsync, close",
            unit: Unit::Bytes,
            goal: Goal::AtLeast(0.6),
            amount: FILE_BYTES,
            work: |at: &Path| write(&at.join("written"), &block),
        };
        rows.push(written.run(bench, &place, place.mount()).await?);
    }
    for at in [place.mount(), place.plain()] {
        write(&at.join("read"), &block)?;
        compare(&at.join("read"), &block)?;
    }
    if bench.wants("G4") {
        let read = Measure {
            id: "G4",
            what: "read 1 GiB in 1 MB, warm",
            unit: Unit::Bytes,
            goal: Goal::AtLeast(0.95),
            amount: FILE_BYTES * PASSES as f64,
            work: |at: &Path| (0..PASSES).try_for_each(|_| read_through(&at.join("read"))),
        };
        rows.push(read.run(bench, &place, place.mount()).await?);
    }
    let probes: [(_, _, _, Probe); 2] = [
        ("G5", "4 KiB at random by pread, warm", 0.85, probe),
        ("G5m", "4 KiB at random in a mapping, warm", 0.95, probe_mapped),
    ];
    for (id, what, goal, work) in probes {
        if bench.wants(id) {
            let probed = Measure {
                id,
                what,
                unit: Unit::Operations,
                goal: Goal::AtLeast(goal),
                amount: PROBES as f64,
                work: |at: &Path| work(&at.join("read")),
            };
            rows.push(probed.run(bench, &place, place.mount()).await?);
        }
    }
    Ok(rows)
}

/// Anew every time, so that nothing is overwritten in place.
fn write(path: &Path, block: &[u8]) -> Result<()> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let mut file = File::create_new(path)?;
    for _ in 0..BLOCKS {
        file.write_all(block)?;
    }
    Ok(file.sync_all()?)
}

fn compare(path: &Path, block: &[u8]) -> Result<()> {
    let (mut file, mut read) = (File::open(path)?, vec![0; BLOCK_BYTES]);
    for _ in 0..BLOCKS {
        file.read_exact(&mut read)?;
        check(read == block, path)?;
    }
    Ok(())
}

fn read_through(path: &Path) -> Result<()> {
    let (mut file, mut buffer, mut total) = (File::open(path)?, vec![0; BLOCK_BYTES], 0);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => total += count,
        }
    }
    ensure!(total == BLOCKS * BLOCK_BYTES, "{total} bytes read");
    Ok(())
}

fn probe(path: &Path) -> Result<()> {
    let (file, mut dice, mut page) = (File::open(path)?, Dice::new(), [0; PAGE_BYTES]);
    for _ in 0..PROBES {
        file.read_exact_at(&mut page, dice.below(PAGES as u64) * PAGE_BYTES as u64)?;
    }
    Ok(())
}

fn probe_mapped(path: &Path) -> Result<()> {
    let (view, mut dice, mut page) = (View::open(path)?, Dice::new(), [0; PAGE_BYTES]);
    for _ in 0..PROBES {
        page.copy_from_slice(&view.bytes()[dice.below(PAGES as u64) as usize * PAGE_BYTES..][..PAGE_BYTES]);
        std::hint::black_box(&page);
    }
    Ok(())
}

/// A file mapped to be read.
struct View {
    start: *mut libc::c_void,
    length: usize,
}

impl View {
    fn open(path: &Path) -> Result<Self> {
        let (file, length) = (File::open(path)?, BLOCKS * BLOCK_BYTES);
        // SAFETY: a new mapping of a file that is open; its end is looked at below.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        ensure!(start != libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Ok(Self { start, length })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped by `open`, to be read, over the whole length of a file that nobody cuts.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: mapped by `open`, and `bytes` borrows from it.
        unsafe { libc::munmap(self.start, self.length) };
    }
}

async fn small(bench: &Bench) -> Result<Vec<Row>> {
    let (place, content) = (Place::start(bench)?, Dice::new().bytes(SMALL_BYTES));
    for at in [place.mount(), place.plain()] {
        std::fs::create_dir(at.join("small"))?;
        for path in small_files(at) {
            std::fs::write(path, &content)?;
        }
    }
    let dataset = place.attach("dataset")?;
    let modes = [
        (
            "G6",
            "open, read, close 100 KB, warm, a dataset mount",
            0.75,
            dataset.path(),
        ),
        ("G6b", "the same, the mount that is written to", 0.40, place.mount()),
    ];
    let mut rows = Vec::new();
    for (id, what, goal, mount) in modes {
        if bench.wants(id) {
            for path in small_files(mount) {
                check(std::fs::read(&path)? == content, &path)?;
            }
            let read = Measure {
                id,
                what,
                unit: Unit::Operations,
                goal: Goal::AtLeast(goal),
                amount: (SMALL_FILES * PASSES) as f64,
                work: |at: &Path| (0..PASSES).try_for_each(|_| read_small(at)),
            };
            rows.push(read.run(bench, &place, mount).await?);
        }
    }
    Ok(rows)
}

fn small_files(at: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = at.join("small");
    (0..SMALL_FILES).map(move |k| folder.join(format!("{k:04}")))
}

fn read_small(at: &Path) -> Result<()> {
    let mut buffer = vec![0; SMALL_BYTES + 1];
    for path in small_files(at) {
        let count = File::open(&path)?
            .read(&mut buffer)
            .with_context(|| path.display().to_string())?;
        ensure!(count == SMALL_BYTES, "{count} bytes of {}", path.display());
    }
    Ok(())
}
