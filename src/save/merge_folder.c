/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A merged model as a Hugging Face folder with one model.safetensors. From such a folder
 * every tensor is kept, also those that are no weights; from GGUF every weight gets its
 * name and q and k the order of their rows.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "decoder/frozen.h"
#include "files/safetensors.h"
#include "files/write.h"
#include "model/architectures.h"
#include "model/base_files.h"
#include "save/merge.h"

#define NAME_SIZE 96
#define WEIGHTS   "model.safetensors"

static int list_folder(struct merge *m, enum dtype type, struct artel_error *err)
{
    const struct base_files *files = m->model->weights->files;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < base_files_count(files); i++) {
        const struct tensor *t = base_files_at(files, i);

        rc = merge_add(m, t->name, t,
                       type == N_DTYPES || !dtype_is_weight(t->dtype) ? t->dtype : type,
                       err);
    }
    return rc;
}

/* The tensor at a place of the model. */
static const struct tensor *at_place(const struct weights *w, enum place p,
                                     size_t layer)
{
    switch (p) {
    case PLACE_EMBED:
        return &w->embed;
    case PLACE_FINAL_NORM:
        return &w->final_norm;
    case PLACE_HEAD:
        return &w->head;
    case PLACE_ATTN_NORM:
        return &w->layers[layer].attn_norm;
    case PLACE_FFN_NORM:
        return &w->layers[layer].ffn_norm;
    default:
        return &w->layers[layer].site[p];
    }
}

static int list_gguf(struct merge *m, enum dtype type, struct artel_error *err)
{
    const struct weights *w = m->model->weights;
    const struct architecture *a =
        architecture_find(w->config.architecture, strlen(w->config.architecture));
    const size_t n = w->config.n_layers * N_LAYER_PLACES + 3;
    int rc = 0;

    m->names = malloc(n * NAME_SIZE);
    if (!m->names)
        return error_nomem(err, n * NAME_SIZE);
    for (size_t layer = 0; layer < w->config.n_layers; layer++)
        for (int p = 0; rc == 0 && p < N_LAYER_PLACES; p++) {
            char *name = m->names + m->n * NAME_SIZE;

            place_name(name, NAME_SIZE, a->hf[p], layer);
            rc = merge_add(m, name, at_place(w, (enum place)p, layer), type, err);
        }
    for (int p = N_LAYER_PLACES; rc == 0 && p < N_PLACES; p++) {
        char *name = m->names + m->n * NAME_SIZE;

        if (p == PLACE_HEAD && w->config.tied)
            continue;
        place_name(name, NAME_SIZE, a->hf[p], 0);
        rc = merge_add(m, name, at_place(w, (enum place)p, 0), type, err);
    }
    return rc;
}

int merge_to_folder(struct merge *m, const char *folder,
                    const struct artel_model *model, const struct expert *expert,
                    enum dtype type, struct artel_error *err)
{
    const struct weights *w = model->weights;
    const struct tensor_maker maker = {.rows = merge_rows, .user = m};
    const size_t n =
        w->gguf ? w->config.n_layers * N_LAYER_PLACES + 3 : base_files_count(w->files);
    char *path = path_join(folder, WEIGHTS);
    int rc = merge_init(m, model, expert, n, err);

    m->to_hf = true;
    if (rc == 0 && !path)
        rc = error_nomem(err, strlen(folder));
    if (w->gguf && type == N_DTYPES)
        type = DTYPE_F16;
    if (rc == 0)
        rc = w->gguf ? hf_files_make(m, folder, type, err)
                     : hf_files_copy(folder, w, type, err);
    if (rc == 0)
        rc = w->gguf ? list_gguf(m, type, err) : list_folder(m, type, err);
    if (rc == 0)
        rc = safetensors_write_made(path, m->tensors, m->n, &maker, err);
    free(path);
    return rc;
}
