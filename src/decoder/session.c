/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prefill in chunks, decode token by token.
 *
 * A prompt that routes itself runs in one piece, since a router that decides for
 * a whole turn has to see it before its layer goes on. Each layer obeys its own
 * router; where they do not all agree with the expert that the selector fixes,
 * the prompt runs again under that one, so what is in the cache is always the
 * work of one expert (methods with a fixed expert).
 */
#include "decoder/session.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "decoder/decode.h"
#include "decoder/pass.h"

#define CHUNK_ROWS 256

struct artel_session {
    const struct artel_model *model;
    const struct mixture *mixture;
    struct kv_cache kv;
    struct arena arena;
    struct decoder_pass *pass; /* CHUNK_ROWS rows */
    struct decoder_pass *few; /* PASS_FEW_ROWS rows, as a step of decoding reads them */
    struct decoder_pass
        *wide; /* for longer prompts that route themselves; made when needed */
    struct decoder_pass *routed; /* which of these holds the last routing, or NULL */
    struct sequence seq; /* of the last prefill: its pass is asked what routers said */
    struct block block;
    struct decode_room room; /* of steps in which this session comes first */
    struct attended attended;
    float *held;   /* (n_routers, E) gates of a routed prompt */
    int32_t *ids;  /* (n_context) what the cache holds */
    float *logits; /* (V) */
    float *probs;  /* (n_routers, E) of the last routing */
    int expert;
    size_t agreeing;
    bool
        by_router; /* no fixed expert: the routers' gates, as they decided at the prefill */
    bool by_token;    /* or as they decide for every token: */
    float *yield;     /* (n_routers) found at the prefill, where routers yield */
    double *gate_sum; /* (n_routers, E) over the rows that predicted a token */
    size_t n_summed;
    struct {
        int32_t *ids; /* (n_context) copied */
        size_t n, pool_first, pool_n;
        int expert;
    } waiting; /* a prefill that has begun */
    size_t cached;
};

void kv_cache_carve(struct kv_cache *c, struct arena *a, size_t n_layers, size_t width,
                    size_t n_context)
{
    c->n_context = n_context;
    c->width = width;
    c->n = 0;
    c->k = arena_f32(a, n_layers * n_context * width);
    c->v = arena_f32(a, n_layers * n_context * width);
}

