# Tests nibble compare on real runs: table, JSON, report files, refusals and the assertion; also generate and evaluate.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
for recipe in bf16 nvfp4; do
  expect 0 mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=$recipe --set recipe=$recipe --set train.steps=60 \
    --set eval.every=20 --set eval.sequences=0
done
expect 0 "$NIBBLE" compare bf16 nvfp4 --assert-relative-gap 5%
grep -q '46,080' output.txt || { cat output.txt; fail "the table lacks the last row's tokens"; }
grep -q validation output.txt || fail "the table lacks the validation row"
[ -s nvfp4/compare.html ] && [ -s nvfp4/compare.svg ] || fail "no report"
grep -q '</html>' nvfp4/compare.html || fail "the report is cut short"
"$NIBBLE" compare bf16 nvfp4 --json >comparison.json
"$python" - <<'EOF'
import json
comparison = json.load(open("comparison.json"))[0]
assert comparison["common_steps"] == 60, comparison
assert len(comparison["fractions"]) == 5, comparison
last = [json.loads(line) for line in open("nvfp4/metrics.jsonl")]
last = [event["loss"] for event in last if event["event"] == "validation"][-1]
assert comparison["validation"]["run_loss"] == last, comparison
assert abs(comparison["validation"]["absolute"]) > 0, "the two runs cannot be identical"
EOF
# The model has learned something: its loss is well below the entropy of single tokens.
unigram=$("$NIBBLE" inspect data/train-*.bin | sed -n 's/.*entropy[^0-9]*\([0-9.]*\) nats.*/\1/p' | head -1)
"$python" -c "
import json, sys
losses = [json.loads(line) for line in open('bf16/metrics.jsonl')]
loss = [event['loss'] for event in losses if event['event'] == 'validation'][-1]
sys.exit(0 if loss < float(sys.argv[1]) else f'validation loss {loss} is not below the unigram entropy {sys.argv[1]}')" \
  "$unigram"

# The assertion fails in the direction in which the runs differ.
if "$python" -c 'import json,sys; sys.exit(json.load(open("comparison.json"))[0]["validation"]["relative"] < 0)'; then
  expect 77 "$NIBBLE" compare bf16 nvfp4 --assert-relative-gap 0.00001%
else
  expect 77 "$NIBBLE" compare nvfp4 bf16 --assert-relative-gap 0.00001%
fi
expect 64 "$NIBBLE" compare bf16 nvfp4 --assert-relative-gap much
expect 66 "$NIBBLE" compare bf16 nowhere
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=other-seed --set run.seed=8
expect 78 "$NIBBLE" compare bf16 other-seed
grep -q 'run.seed' output.txt || { cat output.txt; fail "the refusal does not name the key"; }
expect 0 "$NIBBLE" compare bf16 other-seed --allow-different

# Evaluating the checkpoint on another number of ranks gives the loss of the last validation.
wanted=$(grep '"event":"validation"' nvfp4/metrics.jsonl | tail -1 | sed 's/.*"loss_hex":"\([0-9a-f]*\)".*/\1/')
for ranks in 1 3; do
  expect 0 mpirun -n "$ranks" "$NIBBLE" evaluate nvfp4
  grep -q "loss_hex $wanted" output.txt || { cat output.txt; fail "evaluate on $ranks ranks: another loss"; }
done
expect 0 "$NIBBLE" generate nvfp4 --prompt "The people of" --tokens 20 --seed 1
cp output.txt first.txt
[ "$(wc -c <first.txt)" -gt 20 ] || fail "nothing was generated"
expect 0 "$NIBBLE" generate nvfp4 --prompt "The people of" --tokens 20 --seed 1
cmp first.txt output.txt || fail "the same seed gave another text"
expect 0 "$NIBBLE" generate nvfp4 --prompt "The people of" --tokens 20 --seed 2
cmp -s first.txt output.txt && fail "another seed gave the same text"
echo "compare, evaluate and generate work"
