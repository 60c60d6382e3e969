# SPDX-License-Identifier: Apache-2.0
"""Do transformers and llama.cpp compute with our merged models what we compute? By hand.

    python3 tests/interop/others_read_merged.py build/artel MODEL.gguf EXPERT DATA.jsonl [--rows 4]

needs torch, transformers and llama-cpp-python. Merges EXPERT (a PEFT folder) into MODEL as a
Hugging Face folder and as GGUF, both in F32, lets transformers and llama.cpp score the answers
of DATA with tokens of the folder's own tokenizer and chat template, and compares with what
`artel score` says of base and expert apart. Exit code 1 where a row differs by more than 1e-3
nats a token, where texts of the data become other tokens, or where the expert changes nothing.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from llama_cpp import Llama
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-3  # nats a token


def artel(*words):
    run = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, check=True)
    return json.loads(run.stdout) if "--json" in words else run.stdout.decode()


def row(tokenizer, messages):
    """Ids of a conversation, and where its answer begins; the answer ends its turn."""
    prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False,
                                           add_generation_prompt=True)
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = messages[-1]["content"] + tokenizer.eos_token
    return head + tokenizer(answer, add_special_tokens=False)["input_ids"], len(head)


def nll(logits, ids, start):
    logits = np.asarray(logits[start - 1: len(ids) - 1], dtype=np.float64)
    top = logits.max(axis=1, keepdims=True)
    total = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    return float((total - logits[np.arange(len(ids) - start), ids[start:]]).sum())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("artel", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("expert", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=4)
    args = parser.parse_args()
    lines = args.data.read_text(encoding="utf-8").splitlines()[: args.rows]
    score = ["--precision", "fp32", "--max-rows", len(lines), "--json", "-"]
    bare = artel(args.artel, "score", args.model, args.data, *score)["rows"]
    ours = artel(args.artel, "score", args.expert, args.data, "--model", args.model,
                 "--force", *score)["rows"]
    bad = False
    with tempfile.TemporaryDirectory() as work:
        for form, name in (("safetensors", "folder"), ("gguf", "merged.gguf")):
            artel(args.artel, "convert", args.expert, Path(work) / name, "--to", form,
                  "--type", "f32", "--model", args.model, "--force")
        folder = Path(work) / "folder"
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = [row(tokenizer, json.loads(line)["messages"]) for line in lines]
        text = Path(work) / "text"
        text.write_text("\n".join(json.loads(line)["messages"][0]["content"].replace("\n", " ")
                                  for line in lines) + "\n", encoding="utf-8")
        told = artel(args.artel, "tokenize", args.model, text).splitlines()
        for line, ids in zip(text.read_text(encoding="utf-8").splitlines(), told):
            if tokenizer(line, add_special_tokens=False)["input_ids"] != list(map(int, ids.split())):
                print("other tokens:", line)
                bad = True
        model = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
        with torch.no_grad():
            hf = [nll(model(torch.tensor([ids])).logits[0].numpy(), ids, start)
                  for ids, start in rows]
        n_ctx = max(len(ids) for ids, _ in rows) + 8
        llama = Llama(str(Path(work) / "merged.gguf"), n_ctx=n_ctx, n_batch=n_ctx,
                      logits_all=True, verbose=False, n_threads=1, n_threads_batch=1)
        cpp = []
        for ids, start in rows:
            llama.reset()
            llama.eval(ids)
            cpp.append(nll(llama.scores, ids, start))
    for name, theirs in (("transformers", hf), ("llama.cpp", cpp)):
        worst = max(abs(a["nll"] - b) / (len(ids) - start)
                    for a, b, (ids, start) in zip(ours, theirs, rows))
        print(f"{name}: {len(rows)} rows, worst {worst:.2e} nats a token apart")
        bad = bad or worst > TOLERANCE
    for a, (ids, start) in zip(ours, rows):
        bad = bad or a["answer_tokens"] != len(ids) - start or a["prompt_tokens"] != start
    moved = max(abs(a["nll"] - b["nll"]) for a, b in zip(bare, ours))
    print(f"the expert moves a row by up to {moved:.2f} nats")
    sys.exit(1 if bad or moved < 0.1 else 0)


if __name__ == "__main__":
    main()
