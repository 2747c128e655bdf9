# scripts/gpu_check.sh: first with programs that only pretend, for all that goes wrong on a GPU; then a rehearsal with the
# programs of this build.
# Labels: cuda slow
source "$SOURCE/tests/tiny_run.sh"

# It may need no more than this, and finds libraries without anybody's help.
mkdir -p tools
for tool in base64 bash basename cat cp cut date dirname env head mkdir mktemp mv readlink realpath rm sleep stat tail tar gzip; do
  ln -s "$(command -v "$tool")" "tools/$tool"
done
check() { # CODE [VARIABLE=VALUE...]: runs the check of the bundle
  expect "$1" env -u LD_LIBRARY_PATH "PATH=$WORK/tools" "HOME=$WORK" "${@:2}" ./bundle/gpu_check.sh --output out
  [ "$(stat -c %s out/report.tar.gz)" -lt 16000000 ] || fail "the packed report is too large"
  tar -xzOf out/report.tar.gz report/report.md | cmp - out/report.md || fail "the packed report is another one"
}
says() { grep -qE -- "$1" out/report.md || { cat out/report.md >&2; fail "the report does not say: $1"; }; }

# ---- programs that pretend ----

mkdir -p bundle/bin/configs/runs bundle/losses-cpu
cp "$SOURCE"/scripts/gpu_check{,_runs,_tests}.sh bundle/
cat >bundle/bin/nibble <<'EOF_NIBBLE'
#!/bin/bash
echo "pretends: $*"
if [ "$1" = --version ]; then exit 0; fi
directory=$2 code=0
for argument in "$@"; do
  case "$argument" in run.dir=*) directory=${argument#*=} ;; train.stop_at=3) code=75 ;; esac
done
mkdir -p "$directory"
echo '{"event":"step","loss":'"${FAKE_LOSS:-2.5}"',"loss_hex":"40200000","lr":1.0}' >"$directory/metrics.jsonl"
exit "${FAKE_CODE:-$code}"
EOF_NIBBLE
cat >bundle/bin/cuda_bench <<'EOF_BENCH'
#!/bin/bash
if [ "${FAKE_DEVICE:-0}" -ne 0 ]; then echo "no GPU" >&2; exit "$FAKE_DEVICE"; fi
echo '{"name":"pretends"}'
if [[ "$*" == *quantisers* ]]; then head -c "${FAKE_NOISE:-0}" /dev/urandom | base64 >&2; fi
if [[ "$*" == *training* ]]; then sleep "${FAKE_SECONDS:-0}"; fi
EOF_BENCH
cat >bundle/bin/cuda_gpu_tests <<'EOF_TESTS'
#!/bin/bash
filter=$(for argument in "$@"; do case "$argument" in --gtest_filter=*) echo "${argument#*=}" ;; esac; done)
list=${FAKE_TESTS-Good.one Good.two Good.skips Bad.fails Crash.before Crash.crashes Crash.after Sticky.first Sticky.later Slow.slow}
spoiled=
if [ "$filter" = '*RealShapes*' ]; then list=RealShapes.one; fi
for name in $list; do
  if [[ " $* " == *" --gtest_list_tests "* ]]; then
    if [ "${name%.*}" != "${suite:-}" ]; then suite=${name%.*}; echo "$suite."; fi
    echo "  ${name#*.}"
    continue
  fi
  case ":$filter:" in *:"$name":* | :\**) ;; *) continue ;; esac
  echo "[ RUN      ] $name"
  case "$name" in
    Good.skips) printf 'file.cpp:1: Skipped\nthere is no library\n\n[  SKIPPED ] %s (0 ms)\n' "$name"; continue ;;
    Bad.fails) printf 'file.cpp:2: Failure\nis wrong\n[  FAILED  ] %s (1 ms)\n' "$name"; continue ;;
    Crash.crashes) kill -SEGV $$ ;;
    Sticky.first) spoiled=yes ;;
    Slow.slow) sleep "${FAKE_SLOW:-0}" ;;
  esac
  if [ -n "$spoiled" ]; then
    printf 'C++ exception: CUDA: copy: it failed (cudaErrorIllegalAddress)\n[  FAILED  ] %s (1 ms)\n' "$name"
  else
    printf '[       OK ] %s (1 ms)\n' "$name"
  fi
