//! The doors that speak a network protocol: Flight over gRPC, and HTTP pages for people and machines. They translate; truth and
//! bytes are the engine's.
//!
//! | module | owns |
//! |---|---|
//! | [`server`] | listeners, TLS, connections, drain |
//! | `service` | the Flight service: dispatch, and one verb a file |
//! | `reply`, `encode` | what goes out: gRPC frames and trailers, Arrow messages |
//! | `error` | from the engine's kinds to gRPC codes, in one match |
//! | `auth`, `tickets` | who asks, what they may do, and what they were given |
//! | `http` | console, metrics, health, WebHDFS |
//! | `owners` | names of users and groups, and their numbers |
//! | `folders` | the wish to mount a folder, passed on |
//!
//! The Flight service sits below tonic's codec, so that a stored batch goes from its segment to the socket, and a received one from
//! the socket to its segment, without a copy of ours between.

mod auth;
mod encode;
mod error;
mod folders;
mod http;
mod owners;
mod reply;
pub mod server;
mod service;
mod tickets;

pub use folders::{FolderMode, Folders};
pub use http::metrics::install as install_metrics;
pub use server::{Listen, Server, ServerSettings, StartError, TlsSettings};
