# SPDX-License-Identifier: Apache-2.0
"""What the browser's tests talk to: a mixture, and the server that serves it."""
import json
import os
import re
import subprocess
import threading

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
                messages = [{"role": "user", "content": f"{name} {i}"}, {"role": "assistant", "content": name[:2] * 3}]
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
    """artel serve on a port of its choice, ended with SIGTERM."""

    def __init__(self, mixture, *options):
        self.log = []
        self.process = subprocess.Popen([ARTEL, "serve", mixture, "--port", "0", *options],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.address = None
        for line in self.process.stderr:
            self.log.append(line)
            if match := re.search(r"http://[0-9.]+:\d+", line):
                self.address = match[0]
                break
        if self.address is None:
            raise SystemExit(f"artel serve: exit {self.process.wait()}: {''.join(self.log)}")
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        code = self.process.wait(60)
        if code not in (0, -15, 143):
            raise SystemExit(f"artel serve ended with {code}: {''.join(self.log)}")
