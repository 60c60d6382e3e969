/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slopes of a training step of SLIM, masks on and gates yielding, against central
 * differences of plain loops in double (slim_plain.h); those of the L1 term are its
 * formula's.
 *
 * The distance carries no gradient (docs/METHODS.md): the differences hold each yield at
 * what it was. A place whose small step changes which two experts a row keeps is left out,
 * for there the loss has no slope.
 */
#define TOY_LAYERS 3
#include "slim_plain.h"

#include <stdio.h>

#define KINDS    "LILLI"
#define A_STEP   1e-4
#define A_LINEAR 4 /* places looked at, of each A and each B */

struct check {
    struct training t;
    struct plain p;
    struct plain before; /* as P was before a number was moved: what rows kept */
    struct sequence seqs[ROWS];
    const float *slopes[PLAIN_EXPERTS], *router_slopes;
    size_t compared, left_out, dropped, alive;
};

/* Clusters such that rows of the training data yield a little. */
static void open_readable(struct training *t, const struct gate_rule *rule, float l1)
{
    struct train_options o = slim_options(l1);

    tell_slopes(&o);
    open_trainer(t, KINDS, rule, &o, 2);
    teach(&t->f, 0.1f, 0.4f);
}

static void open_check(struct check *c, const struct gate_rule *rule)
{
    memset(c, 0, sizeof(*c));
    open_readable(&c->t, rule, 0.0f);
    for (size_t i = 0; i < ROWS; i++)
        c->seqs[i] = (struct sequence){.ids = c->t.laid.row[i].ids,
                                       .n = c->t.laid.row[i].n,
                                       .loss = c->t.laid.row[i].loss,
                                       .pool_first = c->t.laid.row[i].pool_first,
                                       .pool_n = c->t.laid.row[i].pool_n};
}

/* The number at AT of P moves, SLOPE tells how the loss follows. WHAT names it. */
static void check_place(struct check *c, double *at, float slope, const char *what)
{
    const double was = *at;
    double loss[2], want;

    for (int i = 0; i < 2; i++) {
        *at = i ? was - A_STEP : was + A_STEP;
        loss[i] = plain_loss(&c->p, c->seqs, ROWS);
        *at = was;
        if (memcmp(c->p.kept, c->before.kept, sizeof(c->p.kept))) {
            c->left_out++;
            return;
        }
    }
    want = (loss[0] - loss[1]) / (2.0 * A_STEP);
    if (!(fabs((double)slope - want) <= 1e-7 + 1e-4 * fabs(want)))
        fail_msg("%s: the loss moves by %.8g, the slope is %.8g", what, want, slope);
    c->compared++;
    c->alive += fabs(want) > 1e-4;
}

/* A or B, N numbers of expert E from FIRST on: some places that are kept, and every one that
 * a mask dropped has slope 0. */
static void check_numbers(struct check *c, size_t e, size_t first, size_t n,
                          struct rng *r, const char *what)
{
    size_t kept = 0;

    while (kept < A_LINEAR) {
        const size_t i = first + rng_below(r, (uint32_t)n);

        if (c->p.factor[e][i] == 0.0)
            continue;
        check_place(c, &c->p.learnt[e][i], c->slopes[e][i], what);
        kept++;
    }
    for (size_t i = first; i < first + n; i++)
        if (c->p.factor[e][i] == 0.0) {
            if (c->slopes[e][i] != 0.0f)
                fail_msg("%s: what was dropped has slope %g", what, c->slopes[e][i]);
            c->dropped++;
        }
}

static void check_layer(struct check *c, size_t layer, struct rng *r)
{
    const struct mixture *m = &c->t.f.mixture;
    const struct router *router = &m->routers[layer];
    const size_t w = (size_t)(router->w - m->router_params);
    char what[128];

    for (size_t e = 0; e < m->n_experts; e++)
        for (int s = SITE_GATE; c->slopes[e] && s <= SITE_DOWN; s++) {
            const struct expert *x = &m->experts[e];
            const struct lora *l = expert_lora(x, layer, (enum site)s);

            snprintf(what, sizeof(what), "layer %zu, A of %s, %s", layer,
                     site_name((enum site)s), x->name);
            check_numbers(c, e, (size_t)(l->a - x->params), l->rank * l->n_in, r, what);
            snprintf(what, sizeof(what), "layer %zu, B of %s, %s", layer,
                     site_name((enum site)s), x->name);
            check_numbers(c, e, (size_t)(l->b - x->params), l->rank * l->n_out, r,
                          what);
        }
    for (size_t e = 0; e < router->n_experts; e++)
        for (size_t i = 0; i < A_LINEAR; i++) {
            const size_t at = w + e * TOY_DIM + rng_below(r, TOY_DIM);

            snprintf(what, sizeof(what), "layer %zu, router, %s", layer,
                     m->experts[e].name);
            check_place(c, &c->p.routers[at], c->router_slopes[at], what);
        }
}

/* Rows yield in every layer, and it shows in the loss. */
static void assert_yields(struct check *c, double loss)
{
    double kept[TOY_LAYERS][PLAIN_SEQS];

    for (size_t layer = 0; layer < TOY_LAYERS; layer++) {
        size_t some = 0;

        for (size_t s = 0; s < ROWS; s++)
            some += c->p.yield[layer][s] > 0.05 && c->p.yield[layer][s] < 3.0;
        assert_true(some >= ROWS / 4);
    }
    memcpy(kept, c->p.yield, sizeof(kept));
    memset(c->p.yield, 0, sizeof(c->p.yield));
    assert_true(fabs(plain_loss(&c->p, c->seqs, ROWS) - loss) > 1e-4);
    memcpy(c->p.yield, kept, sizeof(kept));
}

