#!/usr/bin/env bash
# Checks that all C++ and CUDA sources are formatted as .clang-format says; with --fix, formats them. Exit code 69
# without clang-format-14.
set -eu
cd "$(dirname "$0")/.."
# Other versions format differently.
if ! command -v clang-format-14 >/dev/null; then
  echo "check_format: not run: clang-format-14 is missing (apt-get install clang-format-14; Debian 13 has none)" >&2
  exit 69
fi
mode=(--dry-run -Werror)
[ "${1:-}" = --fix ] && mode=(-i)
find dist quant model optim data trainer tests -name third_party -prune -o \
  -type f \( -name '*.h' -o -name '*.inl' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
  xargs -0 -r clang-format-14 "${mode[@]}"
