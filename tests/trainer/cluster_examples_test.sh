# The examples of docs/examples/, without a cluster: they can be parsed, and with stand-ins for nibble-launch, scontrol and qsub
# the Slurm and PBS scripts start, resume, queue again and end as they say.
# Labels: fast
set -euo pipefail
rm -rf "$WORK"
mkdir -p "$WORK/bin"
cd "$WORK"
fail() { echo "FAILED: $*" >&2; exit 1; }
examples=$SOURCE/docs/examples
for script in "$examples"/*.sh; do bash -n "$script"; done
/usr/bin/python3 - "$examples/kubernetes.yaml" >kubernetes.sh <<'END'
import sys, yaml
job = yaml.safe_load(open(sys.argv[1]))
pod = job["spec"]["template"]["spec"]
container = pod["containers"][0]
assert job["kind"] == "Job" and pod["restartPolicy"] == "Never" and container["command"] == ["bash", "-c"], job
assert job["spec"]["podFailurePolicy"]["rules"][0] == {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [75]}}
assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
print(container["args"][0])
END
bash -n kubernetes.sh
grep -q "^COPY --from=build " "$examples/Containerfile" && grep -qx "FROM debian:12-slim AS build" "$examples/Containerfile"

# In place of nibble-launch: makes a checkpoint, says what it was started with, and ends as the file `plan` has it, a line a
# start: "wait" for a request to save a checkpoint, or an exit code.
cat >bin/nibble-launch <<'END'
#!/usr/bin/env bash
echo "${*/#*nibble/nibble}" >>starts
mkdir -p run/checkpoints/step-00000000
plan=$(head -n 1 plan)
sed -i 1d plan
if [ "$plan" != wait ]; then exit "$plan"; fi
trap 'exit 75' USR1 TERM
touch waiting
while :; do sleep 0.05; done
END
printf '#!/usr/bin/env bash\necho "$(basename "$0") $*" >>queued\n' | tee bin/scontrol >bin/qsub
chmod +x bin/*
export PATH=$WORK/bin:$PATH RUN_DIR=run CONFIG=run.yaml SLURM_JOB_ID=17 PBS_O_WORKDIR=$WORK PBS_NODEFILE=nodes SCRIPT=pbs.sh
begin() { rm -rf run run.go starts queued waiting; printf '%s\n' "$@" >plan; }
job() { # SCRIPT EXPECTED_CODE [SIGNAL]
  local code=0
  rm -f waiting
  bash "$examples/$1" >output.txt 2>&1 &
  local pid=$!
  if [ -n "${3:-}" ]; then
    for _ in $(seq 200); do [ -e waiting ] && break; sleep 0.05; done
    kill "-$3" "$pid"
  fi
  wait "$pid" || code=$?
  [ "$code" -eq "$2" ] || { cat output.txt; fail "$1 ended with $code instead of $2"; }
}
started() { # COUNT LAST_COMMAND
  [ "$(wc -l <starts)" -eq "$1" ] && tail -n 1 starts | grep -q "nibble $2" || { cat starts; fail "not $1 starts, the last of $2"; }
}

# Time is up: a checkpoint, and the job is queued again; then it resumes and is complete.
begin wait 0
job slurm.sh 0 USR1
started 1 "train run.yaml --set run.dir=run"
[ "$(cat queued)" = "scontrol requeue 17" ] || fail "the job is not queued again"
job slurm.sh 0
started 2 "resume run"
[ "$(wc -l <queued)" -eq 1 ] || fail "a complete run is queued again"
# A lost rank: the run resumes in the same job, up to two times; another error ends it.
begin 76 76 0
job slurm.sh 0
started 3 "resume run"
begin 76 76 76
job slurm.sh 76
begin 65
job slurm.sh 65
started 1 train
# A cancelled job saves a checkpoint and is not queued again.
begin wait
job slurm.sh 75 TERM
[ ! -e queued ] || fail "a cancelled job is queued again"

begin wait 0
job pbs.sh 0 TERM
started 1 "train run.yaml --set run.dir=run --set train.max_minutes=1430"
grep -q '^qsub -v RUN_DIR=run,CONFIG=run.yaml,SCRIPT=pbs.sh pbs.sh$' queued || fail "no job that goes on"
job pbs.sh 0
started 2 "resume run --set train.max_minutes=1430"
begin wait
job pbs.sh 0 TERM
rm run.go queued
printf '75\n' >plan
job pbs.sh 75
[ ! -e queued ] || fail "a run that is to end is queued again"
echo "the examples do what they say"
