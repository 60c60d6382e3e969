#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What artel add and artel remove print and write: costs beside those of training all anew,
# and the scores of the other domains, which artel eval over the same rows must give too.
set -u
. "$TESTS/cli/folder.inc"

# number FILE KEY [N]: what stands behind the N-th "KEY" of a JSON file, the first where not given
number() {
    sed -n "s/^ *\"$2\": \(.*[^,]\),*$/\1/p" "$1" | sed -n "${3-1}p"
}
# floats FILE: how many numbers of four bytes the tensors of a safetensors file have
floats() {
    # shellcheck disable=SC2046
    set -- "$(wc -c <"$1")" $(od -An -tu4 -N4 "$1")
    echo $((($1 - 8 - $2) / 4))
}
# same WHAT VALUE WANT
same() {
    [ "$2" = "$3" ] && [ -n "$3" ] || fail "$1: $2 instead of $3"
}
# near WHAT VALUE WANT: but for rounding
near() {
    awk "BEGIN { d = $2 - ($3); exit !(d < 1e-9 && d > -1e-9) }" || fail "$1: $2 instead of $3"
}

for pair in alpha:aa beta:bb gamma:gg; do
    rows "${pair%:*}" "${pair#*:}" 10 34 >"${pair%:*}.jsonl"
done
# Of these alpha knows two of three and gamma the third; none knows what is yes and what is no.
{
    rows alpha aa 50 52 && rows gamma gg 60 61 && rows alpha aa 70 72
} >alpha.test.jsonl
{
    rows beta yes 50 51 && rows beta bb 52 53 && rows beta no 53 54 && rows beta bb 54 55
} >beta.test.jsonl
# recipe OUTPUT METHOD BETA [LINE]: what beta is measured by is BETA
recipe() {
    cat >"$1.yaml" <<END
model: $TESTS/golden/toy-tied.gguf
output: $1
method: $2
lora: {rank: 4, alpha: 8}
domains:
  alpha: {train: alpha.jsonl, test: alpha.test.jsonl, score: exact}
  beta: {train: beta.jsonl, $3}
train: {learning_rate: 2.0e-2, epochs: 3, batch_size: 8, precision: fp32, cutoff_len: 48, save_steps: 5}
router: {learning_rate: 3.0e-2}
${4-}
END
    quietly "$ARTEL" train "$1.yaml"
}
recipe moa moa 'test: beta.test.jsonl, score: yes_no'
recipe flan modula-flan 'test: beta.test.jsonl, score: rouge_l' 'universal: {train: gamma.jsonl, rank: 4}'
echo 'A text without a question.' >beta.txt
recipe single single 'test: beta.txt, score: exact'
echo '{"question": "which", "choices": ["ab", "c"], "answer": 0}' >beta.choices.jsonl
recipe arrow arrow 'test: beta.choices.jsonl, score: first_letter'
cp -r moa lean

# add MIXTURE JSON [WORDS]: gamma joins
add() {
    mixture=$1 json=$2
    shift 2
    "$ARTEL" add "$mixture" gamma=gamma.jsonl "$@" --json "$json" >out.txt 2>log.txt ||
        fail "add $mixture $*: exit $?: $(tail -3 log.txt)"
}
# line NAME VALUE ALL SHARE: a row of the table
line() {
    has out.txt "^$1  *$2  *$3  *$4 %\$"
}
# costs MIXTURE JSON PARAMETERS ALL TOKENS ALL STEPS ALL: as they were printed and written
costs() {
    same "parameters" "$(number "$2" parameters) of $(number "$2" parameters 2)" "$3 of $4"
    same "tokens" "$(number "$2" tokens) of $(number "$2" tokens 2)" "$5 of $6"
    same "steps" "$(number "$2" steps) of $(number "$2" steps 2)" "$7 of $8"
    near "share of parameters" "$(number "$2" parameters 3)" "$3 / $4"
    near "share of tokens" "$(number "$2" tokens 3)" "$5 / $6"
    near "share of steps" "$(number "$2" steps 3)" "$7 / $8"
    line parameters "$3" "$4" "$(awk "BEGIN { printf \"%.1f\", 100 * $3 / $4 }")"
    line tokens "$5" "$6" "$(awk "BEGIN { printf \"%.1f\", 100 * $5 / $6 }")"
    line steps "$7" "$8" "$(awk "BEGIN { printf \"%.1f\", 100 * $7 / $8 }")"
    line seconds "$(number "$2" seconds | xargs printf %.1f)" "$(number "$2" seconds 2 | xargs printf %.1f)" \
        "$(awk "BEGIN { printf \"%.1f\", 100 * $(number "$2" seconds 3) }")"
    near "share of seconds" "$(number "$2" seconds 3)" "$(number "$2" seconds) / $(number "$2" seconds 2)"
}
# stage MIXTURE NAME KEY: what mixture.json tells of a stage
stage() {
    sed -n "/^ *\"$2\": {/,/}/p" "$1/mixture.json" >stage.json
    number stage.json "$3"
}
# evaluate MIXTURE JSON: the first three rows of each domain, answered
evaluate() {
    quietly "$ARTEL" eval "$1" --max-rows 3 --no-base --keep none --json "$2"
}
# scored JSON SIDE EVAL: its scores on that side are those of an evaluation
scored() {
    for n in 1 2; do
        same "$1: score $n $2" "$(number "$1" "score_$2" "$n")" "$(number "$3" score "$n")"
    done
}

