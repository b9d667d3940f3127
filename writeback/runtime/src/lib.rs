//! The bedrock: time, chance, disk, tasks, budgets and crash points, each behind a trait or a small type so that the
//! engine above runs the same in production and in seeded simulation.
//!
//! It knows nothing of files, segments or datasets.

pub mod budget;
pub mod chance;
pub mod clock;
pub mod disk;
pub mod failpoint;
pub mod task;
pub mod units;
