/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step over a base that is unpacked layer by layer: as many blocks as there is room
 * for, a wave, go through every layer together, and back.
 *
 * Each block's part of a layer's gradients is added in the order of the blocks, as
 * gather_grads does for all layers at once, or in turns: the same sums, the same bits.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "decoder/staged.h"
#include "math/kernels.h"
#include "train/trainer_parts.h"

/* Rows that a wave should have room for, in blocks of the usual size: a weight that is
 * unpacked thrice a wave then costs a tenth of its products. */
#define WAVE_ROWS    2048
#define WAVE_SPARE   4 /* a quarter more, for blocks that rows do not fill */
#define ROWS_PER_SEQ 16

/* What a wave is for. */
struct wave {
    size_t first, n; /* blocks */
    bool backward;
    size_t micro;
    struct block_loss *loss; /* (n) or NULL */
    float *const *z;         /* or where the router inputs of all sequences go */
};

size_t wave_bytes(const struct artel_model *model, const struct mixture *mixture,
                  const struct pass_options *o, const struct train_options *train)
{
    const size_t rows = train->wave_rows ? train->wave_rows : WAVE_ROWS;
    const size_t block_rows = train->block_rows;
    const size_t usual = (rows + rows / WAVE_SPARE) / block_rows;
    struct arena one = {0}, many = {0};

    pass_state_carve(&one, model, mixture, o, o->max_rows, o->max_seqs);
    for (size_t i = 0; i < usual && i < WAVE_BLOCKS; i++)
        pass_state_carve(&many, model, mixture, o, block_rows,
                         (block_rows + ROWS_PER_SEQ - 1) / ROWS_PER_SEQ);
    return one.used > many.used ? one.used : many.used;
}

/* States for the blocks from FIRST on, of N_BLOCKS, that find room. Returns how many. */
static size_t lay(struct artel_trainer *t, size_t first, size_t n_blocks)
{
    struct arena measure = {0};
    size_t n = 0;

    t->wave.used = 0;
    for (; first + n < n_blocks && n < WAVE_BLOCKS; n++) {
        const struct block *b = &t->blocks[first + n];

        pass_state_carve(&measure, t->model, t->mixture, &t->pass_options, b->n_rows,
                         b->n_seqs);
        if (measure.used > t->wave.size)
            break;
        t->states[n] = pass_state_carve(&t->wave, t->model, t->mixture,
                                        &t->pass_options, b->n_rows, b->n_seqs);
    }
    return n;
}

/* Unpack a layer; all threads, which meet behind it. */
static void fill(struct artel_trainer *t, size_t layer, int use)
{
    const size_t pieces = stage_pieces(t->model);

#pragma omp for schedule(dynamic, 2)
    for (size_t i = 0; i < pieces; i++)
        stage_fill(t->model, layer, i, use, t->stage_room[omp_get_thread_num()]);
}

static struct decoder_pass *own_pass(const struct artel_trainer *t)
{
    return t->pass[omp_get_thread_num()];
}

/* A thread that finds no more blocks goes on to the next layer's weights. */
static void forward(struct artel_trainer *t, const struct wave *w)
{
    const size_t L = t->model->weights->config.n_layers;

#pragma omp for schedule(dynamic, 1) nowait
    for (size_t b = 0; b < w->n; b++)
        staged_begin(own_pass(t), t->states[b], &t->blocks[w->first + b],
                     trainer_block_seed(t, w->micro, w->first + b));
    fill(t, 0, MATRIX_FORWARD);
    for (size_t l = 0; l < L; l++) {
#pragma omp for schedule(dynamic, 1) nowait
        for (size_t b = 0; b < w->n; b++)
            staged_forward(own_pass(t), t->states[b], l);
        if (l + 1 < L)
            fill(t, l + 1, MATRIX_FORWARD);
        else if (w->backward)
            fill(t, l, MATRIX_BACKWARD);
    }
#pragma omp barrier
}

static void read_inputs(struct artel_trainer *t, struct decoder_pass *p,
                        const struct wave *w, size_t b)
{
    const struct block *block = &t->blocks[w->first + b];
    const size_t first = (size_t)(block->seqs - t->seqs);
    const size_t D = t->mixture->routers[0].dim;

    for (size_t s = 0; s < block->n_seqs; s++)
        for (size_t r = 0; r < t->mixture->n_routers; r++)
            memcpy(w->z[first + s] + r * D, pass_router_input(p, r, s),
                   D * sizeof(**w->z));
}

