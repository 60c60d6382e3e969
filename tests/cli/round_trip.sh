#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A recipe on the toy model from training to the table: what each command prints is
# what the next one and a machine can read.
set -u
. "$TESTS/cli/folder.inc"
for pair in alpha:aa beta:bb gamma:gg; do
    rows "${pair%:*}" "${pair#*:}" 10 34 >"${pair%:*}.jsonl"
    rows "${pair%:*}" "${pair#*:}" 50 56 >"${pair%:*}.test.jsonl"
done
cat >recipe.yaml <<END
model: $TESTS/golden/toy-tied.gguf
output: run
method: [moa, mixed]
lora: {rank: 4, alpha: 8}
domains:
  alpha: {train: alpha.jsonl, test: alpha.test.jsonl, score: exact}
  beta: {train: beta.jsonl, test: beta.test.jsonl, score: exact}
train: {learning_rate: 2.0e-2, epochs: 3, batch_size: 8, precision: fp32, cutoff_len: 256}
router: {learning_rate: 3.0e-2}
END

# What is to be done, and nothing is written by looking.
quietly "$ARTEL" inspect recipe.yaml --json inspect.json
has inspect.json '"kind": "recipe"' '"expert-alpha"' '"moa-router"' '"state": "to do"' '"plan"' \
    '"memory_bytes"' '"disk_bytes"' '"memory": "keep"'
grep -q 'up to date' inspect.json && fail "up to date before it was made"
[ -e run ] && fail "inspect made the output folder"
quietly "$ARTEL" train recipe.yaml --json train.json
quietly "$ARTEL" inspect recipe.yaml --json inspect.json
[ "$(grep -c '"state": "up to date"' inspect.json)" = 4 ] || fail "not up to date: $(cat inspect.json)"
grep -q '"plan"' inspect.json && fail "a plan where nothing is to be done"
sed 's/epochs: 3/epochs: 4/' recipe.yaml >changed.yaml
quietly "$ARTEL" inspect changed.yaml --json inspect.json
has inspect.json '"state": "made otherwise"' 'train.epochs was 3.0, is 4.0'
sed 's/^model: .*/model: nowhere.gguf/' recipe.yaml >away.yaml
quietly "$ARTEL" inspect away.yaml --json inspect.json
has inspect.json '"note": "its model is not here' '"moa-router"'
quietly "$ARTEL" inspect away.yaml --model "$TESTS/golden/toy-tied.gguf" --json inspect.json
has inspect.json '"state": "up to date"'
rm changed.yaml away.yaml
has train.json '"output"' '"expert-alpha"' '"moa-router"' '"steps"'
quietly "$ARTEL" train recipe.yaml --json again.json
has again.json 'up to date'
grep -q '"trained"' again.json && fail "a second run trained again"
cp -r run before

quietly "$ARTEL" inspect run/moa --verify --json inspect.json
has inspect.json '"kind": "mixture"' '"method": "moa"' '"alpha"' '"beta"' '"verified": true'
quietly "$ARTEL" inspect run/experts/alpha --json inspect.json
has inspect.json '"kind": "adapter"' '"q_proj"' '"digest"'
quietly "$ARTEL" inspect alpha.jsonl --model "$TESTS/golden/toy-tied.gguf" --json inspect.json
has inspect.json '"kind": "dataset"' '"rows": 24' '"kept": 24' '"loss": true' '"loss": false'

# Routing: rows of a domain go to its expert, and forcing changes who answers.
cat alpha.test.jsonl beta.test.jsonl >both.jsonl
quietly "$ARTEL" score run/moa both.jsonl --json score.json --precision fp32
has score.json '"prompt_tokens"' '"answer_tokens"' '"nll"' '"perplexity"'
[ "$(grep -c '"expert": "alpha"' score.json)" = 6 ] || fail "alpha's rows: $(grep expert score.json)"
[ "$(grep -c '"expert": "beta"' score.json)" = 6 ] || fail "beta's rows: $(grep expert score.json)"
quietly "$ARTEL" score run/moa both.jsonl --expert base --json base.json --precision fp32
quietly "$ARTEL" score "$TESTS/golden/toy-tied.gguf" both.jsonl --json bare.json --precision fp32
grep nll base.json >a.txt
grep nll bare.json >b.txt
cmp -s a.txt b.txt || fail "--expert base is not the bare model"

