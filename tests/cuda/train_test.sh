# Whole runs on the device: with exact products they have the losses, weights and moments of the CPU, bit for bit, in
# every recipe; checkpoints go back and forth between the devices; what cannot be done is refused.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
exact=(--set device=cuda --set cuda.gemm=exact --set cuda.attention=exact)
train() { # DIRECTORY ARGUMENT...
  expect 0 "$NIBBLE" train tiny.yaml --set "run.dir=$1" "${@:2}"
}

# Every recipe that nibble ships: the second step quantises weights that have changed. A step has one micro-batch here;
# the runs below have several.
for recipe in "$SOURCE"/configs/recipes/*.yaml; do
  name=$(basename "$recipe" .yaml)
  short=(--set "recipe=$name" --set train.steps=2 --set schedule.warmup_steps=0 --set train.tokens_per_step=128
    --set eval.sequences=2 --set telemetry.every=2 --set model.hidden_size=128 --set model.head_dim=32)
  train "cpu-$name" --set device=cpu "${short[@]}"
  train "cuda-$name" "${exact[@]}" "${short[@]}"
  same "cpu-$name" "cuda-$name"
done

# Packed documents that do not see each other; and two micro-batches of a recipe with rotations.
for device in cpu cuda; do
  train "documents-$device" "${exact[@]}" --set "device=$device" --set data.document_mask=true --set recipe=quartet2 \
    --set train.steps=2 --set schedule.warmup_steps=0 --set train.tokens_per_step=256 --set eval.sequences=2 \
    --set model.hidden_size=128 --set model.head_dim=32
done
same documents-cpu documents-cuda

# Few steps, but one of warm-up and several after it, an evaluation and a checkpoint between steps, and steps on both
# sides of where runs are stopped.
tiny=(--set train.tokens_per_step=384 --set train.steps=4 --set schedule.warmup_steps=1 --set eval.every=3
  --set eval.sequences=2 --set checkpoint.every=3)

# The whole tiny run: recompute, BF16 moments, a step as one graph, optimizer state on the host.
train cpu --set device=cpu "${tiny[@]}" --set optimizer.moment_dtype=bf16
train cuda "${exact[@]}" "${tiny[@]}" --set optimizer.moment_dtype=bf16 --set train.recompute=0,1 --set cuda.graphs=true
same cpu cuda
train offload "${exact[@]}" "${tiny[@]}" --set optimizer.moment_dtype=bf16 --set cuda.offload_optimizer=true
same cpu offload

# Half a run here, the other half there.
for first in cpu cuda; do
  second=cuda
  [ "$first" = cpu ] || second=cpu
  expect 75 "$NIBBLE" train tiny.yaml --set "run.dir=from-$first" "${tiny[@]}" --set optimizer.moment_dtype=bf16 "${exact[@]}" \
    --set "device=$first" --set train.stop_at=2
  expect 0 "$NIBBLE" resume "from-$first" --set train.stop_at=0 --set "device=$second" --set 'resume.allow=[device]'
  same cpu "from-$first"
done

# Ranks, one GPU each.
NIBBLE_SIMULATED_GPUS=3 expect 0 mpirun -n 3 "$NIBBLE" train tiny.yaml --set run.dir=ranks "${exact[@]}" "${tiny[@]}" \
  --set optimizer.moment_dtype=bf16
same cpu ranks
# More ranks than groups: micro-batches are dealt out, and the gradient's slices travel from GPU to GPU.
train one-group --set device=cpu "${tiny[@]}" --set train.gradient_groups=1
for reduction in tree nccl; do
  NIBBLE_SIMULATED_GPUS=3 expect 0 mpirun -n 3 "$NIBBLE" train tiny.yaml --set "run.dir=stripes-$reduction" "${exact[@]}" \
    "${tiny[@]}" --set train.gradient_groups=1 --set "comm.reduction=$reduction"
  grep -q 'stripes: more ranks than groups' output.txt || fail "ranks are idle with comm.reduction=$reduction"
done
same one-group stripes-tree

# Commands that read a checkpoint compute on the device, too.
expect 0 "$NIBBLE" evaluate cpu --set device=cpu
sed 's/.*loss/loss/' output.txt >evaluated.txt
expect 0 "$NIBBLE" evaluate cpu "${exact[@]}"
sed 's/.*loss/loss/' output.txt | cmp - evaluated.txt || fail "evaluate differs"
expect 0 "$NIBBLE" generate cpu --prompt "the" --tokens 8 --set device=cpu
cp output.txt generated.txt
expect 0 "$NIBBLE" generate cpu --prompt "the" --tokens 8 "${exact[@]}"
cmp output.txt generated.txt || fail "generate differs"

# With the GEMMs of libraries the sums differ, and the run is the same but for rounding.
train fast --set device=cuda "${tiny[@]}" --set optimizer.moment_dtype=bf16
grep -q "cuBLASLt" output.txt || fail "the log does not say which library multiplies"
[ -s fast/gemm_plan.txt ] || fail "the run does not keep its algorithms"
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=stopped --set device=cuda "${tiny[@]}" --set optimizer.moment_dtype=bf16 \
  --set train.stop_at=2
expect 0 "$NIBBLE" resume stopped --set train.stop_at=0
same fast stopped
# NCCL's own sums, while the backward pass runs.
NIBBLE_SIMULATED_GPUS=3 expect 0 mpirun -n 3 "$NIBBLE" train tiny.yaml --set run.dir=overlapped --set device=cuda \
  "${tiny[@]}" --set optimizer.moment_dtype=bf16 --set comm.reduction=nccl
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=refused --set device=cpu --set comm.reduction=nccl
for run in fast overlapped; do
  "$python" - cpu "$run" <<'END' || fail "losses of $run are too far away"
import json, sys
def last(run):
    return [json.loads(l) for l in open(run + "/metrics.jsonl") if '"event":"step"' in l][-1]["loss"]
a, b = last(sys.argv[1]), last(sys.argv[2])
sys.exit(0 if a != b and abs(a - b) < 0.02 else 1)
END
done

# One visible GPU a rank, as Slurm gives them.
one_gpu_each='NIBBLE_SIMULATED_VISIBLE_DEVICES=$((5 - OMPI_COMM_WORLD_RANK)) exec "$@"'
expect 0 mpirun -n 3 sh -c "$one_gpu_each" sh "$NIBBLE" train tiny.yaml --set run.dir=one-each "${exact[@]}" \
  "${tiny[@]}" --set optimizer.moment_dtype=bf16
same cpu one-each
# Ranks on the same GPU: more of them than GPUs, and two lists of GPUs that overlap.
NIBBLE_SIMULATED_GPUS=1 expect 78 mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=refused --set device=cuda
grep -q "ranks 0 and 1 have the same GPU (simulated GPU, GPU-00000000-" output.txt || fail "one GPU is not named"
overlapping='NIBBLE_SIMULATED_VISIBLE_DEVICES=$((OMPI_COMM_WORLD_RANK)),$((3 - OMPI_COMM_WORLD_RANK)) exec "$@"'
expect 78 mpirun -n 3 sh -c "$overlapping" sh "$NIBBLE" train tiny.yaml --set run.dir=refused --set device=cuda
grep -q "ranks 1 and 2 have the same GPU (simulated GPU, GPU-02000000-" output.txt || fail "one GPU is not named"
# A rank without a GPU beside one that has one.
beside='NIBBLE_SIMULATED_GPUS=$OMPI_COMM_WORLD_RANK exec "$@"'
expect 78 mpirun -n 2 sh -c "$beside" sh "$NIBBLE" train tiny.yaml --set run.dir=refused
grep -q "rank 1 has a GPU and rank 0 has none" output.txt || fail "a rank without a GPU is not named"

# No GPU or no driver: auto says so once and goes on, cuda is refused with the remedy.
short=(--set train.steps=3 --set eval.sequences=2)
without() { # REASON DIRECTORY VARIABLE...
  expect 0 env "${@:3}" "$NIBBLE" train tiny.yaml --set "run.dir=$2" "${short[@]}"
  [ "$(grep -c "running on the CPU ($1)" output.txt)" -eq 1 ] || fail "auto did not say once that it uses the CPU"
  expect 78 env "${@:3}" "$NIBBLE" train tiny.yaml --set run.dir=refused --set device=cuda
  grep -q "device cuda was asked for, but $1" output.txt && grep -q "device: auto" output.txt ||
    fail "the error does not tell the remedy"
}
without "no GPU is visible" none NIBBLE_SIMULATED_GPUS=0
without "no NVIDIA driver is installed" no-driver NIBBLE_SIMULATED_DEVICE_STATUS=35 NIBBLE_SIMULATED_DRIVER=0
# A GPU that cannot be used is refused, also with auto.
unusable() { # TEXT REMEDY VARIABLE...
  for device in auto cuda; do
    expect 78 env "${@:3}" "$NIBBLE" train tiny.yaml --set run.dir=refused --set "device=$device" "${short[@]}"
    grep -q "$1" output.txt && grep -q "$2" output.txt || fail "the error does not say \"$1\" or \"$2\""
  done
}
unusable "driver version is insufficient .*the driver is for CUDA 12.8, nibble was built with 13.0" "update the driver" \
  NIBBLE_SIMULATED_DEVICE_STATUS=35 NIBBLE_SIMULATED_DRIVER=12080
unusable "system not yet initialized" "start nvidia-fabricmanager" NIBBLE_SIMULATED_DEVICE_STATUS=802
unusable "simulated error" "nvidia-smi" NIBBLE_SIMULATED_DEVICE_STATUS=999
