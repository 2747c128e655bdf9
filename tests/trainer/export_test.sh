# Tests nibble export and model.from on a trained run: the bytes of an export do not depend on when and how often it is
# made, an import has the loss of what it came from on any number of ranks, export - import - export is byte-identical,
# and packed weights decode to what the recipe makes of them. Refusals have their exit codes and leave nothing behind.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
expect 0 mpirun -n 2 "$NIBBLE" train tiny.yaml --set train.steps=6 --set checkpoint.every=3

# ---- Hugging Face ----
expect 0 "$NIBBLE" export run --output first
expect 0 "$NIBBLE" export run@6 --output again/
diff -r first again || fail "the same weights made other bytes"
for file in config.json generation_config.json tokenizer_config.json tokenizer.json model.safetensors; do
  [ -s "first/$file" ] || fail "there is no $file"
done
expect 0 "$NIBBLE" export run --step 3 --output third
cmp -s first/model.safetensors third/model.safetensors && fail "--step 3 exported the newest checkpoint"
expect 0 "$NIBBLE" export run --output pieces --file-size 60KB
[ "$(find pieces -name 'model-*-of-*.safetensors' | wc -l)" -gt 2 ] || fail "the weights were not cut into files"
expect 0 "$NIBBLE" export run --output wide --dtype fp32

# ---- Back again ----
cat >import.yaml <<'YAML'
run: {dir: imported, seed: 99}
recipe: bf16
model: {from: first}
data: {train: data/train-*.bin, validation: data/validation-*.bin}
train: {steps: 2, micro_batch_sequences: 2, tokens_per_step: 768}
optimizer: {learning_rate: 1e-3}
eval: {sequences: 8}
YAML
evaluated() { "$NIBBLE" evaluate "$@" --json 2>errors.txt | "$python" -c 'import json, sys; print(json.load(sys.stdin)["loss_hex"])'; }
wanted=$(evaluated run --set recipe=bf16)
import() { # NAME RANKS FROM OPTION...: starts a run from a model, and compares the loss of its step 0
  local name=$1 ranks=$2 from=$3
  shift 3
  expect 0 mpirun -n "$ranks" "$NIBBLE" train import.yaml --set "run.dir=$name" --set "model.from=$from" "$@"
  [ "$(evaluated "$name/checkpoints/step-00000000")" = "$wanted" ] || fail "$name: step 0 has another loss than run"
}
import imported 1 first
import imported-3 3 pieces
import imported-wide 2 wide --set model.dtype=bf16
import imported-run 2 run@6
import imported-checkpoint 1 run/checkpoints/step-00000006
for name in imported imported-3 imported-wide imported-run; do
  expect 0 "$NIBBLE" export "$name" --step 0 --output "$name-export"
  diff -r first "$name-export" || fail "$name: export - import - export is not byte-identical"
done
expect 0 mpirun -n 2 "$NIBBLE" resume imported --set train.steps=3 --set 'resume.allow=[train.steps]'
mv first elsewhere
expect 0 mpirun -n 2 "$NIBBLE" resume imported --set train.steps=4 --set 'resume.allow=[train.steps]'
mv elsewhere first

# ---- Packed ----
for format in compressed-tensors modelopt; do
  expect 0 "$NIBBLE" export run --format $format --output "$format"
  "$python" "$SOURCE/tests/trainer/huggingface/packed.py" "$format" first run/config.yaml "$NIBBLE" ||
    fail "$format: the packed weights are not the recipe's"
done

# ---- Refusals ----
left_behind() { find . -maxdepth 1 -name '.*' ! -name . | grep . && fail "$1 left something behind"; return 0; }
expect 73 "$NIBBLE" export run --output first
expect 66 "$NIBBLE" export run --step 4 --output none
expect 66 "$NIBBLE" export nothing --output none
expect 64 "$NIBBLE" export run --format gguf --output none
expect 64 "$NIBBLE" export run --dtype fp16 --output none
expect 64 "$NIBBLE" export run --format modelopt --dtype fp32 --output none
expect 64 "$NIBBLE" export run
expect 78 "$NIBBLE" export run --format compressed-tensors --output none --set recipe=bf16
expect 78 "$NIBBLE" export run --format compressed-tensors --output none --set recipe=tetrajet2
expect 73 "$NIBBLE" export run --output /proc/none
[ ! -e none ] || fail "a refused export left its directory"
left_behind "a refusal"
cp -r first short && truncate -s 20000 short/model.safetensors
expect 65 "$NIBBLE" train import.yaml --set run.dir=refused --set model.from=short
grep -q model.safetensors output.txt || fail "the damaged file is not named"
expect 66 "$NIBBLE" train import.yaml --set run.dir=refused --set model.from=nowhere
expect 65 "$NIBBLE" train import.yaml --set run.dir=refused --set model.from=data
expect 78 "$NIBBLE" train import.yaml --set run.dir=refused --set model.hidden_size=32
grep -q model.hidden_size output.txt || fail "the key that differs is not named"
sed -i 's/"model_type": "llama"/"model_type": "bloom"/; s/LlamaForCausalLM/BloomForCausalLM/' short/config.json
expect 65 "$NIBBLE" train import.yaml --set run.dir=refused --set model.from=short
grep -q Bloom output.txt || fail "the architecture is not named"
expect 0 "$NIBBLE" tokenize text.txt --documents line --vocab-size 400 --output other
expect 65 "$NIBBLE" train import.yaml --set run.dir=refused --set 'data.train=other/train-*.bin' --set data.validation=[]
grep -q 'another tokenizer' output.txt || fail "the tokenizer is not named"
[ ! -e refused ] || fail "a refused start left a run directory"
expect 0 "$NIBBLE" train import.yaml --set run.dir=new-vocabulary --set 'data.train=other/train-*.bin' \
  --set data.validation=[] --set 'model.from_skip=embedding|head' --set model.vocab_size=0
grep -q 'fresh ones for "model.embed_tokens.weight"' output.txt || fail "fresh weights are not named"

# ---- Presets ----
expect 0 "$NIBBLE" config show import.yaml --set model.from= --set model.preset=llama-124m \
  --set train.tokens_per_step=2048
grep -q 'hidden_size: 768' output.txt || fail "the preset is not read"
