# Tests nibble report on real runs: one, two and many, refusals, and the page itself in headless Chromium: every panel is
# filled, every control has its effect, and the page fits a phone and dark rooms.
source "$SOURCE/tests/tiny_run.sh"
tiny_data
quick=(--set train.steps=24 --set eval.every=4 --set checkpoint.every=0 --set telemetry.every=3)
expect 0 "$NIBBLE" train tiny.yaml "${quick[@]}" --set run.dir=bf16 --set recipe=bf16
# A directory's name is text, whatever it holds.
mkdir 'x<'
expect 0 "$NIBBLE" train tiny.yaml "${quick[@]}" --set run.dir=nvfp4
run='x</script><b>nvfp4'
mv nvfp4 "$run"

expect 0 "$NIBBLE" report "$run"
[ -s "$run/report.html" ] || fail "no report in the run's directory"
expect 0 "$NIBBLE" report bf16 "$run" --output pages/two.html
grep -q 'report: pages/two.html' output.txt || fail "the report's place is not printed"
grep -q '<b>nvfp4' pages/two.html && fail "a directory's name is HTML"
grep -qE '(src|href)="?http' pages/two.html && fail "the page needs a network"
many=()
for i in $(seq 20); do
  mkdir "copy-$i"
  cp bf16/config.yaml bf16/metrics.jsonl "copy-$i"
  many+=("copy-$i")
done
expect 0 "$NIBBLE" report "${many[@]}" --output many.html
expect 66 "$NIBBLE" report nowhere
expect 64 "$NIBBLE" report
echo "letter" >letter.html
expect 73 "$NIBBLE" report bf16 --output letter.html
grep -q letter letter.html || fail "somebody else's file is gone"
expect 0 "$NIBBLE" report bf16 "$run" --output figure.svg
grep -q '<svg' figure.svg || fail "the figure is no SVG"
expect 0 "$NIBBLE" report bf16 --output pages/two.html
expect 0 "$NIBBLE" report bf16 "$run" --output pages/two.html
echo '{"event": "step"}' >>copy-1/metrics.jsonl
expect 65 "$NIBBLE" report copy-1
grep -q 'metrics.jsonl:' output.txt || fail "the damaged line is not named"

"$python" "$SOURCE/tests/trainer/page_browser.py" report "file://$WORK/pages/two.html" || fail "the page in Chromium"
echo "report works"
