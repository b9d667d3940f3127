//! Raw loopback TCP: the mark for everything that crosses a socket. One connection, the same chunk size as a batch.
//!
//! Protocol: the client sends eight bytes, the number of bytes it wants (high bit clear) or will send (high bit set); the server
//! sends them, or takes them and answers one byte.

use crate::measure::{Sample, timed};
use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const CHUNK_BYTES: usize = 4 << 20;
const READ_BYTES: usize = 1 << 20;
const UPLOAD: u64 = 1 << 63;

/// Serves until killed.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ready {}", listener.local_addr()?);
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let asked = stream.read_u64().await?;
        // A client that goes away early is no reason to stop serving the next.
        let _ = if asked & UPLOAD != 0 {
            take(&mut stream, asked & !UPLOAD).await
        } else {
            send(&mut stream, asked).await
        };
    }
}

async fn send(stream: &mut TcpStream, mut left: u64) -> Result<()> {
    let chunk = vec![7_u8; CHUNK_BYTES];
    while left > 0 {
        let count = left.min(CHUNK_BYTES as u64);
        stream.write_all(&chunk[..count as usize]).await?;
        left -= count;
    }
    Ok(())
}

async fn take(stream: &mut TcpStream, mut left: u64) -> Result<()> {
    let mut buffer = vec![0_u8; READ_BYTES];
    while left > 0 {
        left -= stream.read(&mut buffer).await? as u64;
    }
    stream.write_u8(1).await?;
    Ok(())
}

/// Receives `bytes`.
pub(crate) async fn download(address: &str, server: u32, bytes: u64) -> Result<Sample> {
    let work = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_u64(bytes).await?;
        let (mut buffer, mut left) = (vec![0_u8; READ_BYTES], bytes);
        while left > 0 {
            let count = stream.read(&mut buffer).await? as u64;
            anyhow::ensure!(count > 0, "the raw server closed early");
            left -= count;
        }
        Ok(())
    };
    let ((), wall, cpu) = timed(server, work).await?;
    Ok(Sample {
        amount: bytes as f64,
        seconds: wall.as_secs_f64(),
        cpu,
    })
}

/// Sends `bytes` and waits for the server's word that it has them.
pub(crate) async fn upload(address: &str, server: u32, bytes: u64) -> Result<Sample> {
    let work = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_u64(bytes | UPLOAD).await?;
        send(&mut stream, bytes).await?;
        anyhow::ensure!(stream.read_u8().await? == 1, "the raw server did not take all");
        Ok(())
    };
    let ((), wall, cpu) = timed(server, work).await?;
    Ok(Sample {
        amount: bytes as f64,
        seconds: wall.as_secs_f64(),
        cpu,
    })
}
