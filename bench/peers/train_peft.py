#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Works W and P256 in transformers + peft: one JSON line with what they took.

The model has the shape of SmolLM2-135M and random weights; W is a LoRA step of rank 8 on
all linears over 8 rows of 256 tokens with loss on every token, AdamW on the LoRA alone.
"""
import argparse
import contextlib
import json
import resource
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def model_of(layers):
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(
        num_hidden_layers=layers, hidden_size=576, intermediate_size=1536,
        num_attention_heads=9, num_key_value_heads=3, head_dim=64, vocab_size=49152,
        max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=1e5,
        tie_word_embeddings=True))


def training(args, precision):
    model = get_peft_model(model_of(args.layers), LoraConfig(
        r=8, lora_alpha=16, lora_dropout=0.0, target_modules=LINEARS,
        task_type="CAUSAL_LM"))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad],
                                  lr=2e-4)
    run = torch.compile(model) if args.compile else model

    def step():
        ids = torch.randint(0, 49152, (8, 256))
        with precision():
            loss = run(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, 8 * 256


def prefill(args, precision):
    model = model_of(args.layers).eval()
    run = torch.compile(model) if args.compile else model

    @torch.no_grad()
    def step():
        ids = torch.randint(0, 49152, (1, 256))
        with precision():
            run(input_ids=ids, logits_to_keep=1, use_cache=False)

    return step, 256


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=["W", "P256"])
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    precision = contextlib.nullcontext
    if args.bf16:
        precision = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    step, tokens = (training if args.work == "W" else prefill)(args, precision)
    seconds = []
    for i in range(args.steps + 2):
        start = time.perf_counter()
        step()
        if i >= 2:  # the first two lay memory out and compile
            seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "tokens_per_second": tokens / statistics.median(seconds),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
