#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Log-likelihoods of choices as transformers computes them in fp32 with the demo's model.

    python3 tests/golden/make_choices_golden.py models/SmolLM2-135M-Instruct.Q4_1.gguf [ROWS OUT]

needs what make_reference.py needs. Reads choices_rows.jsonl and writes choices_reference.json:
for each row the sum of log-probabilities of each choice's tokens, given the prompt as
lm-evaluation-harness makes it without examples; prompt and continuation are joined
before they are tokenised, and tokens behind the prompt's own number count.
"""
import json
import sys
from pathlib import Path

import gguf
import torch

from make_reference import HERE, Text, load_model


def prompts(row):
    """(given, continuation) of each choice."""
    kind, _, subject = row["domain"].partition("/")
    q, choices = row["question"], row["choices"]
    if kind == "mmlu":
        head = ("The following are multiple choice questions (with answers) about "
                f"{subject.replace('_', ' ')}.\n\n") if subject else ""
        letters = "ABCDEFGH"[: len(choices)]
        text = head + q.strip() + "".join(f"\n{a}. {c}" for a, c in zip(letters, choices))
        return [(text + "\nAnswer:", " " + a) for a in letters]
    if kind == "piqa":
        return [(f"Question: {q}\nAnswer:", " " + c) for c in choices]
    if kind == "truthfulqa":
        return [(f"Q: {q}\nA:", " " + c) for c in choices]
    gap = q.index("_")
    return [(q[:gap] + c, " " + q[gap + 1 :].strip()) for c in choices]


def main():
    path = Path(sys.argv[1])
    rows = Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "choices_rows.jsonl"
    out = Path(sys.argv[3]) if len(sys.argv) > 3 else HERE / "choices_reference.json"
    reader = gguf.GGUFReader(path)
    model, text = load_model(reader), Text(path, reader)
    encode = lambda s: text.tok.tokenize(s.encode(), add_bos=False, special=False)
    lines = []
    for line in rows.read_text(encoding="utf-8").splitlines():
        sums = []
        for given, rest in prompts(json.loads(line)):
            n, ids = len(encode(given)), encode(given + rest)
            with torch.no_grad():
                logits = model(torch.tensor([ids]), use_cache=False).logits[0, n - 1 : -1]
            logp = torch.log_softmax(logits.double(), -1)
            sums.append(round(float(logp[range(len(ids) - n), ids[n:]].sum()), 5))
        lines.append(json.dumps(sums))
    out.write_text("[" + ",\n ".join(lines) + "]\n", encoding="utf-8")


main()
