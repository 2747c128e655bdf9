#!/usr/bin/env bash
# Checks that all sources are formatted as .clang-format says.
exec bash "$SOURCE/scripts/check_format.sh"
