# Runs that are killed with kill -9, at 20 random moments altogether, a rank or mpirun itself, resume each time and end
# with the bits of an undisturbed run.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
steps=60
settings=(--set train.steps=$steps --set checkpoint.every=3 --set eval.every=20)
began=$(date +%s%N)
expect 0 mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=straight "${settings[@]}"
milliseconds=$((($(date +%s%N) - began) / 1000000))

seed=${NIBBLE_FAULT_SEED:-$RANDOM}
echo "seed $seed"
RANDOM=$seed
kills=0
round=0
while [ "$kills" -lt 20 ]; do
  round=$((round + 1))
  run=run-$round
  mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir="$run" "${settings[@]}" >output.txt 2>&1 &
  launcher=$!
  while [ "$kills" -lt 20 ]; do
    # The moment lies in start-up, in a step, in a validation or in a checkpoint.
    moment=$((RANDOM % milliseconds))
    sleep "$((moment / 1000)).$(printf %03d $((moment % 1000)))"
    kill -0 "$launcher" 2>/dev/null || break
    victim=$launcher
    if [ $((RANDOM % 3)) -gt 0 ]; then
      victim=$("$python" -c "import json,sys; print(json.load(open(sys.argv[1]))['pid'])" \
        "$run/heartbeat/rank-$((RANDOM % 2))" 2>/dev/null || echo "$launcher")
    fi
    kill -9 "$victim" 2>/dev/null || true
    code=0
    wait "$launcher" || code=$?
    [ "$code" -ne 0 ] || break
    kills=$((kills + 1))
    # A rank whose launcher has died ends by itself; until then it holds the lock.
    for _ in $(seq 50); do
      code=0
      if [ -d "$run/checkpoints" ] && ls "$run/checkpoints" | grep -q '^step-'; then
        command=(resume "$run")
      else
        command=(train tiny.yaml --set run.dir="$run" "${settings[@]}")
      fi
      mpirun -n $((RANDOM % 3 + 1)) "$NIBBLE" "${command[@]}" >output.txt 2>&1 &
      launcher=$!
      sleep 0.4
      if kill -0 "$launcher" 2>/dev/null; then break; fi
      wait "$launcher" || code=$?
      [ "$code" -eq 69 ] || break
      sleep 0.2
    done
    [ "$code" -eq 0 ] || { cat output.txt; fail "kill $kills: restart ended with $code"; }
  done
  code=0
  wait "$launcher" 2>/dev/null || code=$?
  [ "$code" -eq 0 ] || [ "$code" -eq 127 ] || { cat output.txt; fail "round $round ended with $code"; }
  same "$run" straight
done
echo "$kills kills over $round runs, nothing lost"
