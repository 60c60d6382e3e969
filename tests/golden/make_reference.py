# SPDX-License-Identifier: Apache-2.0
"""What transformers computes in fp32 with the demo's model, for tests of the real model.

    python3 tests/golden/make_reference.py models/SmolLM2-135M-Instruct.Q4_1.gguf

needs torch, transformers, gguf, jinja2 and llama-cpp-python (the reference for
token ids). Reads smollm2_rows.jsonl and smollm2_prompts.txt beside this script and
writes smollm2_reference.json; README.md says what is in it.
"""
import json
import re
import sys
from pathlib import Path

import gguf
import jinja2
import llama_cpp
import numpy as np
import torch
from gguf.quants import dequantize
from transformers import LlamaConfig, LlamaForCausalLM

from toy_gguf import NAMES, OUTER

HERE = Path(__file__).resolve().parent
N_GREEDY = 40
END = "<|im_end|>"
# Stands for the first letter of a control token's text in what a user wrote.
VEIL = "\ue000"


def field(reader, key):
    return reader.fields[key].contents()


def unpermute(w, n_heads):
    m, n = w.shape
    return w.reshape(n_heads, m // n_heads // 2, 2, n).swapaxes(1, 2).reshape(m, n)


def load_model(reader, attention="eager"):
    """The GGUF's tensors, dequantised to fp32, under transformers' names."""
    get = lambda key: field(reader, f"llama.{key}")
    heads, kv_heads = get("attention.head_count"), get("attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=len(field(reader, "tokenizer.ggml.tokens")),
        hidden_size=get("embedding_length"), intermediate_size=get("feed_forward_length"),
        num_hidden_layers=get("block_count"), num_attention_heads=heads,
        num_key_value_heads=kv_heads, rms_norm_eps=get("attention.layer_norm_rms_epsilon"),
        max_position_embeddings=get("context_length"), tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": get("rope.freq_base")},
        attn_implementation=attention,
    )
    inner = {v: k for k, v in NAMES.items()}
    outer = {v: k for k, v in OUTER.items()}
    state = {}
    for t in reader.tensors:
        w = dequantize(t.data, t.tensor_type).astype(np.float32)
        stem = t.name.removesuffix(".weight")
        if stem in outer:
            state[outer[stem] + ".weight"] = torch.from_numpy(w.copy())
            continue
        _, layer, part = stem.split(".")
        if part == "attn_q":
            w = unpermute(w, heads)
        if part == "attn_k":
            w = unpermute(w, kv_heads)
        state[f"model.layers.{layer}.{inner[part]}.weight"] = torch.from_numpy(w.copy())
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model.eval()


class Text:
    """Chat template and tokenizer, where control tokens in content stay text."""

    def __init__(self, path, reader):
        env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        self.template = env.from_string(field(reader, "tokenizer.chat_template"))
        self.tok = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
        types = field(reader, "tokenizer.ggml.token_type")
        pieces = field(reader, "tokenizer.ggml.tokens")
        self.control = {p: i for i, (p, t) in enumerate(zip(pieces, types)) if t == 3}
        self.split = re.compile("(" + "|".join(map(re.escape, self.control)) + ")")

    def render(self, messages, prompt):
        veiled = [{**m, "content": m["content"].replace("<|", VEIL)} for m in messages]
        return self.template.render(messages=veiled, add_generation_prompt=prompt)

    def encode(self, text):
        ids = []
        for part in self.split.split(text):
            if part in self.control:
                ids.append(self.control[part])
            elif part:
                plain = part.replace(VEIL, "<|").encode()
                ids += self.tok.tokenize(plain, add_bos=False, special=False)
        return ids

    def row(self, messages):
        prompt = self.render(messages[:-1], True)
        rest = self.render(messages, False)
        assert rest.startswith(prompt)
        answer = rest[len(prompt) :]
        answer = answer[: answer.index(END) + len(END)]
        head = self.encode(prompt)
        return head + self.encode(answer), len(head)


def score(model, ids, start):
    x = torch.tensor([ids])
    with torch.no_grad():
        logits = model(x, use_cache=False).logits[0, start - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, x[0, start:], reduction="none")


def greedy(model, ids, end):
    out, gaps, past, x = [], [], None, torch.tensor([ids])
    with torch.no_grad():
        while len(out) < N_GREEDY:
            step = model(x, past_key_values=past, use_cache=True)
            past = step.past_key_values
            top = step.logits[0, -1].topk(2)
            out.append(int(top.indices[0]))
            gaps.append(round(float(top.values[0] - top.values[1]), 5))
            if out[-1] == end:
                break
            x = top.indices[:1].view(1, 1)
    return out, gaps


def lines(items):
    return "[\n  " + ",\n  ".join(json.dumps(i, ensure_ascii=False) for i in items) + "\n ]"


def main():
    path = Path(sys.argv[1])
    torch.manual_seed(1)
    reader = gguf.GGUFReader(path)
    model, text = load_model(reader), Text(path, reader)
    rows, total, count = [], 0.0, 0
    for line in (HERE / "smollm2_rows.jsonl").read_text(encoding="utf-8").splitlines():
        ids, start = text.row(json.loads(line)["messages"])
        each = score(model, ids, start)
        rows.append({"ids": ids, "answer_start": start, "nll": round(float(each.double().sum()), 5),
                     "token_nll": [round(float(v), 5) for v in each]})
        total += float(each.double().sum())
        count += len(each)
    prompts = []
    for line in (HERE / "smollm2_prompts.txt").read_text(encoding="utf-8").splitlines():
        ids = text.encode(text.render([{"role": "user", "content": line}], True))
        out, gaps = greedy(model, ids, text.control[END])
        prompts.append({"prompt": line, "ids": ids, "greedy": out, "gaps": gaps})
    facts = {"answer_tokens": count, "nll": round(total, 4),
             "perplexity": round(float(np.exp(total / count)), 5)}
    head = json.dumps(facts, indent=1)[:-2]
    (HERE / "smollm2_reference.json").write_text(
        f'{head},\n "rows": {lines(rows)},\n "prompts": {lines(prompts)}\n}}\n', encoding="utf-8"
    )
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
