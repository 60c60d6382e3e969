/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows. Keys are forbidden by name rather than by a list of allowed ones, for
 * config.json is full of keys that change nothing; what is listed here is known to
 * alter results and not to be built.
 */
#include "model/architectures.h"

#include <stdio.h>
#include <string.h>

static const struct forbidden_key llama_gguf_keys[] = {
    {"attention.sliding_window", KEY_NONE, NULL, 0},
    {"attention.causal", KEY_TRUE, NULL, 0},
    {"attention.scale", KEY_NONE, NULL, 0},
    {"attention.clamp_kqv", KEY_NONE, NULL, 0},
    {"attention.max_alibi_bias", KEY_NONE, NULL, 0},
    {"attention.layer_norm_epsilon", KEY_NONE, NULL, 0},
    {"attention.temperature_length", KEY_NONE, NULL, 0},
    {"attn_logit_softcapping", KEY_NONE, NULL, 0},
    {"final_logit_softcapping", KEY_NONE, NULL, 0},
    {"logit_scale", KEY_NUMBER, NULL, 1},
    {"embedding_scale", KEY_NUMBER, NULL, 1},
    {"residual_scale", KEY_NUMBER, NULL, 1},
    {"expert_count", KEY_NONE, NULL, 0},
    {"expert_used_count", KEY_NONE, NULL, 0},
    {"use_parallel_residual", KEY_NONE, NULL, 0},
    {"rope.scaling.attn_factor", KEY_NUMBER, NULL, 1},
    {"rope.scaling.yarn_log_multiplier", KEY_NONE, NULL, 0},
    {NULL, KEY_NONE, NULL, 0}};

static const struct forbidden_key llama_hf_keys[] = {
    {"hidden_act", KEY_TEXT, "silu swish", 0},
    {"hidden_activation", KEY_TEXT, "silu swish", 0},
    {"attention_bias", KEY_NONE, NULL, 0},
    {"mlp_bias", KEY_NONE, NULL, 0},
    {"use_qk_norm", KEY_NONE, NULL, 0},
    {"qk_norm", KEY_NONE, NULL, 0},
    {"sliding_window", KEY_NONE, NULL, 0},
    {"use_sliding_window", KEY_NONE, NULL, 0},
    {"layer_types", KEY_TEXT, "full_attention", 0},
    {"attention_chunk_size", KEY_NONE, NULL, 0},
    {"attn_logit_softcapping", KEY_NONE, NULL, 0},
    {"final_logit_softcapping", KEY_NONE, NULL, 0},
    {"logit_softcap", KEY_NONE, NULL, 0},
    {"query_pre_attn_scalar", KEY_NONE, NULL, 0},
    {"attention_multiplier", KEY_NONE, NULL, 0},
    {"embedding_multiplier", KEY_NUMBER, NULL, 1},
    {"residual_multiplier", KEY_NUMBER, NULL, 1},
    {"logits_scaling", KEY_NUMBER, NULL, 1},
    {"logit_scale", KEY_NUMBER, NULL, 1},
    {"partial_rotary_factor", KEY_NUMBER, NULL, 1},
    {"no_rope_layers", KEY_NONE, NULL, 0},
    {"alibi", KEY_NONE, NULL, 0},
    {"num_local_experts", KEY_NONE, NULL, 0},
    {"num_experts", KEY_NONE, NULL, 0},
    {"quantization_config", KEY_NONE, NULL, 0},
    {NULL, KEY_NONE, NULL, 0}};

static const struct architecture table[] = {
    {.name = "llama",
     .model_types = "llama mistral",
     .classes = "LlamaForCausalLM MistralForCausalLM",
     .gguf = {[PLACE_Q] = "blk.%zu.attn_q.weight",
              [PLACE_K] = "blk.%zu.attn_k.weight",
              [PLACE_V] = "blk.%zu.attn_v.weight",
              [PLACE_O] = "blk.%zu.attn_output.weight",
              [PLACE_GATE] = "blk.%zu.ffn_gate.weight",
              [PLACE_UP] = "blk.%zu.ffn_up.weight",
              [PLACE_DOWN] = "blk.%zu.ffn_down.weight",
              [PLACE_ATTN_NORM] = "blk.%zu.attn_norm.weight",
              [PLACE_FFN_NORM] = "blk.%zu.ffn_norm.weight",
              [PLACE_EMBED] = "token_embd.weight",
              [PLACE_FINAL_NORM] = "output_norm.weight",
              [PLACE_HEAD] = "output.weight"},
     .hf = {[PLACE_Q] = "model.layers.%zu.self_attn.q_proj.weight",
            [PLACE_K] = "model.layers.%zu.self_attn.k_proj.weight",
            [PLACE_V] = "model.layers.%zu.self_attn.v_proj.weight",
            [PLACE_O] = "model.layers.%zu.self_attn.o_proj.weight",
            [PLACE_GATE] = "model.layers.%zu.mlp.gate_proj.weight",
            [PLACE_UP] = "model.layers.%zu.mlp.up_proj.weight",
            [PLACE_DOWN] = "model.layers.%zu.mlp.down_proj.weight",
            [PLACE_ATTN_NORM] = "model.layers.%zu.input_layernorm.weight",
            [PLACE_FFN_NORM] = "model.layers.%zu.post_attention_layernorm.weight",
            [PLACE_EMBED] = "model.embed_tokens.weight",
            [PLACE_FINAL_NORM] = "model.norm.weight",
            [PLACE_HEAD] = "lm_head.weight"},
     .gguf_ignored = "rope_freqs.weight",
     .hf_ignored = ".self_attn.rotary_emb.inv_freq",
     .gguf_interleaved = true,
     .gguf_keys = llama_gguf_keys,
     .hf_keys = llama_hf_keys}};

#define N_ARCHITECTURES (sizeof(table) / sizeof(table[0]))

bool word_among(const char *words, const char *word, size_t n)
{
    while (*words) {
        const size_t length = strcspn(words, " ");

        if (length == n && !memcmp(words, word, n))
            return true;
        words += length + (words[length] == ' ');
    }
    return false;
}

const struct architecture *architecture_find(const char *name, size_t n)
{
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        if (strlen(table[i].name) == n && !memcmp(table[i].name, name, n))
            return &table[i];
    return NULL;
}

const struct architecture *architecture_of_model_type(const char *model_type)
{
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        if (word_among(table[i].model_types, model_type, strlen(model_type)))
            return &table[i];
    return NULL;
}

const char *architecture_list(void)
{
    return "llama (also mistral)";
}

const char *place_name(char *out, size_t size, const char *pattern, size_t layer)
{
    const char *number = strstr(pattern, "%zu");

    if (number)
        snprintf(out, size, "%.*s%zu%s", (int)(number - pattern), pattern, layer,
                 number + 3);
    else
        snprintf(out, size, "%s", pattern);
    return out;
}
