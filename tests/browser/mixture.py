# SPDX-License-Identifier: Apache-2.0
"""What the browser's tests talk to: a mixture, and the server that serves it."""
import json
import os
import re
import subprocess
import tempfile

TESTS = os.environ["TESTS"]
ARTEL = os.environ["ARTEL"]

RECIPE = """model: {base}
output: {folder}/run
method: [moa]
lora: {{rank: 4, alpha: 8}}
domains:
  alpha: {{train: {folder}/alpha.jsonl, test: {folder}/alpha.jsonl}}
  beta: {{train: {folder}/beta.jsonl, test: {folder}/beta.jsonl}}
train: {{learning_rate: 2.0e-2, epochs: 6, batch_size: 8, precision: fp32, cutoff_len: 256}}
router: {{learning_rate: 5.0e-2}}
"""


def tiny(folder):
    """Two skills on the toy model: which word is it? Trained in a second or two."""
    for name in ("alpha", "beta"):
        with open(f"{folder}/{name}.jsonl", "w") as file:
            for i in range(8):
                messages = [{"role": "user", "content": f"{name} {i}"}, {"role": "assistant", "content": name[:2] * 12}]
                file.write(json.dumps({"messages": messages}) + "\n")
    with open(f"{folder}/recipe.yaml", "w") as file:
        file.write(RECIPE.format(base=f"{TESTS}/golden/toy-tied.gguf", folder=folder))
    for command in ([ARTEL, "train", f"{folder}/recipe.yaml"],
                    [ARTEL, "eval", f"{folder}/run", "--max-tokens", "4", "--results", f"{folder}/run"]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr[-500:]}")
    return f"{folder}/run/moa"


def questions(mixture):
    """(domain, question) of two domains, from the rows that were kept beside the mixture."""
    with open(f"{mixture}/mixture.json") as file:
        domains = json.load(file)["domains"]
    out = []
    for domain in domains[:2]:
        with open(f"{mixture}/{domain['sample']}") as file:
            messages = json.loads(file.readline())["messages"]
        out.append((domain["name"], next(m["content"] for m in messages if m["role"] == "user")))
    return out


class Server:
    """artel serve on a port of its choice, which it tells on standard output; SIGTERM ends it."""

    def __init__(self, mixture, *options):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([ARTEL, "serve", mixture, "--port", "0", *options],
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True)
        match = re.search(r"http://[0-9.]+:\d+", self.process.stdout.readline())
        if not match:
            raise SystemExit(f"artel serve: exit {self.process.wait()}: {self.said()}")
        self.address = match[0]

    def said(self):
        self.errors.seek(0)
        return self.errors.read()[-2000:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        code = self.process.wait(60)
        if code not in (0, -15, 143):
            raise SystemExit(f"artel serve ended with {code}: {self.said()}")
