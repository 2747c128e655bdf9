#!/usr/bin/env bash
# Checks that links and anchors of README.md and docs/*.md resolve, and that files exist which docs or comments name.
# Labels: fast
python3 "$SOURCE/tests/dist/links.py" self-test "$WORK/tree"
python3 "$SOURCE/tests/dist/links.py" check "$SOURCE"
