#!/usr/bin/env bash
# A run of nibble as a Slurm job that goes on until it is complete: sbatch --export=ALL,RUN_DIR=...,CONFIG=... slurm.sh
# Slurm sends this script (B:) SIGUSR1 five minutes before the time is up. The run then saves a checkpoint and ends with
# exit code 75, and the job is queued again, where it resumes. A job that is cancelled saves a checkpoint and stays ended.
#SBATCH --job-name=nibble
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -u
: "${RUN_DIR:?the run directory, on a file system of all nodes}" "${CONFIG:?the configuration}"
cancelled=

run() { # starts or resumes the run and waits for it; Open MPI takes the nodes and the number of ranks from Slurm
  local command=(train "$CONFIG" --set "run.dir=$RUN_DIR")
  if compgen -G "$RUN_DIR/checkpoints/step-*" >/dev/null; then command=(resume "$RUN_DIR"); fi
  nibble-launch --map-by "ppr:${SLURM_NTASKS_PER_NODE:-1}:node" nibble "${command[@]}" &
  launcher=$!
  trap 'kill -USR1 "$launcher"' USR1
  trap 'cancelled=yes; kill -TERM "$launcher"' TERM
  local code
  while :; do
    wait "$launcher"
    code=$?
    # wait returns early when a trap runs.
    kill -0 "$launcher" 2>/dev/null || return "$code"
  done
}

for attempt in 1 2 3; do
  run
  code=$?
  # 76: a rank was lost or hung. The last checkpoint is whole, so the run resumes in this allocation.
  if [ "$code" -ne 76 ] || [ -n "$cancelled" ]; then break; fi
  echo "attempt $attempt ended with exit code 76"
done
if [ "$code" -eq 75 ] && [ -z "$cancelled" ]; then
  scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
exit "$code"
