//! A trace of reads, as text: one line per read, the path last.
//!
//! ```text
//! # forebay trace 1: time_us,bytes,block,path
//! 1700000000000000,2097152,0,/train/part-00000.arrow
//! ```
//!
//! `bytes` are those of the block, not of the request: what the cache holds or does not. In a path control characters, `%` and bytes
//! that are not UTF-8 are percent-encoded.

use forebay_namespace::Path;
use std::fmt::Write;

/// The first line.
pub const HEADER: &str = "# forebay trace 1: time_us,bytes,block,path";
/// Longest line that is read, bytes.
pub const LINE_BYTES_MAX: usize = 3 * 4096 + 64;

/// A read of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// When, microseconds.
    pub at: i64,
    /// Bytes of the block.
    pub bytes: u64,
    /// Its number in the file.
    pub block: u64,
    /// The file.
    pub path: Path,
}

impl Read {
    /// As a line, without its end.
    pub fn line(&self) -> String {
        let mut line = format!("{},{},{},", self.at, self.bytes, self.block);
        for chunk in self.path.as_bytes().utf8_chunks() {
            for letter in chunk.valid().chars() {
                match letter {
                    '%' | '\u{0}'..='\u{1f}' | '\u{7f}' => encode(&mut line, letter as u8),
                    _ => line.push(letter),
                }
            }
            chunk.invalid().iter().for_each(|byte| encode(&mut line, *byte));
        }
        line
    }

    /// A line; none for one that is empty or begins with `#`. The error says what is wrong with it.
    pub fn parse(line: &str) -> Result<Option<Self>, String> {
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let mut fields = line.splitn(4, ',');
        let mut field = |name: &str| {
            fields
                .next()
                .ok_or_else(|| format!("no {name}; lines are time_us,bytes,block,path"))
        };
        let (at, bytes, block, path) = (field("time_us")?, field("bytes")?, field("block")?, field("path")?);
        let number = |name: &str, text: &str| {
            text.trim()
                .parse()
                .map_err(|_| format!("{name} {text:?} is no whole number"))
        };
        Ok(Some(Self {
            at: at
                .trim()
                .parse()
                .map_err(|_| format!("time_us {at:?} is no whole number"))?,
            bytes: number("bytes", bytes)?,
            block: number("block", block)?,
            path: Path::parse(&decode(path)?).map_err(|error| format!("path {path:?}: {error}"))?,
        }))
    }
}

fn encode(line: &mut String, byte: u8) {
    write!(line, "%{byte:02X}").expect("a String takes everything");
}

fn decode(path: &str) -> Result<Vec<u8>, String> {
    let (mut out, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let coded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(coded.ok_or_else(|| format!("path {path:?}: after % come two hexadecimal digits"))?);
        rest = &rest[2..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, why) in [
            ("1,2,3", "no path"),
            ("x,2,3,/a", "time_us \"x\""),
            ("1,-2,3,/a", "bytes \"-2\""),
            ("1,2,z,/a", "block \"z\""),
            ("1,2,3,a", "begins with '/'"),
            ("1,2,3,/a%2", "two hexadecimal digits"),
            ("1,2,3,/a%zz", "two hexadecimal digits"),
        ] {
            let said = Read::parse(line).unwrap_err();
            assert!(said.contains(why), "{line}: {said}");
        }
        assert_eq!(Read::parse(HEADER), Ok(None));
        assert_eq!(Read::parse(""), Ok(None));
        assert_eq!(
            Read::parse("1,2,3,/a,b").unwrap().unwrap().path,
            Path::parse(b"/a,b").unwrap()
        );
    }

    proptest! {
        #[test]
        fn a_line_reads_back(at in any::<i64>(), bytes in any::<u64>(), block in any::<u64>(), name in proptest::collection::vec(any::<u8>(), 1..20)) {
            let mut text = b"/d/".to_vec();
            text.extend_from_slice(&name);
            if let Ok(path) = Path::parse(&text) {
                let read = Read { at, bytes, block, path };
                let line = read.line();
                prop_assert!(!line.contains(['\n', '\r']));
                prop_assert_eq!(Read::parse(&line), Ok(Some(read)));
            }
        }
    }
}
