# Users' mistakes with a run: each gives an error that names it, and the run does not change.
# Labels: fast
source "$SOURCE/tests/tiny_run.sh"
tiny_data
says() { grep -qF -- "$1" output.txt || { cat output.txt >&2; fail "the output lacks: $1"; }; }
expect 75 "$NIBBLE" train tiny.yaml --set train.stop_at=5

# The directory of one checkpoint is not a run directory: it is refused, and no file is written to it.
checkpoint=$(ls -d run/checkpoints/step-* | tail -1)
ls -A "$checkpoint" >before.txt
expect 66 "$NIBBLE" resume "$checkpoint"
says "is one checkpoint, not a run directory"
ls -A "$checkpoint" | cmp - before.txt || fail "resume left something in a checkpoint"

# An override that is not allowed is refused, and has no effect on the next resume.
expect 78 "$NIBBLE" resume run --set run.dir=elsewhere
says "a run is resumed where it lies"
cp run/config.yaml before.yaml
expect 66 "$NIBBLE" resume run --set 'data.validation=nowhere/validation-*.bin'
says "nowhere/validation-*.bin: no such shard"
cmp run/config.yaml before.yaml || fail "a refused override was written to config.yaml"

# The same shards in another directory are the same data; other shards are not.
mv data moved
expect 66 "$NIBBLE" resume run
says "data/train-*.bin: no such shard"
expect 0 "$NIBBLE" resume run --set 'data.train=moved/train-*.bin' --set 'data.validation=moved/validation-*.bin'
expect 66 "$NIBBLE" generate "$checkpoint" --tokens 3
expect 0 "$NIBBLE" generate "$checkpoint" --tokens 3 --set data.tokenizer=moved/tokenizer.model
expect 0 "$NIBBLE" tokenize text.txt --documents line --validation-share 0.4 --output other \
  --tokenizer moved/tokenizer.model
cp run/config.yaml before.yaml
expect 78 "$NIBBLE" resume run --set 'data.train=other/train-*.bin'
says "the training shards are not those of the checkpoint"
cmp run/config.yaml before.yaml || fail "other data were written to config.yaml"

# The data have tokens beyond the model's vocabulary.
expect 0 "$NIBBLE" tokenize text.txt --documents line --vocab-size 600 --validation-share 0.2 --output larger
expect 65 "$NIBBLE" evaluate run --set 'data.validation=larger/validation-*.bin'
says "has 600 tokens, that of the model 512"
expect 65 "$NIBBLE" generate run --prompt "Fellow-Citizens of the Senate" --set data.tokenizer=larger/tokenizer.model
says "has 600 tokens, that of the model 512"

# The reader of the progress may leave, and a log may fill its disk: the run continues.
sed 's#data/#moved/#' tiny.yaml >moved.yaml
expect 0 bash -o pipefail -c '"$NIBBLE" train moved.yaml --set run.dir=left | head -1'
expect 0 bash -c '"$NIBBLE" train moved.yaml --set run.dir=full >/dev/full'
for run in left full; do
  [ -d $run/checkpoints/step-00000012 ] || fail "the run $run did not reach its end"
done

# A reader who leaves in the middle of a long output is no error; a full disk is one.
expect 0 bash -o pipefail -c '"$NIBBLE" inspect moved/train-00000.bin --samples 300 | head -1'
expect 74 bash -c '"$NIBBLE" inspect moved/train-00000.bin --samples 300 >/dev/full'
says "cannot write standard output: No space left on device"

# A report is refused where it cannot be written; a missing folder is made.
expect 64 "$NIBBLE" compare left full --report report.svg
expect 64 "$NIBBLE" compare left full --assert-relative-gap much
says "is not a share"
expect 0 "$NIBBLE" compare left full --report made/for/report.html
[ -s made/for/report.html ] && [ -s made/for/report.svg ] || fail "no report"

# A limit of the file size is an I/O error like a full disk.
expect 74 bash -c 'ulimit -f 500; "$NIBBLE" train moved.yaml --set run.dir=limited'
says "File too large"

# A run that stops after its last step does everything that a complete run does.
expect 0 "$NIBBLE" train moved.yaml --set run.dir=planned --set train.stop_at=12
says "validation after step 12"

# A character of the pattern that names no kind of block, wherever a pattern is read.
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=strange --set 'model.pattern=*-M-'
says "model.pattern has 'M' at position 2, which names no kind of block"
expect 78 "$NIBBLE" config show tiny.yaml --set 'model.pattern=*E'
says "model.pattern has 'E'"
[ ! -e strange ] || fail "an unknown kind of block left a run directory"

# The model has more parameters than the random streams can number.
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=huge --set model.hidden_size=1Mi --set model.intermediate_size=1Mi
says "2^40 elements or more"

# If a recipe does not fit the model, the error names the location, the operand and layer, and the sizes that do not
# divide.
expect 78 "$NIBBLE" train moved.yaml --set run.dir=unfit --set recipe="$SOURCE/configs/recipes/quartet2.yaml"
grep -Eq 'quartet2.yaml:[0-9]+:[0-9]+: grad_input.w of blocks.0.attention.output.weight: .* multiple of 128, this one is 64' \
  output.txt || { cat output.txt; fail "the refusal of a rotation longer than the axis"; }
printf 'extends: nvfp4\nname: mine\nlayers:\n  - {match: "*.down.*", grad_weight: {dy: {rotate: 64}, x: {rotate: 64}}}\n' >mine.yaml
expect 78 "$NIBBLE" train moved.yaml --set run.dir=unfit --set recipe=mine.yaml --set model.sequence_length=48 \
  --set train.micro_batch_sequences=1 --set train.tokens_per_step=96 --set model.pattern="*-*-*-*-"
grep -Eq 'mine.yaml:4:[0-9]+: grad_weight.x of blocks.[0-9].mlp.down.weight: .* multiple of 64, this one is 48' output.txt ||
  { cat output.txt; fail "the refusal of a rule that does not fit the tokens"; }
[ ! -e unfit ] || fail "a recipe that does not fit left a run directory"
echo "mistakes: passed"
