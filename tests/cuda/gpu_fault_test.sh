# What a run does when the GPU fails under it. After the fault of a kernel, whenever it comes, every call fails: the run
# ends with one clear error and exit code 70, and so does a job of two ranks of which one has the fault. Where memory
# cannot be taken, although it was planned, the exit code is 71, with the remedy. The simulator makes the faults
# (tests/cuda_simulator/runtime.h).
# Labels: cuda faults
source "$SOURCE/tests/tiny_run.sh"
[ -d "$PROGRAMS/../../simulated_libraries" ] || { echo "not run: faults need the simulator"; exit 0; }
tiny_data
settings=(--set device=cuda --set train.steps=2 --set train.tokens_per_step=256 --set schedule.warmup_steps=0
  --set eval.every=1 --set eval.sequences=2 --set checkpoint.every=1)
run=("$NIBBLE" train tiny.yaml "${settings[@]}")
illegal="an illegal memory access was encountered"

# orderly TEXT: output.txt has one error, which says this, and no sign of a crash.
orderly() {
  [ "$(grep -c "^error\[E" output.txt)" -eq 1 ] || { cat output.txt; fail "not one error"; }
  grep -q "$1" output.txt || { cat output.txt; fail "the error does not say $1"; }
  ! grep -qi "terminate called\|segmentation\|aborted\|signal" output.txt || { cat output.txt; fail "no orderly end"; }
}
# with_each_fault KIND FACTOR CODE TEXT: the same run with the fault earlier and later, until it comes after the end; one
# directory a fault. Sets $last to the last number that ended the run.
with_each_fault() {
  local number=1 code
  while code=0; NIBBLE_SIMULATED_CUDA_FAULT="$1 $number" timeout -k 5 120 "${run[@]}" --set "run.dir=$1-$number" \
    >output.txt 2>&1 || code=$?; [ "$code" -ne 0 ]; do
    [ "$code" -eq "$3" ] || { cat output.txt; fail "exit code $code instead of $3 with the fault \"$1 $number\""; }
    orderly "$4"
    last=$number
    number=$((number * $2 + 1))
  done
  [ "$number" -gt 3 ] || fail "no fault of the kind $1"
}

expect 0 "${run[@]}" --set run.dir=whole
with_each_fault launch 2 70 "$illegal"
# The run goes on from its last checkpoint.
expect 0 "$NIBBLE" resume "launch-$last"
same "launch-$last" whole
with_each_fault memory 1 71 "fix: \(set\|use smaller micro-batches\)"

for setting in cuda.graphs=true cuda.offload_optimizer=true; do
  NIBBLE_SIMULATED_CUDA_FAULT="launch $last" expect 70 "${run[@]}" --set "run.dir=$setting" --set "$setting"
  orderly "$illegal"
done

# Two ranks, of which one has the fault: the other one does not wait for it. NCCL's sums begin inside the last backward
# pass, where rank 0 may already wait for rank 1 on its GPU, so that the two cannot agree on the error over MPI.
export NIBBLE_SIMULATED_GPUS=2
for fault in "tree 3" "tree 100" "nccl 3" "nccl 100"; do
  read -r reduction number <<<"$fault"
  ranks=("${run[@]}" --set "run.dir=ranks-$reduction-$number" --set "comm.reduction=$reduction")
  expect 70 timeout -k 5 120 mpirun -n 1 "${ranks[@]}" : \
    -n 1 -x NIBBLE_SIMULATED_CUDA_FAULT="launch $number" "${ranks[@]}"
  grep -q "^error\[E70\]: rank 1: CUDA: .*$illegal" output.txt || { cat output.txt; fail "rank 1 does not say why"; }
  ! grep -qi "terminate called\|segmentation" output.txt || { cat output.txt; fail "no orderly end"; }
done
