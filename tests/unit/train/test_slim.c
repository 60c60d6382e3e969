/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SLIM in the engine: what is far goes to the identities, which are the base; training
 * with masks, clusters and the L1 term repeats itself to the bit, and asking changes
 * nothing. What it computes: test_slim_plain.c, test_slim_slopes.c.
 */
#include "slim_case.h"

#define N_LORAS 3
#define ALL     "LLLII"
#define N_ALL   5

static void assert_same_hidden(const struct decoder_pass *a,
                               const struct decoder_pass *b, size_t n_rows)
{
    for (size_t t = 0; t < n_rows; t++)
        assert_memory_equal(pass_hidden(a, t), pass_hidden(b, t),
                            TOY_DIM * sizeof(float));
}

static void what_is_far_is_the_base_bit_for_bit(void **state)
{
    const struct gate_rule rule = slim_rule(0.5f);
    struct decoder_pass *near, *far, *base;
    struct fixture f;

    (void)state;
    open_with(&f, &rule, ALL);
    base = pass_over(&f, NULL);
    near = pass_over(&f, &f.mixture); /* clusters have seen nothing: no yield */
    assert_memory_not_equal(pass_hidden(near, 3), pass_hidden(base, 3),
                            TOY_DIM * sizeof(float));
    teach(&f, 1e4f, 1e-3f);
    far = pass_over(&f, &f.mixture);
    assert_same_hidden(far, base, f.data.block.n_rows);
    pass_close(base);
    pass_close(near);
    pass_close(far);
    close_it(&f);
}

static void without_beta_clusters_change_no_bit(void **state)
{
    struct gate_rule rule = slim_rule(0.0f), bare;
    struct fixture f, g;
    struct decoder_pass *a, *b;

    (void)state;
    rule.clusters.beta = 0.0f;
    bare = rule;
    bare.n_clusters = 0;
    open_with(&f, &rule, ALL);
    open_with(&g, &bare, ALL);
    teach(&f, 1e4f, 1e-3f);
    a = pass_over(&f, &f.mixture);
    b = pass_over(&g, &g.mixture);
    assert_same_hidden(a, b, f.data.block.n_rows);
    pass_close(a);
    pass_close(b);
    close_it(&f);
    close_it(&g);
}

/* The share of the LoRAs falls as the clusters move away. */
static void weight_goes_to_identities_with_the_distance(void **state)
{
    const struct gate_rule rule = slim_rule(0.0f);
    float before = 1.0f;
    size_t between = 0;

    (void)state;
    for (float away = 0.0f; away < 3.0f; away += 0.5f) {
        struct decoder_pass *p;
        struct fixture f;
        double sums[TOY_LAYERS * N_ALL] = {0.0}, loras = 0.0;
        size_t rows = 0;

        open_with(&f, &rule, ALL);
        teach(&f, away, 1.0f);
        p = pass_over(&f, &f.mixture);
        for (size_t s = 0; s < TOY_SEQS; s++)
            rows += pass_add_gates(p, s, f.data.seqs[s].loss, sums);
        for (size_t e = 0; e < N_LORAS; e++)
            loras += sums[e] / (double)rows;
        assert_true((float)loras <= before);
        between += loras > 0.1 && (float)loras < before;
        before = (float)loras;
        pass_close(p);
        close_it(&f);
    }
    assert_true(between >= 3 && before < 0.01f);
}

static void open_training(struct training *t, size_t threads, float drop, float l1)
{
    const struct gate_rule rule = slim_rule(drop);
    const struct train_options o = slim_options(l1);

    open_trainer(t, ALL, &rule, &o, threads);
}

/* All that a checkpoint would hold is the same bits. */
static void assert_same_state(struct training *a, struct training *b)
{
    struct tensor one[MOST_TENSORS], two[MOST_TENSORS];
    const size_t n = state_of(a->trainer, one);

    assert_int_equal(state_of(b->trainer, two), n);
    assert_string_equal(one[n - 1].name, "router.clusters");
    for (size_t i = 0; i < n; i++)
        assert_memory_equal(one[i].data, two[i].data, one[i].bytes);
}

static void threads_and_restarts_change_no_bit(void **state)
{
    struct training one, many, again;
    struct tensor kept[MOST_TENSORS];
    struct artel_error err;
    size_t n;

    (void)state;
    open_training(&one, 1, 0.5f, 1e-3f);
    steps(&one, 6);
    open_training(&many, 3, 0.5f, 1e-3f);
    steps(&many, 6);
    assert_same_state(&one, &many);
    n = state_of(many.trainer, kept);
    open_training(&again, 2, 0.5f, 1e-3f);
    assert_int_equal(trainer_restore(again.trainer, kept, n, 6, &err), 0);
    steps(&again, 4);
    steps(&one, 4);
    assert_same_state(&one, &again);
    close_training(&one);
    close_training(&many);
    close_training(&again);
}

