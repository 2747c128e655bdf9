# A run that stops after any step and is resumed, each time on another number of ranks, has the losses, gradient norms
# and final state of the uninterrupted run, bit for bit. Also: saving more often changes nothing.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=straight
losses straight >expected.txt
[ "$(grep -vc validation expected.txt)" -eq 12 ] || fail "the straight run does not have 12 steps"

for stop in $(seq 1 11); do
  first_ranks=$((stop % 3 + 1))
  second_ranks=$(((stop + 1) % 4 + 1))
  run=stopped-$stop
  expect 75 mpirun -n "$first_ranks" "$NIBBLE" train tiny.yaml --set run.dir="$run" --set train.stop_at="$stop"
  expect 0 mpirun -n "$second_ranks" "$NIBBLE" resume "$run"
  same "$run" straight
  rm -rf "$run"
done

# The run is resumed twice, and saves a checkpoint after every step.
expect 75 "$NIBBLE" train tiny.yaml --set run.dir=twice --set train.stop_at=3 --set checkpoint.every=1
expect 75 mpirun -n 2 "$NIBBLE" resume twice --set train.stop_at=7
expect 0 "$NIBBLE" resume twice --set train.stop_at=0
same twice straight

# Resuming a finished run does nothing and is no error; resuming without a checkpoint never starts from scratch.
expect 0 "$NIBBLE" resume twice
expect 66 "$NIBBLE" resume nowhere
[ ! -e nowhere ] || fail "resume created a directory"
# The options that a resumed run may not change.
expect 78 "$NIBBLE" resume straight --set run.seed=8
expect 78 "$NIBBLE" resume straight --set model.hidden_size=128
expect 78 "$NIBBLE" resume straight --set optimizer.learning_rate=1e-3
# Other data under the same names are refused; if data cannot be found, no run directory is left.
expect 0 "$NIBBLE" tokenize text.txt --documents line --vocab-size 512 --validation-share 0.4 --output data --overwrite
expect 78 "$NIBBLE" resume straight
grep -q 'training shards' output.txt || { cat output.txt; fail "the refusal does not name the data"; }
expect 66 "$NIBBLE" train tiny.yaml --set run.dir=nothing --set 'data.train=nowhere-*.bin'
[ ! -e nothing ] || fail "a run without data left a directory"
echo "resume is exact after every step"
