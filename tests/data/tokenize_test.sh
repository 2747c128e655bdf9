#!/usr/bin/env bash
# Tests nibble tokenize and nibble inspect as a user runs them: output files, repeatability, and exit codes.
# Labels: fast
set -euo pipefail
rm -rf "$WORK"
mkdir -p "$WORK"
cd "$WORK"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
# expect CODE TEXT COMMAND...: expects the command to end with this exit code and this text on standard output or error.
expect() {
  local code=$1 text=$2 status=0
  shift 2
  "$@" >output.txt 2>&1 || status=$?
  [[ $status -eq $code ]] || fail "$*: exit code $status, not $code: $(cat output.txt)"
  grep -q -- "$text" output.txt || fail "$*: does not say '$text': $(cat output.txt)"
}
# flip FILE OFFSET: changes one byte.
flip() {
  printf 'Z' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# The text is prose with some variety; it is not compressed, so the test needs no zstd program.
fold -s -w 400 "$SOURCE"/docs/*.md "$SOURCE"/data/{.,*}/*.{h,cpp} "$SOURCE"/dist/*/*.h >text.txt

expect 0 "unigram entropy" "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output one --shard-tokens 30000
expect 0 "unigram entropy" "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output two --shard-tokens 30000
for file in one/*; do cmp "$file" "two/$(basename "$file")" || fail "two runs differ"; done
[[ -e one/train-00001.bin && -e one/validation-00000.bin && -e one/tokenizer.model ]] || fail "products are missing"
[[ -z "$(find one -name '.*.partial')" ]] || fail "temporary files are left"

expect 0 "verified" "$NIBBLE" inspect one/train-00000.bin --samples 2
grep -q "^document 0 ([0-9]* tokens): [A-Za-z#/]" output.txt || fail "the first document is not shown: $(cat output.txt)"
expect 0 "verified" "$NIBBLE" inspect one/validation-00000.bin

expect 73 "already exists" "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output one
expect 0 "documents" "$NIBBLE" tokenize text.txt --documents line --tokenizer one/tokenizer.model --output one --overwrite
[[ ! -e one/train-00001.bin ]] || fail "a shard of the earlier run is left"
cmp one/tokenizer.model two/tokenizer.model || fail "the tokenizer given was not kept"

expect 65 "cannot be split" "$NIBBLE" tokenize text.txt --vocab-size 800 --output three
expect 66 "no such file" "$NIBBLE" tokenize none.txt --vocab-size 800 --output three
expect 65 "one/tokenizer.model: this is a SentencePiece model, not UTF-8 text" "$NIBBLE" tokenize one --vocab-size 800 --output three
expect 66 "nothing matches it" "$NIBBLE" tokenize 'none*.txt' --vocab-size 800 --output three
printf 'good\nbad \377\n' >bad.txt
expect 65 "bad.txt: byte 9 is not UTF-8" "$NIBBLE" tokenize text.txt bad.txt --documents line --vocab-size 800 --output three
expect 73 "text.txt/x" "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output text.txt/x
[[ ! -e three ]] || fail "a failed call left something: $(find three)"
mkdir three
expect 66 "no such file" "$NIBBLE" tokenize none.txt --vocab-size 800 --output three
[[ -d three && -z "$(ls -A three)" ]] || fail "a failed call changed an empty directory"
expect 65 "pieces for [0-9]*$" "$NIBBLE" tokenize bad.txt --replace-invalid --validation-share 0 --vocab-size 5000 --output three
grep -q '[.]cc' output.txt && fail "a line of another program's source: $(cat output.txt)"

# Only what nibble tokenize wrote is replaced.
cp -r two own
head -c 3000 /dev/zero >own/train-shakespeare.bin
expect 0 "train-shakespeare.bin is not from nibble tokenize and stays" \
  "$NIBBLE" tokenize text.txt --documents line --vocab-size 700 --output own --overwrite
[[ $(stat -c %s own/train-shakespeare.bin) -eq 3000 ]] || fail "a file of another program is gone"
cmp -s own/tokenizer.model two/tokenizer.model && fail "the tokenizer was not replaced"
# keeps_all DIRECTORY COMMAND...: the command is refused because of a file in its way, and the directory stays as it is.
keeps_all() {
  local directory=$1
  shift
  (cd "$directory" && ls -A && sha256sum ./*) >before.txt
  expect 73 "is in the way" "$@"
  (cd "$directory" && ls -A && sha256sum ./*) | cmp - before.txt || fail "a refused call changed $directory"
}
cp own/train-shakespeare.bin own/train-00007.bin
keeps_all own "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output own --overwrite
rm own/train-00007.bin
ln -s ../two/train-00000.bin own/train-00007.bin
keeps_all own "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output own --overwrite
rm own/train-00007.bin
cp one/tokenizer.model own/tokenizer.model # of other shards
keeps_all own "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output own --overwrite
mkdir given
cp one/tokenizer.model given
expect 0 "documents" "$NIBBLE" tokenize text.txt --documents line --tokenizer given/tokenizer.model --output given
cmp one/tokenizer.model given/tokenizer.model || fail "the given tokenizer was not kept"
for directory in one own given; do
  [[ -z "$(find $directory -name '.*' -mindepth 1)" ]] || fail "hidden files are left in $directory"
done

# One process at a time, and never one of several tasks. A signal leaves everything as it was.
for file in 1 2 3 4 5 6; do cat text.txt; done >long.txt
"$NIBBLE" tokenize long.txt --documents line --vocab-size 4000 --output new/nested >first.txt 2>&1 &
first=$!
for ((i = 0; i < 100; ++i)); do [[ -e new/nested/.tokenize.partial ]] && break; sleep 0.05; done
expect 69 "is in use by process" "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output new/nested
kill -TERM $first
code=0
wait $first || code=$?
[[ $code -eq 143 ]] || fail "exit code $code after SIGTERM: $(cat first.txt)"
[[ ! -e new ]] || fail "a stopped call left $(find new)"
expect 64 "a launcher started 2 tasks" env OMPI_COMM_WORLD_SIZE=2 "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output new
expect 64 "a launcher started 4 tasks" env SLURM_STEP_NUM_TASKS=4 "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output new
[[ ! -e new ]] || fail "a refused call left $(find new)"

# However the same documents are packed, the shards are the same.
mkdir -p packed/a
split -n l/3 text.txt packed/a/part-
gzip -k packed/a/part-ab
mv packed/a/part-ab.gz packed/a/part-ab
sed 's/[\\"]/\\&/g; s/\t/\\t/g; s/.*/{"id": NaN, "text": "&"}/' packed/a/part-ac | tr -d '\r' >packed/a/part-ac.ndjson
tar -czf packed.tar.gz -C packed a/part-aa a/part-ab a/part-ac
rm packed/a/part-ac
same() {
  expect 0 "unigram entropy" "$NIBBLE" tokenize "$@" --documents line --vocab-size 800 --shard-tokens 30000 --output same --overwrite
  for file in two/*; do cmp "$file" "same/$(basename "$file")" || fail "$*: other shards than those of the plain text"; done
  [[ -z "$(find same -name '.*' -mindepth 1)" ]] || fail "hidden files are left in same: $(find same)"
}
expect 0 "unigram entropy" "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output two --shard-tokens 30000 --overwrite
same packed
same 'packed/a/part-*'
same packed.tar.gz
same - <packed.tar.gz
same <(cat text.txt)

# Bad lines are named, counted and left out.
{ head -n 50 packed/a/part-ac.ndjson; echo '{"text": null}'; echo broken; tail -n +51 packed/a/part-ac.ndjson; } >bad.jsonl
expect 65 'bad.jsonl: line 51: the value of "text" is not a string' "$NIBBLE" tokenize bad.jsonl --vocab-size 500 --output none
expect 65 "bad.jsonl: line 52" "$NIBBLE" tokenize bad.jsonl --vocab-size 500 --output none --skip-bad 1
grep -q -- "--skip-bad" output.txt || fail "no remedy: $(cat output.txt)"
expect 0 "^left out          2 bad documents" "$NIBBLE" tokenize bad.jsonl --vocab-size 500 --output skipped --skip-bad all
grep -q "left out: bad.jsonl: line 52: not" output.txt || fail "a line left out is not listed: $(cat output.txt)"
expect 0 "^left out          2 bad documents" "$NIBBLE" tokenize bad.jsonl --vocab-size 500 --output skipped --skip-bad 2 --overwrite
expect 64 "skip-bad" "$NIBBLE" tokenize bad.jsonl --vocab-size 500 --output none --skip-bad some
[[ ! -e none ]] || fail "a refused call left $(find none)"

# A stopped job goes on where it was, and its shards are those of a job that was not stopped.
for file in {1..40}; do sed "s/the/t$file/g" text.txt; done >long.txt
long=("$NIBBLE" tokenize long.txt --documents line --tokenizer two/tokenizer.model --shard-tokens 100000)
expect 0 "unigram entropy" "${long[@]}" --output undisturbed
stop_after_a_shard() { # SIGNAL EXIT-CODE
  "${long[@]}" --output stopped >first.txt 2>&1 &
  first=$!
  for ((i = 0; i < 400; ++i)); do [[ -e stopped/.tokenize.partial/train-0000$3.bin ]] && break; sleep 0.02; done
  kill "-$1" $first
  code=0
  wait $first || code=$?
  [[ $code -eq $2 ]] || fail "exit code $code after $1: $(cat first.txt)"
  [[ -z "$(find stopped -maxdepth 1 -name '*.bin')" ]] || fail "a stopped job left shards in its output"
}
stop_after_a_shard TERM 143 0
grep -q "the same command goes on from there" first.txt || fail "nobody says how to go on: $(cat first.txt)"
stop_after_a_shard KILL 137 4
expect 0 "encoding goes on after [1-9][0-9]* whole shards" "${long[@]}" --output stopped
for file in undisturbed/*; do cmp "$file" "stopped/$(basename "$file")" || fail "a stopped job has other shards"; done
[[ -z "$(find stopped -name '.*' -mindepth 1)" ]] || fail "hidden files are left: $(find stopped)"
rm -r stopped
stop_after_a_shard TERM 143 0
expect 0 "is of other inputs or options, and is removed" "${long[@]}" --output stopped --validation-share 0.01
expect 0 "unigram entropy" "${long[@]}" --output undisturbed --validation-share 0.01 --overwrite
for file in undisturbed/*; do cmp "$file" "stopped/$(basename "$file")" || fail "left-over work was used"; done

# Few documents: the share that is held out is said where it is far from the one asked for, and a tail is near it.
for book in 1 2 3; do sed "1,800!d; s/the/th$book/g" text.txt >book$book.txt; done
expect 0 "warning: 33.3 % of the text is held out for validation, asked for was 0.5 %" \
  "$NIBBLE" tokenize book?.txt --vocab-size 800 --output books
expect 0 "documents         4 (3 train, 1 validation)" \
  "$NIBBLE" tokenize book?.txt --vocab-size 800 --validation-tail --validation-share 0.02 --output tail
grep -q warning output.txt && fail "a warning about a share that is near: $(cat output.txt)"
expect 0 "documents         2 (1 train, 1 validation)" "$NIBBLE" tokenize book1.txt --vocab-size 800 --validation-tail --output single
expect 64 "holds nothing out" "$NIBBLE" tokenize book1.txt --vocab-size 800 --validation-tail --validation-share 0 --output none

expect 66 "no such file" "$NIBBLE" inspect none.bin
expect 65 "this is text, no token shard" "$NIBBLE" inspect text.txt
cp two/train-00000.bin damaged.bin
flip damaged.bin 20001
expect 65 "block 0 of" "$NIBBLE" inspect damaged.bin
cp two/train-00000.bin damaged.bin
flip damaged.bin 30
expect 65 "header" "$NIBBLE" inspect damaged.bin
truncate -s -1 damaged.bin
expect 65 "damaged.bin" "$NIBBLE" inspect damaged.bin
# inspect must not use a tokenizer beside the shard that is not the shard's own.
expect 0 "documents" "$NIBBLE" tokenize text.txt --documents line --vocab-size 700 --output four
cp four/tokenizer.model two/tokenizer.model
expect 65 "tokenizer.model: its hash is" "$NIBBLE" inspect two/train-00000.bin
expect 0 "documents are not shown" bash -c 'mv two/tokenizer.model . && "$NIBBLE" inspect two/train-00000.bin'
echo "all checks passed"