/* One step more, and its slopes. */
static void check_step(struct check *c, uint64_t step)
{
    struct rng r;
    double loss;

    c->compared = c->left_out = c->dropped = c->alive = 0;
    plain_open(&c->p, &c->t.f, step);
    loss = plain_loss(&c->p, c->seqs, ROWS);
    c->p.held = true;
    assert_yields(c, loss);
    assert_near(plain_loss(&c->p, c->seqs, ROWS), loss, 1e-12);
    c->before = c->p;
    assert_near(steps(&c->t, 1).loss, loss, 1e-5);
    for (size_t e = 0; e < c->t.f.mixture.n_experts; e++)
        c->slopes[e] = expert_slopes(c->t.trainer, &c->t.f.mixture.experts[e]);
    c->router_slopes = router_slopes(c->t.trainer);
    rng_init(&r, 3 + step, 0);
    check_layer(c, 0, &r);
    check_layer(c, TOY_LAYERS - 1, &r);
    assert_true(c->left_out <= c->compared / 10);
    assert_true(c->alive > c->compared / 2);
    assert_true(c->p.mixture->rule.masks.drop == 0.0f || c->dropped > 500);
    plain_close(&c->p);
}

static void slopes_are_those_beneath_the_masks(void **state)
{
    static const struct {
        float drop;
        bool rescale;
        uint64_t steps;
    } cases[] = {{0.5f, false, 2}, {0.3f, true, 1}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct gate_rule rule = slim_rule(cases[i].drop);
        struct check c;

        rule.masks.rescale = cases[i].rescale;
        open_check(&c, &rule);
        for (uint64_t step = 0; step < cases[i].steps; step++)
            check_step(&c, step);
        close_training(&c.t);
    }
}

static void slopes_pass_through_yielding_gates(void **state)
{
    struct gate_rule rule = slim_rule(0.0f);
    struct check c;

    (void)state;
    rule.clusters.beta = 0.5f;
    open_check(&c, &rule);
    check_step(&c, 0);
    close_training(&c.t);
}

/* A number that is 0 has no sign; what is computed with is as before. */
static void clear(struct training *t, size_t e, size_t i)
{
    t->f.mixture.bare[e][i] = 0.0f;
    t->f.mixture.experts[e].params[i] = 0.0f;
}

/* N numbers P from FIRST on: WITH the term the slope is BY times their sign more. What a
 * mask dropped has no slope beside it, and is counted. */
static size_t check_l1(const float *with, const float *without, const double *p,
                       size_t first, size_t n, double by)
{
    size_t alone = 0;

    for (size_t i = first; i < first + n; i++) {
        const double sign = p[i] > 0.0 ? 1.0 : p[i] < 0.0 ? -1.0 : 0.0;
        const double rounding =
            6e-8 * (fabs((double)with[i]) + fabs((double)without[i]) + by);

        assert_near((double)with[i] - (double)without[i], by * sign, rounding);
        alone += without[i] == 0.0f && sign != 0.0;
    }
    return alone;
}

/* The slope of lambda (|B|_1 / (R M) + |A|_1 / (R N)) is lambda / (R M) or lambda / (R N)
 * times a number's sign, of the numbers beneath the masks, dropped ones too. */
static void the_l1_slope_is_its_factor(void **state)
{
    static const size_t cleared[] = {3, 700, 2000};
    const double lambda = 0.25;
    const struct gate_rule rule = slim_rule(0.5f);
    struct training with, without;
    size_t alone = 0, seen = 0;
    struct plain p;

    (void)state;
    open_readable(&with, &rule, (float)lambda);
    open_readable(&without, &rule, 0.0f);
    for (size_t i = 0; i < sizeof(cleared) / sizeof(*cleared); i++) {
        clear(&with, 2, cleared[i]);
        clear(&without, 2, cleared[i]);
    }
    plain_open(&p, &with.f, 0); /* as it was before the step */
    steps(&with, 1);
    steps(&without, 1);
    for (size_t i = 0; i < with.f.mixture.n_experts * TOY_LAYERS * N_SITES; i++) {
        const size_t e = i / (TOY_LAYERS * N_SITES);
        const struct expert *x = &with.f.mixture.experts[e];
        const struct lora *l = &x->lora[i % (TOY_LAYERS * N_SITES)];
        const float *g = expert_slopes(with.trainer, x);
        const float *bare = expert_slopes(without.trainer, x);
        const size_t n_a = l->rank * l->n_in, n_b = l->rank * l->n_out;

        if (!l->rank)
            continue;
        alone += check_l1(g, bare, p.learnt[e], (size_t)(l->a - x->params), n_a,
                          lambda / (double)n_a);
        alone += check_l1(g, bare, p.learnt[e], (size_t)(l->b - x->params), n_b,
                          lambda / (double)n_b);
        seen += n_a + n_b;
    }
    assert_int_equal(seen, 3 * (3 + 4 + 5) * (32 + 48) * TOY_LAYERS);
    assert_true(alone > seen / 5);
    plain_close(&p);
    close_training(&with);
    close_training(&without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slopes_are_those_beneath_the_masks),
        cmocka_unit_test(slopes_pass_through_yielding_gates),
        cmocka_unit_test(the_l1_slope_is_its_factor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
