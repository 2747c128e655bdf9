# guard.check_products_every: one product every N steps is compared, the same ones on every number of ranks; no loss
# changes; the log and metrics.jsonl say who multiplies what.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=never --set guard.check_products_every=0
! grep -q product_check never/metrics.jsonl || fail "a check that nobody asked for"
for ranks in 1 3; do
  expect 0 mpirun -n $ranks "$NIBBLE" train tiny.yaml --set run.dir=ranks-$ranks --set guard.check_products_every=1
  same never ranks-$ranks
  [ "$(grep -c "nibble: products   " output.txt)" = 1 ] || fail "the log does not say once who multiplies"
done
# Every third step, also of a run that is resumed.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=third --set guard.check_products_every=3 --set train.stop_at=4
expect 0 "$NIBBLE" resume third --set train.stop_at=0
same never third
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=outliers --set recipe=tetrajet2_full --set guard.check_products_every=1 \
  --set model.hidden_size=128 --set model.head_dim=32 --set train.steps=5
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=refused --set guard.product_mismatch=ignore

"$python" - <<'PYTHON'
import json

def events(run, name):
    return [e for e in map(json.loads, open(run + "/metrics.jsonl")) if e["event"] == name]

def checks(run):
    return [(e["step"], e["layer"], e["product"], e["equal"]) for e in events(run, "product_check")]

assert checks("ranks-1") == checks("ranks-3")
assert [step for step, *_ in checks("ranks-1")] == list(range(1, 13)), checks("ranks-1")
assert [step for step, *_ in checks("third")] == [3, 6, 9, 12], checks("third")
assert all(equal is True for run in ("ranks-1", "ranks-3", "third", "outliers") for *_, equal in checks(run))
assert {product for _, _, product, _ in checks("ranks-1")} == {"forward", "grad_input", "grad_weight"}
assert len({layer for _, layer, _, _ in checks("ranks-1")}) > 4
for run, times in (("ranks-1", 1), ("third", 2)):
    names = [e["event"] for e in map(json.loads, open(run + "/metrics.jsonl"))]
    assert names.count("products") == times and names.index("run") < names.index("products") < names.index("step"), names
layers = events("ranks-1", "products")[0]["layers"]
formats = {p["format"] for layer in layers for p in (layer["forward"], layer["grad_input"], layer["grad_weight"])}
assert formats == {"nvfp4", "bf16"}, formats
for layer in layers:
    assert set(layer) == {"name", "forward", "grad_input", "grad_weight"}, layer
    for product in ("forward", "grad_input", "grad_weight"):
        assert layer[product]["library"] == "nibble" and layer[product]["algorithm"].startswith("exact"), layer
PYTHON
