#!/usr/bin/env bash
# Who may include whom, among folders and among the rooms of a folder (tests/dist/house.py has the tables).
python3 "$SOURCE/tests/dist/house.py" self-test "$WORK/tree"
python3 "$SOURCE/tests/dist/house.py" check "$SOURCE"
