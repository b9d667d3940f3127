//! `forebay-bench`: the ratios that Forebay is judged by, each side by side in one run. Method and results: bench/README.md.

mod data;
mod drain;
mod durable;
mod flight;
mod follow;
mod hits;
mod measure;
mod meta;
mod mount;
mod persist;
mod process;
mod raw;
mod s3;
mod stock;

use anyhow::Result;
use clap::{Parser, Subcommand};
use measure::Row;
use std::path::PathBuf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about, long_about = None)]
struct Arguments {
    /// The binary under test.
    #[arg(long, default_value = "target/release/forebay")]
    forebay: String,
    /// Rows to measure, by id (`--only G1 --only G10`); all when left out.
    #[arg(long)]
    only: Vec<String>,
    /// Pairs a row.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// A Python with pyarrow, for G1c.
    #[arg(long, default_value = ".venv/bin/python")]
    python: String,
    /// Where data folders are made; a disk, not tmpfs.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Names in the directory of G8.
    #[arg(long, default_value_t = 100_000)]
    names: usize,
    /// One JSON document on stdout instead of the table.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// Server roles, in processes of their own.
#[derive(Clone, Copy, Debug, Subcommand)]
enum Role {
    /// Raw TCP.
    #[command(hide = true)]
    RawServer,
    /// Stock arrow-flight.
    #[command(hide = true)]
    StockServer,
}

/// What every row needs to know.
#[derive(Clone, Debug)]
struct Bench {
    forebay: String,
    python: String,
    folder: PathBuf,
    pairs: usize,
    names: usize,
    only: Vec<String>,
}

impl Bench {
    fn wants(&self, id: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| o.eq_ignore_ascii_case(id))
    }

    /// A fresh folder on the disk under test.
    fn scratch(&self) -> Result<tempfile::TempDir> {
        std::fs::create_dir_all(&self.folder)?;
        Ok(tempfile::Builder::new().prefix("run-").tempdir_in(&self.folder)?)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match arguments.role {
            Some(Role::RawServer) => raw::serve().await,
            Some(Role::StockServer) => stock::serve().await,
            None => run(arguments).await,
        }
    })
}

async fn run(arguments: Arguments) -> Result<()> {
    let Arguments {
        forebay,
        only,
        pairs,
        python,
        folder,
        names,
        json,
        role: _,
    } = arguments;
    let bench = Bench {
        forebay,
        python,
        folder,
        pairs,
        names,
        only,
    };
    let mut rows: Vec<Row> = Vec::new();
    rows.extend(flight::rows(&bench).await?);
    rows.extend(durable::rows(&bench).await?);
    rows.extend(follow::rows(&bench).await?);
    rows.extend(persist::rows(&bench).await?);
    rows.extend(drain::rows(&bench).await?);
    rows.extend(hits::rows(&bench).await?);
    rows.extend(meta::rows(&bench).await?);
    rows.extend(mount::rows(&bench).await?);
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&rows.iter().map(Row::json).collect::<Vec<_>>())?
        );
    } else {
        println!("{}", measure::table(&rows));
    }
    Ok(())
}
