# The small runs of scripts/gpu_check.sh, which sources this file, as scripts/gpu_check_bundle.sh does: that makes them on
# the CPU, whose losses are the same on every machine, and packs the losses.
# Needs $root, with bin/, data/ and, for a rehearsal, a file `rehearsal`, and a function run PROGRAM ARGUMENT...

# RECIPE-HEAD_DIM. The first have the bits of the CPU with exact GEMMs and attention; the others are near it with those
# that a user gets.
exact_runs=(bf16-64 nvfp4-32 nvfp4-64 nvfp4-128 quartet2-64 nibble-64)
text_runs=(bf16-64 nvfp4-128 nvfp4-32)

# train DIRECTORY RECIPE-HEAD_DIM STEPS ARGUMENT...
train() {
  local arguments=(--set "run.dir=$1" --set "recipe=${2%-*}" --set "model.head_dim=${2#*-}" --set "train.steps=$3"
    --set "data.train=$root/data/train-*.bin" --set "data.validation=$root/data/validation-*.bin"
    --set eval.every=0 --set eval.sequences=16 --set checkpoint.every=0 --set log.tensorboard=false --set telemetry.every=0
    "${@:4}")
  if [ -e "$root/rehearsal" ]; then
    arguments+=(--set "model.pattern=*-*-" --set model.sequence_length=64 --set model.intermediate_size=128
      --set train.micro_batch_sequences=2 --set train.tokens_per_step=128 --set schedule.warmup_steps=0
      --set eval.sequences=2)
  fi
  run nibble train "$root/bin/configs/runs/quickstart.yaml" "${arguments[@]}"
}
train_briefly() { # as train, with fewer steps than the warm-up of the run has
  train "$1" "$2" "$3" --set schedule.warmup_steps=0 "${@:4}"
}
train_exact() { # DIRECTORY RECIPE-HEAD_DIM ARGUMENT...
  train_briefly "$1" "$2" 3 --set train.tokens_per_step=1024 "${@:3}"
}
train_on_text() { # DIRECTORY RECIPE-HEAD_DIM ARGUMENT...
  local steps=100
  if [ -e "$root/rehearsal" ]; then steps=2; fi
  train "$1" "$2" "$steps" "${@:3}"
}
# losses DIRECTORY: a line "loss_hex loss" for each step of a run.
losses() {
  local line
  while IFS= read -r line; do
    if [[ $line == *'"event":"step"'* && $line =~ \"loss\":([^,}]*) ]]; then
      local loss=${BASH_REMATCH[1]}
      [[ $line =~ \"loss_hex\":\"([^\"]*)\" ]]
      printf '%s %s\n' "${BASH_REMATCH[1]}" "$loss"
    fi
  done <"$1/metrics.jsonl"
}
