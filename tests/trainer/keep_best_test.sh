# checkpoint.keep_best keeps the checkpoint with the lowest validation loss, through resumes on other numbers of ranks.
# Labels: fast
source "$SOURCE/tests/tiny_run.sh"
tiny_data
says() { grep -qF -- "$1" output.txt || { cat output.txt >&2; fail "the output lacks: $1"; }; }
names() { ls "$1/checkpoints" | sed 's/step-0*\(.\)/\1/' | tr '\n' ' '; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
# A learning rate that destroys the model after some steps: the lowest loss is not the last one.
bad=(--set optimizer.learning_rate=3 --set schedule.warmup_steps=12)
keeps=(--set eval.every=1 --set checkpoint.every=6 --set checkpoint.keep_last=1 --set checkpoint.keep_best=validation)
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=whole "${bad[@]}" "${keeps[@]}"
best=$("$python" - <<'PYTHON'
import json
losses = [(e["loss"], e["step"]) for e in map(json.loads, open("whole/metrics.jsonl")) if e["event"] == "validation"]
print(min(losses)[1])
PYTHON
)
[ "$best" -lt 12 ] || fail "the lowest loss is the last one: this shows nothing"
[ "$(names whole)" = "$best 12 " ] || fail "kept $(names whole)instead of $best and 12"
expect 0 "$NIBBLE" checkpoint ls whole --json
"$python" -c "
import json
rows = json.load(open('output.txt'))
assert [row['kept'] for row in rows] == [['best'], ['last']], rows"
expect 0 "$NIBBLE" checkpoint prune whole --keep-last 1
says "nothing to remove"

# Stopped and resumed after every step, on other ranks, the same one is kept and the run has the same bits.
expect 75 mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=parts "${bad[@]}" "${keeps[@]}" --set train.stop_at=$best
for stop in $((best + 1)) 11; do
  expect 75 mpirun -n $((stop % 3 + 1)) "$NIBBLE" resume parts --set train.stop_at=$stop
done
expect 0 "$NIBBLE" resume parts --set train.stop_at=0
[ "$(names parts)" = "$best 12 " ] || fail "after resumes: kept $(names parts)instead of $best and 12"
same parts whole

# A name of no set is refused with the names that there are; evaluate may be given other sets.
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=no --set checkpoint.keep_best=web
says 'checkpoint.keep_best: there is no validation set "web"'
says "the sets of data.validation are: validation"
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=no --set checkpoint.keep_best=validation --set 'data.validation=[]' --set eval.every=0
expect 0 "$NIBBLE" evaluate whole --set 'data.validation={other: data/validation-*.bin}'
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=named --set 'data.validation={web: data/validation-*.bin, code: data/validation-*.bin}' \
  --set checkpoint.keep_best=code
expect 0 "$NIBBLE" checkpoint ls named
grep -qE 'step-00000012 .* last, best$' output.txt || { cat output.txt; fail "the best one is not shown"; }
echo "keep_best: passed"
