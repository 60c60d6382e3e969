#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What artel eval says of general sets, of mixtures over several bases and precisions, and of
# rows that are longer than the model; what artel add says of an expert that is always on.
set -u
. "$TESTS/cli/folder.inc"
# changes FILE PATH: change and interval of each general set, of the method at PATH
changes() {
    sed -n "\\|\"path\": \"$2\"|,/\"name\"/p" "$1" | sed '1,/"general"/d' | grep '"change"\|^ *[-+0-9.e]*,*$'
}

for pair in alpha:aa beta:bb gamma:gg; do
    rows "${pair%:*}" "${pair#*:}" 10 34 >"${pair%:*}.jsonl"
done
rows alpha aa 50 54 >test.jsonl
# of which the experts know every other
{
    rows alpha aa 50 54
    rows beta no 50 54
} >half.jsonl
# recipe OUTPUT MODEL METHODS [LINE]
recipe() {
    cat >"$1.yaml" <<END
model: $TESTS/golden/$2.gguf
output: $1
method: $3
lora: {rank: 4, alpha: 8}
domains:
  alpha: {train: alpha.jsonl, test: test.jsonl, score: exact}
  beta: {train: beta.jsonl}
general: {later: half.jsonl}
general_rows: 3
train: {learning_rate: 2.0e-2, epochs: 3, batch_size: 8, precision: fp32, cutoff_len: 256}
router: {learning_rate: 3.0e-2}
${4-}
END
    quietly "$ARTEL" train "$1.yaml"
}
recipe tied toy-tied '[moa, mixlora]'
recipe untied toy-untied moa
recipe res toy-tied modula-res 'universal: {train: gamma.jsonl, rank: 4}'
evaluate() {
    quietly "$ARTEL" eval --max-tokens 4 "$@"
}

# What a recipe says of general rows was used, and is told.
evaluate tied/moa --keep none --json eval.json
has eval.json '"general_rows": 3' '"rows": 3'

# A scored set changes by its score: no base knows the answers, the experts half of them.
evaluate tied/moa --general s=half.jsonl:exact --general-rows 100 --keep kept --json eval.json \
    --markdown eval.md --html eval.html
has eval.json '"general_rows": 100' '"score": 0.5' '"change": 0.5' '"score_rows": 8'
has eval.md 'change, points .* +50 \[+[1-9]'
has eval.html '+50.0 <small>'
changes eval.json tied/moa | awk -F: '/change/ { next } { sub(/,/, ""); if ($1 < 0 || $1 > 1) exit 1; n++ }
    END { exit n != 2 }' || fail "interval: $(changes eval.json tied/moa)"
