#!/usr/bin/env bash
# The suites that want a real HDFS: the under-store's conformance and its faults, then a server that persists there. Run by
# tests/hdfs/with.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo test --release --workspace --lib --bins --tests -- --test-threads=1 hdfs
.venv/bin/python -m pytest -q -p no:cacheprovider tests/hdfs