# An adapter alone is the mixture with that expert forced.
quietly "$ARTEL" score run/moa alpha.test.jsonl --expert alpha --json a.json --precision fp32
quietly "$ARTEL" score run/moa/experts/alpha alpha.test.jsonl --json b.json --precision fp32
grep nll a.json >a.txt
grep nll b.json >b.txt
cmp -s a.txt b.txt || fail "an adapter folder is not the expert: $(paste a.txt b.txt | head -3)"

# Batches: as many answers as prompts, the same for one thread and three.
for threads in 1 3; do
    quietly "$ARTEL" run run/moa --prompt-file both.jsonl --max-tokens 4 --temperature 1 \
        --seed 5 --threads $threads --precision fp32 --json run$threads.json
    grep -v seconds run$threads.json >run$threads.txt
done
cmp -s run1.txt run3.txt || fail "answers depend on threads"
[ "$(grep -c '"finish_reason"' run1.json)" = 12 ] || fail "12 prompts, not 12 answers"
has run1.json '"prompt": "alpha 50"' '"text"' '"ids"' '"expert": "beta"' '"layers_agreeing": 2'
quietly "$ARTEL" run run/moa --prompt-file both.jsonl --max-tokens 4 --temperature 1 --seed 6 \
    --precision fp32 --json other.json
grep -v seconds other.json >other.txt
cmp -s run1.txt other.txt && fail "another seed gives the same answers"
[ "$("$ARTEL" run run/moa --prompt 'beta 12' --max-tokens 2 --json - 2>/dev/null | grep -c '"expert": "beta"')" = 1 ] ||
    fail "one prompt is not routed to beta"
[ "$(printf 'x\n\ny\n' | "$ARTEL" run run/moa --raw --prompt-file - --max-tokens 1 --json - 2>/dev/null |
    grep -c '"prompt"')" = 2 ] || fail "two raw prompts from standard input"

# Merged weights: the same answers, and the choice is told.
for merge in never always auto; do
    "$ARTEL" run run/moa --prompt-file both.jsonl --max-tokens 4 --temperature 0 --precision fp32 \
        --merge $merge --json $merge.json >text.txt 2>$merge.txt || fail "--merge $merge: exit $?"
    grep -v -e seconds -e '"merged"' $merge.json | sed 's/,$//' >$merge.plain
done
cmp -s never.plain always.plain || fail "merged, other answers: $(diff never.plain always.plain | head)"
cmp -s never.plain auto.plain || fail "--merge auto, other answers"
grep -q merged never.json && fail "merged, unasked"
[ "$(grep -c '"merged": true' always.json)" = 12 ] || fail "not merged: $(grep merged always.json)"
[ "$(grep -c '"merged": false' auto.json)" = 12 ] || fail "merged side by side: $(grep merged auto.json)"
has always.txt '^run: 12 of 12 answers with merged weights'
[ "$("$ARTEL" run run/moa --prompt 'beta 12' --max-tokens 60 --merge auto --json - 2>/dev/null |
    grep -c '"merged": true')" = 1 ] || fail "auto does not merge for a long answer of one prompt"
"$ARTEL" run run/moa --prompt 'beta 12' --merge maybe >text.txt 2>err.txt
[ $? = 2 ] && has err.txt 'never' || fail "--merge maybe: $(cat err.txt)"
printf 'alpha 13\nbeta 13\n' | "$ARTEL" chat run/moa --max-tokens 2 --merge always >chat.txt 2>err.txt ||
    fail "chat --merge: exit $?"
has chat.txt '^\[alpha, 2 of 2 routers, merged' '^\[beta, 2 of 2 routers, merged'

# The conversation through a pipe.
printf 'alpha 13\n/why\n/expert beta\nalpha 14\n/expert nobody\n/reset\n/quit\nnever\n' |
    "$ARTEL" chat run/moa --max-tokens 2 >chat.txt 2>err.txt || fail "chat: exit $?"
