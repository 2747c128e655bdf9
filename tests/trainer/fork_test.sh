# nibble fork and nibble resume --step: another future of a run from a checkpoint, beside the first or in its place, with
# the bits of the run that was not touched.
# Labels: fast
source "$SOURCE/tests/tiny_run.sh"
tiny_data
says() { grep -qF -- "$1" output.txt || { cat output.txt >&2; fail "the output lacks: $1"; }; }
journal() { "$python" -c "import json,sys; print([json.loads(line) for line in open('$1/journal.jsonl')]$2)"; }
hashes() { (cd "$1" && find . -type f | sort | xargs sha256sum); }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
expect 0 mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=whole
hashes whole >whole.txt

# A fork holds the checkpoint byte for byte, the metrics up to its step, and says where it comes from.
expect 0 "$NIBBLE" fork whole --step 8 --to forks/a/
says "forked whole at step 8 (6,144 tokens)"
[ "$(ls -A forks)" = a ] || fail "the fork left something beside itself: $(ls -A forks)"
[ "$(ls forks/a)" = "$(printf '%s\n' checkpoints config.yaml journal.jsonl metrics.jsonl)" ] || fail "$(ls forks/a)"
diff -r whole/checkpoints/step-00000008 forks/a/checkpoints/step-00000008 || fail "the checkpoint is no copy"
[ "$(losses forks/a)" = "$(losses whole | awk '($1 == "validation" ? $2 : $1) <= 8')" ] || fail "the metrics of the fork"
[ "$(journal forks/a '[0]["kind"]')" = fork ] || fail "the journal does not begin with the fork"
[ "$(journal forks/a '[0]["run"]')" = "$WORK/whole" ] || fail "the journal does not name the run"
journal forks/a '[0]["checkpoint_hash"]' | grep -qE '^[0-9a-f]{32}$' || fail "the journal does not name the checkpoint's hash"
grep -q "dir: $WORK/forks/a$" forks/a/config.yaml || fail "run.dir of the fork"

# Resumed on another number of ranks it is the same run; with resume.allow it is another one. TensorBoard begins there.
expect 0 mpirun -n 3 "$NIBBLE" resume forks/a
same forks/a whole
events=$(ls forks/a/tensorboard)
"$python" "$SOURCE/tests/run_tools.py" events "forks/a/tensorboard/$events" >events.txt
[ "$(awk '$1 == "loss/train" { print $2 }' events.txt | tr '\n' ' ')" = "6912 7680 8448 9216 " ] ||
  fail "TensorBoard does not draw the steps after the fork over tokens: $(cat events.txt)"
expect 0 "$NIBBLE" fork whole --to forks/b
says "at step 12"
expect 0 "$NIBBLE" fork whole --step 4 --to forks/c
expect 78 "$NIBBLE" resume forks/c --set optimizer.learning_rate=1e-3
expect 0 "$NIBBLE" resume forks/c --set optimizer.learning_rate=1e-3 --set 'resume.allow=[optimizer.learning_rate]'
[ "$(losses forks/c | awk '$1 == 5')" = "$(losses whole | awk '$1 == 5')" ] || fail "step 5 has the weights of step 4"
[ "$(losses forks/c | tail -1)" != "$(losses whole | tail -1)" ] || fail "another learning rate changes nothing"
expect 0 "$NIBBLE" compare whole forks/c --allow-different
expect 0 "$NIBBLE" evaluate whole@8
expect 66 "$NIBBLE" evaluate whole@9
says "there are those of steps 4, 8, 12"

# What cannot be forked leaves nothing, and the source is as it was.
expect 73 "$NIBBLE" fork whole --step 8 --to forks/a
says "$WORK/forks/a exists already"
mkdir empty
expect 73 "$NIBBLE" fork whole --to empty
expect 66 "$NIBBLE" fork whole --step 7 --to forks/d
says "there is no checkpoint of step 7 in $WORK/whole"
says "there are those of steps 4, 8, 12"
expect 66 "$NIBBLE" fork nowhere --to forks/d
says "there is no checkpoint in $WORK/nowhere"
expect 66 "$NIBBLE" fork whole/checkpoints/step-00000008 --to forks/d
cp -r whole damaged
printf 'x' >>damaged/checkpoints/step-00000012/index.h5
expect 65 "$NIBBLE" fork damaged --step 12 --to forks/d
says "damaged/checkpoints/step-00000012/index.h5"
expect 0 "$NIBBLE" fork damaged --to forks/passed
says "at step 8"
[ "$(ls -A forks | tr '\n' ' ')" = "a b c passed " ] || fail "a refused fork left something: $(ls -A forks)"
hashes whole | cmp - whole.txt || fail "fork changed the run"

# resume --step goes on from an earlier checkpoint, with its configuration, and keeps the later ones under other names.
cp -r whole back
before=$(ls back/checkpoints)
expect 66 "$NIBBLE" resume back --step 5
says "there are those of steps 4, 8, 12"
expect 78 "$NIBBLE" resume back --step 4 --set optimizer.learning_rate=1e-3
expect 66 "$NIBBLE" resume back --step 4 --set 'data.train=nowhere-*.bin'
[ "$(ls back/checkpoints)" = "$before" ] || fail "a refused resume touched the checkpoints"
expect 75 mpirun -n 2 "$NIBBLE" resume back --step 4 --set train.stop_at=6 --set optimizer.learning_rate=1e-3 \
  --set 'resume.allow=[optimizer.learning_rate]'
says "abandoned  the later checkpoints of steps 8, 12, kept as NAME.abandoned"
diff -r whole/checkpoints/step-00000012 back/checkpoints/step-00000012.abandoned || fail "a later checkpoint changed"
[ "$(journal back '[1]["abandoned"]')" = "[8, 12]" ] || fail "the journal does not name what was abandoned"
expect 75 "$NIBBLE" resume back --set train.stop_at=7
says "resuming   $WORK/back/checkpoints/step-00000006"
[ "$(losses back | awk '$1 != "validation"' | wc -l)" -eq 7 ] || fail "the metrics still count what was abandoned"
# The first future again: its configuration is that of its checkpoint.
expect 0 mpirun -n 3 "$NIBBLE" resume back --step 4 --set train.stop_at=0
says "steps 6, 7, kept"
same back whole
expect 75 "$NIBBLE" resume back --step 8 --set train.stop_at=9
[ -d back/checkpoints/step-00000012.abandoned.2 ] || fail "the second future of step 12 is not kept: $(ls back/checkpoints)"
printf 'x' >>back/checkpoints/step-00000004/index.h5
expect 65 "$NIBBLE" resume back --step 4
[ -d back/checkpoints/step-00000009 ] || fail "a refused resume abandoned a checkpoint"
echo "fork: passed"
