#!/usr/bin/env bash
# examples/images/run.sh [--images N] [--workers N] [--batch N] [--seed N] [--json FILE] [--no-decode] [--no-gateway]
#
# Reads generated JPEGs through Forebay's mounts, from ext4 and from a Ceph gateway, and prints how fast each was. README.md tells more.
#   FOREBAY_BIN          the server, target/release/forebay unless given
#   FOREBAY_S3_ENDPOINT  with FOREBAY_S3_BUCKET and AWS_*: a gateway that runs already; else one is started where ceph-mon is installed
#   TMPDIR               where the images and Forebay's data go, some 50 KB for an image
# Whatever it starts and mounts is gone when it ends, by Ctrl-C or an error too.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
forebay=${FOREBAY_BIN:-$top/target/release/forebay}

gateway=1
for option; do
  case $option in
    --no-gateway) gateway= ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit ;;
  esac
done
[ "$gateway" ] || unset FOREBAY_S3_ENDPOINT
[ "$(id -u)" = 0 ] || { echo "run.sh: mounting needs root" >&2; exit 1; }
[ -x "$forebay" ] || { echo "run.sh: no server at $forebay: make build, or set FOREBAY_BIN" >&2; exit 1; }

"$top/tests/setup.sh"
if [ "$gateway" ] && [ -z "${FOREBAY_S3_ENDPOINT:-}" ] && command -v ceph-mon >/dev/null; then
  # By default the gateway's frontend sends a small object in two pieces, and the second waits 40 ms for the first to be acknowledged.
  export FOREBAY_RGW_OPTIONS=${FOREBAY_RGW_OPTIONS-tcp_nodelay=1}
  exec "$top/tests/ceph/with.sh" setpriv --pdeathsig TERM "$0" "$@" # comes back here, with an endpoint
fi

home=$(mktemp -d "${TMPDIR:-/tmp}/forebay-images-XXXXXX")
mkdir "$home"/{images,pipeline,dataset}
server='' reader=''

finish() { # finish PID: asks it to end, and makes it end after half a minute
  [ "$1" ] && kill "$1" 2>/dev/null || return 0
  for _ in $(seq 300); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -9 "$1" 2>/dev/null || true
}

end() {
  trap '' INT TERM
  finish "$reader"
  finish "$server"
  for mount in "$home"/{pipeline,dataset}; do
    umount -l "$mount" 2>/dev/null || true
  done
  rm -rf --one-file-system "$home"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The same images under two names, so that each mount's first epoch comes from the store.
store=file://$home/images servers=()
if [ "${FOREBAY_S3_ENDPOINT:-}" ]; then
  store="s3://$FOREBAY_S3_BUCKET/images?endpoint=$FOREBAY_S3_ENDPOINT"
  for file in "${FOREBAY_CEPH:-/nonexistent}"/run/*.pid; do
    [ ! -e "$file" ] || servers+=(--server "Ceph=$(cat "$file")")
  done
fi
"$forebay" serve --data "$home/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 --fuse "$home/pipeline" \
  --under "/one=$store" --under "/two=$store" >"$home/ready" 2>"$home/log" &
server=$!
until grep -q '^forebay ready' "$home/ready"; do
  kill -0 "$server" 2>/dev/null || { cat "$home/log" >&2; exit 1; }
  sleep 0.1
done
address=$(sed -n 's/^forebay ready flight=\([^ ]*\).*/\1/p' "$home/ready")
"$forebay" --addr "$address" mount "$home/dataset" --mode dataset >/dev/null

"$top/.venv/bin/python" "$here/images.py" --folder "$home/images" --mount "pipeline=$home/pipeline/one" --mount "dataset=$home/dataset/two" \
  --server "Forebay=$server" ${servers[@]+"${servers[@]}"} "$@" &
reader=$!
status=0
wait "$reader" || status=$?
reader=''
[ "$status" = 0 ] || tail -n 20 "$home/log" >&2
exit "$status"
