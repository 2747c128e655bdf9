#!/usr/bin/env bash
# cmake --install: the installed program finds its recipes from any directory, and licences and docs come with it.
# Needs $NIBBLE (the binary, in its build directory), $SOURCE (the source tree) and $WORK (a directory of this test's own).
set -euo pipefail
rm -rf "$WORK"
mkdir -p "$WORK/elsewhere"
build=$(dirname "$NIBBLE")
fail() { echo "FAILED: $*" >&2; exit 1; }

DESTDIR=$WORK/stage cmake --install "$build" --prefix /usr >/dev/null
cmake --install "$build" --prefix "$WORK/prefix" >/dev/null
diff -r "$WORK/stage/usr" "$WORK/prefix" || fail "DESTDIR and --prefix install different files"
installed=$WORK/prefix
for file in bin/nibble share/nibble/launch.sh; do
  [ -x "$installed/$file" ] || fail "$file is not installed, or not executable"
done
for file in LICENSE NOTICE README.md docs/operations.md trainer/report/third_party/uplot/LICENSE; do
  cmp "$SOURCE/$file" "$installed/share/doc/nibble/$file"
done
diff -r "$SOURCE/configs" "$installed/share/nibble/configs"

# Neither the source tree nor the build tree is in reach of a relative path here.
cp "$SOURCE/configs/runs/quickstart.yaml" "$WORK/elsewhere/run.yaml"
cd "$WORK/elsewhere"
mv "$installed" ../moved
installed=$WORK/moved
[ "$("$installed/bin/nibble" --version)" = "$("$NIBBLE" --version)" ] || fail "the installed program is another version"
for recipe in "$SOURCE"/configs/recipes/*.yaml; do
  name=$(basename "$recipe" .yaml)
  "$installed/bin/nibble" config show run.yaml --set recipe="$name" >shown.txt
  grep -qx "  name: $name" shown.txt || fail "recipe $name is not found by name"
done
bash "$installed/share/nibble/launch.sh" -n 2 "$installed/bin/nibble" --version >both.txt
[ "$(grep -c '^licence *Apache-2.0$' both.txt)" -eq 2 ] || fail "launch.sh does not start two ranks"
echo "installed"
