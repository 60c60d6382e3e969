/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing an expert as a PEFT adapter folder: the weights, the configuration,
 * and artel.json last. artel.json holds the digest of the weights, so that a
 * folder rewritten by halves is known for what it is.
 *
 *   base_model.model.model.layers.N.SITE.lora_A.weight   (R, N) F32
 *   base_model.model.model.layers.N.SITE.lora_B.weight   (M, R) F32
 */
#include "save/adapter.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/digest.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "files/write.h"
#include "save/adapter_parts.h"
#include "save/peft_config.h"
#include "save/target_modules.h"

#define KEY_SIZE (MODULE_PATH_SIZE + 40)

/* The tensors of an expert in PEFT's names. */
struct listing {
    struct tensor *tensors; /* (n); owned */
    char (*keys)[KEY_SIZE]; /* (n); owned */
    float *turned;          /* of q and k in Hugging Face's order; owned */
    size_t n;
};

static void listing_release(struct listing *l)
{
    free(l->tensors);
    free(l->keys);
    free(l->turned);
    *l = (struct listing){0};
}

static void list_tensor(struct listing *l, size_t layer, enum site s, char half,
                        const float *data, size_t n_rows, size_t n_cols)
{
    char path[MODULE_PATH_SIZE];

    snprintf(l->keys[l->n], KEY_SIZE, "base_model.model.%s.lora_%c.weight",
             module_path(path, layer, s), half);
    l->tensors[l->n] = (struct tensor){
        .name = l->keys[l->n],
        .dtype = DTYPE_F32,
        .n_dims = 2,
        .shape = {n_rows, n_cols},
        .data = data,
        .bytes = n_rows * n_cols * sizeof(*data),
    };
    l->n++;
}

/* A of an expert that reads outputs, with its columns where Hugging Face has those. */
static void turn_columns(float *to, const struct lora *lora,
                         const struct model_config *c, enum site s)
{
    for (size_t r = 0; r < lora->rank; r++)
        for (size_t j = 0; j < lora->n_a; j++)
            to[r * lora->n_a + j] = lora->a[r * lora->n_a + hf_row(c, s, j)];
}

/* B of LORA with its rows where Hugging Face has them, into TO. */
static void turn_rows(float *to, const struct lora *lora, const struct model_config *c,
                      enum site s)
{
    for (size_t j = 0; j < lora->n_out; j++)
        memcpy(to + j * lora->rank, lora->b + hf_row(c, s, j) * lora->rank,
               lora->rank * sizeof(*to));
}

static int listing_init(struct listing *l, const struct expert *e,
                        const struct model_config *c, struct artel_error *err)
{
    const size_t n = e->n_layers * N_SITES;
    float *next;

    *l = (struct listing){
        .tensors = calloc(2 * n, sizeof(*l->tensors)),
        .keys = calloc(2 * n, sizeof(*l->keys)),
        .turned = malloc((e->n_params + 1) * sizeof(*l->turned)),
    };
    if (!l->tensors || !l->keys || !l->turned) {
        listing_release(l);
        return error_nomem(err, (e->n_params + 1) * sizeof(*l->turned));
    }
    next = l->turned;
    for (size_t i = 0; i < n; i++) {
        const struct lora *lora = &e->lora[i];
        const enum site s = (enum site)(i % N_SITES);
        const float *a = lora->a, *b = lora->b;

        if (!lora->rank)
            continue;
        if (c->rope_interleaved && (s == SITE_Q || s == SITE_K)) {
            turn_rows(next, lora, c, s);
            b = next;
            next += lora->n_out * lora->rank;
            if (e->kind == EXPERT_RES) {
                turn_columns(next, lora, c, s);
                a = next;
                next += lora->n_a * lora->rank;
            }
        }
        list_tensor(l, i / N_SITES, s, 'A', a, lora->rank, lora->n_a);
        list_tensor(l, i / N_SITES, s, 'B', b, lora->n_out, lora->rank);
    }
    return 0;
}

static int write_weights(const char *path, const struct expert *e,
                         const struct model_config *c, struct artel_error *err)
{
    const struct key_value metadata[] = {{"format", "pt"}};
    struct listing l;
    int rc = listing_init(&l, e, c, err);

    if (rc < 0)
        return rc;
    rc = safetensors_write(path, l.tensors, l.n, metadata, 1, err);
    listing_release(&l);
    return rc;
}

static int write_notes(const char *path, const struct expert *e,
                       const struct adapter_notes *n, const char *weights_digest,
                       struct artel_error *err)
{
    json_t *root = json_pack(
        "{s:i, s:s, s:s, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:s, s:O?}",
        "format_version", SAVE_FORMAT_VERSION, "artel_version", ARTEL_VERSION, "name",
        e->name, "domain", n->domain, "base_path", n->base_path, "base_digest",
        n->base_digest, "tokenizer_digest", n->tokenizer_digest, "chat_digest",
        n->chat_digest, "data_digest", n->data_digest, "weights_digest", weights_digest,
        "training", n->training);
    int rc;

    if (!root || (n->universal_digest &&
                  json_object_set_new(root, "universal_digest",
                                      json_string(n->universal_digest)))) {
        json_decref(root);
        return error_nomem(err, 0);
    }
    rc = json_write_file(path, root, false, err);
    json_decref(root);
    return rc;
}

static int check_writable(const struct expert *e, const struct model_config *c,
                          struct artel_error *err)
{
    if (e->kind == EXPERT_IDENTITY || expert_first_layer(e) == e->n_layers)
        return error_set(err, ARTEL_EUSAGE, "ADP06", e->name,
                         "an expert that adapts no linear cannot be an adapter");
    assert(e->n_layers == c->n_layers);
    return 0;
}

int adapter_write(const char *folder, const struct expert *e,
                  const struct model_config *c, const struct lora_options *as_asked,
                  const struct adapter_notes *notes, struct artel_error *err)
{
    static const struct adapter_notes none;
    char *weights = path_join(folder, ADAPTER_WEIGHTS);
    char *config = path_join(folder, ADAPTER_CONFIG);
    char *own = path_join(folder, ADAPTER_NOTES);
    char digest[DIGEST_SIZE];
    json_t *root = NULL;
    int rc;

    if (!notes)
        notes = &none;
    rc = weights && config && own ? check_writable(e, c, err)
                                  : error_nomem(err, strlen(folder));
    if (rc == 0)
        rc = peft_config_build(&root, e, as_asked, notes->base_path, err);
    if (rc == 0)
        rc = make_folder(folder, err);
    if (rc == 0) {
        remove_leftovers(folder);
        rc = write_weights(weights, e, c, err);
    }
    if (rc == 0)
        rc = digest_file(digest, weights, err);
    if (rc == 0)
        rc = json_write_file(config, root, true, err);
    if (rc == 0)
        rc = write_notes(own, e, notes, digest, err);
    json_decref(root);
    free(weights);
    free(config);
    free(own);
    return rc < 0 ? error_in(err, rc, folder) : 0;
}
