# SPDX-License-Identifier: Apache-2.0
"""Write the toy model of the golden tests and what the reference computes with it.

    python3 tests/golden/make_golden.py

needs torch, transformers, peft, gguf, safetensors and tokenizers. The files
beside this script are its output; README.md says what every tensor is. Every
weight is a multiple of 1/128 below 2, so that F32, F16 and BF16 hold it alike.
"""
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

import toy_gguf

HERE = Path(__file__).resolve().parent
SITES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
N_STEPS = 10
KEPT_STEPS = (1, 2, 5, 10)
SPECIAL = {
    "toy-tied": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "toy-untied": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
}
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = {
    "toy-tied": (
        "{% for message in messages %}"
        "{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "toy-untied": (
        "{{- bos_token }}{%- for message in messages %}"
        "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
        "{{- message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}"
        "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
    ),
}
TEXT = [
    "The ferry leaves the harbour at nine and the gulls leave with it.",
    "Count the boats in the harbour, then count the gulls on the boats.",
    "There is a table in the hall and on the table there is a lamp.",
    "system user assistant answer question: what is the time in the harbour?",
    "the answer is in the question and the question is in the answer",
] * 4
PROBES = [
    "The harbour is there.", "  two  spaces ", "x=12345;\n\n\ty", "I'm here, IT'S fine",
    "na\u00efve caf\u00e9 \u4f60\u597d \U0001f600", "", " ", "\n", "<|im_end|>", "a\r\nb \r\n c",
]


def make_tokenizer(name):
    tok = Tokenizer(models.BPE(ignore_merges=name == "toy-untied"))
    if name == "toy-tied":
        tok.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    else:
        tok.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=SPECIAL[name],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    assert tok.get_vocab_size() == 320
    if name == "toy-untied":
        tok.post_processor = processors.TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
        )
    return tok


def make_model(name, seed):
    tied = name == "toy-tied"
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    if not tied:
        rope = {
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        }
    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-5,
        max_position_embeddings=512, tie_word_embeddings=tied, rope_parameters=rope,
        bos_token_id=1 if tied else 0, eos_token_id=2 if tied else 3,
        pad_token_id=2 if tied else None, attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "norm" in key:
                w = rng.uniform(0.6, 1.4, p.shape)
            else:
                w = rng.normal(0, 0.35 if "embed" in key or "lm_head" in key else 0.22, p.shape)
            w = np.clip(np.round(w * 128) / 128, -1.9, 1.9)
            p.copy_(torch.from_numpy(np.round(w * 128) / 128))
    return model


def save_model(name, model, tok):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tied = name == "toy-tied"
    state = dict(model.state_dict())
    if tied:
        state.pop("lm_head.weight")
    # The tied folder has the spelling of transformers 5 and one F16 file, the
    # untied one that of transformers 4 and two BF16 shards.
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 320,
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 512,
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": tied,
        "bos_token_id": 1 if tied else 0, "eos_token_id": 2 if tied else [3],
    }
    rope = dict(model.config.rope_parameters)
    if tied:
        config |= {"dtype": "float16", "pad_token_id": 2, "rope_parameters": rope}
    else:
        theta = rope.pop("rope_theta")
        config |= {"torch_dtype": "bfloat16", "rope_theta": theta, "rope_scaling": rope}
    write_json(folder / "config.json", config)
    kind = torch.float16 if tied else torch.bfloat16
    state = {k: v.to(kind).contiguous() for k, v in state.items()}
    if tied:
        save_torch(state, folder / "model.safetensors", {"format": "pt"})
    else:
        second = ("model.layers.1.", "model.norm.", "lm_head.")
        index = {k: f"model-0000{1 + k.startswith(second)}-of-00002.safetensors" for k in sorted(state)}
        for file in sorted(set(index.values())):
            part = {k: v for k, v in state.items() if index[k] == file}
            save_torch(part, folder / file, {"format": "pt"})
        total = sum(v.numel() * 2 for v in state.values())
        write_json(
            folder / "model.safetensors.index.json",
            {"metadata": {"total_size": total}, "weight_map": index},
        )
    tok.save(str(folder / "tokenizer.json"))
    special = SPECIAL[name]
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512,
            "bos_token": special[1 if tied else 0], "eos_token": special[2 if tied else 3],
            "clean_up_tokenization_spaces": False, "chat_template": TEMPLATE[name],
        },
    )


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def rows_of(tok, name):
    """Three rows of unequal length; the loss counts tokens from answer_start on."""
    eot = SPECIAL[name][-1]
    texts = [("the boats", " in the hall" + eot), ("Count the gulls on the table:", " 12" + eot),
             ("what is the time?", " nine and then" + eot)]
    rows = []
    for prompt, answer in texts:
        ids = tok.encode(prompt, add_special_tokens=False).ids
        tail = tok.encode(answer, add_special_tokens=False).ids
        rows.append({"ids": ids + tail, "answer_start": len(ids)})
    return rows


def row_nll(model, row):
    ids = torch.tensor([row["ids"]])
    logits = model(ids, use_cache=False).logits[0]
    start = row["answer_start"]
    return torch.nn.functional.cross_entropy(
        logits[start - 1 : -1], ids[0, start:], reduction="sum"
    )


