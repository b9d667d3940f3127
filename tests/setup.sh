#!/usr/bin/env bash
# Installs what the test suites need and prints where: Debian packages (only those missing) and a private Python environment.
#   tests/setup.sh            the default suites: PostgreSQL, ext4 and xfs tools, strace, pyarrow
#   tests/setup.sh mount      the same, and POSIX suites and programs that run on the mount
#   tests/setup.sh ceph       the same, and a Ceph cluster's packages
#   tests/setup.sh hdfs       the same, Java, and the jars of an HDFS
#   tests/setup.sh emulators  the same, and emulators of other clouds; one that cannot be installed is said to be missing
#   tests/setup.sh python     the same, the Python package of connectors/python, and the libraries that open it
#   tests/setup.sh torch      the same as python, PyTorch, and TensorFlow; where that cannot be had it is said to be missing
#   tests/setup.sh spark      the same, a JDK, PySpark, and the connector's jar, built
#   tests/setup.sh webhdfs    the same, Java, and the jars of Hadoop's client and contract tests
#   tests/setup.sh clients    the same, and Arrow's own Flight clients for Java and Go; one that cannot be had is said to be missing
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

packages=()
need() { # need FILE PACKAGE…: the packages, when FILE is not there
  local probe=$1; shift
  compgen -G "$probe" >/dev/null || command -v "$probe" >/dev/null || packages+=("$@")
}
need '/usr/lib/postgresql/*/bin/initdb' postgresql
need xfs_io xfsprogs
need mkfs.ext4 e2fsprogs
need strace strace
need cc gcc libc6-dev
need python3 python3 python3-venv
if [ "${1:-}" = mount ]; then
  need fio fio
  need stress-ng stress-ng
  need git git
  need make make
  need sqlite3 sqlite3
  need rsync rsync
fi
if [ "${1:-}" = ceph ]; then
  need ceph-mon ceph-mon ceph-osd ceph-mgr radosgw ceph-common
fi
if [ "${1:-}" = hdfs ] || [ "${1:-}" = webhdfs ]; then
  need java openjdk-17-jre-headless
  need mvn maven
  need curl curl
fi
if [ "${1:-}" = emulators ]; then
  need go golang-go
  need npm nodejs npm
  need curl curl
fi
if [ "${1:-}" = clients ]; then
  need javac openjdk-17-jdk-headless
  need mvn maven
  need go golang-go
fi
if [ "${1:-}" = torch ]; then
  need /usr/lib/python3/dist-packages/torch python3-torch
fi
if [ "${1:-}" = spark ]; then
  need javac openjdk-17-jdk-headless
  need mvn maven
fi
if [ "${1:-}" = webhdfs ]; then
  need javac openjdk-17-jdk-headless
