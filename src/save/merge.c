/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows are computed apart, each by one thread: the bits do not depend on how many
 * there are. The update of a row is summed first and then added to the weight, so
 * that its small numbers are not rounded at the weight's size R times over:
 *
 *     |stored - exact| <= (R + 2) u sum_r |s B_ir A_rj| + u |W'_ij|, u = 2^-24
 *
 * before the rounding to the stored format.
 */
#include "save/merge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/cpu.h"
#include "base/map.h"
#include "decoder/frozen.h"
#include "math/kernels.h"
#include "math/quantise.h"
#include "save/adapter_parts.h"

#define ROOM_ROWS 3 /* a thread's: the weights, their update, what is stored */

void merge_release(struct merge *m)
{
    free(m->tensors);
    free(m->entries);
    free(m->names);
    free(m->missing);
    *m = (struct merge){0};
}

int merge_init(struct merge *m, const struct artel_model *model,
               const struct expert *expert, size_t n, struct artel_error *err)
{
    *m = (struct merge){.model = model, .expert = expert};
    m->tensors = calloc(n + 1, sizeof(*m->tensors));
    m->entries = calloc(n + 1, sizeof(*m->entries));
    return m->tensors && m->entries ? 0 : error_nomem(err, n * sizeof(*m->tensors));
}

size_t merge_linear(const struct weights *w, const struct tensor *t)
{
    for (size_t i = 0; i < w->config.n_layers * N_SITES; i++)
        if (w->layers[i / N_SITES].site[i % N_SITES].data == t->data)
            return i;
    return MERGE_NONE;
}

/* Index of the kind, a new one where there is none yet. */
static size_t find_kind(struct merge *m, const char *name, enum dtype from,
                        enum dtype to)
{
    size_t i = 0;

    while (i < m->n_kinds && (strcmp(m->kinds[i].name, name) != 0 ||
                              m->kinds[i].from != from || m->kinds[i].to != to))
        i++;
    if (i == m->n_kinds && i < MERGE_KINDS)
        m->kinds[m->n_kinds++] =
            (struct merge_kind){.name = name, .from = from, .to = to};
    return i < MERGE_KINDS ? i : MERGE_KINDS - 1;
}

static bool is_adapted(const struct merge *m, size_t linear)
{
    return m->expert && linear != MERGE_NONE && m->expert->lora[linear].rank;
}

int merge_add(struct merge *m, const char *name, const struct tensor *from,
              enum dtype to, struct artel_error *err)
{
    const size_t linear = merge_linear(m->model->weights, from);
    const size_t row = from->n_dims ? from->shape[from->n_dims - 1] : 1;
    struct merge_entry *e = &m->entries[m->n];
    struct tensor *t = &m->tensors[m->n++];
    const bool turned = m->to_hf && m->model->weights->config.rope_interleaved &&
                        linear != MERGE_NONE && linear % N_SITES <= SITE_K;

    *t = *from;
    t->name = name;
    t->data = NULL;
    t->dtype = to;
    *e = (struct merge_entry){.from = from, .linear = linear};
    if (to == from->dtype && !is_adapted(m, linear) && !turned) {
        e->copied = true;
        return 0;
    }
    if (!dtype_is_weight(from->dtype) || !quantise_knows(to) ||
        row % dtype_block_elems(to))
        return error_set(err, ARTEL_EUSAGE, "CNV05", name,
                         "rows of %zu numbers in %s cannot be written as %s", row,
                         dtype_name(from->dtype), dtype_name(to));
    t->bytes = tensor_elems(from) / dtype_block_elems(to) * dtype_block_bytes(to);
    e->kind = find_kind(
        m, linear == MERGE_NONE ? "other" : site_name((enum site)(linear % N_SITES)),
        from->dtype, to);
    m->kinds[e->kind].n_tensors++;
    return 0;
}

/* What one thread works with, and what it found for each row. */
struct rows_job {
    struct merge *m;
    const struct merge_entry *e;
    const struct tensor *to;
    size_t width, first;
    unsigned char *out;
    double (*sums)[4]; /* (n) weight, update, error, along */
};

