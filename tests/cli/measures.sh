#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Numbers that artel eval must print: where rows went whose routing is known, and what the toy
# model chooses, which transformers has said (tests/golden/choices_toy.json).
set -u
. "$TESTS/cli/folder.inc"
rows alpha aa 50 56 >alpha.test.jsonl
rows beta bb 50 56 >beta.test.jsonl
train_two 3
# block FILE KEY: the object of that name that is first in FILE, on one line, without blanks
block() {
    sed -n "/^ *\"$2\": [{[]/,/^ *[]}]/p" "$1" | tr -d ' \n' | sed 's/},*\(".*\)*$/}/'
}
# equal NAME GOT WANT
equal() {
    [ "$2" = "$3" ] || fail "$1: $2, not $3"
}

# Of the rows that are put to alpha two are beta's; of questions with choices, each goes where
# its question does, however many choices the one before it had.
head -2 beta.test.jsonl | cat alpha.test.jsonl - >alpha.crossed.jsonl
for row in 'alpha 50:"bb", "ab", "aa"' 'beta 51:"aa", "bb"' 'alpha 52:"bb", "aa"'; do
    printf '{"domain": "exam", "question": "%s", "choices": [%s], "answer": 1}\n' "${row%%:*}" "${row#*:}"
done >asked.jsonl
quietly "$ARTEL" eval run/moa --no-base --no-generate --keep none --precision fp32 --json eval.json --html eval.html \
    --data alpha=alpha.crossed.jsonl --data beta=beta.test.jsonl --data asked=asked.jsonl
sed -n '/"confusion": {/,/"routing": {/p' eval.json >sent.json
equal "sent of alpha" "$(block sent.json alpha)" '"alpha":{"alpha":6,"beta":2}'
equal "sent of beta" "$(block sent.json beta)" '"beta":{"alpha":0,"beta":6}'
equal "sent of asked" "$(block sent.json asked)" '"asked":{"alpha":2,"beta":1}'
equal "routed right" "$(grep -o '"routing_accuracy": [0-9a-z.]*' eval.json | tr '\n' ' ')" \
    '"routing_accuracy": 0.75 "routing_accuracy": 1.0 "routing_accuracy": null "routing_accuracy": 0.8571428571428571 '
# Each router sent the same rows, so that shares are means of its gates.
sed -n '/"routing": {/,$p' eval.json >gates.json
equal "gates" "$(sed -n '/"alpha": \[/,/"asked"/p' gates.json | tr -d ' \n')" \
    '"alpha":[[0.75,0.25],[0.75,0.25]],"beta":[[0.0,1.0],[0.0,1.0]],"asked":['
# The page has the cells, a set's own framed.
sed -n '/t-confusion/,/<\/table>/s|.*row"><bdi>\(.*\)</bdi></th>|\1 |p' eval.html |
    sed 's|<td class="\([a-z ]*\)" style="[^"]*">\([0-9]*\)</td>|[\1]\2 |g; s|</tr>||; s| *$||' >cells.txt
cat >want.txt <<END
alpha [heat mid own]6 [heat]2
beta [heat] [heat hi own]6
asked [heat mid]2 [heat]1
END
cmp -s cells.txt want.txt || fail "the page's cells: $(cat cells.txt)"
# The experts know their own answer: it is the second of the last two questions.
equal "chosen" "$(grep '^ *"acc' eval.json | tr -d ' \n')" \
    '"acc":0.66666666666666663,"acc_norm":0.66666666666666663,'

# What the toy model chooses.
set --
for name in mmlu piqa winogrande truthfulqa exam; do
    grep "^{\"domain\": \"$name" "$TESTS/golden/choices_rows.jsonl" >$name.jsonl
    set -- "$@" --data $name=$name.jsonl
done
quietly "$ARTEL" eval "$TESTS/golden/toy-tied.gguf" "$@" --keep none --precision fp32 --json eval.json
for name in mmlu:acc piqa:acc_norm winogrande:acc truthfulqa:acc exam:acc_norm; do
    score=${name#*:} name=${name%:*}
    # 8 rows, of which acc 4 and acc_norm 5
    # shellcheck disable=SC2046
    set -- $(sed -n "s/.*\"$name\": {//p" "$TESTS/golden/choices_toy.json" | tr -dc '0-9 ')
    [ $# = 3 ] || fail "no golden numbers of $name"
    block eval.json "$name" | tr '{},' '\n\n\n' >of.txt
    has of.txt "^\"rows\":$1\$" "^\"score_name\":\"$score\"\$"
    awk -F: -v n="$1" -v acc="$2" -v norm="$3" -v score="$score" '
        function near(x, want) { return (x - want / n) ^ 2 < 1e-18 }
        $1 == "\"acc\"" { right += near($2, acc) }
        $1 == "\"acc_norm\"" { right += near($2, norm) }
        $1 == "\"score\"" { right += near($2, score == "acc" ? acc : norm) }
        END { exit right != 3 }' of.txt || fail "$name, $1 rows, acc $2, acc_norm $3: $(cat of.txt)"
done
exit "$bad"
