//! Names in byte order from a NameNode, which orders names by *signed* bytes: those with a byte above 127 come too early.
//!
//! A name of ASCII alone arrives in its right place: whatever comes after it differs from it in a greater byte, signed or not. So
//! ASCII names pass at once, and the others are held until an ASCII name that is greater passes, or the end. No more than
//! [`HELD_MAX`] are held; when there are more, the greatest are let go, nothing at or beyond them passes, and the listing is read
//! once more for the rest.

use std::collections::BTreeMap;

/// Names held in memory.
pub(super) const HELD_MAX: usize = 1 << 16;

/// Puts the rows of one or several readings of a directory in order.
#[derive(Debug)]
pub(super) struct Order<T> {
    /// Names up to here are done.
    after: Option<String>,
    held: BTreeMap<String, T>,
    held_max: usize,
    /// The least name that was let go: it and what follows come with the next reading.
    cut: Option<String>,
}

impl<T> Order<T> {
    /// Wants the names greater than `after`.
    pub(super) fn new(after: Option<&str>, held_max: usize) -> Self {
        Self {
            after: after.map(str::to_owned),
            held: BTreeMap::new(),
            held_max,
            cut: None,
        }
    }

    /// Takes the next name as the NameNode has it; answers those that are next in byte order.
    pub(super) fn push(&mut self, name: String, row: T) -> Vec<(String, T)> {
        let done = self.after.as_ref().is_some_and(|after| name <= *after);
        let later = self.cut.as_ref().is_some_and(|cut| name >= *cut);
        if done || later {
            return Vec::new();
        }
        if !name.is_ascii() {
            self.hold(name, row);
            return Vec::new();
        }
        let greater = self.held.split_off(&name);
        let mut next: Vec<_> = std::mem::replace(&mut self.held, greater).into_iter().collect();
        next.push((name, row));
        self.passed(&next);
        next
    }

    /// The reading has ended; answers what was held, and whether the listing must be read once more.
    pub(super) fn end(&mut self) -> (Vec<(String, T)>, bool) {
        let next: Vec<_> = std::mem::take(&mut self.held).into_iter().collect();
        self.passed(&next);
        (next, self.cut.take().is_some())
    }

    fn hold(&mut self, name: String, row: T) {
        self.held.insert(name, row);
        if self.held.len() > self.held_max {
            self.cut = self.held.pop_last().map(|(name, _)| name);
        }
    }

    fn passed(&mut self, rows: &[(String, T)]) {
        if let Some((last, _)) = rows.last() {
            self.after = Some(last.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn signed(name: &str) -> Vec<i8> {
        name.bytes().map(u8::cast_signed).collect()
    }

    /// Reads `names`, in the NameNode's order, as often as it takes; answers them as they came, and how often it took.
    fn read(names: &BTreeSet<String>, after: Option<&str>, held_max: usize) -> (Vec<String>, usize) {
        let mut rows: Vec<&String> = names.iter().collect();
        rows.sort_by_key(|name| signed(name));
        let mut order = Order::new(after, held_max);
        let (mut all, mut readings) = (Vec::new(), 0);
        loop {
            readings += 1;
            for name in &rows {
                all.extend(order.push((*name).clone(), ()).into_iter().map(|(name, ())| name));
                assert!(order.held.len() <= held_max);
            }
            let (rest, more) = order.end();
            all.extend(rest.into_iter().map(|(name, ())| name));
            if !more {
                return (all, readings);
            }
        }
    }

    #[test]
    fn names_beyond_ascii_come_where_their_bytes_say() {
        let names = ["Z", "a", "aé", "az", "é", "é1", "日本"].map(str::to_owned).into();
        let expected = ["Z", "a", "az", "aé", "é", "é1", "日本"];
        assert_eq!(read(&names, None, 10), (expected.map(str::to_owned).into(), 1));
        let (rest, _) = read(&names, Some("az"), 10);
        assert_eq!(rest, expected[3..]);
        let (all, readings) = read(&names, None, 2);
        assert_eq!(all, expected);
        assert!(readings > 1, "the bound was never reached");
    }

    #[test]
    fn any_names_in_any_memory_come_whole_and_in_order() {
        let seed: u64 = std::env::var("FOREBAY_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(20_261_129);
        println!("FOREBAY_SEED={seed}");
        let mut state = seed;
        let mut next = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let letters = ["a", "b", "~", "é", "\u{7f}", "\u{80}", "日", "\u{10ffff}"];
        let mut several = 0;
        for _ in 0..2000 {
            let mut names = BTreeSet::new();
            for _ in 0..next(40) {
                let len = 1 + next(4);
                names.insert((0..len).map(|_| letters[next(8) as usize]).collect::<String>());
            }
            let after = names.iter().nth(next(40) as usize).cloned();
            let expected: Vec<String> = names
                .iter()
                .filter(|name| after.as_ref().is_none_or(|after| *name > after))
                .cloned()
                .collect();
            let held_max = 1 + next(12) as usize;
            let (all, readings) = read(&names, after.as_deref(), held_max);
            assert_eq!(all, expected, "{names:?} after {after:?} in {held_max}");
            several += usize::from(readings > 1);
        }
        assert!(several > 100, "only {several} were read more than once");
    }
}
