# Paths as users write them: only what is written is a pattern, ~ and variables are replaced or refused, and a run whose
# directory has such characters in its name can be resumed and moved.
# Labels: fast
source "$SOURCE/tests/tiny_run.sh"
tiny_data
says() { grep -qF -- "$1" output.txt || { cat output.txt >&2; fail "the output lacks: $1"; }; }
export HOME=$WORK/home
mkdir home
quick=(--set train.steps=3 --set eval.every=0 --set checkpoint.every=0 --set telemetry.every=0)

# A current directory with characters of patterns, and one beside it that these would match.
mkdir -p 'exp[1]*' 'exp1x/data'
cp -r data tiny.yaml 'exp[1]*'
(cd 'exp[1]*' && expect 0 "$NIBBLE" train tiny.yaml "${quick[@]}" --set train.steps=4)
expect 0 "$NIBBLE" generate 'exp[1]*/run' --tokens 3
expect 0 "$NIBBLE" evaluate 'exp[1]*/run'
(cd 'exp[1]*' && expect 75 "$NIBBLE" train tiny.yaml "${quick[@]}" --set run.dir=stopped --set train.stop_at=1)
expect 0 "$NIBBLE" resume 'exp[1]*/stopped' --set train.stop_at=0
mv 'exp[1]*' moved
expect 66 "$NIBBLE" evaluate moved/run
says 'exp[1]*/data/validation-*.bin: no such shard'

# Keys and options.
expect 0 "$NIBBLE" train tiny.yaml "${quick[@]}" --set 'run.dir=~/runs/a' --set 'data.train=$WORK/data/train-*.bin'
[ -f home/runs/a/config.yaml ] && [ ! -e '~' ] || fail "the run is not in the home directory"
expect 0 "$NIBBLE" tokenize text.txt --documents line --vocab-size 512 '--output=~/shards'
[ -f home/shards/tokenizer.model ] || fail "the shards are not in the home directory"
expect 0 "$NIBBLE" inspect '$HOME/shards/train-00000.bin'
expect 0 "$NIBBLE" compare '${HOME}/runs/a' '~/runs/a' '--report=~/report.html'
[ -f home/report.html ] || fail "the report is not in the home directory"
expect 64 "$NIBBLE" inspect '$NO_SUCH_VARIABLE/x'
says 'PATH: the variable NO_SUCH_VARIABLE is not set'
expect 64 "$NIBBLE" resume '~nobody/runs'
says 'RUN_DIR: "~nobody"'
expect 64 "$NIBBLE" quantize --recipe '$NO_SUCH_VARIABLE/r.yaml' --operand forward.x --input x.npy --output x.safetensors
says 'recipe "$NO_SUCH_VARIABLE/r.yaml": the variable NO_SUCH_VARIABLE is not set'
expect 78 "$NIBBLE" train tiny.yaml --set 'run.dir=$NO_SUCH_VARIABLE/run'
says 'run.dir: the variable NO_SUCH_VARIABLE is not set'
mkdir '~'
expect 0 "$NIBBLE" train tiny.yaml "${quick[@]}" --set 'run.dir=./~/a'
[ -f '~/a/config.yaml' ] || fail "./~ is not the directory of that name"
echo "paths: passed"