has chat.txt '^\[alpha, 2 of 2 routers' '^layer .*alpha.*beta' '2 of 2 routers chose alpha' \
    '^answers come from beta' '^\[beta, ' "no expert 'nobody'" 'a new conversation'
grep -q never chat.txt && fail "/quit did not leave"

# The table, in every form.
quietly "$ARTEL" eval run --json eval.json --markdown eval.md --csv eval.csv --max-tokens 4
has eval.json '"name": "base"' '"name": "moa"' '"name": "mixed"' '"routing_accuracy": 1.0' \
    '"confusion"' '"trainable_parameters"' '"score_name": "exact"'
has eval.md '^| set ' '^| alpha ' '^| mean '
has eval.csv '^method,path,set' '^moa,' '^mixed,'
[ "$(wc -l <eval.csv)" = 7 ] || fail "rows of eval.csv: $(cat eval.csv)"

# Results of before stand beside, and the page is whole.
sed -n '/"name": "moa"/,$p' eval.json | head -c 200 >half.json
"$ARTEL" eval --from half.json >/dev/null 2>err.txt
[ $? = 3 ] || fail "half a JSON file was taken: $(cat err.txt)"
echo '{"rows": []}' >other.json
"$ARTEL" eval --from other.json >/dev/null 2>err.txt
[ $? = 3 ] && grep -q EVL03 err.txt || fail "other JSON was taken: $(cat err.txt)"
"$ARTEL" eval --from nothing.json >/dev/null 2>err.txt
[ $? = 4 ] || fail "a file that is not there: $(cat err.txt)"
quietly "$ARTEL" eval --from eval.json --from eval.json --results tables
for kind in md csv; do
    quietly "$ARTEL" eval --from eval.json --markdown again.md --csv again.csv
    cmp -s "eval.$kind" "again.$kind" || fail "the same results give another eval.$kind"
done
has tables/results.json '"name": "moa"'
has tables/results.md '^| set '
has tables/report.html '<!DOCTYPE html>' 'id="overview"' 'id="perplexity"' 'id="score"' \
    'id="confusion"' 'id="training"' 'expert-alpha' 'digest of the base' '</html>'
grep -q -e '<script' -e '://' -e 'src=' tables/report.html && fail "the page would fetch or run something"
quietly "$ARTEL" eval run/moa --no-base --no-generate --from eval.json --html page.html --json joined.json
[ "$(grep -c '"name": "moa"' joined.json)" = 2 ] || fail "moa of before and of now"
has page.html 'moa (run/moa)'

# Tokens.
printf 'hello there\n\n<|im_end|>\n' | "$ARTEL" tokenize "$TESTS/golden/toy-tied" - --json ids.json ||
    fail "tokenize: exit $?"
[ "$(grep -c '"ids"' ids.json)" = 3 ] || fail "three lines, not three lists"
[ "$(printf '<|im_end|>\n' | "$ARTEL" tokenize "$TESTS/golden/toy-tied" - --special)" = 2 ] ||
    fail "a control token with --special"
[ "$(printf '<|im_end|>\n' | "$ARTEL" tokenize "$TESTS/golden/toy-tied" - | wc -w)" -gt 1 ] ||
    fail "a control token in plain text"

