# Where there are more ranks than groups, micro-batches are dealt out in stripes: loss, gradient norm and final state have
# the same bits as those of one rank, which has whole groups. Six micro-batches on four ranks leave two lanes idle in the
# last slot, and groups end in the middle of slots.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
run_variant() { # NAME RANKS OVERRIDE...
  local name=$1 ranks=$2
  shift 2
  local arguments=()
  for override in "$@"; do arguments+=(--set "$override"); done
  expect 0 mpirun -n "$ranks" "$NIBBLE" train tiny.yaml --set run.dir="$name" --set train.steps=6 --set eval.every=0 \
    --set checkpoint.every=0 --set train.gradient_groups=2 "${arguments[@]}"
}
logged() { grep -q "$1" output.txt || { cat output.txt; fail "the log does not say: $1"; }; }
cat >outliers.yaml <<'YAML'
name: outliers
extends: nvfp4
outliers: {share: 0.3, from_step: 1, window: 3}
YAML
variants=(
  "nvfp4 recipe=nvfp4"
  "one_group recipe=bf16 train.gradient_groups=1 optimizer.master_dtype=fp32"
  "tied recipe=nvfp4_guarded train.recompute=all model.tied_head=true"
  "watched recipe=fp8_delayed telemetry.every=2 guard.check_products_every=2"
  "outliers recipe=outliers.yaml model.intermediate_size=256"
)
for variant in "${variants[@]}"; do
  read -r name overrides <<<"$variant"
  run_variant "$name-1" 1 $overrides
  logged '(6 micro-batches in [12] groups, rows)'
  run_variant "$name-4" 4 $overrides
  logged '(6 micro-batches in [12] groups, stripes: more ranks than groups)'
  ! grep -q 'have no work' output.txt || { cat output.txt; fail "ranks with work are said to have none"; }
  same "$name-4" "$name-1"
done
cmp -s <(losses outliers-1) <(losses nvfp4-1) && fail "outlier channels change nothing"
for ranks in 1 2 3; do
  NIBBLE_ORDER=stripes run_variant "forced-$ranks" "$ranks"
  logged '(6 micro-batches in 2 groups, stripes'
  same "forced-$ranks" nvfp4-1
done
# Sixteen ranks with eight groups all work.
run_variant sixteen-1 1 train.gradient_groups=8 train.tokens_per_step=2048 model.pattern=-*-
run_variant sixteen-16 16 train.gradient_groups=8 train.tokens_per_step=2048 model.pattern=-*-
grep -q '"ranks":16,"ranks_working":16' sixteen-16/metrics.jsonl || fail "not all of 16 ranks work"
same sixteen-16 sixteen-1
NIBBLE_ORDER=columns expect 78 "$NIBBLE" train tiny.yaml --set run.dir=unknown
logged 'use rows or stripes'
# An older run's key, whose groups have as many micro-batches as it says.
run_variant older-1 1 train.gradient_groups=0 train.group_micro_batches=4
run_variant older-4 4 train.gradient_groups=0 train.group_micro_batches=4
same older-4 older-1
# A run goes on from stripes in rows and from rows in stripes; what a checkpoint says of the order is for people only.
run_stopped() { expect 75 mpirun -n "$1" "$NIBBLE" resume stopped --set train.stop_at="$2"; }
expect 75 mpirun -n 4 "$NIBBLE" train tiny.yaml --set run.dir=stopped --set train.steps=6 --set eval.every=0 \
  --set checkpoint.every=0 --set train.gradient_groups=2 --set recipe=outliers.yaml --set model.intermediate_size=256 \
  --set train.stop_at=2
"$NIBBLE" inspect stopped >output.txt
logged 'order of the sum: stripes'
run_stopped 2 3
"$NIBBLE" inspect stopped >output.txt
logged 'order of the sum: rows'
run_stopped 3 5
expect 0 "$NIBBLE" resume stopped --set train.stop_at=0
same stopped outliers-1
# Only ranks beyond the number of micro-batches are idle.
run_variant few 3 train.tokens_per_step=256
logged 'warning.*: 1 of 3 ranks have no work: a step has 2 micro-batches; take fewer ranks'
grep -q '"ranks":3,"ranks_working":2' few/metrics.jsonl || fail "metrics do not say how many ranks work"
run_variant few-1 1 train.tokens_per_step=256
same few few-1
echo "stripes have the bits of rows"
