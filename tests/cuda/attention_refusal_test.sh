# Attention that only nibble's exact kernels can compute, as in the simulator, which has no cuDNN: training and resuming
# with more than 512 tokens need it to be asked for by name; all else goes on and says so.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
long=(--set model.sequence_length=528 --set train.micro_batch_sequences=1 --set train.tokens_per_step=528
  --set train.steps=2 --set schedule.warmup_steps=0 --set eval.sequences=1 --set checkpoint.every=1)

refused() { # COMMAND...
  expect 78 "$@"
  grep -q "attention of 528 tokens would be computed by nibble's exact kernels, because cuDNN cannot: $reason" output.txt &&
    grep -q "cuDNN 9.10 or later" output.txt && grep -q "cuda.attention=exact, .* 8 times .* H200 and 17 times on a B200" output.txt ||
    { cat output.txt; fail "the error does not tell reason and remedy"; }
}
reason="built without cuDNN" refused "$NIBBLE" train tiny.yaml --set run.dir=refused --set device=cuda "${long[@]}"
reason="activations are fp32" refused "$NIBBLE" train tiny.yaml --set run.dir=refused --set device=cuda "${long[@]}" \
  --set model.dtype=fp32
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=refused --set device=cuda --set cuda.attention=cudnn
grep -q "attention was asked of cuDNN, which cannot run it: built without cuDNN" output.txt || fail "cudnn is not refused"

expect 75 "$NIBBLE" train tiny.yaml --set run.dir=run --set device=cpu "${long[@]}" --set train.stop_at=1
reason="built without cuDNN" refused "$NIBBLE" resume run --set train.stop_at=0 --set device=cuda \
  --set 'resume.allow=[device]'
expect 0 "$NIBBLE" resume run --set train.stop_at=0 --set device=cuda --set cuda.attention=exact \
  --set 'resume.allow=[device,cuda.attention]'
grep -q "attention *exact: it was asked for" output.txt || fail "the run does not say how it computes attention"

note="tokens is computed by nibble's exact kernels, which are slow: built without cuDNN"
for command in "evaluate run" "generate run --prompt the --tokens 20"; do
  # shellcheck disable=SC2086
  expect 0 "$NIBBLE" $command --set device=cuda --set cuda.attention=automatic
  [ "$(grep -c "$note" output.txt)" -eq 1 ] || { cat output.txt; fail "$command does not say once that it is slow"; }
done
