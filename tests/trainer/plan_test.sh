# nibble plan says what a run takes: its memory is what the run prints, its checkpoint what the run writes, and every
# configuration in configs/ fits where its own header says.
source "$SOURCE/tests/tiny_run.sh"
tiny_data

cat >check.py <<'PYTHON'
import json
import os
import re
import subprocess
import sys

nibble, source, job = sys.argv[1:4]


def plan(*arguments):
    return json.loads(subprocess.run([nibble, "plan", *arguments, "--json"], check=True, capture_output=True).stdout)


def check_shares(found, what):
    assert abs(sum(found["forward_share"].values()) - 1) < 1e-9, f"{what}: {found['forward_share']}"
    memory = dict(found["memory"])
    assert memory.pop("total") == sum(memory.values()), f"{what}: the lines are not the total"


def close(a, b, share, what):
    assert abs(a - b) <= share * b, f"{what}: {a} is not {b}"


# compare LOG RUN RANKS SETTING...: the plan against a run's log and its checkpoint.
def compare(log, run, ranks, *settings):
    options = [option for setting in settings for option in ("--set", setting)]
    found = plan("tiny.yaml", "--ranks", ranks, "--set", "model.vocab_size=512", *options)
    check_shares(found, "tiny.yaml")
    line = re.search(r"memory +([0-9.]+) MB a rank: (.*)", open(log).read())
    assert f"{found['memory']['total'] / 1e6:.1f}" == line[1], f"{found['memory']} is not {line[0]}"
    named = {"activations saved for backward": "activations_saved_for_backward", "workspace": "workspace",
             "quantised weights": "quantised_weights", "inputs of the blocks": "inputs_of_the_blocks"}
    for words, key in named.items():
        if key not in found["memory"]:
            assert words not in line[2], words
            continue
        assert f"{words} {found['memory'][key] / 1e6:.1f} MB" in line[2], f"{words}: {line[2]}"
    shared = re.search(r"weights and gradients ([0-9.]+) MB", line[2])[1]
    own = sum(found["memory"].get(key, 0) for key in ("weights", "gradients", "packed_weights"))
    assert f"{own / 1e6:.1f}" == shared, f"{own} is not {shared}"
    newest = max(os.listdir(f"{run}/checkpoints"))
    real = sum(entry.stat().st_size for entry in os.scandir(f"{run}/checkpoints/{newest}"))
    close(found["checkpoint_bytes"], real, 0.02, f"the checkpoint of {ranks} ranks")


# configs: every file of configs/models is planned, and every one of configs/runs fits where its header says.
def configs():
    sizes = {"10m": 10e6, "50m": 51e6, "124m": 124e6, "350m": 355e6, "0.6b": 0.6e9, "1.3b": 1.33e9, "7b": 6.9e9, "8b": 8.03e9}
    models = sorted(os.listdir(f"{source}/configs/models"))
    for name in models:
        found = plan(f"{source}/configs/models/{name}", "--device", "b200", "--ranks", "8")
        check_shares(found, name)
        size = sizes[name.split("-")[1].removesuffix(".yaml")]
        close(found["parameters"], size, 0.03, name)
        assert found["tensors"] > 50 and found["active_parameters"] == found["parameters"], name
        close(found["flops_per_token"], 6 * found["parameters"], 0.5, f"FLOPs of {name}")
    planned = 0
    for name in sorted(os.listdir(f"{source}/configs/runs")):
        path = f"{source}/configs/runs/{name}"
        subprocess.run([nibble, "config", "check", path], check=True, capture_output=True)
        command = re.search(r"^# Plan: nibble plan configs/runs/(\S+) (.*)$", open(path).read(), re.M)
        if name == "quickstart.yaml":
            continue
        assert command and command[1] == name, f"{name} does not say how it is planned"
        found = plan(path, *command[2].split())
        assert found["fits"], f"{name} does not fit: {found['memory_needed']} of {found['memory_available']}"
        assert found["changes"] == [] and found["fits_with"] == [], name
        check_shares(found, name)
        size = sizes[name.split("-")[1]]
        close(found["parameters"], size, 0.03, name)
        close(found["tokens_per_parameter"], 20, 0.05, f"tokens a parameter of {name}")
        for key in ("tokens_per_second", "hours", "checkpoint_bytes"):
            assert found[key] > 0, f"{name}: {key}"
        assert "not measured" in found["basis"], found["basis"]
        gpu = "--device cpu" not in command[2]
        assert (found["energy_kwh"] is not None) == gpu, name
        planned += 1
    for size in ("10m", "124m", "350m", "1.3b", "7b"):
        assert f"llama-{size}.yaml" in models, size
    assert planned >= 9, planned


