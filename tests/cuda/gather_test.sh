# comm.gather on GPUs: the bits of the CPU, on one GPU and between two, where codes go through NCCL.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
run() { # NAME ARGUMENT...
  "${@:2}" --set "run.dir=$1" --set optimizer.master_dtype=fp32 --set train.steps=2 --set eval.every=0 \
    --set eval.sequences=2 --set train.tokens_per_step=256 --set schedule.warmup_steps=0 >output.txt 2>&1 ||
    { cat output.txt; fail "$1"; }
}
exact=(--set device=cuda --set cuda.gemm=exact --set cuda.attention=exact)
for format in fp8 nvfp4; do
  run $format-cpu "$NIBBLE" train tiny.yaml --set device=cpu --set comm.gather=$format
  run $format-cuda "$NIBBLE" train tiny.yaml "${exact[@]}" --set comm.gather=$format
  same $format-cuda $format-cpu
  gpus=$(find /dev -maxdepth 1 -name "nvidia[0-9]*" | wc -l)
  if [ "$gpus" -eq 0 ] || [ "$gpus" -ge 2 ]; then # none: the simulator has as many as it is told
    export NIBBLE_SIMULATED_GPUS=2
    run $format-ranks mpirun -n 2 "$NIBBLE" train tiny.yaml "${exact[@]}" --set comm.gather=$format
    run $format-offload mpirun -n 2 "$NIBBLE" train tiny.yaml "${exact[@]}" --set comm.gather=$format \
      --set cuda.offload_optimizer=true
    same $format-ranks $format-cpu
    same $format-offload $format-cpu
  fi
done
[ "$(losses fp8-cpu)" != "$(losses nvfp4-cpu)" ] || fail "both formats have the same losses"
