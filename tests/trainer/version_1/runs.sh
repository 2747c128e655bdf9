# The run of the checkpoints beside this file: make.sh sources it with an old binary, and version_1_test.sh with this one.
# Sourced after tests/tiny_run.sh. kinds: the runs, each with another state that a checkpoint keeps.
kinds="masters amax norms outliers oscillation skipped"
# Number of steps after which each run was stopped and saved.
declare -A stop=([masters]=4 [amax]=4 [norms]=4 [outliers]=6 [oscillation]=6 [skipped]=12)

version_1_run() {
  "$python" "$SOURCE/tests/run_tools.py" excerpt "$SOURCE/data/sample/state_of_the_union.txt.zst" text.txt
  expect 0 "$NIBBLE" tokenize text.txt --documents line --vocab-size 320 --validation-share 0.2 --output data
}
