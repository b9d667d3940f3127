#!/usr/bin/env bash
# examples/spark-etl/run.sh [--rows N]
#
# A Spark job writes features, a trainer follows them. README.md tells more. FOREBAY_BIN names the server, target/release/forebay unless
# given. Whatever it starts is gone when it ends, by Ctrl-C or an error too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
forebay=${FOREBAY_BIN:-$top/target/release/forebay}
python=${FOREBAY_PYTHON:-$top/.venv/bin/python}
[ -x "$forebay" ] || { echo "run.sh: no server at $forebay: make build, or set FOREBAY_BIN" >&2; exit 1; }
[ "${FOREBAY_PYTHON:-}" ] || "$top/tests/setup.sh" spark

home=$(mktemp -d "${TMPDIR:-/tmp}/forebay-etl-XXXXXX")
server=''
end() {
  [ ! "$server" ] || kill "$server" 2>/dev/null || true
  [ ! "$server" ] || wait "$server" || true
  rm -rf "$home"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$forebay" serve --data "$home/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 >"$home/ready" 2>"$home/log" &
server=$!
until grep -q '^forebay ready' "$home/ready"; do
  kill -0 "$server" 2>/dev/null || { cat "$home/log" >&2; exit 1; }
  sleep 0.1
done
address=$(sed -n 's/^forebay ready flight=\([^ ]*\).*/\1/p' "$home/ready")
SPARK_LOCAL_IP=127.0.0.1 "$python" "$here/run.py" "$address" "$top"/connectors/spark/target/forebay-spark-*.jar "$@"
