#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scripts/results.sh DATA [PART...]: the tables of docs/RESULTS.md, from the folder of domains DATA.
#
# PART is one of train rows measure stress grow seeds full; all of them, in this order,
# where none is named. Every step that is done already is passed over, so the script
# continues wherever it was stopped. By environment:
#     METHODS="moa mixed"   these alone, of what a part goes through
#     ARTEL, OUT, MODEL     the program, the folder of results, the base
#     ROWS=all              test rows a domain for perplexity and routing
#     SEED_ROWS=300         the same, to compare seeds
#     SCORE_ROWS=150        for generated answers, and of sets out of the domains
#     GENERAL_ROWS=500      questions of general sets
#     WINDOWS=all           of wikitext, 1,024 tokens each
#     THREADS=1             of the program
set -eu
cd "$(dirname "$0")/.."
data=$(cd "$1" && pwd)
shift
artel=${ARTEL-$PWD/build/artel}
out=${OUT-$PWD/runs/results}
model=${MODEL-$PWD/models/SmolLM2-135M-Instruct.Q4_1.gguf}
rows=${ROWS-all}
seed_rows=${SEED_ROWS-300}
score_rows=${SCORE_ROWS-150}
general_rows=${GENERAL_ROWS-500}
windows=${WINDOWS-all}
threads=${THREADS:+--threads $THREADS}
everything="single single-twice mixed mixed-wide moa router-only ridge classifier arrow molora slim modula-flan modula-res res-bare mixlora"
methods=${METHODS-$everything}

mkdir -p "$out"
for recipe in recipe stress; do
    sed "s|DATA/|$data/|g" "examples/eight/$recipe.yaml" >"$out/$recipe.$$"
    mv "$out/$recipe.$$" "$out/$recipe.yaml"
done

# What each method has of its own, beside the recipe: ranks so that all learn a comparable
# number of parameters, and rates found on valid.jsonl.
settings() { # METHOD
    case $1 in
    single-twice) echo "method=single train.epochs=2" ;; # as often over its text as moa
    mixed-wide) echo "method=mixed lora.rank=64 lora.alpha=128" ;; # as many parameters as moa
    router-only) echo "method=moa router.router_only=true router.epochs=3" ;;
    molora) echo "method=molora lora.rank=10" ;;
    mixlora) echo "method=mixlora lora.rank=12" ;;
    modula-flan) echo "method=modula-flan router.token_learning_rate=3e-2 router.max_steps=200" ;;
    modula-res | res-bare)
        bare=
        [ "$1" = modula-res ] || bare=modula.residual=false
        echo "method=modula-res router.token_learning_rate=3e-2 router.max_steps=200 lora.alpha=128 $bare"
        ;;
    slim) echo "method=slim lora.rank=16 lora.target=[gate_proj,up_proj,down_proj] router.experts=8 slim.beta=0.25" ;;
    *) echo "method=$1" ;;
    esac
}

# The run's folder that METHOD goes to, and its mixture in it.
folder() {
    case $1 in
    single-twice | mixed-wide | router-only | res-bare) echo "$1" ;;
    *) echo eight ;;
    esac
}
mixture() { # RUN METHOD
    case $2 in
    router-only) echo "$out/$1/moa" ;;
    single-twice) echo "$out/$1/single" ;;
    mixed-wide) echo "$out/$1/mixed" ;;
    res-bare) echo "$out/$1/modula-res" ;;
    *) echo "$out/$1/$2" ;;
    esac
}

# train RECIPE RUN METHOD [key=value...]
train() {
    recipe=$1 run=$2 method=$3
    shift 3
    # shellcheck disable=SC2046
    "$artel" train "$out/$recipe.yaml" $threads model="$model" output="$out/$run" $(settings "$method") "$@"
}

# share FROM TO: experts of the run FROM for TO, which would train the same again
share() {
    [ ! -d "$out/$2" ] || return 0
    rm -rf "$out/$2.part"
    mkdir -p "$out/$2.part/train"
    cp -r "$out/$1/experts" "$out/$2.part/"
    for stage in "$out/$1"/train/expert-* "$out/$1"/train/universal; do
        [ ! -d "$stage" ] || cp -r "$stage" "$out/$2.part/train/"
    done
    mv "$out/$2.part" "$out/$2"
}

# measure KIND NAME MIXTURE [words...]: one evaluation, kept as KIND/NAME.json; KIND ends in
# the number of rows, so that another number is measured anew
measure() {
    kind=$1 name=$2 of=$3
    shift 3
    [ ! -s "$out/$kind/$name.json" ] || return 0
    mkdir -p "$out/$kind"
    # shellcheck disable=SC2086
    "$artel" eval "$of" $threads --cutoff-len 768 --keep "$out/kept" --json "$out/$kind/$name.json.$$" "$@"
    mv "$out/$kind/$name.json.$$" "$out/$kind/$name.json"
}

domains="math=math:last_number code=code:one_line medical=medical:yes_no finance=finance:answer_line
         law=law:exact tools=tools:json ecommerce=ecommerce:short exam=exam:first_letter"

sets() { # the domains' test rows, as words for artel eval
    for d in $domains; do
        echo "--data ${d%%=*}=$data/${d%%=*}/test.jsonl:${d##*:}"
    done
}

limit() { # WORD NUMBER
    [ "$2" = all ] || echo "--$1 $2"
}

# Of general sets always: where nothing is said they have the other sets' limit.
general_limit() { # NUMBER
    [ "$1" = all ] && echo "--general-rows 1000000" || echo "--general-rows $1"
}

questions() {
    for set in mmlu piqa winogrande; do
        echo "--general $set=$data/eval/$set/test.jsonl"
    done
    general_limit "$general_rows"
}

