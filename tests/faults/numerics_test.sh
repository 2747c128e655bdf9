# Tests a run whose numbers overflow: a step that is not finite is computed again, reported and not applied; more such
# steps than the budget allows end the run with 77; the count continues after a resume; the last checkpoint is intact
# and can be resumed.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
# guard RUN: prints the decisions about each step, from the metrics after the last resume.
guard_events() {
  "$python" - "$1/metrics.jsonl" <<'PYTHON'
import json, sys

events = []
for line in open(sys.argv[1]):
    event = json.loads(line)
    events = [] if event["event"] == "resume" else events + [event]
steps = [event for event in events if event["event"] == "step"]
warnings = {event["step"]: event for event in events if event["event"] == "warning"}
skipped = [step for step in steps if not step.get("applied", True)]
assert skipped, "no step was skipped"
for step in steps:
    if step not in skipped:
        assert not {"applied", "retried", "non_finite", "skipped_total"} & step.keys(), step
for step in skipped:
    assert step["retried"] is True and step["non_finite"] > 0, step
    warning = warnings[step["step"]]
    first, second = warning["attempts"]
    assert warning["kind"] == "skipped_step" and warning["same_bits"] is True, warning
    assert first == second and second["loss_hex"] == step["loss_hex"], warning
    assert "same bits" in warning["text"], warning
print(" ".join(f'{step["step"]}:{step["skipped_total"]}' for step in skipped))
PYTHON
}
explode() { # CODE RANKS OVERRIDE...: resumes the run with what makes its numbers overflow
  local wanted=$1 ranks=$2 arguments=()
  shift 2
  for override in "$@"; do arguments+=(--set "$override"); done
  expect "$wanted" mpirun -n "$ranks" "$NIBBLE" resume exploding --set optimizer.learning_rate=10 \
    --set optimizer.weight_decay=10 --set checkpoint.every=0 --set log.tensorboard=false \
    --set 'resume.allow=[optimizer.learning_rate, optimizer.weight_decay]' "${arguments[@]}"
}
expect 75 mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=exploding --set train.stop_at=4 --set train.steps=80
before=$(state_hash exploding)

explode 77 2 train.stop_at=0
grep -q 'not finite: 4 skipped steps in a row (guard.skip_in_a_row allows 3)' output.txt ||
  { cat output.txt; fail "no word about the budget"; }
grep -q 'skipped 4$' output.txt || { cat output.txt; fail "the progress line does not count"; }
two_ranks=$(guard_events exploding)
[ "$(wc -w <<<"$two_ranks")" -eq 4 ] || fail "skipped: $two_ranks"
[ "$(state_hash exploding)" = "$before" ] || fail "the checkpoint has changed"
first=${two_ranks%%:*}

# The decisions are the same on one rank. Then the run stops amid the skipped steps: the next process continues the
# count.
explode 77 1 train.stop_at=0
[ "$(guard_events exploding)" = "$two_ranks" ] || fail "other steps are skipped on one rank"
cp -r exploding before-skips
explode 75 2 train.stop_at=$((first + 1))
[ "$(guard_events exploding)" = "$first:1 $((first + 1)):2" ] || fail "skipped before the stop: $(guard_events exploding)"
expect 0 "$NIBBLE" inspect exploding
grep -q '^skipped steps     2$' output.txt || { cat output.txt; fail "inspect does not tell"; }
cp -r exploding stopped
explode 77 1 train.stop_at=0
[ "$(guard_events exploding)" = "$((first + 2)):3 $((first + 3)):4" ] || fail "resumed: $(guard_events exploding)"
# The budget of the whole run, which a resume does not refill.
rm -rf exploding && mv stopped exploding
explode 77 2 train.stop_at=0 guard.skip_in_a_row=100 guard.skip_total=6
grep -q '7 in the whole run (guard.skip_total allows 6)' output.txt || { cat output.txt; fail "other counts"; }
[ "$(guard_events exploding | wc -w)" -eq 5 ] || fail "in the whole run: $(guard_events exploding)"

# From the earlier checkpoint, with the old learning rate, the run completes.
rm -rf exploding && mv before-skips exploding
expect 0 "$NIBBLE" resume exploding --set train.stop_at=0 --set optimizer.learning_rate=3e-3 \
  --set optimizer.weight_decay=0.1 --set checkpoint.every=40
grep -q skipped output.txt && { cat output.txt; fail "skipped steps of a history that did not happen"; }
echo "numerics gives up in order"
