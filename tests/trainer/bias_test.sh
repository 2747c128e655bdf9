# Tests nibble bias on the checkpoint of a real run: errors of an unbiased recipe fall as one over the number of passes,
# those of rounding to nearest stay; recipes that cannot be measured are refused.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=run --set model.hidden_size=128 --set model.head_dim=32 \
  --set train.tokens_per_step=512 --set train.steps=4 --set eval.every=0
cat >nearest.yaml <<'EOF'
extends: fp4_all_the_way
name: nearest
grad_input: {dy: {round: nearest}, w: {round: nearest}}
grad_weight: {dy: {round: nearest}, x: {round: nearest}}
EOF
sed -i "s,extends: .*,extends: $SOURCE/configs/recipes/fp4_all_the_way.yaml," nearest.yaml
slope() { # RECIPE LOW HIGH
  expect 0 "$NIBBLE" bias run --recipe "$1" --draws 1,4,16,64 --json
  "$python" - "$2" "$3" <<'EOF' || { cat output.txt; fail "slope of $1 is not between $2 and $3"; }
import json, sys
text = open("output.txt").read()
result = json.loads(text[text.index("{"):text.rindex("}") + 1])
mean = result["geometric_mean"]
assert result["draws"] == [1, 4, 16, 64] and len(mean["error"]) == 4
assert len(result["tensors"]) == 8, len(result["tensors"])
sys.exit(not float(sys.argv[1]) <= mean["slope"] <= float(sys.argv[2]))
EOF
}
slope "$SOURCE/configs/recipes/quartet2.yaml" -1.1 -0.9
slope "$SOURCE/configs/recipes/quartet2_double.yaml" -1.1 -0.9
slope "$PWD/nearest.yaml" -0.001 0.001

# The table is printed, and the same seed gives the same figures.
expect 0 "$NIBBLE" bias run --recipe "$SOURCE/configs/recipes/quartet2.yaml" --draws 1,2
grep -q 'blocks.0.attention.qkv.weight' output.txt || fail "no line for a layer"
cp output.txt first.txt
expect 0 "$NIBBLE" bias run --recipe "$SOURCE/configs/recipes/quartet2.yaml" --draws 1,2
diff first.txt output.txt || fail "not reproducible"
expect 0 "$NIBBLE" bias run --recipe "$SOURCE/configs/recipes/quartet2.yaml" --draws 1,2 --seed 2
diff -q first.txt output.txt >/dev/null && fail "the seed changes nothing"

# Ctrl-C prints the figures so far, and the exit code says that they are not complete.
expect 75 timeout --foreground --preserve-status --signal=INT 5 "$NIBBLE" bias run \
  --recipe "$SOURCE/configs/recipes/quartet2.yaml" --draws 1,16777216
grep -Eq 'stopped after [0-9]+ of 16777216 passes' output.txt && grep -q 'geometric mean' output.txt ||
  { cat output.txt; fail "an interrupted measurement does not show what it has"; }

expect 78 "$NIBBLE" bias run --recipe "$SOURCE/configs/recipes/bf16.yaml"
grep -q 'quantises no operand of a backward pass' output.txt || fail "the refusal does not say why"
expect 64 "$NIBBLE" bias run --draws 4,1
expect 64 "$NIBBLE" bias run --draws 0
expect 64 "$NIBBLE" bias
expect 66 "$NIBBLE" bias nowhere
expect 66 "$NIBBLE" bias run --recipe no_such_recipe
expect 0 "$NIBBLE" bias --help
echo "biases are measured"
