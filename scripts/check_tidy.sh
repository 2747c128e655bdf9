#!/usr/bin/env bash
# Checks all C++ sources, and the headers they include, with clang-tidy as .clang-tidy says. Takes minutes.
# Usage: scripts/check_tidy.sh [FILE...]   with FILEs, checks only these. Reads how each file is compiled from
# compile_commands.json in the build directory ($NIBBLE_BUILD, else build), which scripts/setup.sh --tests makes.
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;; esac
files=()
for file in "$@"; do files+=("$(realpath -e -- "$file")"); done
cd "$(dirname "$0")/.."
# Other versions have other checks.
if ! command -v clang-tidy-14 >/dev/null; then
  echo "check_tidy: clang-tidy-14 is missing; install it with: apt-get install clang-tidy-14" >&2
  exit 1
fi
build=${NIBBLE_BUILD:-build}
if [ ! -f "$build/compile_commands.json" ]; then
  echo "check_tidy: no compile_commands.json in $build; make it with: scripts/setup.sh --tests" >&2
  exit 1
fi
if [ "${#files[@]}" -eq 0 ]; then
  readarray -d '' files < <(find "$PWD"/{dist,quant,model,optim,data,trainer,tests} -name third_party -prune -o \
    -type f -name '*.cpp' -print0 | sort -z)
fi
# clang-tidy's count of warnings includes those of system headers, which are not reported.
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy-14 -p "$build" --quiet \
  2> >(grep -Ev '^[0-9]+ warnings? generated\.$' >&2)
