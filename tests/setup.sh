#!/usr/bin/env bash
# Installs what the test suites need and prints where: Debian packages (only those missing) and a private Python environment.
#   tests/setup.sh            the default suites: PostgreSQL, ext4 and xfs tools, strace, pyarrow
#   tests/setup.sh mount      the same, and POSIX suites and programs that run on the mount
#   tests/setup.sh ceph       the same, and a Ceph cluster's packages
#   tests/setup.sh hdfs       the same, Java, and the jars of an HDFS
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
if [ "${1:-}" = hdfs ]; then
  need java openjdk-17-jre-headless
  need mvn maven
  need curl curl
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

if [ "${1:-}" = hdfs ]; then
  # A name of its own for what these jars are; a fetch that was broken off is none.
  jars=$venv/hdfs
  stamp=$jars/complete-$(sha256sum <"$here/hdfs/pom.xml" | cut -c1-16)
  if [ ! -e "$stamp" ]; then
    rm -rf "$jars"
    mvn -q -B -Dstyle.color=never -f "$here/hdfs/pom.xml" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$jars"
    touch "$stamp"
  fi
fi

[ "${1:-}" = mount ] || exit 0

# POSIX suites, from crates, and the second user that pjdfstest becomes.
crate() { # crate NAME VERSION
  [ -e "$venv/tools/bin/$1" ] || cargo install -q --root "$venv/tools" --locked --version "$2" "$1"
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
