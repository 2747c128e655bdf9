# Tests nibble bench: the tables and the JSON of a quick run name the same cases, figures agree with each other, and bad
# options are usage errors. No figure is compared with a time.
source "$SOURCE/tests/tiny_run.sh"

export TMPDIR=$WORK/scratch
mkdir "$TMPDIR"
expect 0 "$NIBBLE" bench --quick --threads 2 --json bench.json
cp output.txt table.txt
[ -z "$(ls -A "$TMPDIR")" ] || fail "files are left behind in the temporary directory"
"$NIBBLE" bench --quick --threads 1 --only 'gemm/nvfp4/forward/*' --json - >only.json

"$python" - <<'PYTHON'
import json

def load(path):
    refuse = lambda constant: exit(f"{constant} in {path}")
    return json.loads(open(path).read(), parse_constant=refuse)

def close(a, b):
    return abs(a - b) <= 1e-9 * max(abs(a), abs(b))

bench = load("bench.json")
table = open("table.txt").read()
assert list(bench) == ["nibble", "machine", "settings", "peaks", "kernels", "training"], list(bench)
assert set(bench["machine"]) == {"processor", "instruction_set", "available_threads", "parallel_efficiency"}, bench["machine"]
assert bench["settings"]["threads"] == [1, 2], bench["settings"]

names = [case["name"] for case in bench["peaks"] + bench["kernels"] + bench["training"]]
assert len(names) == len(set(names))
families = {name.split("/")[0] for name in names}
assert families == {"peak", "gemm", "quantize", "attention", "rope", "norm", "embedding", "swiglu", "cross_entropy",
                    "adamw", "reduction", "train"}, families
for name in names:
    assert f"\n{name} " in table, name

peaks = {case["name"]: case for case in bench["peaks"]}
assert any("fp32_fma" in name for name in peaks) and any("memory/read" in name for name in peaks), peaks
for case in bench["peaks"] + bench["kernels"]:
    assert case["unit"] in ("GFLOP/s", "Gelem/s", "GB/s"), case
    assert [m["threads"] for m in case["measurements"]] == [1, 2], case
    assert [m["clock"] for m in case["measurements"]] == ["processor time", "wall time"], case
rate_of = lambda case, i: case["measurements"][i]["rate"]
assert all(rate_of(peaks[name], i) > 0 for i in (0, 1) for name in ("peak/fp32_fma", "peak/memory/copy"))

for case in bench["kernels"]:
    for measurement in case["measurements"]:
        assert measurement["rate"] > 0 and measurement["seconds"] > 0, case
        if case["limited_by"] == "bandwidth":
            assert case["unit"] == "Gelem/s" and case["bytes_read"] > 0 and case["working_set_bytes"] > 0, case
        else:
            assert case["unit"] == "GFLOP/s", case
            assert close(measurement["rate"], case["flops"] * 1e-9 / measurement["seconds"]), case
        if "limit" in measurement:
            assert close(measurement["share_of_limit"], measurement["rate"] / measurement["limit"]), case
        elif bench["machine"]["instruction_set"] != "portable":
            exit(f"no limit: {case}")
        assert ("rival" in case) == ("speed_over_rival" in measurement), case
    if "rival" in case:
        assert case["name"].startswith("gemm/nvfp4/") and case["rival"] == case["name"].replace("nvfp4", "bf16"), case
        assert case["rival"] in names

for model in bench["training"]:
    assert [rate["recipe"] for rate in model["recipes"]] == ["bf16", "nvfp4"], model
    assert model["recipes"][0]["speed_over_bf16"] == 1 and model["parameters"] > 1e5, model
    assert all(rate["tokens_per_second"] > 0 and rate["mfu"] > 0 for rate in model["recipes"]), model

# Selecting a case also measures its rival and the peaks of its table, and nothing else; standard output is only JSON.
only = load("only.json")
assert [case["name"].rsplit("/", 1)[0] for case in only["kernels"]] == ["gemm/nvfp4/forward", "gemm/bf16/forward"]
assert only["training"] == [] and len(only["peaks"]) == len(peaks)
assert [m["threads"] for m in only["kernels"][0]["measurements"]] == [1]
PYTHON

# Every instruction-set level has its limits.
for level in portable avx2; do
  NIBBLE_ISA=$level "$NIBBLE" bench --quick --threads 1 --only 'gemm/*/forward/*' >level.txt 2>error.txt ||
    { grep -q 'error\[E64\]: NIBBLE_ISA' error.txt || fail "bench at level $level"; continue; }
  grep -q "^level *$level" level.txt || fail "bench does not name the level $level"
done

expect 64 "$NIBBLE" bench --only 'no/such/*' && grep -q 'matches nothing' output.txt
expect 64 "$NIBBLE" bench --only 'gemm/[' && grep -q 'error\[E64\]: --only' output.txt
expect 64 "$NIBBLE" bench --threads 0
expect 66 "$NIBBLE" bench --quick --recipe no_such_recipe --only train
expect 73 "$NIBBLE" bench --quick --threads 1 --only peak --json no/such/directory/bench.json
expect 64 mpirun -n 2 "$NIBBLE" bench --quick
grep -q 'without mpirun' output.txt || fail "bench under a launcher"
echo "bench works"
