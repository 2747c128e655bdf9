# What the program says of itself in a shell: completions that complete, a man page that troff reads without a warning, help
# of every command, the list of recipes, and silence where it is asked for.
# Labels: fast
source "$SOURCE/tests/tiny_run.sh"

# bash: what the tabulator offers at the end of a line. The function is called as bash calls it.
"$NIBBLE" completion bash >completion.bash
cat >complete.sh <<'EOF'
source completion.bash
compopt() { :; }  # works in a real completion only
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_nibble
echo "${COMPREPLY[*]}"
EOF
offers() { # WANTED WORD...
  local wanted=$1 got
  shift
  got=$(bash complete.sh "$@")
  [ "$got" = "$wanted" ] || fail "completion of '$*' is '$got' instead of '$wanted'"
}
offers "train" nibble tra
offers "ls verify diff prune" nibble checkpoint ""
offers "verify" nibble checkpoint ver
offers "--step" nibble checkpoint verify --st
offers "train.steps= train.stop_at=" nibble train --set train.st
offers "huggingface compressed-tensors modelopt" nibble export run --format ""
offers "zsh" nibble completion z
touch config.yaml
offers "config.yaml" nibble train conf
offers "--version" nibble --ver
# Every command and option of the help is offered.
for command in $("$NIBBLE" help | sed -n '/^Subcommands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
  offers "$command" nibble "$command"
  "$NIBBLE" help "$command" >help.txt
  diff help.txt <("$NIBBLE" "$command" --help) || fail "help $command is not $command --help"
  for option in $(grep -oE '^  (-[a-z],)?--[a-z-]+' help.txt | grep -oE -- '--[a-z-]+'); do
    bash complete.sh nibble "$command" "$option" | grep -qw -- "$option" || fail "$command: $option is not completed"
    grep -qF -- "${option//-/\\-}" <("$NIBBLE" man) || fail "the man page lacks $option"
  done
done
expect 0 "$NIBBLE" help config show && grep -q '^Usage: nibble config show' output.txt || fail "help of config show"
expect 64 "$NIBBLE" help trian && grep -q 'did you mean "train"' output.txt || fail "help of a mistyped command"
expect 64 "$NIBBLE" completion fish

# zsh reads its file, and calls what stands for the command.
"$NIBBLE" completion zsh >_nibble
zsh -f -c '
  _arguments() { [[ $1 == -C ]] && { state=rest; words=(checkpoint verify); return; }; print -l -- "$@" }
  _describe() { :; }
  compdef() { :; }
  source ./_nibble
  _nibble_checkpoint_verify
' >zsh.txt || fail "zsh does not read its completion"
grep -q '^--step\[' zsh.txt || { cat zsh.txt; fail "zsh: no --step"; }

"$NIBBLE" man >nibble.1
groff -man -ww -Tutf8 nibble.1 >page.txt 2>warnings.txt
[ ! -s warnings.txt ] || { cat warnings.txt; fail "troff warns of the man page"; }
grep -q 'nibble train' <(sed 's/.\x08//g' page.txt) || fail "the man page has no nibble train"

# Every recipe of configs/ has its line, and every one that is recommended exists.
(cd "$SOURCE" && "$NIBBLE" recipes) >recipes.txt
for recipe in "$SOURCE"/configs/recipes/*.yaml; do
  grep -qE "^$(basename "$recipe" .yaml) +[A-Za-z]" recipes.txt || fail "$recipe has no line"
done
mkdir -p configs/recipes
echo 'forward: nvfp5' >configs/recipes/wrong.yaml
printf 'name: mine\nsummary: "What I want"\ntake: "always"\nforward: bf16\n' >configs/recipes/mine.yaml
expect 0 "$NIBBLE" recipes --json
"$python" - <<'EOF'
import json
recipes = {each['name']: each for each in json.load(open('output.txt'))}
assert recipes['mine']['summary'] == 'What I want' and recipes['mine']['take'] == 'always', recipes['mine']
assert 'nvfp5' in recipes['wrong']['fault'], recipes['wrong']
EOF

# --quiet leaves warnings and errors.
tiny_data
expect 0 "$NIBBLE" train tiny.yaml --quiet
[ ! -s output.txt ] || { cat output.txt; fail "--quiet is not quiet"; }
expect 0 "$NIBBLE" train tiny.yaml --set run.dir=loud
grep -q '^nibble: model' output.txt && grep -q '^step' output.txt || fail "without --quiet a run tells nothing"
expect 73 "$NIBBLE" train tiny.yaml --quiet
grep -q '^error\[E73\]' output.txt || fail "--quiet hides an error"
echo "a shell is served"
