#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Experts in other forms: there and back to the bit, nothing written over unasked, and
# what cannot be is told before anything is written.
set -u
. "$TESTS/cli/row.inc"
cp "$TESTS/golden/toy-tied.gguf" .
base=$PWD/toy-tied.gguf # ours, should an input be written over after all

for name in alpha beta; do
    for i in 0 1 2 3 4 5 6 7; do
        printf '{"messages": [{"role": "user", "content": "%s %d"}, {"role": "assistant", "content": "%s"}]}\n' \
            $name $i "$(echo $name | cut -c1-2)"
    done >$name.jsonl
done
cat >recipe.yaml <<END
model: $base
output: run
method: [moa]
lora: {rank: 4, alpha: 8}
domains:
  alpha: {train: alpha.jsonl}
  beta: {train: beta.jsonl}
train: {learning_rate: 2.0e-2, epochs: 1, batch_size: 8, precision: fp32, cutoff_len: 256}
END
quietly "$ARTEL" train recipe.yaml

# An expert, its file, and the expert again.
quietly "$ARTEL" convert run/moa alpha.gguf --to gguf-lora --expert alpha
quietly "$ARTEL" convert alpha.gguf alpha --to peft --model "$base"
cmp run/moa/experts/alpha/adapter_model.safetensors alpha/adapter_model.safetensors ||
    fail "an expert has changed on its way to GGUF and back"
quietly "$ARTEL" convert run/moa/experts/alpha again.gguf --to gguf-lora --json told.json
cmp alpha.gguf again.gguf || fail "the expert of a mixture is not the adapter"
grep -q '"exact": true' told.json || fail "no word that nothing was lost: $(cat told.json)"
quietly "$ARTEL" convert alpha.gguf alpha --to peft --model "$base" --force
quietly "$ARTEL" convert alpha.gguf half.gguf --to gguf-lora --type f16 --model "$base"
[ "$(wc -c <half.gguf)" -lt "$(wc -c <alpha.gguf)" ] || fail "halves take as much room"

# What it is, by the file alone and beside its base, as the adapter's folder is shown.
# has FILE WORDS: each of them stands in it
has() {
    file=$1
    shift
    for words; do
        grep -qF "$words" "$file" || fail "$file: no $words in: $(cat "$file")"
    done
}
quietly "$ARTEL" inspect alpha.gguf --json told.json
has told.json '"kind": "adapter"' '"form": "gguf-lora"' '"architecture": "llama"' '"alpha": 8.0' \
    '"F32": 28' '"name": "alpha"' '"parameters": 4096' '"layers": 2' '"smallest_rank": 4' \
    '"largest_rank": 4' '"q_proj"' '"down_proj"' '"note"' \
    "$(grep -o '"base_digest": "[0-9a-f]*"' run/moa/experts/alpha/artel.json | sed s/base_//)"
"$ARTEL" inspect alpha.gguf >told.txt || fail "inspect: exit $?"
has told.txt 'gguf-lora' 'llama' 'q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj'
quietly "$ARTEL" inspect alpha.gguf --model "$base" --verify --json told.json
quietly "$ARTEL" inspect run/moa/experts/alpha --json folder.json
for file in told folder; do
    sed -n '/"expert": {/,/}/p' $file.json | tr -d , >$file.txt
done
[ -s told.txt ] && cmp -s told.txt folder.txt ||
    fail "shown as another than its folder: $(cat told.txt folder.txt)"
has told.json '"verified": true'
row I01 2 USE08 inspect alpha.gguf --verify
row I02 3 GLA02 inspect alpha.gguf --model "$TESTS/golden/toy-tied"
head -c 2000 alpha.gguf >short.gguf
row I03 3 '' inspect short.gguf

# number FILE KEY: the last number under KEY
number() {
    sed -n "s/.*\"$2\": *\([-+0-9.e]*\).*/\1/p" "$1" | tail -1
}
# perplexity MIXTURE [--expert NAME]: of beta's answers
perplexity() {
    quietly "$ARTEL" score "$@" beta.jsonl --precision fp32 --json score.json
    number score.json perplexity
    rm -f score.json
}
# alike WHAT X Y SHARE: two numbers that differ by no more than SHARE of them
alike() {
    awk -v x="$2" -v y="$3" -v most="$4" \
        'BEGIN { d = y ? x / y - 1 : 1; exit !(x != "" && d * d <= most * most) }' ||
        fail "$1: $2 and $3"
}

