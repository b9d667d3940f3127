//! What is printed on stdout: lines and tables for people, or one JSON document for machines.

use crate::failure::{Failure, Outcome};
use serde::Serialize;
use std::io::{self, Write};

/// stdout, in one of two manners. A reader that goes away (`| head`) is no failure.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    out: io::BufWriter<io::Stdout>,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            out: io::BufWriter::new(io::stdout()),
        }
    }

    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// The one document of a verb with a single result; `text` says the same to people.
    pub(crate) fn one<T: Serialize>(&mut self, result: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        if self.json {
            self.document(result)
        } else {
            let text = text(result);
            if text.is_empty() { Ok(()) } else { self.line(&text) }
        }
    }

    /// One document, for machines.
    pub(crate) fn document<T: Serialize>(&mut self, document: &T) -> Outcome {
        let text = serde_json::to_string_pretty(document).expect("plain data has a JSON form");
        self.line(&text)
    }

    /// A line, for people.
    pub(crate) fn line(&mut self, text: &str) -> Outcome {
        writeln!(self.out, "{text}").or_else(gone)
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        self.out.write_all(bytes).or_else(gone)
    }

    /// Results that come one after the other: an array for machines, a line each for people.
    pub(crate) fn series(&mut self) -> Series<'_> {
        Series { output: self, count: 0 }
    }

    pub(crate) fn flush(&mut self) -> Outcome {
        self.out.flush().or_else(gone)
    }
}

/// See [`Output::series`]. [`Series::end`] closes the array.
#[derive(Debug)]
pub(crate) struct Series<'a> {
    output: &'a mut Output,
    count: u64,
}

impl Series<'_> {
    pub(crate) fn push<T: Serialize>(&mut self, item: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        if self.output.json {
            let item = serde_json::to_string(item).expect("plain data has a JSON form");
            let before = if self.count == 0 { "[\n" } else { ",\n" };
            self.output.bytes(before.as_bytes())?;
            self.output.bytes(item.as_bytes())?;
        } else {
            self.output.line(&text(item))?;
        }
        self.count += 1;
        Ok(())
    }

    /// What was pushed so far goes out now: for series that grow while someone watches.
    pub(crate) fn flush(&mut self) -> Outcome {
        self.output.flush()
    }

    pub(crate) fn end(self) -> Outcome {
        match (self.output.json, self.count) {
            (true, 0) => self.output.line("[]"),
            (true, _) => self.output.line("\n]"),
            (false, _) => Ok(()),
        }
    }
}

/// Whoever reads us may stop when they have seen enough.
fn gone(error: io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Err(Failure::silent(0)),
        _ => Err(Failure::failed(format!("stdout: {error}"))),
    }
}
