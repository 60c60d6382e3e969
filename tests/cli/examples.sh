#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every recipe of examples/ as it stands after ./demo.sh, by the commands that the demo and the
# recipes' own first lines name, in a tree of the same shape. The model is the toy under the
# demo's name; stages have two steps, skills a dozen rows. Each method has a recipe.
#
#   ARTEL=path/to/artel SKILLS=path/to/skills TESTS=path/to/tests sh examples.sh
set -u
. "$TESTS/cli/folder.inc"
cp -r "$TESTS/../examples" "$TESTS/../demo.sh" .
mkdir build models runs
ln -s "$TESTS/golden/toy-tied.gguf" models/SmolLM2-135M-Instruct.Q4_1.gguf
quietly "$SKILLS" runs/skills --train 12 --valid 1 --test 2
cat >build/artel <<END
#!/bin/sh
case \$1 in
train) exec "$ARTEL" "\$@" train.max_steps=2 --json train.json ;;
eval) exec "$ARTEL" "\$@" --no-generate --max-rows 1 --csv table.csv ;;
esac
exit 2
END
chmod +x build/artel

# The methods that RECIPE names, one a line.
methods_of() {
    sed -n 's/^method: \[*\([^]]*\)]*$/\1/p' "$1" | tr -d ' ' | tr ',' '\n'
}

# made RECIPE RUN: what its training left, in train.json and the folder RUN
made() {
    methods_of "$1" >methods.txt
    [ -s methods.txt ] || fail "$1 names no method"
    while read -r method; do
        has "$2/$method/mixture.json" "\"method\": \"$method\""
        case $method in
        arrow | ridge | classifier) ;; # computed, from experts that may be there already
        *) has train.json '"steps": 2' ;;
        esac
    done <methods.txt
    rm -f train.json
}

# runs RECIPE NAME FILE: the commands in FILE train RECIPE and measure all that is in runs/NAME
runs() {
    quietly "$ARTEL" inspect "$1" --json inspect.json
    has inspect.json '"kind": "recipe"' '"state": "to do"'
    grep -o 'build/artel \(train\|eval\) [^&]*' "$3" >commands.txt
    has commands.txt "^build/artel train $1 *\$" "^build/artel eval runs/$2\\b"
    quietly sh -e commands.txt
    made "$1" "runs/$2"
    while read -r method; do
        has table.csv "^$method,.*,forms,"
    done <methods.txt
    rm -f table.csv
}
runs examples/skills/recipe.yaml demo demo.sh
runs examples/skills/methods.yaml methods examples/skills/methods.yaml
for recipe in examples/*.yaml; do
    runs "$recipe" "$(basename "$recipe" .yaml)" "$recipe"
done

# Eight domains: what scripts/results.sh sets is set on the command line, method by method.
for domain in general math code medical finance law tools ecommerce exam; do
    mkdir -p "data/$domain"
    rows $domain aa 0 4 >"data/$domain/train.jsonl"
    rows $domain aa 4 6 >"data/$domain/test.jsonl"
done
for name in recipe stress; do
    sed "s|DATA/|$work/data/|g" "examples/eight/$name.yaml" >"$name.yaml"
    for method in $(methods_of $name.yaml); do
        quietly build/artel train $name.yaml model="$TESTS/golden/toy-tied.gguf" \
            output="$name-$method" method="$method"
        sed "s/^method: .*/method: $method/" $name.yaml >one.yaml
        made one.yaml "$name-$method"
    done
done

# What there is, by the program's own list.
"$ARTEL" train examples/skills/recipe.yaml method=nothing >list.txt 2>&1 && fail "a method 'nothing'"
for method in $(sed -n 's/.*known are base, \(.*\) \[RCP03\]/\1/p' list.txt | tr -d ,); do
    [ "$(methods_of "examples/$method.yaml")" = "$method" ] || fail "no recipe of $method alone"
    for recipe in skills/methods eight/recipe; do
        methods_of examples/$recipe.yaml | grep -qx -e "$method" || fail "$recipe: no $method"
    done
    echo "$method" >>all.txt
done
has all.txt '^single$' '^moa$' '^slim$' '^classifier$'
exit "$bad"
