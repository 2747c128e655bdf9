# Whole-program tests source this file. It makes a fresh $WORK and defines a run on real text that is small enough to be
# repeated many times.
# Needs $NIBBLE (the binary), $SOURCE (the source tree) and $WORK (a directory of this test's own).
set -euo pipefail
rm -rf "$WORK"
mkdir -p "$WORK"
cd "$WORK"
python=/usr/bin/python3

fail() { echo "FAILED: $*" >&2; exit 1; }
# expect CODE COMMAND...: runs it with its output in output.txt and checks its exit code.
expect() {
  local wanted=$1 code=0
  shift
  "$@" >output.txt 2>&1 || code=$?
  [ "$code" -eq "$wanted" ] || { cat output.txt >&2; fail "exit code $code instead of $wanted: $*"; }
}
# Prints lines "step loss_hex grad_norm" of a run; steps that a resume computed again count once.
losses() { "$python" "$SOURCE/tests/run_tools.py" losses "$1"; }
# Prints the hash of the weights and optimizer state in a run's newest checkpoint; it does not depend on the number of
# ranks.
state_hash() { "$python" "$SOURCE/tests/run_tools.py" state "$1"; }
# same RUN REFERENCE: the same losses, and some, and the same final state.
same() { "$python" "$SOURCE/tests/run_tools.py" same "$1" "$2" || fail "$1 is not the same as $2"; }

tiny_data() {
  "$python" "$SOURCE/tests/run_tools.py" excerpt "$SOURCE/data/sample/state_of_the_union.txt.zst" text.txt
  expect 0 "$NIBBLE" tokenize text.txt --documents line --vocab-size 512 --validation-share 0.2 --output data
  cat >tiny.yaml <<'EOF'
run: {dir: run, seed: 7}
recipe: nvfp4
model:
  pattern: "*-*-"
  hidden_size: 64
  query_heads: 4
  kv_heads: 2
  head_dim: 16
  intermediate_size: 128
  sequence_length: 64
data:
  train: data/train-*.bin
  validation: data/validation-*.bin
train: {steps: 12, micro_batch_sequences: 2, tokens_per_step: 768}
optimizer: {learning_rate: 3e-3}
schedule: {kind: cosine, warmup_steps: 3}
eval: {every: 4, sequences: 8}
checkpoint: {every: 4, keep_last: 3}
EOF
}
