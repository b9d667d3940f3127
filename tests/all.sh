#!/usr/bin/env bash
# Runs every suite, goes on after a failed one, ends with one summary line. `make test` is this.
#
# The code is compiled and linted at once, while the setup fetches what the suites need. Away from a terminal a suite that has not ended
# after FOREBAY_SUITE_SECONDS (default 2400) is ended and counts as failed, so that one that hangs does not hide what the others found.
set -uo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
export FOREBAY_BIN=${FOREBAY_BIN:-$CARGO_TARGET_DIR/release/forebay}
logs=$(mktemp -d /tmp/forebay-test-XXXXXX)
names=() results=() passed=0 failed=0
bounded=()
declare -A behind

suite() { # suite NAME COMMAND…
  local name=$1 begin=$SECONDS code; shift
  echo "=== $name"
  "${bounded[@]}" "$@" 2>&1 | tee "$logs/$name.log"
  code=${PIPESTATUS[0]}
  ended "$name" "$code" $((SECONDS - begin))
}

ended() { # ended NAME CODE SECONDS
  names+=("$1"); results+=("$([ "$2" = 0 ] && echo ok || echo "FAILED ($2)") in $3 s")
  [ "$2" = 0 ] && passed=$((passed + 1)) || failed=$((failed + 1))
  echo "=== $1: ${results[-1]}, $SECONDS s since the start"
}

beside() { # beside NAME COMMAND…: begins a suite that runs behind those that follow, until `joined NAME` shows how it ended
  local name=$1; shift
  (
    begin=$SECONDS
    "${bounded[@]}" "$@" >"$logs/$name.log" 2>&1
    echo "$? $((SECONDS - begin))" >"$logs/$name.end"
  ) &
  behind[$name]=$!
}

joined() { # joined NAME
  local code seconds
  wait "${behind[$1]}"
  read -r code seconds <"$logs/$1.end"
  echo "=== $1"
  cat "$logs/$1.log"
  ended "$1" "$code" "$seconds"
}

summary() {
  local k
  echo
  for k in "${!names[@]}"; do printf '%-9s %s\n' "${names[$k]}" "${results[$k]}"; done
  echo "logs: $logs"
  echo "$passed passed, $failed failed"
  [ "$failed" = 0 ]
}

pytest=(.venv/bin/python -m pytest -q -p no:cacheprovider)

# What the compiler itself needs comes first.
tests/setup.sh || exit 1
(
  for what in ceph hdfs emulators mount torch spark webhdfs clients; do tests/setup.sh "$what" || exit 1; done
  touch "$logs/setup.complete"
) >"$logs/setup.log" 2>&1 &
setup=$!

# As `make lint` has it; for a whole build, cargo has no shorter way to say it.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__
suite build cargo build --locked --release --workspace --all-targets
suite setup sh -c 'tail --pid="$0" --lines=+1 --follow "$1/setup.log"; [ -e "$1/setup.complete" ]' "$setup" "$logs"
[ "$failed" = 0 ] || { summary; exit 1; }

# From here on; how long a machine compiles nobody knows.
[ -t 0 ] || bounded=(timeout --kill-after=30 "${FOREBAY_SUITE_SECONDS:-2400}")
suite rust cargo test --release --workspace --lib --bins --tests --no-fail-fast
# Spark waits for its own processes half of the time, and these for theirs.
beside spark "${pytest[@]}" tests/spark
suite flight "${pytest[@]}" tests/flight tests/cli tests/test_docs.py
suite crash "${pytest[@]}" -s tests/crash
suite mount "${pytest[@]}" -s tests/mount
suite python "${pytest[@]}" connectors/python/tests
suite emulators tests/emulators/with.sh tests/emulators/suite.sh
joined spark
# Ceph and HDFS leave the processors idle, and what the next suite is built of is compiled behind them.
nice -n 19 make --no-print-directory -o build test-ballista BALLISTA=--no-run >"$logs/ballista-build.log" 2>&1 &
beside hdfs tests/hdfs/with.sh tests/hdfs/suite.sh
beside webhdfs "${pytest[@]}" tests/webhdfs
suite ceph tests/ceph/with.sh tests/ceph/suite.sh
joined hdfs
joined webhdfs
suite ballista make --no-print-directory -o build test-ballista
suite clients "${pytest[@]}" -s tests/clients
suite doctests env RUSTDOC="$PWD/tests/rustdoc.sh" cargo test --release --workspace --doc
suite lint make --no-print-directory format
summary
