//! What a trace of reads would have hit, under each order, with a cache of a given size: the very code that the cache runs, without
//! bytes.
//!
//! Policies by path count as they do there, `evict`, `pin` and `quota_bytes`. The order that is tried is that of all paths for which none
//! is set. What is pinned is held from its first read on: a trace does not tell what was loaded.

use crate::{
    Table,
    room::{Place, Room},
    trace::Read,
    value::Evict,
};
use forebay_namespace::Path;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// Blocks of a trace that are told apart.
const BLOCKS_MAX: usize = 1 << 26;

/// Reads, with everything looked up that a simulation needs.
#[derive(Debug, Default)]
pub struct Trace {
    reads: Vec<(u64, u32)>,
    blocks: Vec<Block>,
    known: HashMap<(Path, u64), u32>,
    policies: Table,
    places: Vec<Place>,
    /// Of a directory whose files share it, or of a file.
    place_of: HashMap<Path, usize>,
}

#[derive(Clone, Debug)]
struct Block {
    bytes: u64,
    place: usize,
}

/// How many reads found their block, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Reads.
    pub reads: u64,
    /// Of those, hits.
    pub hits: u64,
    /// Bytes of all reads.
    pub bytes: u64,
    /// Bytes of hits.
    pub hit_bytes: u64,
}

impl Hits {
    /// Hits per read; 0 without reads.
    pub fn ratio(&self) -> f64 {
        share(self.hits, self.reads)
    }

    /// Bytes of hits per byte read.
    pub fn byte_ratio(&self) -> f64 {
        share(self.hit_bytes, self.bytes)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn share(part: u64, of: u64) -> f64 {
    match of {
        0 => 0.0,
        of => part as f64 / of as f64,
    }
}

impl Trace {
    /// A trace of reads under these policies.
    pub fn new(policies: Table) -> Self {
        Self {
            policies,
            ..Self::default()
        }
    }

    /// Takes in the next read. The error: there are more blocks than can be told apart.
    pub fn push(&mut self, read: Read) -> Result<(), String> {
        let Read { at, bytes, block, path } = read;
        let key = (path, block);
        let number = match self.known.get(&key) {
            Some(number) => *number,
            None if self.blocks.len() >= BLOCKS_MAX => return Err(format!("it has more than {BLOCKS_MAX} blocks")),
            None => {
                let place = self.place(&key.0);
                let number = u32::try_from(self.blocks.len()).expect("no more than fit");
                self.blocks.push(Block { bytes, place });
                self.known.insert(key, number);
                number
            }
        };
        self.reads.push((at.unsigned_abs(), number));
        Ok(())
    }

    fn place(&mut self, path: &Path) -> usize {
        let parent = path.parent().unwrap_or_default();
        let whose = match self.policies.at(path) {
            Some(_) => path.clone(),
            None => parent,
        };
        *self.place_of.entry(whose).or_insert_with(|| {
            self.places.push(Place::of(path, &self.policies));
            self.places.len() - 1
        })
    }

    /// How many reads there are.
    pub fn reads(&self) -> usize {
        self.reads.len()
    }

    /// Bytes of all blocks: what a cache that is never full would hold.
    pub fn block_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.bytes).sum()
    }

    /// What a cache of `limit` bytes would have hit, with this order where no policy sets one.
    pub fn simulate(&self, evict: Evict, limit: u64) -> Hits {
        let mut room: Room<u32> = Room::new(limit);
        let place = |place: &Place| match place.evict_at {
            Some(_) => Arc::new(place.clone()),
            None => Arc::new(Place { evict, ..place.clone() }),
        };
        let places: Vec<Arc<Place>> = self.places.iter().map(place).collect();
        let begin = self.reads.first().map_or(0, |(at, _)| *at);
        let mut hits = Hits::default();
        for (at, number) in &self.reads {
            let Block { bytes, place } = &self.blocks[*number as usize];
            let place = &places[*place];
            let now = Duration::from_micros(at.saturating_sub(begin));
            let hit = room.read(number, place, now);
            if !hit {
                room.admit(*number, *bytes, place, now);
            }
            hits.count(*bytes, hit);
        }
        hits
    }

    /// What a cache that is never full would have hit: all but the first read of each block. No order hits more.
    pub fn unlimited(&self) -> Hits {
        let (mut hits, mut seen) = (Hits::default(), HashSet::new());
        for (_, number) in &self.reads {
            hits.count(self.blocks[*number as usize].bytes, !seen.insert(*number));
        }
        hits
    }
}

