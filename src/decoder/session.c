/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session's room, and its steps token by token; prefill.c makes a prompt its sequence.
 */
#include "decoder/session.h"

#include <assert.h>
#include <stdlib.h>

#include "base/error.h"
#include "decoder/session_parts.h"

static void carve(struct artel_session *s, struct arena *a, size_t n_context)
{
    const struct model_config *c = &s->model->weights->config;

    kv_cache_carve(&s->kv, a, c->n_layers, c->n_kv_heads * c->head_dim, n_context,
                   s->pool);
    s->ids = arena_take(a, n_context * sizeof(*s->ids));
    s->prefill.ids = arena_take(a, n_context * sizeof(*s->prefill.ids));
    s->logits = arena_f32(a, c->n_vocab);
    s->told = arena_f32(a, PASS_FEW_ROWS * c->n_vocab);
    if (s->mixture) {
        s->probs = arena_f32(a, s->mixture->n_routers * s->mixture->n_experts);
        s->held = arena_f32(a, s->mixture->n_routers * s->mixture->n_experts);
        if (s->mixture->rule.n_clusters)
            s->yield = arena_f32(a, s->mixture->n_routers);
        s->gate_sum = arena_take(a, s->mixture->n_routers * s->mixture->n_experts *
                                        sizeof(*s->gate_sum));
    }
    attended_carve(&s->attended, a, c, n_context);
    decode_room_carve(&s->room, a, s->model, s->mixture);
}

static size_t pass_rows(size_t n_context, size_t most)
{
    return n_context < most ? n_context : most;
}

static struct pass_options options_of_pass(size_t n_rows, bool few)
{
    return (struct pass_options){.routing = ROUTE_GIVEN,
                                 .max_rows = n_rows,
                                 .max_seqs = 1,
                                 .few = few,
                                 .shared = true};
}

size_t session_bytes(const struct artel_model *model, const struct mixture *mixture,
                     size_t n_context)
{
    struct artel_session s = {.model = model, .mixture = mixture};
    const struct pass_options many =
        options_of_pass(pass_rows(n_context, CHUNK_ROWS), false);
    const struct pass_options few =
        options_of_pass(pass_rows(n_context, PASS_FEW_ROWS), true);
    struct arena measure = {0};

    carve(&s, &measure, n_context);
    return measure.used + pass_bytes(model, mixture, &many) +
           pass_bytes(model, mixture, &few);
}

int session_open_pass(struct decoder_pass **out, struct artel_session *s, size_t n_rows,
                      bool few, struct artel_error *err)
{
    const struct pass_options o = options_of_pass(n_rows, few);
    const int rc = pass_open(out, s->model, s->mixture, &o, err);

    if (rc == 0)
        (*out)->kv = &s->kv;
    return rc;
}

int session_open(struct artel_session **out, const struct artel_model *model,
                 const struct mixture *mixture, size_t n_context,
                 struct artel_error *err)
{
    return session_open_pooled(out, model, mixture, n_context, NULL, err);
}

int session_open_pooled(struct artel_session **out, const struct artel_model *model,
                        const struct mixture *mixture, size_t n_context,
                        struct kv_pool *pool, struct artel_error *err)
{
    struct artel_session *s = calloc(1, sizeof(*s));
    struct arena measure = {0};
    int rc;

