#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Training as a program: signals, outputs that are gone, a disk that is full, and domains
# added with the names that a user types.
#
#   ARTEL=path/to/artel TESTS=path/to/tests sh training.sh
set -u
. "$TESTS/cli/row.inc"

# completions ANSWER N
completions() {
    i=0
    while [ "$i" -lt "$2" ]; do
        printf '{"prompt": "row %d", "completion": "%s"}\n' "$i" "$1"
        i=$((i + 1))
    done
}
completions aa 24 >a.jsonl
completions bb 24 >b.jsonl
cat >recipe.yaml <<END
model: $TESTS/golden/toy-tied.gguf
output: run
method: moa
lora: {rank: 4, alpha: 8}
domains: {one: {train: a.jsonl}}
train: {max_steps: 4, batch_size: 8, precision: fp32, cutoff_len: 64}
END
# Shells start what they put in the background with some signals off.
background() {
    : >err.txt
    env --default-signal=INT,QUIT "$ARTEL" "$@" >out.txt 2>err.txt &
    pid=$!
}
# begun WORDS: the program has told WORDS and done some steps
begun() {
    tries=0
    while ! grep -q "$1" err.txt && kill -0 $pid 2>/dev/null && [ $tries -lt 600 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    grep -q "$1" err.txt || fail "not told: $1: $(cat err.txt)"
    sleep 0.3
}

# R29, C21: asked to stop, it stops with a checkpoint that the next call goes on from.
long='train.epochs=9999 train.max_steps=1000000 output=long'
told=begins
for pair in INT:130 TERM:143 HUP:129 QUIT:131 USR1:138; do
    # shellcheck disable=SC2086
    background train recipe.yaml $long
    begun "$told"
    kill -s "${pair%:*}" $pid
    wait $pid
    got=$?
    [ "$got" = "${pair#*:}" ] || fail "R29: ${pair%:*}: exit $got: $(tail -1 err.txt)"
    grep -q '^stopped: .*everything is saved' err.txt || fail "R29: $(tail -1 err.txt)"
    told='continues at step'
done
# shellcheck disable=SC2086
background train recipe.yaml $long
begun "$told"
kill -s PIPE $pid
sleep 0.2
kill -0 $pid 2>/dev/null || fail "R29: ended by PIPE"
"$ARTEL" train recipe.yaml output=long >out.txt 2>second.txt
[ $? = 6 ] && grep -q "in use by process $pid .*RUN02" second.txt || fail "R11: $(cat second.txt)"
kill -s INT $pid
kill -s INT $pid 2>/dev/null
wait $pid
got=$?
[ "$got" = 130 ] || fail "C21: twice: exit $got"
# shellcheck disable=SC2086
background train recipe.yaml $long
begun "$told"
kill -s KILL $pid
wait $pid 2>/dev/null
# shellcheck disable=SC2086
background train recipe.yaml $long --resume
begun "$told" # R12: after a kill
kill -s TERM $pid
wait $pid
rm -rf long

# R33, C13, C15: outputs that are closed, full or left do not end a training.
# made ID
made() {
    [ -e run/moa/mixture.json ] || fail "$1: no mixture was made"
    rm -rf run
}
"$ARTEL" train recipe.yaml <&- >&- 2>&- || fail "C15: exit $?"
made C15
if [ -w /dev/full ]; then
    "$ARTEL" train recipe.yaml >/dev/full 2>/dev/full
    [ $? = 4 ] || fail "C14: a full output is not told"
    made R33
fi
"$ARTEL" train recipe.yaml 2>&1 | head -1 >/dev/null
made C13

# R05, C17: the last checkpoint does not fit: an error, and no half of it. With room, and
# since nothing came of it also with other settings, the same command goes on.
(ulimit -f 16 && "$ARTEL" train recipe.yaml) >out.txt 2>err.txt
[ $? = 4 ] || fail "R05: exit 0 without a checkpoint"
find run -name '*artel-tmp*' | grep -q . && fail "R05: left: $(find run)"
"$ARTEL" train recipe.yaml train.max_grad_norm=1e6 >out.txt 2>err.txt ||
    fail "R05: not continued: $(tail -1 err.txt)"

# R25: a gradient above the norm is cut to it, and counted.
grep -q '"clipped_steps": 0' run/experts/one/artel.json || fail "R25: clipped below the norm"
rm -rf run
"$ARTEL" train recipe.yaml train.max_grad_norm=1e-3 >out.txt 2>err.txt || fail "R25: exit $?"
grep -q '"clipped_steps": 4' run/experts/one/artel.json || fail "R25: clipping is not counted"

# A mixture named by a relative path, from three places.
"$ARTEL" train recipe.yaml model="$TESTS/golden/toy-untied" output=other >out.txt 2>err.txt ||
    fail "a folder as base: $(tail -1 err.txt)"
row A14 3 ADP14 add run/moa bad=other/experts/one,b.jsonl
row A14 3 ADP14 run other/experts/one --model "$TESTS/golden/toy-tied" --prompt x
row A17 2 ADD01 add run/moa ../x=b.jsonl
row A17 2 ADD01 add run/moa base=b.jsonl
row A18 6 ADD02 add run/moa ONE=b.jsonl
row C11 4 IO01 add run/moa two=absent.jsonl
row C11 4 IO01 add run/moa two=b.jsonl --test absent.jsonl
"$ARTEL" add run/moa two=absent.jsonl 2>&1 | grep -q "$work/absent.jsonl" ||
    fail "C11: a file beside us is sought in the mixture"
"$ARTEL" add run/moa two=b.jsonl >out.txt 2>err.txt || fail "add: $(tail -1 err.txt)"
(cd run && "$ARTEL" add moa three=../b.jsonl) >out.txt 2>err.txt || fail "add: $(tail -1 err.txt)"
(cd run/moa && "$ARTEL" add . four=../../b.jsonl) >out.txt 2>err.txt ||
    fail "add: $(tail -1 err.txt)"
[ "$(cd run/moa && echo *)" = "data experts mixture.json router.safetensors" ] ||
    fail "add left behind: $(ls run/moa)"
[ "$(cd run/moa/experts && echo *)" = "four one three two" ] || fail "$(ls run/moa/experts)"
exit "$bad"
