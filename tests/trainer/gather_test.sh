# Tests comm.gather: with weights that are sent in FP8 and in NVFP4, losses and final state are the same for 1, 2 and 3
# ranks and after a stop; which weights are rounded; other formats after a resume; configurations that are refused.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
says() { grep -qF -- "$1" output.txt || { cat output.txt >&2; fail "the output lacks: $1"; }; }
run() { # NAME RANKS ARGUMENT...
  expect "${code:-0}" mpirun -n "$2" "$NIBBLE" train tiny.yaml --set "run.dir=$1" --set optimizer.master_dtype=fp32 "${@:3}"
}

run bf16 1 --set comm.gather=bf16
grep -q "gather   " output.txt && fail "the log tells of rounding that there is not"
run plain 2
same plain bf16
for format in fp8 nvfp4; do
  run $format 1 --set comm.gather=$format
  says "gather     $format, "
  for ranks in 2 3; do
    run $format-$ranks $ranks --set comm.gather=$format
    same $format-$ranks $format
  done
  code=75 run $format-stopped 3 --set comm.gather=$format --set train.stop_at=5
  expect 0 mpirun -n 2 "$NIBBLE" resume $format-stopped
  same $format-stopped $format
  losses $format | cmp -s - <(losses bf16) && fail "$format has the losses of bf16"
done
losses fp8 | cmp -s - <(losses nvfp4) && fail "fp8 has the losses of nvfp4"

# The checkpoint keeps the rounded weights, with which the run computes, and the exact masters.
"$python" - fp8:4 nvfp4:6 <<'END' || fail "weights of the checkpoints"
import pathlib, sys
import h5py, numpy

def bf16(x):  # nearest even
    bits = numpy.ascontiguousarray(x, dtype=numpy.float32).view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(numpy.uint32)

for run, digits in (argument.split(":") for argument in sys.argv[1:]):
    checkpoint = sorted(pathlib.Path(run, "checkpoints").glob("step-*"))[-1]
    rounded = 0
    with h5py.File(checkpoint / "index.h5") as index:
        for name, weights in index["parameters"].items():
            found = weights[()].astype(numpy.float32).view(numpy.uint32)
            exact = bf16(index["optimizer/master"][name][()])
            if len(weights.shape) == 2 and name.startswith("blocks."):
                rounded += 1
                assert (found != exact).mean() > 0.3, name
                # No more digits than an E4M3 number, or its product with an E2M1 number, has.
                assert not (found << (8 + int(digits))).astype(numpy.uint32).any(), name
                assert numpy.unique(found).size > 50, name
            else:
                assert (found == exact).all(), name
    assert rounded > 0
END

# After a resume, weights are rounded as the new configuration says, from the next step on. A learning rate that changes
# no FP32 number shows it.
still=(--set optimizer.learning_rate=1e-20)
run still-bf16 1 "${still[@]}"
run still-nvfp4 1 "${still[@]}" --set comm.gather=nvfp4
for first in bf16 nvfp4; do
  second=nvfp4
  [ $first = bf16 ] || second=bf16
  code=75 run still-$first-stopped 2 "${still[@]}" --set comm.gather=$first --set train.stop_at=5
  expect 78 "$NIBBLE" resume still-$first-stopped --set comm.gather=$second
  says "comm.gather ($first -> $second)"
  expect 0 "$NIBBLE" resume still-$first-stopped --set comm.gather=$second --set 'resume.allow=[comm.gather]'
  steps() { losses "$1" | grep -v validation | cut -d ' ' -f 1,2; }
  steps still-$first | head -5 >expected.txt
  steps still-$second | tail -7 >>expected.txt
  steps still-$first-stopped | diff expected.txt - || fail "from $first to $second"
done

# Without masters the exact weights would be lost.
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=refused --set comm.gather=nvfp4
says "optimizer.master_dtype is bf16"
says "set optimizer.master_dtype=fp32, or comm.gather=bf16"
expect 78 "$NIBBLE" train tiny.yaml --set run.dir=refused --set comm.gather=fp8 --set model.dtype=fp32 \
  --set optimizer.master_dtype=fp32
says "model.dtype is fp32"
[ ! -e refused ] || fail "a refused configuration left a directory"
echo "gathered weights have the same bits"