# Two experts under fixed gates are one of twice the rank, and what they are where each is merged
# under its gate, one after the other.
quietly "$ARTEL" convert run/moa both --to peft --gates alpha=0.7,beta=0.3
grep -q '"r": 8' both/adapter_config.json || fail "$(cat both/adapter_config.json)"
quietly "$ARTEL" convert run/moa first --to peft --gates alpha=0.7
quietly "$ARTEL" convert first first.gguf --to gguf
quietly "$ARTEL" convert run/moa second --to peft --gates beta=0.3
quietly "$ARTEL" convert second second.gguf --to gguf --model first.gguf --force
alike "both at once, one by one" "$(perplexity both)" "$(perplexity second.gguf)" 1e-5

# Merged: as GGUF of the base's formats, finer, and as a folder; from either of them again.
# NAN and wide differences would both fail: the change is compared as a number.
near() {
    change=$(sed -n 's/.*"largest_row_change": *\([0-9.e+-]*\).*/\1/p' "$1")
    awk -v x="$change" -v most="$2" 'BEGIN { exit !(x != "" && x + 0 <= most) }' ||
        fail "$1: a row has moved by '$change' nats a token"
}
measure="--measure beta.jsonl --json told.json"
quietly "$ARTEL" convert run/moa m.gguf --to gguf --expert beta --type f32 $measure
near told.json 1e-5
grep -q '"kind": "q_proj"' told.json || fail "$(cat told.json)"
quietly "$ARTEL" convert run/moa folder --to safetensors --expert beta --type f32 $measure
near told.json 1e-5
grep -q 'sampling settings' told.json || fail "no word of what is missing: $(cat told.json)"
quietly "$ARTEL" convert run/moa half --to safetensors --expert beta $measure
near told.json 2e-2
quietly "$ARTEL" convert folder again --to safetensors
cmp folder/model.safetensors again/model.safetensors || fail "a folder is not copied as it is"
alike "merged, beside" "$(perplexity folder)" "$(perplexity run/moa --expert beta)" 1e-5

# Under fixed gates: as a mixture does with them, which one of arrow is whose temperature leaves no
# difference between the experts.
quietly "$ARTEL" convert run/moa same.gguf --to gguf --gates alpha=0.5,beta=0.5 $measure
near told.json 1e-5
has told.json '"alpha": 0.5' '"beta": 0.5'
cat >arrow.yaml <<END
model: $base
output: arrow
method: arrow
domains: {alpha: {adapter: run/moa/experts/alpha}, beta: {adapter: run/moa/experts/beta}}
router: {top_k: 2, temperature: 1.0e6}
END
quietly "$ARTEL" train arrow.yaml
alike "merged under gates, with them" "$(perplexity same.gguf)" "$(perplexity arrow/arrow)" 1e-5
alike "as told beside" "$(number told.json perplexity_beside)" "$(perplexity arrow/arrow)" 1e-5
alike "as told merged" "$(number told.json perplexity_merged)" "$(perplexity same.gguf)" 1e-9
alike "as told before" "$(number told.json perplexity_base)" "$(perplexity "$base")" 1e-9

# Into weights of less precision: most of the update arrives, what is lost is told and small.
quietly "$ARTEL" convert "$base" eight.gguf --to gguf --type q8_0
quietly "$ARTEL" convert run/moa/experts/beta coarse.gguf --to gguf --model eight.gguf --force $measure
near told.json 0.2
awk -F'[:,]' '/"update"/ { lacks += !($2 > 0.005 && $2 < 0.2); n++ }
    /"error"/ { lacks += !($2 > 1e-4 && $2 < 0.01) }
    /"kept"/ { lacks += !($2 > 0.98 && $2 < 1.02) }
    /"largest_row_change"/ { lacks += !($2 > 1e-4) }
    END { exit n != 7 || lacks }' told.json || fail "merged into Q8_0: $(cat told.json)"
alike "Q8_0, merged and beside" "$(number told.json perplexity_merged)" "$(number told.json perplexity_beside)" 0.1
alike "Q8_0, as told merged" "$(number told.json perplexity_merged)" "$(perplexity coarse.gguf)" 1e-9
alike "Q8_0, as told before" "$(number told.json perplexity_base)" "$(perplexity eight.gguf)" 1e-9
quietly "$ARTEL" inspect folder --verify
quietly "$ARTEL" inspect m.gguf --verify
before=$(cksum <m.gguf)
quietly "$ARTEL" convert run/moa m.gguf --to gguf --expert beta --type f32 --force --threads 3
[ "$(cksum <m.gguf)" = "$before" ] || fail "the merged model depends on threads"

