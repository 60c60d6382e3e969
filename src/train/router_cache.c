/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training routers alone. While experts are frozen and labels pick them, what a
 * router reads does not depend on any router: the decoder runs over each row
 * once, and later epochs work from the kept inputs; so do later trainings, from
 * those on disk (kept_inputs.h).
 *
 *     d_W_r = w * sum over rows of (softmax(W_r z) - onehot(label)) z^T
 *
 * Routers are shared out to threads and each adds its rows in their order, so
 * the sum is the same for any number of threads, kept inputs or not.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/error.h"
#include "math/kernels.h"
#include "train/kept_inputs.h"
#include "train/trainer_parts.h"

void cache_carve(struct router_cache *c, struct arena *a, size_t n_routers, size_t dim,
                 size_t room)
{
    c->room = room;
    c->used = 0;
    c->row_floats = n_routers * dim;
    index_carve(&c->places, a, room);
    c->row = arena_take(a, room * sizeof(*c->row));
    c->z = arena_f32(a, room * c->row_floats);
}

float *cache_find(const struct router_cache *c, const struct example *row)
{
    const uint32_t at = index_get(&c->places, index_key(row));

    return at == INDEX_NONE ? NULL : c->z + at * c->row_floats;
}

float *cache_put(struct router_cache *c, const struct example *row)
{
    const size_t at = c->used;

    if (at >= c->room)
        return NULL;
    index_put(&c->places, index_key(row), (uint32_t)at);
    c->row[at] = row;
    c->used++;
    return c->z + at * c->row_floats;
}

/* Gradient and loss of one router from all rows. */
static double one_router(struct artel_trainer *t, size_t router, const float *const *z,
                         const struct example *const *rows, size_t n_rows, float weight,
                         size_t *right)
{
    const struct mixture *m = t->mixture;
    const struct router *r = &m->routers[router];
    const size_t E = r->n_experts, D = r->dim;
    const struct kernels *k = kernels();
    float *d_w = t->sum.routers + (r->w - m->router_params);
    double loss = 0.0;

    for (size_t i = 0; i < n_rows; i++) {
        const float *zi = z[i] + router * D;
        const size_t label = rows[i]->domain;
        float max = -INFINITY, sum = 0.0f, of_label = 0.0f;
        size_t best = 0;

        /* Logits twice rather than a buffer: E is small and D is long. */
        for (size_t e = 0; e < E; e++) {
            const float logit = k->dot(zi, r->w + e * D, D) + (r->b ? r->b[e] : 0.0f);

            best = logit > max ? e : best;
            max = logit > max ? logit : max;
            of_label = e == label ? logit : of_label;
        }
        for (size_t e = 0; e < E; e++)
            sum += expf(k->dot(zi, r->w + e * D, D) + (r->b ? r->b[e] : 0.0f) - max);
        for (size_t e = 0; e < E; e++) {
            const float logit = k->dot(zi, r->w + e * D, D) + (r->b ? r->b[e] : 0.0f);
            const float slope = weight * (expf(logit - max) / sum - (e == label));

            k->axpy(d_w + e * D, slope, zi, D);
            if (r->b)
                t->sum.routers[r->b - m->router_params + e] += slope;
        }
        loss += log((double)sum) + (double)max - (double)of_label;
        *right += best == label;
    }
    return loss;
}

/* Run the decoder over N new rows and keep what their routers read in Z. */
static int read_rows(struct artel_trainer *t, const struct example *const *rows,
                     size_t n, float *const *z, struct artel_error *err)
{
    const size_t n_routers = t->mixture->n_routers;
    const size_t D = t->mixture->routers[0].dim;
    size_t n_blocks;
    const int rc = trainer_lay_blocks(t, &n_blocks, rows, n, 0.0f, err);

    if (rc < 0)
        return rc;
    if (t->staged) {
        wave_read_inputs(t, n_blocks, z);
        return 0;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(t->n_threads)
    for (size_t b = 0; b < n_blocks; b++) {
        struct decoder_pass *p = t->pass[omp_get_thread_num()];
        const size_t first = (size_t)(t->blocks[b].seqs - t->seqs);

        decoder_forward(p, &t->blocks[b]);
        for (size_t s = 0; s < t->blocks[b].n_seqs; s++)
            for (size_t r = 0; r < n_routers; r++)
                memcpy(z[first + s] + r * D, pass_router_input(p, r, s),
                       D * sizeof(**z));
    }
    return 0;
}

/* Inputs of all rows into T's list Z, from disk, from the cache or by the decoder. */
static int find_inputs(struct artel_trainer *t, const struct example *const *rows,
                       size_t n_rows, struct artel_error *err)
{
    size_t n_fresh = 0, n_spill = 0;
    int rc = trainer_input_room(t, n_rows, err);

    for (size_t i = 0; rc == 0 && i < n_rows; i++) {
        float *z;

        t->z[i] = t->options.kept ? kept_inputs_find(t->options.kept, rows[i]) : NULL;
        if (!t->z[i])
            t->z[i] = cache_find(&t->cache, rows[i]);
        if (t->z[i])
            continue;
        z = cache_put(&t->cache, rows[i]);
        if (!z)
            z = t->spill + n_spill++ * t->cache.row_floats;
        t->z[i] = z;
        t->fresh[n_fresh] = rows[i];
        t->fresh_z[n_fresh++] = z;
    }
    if (rc == 0 && n_fresh)
        rc = read_rows(t, t->fresh, n_fresh, t->fresh_z, err);
    t->n_computed += n_fresh;
    return rc;
}

/* Fewer than an eighth of what is written make no file of their own: files stay few. */
void trainer_keep_inputs(struct artel_trainer *t, bool last)
{
    struct router_cache *c = &t->cache;
    const size_t fresh = c->used - c->written;

    if (!t->options.kept || !fresh || (!last && fresh < c->written / 8))
        return;
    kept_inputs_write(t->options.kept, c->row + c->written,
                      c->z + c->written * c->row_floats, fresh);
    c->written = c->used;
}

size_t trainer_rows_computed(const struct artel_trainer *t)
{
    return t->n_computed;
}

int router_only_step(struct artel_trainer *t, const struct example *const *rows,
                     size_t n_rows, float weight, struct block_loss *total,
                     struct artel_error *err)
{
    size_t right = 0;
    double loss = 0.0;
    const int rc = find_inputs(t, rows, n_rows, err);

    if (rc < 0)
        return rc;
#pragma omp parallel for ordered schedule(static, 1) num_threads(t->n_threads)
    for (size_t r = 0; r < t->mixture->n_routers; r++) {
        size_t n_right = 0;
        const double one = one_router(t, r, t->z, rows, n_rows, weight, &n_right);

#pragma omp ordered
        {
            loss += one;
            right = n_right; /* the last router's stays */
        }
    }
    total->router_ce += loss;
    total->router_right += right;
    total->n_routed += n_rows;
    return 0;
}
