//! Crash points: places in the code that a test can name to stop, delay or fail the process there.
//!
//! They are armed only when `FOREBAY_FAILPOINTS` is set at start (`name=action;name=action`, actions of the crate `fail`, plus
//! `return(abort)` which ends the process on the spot and `return(error)` which the call site turns into its own error).
//! Unarmed, a point costs one relaxed load.
//!
//! `crash_point!("data-synced-not-acked")` evaluates to `Option<String>`: the text of a `return(...)` action.