impl Hits {
    fn count(&mut self, bytes: u64, hit: bool) {
        self.reads += 1;
        self.bytes += bytes;
        self.hits += u64::from(hit);
        self.hit_bytes += if hit { bytes } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Defaults, Set};

    fn trace(epochs: u64, items: u64) -> Trace {
        let mut trace = Trace::default();
        for epoch in 0..epochs {
            for item in 0..items {
                // Another order in each epoch: a step that has no common divisor with the number of items.
                let item = item * (2 * epoch + 1) % items;
                let path = Path::parse(format!("/train/part-{:03}", item / 4).as_bytes()).unwrap();
                let (at, block) = (i64::try_from(epoch * items + item).unwrap(), item % 4);
                trace
                    .push(Read {
                        at,
                        bytes: 10,
                        block,
                        path,
                    })
                    .unwrap();
            }
        }
        trace
    }

    #[test]
    fn epochs_fare_best_without_eviction_and_the_automatic_order_finds_that_out() {
        let trace = trace(10, 1024);
        assert_eq!((trace.reads(), trace.block_bytes()), (10_240, 10_240));
        let ratio = |evict| trace.simulate(evict, 5_120).ratio();
        assert!(
            (ratio(Evict::Epoch) - 0.45).abs() < 0.001,
            "all but the first epoch hit half: {}",
            ratio(Evict::Epoch)
        );
        assert!(
            ratio(Evict::Lru) < 0.4 && ratio(Evict::Auto) > 0.36,
            "{} {}",
            ratio(Evict::Lru),
            ratio(Evict::Auto)
        );
        assert!((trace.unlimited().ratio() - 0.9).abs() < 0.001);
        assert_eq!(trace.simulate(Evict::Lru, u64::MAX), trace.unlimited());
        assert_eq!(trace.simulate(Evict::Auto, 0).hits, 0);
    }

    /// One trace of a table that is read again and again beside a scan, under policies.
    fn table_beside_scan(policies: &[(&str, &str, &str)]) -> Trace {
        let set = |(path, key, value): &(&str, &str, &str)| {
            let value = serde_json::from_str(value).unwrap();
            let path = Path::parse(path.as_bytes()).unwrap();
            (path, Set::parse([(*key, &value)]).unwrap())
        };
        let mut trace = Trace::new(Table::new(Defaults::default(), policies.iter().map(set)));
        for n in 0..6000_u64 {
            let (path, block) = match n % 3 {
                0 => ("/table/a".to_owned(), n / 3 % 100),
                _ => (format!("/scan/{}", n / 100), n % 100),
            };
            let (path, at) = (Path::parse(path.as_bytes()).unwrap(), i64::try_from(n).unwrap());
            let read = Read {
                at,
                bytes: 10,
                block,
                path,
            };
            trace.push(read).unwrap();
        }
        trace
    }

    #[test]
    fn policies_by_path_count_as_they_do_in_the_cache() {
        let lru = |policies: &[(&str, &str, &str)]| table_beside_scan(policies).simulate(Evict::Lru, 1_500).hits;
        // The scan takes the room of the table before it is read again; of it nothing can be hit.
        assert_eq!(lru(&[]), 0);
        assert_eq!(lru(&[("/table", "pin", "true")]), 1_900);
        assert_eq!(lru(&[("/table/a", "pin", "true")]), 1_900, "at the file itself");
        assert_eq!(lru(&[("/table/b", "pin", "true")]), 0);
        assert_eq!(lru(&[("/scan", "quota_bytes", "\"500B\"")]), 1_900);
        assert_eq!(lru(&[("/table", "evict", "\"epoch\"")]), 1_900);
        assert_eq!(
            lru(&[
                ("/", "evict", "\"lru\""),
                ("/table", "pin", "true"),
                ("/table/a", "pin", "false")
            ]),
            0
        );
        let set = table_beside_scan(&[("/", "evict", "\"lru\"")]);
        assert_eq!(
            set.simulate(Evict::Epoch, 1_500).hits,
            0,
            "what is set is not replaced by what is tried"
        );
    }

    #[test]
    fn no_reads_are_no_hits() {
        let none = Trace::default().simulate(Evict::Auto, 100);
        assert_eq!((none.ratio(), none.byte_ratio()), (0.0, 0.0));
    }
}
