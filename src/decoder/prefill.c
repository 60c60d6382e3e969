/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A prompt becomes the sequence, in pieces.
 *
 * Under a given expert, and where every token decides for itself, rows go through all
 * layers some at a time. A prompt that routes itself goes layer by layer, since a router
 * that decides for a whole turn has to see it before its layer goes on: each layer obeys
 * its own router; where they do not all agree with the expert that the selector fixes,
 * the prompt runs again under that one, so what is in the cache is always the work of
 * one expert (methods with a fixed expert).
 *
 * Where pieces are cut moves no bit: the few rows behind the last whole chunk, if they
 * are few, are computed as steps of decoding are, and a prompt's length alone says which.
 *
 * Of a pool, whole blocks are found that a prompt of the same beginning left, never rows
 * that steps made, which differ in rounding. A prompt that routes itself asks the first
 * layer's router, which reads nothing but tokens, and takes what was made under the expert
 * that it names; as soon as a layer names another, it begins again without. So what was
 * found changes no bit either.
 */
#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "decoder/session_parts.h"
#include "math/kernels.h"

/* A row that is told costs as much as so many through the layers: the head reads its
 * weights for a few rows at a time. */
#define LOGITS_ROWS 3

/* What is computed under EXPERT, or one of KV_*. */
static struct kv_name name_of(const struct artel_session *s, int expert)
{
    return (struct kv_name){s->mixture ? s->mixture->stamp : 0, expert};
}

/* The first N rows of the prompt are known under EXPERT from now on. */
static void make_known(struct artel_session *s, int expert, size_t n)
{
    const struct kv_name name = name_of(s, expert);

    kv_cache_name(&s->kv, &name, s->prefill.ids, n);
}

/* What is known under EXPERT of the prompt's first N tokens becomes the cache, for sure or
 * as long as layers agree. */
static void find_known(struct artel_session *s, int expert, size_t n, bool keep)
{
    const struct kv_name name = name_of(s, expert);

    kv_cache_find(&s->kv, &name, s->prefill.ids, n, keep);
    memcpy(s->ids, s->prefill.ids, s->kv.n * sizeof(*s->ids));
    s->cached = s->kv.n;
}

/* Lay N tokens behind those that the cache holds as the next block of a pass. */
static void lay(struct artel_session *s, const int32_t *ids, const struct sequence *how)
{
    kv_cache_grow(&s->kv, s->kv.n + how->n);
    memmove(s->ids + s->kv.n, ids, how->n * sizeof(*ids));
    s->seq = *how;
    s->seq.ids = s->ids + s->kv.n;
    s->block = (struct block){.seqs = &s->seq, .n_seqs = 1, .n_rows = how->n};
}

/* N rows of the last forward from ROW on stand at positions from AT on. */
static void tell_rows(struct artel_session *s, struct decoder_pass *p, size_t row,
                      size_t n, size_t at)
{
    const struct prefill *w = &s->prefill;
    const struct model_config *c = &s->model->weights->config;

    for (size_t i = 0; w->watch && w->watch->hidden_mean && i < n; i++)
        kernels()->axpy(w->watch->hidden_mean, 1.0f / (float)w->n,
                        pass_normed(p, row + i), c->dim);
    for (size_t i = 0; w->watch && w->watch->on_logits && i < n; i += PASS_FEW_ROWS) {
        const size_t some = n - i < PASS_FEW_ROWS ? n - i : PASS_FEW_ROWS;

        pass_logits_rows(p, s->told, row + i, some);
        for (size_t k = 0; k < some; k++)
            w->watch->on_logits(w->watch->user, at + i + k, s->told + k * c->n_vocab);
    }
    if (at + n == w->n)
        pass_logits(p, s->logits, row + n - 1);
}

static void watch_from_start(const struct artel_session *s)
{
    const struct prefill_watch *w = s->prefill.watch;

    if (w && w->hidden_mean)
        memset(w->hidden_mean, 0,
               s->model->weights->config.dim * sizeof(*w->hidden_mean));
}

/* The rest of the prompt in chunks, under EXPERT or KV_BY_TOKEN: the cache is empty, or
 * holds the beginning in its own room. */
static void go_by_chunks(struct artel_session *s, int expert)
{
    struct prefill *w = &s->prefill;

    w->stage = PREFILL_CHUNKS;
    w->expert = expert;
    w->origin = s->kv.n;
    if (s->pool && !w->watch)
        find_known(s, expert, w->n - 1, true);
    watch_from_start(s);
}

static void done_by_token(struct artel_session *s, const struct decoder_pass *last)
{
    const size_t cells = s->mixture->n_routers * s->mixture->n_experts;

    memset(s->gate_sum, 0, cells * sizeof(*s->gate_sum));
    s->n_summed = pass_add_gates(last, 0, NULL, s->gate_sum);
}

