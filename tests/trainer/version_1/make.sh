# Makes the checkpoints of format version 1 that version_1_test.sh resumes, and the losses that the program which wrote
# them reached. Usage: NIBBLE=OLD_BINARY SOURCE=TREE WORK=EMPTY_DIRECTORY bash make.sh, with a binary of nibble 0.1 (the
# newest commit that writes version 1 is 5057592). Writes into this directory.
here=$(cd "$(dirname "$0")" && pwd)
source "$SOURCE/tests/tiny_run.sh"
source "$here/runs.sh"
version_1_run
cat >tiny.yaml <<'YAML'
run: {dir: run, seed: 7}
recipe: nvfp4
model: {pattern: "*-*", hidden_size: 16, query_heads: 1, kv_heads: 1, head_dim: 16, intermediate_size: 96, sequence_length: 64,
        tied_head: true}
data: {train: data/train-*.bin}
train: {steps: 12, micro_batch_sequences: 2, tokens_per_step: 768}
optimizer: {learning_rate: 3e-3}
schedule: {kind: cosine, warmup_steps: 3}
log: {tensorboard: false, progress: none}
checkpoint: {every: 0, keep_last: 1}
YAML
cat >delayed.yaml <<'YAML'
name: delayed
extends: fp8
forward: {x: {history: 2}, w: {history: 1}}
grad_input: {dy: {history: 3}}
grad_weight: {dy: {history: 5}, x: {history: 4}}
YAML
cat >retention.yaml <<'YAML'
name: retention
extends: nvfp4
outliers: {share: 0.3, from_step: 2, window: 3}
oscillation: {every: 5, window: 3, threshold: 4, from_share: 0.9}
YAML
cat >oscillation.yaml <<'YAML'
name: oscillation
extends: nvfp4
oscillation: {every: 4, window: 2, threshold: 8, from_share: 0.3}
YAML
small="--set optimizer.moment_dtype=bf16"
declare -A settings=(
  [masters]="--set optimizer.master_dtype=fp32"
  [amax]="--set recipe=delayed.yaml"
  [norms]="--set recipe=retention.yaml $small"
  [outliers]="--set recipe=retention.yaml $small"
  [oscillation]="--set recipe=oscillation.yaml $small"
  [skipped]="--set optimizer.learning_rate=10 --set optimizer.weight_decay=10 --set train.steps=80 $small"
)
for kind in $kinds; do
  code=0
  # shellcheck disable=SC2086
  mpirun -n 2 "$NIBBLE" train tiny.yaml --set "run.dir=$kind" ${settings[$kind]} --set "train.stop_at=${stop[$kind]}" \
    >output.txt 2>&1 || code=$?
  [ "$code" -eq 75 ] || { cat output.txt; fail "$kind: exit code $code"; }
  rm -rf "${here:?}/$kind"
  mkdir -p "$here/$kind/checkpoints"
  cp "$kind/config.yaml" "$here/$kind"
  cp -r "$kind"/checkpoints/step-* "$here/$kind/checkpoints"
  code=0
  "$NIBBLE" resume "$kind" --set train.stop_at=0 >output.txt 2>&1 || code=$?
  { echo "exit code $code"; losses "$kind" | awk -v stop="${stop[$kind]}" '$1 > stop'; } >"$here/$kind/losses.txt"
  echo "$kind: exit code $code, $(du -sk "$here/$kind" | cut -f1) KB"
done
