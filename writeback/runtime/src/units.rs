//! Sizes and durations as people write them: "64MiB", "100ms".