# One expert that makes a whole FFN is, with what is shared, a LoRA; several are none.
sed -e 's/\[moa\]/[mixlora, modula-res, slim]/' -e 's/epochs: 1/epochs: 2/' recipe.yaml >whole.yaml
printf 'universal: {train: alpha.jsonl}\nslim: {identities: 1}\n' >>whole.yaml
quietly "$ARTEL" train whole.yaml
quietly "$ARTEL" convert run/mixlora one --to peft --expert expert-2
alike "as a LoRA, as a whole FFN" "$(perplexity one)" "$(perplexity run/mixlora --expert expert-2)" 1e-5
row W01 2 CNV04 convert run/mixlora new.gguf --to gguf-lora --gates expert-1=0.5,expert-2=0.5
row W02 2 CNV04 convert run/mixlora new.gguf --to gguf --gates shared=1,expert-1=0.5
row W03 3 ADP12 convert run/mixlora/experts/expert-1 new.gguf --to gguf-lora --model "$base"
# What cannot be converted is told what can be, or what else to do.
# advises WORDS ID EXIT CODE ...: a row whose error has WORDS in it
advises() {
    words=$1
    shift
    row "$@"
    shift 3
    "$ARTEL" "$@" 2>&1 | grep -qF -e "$words" || fail "$*: no word of '$words'"
}
advises 'the universal expert can be converted' W04 2 CNV04 convert run/modula-res new.gguf --to gguf-lora --expert alpha
advises 'artel serve' W04 2 CNV04 convert run/modula-res new.gguf --to gguf --gates universal=1,alpha=0.5
advises 'convert one alone (--expert)' W01 2 CNV04 convert run/mixlora new.gguf --to gguf --gates expert-1=0.5,expert-2=0.5
advises 'choose a LoRA' W05 2 CNV03 convert run/slim new.gguf --to gguf-lora --expert identity-1
advises 'open the mixture' W03 3 ADP12 convert run/mixlora/experts/expert-1 new.gguf --to gguf-lora
advises 'open the mixture' W06 3 ADP12 convert run/experts-res/alpha new.gguf --to gguf-lora
quietly "$ARTEL" convert run/modula-res universal.gguf --to gguf-lora --expert universal
quietly "$ARTEL" convert run/slim slim.gguf --to gguf-lora --expert expert-1

mkdir -p occupied/inner
: >occupied/config.json
row V01 6 CNV01 convert run/moa/experts/alpha alpha.gguf --to gguf-lora
row V02 6 CNV01 convert alpha.gguf alpha --to peft --model "$base"
row V03 6 CNV01 convert alpha.gguf occupied --to peft --model "$base" --force
row V04 6 CNV01 convert run/moa occupied --to gguf-lora --expert beta --force
row V05 2 USE08 convert alpha.gguf new --to peft
row V06 2 USE09 convert run/moa new.gguf --to gguf-lora
row V07 2 USE09 convert run/moa new.gguf --to gguf-lora --expert nobody
row V08 2 CNV03 convert run/moa new.gguf --to gguf-lora --gates alpha=0.5,nobody=0.5
row V09 2 CNV03 convert run/moa new.gguf --to gguf-lora --gates alpha=0.5,alpha=0.5
row V10 2 CNV03 convert run/moa new.gguf --to gguf-lora --gates alpha=much
row V11 2 CNV03 convert run/moa new.gguf --to gguf-lora --gates alpha=0
row V12 2 CNV02 convert run/moa new.gguf --to gguf-lora --gates alpha=1 --expert beta
row V13 2 CNV02 convert run/moa/experts/alpha new.gguf --to gguf-lora --gates alpha=1
row V14 2 USE07 convert run/moa/experts/alpha new.gguf
row V15 2 '' convert run/moa/experts/alpha new.gguf --to onnx
row V16 2 CNV05 convert alpha.gguf new --to peft --model "$base" --type f16
row V17 3 GLA02 convert alpha.gguf new --to peft --model "$TESTS/golden/toy-tied"
row V18 4 IO01 convert nowhere new.gguf --to gguf-lora
row V19 4 '' convert run/moa/experts/alpha nowhere/new.gguf --to gguf-lora
row V20 2 CNV02 convert "$TESTS/golden/toy-tied" new.gguf --to gguf
row V21 2 CNV02 convert "$base" new.gguf --to gguf-lora
row V22 2 CNV02 convert "$base" new --to safetensors --expert alpha
row V23 2 CNV05 convert run/moa new --to safetensors --expert beta --type q8_0
row V24 2 CNV02 convert run/moa new.gguf --to gguf-lora --expert beta --measure beta.jsonl
row V25 6 CNV01 convert run/moa m.gguf --to gguf --expert beta
row V26 6 CNV01 convert run/moa folder --to safetensors --expert beta
row V27 2 USE06 convert run/moa new.gguf --to gguf --expert beta --json new.gguf

