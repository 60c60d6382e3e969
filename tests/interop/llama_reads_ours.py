# SPDX-License-Identifier: Apache-2.0
"""Does llama.cpp compute with our GGUF LoRA what we compute with the expert? By hand.

    python3 tests/interop/llama_reads_ours.py build/artel MODEL.gguf EXPERT DATA.jsonl [--rows 10]

needs llama-cpp-python, gguf, jinja2, torch and transformers. EXPERT is a PEFT folder; `artel convert` writes it
as a GGUF LoRA, llama.cpp loads that beside MODEL and scores the answers of DATA, and every
row's negative log-likelihood is compared with that of `artel score`; then the first tokens
that each writes greedily are compared. llama.cpp rounds activations where weights are in
blocks: there the base alone, without any LoRA, tells how far the two are apart anyway. A
MODEL in F32 is compared at 1e-4 nats a token.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from llama_cpp import Llama

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "golden"))
from make_reference import Text  # noqa: E402

EXACT = 1e-4    # nats a token, F32 weights
ROUNDED = 0.05  # the same, weights in blocks
N_GREEDY = 16   # tokens


def artel(*words):
    run = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, check=True)
    return json.loads(run.stdout) if "--json" in words else None


def nll(llama, ids, start):
    """Of ids[start:], by llama.cpp."""
    llama.reset()
    llama.eval(ids)
    logits = np.array(llama.scores[start - 1: len(ids) - 1], dtype=np.float64)
    top = logits.max(axis=1, keepdims=True)
    total = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    return float((total - logits[np.arange(len(ids) - start), ids[start:]]).sum())


def greedy(llama, ids):
    llama.reset()
    llama.eval(ids)
    out = []
    for _ in range(N_GREEDY):
        out.append(int(np.argmax(llama.scores[llama.n_tokens - 1])))
        llama.eval(out[-1:])
    return out


def apart(ours, theirs, rows):
    return max(abs(a["nll"] - b) / (len(ids) - start)
               for a, b, (ids, start) in zip(ours, theirs, rows))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("artel", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("expert", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=10)
    args = parser.parse_args()

    reader = gguf.GGUFReader(args.model)
    exact = all(t.tensor_type.name == "F32" for t in reader.tensors)
    text = Text(args.model, reader)
    lines = args.data.read_text(encoding="utf-8").splitlines()[: args.rows]
    rows = [text.row(json.loads(line)["messages"]) for line in lines]
    n_ctx = max(len(ids) for ids, _ in rows) + N_GREEDY + 8
    common = {"n_ctx": n_ctx, "n_batch": n_ctx, "logits_all": True, "verbose": False,
              "n_threads": 1, "n_threads_batch": 1}

    with tempfile.TemporaryDirectory() as work:
        lora = Path(work) / "lora.gguf"
        artel(args.artel, "convert", args.expert, lora, "--to", "gguf-lora", "--model",
              args.model, "--force")
        score = ["--precision", "fp32", "--max-rows", len(rows), "--json", "-"]
        base = artel(args.artel, "score", args.model, args.data, *score)["rows"]
        ours = artel(args.artel, "score", args.expert, args.data, "--model", args.model,
                     "--force", *score)["rows"]
        bare = Llama(str(args.model), **common)
        alone = [nll(bare, ids, start) for ids, start in rows]
        llama = Llama(str(args.model), lora_path=str(lora), **common)
        theirs = [nll(llama, ids, start) for ids, start in rows]
        prompts = Path(work) / "prompts.jsonl"
        prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")
        answers = artel(args.artel, "run", args.expert, "--model", args.model, "--force",
                        "--prompt-file", prompts, "--temperature", "0", "--max-tokens",
                        N_GREEDY, "--precision", "fp32", "--json", "-")["rows"]
        same = 0
        for answer, (ids, start) in zip(answers, rows):
            want = greedy(llama, ids[:start])
            same += answer["ids"] == want[: len(answer["ids"])]

    noise, with_lora = apart(base, alone, rows), apart(ours, theirs, rows)
    moved = max(abs(a - b) for a, b in zip(alone, theirs))
    print(f"{len(rows)} rows: {with_lora:.2e} nats a token apart with the LoRA, "
          f"{noise:.2e} without; it moves a row by up to {moved:.2f}; "
          f"{same} of {len(rows)} greedy answers are the same")
    bound = EXACT if exact else max(ROUNDED, 3 * noise)
    sys.exit(0 if with_lora <= bound and moved > 0.1 else 1)


if __name__ == "__main__":
    main()
