# Checkpoints of format version 1 that an older program wrote (version_1/make.sh), one for each kind of state: resumed on
# one and on three ranks they have the losses that the older program reached; they are inspected, evaluated and saved
# anew as version 2.
source "$SOURCE/tests/tiny_run.sh"
source "$SOURCE/tests/trainer/version_1/runs.sh"
version_1_run
says() { grep -qE -- "$1" output.txt || { cat output.txt >&2; fail "the output lacks: $1"; }; }

# Steps, bits of the losses, and gradient norms, of which programs since add the squares in another order.
to_twelve_digits() { awk 'NF == 3 { $3 = sprintf("%.12g", $3) } { print }'; }

for kind in $kinds; do
  wanted="$SOURCE/tests/trainer/version_1/$kind/losses.txt"
  for ranks in 1 3; do
    run=$kind-$ranks
    cp -r "$SOURCE/tests/trainer/version_1/$kind" "$run"
    rm "$run/losses.txt"
    code=0
    mpirun -n "$ranks" "$NIBBLE" resume "$run" --set train.stop_at=0 --set 'data.train=data/train-*.bin' >output.txt 2>&1 ||
      code=$?
    { echo "exit code $code"; losses "$run"; } >found.txt
    diff <(to_twelve_digits <"$wanted") <(to_twelve_digits <found.txt) >&2 || { cat output.txt >&2; fail "$run has other losses than the older program"; }
  done
done

# Every array is there, and what version 1 does not say is found or said to be unknown.
copy() { rm -rf copy && cp -r "$SOURCE/tests/trainer/version_1/$1" copy; }
for kind in $kinds; do
  expect 0 "$NIBBLE" inspect "$SOURCE/tests/trainer/version_1/$kind"
  says '^format +version 1$'
  says "^next sample +$((${stop[$kind]} * 12)) of 64 tokens$"
  says '^tokenizer +not known: version 1 does not say'
done
expect 0 "$NIBBLE" inspect "$SOURCE/tests/trainer/version_1/outliers"
says '^replicated +outliers/channels \(fp32\) \[32\]$'
expect 0 "$NIBBLE" inspect "$SOURCE/tests/trainer/version_1/skipped"
says '^skipped steps +2$'
expect 0 "$NIBBLE" inspect "$SOURCE/tests/trainer/version_1/oscillation"
says '^array +oscillation/weight_path \(fp32\)$'

# The losses of evaluations are those of a run that saved them as version 2.
copy outliers
expect 0 "$NIBBLE" evaluate copy --set 'data.validation=data/validation-*.bin'
version_1_loss=$(grep -o 'loss_hex [0-9a-f]*' output.txt)
[ -n "$version_1_loss" ] || { cat output.txt; fail "evaluate names no loss"; }
expect 75 "$NIBBLE" resume copy --set train.stop_at=7 --set 'data.train=data/train-*.bin'
expect 0 "$NIBBLE" inspect copy
says '^format +version 2$'
says '^next sample +84 of 64 tokens$'
says '^tokenizer +[0-9a-f]{32}$'
says '^replicated +outliers/channels \(int32\) \[32\]$'
"$python" - copy/checkpoints/step-00000007/manifest.json <<'PYTHON' || fail "the manifest of version 2"
import json, sys
manifest = json.load(open(sys.argv[1]))
assert manifest["format"]["version"] == 2 and manifest["format"]["requires"] == []
assert manifest["next_sample"] == 84 == sum(part["taken"] for part in manifest["data"]["parts"])
assert manifest["tokens"] == 84 * 64 and manifest["data"]["sequence_length"] == 64
assert manifest["skipped"] == {"in_a_row": 0, "total": 0} and len(manifest["tokenizer"]) == 32
assert manifest["optimizers"] == [{"name": "adamw", "state": ["adam_m", "adam_v"]}]
assert [array["name"] for array in manifest["arrays"]] == ["parameters", "optimizer/adam_m", "optimizer/adam_v"]
ranges = sorted(sum((file.get("ranges", []) for file in manifest["files"]), []))
assert ranges[0][0] == 0 and ranges[-1][1] == manifest["elements"]
PYTHON

# Its position goes on when the batch changes, and its windows lie inside shards to the end.
expect 75 "$NIBBLE" resume copy --set train.stop_at=8 --set 'data.train=data/train-*.bin' --set train.tokens_per_step=384 \
  --set 'resume.allow=[train.tokens_per_step]'
"$python" - <<'PYTHON'
import json
manifest = json.load(open("copy/checkpoints/step-00000008/manifest.json"))
assert manifest["next_sample"] == 90 and manifest["tokens"] == 84 * 64 + 384, manifest["next_sample"]
part, = manifest["data"]["parts"]
assert part["across_shards"] is False and part["taken"] == 90 and part["lengths"] == [64], part
PYTHON
echo "version 1 is read"