# C08: nothing is written over what is read, forced or not and by whatever name.
expert=run/moa/experts/alpha
cp "$base" base.gguf
ln base.gguf hard.gguf
ln -s base.gguf soft.gguf
ln -s . here
mkdir box lone
cp -r run/moa lone/
cp "$base" box/base.gguf
cp alpha.gguf box/
: >box/config.json
cp base.gguf set-00001-of-00002.gguf
: >set-00002-of-00002.gguf
for force in '' --force; do
    row C08 2 CNV08 convert $expert base.gguf --model base.gguf --to gguf $force
    row C08 2 CNV08 convert $expert here/../"${PWD##*/}"/base.gguf --model base.gguf --to gguf $force
    row C08 2 CNV08 convert $expert hard.gguf --model base.gguf --to gguf $force
    row C08 2 CNV08 convert $expert soft.gguf --model base.gguf --to gguf $force
    row C08 2 CNV08 convert $expert base.gguf --model soft.gguf --to gguf $force
    row C08 2 CNV08 convert base.gguf base.gguf --to gguf --type f16 $force
    row C08 2 CNV08 convert $expert set-00002-of-00002.gguf --model set-00001-of-00002.gguf --to gguf $force
    row C08 2 CNV08 convert $expert "$base" --to gguf-lora $force # the recorded one
    row C08 2 CNV08 convert folder folder --to safetensors --type f16 $force
    row C08 2 CNV08 convert $expert folder --to safetensors --model folder $force
    row C08 2 CNV08 convert $expert here/folder/ --to peft --model folder $force
    row C08 2 CNV08 convert $expert folder/model.safetensors --to gguf-lora --model folder $force
    row C08 2 CNV08 convert $expert $expert --to peft $force
    row C08 2 CNV08 convert $expert $expert/artel.json --to gguf-lora $force
    row C08 2 CNV08 convert alpha.gguf alpha.gguf --to gguf-lora --model base.gguf $force
    row C08 2 CNV08 convert $expert box --to safetensors --model box/base.gguf $force
    row C08 2 CNV08 convert box/alpha.gguf box --to peft --model base.gguf $force
    row C08 2 CNV08 convert run/moa run/moa --to peft --expert alpha $force
    row C08 2 CNV08 convert run run --to peft --expert alpha $force
    row C08 2 CNV08 convert run/moa run/moa/experts/beta --to peft --expert alpha $force
    row C08 2 CNV08 convert lone lone/moa/experts/beta --to peft --expert alpha $force
    row C08 2 CNV08 convert lone lone/moa/mixture.json --to gguf-lora --expert alpha $force
    row C08 2 CNV08 convert run/moa beta.jsonl --to gguf --expert beta --measure beta.jsonl $force
done
row C08 2 USE06 convert $expert new.gguf --to gguf-lora --model base.gguf --json base.gguf
row C08 2 USE06 convert run/moa new.gguf --to gguf --expert beta --measure beta.jsonl --json beta.jsonl
# A folder whose files are links, as a download's cache has them: not through them either.
mkdir linked
for file in folder/*; do ln -s "../$file" linked/; done
row C08 2 CNV08 convert $expert folder/model.safetensors --to gguf-lora --model linked --force
# What was converted into the mixture's folder before is none of its parts.
quietly "$ARTEL" convert run/moa run/moa/alpha.gguf --to gguf-lora --expert alpha
quietly "$ARTEL" convert run/moa run/moa/alpha.gguf --to gguf-lora --expert alpha --force
quietly "$ARTEL" convert run/moa run/moa/merged --to safetensors --expert alpha
quietly "$ARTEL" convert run/moa run/moa/merged --to safetensors --expert alpha --force
[ ! -e new ] && [ ! -e new.gguf ] || fail "a refused conversion has written something"
exit "$bad"
