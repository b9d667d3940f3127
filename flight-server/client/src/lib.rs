//! The Rust client of Forebay.
//!
//! ```no_run
//! # async fn example(batch: arrow_array::RecordBatch) -> forebay_client::Result<()> {
//! use forebay_client::{Client, Options, ReadOptions, WriteOptions};
//! use futures::TryStreamExt;
//!
//! let client = Client::connect("grpc://127.0.0.1:47470", Options::default()).await?;
//! let mut put = client.put("/features/day=1", WriteOptions::default()).await?;
//! put.send(&batch).await?;
//! let done = put.finish().await?; // safe in the cache at `done.level`, visible as `done.version`
//!
//! let mut scan = client.scan("/features/day=1", ReadOptions::default()).await?;
//! while let Some(batch) = scan.try_next().await? {
//!     println!("{} rows", batch.num_rows());
//! }
//! # Ok(()) }
//! ```
//!
//! A [`Put`] that is dropped without [`Put::finish`] leaves nothing visible. Batches cross the wire without being assembled: column
//! buffers are sent as they lie in memory, and a received body is copied once, into an aligned buffer that its arrays share.
//!
//! Why not arrow-flight's own client: it copies every body three times more, and reads no trailers, in which a put tells its
//! version.

#![warn(missing_docs)]

mod admin;
mod call;
mod error;
mod file;
mod follow;
mod info;
mod options;
mod put;
mod scan;
mod session;
mod wire;

pub use call::Client;
pub use error::{Error, ErrorKind, Result};
pub use file::{FilePut, FileRead};
pub use follow::Follow;
pub use forebay_protocol::{
    action::{self, Entry, EntryKind, Status, Version},
    command::{Compression, Format, Mode, PathKind, Task},
    info::{InfoNote, PutNote},
    level::AckLevel,
    path::WirePath,
    resume::ResumeToken,
    span::Span,
};
pub use info::{Endpoint, Info, NextPoll, Poll};
pub use options::{FileOptions, Options, ReadOptions, SessionOptions, WriteOptions};
pub use put::{Ack, Acks, Progress, Put, PutDone};
pub use scan::Scan;
pub use session::{Session, Staged};
