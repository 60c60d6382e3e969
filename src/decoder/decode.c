/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The phases of a step; the threads meet where a line says so:
 *
 *     xn = norm(x)                         each thread for itself
 *     q, k, v = linears of xn              outputs shared out     -- meet
 *     attention over chunks of keys        chunks shared out      -- meet
 *     x += o(sum of the chunks)            sum by each; outputs   -- meet
 *     xn = norm(x)                         each for itself
 *     silu(gate(xn)) * up(xn)              outputs                -- meet
 *     x += down(...)                       outputs                -- meet
 *
 * and at the end the head. With LoRA the team meets once more in every linear, after
 * the inner sides; nobody waits there, since the frozen product lies between.
 */
#include "decoder/decode.h"

#include <assert.h>
#include <omp.h>

#include "decoder/decode_parts.h"
#include "math/kernels.h"
#include "math/rmsnorm.h"

static void desk_carve(struct decode_desk *d, struct arena *a,
                       const struct model_config *c, const struct mixture *m)
{
    const size_t heads = c->n_heads * c->head_dim;

    d->x = arena_f32(a, DECODE_ROWS * (heads > c->dim ? heads : c->dim));
    d->q = arena_f32(a, heads / c->n_kv_heads);
    d->scores = arena_f32(a, CHUNK_KEYS);
    for (size_t i = 0; m && i < 3; i++) {
        gates_carve(&d->gates[i], a, DECODE_ROWS, DECODE_ROWS, m->n_experts, 0, false);
        d->gates[i].n_fixed = m->rule.n_fixed;
        d->gates[i].silent = m->rule.silent;
        if (m->rule.n_clusters)
            gates_carve_yield(&d->gates[i], a, DECODE_ROWS, 0, 0);
    }
}

void decode_room_carve(struct decode_room *r, struct arena *a,
                       const struct artel_model *model, const struct mixture *mixture)
{
    const struct model_config *c = &model->weights->config;
    const size_t T = DECODE_ROWS, heads = c->n_heads * c->head_dim,
                 groups = c->n_kv_heads * c->head_dim;

    r->n_threads = omp_in_parallel() ? 1 : (size_t)omp_get_max_threads();
    r->x = arena_f32(a, T * c->dim);
    r->q = arena_f32(a, T * heads);
    r->k = arena_f32(a, T * groups);
    r->v = arena_f32(a, T * groups);
    r->out = arena_f32(a, T * c->dim);
    r->gate = arena_f32(a, T * c->ffn_dim);
    r->up = arena_f32(a, T * c->ffn_dim);
    r->h_width = decode_h_width(mixture);
    r->h = arena_f32(a, T * r->h_width);
    r->row_self = arena_take(a, T * sizeof(*r->row_self));
    for (size_t t = 0; r->row_self && t < T; t++)
        r->row_self[t] = (uint32_t)t;
    if (mixture && mixture->rule.whole_ffn) {
        const size_t most = T * mixture->n_experts * c->ffn_dim;

        r->own_gate = arena_f32(a, most);
        r->own_up = arena_f32(a, most);
    }
    if (mixture)
        gates_carve(&r->given, a, T, T, mixture->n_experts, 0, false);
    r->given.n_fixed = mixture ? mixture->rule.n_fixed : 0;
    r->given.silent = mixture && mixture->rule.silent;
    r->desks = arena_take(a, r->n_threads * sizeof(*r->desks));
    for (size_t i = 0; i < r->n_threads; i++) {
        struct decode_desk desk = {0};

        desk_carve(&desk, a, c, mixture);
        if (r->desks)
            r->desks[i] = desk;
    }
}

/* This thread's part of N linears from FIRST on. */
static void linears(struct worker *w, float *const *y, const float *x, size_t layer,
                    enum site first, size_t n)
{
    const size_t T = w->step->T;
    const bool lora = decode_lora_down(w, x, layer, first, n);

    if (lora)
        team_arrive(w->member);
    for (size_t i = 0; i < n; i++) {
        const struct matrix *f = &w->step->model->layers[layer].site[first + i];
        float *to[DECODE_ROWS];
        size_t from, end;

        decode_part(w, f->n_out, &from, &end);
        for (size_t t = 0; t < T; t++)
            to[t] = y[i] + t * f->n_out + from;
        matrix_decode_rows(to, x, f, from, end - from, T);
    }
    if (w->rows == ROWS_TO_OWN)
        decode_spread(w);
    if (!lora)
        return;
    team_wait(w->member);
    decode_lora_up(w, y, layer, first, n);
}

