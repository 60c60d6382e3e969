# SPDX-License-Identifier: Apache-2.0
"""Does PEFT compute with our adapter what we compute with it? By hand.

    python3 tests/interop/peft_reads_ours.py build/artel MODEL.gguf ADAPTER DATA.jsonl [--rows 40]

needs torch, transformers, peft, gguf, jinja2 and llama-cpp-python. Loads ADAPTER (a
folder below experts/, as artel wrote it) into PEFT over the dequantised model, scores
the answers of DATA in fp32, and compares every row's negative log-likelihood with that of
`artel score`. Exit code 1 where one differs by more than 1e-4 a token, or where the
adapter changes nothing.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

import gguf
import torch
from peft import PeftModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "golden"))
from make_reference import Text, load_model, score  # noqa: E402

TOLERANCE = 1e-4  # nats a token


def ours(artel, model, adapter, data, rows):
    """What `artel score` says: its rows, in the order of the file."""
    command = [artel, "score", adapter, data, "--model", model, "--precision", "fp32",
               "--max-rows", str(rows), "--json", "-"]
    run = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, check=True)
    return json.loads(run.stdout)["rows"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("artel", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=40)
    args = parser.parse_args()
    torch.manual_seed(1)

    reader = gguf.GGUFReader(args.model)
    text = Text(args.model, reader)
    lines = args.data.read_text(encoding="utf-8").splitlines()[: args.rows]
    base = load_model(reader)
    rows = [text.row(json.loads(line)["messages"]) for line in lines]
    bare = [float(score(base, ids, start).sum()) for ids, start in rows]
    peft = PeftModel.from_pretrained(base, args.adapter).eval()
    theirs = [float(score(peft, ids, start).sum()) for ids, start in rows]

    worst, wrong = 0.0, 0
    got = ours(args.artel, args.model, args.adapter, args.data, args.rows)
    if len(got) != len(rows):
        sys.exit(f"artel scored {len(got)} rows, PEFT {len(rows)}")
    for i, (row, (ids, start), nll) in enumerate(zip(got, rows, theirs), 1):
        n = len(ids) - start
        apart = abs(row["nll"] - nll) / n
        worst = max(worst, apart)
        if row["answer_tokens"] != n or row["prompt_tokens"] != start or apart > TOLERANCE:
            wrong += 1
            print(f"row {i}: artel {row['prompt_tokens']}+{row['answer_tokens']} tokens, "
                  f"{row['nll']:.5f}; PEFT {start}+{n} tokens, {nll:.5f}")
    moved = max(abs(a - b) for a, b in zip(bare, theirs))
    print(f"{len(rows)} rows, {wrong} differ; worst {worst:.2e} nats a token; "
          f"the adapter moves a row by up to {moved:.3f}")
    sys.exit(1 if wrong or moved < 1e-3 else 0)


if __name__ == "__main__":
    main()