# Two texts of 24 rows of 42 tokens, eight a step, three times, and a third joins: nine steps
# of its expert, and 27 of the routers, beside four times nine of them all.
evaluate moa/moa before.json
add moa/moa add.json --score-rows 3
evaluate moa/moa after.json
one=$(floats moa/moa/experts/gamma/adapter_model.safetensors)
two=$(floats moa/moa/experts/alpha/adapter_model.safetensors)
routers=$(floats moa/moa/router.safetensors)
same "an expert of rank 4" "$one" "$two"
costs moa/moa add.json $((one + routers)) $((3 * one + routers)) $((36 * 336)) $((54 * 336)) 36 54
near "seconds of training" "$(number add.json seconds)" \
    "$(stage moa/moa expert-gamma seconds) + $(stage moa/moa add-gamma seconds)"
near "seconds of all anew" "$(number add.json seconds 2)" \
    "$(stage moa/moa expert-alpha seconds) + $(stage moa/moa expert-beta seconds) + \
     $(stage moa/moa expert-gamma seconds) + $(stage moa/moa moa-router seconds) * 3 / 2"
scored add.json before before.json
scored add.json after after.json
near "two of three" "$(number add.json score_before)" '2 / 3'
near "all three" "$(number add.json score_after)" 1
near "which is one of three more" "$(number add.json score_change)" '1 / 3'
same "rows of alpha and of beta, where one is no question of yes or no" \
    "$(number add.json score_rows) $(number add.json score_rows 2)" '3 2'
has add.json '"score_name": "exact"' '"score_name": "yes_no"' '"score_change": 0.0' '"score_ci95": \['
has out.txt '^alpha  *exact  *3  *66.7 %  *100.0 %  *\[+0.0, +100.0\]$' '^beta  *yes_no  *2  *0.0 %  *0.0 %  *\['
has log.txt '^alpha: answering 3 rows$' '^alpha: answering 3 rows again$'

# Trained over a base that is packed layer by layer, the same is measured.
sed -i 's/"memory": "[a-z]*"/"memory": "quantised"/' lean/moa/mixture.json
has lean/moa/mixture.json '"memory": "quantised"'
add lean/moa lean.json --score-rows 3
has log.txt 'memory: quantised'
grep -v seconds add.json | sed 's/"path".*//' >left.txt
grep -v seconds lean.json | sed 's/"path".*//' >right.txt
cmp -s left.txt right.txt || fail "packed layer by layer: $(diff left.txt right.txt)"

# With a universal expert: nine steps and 36 of the routers, beside as many and three times nine more.
evaluate flan/modula-flan before.json
add flan/modula-flan add.json --score-rows 3
evaluate flan/modula-flan after.json
one=$(floats flan/modula-flan/experts/gamma/adapter_model.safetensors)
routers=$(floats flan/modula-flan/router.safetensors)
costs flan/modula-flan add.json $((one + routers)) $((4 * one + routers)) $((45 * 336)) $((72 * 336)) 45 72
scored add.json before before.json
scored add.json after after.json
same "domains with a score" "$(grep -c score_name add.json)" 2
for n in 1 2; do
    near "change $n" "$(number add.json score_change $n)" \
        "$(number add.json score_after $n) - $(number add.json score_before $n)"
done

# Nothing routes: what the same expert answers is not asked twice. Rows that are no questions
# cost their domain its score alone, and no row is asked where none is wanted.
add single/single add.json
has log.txt '^alpha: answering 5 rows$' 'warning: beta is not scored: .*EVL02'
grep -q 'answering .* again' log.txt && fail "asked twice: $(cat log.txt)"
same "alpha, all its rows being fewer than twenty" "$(number add.json score_rows)" 5
same "before and after" "$(number add.json score_before)" "$(number add.json score_after)"
same "domains with a score" "$(grep -c score_name add.json)" 1
quietly "$ARTEL" remove moa/moa gamma --score-rows 0 --json remove.json
grep -q score remove.json && fail "scored: $(cat remove.json)"

# Where an answer is one of several, the likeliest of them counts.
evaluate arrow/arrow before.json
add arrow/arrow add.json --score-rows 3
evaluate arrow/arrow after.json
scored add.json before before.json
scored add.json after after.json
has add.json '"score_name": "acc_norm"' '"score_ci95": null'

# A domain leaves: nothing is trained, and what stays is answered by what is left.
evaluate flan/modula-flan before.json
"$ARTEL" remove flan/modula-flan gamma --score-rows 3 --json remove.json >out.txt 2>log.txt ||
    fail "remove: exit $?: $(tail -3 log.txt)"
evaluate flan/modula-flan after.json
routers=$(floats flan/modula-flan/router.safetensors)
costs flan/modula-flan remove.json 0 $((3 * one + routers)) 0 $((54 * 336)) 0 54
scored remove.json before before.json
scored remove.json after after.json
same "digests" "$(number remove.json digest_before 1)$(number remove.json digest_before 3)" \
    "$(number remove.json digest_after 1)$(number remove.json digest_after 3)"
has remove.json '"removed": "gamma"' '"others_unchanged": true'
has out.txt '^alpha  *exact  *3 ' '^universal  *unchanged ' 'gamma is no longer .* Nothing was trained. No byte'
exit $bad
