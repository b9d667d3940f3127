#!/usr/bin/env bash
# The suites that want emulators of other clouds: the under-stores' conformance and their faults, then servers that persist there. Run
# by tests/emulators/with.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo test --release --workspace --lib -- gcs azure
.venv/bin/python -m pytest -q -p no:cacheprovider tests/emulators
