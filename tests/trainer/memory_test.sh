# A run that does not fit says which keys of its own would help, and what each would save.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
# 16 groups of a model whose gradients alone need more than any machine of this test has.
large=(--set model.hidden_size=16384 --set model.intermediate_size=65536 --set model.query_heads=128
  --set model.kv_heads=128 --set model.head_dim=128 --set 'model.pattern="*-*-*-*-*-*-*-*-*-*-*-*-*-*-*-*-*-*-*-*-*-*-*-*-"'
  --set train.tokens_per_step=2048 --set recipe=bf16)
expect 71 "$NIBBLE" train tiny.yaml "${large[@]}" --set train.gradient_groups=16
grep -q 'weights and gradients' output.txt || { cat output.txt; fail "another arena is too large"; }
grep -q 'fix: set train.gradient_groups=1, which saves [0-9.]* MiB' output.txt || { cat output.txt; fail "no remedy"; }
# With one group that key saves nothing, and is not named.
expect 71 "$NIBBLE" train tiny.yaml "${large[@]}" --set train.gradient_groups=1
! grep -q 'gradient_groups' output.txt || { cat output.txt; fail "a key that saves nothing is named"; }
[ ! -e run ] || fail "a run directory is left"
echo "lack of memory is explained"
