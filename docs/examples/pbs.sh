#!/usr/bin/env bash
# A run of nibble as a PBS job that goes on until it is complete: qsub -v RUN_DIR=...,CONFIG=...,SCRIPT=/path/pbs.sh pbs.sh
# The run saves a checkpoint and ends with exit code 75 when it has 10 minutes left (train.max_minutes) or when PBS sends
# SIGTERM; the script then hands in a job that resumes it. `qdel` also sends SIGTERM: remove RUN_DIR.go first to end for good.
#PBS -N nibble
#PBS -l select=2:ncpus=32:mpiprocs=8:ngpus=8
#PBS -l walltime=24:00:00
#PBS -j oe
#PBS -r y
set -u
: "${RUN_DIR:?the run directory, on a file system of all nodes}" "${CONFIG:?the configuration}" "${SCRIPT:?this script}"
cd "$PBS_O_WORKDIR" || exit 66
minutes=$((24 * 60 - 10))
command=(train "$CONFIG" --set "run.dir=$RUN_DIR")
if compgen -G "$RUN_DIR/checkpoints/step-*" >/dev/null; then command=(resume "$RUN_DIR"); else touch "$RUN_DIR.go"; fi

# Open MPI that is built for PBS finds the nodes itself; Debian's takes them from the file.
nibble-launch --hostfile "$PBS_NODEFILE" nibble "${command[@]}" --set "train.max_minutes=$minutes" &
launcher=$!
trap 'kill -TERM "$launcher"' TERM
while :; do
  wait "$launcher"
  code=$?
  kill -0 "$launcher" 2>/dev/null || break
done
if { [ "$code" -eq 75 ] || [ "$code" -eq 76 ]; } && [ -e "$RUN_DIR.go" ]; then
  qsub -v "RUN_DIR=$RUN_DIR,CONFIG=$CONFIG,SCRIPT=$SCRIPT" "$SCRIPT" && exit 0
fi
exit "$code"
