#!/usr/bin/env bash
# Builds nibble and runs every test. Usage: scripts/test.sh [CTEST_ARGUMENT...]   e.g. scripts/test.sh -R quant
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2s/^# //p' "$0"; exit 0 ;; esac
./scripts/setup.sh --tests
ctest --test-dir "${NIBBLE_BUILD:-build}" --output-on-failure --no-tests=error -j "$(nproc)" "$@"