static void ends(struct artel_trainer *t, const struct wave *w)
{
#pragma omp for schedule(dynamic, 1)
    for (size_t b = 0; b < w->n; b++) {
        staged_enter(own_pass(t), t->states[b]);
        if (w->backward)
            trainer_see(t, own_pass(t), &t->blocks[w->first + b]);
        if (w->z)
            read_inputs(t, own_pass(t), w, b);
        else
            decoder_loss(own_pass(t), &w->loss[b], NULL);
    }
}

static void add(float *sum, float *part, size_t at, size_t n)
{
    kernels()->axpy(sum + at, 1.0f, part + at, n);
    memset(part + at, 0, n * sizeof(*part));
}

/* What a thread found of a layer's gradients to the step's. */
static void commit_layer(struct artel_trainer *t, struct mixture_grads *part,
                         size_t layer)
{
    const struct mixture *m = t->mixture;
    const size_t per_layer = m->n_routers / m->n_layers;

    for (size_t e = 0; e < m->n_experts; e++) {
        const struct expert *x = &m->experts[e];

        if (!part->touched[e])
            continue;
        for (int s = 0; s < N_SITES; s++) {
            const struct lora *l = expert_lora(x, layer, (enum site)s);

            if (!l->rank)
                continue;
            add(t->sum.expert[e], part->expert[e], l->d_a, l->rank * l->n_in);
            add(t->sum.expert[e], part->expert[e], l->d_b, l->rank * l->n_out);
        }
        t->sum.touched[e] = true;
        part->touched[e] = false;
    }
    for (size_t r = layer * per_layer; part->routers && r < (layer + 1) * per_layer;
         r++) {
        const struct router *x = &m->routers[r];

        add(t->sum.routers, part->routers, (size_t)(x->w - m->router_params),
            x->n_experts * x->dim);
        if (x->b)
            add(t->sum.routers, part->routers, (size_t)(x->b - m->router_params),
                x->n_experts);
    }
}

static void backward(struct artel_trainer *t, const struct wave *w)
{
    const size_t first = t->pass_options.first_layer;

    for (size_t l = t->model->weights->config.n_layers; l-- > first;) {
#pragma omp for ordered schedule(dynamic, 1) nowait
        for (size_t b = 0; b < w->n; b++) {
            struct mixture_grads *part = &t->part[omp_get_thread_num()];

            part->item = b;
            staged_backward(own_pass(t), t->states[b], l, part);
#pragma omp ordered
            if (!t->relayed)
                commit_layer(t, part, l);
        }
        if (l > first)
            fill(t, l - 1, MATRIX_FORWARD | MATRIX_BACKWARD);
    }
}

/* First block of the wave whose loss is not finite, or N. */
static size_t bad_of(const struct wave *w)
{
    size_t b = 0;

    while (b < w->n && isfinite(w->loss[b].nll) && isfinite(w->loss[b].router_ce))
        b++;
    return b;
}

static void run(struct artel_trainer *t, const struct wave *w)
{
    trainer_begin_relay(t, w->n);
#pragma omp parallel num_threads((int)t->n_threads)
    {
        forward(t, w);
        ends(t, w);
        if (w->backward && bad_of(w) == w->n)
            backward(t, w);
    }
    trainer_end_relay(t);
}

size_t wave_grads(struct artel_trainer *t, size_t n_blocks, size_t micro,
                  struct block_loss *total, size_t *bad_layer)
{
    struct block_loss loss[WAVE_BLOCKS];
    struct wave w = {.backward = true, .micro = micro, .loss = loss};

    for (; w.first < n_blocks; w.first += w.n) {
        size_t bad;

        w.n = lay(t, w.first, n_blocks);
        run(t, &w);
        bad = bad_of(&w);
        if (bad < w.n) {
            staged_enter(t->pass[0], t->states[bad]);
            *bad_layer = pass_nonfinite_layer(t->pass[0]);
            return w.first + bad;
        }
        for (size_t b = 0; b < w.n; b++)
            trainer_add_loss(total, &loss[b]);
    }
    return n_blocks;
}

void wave_eval(struct artel_trainer *t, size_t n_blocks, struct block_loss *total)
{
    struct block_loss loss[WAVE_BLOCKS];
    struct wave w = {.loss = loss};

    for (; w.first < n_blocks; w.first += w.n) {
        w.n = lay(t, w.first, n_blocks);
        run(t, &w);
        for (size_t b = 0; b < w.n; b++)
            trainer_add_loss(total, &loss[b]);
    }
}

void wave_read_inputs(struct artel_trainer *t, size_t n_blocks, float *const *z)
{
    struct wave w = {.z = z};

    for (; w.first < n_blocks; w.first += w.n) {
        w.n = lay(t, w.first, n_blocks);
        run(t, &w);
    }
}