# changes: a run that does not fit fits with the changes that its plan names, and each saves what it says.
def changes():
    run = [f"{source}/configs/models/llama-7b.yaml", "--device", "b200"]
    before = plan(*run)
    assert not before["fits"] and before["changes"] and before["fits_with"], before
    saving = before["changes"][0]
    after = plan(*run, "--set", saving["set"])
    assert before["memory_needed"] - after["memory_needed"] == saving["saves_bytes"] > 0, saving
    settings = [option for setting in before["fits_with"] for option in ("--set", setting)]
    assert plan(*run, *settings)["fits"], before["fits_with"]
    if len(settings) > 2:
        assert not plan(*run, *settings[:-2])["fits"], "the last change was not needed"


{"compare": lambda: compare(*sys.argv[4:]), "configs": configs, "changes": changes}[job]()
PYTHON
check() { "$python" check.py "$NIBBLE" "$SOURCE" "$@" || fail "plan: $*"; }

compare_run() { # RANKS SETTING...
  local ranks=$1 overrides=()
  for setting in "${@:2}"; do overrides+=(--set "$setting"); done
  rm -rf run
  expect 0 mpirun -n "$ranks" "$NIBBLE" train tiny.yaml --set train.steps=1 --set eval.every=0 --set checkpoint.every=0 \
    --set schedule.warmup_steps=0 --set model.vocab_size=512 "${overrides[@]}"
  cp output.txt log.txt
  check compare log.txt run "$ranks" "${@:2}"
}
for ranks in 1 2 3; do compare_run "$ranks" train.threads=1; done
compare_run 3 train.threads=2 telemetry.every=0 recipe=bf16 optimizer.master_dtype=fp32 train.group_micro_batches=1
compare_run 2 train.threads=1 recipe=fp8_delayed model.hidden_size=256 train.recompute=all train.gradient_groups=1
# The comparison can fail.
! "$python" check.py "$NIBBLE" "$SOURCE" compare log.txt run 2 train.threads=1 2>/dev/null || fail "another run is the same"

check configs
check changes

# Mistakes.
expect 64 "$NIBBLE" plan tiny.yaml --ranks 0
expect 64 "$NIBBLE" plan tiny.yaml --device b20
grep -q 'did you mean "b200"' output.txt && grep -q 'rtx5090' output.txt || { cat output.txt; fail "devices are not listed"; }
expect 78 "$NIBBLE" plan tiny.yaml
grep -q 'model.vocab_size is 0' output.txt || { cat output.txt; fail "the vocabulary is not asked for"; }
expect 78 "$NIBBLE" plan tiny.yaml --set model.vocab_size=512 --ranks 7
grep -q 'which 7 ranks cannot share' output.txt || { cat output.txt; fail "idle ranks are not refused"; }
expect 66 "$NIBBLE" plan tiny.yaml --set model.vocab_size=512 --recipe nvfp5
expect 66 "$NIBBLE" plan nothing.yaml
expect 78 "$NIBBLE" plan tiny.yaml --set model.vocab_size=512 --device cpu --set comm.reduction=nccl
expect 64 "$NIBBLE" plan tiny.yaml --set model.vocab_size=512 --watts -3
# Text for people: what is assumed, and that figures are estimates.
expect 0 "$NIBBLE" plan "$SOURCE/configs/models/llama-124m.yaml" --recipe bf16 --device RTX-5090
grep -q '^assumed .*model.vocab_size=50304' output.txt && grep -q 'train.steps=.*tokens a parameter' output.txt || { cat output.txt; fail "nothing is said to be assumed"; }
grep -q '^speed .*(estimate, not measured)' output.txt || { cat output.txt; fail "an estimate is not called one"; }
expect 0 "$NIBBLE" plan tiny.yaml --set model.vocab_size=512 --watts 100
grep -q '^energy .*kWh' output.txt || { cat output.txt; fail "no energy"; }
echo "plans: passed"
