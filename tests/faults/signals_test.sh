# Tests requests to stop: SIGUSR1 to mpirun, TERM and Ctrl-C with scripts/launch.sh; also two runs in one directory, and
# a rank that hangs.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
long=(--set train.steps=5000 --set checkpoint.every=0 --set eval.every=0)
wait_for_steps() { # RUN COUNT
  for _ in $(seq 300); do
    [ "$(grep -c '"event":"step"' "$1/metrics.jsonl" 2>/dev/null || true)" -ge "$2" ] 2>/dev/null && return
    sleep 0.1
  done
  cat output.txt
  fail "$1 made no steps"
}
finish() { # EXPECTED CODE
  local code=0
  wait "$launcher" || code=$?
  [ "$code" -eq "$1" ] || { cat output.txt; fail "exit code $code instead of $1"; }
}

mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=usr1 "${long[@]}" >output.txt 2>&1 &
launcher=$!
wait_for_steps usr1 3
# While the run trains, a second run in its directory is refused, and the first continues.
code=0
"$NIBBLE" resume usr1 >second.txt 2>&1 || code=$?
[ "$code" -eq 69 ] || { cat second.txt; fail "a second run in the same directory ended with $code instead of 69"; }
grep -q "$(cat usr1/heartbeat/rank-0 | "$python" -c 'import json,sys; print(json.load(sys.stdin)["pid"])')" second.txt ||
  { cat second.txt; fail "the error does not name the holder"; }
kill -USR1 "$launcher"
finish 75
last=$("$python" -c "import json; print(json.loads([l for l in open('usr1/metrics.jsonl') if '\"step\"' in l and 'loss_hex' in l][-1])['step'])")
[ -d "usr1/checkpoints/$(printf 'step-%08d' "$last")" ] || fail "no checkpoint of the last step $last"
expect 75 "$NIBBLE" resume usr1 --set train.stop_at=$((last + 2))

# A shell starts its background jobs with SIGINT ignored; a terminal does not.
with_sigint=("$python" -c "import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.setsid()
os.execvp(sys.argv[1], sys.argv[1:])")
for signal in TERM INT; do
  "${with_sigint[@]}" bash "$SOURCE/scripts/launch.sh" -n 2 "$NIBBLE" train tiny.yaml --set run.dir="launch-$signal" "${long[@]}" \
    >output.txt 2>&1 &
  launcher=$!
  wait_for_steps "launch-$signal" 3
  kill "-$signal" "$launcher"
  finish 75
done

# Plain mpirun that is interrupted sends its ranks SIGCONT at once and SIGTERM later (here 10 s): at the first they save a
# checkpoint. The second interruption ends mpirun at once. mpirun that is stopped and goes on sends SIGCONT too: the run goes on.
"${with_sigint[@]}" mpirun --mca odls_base_sigkill_timeout 10 -n 2 "$NIBBLE" train tiny.yaml --set run.dir=plain \
  --set train.steps=500000 --set checkpoint.every=0 --set eval.every=0 >output.txt 2>&1 &
launcher=$!
wait_for_steps plain 3
kill -CONT "$launcher"
for _ in $(seq 80); do grep -q 'mpirun, which ends' plain/journal.jsonl && break; sleep 0.1; done
steps=$(grep -c '"event":"step"' plain/metrics.jsonl)
wait_for_steps plain $((steps + 5))
saved() { ls plain/checkpoints | grep -c '^step-' || true; }
before=$(saved)
kill -INT "$launcher"
for _ in $(seq 80); do [ "$(saved)" -gt "$before" ] && break; sleep 0.1; done
[ "$(saved)" -gt "$before" ] || { tail -n 3 output.txt; fail "no checkpoint when mpirun was interrupted"; }
kill -INT "$launcher"
finish 1
expect 75 "$NIBBLE" resume plain --set train.stop_at=$(($(ls plain/checkpoints | sed -n 's/^step-0*//p' | tail -n 1) + 2))

# One process without a launcher stops in the same way, also when the terminal is closed.
for signal in TERM HUP; do
  "$NIBBLE" train tiny.yaml --set run.dir="single-$signal" "${long[@]}" >output.txt 2>&1 &
  launcher=$!
  wait_for_steps "single-$signal" 3
  kill "-$signal" "$launcher"
  finish 75
done

# A run that is asked to stop during its last validation is not complete; resume computes the validation. The validation
# is long: other shards than the training's, of the same text.
expect 0 "$NIBBLE" tokenize text.txt --documents line --validation-share 0 --tokenizer data/tokenizer.model --output long
"$NIBBLE" train tiny.yaml --set run.dir=unvalidated --set train.steps=3 --set eval.every=0 --set eval.sequences=0 \
  --set 'data.validation=long/train-*.bin' >output.txt 2>&1 &
launcher=$!
wait_for_steps unvalidated 3
kill -TERM "$launcher"
finish 75
expect 0 "$NIBBLE" resume unvalidated
[ "$(grep -c '"validation"' unvalidated/metrics.jsonl)" -eq 1 ] || fail "the last validation was not made up"

echo "signals are obeyed"
