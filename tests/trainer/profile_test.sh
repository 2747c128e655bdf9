# Tests --profile of real runs: it is off by default and changes no loss; shares add up; the trace covers the steps with
# properly nested events of every rank.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=without
[ ! -e without/profile.json ] || fail "a profile that nobody asked for"
! grep -q '"profile"' without/metrics.jsonl || fail "profile events that nobody asked for"
! grep -q 'nibble: profile' output.txt || fail "profile lines that nobody asked for"
for ranks in 1 2; do
  expect 0 mpirun -n $ranks "$NIBBLE" train tiny.yaml --profile --set run.dir=ranks-$ranks --set profile.every=5
  [ "$(grep -c 'nibble: profile    steps ' output.txt)" = 3 ] || { cat output.txt; fail "profile lines in the log"; }
  losses without >expected.txt
  losses ranks-$ranks >actual.txt
  cmp expected.txt actual.txt || fail "the profile has changed the losses on $ranks ranks"
done
# A run that stops writes its trace; a resume with --profile writes a trace of its own steps.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=resumed --profile --set train.stop_at=6
cp resumed/profile.json stopped.json
expect 0 "$NIBBLE" resume resumed --profile --set train.stop_at=0
# A run without a step after warm-up has no profile, and does not fail.
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=short --profile --set train.steps=2 --set schedule.warmup_steps=1
[ ! -e short/profile.json ] || fail "a trace of no steps"

"$python" - <<'PYTHON'
import json
from decimal import Decimal

families = {"quantise", "gemm nvfp4", "gemm bf16", "gemm other", "attention", "norm", "activation", "head+loss",
            "embedding", "optimizer", "reduction", "data", "other"}

def trace(path):
    return json.loads(open(path).read(), parse_float=Decimal)

def check_rank(events, steps):
    """Checks that the steps follow each other and that all other events lie inside a step, in the order of their begin.
    Returns the share of each step that the operators directly below it cover."""
    shares = []
    open_events = []
    for event in events:
        begin, length = Decimal(event["ts"]), Decimal(event["dur"])
        while open_events and open_events[-1][1] <= begin:
            open_events.pop()
        if open_events:
            assert open_events[-1][0] <= begin and begin + length <= open_events[-1][1], (event, open_events)
            if len(open_events) == 1:
                shares[-1] += length / (open_events[0][1] - open_events[0][0])
        else:
            assert event["name"] == "step", event
            shares.append(Decimal(0))
        open_events.append((begin, begin + length))
    roots = [event for event in events if event["name"] == "step"]
    assert [root["args"]["step"] for root in roots] == steps and len(shares) == len(steps), roots
    return shares

for path, ranks, steps in (("ranks-1/profile.json", 1, range(3, 13)), ("ranks-2/profile.json", 2, range(3, 13)),
                           ("stopped.json", 1, range(3, 7)), ("resumed/profile.json", 1, range(9, 13))):
    document = trace(path)
    assert set(document) == {"displayTimeUnit", "otherData", "traceEvents"}, path
    events = document["traceEvents"]
    names = [event for event in events if event["ph"] == "M"]
    assert [event["args"]["name"] for event in names] == [f"rank {rank}" for rank in range(ranks)], names
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) + len(names) == len(events)
    assert {event["pid"] for event in complete} == set(range(ranks))
    assert {event["cat"] for event in complete} <= families
    for rank in range(ranks):
        own = [event for event in complete if event["pid"] == rank]
        # Other processes on the machine may lengthen some gaps, but not those of every step.
        covered = max(check_rank(own, list(steps)))
        assert covered >= Decimal("0.95"), f"{path}, rank {rank}: operators cover {covered:.1%} of a step"
        for family in families - {"gemm other"}:
            assert any(event["cat"] == family for event in own), (path, rank, family)

for run in ("ranks-1", "ranks-2"):
    records = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
    lines = [record for record in records if record["event"] == "profile"]
    assert [(line["first_step"], line["step"]) for line in lines] == [(3, 5), (6, 10), (3, 12)], lines
    for line in lines:
        assert set(line["shares"]) == families
        assert abs(sum(line["shares"].values()) - 1) < 1e-12 and min(line["shares"].values()) >= 0, line
        assert line["shares"]["gemm nvfp4"] > 0 and line["shares"]["gemm other"] == 0, line
    # The trace and the record agree about the same steps of one rank.
    if run == "ranks-1":
        roots = [event for event in trace("ranks-1/profile.json")["traceEvents"] if event.get("name") == "step"]
        assert abs(float(sum(Decimal(root["dur"]) for root in roots)) / 1e6 - lines[-1]["seconds"]) < 1e-6
PYTHON
echo "the profile works"
