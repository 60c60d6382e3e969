/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step: cut the rows into blocks, take each block through the decoder and
 * back on one thread, add the blocks' gradients in their order, update.
 *
 * Blocks depend on the batch alone, never on the number of threads, and block i is
 * added before block i + 1: the same bits for any number of threads. In fp32 a thread
 * has gradients of its own, which an ordered section adds, and which are zeroed only
 * where they were touched. In bf16, where that would cost more than finding them, blocks
 * add to the step's in turns, a group of linears at a time.
 */
#include "train/trainer.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/list.h"
#include "experts/fold.h"
#include "experts/stack.h"
#include "math/kernels.h"
#include "train/trainer_parts.h"

#define BLOCK_ROWS     256
#define BLOCK_ROWS_MIN 64
#define BLOCKS_WANTED  6 /* a step of few rows is cut finer, so that threads share it */

int trainer_room(struct artel_trainer *t, size_t n_rows, struct artel_error *err)
{
    int rc;

    if (n_rows <= t->room_rows)
        return 0;
    rc = list_grow(&t->seqs, n_rows, sizeof(*t->seqs), err);
    if (rc == 0)
        rc = list_grow(&t->blocks, n_rows, sizeof(*t->blocks), err);
    if (rc == 0)
        rc = list_grow(&t->items, n_rows, sizeof(*t->items), err);
    if (rc == 0)
        t->room_rows = n_rows;
    return rc;
}

int trainer_input_room(struct artel_trainer *t, size_t n_rows, struct artel_error *err)
{
    int rc;

    if (n_rows <= t->room_inputs)
        return 0;
    rc = list_grow(&t->fresh, n_rows, sizeof(*t->fresh), err);
    if (rc == 0)
        rc = list_grow(&t->z, n_rows, sizeof(*t->z), err);
    if (rc == 0)
        rc = list_grow(&t->fresh_z, n_rows, sizeof(*t->fresh_z), err);
    if (rc == 0)
        rc = list_grow(&t->spill, n_rows, t->cache.row_floats * sizeof(*t->spill), err);
    if (rc == 0)
        t->room_inputs = n_rows;
    return rc;
}

static int seen_room(struct artel_trainer *t, size_t n_rows, struct artel_error *err)
{
    const size_t floats = seen_floats(t);
    int rc;

    t->n_seen = 0;
    if (!floats || n_rows <= t->room_seen)
        return 0;
    rc = list_grow(&t->seen, n_rows, floats * sizeof(*t->seen), err);
    if (rc == 0)
        rc = list_grow(&t->saw, n_rows, sizeof(*t->saw), err);
    if (rc == 0)
        t->room_seen = n_rows;
    return rc;
}

/* Blocks of whole rows, in the order of the batch. */
int trainer_lay_blocks(struct artel_trainer *t, size_t *n_blocks,
                       const struct example *const *rows, size_t n_rows,
                       float loss_scale, struct artel_error *err)
{
    const int forced = t->options.forced_expert;
    size_t n_tokens = 0, aim, used = 0;
    int rc;

    *n_blocks = 0;
    for (size_t i = 0; i < n_rows; i++)
        n_tokens += rows[i]->n;
    aim = n_tokens / BLOCKS_WANTED;
    aim = aim < BLOCK_ROWS_MIN ? BLOCK_ROWS_MIN : aim;
    aim = aim > t->options.block_rows ? t->options.block_rows : aim;
    rc = trainer_room(t, n_rows, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n_rows; i++) {
        const struct example *row = rows[i];
        struct block *b = used ? &t->blocks[used - 1] : NULL;

        if (row->n > t->options.max_row_tokens)
            return error_set(err, ARTEL_ELIMIT, "TRN01", "row",
                             "row %zu has %zu tokens, the trainer was laid out for %zu",
                             row->row, row->n, t->options.max_row_tokens);
        t->seqs[i] =
            (struct sequence){.ids = row->ids,
                              .n = row->n,
                              .loss = row->loss,
                              .pool_first = row->pool_first,
                              .pool_n = row->pool_n,
                              .loss_scale = loss_scale,
                              .expert = forced >= 0             ? forced
                                        : t->options.unlabelled ? -1
                                                                : (int)row->domain};
        if (!b || b->n_rows + row->n > aim) {
            b = &t->blocks[used++];
            *b = (struct block){.seqs = &t->seqs[i]};
        }
        b->n_seqs++;
        b->n_rows += row->n;
    }
    *n_blocks = used;
    return 0;
}

