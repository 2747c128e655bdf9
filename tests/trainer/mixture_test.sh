# A mixture has the same samples, and so the same losses, on any number of ranks and through a stop and resume; its shares
# are those of the weights; every part keeps its own epochs, also with other weights and a shorter sequence.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
says() { grep -qE -- "$1" output.txt || { cat output.txt >&2; fail "the output lacks: $1"; }; }
head -n 60 text.txt >code.txt
sed 's/the/teh/g' code.txt >other.txt
expect 0 "$NIBBLE" tokenize other.txt --documents line --tokenizer data/tokenizer.model --validation-share 0.2 --output code
mix='data.train=[{shards: data/train-*.bin, weight: 0.7, name: web}, {shards: [code/train-*.bin], weight: 0.3, name: code}]'
# parts RUN STEP: tokens and epochs of each part of a step.
parts() {
  "$python" - "$1/metrics.jsonl" "$2" <<'PYTHON'
import json, sys
for line in open(sys.argv[1]):
    event = json.loads(line)
    if event['event'] == 'step' and event['step'] == int(sys.argv[2]):
        found = ' '.join(f"{name} {part['tokens']} {part['epochs']:.6f}" for name, part in sorted(event['parts'].items()))
print(found)
PYTHON
}
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=one --set "$mix"
says 'data.train web: 70 % of the samples'
says 'data part code: [0-9,]+ tokens read, [0-9.]+ epochs'
for ranks in 2 3; do
  expect 0 mpirun -n $ranks "$NIBBLE" train tiny.yaml --set run.dir=ranks-$ranks --set "$mix"
  same ranks-$ranks one
  [ "$(parts ranks-$ranks 12)" = "$(parts one 12)" ] || fail "other counts on $ranks ranks"
done
# 12 steps of 12 samples: 128 + 16 samples, each with its exact quota up to less than one sample.
"$python" - $(parts one 12) <<'PYTHON' || fail "shares: $(parts one 12)"
import sys
code, web = int(sys.argv[2]) // 64, int(sys.argv[5]) // 64
sys.exit(0 if code + web == 144 and abs(code - 0.3 * 144) < 2 else 1)
PYTHON

# Through a resume, on another number of ranks, with renamed shards, and with the parts in another order.
expect 75 mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=stopped --set "$mix" --set train.stop_at=5
cp -r stopped weights; cp -r stopped short; cp -r stopped list
cp -r code moved; mv moved/train-00000.bin moved/renamed.bin
swapped='data.train=[{shards: moved/renamed.bin, weight: 3, name: code}, {shards: data/train-*.bin, weight: 7, name: web}]'
expect 0 mpirun -n 3 "$NIBBLE" resume stopped --set train.stop_at=0 --set "$swapped"
same stopped one
[ "$(parts stopped 12)" = "$(parts one 12)" ] || fail "other counts after a resume"
expect 0 "$NIBBLE" inspect stopped
says 'data part +web: weight 0.7, [0-9]+ windows, [0-9]+ samples taken'

# Other weights and other parts need leave; every part goes on where it was.
equal='data.train=[{shards: data/train-*.bin, weight: 1, name: web}, {shards: code/train-*.bin, weight: 1, name: code}]'
expect 78 "$NIBBLE" resume weights --set train.stop_at=0 --set "$equal"
says 'the shares of the parts of data.train have changed: web \(0.7 -> 0.5\), code \(0.3 -> 0.5\)'
expect 0 "$NIBBLE" resume weights --set train.stop_at=0 --set "$equal" --set 'resume.allow=[data.train]'
says 'every part goes on where it was'
"$python" - $(parts stopped 5) $(parts weights 12) <<'PYTHON' || fail "$(parts stopped 5), then $(parts weights 12)"
import sys
before, after = int(sys.argv[2]) // 64, int(sys.argv[8]) // 64
sys.exit(0 if abs(after - before - 42) < 4 else 1)  # half of 84 samples
PYTHON
expect 78 "$NIBBLE" resume list --set train.stop_at=0 --set 'data.train=data/train-*.bin'
expect 0 "$NIBBLE" resume list --set train.stop_at=0 --set 'data.train=data/train-*.bin' --set 'resume.allow=[data.train]'
expect 0 "$NIBBLE" inspect list
says 'data part +code: .*; the run has left it'
expect 0 "$NIBBLE" resume short --set train.stop_at=0 --set model.sequence_length=32 --set 'resume.allow=[model.sequence_length]'
[ "$(parts short 12 | cut -d' ' -f2)" != "" ] || fail "no counts"

# Other tokens are another training for compare; mistakes are named.
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=equal --set "$equal"
expect 78 "$NIBBLE" compare one equal
says 'training data differs'
expect 0 "$NIBBLE" evaluate one
refuse() { expect "$1" "$NIBBLE" train tiny.yaml --set run.dir=x --set "$2"; says "$3"; }
refuse 78 'data.train=[{shards: data/*.bin, weight: 1}, {shards: code/train-*.bin, weight: 1}]' 'are in data.train and in data.validation'
refuse 78 'data.train=[{shards: data/train-*.bin, weight: 1}, {shards: data/train-*.bin, weight: 1}]' 'in the parts part-1 and part-2'
refuse 66 'data.train=[{shards: data/train-*.bin, weight: 1}, {shards: none-*.bin, weight: 1}]' 'no such shard'
refuse 78 'data.train=[{shards: data/train-*.bin, weight: 0}]' 'is no weight'
expect 0 "$NIBBLE" bias one --draws 1
echo "mixtures: passed"
