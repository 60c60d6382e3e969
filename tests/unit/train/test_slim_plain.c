/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What SLIM computes against plain loops in double (slim_plain.h): a top-2 mixture where it
 * has neither masks nor identities nor yields, and all of it with them, in a forward and
 * token by token. A float forward of three layers leaves some 1e-6 of a logit's size.
 */
#define TOY_LAYERS 3
#include "slim_plain.h"

#include "decoder/session.h"

#define BOUND 1e-5

/* Clusters such that questions of the toy data lie beyond the mean a little. */
static void teach_near(struct fixture *f)
{
    teach(f, 0.1f, 0.55f);
}

/* Every logit of the toy data under F is P's. */
static void assert_logits(const struct fixture *f, struct plain *p)
{
    struct decoder_pass *pass = pass_over(f, &f->mixture);
    size_t row = 0;

    for (size_t s = 0; s < TOY_SEQS; s++) {
        double want[PLAIN_TOKENS][TOY_VOCAB];
        float got[TOY_VOCAB];

        plain_logits(want, p, &f->data.seqs[s], s);
        for (size_t t = 0; t < f->data.seqs[s].n; t++) {
            pass_logits(pass, got, row++);
            for (size_t v = 0; v < TOY_VOCAB; v++)
                assert_near(got[v], want[t][v], BOUND);
        }
    }
    pass_close(pass);
}

/* Without the experts logits are far from where they are. P's last question. */
static void assert_experts_count(const struct fixture *f, struct plain *p)
{
    double with[PLAIN_TOKENS][TOY_VOCAB], without[PLAIN_TOKENS][TOY_VOCAB];
    double apart = 0.0;

    plain_logits(with, p, &f->data.seqs[1], 1);
    for (size_t e = 0; e < p->mixture->n_experts; e++)
        for (size_t i = 0; i < p->mixture->experts[e].n_params; i++)
            p->factor[e][i] = 0.0;
    plain_logits(without, p, &f->data.seqs[1], 1);
    for (size_t t = 0; t < f->data.seqs[1].n; t++)
        for (size_t v = 0; v < TOY_VOCAB; v++)
            apart = fmax(apart, fabs(with[t][v] - without[t][v]));
    assert_true(apart > 0.5);
}

/* No clusters, or clusters that lie far and count for nothing. */
static void without_its_parts_it_is_a_top_2_mixture(void **state)
{
    (void)state;
    for (size_t clusters = 0; clusters <= N_CLUSTERS; clusters += N_CLUSTERS) {
        struct gate_rule rule = slim_rule(0.0f);
        struct fixture f;
        struct plain p;

        rule.clusters.beta = 0.0f;
        rule.n_clusters = clusters;
        open_with(&f, &rule, "LLLL");
        if (clusters)
            teach(&f, 1e4f, 1e-3f);
        plain_open(&p, &f, MASK_INFERENCE);
        p.held = true; /* at 0: softmax, the two largest, renormalised, and no more */
        assert_logits(&f, &p);
        assert_experts_count(&f, &p);
        plain_close(&p);
        close_it(&f);
    }
}

/* Rows of the toy data that keep N identities, as P had it. */
static size_t rows_with(const struct fixture *f, const struct plain *p, size_t n)
{
    size_t rows = 0;

    for (size_t layer = 0; layer < TOY_LAYERS; layer++)
        for (size_t s = 0; s < TOY_SEQS; s++)
            for (size_t t = 0; t < f->data.seqs[s].n; t++) {
                size_t found = 0;

                for (size_t k = 0; k < 2; k++)
                    found += p->mixture->identity[p->kept[layer][s][t][k]];
                rows += found == n;
            }
    return rows;
}

/* Something yields, not always, and rows keep none, one and both of the identities. */
static void assert_alive(const struct fixture *f, const struct plain *p)
{
    size_t yields = 0;

    for (size_t layer = 0; layer < TOY_LAYERS; layer++)
        for (size_t s = 0; s < TOY_SEQS; s++)
            yields += p->yield[layer][s] > 0.04 && p->yield[layer][s] < 3.0;
    assert_true(yields >= 4);
    for (size_t n = 0; n <= 2; n++)
        assert_true(rows_with(f, p, n) > 1);
}

static void open_worn(struct fixture *f, const struct gate_rule *rule)
{
    struct artel_error err;

    open_with(f, rule, "LILLI");
    teach_near(f);
    assert_int_equal(
        mixture_wear(&f->mixture, &f->model->weights->config, MASK_INFERENCE, &err), 0);
}

static void logits_are_the_formulas(void **state)
{
    static const struct {
        float drop, beta;
        bool rescale;
        enum mask_kind kind;
        enum distance_kind distance;
    } cases[] = {
        {0.0f, 1.0f, false, MASK_FIXED, DISTANCE_MEAN},
        {0.5f, 1.0f, false, MASK_FIXED, DISTANCE_MEAN},
        {0.3f, 0.5f, true, MASK_FIXED, DISTANCE_MEAN},
        {0.5f, 1.0f, false, MASK_FIXED, DISTANCE_MAX},
        {0.5f, 1.0f, false, MASK_EXPECTED, DISTANCE_MEAN},
        {0.5f, 1.0f, true, MASK_EXPECTED, DISTANCE_MEAN},
        {0.5f, 1.0f, true, MASK_NONE, DISTANCE_MEAN},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct gate_rule rule = slim_rule(cases[i].drop);
        struct fixture f;
        struct plain p;

        rule.masks.rescale = cases[i].rescale;
        rule.masks.kind = cases[i].kind;
        rule.clusters.beta = cases[i].beta;
        rule.clusters.distance = cases[i].distance;
        open_worn(&f, &rule);
        plain_open(&p, &f, MASK_INFERENCE);
        assert_logits(&f, &p);
        assert_alive(&f, &p);
        assert_experts_count(&f, &p);
        plain_close(&p);
        close_it(&f);
    }
}

/* A session yields as its question did, for as long as it answers. */
static void a_session_is_the_formulas(void **state)
{
    const struct gate_rule rule = slim_rule(0.5f);
    const size_t n_prompt = 5;
    double want[PLAIN_TOKENS][TOY_VOCAB];
    struct artel_session *session;
    struct artel_error err;
    struct sequence q;
    struct fixture f;
    struct plain p;

    (void)state;
    open_worn(&f, &rule);
    plain_open(&p, &f, MASK_INFERENCE);
    q = f.data.seqs[1];
    plain_logits(want, &p, &q, 0);
    for (size_t layer = 0; layer < TOY_LAYERS; layer++)
        assert_true(p.yield[layer][0] > 0.1);
    assert_true(q.pool_first + q.pool_n <= n_prompt && q.n > n_prompt + 3);
    assert_int_equal(session_open(&session, f.model, &f.mixture, TOY_CONTEXT, &err), 0);
    assert_int_equal(session_prefill(session, q.ids, n_prompt, EXPERT_AUTO,
                                     q.pool_first, q.pool_n, &err),
                     0);
    for (size_t t = n_prompt - 1; t < q.n; t++) {
        for (size_t v = 0; v < TOY_VOCAB; v++)
            assert_near(session_logits(session)[v], want[t][v], BOUND);
        if (t + 1 < q.n)
            assert_int_equal(session_step(session, q.ids[t + 1], &err), 0);
    }
    session_close(session);
    plain_close(&p);
    close_it(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_its_parts_it_is_a_top_2_mixture),
        cmocka_unit_test(logits_are_the_formulas),
        cmocka_unit_test(a_session_is_the_formulas),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
