#!/usr/bin/env bash
# Checks that all sources are formatted as .clang-format says. It shows as skipped (exit code 69) where there is no
# clang-format-14.
# Labels: fast
exec bash "$SOURCE/scripts/check_format.sh"
