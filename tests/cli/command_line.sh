#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Bad command lines: exit code, error code, an empty standard output, and nothing left
# behind. One row a case: ID, exit code, error code, the words.
#
#   ARTEL=path/to/artel TESTS=path/to/tests sh command_line.sh
set -u
. "$TESTS/cli/row.inc"
model=$TESTS/golden/toy-tied.gguf
printf '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' >rows.jsonl
printf '{"messages": [\n' >broken.jsonl
: >empty.jsonl
mkdir folder

row C01 2 ''
row C02 2 USE01 trian recipe.yaml
row C02 2 USE01 help trian
row C02 2 USE01 --lerning-rate
row C02 2 USE02 run "$model" --prompt x --max-token 3
row C02 2 USE02 run "$model" --prompt x --lerning-rate 3
row C02 2 USE02 score "$model" rows.jsonl -x
row C03 2 USE03 run "$model" --prompt
row C03 2 USE03 run "$model" --prompt --raw
row C03 2 USE04 run "$model" --prompt x --prompt y
row C03 2 USE04 run "$model" --raw --raw --prompt x
row C03 2 USE05 run "$model" --raw=yes --prompt x
row C03 2 USE06 run "$model" --prompt x --prompt-file rows.jsonl
row C03 2 USE06 run "$model" --prompt x --raw --system y
row C03 2 USE06 chat "$model" --json -
row C03 2 USE06 train recipe.yaml --retrain --allow-changes
row C03 2 USE06 eval "$model" --json - --csv -
for value in -5 0x10 nan inf '' ' 5' 5x 1,5 1e3 18446744073709551617 0 1000001; do
    row C04 2 USE05 run "$model" --prompt x --max-tokens "$value"
done
for value in -5 0x10 nan inf '' ' 5' 5x 1,5 1e400 101 . +1 1.2.3; do
    row C04 2 USE05 run "$model" --prompt x --temperature "$value"
done
for value in 0 4T -1 1.5G G '' 99999999G; do
    row C04 2 USE05 run "$model" --prompt x --memory "$value"
done
row C04 2 USE05 run "$model" --prompt x --top-p 0
row C04 2 USE05 run "$model" --prompt x --top-p 1.1
row C04 2 USE05 run "$model" --prompt x --min-p -0.1
row C04 2 USE05 run "$model" --prompt x --repetition-penalty 0
row C04 2 USE05 run "$model" --prompt x --precision fp16
row C04 2 USE05 run "$model" --prompt x --stop ''
row C04 2 USE05 run "$model" --prompt x --seed -1
row C05 2 USE05 run "$model" --prompt x --threads 0
row C05 2 USE05 run "$model" --prompt x --threads 100000
row C05 2 USE05 run "$model" --prompt x --context 1099511627776
row C05 2 USE05 run "$model" --prompt x --context 100000
row C06 2 USE05 run "$model" --prompt x --context 1
row C06 2 USE05 chat absent.gguf --context 1
row C03 2 USE07 run "$model"
row C03 2 USE07 run "$model" extra --prompt x
row C03 2 USE07 score "$model"
row C03 2 USE07 add folder legal
row C03 2 USE07 add folder legal=
row C03 2 USE07 add folder legal=,rows.jsonl
row C03 2 USE05 bench X --model "$model"
row C03 2 USE05 bench W --model "$model" --memory all
row C03 2 USE06 bench W --model "$model" --format Q4_0
row C08 2 USE06 score "$model" rows.jsonl --json rows.jsonl
row C08 2 USE06 score "$model" rows.jsonl --json ./folder/../rows.jsonl
row C09 4 IO01 score "$model" rows.jsonl --json absent/out.json
row C09 4 IO01 score "$model" rows.jsonl --json folder
row C11 4 IO01 score "$model" "$(printf 'no\nsuch')"
row C11 4 IO01 run "$(head -c 5000 /dev/zero | tr '\0' x)" --prompt x
row C11 4 IO01 run "$model/" --prompt x
row S32 4 IO02 run /dev/null --prompt x
row S32 4 IO02 score "$model" folder
row A01 4 '' run absent --prompt x
row D02 3 '' score "$model" broken.jsonl
row D04 3 '' score "$model" empty.jsonl
row D04 3 PRM05 run "$model" --prompt-file empty.jsonl
row E01 2 USE09 run "$model" --prompt x --expert math
row E03 2 USE12 eval "$model"
row E04 2 USE05 eval "$model" --data rows.jsonl
row M01 5 MEM02 run "$model" --prompt x --memory 1K
row M02 5 CTX01 run "$model" --context 16 --prompt 'more than sixteen tokens are in this prompt'
grep -q . rows.jsonl || { echo "C08: the input was overwritten"; bad=1; }

# C02: the nearest name is told.
"$ARTEL" run "$model" --max-tokns 3 --prompt x 2>&1 | grep -q 'mean --max-tokens?' ||
    { echo "C02: no suggestion"; bad=1; }
"$ARTEL" evl 2>&1 | grep -q 'mean eval?' || { echo "C02: no suggestion of a command"; bad=1; }
exit "$bad"
