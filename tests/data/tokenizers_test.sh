# tokenize with tokenizers of other programs: the file and its options are kept and needed only once, an earlier tokenizer is
# replaced, a foreign one is not, and inspect shows the text.
# Labels: fast
rm -rf "$WORK" && mkdir -p "$WORK" && cd "$WORK"
fail() { echo "FAIL: $*"; exit 1; }
expect() { # CODE TEXT COMMAND...
  local code=$1 text=$2 actual=0
  shift 2
  "$@" >output.txt 2>&1 || actual=$?
  [[ $actual == "$code" ]] || { cat output.txt; fail "exit code $actual, not $code: $*"; }
  grep -qF -- "$text" output.txt || { cat output.txt; fail "'$text' is not said: $*"; }
}
given=$SOURCE/tests/data/tokenizers
for i in $(seq 300); do echo "Document $i says: the people's  choice, <|endoftext|> 1234 and no more."; done >text.txt
make() { # OUTPUT TOKENIZER OPTION...
  local output=$1 tokenizer=$2
  shift 2
  "$NIBBLE" tokenize text.txt --documents line --validation-share 0.1 --output "$output" --tokenizer "$tokenizer" "$@"
}

expect 0 "vocabulary        421" make data "$given/gpt2.json"
cmp data/tokenizer.json "$given/gpt2.json" || fail "the file is not copied"
[[ ! -e data/tokenizer.json.options ]] || fail "options that nobody gave"
expect 0 "Document 1 says: the people's  choice, <|endoftext|> 1234 and no more." "$NIBBLE" inspect data/train-00000.bin

# A rank file of its own needs a pattern, once.
expect 64 "give --pattern" make ranks "$given/ranks.tiktoken"
expect 64 "--pattern and --end-of-document belong to --tokenizer" "$NIBBLE" tokenize text.txt --vocab-size 400 --pattern gpt2 --output x
expect 64 "leave --pattern out" make x "$given/gpt2.json" --pattern gpt2
expect 64 'no token "<x>"' make x "$given/gpt2.json" --end-of-document '<x>'
expect 0 "vocabulary        421" make ranks "$given/ranks.tiktoken" --pattern cl100k
[[ $(cat ranks/tokenizer.tiktoken.options) == '{"pattern":"cl100k"}' ]] || fail "the pattern is not kept"
hash=$(grep 'tokenizer hash' output.txt)
expect 0 "people's  choice" "$NIBBLE" inspect ranks/train-00000.bin
expect 0 "$hash" make again ranks/tokenizer.tiktoken
cmp ranks/train-00000.bin again/train-00000.bin || fail "kept options give other shards"
expect 0 "tokenizer hash" make other "$given/ranks.tiktoken" --pattern gpt2
! grep -qF "$hash" output.txt || fail "the pattern is no part of the identity"

# Another kind takes the place of the earlier one, with its options; a foreign file stops it.
expect 73 "already exists" make ranks "$given/gpt2.json"
expect 0 "documents" make ranks "$given/gpt2.json" --overwrite
[[ -e ranks/tokenizer.json && ! -e ranks/tokenizer.tiktoken && ! -e ranks/tokenizer.tiktoken.options ]] || fail "two tokenizers"
mkdir foreign && cp "$given/qwen.json" foreign/tokenizer.json
expect 73 "foreign/tokenizer.json is in the way" make foreign "$given/ranks.tiktoken" --pattern gpt2
mkdir stray && echo '{}' >stray/tokenizer.json.options
expect 73 "the tokenizer that it belongs to is not there" make stray "$given/gpt2.json"

# What is lost is said; what is not supported is named.
expect 0 "it puts a space before every document" make llama "$given/llama2.json"
expect 0 "There will be no bits per byte" make llama "$given/llama2.json" --overwrite
sed 's/"type":"NFC"/"type":"Lowercase"/' "$given/qwen.json" >unsupported.json
expect 65 "unsupported.json: normalizer is a Lowercase, which nibble does not support" make x unsupported.json
expect 65 "neither a SentencePiece model nor a tokenizer.json nor a tiktoken file" make x text.txt
[[ ! -e x ]] || fail "a refused call leaves something"
