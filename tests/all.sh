#!/usr/bin/env bash
# Runs every suite, goes on after a failed one, ends with one summary line. `make test` is this.
set -uo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
export FOREBAY_BIN=${FOREBAY_BIN:-$CARGO_TARGET_DIR/release/forebay}
logs=$(mktemp -d /tmp/forebay-test-XXXXXX)
names=() results=() passed=0 failed=0

suite() { # suite NAME COMMAND…
  local name=$1 begin=$SECONDS code; shift
  echo "=== $name"
  "$@" 2>&1 | tee "$logs/$name.log"
  code=${PIPESTATUS[0]}
  names+=("$name"); results+=("$([ "$code" = 0 ] && echo ok || echo "FAILED ($code)") in $((SECONDS - begin)) s")
  [ "$code" = 0 ] && passed=$((passed + 1)) || failed=$((failed + 1))
}

pytest() { .venv/bin/python -m pytest -q -p no:cacheprovider "$@"; }

tests/setup.sh ceph && tests/setup.sh hdfs && tests/setup.sh emulators && tests/setup.sh mount && tests/setup.sh torch && tests/setup.sh spark && tests/setup.sh webhdfs && tests/setup.sh clients || exit 1
suite build cargo build --release --workspace --all-targets
suite rust cargo test --release --workspace --lib --bins --tests --no-fail-fast
suite flight pytest tests/flight tests/cli tests/test_docs.py
suite crash pytest -s tests/crash
suite mount pytest -s tests/mount
suite python pytest connectors/python/tests
suite ballista make --no-print-directory -o build test-ballista
suite ceph tests/ceph/with.sh tests/ceph/suite.sh
suite hdfs tests/hdfs/with.sh tests/hdfs/suite.sh
suite emulators tests/emulators/with.sh tests/emulators/suite.sh
suite spark pytest tests/spark
suite webhdfs pytest tests/webhdfs
suite clients pytest -s tests/clients
suite doctests cargo test --release --workspace --doc
suite lint make --no-print-directory lint doc

echo
for k in "${!names[@]}"; do printf '%-9s %s\n' "${names[$k]}" "${results[$k]}"; done
echo "logs: $logs"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
