# log_to_wandb.py and log_to_mlflow.py, with modules in place of wandb and mlflow that record their calls (recorder/): each
# number of metrics.jsonl is sent once, through a stop, a resume and a second start of the script; another future is another
# run; errors have their codes. scripts/check_loggers.sh does this with the real packages.
# Labels: fast
. "$SOURCE/tests/tiny_run.sh"
tiny_data
sed -i 's|validation: data/validation.*|validation: {web: data/validation-*.bin, b: data/validation-00000.bin}|' tiny.yaml
echo "telemetry: {every: 4}" >>tiny.yaml
export PYTHONPATH=$SOURCE/tests/trainer/recorder PYTHONDONTWRITEBYTECODE=1 WANDB_MODE=offline MLFLOW_TRACKING_URI=sqlite:///m.db
log_to() { # TOOL WORDS...
  RECORD=$1.calls "$python" "$SOURCE/scripts/log_to_$1.py" "${@:2}"
}
check() { # TOOL RUN_DIR NAME
  "$python" "$SOURCE/tests/trainer/recorder/recorded.py" "$1" "$1.calls" "$2" "$3" >numbers.txt || fail "$1: $2 is not what was sent"
}
calls() { grep -c "\"call\": \"$2\"" "$1.calls" || true; }

# Both follow a run from before its beginning, through a stop and a resume, to its end.
followers=()
for tool in wandb mlflow; do
  log_to "$tool" --follow --interval 0.05 run >"$tool.log" 2>&1 &
  followers+=($!)
done
trap 'kill "${followers[@]}" 2>/dev/null || true' EXIT
expect 75 "$NIBBLE" train tiny.yaml --set train.stop_at=6
for tool in wandb mlflow; do # what is there so far is sent while the run has not ended
  for _ in $(seq 100); do (check "$tool" run run) 2>/dev/null && break; sleep 0.1; done
  check "$tool" run run
done
for pid in "${followers[@]}"; do kill -0 "$pid" || fail "a follower ended when the run was stopped"; done
expect 69 log_to wandb run
expect 0 "$NIBBLE" resume run --step 4 --set train.stop_at=0
for pid in "${followers[@]}"; do wait "$pid" || fail "a follower failed"; done
for tool in wandb mlflow; do
  check "$tool" run run
  [ "$(calls "$tool" open)" -eq 1 ] || fail "$tool: the resumed run is another one"
  [ "$(calls "$tool" close)" -eq 1 ] || fail "$tool: not closed once"
  # Again: nothing is sent, and no run is begun.
  cp "$tool.calls" before
  expect 0 log_to "$tool" run
  cmp -s before "$tool.calls" || fail "$tool: the same points were sent again"
  grep -q "nothing new to send" output.txt
done
grep -q '"complete": true' wandb.calls && grep -q '"FINISHED"' mlflow.calls || fail "the run is not marked as complete"
grep -q '"name": "\*", "axis": "tokens"' wandb.calls || fail "the curves are not over tokens"
grep -q '"train": {"steps": 12, .*"epsilon": 1e-08.*"journal": \["step 0: start ' wandb.calls || fail "no configuration in W&B"
grep -q '\["optimizer.epsilon", "1e-08"\]' mlflow.calls || fail "no parameters in MLflow"
grep -q 'step 4: resume ' mlflow.calls || fail "no journal in MLflow"

# A run that is killed: its last line is incomplete. The script is started once for each part.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=killed --set train.stop_at=8
printf '{"event":"step","loss":5.' >>killed/metrics.jsonl
for tool in wandb mlflow; do expect 0 log_to "$tool" killed; done
expect 0 "$NIBBLE" resume killed --set train.stop_at=0
for tool in wandb mlflow; do
  expect 0 log_to "$tool" killed
  check "$tool" killed killed
done
# The comparison sees a number that was sent twice, and one that was not sent.
cp wandb.calls whole
tail -n 3 whole | grep '"log"' >>wandb.calls && ! (check wandb killed killed) 2>/dev/null || fail "a number sent twice is not seen"
grep -v '"step": 9,' whole >wandb.calls
! (check wandb killed killed) 2>/dev/null || fail "a missing number is not seen"
mv whole wandb.calls

# Another future of the run: it is another run, and has all of it.
expect 0 "$NIBBLE" resume killed --step 4 --set train.stop_at=0 --set optimizer.learning_rate=1e-3 --set 'resume.allow=[optimizer.learning_rate]'
for tool in wandb mlflow; do
  expect 0 log_to "$tool" killed
  grep -q "a new run" output.txt || { cat output.txt; fail "$tool: the other future is the same run"; }
  check "$tool" killed killed-2
done
grep -q 'optimizer.learning_rate' <(grep '"journal"' mlflow.calls) || fail "the journal does not have what was changed"

# Errors.
expect 66 log_to wandb no_such_directory
grep -q "no_such_directory/metrics.jsonl does not exist" output.txt
MLFLOW_TRACKING_URI=ftp://x expect 74 log_to mlflow run
for tool in wandb mlflow; do
  PYTHONPATH=$PYTHONPATH/missing expect 78 log_to "$tool" run
  grep -q "python3 -m pip install $tool" output.txt || fail "no word on how to install $tool"
done
mkdir damaged
printf '{"event":"run"}\n{"event":"step"}\n' >damaged/metrics.jsonl
expect 65 log_to wandb damaged
grep -q 'damaged/metrics.jsonl:2: ' output.txt || fail "the damaged line is not named"
echo "loggers: $(cat numbers.txt) numbers"
