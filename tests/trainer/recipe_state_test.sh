# The state that a recipe carries from step to step has the same bits if a run is stopped after any step and resumed on
# another number of ranks, with and without recompute. An evaluation of a checkpoint equals the validation at its step.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
# follow RECIPE_FILE STOPS...: compares a run that stops after each of these steps, and goes on each time on another
# number of ranks, with a run without stops. OVERRIDES may hold more settings.
follow() {
  local recipe=$1 run stop recompute=all ranks=2
  shift
  local settings=(--set "recipe=$recipe" --set checkpoint.every=0 "${OVERRIDES[@]}")
  run=$(basename "$recipe" .yaml)-stopped
  rm -rf straight "$run"
  expect 0 "$NIBBLE" train tiny.yaml --set run.dir=straight "${settings[@]}"
  losses straight >expected.txt
  [ "$(grep -vc validation expected.txt)" -eq 12 ] || fail "$recipe: the straight run does not have 12 steps"
  expect 75 mpirun -n 4 "$NIBBLE" train tiny.yaml --set run.dir="$run" "${settings[@]}" --set train.stop_at="$1" \
    --set train.recompute=all
  for stop in "${@:2}" 0; do
    expect $((stop > 0 ? 75 : 0)) mpirun -n "$ranks" "$NIBBLE" resume "$run" --set train.stop_at="$stop" \
      --set train.recompute="$recompute"
    ranks=$((ranks % 4 + 1))
    recompute=$([ "$recompute" = all ] && echo none || echo all)
  done
  same "$run" straight
  expect 0 "$NIBBLE" evaluate straight
  grep -q "loss_hex $(tail -n 1 expected.txt | cut -d' ' -f3)" output.txt || fail "$recipe: evaluate has another loss"
}
# arrays RUN: prints the arrays that inspect lists for the newest checkpoint.
arrays() { "$NIBBLE" inspect "$1" | sed -n 's/^replicated  *//p'; }

# Delayed scaling: operands have histories of different lengths, and after a late switch forward needs none.
cat >delayed.yaml <<'YAML'
name: delayed
extends: fp8
forward: {x: {history: 2}, w: {history: 1}}
grad_input: {dy: {history: 3}}
grad_weight: {dy: {history: 5}, x: {history: 4}}
switch: {at: 0.7, gemms: forward, to: bf16}
YAML
OVERRIDES=()
follow delayed.yaml 1 4 8 10
[ "$(arrays straight)" = "quantization/amax_history (fp32) [54, 5]" ] || fail "inspect: $(arrays straight)"
# The state matters: without it, the same recipe has other losses.
sed 's/history: [0-9]/history: 0/g' delayed.yaml >current.yaml
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=current --set recipe=current.yaml
losses current | diff -q expected.txt - >/dev/null && fail "delayed and current scaling have the same losses"
# A checkpoint without the state is refused by a recipe that needs it.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=without --set recipe=current.yaml --set train.stop_at=4
expect 65 "$NIBBLE" resume without --set recipe=delayed.yaml --set 'resume.allow=[recipe]'
grep -q 'has no quantization/amax_history' output.txt || { cat output.txt; fail "the refusal does not name the state"; }

# Windows of oscillation begin after steps 5 and 9, and weights are reset after 7 and 11. The run stops before, inside
# and after the windows.
cat >oscillation.yaml <<'YAML'
name: oscillation
extends: nvfp4
oscillation: {every: 4, window: 2, threshold: 8, from_share: 0.3}
YAML
resets() { sed -n "s/.*step $1: \([0-9,]*\) weights oscillated.*/\1/p" output.txt | tr -d ,; }
for masters in bf16 fp32; do
  OVERRIDES=(--set optimizer.master_dtype=$masters)
  expect 0 "$NIBBLE" train tiny.yaml --set run.dir=resets-$masters --set recipe=oscillation.yaml "${OVERRIDES[@]}"
  for step in 7 11; do
    [ "$(resets "$step")" -gt 10 ] || { cat output.txt; fail "masters in $masters: step $step resets nothing"; }
  done
  [ "$(grep -c oscillated output.txt)" -eq 2 ] || { cat output.txt; fail "resets at other steps"; }
  follow oscillation.yaml 4 5 6 7 9
done
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=inside --set recipe=oscillation.yaml --set train.stop_at=6
"$NIBBLE" inspect inside | grep -q '^array  *oscillation/quantized_path (fp32)$' || fail "inspect has no oscillation"
# Without the rule the run differs. The step after the first reset is still the same, because the reset does not change
# the quantised weights of forward; all later steps differ.
losses resets-bf16 | grep -v validation >with.txt
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=plain
losses plain | grep -v validation >without.txt
[ "$(diff with.txt without.txt | grep -c '^<')" -eq 4 ] || fail "other losses before the first reset, or the same after"

# Outliers are chosen after step 5, from the norms of steps 3 to 5, and oscillation does not change them. The run stops
# before, inside and after the window; after a late switch of forward at step 9 the weight gradient is still split.
cat >retention.yaml <<'YAML'
name: retention
extends: tetrajet2
outliers: {share: 0.2, from_step: 2, window: 3}
oscillation: {every: 5, window: 3, threshold: 4, from_share: 0.4}
switch: {at: 0.7, gemms: forward, to: bf16}
YAML
OVERRIDES=(--set model.hidden_size=128 --set model.head_dim=32)
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=retention --set recipe=retention.yaml "${OVERRIDES[@]}"
grep -q 'step 5: 256 outlier channels of 1152 chosen.*left alone.*: head.weight$' output.txt ||
  { cat output.txt; fail "no word about outlier channels"; }
[ "$(resets 9)" -gt 10 ] || { cat output.txt; fail "nothing oscillates beside the outliers"; }
[ "$(arrays retention)" = "outliers/channels (int32) [256]" ] || fail "inspect: $(arrays retention)"
follow retention.yaml 2 3 4 5 7 8 9
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=window --set recipe=retention.yaml "${OVERRIDES[@]}" \
  --set train.stop_at=4
[ "$(arrays window)" = "outliers/channel_norms (fp32) [1152]" ] || fail "inspect: $(arrays window)"
# Without outliers the losses differ from the step after the choice on.
losses retention | grep -v validation >with.txt
sed '/^outliers/d' retention.yaml >not_retained.yaml
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=not-retained --set recipe=not_retained.yaml "${OVERRIDES[@]}"
losses not-retained | grep -v validation >without.txt
[ "$(diff with.txt without.txt | grep -c '^<')" -eq 7 ] || fail "retention changes other steps than 6 to 12"

echo "the state of recipes follows the run"
