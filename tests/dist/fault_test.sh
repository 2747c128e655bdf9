#!/usr/bin/env bash
# A run in which a rank is missing ends within the deadline, with a documented exit code and a message that names the
# rank.
# Labels: faults
set -u
set +e +o pipefail  # the test checks exit codes itself
program="$PROGRAMS/dist_mpi_tests"
rm -rf "$WORK" && mkdir -p "$WORK" && cd "$WORK" || exit 1
export NIBBLE_TEST_FAULTS=1 # seconds: the deadline of a collective
failures=0

# expect NAME EXIT_CODE TEXT: the fault NAME of $suite ends the job of 3 ranks with this code (or one of "a|b") and
# says this.
expect() {
  timeout -k 5 60 mpirun -n 3 "$program" --gtest_filter="$suite.$1" >"$1.txt" 2>&1
  local code=$?
  if ! [[ "$code" =~ ^($2)$ ]] || ! grep -q "$3" "$1.txt"; then
    echo "$1: exit code $code instead of $2, or no line with \"$3\":"
    cat "$1.txt"
    failures=$((failures + 1))
  fi
}

suite=Fault
expect LastRankNeverArrives 76 "all-reduce number 2 .*not arrived: rank 2"
expect FirstRankNeverArrives 76 "rank 0 does not answer"
expect LastRankIsStopped 76 "barrier number 1 .*not arrived: rank 2"
expect LastRankDoesSomethingElse 70 "rank 2 enters all-reduce number 1 .*while rank 0 enters barrier number 1"
# A rank that aborts is heard before the deadline of the others, which a busy machine must not bring forward.
export NIBBLE_TEST_FAULTS=30
expect LastRankThrowsAlone 65 "."  # the launcher's message does not always arrive
expect LastRankUnwindsWithItsCommunicator 77 "."
export NIBBLE_TEST_FAULTS=1
expect LastRankLeavesWithoutTheOthers 76 "barrier number 1 .* took longer"
# Ranks that share memory wait for other ranks only in collectives, which have a deadline.
suite=SharedArenaFault
expect LastRankIsStoppedInAStep 76 "all-gather number .*not arrived: rank 2"
expect LastRankIsKilledInAStep "137|76" "."  # the launcher or the deadline, whichever comes first
expect LastRankDoesNotShare 76 "not arrived: rank 2"

# No rank outlives its launcher.
mpirun -n 2 "$program" --gtest_filter=Fault.LastRankNeverArrives >launcher.txt 2>&1 &
launcher=$!
for _ in $(seq 100); do
  ranks=$(pgrep -P "$launcher" | tr '\n' ' ')
  [ "$(echo "$ranks" | wc -w)" = 2 ] && break
  sleep 0.05
done
sleep 0.5
kill -KILL "$launcher"
wait "$launcher" 2>/dev/null
gone=0
for _ in $(seq 100); do
  gone=1
  for rank in $ranks; do kill -0 "$rank" 2>/dev/null && gone=0; done
  [ $gone = 1 ] && break
  sleep 0.1
done
if [ "$(echo "$ranks" | wc -w)" != 2 ] || [ $gone = 0 ]; then
  echo "ranks ($ranks) outlive mpirun:"
  cat launcher.txt
  failures=$((failures + 1))
fi
exit $((failures > 0))
