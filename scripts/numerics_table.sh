#!/usr/bin/env bash
# Measures the quantisers against the papers' figures and writes the tables into docs/numerics.md. Takes a minute.
# Usage: scripts/numerics_table.sh [--check]   --check only compares: exit 1 if docs/numerics.md says something else.
# Builds numerics_table in the build directory ($NIBBLE_BUILD, else build), which scripts/setup.sh --tests makes.
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;; esac
cd "$(dirname "$0")/.."
build=${NIBBLE_BUILD:-build}
page=docs/numerics.md
if [ ! -f "$build/CMakeCache.txt" ]; then
  echo "numerics_table: $build is no build directory; make it with: scripts/setup.sh --tests" >&2
  exit 1
fi
for marker in begin end; do
  if [ "$(grep -c "^<!-- numerics-table:$marker -->$" "$page")" -ne 1 ]; then
    echo "numerics_table: $page needs one line <!-- numerics-table:$marker -->" >&2
    exit 1
  fi
done
cmake --build "$build" --target numerics_table >&2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$build/tests/numerics_table" >"$scratch/table"
sed -e "/^<!-- numerics-table:begin -->$/r $scratch/table" \
  -e '/^<!-- numerics-table:begin -->$/,/^<!-- numerics-table:end -->$/{/^<!-- numerics-table:/!d}' "$page" >"$scratch/page"
if [ "${1:-}" = --check ]; then
  diff -u "$page" "$scratch/page"
else
  cat "$scratch/page" >"$page"
fi
