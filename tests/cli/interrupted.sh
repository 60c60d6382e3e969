#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An evaluation that is stopped, killed and finished has the numbers of one that was let be, and
# measures nothing twice; what it is at is shown while it goes.
set -u
. "$TESTS/cli/folder.inc"
train_two 2
# one set that is measured at once, and three that take their time
rows alpha aa 100 104 >asked.jsonl
rows alpha aa 1000 3000 >long1.jsonl
rows beta bb 1000 3000 >long2.jsonl
rows beta aa 1000 3000 >long3.jsonl
for i in 1 2 3 4 5 6; do
    echo "{\"domain\": \"piqa\", \"question\": \"alpha $i\", \"choices\": [\"ab\", \"b\"], \"answer\": 0}"
done >choices.jsonl
seq 1 900 >text.txt
set -- run/moa --data alpha=asked.jsonl:exact --max-tokens 3 --general c=choices.jsonl --general t=text.txt \
    --precision fp32
for i in 1 2 3; do
    set -- "$@" --data long$i=long$i.jsonl
done
all=12 # six sets, of the base and of the mixture

# how many sets are kept; those that were kept before WITHIN was written
kept() {
    find kept -name '*.json' "$@" 2>/dev/null | wc -l
}
# stopped SIGNAL N WORDS...: an evaluation that gets SIGNAL as soon as it has kept N sets, in $got
stopped() {
    signal=$1 n=$2
    shift 2
    "$ARTEL" eval "$@" --keep kept --json part.json >out.txt 2>err.txt &
    pid=$!
    while [ "$(kept)" -lt "$n" ] && kill -0 $pid 2>/dev/null; do
        sleep 0.02
    done
    kill -s "$signal" $pid
    wait $pid 2>/dev/null
    got=$?
    [ "$(kept)" -ge "$n" ] || fail "$signal: $(kept) sets are kept instead of $n: $(cat err.txt)"
    [ "$(kept)" -lt $all ] || fail "$signal: too late, all is measured"
    [ ! -s out.txt ] && [ ! -e part.json ] || fail "$signal: results of half an evaluation"
}
# same FILE: the numbers of whole.json, speed aside
same() {
    grep -v tokens_per_second whole.json >whole.txt
    grep -v tokens_per_second "$1" >part.txt
    cmp -s whole.txt part.txt || fail "$1 differs: $(diff whole.txt part.txt | head)"
}

quietly "$ARTEL" eval "$@" --keep none --json whole.json
[ "$(grep -c '"ci95": \[' whole.json)" = 2 ] || fail "no changes to compare: $(grep ci95 whole.json)"
stopped TERM 1 "$@"
[ "$got" = 143 ] && has err.txt '^stopped: ' '^eval: base: alpha$' || fail "TERM: exit $got: $(cat err.txt)"
before=$(kept)
touch -d 2001-01-01 kept/*
stopped KILL $((before + 1)) "$@"
[ "$got" = 137 ] || fail "KILL: exit $got"
[ "$(kept ! -newer recipe.yaml)" = "$before" ] || fail "killed: measured again what was kept at the stop"
before=$(kept)
touch -d 2001-01-01 kept/*
quietly "$ARTEL" eval "$@" --keep kept --json part.json
same part.json
[ "$(kept)" = $all ] || fail "kept: $(ls kept)"
[ "$(kept ! -newer recipe.yaml)" = "$before" ] || fail "measured again what was kept"

# What is no whole result is measured again, and that alone.
touch -d 2001-01-01 kept/*
broken=$(find kept -name '*.json' | sort | head -1)
head -c 100 "$broken" >half && cp half "$broken"
touch -d 2001-01-01 "$broken"
quietly "$ARTEL" eval "$@" --keep kept --json part.json
same part.json
[ "$(kept -newer recipe.yaml)" = 1 ] || fail "of one broken file, $(kept -newer recipe.yaml) measured again"

# A terminal sees rows go by in one line, which is gone at the end.
if command -v script >/dev/null; then
    script -qec "$ARTEL eval run/moa --data long1=long1.jsonl --no-base --keep none --json told.json" tty.txt \
        </dev/null >/dev/null || fail "on a terminal: $(cat tty.txt)"
    tr '\r' '\n' <tty.txt >lines.txt
    has lines.txt '^eval: run/moa: long1' '^eval: run/moa: long1: [1-9][0-9]* of 2000'
    [ "$(grep -c 'of 2000' tty.txt)" -le 1 ] || fail "progress in lines of its own: $(cat tty.txt)"
    awk '/of 2000/ { last = NR } /^\033\[K/ { if (!erased) erased = NR } END { exit !(erased > last) }' lines.txt ||
        fail "the line of progress stays: $(cat -v lines.txt)"
fi
exit "$bad"