/* Rows behind the last whole chunk that are computed as steps are. */
static size_t few_at_end(const struct artel_session *s)
{
    const size_t left = s->prefill.n - s->prefill.origin;
    const size_t last = (left - 1) % s->pass->options.max_rows + 1;

    return last <= PASS_FEW_ROWS ? last : 0;
}

static int chunk_piece(struct artel_session *s, size_t rows)
{
    struct prefill *w = &s->prefill;
    const size_t at = s->kv.n, few = few_at_end(s), bulk = w->n - few;
    const size_t left = bulk - at, room = s->pass->options.max_rows;
    struct decoder_pass *p = at < bulk ? s->pass : s->few;
    const bool given = w->expert != KV_BY_TOKEN;
    struct sequence how = {.expert = given ? w->expert : -1, .n = few};
    const bool all = w->watch != NULL;

    if (at < bulk)
        how.n = left < rows ? left : rows;
    if (how.n > room)
        how.n = room;
    session_set_weights(s, p);
    pass_set_routing(p, given ? ROUTE_GIVEN : ROUTE_ROUTER);
    lay(s, w->ids + at, &how);
    decoder_forward(p, &s->block);
    tell_rows(s, p, all ? 0 : how.n - 1, all ? how.n : 1, all ? at : at + how.n - 1);
    s->kv.n += how.n;
    make_known(s, w->expert, s->kv.n < bulk ? s->kv.n : bulk);
    if (s->kv.n < w->n)
        return 0;
    if (s->by_token)
        done_by_token(s, p);
    w->stage = PREFILL_NONE;
    return 1;
}

/* The pass for N rows of a prompt at once. */
static int pass_for(struct decoder_pass **out, struct artel_session *s, size_t n,
                    struct artel_error *err)
{
    const size_t twice = 2 * n;

    *out = s->prefill.n <= PASS_FEW_ROWS ? s->few : s->pass;
    if (n <= s->pass->options.max_rows)
        return 0;
    if (s->wide && s->wide->options.max_rows < n) {
        pass_close(s->wide);
        s->wide = NULL;
    }
    *out = s->wide;
    if (s->wide)
        return 0;
    const int rc = session_open_pass(
        &s->wide, s, twice < s->kv.n_context ? twice : s->kv.n_context, false, err);
    *out = s->wide;
    return rc;
}

/* All rows behind what the cache holds at once, each layer obeying its own router. */
static int go_by_layers(struct artel_session *s, struct artel_error *err)
{
    struct prefill *w = &s->prefill;
    const struct sequence how = {.expert = -1,
                                 .n = w->n - s->kv.n,
                                 .pool_first = w->pool_first - s->kv.n,
                                 .pool_n = w->pool_n};
    const int rc = pass_for(&w->pass, s, how.n, err);

    if (rc < 0)
        return rc;
    w->stage = PREFILL_LAYERS;
    w->next = 0;
    session_set_weights(s, w->pass);
    pass_set_routing(w->pass, ROUTE_ROUTER);
    lay(s, w->ids + s->kv.n, &how);
    decoder_begin(w->pass, &s->block);
    return 0;
}

/* What the prompt's layers make may be known by one name: what the routers read decides
 * for one expert, and nothing before the turn that they read has a say. */
static bool has_one_name(const struct artel_session *s)
{
    const struct prefill *w = &s->prefill;
    const struct gate_rule *rule = &s->mixture->rule;

    return s->pool && w->pool_n && rule->fix_expert && rule->kind == GATE_ONE_HOT &&
           rule->decides == DECIDE_SEQUENCE &&
           (rule->place == ROUTER_LAYER || rule->place == ROUTER_BASE);
}

/* What the router of the base reads is the work of the fixed experts, or of none. */
static int name_of_base(const struct artel_session *s)
{
    return s->mixture->rule.n_fixed ? KV_FIXED : KV_BASE;
}

/* The expert that the first layer's router names. */
static int first_choice(int *expert, struct artel_session *s, struct artel_error *err)
{
    const struct prefill *w = &s->prefill;
    const struct sequence turn = {.ids = w->ids + w->pool_first,
                                  .n = w->pool_n,
                                  .expert = -1,
                                  .pool_n = w->pool_n};
    const struct block block = {.seqs = &turn, .n_seqs = 1, .n_rows = turn.n};
    struct decoder_pass *p;
    const int rc = pass_for(&p, s, turn.n, err);

    if (rc < 0)
        return rc;
    pass_set_routing(p, ROUTE_ROUTER);
    decoder_route_first(p, &block);
    *expert = (int)gates_argmax(&p->gates[0], 0);
    return 0;
}

