//! The connector against a real server: the binary that FOREBAY_BIN names, else `target/release/forebay`.

#[path = "../../../../flight-server/client/tests/support/mod.rs"]
mod support;

#[cfg(feature = "conformance")]
mod conformance;
mod objects;
mod partitioned;
mod queries;
