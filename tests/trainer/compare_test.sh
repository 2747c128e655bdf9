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

# The figure alone: no HTML report is written, each kind is a file of its kind, and the same runs give the same bytes.
rm nvfp4/compare.html
for kind in svg png pdf; do
  expect 0 "$NIBBLE" compare bf16 nvfp4 --output figure.$kind
  grep -q "^figure: figure.$kind" output.txt || fail "the figure is not named"
  cp figure.$kind before.$kind
  expect 0 "$NIBBLE" compare bf16 nvfp4 --output figure.$kind
  cmp figure.$kind before.$kind || fail "the same runs give another $kind"
done
[ ! -e nvfp4/compare.html ] || fail "--output writes the HTML report too"
"$python" - <<'EOF'
import struct, xml.etree.ElementTree, zlib
assert xml.etree.ElementTree.parse("figure.svg").getroot().get("width").startswith("468")
assert open("figure.pdf", "rb").read(5) == b"%PDF-"
png, position, chunks = open("figure.png", "rb").read(), 8, {}
while position < len(png):
    length, kind = struct.unpack_from(">I4s", png, position)
    content = png[position + 8:position + 8 + length]
    assert zlib.crc32(kind + content) == struct.unpack_from(">I", png, position + 8 + length)[0], kind
    chunks[kind] = chunks.get(kind, b"") + content
    position += 12 + length
assert struct.unpack(">IIB", chunks[b"pHYs"]) == (11811, 11811, 1), chunks[b"pHYs"]
assert struct.unpack_from(">I", chunks[b"IHDR"])[0] == 1950, "6.5 inches of 300 dots"
assert len(set(zlib.decompress(chunks[b"IDAT"]))) > 50, "the picture is empty"
EOF
expect 0 "$NIBBLE" report bf16 nvfp4 --output reported.svg
cmp reported.svg figure.svg || fail "report draws another figure than compare"
expect 0 "$NIBBLE" report nvfp4 --output alone.png
[ "$(head -c 4 alone.png | tail -c 3)" = PNG ] || fail "the figure of one run is no PNG file"
cp text.txt mine.svg
expect 73 "$NIBBLE" compare bf16 nvfp4 --output mine.svg
cmp text.txt mine.svg || fail "a file that is no figure was replaced"
expect 64 "$NIBBLE" compare bf16 nvfp4 --output figure.jpg

"$NIBBLE" compare bf16 nvfp4 --json >comparison.json
"$python" - <<'EOF'
import json
comparison = json.load(open("comparison.json"))[0]
assert comparison["common_steps"] == 60, comparison
assert len(comparison["fractions"]) == 5, comparison
assert "standard_error" not in json.dumps(comparison), comparison
assert {"key": "recipe", "base": "bf16", "run": "nvfp4"} in comparison["differences"], comparison
assert comparison["time_to_equal_loss"]["curve"] == "validation", comparison
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

# Over seeds: an interval from pairs, none from one; the other seed's run has no partner.
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=bf16-8 --set recipe=bf16 --set run.seed=8 --set train.steps=60 \
  --set eval.every=20 --set eval.sequences=0
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=nvfp4-8 --set run.seed=8 --set train.steps=60 --set eval.every=20 \
  --set eval.sequences=0
"$NIBBLE" compare --base bf16 bf16-8 --run nvfp4-8 nvfp4 --json >seeds.json 2>errors.txt
"$NIBBLE" compare --base bf16 bf16-8 --run nvfp4 --json >one.json 2>errors.txt
"$python" - <<'EOF'
import json
seeds, one = json.load(open("seeds.json")), json.load(open("one.json"))
gaps = [pair["validation"]["absolute"] for pair in seeds["pairs"]]
assert seeds["seeds"] == 2 and seeds["unpaired"] == [], seeds
mean, half = sum(gaps) / 2, abs(gaps[0] - gaps[1]) / 2  # the standard error of two gaps is half their distance
assert abs(seeds["validation"]["gap"] - mean) < 1e-12, seeds
assert abs(seeds["validation"]["low"] - (mean - 12.7062 * half)) < 1e-4 * half + 1e-12, seeds
assert abs(seeds["validation"]["high"] - (mean + 12.7062 * half)) < 1e-4 * half + 1e-12, seeds
assert one["seeds"] == 1 and one["validation"]["low"] is None, one
assert len(one["unpaired"]) == 1 and one["unpaired"][0].endswith("bf16-8"), one
EOF
expect 0 "$NIBBLE" compare --base bf16 bf16-8 --run nvfp4 nvfp4-8
grep -q '95 % interval' output.txt || fail "no interval is printed"
expect 0 "$NIBBLE" compare --base bf16 --run nvfp4
grep -q 'one seed: no interval' output.txt || fail "one pair does not say that it gives no interval"
expect 78 "$NIBBLE" compare --base bf16 nvfp4-8 --run nvfp4 bf16-8
expect 64 "$NIBBLE" compare --base bf16
expect 64 "$NIBBLE" compare bf16
expect 65 "$NIBBLE" compare --base bf16 --run nvfp4-8

# A copy that goes on with another learning rate: validations that both share are no comparison.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=stem --set train.steps=16 --set train.stop_at=8
cp -r stem fork
for run in stem fork; do
  rate=3e-3
  [ $run = stem ] || rate=1.5e-2
  expect 0 "$NIBBLE" resume $run --set train.stop_at=0 --set eval.every=0 --set optimizer.learning_rate=$rate \
    --set data.validation=[] --set 'resume.allow=[optimizer.learning_rate]'
done
expect 0 "$NIBBLE" compare stem fork --allow-different
grep -q 'behind the fork at' output.txt || { cat output.txt; fail "the fork is not named"; }
grep -q '^  validation' output.txt && fail "a validation before the fork is compared"
expect 77 "$NIBBLE" compare fork stem --allow-different --assert-relative-gap 0.001%

# Another batch: pairs are formed after equal numbers of tokens.
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=batch --set recipe=bf16 --set train.tokens_per_step=1152 \
  --set train.steps=20 --set eval.every=0
"$NIBBLE" compare bf16 batch --allow-different --json >batch.json 2>errors.txt
"$python" - <<'EOF'
import json
comparison = json.load(open("batch.json"))[0]
steps = lambda run: {e["tokens"]: e["loss"] for e in map(json.loads, open(run + "/metrics.jsonl")) if e["event"] == "step"}
base, run = steps("bf16"), steps("batch")
assert comparison["common_steps"] == len(base.keys() & run.keys()) == 10, comparison
for gap in comparison["fractions"]:
    assert gap["steps"] == 1 and gap["base_loss"] == base[gap["tokens"]] and gap["run_loss"] == run[gap["tokens"]], gap
assert {"key": "train.tokens_per_step", "base": "768", "run": "1152"} in comparison["differences"], comparison
EOF
grep -q 'train.tokens_per_step' batch/compare.html || fail "the page does not list the difference"

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
