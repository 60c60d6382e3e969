/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One linear of a Res mixture against a plain dense reference in double, written from the
 * formula: h is formed, experts act on it, gradients flow back through it. Once with h
 * itself in the sum, once without.
 */
#include "support/toy_decoder.h"

#include "experts/fold.h"

static const struct gate_rule res = {.place = ROUTER_LINEAR,
                                     .decides = DECIDE_TOKEN,
                                     .kind = GATE_SOFTMAX,
                                     .n_fixed = 1};
static const struct gate_rule no_residual = {.place = ROUTER_LINEAR,
                                             .decides = DECIDE_TOKEN,
                                             .kind = GATE_SOFTMAX,
                                             .n_fixed = 1,
                                             .silent = true};

#define T 7
#define N TOY_DIM
#define M TOY_FFN
#define E 3

struct dense {
    double h[T][M], u[T][TOY_FFN]; /* of the universal expert */
    double y[T][M];
};

static double phi(double a)
{
    return a < 0 ? (double)RES_SLOPE * a : a;
}

/* y = h + sum g_i s_i B_i phi(A_i h), the first h left out where the rule says so */
static void dense_forward(struct dense *d, const struct mixture *m, enum site site,
                          const float *x, const float *gate)
{
    const struct lora *u = expert_lora(&m->experts[0], 0, site);

    memset(d, 0, sizeof(*d));
    for (size_t t = 0; t < T; t++) {
        for (size_t k = 0; k < u->rank; k++)
            for (size_t n = 0; n < N; n++)
                d->u[t][k] += (double)u->a[k * N + n] * (double)x[t * N + n];
        for (size_t o = 0; o < M; o++) {
            for (size_t k = 0; k < u->rank; k++)
                d->h[t][o] +=
                    (double)u->scale * (double)u->b[o * u->rank + k] * d->u[t][k];
            d->y[t][o] = m->rule.silent ? 0.0 : d->h[t][o];
        }
        for (size_t e = 1; e < E; e++) {
            const struct lora *l = expert_lora(&m->experts[e], 0, site);

            for (size_t r = 0; r < l->rank; r++) {
                double a = 0;

                for (size_t o = 0; o < M; o++)
                    a += (double)l->a[r * M + o] * d->h[t][o];
                for (size_t o = 0; o < M; o++)
                    d->y[t][o] += (double)gate[t * E + e] * (double)l->scale *
                                  (double)l->b[o * l->rank + r] * phi(a);
            }
        }
    }
}

/* d_h of row T, gradients of A and B of expert E into D_A and D_B, the gate's slope. */
static void dense_backward_row(double *d_h, double *d_a, double *d_b, double *d_gate,
                               const struct dense *d, const struct lora *l, size_t t,
                               const float *d_y, double g)
{
    for (size_t r = 0; r < l->rank; r++) {
        double a = 0, slope = 0;

        for (size_t o = 0; o < M; o++) {
            a += (double)l->a[r * M + o] * d->h[t][o];
            slope += (double)l->b[o * l->rank + r] * (double)d_y[t * M + o];
        }
        *d_gate += (double)l->scale * slope * phi(a);
        slope *= g * (double)l->scale * (a < 0 ? (double)RES_SLOPE : 1.0);
        for (size_t o = 0; o < M; o++) {
            d_b[o * l->rank + r] +=
                g * (double)l->scale * phi(a) * (double)d_y[t * M + o];
            d_a[r * M + o] += slope * d->h[t][o];
            d_h[o] += slope * (double)l->a[r * M + o];
        }
    }
}

struct linear {
    float x[T * N], d_y[T * M], y[T * M], d_x[T * N];
    uint32_t self[T];
    struct arena arena;
    struct apply_scratch scratch;
    struct gates gates;
};

static void linear_carve(struct linear *l, struct arena *a, const struct mixture *m,
                         const struct model_config *c)
{
    apply_scratch_carve(&l->scratch, a, m, c, T);
    gates_carve(&l->gates, a, T, T, E, 0, true);
}

static void noise(float *x, size_t n, uint64_t seed)
{
    struct rng r;

    rng_init(&r, seed, 0);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_normal(&r);
}

