//! The connector against a real server: the binary that FOREBAY_BIN names, else `target/release/forebay`.

#[path = "../../../../flight-server/client/tests/support/mod.rs"]
mod support;

mod conformance;
mod lake;
mod objects;
mod partitioned;
mod queries;
mod replaced;
