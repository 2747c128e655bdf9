# nibble control: a run that trains writes a checkpoint, changes its learning rate, and stops; and what it computed then is
# what a run computes whose configuration says the same, on other rank counts, stopped and resumed.
# Labels: slow
source "$SOURCE/tests/tiny_run.sh"
tiny_data
sed -e 's/steps: 12/steps: 100000/; s/every: 4, sequences: 8/every: 0/; s/every: 4, keep_last: 3/every: 0, keep_last: 9/' \
  tiny.yaml >long.yaml

mpirun -n 2 "$NIBBLE" train long.yaml --set train.threads=1 --set log.progress=none >run.log 2>&1 &
launcher=$!
for _ in $(seq 300); do
  if [ -s run/metrics.jsonl ] && grep -q '"step":2,' run/metrics.jsonl; then break; fi
  sleep 0.1
done
expect 0 "$NIBBLE" control run --learning-rate 1e-3 --wait
expect 0 "$NIBBLE" control run --checkpoint --wait
grep -q '^done$' output.txt || fail "--wait does not say that it is done"
# A signal to a rank other than 0.
kill -USR2 "$("$python" -c "import json; print(json.load(open('run/heartbeat/rank-1'))['pid'])")"
# What is no request is set aside with a warning, and the run goes on.
echo '{"checkpont": true}' >run/control/wrong.json
echo 'no JSON' >run/control/wrong2.json
for _ in $(seq 100); do
  if [ -e run/control/wrong.json.refused ] && [ -e run/control/wrong2.json.refused ]; then break; fi
  sleep 0.1
done
[ -e run/control/wrong.json.refused ] || { cat run.log; fail "a wrong request is not set aside"; }
# A run that is told to stop writes its checkpoint, and ends with 75.
expect 0 "$NIBBLE" control run --stop --wait
code=0
wait "$launcher" || code=$?
[ "$code" -eq 75 ] || { cat run.log; fail "exit code $code instead of 75"; }
grep -q 'checkpont.*did you mean "checkpoint"' run.log || { cat run.log; fail "the wrong request has no warning"; }

"$python" - <<'EOF'
import json
lines = [json.loads(line) for line in open('run/journal.jsonl')]
controls = [line for line in lines if line['kind'] == 'control']
assert [('to' in line, line.get('by')) for line in controls] == [
    (True, None), (False, 'nibble control'), (False, 'SIGUSR2')], controls
rate = controls[0]
assert rate['key'] == 'schedule.peaks' and rate['from'] == 3e-3 and rate['to'] == 1e-3, rate
stop = lines[-1]
assert stop['kind'] == 'stop' and stop['reason'] == 'nibble control', stop
import os
for step in [line['step'] for line in controls[1:]] + [stop['step']]:
    assert os.path.exists(f'run/checkpoints/step-{step:08d}/manifest.json'), step
rates = {row['step']: row['lr'] for row in map(json.loads, open('run/metrics.jsonl')) if 'lr' in row}
assert abs(rates[rate["step"]] - 3e-3) < 1e-6 and abs(rates[rate["step"] + 1] - 1e-3) < 1e-6, rates
print(rate['step'], stop['step'], file=open('steps.txt', 'w'))
EOF
read -r changed stopped <steps.txt

# The same learning rates from a file, on one rank: the same losses; and without the change they differ.
expect 75 "$NIBBLE" train long.yaml --set run.dir=told --set "schedule.peaks={$changed: 1e-3}" --set train.stop_at="$stopped"
same told run
expect 75 "$NIBBLE" train long.yaml --set run.dir=untold --set train.stop_at="$stopped"
if "$python" "$SOURCE/tests/run_tools.py" same untold run >/dev/null 2>&1; then fail "the change of the rate changed nothing"; fi
# Killed before a checkpoint has the change: the resumed run has it at the same step.
rm -r run/checkpoints/*
cp -r told/checkpoints/. run/checkpoints/
expect 0 "$NIBBLE" checkpoint ls run
rm -rf killed
cp -r run killed
rm -r killed/checkpoints/*
expect 75 "$NIBBLE" train long.yaml --set run.dir=early --set train.stop_at=2
cp -r early/checkpoints/step-00000002 killed/checkpoints/
expect 75 mpirun -n 3 "$NIBBLE" resume killed --set train.stop_at="$stopped" --set train.threads=1
same killed told
# So has a job that is started again by the file that knows nothing of it.
rm -r killed/checkpoints/*
cp -r early/checkpoints/step-00000002 killed/checkpoints/
expect 75 "$NIBBLE" train long.yaml --continue --set run.dir=killed --set train.stop_at="$stopped"
same killed told
# What lies behind a checkpoint may not change.
expect 78 "$NIBBLE" resume told --set "schedule.peaks={1: 1e-3}"
grep -q 'schedule.peaks' output.txt || fail "a past change is refused without its name"

# Bad use.
expect 66 "$NIBBLE" control told --stop
grep -q 'no process trains in told' output.txt || { cat output.txt; fail "a run that does not train"; }
[ -z "$(ls told/control 2>/dev/null)" ] || fail "a refused request stays"
expect 66 "$NIBBLE" control nowhere --stop
expect 64 "$NIBBLE" control told
expect 64 "$NIBBLE" control told --learning-rate 20
expect 64 "$NIBBLE" control told --learning-rate 0
expect 78 "$NIBBLE" train long.yaml --set run.dir=wrong --set 'schedule.peaks={x: 1e-3}'
expect 78 "$NIBBLE" train long.yaml --set run.dir=wrong --set 'schedule.peaks={5: 0}'
expect 78 "$NIBBLE" train long.yaml --set run.dir=wrong --set 'schedule.peaks=[5]'
echo "steered"