static void carve(struct artel_session *s, struct arena *a, size_t n_context)
{
    const struct model_config *c = &s->model->weights->config;

    kv_cache_carve(&s->kv, a, c->n_layers, c->n_kv_heads * c->head_dim, n_context);
    s->ids = arena_take(a, n_context * sizeof(*s->ids));
    s->waiting.ids = arena_take(a, n_context * sizeof(*s->waiting.ids));
    s->logits = arena_f32(a, c->n_vocab);
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

static int open_pass(struct decoder_pass **out, struct artel_session *s, size_t n_rows,
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
    if (mixture)
        mixture_hold(mixture);
    s->expert = EXPERT_BASE;
    carve(s, &measure, n_context);
    rc = arena_init(&s->arena, measure.used, err);
    if (rc == 0) {
        carve(s, &s->arena, n_context);
        rc = open_pass(&s->pass, s, pass_rows(n_context, CHUNK_ROWS), false, err);
    }
    if (rc == 0)
        rc = open_pass(&s->few, s, pass_rows(n_context, PASS_FEW_ROWS), true, err);
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
    s->kv.n = 0;
    s->expert = EXPERT_BASE;
    s->by_router = false;
    s->by_token = false;
    s->routed = NULL;
}

/* Run N new tokens through PASS; logits of the last where WANT_LOGITS. */
static void extend(struct artel_session *s, struct decoder_pass *p, const int32_t *ids,
                   size_t n, const struct sequence *how, bool want_logits)
{
    memmove(s->ids + s->kv.n, ids, n * sizeof(*ids));
    s->seq = *how;
    s->seq.ids = s->ids + s->kv.n;
    s->seq.n = n;
    s->block = (struct block){.seqs = &s->seq, .n_seqs = 1, .n_rows = n};
    decoder_forward(p, &s->block);
    if (want_logits)
        pass_logits(p, s->logits, n - 1);
    s->kv.n += n;
}

/* Returns the pass that took the last rows. */
static struct decoder_pass *extend_in_chunks(struct artel_session *s,
                                             const int32_t *ids, size_t n,
                                             enum routing_mode routing, int expert)
{
    const size_t room = s->pass->options.max_rows;
    const struct sequence how = {.expert = expert};
    struct decoder_pass *p = NULL;

    for (size_t i = 0; i < n; i += room) {
        const size_t take = n - i < room ? n - i : room;

        p = take <= PASS_FEW_ROWS ? s->few : s->pass;
        pass_set_routing(p, routing);
        extend(s, p, ids + i, take, &how, i + take == n);
    }
    return p;
}

/* The whole prompt at once with each layer obeying its own router; *OUT is the pass that
 * took it. */
static int extend_routed(struct decoder_pass **out, struct artel_session *s,
                         const int32_t *ids, size_t n, size_t pool_first, size_t pool_n,
                         struct artel_error *err)
{
    const struct sequence how = {
        .expert = -1, .pool_first = pool_first, .pool_n = pool_n};
    struct decoder_pass *p = n <= PASS_FEW_ROWS ? s->few : s->pass;

    if (n > s->pass->options.max_rows) {
        if (s->wide && s->wide->options.max_rows < n) {
            pass_close(s->wide);
            s->wide = NULL;
        }
        if (!s->wide) {
            const size_t twice = 2 * n;
            const int rc = open_pass(&s->wide, s,
                                     twice < s->kv.n_context ? twice : s->kv.n_context,
                                     false, err);

            if (rc < 0)
                return rc;
        }
        p = s->wide;
    }
    pass_set_routing(p, ROUTE_ROUTER);
    extend(s, p, ids, n, &how, true);
    *out = p;
    return 0;
}

static int prefill_routed(struct artel_session *s, const int32_t *ids, size_t n,
                          size_t pool_first, size_t pool_n, struct artel_error *err)
{
    const size_t E = s->mixture->n_experts;
    struct decoder_pass *p;
    const int rc = extend_routed(&p, s, ids, n, pool_first, pool_n, err);

    if (rc < 0)
        return rc;
    for (size_t r = 0; r < s->mixture->n_routers; r++) {
        memcpy(s->probs + r * E, pass_router_probs(p, r, 0), E * sizeof(*s->probs));
        memcpy(s->held + r * E, p->gates[r].gate, E * sizeof(*s->held));
    }
    s->routed = p;
    return 0;
}

static int prefill_auto(struct artel_session *s, const int32_t *ids, size_t n,
                        size_t pool_first, size_t pool_n, struct artel_error *err)
{
    int rc;

    s->kv.n = 0;
    rc = prefill_routed(s, ids, n, pool_first, pool_n, err);
    if (rc < 0)
        return rc;
    s->expert = pass_select(s->routed, 0, &s->agreeing);
    s->by_router = !s->mixture->rule.fix_expert;
    s->by_token = false;
    if (s->by_router || s->agreeing == s->mixture->n_routers)
        return 0;
    s->kv.n = 0;
    extend_in_chunks(s, ids, n, ROUTE_GIVEN, s->expert);
    return 0;
}

/* How much of IDS (N) the cache holds; the last token is always computed. */
static size_t held_already(const struct artel_session *s, const int32_t *ids, size_t n)
{
    size_t same = 0;

    while (same < n - 1 && same < s->kv.n && s->ids[same] == ids[same])
        same++;
    return same;
}

/* Where routers yield, by how much hangs on a whole user turn and holds until the next. */
static int prefill_yielding(const struct decoder_pass **last, struct artel_session *s,
                            const int32_t *ids, size_t n, size_t pool_first,
                            size_t pool_n, struct artel_error *err)
{
    struct decoder_pass *p;
    int rc;

    s->kv.n = 0;
    rc = extend_routed(&p, s, ids, n, pool_first, pool_n, err);
    if (rc < 0)
        return rc;
    for (size_t r = 0; r < s->mixture->n_routers; r++)
        s->yield[r] = p->gates[r].yield[0];
    *last = p;
    return 0;
}

/* Where every token decides for itself, a prompt goes in chunks like any other and what
 * the cache holds stays true, unless routers yield. */
static int prefill_by_token(struct artel_session *s, const int32_t *ids, size_t n,
                            size_t pool_first, size_t pool_n, struct artel_error *err)
{
    const size_t cells = s->mixture->n_routers * s->mixture->n_experts;
    const struct decoder_pass *last;
    int rc = 0;

    if (s->mixture->rule.n_clusters) {
        rc = prefill_yielding(&last, s, ids, n, pool_first, pool_n, err);
    } else {
        s->kv.n = s->by_token ? held_already(s, ids, n) : 0;
        last = extend_in_chunks(s, ids + s->kv.n, n - s->kv.n, ROUTE_ROUTER, -1);
    }
    if (rc < 0)
        return rc;
    s->by_token = true;
    s->by_router = true;
    s->routed = NULL;
    s->agreeing = 0;
    memset(s->gate_sum, 0, cells * sizeof(*s->gate_sum));
    s->n_summed = pass_add_gates(last, 0, NULL, s->gate_sum);
    return 0;
}

int session_prefill(struct artel_session *s, const int32_t *ids, size_t n, int expert,
                    size_t pool_first, size_t pool_n, struct artel_error *err)
{
    size_t same = 0;

    if (n > s->kv.n_context)
        return error_set(err, ARTEL_ELIMIT, "CTX03", "prompt",
                         "%zu tokens, the session has room for %zu", n,
                         s->kv.n_context);
    if (n < 1)
        return error_set(err, ARTEL_EUSAGE, "CTX04", "prompt", "it has no tokens");
    if (expert == EXPERT_AUTO && s->mixture && s->mixture->n_routers)
        return s->mixture->rule.decides == DECIDE_TOKEN
                   ? prefill_by_token(s, ids, n, pool_first, pool_n, err)
                   : prefill_auto(s, ids, n, pool_first, pool_n, err);
    if (expert == EXPERT_AUTO)
        expert = s->mixture && s->mixture->n_experts == 1 ? 0 : EXPERT_BASE;
    if (!s->by_router && expert == s->expert)
        same = held_already(s, ids, n);
    s->kv.n = same;
    s->expert = expert;
    s->by_router = false;
    s->by_token = false;
    s->routed = NULL;
    s->agreeing = 0;
    extend_in_chunks(s, ids + same, n - same, ROUTE_GIVEN, expert);
    return 0;
}

int session_open_pooled(struct artel_session **out, const struct artel_model *model,
                        const struct mixture *mixture, size_t n_context,
                        struct kv_pool *pool, struct artel_error *err)
{
    (void)pool;
    return session_open(out, model, mixture, n_context, err);
}

int session_prefill_begin(struct artel_session *s, const int32_t *ids, size_t n,
                          size_t n_room, int expert, size_t pool_first, size_t pool_n,
                          const struct prefill_watch *watch, struct artel_error *err)
{
    (void)watch;
    if (n_room > s->kv.n_context)
        return error_set(err, ARTEL_ELIMIT, "CTX03", "prompt",
                         "%zu tokens, the session has room for %zu", n_room,
                         s->kv.n_context);
    memmove(s->waiting.ids, ids, n * sizeof(*ids));
    s->waiting.n = n;
    s->waiting.expert = expert;
    s->waiting.pool_first = pool_first;
    s->waiting.pool_n = pool_n;
    return 0;
}

int session_prefill_some(struct artel_session *s, size_t rows, struct artel_error *err)
{
    const int rc = session_prefill(s, s->waiting.ids, s->waiting.n, s->waiting.expert,
                                   s->waiting.pool_first, s->waiting.pool_n, err);

    (void)rows;
    return rc < 0 ? rc : 1;
}

size_t session_cached(const struct artel_session *s)
{
    return s->cached;
}

/* A step may hold any sessions of one model and mixture; each is there once. */
static int check_steps(struct artel_session *const *s, size_t n,
                       struct artel_error *err)
{
    for (size_t i = 0; i < n; i++) {
        assert(s[i]->model == s[0]->model && s[i]->mixture == s[0]->mixture);
        for (size_t k = 0; k < i; k++)
            assert(s[k] != s[i]);
        if (s[i]->kv.n >= s[i]->kv.n_context)
            return error_set(err, ARTEL_ELIMIT, "CTX03", "tokens",
                             "the session's room of %zu tokens is full",
                             s[i]->kv.n_context);
    }
    return 0;
}

/* Decisions for a whole sequence were made at prefill and stay. */
static struct decode_row row_of(struct artel_session *s, int32_t id)
{
    const bool hold = s->by_router && s->mixture->rule.decides == DECIDE_SEQUENCE;

    return (struct decode_row){.kv = &s->kv,
                               .attended = s->attended,
                               .id = id,
                               .expert = s->by_router ? EXPERT_BASE : s->expert,
                               .routed = s->by_router,
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

        for (; at && rows[at - 1].expert > row.expert; at--)
            rows[at] = rows[at - 1];
        rows[at] = row;
    }
    decode_step(&s[0]->room, s[0]->model, s[0]->mixture, rows, n);
    for (size_t i = 0; i < n; i++) {
        s[i]->ids[s[i]->kv.n++] = ids[i];
        s[i]->n_summed += s[i]->by_token;
    }
}

int sessions_step(struct artel_session *const *s, const int32_t *ids, size_t n,
                  struct artel_error *err)
{
    const int rc = check_steps(s, n, err);

    for (size_t i = 0; rc == 0 && i < n; i += DECODE_ROWS)
        step_some(s + i, ids + i, n - i < DECODE_ROWS ? n - i : DECODE_ROWS);
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
