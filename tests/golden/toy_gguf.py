# SPDX-License-Identifier: Apache-2.0
"""A llama model of transformers as GGUF: names, order and permutation of llama.cpp."""
import json

import gguf
import numpy as np
import torch

NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def permute(w, n_heads):
    """Rows i and i + D/2 of a head become neighbours: rotate-half to interleaved."""
    m, n = w.shape
    return w.reshape(n_heads, 2, m // n_heads // 2, n).swapaxes(1, 2).reshape(m, n)


def tensors(model):
    c = model.config
    state = {k: v for k, v in model.state_dict().items()
             if not (c.tie_word_embeddings and k == "lm_head.weight")}
    for key, value in state.items():
        stem = key.removesuffix(".weight")
        w = value.numpy()
        if stem in OUTER:
            yield OUTER[stem] + ".weight", w
            continue
        _, _, layer, part = stem.split(".", 3)
        if part.endswith("q_proj"):
            w = permute(w, c.num_attention_heads)
        if part.endswith("k_proj"):
            w = permute(w, c.num_key_value_heads)
        yield f"blk.{layer}.{NAMES[part]}.weight", w


def rope_divisors(model):
    """What each angle is divided by; None where the scaling is none."""
    c = model.config
    if c.rope_parameters["rope_type"] == "default":
        return None
    plain = c.rope_parameters["rope_theta"] ** -(np.arange(0, c.head_dim, 2) / c.head_dim)
    return (plain / model.model.rotary_emb.inv_freq.double().numpy()).astype(np.float32)


def write_vocabulary(w, tok, special, template):
    tied = special[0] == "<|endoftext|>"
    vocab = sorted(tok.get_vocab().items(), key=lambda item: item[1])
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm" if tied else "llama-bpe")
    w.add_token_list([t for t, _ in vocab])
    w.add_token_types([3 if t in special else 1 for t, _ in vocab])
    merges = json.loads(tok.to_str())["model"]["merges"]
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    w.add_bos_token_id(1 if tied else 0)
    w.add_eos_token_id(2 if tied else 3)
    w.add_add_bos_token(not tied)
    w.add_chat_template(template)


def write(path, model, tok, kind, special, template):
    c = model.config
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(path.stem)
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    w.add_rope_dimension_count(c.head_dim)
    w.add_vocab_size(c.vocab_size)
    w.add_file_type(gguf.LlamaFileType.ALL_F32 if kind == "F32" else gguf.LlamaFileType.MOSTLY_BF16)
    write_vocabulary(w, tok, special, template)
    divisors = rope_divisors(model)
    if divisors is not None:
        w.add_tensor("rope_freqs.weight", divisors)
    for name, data in tensors(model):
        if kind == "BF16" and data.ndim == 2:
            bits = torch.from_numpy(np.ascontiguousarray(data)).bfloat16().view(torch.uint16).numpy()
            w.add_tensor(name, bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            w.add_tensor(name, np.ascontiguousarray(data))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
