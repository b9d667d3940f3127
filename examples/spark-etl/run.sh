#!/usr/bin/env bash
# examples/spark-etl/run.sh [--ceph] [--rows N] [--json FILE]
#
# A Spark job writes features, a PyTorch trainer follows them, and the store gets them meanwhile. README.md tells more.
#   FOREBAY_BIN          the server, target/release/forebay unless given
#   --ceph               into a real one-node Ceph, which is started, or into the gateway that FOREBAY_S3_ENDPOINT, with FOREBAY_S3_BUCKET
#                        and AWS_*, names; else into a folder
# Whatever it starts is gone when it ends, by Ctrl-C or an error too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
forebay=${FOREBAY_BIN:-$top/target/release/forebay}
python=${FOREBAY_PYTHON:-$top/.venv/bin/python}
[ -x "$forebay" ] || { echo "run.sh: no server at $forebay: make build, or set FOREBAY_BIN" >&2; exit 1; }
ceph='' options=()
for option; do
  [ "$option" = --ceph ] && ceph=1 || options+=("$option")
done
if [ "${FOREBAY_PYTHON:-}" = '' ]; then
  for what in torch spark ${ceph:+ceph}; do "$top/tests/setup.sh" "$what"; done
fi
if [ "$ceph" ] && [ -z "${FOREBAY_S3_ENDPOINT:-}" ]; then
  exec "$top/tests/ceph/with.sh" setpriv --pdeathsig TERM "$0" "$@" # comes back here, with an endpoint
fi
[ "$ceph" ] || unset FOREBAY_S3_ENDPOINT

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

mkdir "$home/features"
place=$home/features store=file://$home/features
if [ "$ceph" ]; then
  place=$FOREBAY_S3_BUCKET/features store="s3://$FOREBAY_S3_BUCKET/features?endpoint=$FOREBAY_S3_ENDPOINT"
fi
"$forebay" serve --data "$home/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 --under "/features=$store" >"$home/ready" 2>"$home/log" &
server=$!
until grep -q '^forebay ready' "$home/ready"; do
  kill -0 "$server" 2>/dev/null || { cat "$home/log" >&2; exit 1; }
  sleep 0.1
done
address=$(sed -n 's/^forebay ready flight=\([^ ]*\).*/\1/p' "$home/ready")
jar=${FOREBAY_SPARK_JAR:-$(echo "$top"/connectors/spark/target/forebay-spark-*.jar)}
SPARK_LOCAL_IP=127.0.0.1 "$python" "$here/run.py" "$address" "$place" "$jar" ${options[@]+"${options[@]}"}
