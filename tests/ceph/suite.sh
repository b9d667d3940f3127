#!/usr/bin/env bash
# The suites that want a real Ceph: the under-store's conformance with its faults, and persist from outside. One
# test starts an HDFS beside it (tests/setup.sh hdfs). Run by tests/ceph/with.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo test --release --workspace --lib --bins --tests -- --include-ignored s3
.venv/bin/python -m pytest -q -p no:cacheprovider tests/ceph
