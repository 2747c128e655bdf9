# The same tokens in the layouts of llm.c and modded-nanogpt, Megatron, NumPy and nanoGPT train to the same bits as in
# nibble's own shards, with documents where the layout has them; files of other kinds are refused with a way.
# Labels: fast
source "$SOURCE/tests/tiny_run.sh"
tiny_data
says() { grep -qE -- "$1" output.txt || { cat output.txt >&2; fail "the output lacks: $1"; }; }
write() { "$python" "$SOURCE/tests/foreign_shards.py" data/train-00000.bin "$@"; }
short=(--set train.steps=4 --set eval.every=0 --set checkpoint.every=0 --set telemetry.every=0 --set 'data.validation=[]')
train() { expect 0 "$NIBBLE" train tiny.yaml "${short[@]}" --set model.vocab_size=512 "$@"; }

train --set run.dir=own
train --set run.dir=own-documents --set data.document_mask=true
same own own
mkdir llmc pairs bare
write llmc llmc/train.bin
write megatron pairs/m
write megatron32 pairs/wide
write npy train.npy
write bare bare/train.bin
for key in llmc/train.bin pairs/m pairs/m.idx pairs/wide.bin 'pairs/m*' train.npy; do
  rm -rf other
  train --set run.dir=other --set "data.train=$key"
  same other own
done
rm -rf other
train --set run.dir=other --set data.train=bare/train.bin --set data.token_bytes=2
same other own
rm -rf other
expect 0 "$NIBBLE" train tiny.yaml "${short[@]}" --set run.dir=other --set data.train=pairs/m --set data.vocab_size=512
same other own
for key in pairs/m pairs/wide; do
  rm -rf other
  train --set run.dir=other --set "data.train=$key" --set data.document_mask=true
  same other own-documents
done
! cmp -s <(losses own) <(losses own-documents) || fail "documents change nothing"

# Renamed, moved and copied pairs are the same shards; an id that changes is another one.
rm -rf other
expect 75 "$NIBBLE" train tiny.yaml "${short[@]}" --set model.vocab_size=512 --set run.dir=other --set data.train=pairs/m --set train.stop_at=2
mkdir moved
for ending in bin idx; do mv pairs/m.$ending moved/renamed.$ending; done
expect 0 "$NIBBLE" resume other --set train.stop_at=0 --set data.train=moved/renamed
same other own

expect 0 "$NIBBLE" inspect moved/renamed
says '^documents +[0-9]+$'
says '^largest id +[0-9]+$'
expect 65 "$NIBBLE" train tiny.yaml "${short[@]}" --set run.dir=x --set data.train=bare/train.bin
says 'bare ids of 2 bytes .*nanoGPT'
says 'set data.token_bytes=2 '
expect 78 "$NIBBLE" train tiny.yaml "${short[@]}" --set run.dir=x --set data.train=pairs/wide
says 'set data.vocab_size'
expect 65 "$NIBBLE" train tiny.yaml "${short[@]}" --set run.dir=x --set data.train=moved/renamed --set model.vocab_size=256
says 'token [0-9]+ \(byte [0-9]+\) has id [0-9]+, but the vocabulary size is 256'
expect 78 "$NIBBLE" train tiny.yaml "${short[@]}" --set run.dir=x --set data.train=train.npy --set data.document_mask=true
says 'does not say where its documents begin'
expect 65 "$NIBBLE" train tiny.yaml "${short[@]}" --set run.dir=x --set data.train=text.txt
says 'this is text, no token shard'
says 'nibble tokenize'
expect 65 "$NIBBLE" train tiny.yaml --set train.steps=4 --set run.dir=x --set data.train=llmc/train.bin --set 'data.validation=train.npy'
says 'different tokenizers \(vocabulary 50257 and 65536'
says 'set data.vocab_size'
expect 65 "$NIBBLE" train tiny.yaml "${short[@]}" --set run.dir=x --set 'data.train=data/*'
says 'tokenizer.model: this is a SentencePiece model, no token shard'
says 'leave it out of the patterns'
truncate -s -2 moved/renamed.bin
expect 65 "$NIBBLE" train tiny.yaml "${short[@]}" --set run.dir=x --set data.train=moved/renamed
says 'moved/renamed.bin: [0-9]+ bytes long, but its index .*moved/renamed.idx describes'
echo "foreign shards: passed"
