#!/usr/bin/env bash
# Starts mpirun so that a run saves a checkpoint when it is asked to stop: TERM, HUP, Ctrl-C and USR1 all become SIGUSR1
# for the ranks, which write a checkpoint and exit with 75 (plain mpirun kills its ranks two seconds after a TERM). A
# second signal ends the run at once.
# Usage: scripts/launch.sh MPIRUN_ARGUMENTS... nibble train CONFIG       (installed: nibble-launch)
# Example: scripts/launch.sh -n 2 build/nibble train run.yaml
set -u
case "${1:-}" in -h | --help | "") sed -n '2,6s/^# //p' "$0"; exit 0 ;; esac
# mpirun binds each of one or two ranks to a single core unless told otherwise. Open MPI 4 and 5 read different names.
export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}
export PRTE_MCA_hwloc_default_binding_policy=${PRTE_MCA_hwloc_default_binding_policy:-none}
if [ "$(id -u)" -eq 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

# Copies lines, but for mpirun's word on signals and its boxes about an exit code other than 0: nibble has said why, and 75
# is no failure.
# Open MPI 5 has no setting for this, and that of Open MPI 4 silences errors too.
without_boxes() {
  trap '' TERM HUP INT USR1
  local line rule='' inside=
  while IFS= read -r line || [ -n "$line" ]; do
    if [[ $line =~ ^-{70,}$ ]]; then
      if [ -n "$inside" ]; then inside= rule=; continue; fi
      if [ -n "$rule" ]; then printf '%s\n' "$rule"; fi
      rule=$line
      continue
    fi
    if [ -n "$rule" ]; then
      case "$line" in
        *" detected that one or more processes exited with non-zero status"* | "Primary job  terminated normally"*) inside=yes ;;
        *) printf '%s\n' "$rule" ;;
      esac
      rule=
    fi
    if [ -z "$inside" ] && [[ $line != "mpirun: Forwarding signal "* ]]; then printf '%s\n' "$line"; fi
  done
  if [ -n "$rule" ]; then printf '%s\n' "$rule"; fi
}
exec {errors}> >(without_boxes >&2)
filter=$!

# setsid: the terminal's Ctrl-C must reach this script alone, not mpirun.
setsid mpirun "$@" 2>&"$errors" {errors}>&- &
launcher=$!
exec {errors}>&-
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
wait "$filter"
exit "$code"
