# Every recipe in configs/recipes trains. Its losses and final state have the same bits on 1, 2 and 4 ranks, with one
# thread or more, with recompute on and off, in the code of the lowest instruction-set level, and when a run is stopped
# and resumed on another number of ranks.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
# Rotations of 128 points need every axis in multiples of 128.
settings=(model.hidden_size=128 model.head_dim=32 model.intermediate_size=128 train.tokens_per_step=512 train.steps=6
  eval.every=0 checkpoint.every=0)
program=$NIBBLE
baseline=$PROGRAMS/nibble_baseline # vectorised functions without vectors; built where the compiler makes such clones
[ -x "$baseline" ] || baseline=$NIBBLE
run_variant() { # NAME CODE RANKS OVERRIDE...
  local name=$1 code=$2 ranks=$3
  shift 3
  local arguments=() launcher=(mpirun -n "$ranks")
  if [ "$ranks" -eq 1 ]; then launcher=(); fi
  for override in "${settings[@]}" "$@"; do arguments+=(--set "$override"); done
  expect "$code" "${launcher[@]}" "$program" train tiny.yaml --set run.dir="$name" "${arguments[@]}"
}
same() { # NAME REFERENCE
  losses "$1" | diff reference.txt - || fail "$1 differs from $2"
  [ "$(state_hash "$1")" = "$reference_state" ] || fail "$1: final state differs from $2"
  rm -rf "$1"
}
count=0
for file in "$SOURCE"/configs/recipes/*.yaml; do
  name=$(basename "$file" .yaml)
  run_variant "$name" 0 1 "recipe=$file" train.threads=1
  losses "$name" >reference.txt
  reference_state=$(state_hash "$name")
  [ "$(grep -vc validation reference.txt)" -eq 6 ] || fail "$name does not have 6 finite steps"
  grep -v validation reference.txt | tail -n 1 | cut -d' ' -f2 >>last_losses.txt

  run_variant "$name-two" 0 2 "recipe=$file" train.recompute=all
  same "$name-two" "$name"
  NIBBLE_ISA=avx2 run_variant "$name-four" 0 4 "recipe=$file" train.threads=2
  same "$name-four" "$name"
  # Slow: one step, whose loss and gradient norm have met every quantiser.
  program=$baseline NIBBLE_ISA=portable run_variant "$name-baseline" 75 1 "recipe=$file" train.stop_at=1
  losses "$name-baseline" | diff <(head -n 1 reference.txt) - || fail "$name-baseline differs from $name"
  rm -rf "$name-baseline"
  # 5 of 6 steps: a late switch at 0.82 has not happened before the stop, and has after it.
  run_variant "$name-stopped" 75 2 "recipe=$file" train.stop_at=5
  expect 0 "$NIBBLE" resume "$name-stopped"
  same "$name-stopped" "$name"
  count=$((count + 1))
done
# Recipes differ in what they compute.
[ "$(sort -u last_losses.txt | wc -l)" -eq "$count" ] || { cat last_losses.txt; fail "two recipes have the same loss"; }
echo "$count recipes: same bits everywhere"