# What was measured is kept and used again: the same numbers, nothing measured twice.
[ "$(ls run/eval | wc -l)" = 6 ] || fail "kept results: $(ls run/eval)"
touch -d 2001-01-01 run/eval/*
quietly "$ARTEL" eval run --json again.json --max-tokens 4
cmp -s eval.json again.json || fail "kept results differ: $(diff eval.json again.json)"
[ -z "$(find run/eval -newer run/recipe.yaml -name '*.json')" ] || fail "measured twice"
quietly "$ARTEL" eval run --json again.json --max-tokens 5
[ "$(ls run/eval | wc -l)" -gt 6 ] || fail "another length of answers, the same results"

# What general ability lost: choices and windows of text, against the base, with intervals.
for i in 1 2 3 4 5 6; do
    echo "{\"domain\": \"piqa\", \"question\": \"alpha $i\", \"choices\": [\"ab\", \"ba\"], \"answer\": 0}"
done >piqa.jsonl
seq 1 900 >text.txt
quietly "$ARTEL" eval run --no-generate --general p=piqa.jsonl --general t=text.txt --general-rows 5 \
    --keep none --json general.json
has general.json '"acc_norm": ' '"word_perplexity": ' '"bits_per_byte": ' '"gate_entropy": [0-9]' \
    '"identity_share": 0.0' '"experts": \[' '"routing": {'
[ "$(grep -c '"ci95": \[' general.json)" = 4 ] || fail "intervals: $(grep -A3 ci95 general.json)"
[ "$(grep -c '"rows": 5' general.json)" -ge 3 ] || fail "--general-rows: $(grep '"rows"' general.json)"

# Looking, asking and measuring changed nothing else.
diff -r -x eval run before >/dev/null ||
    fail "the run's folder has changed: $(diff -rq -x eval run before)"

# Where no router decides and a set is no domain's, every number is the mean over the experts.
cp -r run alone
quietly "$ARTEL" train recipe.yaml output=alone method=single
for expert in auto alpha beta; do
    quietly "$ARTEL" eval alone/single --no-generate --expert "$expert" --general p=piqa.jsonl --general t=text.txt \
        --general-rows 5 --keep none --json "of-$expert.json"
    # of the method that is no base: KEY VALUE of each general set, in the file's order
    sed -n '/"name": "single"/,$p' "of-$expert.json" |
        sed -n '/"general"/,$s/^ *"\(acc\|acc_norm\|perplexity\|word_perplexity\|change\)": \([-0-9.e]*\),*$/\1 \2/p' >"of-$expert.txt"
done
[ "$(wc -l <of-auto.txt)" = 6 ] || fail "numbers of a mean: $(cat of-auto.txt)"
cmp -s of-alpha.txt of-beta.txt && fail "two experts, the same numbers"
paste of-auto.txt of-alpha.txt of-beta.txt | awk '{ d = $2 - ($4 + $6) / 2; size = $2 < 0 ? -$2 : $2
    if (d > 1e-9 * (size + 1) || d < -1e-9 * (size + 1)) exit 1 }' ||
    fail "a mean over experts: $(paste of-auto.txt of-alpha.txt of-beta.txt)"

# A domain more, a domain less.
quietly "$ARTEL" add run/moa gamma=gamma.jsonl --test gamma.test.jsonl --score exact --json add.json
has add.json '"others_unchanged": true' '"parameters"' '"everything_anew"'
[ ! -e run/moa/run ] || fail "add worked in a folder inside the mixture"
cmp -s run/moa/experts/alpha/adapter_model.safetensors \
    before/moa/experts/alpha/adapter_model.safetensors || fail "add moved alpha"
quietly "$ARTEL" score run/moa gamma.test.jsonl --json score.json
[ "$(grep -c '"expert": "gamma"' score.json)" -ge 5 ] || fail "gamma: $(grep expert score.json)"
"$ARTEL" remove run/moa gama >/dev/null 2>err.txt
[ $? = 2 ] && grep -q "did you mean 'gamma'" err.txt || fail "remove gama: $(cat err.txt)"
cp -r run/moa/experts kept
quietly "$ARTEL" remove run/moa gamma --json removed.json
has removed.json '"removed": "gamma"' '"others_unchanged": true' '"digest_before": "[0-9a-f]*"'
[ "$(grep -c '"unchanged": true' removed.json)" = 2 ] || fail "$(cat removed.json)"
rm -r kept/gamma
diff -r run/moa/experts kept >/dev/null || fail "remove touched other experts"
"$ARTEL" run run/moa --prompt x --expert gamma >/dev/null 2>err.txt
[ $? = 2 ] || fail "gamma is still there"
"$ARTEL" remove run/moa gamma >/dev/null 2>err.txt && fail "gamma was removed twice"
"$ARTEL" remove run/moa beta >out.txt 2>err.txt || fail "remove beta: $(cat err.txt)"
has out.txt '^alpha  *unchanged  *[0-9a-f]' 'No byte of the other experts has changed'
"$ARTEL" remove run/moa alpha >/dev/null 2>err.txt
[ $? = 2 ] && grep -q 'only domain' err.txt || fail "the last domain: $(cat err.txt)"
exit "$bad"
