# Every recipe in configs/recipes trains. Its losses and final state have the same bits on 1, 2 and 4 ranks, with one
# thread or more, with recompute on and off, in the code of the lowest instruction-set level, and when a run is stopped
# and resumed on another number of ranks.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
# Rotations of 128 points need every axis in multiples of 128.
settings=(model.hidden_size=128 model.head_dim=32 model.intermediate_size=128 train.tokens_per_step=512 train.steps=6
  eval.every=0 checkpoint.every=0)
program=$PROGRAMS/train_recipes            # all recipes in one process
baseline=$PROGRAMS/train_recipes_baseline  # vectorised functions without vectors; built where the compiler makes such clones
[ -x "$baseline" ] || baseline=$program

expect 0 "$program" tiny.yaml "" "${settings[@]}" train.threads=1
expect 0 mpirun -n 2 "$program" tiny.yaml -two "${settings[@]}" train.recompute=all
NIBBLE_ISA=avx2 expect 0 mpirun -n 4 "$program" tiny.yaml -four "${settings[@]}" train.threads=2
# Slow: one step, whose loss and gradient norm have met every quantiser.
NIBBLE_ISA=portable expect 75 "$baseline" tiny.yaml -baseline "${settings[@]}" train.stop_at=1
# 5 of 6 steps: a late switch at 0.82 has not happened before the stop, and has after it.
expect 75 mpirun -n 2 "$program" tiny.yaml -stopped "${settings[@]}" train.stop_at=5
[ "$(losses nvfp4-stopped | wc -l)" -eq 5 ] || fail "not stopped after 5 steps"
expect 0 "$program" --resume -stopped

PYTHONPATH="$SOURCE/tests" "$python" -B - "$SOURCE"/configs/recipes/*.yaml <<'END' || fail "recipes"
import math, pathlib, sys
import run_tools

last_losses = {}
for name in (pathlib.Path(path).stem for path in sys.argv[1:]):
    steps = [line for line in run_tools.losses(name) if not line.startswith("validation")]
    if len(steps) != 6 or not all(math.isfinite(float(line.split()[2])) for line in steps):
        sys.exit(f"{name} does not have 6 finite steps: {steps}")
    for suffix in ("two", "four", "stopped"):
        run_tools.check_same(f"{name}-{suffix}", name)
    if run_tools.losses(f"{name}-baseline") != steps[:1]:
        sys.exit(f"{name}-baseline differs from {name}")
    # Recipes differ in what they compute.
    loss = steps[-1].split()[1]
    if loss in last_losses:
        sys.exit(f"{name} and {last_losses[loss]} have the same last loss")
    last_losses[loss] = name
if len(last_losses) < 2:
    sys.exit("no recipes")
print(len(last_losses), "recipes: same bits everywhere")
END