def batch_loss(model, rows):
    n = sum(len(r["ids"]) - r["answer_start"] for r in rows)
    return sum(row_nll(model, r) for r in rows) / n


def logits_of(model, row):
    with torch.no_grad():
        return model(torch.tensor([row["ids"]]), use_cache=False).logits[0].float().numpy()


def greedy(model, row, n):
    ids, gaps = list(row["ids"][: row["answer_start"]]), []
    with torch.no_grad():
        for _ in range(n):
            top = model(torch.tensor([ids]), use_cache=False).logits[0, -1].topk(2)
            ids.append(int(top.indices[0]))
            gaps.append(round(float(top.values[0] - top.values[1]), 6))
    return {"ids": ids[row["answer_start"] :], "gaps": gaps}


def lora_state(model):
    return {
        k.replace(".default", ""): p for k, p in model.named_parameters() if "lora_" in k
    }


def make_adapter(model, folder, seed, **settings):
    """Wrap MODEL in a LoRA with nonzero A and B and save it as PEFT does."""
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, bias="none", **settings)
    peft = get_peft_model(model, config).eval()
    peft.peft_config["default"].base_model_name_or_path = "toy-tied"
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in lora_state(peft).values():
            p.copy_(torch.from_numpy(np.round(rng.normal(0, 0.2, p.shape) * 1024) / 1024))
    shutil.rmtree(HERE / folder, ignore_errors=True)
    peft.save_pretrained(HERE / folder)
    (HERE / folder / "README.md").unlink(missing_ok=True)
    file = HERE / folder / "adapter_config.json"
    saved = json.loads(file.read_text())
    saved["target_modules"].sort()  # a set: its order changes from run to run
    write_json(file, saved)
    return peft


def train(peft, rows, out):
    """Ten AdamW steps on the same batch, the gradients of the first kept."""
    params = lora_state(peft)
    adam = torch.optim.AdamW(
        params.values(), lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0
    )
    report = []
    for step in range(1, N_STEPS + 1):
        adam.zero_grad()
        loss = batch_loss(peft, rows)
        loss.backward()
        if step == 1:
            out |= {f"grad/{k}": p.grad.numpy().copy() for k, p in params.items()}
        norm = torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
        adam.step()
        report.append({"step": step, "loss": float(loss.detach()), "grad_norm": float(norm)})
        if step in KEPT_STEPS:
            out |= {f"step.{step}/{k}": p.detach().numpy().copy() for k, p in params.items()}
    return report


def main():
    torch.manual_seed(1)
    torch.set_num_threads(1)
    numbers, facts = {}, {"kept_steps": KEPT_STEPS, "models": {}}
    for name, seed in (("toy-tied", 1), ("toy-untied", 2)):
        tok = make_tokenizer(name)
        model = make_model(name, seed)
        save_model(name, model, tok)
        kind = "F32" if name == "toy-tied" else "BF16"
        toy_gguf.write(HERE / f"{name}.gguf", model, tok, kind, SPECIAL[name], TEMPLATE[name])
        rows = rows_of(tok, name)
        with torch.no_grad():
            nll = [float(row_nll(model, r)) for r in rows]
        numbers[f"{name}/logits"] = logits_of(model, rows[0])
        facts["models"][name] = {
            "rows": rows, "nll": nll, "loss": float(batch_loss(model, rows).detach()),
            "greedy": greedy(model, rows[1], 12),
            "tokens": [
                {"text": t, "ids": tok.encode(t, add_special_tokens=False).ids} for t in PROBES
            ],
        }
    rows = facts["models"]["toy-tied"]["rows"]
    for folder, seed, settings in (
        # 15: no gradient of the first step is below 2e-5. AdamW moves a weight by the whole
        # rate however small its gradient is, so rounding would decide where such a one goes.
        ("lora", 15, {"r": 4, "lora_alpha": 8, "target_modules": SITES}),
        ("rslora", 12, {
            "r": 4, "lora_alpha": 8, "use_rslora": True,
            "target_modules": ["q_proj", "v_proj", "down_proj"],
            "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 3},
            "alpha_pattern": {"v_proj": 5, "layers.1.mlp.down_proj": 6},
        }),
    ):
        peft = make_adapter(make_model("toy-tied", 1), folder, seed, **settings)
        numbers[f"{folder}/logits"] = logits_of(peft, rows[0])
        with torch.no_grad():
            facts[folder] = {"nll": [float(row_nll(peft, r)) for r in rows],
                             "loss": float(batch_loss(peft, rows))}
        facts[folder]["greedy"] = greedy(peft, rows[1], 12)
        if folder == "lora":
            facts[folder]["steps"] = train(peft, rows, numbers)
    save_file({k: np.ascontiguousarray(v, dtype=np.float32) for k, v in numbers.items()},
              HERE / "toy.safetensors")
    write_json(HERE / "toy.json", facts)
    for path in HERE.rglob("*.safetensors"):
        path.chmod(0o644)
    print(f"loss {facts['lora']['loss']:.6f}, {len(numbers)} tensors", file=sys.stderr)


if __name__ == "__main__":
    main()