static void add_update(const struct rows_job *j, float *w, float *update, size_t row,
                       double *sum)
{
    const struct lora *l = &j->m->expert->lora[j->e->linear];

    lora_add_row(update, l, 1.0f, row);
    for (size_t k = 0; k < j->width; k++) {
        *sum += (double)update[k] * (double)update[k];
        w[k] += update[k];
    }
}

/* Row I of the piece; ROOM holds ROOM_ROWS rows. False where a number does not fit. */
static bool make_row(const struct rows_job *j, size_t i, float *room)
{
    const struct model_config *c = &j->m->model->weights->config;
    const struct tensor *from = j->e->from;
    const size_t from_bytes =
        j->width / dtype_block_elems(from->dtype) * dtype_block_bytes(from->dtype);
    const size_t to_bytes =
        j->width / dtype_block_elems(j->to->dtype) * dtype_block_bytes(j->to->dtype);
    float *w = room, *update = room + j->width, *stored = update + j->width;
    unsigned char *out = j->out + i * to_bytes;
    double *sums = j->sums[i];
    size_t row = j->first + i;

    if (j->m->to_hf && j->e->linear != MERGE_NONE)
        row = hf_row(c, (enum site)(j->e->linear % N_SITES), row);
    kernels()->dequant[from->dtype](w, (const char *)from->data + row * from_bytes,
                                    j->width);
    memset(update, 0, j->width * sizeof(*update));
    if (is_adapted(j->m, j->e->linear))
        add_update(j, w, update, row, &sums[1]);
    if (!quantise(out, j->to->dtype, w, j->width))
        return false;
    kernels()->dequant[j->to->dtype](stored, out, j->width);
    for (size_t k = 0; k < j->width; k++) {
        const double error = (double)stored[k] - (double)w[k];

        sums[0] += (double)w[k] * (double)w[k];
        sums[2] += error * error;
        sums[3] += error * (double)update[k];
    }
    return true;
}

/* Every row, shared by the threads. The first row that does not fit, or N. */
static size_t make_rows(const struct rows_job *j, float *rooms, size_t n)
{
    size_t bad = n;

#pragma omp parallel for schedule(static) reduction(min : bad)
    for (size_t t = 0; t < cpu_threads(); t++)
        for (size_t i = n * t / cpu_threads(); i < n * (t + 1) / cpu_threads(); i++)
            if (!make_row(j, i, rooms + ROOM_ROWS * t * j->width))
                bad = i < bad ? i : bad;
    return bad;
}

int merge_rows(void *merge, void *out, const struct tensor *t, size_t first, size_t n,
               struct artel_error *err)
{
    struct merge *m = merge;
    const struct merge_entry *e = &m->entries[t - m->tensors];
    const size_t width = t->n_dims ? t->shape[t->n_dims - 1] : 1;
    const size_t row_bytes =
        width / dtype_block_elems(t->dtype) * dtype_block_bytes(t->dtype);
    struct rows_job j = {
        .m = m, .e = e, .to = t, .width = width, .first = first, .out = out};
    float *rooms;
    size_t bad = n;

    if (e->copied) {
        memcpy(out, (const char *)e->from->data + first * row_bytes, n * row_bytes);
    } else {
        rooms = malloc(ROOM_ROWS * cpu_threads() * width * sizeof(*rooms));
        j.sums = calloc(n, sizeof(*j.sums));
        if (rooms && j.sums)
            bad = make_rows(&j, rooms, n);
        for (size_t i = 0; j.sums && i < n; i++) {
            m->kinds[e->kind].weight += j.sums[i][0];
            m->kinds[e->kind].update += j.sums[i][1];
            m->kinds[e->kind].error += j.sums[i][2];
            m->kinds[e->kind].along += j.sums[i][3];
        }
        free(j.sums);
        free(rooms);
        if (!rooms || !j.sums)
            return error_nomem(err, n * sizeof(*j.sums));
    }
    if (bad < n)
        return error_set(err, ARTEL_EFORMAT, "CNV07", t->name,
                         "a number of row %zu does not fit %s; ask for another --type",
                         first + bad, dtype_name(t->dtype));
    if ((first + n) * row_bytes == t->bytes)
        map_forget(e->from->data, e->from->bytes); /* read once: let the pages go */
    return 0;
}
