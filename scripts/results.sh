#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Train single, mixed and moa on a folder of domains and write their table; what
# `make results DATA=FOLDER` runs.
#
#   scripts/results.sh DATA        [ROWS=400 TEST_ROWS=100 METHODS="single, mixed, moa"]
#
# Each folder of DATA with train.jsonl and test.jsonl is a domain (general and dolly are
# not: they are of every kind). DATA/eval/NAME/test.jsonl shows what was forgotten. Writes
# runs/results/: the recipe, the experts and results.md, .csv, .json. Killed, it continues.
# ROWS of training a domain and TEST_ROWS measured decide the time: with the values
# above, eight domains of about 150 tokens a row are some 0.5 million tokens a method.
set -eu
cd "$(dirname "$0")/.."
data=$(cd "$1" && pwd)
rows=${ROWS:-400}
test_rows=${TEST_ROWS:-100}
methods=${METHODS:-single, mixed, moa}
model=${MODEL:-$PWD/models/SmolLM2-135M-Instruct.Q4_1.gguf}
out=runs/results

[ -f "$model" ] || scripts/get-model.sh

# How the answers of a domain are judged, where its name tells.
score_of() {
    case $1 in
    math) echo last_number ;;
    finance) echo answer_line ;;
    law | ecommerce) echo exact ;;
    tools) echo json ;;
    medical) echo first_word ;;
    exam) echo first_letter ;;
    *) echo loss ;;
    esac
}

mkdir -p "$out"
{
    echo "# Written by scripts/results.sh"
    echo "model: $model"
    echo "output: ."
    echo "method: [$methods]"
    echo "lora: {rank: 8, alpha: 16, target: all}"
    echo "max_rows: $rows"
    echo "domains:"
    for folder in "$data"/*/; do
        name=$(basename "$folder")
        case $name in general | dolly) continue ;; esac
        [ -f "$folder/train.jsonl" ] && [ -f "$folder/test.jsonl" ] || continue
        valid=
        [ -f "$folder/valid.jsonl" ] && valid=" valid: ${folder}valid.jsonl,"
        echo "  $name: {train: ${folder}train.jsonl,$valid test: ${folder}test.jsonl," \
            "score: $(score_of "$name")}"
    done
    echo "train: {learning_rate: 2.0e-4, epochs: 1, batch_tokens: 2048, cutoff_len: 512, seed: 1}"
} >"$out/recipe.new"
if ! cmp -s "$out/recipe.new" "$out/results-recipe.yaml"; then
    cp "$out/recipe.new" "$out/results-recipe.yaml"
fi
rm -f "$out/recipe.new"

build/artel train "$out/results-recipe.yaml"

set --
for file in "$data"/eval/*/test.jsonl; do
    [ -f "$file" ] || continue
    set -- "$@" --general "$(basename "$(dirname "$file")")=$file"
done
build/artel eval "$out" --max-rows "$test_rows" "$@" \
    --markdown "$out/results.md" --csv "$out/results.csv" --json "$out/results.json"
echo "Written: $out/results.md, results.csv, results.json"
