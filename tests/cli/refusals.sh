#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Bad models, adapters, data and recipes through the program: each is refused with one
# line and its code, and nothing is left behind. One row a case: ID, exit code, error code,
# the words. What a parser refuses in detail is tested beside the parser.
#
#   ARTEL=path/to/artel TESTS=path/to/tests sh refusals.sh
set -u
. "$TESTS/cli/row.inc"
golden=$TESTS/golden
gguf=$golden/toy-tied.gguf

# fresh: the folder m is the toy model, the folder a its adapter
fresh() {
    rm -rf m a
    cp -r "$golden/toy-tied" m
    cp -r "$golden/lora" a
    chmod -R u+w m a
}
# change FILE SED...
change() {
    file=$1
    shift
    sed "$@" "$file" >"$file.new" && mv "$file.new" "$file"
}
# patch FILE OFFSET BYTES, these as printf takes them
patch() {
    # shellcheck disable=SC2059
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
# header FILE JSON: a safetensors file of that header alone
header() {
    # shellcheck disable=SC2059
    printf "\\$(printf %o ${#2})\\0\\0\\0\\0\\0\\0\\0%s" "$2" >"$1"
}

# ---- safetensors, as weights of a base and of an adapter ----

# weights ID CODE: m's and a's weights are those of the file w
weights() {
    cp w m/model.safetensors
    row "$1" 3 "$2" run m --prompt x
    cp w a/adapter_model.safetensors
    row "$1" 3 "$2" run a --model "$golden/toy-tied" --prompt x
}
fresh
: >w && weights S01 ST01
printf abc >w && weights S01 ST01
printf '\350\003\0\0\0\0\0\0{}' >w && weights S02 ST01
printf '\377\377\377\377\377\377\377\377{}' >w && weights S03 ST01
printf '\0\0\0\0\0\0\0\0' >w && weights S04 ST01
for json in '{' '}' xyz '{"w": '; do
    header w "$json" && weights S05 ''
done
header w '[]' && weights S08 ''
header w '{} x' && weights S09 ''
header w '{"w":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}' && weights S12 ''
header w '{"w":{"dtype":"F32","data_offsets":[0,4]}}' && weights S13 ''
header w '{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}' && weights S14 ''
header w '{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}' && weights S16 ''
header w '{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}12345678' && weights S17 ''
cp "$golden/toy-tied/model.safetensors" w && echo more >>w && weights S20 ''
for size in 7 8 100 1000 59687; do
    head -c $size "$golden/toy-tied/model.safetensors" >w && weights S21 ''
done
json='{"w":{"dtype":"F32","shape":[250000000000],"data_offsets":[0,1000000000000]}}'
header w "$json"
rm -f a/adapter_model.safetensors m/model.safetensors
mv w m/model.safetensors
if truncate -s $((8 + ${#json} + 1000000000000)) m/model.safetensors 2>/dev/null; then
    row S33 3 WT01 run m --prompt x
fi
rm m/model.safetensors
mkfifo m/model.safetensors
row S32 4 IO02 run m --prompt x
rm m/model.safetensors
ln -s model.safetensors m/model.safetensors
row S32 4 '' run m --prompt x

# ---- GGUF ----

# field ID CODE OFFSET BYTES
field() {
    cp "$gguf" g.gguf
    chmod u+w g.gguf
    patch g.gguf "$3" "$4"
    row "$1" 3 "$2" run g.gguf --prompt x
    row "$1" 3 "$2" inspect g.gguf
}
field G01 GGUF01 0 FUGG
for version in '\0\0\0\0' '\001\0\0\0' '\004\0\0\0' '\0\0\0\003'; do
    field G02 GGUF02 4 "$version"
done
field G03 '' 8 '\377\377\377\377\377\377\377\377'
field G03 '' 16 '\377\377\377\377\377\377\377\377'
field G04 '' 24 '\377\377\377\377\377\377\377\377'
field G05 '' 32 '\001'
for size in 0 3 24 1000 20000 123135; do
    head -c $size "$gguf" >g.gguf
    row G19 3 '' run g.gguf --prompt x
done
rm g.gguf

# ---- weights that are no numbers ----

cp "$gguf" g.gguf
chmod u+w g.gguf
patch g.gguf 85888 '\0\0\300\177' # the first of blk.1.attn_q.weight
printf '{"prompt": "a", "completion": "b"}\n' >data.jsonl
printf 'model: g.gguf\noutput: run\ndomains: {one: {train: data.jsonl}}\n' >recipe.yaml
row S30 3 DT01 run g.gguf --prompt x
row S30 3 DT01 score g.gguf data.jsonl
row S30 3 DT01 run "$golden/lora" --model g.gguf --force --prompt x
row S30 3 DT01 eval g.gguf --data a=data.jsonl
row S30 3 DT01 inspect g.gguf --verify
row S30 3 DT01 train recipe.yaml
row S30 7 NUM02 score g.gguf data.jsonl --nonfinite
row S30 7 NUM01 run g.gguf --prompt x --nonfinite
fresh
patch m/model.safetensors $((8 + 2016 + 20480 + 10)) '\0\374' # minus infinity
row S30 3 DT01 run m --prompt x
case $("$ARTEL" run m --prompt x 2>&1) in
*m:*input_layernorm.weight:*'element 5 '*) ;;
*) fail "S30: neither file, tensor nor index is named" ;;
esac
rm -rf m a g.gguf data.jsonl recipe.yaml

# ---- config, tokenizer, template ----

# config ID CODE SED
config() {
    fresh
    change m/config.json "$3"
    row "$1" 3 "$2" run m --prompt x
}
: >empty
for text in '' null '[]' '{' '{"a": 1, "a": 2}' '{"a": NaN}' '{"a": 01}' '{"a": "\ud800"}'; do
    fresh
    printf %s "$text" >m/config.json
    row J11 3 '' run m --prompt x
    fresh
    printf %s "$text" >m/tokenizer.json
    row J11 3 '' tokenize m empty
done
for size in 0 -1 '"32"' 32.5 1099511627776 30; do
    config J12 '' "s/\"hidden_size\": .*/\"hidden_size\": $size,/"
done
config J12 '' 's/"num_attention_heads": .*/"num_attention_heads": 3,/'
config J13 '' 's/"model_type": "llama"/"model_type": "mamba"/'
config J14 '' 's/"hidden_size"/"attention_bias": true, "hidden_size"/;s/"attention_bias": false,//'
config J15 '' 's/"vocab_size": .*/"vocab_size": 321,/'
config J15 '' 's/"num_hidden_layers": .*/"num_hidden_layers": 3,/'
fresh
change m/tokenizer.json 's/"type": *"BPE"/"type": "Unigram"/'
row J19 3 '' tokenize m empty
fresh
change m/tokenizer_config.json 's/{%-* if/{% of/'
row J27 3 '' run m --prompt x

# ---- adapters ----

# adapter ID CODE SED
adapter() {
    fresh
    change a/adapter_config.json "$3"
    row "$1" 3 "$2" run a --model "$golden/toy-tied" --prompt x
}
fresh
rm a/adapter_model.safetensors
row A01 4 ADP01 run a --model "$golden/toy-tied" --prompt x
fresh
rm a/adapter_config.json
row A01 4 '' run a --model "$golden/toy-tied" --prompt x
for rank in 0 -1 2147483648 '"8"'; do
    adapter A02 '' "s/\"r\": 4/\"r\": $rank/"
done
adapter A03 '' 's/"r": 4/"r": 8/'
adapter A04 '' 's/"lora_alpha": 8/"lora_alpha": "16"/'
adapter A12 '' 's/"use_dora": false/"use_dora": true/'
adapter A12 '' 's/"bias": "none"/"bias": "all"/'
adapter A07 '' 's/"q_proj",/"lm_head",/'
fresh
printf '\200\002}q\0.' >a/adapter_model.safetensors
row A15 3 '' run a --model "$golden/toy-tied" --prompt x
printf 'PK\003\004xxxxxxxxxxxxxxxx' >a/adapter_model.safetensors
row A15 3 '' run a --model "$golden/toy-tied" --prompt x
fresh

# ---- data, read by score and by a recipe ----

rm -rf m a w empty
cat >recipe.yaml <<END
model: $gguf
output: run
domains: {one: {train: data.jsonl}}
train: {max_steps: 2, batch_size: 4, precision: fp32, cutoff_len: 64}
END
good='{"prompt": "a", "completion": "b"}'
# data ID EXIT CODE
data() {
    row "$1" "$2" "$3" score "$gguf" data.jsonl
    row "$1" "$2" "$3" train recipe.yaml
}
printf '%s\n{"prompt": "a", "comp' "$good" >data.jsonl && data D01 3 ''
for line in '[]' 5 '"x"' null; do
    printf '%s\n%s\n' "$good" "$line" >data.jsonl && data D02 3 ''
done
for line in '{"promt": "a", "completion": "b"}' '{"prompt": 5, "completion": "b"}' \
    '{"prompt": null, "completion": "b"}' '{"prompt": "a"}'; do
    printf '%s\n' "$line" >data.jsonl && data D03 3 ''
done
: >data.jsonl && data D04 3 DATA04
printf '\n\n' >data.jsonl && data D04 3 DATA04
printf 'PK\003\004' >data.jsonl && data D06 3 ''
printf '\037\213\010\0' >data.jsonl && data D06 3 ''
printf 'PAR1' >data.jsonl && data D06 3 ''
printf '\377\376{\0' >data.jsonl && data D06 3 ''
printf '{"prompt": "\377", "completion": "b"}\n' >data.jsonl && data D07 3 ''
printf '{"prompt": "a", "completion": ""}\n' >data.jsonl && data D11 3 DATA08
printf '{"messages": [{"role": "boss", "content": "a"}]}\n' >data.jsonl && data D14 3 ''
printf '{"messages": []}\n' >data.jsonl && data D14 3 ''
printf '{"x": %s, "prompt": "a", "completion": "b"}\n' \
    "$(head -c 5000 /dev/zero | tr '\0' '[')" >data.jsonl && data D20 3 ''
printf '{"prompt": "%s", "completion": "b"}\n' \
    "$(head -c 500 /dev/zero | tr '\0' a)" >data.jsonl
row D12 3 DATA08 train recipe.yaml
rm data.jsonl
mkdir data.jsonl && data D17 4 IO02
rmdir data.jsonl
mkfifo data.jsonl && data D17 4 IO02
rm data.jsonl
ln -s nowhere data.jsonl && data D17 4 IO01
rm data.jsonl
printf '%s\n' "$good" >data.jsonl

# ---- recipes and their surroundings ----

# recipe ID EXIT CODE WORD...: beside the model and its one domain
recipe() {
    id=$1 want=$2 code=$3
    shift 3
    row "$id" "$want" "$code" train recipe.yaml "$@"
}
recipe C02 2 '' trian.seed=1
recipe C18 2 RCP01 train.lerning_rate=1
recipe C18 2 RCP02 domains=5
recipe C04 2 RCP03 train.epochs=0
recipe C04 2 RCP02 train.learning_rate=0x10
recipe C04 2 RCP02 train.learning_rate=nan
recipe C05 2 RCP03 train.batch_size=0
recipe A02 2 RCP03 lora.rank=0
recipe A02 2 RCP03 lora.rank=33
printf 'model: x\noutput: y\nlearning_rte: 1\n' >bad.yaml
row C18 2 RCP01 inspect bad.yaml
rm bad.yaml
recipe C19 6 RUN11 --resume
recipe C09 4 IO01 output=recipe.yaml/run
recipe C10 4 DISK01 output=/proc/run
recipe R21 5 MEM01 --memory 1M
mkdir other && echo mine >other/file
recipe C07 6 RUN01 output=other
printf 'model: x\noutput: y\nmodel: z\n' >twice.yaml
row C18 2 YAML02 train twice.yaml

# An adapter that does not fit is refused before another domain is trained.
cat >brought.yaml <<END
model: $gguf
output: brought
domains:
  one: {train: data.jsonl}
  two: {adapter: adapter, train: data.jsonl}
END
cp -r "$golden/lora" adapter
chmod -R u+w adapter
change adapter/adapter_config.json 's/"r": 4/"r": 8/'
row A03 3 '' train brought.yaml

# Twice the same name, and results over what is read.
row C03 2 USE06 eval "$gguf" --data a=data.jsonl --data a=data.jsonl
row C03 2 USE06 eval "$gguf" --data a=data.jsonl --json x.json --csv x.json
# What would end an evaluation later on does so before anything is measured.
# early ID EXIT CODE WORDS: beside a good set of rows
early() {
    row "$1" "$2" "$3" eval "$gguf" --data a=data.jsonl "$4" "$5"
    "$ARTEL" eval "$gguf" --data a=data.jsonl "$4" "$5" 2>&1 | grep -q '^eval:' &&
        { echo "$1: something was measured first"; bad=1; }
}
printf '{"messages": []}\n' >empty.jsonl
early C11 4 IO01 --data b=absent.jsonl
early C11 4 IO01 --general b=absent.jsonl
early C11 4 IO01 --against absent
early D03 3 DATA06 --general b=empty.jsonl
early C03 2 USE05 --data b=data.jsonl:nosuch
sed 's/{train: data.jsonl}/{train: data.jsonl, test: absent.jsonl}/' recipe.yaml >tested.yaml
row C11 4 IO01 train tested.yaml
{ cat recipe.yaml && echo 'general: {g: absent.jsonl}'; } >general.yaml
row C11 4 IO01 train general.yaml
row C08 2 USE06 run adapter --model "$gguf" --prompt x --json adapter/adapter_config.json
row D06 3 DATA05 inspect adapter/adapter_model.safetensors

# What the surroundings do not give.
(ulimit -s 128 && row C17 5 CPU05 train recipe.yaml && exit "$bad") || bad=1
(ulimit -s 128 && row C17 5 CPU05 run "$gguf" --prompt x && exit "$bad") || bad=1
OMP_STACKSIZE=64k row R39 5 CPU05 train recipe.yaml --threads 2
# The limit of processes does not bind root, who becomes nobody where nobody can read us.
real=$ARTEL
set -- prlimit --nproc=1
[ "$(id -u)" != 0 ] || set -- setpriv --reuid=65534 --clear-groups "$@"
if "$@" test -x "$real" -a -r "$gguf" 2>/dev/null; then
    ARTEL=$1
    shift
    export ASAN_OPTIONS=detect_leaks=0 # its thread cannot start either
    row R22 5 CPU04 "$@" "$real" run "$gguf" --prompt x --threads 3
fi
exit "$bad"
