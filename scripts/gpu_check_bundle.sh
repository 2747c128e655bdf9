#!/usr/bin/env bash
# Packs everything that scripts/gpu_check.sh runs, for a machine with a GPU that may have nothing but bash, coreutils, tar
# and the driver: programs with their shared libraries, real text, and the losses of the CPU. CUDA's own libraries are
# those of that machine.
# Usage: scripts/gpu_check_bundle.sh [--programs BUILD_DIRECTORY] [--rehearsal TESTS] FILE.tar.gz | DIRECTORY
#   --programs   takes the programs of this build; without it builds them (build/cuda)
#   --rehearsal  makes the runs tiny, and runs only TESTS (a filter of googletest): for the simulator
set -euo pipefail
programs=
rehearsal=
target=
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) sed -n '2,7s/^# //p' "$0"; exit 0 ;;
    --programs) programs=$(realpath "${2:?"--programs needs a directory"}"); shift ;;
    --rehearsal) rehearsal=${2:?"--rehearsal needs a filter of tests"}; shift ;;
    -*) echo "gpu_check_bundle.sh: unknown argument '$1' (try --help)" >&2; exit 64 ;;
    *) target=$(realpath -m "$1") ;;
  esac
  shift
done
[ -n "$target" ] || { echo "gpu_check_bundle.sh: no file or directory given (try --help)" >&2; exit 64; }
cd "$(dirname "$0")/.."

if [ -z "$programs" ]; then
  programs=${NIBBLE_BUILD:-build}/cuda
  ./scripts/setup.sh --tests --packages
  mkdir -p "$programs"
  cmake -S . -B "$programs" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DNIBBLE_CUDA=${NIBBLE_CUDA:-ON}" \
    -DNIBBLE_TESTS=ON >"$programs.log" 2>&1 || { cat "$programs.log" >&2; exit 70; }
  rm -f "$programs.log"
  cmake --build "$programs" --parallel "$(nproc)" --target nibble cuda_gpu_tests cuda_bench >&2 || exit 70
fi

root=$target
if [[ $target == *.tar.gz ]]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  root=$work/nibble-gpu-check
fi
rm -rf "$root"/{bin,lib,losses-cpu,rehearsal}
mkdir -p "$root"/{bin,lib,data,losses-cpu}
if [ -n "$rehearsal" ]; then printf '%s\n' "$rehearsal" >"$root/rehearsal"; fi
cp scripts/gpu_check{,_runs,_tests}.sh "$root/"
cp "$programs"/nibble "$programs"/tests/cuda/{cuda_gpu_tests,cuda_bench} "$root/bin/"
cp -RL configs "$root/bin/configs"
strip "$root"/bin/{nibble,cuda_gpu_tests,cuda_bench}

# Shared libraries go with their loader, so that the C library of the other machine does not matter. CUDA's libraries are
# linked to parts of the C library that are files of their own in old versions; parts of two versions do not fit together.
ldd "$root"/bin/{nibble,cuda_gpu_tests,cuda_bench} |
  sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*ld-linux[^ ]*\).*/\1/p' | sort -u |
  grep -vE '/lib(cuda|nvidia|cublas|cudnn|nccl)' | xargs -r cp -L -t "$root/lib"
c_library=$(dirname "$(ldd "$root/bin/nibble" | sed -n 's/.*libc\.so\.6 => \(\/[^ ]*\).*/\1/p')")
for part in "$c_library"/lib{rt,pthread,dl,util}.so.[0-9] "$c_library"/libnss_{files,dns,compat}.so.2; do
  if [ -e "$part" ]; then cp -L "$part" "$root/lib/"; fi
done
find "$root/lib" -type f ! -name 'ld-linux*' -exec strip --strip-unneeded {} +

[ -e "$root/data/tokenizer.model" ] || "$programs/nibble" tokenize data/sample/state_of_the_union.txt.zst \
  --documents line --validation-share 0.05 --vocab-size 4096 --output "$root/data" >/dev/null

# shellcheck source=scripts/gpu_check_runs.sh
source scripts/gpu_check_runs.sh
run() { "$programs/$1" "${@:2}"; }
runs=$(mktemp -d)
trap 'rm -rf "$runs" "${work:-}"' EXIT
reference() { # FUNCTION RECIPE-HEAD_DIM
  "$1" "$runs/$1-$2" "$2" --set device=cpu >"$runs/log" 2>&1 || { cat "$runs/log" >&2; exit 70; }
  losses "$runs/$1-$2" >"$root/losses-cpu/$1-$2.txt"
}
for name in "${exact_runs[@]}"; do reference train_exact "$name"; done
for name in "${text_runs[@]}"; do reference train_on_text "$name"; done

if [ "$root" = "$target" ]; then exit 0; fi
tar -C "$work" -cf - nibble-gpu-check | gzip -9 >"$target.part"
mv "$target.part" "$target"
echo "gpu_check: $(du -h "$target" | cut -f1) in $target; unpack it on the GPU machine and run nibble-gpu-check/gpu_check.sh"
