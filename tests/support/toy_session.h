/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A toy mixture over a toy base, and a prompt, for tests of sessions. Who includes it may
 * say N_IDS, the prompt's tokens, and N_CONTEXT, a session's.
 */
#ifndef ARTEL_TESTS_TOY_SESSION_H
#define ARTEL_TESTS_TOY_SESSION_H

#include "support/toy_decoder.h"

#include "decoder/kv_pool.h"
#include "decoder/session.h"

#ifndef N_IDS
#define N_IDS     20
#define N_CONTEXT 40
#endif

struct fixture {
    struct artel_model *model;
    struct mixture mixture;
    struct kv_pool *pool; /* NULL: none */
    int32_t ids[N_IDS];
};

/* The base, and a mixture without experts; they come between the two. */
static inline void fixture_begin(struct fixture *f, const struct gate_rule *rule)
{
    struct artel_error err;

    f->model = toy_open(21);
    f->pool = NULL;
    assert_int_equal(
        mixture_init(&f->mixture, "test", &f->model->weights->config, rule, &err), 0);
}

static inline void fixture_end(struct fixture *f)
{
    struct rng r;

    mixture_draw_routers(&f->mixture, 1.0f, 4);
    rng_init(&r, 8, 0);
    for (size_t i = 0; i < N_IDS; i++)
        f->ids[i] = (int32_t)rng_below(&r, TOY_VOCAB);
}

static inline void fixture_close(struct fixture *f)
{
    kv_pool_close(f->pool);
    mixture_release(&f->mixture);
    toy_close(f->model);
}

/* POOLED: over the fixture's pool. */
static inline struct artel_session *fixture_session(const struct fixture *f,
                                                    bool pooled)
{
    struct artel_session *s;
    struct artel_error err;

    assert_int_equal(session_open_pooled(&s, f->model, &f->mixture, N_CONTEXT,
                                         pooled ? f->pool : NULL, &err),
                     0);
    return s;
}

/* The same sequence, the same answer, the same routing. */
static inline void assert_same(const struct fixture *f, const struct artel_session *a,
                               const struct artel_session *b)
{
    const size_t E = f->mixture.n_experts;

    assert_int_equal(session_length(a), session_length(b));
    assert_memory_equal(session_logits(a), session_logits(b),
                        TOY_VOCAB * sizeof(float));
    assert_int_equal(session_expert(a), session_expert(b));
    assert_int_equal(session_layers_agreeing(a), session_layers_agreeing(b));
    assert_int_equal(!session_probs(a, 0), !session_probs(b, 0));
    for (size_t r = 0; session_probs(a, 0) && r < f->mixture.n_routers; r++)
        assert_memory_equal(session_probs(a, r), session_probs(b, r),
                            E * sizeof(float));
}

#endif
