//! Files that were opened, so that all requests of one reader see one content.
//!
//! Hadoop's client opens a file with one request and then asks for ranges, each with a request of its own. The answer to the first names a
//! reader that is kept here; while the client goes on within [`IDLE_MAX`] it reads that very content, whatever happens to the name. A
//! reader that is gone (idle, a restart, too many) is found again by the name if the same content is still there, and refused otherwise:
//! the client then opens anew.
//!
//! The name of a reader gives no right: who asks, and what they may read, is asked each time.

use forebay_protocol::path::WirePath;
use forebay_runtime::{
    chance::{Chance, OsChance},
    task::Tasks,
};
use forebay_writeback::file::FileReader;
use moka::sync::Cache as Kept;
use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    str::FromStr,
    time::Duration,
};

/// A reader that nobody asks for this long is let go, and with it what was deleted meanwhile.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// Readers kept at once.
const READERS_MAX: u64 = 4096;
/// How often idle ones are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// The readers.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    readers: Kept<u64, (WirePath, FileReader)>,
}

/// Names a reader, and the content it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenedName {
    id: u64,
    content: u64,
}

impl Opened {
    /// An empty table, swept by one of `tasks`.
    pub(super) fn new(tasks: &Tasks) -> Self {
        let readers = Kept::builder().max_capacity(READERS_MAX).time_to_idle(IDLE_MAX).build();
        let (swept, shutdown) = (readers.clone(), tasks.shutdown().clone());
        // Ends with the doors.
        tasks.spawn("opened", async move {
            while shutdown
                .run_until_cancelled(tokio::time::sleep(SWEEP_INTERVAL))
                .await
                .is_some()
            {
                swept.run_pending_tasks();
            }
        });
        Self { readers }
    }

    /// Keeps a reader.
    pub(super) fn keep(&self, path: &WirePath, reader: &FileReader) -> OpenedName {
        let mut id = [0; 8];
        OsChance.fill(&mut id);
        let id = u64::from_le_bytes(id);
        self.readers.insert(id, (path.clone(), reader.clone()));
        OpenedName {
            id,
            content: content_of(reader),
        }
    }

    /// The reader of that name, if it is still there and of this path.
    pub(super) fn find(&self, name: OpenedName, path: &WirePath) -> Option<FileReader> {
        let (of, reader) = self.readers.get(&name.id)?;
        (of == *path).then_some(reader)
    }
}

impl OpenedName {
    /// Whether `reader` reads the content that was opened.
    pub(super) fn is_of(&self, reader: &FileReader) -> bool {
        self.content == content_of(reader)
    }
}

/// The same in every process that runs the same build.
fn content_of(reader: &FileReader) -> u64 {
    let mut hasher = DefaultHasher::new();
    (reader.identity(), reader.size()).hash(&mut hasher);
    hasher.finish()
}

impl fmt::Display for OpenedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.id, self.content)
    }
}

impl FromStr for OpenedName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "it is not what an OPEN of this server answered";
        let number = |part: &str| u64::from_str_radix(part, 16).map_err(|_| wrong);
        match text.split_at_checked(16) {
            Some((id, content)) if content.len() == 16 => Ok(Self {
                id: number(id)?,
                content: number(content)?,
            }),
            _ => Err(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_nothing_else_is_one() {
        let name = OpenedName {
            id: 7,
            content: u64::MAX,
        };
        assert_eq!(name.to_string().parse(), Ok(name));
        for text in ["", "7", &"g".repeat(32), &"0".repeat(33), &"ü".repeat(16)] {
            assert!(text.parse::<OpenedName>().is_err(), "{text}");
        }
    }
}
