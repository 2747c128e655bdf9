#!/usr/bin/env bash
# Checks models that nibble exports with the programs that are to read them: transformers, lm-evaluation-harness and
# compressed-tensors. Trains three tiny models for that. Prints a line for each check; a check that fails or cannot run makes
# the exit code 1.
# Usage: scripts/check_huggingface.sh [DIRECTORY]     everything is written to DIRECTORY (default runs/check_huggingface)
# Needs a built nibble (NIBBLE_BUILD, default build). Python is $PYTHON, which must have the packages torch, transformers,
# accelerate, lm-eval and compressed-tensors; without it they are installed into DIRECTORY/venv, which takes some gigabytes.
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,7s/^# //p' "$0"; exit 0 ;; esac
work=${1:-runs/check_huggingface}
nibble=$(realpath "${NIBBLE_BUILD:-build}")/nibble
if [ -e "$work/work" ]; then
  echo "check_huggingface: $work/work exists already; remove it or name another directory" >&2
  exit 73
fi
mkdir -p "$work/work"
if [ -z "${PYTHON:-}" ]; then
  PYTHON=$work/venv/bin/python
  if [ ! -x "$PYTHON" ]; then python3 -m venv "$work/venv"; fi
  "$PYTHON" -m pip install --quiet torch transformers accelerate lm-eval compressed-tensors
fi
# Nothing is fetched from here on.
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false
export HF_HOME=$(realpath "$work")/work/cache
exec "$PYTHON" scripts/check_huggingface.py "$nibble" "$work/work"
