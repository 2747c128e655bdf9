#!/usr/bin/env bash
# Installs what nibble builds with (Debian 12 or 13; Ubuntu 24.04 has the same package names) and builds it. Skips what
# is present; needs no Python.
# Usage: scripts/setup.sh [--tests] [--packages]     --tests also installs and builds what the tests need;
#        --packages installs only, and builds nothing
set -euo pipefail
cd "$(dirname "$0")/.."
with_tests=OFF
builds=ON
for argument in "$@"; do
  case "$argument" in
    --tests) with_tests=ON ;;
    --packages) builds=OFF ;;
    -h | --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
    *) echo "setup.sh: unknown argument '$argument' (try --help)" >&2; exit 64 ;;
  esac
done

packages=(g++ cmake ninja-build pkg-config ccache libopenmpi-dev openmpi-bin libhdf5-dev libyaml-cpp-dev libcli11-dev
  libfmt-dev nlohmann-json3-dev libsentencepiece-dev libprotobuf-dev libxxhash-dev libzstd-dev libarchive-dev libpcre2-dev
  libsimdjson-dev libutf8proc-dev libcairo2-dev zlib1g-dev libcpp-httplib-dev)
test_packages=(libboost-context-dev zstd procps python3 python3-h5py python3-jsonschema python3-yaml libgtest-dev
  dpkg-dev file zsh groff-base chromium chromium-driver python3-selenium)
optional_test_packages=(clang-format-14) # not in every distribution; scripts/check_format.sh takes no other version
if [ "$with_tests" = ON ]; then packages+=("${test_packages[@]}"); fi

privilege=()
if [ "$(id -u)" -ne 0 ]; then privilege=(sudo); fi
is_installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q '^install ok installed$'; }
install_packages() {
  "${privilege[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
missing=()
for package in "${packages[@]}"; do is_installed "$package" || missing+=("$package"); done
if [ "${#missing[@]}" -gt 0 ]; then
  echo "setup: installing ${missing[*]}"
  "${privilege[@]}" apt-get update -qq
  install_packages "${missing[@]}"
fi
if [ "$with_tests" = ON ]; then
  for package in "${optional_test_packages[@]}"; do
    if is_installed "$package"; then continue; fi
    if apt-cache show "$package" >/dev/null 2>&1; then
      echo "setup: installing $package"
      install_packages "$package"
    else
      echo "setup: this distribution has no $package, and what needs it is not run"
    fi
  done
fi

if [ "$builds" = OFF ]; then exit 0; fi
build=${NIBBLE_BUILD:-build}
jobs=$(nproc)
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release "-DNIBBLE_CUDA=${NIBBLE_CUDA:-AUTO}" "-DNIBBLE_TESTS=$with_tests" >"$build.log" 2>&1 ||
  { cat "$build.log" >&2; exit 70; }
rm -f "$build.log"
if [ "$with_tests" = ON ]; then targets=(all); else targets=(nibble); fi
cmake --build "$build" --parallel "$jobs" --target "${targets[@]}"
