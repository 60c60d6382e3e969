/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A toy mixture of SLIM, and a trainer of it over rows of a few tokens, for tests of both.
 */
#ifndef ARTEL_TESTS_SLIM_CASE_H
#define ARTEL_TESTS_SLIM_CASE_H

#include "support/toy_decoder.h"
#include "support/trainer_state.h"

#include "base/cpu.h"
#include "laid_rows.h"

#define N_CLUSTERS 3
#define ROWS       MOST_ROWS

struct fixture {
    struct artel_model *model;
    struct mixture mixture;
    struct toy_data data;
};

static inline struct gate_rule slim_rule(float drop)
{
    struct gate_rule rule;

    assert_int_equal(method_rule(&rule, "slim"), 0);
    rule.n_clusters = N_CLUSTERS;
    rule.masks.drop = drop;
    rule.masks.seed = 7;
    return rule;
}

/* KINDS: a letter an expert in its place, L of a LoRA, I of an identity. */
static inline void open_with(struct fixture *f, const struct gate_rule *rule,
                             const char *kinds)
{
    struct artel_error err;
    size_t loras = 0;

    f->model = toy_open(7);
    assert_int_equal(
        mixture_init(&f->mixture, "slim", &f->model->weights->config, rule, &err), 0);
    for (size_t e = 0; kinds[e]; e++) {
        const char name[] = {kinds[e], (char)('0' + (char)e), '\0'};

        if (kinds[e] == 'I') {
            toy_identity(&f->mixture, f->model, name);
            continue;
        }
        toy_expert(&f->mixture, f->model, name, 3 + loras, "456", loras + 1);
        loras++;
    }
    mixture_draw_routers(&f->mixture, 0.4f, 9);
    toy_fill(&f->data, 5);
}

static inline void close_it(struct fixture *f)
{
    mixture_release(&f->mixture);
    toy_close(f->model);
}

/* Clusters that have seen samples about MEAN with deviation SPREAD. */
static inline void teach(struct fixture *f, float mean, float spread)
{
    struct rng rng;
    float x[TOY_DIM];

    rng_init(&rng, 31, 0);
    for (size_t r = 0; r < f->mixture.n_routers; r++) {
        struct clusters c;

        mixture_clusters(&c, &f->mixture, r);
        for (size_t i = 0; i < 200; i++) {
            for (size_t j = 0; j < TOY_DIM; j++)
                x[j] = mean + spread * rng_normal(&rng);
            clusters_add(&c, x, &f->mixture.rule.clusters);
        }
    }
}

static inline struct decoder_pass *pass_over(const struct fixture *f,
                                             const struct mixture *mixture)
{
    const struct pass_options o = {
        .routing = ROUTE_ROUTER, .max_rows = 32, .max_seqs = 4};
    struct decoder_pass *p;
    struct artel_error err;

    assert_int_equal(pass_open(&p, f->model, mixture, &o, &err), 0);
    decoder_forward(p, &f->data.block);
    return p;
}

/* ---- training ---- */

struct training {
    struct fixture f;
    struct artel_trainer *trainer;
    struct laid_rows laid;
};

static inline struct train_options slim_options(float l1)
{
    struct train_options o;

    train_options_default(&o);
    o.learning_rate = o.router_learning_rate = 1e-2f;
    o.routing = ROUTE_ROUTER;
    o.unlabelled = true;
    o.l1 = l1;
    o.max_row_tokens = 24;
    o.block_rows = 24;
    return o;
}

/* KINDS as open_with() takes them. */
static inline void open_trainer(struct training *t, const char *kinds,
                                const struct gate_rule *rule,
                                const struct train_options *o, size_t threads)
{
    bool trained[8] = {false};
    struct artel_error err;

    memset(t, 0, sizeof(*t));
    open_with(&t->f, rule, kinds);
    for (size_t e = 0; kinds[e]; e++)
        trained[e] = kinds[e] == 'L';
    lay_rows(&t->laid, ROWS, 2);
    assert_int_equal(cpu_set_threads(threads, &err), 0);
    assert_int_equal(
        trainer_open(&t->trainer, t->f.model, &t->f.mixture, trained, true, o, &err),
        0);
}

static inline void close_training(struct training *t)
{
    trainer_close(t->trainer);
    close_it(&t->f);
}

static inline struct step_report steps(struct training *t, size_t n)
{
    struct step_report report = {0};
    struct artel_error err;

    for (size_t i = 0; i < n; i++)
        assert_int_equal(trainer_step(t->trainer, &t->laid.batch, 1, &report, &err), 0);
    return report;
}

#endif
