#!/usr/bin/env bash
# Runs everything of nibble that needs a GPU, on this machine's first GPU, within 9 minutes, and writes one report:
# tests, exact GEMMs against the CPU bit for bit, BF16 and NVFP4 training on real text against the CPU, speeds as shares
# of the GPU's copy rate and peak, and compute-sanitizer.
# Usage: scripts/gpu_check.sh [--output DIRECTORY]    builds first (build/cuda); DIRECTORY: default gpu-check
#        scripts/gpu_check.sh --bundle FILE.tar.gz    packs all of it for a machine that has nothing but the driver and
#                                                     the CUDA libraries: unpack it there and run ./gpu_check.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
output=gpu-check
bundle=
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) sed -n '2,8s/^# //p' "$0"; exit 0 ;;
    --output) output=${2:?"--output needs a directory"}; shift ;;
    --bundle) bundle=$(realpath -m "${2:?"--bundle needs a file name"}"); shift ;;
    *) echo "gpu_check.sh: unknown argument '$1' (try --help)" >&2; exit 64 ;;
  esac
  shift
done
seconds_in_all=${NIBBLE_GPU_CHECK_SECONDS:-520}
started=$SECONDS

# ---- building and packing ----

build() {
  build_directory=${NIBBLE_BUILD:-build}/cuda
  ./scripts/setup.sh --tests --packages
  mkdir -p "$build_directory"
  cmake -S . -B "$build_directory" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DNIBBLE_CUDA=${NIBBLE_CUDA:-ON}" \
    -DNIBBLE_TESTS=ON >"$build_directory.log" 2>&1 || { cat "$build_directory.log" >&2; exit 70; }
  rm -f "$build_directory.log"
  cmake --build "$build_directory" --parallel "$(nproc)" --target nibble cuda_gpu_tests cuda_bench
}

# collect DIRECTORY: copies programs, the files that they read, and shards of real text.
collect() {
  mkdir -p "$1/bin" "$1/data"
  cp "$build_directory"/nibble "$build_directory"/tests/cuda/{cuda_gpu_tests,cuda_bench} "$1/bin/"
  cp -RL configs "$1/bin/configs"
  cp "$here/gpu_check.sh" "$1/"
  [ -e "$1/data/tokenizer.model" ] || "$build_directory/nibble" tokenize data/sample/state_of_the_union.txt.zst \
    --documents line --validation-share 0.05 --vocab-size 4096 --output "$1/data" >/dev/null
}

# Shared libraries are packed with their loader, so that the C library of the other machine does not matter. The driver
# and CUDA's libraries are those of that machine.
collect_libraries() {
  mkdir -p "$1/lib"
  ldd "$1"/bin/nibble "$1"/bin/cuda_* | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*ld-linux[^ ]*\).*/\1/p' |
    sort -u | grep -vE 'lib(cuda|nvidia|cublas|cudnn|nccl)' | xargs -r cp -L -t "$1/lib"
}

if [ -n "$bundle" ]; then
  cd "$here/.."
  build
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  collect "$work/nibble-gpu-check"
  collect_libraries "$work/nibble-gpu-check"
  find "$work/nibble-gpu-check/bin" -type f -perm -u+x -exec strip --strip-debug {} +
  tar -C "$work" -czf "$bundle.part" nibble-gpu-check
  mv "$bundle.part" "$bundle"
  echo "gpu_check: $(du -h "$bundle" | cut -f1) in $bundle; unpack it on the GPU machine and run nibble-gpu-check/gpu_check.sh"
  exit 0
fi

# ---- running ----

if [ -d "$here/bin" ]; then
  root=$here
else
  cd "$here/.."
  build
  root=$(realpath "$build_directory")/gpu-check
  rm -rf "$root/bin"
  collect "$root"
fi
data=$root/data
mkdir -p "$output"
output=$(realpath "$output")
report=$output/report.md
failures=0

# Finds the directories that hold CUDA's libraries on this machine.
for directory in "${CUDA_HOME:-/usr/local/cuda}/lib64" /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/local/nvidia/lib64; do
  [ -d "$directory" ] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$directory
done
run() { # PROGRAM ARGUMENT...: runs the program with the bundle's loader and libraries if there are any
  local program=$root/bin/$1
  shift
  if [ -d "$root/lib" ]; then
    "$root"/lib/ld-linux-*.so.* --library-path "$root/lib:$LD_LIBRARY_PATH" "$program" "$@"
  else
    LD_LIBRARY_PATH=$LD_LIBRARY_PATH "$program" "$@"
  fi
}
left() { echo $((seconds_in_all - (SECONDS - started))); }
say() { printf '%s\n' "$*" | tee -a "$report"; }
# verdict NAME LOG SECONDS COMMAND...: runs a step and writes one line of the report; a step that does not fit in the
# time that is left is not run.
verdict() {
  local name=$1 log=$output/$2 limit=$3 code=0 outcome=FAILED
  shift 3
  if [ "$(left)" -lt 10 ]; then say "* NOT RUN  $name (out of time)"; failures=$((failures + 1)); return 0; fi
  if [ "$limit" -gt "$(left)" ]; then limit=$(left); fi
  local begin=$SECONDS
  (limited "$limit" "$@") >"$log" 2>&1 || code=$?
  if [ "$code" -eq 0 ]; then
    say "* passed   $name ($((SECONDS - begin)) s)"
  else
    failures=$((failures + 1))
    if [ "$code" -eq 143 ] || [ "$code" -eq 137 ]; then outcome="CUT OFF"; fi
    say "* $outcome  $name (exit code $code after $((SECONDS - begin)) s; $(basename "$log"))"
    tail -n 12 "$log" | sed 's/^/    /' | tee -a "$report"
  fi
  return 0
}
# limited SECONDS FUNCTION ARGUMENT...: runs the function in its own process group, which is ended when the time is up.
limited() {
  local limit=$1 child watcher code=0
  shift
  set -m
  "$@" &
  child=$!
  set +m
  (sleep "$limit" && kill -TERM -- "-$child" && sleep 5 && kill -KILL -- "-$child") 2>/dev/null &
  watcher=$!
  wait "$child" || code=$?
  pkill -P "$watcher" 2>/dev/null || kill "$watcher" 2>/dev/null || true
  return "$code"
}

