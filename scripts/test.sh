#!/usr/bin/env bash
# Builds nibble and runs every test. Usage: scripts/test.sh [--fast|--clang] [CTEST_ARGUMENT...]   e.g. scripts/test.sh -R quant
# There are three builds: the one for the CPU; the CUDA backend with its kernels run on the CPU by a simulator (build/simulated);
# and, where nvcc is found, the CUDA backend for all its targets (build/cuda), which runs what needs no GPU, and what
# needs one where there is one. The last two are built while the tests of the first run.
#   --fast    only the CPU build, and its tests with the label fast
#   --clang   the same with the newest clang++ that is installed, or the one that CXX names, in build/clang
# tests/README.md tells of labels, and of how to run one test.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${NIBBLE_BUILD:-build}
jobs=$(nproc)
part=all
case "${1:-}" in
  -h | --help) sed -n '2,8s/^# //p' "$0"; exit 0 ;;
  --fast | --clang) part=${1#--}; shift ;;
esac

builds=()  # process groups of builds in the background
trap 'for group in "${builds[@]}"; do kill -- "-$group" 2>/dev/null || true; done' EXIT
# start_build DIRECTORY NIBBLE_CUDA [PROCESS]: in the background, after the end of PROCESS; sets $started.
start_build() {
  mkdir -p "$1"
  echo "test: building $1 (NIBBLE_CUDA=$2) in the background"
  set -m  # in a process group of its own
  (
    if [ -n "${3:-}" ]; then tail --pid="$3" -f /dev/null; fi
    cmake -S . -B "$1" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DNIBBLE_CUDA=$2" -DNIBBLE_TESTS=ON
    nice cmake --build "$1" --parallel "$jobs" --target nibble cuda_tests
  ) >"$1.log" 2>&1 &
  set +m
  started=$!
  builds+=("$started")
}
# finish_build DIRECTORY PROCESS: waits, and shows what the build said if it failed.
finish_build() {
  wait "$2" || { cat "$1.log" >&2; echo "test: $1 does not build" >&2; exit 70; }
  rm -f "$1.log"
}
run() { # DIRECTORY CTEST_ARGUMENT...
  ctest --test-dir "$1" --output-on-failure -j "$jobs" "${@:2}"
}

if [ "$part" = clang ]; then
  NIBBLE_BUILD=$build ./scripts/setup.sh --tests --packages
  compiler=${CXX:-$(compgen -c clang++ | grep -E '^clang\+\+(-[0-9]+)?$' | sort -V | tail -n 1)}
  [ -n "$compiler" ] || { echo "test: there is no clang++: install Debian's package clang" >&2; exit 69; }
  echo "test: building $build/clang ($compiler)"
  cmake -S . -B "$build/clang" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_COMPILER=$compiler" -DNIBBLE_CUDA=OFF \
    -DNIBBLE_TESTS=ON
  cmake --build "$build/clang" --parallel "$jobs"
  run "$build/clang" -L fast "$@"
  exit
fi
./scripts/setup.sh --tests
if [ "$part" = fast ]; then
  run "$build" -L fast "$@"
  exit
fi

start_build "$build/simulated" SIMULATED
simulated=$started
nvcc=
if command -v nvcc >/dev/null || [ -n "${CUDACXX:-}" ]; then
  start_build "$build/cuda" ON "$simulated"
  nvcc=$started
fi
failed=0
run "$build" --no-tests=error "$@" || failed=1
finish_build "$build/simulated" "$simulated"
run "$build/simulated" -L cuda "$@" || failed=1
if [ -n "$nvcc" ]; then
  finish_build "$build/cuda" "$nvcc"
  run "$build/cuda" -L cuda "$@" || failed=1
else
  echo "test: no nvcc, so nothing was compiled for GPUs"
fi
exit "$failed"
