#!/usr/bin/env bash
# cmake --install: the installed program finds its recipes from any directory, and licences and docs come with it. The Debian
# package holds the same files, and names its version, licence and the libraries that the program is linked with.
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
for file in bin/nibble bin/nibble-launch share/nibble/log_to_wandb.py share/nibble/log_to_mlflow.py; do
  [ -x "$installed/$file" ] || fail "$file is not installed, or not executable"
done
for file in man/man1/nibble.1 bash-completion/completions/nibble zsh/vendor-completions/_nibble; do
  [ -s "$installed/share/$file" ] || fail "share/$file is not installed"
done
for file in LICENSE NOTICE README.md docs/operations.md trainer/page/third_party/uplot/LICENSE; do
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
"$installed/bin/nibble-launch" -n 2 "$installed/bin/nibble" --version >both.txt
[ "$(grep -c '^licence *Apache-2.0$' both.txt)" -eq 2 ] || fail "nibble-launch does not start two ranks"
"$installed/share/nibble/log_to_wandb.py" --help | grep -q -- --follow || fail "a logger does not start"

# The package. Its program may be stripped; the other files are those that --install copies.
(cd .. && cpack --config "$build/CPackConfig.cmake" -B "$WORK/package" >packed.txt 2>&1) || { cat ../packed.txt; fail "cpack failed"; }
package=$(echo "$WORK"/package/nibble_*.deb)
version=$("$NIBBLE" --version | sed -n 's/^nibble *\([0-9.]*\).*/\1/p' | head -1)
[ "$(dpkg-deb -f "$package" Version)" = "$version" ] || fail "the package has the version $(dpkg-deb -f "$package" Version), not $version"
[ "$(basename "$package")" = "nibble_${version}_$(dpkg --print-architecture).deb" ] || fail "the package is named $package"
dpkg-deb -f "$package" Depends >depends.txt
for library in libhdf5 libyaml-cpp libsentencepiece libcairo2 libopenmpi openmpi-bin libc6; do
  grep -q "$library" depends.txt || { cat depends.txt; fail "the package does not depend on $library"; }
done
dpkg-deb -x "$package" unpacked
diff -r "$WORK/stage/usr" unpacked/usr >differences.txt || true
! grep -v 'usr/bin/nibble and unpacked/usr/bin/nibble differ' differences.txt || fail "the package holds other files than --install copies"
[ "$(unpacked/usr/bin/nibble --version)" = "$("$NIBBLE" --version)" ] || fail "the packed program is another version"
grep -q '^License: Apache-2.0' unpacked/usr/share/doc/nibble/copyright || fail "the package does not name its licence"
echo "installed and packed"
