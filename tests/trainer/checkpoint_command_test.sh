# nibble checkpoint ls, verify, diff and prune.
# Labels: fast
source "$SOURCE/tests/tiny_run.sh"
tiny_data
says() { grep -qF -- "$1" output.txt || { cat output.txt >&2; fail "the output lacks: $1"; }; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
expect 0 mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=a --set checkpoint.keep_last=9
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=b

# diff compares contents, whatever the number of ranks that saved, and names what differs.
expect 0 "$NIBBLE" checkpoint diff a b
says "equal: "
expect 0 "$NIBBLE" checkpoint diff a@8 b/checkpoints/step-00000008
expect 77 "$NIBBLE" checkpoint diff a@8 b@12
grep -qE '^parameters/blocks\.0\..* values differ, by [0-9.e-]+ at most$' output.txt || { cat output.txt; fail "diff names no tensor"; }
grep -qE '^optimizer/adam_m/embedding.weight ' output.txt || fail "diff names no moments"
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=masters --set optimizer.master_dtype=fp32
expect 77 "$NIBBLE" checkpoint diff a masters
grep -qE '^optimizer/.* only in the second$' output.txt || { cat output.txt; fail "an array of one side is not named"; }
expect 66 "$NIBBLE" checkpoint diff a@7 b

# ls
expect 0 "$NIBBLE" checkpoint ls a --json
"$python" - output.txt a/metrics.jsonl <<'PYTHON'
import json, sys
rows = json.load(open(sys.argv[1]))
losses = {}
for line in open(sys.argv[2]):
    event = json.loads(line)
    if event["event"] == "validation":
        losses[event["step"]] = event["loss"]
assert [row["step"] for row in rows] == [0, 4, 8, 12], rows
assert [row["validation_loss"] for row in rows] == [None, losses[4], losses[8], losses[12]], rows
assert all(row["ranks"] == 2 and row["kept"] == ["last"] and not row["damage"] for row in rows), rows
assert rows[3]["tokens"] == 9216 and rows[3]["bytes"] > 100000 and rows[3]["saved"].endswith("Z"), rows
PYTHON
expect 66 "$NIBBLE" checkpoint ls nowhere

# verify reads every byte.
expect 0 "$NIBBLE" checkpoint verify a
[ "$(grep -c '  whole, 5 files' output.txt)" -eq 4 ] || { cat output.txt; fail "verify does not say that four are whole"; }
cp -r a damaged
"$python" - damaged/checkpoints/step-00000008/rank-00001.h5 <<'PYTHON'
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(5000)
    byte = file.read(1)
    file.seek(5000)
    file.write(bytes([byte[0] ^ 1]))
PYTHON
echo '{' >damaged/checkpoints/step-00000004/manifest.json
expect 65 "$NIBBLE" checkpoint verify damaged
says "damaged/checkpoints/step-00000008/rank-00001.h5 has hash"
says "2 of 4 checkpoints of damaged are damaged"
expect 0 "$NIBBLE" checkpoint verify damaged --step 12
expect 65 "$NIBBLE" checkpoint verify damaged --step 8
expect 65 "$NIBBLE" checkpoint verify damaged/checkpoints/step-00000004
expect 66 "$NIBBLE" checkpoint verify damaged --step 7
expect 0 "$NIBBLE" checkpoint ls damaged
says "  DAMAGED: damaged/checkpoints/step-00000004/manifest.json"
expect 65 "$NIBBLE" checkpoint diff a damaged@8

# prune removes as a run does, and only where no run works.
expect 0 "$NIBBLE" checkpoint prune a --keep-last 1 --keep-every 8 --dry-run
[ "$(grep -c '^would remove' output.txt)" -eq 1 ] && says "would remove step-00000004"
[ "$(ls a/checkpoints | wc -l)" -eq 4 ] || fail "a dry run removed something"
expect 69 flock a/lock "$NIBBLE" checkpoint prune a --keep-last 1
expect 0 "$NIBBLE" checkpoint prune a --keep-last 2
[ "$(ls a/checkpoints | tr '\n' ' ')" = "step-00000008 step-00000012 " ] || fail "prune left $(ls a/checkpoints)"
expect 0 "$NIBBLE" checkpoint prune a --keep-last 2
says "nothing to remove"
cp -r damaged broken
printf x >>broken/checkpoints/step-00000012/index.h5
expect 0 "$NIBBLE" checkpoint prune broken --keep-last 1
says "nothing to remove" # the newest that is whole is that of step 0
mkdir nothing
expect 66 "$NIBBLE" checkpoint prune nothing --keep-last 1
[ -z "$(ls -A nothing)" ] || fail "prune made something in a directory that is no run"
echo "checkpoint commands: passed"
