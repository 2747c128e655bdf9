#!/usr/bin/env bash
# Does the main job: builds nibble, tokenizes the State of the Union addresses, trains one small model in BF16 and in NVFP4
# on two ranks, stops the NVFP4 run half-way and resumes it, and compares the two loss curves.
# Usage: scripts/quickstart.sh [DIRECTORY]     everything is written to DIRECTORY (default runs/quickstart)
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;; esac
work=${1:-runs/quickstart}
config=configs/runs/quickstart.yaml

# Two ranks on this machine, however few cores it has (Open MPI 4 reads the first name, 5 the second), and without TCP,
# of which Open MPI 5 warns where it finds no way to use it.
export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export OMPI_MCA_btl=${OMPI_MCA_btl:-^tcp}

say() { printf '\n== %s\n' "$*"; }
if [ -e "$work" ]; then
  echo "quickstart: $work exists already; remove it or name another directory" >&2
  exit 73
fi

say "1/6 build"
./scripts/setup.sh
nibble=$(realpath "${NIBBLE_BUILD:-build}")/nibble

say "2/6 tokenize: 10.8 MB of text, 4,096 pieces"
mkdir -p "$work"
tokenize() { # OPTION...
  "$nibble" tokenize data/sample/state_of_the_union.txt.zst --documents line --validation-share 0.05 --output "$work/data" "$@"
}
tokenize --vocab-size 4096
# data/sample/tokenizer.model is what this command trains with SentencePiece 0.1.97 (Debian 12).
if ! cmp -s "$work/data/tokenizer.model" data/sample/tokenizer.model; then
  echo "This version of SentencePiece trains another tokenizer than that of the README's losses; the runs take the latter:"
  tokenize --tokenizer data/sample/tokenizer.model --overwrite
fi

train() { # NAME RECIPE: replaces the shell by launch.sh, so call it in a subshell
  exec ./scripts/launch.sh -n 2 "$nibble" train "$config" --set "recipe=$2" --set "run.dir=$work/$1" \
    --set "data.train=$work/data/train-*.bin" --set "data.validation=$work/data/validation-*.bin"
}
steps_done() { cat "$1/metrics.jsonl" 2>/dev/null | grep -c '"event":"step"' || true; }

say "3/6 train in BF16 on two ranks"
(train bf16 bf16)

say "4/6 train in NVFP4, and stop it half-way with SIGUSR1"
train nvfp4 nvfp4 &
launcher=$!
trap 'kill "$launcher"' EXIT # a job in the background does not see Ctrl-C
half=$(($(sed -n 's/^  steps: *\([0-9]*\).*/\1/p' "$config") / 2))
while kill -0 "$launcher" 2>/dev/null && [ "$(steps_done "$work/nvfp4")" -lt "$half" ]; do sleep 0.2; done
kill -USR1 "$launcher" 2>/dev/null || true # if it has ended already, its exit code says why
code=0
wait "$launcher" || code=$?
trap - EXIT
if [ "$code" -ne 75 ]; then
  echo "quickstart: expected exit code 75 (checkpoint saved), got $code" >&2
  exit 70
fi

say "5/6 resume it (exit code was 75: checkpoint saved)"
./scripts/launch.sh -n 2 "$nibble" resume "$work/nvfp4"

say "6/6 compare"
"$nibble" compare "$work/bf16" "$work/nvfp4"
echo "This is a smoke run: 200 steps of a tiny model make a noisy gap, of either sign."
say "what the NVFP4 model writes"
"$nibble" generate "$work/nvfp4" --prompt "Fellow-Citizens of the Senate" --tokens 80 --temperature 0.7
