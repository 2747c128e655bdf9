#!/usr/bin/env bash
# What a run on several GPUs does when NCCL reports an error or an operation never ends: the job ends within the
# deadline with exit code 76, naming operation, number and rank. The simulator's NCCL makes the faults, and ends the
# program in another way when two threads are inside it.
# Labels: cuda faults
set -u
set +e +o pipefail  # exit codes are what this test looks at
[ -d "$PROGRAMS/../../simulated_libraries" ] || { echo "not run: faults need the simulator"; exit 0; }
rm -rf "$WORK" && mkdir -p "$WORK" && cd "$WORK" || exit 1
export NIBBLE_TEST_FAULTS=1
failures=0

# expect FAULT TIMEOUT TEXT: the fault ends the job of 3 ranks with exit code 76 and says this. FAULT: as in
# tests/cuda_simulator/nccl.cpp; empty: none, and the job ends well.
expect() {
  local wanted=76
  [ -n "$1" ] || wanted=0
  NIBBLE_SIMULATED_NCCL_FAULT="$1" NIBBLE_TEST_TIMEOUT="$2" timeout -k 5 60 \
    mpirun -n 3 "$PROGRAMS/cuda_mpi_tests" --gtest_filter=Nccl.Fault >out.txt 2>&1
  local code=$?
  if [ $code != $wanted ] || ! grep -qE "$3" out.txt; then
    echo "fault \"$1\": exit code $code instead of $wanted, or no line with \"$3\":"
    cat out.txt
    failures=$((failures + 1))
  fi
}

expect "" 20 "PASSED"
# A rank whose NCCL reports an error says so, long before the deadline: the watch asks NCCL while the rank waits for the
# last operation, and NCCL refuses the next operation while there is one.
expect "error 2 6" 50 "all-gather number 6 of NCCL \(16384 bytes\) on rank 2 failed: remote process exited"
expect "error 2 3" 50 "(broadcast number 3|all-gather number 4) of NCCL \(16384 bytes\) on rank 2 failed: remote process"
expect "refused 0 2" 50 "all-gather number 2 of NCCL \(16384 bytes\) on rank 0 failed: remote process exited"
# Ranks that wait for one that never comes, while NCCL starts and later.
expect "silent 1 0" 1 "^error\[E76\]: .*start of NCCL number 0 took longer than"
expect "silent 1 1" 1 "^error\[E76\]: .*broadcast of NCCL number 1 took longer than"
expect "silent 0 4" 1 "^error\[E76\]: .*all-gather of NCCL number 4 took longer than"
exit $((failures > 0))
