#!/usr/bin/env bash
# Tests the command line: exit codes, messages, configuration commands, unusual environments.
# Needs $NIBBLE (the binary), $SOURCE (the source tree) and $WORK (a directory of this test's own).
# Labels: fast
set -euo pipefail
rm -rf "$WORK"
mkdir -p "$WORK"
cd "$WORK"

fail() { echo "FAILED: $*" >&2; cat out.txt err.txt >&2 || true; exit 1; }
# expect CODE COMMAND...: runs the command with standard output in out.txt and standard error in err.txt.
expect() {
  local wanted=$1 code=0
  shift
  "$@" >out.txt 2>err.txt || code=$?
  [ "$code" -eq "$wanted" ] || fail "exit code $code instead of $wanted: $*"
}
says() { grep -qF -- "$1" err.txt || fail "standard error lacks: $1"; }
prints() { grep -qF -- "$1" out.txt || fail "standard output lacks: $1"; }
config=$SOURCE/configs/runs/quickstart.yaml

# Usage.
expect 0 "$NIBBLE" --version && prints "nibble 0."
for line in 'commit +([0-9a-f]{12}([+]changes)?|unknown)' 'compiler +(g|clang)[+]{2} [0-9].*' 'MPI +[A-Z].*' 'CUDA +(none|simulated|[0-9.]+)' \
  'licence +Apache-2\.0' 'instruction set +[a-z0-9_]+'; do
  grep -qEx "$line" out.txt || fail "--version has no line $line"
done
[ "$(wc -l <out.txt)" -eq 7 ] || fail "--version says one thing a line"
expect 0 env NIBBLE_ISA=portable "$NIBBLE" --version && grep -qx 'instruction set *portable' out.txt || fail "NIBBLE_ISA is ignored"
expect 64 env NIBBLE_ISA=none "$NIBBLE" --version && says "NIBBLE_ISA"
expect 0 "$NIBBLE" --help && prints "Exit codes:"
for command in tokenize train resume fork checkpoint evaluate report watch compare generate inspect config bench; do
  grep -qE "^  $command " out.txt || fail "--help does not list $command"
done
for command in tokenize train resume fork checkpoint evaluate report watch compare generate inspect config bench; do
  expect 0 "$NIBBLE" "$command" --help && grep -q "Example" out.txt || fail "$command --help has no example"
done
expect 64 "$NIBBLE" && says "error[E64]:" && says "  fix: "
expect 64 "$NIBBLE" trian && says 'error[E64]: unknown command "trian" (did you mean "train"?)'
expect 64 "$NIBBLE" --no-such-option && says "--no-such-option"
expect 64 "$NIBBLE" config && says "nibble config --help"
expect 64 "$NIBBLE" config show && says "nibble config show --help"
expect 64 "$NIBBLE" config show "$config" surplus && says "surplus"

expect 64 "$NIBBLE" generate . --seed -1 && says "--seed"
expect 64 "$NIBBLE" tokenize x.txt --vocab-size 400 --output x --documents word && says "word not in {file,line,paragraph}"

# Errors name the location and the remedy, on one line each.
expect 66 "$NIBBLE" config check no/such.yaml && says "error[E66]: no/such.yaml: cannot open" && says "  fix: "
printf 'run: {dir: r}\ntrain:\n  stepps: 3\n' >typo.yaml
expect 78 "$NIBBLE" config check typo.yaml
says 'error[E78]: typo.yaml:3:3: unknown key "train.stepps" (did you mean "train.steps"?)'
[ "$(wc -l <err.txt)" -eq 2 ] || fail "an error is two lines"
[ ! -s out.txt ] || fail "an error prints nothing on standard output"
expect 78 "$NIBBLE" config check "$config" --set train.stepps=3 && says "--set train.stepps=3: unknown key"
expect 78 "$NIBBLE" train "$config" --set train.steps=abc && says 'train.steps is not a whole number: "abc"'

# --set may come before and after the file, and several times; the resolved text is a configuration again.
expect 0 "$NIBBLE" config check "$config" && prints ": ok: "
expect 0 "$NIBBLE" config show --set train.steps=300 --set recipe=bf16 "$config" --set schedule.warmup_steps=7
prints "  steps: 300" && prints "  name: bf16" && prints "  warmup_steps: 7"
cp out.txt resolved.yaml
expect 0 env NIBBLE_CONFIG_DIR=/nowhere "$NIBBLE" config show resolved.yaml
cmp out.txt resolved.yaml || fail "the resolved configuration does not resolve to itself"
expect 0 "$NIBBLE" config reference
cmp out.txt "$SOURCE/docs/configuration.md" || fail "docs/configuration.md is out of date: nibble config reference"
expect 0 "$NIBBLE" config schema && /usr/bin/python3 -c 'import json,sys; json.load(open("out.txt"))'

# Recipes are found by name from any directory, in $NIBBLE_CONFIG_DIR, and by path.
cp "$config" elsewhere.yaml
expect 0 "$NIBBLE" config check elsewhere.yaml
mkdir -p mine/recipes
printf 'name: special\n' >mine/recipes/special.yaml
expect 66 "$NIBBLE" config check elsewhere.yaml --set recipe=special && says 'no recipe "special"'
expect 0 env NIBBLE_CONFIG_DIR=mine "$NIBBLE" config check elsewhere.yaml --set recipe=special && prints "recipe special"
expect 0 "$NIBBLE" config check elsewhere.yaml --set recipe=mine/recipes/special.yaml
printf 'forward: {x: {format: bf16, rotate: 16}}\n' >wrong.yaml
expect 78 "$NIBBLE" config check elsewhere.yaml --set recipe=wrong.yaml && says "wrong.yaml:1:29: forward.x is bf16"

# Hostile files give an error message, never a signal.
printf '&x\n- *x' >anchor.yaml
printf 'a: &a {<<: *a}' >merge.yaml
head -c 20000 /dev/zero | tr '\0' '[' >deep.yaml
head -c 4000000 /dev/zero | tr '\0' 'x' >large.yaml
printf 'a: \377\n' >bytes.yaml
: >empty.yaml
for file in anchor merge deep large bytes empty; do
  expect 78 "$NIBBLE" config check $file.yaml && says "$file.yaml" && says "  fix: "
done
expect 66 "$NIBBLE" config check . && says "is a directory"

# A decimal comma in the locale changes no number.
for locale in de_DE.UTF-8 tr_TR.UTF-8 C; do
  expect 0 env LC_ALL=$locale LANG=$locale "$NIBBLE" config show "$config" && prints "  learning_rate: 0.003"
done

# Standard streams may be closed or full.
expect 0 bash -c '"$NIBBLE" config reference <&- >/dev/null'
expect 74 bash -c '"$NIBBLE" config reference >/dev/full' && says "error[E74]: cannot write standard output"
code=0
bash -o pipefail -c '"$NIBBLE" config show "$1" --set run.seed=1 | true' _ "$config" 2>err.txt || code=$?
[ "$code" -eq 0 ] || fail "a reader that leaves early made exit code $code"
code=0
"$NIBBLE" config check typo.yaml 2>&- >/dev/null || code=$?
[ "$code" -eq 78 ] || fail "with standard error closed: exit code $code instead of 78"
echo "command line: passed"
