# nibble train --continue: one command that starts a run and goes on with it, and never starts over what is there.
# Labels: fast
source "$SOURCE/tests/tiny_run.sh"
tiny_data
says() { grep -qF -- "$1" output.txt || { cat output.txt >&2; fail "the output lacks: $1"; }; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=whole

# The same command again and again, with another number of ranks in between, is one run.
expect 75 "$NIBBLE" train tiny.yaml --continue --set train.stop_at=5
expect 75 mpirun -n 2 "$NIBBLE" train tiny.yaml --continue --set train.stop_at=9
says "resuming   $WORK/run/checkpoints/step-00000005"
expect 0 "$NIBBLE" train tiny.yaml --continue
says "resuming   $WORK/run/checkpoints/step-00000009"
same run whole
losses run >before.txt
expect 0 "$NIBBLE" train tiny.yaml --continue
says "it has made all its 12 steps"
losses run | cmp - before.txt || fail "a complete run was trained further"

# It starts under mpirun too, where a start has failed before, and beside the log files of a batch system.
mkdir -p begun/checkpoints/.tmp.step-00000000.1.0
touch begun/slurm-17.out begun/config.yaml
expect 0 mpirun -n 2 "$NIBBLE" train tiny.yaml --continue --set run.dir=begun
same begun whole

# train.max_minutes is over before the first step is, so every process makes one step, and a validation that time breaks
# off is made up by the next process.
expect 75 "$NIBBLE" train tiny.yaml --continue --set run.dir=timed --set train.max_minutes=0.0001
says "stopped after step 1, 0.0001 minutes (train.max_minutes): the checkpoint is saved"
for step in 2 3 4 5; do
  expect 75 mpirun -n 2 "$NIBBLE" resume timed
  says "stopped after step $step, "
done
says "validation after step 4"
expect 0 "$NIBBLE" resume timed --set train.max_minutes=600
same timed whole

# It checks what resume checks.
cp -r run changed
expect 78 "$NIBBLE" train tiny.yaml --continue --set run.dir=changed --set optimizer.learning_rate=1e-3
says "resuming would change the run's numbers: optimizer.learning_rate"

# A run whose groups were given by the older key keeps them.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=older --set train.group_micro_batches=1 --set train.stop_at=4
expect 0 "$NIBBLE" train tiny.yaml --continue --set run.dir=older
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=older_straight --set train.group_micro_batches=1
same older older_straight

# What is no run is not touched, and a run that cannot be continued is not started over.
mkdir other
echo text >other/notes.txt
expect 73 "$NIBBLE" train tiny.yaml --continue --set run.dir=other
says "$WORK/other holds no run that could be continued, but notes.txt"
[ "$(ls -A other)" = notes.txt ] || fail "a refused call left something: $(ls -A other)"
expect 73 mpirun -n 2 "$NIBBLE" train tiny.yaml --continue --set run.dir=other
expect 73 "$NIBBLE" train tiny.yaml --continue --set run.dir=tiny.yaml
cp -r run lost
rm -r lost/checkpoints/*
expect 73 "$NIBBLE" train tiny.yaml --continue --set run.dir=lost
says "already holds a run, which ended before its first checkpoint"
cp -r run damaged
for manifest in damaged/checkpoints/*/manifest.json; do echo '{' >"$manifest"; done
expect 65 "$NIBBLE" train tiny.yaml --continue --set run.dir=damaged
says "no checkpoint in $WORK/damaged is whole"
expect 73 "$NIBBLE" train tiny.yaml --continue --set run.dir=damaged
says "damaged holds no run that could be continued, but checkpoints/step-"
expect 73 "$NIBBLE" train tiny.yaml
says "nibble train --continue"
echo "continue: passed"
