#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every work of `artel bench` runs on a toy model and says what the documentation says.
# The numbers are those of a toy: only their presence and their relations are looked at.
set -u
model=$TESTS/golden/toy-tied.gguf
. "$TESTS/cli/folder.inc"
# What a python expression over RESULTS (by name of the work) says.
holds() {
    python3 -c "
import json, sys
r = {x['work']: x for x in json.load(open('$1'))['results']}
sys.exit(0 if ($2) else 1)" || fail "$1: not so: $2"
}

works='W W8d W8k W8s E8 P256 D1 D1r D1x4 D8 D8x1 D8x8'
for precision in fp32 auto; do
    # shellcheck disable=SC2086
    "$ARTEL" bench machine $works --model "$model" --repeat 2 --precision $precision \
        --json $precision.json >$precision.txt 2>err.txt ||
        fail "$precision: exit $?: $(tail -1 err.txt)"
    for name in machine $works; do
        grep -q "^$name " $precision.txt || fail "$precision: no line of $name"
    done
    grep -q '^error' err.txt && fail "$precision: $(cat err.txt)"
done
command -v python3 >/dev/null 2>&1 || exit "$bad"

keys="'work precision tokens_per_second seconds peak_rss_mib product_gflops product_share bandwidth_gbs limit_share cpu threads'.split()"
holds fp32.json "all(set($keys) <= set(x) for x in r.values())"
holds fp32.json "len(r) == 13 and all(x['precision'] == 'fp32' for x in r.values())"
holds fp32.json "all(0 < x['seconds']['min'] <= x['seconds']['median'] <= x['seconds']['max']
    and x['seconds']['n'] == 2 for n, x in r.items() if n != 'machine')"
holds fp32.json "all(abs(x['tokens_per_second'] * x['seconds']['median'] / x['tokens'] - 1) < 1e-6
    for n, x in r.items() if n != 'machine')"
holds fp32.json "r['W']['tokens'] == 2048 and r['P256']['tokens'] == 256"
holds fp32.json "r['D8']['tokens'] == 8 * r['D1']['tokens']"
holds fp32.json "all(x['limit_share'] == x['product_share'] > 0 for n, x in r.items() if n[0] in 'WP')"
holds fp32.json "all(abs(x['limit_share'] - x['read_gbs'] / x['bandwidth_gbs']) < 1e-9
    for n, x in r.items() if n[0] == 'D')"
holds fp32.json "all(x['product_gflops'] / x['product_share'] - r['machine']['product_gflops'] < 1e-6
    for n, x in r.items() if n[0] == 'W')"
holds fp32.json "r['machine']['bandwidth_gbs'] > 0 and r['machine']['fork_join_us']['spinning'] > 0"
holds fp32.json "len(r['machine']['products']) == 8"

# Made models open, with every byte looked at, and are what they were asked to be.
make_model=$(dirname "$ARTEL")/bench/make_model
if [ -x "$make_model" ]; then
    "$make_model" 135m Q4_K made.gguf 1 || fail "make_model: exit $?"
    "$ARTEL" inspect made.gguf --verify --json made.json >/dev/null || fail "a made model does not open"
    python3 -c "
import json, sys
m = json.load(open('made.json'))
sys.exit(0 if m['sizes']['layers'] == 1 and m['sizes']['vocabulary'] == 49152
    and set(m['formats']) == {'Q4_K', 'Q5_0'} else 1)" || fail "made.json: $(cat made.json)"
    "$make_model" 136m Q4_K other.gguf 2>/dev/null && fail "make_model knows a shape 136m"
fi

# The table of ratios: by round, and the median of them.
cat >turns.csv <<END
date,cpu,work,program,settings,round,tokens_per_second,peak_rss_mib
d,c,W,artel,fp32,1,300,1000
d,c,W,other,default,1,100,2000
d,c,W,artel,fp32,2,400,1000
d,c,W,other,default,2,200,2100
d,c,W,artel,fp32,3,500,1000
d,c,W,other,default,3,125,2000
d,c,W,artel,fp32,4,1,1000
END
python3 "$TESTS/../bench/peers/turns.py" --table turns.csv >turns.md || fail "turns.py: exit $?"
grep -qF '| W | other, default | 125 (100 to 200) | 2,100 | 3.00 x |  |' turns.md ||
    fail "turns.py: $(cat turns.md)"

# JSON on standard output is alone there; progress goes to standard error.
"$ARTEL" bench D1 --model "$model" --repeat 1 --json - --threads 1 >out.json 2>err.txt
holds out.json "r['D1']['threads'] == 1"
grep -q '^D1: warming up' err.txt || fail "no progress on standard error"

# The memory mode is said back.
holds out.json "r['D1']['memory'] == 'auto'"
exit "$bad"
