#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A judge behind a small endpoint of our own: ratings, retries, what is kept, refusals.
set -u
command -v python3 >/dev/null || exit 77
folder=$(mktemp -d)
server=
trap 'rm -rf "$folder"; [ -z "$server" ] || kill "$server" 2>/dev/null' EXIT
cd "$folder" || exit 1

fail() {
    echo "$*"
    exit 1
}

# Each third request is refused as too many, each seventh answered without numbers.
cat >endpoint.py <<'EOF'
import http.server, json, time
seen = 0
mute = None  # when an answer was sent without numbers
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass
    def do_POST(self):
        global seen, mute
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen += 1
        if mute:
            with open("waits", "a") as f:
                f.write(f"{time.time() - mute:.3f}\n")
            mute = None
        status, reply = 200, "{}"
        if self.headers.get("Authorization") != "Bearer secret-7":
            status, reply = 401, json.dumps({"error": {"message": "no such key"}})
        elif self.path == "/page/chat/completions":
            reply = "<html>a page</html>"
        elif body["model"] != "umpire" or self.path != "/v1/chat/completions":
            status, reply = 404, json.dumps({"error": {"message": "no such model"}})
        elif seen % 3 == 0:
            status = 429
        else:
            text = "Rating: " + json.dumps({"helpfulness": 2, "relevance": 1, "accuracy": 0,
                                            "readability": 2, "fluency": 1})
            if seen % 7 == 0:
                text = "Let me think."
                mute = time.time()
            reply = json.dumps({"choices": [{"message": {"content": text}}]})
        with open("requests", "a") as f:
            f.write(f"{status} {len(body['messages'])}\n")
        self.send_response(status)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply.encode())
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
with open("port.new", "w") as f:
    f.write(str(server.server_address[1]))
import os
os.rename("port.new", "port")
server.serve_forever()
EOF
python3 endpoint.py &
server=$!
for i in $(seq 100); do
    [ -f port ] && break
    sleep 0.1
done
[ -f port ] || fail "the endpoint did not start"
url=http://127.0.0.1:$(cat port)/v1

for i in 1 2 3; do
    echo "{\"prompt\": \"say $i\", \"completion\": \"$i\"}"
done >rows.jsonl
judged() {
    "$ARTEL" eval "$TESTS/golden/toy-tied.gguf" --data d=rows.jsonl:exact --max-tokens 3 \
        --keep kept --judge "$url" --judge-model "$1" --json eval.json >out.txt 2>err.txt
}

unset OPENAI_API_KEY
judged umpire
code=$?
if grep -q JDG01 err.txt; then
    [ $code = 2 ] || fail "without libcurl: exit $code"
    exit 77
fi
[ $code = 2 ] && grep -q 'OPENAI_API_KEY is not set.*JDG02' err.txt || fail "no key: $(cat err.txt)"
export OPENAI_API_KEY=wrong
judged umpire
[ $? = 4 ] && grep -q 'HTTP 401.*no such key.*JDG03' err.txt || fail "wrong key: $(cat err.txt)"
grep -q wrong err.txt && fail "the key was shown"
export OPENAI_API_KEY=secret-7
judged nobody
[ $? = 4 ] && grep -q 'no such model' err.txt || fail "wrong model: $(cat err.txt)"

rm -f requests
judged umpire || fail "judge: exit $?: $(cat err.txt)"
for want in '"score": 6.0' '"accuracy": 0.0' '"helpfulness": 2.0' '"ratings": 9' '"missing": 0'; do
    grep -q "$want" eval.json || fail "no $want in $(cat eval.json)"
done
[ "$(grep -c '^429 2' requests)" -ge 3 ] || fail "nothing was tried again: $(cat requests)"
[ "$(wc -l <kept/ratings.jsonl)" = 9 ] || fail "kept: $(cat kept/ratings.jsonl)"

# One that says nothing of use is given time as one that is busy is.
[ -s waits ] && awk '$1 < 0.9 { exit 1 }' waits || fail "asked again at once: $(cat waits)"

# A set without a score is answered for the judge, and what never had numbers is said.
"$ARTEL" eval "$TESTS/golden/toy-tied.gguf" --data d=rows.jsonl --max-tokens 3 --keep none \
    --judge "$url" --judge-model umpire --judge-rows 1 --json loss.json >out.txt 2>err.txt ||
    fail "loss: exit $?: $(cat err.txt)"
grep -q '"ratings": 3' loss.json || fail "no rating of a set without a score: $(cat loss.json)"
grep -q '"score": null' loss.json || fail "a score of a set without one: $(cat loss.json)"
"$ARTEL" eval "$TESTS/golden/toy-tied.gguf" --data d=rows.jsonl --max-tokens 3 --keep none \
    --judge "${url%/v1}/page" --judge-model umpire >out.txt 2>err.txt
[ $? = 4 ] && grep -q 'no chat completion: .html.*JDG03' err.txt || fail "a page: $(cat err.txt)"
for odd in "--judge-model m" "--judge-rows 2" "--judge $url --judge-model m --no-generate"; do
    # shellcheck disable=SC2086
    "$ARTEL" eval "$TESTS/golden/toy-tied.gguf" --data d=rows.jsonl $odd >out.txt 2>err.txt
    [ $? = 2 ] && grep -q USE07 err.txt || fail "$odd: $(cat err.txt)"
done

# Cut off in the middle of a line: that rating alone is asked for again.
rm -f kept/*.json requests
head -c -10 kept/ratings.jsonl >cut && mv cut kept/ratings.jsonl
judged umpire || fail "again: exit $?: $(cat err.txt)"
[ "$(grep -c '^200 2' requests)" -le 2 ] || fail "rated anew: $(cat requests)"
grep -q '"ratings": 9' eval.json || fail "again: $(cat eval.json)"

kill "$server"
wait "$server" 2>/dev/null
server=
rm -rf kept
"$ARTEL" eval "$TESTS/golden/toy-tied.gguf" --data d=rows.jsonl:exact --max-tokens 3 --judge ftp://x \
    --judge-model m >out.txt 2>err.txt
[ $? = 2 ] && grep -q JDG02 err.txt || fail "ftp: $(cat err.txt)"
exit 0
