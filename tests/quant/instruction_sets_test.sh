# Every operand has the same bits whichever clones of the vectorised functions run: those for AVX-512, AVX2 or any x86-64.
set -euo pipefail
fail() { echo "FAILED: $*" >&2; exit 1; }
rm -rf "$WORK" && mkdir -p "$WORK"
levels=(x86_64 x86-64-v3)
"$PROGRAMS/quantize_digest" >"$WORK/native"
native=$(head -n 1 "$WORK/native")
case $native in
  "level only") echo "this build has no clones"; exit 0 ;;
  "level default") echo "this machine runs the baseline only"; exit 0 ;;
  "level x86-64-v3") levels=(x86_64) ;;
esac
for level in "${levels[@]}"; do
  "$PROGRAMS/quantize_digest_$level" >"$WORK/$level"
  [ "$(head -n 1 "$WORK/$level")" != "$native" ] || fail "$level chose the clones of this machine"
  diff <(tail -n +2 "$WORK/native") <(tail -n +2 "$WORK/$level") || fail "$level has other bits"
  echo "$level: the same $(($(wc -l <"$WORK/native") - 1)) digests"
done
# The digests themselves must be able to differ.
[ "$(tail -n +2 "$WORK/native" | cut -d ' ' -f 1 | sort -u | wc -l)" -gt 300 ] || fail "operands have equal digests"
