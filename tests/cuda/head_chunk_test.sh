# A run that starts on a GPU chooses the head's chunks for GPUs, keeps the number in its configuration, and has the same
# chunks when it goes on elsewhere; a run that started on a CPU keeps the CPU's chunks on a GPU.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
run=(--set recipe=bf16 --set model.vocab_size=8208 --set model.hidden_size=32 --set train.micro_batch_sequences=8
  --set train.tokens_per_step=512 --set train.steps=2 --set schedule.warmup_steps=0 --set eval.every=0
  --set eval.sequences=1 --set cuda.gemm=exact --set cuda.attention=exact)
# chunk_of DIRECTORY TOKENS: what the configurations of the run and of its checkpoints say.
chunk_of() {
  for file in "$1"/config.yaml "$1"/checkpoints/*/config.yaml; do
    [ -e "$file" ] || continue
    grep -q "head_chunk_tokens: $2\$" "$file" || fail "$file does not say $2: $(grep head_chunk_tokens "$file")"
  done
}
# The CPU's chunks are half a micro-batch, as the line about memory says.
halves() { grep -q "logits and their gradient, 256 tokens at a time" output.txt; }

for first in cuda cpu; do
  second=cpu chunk=512
  [ "$first" = cuda ] || { second=cuda chunk=0; }
  expect 0 "$NIBBLE" train tiny.yaml --set "run.dir=$first" --set "device=$first" "${run[@]}"
  chunk_of "$first" "$chunk"
  expect 75 "$NIBBLE" train tiny.yaml --set "run.dir=from-$first" --set "device=$first" "${run[@]}" --set train.stop_at=1
  expect 0 "$NIBBLE" resume "from-$first" --set train.stop_at=0 --set "device=$second" --set 'resume.allow=[device]'
  [ "$first" = cuda ] || halves || fail "the run has lost the chunks of the CPU"
  [ "$first" = cpu ] || ! halves || fail "the run has lost the chunks of the GPU"
  chunk_of "from-$first" "$chunk"
  same "$first" "from-$first"
done
# The chunks do change bits, so the comparisons above can fail.
! "$python" "$SOURCE/tests/run_tools.py" same cpu cuda || fail "the chunks change no bit here"
# Who names a number gets it on every device.
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=named --set device=cuda "${run[@]}" --set train.head_chunk_tokens=256
same cpu named
