#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Log-likelihoods of choices as transformers computes them in fp32, and what is chosen by them.

    python3 tests/golden/make_choices_golden.py models/SmolLM2-135M-Instruct.Q4_1.gguf OUT [ROWS]

needs what make_reference.py needs. Reads choices_rows.jsonl and writes to OUT (choices_reference.json
with the demo's model, choices_toy.json with toy-tied.gguf):

    logp   for each row the sum of log-probabilities of each choice's tokens, given the prompt as
           lm-evaluation-harness makes it without examples; prompt and continuation are joined
           before they are tokenised, and tokens behind the prompt's own number count; in a set that
           the harness does not know, the prompt is the question through the chat template
    sets   of each set the number of rows, and as the harness defines them acc and acc_norm: how many
           of them have their answer where logp is greatest, and where logp per character of the
           choice is; choices of MMLU are letters, and WinoGrande's differ in the prompt alone
"""
import json
import sys
from pathlib import Path

import gguf
import torch

from make_reference import HERE, Text, load_model

KNOWN = "mmlu", "piqa", "winogrande", "truthfulqa"


def prompts(row):
    """(given, continuation) of each choice, of a set that the harness knows."""
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


def encoded(text, row):
    """(number of given ids, all ids) of each choice; of other sets the question is a user turn."""
    plain = lambda s: text.tok.tokenize(s.encode(), add_bos=False, special=False)
    if row["domain"].partition("/")[0] in KNOWN:
        return [(len(plain(given)), plain(given + rest)) for given, rest in prompts(row)]
    given = text.encode(text.render([{"role": "user", "content": row["question"]}], True))
    return [(len(given), given + plain(c)) for c in row["choices"]]


def likelihoods(model, text, row):
    sums = []
    for n, ids in encoded(text, row):
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, n - 1 : -1]
        logp = torch.log_softmax(logits.double(), -1)
        sums.append(round(float(logp[range(len(ids) - n), ids[n:]].sum()), 5))
    return sums


def chosen(row, sums):
    """Is the answer chosen, by logp and by logp per character? The first of equals is."""
    plain = row["domain"].partition("/")[0] in ("mmlu", "winogrande")
    norm = [s / (1 if plain else len(c)) for s, c in zip(sums, row["choices"])]
    return [by.index(max(by)) == row["answer"] for by in (sums, norm)]


def main():
    path, out = Path(sys.argv[1]), Path(sys.argv[2])
    source = Path(sys.argv[3]) if len(sys.argv) > 3 else HERE / "choices_rows.jsonl"
    reader = gguf.GGUFReader(path)
    model, text = load_model(reader), Text(path, reader)
    lines, sets = [], {}
    for row in map(json.loads, source.read_text(encoding="utf-8").splitlines()):
        sums = likelihoods(model, text, row)
        acc, norm = chosen(row, sums)
        lines.append(json.dumps(sums))
        of = sets.setdefault(row["domain"].partition("/")[0], {"rows": 0, "acc": 0, "acc_norm": 0})
        of["rows"] += 1
        of["acc"] += acc
        of["acc_norm"] += norm
    told = ",\n  ".join(f'"{name}": {json.dumps(of)}' for name, of in sets.items())
    out.write_text('{"logp": [\n  ' + ",\n  ".join(lines) + '],\n "sets": {\n  ' + told + "}}\n", encoding="utf-8")


main()