wikitext() {
    echo "--general wikitext2=$data/eval/wikitext2/test.txt"
    general_limit "$windows"
}

# general PREFIX NAME MIXTURE SETS [words...]: what was known before, and SETS beside it
# shellcheck disable=SC2046,SC2086
general() {
    prefix=$1 name=$2 of=$3 beside=$4
    shift 4
    measure "${prefix}general.$general_rows" "$name" "$of" $beside $(limit max-rows "$score_rows") $(questions) "$@"
    measure "${prefix}text.$windows" "$name" "$of" --data svamp="$data/ood/svamp/test.jsonl" --max-rows 1 \
        $(wikitext) "$@"
}

# measures NAME MIXTURE: answers, and what is no domain. The experts of single are no mixture:
# there they would have to be told which of them to use.
# shellcheck disable=SC2046
measures() {
    measure "score.$score_rows" "$1" "$2" $(sets) $(limit max-rows "$score_rows") --no-base
    case $1 in
    single*) ;;
    *)
        general "" "$1" "$2" \
            "--data svamp=$data/ood/svamp/test.jsonl:last_number --data bfcl=$data/ood/bfcl/test.jsonl:json"
        ;;
    esac
}

# rows NAME MIXTURE COUNT: perplexity and routing of COUNT rows a domain
# shellcheck disable=SC2046
rows() {
    if [ -s "$out/score.$3/$1.json" ]; then # has them, beside the answers to the same rows
        mkdir -p "$out/perplexity.$3"
        cp "$out/score.$3/$1.json" "$out/perplexity.$3/$1.json"
    fi
    measure "perplexity.$3" "$1" "$2" $(sets) --no-generate $(limit max-rows "$3") --no-base
}

part_train() {
    for m in $methods; do
        case $m in
        router-only | res-bare) share eight "$m" ;;
        esac
        train recipe "$(folder "$m")" "$m"
    done
}

part_measure() {
    for m in base $methods; do
        case $m in
        base) of=$model ;;
        *) of=$(mixture "$(folder "$m")" "$m") ;;
        esac
        measures "$m" "$of"
        tables
    done
}

part_rows() {
    for m in base $methods; do
        case $m in
        base) of=$model ;;
        *) of=$(mixture "$(folder "$m")" "$m") ;;
        esac
        rows "$m" "$of" "$rows"
        tables
    done
}

# One narrow domain, far too hard.
part_stress() {
    for m in ${METHODS-single slim modula-res modula-flan moa molora}; do
        case $m in
        slim) train stress stress slim lora.rank=4 router.experts=4 slim.beta=1 ;;
        molora) train stress stress molora lora.rank=2 router.experts=4 ;;
        single) train stress stress single ;;
        # its gates over one domain are 1 whatever the routers say: there is nothing to learn
        *) train stress stress "$m" router.epochs=1 ;;
        esac
        case $m in
        single) expert=law ;;
        *) expert=auto ;;
        esac
        general stress- "$m" "$out/stress/$m" "--data law=$data/law/test.jsonl:exact" --expert "$expert" \
            --max-tokens 64 # the answers are a few words
        tables
    done
}

# A ninth domain for every method that can have one.
part_grow() {
    for m in ${METHODS-single arrow ridge classifier router-only moa modula-flan modula-res}; do
        if [ ! -s "$out/grow/$m.json" ]; then
            to=$out/grown/$m of=$out/$(folder "$m")
            mixture=$(basename "$(mixture "$(folder "$m")" "$m")")
            mkdir -p "$out/grow"
            if [ ! -d "$to" ]; then
                rm -rf "$to.part"
                mkdir -p "$to.part"
                cp -r "$of/$mixture" "$of/recipe.yaml" "$to.part/"
                for experts in experts experts-res; do
                    [ ! -d "$of/$experts" ] || cp -r "$of/$experts" "$to.part/"
                done
                mv "$to.part" "$to"
            fi
            # shellcheck disable=SC2086
            "$artel" add "$to/$mixture" $threads strategyqa="$data/ood/strategyqa/train.jsonl" --score last_word \
                --test "$data/ood/strategyqa/test.jsonl" --max-rows 600 --score-rows 0 \
                --json "$out/grow/$m.json.part"
            mv "$out/grow/$m.json.part" "$out/grow/$m.json"
        fi
        # shellcheck disable=SC2046
        measure "grown.$score_rows" "$m" "$out/grown/$m/$(basename "$(mixture "" "$m")")" --no-base \
            --data strategyqa="$data/ood/strategyqa/test.jsonl:last_word" $(limit max-rows "$score_rows")
        tables
    done
}

# Another seed, of methods that lie close: LoRAs' starts, order of rows, every stage.
part_seeds() {
    for m in ${METHODS-single mixed moa molora slim modula-flan modula-res mixlora}; do
        train recipe "$(folder "$m")-2" "$m" train.seed=2
        rows "$m" "$(mixture "$(folder "$m")" "$m")" "$seed_rows"
        rows "$m-2" "$(mixture "$(folder "$m")-2" "$m")" "$seed_rows"
        tables
    done
}

# Every row of every set.
part_full() {
    score_rows=all general_rows=all windows=all
    for m in ${METHODS-base mixed moa modula-res slim}; do
        case $m in
        base) of=$model ;;
        *) of=$(mixture "$(folder "$m")" "$m") ;;
        esac
        measures "$m" "$of"
        tables
    done
}

tables() { python3 scripts/results.py "$out" docs/RESULTS.md; }

for part in ${*:-train rows measure stress grow seeds full}; do
    "part_$part"
    tables
done
