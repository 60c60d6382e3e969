#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Many clients at once, badly behaved ones among them, and afterwards the server answers,
# holds no more memory than when it was warm, and ends in order. $LOAD is bench/load.
#
#   REQUESTS=2000    of 16 tokens, and five times as many of one token
#   CLIENTS_AT_ONCE=64
set -u
SERVE_WORDS="--parallel 32 --queue 512 --max-connections 256 ${MORE_WORDS-}"
. "$TESTS/clients/server.inc"
REQUESTS=${REQUESTS-2000}
at_once=${CLIENTS_AT_ONCE-64}

# load NAME [words...]: what it prints goes to NAME.json
load() {
    name=$1
    shift
    "$LOAD" "$URL" --key "$KEY" --clients "$at_once" --models auto,alpha,beta,base \
        --pid "$server" "$@" >"$name.json" || fail "$name: $(cat "$name.json")"
    echo "$name: $(cat "$name.json")"
}

load warm --requests "$((REQUESTS / 5))" --tokens 16
load sixteen --requests "$REQUESTS" --tokens 16 --stream
load one --requests "$((REQUESTS * 5))" --tokens 1
load rough --requests "$REQUESTS" --tokens 16 --hang-up 50 --slow 8 --garbage 4 --stream

memory() {
    sed -n 's/.*"end": \([0-9]*\).*/\1/p' "$1.json"
}
# Sanitizers keep what was freed: there only leaks count, which they tell at the end.
if [ -z "${ANY_MEMORY-}" ]; then
    before=$(memory sixteen) after=$(memory rough)
    [ "$after" -le "$((before + before / 20 + 2048))" ] ||
        fail "memory has grown from $before KiB to $after KiB"
fi

code=$(curl -s -o answer -w '%{http_code}' -H "Authorization: Bearer $KEY" \
    -H 'Content-Type: application/json' \
    -d '{"model": "auto", "messages": [{"role": "user", "content": "alpha 1"}], "max_tokens": 4}' \
    "$URL/v1/chat/completions")
[ "$code" = 200 ] || fail "after all that: $code $(cat answer)"
curl -s -H "Authorization: Bearer $KEY" "$URL/metrics" >metrics || fail "no metrics"

kill -TERM "$server"
wait "$server"
code=$?
server=
[ $code = 0 ] || fail "the server ended with $code: $(tail -30 server.err)"
