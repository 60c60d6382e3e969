/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The head over a vocabulary of several pieces, against a softmax in double over
 * all logits at once.
 */
#define TOY_VOCAB 700 /* two whole pieces and a part */
#include "support/toy_decoder.h"

#include "decoder/pass.h"
#include "math/rmsnorm.h"

/* Logits that grow or shrink along the vocabulary. */
static void shape_head(struct artel_model *m, float slope)
{
    float *const w = (float *)(size_t)m->weights->head.data;
    struct artel_error err;

    for (size_t v = 0; v < TOY_VOCAB; v++)
        for (size_t i = 0; i < TOY_DIM; i++)
            w[v * TOY_DIM + i] *= 1.0f + slope * (float)v / TOY_VOCAB;
    arena_release(&m->arena); /* packed from the weights as they were */
    assert_int_equal(model_prepare(m, PRECISION_FP32, MATRIX_FORWARD | MATRIX_BACKWARD,
                                   TOY_CONTEXT, &err),
                     0);
}

/* nll of ROW and D (TOY_DIM), its gradient by the normed hidden state, in double. */
static double plain(double *d, struct decoder_pass *p, size_t row, int32_t target,
                    float scale)
{
    static float logits[TOY_VOCAB];
    const float *w = p->model->weights->head.data;
    double max = -1e30, sum = 0.0;

    pass_logits(p, logits, row);
    for (size_t v = 0; v < TOY_VOCAB; v++)
        max = (double)logits[v] > max ? (double)logits[v] : max;
    for (size_t v = 0; v < TOY_VOCAB; v++)
        sum += exp((double)logits[v] - max);
    for (size_t i = 0; i < TOY_DIM; i++)
        d[i] = 0.0;
    for (size_t v = 0; v < TOY_VOCAB; v++) {
        const double q = exp((double)logits[v] - max) / sum - ((int32_t)v == target);

        for (size_t i = 0; i < TOY_DIM; i++)
            d[i] += (double)scale * q * (double)w[v * TOY_DIM + i];
    }
    return max + log(sum) - (double)logits[target];
}

static void check_row(struct decoder_pass *p, size_t row, int32_t target, float scale,
                      double *nll)
{
    const float *x = pass_hidden(p, row);
    float xn[TOY_DIM], inv, d[TOY_DIM], d_x[TOY_DIM] = {0};
    double want[TOY_DIM];

    *nll += plain(want, p, row, target, scale);
    rmsnorm_forward(xn, &inv, x, p->model->final_norm,
                    p->model->weights->config.norm_eps, 1, TOY_DIM);
    for (size_t i = 0; i < TOY_DIM; i++)
        d[i] = (float)want[i];
    rmsnorm_backward(d_x, d, x, p->model->final_norm, &inv, 1, TOY_DIM);
    for (size_t i = 0; i < TOY_DIM; i++)
        assert_near(p->d_x[row * TOY_DIM + i], d_x[i], 2e-6);
}

static void check_loss(float slope)
{
    const struct pass_options o = {.backward = true, .max_rows = 32, .max_seqs = 4};
    struct artel_model *model = toy_open(1);
    struct block_loss loss, again;
    struct decoder_pass *p;
    struct artel_error err;
    struct toy_data data;
    double nll[TOY_SEQS];
    size_t row = 0;

    toy_fill(&data, 3);
    shape_head(model, slope);
    assert_int_equal(pass_open(&p, model, NULL, &o, &err), 0);
    decoder_forward(p, &data.block);
    decoder_loss(p, &loss, nll);
    for (size_t s = 0; s < TOY_SEQS; s++) {
        const struct sequence *q = &data.seqs[s];
        double want = 0.0;

        for (size_t i = 1; i < q->n; i++)
            if (q->loss[i])
                check_row(p, row + i - 1, q->ids[i], q->loss_scale, &want);
        assert_near(nll[s], want, 1e-5 * (1.0 + want));
        row += q->n;
    }
    assert_near(loss.nll, nll[0] + nll[1] + nll[2], 1e-9);
    pass_set_training(p, false); /* the same sums without a gradient */
    decoder_loss(p, &again, NULL);
    assert_true(again.nll == loss.nll);
    pass_close(p);
    toy_close(model);
}

static void the_walk_equals_one_softmax(void **state)
{
    (void)state;
    check_loss(0.0f);
    check_loss(2.0f);   /* later pieces hold the largest logits */
    check_loss(-0.95f); /* the first piece does */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_walk_equals_one_softmax),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
