#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the surroundings may do to the program: full and closed outputs, signals, odd
# paths, another locale, a file cut while it is mapped.
set -u
model=$TESTS/golden/toy-tied.gguf
. "$TESTS/cli/folder.inc"
# expect ID WANT GOT
expect() {
    [ "$2" = "$3" ] || fail "$1: exit $3 instead of $2"
}

i=0
while [ $i -lt 64 ]; do
    printf '{"messages": [{"role": "user", "content": "row %d"}, {"role": "assistant", "content": "abc"}]}\n' $i
    i=$((i + 1))
done >rows.jsonl

# C12: a decimal comma elsewhere changes nothing.
"$ARTEL" score "$model" rows.jsonl --json a.json >/dev/null || fail "score: exit $?"
LC_ALL=de_DE.UTF-8 LANG=de_DE.UTF-8 "$ARTEL" score "$model" rows.jsonl --json b.json >/dev/null
grep -v seconds a.json >a.txt
grep -v seconds b.json >b.txt
cmp -s a.txt b.txt || fail "C12: another result under a locale with decimal commas"

# Results do not depend on threads.
"$ARTEL" score "$model" rows.jsonl --json c.json --threads 1 --precision fp32 >/dev/null
"$ARTEL" score "$model" rows.jsonl --json d.json --threads 3 --precision fp32 >/dev/null
grep -v seconds c.json >c.txt
grep -v seconds d.json >d.txt
cmp -s c.txt d.txt || fail "threads change the score"

# C13: a reader that leaves is no error of ours.
{
    "$ARTEL" score "$model" rows.jsonl --json -
    echo $? >code
} 2>err.txt | head -1 >/dev/null
case $(cat code) in
0 | 141) ;;
*) fail "C13: exit $(cat code)" ;;
esac
[ -s err.txt ] && fail "C13: $(cat err.txt)"

# C14: a full device is told.
if [ -w /dev/full ]; then
    "$ARTEL" score "$model" rows.jsonl >/dev/full 2>err.txt
    expect C14 4 $?
    grep -q 'standard output' err.txt || fail "C14: $(cat err.txt)"
    "$ARTEL" --version >/dev/full 2>/dev/null
    expect C14 4 $?
    "$ARTEL" score "$model" rows.jsonl --json /dev/full >/dev/null 2>err.txt
    expect C14 4 $?
fi

# C15: closed descriptors; no colour without a terminal.
"$ARTEL" run "$model" --prompt x --max-tokens 2 <&- >&- 2>&-
expect C15 0 $?
"$ARTEL" score "$model" rows.jsonl --json e.json <&- >&- 2>&-
expect C15 0 $?
[ -s e.json ] || fail "C15: no result with closed descriptors"
"$ARTEL" inspect rows.jsonl --model "$model" | grep -q "$(printf '\033')" && fail "C15: colours"

# C11, D23: odd paths work.
odd=$(printf 'sp ace\nline\377')
mkdir "$odd" && cp "$model" "$odd/m odel.gguf" && cp rows.jsonl "$odd/"
"$ARTEL" score "$odd/m odel.gguf" "$odd/rows.jsonl" >/dev/null || fail "C11: exit $?"
ln -s "$odd" link
"$ARTEL" score "link/m odel.gguf" ./link/../rows.jsonl >/dev/null || fail "C11: link"

# C16: a working folder that is gone, no HOME, no TMPDIR.
mkdir gone
(cd gone && rmdir ../gone && env -u HOME -u TMPDIR "$ARTEL" run "$model" --prompt x --max-tokens 1) \
    >/dev/null 2>err.txt
expect C16 0 $?

# C17: few descriptors, a small stack, small files.
(ulimit -n 8 && "$ARTEL" run "$model" --prompt x --max-tokens 1) >/dev/null 2>err.txt
case $? in 0 | 4 | 5) ;; *) fail "C17: 8 descriptors: $(cat err.txt)" ;; esac
(ulimit -f 1 && "$ARTEL" score "$model" rows.jsonl --json f.json) >/dev/null 2>err.txt
case $? in # LLVM's OpenMP needs a file of its own
4) ;;
5) grep -q 'CPU06' err.txt || fail "C17: $(cat err.txt)" ;;
*) fail "C17: small files: $(cat err.txt)" ;;
esac
[ -e f.json ] && fail "C17: half a file was left"

