# Tests data.document_mask on real text: losses differ from those without it; they are the same for any number of ranks,
# after a stop and a resume, and with recompute; validation and evaluate mask as training does; if no document ends, the
# mask changes no bit.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
# Each document is one sentence, so that a window has several documents.
tr . '\n' <text.txt >sentences.txt
expect 0 "$NIBBLE" tokenize sentences.txt --documents line --vocab-size 512 --validation-share 0.2 --output data --overwrite
train() { # DIRECTORY RANKS OVERRIDE...
  local name=$1 ranks=$2 arguments=()
  shift 2
  for override in "$@"; do arguments+=(--set "$override"); done
  expect 0 mpirun -n "$ranks" "$NIBBLE" train tiny.yaml --set run.dir="$name" --set telemetry.every=4 "${arguments[@]}"
}

train plain 1
train masked 1 data.document_mask=true
train two-ranks 2 data.document_mask=true train.recompute=0,2
same two-ranks masked
losses plain >plain.txt
losses masked >masked.txt
# All lines differ, steps and validations, even that of the first step, whose weights are the same.
[ "$(comm -12 <(sort plain.txt) <(sort masked.txt) | wc -l)" -eq 0 ] || fail "the mask leaves a loss as it was"

# The probe sees the same documents: the errors of eight bits change the gradient little.
train fp8 1 recipe=fp8 train.steps=4 data.document_mask=true
"$python" - <<'END' || fail "the probe of the gradient lies elsewhere"
import json, sys
cosines = [e["grad_cosine"] for e in map(json.loads, open("fp8/metrics.jsonl")) if e["event"] == "telemetry"]
sys.exit(0 if cosines and min(cosines) > 0.99 else 1)
END

expect 75 "$NIBBLE" train tiny.yaml --set run.dir=stopped --set data.document_mask=true --set train.stop_at=5 \
  --set telemetry.every=4
expect 78 "$NIBBLE" resume stopped --set data.document_mask=false
grep -q "data.document_mask" output.txt || fail "the refusal does not name the key"
expect 0 mpirun -n 2 "$NIBBLE" resume stopped
same stopped masked

expect 0 "$NIBBLE" evaluate masked
grep -q "$(awk '/validation/ {hex = $3} END {print hex}' masked.txt)" output.txt || { cat output.txt masked.txt; fail "evaluate has another loss"; }
expect 0 "$NIBBLE" evaluate masked --set data.document_mask=false
grep -q "$(awk '/validation/ {hex = $3} END {print hex}' masked.txt)" output.txt && fail "evaluate ignores the mask"
expect 0 "$NIBBLE" generate masked --prompt "the" --tokens 8

# The text is one document, longer than all windows: only the additions of the mask itself could change a bit.
expect 0 "$NIBBLE" tokenize text.txt --documents file --vocab-size 512 --validation-share 0 --output whole
for mask in true false; do
  train "whole-$mask" 1 'data.train=whole/train-*.bin' 'data.validation=[]' eval.every=0 train.steps=3 data.document_mask=$mask
done
same whole-true whole-false

expect 78 "$NIBBLE" train tiny.yaml --set run.dir=refused --set data.document_mask=sometimes
grep -q "data.document_mask" output.txt || fail "the refusal does not name the key"
echo "documents in a window do not see each other"
