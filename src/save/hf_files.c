/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands beside the weights of a Hugging Face folder. From such a folder the files
 * are copied byte for byte, but for the number format in config.json; from GGUF they are
 * made of its metadata, which lacks what a makers' folder also says (how to sample).
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/map.h"
#include "decoder/frozen.h"
#include "files/gguf.h"
#include "files/json.h"
#include "files/write.h"
#include "model/architectures.h"
#include "save/gguf_lora_parts.h"
#include "save/merge.h"
#include "text/tokenizer_export.h"

#define CONFIG_MAX ((size_t)1 << 20)
#define TEXT_SIZE  64

static const char *dtype_word(enum dtype t)
{
    return t == DTYPE_F32 ? "float32" : t == DTYPE_F16 ? "float16" : "bfloat16";
}

static int copy_file(const char *to, const char *from, const char *name,
                     struct artel_error *err)
{
    char *source = path_join(from, name), *target = path_join(to, name);
    struct map map = {0};
    int rc = source && target ? 0 : error_nomem(err, strlen(name));

    if (rc == 0 && access(source, F_OK) == 0) {
        rc = map_open(&map, source, err);
        if (rc == 0)
            rc = write_file(target, map.data, map.size, err);
        map_release(&map);
    }
    free(source);
    free(target);
    return rc;
}

/* NAME of FOLDER gets ROOT (taken over, NULL: no memory). */
static int put_json(const char *folder, const char *name, json_t *root,
                    struct artel_error *err)
{
    char *path = path_join(folder, name);
    int rc = path && root ? json_write_file(path, root, false, err)
                          : error_nomem(err, strlen(folder));

    json_decref(root);
    free(path);
    return rc;
}

/* config.json with another number format, under whichever keys it has. */
static int copy_config(const char *to, const char *from, enum dtype type,
                       struct artel_error *err)
{
    char *path = path_join(from, "config.json");
    json_t *root = NULL;
    int rc = path ? json_read_file(&root, path, CONFIG_MAX, err)
                  : error_nomem(err, strlen(from));

    free(path);
    if (rc < 0)
        return rc;
    if (json_object_get(root, "dtype"))
        json_object_set_new(root, "dtype", json_string(dtype_word(type)));
    if (json_object_get(root, "torch_dtype") || !json_object_get(root, "dtype"))
        json_object_set_new(root, "torch_dtype", json_string(dtype_word(type)));
    return put_json(to, "config.json", root, err);
}

int hf_files_copy(const char *folder, const struct weights *w, enum dtype type,
                  struct artel_error *err)
{
    static const char *const names[] = {"generation_config.json",
                                        "tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "tokenizer.model",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "LICENSE",
                                        "LICENSE.txt",
                                        "NOTICE"};
    int rc = type == N_DTYPES ? copy_file(folder, w->folder, "config.json", err)
                              : copy_config(folder, w->folder, type, err);

    for (size_t i = 0; rc == 0 && i < sizeof(names) / sizeof(names[0]); i++)
        rc = copy_file(folder, w->folder, names[i], err);
    return rc;
}

/* The shortest decimal that is this float. */
static json_t *float_new(float x)
{
    char text[40];

    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x)
            break;
    }
    return json_real(strtod(text, NULL));
}

/* Divisor I of Llama 3's scaling with its published bounds (1 and 4 turns). */
static double llama3_divisor(const struct model_config *c, size_t i, double factor,
                             double original)
{
    const double low = 1.0, high = 4.0, turn = 8.0 * atan(1.0);
    const double f = pow((double)c->rope_theta, -2.0 * (double)i / (double)c->head_dim);
    const double wave = turn / f;
    double smooth;

    if (wave < original / high)
        return 1.0;
    if (wave > original / low)
        return factor;
    smooth = (original / wave - low) / (high - low);
    return 1.0 / ((1.0 - smooth) / factor + smooth);
}

/* The original context, a power of two, with which the divisors are Llama 3's; or 0. */
static int llama3_original(const struct model_config *c, double factor)
{
    for (int original = 1 << 20; original >= 32; original /= 2) {
        size_t i = 0;

        while (i < c->head_dim / 2 && fabs((double)c->rope_divisor[i] -
                                           llama3_divisor(c, i, factor, original)) <=
                                          1e-4 * (double)c->rope_divisor[i])
            i++;
        if (i == c->head_dim / 2)
            return original;
    }
    return 0;
}

/* rope_scaling that gives the divisors, null where all are 1. */
static int scaling_new(json_t **out, const struct model_config *c,
                       struct artel_error *err)
{
    const size_t n = c->head_dim / 2;
    const double last = (double)c->rope_divisor[n - 1];
    const int original = llama3_original(c, last);
    bool linear = true;