static struct linear *open_linear(struct mixture *m, const struct artel_model *model,
                                  const struct gate_rule *rule, enum site site)
{
    const struct model_config *c = &model->weights->config;
    struct linear *l = calloc(1, sizeof(*l));
    struct arena measure = {0};
    struct artel_error err;

    assert_int_equal(mixture_init(m, "test", c, rule, &err), 0);
    toy_expert(m, model, "universal", 4, NULL, 1);
    toy_expert_of(m, model, EXPERT_RES, "one", 2, NULL, 2);
    toy_expert_of(m, model, EXPERT_RES, "two", 5, NULL, 3);
    mixture_draw_routers(m, 0.4f, 9);
    linear_carve(l, &measure, m, c);
    assert_int_equal(arena_init(&l->arena, measure.used, NULL), 0);
    linear_carve(l, &l->arena, m, c);
    noise(l->x, T * N, 1);
    noise(l->d_y, T * M, 2);
    l->gates.n_rows = l->gates.n_units = T;
    l->gates.unit_of_row = l->self;
    l->gates.n_fixed = 1;
    l->gates.silent = rule->silent;
    for (size_t t = 0; t < T; t++)
        l->self[t] = (uint32_t)t;
    gates_read(&l->gates, &m->routers[site], POOL_MEAN, NULL, l->x);
    gates_decide(&l->gates, &m->rule);
    return l;
}

/* Gradients of expert E and of its gates; D_H (T, M) gets what flows into h. */
static void check_expert(const struct linear *l, const struct mixture *m, size_t e,
                         const struct lora *lora, const struct dense *d, double *d_h,
                         const float *folded)
{
    double *d_a = calloc(lora->rank * M, sizeof(*d_a));
    double *d_b = calloc(lora->rank * M, sizeof(*d_b));
    float *own = calloc(m->experts[e].n_params, sizeof(*own));
    const float *own_a = own + (lora->a - m->experts[e].params);
    const float *own_b = own + (lora->b - m->experts[e].params);

    for (size_t t = 0; t < T; t++) {
        double slope = 0;

        dense_backward_row(d_h + t * M, d_a, d_b, &slope, d, lora, t, l->d_y,
                           (double)l->gates.gate[t * E + e]);
        assert_near(l->gates.d_gate[t * E + e], (float)slope, 1e-4);
    }
    mixture_unfold(own, NULL, m, e, folded);
    for (size_t i = 0; i < lora->rank * M; i++) {
        assert_near(own_a[i], (float)d_a[i], 1e-4);
        assert_near(own_b[i], (float)d_b[i], 1e-4);
    }
    free(d_a);
    free(d_b);
    free(own);
}

/* From d_h to d_x, through the universal expert. */
static void check_input(const struct linear *l, const struct lora *u, const double *d_h)
{
    for (size_t t = 0; t < T; t++) {
        double d_x[N] = {0};

        for (size_t k = 0; k < u->rank; k++) {
            double d_u = 0;

            for (size_t o = 0; o < M; o++)
                d_u +=
                    (double)u->scale * d_h[t * M + o] * (double)u->b[o * u->rank + k];
            for (size_t n = 0; n < N; n++)
                d_x[n] += d_u * (double)u->a[k * N + n];
        }
        for (size_t n = 0; n < N; n++)
            assert_near(l->d_x[t * N + n], (float)d_x[n], 1e-4);
    }
}

/* STACKED: experts that serve all rows in one product, else one after the other. */
static void compare_linear(const struct gate_rule *rule, bool stacked)
{
    const enum site site = SITE_UP;
    struct artel_model *model = toy_open(7);
    struct mixture m;
    struct linear *l = open_linear(&m, model, rule, site);
    struct dense *d = calloc(1, sizeof(*d));
    double *d_h = calloc(T * M, sizeof(*d_h));
    struct mixture_grads g = toy_grads(&m);
    const struct apply_place at = {.mixture = &m, .site = site, .gates = &l->gates};

    if (!stacked)
        l->scratch.a = NULL;
    experts_forward(l->y, &at, l->x, &l->scratch);
    experts_backward(l->d_x, &g, &at, l->d_y, l->x, &l->scratch);
    dense_forward(d, &m, site, l->x, l->gates.gate);
    for (size_t i = 0; i < T * M; i++) {
        assert_near(l->y[i], (float)d->y[i / M][i % M], 2e-5);
        d_h[i] = rule->silent ? 0.0 : (double)l->d_y[i];
    }
    for (size_t e = 1; e < E; e++)
        check_expert(l, &m, e, expert_lora(&m.experts[e], 0, site), d, d_h,
                     g.expert[e]);
    check_input(l, expert_lora(&m.experts[0], 0, site), d_h);
    toy_grads_free(&g);
    arena_release(&l->arena);
    free(l);
    free(d);
    free(d_h);
    mixture_release(&m);
    toy_close(model);
}

static void one_linear_is_what_its_formula_says(void **state)
{
    (void)state;
    compare_linear(&res, true);
    compare_linear(&res, false);
}

static void so_it_is_without_the_residual(void **state)
{
    (void)state;
    compare_linear(&no_residual, true);
    compare_linear(&no_residual, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_linear_is_what_its_formula_says),
        cmocka_unit_test(so_it_is_without_the_residual),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
