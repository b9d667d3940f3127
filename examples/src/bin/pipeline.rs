//! The main job: features by DataFusion into Forebay, a trainer that follows, the under-store filled meanwhile; then the old way.
//!
//! `pipeline --forebay target/release/forebay [--ceph] [--hdfs] [--scale 1] [--json]`

use anyhow::{Result, ensure};
use clap::Parser;
use forebay_examples::pipeline::{Settings, run};
use std::path::PathBuf;

/// Features written into Forebay while a trainer already learns from them, and the same job the old way.
#[derive(Debug, Parser)]
struct Args {
    /// The server's binary.
    #[arg(long, env = "FOREBAY_BIN", default_value = "target/release/forebay")]
    forebay: PathBuf,
    /// Into the S3 that FOREBAY_S3_ENDPOINT, FOREBAY_S3_BUCKET and AWS_… name (tests/ceph/with.sh starts one).
    #[arg(long)]
    ceph: bool,
    /// The HDFS that FOREBAY_TEST_HDFS names (tests/hdfs/with.sh starts one) as a second store: inputs come from there, a summary goes
    /// there.
    #[arg(long)]
    hdfs: bool,
    /// TPC-H scale factor; 1 is six million rows.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Where inputs are kept between runs.
    #[arg(long)]
    work: Option<PathBuf>,
    /// One JSON document on stdout instead of the table.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args {
        forebay,
        ceph,
        hdfs,
        scale,
        work,
        json,
    } = Args::parse();
    ensure!(scale > 0.0 && scale <= 100.0, "--scale is between 0 and 100");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let work = work.unwrap_or_else(|| target.join("pipeline"));
    std::fs::create_dir_all(&work)?;
    let work = work.canonicalize()?;
    let report = run(&Settings {
        forebay,
        ceph,
        hdfs,
        scale,
        work,
    })
    .await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    ensure!(
        report.is_sound(),
        "the epochs did not see the same rows, or nothing was learned"
    );
    Ok(())
}
