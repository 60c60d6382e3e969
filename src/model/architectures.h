/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table in which architectures differ: how they are called in files, what
 * their tensors are called, and which keys would change the mathematics in a way
 * that is not built. A new architecture is a new row.
 */
#ifndef ARTEL_MODEL_ARCHITECTURES_H
#define ARTEL_MODEL_ARCHITECTURES_H

#include <stdbool.h>
#include <stddef.h>

/* Every place a tensor may have. The sites of model/weights.h come first, in order. */
enum place {
    PLACE_Q,
    PLACE_K,
    PLACE_V,
    PLACE_O,
    PLACE_GATE,
    PLACE_UP,
    PLACE_DOWN,
    PLACE_ATTN_NORM,
    PLACE_FFN_NORM, /* the last of a layer */
    PLACE_EMBED,
    PLACE_FINAL_NORM,
    PLACE_HEAD,
    N_PLACES
};

#define N_LAYER_PLACES (PLACE_FFN_NORM + 1)

/* What a key must be for the mathematics to be ours. An absent or null key is fine. */
enum key_rule {
    KEY_NONE, /* may not be set at all (null, false, 0 and an empty list are fine) */
    KEY_TEXT, /* must be one of the words in TEXT, separated by spaces, or a list of them */
    KEY_NUMBER, /* must be NUMBER */
    KEY_TRUE    /* must be true */
};

struct forbidden_key {
    const char *key; /* GGUF: after "llama."; JSON: of config.json */
    enum key_rule rule;
    const char *text;
    double number;
};

struct architecture {
    const char *name;        /* ours, and GGUF's general.architecture and key prefix */
    const char *model_types; /* of config.json, separated by spaces */
    const char *classes;     /* of config.json's "architectures", separated by spaces */
    const char *gguf[N_PLACES]; /* names; those of layers have one %zu */
    const char *hf[N_PLACES];
    const char *gguf_ignored; /* tensors that are no weights, separated by spaces */
    const char *hf_ignored;   /* ends of names, such as old rotary tables */
    bool tied_by_default;     /* config.json without tie_word_embeddings */
    bool gguf_interleaved;    /* rows of Q and K are permuted in GGUF files */
    const struct forbidden_key *gguf_keys; /* until key == NULL */
    const struct forbidden_key *hf_keys;
};

/* NULL: not supported. */
const struct architecture *architecture_find(const char *name, size_t n);
const struct architecture *architecture_of_model_type(const char *model_type);
const char *architecture_list(void); /* for messages: "llama" */

/* The name of a tensor, LAYER ignored where the place is not in one. Returns OUT. */
const char *place_name(char *out, size_t size, const char *pattern, size_t layer);
/* Is WORD (N bytes) one of WORDS, which spaces separate? */
bool word_among(const char *words, const char *word, size_t n);

#endif
