#!/usr/bin/env bash
# Runs everything of nibble that needs a GPU, on this machine's first GPU, in 9 minutes at most, and what matters most
# first: finds CUDA's libraries, runs the tests, trains with exact GEMMs against the CPU bit for bit, measures speed, trains
# on real text, and asks ncu and compute-sanitizer where they are installed. Writes DIRECTORY/report.md as it goes, and
# all logs as DIRECTORY/report.tar.gz (less than 16 MB).
# Usage: scripts/gpu_check.sh [--output DIRECTORY]    builds first (build/cuda); DIRECTORY: default gpu-check
#        scripts/gpu_check.sh --bundle FILE.tar.gz    packs all of it for a machine that has nothing but the driver and
#                                                     CUDA's libraries: unpack it there and run ./gpu_check.sh
# Exit codes: 0 nothing failed (what was not run is counted in the report), 1 something failed, 64 usage, 70 no build,
#             78 there is no GPU that can be used
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
output=gpu-check
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) sed -n '2,11s/^# //p' "$0"; exit 0 ;;
    --output) output=${2:?"--output needs a directory"}; shift ;;
    --bundle) exec "$here/gpu_check_bundle.sh" "${2:?"--bundle needs a file name"}" ;;
    *) echo "gpu_check.sh: unknown argument '$1' (try --help)" >&2; exit 64 ;;
  esac
  shift
done
root=$here
if [ ! -d "$here/bin" ]; then
  root=$(realpath -m "$here/../${NIBBLE_BUILD:-build}/cuda/gpu-check")
  "$here/gpu_check_bundle.sh" "$root"
fi
# From here on only bash, coreutils, tar and gzip are needed. Time counts from here.
export LC_ALL=C
shopt -s nullglob
# shellcheck source=scripts/gpu_check_runs.sh
source "$root/gpu_check_runs.sh"
# shellcheck source=scripts/gpu_check_tests.sh
source "$root/gpu_check_tests.sh"
SECONDS=0
seconds_in_all=${NIBBLE_GPU_CHECK_SECONDS:-525}
patience=1 # times as long as on a GPU
if [ -e "$root/rehearsal" ]; then
  seconds_in_all=${NIBBLE_GPU_CHECK_SECONDS:-1400}
  patience=10
fi
mkdir -p "$output"
output=$(realpath "$output")
report=$output/report.md
logs=$output/gpu_check_logs
rm -rf "$logs" "$output/report.tar.gz"
mkdir "$logs"
work=$(mktemp -d)
passed=0 failed=0 not_run=0
exec 3>&1 # for the report, also while a command has its output in a log

# ---- the report ----

say() { printf '%s\n' "$*" >&3; printf '%s\n' "$*" >>"$report"; }
say_passed() { passed=$((passed + 1)); say "* passed   $1"; }
say_not_run() { not_run=$((not_run + 1)); say "* not run  $1: $2"; } # NAME REASON
say_failed() { failed=$((failed + 1)); say "* FAILED   $1"; }
quote() { # [FILE]: writes the last lines as a quotation
  local line
  tail -n 12 "$@" | while IFS= read -r line; do say "    ${line:0:500}"; done
}

