#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# artel serve from outside: it starts, answers as artel run does, streams, drains, stops,
# and refuses what it cannot serve.
. "$TESTS/cli/row.inc"
export OMP_WAIT_POLICY=passive
command -v curl >/dev/null 2>&1 || {
    echo "no curl here"
    exit 77
}
"$ARTEL" serve "$TESTS/golden/toy-tied.gguf" --port 0 --grace 0 >url 2>err &
pid=$!
for _ in $(seq 300); do
    [ -s url ] || ! kill -0 "$pid" 2>/dev/null || sleep 0.1
done
if grep -q SRV00 err; then
    echo "built without a server"
    exit 77
fi
kill -TERM "$pid"
wait "$pid" || fail "an idle server that is stopped: exit $?"

# start OPTIONS...: $url answers, $pid is its process
start() {
    : >url
    "$ARTEL" serve "$TESTS/golden/toy-tied.gguf" --port 0 "$@" >url 2>err &
    pid=$!
    for _ in $(seq 300); do
        [ -s url ] || ! kill -0 "$pid" 2>/dev/null || sleep 0.1
    done
    url=$(cat url)
    [ -n "$url" ] || fail "artel serve $*: no URL: $(cat err)"
}

# ask PATH BODY OPTIONS...: the reply to standard output
ask() {
    path=$1 body=$2
    shift 2
    curl -s -N -m 60 "$@" -H 'Content-Type: application/json' -d "$body" "$url$path"
}

# It answers what artel run answers, alone and as a stream.
start --keys "$TESTS/cli/serve.keys" --access-log log
key='Authorization: Bearer sk-of-the-test'
"$ARTEL" run "$TESTS/golden/toy-tied.gguf" --raw --prompt 'How many' --max-tokens 12 \
    --temperature 0 --json run.json >/dev/null 2>&1 || fail "artel run failed"
request='"model":"base","prompt":"How many","max_tokens":12,"temperature":0'
ask /v1/completions "{$request}" -H "$key" >whole
ask /v1/completions "{$request,\"stream\":true}" -H "$key" >stream
python3 - <<'EOF' || fail "the server answers otherwise than artel run"
import json
run = json.load(open("run.json"))
run = run["rows"] if isinstance(run, dict) else run
want = run[0].get("answer", run[0].get("text"))
got = json.load(open("whole"))["choices"][0]["text"]
streamed = ""
lines = [x[6:].strip() for x in open("stream", encoding="utf-8") if x.startswith("data: ")]
assert lines[-1] == "[DONE]", lines[-1]
for line in lines[:-1]:
    for choice in json.loads(line)["choices"]:
        streamed += choice["text"]
assert got == want, (got, want)
assert streamed == want, (streamed, want)
EOF
[ "$(curl -s -o /dev/null -w '%{http_code}' "$url/v1/models")" = 401 ] || fail "no key: not 401"
[ "$(curl -s -o /dev/null -w '%{http_code}' "$url/health")" = 200 ] || fail "health: not 200"
[ "$(curl -s -o /dev/null -w '%{http_code}' -H 'Host: evil.example' "$url/health")" = 403 ] ||
    fail "h35: another Host: not 403"

# The log is moved away and opened anew; where it cannot be, lines go on to where they went.
# more_lines FILE N: until it has more than N
more_lines() {
    for _ in $(seq 100); do
        curl -s -o /dev/null "$url/health"
        [ "$(wc -l <"$1" 2>/dev/null || echo 0)" -le "$2" ] || return 0
        sleep 0.05
    done
    fail "no line in $1: $(ls -l "$1"; cat err)"
}
had=$(wc -l <log)
mv log log.1
more_lines log.1 "$had"
kill -USR1 "$pid"
more_lines log 0
had=$(wc -l <log.1)
curl -s -o /dev/null "$url/health"
[ "$(wc -l <log.1)" = "$had" ] || fail "lines go on to the file that was moved away"
mv log log.2
mkdir log
had=$(wc -l <log.2)
kill -USR1 "$pid"
more_lines log.2 "$had"
for _ in $(seq 100); do
    grep -q 'access log anew' err || sleep 0.05
