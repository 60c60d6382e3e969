#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What cannot work together is refused before any work, and says what to do: experts of another
# base, methods that cannot grow, ranks that do not fit.
set -u
. "$TESTS/cli/row.inc"
base=$TESTS/golden/toy-tied.gguf
other=$TESTS/golden/toy-untied.gguf # of the same shapes: only its digest tells

for pair in alpha:aa beta:bb gamma:gg; do
    rows "${pair%:*}" "${pair#*:}" 10 14 >"${pair%:*}.jsonl"
done
# recipe OUTPUT MODEL METHODS BETA: what the domain beta is made of is BETA
recipe() {
    cat >"$1.yaml" <<END
model: $2
output: $1
method: $3
lora: {rank: 4, alpha: 8}
domains:
  alpha: {train: alpha.jsonl}
  beta: {$4}
universal: {train: gamma.jsonl, rank: 4}
train: {max_steps: 3, batch_size: 4, learning_rate: 1.0e-2, precision: fp32, cutoff_len: 64}
END
}
# unfit ID EXIT CODE ADVICE WORDS...: a row whose error says ADVICE, before a stage has begun
unfit() {
    id=$1 exit=$2 code=$3 advice=$4
    shift 4
    row "$id" "$exit" "$code" "$@"
    "$ARTEL" "$@" >words.txt 2>&1
    tail -1 words.txt | grep -q -- "$advice" || fail "$id: artel $*: no '$advice' in: $(tail -1 words.txt)"
    grep -q 'begins$\|answering' words.txt && fail "$id: artel $*: work was done: $(cat words.txt)"
    rm words.txt
}
recipe here "$base" '[moa, modula-flan, modula-res, molora, mixlora, slim, mixed]' 'train: beta.jsonl'
recipe there "$other" '[moa, modula-flan, modula-res]' 'train: beta.jsonl'
quietly "$ARTEL" train here.yaml
quietly "$ARTEL" train there.yaml

# ---- experts and mixtures of another base ----

recipe brought "$other" '[single, moa]' 'adapter: here/experts/beta, train: beta.jsonl'
unfit A14 3 ADP14 'base_digest: made for another base model: .*; take its own base, or --force' train brought.yaml
for mixture in there/moa there/modula-flan; do
    unfit A14 3 ADP14 'base_digest: made for another base model: .*; take its own base, or --force' \
        add $mixture gamma=here/experts/beta,gamma.jsonl
done
unfit A14 3 ADP14 'base_digest: made for another base model: .*; take its own base, or --force' \
    add there/modula-res gamma=here/experts-res/beta,gamma.jsonl
unfit A14 3 ADP14 ' base: made for another base model: .*; take its own base, or --force' \
    add here/moa gamma=gamma.jsonl --model "$other"
unfit A14 3 ADP14 ' base: made for another base model: .*; take its own base, or --force' \
    remove here/moa beta --model "$other"
unfit A14 3 ADP14 'base_digest: made for another base model: .*; take its own base, or --force' \
    eval here/experts/beta --model "$other" --data a=alpha.jsonl
unfit A14 3 ADP14 ' base: made for another base model: .*; take its own base, or --force' \
    eval here/moa --model "$other" --data a=alpha.jsonl --keep none
# Who insists is obeyed.
quietly "$ARTEL" eval here/experts/beta --model "$other" --data a=alpha.jsonl --force
quietly "$ARTEL" train brought.yaml --force
rm -r brought

# ---- ranks that do not fit: two that disagree, and one above what the linears have ----

cp -r here/experts/beta adapter
rm adapter/artel.json
sed 's/"r": 4/"r": 8/' here/experts/beta/adapter_config.json >adapter/adapter_config.json
recipe ranks "$base" moa 'adapter: adapter, train: beta.jsonl'
unfit A03 3 ADP03 'rank' train ranks.yaml
unfit A03 3 ADP03 'rank' add here/moa gamma=adapter,gamma.jsonl
unfit A03 3 ADP03 'rank' add here/modula-flan gamma=adapter,gamma.jsonl
unfit A03 3 ADP03 'rank' eval adapter --model "$base" --data a=alpha.jsonl
sed 's/"r": 4/"r": 64/' here/experts/beta/adapter_config.json >adapter/adapter_config.json
unfit A02 3 ADP02 'rank' train ranks.yaml
unfit A02 3 ADP02 'rank' add here/moa gamma=adapter,gamma.jsonl
unfit A02 3 ADP02 'rank' eval adapter --model "$base" --data a=alpha.jsonl
unfit A02 2 RCP03 'lora.rank' train ranks.yaml lora.rank=33
unfit A02 2 RCP03 'universal.rank' train here.yaml universal.rank=33 output=new

# ---- methods whose experts are of no domain ----

for method in molora mixlora slim mixed; do
    unfit C18 2 ADD04 "here/$method: method: '$method' .*: train it anew with artel train" \
        add here/$method gamma=gamma.jsonl
    unfit C18 2 ADD04 "here/$method: method: '$method' .*: train it anew with artel train" \
        remove here/$method beta
done
exit "$bad"
