# Who multiplies on the device, and what is refused: algorithms that are wrong or unstable are found when they are
# planned, products that become wrong while a run trains end it, and slow paths must be asked for by name. The faults
# are those of the simulator's cuBLASLt.
[ -d "$PROGRAMS/../../simulated_libraries" ] || { echo "not run: faults need the simulator"; exit 0; }
source "$SOURCE/tests/tiny_run.sh"
tiny_data
export NIBBLE_SIMULATED_CAPABILITY=100
train() { # DIRECTORY ARGUMENT...
  "$NIBBLE" train tiny.yaml --set "run.dir=$1" --set device=cuda --set train.tokens_per_step=192 --set train.steps=4 \
    --set schedule.warmup_steps=0 --set 'data.validation=[]' --set eval.every=0 --set eval.sequences=0 --set model.pattern="-*-" --set model.intermediate_size=320 \
    --set train.micro_batch_sequences=3 "${@:2}"
}
products() { # RUN: the distinct "library, algorithm" of its products
  "$python" - "$1" <<'PYTHON'
import json, sys
layers = [e for e in map(json.loads, open(sys.argv[1] + "/metrics.jsonl")) if e["event"] == "products"][0]["layers"]
print(sorted({p["library"] + ": " + p["algorithm"] for l in layers for k, p in l.items() if k != "name"}))
PYTHON
}

# Without a fault: cuda.strict changes nothing where all is native.
expect 0 train plain --set guard.check_products_every=1
[ "$(grep -c '"equal":true' plain/metrics.jsonl)" = 4 ] || fail "four checks that find nothing"
products plain | grep -q "cuBLASLt 13.1.0: native, algorithm 1" || fail "products of plain: $(products plain)"
expect 0 train strict --set cuda.strict=true --set cuda.attention=exact
same plain strict

# An algorithm that is wrong, or unstable, for large outputs: the next one is taken.
for fault in first_wrong first_unstable; do
  NIBBLE_FAKE_CUBLASLT_FAULT=$fault expect 0 train $fault --set guard.check_products_every=1
  grep -q "algorithm 1, tile 0, stages 0 is not used for a GEMM" output.txt || { cat output.txt; fail "$fault is not found"; }
  products $fault | grep -q "native, algorithm 3" || fail "products of $fault: $(products $fault)"
  [ "$(grep -c '"equal":true' $fault/metrics.jsonl)" = 4 ] || fail "$fault: four checks that find nothing"
done
# Resumed with a plan whose algorithm has become wrong.
expect 75 train became --set train.stop_at=2
NIBBLE_FAKE_CUBLASLT_FAULT=first_wrong expect 0 "$NIBBLE" resume became --set train.stop_at=0
grep -q "the plan named it" output.txt || { cat output.txt; fail "the plan's algorithm is not tried again"; }
# No algorithm is right.
NIBBLE_FAKE_CUBLASLT_FAULT=all_wrong expect 78 train none
grep -q "must be asked for by name" output.txt || { cat output.txt; fail "no remedy"; }

# Products that become wrong later.
export NIBBLE_FAKE_CUBLASLT_RIGHT_RUNS=200
NIBBLE_FAKE_CUBLASLT_FAULT=late_wrong expect 76 train later --set guard.check_products_every=1 --set train.steps=12
grep -qE "step [0-9]+: (forward|grad_input|grad_weight) of .* by cuBLASLt 13.1.0 \(native, algorithm 1, .*\) is not the product of its operands: element" \
  output.txt || { cat output.txt; fail "the error does not name layer, product, library and algorithm"; }
grep -q '"equal":false' later/metrics.jsonl || fail "no event of the mismatch"
NIBBLE_FAKE_CUBLASLT_FAULT=late_wrong expect 0 train warned --set guard.check_products_every=1 --set train.steps=12 \
  --set guard.product_mismatch=warn
grep -q "is not the product of its operands" output.txt || fail "no warning"

# Paths that must be asked for by name.
NIBBLE_SIMULATED_CAPABILITY=90 expect 0 train emulated
products emulated | grep -q "emulated in bf16, algorithm 1" || fail "products of emulated: $(products emulated)"
NIBBLE_SIMULATED_CAPABILITY=90 expect 78 train refused --set cuda.strict=true --set cuda.attention=exact
grep -q "cuda.strict: a GEMM of nvfp4 operands is not native: simulated GPU has no FP4 units" output.txt || { cat output.txt; fail "strict"; }
NIBBLE_SIMULATED_CAPABILITY=90 expect 0 train named --set cuda.strict=true --set cuda.attention=exact --set cuda.gemm=emulated
expect 78 train attention --set cuda.strict=true
grep -q "cuda.attention=exact" output.txt || { cat output.txt; fail "strict attention"; }

# Ranks without NCCL: files that are no libraries hide one that the machine may have.
mkdir without_nccl && touch without_nccl/libnccl.so without_nccl/libnccl.so.2
ln -s "$PROGRAMS"/../../simulated_libraries/libcublasLt.so.13 without_nccl
for strict in false true; do
  wanted=$([ $strict = true ] && echo 78 || echo 0)
  LD_LIBRARY_PATH=$PWD/without_nccl NIBBLE_SIMULATED_GPUS=2 expect "$wanted" mpirun -n 2 "$NIBBLE" train tiny.yaml \
    --set "run.dir=ranks-$strict" --set device=cuda --set cuda.strict=$strict --set cuda.attention=exact \
    --set train.steps=1 --set schedule.warmup_steps=0 --set eval.sequences=2
  grep -q "there is no NCCL on rank 0" output.txt || { cat output.txt; fail "a slow exchange is not named"; }
done
