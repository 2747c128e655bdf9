# A run leaves memory of the GPU free for what libraries take after its plan. The simulated cuBLASLt takes 1,400 MiB with
# its first GEMM, as a real one takes memory for its kernels.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
export NIBBLE_SIMULATED_LIBRARY_MEMORY=1400
run=(--set device=cuda --set recipe=bf16 --set train.steps=2 --set schedule.warmup_steps=0 --set train.tokens_per_step=256
  --set eval.sequences=2)

# The plan fits, and what comes after it would not: the run ends before its first step and says what is missing.
NIBBLE_SIMULATED_MEMORY=1450 expect 71 "$NIBBLE" train tiny.yaml --set run.dir=small "${run[@]}"
grep -Eq "MiB of memory for .*: the GPU has 13[0-9]{2}\.. MiB free, of which 1536\.0 MiB are kept" output.txt ||
  { cat output.txt; fail "the error does not say what was planned, kept and free"; }
[ ! -e small/metrics.jsonl ] || fail "the run began"

NIBBLE_SIMULATED_MEMORY=1700 expect 0 "$NIBBLE" train tiny.yaml --set run.dir=large "${run[@]}"
grep -q "memory .* beside it 1610.6 MB stay free for libraries" output.txt || fail "the plan does not say the reserve"
# Each of the other ranks, up to eight, adds buffers of NCCL.
NIBBLE_SIMULATED_GPUS=3 expect 0 mpirun -n 3 "$NIBBLE" train tiny.yaml --set run.dir=ranks "${run[@]}"
grep -q "beside it 2254.4 MB stay free for libraries" output.txt || fail "the reserve does not count ranks"
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=cpu "${run[@]}" --set device=cpu
grep -q "stay free" output.txt && fail "the CPU has a reserve"

# After a late switch of the recipe the model saves larger operands: their memory is kept from the start.
cat >late.yaml <<'END'
extends: nvfp4
name: late
high_precision: [{match: "embedding|head", format: bf16}]
switch: {at: 0.5, gemms: all, to: bf16}
END
NIBBLE_SIMULATED_CAPABILITY=100 expect 0 "$NIBBLE" train tiny.yaml --set run.dir=switch "${run[@]}" --set recipe=late.yaml \
  --set train.micro_batch_sequences=16 --set train.tokens_per_step=1024
reserve=$(grep -o "beside it [0-9.]* MB" output.txt | grep -o "[0-9.]*")
"$python" -c "import sys; sys.exit(0 if $reserve > 1610.6 else 1)" || fail "the late recipe's model is not reserved: $reserve MB"