fi
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
if [ ${#packages[@]} -gt 0 ]; then
  echo "installing ${packages[*]}" >&2
  $sudo apt-get update -qq >/dev/null
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# The lint suite's; a minimal toolchain has neither.
cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy >/dev/null

venv=$here/../.venv
stamp=$venv/complete-$(sha256sum <"$here/requirements.txt" | cut -c1-16)
if [ ! -e "$stamp" ]; then
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
  touch "$stamp"
fi

if [ "${1:-}" = python ] || [ "${1:-}" = torch ]; then
  package=$here/../connectors/python
  stamp=$venv/complete-$(cat "$here/requirements-python.txt" "$package/pyproject.toml" | sha256sum | cut -c1-16)
  if [ ! -e "$stamp" ]; then
    "$venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements-python.txt"
    "$venv/bin/pip" install -q --disable-pip-version-check --no-deps --no-build-isolation -e "$package"
    touch "$stamp"
  fi
fi
if [ "${1:-}" = torch ] && ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  # Debian's has no CUDA and is small; it fits the environment where both are of one Python. Elsewhere PyPI's, with CUDA's libraries.
  version() { "$1" -c 'import sys; print(sys.version_info[:2])'; }
  if [ "$(version /usr/bin/python3)" = "$(version "$venv/bin/python")" ]; then
    ln -sfn /usr/lib/python3/dist-packages/torch "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch"
  else
    "$venv/bin/pip" install -q --disable-pip-version-check torch
  fi
  "$venv/bin/python" -c 'import torch'
fi
if [ "${1:-}" = torch ]; then
  # In an environment of its own, which sees the packages of the other and cannot change them. Compiling it would take longer than fetching it.
  tensorflow=$venv/tensorflow
  stamp=$tensorflow/complete-$(sha256sum <"$here/requirements-tensorflow.txt" | cut -c1-16)
  site() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
  if [ ! -e "$stamp" ]; then
    "$venv/bin/python" -m venv --clear "$tensorflow"
    echo "import site; site.addsitedir('$(site "$venv")')" >"$(site "$tensorflow")/beside.pth"
    if timeout 600 "$tensorflow/bin/pip" install -q --disable-pip-version-check --no-compile -r "$here/requirements-tensorflow.txt" &&
      "$tensorflow/bin/python" -W ignore -c 'import tensorflow' 2>/dev/null; then
      touch "$stamp"
    else
      rm -rf "$tensorflow"
      echo "TensorFlow cannot be installed here: docs/tensorflow.md stays untested" >&2
    fi
  fi
fi

jars() { # jars NAME: what tests/NAME/pom.xml names, under a name of its own; a fetch that was broken off is none
  local jars=$venv/$1 pom=$here/$1/pom.xml stamp
  stamp=$jars/complete-$(sha256sum <"$pom" | cut -c1-16)
  [ -e "$stamp" ] && return
  rm -rf "$jars"
  mvn -q -B -Dstyle.color=never -f "$pom" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$jars"
  touch "$stamp"
}
case ${1:-} in
  hdfs | webhdfs | clients) jars "$1" ;;
esac
if [ "${1:-}" = clients ]; then
  (cd "$here/clients" && go build -o "$venv/clients-go/scenario" .) >&2 ||
    echo "Arrow's client for Go cannot be built here (it wants Go 1.25): it stays untested" >&2
fi

if [ "${1:-}" = emulators ]; then
  emulators=$venv/emulators
  mkdir -p "$emulators/bin"
  [ -x "$emulators/bin/fake-gcs-server" ] || GOBIN=$emulators/bin go install github.com/fsouza/fake-gcs-server@v1.56.1 >&2 ||
    echo "fake-gcs-server cannot be installed here: gs:// stays untested" >&2
  [ -e "$emulators/node_modules/azurite" ] || npm install --silent --no-audit --no-fund --prefix "$emulators" azurite@3.35.0 >&2 ||
    echo "Azurite cannot be installed here: az:// stays untested" >&2
fi
if [ "${1:-}" = spark ]; then
  stamp=$venv/complete-spark-$(sha256sum <"$here/spark/requirements.txt" | cut -c1-16)
  if [ ! -e "$stamp" ]; then
    "$venv/bin/pip" install -q --disable-pip-version-check -r "$here/spark/requirements.txt"
    touch "$stamp"
  fi
  # Its unit tests are run with it. Built again when a source is younger.
  connector=$here/../connectors/spark
  jar=$(compgen -G "$connector/target/forebay-spark-*.jar" | head -n 1 || true)
  if [ -z "$jar" ] || [ -n "$(find "$connector/src" "$connector/pom.xml" -newer "$jar" -print -quit)" ]; then
    mvn -q -B -Dstyle.color=never -f "$connector/pom.xml" clean package
  fi
fi

[ "${1:-}" = mount ] || exit 0

# POSIX suites, from crates, and the second user that pjdfstest becomes.
crate() { # crate NAME VERSION
  # In a folder of its own: a build that goes on meanwhile has its target folder locked.
  [ -e "$venv/tools/bin/$1" ] || env -u CARGO_TARGET_DIR cargo install -q --root "$venv/tools" --locked --version "$2" "$1"
}
crate pjdfstest 0.2.2
crate fsx 0.3.2
getent passwd tests >/dev/null || $sudo useradd --system --no-create-home --user-group --shell /usr/sbin/nologin tests

# The sources of a C project to build on the mount, from the Debian mirror that this machine uses.
sources=$venv/sources
if ! compgen -G "$sources/lua5.4_*.orig.tar.*" >/dev/null; then
  lists=$(mktemp -d)
  mkdir -p "$sources" "$lists/state/partial"
  apt-get indextargets --format 'deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | sort -u >"$lists/sources.list"
  options=(-qq -o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$lists/state" -o APT::Sandbox::User=)
  apt-get "${options[@]}" update >/dev/null
  (cd "$sources" && apt-get "${options[@]}" source --download-only lua5.4 >/dev/null)
  rm -r "$lists"
fi
