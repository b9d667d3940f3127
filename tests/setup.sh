#!/usr/bin/env bash
# Installs what the test suites need and prints where: Debian packages (only those missing) and a private Python environment.
#   tests/setup.sh            the default suites: PostgreSQL, ext4 and xfs tools, strace, pyarrow
#   tests/setup.sh ceph       the same, and a Ceph cluster's packages
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
if [ "${1:-}" = ceph ]; then
  need ceph-mon ceph-mon ceph-osd ceph-mgr radosgw ceph-common
fi
if [ ${#packages[@]} -gt 0 ]; then
  echo "installing ${packages[*]}" >&2
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
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
