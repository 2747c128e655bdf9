#!/usr/bin/env bash
# Builds nibble and runs every test. Usage: scripts/test.sh [CTEST_ARGUMENT...]   e.g. scripts/test.sh -R quant
# Three builds: the one for the CPU; the CUDA backend with its kernels run on the CPU by a simulator (build/simulated);
# and, where nvcc is found, the CUDA backend for all its targets (build/cuda), which runs what needs no GPU, and what
# needs one where there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;; esac
build=${NIBBLE_BUILD:-build}
jobs=$(nproc)

# build_cuda DIRECTORY NIBBLE_CUDA: quiet unless something fails.
build_cuda() {
  mkdir -p "$1"
  cmake -S . -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DNIBBLE_CUDA=$2" -DNIBBLE_TESTS=ON >"$1.log" 2>&1 ||
    { cat "$1.log" >&2; exit 70; }
  rm -f "$1.log"
  echo "test: building $1 (NIBBLE_CUDA=$2)"
  cmake --build "$1" --parallel "$jobs" --target nibble cuda_tests
}
run() { # DIRECTORY CTEST_ARGUMENT...
  ctest --test-dir "$1" --output-on-failure -j "$jobs" "${@:2}"
}

./scripts/setup.sh --tests
build_cuda "$build/simulated" SIMULATED
nvcc=
if command -v nvcc >/dev/null || [ -n "${CUDACXX:-}" ]; then nvcc=yes; fi
if [ -n "$nvcc" ]; then build_cuda "$build/cuda" ON; fi

failed=0
run "$build" --no-tests=error "$@" || failed=1
run "$build/simulated" -L cuda "$@" || failed=1
if [ -n "$nvcc" ]; then run "$build/cuda" -L cuda "$@" || failed=1; else echo "test: no nvcc, so nothing was compiled for GPUs"; fi
exit "$failed"
