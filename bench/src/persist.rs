//! G13: the persister's rate against a plain multipart upload of the same bytes with the same parts in flight, to the same stub.

use crate::{
    Bench, data,
    measure::{Goal, Row, Sample, Unit, pairs, timed},
    process::Process,
    s3::{Pace, Stub},
};
use anyhow::Result;
use bytes::Bytes;
use forebay_client::{Client, FileOptions, Options};
use object_store::{ObjectStoreExt, WriteMultipart, aws::AmazonS3Builder};
use std::{cell::Cell, time::Duration};

const BYTES: usize = 1 << 30;
const PART_BYTES: usize = 16 << 20;
const PARTS_PARALLEL: usize = 4;

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    if !bench.wants("G13") {
        return Ok(Vec::new());
    }
    let folder = bench.scratch()?;
    // Paced, so that the store and not the stub's memory is the limit, as it is in life.
    let stub = Stub::start(Pace {
        delay: Duration::from_millis(5),
        bytes_per_second: Some(400e6),
    })
    .await?;
    let under = format!("--under=/=s3://b/lake?endpoint={}", stub.endpoint);
    let keys = [
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_REGION", "us-east-1"),
    ];
    let server = Process::forebay(
        &bench.forebay,
        folder.path(),
        &[under, "--dirty-max=24GiB".into()],
        &keys,
    )?;
    let client = Client::connect(&server.address, Options::default()).await?;
    let store = AmazonS3Builder::new()
        .with_endpoint(&stub.endpoint)
        .with_allow_http(true)
        .with_bucket_name("b")
        .with_region("us-east-1")
        .with_access_key_id("k")
        .with_secret_access_key("s")
        .build()?;
    let (content, number) = (Bytes::from(vec![9; data::BATCH_BYTES]), Cell::new(0));
    let ours = || {
        number.set(number.get() + 1);
        let (path, client, content, stub, server) =
            (format!("/large-{}", number.get()), &client, &content, &stub, &server);
        async move {
            let mut put = client.write_file(&path, FileOptions::default()).await?;
            for _ in 0..BYTES / content.len() {
                put.write(content.clone()).await?;
            }
            put.finish().await?;
            // The upload begins with the commit.
            let work = async { Ok(client.wait_persisted(&path, Duration::from_secs(120)).await?) };
            let (_, wall, cpu) = timed(server.pid(), work).await?;
            stub.clear();
            client.delete(&path, false).await?;
            Ok(Sample {
                amount: BYTES as f64,
                seconds: wall.as_secs_f64(),
                cpu,
            })
        }
    };
    let theirs = || async {
        let work = async {
            let upload = store.put_multipart(&"plain".into()).await?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
            for _ in 0..BYTES / content.len() {
                upload.wait_for_capacity(PARTS_PARALLEL - 1).await?;
                upload.put(content.clone());
            }
            upload.finish().await?;
            Ok(())
        };
        let ((), wall, cpu) = timed(server.pid(), work).await?;
        stub.clear();
        Ok(Sample {
            amount: BYTES as f64,
            seconds: wall.as_secs_f64(),
            cpu,
        })
    };
    let (ours, theirs) = pairs(bench.pairs.min(3), ours, theirs).await?;
    let what =
        "1 GiB from acknowledged to persisted / plain multipart upload, 4 × 16 MiB in flight, store at 400 MB/s".into();
    Ok(vec![Row {
        id: "G13",
        what,
        unit: Unit::Bytes,
        goal: Goal::AtLeast(0.90),
        ours,
        theirs,
    }])
}
