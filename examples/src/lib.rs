//! What the example programs share. Guests: they use Forebay by its public doors alone, as any user's program does.
//!
//! The main job, `pipeline`, is [`pipeline::run`]: DataFusion writes TPC-H features into Forebay while a trainer already learns from
//! them, and the bytes go to the under-store meanwhile; then the same job the way it was done before.

pub mod pipeline;
pub mod server;
