//! A follower that is stopped in the middle and resumed by its token: every batch once, in order, over both lives.
//!
//! `resume --forebay target/release/forebay`

use anyhow::{Context, Result, ensure};
use arrow_array::{Int64Array, RecordBatch, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};
use clap::Parser;
use forebay_client::{Client, Options, ReadOptions, ResumeToken, SessionOptions, WriteOptions};
use forebay_examples::server::Server;
use std::{path::PathBuf, sync::Arc, time::Duration};

const PATH: &str = "/numbers";
const BATCHES: i64 = 100;
/// Where the first life ends.
const STOP_AFTER: usize = 37;

/// A follower that is stopped in the middle and resumed by its token.
#[derive(Debug, Parser)]
struct Args {
    /// The server's binary.
    #[arg(long, env = "FOREBAY_BIN", default_value = "target/release/forebay")]
    forebay: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args { forebay } = Args::parse();
    let home = tempfile::tempdir()?;
    let server = Server::start(&forebay, &home.path().join("data"), &[], &home.path().join("log")).await?;
    let client = Client::connect(&server.flight, Options::default()).await?;

    let session = client.session(PATH, SessionOptions::default()).await?;
    let mut put = session.put(WriteOptions::default()).await?;
    // The writer goes on through both lives of the reader; it is waited for below.
    let writer = tokio::spawn(async move {
        for n in 0..BATCHES {
            put.send(&batch(n)).await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        put.finish().await?;
        session.publish(false).await
    });

    let (mut seen, token) = read(&client, None, STOP_AFTER).await?;
    let token = token.context("a follower knows where it is")?;
    println!("stopped after {} batches; the token is {token}", seen.len());

    // Another process could do this: the token is all it needs.
    let again = Client::connect(&server.flight, Options::default()).await?;
    let (rest, _) = read(&again, Some(token), usize::MAX).await?;
    seen.extend(rest);
    let version = writer.await??;
    ensure!(
        seen == (0..BATCHES).collect::<Vec<_>>(),
        "a batch was lost, repeated or out of order: {seen:?}"
    );
    println!("resumed: {BATCHES} batches, each once and in order, published as version {version}");
    Ok(())
}

/// Follows from a token for up to `most` batches: what they said, and the token after them.
async fn read(client: &Client, from: Option<ResumeToken>, most: usize) -> Result<(Vec<i64>, Option<ResumeToken>)> {
    let options = ReadOptions {
        from,
        wait: Some(Duration::from_secs(10)),
        ..ReadOptions::default()
    };
    let mut follow = client.follow(PATH, options).await?;
    let mut seen = Vec::new();
    while seen.len() < most
        && let Some(batch) = follow.next_batch().await?
    {
        seen.push(batch.column(0).as_primitive::<Int64Type>().value(0));
    }
    Ok((seen, follow.token()))
}

fn batch(n: i64) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![n]))])
        .expect("the column fits its schema")
}
