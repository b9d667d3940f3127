//! TPC-H tables as Parquet, generated once per scale.

use anyhow::{Context, Result};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};
use tpchgen::generators::{LineItemGenerator, OrderGenerator};
use tpchgen_arrow::{LineItemArrow, OrderArrow, RecordBatchIterator};

/// Where the tables are.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub(super) lineitem: PathBuf,
    pub(super) orders: PathBuf,
}

/// The same as a query names them: paths or URLs.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    pub(super) lineitem: String,
    pub(super) orders: String,
}

impl Input {
    /// The files themselves.
    pub(super) fn tables(&self) -> Tables {
        Tables {
            lineitem: self.lineitem.display().to_string(),
            orders: self.orders.display().to_string(),
        }
    }
}

/// The tables at `scale`, from an earlier run or generated now.
pub(super) fn prepare(work: &Path, scale: f64) -> Result<Input> {
    let folder = work.join(format!("tpch-{scale}"));
    fs::create_dir_all(&folder).with_context(|| format!("folder {}", folder.display()))?;
    let input = Input {
        lineitem: folder.join("lineitem.parquet"),
        orders: folder.join("orders.parquet"),
    };
    // Two tables, two cores.
    std::thread::scope(|scope| {
        let orders = scope.spawn(|| table(&input.orders, || OrderArrow::new(OrderGenerator::new(scale, 1, 1))));
        let lineitem = table(&input.lineitem, || {
            LineItemArrow::new(LineItemGenerator::new(scale, 1, 1))
        });
        lineitem.and(orders.join().expect("the generator does not panic"))
    })?;
    Ok(input)
}

/// Writes one table, complete under its name or not at all. A table that is there already is read once, so that both ways of the
/// job find it in memory.
fn table<T: RecordBatchIterator>(path: &Path, generate: impl FnOnce() -> T) -> Result<()> {
    if path.exists() {
        std::io::copy(&mut File::open(path)?, &mut std::io::sink())?;
        return Ok(());
    }
    eprintln!("generating {}", path.display());
    let growing = path.with_extension("growing");
    let rows = generate();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(File::create(&growing)?, rows.schema().clone(), Some(properties))?;
    for batch in rows {
        writer.write(&batch)?;
    }
    writer.close()?;
    fs::rename(&growing, path)?;
    Ok(())
}
