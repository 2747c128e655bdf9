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
expect 66 "directory" "$NIBBLE" tokenize one --vocab-size 800 --output three
printf 'good\nbad \377\n' >bad.txt
expect 65 "bad.txt: byte 9 is not UTF-8" "$NIBBLE" tokenize text.txt bad.txt --documents line --vocab-size 800 --output three
expect 73 "text.txt/x" "$NIBBLE" tokenize text.txt --documents line --vocab-size 800 --output text.txt/x
[[ -z "$(find three -name '*.bin')" ]] || fail "a failed call left shards"

expect 66 "no such file" "$NIBBLE" inspect none.bin
expect 65 "neither a token shard of nibble" "$NIBBLE" inspect text.txt
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
