/* SPDX-License-Identifier: Apache-2.0 */
/*
 * W and its kin: optimizer steps over 8 rows of 256 random tokens, loss on every token,
 * through one expert or a mixture with its routers.
 */
#include <string.h>

#include "base/rng.h"
#include "cli/bench.h"
#include "train/trainer.h"

#define ROWS 8
#define ROW  256

struct rows {
    int32_t ids[ROWS][ROW];
    unsigned char loss[ROW];
    struct example example[ROWS];
    const struct example *list[ROWS];
};

/* All but the first token of each row carry loss. */
static void rows_init(struct rows *r, size_t n_vocab, size_t n_experts, size_t step)
{
    struct rng rng;

    rng_init(&rng, 7, step);
    memset(r->loss, 1, sizeof(r->loss));
    r->loss[0] = 0;
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t k = 0; k < ROW; k++)
            r->ids[i][k] = (int32_t)rng_below(&rng, (uint32_t)n_vocab);
        r->example[i] = (struct example){.ids = r->ids[i],
                                         .n = ROW,
                                         .loss = r->loss,
                                         .pool_n = 64,
                                         .n_loss = ROW - 1,
                                         .domain = (uint32_t)(i % n_experts),
                                         .row = i + 1};
        r->list[i] = &r->example[i];
    }
}

static int steps(struct bench *b, const struct work *w, struct timing *out,
                 struct artel_trainer *trainer)
{
    struct rows rows;
    struct step_report report;
    int rc = 0;

    for (size_t i = 0; rc == 0 && bench_goes_on(b, out); i++) {
        const struct batch batch = {.rows = rows.list,
                                    .n_rows = ROWS,
                                    .n_tokens = ROWS * ROW,
                                    .n_loss = ROWS * (ROW - 1)};
        double start;

        rows_init(&rows, b->model->weights->config.n_vocab, w->n_experts, i);
        start = seconds_now();
        rc = trainer_step(trainer, &batch, 1, &report, &b->err);
        if (rc == 0 && i) /* the first one warms up */
            bench_took(b, w, out, seconds_now() - start);
    }
    return rc;
}

int bench_train(struct bench *b, const struct work *w, struct timing *out)
{
    const struct model_config *const c = &b->model->weights->config;
    const double frozen = bench_linear_weights(c) + bench_head_weights(c);
    static const bool trained[ROWS] = {true, true, true, true, true, true, true, true};
    struct artel_trainer *trainer = NULL;
    struct mixture mixture = {0};
    struct train_options o;
    int rc =
        model_prepare(b->model, b->precision, memory_mode_use(b->memory), ROW, &b->err);

    if (rc == 0)
        rc = bench_mixture(&mixture, w, b);
    if (rc < 0)
        return rc;
    out->tokens = ROWS * ROW;
    out->flops = 4 * frozen + 6 * (double)w->n_active * bench_lora_weights(c);
    train_options_default(&o);
    o.lm_loss = true;
    o.memory = b->memory;
    o.max_row_tokens = ROW;
    o.routing = w->routed ? ROUTE_ROUTER : ROUTE_GIVEN;
    o.eta = mixture.n_routers && !w->routed ? 0.1f : 0.0f;
    o.schedule = (struct schedule){.kind = SCHEDULE_CONSTANT, .total_steps = 1000000};
    rc = trainer_open(&trainer, b->model, &mixture, trained, mixture.n_routers > 0, &o,
                      &b->err);
    if (rc == 0)
        rc = steps(b, w, out, trainer);
    trainer_close(trainer);
    mixture_release(&mixture);
    return rc;
}