    for (size_t i = 0; i < n; i++)
        linear = linear && (double)c->rope_divisor[i] == last;
    if (linear && last == 1.0)
        *out = json_null();
    else if (linear)
        *out = json_pack("{s:s, s:f}", "rope_type", "linear", "factor", last);
    else if (original)
        *out = json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor",
                         last, "low_freq_factor", 1.0, "high_freq_factor", 4.0,
                         "original_max_position_embeddings", original);
    else
        return error_set(err, ARTEL_EFORMAT, "CNV06", "rope_freqs.weight",
                         "these rotary frequencies have no name in config.json; write "
                         "GGUF instead");
    return *out ? 0 : error_nomem(err, 0);
}

/* First of words that spaces separate. */
static const char *first_word(char out[TEXT_SIZE], const char *words)
{
    snprintf(out, TEXT_SIZE, "%.*s", (int)strcspn(words, " "), words);
    return out;
}

static json_t *id_new(int id)
{
    return id >= 0 ? json_integer(id) : json_null();
}

static json_t *ends_new(const struct model_config *c)
{
    json_t *list;

    if (c->n_ends <= 1)
        return id_new(c->eos);
    list = json_array();
    for (size_t i = 0; i < c->n_ends; i++)
        json_array_append_new(list, json_integer(c->ends[i]));
    return list;
}

static int config_new(json_t **out, const struct model_config *c, enum dtype type,
                      struct artel_error *err)
{
    const struct architecture *a = config_architecture(c);
    char class[TEXT_SIZE], model_type[TEXT_SIZE];
    json_t *scaling;
    int rc = scaling_new(&scaling, c, err);

    *out = NULL;
    if (rc < 0)
        return rc;
    *out = json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o, s:I, s:b, s:b, s:b,"
        " s:o, s:o, s:o, s:s, s:o, s:o}",
        "architectures", first_word(class, a->classes), "model_type",
        first_word(model_type, a->model_types), "vocab_size", (json_int_t)c->n_vocab,
        "hidden_size", (json_int_t)c->dim, "intermediate_size", (json_int_t)c->ffn_dim,
        "num_hidden_layers", (json_int_t)c->n_layers, "num_attention_heads",
        (json_int_t)c->n_heads, "num_key_value_heads", (json_int_t)c->n_kv_heads,
        "head_dim", (json_int_t)c->head_dim, "hidden_act", "silu", "rms_norm_eps",
        float_new(c->norm_eps), "max_position_embeddings", (json_int_t)c->context,
        "attention_bias", 0, "mlp_bias", 0, "tie_word_embeddings", (int)c->tied,
        "bos_token_id", id_new(c->bos), "eos_token_id", id_new(c->eos), "pad_token_id",
        id_new(c->pad), "torch_dtype", dtype_word(type), "rope_theta",
        float_new(c->rope_theta), "rope_scaling", scaling);
    return *out ? 0 : error_nomem(err, 0);
}

static int note_missing(struct merge *m, const struct gguf *g, struct artel_error *err)
{
    const bool chat = gguf_get(g, "tokenizer.chat_template").kind == GGUF_STRING;

    m->missing =
        strdup(chat ? "sampling settings of the makers: GGUF does not hold them"
                    : "sampling settings of the makers: GGUF does not hold them\n"
                      "a chat template: the source has none");
    return m->missing ? 0 : error_nomem(err, 0);
}

int hf_files_make(struct merge *m, const char *folder, enum dtype type,
                  struct artel_error *err)
{
    const struct weights *w = m->model->weights;
    const struct model_config *c = &w->config;
    json_t *root = NULL;
    int rc = config_new(&root, c, type, err);

    if (rc == 0)
        rc = put_json(folder, "config.json", root, err);
    if (rc == 0)
        rc = put_json(folder, "generation_config.json",
                      json_pack("{s:o, s:o, s:o}", "bos_token_id", id_new(c->bos),
                                "eos_token_id", ends_new(c), "pad_token_id",
                                id_new(c->pad)),
                      err);
    if (rc == 0)
        rc = tokenizer_json_new(&root, m->model->tokenizer, w->gguf, err);
    if (rc == 0)
        rc = put_json(folder, "tokenizer.json", root, err);
    if (rc == 0)
        rc = tokenizer_config_new(&root, m->model->tokenizer, w->gguf, c->context, err);
    if (rc == 0)
        rc = put_json(folder, "tokenizer_config.json", root, err);
    return rc < 0 ? rc : note_missing(m, w->gguf, err);
}
