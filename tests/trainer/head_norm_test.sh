# Tests model.qk_norm and model.qkv_bias in runs: losses are the same for any number of ranks, after a stop and a resume,
# and with recompute; a resume cannot change the keys; the model generates.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
train() { # DIRECTORY RANKS OVERRIDE...
  local name=$1 ranks=$2 arguments=()
  shift 2
  for override in "$@"; do arguments+=(--set "$override"); done
  expect 0 mpirun -n "$ranks" "$NIBBLE" train tiny.yaml --set run.dir="$name" "${arguments[@]}"
}
both=(model.qk_norm=true model.qkv_bias=true)

train one 1 "${both[@]}"
train two 2 "${both[@]}" train.recompute=0,2
same two one

expect 75 "$NIBBLE" train tiny.yaml --set run.dir=stopped --set model.qk_norm=true --set model.qkv_bias=true \
  --set train.stop_at=5
for key in qk_norm qkv_bias; do
  expect 78 "$NIBBLE" resume stopped --set model.$key=false
  grep -q "model.$key" output.txt || fail "the refusal does not name the key"
done
expect 0 mpirun -n 2 "$NIBBLE" resume stopped
same stopped one
expect 0 "$NIBBLE" generate one --prompt "the" --tokens 8
echo "normalised heads and biases train alike on any number of ranks"