/* Add a thread's gradients to the step's, and zero them. */
static void commit(struct artel_trainer *t, struct mixture_grads *part)
{
    const struct kernels *k = kernels();

    for (size_t e = 0; e < t->mixture->n_experts; e++) {
        const size_t n = t->mixture->experts[e].n_grads;

        if (!part->touched[e])
            continue;
        k->axpy(t->sum.expert[e], 1.0f, part->expert[e], n);
        memset(part->expert[e], 0, n * sizeof(float));
        t->sum.touched[e] = true;
        part->touched[e] = false;
    }
    if (!part->routers)
        return;
    k->axpy(t->sum.routers, 1.0f, part->routers, t->mixture->n_router_params);
    memset(part->routers, 0, t->mixture->n_router_params * sizeof(float));
}

void trainer_begin_relay(struct artel_trainer *t, size_t n)
{
    if (t->relayed)
        relay_begin(&t->relay, t->items, n);
}

void trainer_end_relay(struct artel_trainer *t)
{
    for (size_t i = 0; t->relayed && i < t->n_threads; i++)
        for (size_t e = 0; e < t->mixture->n_experts; e++) {
            t->sum.touched[e] |= t->part[i].touched[e];
            t->part[i].touched[e] = false;
        }
}

void trainer_add_loss(struct block_loss *total, const struct block_loss *one)
{
    total->nll += one->nll;
    total->n_tokens += one->n_tokens;
    total->scaled += one->scaled;
    total->router_ce += one->router_ce;
    total->balance += one->balance;
    total->router_right += one->router_right;
    total->n_routed += one->n_routed;
}

/* What is in the sums of expert E is T's; of other lanes' experts it is theirs. */
static bool moves(const struct artel_trainer *t, size_t e)
{
    return !t->is_lane || (int)e == t->options.forced_expert;
}

void trainer_zero_sums(struct artel_trainer *t)
{
    if (!t->unclean)
        return;
    for (size_t e = 0; e < t->mixture->n_experts; e++) {
        if (!t->sum.touched[e] || !moves(t, e))
            continue;
        memset(t->sum.expert[e], 0, t->mixture->experts[e].n_grads * sizeof(float));
        if (t->own[e])
            memset(t->own[e], 0, t->mixture->experts[e].n_params * sizeof(float));
        t->sum.touched[e] = false;
    }
    if (t->sum.routers)
        memset(t->sum.routers, 0, t->mixture->n_router_params * sizeof(float));
}

uint64_t trainer_block_seed(const struct artel_trainer *t, size_t micro, size_t block)
{
    return (t->options.seed * 0x9e3779b97f4a7c15ull) ^ (t->step << 32) ^ (micro << 20) ^
           (block << 10);
}

/* Gradients of block B, which is in P, to those of the step. */
static void find_grads(struct artel_trainer *t, struct decoder_pass *p,
                       struct mixture_grads *part, size_t b, bool finite)
{
    part->item = b;
    if (finite)
        decoder_backward(p, part);
    if (t->relayed && finite)
        relay_end(&t->relay, b);
    else if (t->relayed)
        relay_give_up(&t->relay, b);
}

/* Forward and backward of all blocks, gradients into SUM. Returns the first block whose
 * loss is not finite, or N_BLOCKS. */
static size_t block_grads(struct artel_trainer *t, size_t n_blocks, size_t micro,
                          struct block_loss *total, size_t *bad_layer)
{
    size_t bad = n_blocks;

    trainer_begin_relay(t, n_blocks);
#pragma omp parallel for ordered schedule(dynamic, 1) num_threads(t->n_threads)
    for (size_t b = 0; b < n_blocks; b++) {
        const int thread = omp_get_thread_num();
        struct decoder_pass *p = t->pass[thread];
        struct block_loss loss;
        bool finite;

        pass_set_dropout_seed(p, trainer_block_seed(t, micro, b));
        decoder_forward(p, &t->blocks[b]);
        trainer_see(t, p, &t->blocks[b]);
        decoder_loss(p, &loss, NULL);
        finite = isfinite(loss.nll) && isfinite(loss.router_ce);
        find_grads(t, p, &t->part[thread], b, finite);
#pragma omp ordered
        {
            if (!finite && bad == n_blocks) {
                bad = b;
                *bad_layer = pass_nonfinite_layer(p);
            }
            if (!t->relayed)
                commit(t, &t->part[thread]);
            trainer_add_loss(total, &loss);
        }
    }
    trainer_end_relay(t);
    return bad;
}

size_t trainer_run_blocks(struct artel_trainer *t, size_t n_blocks, size_t micro,
                          struct block_loss *total, size_t *bad_layer)
{
    return t->staged ? wave_grads(t, n_blocks, micro, total, bad_layer)
                     : block_grads(t, n_blocks, micro, total, bad_layer);
}

