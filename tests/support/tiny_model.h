/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A llama of 2 layers and width 16 with a byte-level vocabulary of 300 tokens,
 * as a GGUF file or as a Hugging Face folder. Both hold the same model: equal
 * seeds give equal weights, with the rows of Q and K permuted in the GGUF.
 *
 *     token 0 <|endoftext|>   1 <|im_start|>   2 <|im_end|> (end of turn)
 *     3 ... 258  the 256 bytes, in the order of their printable characters
 *     259 ... 299  merges of frequent pairs, in order of rank
 */
#ifndef ARTEL_TESTS_TINY_MODEL_H
#define ARTEL_TESTS_TINY_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "support/tiny_gguf.h"

#define TINY_VOCAB 300

struct tiny_model {
    size_t n_layers, dim, n_heads, n_kv_heads, head_dim, ffn_dim;
    bool tied;        /* no head of its own */
    bool rope_llama3; /* Llama 3's scaling of the rotary frequencies */
    uint32_t type;    /* of linears and embedding: TINY_T_F32, F16, BF16, Q8_0 (GGUF
                          only, rows of a multiple of 32; other rows stay F32) */
    uint64_t seed;
};

/* 2 layers, width 16, 4 heads over 2, head size 4, FFN 32, tied, F32, seed 1. */
void tiny_model_default(struct tiny_model *m);

/* The whole GGUF as a structure to be changed, laid out. Release it afterwards. */
void tiny_model_gguf(const struct tiny_model *m, struct tiny_gguf *g);

/* 0, or -1 with errno. The folder is made if it is missing: config.json,
 * model.safetensors, tokenizer.json, tokenizer_config.json. */
int tiny_model_write_gguf(const struct tiny_model *m, const char *path);
int tiny_model_write_folder(const struct tiny_model *m, const char *folder);

/* config.json's text, for tests that change it. Caller frees. */
char *tiny_model_config(const struct tiny_model *m);

#endif
