# A run that explodes: steps that are not finite are reported and not applied, and after a few in a row the run ends with
# 77; its earlier checkpoint is intact and resumes.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
expect 75 mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=exploding --set train.stop_at=4 --set train.steps=80
before=$(state_hash exploding)
expect 77 mpirun -n 2 "$NIBBLE" resume exploding --set train.stop_at=0 --set optimizer.learning_rate=10 \
  --set optimizer.weight_decay=10 --set checkpoint.every=0 --set log.tensorboard=false \
  --set 'resume.allow=[optimizer.learning_rate, optimizer.weight_decay]'
grep -q '"event":"warning"' exploding/metrics.jsonl || fail "no warning in the metrics"
grep -q 'not finite' output.txt || { cat output.txt; fail "no word about what is not finite"; }
[ "$(state_hash exploding)" = "$before" ] || fail "the checkpoint has changed"
expect 0 "$NIBBLE" resume exploding --set train.stop_at=0 --set optimizer.learning_rate=3e-3 --set optimizer.weight_decay=0.1 \
  --set checkpoint.every=40
echo "numerics gives up in order"
