//! The one way to run a task: named, supervised, drained at shutdown.
