#!/usr/bin/env bash
# Who may include whom: dist <- quant <- model <- trainer, dist <- data <- trainer, quant <- optim <- trainer. And the one
# conditional on NIBBLE_WITH_CUDA is in dist/dispatch.h.
set -u
declare -A allowed=(
  [dist]="dist"
  [quant]="dist quant"
  [model]="dist quant model"
  [optim]="dist quant optim"
  [data]="dist data"
  [trainer]="dist quant model optim data trainer"
)
include='^[[:space:]]*#[[:space:]]*include[[:space:]]*'
conditional='^[[:space:]]*#[[:space:]]*(el)?if.*NIBBLE_WITH_CUDA'

sources_of() {
  find "$1" -name third_party -prune -o \
    -type f \( -name '*.h' -o -name '*.inl' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print
}

# check ROOT: prints what is wrong with the tree; succeeds if nothing is.
check() {
  local root=$1 wrong=0 folder file name quote target
  for folder in "${!allowed[@]}"; do
    [ -d "$root/$folder" ] || continue
    while IFS= read -r file; do
      name=${file#"$root"/}
      while read -r quote target; do
        if [[ $target != */* ]]; then
          [ "$quote" = '<' ] && continue # a system header
          echo "$name: \"$target\" lacks its folder" && wrong=1
        elif [[ -n ${allowed[${target%%/*}]+known} && " ${allowed[$folder]} " != *" ${target%%/*} "* ]]; then
          echo "$name: $folder may not include $target" && wrong=1
        fi
      done < <(sed -nE "s|$include([\"<])([^\">]*)[\">].*|\1 \2|p" "$file")
      if [ "$name" != dist/dispatch.h ] && grep -qE "$conditional" "$file"; then
        echo "$name: devices are chosen in dist/dispatch.h only" && wrong=1
      fi
    done < <(sources_of "$root/$folder")
  done
  if [ "$(grep -cE "$conditional" "$root/dist/dispatch.h")" != 1 ]; then
    echo "dist/dispatch.h: exactly one conditional on NIBBLE_WITH_CUDA" && wrong=1
  fi
  return $wrong
}

# The check itself must notice each kind of offence.
notices() {
  rm -rf "$WORK/tree" && mkdir -p "$WORK/tree/dist" "$WORK/tree/$(dirname "$1")"
  echo '#ifdef NIBBLE_WITH_CUDA' >"$WORK/tree/dist/dispatch.h"
  check "$WORK/tree" >/dev/null || { echo "a good tree is called bad" && exit 1; }
  echo "$2" >"$WORK/tree/$1"
  if check "$WORK/tree" >/dev/null; then echo "not noticed: $2 in $1" && exit 1; fi
}
notices dist/a.cpp '#include "quant/tensor.h"'
notices quant/a.h '# include "model/config.h"'
notices model/ops/a.cu '#include <trainer/run_config.h>'
notices optim/a.cpp '#include "model/parameter.h"'
notices data/a.cpp '#include "quant/dtype.h"'
notices quant/a.cpp '#include "tensor.h"'
notices model/a.cpp '#if defined(NIBBLE_WITH_CUDA)'

check "$SOURCE"
