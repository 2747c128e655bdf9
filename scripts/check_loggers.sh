#!/usr/bin/env bash
# Checks log_to_wandb.py and log_to_mlflow.py with the real packages, which need no account for this: W&B writes its files
# offline, MLflow a SQLite database. Trains tiny runs: one that is complete, and one that is followed while it is killed and
# resumed. Prints a line for each check; the exit code is 1 if one fails.
# Usage: scripts/check_loggers.sh [DIRECTORY]     everything is written to DIRECTORY (default runs/check_loggers)
# Needs a built nibble (NIBBLE_BUILD, default build). Python is $PYTHON, which must have the packages wandb and mlflow;
# without it they are installed into DIRECTORY/venv, which takes a gigabyte.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,8s/^# //p' "$0"; exit 0 ;; esac
source=$PWD
work=${1:-runs/check_loggers}
nibble=$(realpath "${NIBBLE_BUILD:-build}")/nibble
if [ -e "$work/work" ]; then
  echo "check_loggers: $work/work exists already; remove it or name another directory" >&2
  exit 73
fi
mkdir -p "$work/work"
if [ -z "${PYTHON:-}" ]; then
  if [ ! -x "$work/venv/bin/python" ]; then python3 -m venv "$work/venv"; fi
  PYTHON=$(realpath "$work/venv")/bin/python
  "$PYTHON" -m pip install --quiet wandb mlflow
fi
cd "$work/work"
export WANDB_MODE=offline WANDB_SILENT=true MLFLOW_TRACKING_URI=sqlite:///$PWD/mlflow.db

zstd -dcq "$source/data/sample/state_of_the_union.txt.zst" | sed -n '1,3000p' >text.txt
"$nibble" tokenize text.txt --documents line --tokenizer "$source/data/sample/tokenizer.model" --validation-share 0.1 --output data >/dev/null 2>&1
cat >run.yaml <<'END'
run: {dir: RUN, seed: 7}
recipe: nvfp4
model: {pattern: "(*-)x3", hidden_size: 64, query_heads: 4, kv_heads: 2, head_dim: 16, intermediate_size: 128, sequence_length: 64}
data: {train: "data/train-*.bin", validation: {web: "data/validation-*.bin", part: "data/validation-00000.bin"}}
train: {steps: 300, micro_batch_sequences: 2, tokens_per_step: 768}
optimizer: {learning_rate: 3e-3}
schedule: {kind: cosine, warmup_steps: 3}
eval: {every: 20, sequences: 8}
checkpoint: {every: 50, keep_last: 3}
telemetry: {every: 25}
log: {progress: none}
END
loggers() { # OPTION... RUN
  for tool in wandb mlflow; do "$PYTHON" "$source/scripts/log_to_$tool.py" "$@" 2>&1 | grep "^log_to_\|^error\|^  fix" ; done
}
"$nibble" train run.yaml --set run.dir=complete --set train.steps=60 2>/dev/null
loggers complete
loggers complete

followers=()
for tool in wandb mlflow; do
  "$PYTHON" "$source/scripts/log_to_$tool.py" --follow --interval 0.2 followed >"$tool.log" 2>&1 &
  followers+=($!)
done
trap 'kill "${followers[@]}" 2>/dev/null || true' EXIT
steps_done() { cat followed/metrics.jsonl 2>/dev/null | grep -c '"event":"step"' || true; }
"$nibble" train run.yaml --set run.dir=followed 2>/dev/null &
while kill -0 $! 2>/dev/null && [ "$(steps_done)" -lt 130 ]; do sleep 0.05; done
sleep 0.5
kill -9 $!
wait $! 2>/dev/null || true
echo "killed after $(steps_done) steps, of which those after the last checkpoint are computed again"
sleep 3
"$nibble" resume followed 2>/dev/null
wait "${followers[@]}"
trap - EXIT
grep -h '^log_to_' ./*.log
"$PYTHON" "$source/scripts/check_loggers.py" complete followed