# pack: report.tar.gz with the report, and with all logs, metrics and plans of GEMMs as far as it stays below 16 MB.
pack() {
  local file name
  rm -rf "$work/report" "$work"/runs/*/checkpoints
  mkdir -p "$work/report"
  for file in "$report" "$logs"/* "$work"/runs/*/{metrics.jsonl,config.yaml,gemm_plan.txt}; do
    name=$(basename "$file")
    if [[ $file == "$work"/* ]]; then name=$(basename "$(dirname "$file")")-$name; fi
    if [ "$(stat -c %s "$file")" -gt 200000 ]; then
      { head -c 100000 "$file"; printf '\n[cut out]\n'; tail -c 100000 "$file"; } >"$work/report/$name"
    else
      cp "$file" "$work/report/$name"
    fi
  done
  tar -C "$work" -czf "$output/report.tar.gz.part" report && mv "$output/report.tar.gz.part" "$output/report.tar.gz"
}

running= # the process group of the command that runs
ended=
end() { # also when the script is ended from outside
  local code=$?
  trap '' INT TERM HUP
  trap - EXIT
  if [ -n "$running" ]; then kill -KILL -- "-$running" 2>/dev/null || true; fi
  if [ -z "$ended" ]; then say ""; say "INTERRUPTED after $SECONDS s: $passed passed, $failed failed, $not_run not run."; fi
  pack
  rm -rf "$work"
  echo "gpu_check: $report, and all logs in $output/report.tar.gz" >&3
  exit "$code"
}
trap end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- running things ----

loader=()
run() { # PROGRAM ARGUMENT...: with the loader and libraries of the bundle, and this machine's libraries of CUDA
  LD_LIBRARY_PATH=$library_path "${loader[@]}" "$root/bin/$1" "${@:2}"
}
least() { echo $(($1 < $2 ? $1 : $2)); }
left() { echo $((seconds_in_all - SECONDS)); }
# limited SECONDS COMMAND...: runs it in a process group of its own, which is ended when the time is up (code 124).
limited() {
  local limit=$((SECONDS + $1)) code=0
  set -m
  "${@:2}" </dev/null &
  running=$!
  set +m
  while kill -0 "$running" 2>/dev/null; do
    if [ "$SECONDS" -ge "$limit" ]; then
      kill -TERM -- "-$running" 2>/dev/null || true
      sleep 1
      kill -KILL -- "-$running" 2>/dev/null || true
      wait "$running" 2>/dev/null || true
      running=
      return 124
    fi
    sleep 0.1
  done
  wait "$running" || code=$?
  running=
  return "$code"
}
was_not_run=99 # an exit code that nibble does not have
# step NAME LOG SECONDS COMMAND...: a line of the report. A command that ends with $was_not_run was not run, and its last
# line says why; neither was one that had to end because all time is used.
step() {
  local name=$1 log=$logs/$2 wanted=$((patience * $3)) limit code=0 begin=$SECONDS
  if [ "$(left)" -lt 5 ]; then say_not_run "$name" "out of time"; return 0; fi
  limit=$(least "$wanted" "$(left)")
  limited "$limit" "${@:4}" >"$log" 2>&1 || code=$?
  if [ "$code" -eq 0 ]; then
    say_passed "$name ($((SECONDS - begin)) s)"
  elif [ "$code" -eq "$was_not_run" ]; then
    say_not_run "$name" "$(tail -n 1 "$log")"
  elif [ "$code" -eq 124 ] && [ "$limit" -lt "$wanted" ]; then
    say_not_run "$name" "out of time after $limit s ($2)"
  else
    if [ "$code" -eq 124 ]; then code="cut off"; fi
    say_failed "$name (exit code $code after $((SECONDS - begin)) s; $2)"
    quote "$log"
  fi
}

# ---- libraries ----

wanted=(libcuda.so.1 libcublasLt.so.13 libcublasLt.so.12 libcudnn.so.9 libnvrtc.so.13 libnvrtc.so.12 libnccl.so.2)
declare -A found=()
note() { # PATH: a file that may be a wanted library. Stubs of the driver, and drivers for other kernels, are not.
  local name=${1##*/}
  if [ -n "${found[$name]:-}" ] || [ ! -e "$1" ] || [[ "$1 $(readlink -f "$1")" == *@(/stubs/|/compat/|_stub/)* ]]; then return 0; fi
  found[$name]=$1
}
# Looks where the environment says, in the directories of toolkits and drivers, in Python's environments, in the linker's
# cache, and at last everywhere.
find_libraries() {
  local directories=() environment directory name line tests=()
  IFS=: read -ra directories <<<"${LD_LIBRARY_PATH:-}"
  for environment in ${VIRTUAL_ENV:+"$VIRTUAL_ENV"} ${CONDA_PREFIX:+"$CONDA_PREFIX"}; do
    directories+=("$environment"/lib "$environment"/lib/python3*/site-packages/nvidia/*/lib)
  done
  for environment in ${CUDA_HOME:+"$CUDA_HOME"} ${CUDA_PATH:+"$CUDA_PATH"} /usr/local/cuda /usr/local/cuda-* /opt/cuda; do
    directories+=("$environment"/{lib64,lib} "$environment"/targets/*/lib)
  done
  directories+=(/usr/lib/wsl/lib /usr/local/nvidia/lib64 /usr/lib/{x86_64,aarch64}-linux-gnu /usr/lib64)
  for environment in /usr /usr/local /opt/* "${HOME:-/root}"/{,.}*; do
    directories+=("$environment"/lib/python3*/{site,dist}-packages/nvidia/*/lib)
  done
  for directory in "${directories[@]}"; do
    for name in "${wanted[@]}"; do note "$directory/$name"; done
  done
  while IFS= read -r line; do
    if [[ $line =~ ([^[:space:]]+)' ('.*' => '(/.*) ]] && [[ " ${wanted[*]} " == *" ${BASH_REMATCH[1]} "* ]]; then
      note "${BASH_REMATCH[2]}"
    fi
  done < <(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null)
  for name in "${wanted[@]}"; do
    if [ -z "${found[$name]:-}" ]; then tests+=(${tests:+-o} -name "$name"); fi
  done
  if [ -n "${tests:-}" ] && command -v find >/dev/null; then
    limited 20 find / /opt "${HOME:-/root}" -xdev \( "${tests[@]}" \) -print >"$work/found" 2>/dev/null || true
    while IFS= read -r line; do note "$line"; done <"$work/found"
  fi
}
library_path=
describe_libraries() {
  local name path
  for name in "${wanted[@]}"; do
    path=${found[$name]:-}
    if [ -z "$path" ]; then say "$name: not found"; continue; fi
    say "$name: $path ($(basename "$(readlink -f "$path")"))"
    if [[ ":$library_path:" != *":${path%/*}:"* ]]; then library_path=${library_path:+$library_path:}${path%/*}; fi
  done
}

# ---- training ----

same_losses() { # DIRECTORY FILE
  if [ "$(losses "$1")" = "$(cat "$2")" ]; then return 0; fi
  echo "losses of $1, and of the CPU:"
  losses "$1"
  cat "$2"
  return 1
}
exact_like_cpu() { # RECIPE-HEAD_DIM
  train_exact "$work/runs/exact-$1" "$1" --set device=cuda --set cuda.gemm=exact --set cuda.attention=exact &&
    same_losses "$work/runs/exact-$1" "$root/losses-cpu/train_exact-$1.txt"
}
millionths() { local text; text=$(printf '%.6f' "$1"); echo $((10#${text/./})); }
text_like_cpu() { # RECIPE-HEAD_DIM: the last losses lie within 2 %
  train_on_text "$work/runs/text-$1" "$1" --set device=cuda || return
  local gpu cpu
  gpu=$(losses "$work/runs/text-$1" | tail -n 1 | cut -d ' ' -f 2)
  cpu=$(tail -n 1 "$root/losses-cpu/train_on_text-$1.txt" | cut -d ' ' -f 2)
  echo "last losses: GPU $gpu, CPU $cpu"
  local difference=$(($(millionths "$gpu") - $(millionths "$cpu")))
  [ $((50 * ${difference#-})) -lt "$(millionths "$cpu")" ]
}
libraries_of() { # LOG: what the log of a run says of the libraries that compute
  local line
  while IFS= read -r line; do
    if [[ $line =~ (products|attention)\ +(.*) ]]; then say "    ${BASH_REMATCH[1]}: ${BASH_REMATCH[2]:0:300}"; fi
  done <"$logs/$1"
}
repeats() { # the same run twice, and once stopped and resumed, with the libraries' GEMMs and attention
  local run=$work/runs/repeat code=0
  train_briefly "$run-1" nvfp4-64 6 --set device=cuda && train_briefly "$run-2" nvfp4-64 6 --set device=cuda || return
  train_briefly "$run-3" nvfp4-64 6 --set device=cuda --set train.stop_at=3 || code=$?
  [ "$code" -eq 75 ] || return 1
  run nibble resume "$run-3" --set train.stop_at=0 || return
  losses "$run-1" >"$work/losses"
  same_losses "$run-2" "$work/losses" && same_losses "$run-3" "$work/losses"
}

# ---- tools of the CUDA toolkit ----

find_tool() { # NAME: sets tool, or says why there is none, and ends with $was_not_run
  local candidates
  tool=$(command -v "$1" || true)
  candidates=(/usr/local/cuda*/bin/"$1" /opt/nvidia/nsight-compute/*/"$1")
  tool=${tool:-${candidates[0]:-}}
  if [ -z "$tool" ]; then echo "$1 is not installed"; return "$was_not_run"; fi
}
profile_casts() { # how busy the casts keep the multiprocessors, and the memory
  local code=0
  find_tool ncu || return
  LD_LIBRARY_PATH=$library_path "$tool" --set basic --clock-control none --target-processes all -k regex:cast_kernel \
    --launch-count 30 "${loader[@]}" "$root/bin/cuda_bench" "${bench_extent[@]:---once}" quantisers || code=$?
  if [ "$code" -ne 0 ]; then echo "ncu ended with $code: does the driver permit its counters?"; return "$was_not_run"; fi
}
sanitize() { # TOOL PROGRAM ARGUMENT...
  local code=0
  find_tool compute-sanitizer || return
  LD_LIBRARY_PATH=$library_path "$tool" --tool "$1" --error-exitcode 9 --target-processes all "${loader[@]}" \
    "$root/bin/$2" "${@:3}" || code=$?
  if [ "$code" -ne 0 ] && [ "$code" -ne 9 ]; then echo "compute-sanitizer ended with $code, without a finding"; return "$was_not_run"; fi
  return "$code"
}
sanitized_step() {
  run() { sanitize memcheck "$@"; }
  train_briefly "$work/runs/sanitized" nvfp4-64 1 --set device=cuda --set train.tokens_per_step=1024
}

# ---- everything, in the order in which it matters ----

test_filter='*'
bench_extent=()
: >"$report"
say "# nibble on a GPU"
say ""
if [ -e "$root/rehearsal" ]; then
  test_filter=$(cat "$root/rehearsal")
  bench_extent=(--smoke)
  say "A rehearsal: tiny runs, and only the tests $test_filter."
  say ""
fi
say '```'
say "$(date -u '+%Y-%m-%d %H:%M UTC')"
say "$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader 2>/dev/null || echo 'no nvidia-smi')"
find_libraries
describe_libraries
if [ -d "$root/lib" ]; then loader=("$root"/lib/ld-linux-*.so.* --library-path "$root/lib:$library_path"); fi
code=0
run nibble --version >"$logs/version.log" 2>&1 || code=$?
say "$(head -n 12 "$logs/version.log")"
limited 60 run cuda_bench "${bench_extent[@]}" device >"$logs/device.jsonl" 2>"$logs/device.log" || code=$?
say "$(cat "$logs/device.jsonl" "$logs/device.log")"
say '```'
if [ "$code" -eq 78 ] && [ ! -s "$logs/device.jsonl" ]; then
  say ""
  say "NO DEVICE: there is no GPU that nibble can use, so nothing was run."
  ended=yes
  exit 78
fi
if [ "$code" -ne 0 ]; then say_failed "nibble --version, or the description of the device (exit code $code)"; fi
pack

gpu_tests "Tests" "$test_filter-*RealShapes*" 120 kernels
pack

say ""; say "## Training with exact GEMMs and attention: the losses of the CPU, bit for bit"; say ""
for name in "${exact_runs[@]}"; do
  step "three steps of $name" "exact-$name.log" 30 exact_like_cpu "$name"
done
pack

gpu_tests "Libraries on the shapes of a model" "*RealShapes*" 60 real-shapes
pack

bench() { # TITLE LOG SECONDS PART...
  say ""; say "## $1"; say ""
  step "bench: ${*:4}" "$2" "$3" run cuda_bench "${bench_extent[@]}" "${@:4}"
  local line
  say ""; say '```'
  if [ -e "$logs/$2" ]; then
    while IFS= read -r line; do
      if [[ $line == '{'* ]]; then say "$line"; fi
    done <"$logs/$2"
  fi
  say '```'
}
bench "Speed of training" bench-training.jsonl 120 training
pack
bench "Speed of kernels" bench-kernels.jsonl 75 quantisers gemms attention operators
pack

say ""; say "## Training on real text, with libraries"; say ""
for name in "${text_runs[@]}"; do
  step "100 steps of $name: the loss of the CPU within 2 %" "text-$name.log" 45 text_like_cpu "$name"
  if [ -e "$logs/text-$name.log" ]; then libraries_of "text-$name.log"; fi
done
step "the same run twice, and stopped and resumed, has the same bits" repeat.log 60 repeats
pack

say ""; say "## Tools"; say ""
step "ncu on the casts" ncu.log 75 profile_casts
step "memcheck of one training step" memcheck.log 60 sanitized_step
step "racecheck of three tests of QuantizeOnDevice" racecheck.log 60 sanitize racecheck cuda_gpu_tests \
  "--gtest_filter=QuantizeOnDevice.EveryRule:QuantizeOnDevice.RaggedShapes:QuantizeOnDevice.EveryRotationOfEveryRule"
say ""
say "$passed passed, $failed FAILED, $not_run not run, in $SECONDS s."
ended=yes
[ "$failed" -eq 0 ]