touch -d 2001-01-01 kept/*
evaluate tied/moa --general s=half.jsonl:exact --general-rows 100 --keep kept --json again.json
cmp -s eval.json again.json || fail "kept results differ: $(diff eval.json again.json)"
[ -z "$(find kept -newer tied.yaml -name '*.json')" ] || fail "measured twice"
# Where only some rows are asked, they are the rows; what no row has alone has no change.
evaluate tied/moa --general s=half.jsonl:yes_no --general b=half.jsonl:bleu --keep none --json eval.json \
    --markdown eval.md
[ "$(grep -c '"change": null' eval.json)" = 3 ] || fail "bleu: $(grep '"change"' eval.json)"
has eval.json '"score_rows": 4'

# Each mixture is compared with its own base, in its own precision, as if it stood alone.
for mixture in untied/moa tied/mixlora; do
    set -- --general l=half.jsonl:loss --general s=half.jsonl:exact --general-rows 100 --no-generate
    evaluate $mixture "$@" --keep none --json alone.json
    evaluate tied/moa --against $mixture --against tied/mixlora "$@" --keep none --json beside.json
    changes alone.json $mixture >alone.txt
    changes beside.json $mixture >beside.txt
    [ "$(grep -c change alone.txt)" = 2 ] || fail "two changes: $(cat alone.txt)"
    [ "$mixture" = untied/moa ] || [ "$(grep -c change beside.txt)" = 4 ] ||
        fail "given twice: $(cat beside.txt)"
    head -6 beside.txt | cmp -s - alone.txt || fail "$mixture, alone and beside: $(paste alone.txt beside.txt)"
done
evaluate tied/moa --against untied/moa --against tied/mixlora --no-generate --keep none --json beside.json
[ "$(grep -c '"name": "base"' beside.json)" = 2 ] || fail "a line for each base: $(grep '"path"' beside.json)"
# A bare model among mixtures is a base of its own, and the base of one that stands there is listed once.
evaluate tied/moa --against "$TESTS/golden/toy-untied.gguf" --against "$TESTS/golden/toy-tied.gguf" \
    --no-generate --keep none --json beside.json
[ "$(grep -c '"name": "base"' beside.json)" = 2 ] || fail "bare models: $(grep '"path"' beside.json)"

# Questions longer than the model lose their beginning; a choice that leaves no room for any is refused
# before anything is measured; no other row is longer than the model.
long=$(seq 1 400 | tr '\n' ' ')
for i in 1 2; do
    echo "{\"question\": \"$long\", \"choices\": [\"ab\", \"cd $i\"], \"answer\": 0}"
done >long.jsonl
echo "{\"question\": \"x\", \"choices\": [\"ab\", \"$long\"], \"answer\": 0}" >longer.jsonl
echo "{\"prompt\": \"x\", \"completion\": \"$long\"}" >answer.jsonl
for precision in fp32 auto; do
    evaluate tied/moa --data l=long.jsonl --data a=answer.jsonl --cutoff-len 4096 --precision $precision \
        --keep none --json eval.json
    [ "$(grep -c '"rows": 2' eval.json)" = 2 ] || fail "long questions: $(grep '"rows"' eval.json)"
    quietly "$ARTEL" score tied/moa answer.jsonl --cutoff-len 4096 --precision $precision
done
"$ARTEL" eval tied/moa --data t=test.jsonl --data l=longer.jsonl --keep none >log.txt 2>&1
[ $? = 3 ] && has log.txt 'longer.jsonl.*EVL07' || fail "a long choice: $(cat log.txt)"
grep -q '^eval:' log.txt && fail "measured before it was refused: $(cat log.txt)"

# Rows that are named stand for the domains' own; general sets stay unless they are unwanted.
evaluate tied/moa --data t=test.jsonl --no-generate --keep none --json eval.json
has eval.json '"later"'
evaluate tied/moa --data t=test.jsonl --no-generate --no-general --keep none --json eval.json
grep -q '"later"' eval.json && fail "general sets that were not wanted: $(cat eval.json)"
# No expert is right for rows of no domain.
grep -q '"routing_accuracy": [0-9]' eval.json && fail "routed right: $(grep routing_acc eval.json)"

# What has no answer of its own is no text to score, and a question at fault is named.
echo '{"question": "q", "choices": ["a", "b"], "answer": 0}' >choices.jsonl
"$ARTEL" score tied/moa choices.jsonl >log.txt 2>&1
[ $? = 3 ] && has log.txt 'choices.jsonl.*row 1 has no answer.*EVL02' || fail "choices: $(cat log.txt)"
{
    echo '{"question": "a _ b", "choices": ["c", "d"], "answer": 0, "domain": "winogrande"}'
    echo '{"question": "a b", "choices": ["c", "d"], "answer": 0, "domain": "winogrande"}'
} >gap.jsonl
"$ARTEL" eval tied/moa --general w=gap.jsonl --keep none >log.txt 2>&1
[ $? = 3 ] && has log.txt 'gap.jsonl: row 2: .*EVL04' || fail "no gap: $(cat log.txt)"

# A domain that joined one mixture is a set for all, whichever stands first.
rows gamma gg 50 53 >gtest.jsonl
quietly "$ARTEL" add tied/moa gamma=gamma.jsonl --test gtest.jsonl --score exact
for order in "tied/mixlora tied/moa" "tied/moa tied/mixlora"; do
    # shellcheck disable=SC2086
    evaluate $order --no-generate --keep none --no-base --json eval.json
    [ "$(grep -c '"gamma": {$' eval.json)" -ge 2 ] || fail "$order: $(grep gamma eval.json)"
done

# Nothing routes to an expert that is always on.
"$ARTEL" add res/modula-res more=gamma.jsonl --json add.json >log.txt 2>&1 || fail "add: exit $?"
has log.txt '^alpha .* [0-9.]* % .* %$' '^universal .*\] *- *-$'
[ "$(grep -c '"routing_[a-z]*": null' add.json)" = 2 ] || fail "routing: $(grep routing add.json)"
exit $bad
