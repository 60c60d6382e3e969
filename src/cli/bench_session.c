/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prefill of a prompt, and decoding of one or several sequences token by token.
 */
#include <stdlib.h>

#include "base/rng.h"
#include "cli/bench.h"
#include "decoder/session.h"

#define PROMPT   16 /* tokens before those that are decoded */
#define DECODED  32
#define SEQS_MAX 8

static void draw(int32_t *ids, size_t n, struct rng *rng, const struct bench *b)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)rng_below(rng, (uint32_t)b->model->weights->config.n_vocab);
}

int bench_prefill(struct bench *b, const struct work *w, struct timing *out)
{
    const struct model_config *const c = &b->model->weights->config;
    struct artel_session *s = NULL;
    int32_t *const ids = malloc(w->n * sizeof(*ids));
    struct rng rng;
    int rc;

    if (!ids)
        return error_nomem(&b->err, w->n * sizeof(*ids));
    rc = model_prepare(b->model, b->precision, MATRIX_FORWARD | MATRIX_DECODE, w->n,
                       &b->err);
    if (rc == 0)
        rc = session_open(&s, b->model, NULL, w->n, &b->err);
    out->tokens = (double)w->n;
    out->flops = 2 * (bench_linear_weights(c) + bench_head_weights(c) / (double)w->n);
    rng_init(&rng, 11, 0);
    for (size_t i = 0; rc == 0 && bench_goes_on(b, out); i++) {
        double start;

        draw(ids, w->n, &rng, b);
        session_reset(s);
        start = seconds_now();
        rc = session_prefill(s, ids, w->n, EXPERT_BASE, 0, w->n, &b->err);
        if (rc == 0 && i) /* the first one warms up */
            bench_took(b, w, out, seconds_now() - start);
    }
    session_close(s);
    free(ids);
    return rc;
}

static int prefill_all(struct bench *b, const struct work *w,
                       struct artel_session *const *s, struct rng *rng)
{
    int32_t ids[PROMPT];
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < w->n; i++) {
        const int own = w->n_experts ? (int)(i % w->n_experts) : EXPERT_BASE;

        draw(ids, PROMPT, rng, b);
        session_reset(s[i]);
        rc = session_prefill(s[i], ids, PROMPT, w->routed ? EXPERT_AUTO : own, 0,
                             PROMPT, &b->err);
    }
    return rc;
}

static int decode(struct bench *b, const struct work *w, struct timing *out,
                  struct artel_session *const *s)
{
    struct rng rng;
    int rc = 0;

    rng_init(&rng, 11, 0);
    for (size_t i = 0; rc == 0 && bench_goes_on(b, out); i++) {
        int32_t ids[SEQS_MAX];
        double start;

        rc = prefill_all(b, w, s, &rng);
        start = seconds_now();
        for (size_t k = 0; rc == 0 && k < DECODED; k++) {
            draw(ids, w->n, &rng, b);
            rc = sessions_step(s, ids, w->n, &b->err);
        }
        if (rc == 0 && i) /* the first one warms up */
            bench_took(b, w, out, seconds_now() - start);
    }
    return rc;
}

int bench_decode(struct bench *b, const struct work *w, struct timing *out)
{
    const struct model_config *const c = &b->model->weights->config;
    const size_t room = PROMPT + DECODED;
    struct artel_session *s[SEQS_MAX] = {NULL};
    struct mixture mixture = {0};
    int rc = model_prepare(b->model, b->precision, MATRIX_FORWARD | MATRIX_DECODE, room,
                           &b->err);

    if (rc == 0)
        rc = bench_mixture(&mixture, w, b);
    for (size_t i = 0; rc == 0 && i < w->n; i++)
        rc = session_open(&s[i], b->model, w->n_experts ? &mixture : NULL, room,
                          &b->err);
    out->tokens = (double)(DECODED * w->n);
    out->flops = 2 * (bench_linear_weights(c) + bench_head_weights(c) +
                      (double)w->n_active * bench_lora_weights(c));
    out->bytes = bench_bytes_a_token(b->model->weights) / (double)w->n;
    if (rc == 0)
        rc = decode(b, w, out, s);
    for (size_t i = 0; i < w->n; i++)
        session_close(s[i]);
    mixture_release(&mixture);
    return rc;
}
