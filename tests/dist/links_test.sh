#!/usr/bin/env bash
# Links and anchors of README.md and docs/*.md lead somewhere, and files that they or comments name exist.
python3 "$SOURCE/tests/dist/links.py" self-test "$WORK/tree"
python3 "$SOURCE/tests/dist/links.py" check "$SOURCE"
