#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Work S: `artel serve` and llama.cpp's server in turns, the same model, the same experts,
the same requests, the same CPUs; only one of them runs at a time.

    ARTEL=... MODEL=... MIXTURE=FOLDER LLAMA_SERVER=... bench/peers/serve.py

MIXTURE has the experts (eight, or the streams share what there are); `artel convert` makes
LoRA files for llama.cpp of them. Each measurement streams chat completions, greedily, and
the end of the turn is forbidden by logit_bias, so that all answers are equally long. No two
prompts are alike behind the template's first words: what either server keeps of former
prompts is of no use. A row of serve.csv is one task in one round:

    first_ms, first_worst_ms   sent until the first text; median and maximum of the streams
    tokens_per_second          all tokens over sent until the last one
    writing_tokens_per_second  while all streams wrote: the prompts are not in it; 0 where
                               they never all did

ROUNDS=3 TOKENS=128 CPUS=0,1 ONLY=TEXT,... as for run.sh; --table FILE prints the table.
"""
import argparse
import csv
import datetime
import json
import os
import pathlib
import random
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from turns import cpu_flags, cpu_name

COLUMNS = ["date", "cpu", "program", "settings", "task", "round", "streams",
           "prompt_tokens", "answer_tokens", "first_ms", "first_worst_ms",
           "tokens_per_second", "writing_tokens_per_second"]
END_TOKENS = ("<|im_end|>", "<|endoftext|>")
# Each is one token with the blank before it, in most vocabularies.
WORDS = ("time year people way day man thing woman life child world school state family "
         "student group country problem hand part place case week company system program "
         "question work government number night point home water room mother area money "
         "story fact month lot right study book eye job word business issue side kind "
         "head house service friend father power hour game line end member law car city "
         "name team minute idea body back parent face level office door health person "
         "art war history party result change morning reason research girl guy moment "
         "air teacher force education").split()
STREAMS = 8


# ---- tasks ----

class Task:
    """WHO: base, one (expert), each (another expert a stream) or auto."""

    def __init__(self, name, streams, who, n_words, share=1):
        self.name, self.streams, self.who = name, streams, who
        self.n_words, self.share = n_words, share


TASKS = [Task("1 stream, base", 1, "base", 24),
         Task("1 stream, an expert", 1, "one", 24),
         Task("1 stream, auto", 1, "auto", 24),
         Task("8 streams, base", STREAMS, "base", 24),
         Task("8 streams, one expert", STREAMS, "one", 24),
         Task("8 streams, 8 experts", STREAMS, "each", 24),
         Task("8 streams, auto", STREAMS, "auto", 24),
         Task("1,000-token prompt, base", 1, "base", 964, share=4),
         Task("1,000-token prompt, an expert", 1, "one", 964, share=4),
         Task("1,000-token prompt, auto", 1, "auto", 964, share=4)]


def question(draw, n_words):
    words = [draw.choice(WORDS) for _ in range(n_words)]
    return " ".join(["Tell a long story with:", *words])


# ---- a stream: bytes with their times first, what they say afterwards ----

class Stream:
    def __init__(self, address, body):
        text = json.dumps(body).encode()
        self.pieces, self.size = [], 0
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                        "Content-Type: application/json\r\nConnection: close\r\n"
                        f"Content-Length: {len(text)}\r\n\r\n").encode() + text

    def send(self):
        self.sent = time.perf_counter()
        self.socket.sendall(self.request)

    def receive(self):
        """False: the server has closed."""
        piece = self.socket.recv(1 << 16)
        self.size += len(piece)
        if piece:
            self.pieces.append((self.size, time.perf_counter(), piece))
        return bool(piece)

    def events(self):
        """(time, JSON) of each event."""
        raw = b"".join(piece for _, _, piece in self.pieces)
        head, _, _ = raw.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"refused: {raw[:1000].decode(errors='replace')}")
        if b"transfer-encoding: chunked" not in head.lower():
            raise SystemExit("a stream that is not chunked")
        text, ends, at = bytearray(), [], len(head) + 4
        while True:
            line = raw.index(b"\r\n", at)
            size = int(raw[at:line], 16)
            if not size:
                break
            text += raw[line + 2:line + 2 + size]
            at = line + 2 + size + 2
            ends.append((len(text), at))
        out, start, chunk, piece = [], 0, 0, 0
        while (stop := text.find(b"\n\n", start)) >= 0:
            while ends[chunk][0] < stop + 2:
                chunk += 1
            while self.pieces[piece][0] < ends[chunk][1]:
                piece += 1
            data = bytes(text[start:stop])
            start = stop + 2
            if data.startswith(b"data: {"):
                out.append((self.pieces[piece][1], json.loads(data[6:])))
        return out

    def read(self):
        self.texts, usage = [], None
        for when, event in self.events():
            if "error" in event:
                raise SystemExit(f"failed: {event['error']}")
            usage = event.get("usage") or usage
            if event["choices"] and event["choices"][0]["delta"].get("content"):
                self.texts.append(when)
        self.prompt_tokens = usage["prompt_tokens"]
        self.tokens = usage["completion_tokens"]


def run_streams(streams):
    selector = selectors.DefaultSelector()
    for stream in streams:
        selector.register(stream.socket, selectors.EVENT_READ, stream)
    for stream in streams:
        stream.send()
    left = len(streams)
    while left:
        for key, _ in selector.select():
            if not key.data.receive():
                selector.unregister(key.fileobj)
                key.fileobj.close()
                left -= 1
    for stream in streams:
        stream.read()


def writing_rate(streams):
    """Tokens a second from when the last one began until the first one ended."""
    begin = max(stream.texts[0] for stream in streams)
    end = min(stream.texts[-1] for stream in streams)
    if end - begin <= 0:
        return 0
    # A text may be of more than one token, where a character is.
    return sum(sum(begin < when <= end for when in stream.texts) * stream.tokens /
               len(stream.texts) for stream in streams) / (end - begin)


def figures(streams):
    first = [stream.texts[0] - stream.sent for stream in streams]
    sent = min(stream.sent for stream in streams)
    last = max(stream.texts[-1] for stream in streams)
    return {"prompt_tokens": streams[0].prompt_tokens,
            "answer_tokens": streams[0].tokens,
            "first_ms": f"{1000 * statistics.median(first):.1f}",
            "first_worst_ms": f"{1000 * max(first):.1f}",
            "tokens_per_second":
                f"{sum(stream.tokens for stream in streams) / (last - sent):.2f}",
            "writing_tokens_per_second": f"{writing_rate(streams):.2f}"}


# ---- servers ----

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, program, settings, command, fields):
        self.program, self.settings = program, settings
        self.command, self.fields = command, fields

    def __enter__(self):
        self.address = "127.0.0.1", free_port()
        self.log = tempfile.TemporaryFile()
        cpus = self.cpus
        self.process = subprocess.Popen(
            [*self.command, "--port", str(self.address[1])], stdout=self.log,
            stderr=self.log,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        try:
            self.await_health()
        except BaseException:
            self.__exit__()
            raise
        return self

    def await_health(self):
        for _ in range(3000):
            if self.process.poll() is not None:
                break
            try:
                if self.ask("GET", "/health").startswith(b"HTTP/1.1 200"):
                    return
            except OSError:
                pass
            time.sleep(0.1)
        self.log.seek(0)
        raise SystemExit(f"{self.program} did not start:\n"
                         f"{self.log.read()[-2000:].decode(errors='replace')}")

    def ask(self, method, path, body=b""):
        with socket.create_connection(self.address, timeout=60) as s:
            s.sendall(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
                      "Content-Type: application/json\r\n"
                      f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            out = b""
            while piece := s.recv(1 << 16):
                out += piece
            return out

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def end_tokens(self):
        """Ids of what ends a turn."""
        out = []
        for text in END_TOKENS:
            body = json.dumps({"content": text, "prompt": text, "parse_special": True,
                               "add_special": False, "add_special_tokens": False})
            reply = self.ask("POST", "/tokenize", body.encode())
            found = re.search(rb'"tokens"\s*:\s*\[\s*(\d+)\s*\]', reply)
            if not found:
                raise SystemExit(f"{self.program}: {text} is not one token: {reply!r}")
            out.append(int(found.group(1)))
        return out

    def measure(self, task, draw, n_tokens, ends, experts):
        streams = []
        for i in range(task.streams):
            expert = i % len(experts) if task.who == "each" else 0
            streams.append(Stream(self.address, {
                "messages": [{"role": "user", "content": question(draw, task.n_words)}],
                "max_tokens": max(2, n_tokens // task.share), "temperature": 0,
                "stream": True, "stream_options": {"include_usage": True},
                "logit_bias": {str(token): -100 for token in ends},
                **self.fields(task.who, expert, experts)}))
        run_streams(streams)
        return streams


def artel_fields(who, expert, experts):
    return {"model": who if who in ("base", "auto") else experts[expert]}


def llama_fields(who, expert, experts):
    return {"lora": [{"id": i, "scale": float(who != "base" and i == expert)}
                     for i in range(len(experts))]}


def convert(env, experts, folder):
    out = []
    for expert in experts:
        out.append(str(folder / f"{expert}.gguf"))
        subprocess.run([env["ARTEL"], "convert", env["MIXTURE"], out[-1], "--to", "gguf-lora",
                        "--expert", expert, "--model", env["MODEL"]], check=True,
                       stdout=subprocess.DEVNULL)
    return out


def servers(env, experts, cpus, loras):
    threads = str(len(cpus))
    artel = [env["ARTEL"], "serve", env["MIXTURE"], "--model", env["MODEL"], "--threads",
             threads, "--precision"]
    out = [Server("artel", "fp32", [*artel, "fp32"], artel_fields)]
    if "amx_bf16" in cpu_flags():
        out.append(Server("artel", "bf16", [*artel, "bf16"], artel_fields))
    llama = [env["LLAMA_SERVER"], "--model", env["MODEL"], "--threads", threads,
             "--threads-batch", threads, "--parallel", str(STREAMS), "--ctx-size",
             str(2048 * STREAMS), "--cache-ram", "0", "--lora-init-without-apply", "--lora",
             ",".join(loras)]
    out.append(Server("llama.cpp", "default", llama, llama_fields))
    only = [text for text in env.get("ONLY", "").split(",") if text]
    for server in out:
        server.cpus = cpus
    return [s for s in out if not only or
            any(text in f"{s.program} {s.settings}" for text in only)]


def one_round(number, server, out, n_tokens, experts):
    draw = random.Random(number)
    with server:
        ends = server.end_tokens()
        server.measure(TASKS[5], draw, 8, ends, experts)  # warms up
        for task in TASKS:
            if task.who == "auto" and server.program != "artel":
                continue
            got = figures(server.measure(task, draw, n_tokens, ends, experts))
            out.writerow({"date": datetime.datetime.now().isoformat(timespec="seconds"),
                          "cpu": cpu_name(), "program": server.program,
                          "settings": server.settings, "task": task.name,
                          "round": number, "streams": task.streams, **got})
            print(f"round {number}, {server.program} {server.settings}, {task.name}: "
                  f"{got['first_ms']} ms, {got['tokens_per_second']} tokens/s, "
                  f"{got['writing_tokens_per_second']} while all write", file=sys.stderr)


# ---- the table ----

def spread(values, digits):
    return (f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to "
            f"{max(values):,.{digits}f})")


def ratio(ours, theirs, column, more):
    """The median over the rounds; above 1 is better."""
    both = [(float(ours[r][column]), float(theirs[r][column])) for r in theirs if r in ours]
    ratios = [a / b if more else b / a for a, b in both if a > 0 and b > 0]
    return f"{statistics.median(ratios):.2f} x" if ratios else ""


def one_table(found, title, column, digits, more):
    ours = ["artel, fp32", "artel, bf16"]
    names = ["llama.cpp, default", *[n for n in ours if any(who == n for _, who in found)]]
    lines = [f"| {title} | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for task in TASKS:
        theirs, cells = found.get((task.name, names[0]), {}), [task.name]
        for name in names:
            mine = found.get((task.name, name), {})
            values = [float(row[column]) for row in mine.values()]
            text = spread(values, digits) if any(values) else ""
            by = ratio(mine, theirs, column, more) if name in ours and text else ""
            cells.append(f"{text}; {by}" if by else text)
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def table(path):
    with path.open(newline="") as f:
        rows = list(csv.DictReader(f))
    found = {}
    for row in rows:
        key = row["task"], f"{row['program']}, {row['settings']}"
        found.setdefault(key, {})[row["round"]] = row
    lines = one_table(found, "ms to the first text", "first_ms", 0, False)
    lines += one_table(found, "tokens/s", "tokens_per_second", 1, True)
    lines += one_table(found, "tokens/s while all write", "writing_tokens_per_second", 1,
                       True)
    for name in ("artel, fp32", "artel, bf16"):
        one = found.get(("8 streams, one expert", name), {})
        each = found.get(("8 streams, 8 experts", name), {})
        if one and each:
            lines.append(f"{name}: a step of 8 streams on 8 experts costs " + ratio(
                one, each, "writing_tokens_per_second", True) + " that on one expert.")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent / "results")
    parser.add_argument("--table", type=pathlib.Path)
    args = parser.parse_args()
    if args.table:
        print(table(args.table))
        return
    env = os.environ
    for name in ("ARTEL", "MODEL", "MIXTURE", "LLAMA_SERVER"):
        if not env.get(name):
            parser.error(f"{name} must be set")
    text = (pathlib.Path(env["MIXTURE"]) / "mixture.json").read_text()
    experts = [e["name"] for e in json.loads(text)["experts"]][:STREAMS]
    cpus = sorted(int(c) for c in env["CPUS"].split(",")) if env.get("CPUS") \
        else sorted(os.sched_getaffinity(0))
    path = args.results / "serve.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, path.open("w", newline="") as f:
        loras = convert(env, experts, pathlib.Path(folder))
        out = csv.DictWriter(f, COLUMNS)
        out.writeheader()
        for number in range(1, int(env.get("ROUNDS", "3")) + 1):
            for server in servers(env, experts, cpus, loras):
                one_round(number, server, out, int(env.get("TOKENS", "128")), experts)
                f.flush()
    print(table(path))


if __name__ == "__main__":
    main()
