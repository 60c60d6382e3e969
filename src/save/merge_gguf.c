/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A merged model as a GGUF file: the source's keys byte for byte, its tensors in their
 * order, those of a split set in one file. Linears that changed are quantised anew.
 */
#include <stdlib.h>

#include "base/error.h"
#include "decoder/frozen.h"
#include "files/gguf.h"
#include "files/gguf_write.h"
#include "math/quantise.h"
#include "save/merge.h"

/* The format of a tensor: its own where it does not change or can be written. */
static enum dtype type_of(struct merge *m, const struct tensor *t, enum dtype type)
{
    const size_t linear = merge_linear(m->model->weights, t);
    const bool changes = m->expert
                             ? linear != MERGE_NONE && m->expert->lora[linear].rank
                             : type != N_DTYPES && t->n_dims == 2;

    if (!changes)
        return t->dtype;
    if (type != N_DTYPES)
        return type;
    if (quantise_knows(t->dtype))
        return t->dtype;
    m->n_substituted++;
    return DTYPE_Q8_0;
}

/* The number that tells readers what most of a file is in. */
static uint32_t file_type(enum dtype type)
{
    switch (type) {
    case DTYPE_F32:
        return 0;
    case DTYPE_F16:
        return 1;
    case DTYPE_BF16:
        return 32;
    default:
        return 7; /* Q8_0 */
    }
}

int merge_to_gguf(struct merge *m, const char *path, const struct artel_model *model,
                  const struct expert *expert, enum dtype type, struct artel_error *err)
{
    const struct gguf *g = model->weights->gguf;
    const struct tensor_maker maker = {.rows = merge_rows, .user = m};
    struct gguf_keys *keys = NULL;
    int rc;

    *m = (struct merge){0};
    if (!g)
        return error_set(err, ARTEL_EUSAGE, "CNV02", "to",
                         "a GGUF model is made of a GGUF base alone: it holds the "
                         "tokenizer in GGUF's form; write safetensors instead");
    rc = merge_init(m, model, expert, gguf_count(g), err);
    for (size_t i = 0; rc == 0 && i < gguf_count(g); i++) {
        const struct tensor *t = gguf_at(g, i);

        rc = merge_add(m, t->name, t, type_of(m, t, type), err);
    }
    if (rc == 0)
        rc = gguf_keys_open(&keys, err);
    if (rc == 0) {
        gguf_keys_copy(keys, g, type == N_DTYPES ? NULL : "general.file_type");
        if (type != N_DTYPES)
            gguf_keys_u32(keys, "general.file_type", file_type(type));
        rc = gguf_write(path, keys, m->tensors, m->n, &maker, err);
    }
    gguf_keys_close(keys);
    return rc;
}
