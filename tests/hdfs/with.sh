#!/usr/bin/env bash
# tests/hdfs/with.sh COMMAND…   runs a command beside a real HDFS (one NameNode, one DataNode), then ends it.
#
# Everything lies in one temporary folder and listens on loopback, on free ports. The command finds
#   FOREBAY_TEST_HDFS   hdfs://127.0.0.1:PORT, as `--under` takes it with a folder behind
#   HADOOP_CONF_DIR     the configuration of both, as a client would use it
#   FOREBAY_HDFS        the folder, for tests/hdfs/node.sh, with which suites end and start a process and set safe mode
# Blocks have 1 MiB, so that files of a few MiB have several; FOREBAY_HDFS_BLOCK=128m makes them as large as elsewhere.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home=$(mktemp -d /tmp/forebay-hdfs-XXXXXX)
export FOREBAY_HDFS=$home HADOOP_CONF_DIR=$home/conf
mkdir -p "$home"/{run,log} "$home"/conf/webapps/{hdfs,datanode} # the jars lack the pages; empty folders do

end() {
  for name in datanode namenode; do "$here/node.sh" kill "$name"; done
  rm -rf "$home"
}
trap end EXIT

read -r rpc http data data_http data_ipc dead < <(python3 - <<'PY'
import socket
taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(6)]
print(*(s.getsockname()[1] for s in taken))
PY
)
echo "$http $data_http" >"$home/run/ports"

properties() { # NAME=VALUE lines on stdin, a Hadoop configuration on stdout
  echo '<configuration>'
  sed -n 's|^\([^=#]*\)=\(.*\)$|<property><name>\1</name><value>\2</value></property>|p'
  echo '</configuration>'
}
properties >"$home/conf/core-site.xml" <<CONF
fs.defaultFS=hdfs://127.0.0.1:$rpc
hadoop.tmp.dir=$home/tmp
# A DataNode finds a restarted NameNode sooner.
ipc.client.connect.retry.interval=200
CONF
properties >"$home/conf/hdfs-site.xml" <<CONF
dfs.namenode.name.dir=file://$home/name
dfs.datanode.data.dir=file://$home/data
dfs.namenode.rpc-address=127.0.0.1:$rpc
dfs.namenode.http-address=127.0.0.1:$http
dfs.datanode.address=127.0.0.1:$data
dfs.datanode.http.address=127.0.0.1:$data_http
dfs.datanode.ipc.address=127.0.0.1:$data_ipc
dfs.datanode.hostname=127.0.0.1
dfs.namenode.datanode.registration.ip-hostname-check=false
dfs.replication=1
dfs.blocksize=${FOREBAY_HDFS_BLOCK:-1m}
# Small pages, so that a listing takes several.
dfs.ls.limit=200
# Out of safe mode as soon as every block is reported.
dfs.namenode.safemode.extension=0
dfs.namenode.safemode.threshold-pct=1.0
dfs.namenode.safemode.min.datanodes=1
# A DataNode counts as dead after 2 × recheck + 10 × heartbeat: 14 s.
dfs.heartbeat.interval=1
dfs.namenode.heartbeat.recheck-interval=2000
# A nameservice for clients; the first of its two NameNodes is not there.
dfs.ha.namenodes.forebay-tests=dead,alive
dfs.namenode.rpc-address.forebay-tests.dead=127.0.0.1:$dead
dfs.namenode.rpc-address.forebay-tests.alive=127.0.0.1:$rpc
dfs.client.block.write.replace-datanode-on-failure.policy=NEVER
CONF
cat >"$home/conf/log4j.properties" <<'CONF'
log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n
CONF

# A process's numbers are at most a second old; by default ten.
echo '*.period=1' >"$home/conf/hadoop-metrics2.properties"

begin=$SECONDS
"$here/node.sh" format
"$here/node.sh" start namenode
"$here/node.sh" start datanode
"$here/node.sh" wait
export FOREBAY_TEST_HDFS=hdfs://127.0.0.1:$rpc
echo "HDFS is up after $((SECONDS - begin)) s at $FOREBAY_TEST_HDFS" >&2

"$@"
