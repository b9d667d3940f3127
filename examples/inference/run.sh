#!/usr/bin/env bash
# examples/inference/run.sh [--files N] [--rows N] [--json FILE]
#
# Offline inference by POSIX: a program that knows nothing of Forebay reads inputs from a mount and writes outputs to it, and the object
# store has them when it ends. README.md tells more.
#   FOREBAY_BIN   the server, target/release/forebay unless given
#   TMPDIR        where its data goes
# Whatever it starts and mounts is gone when it ends, by Ctrl-C or an error too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
forebay=${FOREBAY_BIN:-$top/target/release/forebay}
case " $* " in *' -h '* | *' --help '*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;; esac
[ "$(id -u)" = 0 ] || { echo "run.sh: mounting needs root" >&2; exit 1; }
[ -x "$forebay" ] || { echo "run.sh: no server at $forebay: make build, or set FOREBAY_BIN" >&2; exit 1; }
"$top/tests/setup.sh"

home=$(mktemp -d "${TMPDIR:-/tmp}/forebay-inference-XXXXXX")
mkdir "$home"/{lake,mount}
server=''
end() {
  trap '' INT TERM
  [ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
  umount -l "$home/mount" 2>/dev/null || true
  rm -rf --one-file-system "$home"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

python=$top/.venv/bin/python
"$python" "$here/infer.py" generate --folder "$home/lake/inputs" "$@" # what lies in the store before anything starts

"$forebay" serve --data "$home/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 --fuse "$home/mount" --under "/lake=file://$home/lake" \
  >"$home/ready" 2>"$home/log" &
server=$!
until grep -q '^forebay ready' "$home/ready"; do
  kill -0 "$server" 2>/dev/null || { cat "$home/log" >&2; exit 1; }
  sleep 0.1
done
address=$(sed -n 's/^forebay ready flight=\([^ ]*\).*/\1/p' "$home/ready")

"$python" "$here/infer.py" infer --folder "$home/mount/lake/inputs" --output "$home/mount/lake/outputs" "$@"
"$forebay" --addr "$address" persist /lake --wait >/dev/null
"$python" "$here/infer.py" verify --folder "$home/lake/inputs" --output "$home/lake/outputs" "$@"
