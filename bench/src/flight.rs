//! G1, G1b, G1c, G2: bytes over Flight, against raw TCP and against the stock library.

use crate::{
    Bench, data,
    measure::{Goal, Row, Sample, Unit, pairs, timed},
    process::Process,
    raw, stock,
};
use anyhow::{Context, Result};
use forebay_client::{AckLevel, Client, Options, ReadOptions, WriteOptions};
use futures::TryStreamExt;
use std::{
    cell::{Cell, RefCell},
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Batches of the dataset that is read: 2 GiB.
const BATCHES: usize = 512;
const PATH: &str = "/bench/get";
/// By then the room of a deleted dataset has been given back.
const RECLAIMED: Duration = Duration::from_millis(500);

pub(crate) async fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let wanted: Vec<&str> = ["G1", "G1b", "G1c", "G2"]
        .into_iter()
        .filter(|id| bench.wants(id))
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let folder = bench.scratch()?;
    let flags = ["--dirty-max=24GiB".to_owned()];
    let server = Process::forebay(&bench.forebay, folder.path(), &flags, &[])?;
    let client = Client::connect(&server.address, Options::default()).await?;
    fill(&client).await?;
    let (tcp, stock) = (Process::role("raw-server")?, Process::role("stock-server")?);
    let mut rows = Vec::new();
    for id in wanted {
        rows.push(match id {
            "G1" => get_against_tcp(bench, &client, &server, &tcp).await?,
            "G1b" => get_against_stock(bench, &client, &server, &stock).await?,
            "G1c" => pyarrow_against_stock(bench, &server, &stock).await?,
            _ => {
                rows.extend(put_against_tcp(bench, &client, &server, &tcp).await?);
                continue;
            }
        });
    }
    Ok(rows)
}

async fn fill(client: &Client) -> Result<()> {
    let batches = data::distinct();
    let mut put = client.put(PATH, WriteOptions::default()).await?;
    for k in 0..BATCHES {
        put.send(&batches[k % batches.len()]).await?;
    }
    put.finish().await?;
    Ok(())
}

/// Reads and decodes the dataset over one connection.
async fn get(client: &Client, server: u32) -> Result<Sample> {
    let work = async {
        let mut scan = std::pin::pin!(client.scan(PATH, ReadOptions::default()).await?);
        let mut rows = 0;
        while let Some(batch) = scan.try_next().await? {
            rows += batch.num_rows();
        }
        anyhow::ensure!(rows == BATCHES * data::ROWS, "{rows} rows");
        Ok(rows * data::ROW_BYTES)
    };
    let (bytes, wall, cpu) = timed(server, work).await?;
    Ok(Sample {
        amount: bytes as f64,
        seconds: wall.as_secs_f64(),
        cpu,
    })
}

async fn get_against_tcp(bench: &Bench, client: &Client, server: &Process, tcp: &Process) -> Result<Row> {
    let bytes = (BATCHES * data::BATCH_BYTES) as u64;
    let (ours, theirs) = pairs(
        bench.pairs,
        || get(client, server.pid()),
        || raw::download(&tcp.address, tcp.pid(), bytes),
    )
    .await?;
    Ok(Row {
        id: "G1",
        what: "DoGet of 2 GiB, decoded / raw TCP".into(),
        unit: Unit::Bytes,
        goal: Goal::AtLeast(0.80),
        ours,
        theirs,
    })
}

async fn get_against_stock(bench: &Bench, client: &Client, server: &Process, stock: &Process) -> Result<Row> {
    let other = std::sync::Arc::new(tokio::sync::Mutex::new(stock::client(&stock.address).await?));
    let theirs = || {
        let other = other.clone();
        async move { stock::get(&mut *other.lock().await, stock.pid(), BATCHES).await }
    };
    let (ours, theirs) = pairs(bench.pairs, || get(client, server.pid()), theirs).await?;
    Ok(Row {
        id: "G1b",
        what: "DoGet of 2 GiB / stock arrow-flight server and client".into(),
        unit: Unit::Bytes,
        goal: Goal::AtLeast(3.0),
        ours,
        theirs,
    })
}

