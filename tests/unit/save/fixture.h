/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A base without weights and a tiny PEFT adapter of it, made in memory so that a
 * test can break one thing before they are written.
 */
#ifndef ARTEL_TESTS_SAVE_FIXTURE_H
#define ARTEL_TESTS_SAVE_FIXTURE_H

#include <assert.h>
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/map.h"
#include "check.h"
#include "decoder/frozen.h"
#include "files/digest.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "files/write.h"
#include "save/adapter.h"

enum { TOY_LAYERS = 2, TOY_DIM = 8, TOY_HEAD = 4, TOY_FFN = 12, TOY_RANK = 2 };

static inline struct model_config toy_config(bool interleaved)
{
    return (struct model_config){.architecture = "llama",
                                 .n_layers = TOY_LAYERS,
                                 .dim = TOY_DIM,
                                 .n_heads = 2,
                                 .n_kv_heads = 1,
                                 .head_dim = TOY_HEAD,
                                 .ffn_dim = TOY_FFN,
                                 .n_vocab = 16,
                                 .context = 32,
                                 .rope_interleaved = interleaved};
}

/* A base that is only its sizes and digests. */
struct toy_base {
    struct weights weights;
    struct artel_model model;
};

static inline void toy_base_init(struct toy_base *b, bool interleaved)
{
    static char path[] = "models/toy.gguf";

    *b =
        (struct toy_base){.weights = {.config = toy_config(interleaved), .path = path}};
    b->model.weights = &b->weights;
    digest_bytes(b->model.base_digest, "base", 4);
    digest_bytes(b->model.tokenizer_digest, "tok", 3);
    digest_bytes(b->model.chat_digest, "chat", 4);
}

/* A folder of the test's own. */
static inline char *scratch_open(void)
{
    const char *root = getenv("TMPDIR");
    char *path = path_join(root ? root : "/tmp", "artel-save-XXXXXX");

    assert(path && mkdtemp(path));
    return path;
}

static inline void scratch_close(char *path)
{
    DIR *d = opendir(path);
    struct dirent *entry;

    while (d && (entry = readdir(d)) != NULL) {
        char *inner = path_join(path, entry->d_name);
        struct stat st;

        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            if (lstat(inner, &st) == 0 && S_ISDIR(st.st_mode))
                scratch_close(inner); /* frees INNER */
            else {
                unlink(inner);
                free(inner);
            }
        } else {
            free(inner);
        }
    }
    if (d)
        closedir(d);
    rmdir(path);
    free(path);
}

/* Digest over names and contents below PATH: the same before and after a refusal. */
static inline void scratch_digest(char out[DIGEST_SIZE], const char *path)
{
    struct dirent **entries;
    const int n = scandir(path, &entries, NULL, alphasort);
    char text[2 * 4096] = "";

    for (int i = 0; i < n; i++) {
        char *inner = path_join(path, entries[i]->d_name), one[DIGEST_SIZE] = "";
        struct stat st;

        if (entries[i]->d_name[0] != '.' || entries[i]->d_name[1] > '.') {
            if (lstat(inner, &st) == 0 && S_ISDIR(st.st_mode))
                scratch_digest(one, inner);
            else if (S_ISREG(st.st_mode))
                digest_file(one, inner, NULL);
            snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s %s\n",
                     entries[i]->d_name, one);
        }
        free(inner);
        free(entries[i]);
    }
    free(entries);
    digest_bytes(out, text, strlen(text));
}

#define TOY_MAX_TENSORS 16

/* A PEFT adapter on q_proj and v_proj, rank 2, alpha 4, before it is written. */
struct toy_adapter {
    json_t *config; /* owned */
    size_t n;
    char names[TOY_MAX_TENSORS][256];
    struct tensor tensors[TOY_MAX_TENSORS];
    union {
        float f32[64];
        double f64[64];
        unsigned char bytes[512];
    } data[TOY_MAX_TENSORS];
};

static inline struct tensor *toy_tensor(struct toy_adapter *t, const char *name,
                                        size_t n_rows, size_t n_cols)
{
    struct tensor *tensor = &t->tensors[t->n];

    assert(t->n < TOY_MAX_TENSORS && n_rows * n_cols <= 64);
    snprintf(t->names[t->n], sizeof(t->names[0]), "%s", name);
    for (size_t i = 0; i < n_rows * n_cols; i++)
        t->data[t->n].f32[i] = (float)(t->n + 1) + (float)i / 64.0f;
    *tensor = (struct tensor){.name = t->names[t->n],
                              .dtype = DTYPE_F32,
                              .n_dims = n_cols ? 2 : 1,
                              .shape = {n_rows, n_cols},
                              .data = &t->data[t->n],
                              .bytes = n_rows * (n_cols ? n_cols : 1) * sizeof(float)};
    t->n++;
    return tensor;
}

static inline void toy_adapter_init(struct toy_adapter *t)
{
    static const char *const sites[] = {"self_attn.q_proj", "self_attn.v_proj"};
    static const size_t n_out[] = {2 * TOY_HEAD, TOY_HEAD};
    char name[128];

    *t = (struct toy_adapter){0};
    t->config = json_pack("{s:s, s:i, s:i, s:[s, s], s:s, s:f}", "peft_type", "LORA",
                          "r", TOY_RANK, "lora_alpha", 4, "target_modules", "q_proj",
                          "v_proj", "bias", "none", "lora_dropout", 0.05);
    for (size_t l = 0; l < TOY_LAYERS; l++)
        for (size_t s = 0; s < 2; s++) {
            snprintf(name, sizeof(name),
                     "base_model.model.model.layers.%zu.%s.lora_A.weight", l, sites[s]);
            toy_tensor(t, name, TOY_RANK, TOY_DIM);
            strstr(name, "lora_A")[5] = 'B';
            toy_tensor(t, name, n_out[s], TOY_RANK);
        }
}

static inline void toy_adapter_write(const struct toy_adapter *t, const char *folder)
{
    char *config = path_join(folder, "adapter_config.json");
    char *weights = path_join(folder, "adapter_model.safetensors");
    const struct key_value metadata[] = {{"format", "pt"}};

    assert_int_equal(make_folder(folder, NULL), 0);
    assert_int_equal(json_write_file(config, t->config, true, NULL), 0);
    assert_int_equal(safetensors_write(weights, t->tensors, t->n, metadata, 1, NULL),
                     0);
    free(config);
    free(weights);
}

static inline void toy_adapter_release(struct toy_adapter *t)
{
    json_decref(t->config);
}

/* Every change in KEYS (a JSON object) into the configuration. */
static inline void toy_configure(struct toy_adapter *t, const char *keys)
{
    json_t *patch = json_loads(keys, 0, NULL);

    assert_non_null(patch);
    json_object_update(t->config, patch);
    json_decref(patch);
}

#endif
