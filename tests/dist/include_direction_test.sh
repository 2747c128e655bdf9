#!/usr/bin/env bash
# Checks which folders and which rooms of a folder include which (tests/dist/house.py has the tables).
# Labels: fast
python3 "$SOURCE/tests/dist/house.py" self-test "$WORK/tree"
python3 "$SOURCE/tests/dist/house.py" check "$SOURCE"
