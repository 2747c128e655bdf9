#!/usr/bin/env bash
# The JSON Schemas take every configuration and recipe in configs/, and refuse recipes that nibble refuses.
# Labels: fast
set -euo pipefail
rm -rf "$WORK"
mkdir -p "$WORK"
cd "$WORK"

"$NIBBLE" config schema >run.schema.json
"$NIBBLE" config schema --recipe >recipe.schema.json
cat >check.py <<'PYTHON'
import glob
import json
import subprocess
import sys

import jsonschema
import yaml

nibble, source = sys.argv[1:]
schemas = {name: json.load(open(f"{name}.schema.json")) for name in ("run", "recipe")}
for schema in schemas.values():
    jsonschema.Draft202012Validator.check_schema(schema)
validators = {name: jsonschema.Draft202012Validator(schema) for name, schema in schemas.items()}


def faults(name, document):
    return [f"{list(fault.absolute_path)}: {fault.message[:200]}" for fault in validators[name].iter_errors(document)]


needed = yaml.safe_load(open(f"{source}/configs/runs/quickstart.yaml"))
del needed["recipe"]
taken = 0
for name, pattern in (("run", "configs/runs/*.yaml"), ("recipe", "configs/recipes/*.yaml")):
    for path in sorted(glob.glob(f"{source}/{pattern}")):
        found = faults(name, yaml.safe_load(open(path)))
        assert not found, f"{path} is refused: {found}"
        taken += 1
assert taken > 20, taken

wrong = """
forwrad: bf16
forward: nvfp5
forward: {dy: nvfp4}
forward: {x: {format: nvfp4, fromat: bf16}}
forward: {x: {format: nvfp4, scale: amx}}
forward: {x: {format: nvfp4, scale: amax_up}}
forward: {x: {format: mxfp4, block: 16x16}}
forward: {x: {format: mxfp8_e4m3, round: stochastic}}
forward: {x: {format: bf16, rotate: 16}}
forward: {x: {format: nvfp4, rotate: 48}}
forward: {x: {format: nvfp4, history: 4}}
forward: {x: {format: fp8_e4m3, history: 1025}}
forward: {x: {format: nvfp4, ceiling: 449}}
forward: {w: {format: nvfp4, rotations: 3}}
high_precision: {match: head}
high_precision: [{match: head, last_blocks: 1}]
layers: [{first_blocks: 0, forward: bf16}]
switch: {to: bf16}
switch: {at: 1.5}
outliers: {share: 0.5}
outliers: {format: nvfp4}
oscillation: {every: 0}
name: "a b"
"""
right = """
forward: {x: {scale: ~, from: ~}}
layers: ~
forward:
grad_input: {dy: {format: nvfp4, rotate: 128, signs: step}, w: {format: nvfp4, rotate: 128, signs: step}}
"""


def nibble_takes(recipe):
    open("recipe.yaml", "w").write(recipe + "\n")
    result = subprocess.run([nibble, "config", "check", f"{source}/configs/runs/quickstart.yaml", "--set",
                             "recipe=./recipe.yaml"], capture_output=True, text=True)
    assert result.returncode in (0, 78), result.stderr
    return result.returncode == 0


for recipes, expected in ((wrong, False), (right, True)):
    for line in filter(None, recipes.splitlines()):
        document = yaml.safe_load(line)
        assert nibble_takes(line) == expected, f"nibble: {line}"
        assert (not faults("recipe", document)) == expected, f"the schema of recipes: {line}"
        assert (not faults("run", {"recipe": document, **needed})) == expected, f"the schema of runs: {line}"
print("all checks passed")
PYTHON
/usr/bin/python3 check.py "$NIBBLE" "$SOURCE"
