# Tests telemetry of real runs: the run is the same with and without it, the figures are the same on one and two ranks,
# each step has one record after a resume, and the report has a heat map. Telemetry is due directly after a validation,
# which has quantised the weights already.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=without --set telemetry.every=0
for ranks in 1 2; do
  expect 0 mpirun -n $ranks "$NIBBLE" train tiny.yaml --set run.dir=ranks-$ranks --set telemetry.every=5
  grep -q 'telemetry  every 5 steps, with a probe' output.txt || { cat output.txt; fail "the probe is not announced"; }
  losses without >expected.txt
  losses ranks-$ranks >actual.txt
  cmp expected.txt actual.txt || fail "telemetry has changed the losses on $ranks ranks"
  [ "$(state_hash without)" = "$(state_hash ranks-$ranks)" ] || fail "telemetry has changed the weights on $ranks ranks"
done

# The run is stopped after the second telemetry step and resumed from before it, so that step is computed again.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=resumed --set telemetry.every=5 --set train.stop_at=11
rm -r resumed/checkpoints/step-00000011
expect 0 "$NIBBLE" resume resumed --set train.stop_at=0
expect 0 "$NIBBLE" compare without resumed --allow-different
cp resumed/compare.html resumed.html
expect 0 "$NIBBLE" compare ranks-1 without
cp without/compare.html baseline.html
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=plain --set telemetry.every=0 --set recipe=bf16
expect 0 "$NIBBLE" compare without plain
cp plain/compare.html plain.html

"$python" - <<'EOF2'
import json, re

def events(run):
    lines = open(f"{run}/metrics.jsonl").read().splitlines()
    refuse = lambda constant: exit(f"{constant} in {run}/metrics.jsonl")
    return [e for e in (json.loads(line, parse_constant=refuse) for line in lines) if e["event"] == "telemetry"]

def figures(run):
    return [{key: value for key, value in e.items() if key not in ("time", "seconds")} for e in events(run)]

assert events("without") == []
assert [e["step"] for e in events("ranks-1")] == [5, 10]
assert figures("ranks-1") == figures("ranks-2"), "figures depend on the number of ranks"
resumed = figures("resumed")
assert [e["step"] for e in resumed] == [5, 10, 10], resumed
assert [resumed[0], resumed[2]] == figures("ranks-1"), "figures after a resume"
assert resumed[1] == resumed[2]

operands = {"forward.x", "forward.w", "grad_input.dy", "grad_input.w", "grad_weight.dy", "grad_weight.x"}
for event in events("ranks-1"):
    assert 0 < event["seconds"] and 0.5 < event["grad_cosine"] < 1, event
    quantised = [layer for layer in event["layers"] if layer["operands"]]
    assert quantised and len(event["layers"]) == 9, event
    for layer in event["layers"]:
        assert set(layer["operands"]) in (set(), operands), layer
        assert 0 <= layer["grad_zero_share"] <= 1 and -1 <= layer["grad_cosine"] <= 1, layer
        for figure in layer["operands"].values():
            assert 0 < figure["relative_error"] < 0.1, layer
            assert all(0 <= figure[key] <= 1 for key in ("underflow", "clipped", "scales_extreme", "zeros")), layer

def maps(page):
    """The heat maps in the data of a page, by run; None for a run without."""
    data = json.loads(re.search(r'id="data">(.*?)</script>', open(page).read(), re.S).group(1))
    names = data["page"]["data"]["runs"]
    return {name: data[f"telemetry-{i}"]["data"] for i, name in enumerate(names)}

assert maps("baseline.html")["without"] is None and maps("baseline.html")["ranks-1"] is not None
assert list(maps("plain.html").values()) == [None, None]
resumed_map = maps("resumed.html")["resumed"]
assert maps("resumed.html")["without"] is None
assert resumed_map["columns"] == [[5, 5], [10, 10]], resumed_map["columns"]
assert len(resumed_map["layers"]) == 9
(cosine,) = [f for f in resumed_map["figures"] if f["key"] == "grad_cosine"]
cells = cosine["cells"]
wanted = [event["layers"][row]["grad_cosine"] for row in range(9) for event in figures("ranks-1")]
assert len(cells) == len(wanted) and all(abs(a - b) < 1e-4 for a, b in zip(cells, wanted)), cells
EOF2
for tag in telemetry/relative_error/forward.x telemetry/underflow/grad_weight.dy telemetry/grad_cosine \
  telemetry_layers/grad_cosine/blocks.1.mlp.down.weight; do
  grep -aq "$tag" ranks-1/tensorboard/events.* || fail "TensorBoard lacks $tag"
done
echo "telemetry works"