/* The prompt routes itself: from what is known of it on, where something is. */
static int go_by_routers(struct artel_session *s, struct artel_error *err)
{
    struct prefill *w = &s->prefill;
    const size_t most = w->pool_first < w->n ? w->pool_first : w->n - 1;
    int rc = 0;

    w->guess = -1;
    if (has_one_name(s) && !w->watch && most >= KV_BLOCK) {
        const bool by_base = s->mixture->rule.place == ROUTER_BASE;
        int expert = name_of_base(s);

        if (!by_base)
            rc = first_choice(&expert, s, err);
        if (rc < 0)
            return rc;
        find_known(s, expert, most, false);
        if (!by_base && s->kv.n)
            w->guess = expert;
    }
    return go_by_layers(s, err);
}

/* Every layer has chosen; whether the rows may stay. */
static bool settle(struct artel_session *s, struct decoder_pass *p)
{
    const struct mixture *m = s->mixture;
    const size_t E = m->n_experts;

    for (size_t r = 0; r < m->n_routers && s->by_token; r++)
        s->yield[r] = p->gates[r].yield[0];
    if (s->by_token)
        return true;
    for (size_t r = 0; r < m->n_routers; r++) {
        memcpy(s->probs + r * E, pass_router_probs(p, r, 0), E * sizeof(*s->probs));
        memcpy(s->held + r * E, p->gates[r].gate, E * sizeof(*s->held));
    }
    s->routed = true;
    s->expert = pass_select(p, 0, &s->agreeing);
    s->by_router = !m->rule.fix_expert;
    return s->by_router || s->agreeing == m->n_routers;
}

/* What the layers left is the sequence: its rows to who watches, the last to all. */
static int tell_piece(struct artel_session *s, size_t rows)
{
    struct prefill *w = &s->prefill;
    const size_t first = w->watch ? w->next : w->n - 1, left = w->n - first;
    const size_t before = w->n - s->seq.n; /* were there */
    const size_t end = first + (left < rows ? left : rows);

    tell_rows(s, w->pass, first - before, end - first, first);
    w->next = end;
    if (end < w->n)
        return 0;
    if (s->by_token)
        done_by_token(s, w->pass);
    w->stage = PREFILL_NONE;
    return 1;
}

/* The layers up to END; false: one does not name the expert under which the rows before
 * were made. */
static bool run_layers(struct artel_session *s, size_t end)
{
    struct prefill *w = &s->prefill;

    if (w->guess < 0) {
        decoder_layers(w->pass, w->next, end);
        w->next = end;
    }
    for (; w->next < end; w->next++) {
        decoder_layers(w->pass, w->next, w->next + 1);
        if ((int)gates_argmax(&w->pass->gates[w->next], 0) != w->guess)
            return false;
    }
    return true;
}

/* What the layers made is not the sequence: begin again, with nothing. */
static void drop(struct artel_session *s)
{
    kv_cache_drop(&s->kv);
    s->cached = 0;
    s->prefill.guess = -1;
}

static int layer_piece(struct artel_session *s, size_t rows, struct artel_error *err)
{
    struct prefill *w = &s->prefill;
    const size_t L = s->model->weights->config.n_layers, n = s->seq.n;
    const size_t some = rows < n ? rows * L / n : L, take = some ? some : 1;
    const size_t end = take < L - w->next ? w->next + take : L;
    bool settled;
    int rc;

    if (!run_layers(s, end)) {
        drop(s);
        return go_by_layers(s, err);
    }
    if (end < L)
        return 0;
    settled = settle(s, w->pass);
    rc = session_merge(s, settled ? 0 : w->n, err);
    if (rc < 0)
        return rc;
    if (!settled) {
        if (has_one_name(s) && s->mixture->rule.place == ROUTER_BASE)
            make_known(s, name_of_base(s), w->n);
        drop(s);
        go_by_chunks(s, s->expert);
        return 0;
    }
    kv_cache_settle(&s->kv);
    if (has_one_name(s))
        make_known(s, s->expert, w->n);
    s->kv.n = w->n;
    w->next = 0;
    w->stage = PREFILL_TELL;
    watch_from_start(s);
    return w->watch ? 0 : tell_piece(s, rows);
}

/* How much of IDS (N) the cache holds; the last token is always computed. */
static size_t held_already(const struct artel_session *s, const int32_t *ids, size_t n)
{
    size_t same = 0;

    while (same < n - 1 && same < s->kv.n && s->ids[same] == ids[same])
        same++;
    return same;
}

/* How a prompt is to be made. */
struct way {
    bool by_layers, by_token, by_text;
    int expert; /* given, where neither */
};

