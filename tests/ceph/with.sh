#!/usr/bin/env bash
# tests/ceph/with.sh COMMAND…   runs a command beside a real one-node Ceph (mon, mgr, one OSD, RADOS gateway), then ends it.
#
# Everything lies in one temporary folder and listens on loopback, on free ports. The command finds
#   FOREBAY_S3_ENDPOINT       http://127.0.0.1:PORT
#   FOREBAY_S3_BUCKET         an empty bucket
#   FOREBAY_TEST_S3_URL       s3://BUCKET/?endpoint=…, as `--under` takes it
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION
#   FOREBAY_CEPH              the folder, with ceph.conf and run/*.pid, for suites that restart or kill a daemon
# It may give FOREBAY_RGW_OPTIONS, such as tcp_nodelay=1, for the gateway's frontend.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=$(mktemp -d /tmp/forebay-ceph-XXXXXX)
mkdir "$home"/{mgr,osd,rgw,run,log}

end() {
  for file in "$home"/run/*.pid; do
    [ -e "$file" ] && kill -9 "$(cat "$file")" 2>/dev/null || true
  done
  rm -rf "$home"
}
trap end EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
uuid() { cat /proc/sys/kernel/random/uuid; }

mon2=$(free_port) mon1=$(free_port) gateway=$(free_port) fsid=$(uuid)
cat >"$home/ceph.conf" <<CONF
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$mon2/0,v1:127.0.0.1:$mon1/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
mon allow pool size one = true
mon warn on pool no redundancy = false
auth allow insecure global id reclaim = false
osd crush chooseleaf type = 0
run dir = $home/run
pid file = $home/run/\$name.pid
log file = $home/log/\$name.log
admin socket = $home/run/\$name.asok
keyring = $home/keyring
bluestore block size = 21474836480
osd memory target = 939524096
mon data = $home/mon
osd data = $home/osd
mgr data = $home/mgr
rgw data = $home/rgw
mon data avail warn = 1
mon data avail crit = 1
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$gateway ${FOREBAY_RGW_OPTIONS:-}
CONF
export CEPH_CONF=$home/ceph.conf FOREBAY_CEPH=$home

key() { # key NAME CAPABILITY…: adds a key to the ring all daemons share
  local name=$1 create=; shift
  [ -e "$home/keyring" ] || create=--create-keyring
  ceph-authtool $create "$home/keyring" --gen-key -n "$name" "$@" >/dev/null
}
key mon. --cap mon 'allow *'
key client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
key client.rgw --cap mon 'allow rw' --cap osd 'allow rwx' --cap mgr 'allow rw'
key osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd'
key mgr.0 --cap mon 'allow profile mgr' --cap osd 'allow *'

begin=$SECONDS
monmaptool --create --addv 0 "[v2:127.0.0.1:$mon2,v1:127.0.0.1:$mon1]" --fsid "$fsid" "$home/monmap" >/dev/null
ceph-mon --mkfs -i 0 --monmap "$home/monmap" --keyring "$home/keyring"
ceph-mon -i 0
ceph-mgr -i 0
osd=$(uuid)
ceph osd new "$osd" >/dev/null
ceph-osd -i 0 --mkfs --osd-uuid "$osd" 2>/dev/null
ceph-osd -i 0 >/dev/null
radosgw -n client.rgw
for _ in $(seq 120); do
  curl -s -o /dev/null "http://127.0.0.1:$gateway/" && break
  sleep 0.5
done
export AWS_ACCESS_KEY_ID=forebay AWS_SECRET_ACCESS_KEY=$(uuid) AWS_REGION=us-east-1
radosgw-admin user create --uid=forebay --display-name=forebay --access-key="$AWS_ACCESS_KEY_ID" --secret-key="$AWS_SECRET_ACCESS_KEY" >/dev/null
export FOREBAY_S3_ENDPOINT=http://127.0.0.1:$gateway FOREBAY_S3_BUCKET=forebay-tests
export FOREBAY_TEST_S3_URL="s3://$FOREBAY_S3_BUCKET/?endpoint=$FOREBAY_S3_ENDPOINT"
"$here/../../.venv/bin/python" - <<'PY'
import os
import boto3
boto3.client("s3", endpoint_url=os.environ["FOREBAY_S3_ENDPOINT"], region_name="us-east-1").create_bucket(Bucket=os.environ["FOREBAY_S3_BUCKET"])
PY
echo "Ceph is up after $((SECONDS - begin)) s at $FOREBAY_S3_ENDPOINT" >&2

"$@"
