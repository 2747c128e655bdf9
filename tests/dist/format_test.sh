#!/usr/bin/env bash
# All sources are formatted as .clang-format says.
exec bash "$SOURCE/scripts/check_format.sh"