async fn pyarrow_against_stock(bench: &Bench, server: &Process, stock: &Process) -> Result<Row> {
    let ours = std::sync::Mutex::new(Pyarrow::start(&bench.python, &server.address, PATH, server.pid())?);
    let theirs = std::sync::Mutex::new(Pyarrow::start(
        &bench.python,
        &stock.address.replace("http", "grpc"),
        &BATCHES.to_string(),
        stock.pid(),
    )?);
    let run = |side: &std::sync::Mutex<Pyarrow>| std::future::ready(side.lock().expect("no panic holds it").run());
    let (ours, theirs) = pairs(bench.pairs, || run(&ours), || run(&theirs)).await?;
    Ok(Row {
        id: "G1c",
        what: "our server / stock server, pyarrow client".into(),
        unit: Unit::Bytes,
        goal: Goal::AtLeast(1.7),
        ours,
        theirs,
    })
}

/// A Python process that reads when told to.
#[derive(Debug)]
struct Pyarrow {
    child: Child,
    answers: std::io::Lines<BufReader<std::process::ChildStdout>>,
    server: u32,
}

impl Pyarrow {
    fn start(python: &str, address: &str, what: &str, server: u32) -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/pyarrow_get.py");
        let mut child = Command::new(python)
            .args([script, address, what])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {python}: G1c needs a Python with pyarrow (`make setup` makes one)"))?;
        let answers = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        Ok(Self { child, answers, server })
    }

    fn run(&mut self) -> Result<Sample> {
        let spent = |pid| crate::measure::cpu_seconds(pid);
        let before = spent(self.server)? + spent(self.child.id())?;
        self.child
            .stdin
            .as_mut()
            .context("stdin is piped")?
            .write_all(b"go\n")?;
        let answer: serde_json::Value = serde_json::from_str(&self.answers.next().context("the Python side ended")??)?;
        let number = |name: &str| answer[name].as_f64().with_context(|| format!("no {name} in {answer}"));
        let cpu = spent(self.server)? + spent(self.child.id())? - before;
        Ok(Sample {
            amount: number("bytes")?,
            seconds: number("seconds")?,
            cpu,
        })
    }
}

impl Drop for Pyarrow {
    fn drop(&mut self) {
        // Ended or not, it must not outlive the run.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn put_against_tcp(bench: &Bench, client: &Client, server: &Process, tcp: &Process) -> Result<Vec<Row>> {
    const COUNT: usize = 256;
    const AMOUNT: f64 = (COUNT * data::BATCH_BYTES) as f64;
    let (batches, number, published) = (data::distinct(), Cell::new(0), RefCell::new(Vec::new()));
    let ours = || {
        number.set(number.get() + 1);
        let path = format!("/bench/put-{}", number.get());
        let (batches, published) = (&batches, &published);
        async move {
            let options = WriteOptions {
                ack: Some(AckLevel::Memory),
                ..WriteOptions::default()
            };
            let work = async {
                let mut put = client.put(&path, options).await?;
                for k in 0..COUNT {
                    put.send(&batches[k % batches.len()]).await?;
                }
                let mut progress = put.watch();
                progress.wait_for(|progress| progress.acked == COUNT as u64).await?;
                Ok(put)
            };
            let (put, wall, cpu) = timed(server.pid(), work).await?;
            let publish = async { Ok(put.finish().await?) };
            let (_, more_wall, more_cpu) = timed(server.pid(), publish).await?;
            published.borrow_mut().push(Sample {
                amount: AMOUNT,
                seconds: (wall + more_wall).as_secs_f64(),
                cpu: cpu + more_cpu,
            });
            client.delete(&path, true).await?;
            // Its room is given back behind the answer; that belongs to neither side.
            tokio::time::sleep(RECLAIMED).await;
            Ok(Sample {
                amount: AMOUNT,
                seconds: wall.as_secs_f64(),
                cpu,
            })
        }
    };
    let theirs = || raw::upload(&tcp.address, tcp.pid(), (COUNT * data::BATCH_BYTES) as u64);
    let (ours, theirs) = pairs(bench.pairs, ours, theirs).await?;
    // The first of each side does not count.
    let published = published.take().split_off(1);
    let acknowledged = Row {
        id: "G2",
        what: "DoPut of 1 GiB, every batch acknowledged at level memory / raw TCP".into(),
        unit: Unit::Bytes,
        goal: Goal::AtLeast(0.45),
        ours,
        theirs: theirs.clone(),
    };
    let published = Row {
        id: "G2p",
        what: "the same to the published version, which is on the disk / raw TCP".into(),
        unit: Unit::Bytes,
        goal: Goal::Report,
        ours: published,
        theirs,
    };
    Ok(vec![acknowledged, published])
}
