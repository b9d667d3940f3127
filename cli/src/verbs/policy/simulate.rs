//! `policy simulate`: what a trace of reads would have hit, under each order and what is set by path, with caches of several sizes.

use crate::{
    failure::{Failure, Outcome},
    output::Output,
};
use forebay_policy::{
    Table,
    simulate::{Hits, Trace},
    trace::{LINE_BYTES_MAX, Read},
    value::Evict,
};
use forebay_runtime::units::ByteSize;
use serde_json::{Value, json};
use std::{
    fmt::Write,
    fs::File,
    io::{BufRead, BufReader, Read as _},
    path::Path,
};

/// The orders, as `evict` has them.
const ORDERS: [Evict; 4] = [Evict::Auto, Evict::Epoch, Evict::S3Fifo, Evict::Lru];
/// Sizes when none is asked for, in hundredths of what was read.
const SHARES: [u64; 4] = [10, 25, 50, 90];

pub(super) fn simulate(path: &Path, sizes: &[ByteSize], policies: Table, output: &mut Output) -> Outcome {
    let trace = read(path, policies)?;
    let sizes: Vec<u64> = match sizes {
        [] => SHARES.iter().map(|share| trace.block_bytes() / 100 * share).collect(),
        sizes => sizes.iter().map(|size| size.0).collect(),
    };
    let rows: Vec<Value> = sizes.iter().map(|size| row(&trace, *size)).collect();
    let told = json!({
        "trace": path.display().to_string(),
        "reads": trace.reads(),
        "distinct_bytes": trace.block_bytes(),
        "unlimited": shown(trace.unlimited()),
        "sizes": rows,
    });
    output.one(&told, |_| table(&trace, &sizes, &told))
}

fn row(trace: &Trace, size: u64) -> Value {
    let mut row = json!({ "cache_max": size });
    for order in ORDERS {
        row[order.word()] = shown(trace.simulate(order, size));
    }
    row
}

fn shown(hits: Hits) -> Value {
    let rounded = |ratio: f64| (ratio * 10_000.0).round() / 10_000.0;
    json!({ "hit_ratio": rounded(hits.ratio()), "byte_hit_ratio": rounded(hits.byte_ratio()), "hits": hits.hits })
}

fn table(trace: &Trace, sizes: &[u64], told: &Value) -> String {
    let ratio = |of: &Value| of["hit_ratio"].as_f64().unwrap_or(0.0);
    let mut out = format!(
        "{} reads of {} in all; a cache that is never full hits {:.3} of them\n{:<12}",
        trace.reads(),
        ByteSize(trace.block_bytes()).rounded(),
        ratio(&told["unlimited"]),
        "cache"
    );
    for order in ORDERS {
        let _ = write!(out, " {:>8}", order.word());
    }
    for (at, size) in sizes.iter().enumerate() {
        let _ = write!(out, "\n{:<12}", ByteSize(*size).rounded());
        for order in ORDERS {
            let _ = write!(out, " {:>8.3}", ratio(&told["sizes"][at][order.word()]));
        }
    }
    out
}

fn read(path: &Path, policies: Table) -> Outcome<Trace> {
    let about = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut source = BufReader::new(File::open(path).map_err(about)?);
    let (mut trace, mut line, mut number) = (Trace::new(policies), Vec::new(), 0_u64);
    loop {
        line.clear();
        number += 1;
        let wrong = |why: &str| Failure::usage(format!("{} line {number}: {why}", path.display()));
        let most = LINE_BYTES_MAX as u64 + 1;
        let length = source.by_ref().take(most).read_until(b'\n', &mut line).map_err(about)?;
        if length == 0 {
            break;
        }
        if length as u64 == most {
            return Err(wrong("is longer than a read can be; is it a trace?"));
        }
        let text = std::str::from_utf8(&line).map_err(|_| wrong("is not UTF-8; is it a trace?"))?;
        match Read::parse(text.trim_end_matches(['\n', '\r'])) {
            Ok(Some(read)) => trace.push(read).map_err(|why| wrong(&why))?,
            Ok(None) => {}
            Err(why) => return Err(wrong(&why)),
        }
    }
    match trace.reads() {
        0 => Err(Failure::usage(format!("{}: has no reads", path.display()))),
        _ => Ok(trace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Outcome<Trace> {
        super::read(path, Table::default())
    }

    #[test]
    fn what_is_wrong_with_a_trace_is_named_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        for (text, why) in [
            ("# only words\n", "has no reads"),
            ("1,2,3,/a\n1,2\n", "line 2: no block"),
            ("1,2,3,a\n", "line 1: path"),
        ] {
            std::fs::write(&path, text).unwrap();
            let failure = read(&path).unwrap_err();
            assert!(failure.text().contains(why), "{}", failure.text());
            assert_eq!(failure.code(), 2);
        }
        std::fs::write(&path, vec![b'x'; 20_000]).unwrap();
        assert!(read(&path).unwrap_err().text().contains("longer"));
        assert_eq!(read(&folder.path().join("none")).unwrap_err().code(), 1);
        std::fs::write(&path, "# x\n1,10,0,/a/b\r\n2,10,0,/a/b\n\n").unwrap();
        let trace = read(&path).unwrap();
        assert_eq!((trace.reads(), trace.block_bytes(), trace.unlimited().hits), (2, 10, 1));
    }
}
