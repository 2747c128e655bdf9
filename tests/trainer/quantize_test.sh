# Tests nibble quantize on tensors of a checkpoint and of other programs. For every family of formats, a Python program
# decodes the bytes of the file to exactly the values that --dequantize writes. Refusals have their exit codes.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
expect 0 "$NIBBLE" train tiny.yaml --set train.steps=4
checkpoint=run/checkpoints/step-00000004/index.h5
weight=$checkpoint:parameters/blocks.1.mlp.down.weight # BF16 [64, 128]
tall=$checkpoint:parameters/blocks.1.mlp.gate_up.weight # BF16 [256, 64]
"$python" "$SOURCE/tests/trainer/quantize_tools.py" write x.npy

# quantize NAME RECIPE OPERAND INPUT MORE...: makes the file, and checks it against the printed statistics.
quantize() {
  local name=$1 recipe=$2 operand=$3 input=$4
  shift 4
  expect 0 "$NIBBLE" quantize --recipe "$recipe" --operand "$operand" --input "$input" --output "$name.safetensors" \
    --seed 5 --dequantize --json "$@"
  cp output.txt "$name.json"
  "$python" "$SOURCE/tests/trainer/quantize_tools.py" check "$name.safetensors" "$name.json" ||
    fail "$name: the file is not what was printed"
}
for recipe in bf16 fp8 mxfp4 mxfp8 nibble nvfp4 nvfp4_46 quartet2 tetrajet2; do
  for operand in forward.x forward.w grad_input.dy grad_input.w grad_weight.dy grad_weight.x; do
    quantize "$recipe-$operand" "$recipe" "$operand" x.npy
  done
done
for recipe in nvfp4 nibble fp8; do
  quantize "weight-$recipe" "$recipe" forward.w "$weight"
  quantize "weight-transposed-$recipe" "$recipe" grad_input.w "$tall" --transpose
done
quantize swizzled nvfp4 forward.x ragged.npy --swizzled

# The same seed gives the same bytes, another seed, step, micro-batch or tensor gives others.
for option in "--seed 5" "--seed 6" "--seed 5 --step 1" "--seed 5 --micro-batch 1" "--seed 5 --tensor-id 1"; do
  # shellcheck disable=SC2086
  expect 0 "$NIBBLE" quantize --recipe nvfp4 --operand grad_weight.dy --input x.npy --output again.safetensors \
    --overwrite --dequantize $option
  if "$python" "$SOURCE/tests/trainer/quantize_tools.py" same again.safetensors nvfp4-grad_weight.dy.safetensors; then
    [ "$option" = "--seed 5" ] || fail "$option changes nothing"
  else
    [ "$option" != "--seed 5" ] || fail "the same random bits gave other codes"
  fi
done
expect 0 taskset -c 0 "$NIBBLE" quantize --recipe quartet2 --operand grad_weight.dy --input x.npy --seed 5 \
  --output one.safetensors --dequantize
cmp one.safetensors quartet2-grad_weight.dy.safetensors || fail "one thread wrote other bytes"

# A tensor that nibble wrote is read back; a recipe's rules hold for the layers that they name.
expect 0 "$NIBBLE" quantize --recipe nvfp4 --operand forward.x --input swizzled.safetensors:values --output z.safetensors
grep -q 'relative MSE' output.txt || fail "no table"
expect 0 "$NIBBLE" quantize --recipe nvfp4 --operand forward.w --input "$weight" --output head.safetensors \
  --layer head.weight
grep -q 'operand  *forward.w of recipe nvfp4: bf16$' output.txt || { cat output.txt; fail "the head is in BF16"; }
for block in 0 1 7; do
  expect 0 "$NIBBLE" quantize --recipe nvfp4 --operand forward.w --input "$weight" --output layer.safetensors \
    --layer "blocks.$block.mlp.down.weight" --blocks 8 --overwrite
  wanted=bf16
  [ "$block" != 1 ] || wanted='nvfp4 16x16 nearest'
  grep -q "of recipe nvfp4: $wanted\$" output.txt || { cat output.txt; fail "block $block of 8 is not $wanted"; }
done

# refused CODE TEXT ARGUMENTS...
refused() {
  local code=$1 text=$2
  shift 2
  expect "$code" "$NIBBLE" quantize --output refused.safetensors "$@"
  grep -qF -- "$text" output.txt || { cat output.txt; fail "the message lacks: $text"; }
  [ ! -e refused.safetensors ] || fail "a refused command left a file"
}
refused 64 'did you mean "grad_weight.dy"' --recipe nvfp4 --operand grad_weight.dz --input x.npy
refused 64 "--blocks" --recipe nvfp4 --operand forward.w --input x.npy --layer blocks.1.mlp.down.weight
refused 64 "--layer" --recipe nvfp4 --operand forward.w --input x.npy --layer blocks.9.mlp.down.weight --blocks 9
refused 64 "--swizzled" --recipe fp8 --operand forward.x --input x.npy --swizzled
refused 64 "--seed" --recipe nvfp4 --operand forward.x --input x.npy --seed -1
refused 64 "--micro-batch" --recipe nvfp4 --operand forward.x --input x.npy --micro-batch 16777216
refused 66 "nowhere" --recipe nowhere --operand forward.x --input x.npy
refused 66 "missing.npy" --recipe nvfp4 --operand forward.x --input missing.npy
refused 66 "no/such" --recipe nvfp4 --operand forward.x --input "$checkpoint:no/such"
refused 78 "multiple of 128, this one is 48" --recipe quartet2 --operand grad_weight.dy --input narrow.npy
refused 78 "multiple of 16, this one is 3" --recipe nvfp4 --operand forward.x --input narrow.npy --transpose
refused 65 "2 of 144 elements" --recipe nvfp4 --operand forward.x --input infinite.npy
refused 65 "overflows" --recipe quartet2 --operand grad_weight.dy --input huge.npy
cp swizzled.safetensors kept.safetensors
expect 73 "$NIBBLE" quantize --recipe nvfp4 --operand grad_weight.dy --input x.npy --output swizzled.safetensors
cmp kept.safetensors swizzled.safetensors || fail "a file was replaced without --overwrite"
expect 0 "$NIBBLE" quantize --help
grep -q Example output.txt || fail "--help has no example"
echo "quantize works"
