# A run keeps where it stands in its data: the count of samples and tokens goes on when a resumed run takes another batch,
# another sequence length or other data, and shards under other names in another order are the same shards.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
expect 0 "$NIBBLE" tokenize text.txt --documents line --tokenizer data/tokenizer.model --validation-share 0.2 \
  --shard-tokens 3000 --output many
[ "$(ls many/train-*.bin | wc -l)" -ge 4 ] || fail "too few shards"
# position RUN: prints tokens, next_sample, and of every part whether it is used, samples taken, epoch, samples of the
# epoch, lengths.
position() {
  "$python" - "$1" <<'PYTHON'
import glob, json, sys
manifest = json.load(open(sorted(glob.glob(f"{sys.argv[1]}/checkpoints/*/manifest.json"))[-1]))
parts = manifest["data"]["parts"]
assert sum(part["taken"] for part in parts) == manifest["next_sample"]
print(manifest["tokens"], manifest["next_sample"], *("{} {} {} {} {}".format(
    part.get("used", True), part["taken"], part["epoch"], part["taken_in_epoch"], part["lengths"]) for part in parts))
PYTHON
}
# at RUN WANTED: compares.
at() { [ "$(position "$1")" = "$2" ] || fail "$1 is at $(position "$1"), not at $2"; }

stopped=(--set 'data.train=many/train-*.bin' --set train.stop_at=4)
on=(--set train.stop_at=0)
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=straight --set 'data.train=many/train-*.bin'
at straight "9216 144 True 144 $("$python" -c "
import json; part = json.load(open('straight/checkpoints/step-00000012/manifest.json'))['data']['parts'][0]
print(144 // part['windows'], 144 % part['windows'])") [64]"

# The batch: 4 steps of 12 samples, then 8 of 6.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=batch "${stopped[@]}"
expect 0 mpirun -n 2 "$NIBBLE" resume batch "${on[@]}" --set train.tokens_per_step=384 \
  --set 'resume.allow=[train.tokens_per_step]'
at batch "6144 96 True 96 0 96 [64]"
"$python" - <<'PYTHON'
import json
steps = [json.loads(line) for line in open("batch/metrics.jsonl")]
tokens = [line["tokens"] for line in steps if line["event"] == "step"]
assert tokens == [768 * i for i in range(1, 5)] + [3072 + 384 * i for i in range(1, 9)], tokens
PYTHON

# Renamed, moved and in another order; and the same run on two ranks.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=renamed "${stopped[@]}"
mkdir moved
number=$(ls many/train-*.bin | wc -l)
for shard in many/train-*.bin; do cp "$shard" "moved/part $((number -= 1)).bin"; done
expect 0 mpirun -n 2 "$NIBBLE" resume renamed "${on[@]}" --set 'data.train=moved/*.bin'
same renamed straight

# A length that divides the old one: each of the windows that were not read is now two.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=shorter "${stopped[@]}"
expect 78 "$NIBBLE" resume shorter "${on[@]}" --set model.sequence_length=32
grep -q 'resume.allow=\[model.sequence_length\]' output.txt || fail "another length is not refused by its key"
expect 75 "$NIBBLE" resume shorter --set train.stop_at=6 --set model.sequence_length=32 \
  --set 'resume.allow=[model.sequence_length]'
at shorter "4608 96 True 96 0 144 [64, 32]"  # 48 samples of 64, then 48 of 32
# One that does not: the next epoch begins, and the run says how much comes again: 144 samples of 32.
expect 0 "$NIBBLE" resume shorter "${on[@]}" --set model.sequence_length=48 --set train.tokens_per_step=480 \
  --set 'resume.allow=[model.sequence_length, train.tokens_per_step]'
grep -q 'warning.*up to 4,608 tokens are read again' output.txt || { cat output.txt; fail "no word of what comes again"; }
at shorter "7488 156 True 156 1 60 [48]"

# Other data begin at their first sample; the first set goes on where the run left it.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=other --set train.stop_at=4
expect 78 "$NIBBLE" resume other --set 'data.train=many/train-*.bin'
expect 75 "$NIBBLE" resume other --set train.stop_at=6 --set 'data.train=many/train-*.bin' \
  --set 'resume.allow=[data.train]'
grep -q 'warning.*begins them at their first sample' output.txt || fail "no word of other data"
at other "4608 72 True 24 0 24 [64] False 48 0 48 [64]"
expect 0 "$NIBBLE" resume other "${on[@]}" --set 'data.train=data/train-*.bin' --set 'resume.allow=[data.train]'
at other "9216 144 True 120 0 120 [64] False 24 0 24 [64]"

# Fewer steps than are made.
expect 78 "$NIBBLE" resume other --set train.steps=6 --set 'resume.allow=[train.steps]'
grep -q 'train.steps is 6, but .* has made 12 steps' output.txt || { cat output.txt; fail "no word of the steps made"; }

# Sets that overlap, and tokens in no window.
mkdir both && cp data/train-*.bin both/ && ln -s ../data/validation-00000.bin both/linked.bin
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=overlap --set 'data.train=both/*.bin'
grep -q 'linked.bin' output.txt || { cat output.txt; fail "the overlap is not named"; }
cp data/train-00000.bin both/again.bin && rm both/linked.bin
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=repeated --set 'data.train=both/*.bin' --set train.stop_at=1
grep -q 'warning.*1 of 2 training shards are copies' output.txt || { cat output.txt; fail "no word of a copy"; }
long=(--set model.sequence_length=3600 --set train.tokens_per_step=7200 --set train.stop_at=1 --set data.validation=[]
  --set eval.every=0 --set 'data.train=many/train-0000[01].bin')
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=long "${long[@]}"
grep -q 'data.allow_unused' output.txt || { cat output.txt; fail "unused tokens are not refused"; }
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=long "${long[@]}" --set data.allow_unused=true
grep -q 'tokens (.* %) lie in no window' output.txt || { cat output.txt; fail "unused tokens are not told"; }
echo "positions are kept"