/* One micro-batch. */
static int gather_grads(struct artel_trainer *t, const struct batch *batch,
                        size_t micro, float loss_scale, float router_ce,
                        struct block_loss *total, struct artel_error *err)
{
    size_t n_blocks, bad, bad_layer = 0;
    char where[160];
    int rc, e;

    rc = trainer_lay_blocks(t, &n_blocks, batch->rows, batch->n_rows, loss_scale, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < t->n_threads; i++)
        pass_set_router_ce(t->pass[i], router_ce);
    bad = trainer_run_blocks(t, n_blocks, micro, total, &bad_layer);
    if (bad == n_blocks)
        return 0;
    e = t->blocks[bad].seqs[0].expert;
    snprintf(where, sizeof(where), "step %llu, layer %zu, expert %s",
             (unsigned long long)t->step + 1, bad_layer,
             e >= 0 ? t->mixture->experts[e].name : "none");
    return error_set(err, ARTEL_ENONFINITE, "NAN01", where,
                     "the loss is not finite; nothing was updated");
}

/* Name the first gradient that is not finite. */
static int blame_gradient(const struct artel_trainer *t, struct artel_error *err)
{
    char where[160];

    for (size_t g = 0; g < t->n_groups; g++) {
        const struct adamw_group *group = &t->groups[g];
        const int e = mixture_find(t->mixture, group->name);

        for (size_t i = 0; group->touched && i < group->n; i++) {
            size_t at = 0;

            if (isfinite(group->g[i]))
                continue;
            if (e >= 0) {
                const struct expert *x = &t->mixture->experts[e];

                while (at + 1 < x->n_layers * N_SITES &&
                       (!x->lora[at].rank ||
                        x->lora[at].b + x->lora[at].rank * x->lora[at].n_out <=
                            x->params + i))
                    at++;
            }
            snprintf(where, sizeof(where), "step %llu, %s, layer %zu, %s",
                     (unsigned long long)t->step + 1, group->name, at / N_SITES,
                     e >= 0 ? site_name((enum site)(at % N_SITES)) : "router");
            return error_set(err, ARTEL_ENONFINITE, "NAN02", where,
                             "a gradient is not finite; nothing was updated");
        }
    }
    return error_set(err, ARTEL_ENONFINITE, "NAN02", NULL,
                     "the gradient norm is not finite; nothing was updated");
}

/* Gradients of what experts are folded into become those of their parameters, which AdamW
 * clears behind itself; the folded ones are cleared here. */
static void unfold(struct artel_trainer *t)
{
    const struct mixture *m = t->mixture;
    float *universal = m->rule.n_fixed ? t->sum.expert[0] : NULL;

    for (size_t e = 1; e < m->n_experts; e++) {
        if (m->experts[e].kind != EXPERT_RES || !t->sum.touched[e])
            continue;
        mixture_unfold(t->own[e], universal, m, e, t->sum.expert[e]);
        memset(t->sum.expert[e], 0, m->experts[e].n_grads * sizeof(float));
        t->sum.touched[0] |= universal != NULL;
    }
}

static void touch_groups(struct artel_trainer *t)
{
    for (size_t g = 0; g < t->n_groups; g++) {
        const int e = mixture_find(t->mixture, t->groups[g].name);

        t->groups[g].touched = e < 0 || t->sum.touched[e];
    }
}

/* All gradients of the step into SUM and what they cost into TOTAL. */
static int all_grads(struct artel_trainer *t, const struct batch *micro, size_t n_micro,
                     struct step_report *out, struct block_loss *total,
                     struct artel_error *err)
{
    size_t n_rows = 0;
    float loss_scale, router_ce = 0.0f;
    int rc = 0;

    for (size_t i = 0; i < n_micro; i++) {
        out->n_tokens += micro[i].n_tokens;
        out->n_loss += micro[i].n_loss;
        n_rows += micro[i].n_rows;
    }
    rc = seen_room(t, n_rows, err);
    loss_scale = out->n_loss ? 1.0f / (float)out->n_loss : 0.0f;
    if (t->mixture->n_routers)
        router_ce = (t->options.lm_loss ? t->options.eta : 1.0f) /
                    (float)(t->mixture->n_routers * n_rows);
    if (t->options.balance > 0.0f && out->n_tokens)
        for (size_t i = 0; i < t->n_threads; i++)
            pass_set_balance(t->pass[i],
                             t->options.balance /
                                 (float)(t->mixture->n_routers * out->n_tokens));
    for (size_t i = 0; rc == 0 && i < n_micro; i++) {
        rc = t->options.lm_loss
                 ? gather_grads(t, &micro[i], i, loss_scale, router_ce, total, err)
                 : router_only_step(t, micro[i].rows, micro[i].n_rows, router_ce, total,
                                    err);
        t->n_seen += micro[i].n_rows;
    }
    return rc;
}

