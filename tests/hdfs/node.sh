#!/usr/bin/env bash
# tests/hdfs/node.sh …   ends and starts the processes of the HDFS that with.sh made, by their ids, for tests that break it.
#   start NAME       namenode or datanode, on its ports of the first time; nothing when it runs
#   kill NAME        SIGKILL, and waits until it is gone
#   stop NAME        SIGSTOP: it holds its connections and answers nothing
#   cont NAME        goes on
#   heal             both run and go on, and have found each other, whatever a test has left
#   wait             until the NameNode is out of safe mode and counts the DataNode, and that one serves
#   metric NAME KEY  a number of a process's activity, such as datanode FsyncCount
#   admin ARGS…      hdfs dfsadmin, such as -safemode enter
#   fs ARGS…         hdfs dfs
#   format           an empty file system; with.sh does it
set -euo pipefail
home=${FOREBAY_HDFS:?run this under tests/hdfs/with.sh}
here=$(cd "$(dirname "$0")" && pwd)
jars=$here/../../.venv/hdfs
path=$home/conf:$jars/*

# A zombie is gone.
alive() { [ -f "$home/run/$1.pid" ] && grep -q '^State:.[^ZX]' "/proc/$(cat "$home/run/$1.pid")/status" 2>/dev/null; }

java_of() { # java_of HEAP CLASS ARGS…
  local heap=$1; shift
  # 3.4's NameNode reaches into java.lang on Java 17.
  exec java --add-opens java.base/java.lang=ALL-UNNAMED "-Xmx$heap" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
    -Dhadoop.log.dir="$home/log" -cp "$path" "$@"
}

class_of() {
  case $1 in
    namenode) echo org.apache.hadoop.hdfs.server.namenode.NameNode ;;
    datanode) echo org.apache.hadoop.hdfs.server.datanode.DataNode ;;
    *) echo "no process $1" >&2; exit 2 ;;
  esac
}

signal() { kill "-$1" "$(cat "$home/run/$2.pid")"; }

jmx() { curl -s --max-time 2 "http://127.0.0.1:$1/jmx?qry=Hadoop:service=$2" || true; }

ready() {
  local http data_http node name
  read -r http data_http <"$home/run/ports"
  node=$(jmx "$data_http" DataNode,name=DataNodeInfo)
  name=$(jmx "$http" NameNode,name=FSNamesystemState)
  [[ $node == *RUNNING* && $name == *'"NumLiveDataNodes" : 1'* && $name == *'"FSState" : "Operational"'* ]]
}

case $1 in
  heal)
    for name in namenode datanode; do
      "$0" start "$name" >>"$home/log/heal.out" 2>&1
      signal CONT "$name"
    done
    exec "$0" wait
    ;;
  start)
    alive "$2" && exit 0
    class=$(class_of "$2")
    (java_of 256m "$class" >>"$home/log/$2.out" 2>&1 </dev/null & echo $! >"$home/run/$2.pid")
    ;;
  kill)
    alive "$2" || exit 0
    signal KILL "$2"
    while alive "$2"; do sleep 0.02; done
    ;;
  stop) signal STOP "$2" ;;
  cont) signal CONT "$2" ;;
  wait)
    for _ in $(seq 300); do
      ready && exit 0
      alive namenode && alive datanode || break
      sleep 0.2
    done
    tail -n 5 "$home"/log/*.out >&2
    echo "HDFS did not come up" >&2
    exit 1
    ;;
  metric)
    read -r http data_http <"$home/run/ports"
    case $2 in namenode) port=$http ;; *) port=$data_http ;; esac
    jmx "$port" '*,name=*Activity*' | sed -n "s/.*\"$3\" : \([0-9]*\).*/\1/p" | head -n 1
    ;;
  admin) shift; java_of 128m -Dhadoop.root.logger=WARN,console org.apache.hadoop.hdfs.tools.DFSAdmin "$@" 2>>"$home/log/admin.out" ;;
  fs) shift; java_of 128m org.apache.hadoop.fs.FsShell "$@" 2>>"$home/log/fs.out" ;;
  format) java_of 128m "$(class_of namenode)" -format -nonInteractive -force >"$home/log/format.out" 2>&1 ;;
  *) echo "unknown: $1" >&2; exit 2 ;;
esac