    *out = NULL;
    if (!s)
        return error_nomem(err, sizeof(*s));
    if (n_context < 1 || n_context > model->n_positions) {
        free(s);
        return error_set(err, ARTEL_ELIMIT, "CTX02", "context",
                         "%zu tokens asked for, the prepared model reaches %zu",
                         n_context, model->n_positions);
    }
    s->model = model;
    s->mixture = mixture;
    s->pool = pool;
    s->n_room = pool ? 0 : n_context;
    if (mixture)
        mixture_hold(mixture);
    s->expert = EXPERT_BASE;
    carve(s, &measure, n_context);
    rc = arena_init(&s->arena, measure.used, err);
    if (rc == 0) {
        carve(s, &s->arena, n_context);
        rc = session_open_pass(&s->pass, s, pass_rows(n_context, CHUNK_ROWS), false,
                               err);
    }
    if (rc == 0)
        rc = session_open_pass(&s->few, s, pass_rows(n_context, PASS_FEW_ROWS), true,
                               err);
    if (rc < 0) {
        session_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void session_close(struct artel_session *s)
{
    if (!s)
        return;
    kv_cache_end(&s->kv);
    merged_close(s->merged);
    pass_close(s->pass);
    pass_close(s->few);
    pass_close(s->wide);
    if (s->mixture)
        mixture_let_go(s->mixture);
    arena_release(&s->arena);
    free(s);
}

void session_reset(struct artel_session *s)
{
    kv_cache_end(&s->kv);
    s->kv.n = 0;
    s->n_room = s->pool ? 0 : s->kv.n_context;
    s->expert = EXPERT_BASE;
    s->by_router = false;
    s->by_token = false;
    s->routed = false;
    s->extent = MERGE_NOTHING;
    s->prefill.stage = PREFILL_NONE;
}

size_t session_cached(const struct artel_session *s)
{
    return s->cached;
}

int session_promise(struct artel_session *s, size_t n_room, struct artel_error *err)
{
    int rc;

    assert(s->prefill.stage == PREFILL_NONE && n_room >= s->kv.n);
    if (n_room > s->kv.n_context)
        return error_set(err, ARTEL_ELIMIT, "CTX03", "tokens",
                         "%zu tokens, the session has room for %zu", n_room,
                         s->kv.n_context);
    rc = kv_cache_promise(&s->kv, n_room, err);
    if (rc == 0 && s->pool)
        s->n_room = n_room;
    return rc;
}

/* A step may hold any sessions of one model and mixture; each is there once. */
static int check_steps(struct artel_session *const *s, size_t n,
                       struct artel_error *err)
{
    for (size_t i = 0; i < n; i++) {
        assert(s[i]->model == s[0]->model && s[i]->mixture == s[0]->mixture);
        assert(s[i]->prefill.stage == PREFILL_NONE);
        for (size_t k = 0; k < i; k++)
            assert(s[k] != s[i]);
        if (s[i]->kv.n >= s[i]->n_room)
            return error_set(err, ARTEL_ELIMIT, "CTX03", "tokens",
                             "the session's room of %zu tokens is full", s[i]->n_room);
    }
    return 0;
}

/* Decisions for a whole sequence were made at prefill and stay. */
static struct decode_row row_of(struct artel_session *s, int32_t id)
{
    const bool routed = s->by_router && !s->extent;
    const bool hold = routed && s->mixture->rule.decides == DECIDE_SEQUENCE;
    const bool none = routed || s->extent;

    return (struct decode_row){.kv = &s->kv,
                               .attended = s->attended,
                               .id = id,
                               .expert = none ? EXPERT_BASE : s->expert,
                               .routed = routed,
                               .held = hold ? s->held : NULL,
                               .yield = s->by_token ? s->yield : NULL,
                               .gate_sum = s->by_token ? s->gate_sum : NULL,
                               .logits = s->logits};
}

/* N at most DECODE_ROWS; rows of one expert side by side. */
static void step_some(struct artel_session *const *s, const int32_t *ids, size_t n)
{
    struct decode_row rows[DECODE_ROWS];

    for (size_t i = 0; i < n; i++) {
        const struct decode_row row = row_of(s[i], ids[i]);
        size_t at = i;

        kv_cache_grow(&s[i]->kv, s[i]->kv.n + 1);
        for (; at && rows[at - 1].expert > row.expert; at--)
            rows[at] = rows[at - 1];
        rows[at] = row;
    }
    if (s[0]->extent)
        decode_step(&s[0]->room, &s[0]->merged->model, NULL, rows, n);
    else
        decode_step(&s[0]->room, s[0]->model, s[0]->mixture, rows, n);
    for (size_t i = 0; i < n; i++) {
        s[i]->ids[s[i]->kv.n++] = ids[i];
        s[i]->n_summed += s[i]->by_token;
    }
}

/* The first so many of N read the same weights. */
static size_t together(struct artel_session *const *s, size_t n)
{
    size_t i = 1;

    while (i < n && i < DECODE_ROWS && !s[0]->extent && !s[i]->extent)
        i++;
    return i;
}

int sessions_step(struct artel_session *const *s, const int32_t *ids, size_t n,
                  struct artel_error *err)
{
    const int rc = check_steps(s, n, err);

    for (size_t i = 0, some; rc == 0 && i < n; i += some) {
        some = together(s + i, n - i);
        step_some(s + i, ids + i, some);
    }
    return rc;
}

int session_step(struct artel_session *s, int32_t id, struct artel_error *err)
{
    return sessions_step(&s, &id, 1, err);
}

const float *session_logits(const struct artel_session *s)
{
    return s->logits;
}

size_t session_length(const struct artel_session *s)
{
    return s->kv.n;
}

size_t session_room(const struct artel_session *s)
{
    return s->kv.n_context;
}

int session_expert(const struct artel_session *s)
{
    return s->by_token ? mixture_heaviest(s->mixture, s->gate_sum) : s->expert;
}

bool session_gates(const struct artel_session *s, float *mean)
{
    const size_t n = s->by_token ? s->mixture->n_routers * s->mixture->n_experts : 0;

    for (size_t i = 0; i < n; i++)
        mean[i] = (float)(s->gate_sum[i] / (double)s->n_summed);
    return s->by_token;
}

const float *session_probs(const struct artel_session *s, size_t router)
{
    return s->routed ? s->probs + router * s->mixture->n_experts : NULL;
}

size_t session_layers_agreeing(const struct artel_session *s)
{
    return s->agreeing;
}
