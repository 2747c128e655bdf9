# How often the host waits for the device in a training step: each wait leaves the device without work.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
# count STEPS ARGUMENT...: what a run of so many steps asks the device for, in the file counts.STEPS.
count() {
  NIBBLE_SIMULATED_COUNTS="counts.$1" expect 0 "$NIBBLE" train tiny.yaml --set device=cuda --set "run.dir=run-$1" \
    --set "train.steps=$1" --set schedule.warmup_steps=0 --set checkpoint.every=0 --set eval.every=0 \
    --set eval.sequences=2 --set train.tokens_per_step=1024 --set train.group_micro_batches=4 "${@:2}"
  rm -r "run-$1"
}
# in_a_step WHAT: how much more the longer run asks for.
in_a_step() { cat counts.1 counts.2 | awk -v what="$1" '$1 == what { count = $2 - count } END { print count }'; }
# expect_in_a_step WHAT COUNT: at most so many.
expect_in_a_step() { [ "$(in_a_step "$1")" -le "$2" ] || fail "$(in_a_step "$1") $1 in a step instead of $2"; }

# A step has 8 micro-batches in 2 groups. It waits for the losses, for the counts of the quantisers and for the gradient's
# norm, and in each micro-batch for the copy of the one before it, behind which the device has work.
for way in data.document_mask=false data.document_mask=true cuda.graphs=true; do
  count 1 --set "$way"
  count 2 --set "$way"
  echo "$way: $(in_a_step launches) launches, $(in_a_step copies) copies, $(in_a_step waits) waits"
  expect_in_a_step waits 3
  expect_in_a_step event_waits 8
done