/* x += what lies in OUT, this thread's part. */
static void add_to_stream(const struct worker *w)
{
    const struct decode_room *r = w->step->room;
    const size_t D = w->step->model->weights->config.dim;
    size_t from, end;

    decode_part(w, D, &from, &end);
    for (size_t t = 0; t < w->step->T; t++)
        kernels()->axpy(r->x + t * D + from, 1.0f, r->out + t * D + from, end - from);
}

static void attention(struct worker *w, size_t layer)
{
    const struct step *s = w->step;
    const struct model_config *c = &s->model->weights->config;
    struct decode_room *r = s->room;
    float *const qkv[] = {r->q, r->k, r->v}, *x = w->desk->x;

    rmsnorm_forward(x, NULL, r->x, s->model->layers[layer].attn_norm, c->norm_eps, s->T,
                    c->dim);
    linears(w, qkv, x, layer, SITE_Q, 3);
    team_meet(w->member);
    decode_attend(w, layer);
    team_meet(w->member);
    decode_attended(s, x);
    linears(w, &r->out, x, layer, SITE_O, 1);
    add_to_stream(w);
    team_meet(w->member);
}

static void feed_forward(struct worker *w, size_t layer)
{
    const struct step *s = w->step;
    const struct model_config *c = &s->model->weights->config;
    const size_t F = c->ffn_dim;
    const bool whole = decode_whole_ffn(w);
    struct decode_room *r = s->room;
    float *const gate_up[] = {r->gate, r->up}, *x = w->desk->x;
    size_t from, end;

    rmsnorm_forward(x, NULL, r->x, s->model->layers[layer].ffn_norm, c->norm_eps, s->T,
                    c->dim);
    w->rows = whole ? ROWS_TO_OWN : ROWS_SHARED;
    linears(w, gate_up, x, layer, SITE_GATE, 2);
    decode_part(w, F, &from, &end);
    for (size_t t = 0; !whole && t < s->T; t++)
        kernels()->swiglu(r->gate + t * F + from, r->gate + t * F + from,
                          r->up + t * F + from, end - from);
    if (whole)
        decode_own_swiglu(w);
    team_meet(w->member);
    w->rows = whole ? ROWS_FROM_OWN : ROWS_SHARED;
    linears(w, &r->out, r->gate, layer, SITE_DOWN, 1);
    w->rows = ROWS_SHARED;
    add_to_stream(w);
    team_meet(w->member);
}

static void logits(struct worker *w)
{
    const struct step *s = w->step;
    const struct model_config *c = &s->model->weights->config;
    float *to[DECODE_ROWS];
    size_t from, end;

    rmsnorm_forward(w->desk->x, NULL, s->room->x, s->model->final_norm, c->norm_eps,
                    s->T, c->dim);
    decode_part(w, c->n_vocab, &from, &end);
    for (size_t t = 0; t < s->T; t++)
        to[t] = s->rows[t].logits + from;
    matrix_decode_rows(to, w->desk->x, &s->model->head, from, end - from, s->T);
}

static void work(struct member *m, void *data)
{
    const struct step *s = data;
    struct worker w = {.step = s, .member = m, .desk = &s->room->desks[m->index]};

    for (size_t i = 0; i < 3; i++)
        w.router[i] = SIZE_MAX;
    for (size_t l = 0; l < s->model->weights->config.n_layers; l++) {
        attention(&w, l);
        feed_forward(&w, l);
    }
    logits(&w);
}

void decode_step(struct decode_room *room, const struct artel_model *model,
                 const struct mixture *mixture, const struct decode_row *rows, size_t n)
{
    struct step s = {
        .model = model, .mixture = mixture, .rows = rows, .room = room, .T = n};
    int expert[DECODE_ROWS];

    assert(n >= 1 && n <= DECODE_ROWS);
    for (size_t t = 0; t < n; t++) {
        expert[t] = rows[t].expert;
        s.routed |= rows[t].routed;
        s.reading |= rows[t].routed && !rows[t].held;
        assert(rows[t].kv->n < rows[t].kv->n_context);
        matrix_rows(room->x + t * model->embed.n_in, &model->embed, &rows[t].id, 1);
    }
    if (mixture && !s.routed) {
        room->given.n_rows = n;
        room->given.n_units = n;
        room->given.unit_of_row = room->row_self;
        gates_give(&room->given, expert);
    }
    team_run(room->n_threads, work, &s);
}
