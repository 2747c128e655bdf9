#!/usr/bin/env bash
# Trains the quick-start model with every recipe and several seeds, and prints the table of docs/results.md. A step is
# 2,048 tokens, half of the quick start's.
# Usage: scripts/recipe_results.sh [DIRECTORY] [STEPS] [SEEDS] [RECIPE...]
#   DIRECTORY  where the runs go (default runs/recipes); runs that are already there are resumed or left as they are
#   STEPS      optimizer steps of a run (default 300)
#   SEEDS      how many seeds: 1, 2, ... (default 3); a seed decides initial weights, order of the data and rounding noise
#   RECIPE...  names in configs/recipes (default: all)
# Runs with one thread each, as many at a time as there are processors. Needs python3 for the table.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,9s/^# //p' "$0"; exit 0 ;; esac
work=${1:-runs/recipes} steps=${2:-300} seeds=${3:-3}
shift $(($# < 3 ? $# : 3))
recipes=("$@")
if [ "${#recipes[@]}" -eq 0 ]; then
  for file in configs/recipes/*.yaml; do recipes+=("$(basename "$file" .yaml)"); done
fi
export nibble work steps
nibble=$(realpath "${NIBBLE_BUILD:-build}")/nibble
mkdir -p "$work"
if [ ! -e "$work/data" ]; then
  "$nibble" tokenize data/sample/state_of_the_union.txt.zst --documents line --validation-share 0.05 \
    --vocab-size 4096 --output "$work/data" >"$work/tokenize.log"
fi

train_one() { # SEED/RECIPE
  local seed=${1%%/*} recipe=${1#*/}
  local run=$work/seed-$seed/$recipe log=$work/seed-$seed-$recipe.log code=0
  if [ -e "$run/checkpoints" ] && ls "$run"/checkpoints/step-* >/dev/null 2>&1; then
    "$nibble" resume "$run" >"$log" 2>&1 || code=$?
  else
    rm -rf "$run"
    "$nibble" train configs/runs/quickstart.yaml --set "recipe=$recipe" --set "run.dir=$run" --set "run.seed=$seed" \
      --set "data.train=$work/data/train-*.bin" --set "data.validation=$work/data/validation-*.bin" \
      --set "train.steps=$steps" --set train.tokens_per_step=2048 --set train.threads=1 --set eval.every=0 --set eval.sequences=0 \
      --set checkpoint.every=0 --set log.tensorboard=false --set log.progress=none --set telemetry.every=0 \
      >"$log" 2>&1 || code=$?
  fi
  if [ "$code" -ne 0 ]; then
    echo "recipe_results: seed $seed, $recipe: exit code $code, see $log" >&2
    return 1
  fi
}
# Measures the cost of the forward pass alone: evaluates the model that bf16 trained with the forward pass of the recipe.
evaluate_one() { # SEED/RECIPE
  local seed=${1%%/*} recipe=${1#*/}
  "$nibble" evaluate "$work/seed-$seed/bf16" --set "recipe=$recipe" --set eval.sequences=128 --set train.threads=1 \
    --json >"$work/seed-$seed-$recipe.json" 2>"$work/seed-$seed-$recipe.err"
}
export -f train_one evaluate_one
for function in train_one evaluate_one; do
  for seed in $(seq 1 "$seeds"); do printf "$seed/%s\n" "${recipes[@]}"; done |
    xargs -P "$(nproc)" -I{} bash -c "$function "'"$1"' _ {}
done
python3 scripts/recipe_table.py "$work" "${recipes[@]}"