static struct way way_of(const struct artel_session *s, int expert)
{
    const struct mixture *m = s->mixture;

    if (expert != EXPERT_AUTO)
        return (struct way){.expert = expert};
    if (m && m->n_routers) {
        const bool by_token = m->rule.decides == DECIDE_TOKEN;

        if (m->rule.place == ROUTER_TEXT)
            return (struct way){.by_text = true};
        return (struct way){.by_layers = !by_token || m->rule.n_clusters,
                            .by_token = by_token,
                            .expert = EXPERT_BASE};
    }
    return (struct way){.expert = m && m->n_experts == 1 ? 0 : EXPERT_BASE};
}

/* The router of the text names the expert of the prompt IDS before any of it is made. */
static int choose_by_text(struct artel_session *s, const int32_t *ids,
                          size_t pool_first, size_t pool_n)
{
    const size_t E = s->mixture->n_experts;
    const int expert = text_router_choose(s->pass, ids + pool_first, pool_n);

    memcpy(s->probs, s->pass->gates[0].probs, E * sizeof(*s->probs));
    memcpy(s->held, s->pass->gates[0].gate, E * sizeof(*s->held));
    return expert;
}

/* Tokens of IDS (N) that stay as they are in the session's own room. */
static size_t kept(const struct artel_session *s, const struct way *way,
                   const int32_t *ids, size_t n)
{
    if (way->by_layers)
        return 0;
    if (way->by_token)
        return s->by_token ? held_already(s, ids, n) : 0;
    return !s->by_router && way->expert == s->expert ? held_already(s, ids, n) : 0;
}

int session_prefill_begin(struct artel_session *s, const int32_t *ids, size_t n,
                          size_t n_room, int expert, size_t pool_first, size_t pool_n,
                          const struct prefill_watch *watch, struct artel_error *err)
{
    struct way way = way_of(s, expert);
    const size_t most = n > n_room ? n : n_room;
    int rc;

    if (most > s->kv.n_context)
        return error_set(err, ARTEL_ELIMIT, "CTX03", "prompt",
                         "%zu tokens, the session has room for %zu", most,
                         s->kv.n_context);
    if (n < 1)
        return error_set(err, ARTEL_EUSAGE, "CTX04", "prompt", "it has no tokens");
    rc = kv_cache_begin(&s->kv, most, err);
    if (rc < 0)
        return rc;
    if (way.by_text)
        way.expert = choose_by_text(s, ids, pool_first, pool_n);
    s->cached = watch || s->pool ? 0 : kept(s, &way, ids, n);
    s->kv.n = s->cached;
    s->n_room = s->pool ? most : s->kv.n_context;
    s->expert = way.expert;
    s->by_token = way.by_token;
    s->by_router = way.by_token;
    s->routed = way.by_text;
    s->agreeing = 0;
    memmove(s->prefill.ids, ids, n * sizeof(*ids));
    s->prefill.n = n;
    s->prefill.pool_first = pool_first;
    s->prefill.pool_n = pool_n;
    s->prefill.watch = watch;
    s->extent = MERGE_NOTHING;
    rc = !way.by_layers || way.by_token ? session_merge(s, n - s->kv.n, err) : 0;
    if (rc < 0) {
        session_reset(s);
        return rc;
    }
    if (!way.by_layers) {
        go_by_chunks(s, way.by_token ? KV_BY_TOKEN : way.expert);
        return 0;
    }
    rc = go_by_routers(s, err);
    if (rc < 0)
        session_reset(s);
    return rc;
}

int session_prefill_some(struct artel_session *s, size_t rows, struct artel_error *err)
{
    const struct prefill *w = &s->prefill;
    int rc;

    assert(rows);
    if (w->stage != PREFILL_LAYERS && w->watch && w->watch->on_logits)
        rows = rows / LOGITS_ROWS + 1;
    switch (s->prefill.stage) {
    case PREFILL_LAYERS:
        rc = layer_piece(s, rows, err);
        if (rc < 0)
            session_reset(s);
        return rc;
    case PREFILL_TELL:
        return tell_piece(s, rows);
    case PREFILL_CHUNKS:
        return chunk_piece(s, rows);
    default:
        return 1;
    }
}

int session_prefill(struct artel_session *s, const int32_t *ids, size_t n, int expert,
                    size_t pool_first, size_t pool_n, struct artel_error *err)
{
    const size_t room = n > s->kv.n_context ? n : s->kv.n_context;
    int rc =
        session_prefill_begin(s, ids, n, room, expert, pool_first, pool_n, NULL, err);

    while (rc == 0)
        rc = session_prefill_some(s, SIZE_MAX, err);
    return rc < 0 ? rc : 0;
}
