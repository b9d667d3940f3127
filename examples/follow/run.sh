#!/usr/bin/env bash
# examples/follow/run.sh [--rows N] [--batch N] [--workers N] [--pause SECONDS] [--json FILE]
#
# A pipeline writes features with stock pyarrow, and a PyTorch trainer learns from them while they are written. README.md tells more.
#   FOREBAY_BIN   the server, target/release/forebay unless given
#   TMPDIR        where its data goes
# Whatever it starts is gone when it ends.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
forebay=${FOREBAY_BIN:-$top/target/release/forebay}
case " $* " in *' -h '* | *' --help '*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;; esac
[ -x "$forebay" ] || { echo "run.sh: no server at $forebay: make build, or set FOREBAY_BIN" >&2; exit 1; }
"$top/tests/setup.sh" torch

home=$(mktemp -d "${TMPDIR:-/tmp}/forebay-follow-XXXXXX")
mkdir "$home/lake"
server='' trainer=''
end() {
  trap '' INT TERM
  for process in $trainer $server; do kill "$process" 2>/dev/null || true; done
  wait
  rm -rf --one-file-system "$home"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$forebay" serve --data "$home/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 --under "/features=file://$home/lake" >"$home/ready" 2>"$home/log" &
server=$!
until grep -q '^forebay ready' "$home/ready"; do
  kill -0 "$server" 2>/dev/null || { cat "$home/log" >&2; exit 1; }
  sleep 0.1
done
FOREBAY_ADDR=$(sed -n 's/^forebay ready flight=\([^ ]*\).*/\1/p' "$home/ready")
export FOREBAY_ADDR

python=$top/.venv/bin/python
# The trainer is there first: it takes longer to start than a short pipeline to write.
"$python" "$here/train.py" "$@" >"$home/trained" &
trainer=$!
until grep -q '^waiting' "$home/trained"; do
  kill -0 "$trainer" 2>/dev/null || { wait "$trainer"; exit 1; }
  sleep 0.1
done
"$python" "$here/write.py" "$@"
wait "$trainer"
trainer=''
cat "$home/trained"
"$forebay" --addr "$FOREBAY_ADDR" persist /features --wait >/dev/null
echo "the store has: $(ls "$home/lake/clicks")"