done
grep -q 'access log anew' err || fail "nothing says that there is no new log: $(cat err)"
rmdir log
cat log.1 log.2 >log
kill -USR1 "$pid"
more_lines log "$(wc -l <log)"

# h37: asked to stop, it lets the stream come to its end, and takes nothing new.
long='"model":"base","prompt":"How","max_tokens":480,"n":16,"temperature":1,"stream":true'
rm -f stream
ask /v1/completions "{$long}" -H "$key" >stream &
asking=$!
for _ in $(seq 100); do
    [ -s stream ] || sleep 0.02
done
# h41: its health is told while it works.
curl -s -m 1 "$url/health" >health || fail "h41: no answer in a second"
grep -q '"running":[0-9]' health || fail "h41: $(cat health)"
kill -TERM "$pid"
sleep 0.1
ask /v1/completions "{$request}" -H "$key" -o /dev/null -w '%{http_code}' >status
[ "$(cat status)" = 503 ] || [ "$(cat status)" = 000 ] || fail "h37: draining: $(cat status)"
wait "$asking" || fail "h37: the stream broke: curl exit $?"
tail -n 3 stream | grep -q '^data: \[DONE\]' || fail "h37: the stream has no end: $(tail -c 300 stream)"
wait "$pid" || fail "h37: exit $?"
[ "$(wc -l <log)" -ge 6 ] || fail "h36: lines are missing in the access log"
python3 -c 'import json; [json.loads(x) for x in open("log")]' || fail "h36: the log is not JSON"

# h37: past the grace time a stream ends with an error; a second signal does not wait.
for signals in 1 2; do
    start --grace "$([ $signals = 1 ] && echo 0 || echo 60)"
    rm -f stream
    ask /v1/completions "{$long}" >stream &
    asking=$!
    for _ in $(seq 100); do
        [ -s stream ] || sleep 0.02
    done
    kill -TERM "$pid"
    [ $signals = 1 ] || kill -INT "$pid"
    wait "$pid" || fail "h37: $signals signals: exit $?"
    wait "$asking"
    grep -q '"error"' stream || grep -q '\[DONE\]' stream ||
        fail "h37: $signals signals: neither error nor end: $(tail -c 300 stream)"
done

# What cannot be served is refused before anything listens.
start
port=${url##*:}
row h38 4 SRV01 serve "$TESTS/golden/toy-tied.gguf" --port "$port"
kill -TERM "$pid"
wait "$pid"
: >empty
printf 'short\n' >bad
row h38 4 SRV01 serve "$TESTS/golden/toy-tied.gguf" --port 0 --host 203.0.113.7
row h34 3 SRV02 serve "$TESTS/golden/toy-tied.gguf" --port 0 --keys empty
row h34 3 SRV02 serve "$TESTS/golden/toy-tied.gguf" --port 0 --admin-keys bad
row h34 4 '' serve "$TESTS/golden/toy-tied.gguf" --port 0 --keys absent
row use 2 USE06 serve "$TESTS/golden/toy-tied.gguf" --experts-dir .
row use 2 USE05 serve "$TESTS/golden/toy-tied.gguf" --below nothing
row use 2 USE05 serve "$TESTS/golden/toy-tied.gguf" --port 65536
row use 4 '' serve absent.gguf --port 0
row use 2 SRV03 serve "$TESTS/golden/toy-tied.gguf" --port 0 --cache 1K
least=$("$ARTEL" serve "$TESTS/golden/toy-tied.gguf" --port 0 --cache 1K 2>&1 | sed -n 's/.*the least is \([0-9]*K\).*/\1/p')
start --cache "$least"
ask /v1/completions '{"model":"base","prompt":"How many","temperature":0,"max_tokens":100}' >held
ask /v1/chat/completions '{"model":"base","messages":[{"role":"user","content":"a"}],"temperature":0}' >unasked
for reply in held unasked; do
    grep -q '"completion_tokens"' "$reply" || fail "a cache of $least, $reply: $(cat "$reply")"
done
kill -TERM "$pid"
wait "$pid"
exit "$bad"