static void it_learns_under_masks(void **state)
{
    struct training t;
    float before, after;

    (void)state;
    open_training(&t, 2, 0.3f, 0.0f);
    before = steps(&t, 1).loss;
    after = steps(&t, 150).loss;
    assert_true(after < 0.8f * before);
    close_training(&t);
}

/* 12 samples a step: the clusters are ready in the sixth. */
static void an_evaluation_changes_nothing(void **state)
{
    struct training t;
    struct tensor kept[MOST_TENSORS];
    unsigned char *before[MOST_TENSORS];
    struct eval_report report;
    struct artel_error err;
    size_t n;

    (void)state;
    open_training(&t, 2, 0.5f, 0.0f);
    steps(&t, 7);
    n = state_of(t.trainer, kept);
    for (size_t i = 0; i < n; i++) {
        before[i] = malloc(kept[i].bytes);
        memcpy(before[i], kept[i].data, kept[i].bytes);
    }
    assert_int_equal(trainer_eval(t.trainer, t.laid.rows, ROWS, &report, &err), 0);
    for (size_t i = 0; i < n; i++) {
        assert_memory_equal(before[i], kept[i].data, kept[i].bytes);
        free(before[i]);
    }
    close_training(&t);
}

/* The term is lambda times the mean sizes, and it alone pulls every number to zero. */
static void the_l1_term_is_told_and_pulls(void **state)
{
    struct training with, without;
    double expected = 0.0, size[2] = {0.0, 0.0};

    (void)state;
    open_training(&with, 1, 0.0f, 0.5f);
    open_training(&without, 1, 0.0f, 0.0f);
    for (size_t e = 0; e < N_LORAS; e++)
        for (size_t i = 0; i < TOY_LAYERS * N_SITES; i++) {
            const struct lora *l = &with.f.mixture.experts[e].lora[i];
            double a = 0.0, b = 0.0;

            if (!l->rank)
                continue;
            for (size_t k = 0; k < l->rank * l->n_in; k++)
                a += fabs((double)l->a[k]);
            for (size_t k = 0; k < l->rank * l->n_out; k++)
                b += fabs((double)l->b[k]);
            expected += 0.5 * (a / (double)(l->rank * l->n_in) +
                               b / (double)(l->rank * l->n_out));
        }
    assert_near(steps(&with, 1).penalty, expected, 1e-6 * expected);
    assert_true(steps(&without, 1).penalty == 0.0f);
    steps(&with, 30);
    steps(&without, 30);
    for (size_t i = 0; i < with.f.mixture.experts[0].n_params; i++) {
        size[0] += fabs((double)with.f.mixture.experts[0].params[i]);
        size[1] += fabs((double)without.f.mixture.experts[0].params[i]);
    }
    assert_true(size[0] < size[1]);
    close_training(&with);
    close_training(&without);
}

/* What is worn for use is masked; what was learnt is not lost beneath. */
static void masks_come_off(void **state)
{
    struct gate_rule rule = slim_rule(0.5f);
    struct fixture f;
    struct artel_error err;
    struct expert learnt;
    float *before;
    size_t n, zeros = 0;

    (void)state;
    open_with(&f, &rule, ALL);
    n = f.mixture.experts[1].n_params;
    before = malloc(n * sizeof(*before));
    memcpy(before, f.mixture.experts[1].params, n * sizeof(*before));
    assert_int_equal(
        mixture_wear(&f.mixture, &f.model->weights->config, MASK_INFERENCE, &err), 0);
    for (size_t i = 0; i < n; i++)
        zeros += f.mixture.experts[1].params[i] == 0.0f;
    /* Of 32 columns or rows 23 stay, the root of a half, and of 48 34. */
    assert_int_equal(zeros, n * ((32 - 23) + (48 - 34)) / (32 + 48));
    assert_int_equal(mixture_learnt(&learnt, &f.mixture, 1, &err), 0);
    assert_memory_equal(learnt.params, before, n * sizeof(*before));
    assert_true(learnt.lora[SITE_GATE].a[0] == before[0]);
    free(learnt.lora);
    mixture_bare(&f.mixture);
    assert_memory_equal(f.mixture.experts[1].params, before, n * sizeof(*before));
    free(before);
    close_it(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_far_is_the_base_bit_for_bit),
        cmocka_unit_test(without_beta_clusters_change_no_bit),
        cmocka_unit_test(weight_goes_to_identities_with_the_distance),
        cmocka_unit_test(threads_and_restarts_change_no_bit),
        cmocka_unit_test(it_learns_under_masks),
        cmocka_unit_test(an_evaluation_changes_nothing),
        cmocka_unit_test(the_l1_term_is_told_and_pulls),
        cmocka_unit_test(masks_come_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