small=(--set "data.train=$data/train-*.bin" --set "data.validation=$data/validation-*.bin" --set log.tensorboard=false
  --set telemetry.every=0)
train() { # DIRECTORY ARGUMENT...
  run nibble train "$root/bin/configs/runs/quickstart.yaml" "${small[@]}" --set "run.dir=$output/runs/$1" "${@:2}"
}
losses() { grep -o '"loss_hex":"[^"]*"' "$output/runs/$1/metrics.jsonl"; }
last_loss() { grep -o '"loss":[^,]*' "$output/runs/$1/metrics.jsonl" | tail -n 1 | cut -d: -f2; }

same_bits_as_cpu() { # RECIPE: trains three steps with exact GEMMs
  local few=(--set "recipe=$1" --set train.steps=3 --set train.tokens_per_step=1024 --set eval.every=0 --set eval.sequences=16)
  train "exact-cpu-$1" "${few[@]}" --set schedule.warmup_steps=0 --set device=cpu
  train "exact-cuda-$1" "${few[@]}" --set schedule.warmup_steps=0 --set device=cuda --set cuda.gemm=exact --set cuda.attention=exact
  diff <(losses "exact-cpu-$1") <(losses "exact-cuda-$1")
}
train_like_cpu() { # RECIPE: 100 steps; the last losses lie within 2 %
  train "text-cpu-$1" --set "recipe=$1" --set train.steps=100 --set eval.every=0 --set device=cpu
  train "text-cuda-$1" --set "recipe=$1" --set train.steps=100 --set eval.every=0 --set device=cuda
  echo "last losses: CPU $(last_loss "text-cpu-$1"), GPU $(last_loss "text-cuda-$1")" | tee -a "$output/losses.txt"
  awk -v a="$(last_loss "text-cpu-$1")" -v b="$(last_loss "text-cuda-$1")" \
    'BEGIN { d = (a - b) / a; exit (d < 0.02 && d > -0.02) ? 0 : 1 }'
}
repeats() { # the same run twice has the same bits
  for turn in 1 2; do
    train "repeat-$turn" --set recipe=nvfp4 --set train.steps=10 --set eval.every=0 --set eval.sequences=16 --set device=cuda
  done
  diff <(losses repeat-1) <(losses repeat-2)
}
sanitize() { # TOOL SUITE
  local program=("$root/bin/cuda_gpu_tests")
  if [ -d "$root/lib" ]; then
    program=("$root"/lib/ld-linux-*.so.* --library-path "$root/lib:$LD_LIBRARY_PATH" "$root/bin/cuda_gpu_tests")
  fi
  compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all "${program[@]}" "--gtest_filter=$2.*"
}

rm -rf "$output/runs"
: >"$report"
: >"$output/losses.txt"
say "# nibble on a GPU"
say ""
say '```'
say "$(date -u '+%Y-%m-%d %H:%M UTC')"
say "$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null | head -n 1 || echo 'no nvidia-smi')"
say "$(run nibble --version 2>&1 | head -n 1)"
say '```'
say ""
say "## Tests"
say ""
for suite in $(run cuda_gpu_tests --gtest_list_tests | grep -o '^[A-Za-z0-9_/]*\.'); do
  verdict "${suite%.}" "tests-${suite%.}.log" 60 run cuda_gpu_tests "--gtest_filter=$suite*"
done
say ""
say "## Training"
say ""
for recipe in bf16 nvfp4 quartet2 nibble; do
  verdict "exact products: $recipe has the losses of the CPU, bit for bit" "exact-$recipe.log" 60 same_bits_as_cpu "$recipe"
done
verdict "the same run twice has the same bits" repeat.log 60 repeats
for recipe in bf16 nvfp4; do
  verdict "100 steps on real text, $recipe: the loss of the CPU within 2 %" "text-$recipe.log" 90 train_like_cpu "$recipe"
done
sed 's/^/    /' "$output/losses.txt" | tee -a "$report"
say ""
say "## Speed"
say ""
verdict "bench" bench.jsonl 150 run cuda_bench
say ""
say '```'
grep '^{' "$output/bench.jsonl" | tee -a "$report" || true
say '```'
say ""
say "## compute-sanitizer"
say ""
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck synccheck; do
    for suite in RmsNorm Embedding QuantizeOnDevice; do
      verdict "$tool $suite" "$tool-$suite.log" 60 sanitize "$tool" "$suite"
    done
  done
else
  failures=$((failures + 1))
  say "* NOT RUN  compute-sanitizer is not installed"
fi
say ""
if [ "$failures" -eq 0 ]; then say "Everything passed in $((SECONDS - started)) s."; else say "$failures checks FAILED or were not run."; fi
echo "gpu_check: $report"
[ "$failures" -eq 0 ]
