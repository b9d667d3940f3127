#!/usr/bin/env bash
# rustdoc as cargo calls it for a library's doc tests, which before them has its documentation checked as `make doc` does: with what is
# compiled already, where `cargo doc` would go over every dependency again.
set -euo pipefail
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
args=() test='' value=''
for arg in "$@"; do
  if [ -n "$value" ]; then value='' && continue; fi
  case $arg in
    --test) test=1 ;;
    --test-args | --test-run-directory) value=1 ;;
    *) args+=("$arg") ;;
  esac
done
[ -z "$test" ] || rustdoc "${args[@]}" --out-dir "$out" --document-private-items -D warnings -A rustdoc::private-intra-doc-links
rustdoc "$@"