# What an earlier process of the same number has left of LLVM's OpenMP harms nobody.
for bytes in 0 1024; do
    sh -c 'note=/dev/shm/__KMP_REGISTERED_LIB_$$_$(id -u)
        echo "$note" >note.txt
        head -c "$0" /dev/zero >"$note"
        exec "$ARTEL" score "$@"' $bytes "$model" rows.jsonl >/dev/null 2>err.txt
    expect "a note of $bytes bytes in shared memory" 0 $?
    [ -s err.txt ] && fail "a note of $bytes bytes in shared memory: $(cat err.txt)"
    rm -f "$(cat note.txt)"
done

# C22: instruction sets.
for set in ref avx2 avx512bf16; do
    ARTEL_CPU=$set "$ARTEL" score "$model" rows.jsonl >/dev/null 2>err.txt
    case $? in 0 | 5) ;; *) fail "C22: $set: $(cat err.txt)" ;; esac
done
ARTEL_CPU=abacus "$ARTEL" score "$model" rows.jsonl >/dev/null 2>err.txt
expect C22 2 $?
grep -q abacus err.txt || fail "C22: $(cat err.txt)"
ARTEL_CPU=ref "$ARTEL" score "$model" rows.jsonl --precision bf16 >/dev/null 2>err.txt
expect C22 5 $?

# C23: two million bytes of arguments.
long=$(head -c 100000 /dev/zero | tr '\0' a)
"$ARTEL" tokenize $long $long $long $long $long $long $long $long $long $long $long \
    $long $long $long $long $long $long $long $long >/dev/null 2>err.txt
expect C23 2 $?

# C21: asked to stop, it stops in order and tells so.
mkfifo lines
"$ARTEL" chat "$model" --max-tokens 2 <lines >out.txt 2>err.txt &
pid=$!
exec 9>lines
echo hello >&9
tries=0
while [ ! -s out.txt ] && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -TERM $pid
wait $pid
expect C21 143 $?
exec 9>&-

# A SIGBUS of another reason than a file ends the program as it is, and nothing is told.
(ulimit -c 0 && exec "$ARTEL" chat "$model" --max-tokens 2) <lines >out.txt 2>err.txt &
pid=$!
exec 9>lines
echo hello >&9
tries=0
while [ ! -s out.txt ] && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -BUS $pid
wait $pid
expect S31 135 $?
grep -q 'cut short' err.txt && fail "S31: no file was cut: $(cat err.txt)"
exec 9>&-

# C21, C20, C19: training stops at a step with a checkpoint, and goes on from there.
cat >recipe.yaml <<END
model: $model
output: run
method: mixed
lora: {rank: 4, alpha: 8}
domains: {d: {train: rows.jsonl}}
train: {epochs: 9000, batch_size: 4, cutoff_len: 128}
END
"$ARTEL" train recipe.yaml --resume >/dev/null 2>err.txt
expect C19 6 $?
[ -e run ] && fail "C19: a folder was made"
"$ARTEL" train recipe.yaml >out.txt 2>err.txt &
pid=$!
tries=0
while ! [ -s run/train/mixed/log.jsonl ] && [ $tries -lt 200 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
"$ARTEL" train recipe.yaml >/dev/null 2>other.txt
expect R11 6 $?
kill -TERM $pid
wait $pid
expect C21 143 $?
[ -s out.txt ] && fail "C21: standard output is not empty"
ls run/train/mixed | grep -q '^checkpoint-[0-9]*$' || fail "C21: no checkpoint"
"$ARTEL" train recipe.yaml train.learning_rate=1e-3 >/dev/null 2>err.txt
expect C20 6 $?
grep -q learning_rate err.txt || fail "C20: $(cat err.txt)"

# S31: the model is cut while it is used.
cp "$model" cut.gguf
"$ARTEL" chat cut.gguf --max-tokens 2 --prompt first <lines >out.txt 2>err.txt &
pid=$!
exec 9>lines
tries=0
while ! grep -q base out.txt && [ $tries -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
: >cut.gguf
echo again >&9
exec 9>&-
wait $pid
got=$?
case $got in
4) grep -q 'cut.gguf: the file was cut short' err.txt || fail "S31: $(cat err.txt)" ;;
0) ;; # all of so small a model was in memory
*) fail "S31: exit $got: $(cat err.txt)" ;;
esac
exit "$bad"
