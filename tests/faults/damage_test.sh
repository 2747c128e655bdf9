# With a damaged byte in any file of a checkpoint, the run uses the previous checkpoint with a warning, or ends with
# exit code 65 if there is no other. With a damaged byte in a shard it ends with exit code 65. It never ends by a
# signal, never loads silently, and never starts from scratch.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
expect 75 mpirun -n 2 "$NIBBLE" train tiny.yaml --set run.dir=whole --set train.stop_at=9
newest=$(basename "$(ls -d whole/checkpoints/step-* | tail -1)")
flip() { "$python" -c "
import sys
path, share = sys.argv[1], float(sys.argv[2])
with open(path, 'r+b') as file:
    data = bytearray(file.read())
    data[int(share * (len(data) - 1))] ^= 0x10
    file.seek(0)
    file.write(data)" "$1" "$2"; }

losses whole >before.txt
files=$(cd "whole/checkpoints/$newest" && ls)
[ "$(echo "$files" | wc -l)" -ge 5 ] || fail "a checkpoint of two ranks has at least five files: $files"
for file in $files; do
  for share in 0 0.3 0.62 1; do
    rm -rf damaged
    cp -r whole damaged
    flip "damaged/checkpoints/$newest/$file" "$share"
    expect 0 "$NIBBLE" resume damaged --set train.stop_at=0
    grep -q "$file" output.txt || { cat output.txt; fail "no warning names $file"; }
    grep -q 'resuming .*step-00000008' output.txt || { cat output.txt; fail "$file at $share: not the previous one"; }
    # If it is the only checkpoint, the damaged one must be refused.
    rm -rf damaged
    cp -r whole damaged
    flip "damaged/checkpoints/$newest/$file" "$share"
    find damaged/checkpoints -mindepth 1 -maxdepth 1 ! -name "$newest" -exec rm -r {} +
    expect 65 "$NIBBLE" resume damaged
    grep -q 'error\[E65\]' output.txt || { cat output.txt; fail "no error line"; }
  done
done

for shard in data/train-*.bin data/validation-*.bin; do
  cp "$shard" intact.bin
  for share in 0 0.0001 0.4 0.9 1; do
    flip "$shard" "$share"
    rm -rf refused
    expect 65 "$NIBBLE" inspect "$shard"
    expect 65 "$NIBBLE" train tiny.yaml --set run.dir=refused --set train.steps=400 --set eval.sequences=0 --set eval.every=1
    cp intact.bin "$shard"
  done
done
echo "every damage was noticed"
