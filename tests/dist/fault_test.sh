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

# expect NAME EXIT_CODE TEXT [SECONDS]: the fault NAME of $suite ends the job of 3 ranks with this code (or one of "a|b"),
# says this, and takes at most so long.
expect() {
  local started
  started=$(date +%s%N)
  timeout -k 5 60 mpirun -n 3 "$program" --gtest_filter="$suite.$1" >"$1.txt" 2>&1
  local code=$?
  if [ $(($(date +%s%N) - started)) -gt "${4:-60}000000000" ]; then
    echo "$1 took longer than $4 s"
    failures=$((failures + 1))
  fi
  if [ "$(grep -c '^error\[E76\]' "$1.txt")" -gt 1 ]; then
    echo "$1: more than one rank speaks:"
    cat "$1.txt"
    failures=$((failures + 1))
  fi
  if ! [[ "$code" =~ ^($2)$ ]] || ! grep -q "$3" "$1.txt"; then
    echo "$1: exit code $code instead of $2, or no line with \"$3\":"
    cat "$1.txt"
    failures=$((failures + 1))
  fi
}

suite=Fault
late="heartbeat [0-9.]* s ago: it"
expect LastRankNeverArrives 76 "^error\[E76\]: rank 2 on .*, step 0, start, $late lives, .*all-reduce number 2 took longer"
expect FirstRankNeverArrives 76 "^error\[E76\]: rank 0 on .* lives, but does not go on"
expect LastRankIsStopped 76 "^error\[E76\]: rank 2 on .*, $late is stopped"
expect FirstRankIsStopped 76 "^error\[E76\]: rank 0 on .*, $late is stopped"
expect MiddleRankIsStoppedInACollective 76 "^error\[E76\]: rank 1 on .*, step 7, .* number [0-9]*, $late is stopped"
expect LastRankDoesSomethingElse 70 "rank 2 enters all-reduce number 1 .*while rank 0 enters barrier number 1"
# A rank that aborts is heard before the deadline of the others, which a busy machine must not bring forward.
export NIBBLE_TEST_FAULTS=30
expect LastRankThrowsAlone 65 "."  # the launcher's message does not always arrive
expect LastRankUnwindsWithItsCommunicator 77 "."
# An error that one rank raises ends the others at once, also while they compute or wait.
for who in FirstRankRaises LastRankRaises; do
  rank=$([ $who = FirstRankRaises ] && echo 0 || echo 2)
  expect ${who}InAPass 65 "^error\[E65\]: rank $rank: a shard" 4
  expect ${who}WhileOthersWait 65 "^error\[E65\]: rank $rank: a shard" 4
  expect ${who}WhileOthersHang 65 "^error\[E65\]: rank $rank: a shard" 4
done
export NIBBLE_TEST_FAULTS=1
# A job that was stopped as a whole, for longer than the deadline, goes on.
mpirun -n 3 "$program" --gtest_filter=Fault.AllAreStoppedAndGoOn >stopped.txt 2>&1 || {
  echo "a job that was stopped and goes on:"
  cat stopped.txt
  failures=$((failures + 1))
}
# Without messages between the ranks, rank 0 names who has not arrived.
export NIBBLE_TEST_WITHOUT_CONTROL=1
expect LastRankNeverArrives 76 "all-reduce number 2 .*not arrived: rank 2"
expect FirstRankNeverArrives 76 "rank 0 does not answer"
unset NIBBLE_TEST_WITHOUT_CONTROL
expect LastRankLeavesWithoutTheOthers 76 "^error\[E76\]: rank 0 on .* barrier number 1 took longer"
# Ranks that share memory wait for other ranks only in collectives, which have a deadline.
suite=SharedArenaFault
expect LastRankIsStoppedInAStep 76 "^error\[E76\]: rank 2 on .*is stopped.*all-gather number"
expect LastRankIsKilledInAStep "137|76" "."  # the launcher or the deadline, whichever comes first
expect LastRankDoesNotShare 76 "^error\[E76\]: rank 2 on"

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
