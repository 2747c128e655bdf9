# Loss, gradient norm and final state have the same bits for 1, 2, 3 and 4 ranks, for any number of threads, with and
# without recompute, for groups of micro-batches, and for every recipe.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
run_variant() { # NAME RANKS OVERRIDE...
  local name=$1 ranks=$2
  shift 2
  local arguments=()
  for override in "$@"; do arguments+=(--set "$override"); done
  expect 0 mpirun -n "$ranks" "$NIBBLE" train tiny.yaml --set run.dir="$name" --set train.steps=6 --set eval.every=3 \
    --set checkpoint.every=0 "${arguments[@]}"
}
for recipe in nvfp4 bf16; do
  run_variant "$recipe-1" 1 recipe=$recipe train.threads=1
  for ranks in 2 3 4; do
    run_variant "$recipe-$ranks" "$ranks" recipe=$recipe
    same "$recipe-$ranks" "$recipe-1"
  done
done
run_variant threads 1 train.threads=4
same threads nvfp4-1
run_variant recompute-all 2 train.recompute=all
same recompute-all nvfp4-1
run_variant recompute-some 3 train.recompute=0,2-3
same recompute-some nvfp4-1
# Groups change the order of the sum and so its bits, which are again the same for every number of ranks.
run_variant groups-1 1 train.group_micro_batches=2
run_variant groups-3 3 train.group_micro_batches=2
same groups-3 groups-1
run_variant masters-1 1 optimizer.master_dtype=fp32 optimizer.moment_dtype=bf16
run_variant masters-4 4 optimizer.master_dtype=fp32 optimizer.moment_dtype=bf16
same masters-4 masters-1
# The comparison itself must be able to fail.
cmp -s <(losses bf16-1) <(losses nvfp4-1) && fail "two recipes have the same losses"
# loss_hex is the same for all instruction sets, with the quantised and the plain recipe.
for isa in avx2 portable; do
  NIBBLE_ISA=$isa run_variant "isa-$isa" 1
  same "isa-$isa" nvfp4-1
done
echo "one loss_hex"