done
EOF_TESTS
chmod +x bundle/bin/*
for name in train_exact-{bf16-64,nvfp4-32,nvfp4-64,nvfp4-128,quartet2-64,nibble-64} train_on_text-{bf16-64,nvfp4-128,nvfp4-32}; do
  echo "40200000 2.5" >"bundle/losses-cpu/$name.txt"
done

# What fails, what is skipped, and what a crash or an error that stays would have hidden.
check 1
says '^\* passed   Good \(2 tests\)$'
says '^\* not run  Good\.skips: there is no library'
says '^\* FAILED   Bad\.fails: is wrong'
says '^\* FAILED   Crash\.crashes: the program ended in this test \(code 139\)'
says '^\* passed   Crash \(2 tests\)$'
says '^\* FAILED   Sticky\.first: .*cudaErrorIllegalAddress'
says '^\* passed   Sticky \(1 tests\)$'
says '^\* passed   Slow \(1 tests\)$'
says '^\* not run  ncu on the casts: ncu is not installed$'
says '^\* not run  memcheck of one training step: compute-sanitizer is not installed$'
says '^19 passed, 3 FAILED, 4 not run, in '

# What is skipped or not installed is no failure.
good="FAKE_TESTS=Good.one Good.skips"
check 0 "$good"
says '^14 passed, 0 FAILED, 4 not run, in '
# A program that does not start has no tests.
check 1 FAKE_TESTS=
says '^\* FAILED   no tests: '
# Other losses than those of the CPU: other bits; and too far away.
check 1 "$good" FAKE_LOSS=2.5001
says '^\* FAILED   three steps of nvfp4-128 '
says '^\* passed   100 steps of bf16-64'
check 1 "$good" FAKE_LOSS=2.56
says '^\* FAILED   100 steps of bf16-64'
# 77 is nibble's code for numerics that gave up, not a step that was not run.
check 1 "$good" FAKE_CODE=77
says '^\* FAILED   three steps of nvfp4-128 \(exit code 77'
# Time that is used up: the rest is not run, and the tests in between have no verdict.
check 0 FAKE_TESTS="Good.one Slow.slow Good.two" FAKE_SLOW=120 NIBBLE_GPU_CHECK_SECONDS=30
says '^\* passed   Good \(1 tests\)$'
says '^\* not run  Slow\.slow: out of time'
says '^\* not run  three steps of bf16-64: out of time$'
# Ended from outside: what is known is packed.
rm -rf out
env "$good" FAKE_SECONDS=60 "PATH=$WORK/tools" ./bundle/gpu_check.sh --output out >output.txt 2>&1 &
for ((turn = 0; turn < 300; ++turn)); do
  if grep -qs "Speed of training" out/report.md; then break; fi
  sleep 0.2
done
kill -TERM "$!"
code=0
wait "$!" || code=$?
[ "$code" -eq 143 ] || fail "exit code $code after SIGTERM"
says '^INTERRUPTED after '
tar -xzOf out/report.tar.gz report/report.md | cmp - out/report.md || fail "the report of an interrupted check is not packed"
# No GPU.
check 78 FAKE_DEVICE=78
says '^NO DEVICE'
# Libraries lie in the environment of a Python; what is only a stub of the driver is not taken. A long log is cut.
mkdir -p venv/lib/python3.11/site-packages/nvidia/cudnn/lib cuda/lib64/stubs
echo >venv/lib/python3.11/site-packages/nvidia/cudnn/lib/libcudnn.so.9
echo >cuda/lib64/stubs/libcuda.so
ln -s stubs/libcuda.so cuda/lib64/libcuda.so.1
check 0 "$good" VIRTUAL_ENV="$WORK/venv" CUDA_HOME="$WORK/cuda" FAKE_NOISE=20000000
says "^libcudnn\.so\.9: $WORK/venv/lib/python3.11/site-packages/nvidia/cudnn/lib/libcudnn\.so\.9 "
if grep -q stubs out/report.md; then fail "takes the stub of the driver"; fi

# ---- a rehearsal ----

# The text is that of the tiny run, because a large one takes long to tokenize.
tiny_data
rm -rf bundle
mkdir bundle
mv data bundle/data
"$SOURCE/scripts/gpu_check_bundle.sh" --programs "$PROGRAMS/../.." --rehearsal "Embedding.*:QuantizeOnDevice.EveryRule" bundle
# Its libraries lie where a virtual environment has them.
libraries=venv/lib/python3.11/site-packages/nvidia/cudnn/lib
rm "$libraries"/*
if [ -d "$PROGRAMS/../../simulated_libraries" ]; then cp "$PROGRAMS"/../../simulated_libraries/* "$libraries/"; fi
check 0 VIRTUAL_ENV="$WORK/venv"
says '^\{"is":"bf16: native, cuBLASLt'
says '^\* passed   QuantizeOnDevice \(1 tests\)$'
says '^\* passed   three steps of quartet2-64 '
says '^\* passed   bench: training '
says '^    products: .*cuBLASLt'
says '^\* passed   the same run twice'
says ' passed, 0 FAILED, '
check 78 VIRTUAL_ENV="$WORK/venv" NIBBLE_SIMULATED_GPUS=0 CUDA_VISIBLE_DEVICES=
says '^NO DEVICE'
