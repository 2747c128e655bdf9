#!/usr/bin/env bash
# Starts mpirun so that a run saves a checkpoint when it is asked to stop: TERM, HUP, Ctrl-C and USR1 all become SIGUSR1
# for the ranks, which write a checkpoint and exit with 75 (plain mpirun kills its ranks two seconds after a TERM). A
# second signal ends the run at once.
# Usage: scripts/launch.sh MPIRUN_ARGUMENTS... nibble train CONFIG
# Example: scripts/launch.sh -n 2 build/nibble train run.yaml
set -u
case "${1:-}" in -h | --help | "") sed -n '2,6s/^# //p' "$0"; exit 0 ;; esac
# mpirun binds each of one or two ranks to a single core unless told otherwise.
export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}
if [ "$(id -u)" -eq 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

# setsid: the terminal's Ctrl-C must reach this script alone, not mpirun.
setsid mpirun "$@" &
launcher=$!
signals=0
stop() {
  signals=$((signals + 1))
  if [ "$signals" -eq 1 ]; then
    echo "launch: asking the ranks to save a checkpoint and stop (again to end at once)" >&2
    kill -USR1 "$launcher" 2>/dev/null
  else
    kill -TERM "$launcher" 2>/dev/null
  fi
}
trap stop TERM INT HUP USR1
while :; do
  wait "$launcher"
  code=$?
  # wait returns early when a trap runs, while the launcher is still alive.
  kill -0 "$launcher" 2>/dev/null || break
done
exit "$code"
