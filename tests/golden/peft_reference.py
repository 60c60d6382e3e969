# SPDX-License-Identifier: Apache-2.0
"""Train one LoRA with transformers and peft in fp32, to compare a training run with.

    python3 tests/golden/peft_reference.py MODEL.gguf DOMAIN --rows 600 --out runs/peft

DOMAIN holds train.jsonl and valid.jsonl. r 8, alpha 16, all seven linears, no
dropout, AdamW at a constant 2e-4 (betas 0.9 0.999, eps 1e-8, no decay, no warm-up),
clipped at 1.0, 8 rows a step in the order of the file, one epoch, nothing cut; loss
over answer tokens of the step. The same recipe for artel:

    model: MODEL.gguf
    output: runs/ours
    method: single
    lora: {rank: 8, alpha: 16, target: all}
    domains: {math: {train: DOMAIN/train.jsonl, valid: DOMAIN/valid.jsonl, max_rows: 600}}
    train: {learning_rate: 2.0e-4, lr_scheduler: constant, warmup_ratio: 0, epochs: 1, batch_size: 8,
            shuffle: false, cutoff_len: 1000000, max_grad_norm: 1.0, precision: fp32}

Prints one JSON object: loss and gradient norm of every step, perplexity of valid's
answers (weighted by tokens) before and after, tokens and seconds. --out keeps the adapter as
it began (start/) and as it ended (end/); --init begins from an adapter folder.
"""
import argparse
import json
import math
import time
from pathlib import Path

import gguf
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from make_reference import Text, load_model

SITES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def read_rows(text, path, limit=None):
    lines = path.read_text(encoding="utf-8").splitlines()[:limit]
    return [text.row(json.loads(line)["messages"]) for line in lines]


def pad(rows):
    """Right-padded ids, the attention mask, and labels that only answers have."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for i, (row, start) in enumerate(rows):
        n = len(row)
        ids[i, :n] = torch.tensor(row)
        mask[i, :n] = 1
        labels[i, start:n] = ids[i, start:n]
    return ids, mask, labels


def answer_nll(model, rows):
    """Sum of the answers' negative log-likelihood, and how many tokens that is."""
    ids, mask, labels = pad(rows)
    hidden = model.base_model.model.model(ids, attention_mask=mask, use_cache=False)
    keep = labels[:, 1:] != -100
    logits = model.base_model.model.lm_head(hidden.last_hidden_state[:, :-1][keep])
    nll = torch.nn.functional.cross_entropy(logits, labels[:, 1:][keep], reduction="sum")
    return nll, int(keep.sum())


def perplexity(model, rows):
    total, count = 0.0, 0
    with torch.no_grad():
        for i in range(0, len(rows), 8):
            nll, n = answer_nll(model, rows[i : i + 8])
            total += float(nll)
            count += n
    return math.exp(total / count)


def train(model, rows):
    params = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(params, lr=2e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    steps = []
    for i in range(0, len(rows), 8):
        adam.zero_grad()
        nll, n = answer_nll(model, rows[i : i + 8])
        loss = nll / n
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        adam.step()
        steps.append({"loss": round(float(loss.detach()), 6), "grad_norm": round(float(norm), 6)})
    return steps


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("domain", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--valid-rows", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--init", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)

    reader = gguf.GGUFReader(args.model)
    text = Text(args.model, reader)
    rows = read_rows(text, args.domain / "train.jsonl", args.rows)
    valid = read_rows(text, args.domain / "valid.jsonl", args.valid_rows)
    base = load_model(reader, "sdpa")
    if args.init:
        model = PeftModel.from_pretrained(base, args.init, is_trainable=True)
    else:
        model = get_peft_model(base, LoraConfig(
            task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, bias="none",
            target_modules=SITES,
        ))
    if args.out:
        model.save_pretrained(args.out / "start")
    before = perplexity(model, valid)
    started = time.monotonic()
    steps = train(model, rows)
    seconds = time.monotonic() - started
    if args.out:
        model.save_pretrained(args.out / "end")
    tokens = sum(len(ids) for ids, _ in rows)
    print(json.dumps({
        "rows": len(rows), "tokens": tokens, "seconds": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1), "perplexity_before": round(before, 5),
        "perplexity_after": round(perplexity(model, valid), 5), "steps": steps,
    }, indent=1))


if __name__ == "__main__":
    main()
