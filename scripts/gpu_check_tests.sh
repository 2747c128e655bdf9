# The GPU tests of scripts/gpu_check.sh, which sources this file: all in one process, because a process takes long to start
# on a GPU, and in more only as far as one ends early. Needs the functions run, limited, least, left and say of that script.

declare -A outcome=() reason=()
sticky='cudaError(IllegalAddress|IllegalInstruction|MisalignedAddress|InvalidAddressSpace|InvalidPc|HardwareStackError|LaunchFailure|LaunchTimeout|Assert|ECCUncorrectable|Unknown)'
# read_results LOG CODE: fills outcome and reason. A test in which the program ended has failed, unless all time is used. After an error that stays with
# the process, failures say nothing of the tests that have them, which keep no outcome.
read_results() {
  local line name='' text='' spoiled=''
  while IFS= read -r line; do
    case "$line" in
      *'[ RUN      ] '*) name=${line#*'[ RUN      ] '}; text= ;;
      *'[       OK ] '*) if [ -n "$name" ]; then outcome[$name]=passed; fi; name= ;;
      *'[  SKIPPED ] '*) if [ -n "$name" ]; then outcome[$name]=skipped; reason[$name]=$text; fi; name= ;;
      *'[  FAILED  ] '*)
        if [ -n "$name" ] && [ -z "$spoiled" ]; then outcome[$name]=failed; reason[$name]=$text; fi
        if [[ $text =~ $sticky ]]; then spoiled=yes; fi
        name= ;;
      *) if [ "${#text}" -lt 1500 ] && [[ $line != *': Skipped' && $line != *': Failure' ]]; then text+="$line "; fi ;;
    esac
  done <"$1"
  if [ -n "$name" ] && [ "$2" != "out of time" ]; then
    outcome[$name]=failed
    reason[$name]="the program ended in this test (code $2). $text"
  fi
}
run_tests() { # LOG SECONDS FILTER
  local wanted=$((patience * $2)) limit code=0
  limit=$(least "$wanted" "$(left)")
  limited "$limit" run cuda_gpu_tests "--gtest_filter=$3" "--gtest_output=json:$logs/$1.json" >"$logs/$1.log" 2>&1 || code=$?
  if [ "$code" -eq 124 ] && [ "$limit" -lt "$wanted" ]; then code="out of time"; fi
  read_results "$logs/$1.log" "$code"
}
list_tests() { # FILTER: sets tests
  local line suite=''
  tests=()
  limited 30 run cuda_gpu_tests --gtest_list_tests "--gtest_filter=$1" >"$work/list" 2>"$logs/tests-list.log" || true
  while IFS= read -r line; do
    line=${line%%  # *}
    if [[ $line == '  '* ]]; then tests+=("$suite${line#  }"); elif [[ $line == *. ]]; then suite=$line; fi
  done <"$work/list"
}
without_outcome() { # SUITE: its tests without an outcome, as a filter
  local name filter=''
  for name in "${tests[@]}"; do
    if [[ $name == "$1".* && -z "${outcome[$name]:-}" ]]; then filter=${filter:+$filter:}$name; fi
  done
  echo "$filter"
}
# gpu_tests TITLE FILTER SECONDS LOG: runs the tests, and writes a section of the report. LOG: a name without ending.
gpu_tests() {
  local name suite filter before count turn=0 suites=()
  say ""; say "## $1"; say ""
  list_tests "$2"
  if [ "${#tests[@]}" -eq 0 ]; then
    say_failed "no tests: cuda_gpu_tests lists none (tests-list.log)"
    quote "$logs/tests-list.log"
    return 0
  fi
  for name in "${tests[@]}"; do
    if [[ " ${suites[*]:-} " != *" ${name%.*} "* ]]; then suites+=("${name%.*}"); fi
  done
  if [ "$(left)" -ge 5 ]; then run_tests "tests-$4" "$3" "$2"; fi
  # What a crash, or an error that stays with the process, has kept from running: each suite in a process of its own.
  for suite in "${suites[@]}"; do
    filter=$(without_outcome "$suite")
    while [ -n "$filter" ] && [ "$(left)" -ge 5 ]; do
      before=$filter
      turn=$((turn + 1))
      run_tests "tests-$4-again-$turn" 60 "$filter"
      filter=$(without_outcome "$suite")
      if [ "$filter" = "$before" ]; then break; fi
    done
  done
  for suite in "${suites[@]}"; do
    count=0
    for name in "${tests[@]}"; do
      if [ "${name%.*}" != "$suite" ]; then continue; fi
      case "${outcome[$name]:-}" in
        passed) count=$((count + 1)) ;;
        skipped) say_not_run "$name" "${reason[$name]:0:300}" ;;
        failed) say_failed "$name: ${reason[$name]:0:1000}" ;;
        *) say_not_run "$name" "out of time, or the program ended before it" ;;
      esac
    done
    passed=$((passed + count))
    if [ "$count" -gt 0 ]; then say "* passed   $suite ($count tests)"; fi
  done
}
