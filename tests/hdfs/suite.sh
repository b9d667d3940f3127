#!/usr/bin/env bash
# The suites that want a real HDFS: the under-store's conformance, and its faults. Run by tests/hdfs/with.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo test --release --workspace --lib --bins --tests -- --test-threads=1 hdfs
