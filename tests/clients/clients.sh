#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Programs that others wrote for OpenAI's API talk to artel serve unchanged: the openai
# packages for Python and Node, LangChain. $CLIENTS is the folder of scripts/get-clients.sh;
# without it this is skipped. Greedy answers are compared with those of artel run.
set -u
[ -d "${CLIENTS-}/python" ] || {
    echo "no clients: scripts/get-clients.sh fetches them" >&2
    exit 77
}
. "$TESTS/clients/server.inc"

for name in alpha beta; do
    for i in 1 4 9; do
        echo "$name $i"
    done
done >prompts.txt
for expert in auto alpha beta base; do
    "$ARTEL" run run/moa --prompt-file prompts.txt --temperature 0 --precision fp32 --max-tokens 12 \
        --expert $expert --json run-$expert.json >/dev/null 2>run.err || fail "$(cat run.err)"
done

bad=0
"$CLIENTS/python/bin/python" "$TESTS/clients/openai_client.py" . || bad=1
"$CLIENTS/python/bin/python" "$TESTS/clients/langchain_client.py" || bad=1
cp "$TESTS/clients/openai_client.mjs" "$CLIENTS/openai_client.mjs" &&
    node "$CLIENTS/openai_client.mjs" || bad=1

kill -TERM "$server"
wait "$server"
code=$?
server=
[ $code = 0 ] || fail "the server ended with $code: $(tail -3 server.err)"
exit $bad