static void fill_report(struct step_report *out, const struct artel_trainer *t,
                        const struct block_loss *total, double norm, float factor)
{
    out->step = t->step;
    out->loss = total->n_tokens ? (float)(total->nll / (double)total->n_tokens) : 0.0f;
    if (total->n_routed) {
        out->router_loss = (float)(total->router_ce /
                                   (double)(total->n_routed * t->mixture->n_routers));
        out->router_accuracy = (float)total->router_right / (float)total->n_routed;
    }
    if (total->balance > 0.0)
        out->balance =
            (float)(total->balance / (double)(out->n_tokens * t->mixture->n_routers));
    out->grad_norm = (float)norm;
    out->rate = t->options.learning_rate * factor;
}

void trainer_renew(struct artel_trainer *t, const bool *changed)
{
    mixture_fold(t->mixture, changed);
    if (t->mixture->bare)
        trainer_wear(t, t->step);
    else if (t->mixture->stack)
        expert_stack_pack(t->mixture->stack, changed);
}

double trainer_norm(struct artel_trainer *t, struct step_report *out)
{
    unfold(t);
    trainer_unmask_slopes(t);
    out->penalty = trainer_add_l1(t);
    touch_groups(t);
    return adamw_norm(t->groups, t->n_groups);
}

void trainer_update(struct artel_trainer *t, const struct block_loss *total,
                    double norm, struct step_report *out)
{
    const float factor = schedule_factor(&t->options.schedule, t->step);

    fill_report(out, t, total, norm, factor);
    out->left_out =
        (double)(t->options.lm_loss ? out->loss : out->router_loss) > t->loss_limit;
    if (out->left_out)
        return;
    adamw_step(&t->adamw, t->groups, t->n_groups, factor, norm);
    out->step = ++t->step;
    trainer_renew(t, t->sum.touched);
    for (size_t e = 0; e < t->mixture->n_experts; e++)
        t->sum.touched[e] = t->sum.touched[e] && !moves(t, e);
    t->unclean = false;
    trainer_learn_seen(t);
}

int trainer_step(struct artel_trainer *t, const struct batch *micro, size_t n_micro,
                 struct step_report *out, struct artel_error *err)
{
    const double began = clock_seconds();
    struct block_loss total = {0};
    double norm;
    int rc;

    *out = (struct step_report){0};
    trainer_zero_sums(t);
    t->unclean = true;
    rc = all_grads(t, micro, n_micro, out, &total, err);
    if (rc < 0)
        return rc;
    norm = trainer_norm(t, out);
    if (!isfinite(norm))
        return blame_gradient(t, err);
    trainer_update(t, &total, norm, out);
    out->seconds = clock_seconds() - began;
    return 0;
}

void trainer_limit_loss(struct artel_trainer *t, double limit)
{
    t->loss_limit = limit;
}

static void block_eval(struct artel_trainer *t, size_t n_blocks,
                       struct block_loss *total)
{
#pragma omp parallel for ordered schedule(dynamic, 1) num_threads(t->n_threads)
    for (size_t b = 0; b < n_blocks; b++) {
        struct decoder_pass *p = t->pass[omp_get_thread_num()];
        struct block_loss loss;

        decoder_forward(p, &t->blocks[b]);
        decoder_loss(p, &loss, NULL);
#pragma omp ordered
        trainer_add_loss(total, &loss);
    }
}

int trainer_eval(struct artel_trainer *t, const struct example *const *rows,
                 size_t n_rows, struct eval_report *out, struct artel_error *err)
{
    struct block_loss total = {0};
    size_t n_blocks;
    const int rc = trainer_lay_blocks(t, &n_blocks, rows, n_rows, 0.0f, err);

    *out = (struct eval_report){.n_rows = n_rows};
    if (rc < 0)
        return rc;
    trainer_wear(t, MASK_INFERENCE);
    for (size_t i = 0; i < t->n_threads; i++)
        pass_set_training(t->pass[i], false);
    if (t->staged)
        wave_eval(t, n_blocks, &total);
    else
        block_eval(t, n_blocks, &total);
    for (size_t i = 0; i < t->n_threads; i++)
        pass_set_training(t->pass[i], true);
    trainer_wear(t, t->step);
    out->nll = total.nll;
    out->n_tokens = total.n_tokens;
    out->router_accuracy =
        total.n_routed ? (double)total.router_right / (double)total.n_routed : 0.0;
    return 0;
}

const struct artel_model *trainer_model(const struct artel_trainer *t)
{
    return t->model;
}

const struct mixture *trainer_mixture(const struct artel_trainer *t)
{
    return t->mixture;
}

uint64_t trainer_steps_done(const struct artel_trainer *t)
{
    return t->step;
}
