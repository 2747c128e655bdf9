# A checkpoint belongs to the tokenizer of its shards; resume.allow holds for one resume; and the journal keeps who started
# and resumed a run, and what was changed.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
tr 'a-y' 'b-z' <text.txt >other.txt
expect 0 "$NIBBLE" tokenize other.txt --documents line --vocab-size 512 --validation-share 0.2 --output other
expect 75 mpirun -n 2 "$NIBBLE" train tiny.yaml --set train.stop_at=4

other=(--set 'data.validation=other/validation-*.bin')
expect 0 "$NIBBLE" evaluate run
expect 65 "$NIBBLE" evaluate run "${other[@]}"
grep -q -- '--any-tokenizer' output.txt || { cat output.txt; fail "the refusal names no way"; }
expect 0 "$NIBBLE" evaluate run "${other[@]}" --any-tokenizer
grep -q 'warning.*another tokenizer' output.txt || { cat output.txt; fail "another tokenizer is not told"; }
expect 0 "$NIBBLE" generate run --tokens 4
expect 65 "$NIBBLE" generate run --tokens 4 --set data.tokenizer=other/tokenizer.model
expect 0 "$NIBBLE" generate run --tokens 4 --set data.tokenizer=other/tokenizer.model --any-tokenizer
expect 65 "$NIBBLE" bias run --draws 1 --set 'data.train=other/train-*.bin'

expect 78 "$NIBBLE" resume run --set train.stop_at=6 --set 'data.train=other/train-*.bin' "${other[@]}" \
  --set 'resume.allow=[data.train]'
grep -q 'data.tokenizer' output.txt || { cat output.txt; fail "resume does not name the tokenizer"; }
expect 75 "$NIBBLE" resume run --set train.stop_at=6 --set 'data.train=other/train-*.bin' "${other[@]}" \
  --set 'resume.allow=[data.train, data.tokenizer]'
grep -q 'warning.*another tokenizer' output.txt || fail "another tokenizer is not told by resume"

# An allowed change of the peak, once; the second resume must ask again.
expect 75 "$NIBBLE" resume run --set train.stop_at=8 --set optimizer.learning_rate=2e-3 \
  --set 'resume.allow=[optimizer.learning_rate]'
grep -q 'warning.*the learning rate jumps from' output.txt || { cat output.txt; fail "the jump is not told"; }
expect 78 "$NIBBLE" resume run --set train.stop_at=9 --set optimizer.learning_rate=1e-3
expect 75 "$NIBBLE" resume run --set train.stop_at=9
! grep -q 'learning rate jumps' output.txt || fail "a jump where there is none"
# A line that a killed process has left half written does not spoil the journal.
printf '{"kind": "resu' >>run/journal.jsonl
expect 0 "$NIBBLE" resume run --set train.stop_at=0
"$python" - <<'PYTHON'
import json, socket
lines = [json.loads(line) for line in open("run/journal.jsonl")]
assert all({"kind", "step", "time"} <= set(line) for line in lines)
assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
assert [(line["kind"], line["step"]) for line in lines if line["kind"] != "override"] == [
    ("start", 0), ("stop", 4), ("resume", 4), ("stop", 6), ("resume", 6), ("stop", 8), ("resume", 8), ("stop", 9),
    ("resume", 9)], lines
assert all(line["reason"] == "train.stop_at" for line in lines if line["kind"] == "stop"), lines
start = lines[0]
assert start["ranks"] == 2 and start["machines"] == [{"name": socket.gethostname(), "ranks": 2}], start
resume = lines[2]
assert resume["tokens"] == 4 * 768 and resume["next_sample"] == 48 and resume["ranks"] == 1, resume
overrides = [(line["step"], line["key"]) for line in lines if line["kind"] == "override"]
assert {(4, "data.train"), (4, "data.validation"), (4, "data.tokenizer"), (4, "train.stop_at"),
        (6, "optimizer.learning_rate"), (6, "train.stop_at"), (8, "train.stop_at"), (9, "train.stop_at")} == set(overrides), overrides
peak, = (line for line in lines if line.get("key") == "optimizer.learning_rate")
assert float(peak["from"]) == 3e-3 and float(peak["to"]) == 2e-3, peak
PYTHON
! grep -q 'allow: \[.*[a-z]' run/config.yaml || fail "resume.allow stays in config.yaml"
echo "identities are kept"
