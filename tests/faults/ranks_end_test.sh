# What the ranks of a run do when one of them fails or does not go on: all end at once with its code and one message, or
# within the deadline with exit code 76 and one message that names it.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
now_ms() { date +%s%3N; }

# A rank throws in a pass: every rank, first, inner and last block, both directions.
for fault in 0:2:0:forward 1:2:1:backward 2:3:1:forward 2:1:0:backward; do
  rank=${fault%%:*}
  code=0
  mpirun -n 3 "$NIBBLE" train tiny.yaml --set run.dir="fault-$fault" --set train.threads=1 --set fault.throw="$fault" \
    >output.txt 2>&1 || code=$?
  [ "$code" -eq 70 ] || { cat output.txt; fail "fault.throw=$fault ended with $code instead of 70"; }
  grep -q "^error\[E70\]: rank $rank: fault.throw stops rank $rank in step" output.txt ||
    { cat output.txt; fail "fault.throw=$fault: no message that names rank $rank"; }
  [ "$(grep -c '^error\[' output.txt)" -eq 1 ] || { cat output.txt; fail "fault.throw=$fault: more than one message"; }
  grep -q "a rank is going to throw an error: fault.throw is $fault" output.txt || fail "the log does not announce $fault"
done
# A rank without work walks the passes, too.
expect 70 mpirun -n 3 "$NIBBLE" train tiny.yaml --set run.dir=idle --set train.threads=1 --set train.micro_batch_sequences=6 \
  --set fault.throw=2:2:1:backward
grep -q '^error\[E70\]: rank 2: fault.throw stops rank 2' output.txt || { cat output.txt; fail "a rank without work"; }
# The run goes on without the fault: the key may change on resume.
expect 70 "$NIBBLE" train tiny.yaml --set run.dir=alone --set checkpoint.every=2 --set fault.throw=0:4:0:backward
grep -q '^error\[E70\]: fault.throw stops rank 0 in step 4' output.txt || { cat output.txt; fail "one rank alone"; }
expect 0 mpirun -n 2 "$NIBBLE" resume alone --set fault.throw=
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=wrong --set fault.throw=1:1:0:forward
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=wrong --set fault.throw=0:0:0:forward
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=wrong --set fault.throw=0:1:9:forward
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=wrong --set fault.throw=0:1:0:sideways
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=wrong --set fault.throw=0:1:0

# Several ranks fail at once, in a validation: one of them speaks for all.
cp -r data damaged
"$python" - <<'EOF'
import glob
path = glob.glob('damaged/validation-*.bin')[0]
content = bytearray(open(path, 'rb').read())
content[len(content) // 2] ^= 1
open(path, 'wb').write(content)
EOF
expect 65 mpirun -n 3 "$NIBBLE" train tiny.yaml --set run.dir=damaged_run --set train.threads=1 \
  --set 'data.validation=damaged/validation-*.bin'
[ "$(grep -c '^error\[' output.txt)" -eq 1 ] && grep -q '^error\[E65\]: rank [0-2]: .*damaged' output.txt ||
  { cat output.txt; fail "ranks that fail in a validation"; }

# A rank is stopped at some moment of a phase, at a step that counts up through the run; each rank in turn. The heartbeat
# tells of the phase once a second, so each run spends most of its time in the phase that is waited for.
declare -A mostly=(
  [train]="--set checkpoint.every=0 --set eval.every=0"
  [validation]="--set checkpoint.every=0 --set eval.every=1 --set eval.sequences=0"
  [checkpoint]="--set checkpoint.every=1 --set eval.every=0"
)
wait_for_phase() { # HEARTBEAT PHASE: prints the process of the heartbeat as soon as it tells of the phase
  "$python" - "$1" "$2" <<'EOF'
import json, sys, time
path, phase = sys.argv[1:]
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        with open(path) as file:
            beat = json.load(file)
        if beat['phase'] == phase:
            print(beat['pid'])
            break
    except (OSError, ValueError):
        pass
    time.sleep(0.02)
EOF
}
stop_rank() { # NAME RANK PHASE PAUSE: stops the rank the first time that its heartbeat tells of the phase, after a pause
  # shellcheck disable=SC2086  # the options of a phase are words
  mpirun -n 3 "$NIBBLE" train tiny.yaml --set run.dir="$1" --set train.threads=1 --set comm.timeout_s=1.5 \
    --set train.steps=100000 ${mostly[$3]} >output.txt 2>&1 &
  launcher=$!
  pid=$(wait_for_phase "$1/heartbeat/rank-$2" "$3")
  [ -n "$pid" ] || { cat output.txt; fail "$1: rank $2 never came to $3"; }
  sleep "$4"
  kill -STOP "$pid"
  started=$(now_ms)
  code=0
  wait "$launcher" || code=$?
  took=$(($(now_ms) - started))
  [ "$code" -eq 76 ] || { cat output.txt; fail "$1: exit code $code instead of 76"; }
  # The deadline and two seconds, and what a busy machine takes to end the processes.
  [ "$took" -lt 8000 ] || { cat output.txt; fail "$1: took $took ms"; }
  grep -qE "^error\[E76\]: rank $2 on [^ ]+, step [0-9]+, .*heartbeat [0-9.]+ s ago" output.txt ||
    { cat output.txt; fail "$1: rank $2 is not named"; }
  [ "$(grep -c '^error\[E76\]' output.txt)" -eq 1 ] || { cat output.txt; fail "$1: more than one message"; }
}
count=0
for phase in train validation checkpoint; do
  for rank in 0 1 2; do
    count=$((count + 1))
    stop_rank "stop-$count" $rank $phase "0.0$count"
  done
done
echo "ranks end together"
