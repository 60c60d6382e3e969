/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A toy mixture over a toy base, for tests of sessions over a pool.
 */
#ifndef ARTEL_TESTS_TOY_POOL_H
#define ARTEL_TESTS_TOY_POOL_H

#define TOY_LAYERS  5
#define TOY_CONTEXT 700
#define N_IDS       400
#define N_CONTEXT   400
#include "support/toy_session.h"

#include "decoder/kv_pool.h"

/* Of N_BLOCKS. */
static inline struct kv_pool *toy_pool(const struct artel_model *model, size_t n_blocks)
{
    struct kv_pool_stats small;
    struct kv_pool *p;
    struct artel_error err;

    assert_int_equal(kv_pool_open(&p, model, 0, &err), 0);
    kv_pool_stats(p, &small);
    assert_int_equal(small.blocks, 2);
    kv_pool_close(p);
    /* Some bytes more for what is known of each. */
    assert_int_equal(
        kv_pool_open(&p, model,
                     n_blocks * (small.block_bytes + small.block_bytes / TOY_LAYERS +
                                 KV_BLOCK * sizeof(int32_t) + 100),
                     &err),
        0);
    kv_pool_stats(p, &small);
    assert_int_equal(small.blocks, n_blocks);
    return p;
}

/* Over a base in bf16 where HALF. */
static inline void fixture_open_in(struct fixture *f, const struct gate_rule *rule,
                                   size_t n_blocks, bool half)
{
    struct artel_error err;

    fixture_begin(f, rule);
    if (half)
        assert_int_equal(model_prepare(f->model, PRECISION_BF16,
                                       MATRIX_DECODE | MATRIX_FORWARD, TOY_CONTEXT,
                                       &err),
                         0);
    f->pool = toy_pool(f->model, n_blocks);
    toy_expert(&f->mixture, f->model, "one", 3,
               rule->place == ROUTER_FFN ? "456" : NULL, 1);
    toy_expert(&f->mixture, f->model, "two", 4, "456", 3);
    fixture_end(f);
}

static inline void fixture_open(struct fixture *f, const struct gate_rule *rule,
                                size_t n_blocks)
{
    fixture_open_in(f, rule, n_blocks, false);
}

static inline struct kv_pool_stats stats_of(const struct fixture *f)
{
    struct kv_pool_stats s;

    kv_pool_stats(f->pool, &s);
    assert_true(s.used + s.promised <= s.blocks);
    return s;
}

/* Read N of IDS with the turn from POOL_FIRST on, in pieces of some rows. */
static inline void read_prompt(struct artel_session *s, const int32_t *ids, size_t n,
                               size_t n_room, int expert, size_t pool_first)
{
    struct artel_error err;
    int rc = session_prefill_begin(s, ids, n, n_room, expert, pool_first,
                                   n - pool_first, NULL, &err);

    while (rc == 0)
        rc = session_prefill_some(s, 50, &err);
    assert_int_equal(rc, 1);
    assert_int_equal(session_length(s), n);
}

/* They go on in the same way for N tokens. */
static inline void assert_step_alike(const struct fixture *f, struct artel_session *a,
                                     struct artel_session *b, size_t n)
{
    struct artel_error err;

    for (size_t i = 0; i < n; i++) {
        const int32_t id = (int32_t)((7 * i + 3) % TOY_VOCAB);

        assert_int_equal(session_step(a, id, &err), 0);
        assert_int_equal(session_step(b, id, &err), 0);
        assert_same(f, a, b);
    }
}

#endif
