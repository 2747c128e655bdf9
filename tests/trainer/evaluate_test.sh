# What `nibble evaluate` and validations in training measure: windows that are spread over the whole set, and sets by
# name.
# Labels: fast
source "$SOURCE/tests/tiny_run.sh"
tiny_data
expect 0 "$NIBBLE" train tiny.yaml --set train.steps=4 --set telemetry.every=0
value() { "$python" -c 'import json, sys; print(eval("d" + sys.argv[2], {"d": json.load(open(sys.argv[1]))}))' "$@"; }
holds() { "$python" -c "import math, sys; sys.exit(0 if $1 else 1)" || fail "$1"; }
evaluate() { # RUN OPTION...: prints nothing, writes evaluate.json
  "$NIBBLE" evaluate "$@" --json >evaluate.json 2>errors.txt || { cat errors.txt >&2; fail "evaluate $*"; }
}

# Two parts of equal length, one of them of text that the model finds hard. Half of the windows are in the middle between
# the two losses, whichever part comes first.
"$python" - <<'PY'
import random
draw = random.Random(1)
letters = "qxzjkvwyQXZJKVWY0123456789"
with open("easy.txt", "w") as easy, open("hard.txt", "w") as hard:
    easy.write(open("text.txt").read().replace("\n", " ")[:20000] + "\n")
    hard.write("".join(draw.choice(letters) for _ in range(8000)) + "\n")
PY
for part in easy hard; do
  expect 0 "$NIBBLE" tokenize $part.txt --documents line --tokenizer data/tokenizer.model --validation-share 0 --output $part
done
evaluate run --set 'data.validation=easy/train-*.bin' --set eval.sequences=0
easy=$(value evaluate.json '["loss"]')
evaluate run --set 'data.validation=hard/train-*.bin' --set eval.sequences=0
hard=$(value evaluate.json '["loss"]')
for order in 'easy/train-00000.bin, hard/train-00000.bin' 'hard/train-00000.bin, easy/train-00000.bin'; do
  evaluate run --set "data.validation=[$order]" --set eval.sequences=0
  whole=$(value evaluate.json '["loss"]')
  evaluate run --set "data.validation=[$order]" --set eval.sequences=40
  holds "$hard - $easy > 0.2"
  holds "abs($(value evaluate.json '["loss"]') - $whole) < 0.1 * ($hard - $easy)"
done

# Sets by name, in training and afterwards; the first one's loss is the validation loss.
sets='{hard: "hard/train-*.bin", easy: [easy/train-00000.bin]}'
expect 0 mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=sets --set "data.validation=$sets" --set eval.sequences=0 \
  --set train.steps=4 --set telemetry.every=0
grep -Eq 'validation after step 4: hard loss [0-9.]+, [0-9.]+ bits a byte, easy loss [0-9.]+' output.txt || fail "the log names no sets"
for tag in loss/validation loss/validation/hard loss/validation/easy; do
  grep -qaF "$tag" sets/tensorboard/events.* || fail "TensorBoard has no $tag"
done
evaluate sets
cp evaluate.json sets.json
grep '"validation"' sets/metrics.jsonl | tail -n 1 >event.json
for set in hard easy; do
  evaluate run --set "data.validation=$set/train-*.bin" --set eval.sequences=0
  holds "'$(value evaluate.json '["loss_hex"]')' == '$(value sets.json "['sets']['$set']['loss_hex']")'"
  holds "'$(value evaluate.json '["loss_hex"]')' == '$(value event.json "['sets']['$set']['loss_hex']")'"
done
for file in sets.json event.json; do
  holds "'$(value $file '["loss_hex"]')' == '$(value $file '["sets"]["hard"]["loss_hex"]')'"
done
evaluate run --set 'data.validation=easy/train-*.bin'
holds "'sets' not in $(value evaluate.json '')"
# The mapping lives on in the run directory: a resume reads it from there.
expect 0 "$NIBBLE" resume sets --set train.steps=5 --set 'resume.allow=[train.steps]'
grep -q 'validation after step 5: hard loss' output.txt || fail "the resumed run has lost its sets"

# Bits per byte, in training and afterwards; null where the tokenizer of the shards is not there. The text has 20,000
# bytes, of which the part that fills whole windows is predicted.
evaluate run --set 'data.validation=easy/train-*.bin' --set eval.sequences=0
bits=$(value evaluate.json '["bits_per_byte"]')
holds "19500 < $(value evaluate.json '["loss"]') * 64 * ((9215 - 1) // 64) / math.log(2) / $bits < 20002"
holds "$(value sets.json '["sets"]["easy"]["bits_per_byte"]') == $bits"
holds "$(value event.json '["sets"]["easy"]["bits_per_byte"]') == $bits"
grep -qaF bits_per_byte/validation/easy sets/tensorboard/events.* || fail "TensorBoard has no bits per byte"
"$NIBBLE" evaluate run --set 'data.validation=easy/train-*.bin' 2>/dev/null | grep -q 'bits a byte' || fail "no bits a byte"
evaluate run --set 'data.validation=easy/train-*.bin' --set data.tokenizer=nowhere.model
holds "$(value evaluate.json '["bits_per_byte"]') is None"

# Text begins where a document does if there is no prompt, or an empty one.
"$NIBBLE" generate run --tokens 8 --seed 3 >without.txt 2>/dev/null || fail "generate without a prompt"
"$NIBBLE" generate run --tokens 8 --seed 3 --prompt '' >empty.txt 2>/dev/null || fail "generate with an empty prompt"
cmp -s without.txt empty.txt || fail "no prompt and an empty prompt differ"

# The divergence from the unquantised model: zero for itself, the same bits for any number of ranks, beside the loss that
# the recipe has without it.
evaluate run --recipe bf16
holds "$(value evaluate.json '["kl"]') == 0 and $(value evaluate.json '["kl_standard_error"]') == 0"
evaluate run --set recipe=quartet2
loss=$(value evaluate.json '["loss_hex"]')
evaluate run --recipe quartet2
cp evaluate.json one.json
holds "'$(value one.json '["loss_hex"]')' == '$loss'"
holds "0 < $(value one.json '["kl_standard_error"]') < $(value one.json '["kl"]') < 0.1"
expect 0 mpirun -n 3 "$NIBBLE" evaluate run --recipe quartet2 --json
for key in kl kl_standard_error loss; do
  grep -F "\"$key\": $(value one.json "['$key']")" output.txt || fail "$key is another on three ranks"
done
"$NIBBLE" evaluate run --recipe quartet2 2>/dev/null | grep -q 'KL from the unquantised model' || fail "no KL"
expect 66 "$NIBBLE" evaluate run --recipe nosuch
