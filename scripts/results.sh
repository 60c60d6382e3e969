#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scripts/results.sh DATA: the tables of docs/RESULTS.md, from the folder of domains DATA.
#
# Trains and measures what examples/eight/recipe.yaml says and its variants; every step
# that is done already is passed over, so the script continues wherever it was
# stopped. MAX_ROWS=N measures on the first N test rows of a domain instead of all.
set -eu
cd "$(dirname "$0")/.."
data=$(cd "$1" && pwd)
artel=${ARTEL-$PWD/build/artel}
out=${OUT-$PWD/runs/results}
model=${MODEL-$PWD/models/SmolLM2-135M-Instruct.Q4_1.gguf}
max_rows=${MAX_ROWS-}

mkdir -p "$out"
recipe=$out/recipe.yaml
sed "s|DATA/|$data/|g" examples/eight/recipe.yaml >"$recipe"

train() { # FOLDER [key=value...]
    folder=$1
    shift
    "$artel" train "$recipe" model="$model" output="$out/$folder" "$@"
}

# variant FOLDER [key=value...]: stage 2 anew over the experts of the first run
variant() {
    if [ ! -d "$out/$1" ]; then
        mkdir -p "$out/$1.part/train"
        cp -r "$out/eight/experts" "$out/$1.part/"
        cp -r "$out"/eight/train/expert-* "$out/$1.part/train/"
        mv "$out/$1.part" "$out/$1"
    fi
    train "$@"
}

# measure NAME MIXTURE [words...]: evaluation of one mixture, kept as NAME.json
measure() {
    name=$1 mixture=$2
    shift 2
    [ -s "$out/$name.json" ] && return
    "$artel" eval "$mixture" --no-generate ${max_rows:+--max-rows "$max_rows"} \
        --cutoff-len 768 --json "$out/$name.json.part" "$@"
    mv "$out/$name.json.part" "$out/$name.json"
}

train eight
train seed-2 method='[single, moa]' train.seed=2
# as many passes over the text as both stages of moa, without a mixture
train twice method=single train.epochs=2
variant router-only method=moa router.router_only=true router.epochs=3
variant router-last method=moa router.router_only=true router.epochs=3 router.pool=last

measure moa "$out/eight/moa"
measure router-only "$out/router-only/moa" --no-base
measure mixed "$out/eight/mixed" --no-base
measure single "$out/eight/single" --no-base
measure twice "$out/twice/single" --no-base
measure router-last "$out/router-last/moa" --no-base
measure single-2 "$out/seed-2/single" --no-base
measure moa-2 "$out/seed-2/moa" --no-base

if [ ! -s "$out/add.json" ]; then
    rm -rf "$out/grown" # half of an addition is none
    cp -r "$out/router-only" "$out/grown"
    "$artel" add "$out/grown/moa" strategyqa="$data/ood/strategyqa/train.jsonl" \
        --test "$data/ood/strategyqa/test.jsonl" --max-rows 600 --json "$out/add.json"
fi
python3 scripts/results.py "$out" docs/RESULTS.md
