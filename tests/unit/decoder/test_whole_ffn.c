/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts that each make a whole FFN, against that FFN written out in double with W + s B A
 * in the place of W; and their backward against differences of the same.
 *
 * Bound: sums of at most 48 floats of size 1, so 1e-4 is generous to rounding and far below
 * the size of what experts add.
 */
#include "support/toy_decoder.h"

#include "experts/whole_ffn.h"

#define ROWS    150 /* more than the experts take at a time */
#define EXPERTS 4   /* the first is fixed, the last an identity */

static const struct gate_rule rule = {.place = ROUTER_FFN,
                                      .decides = DECIDE_TOKEN,
                                      .kind = GATE_TOP_K,
                                      .top_k = 2,
                                      .n_fixed = 1,
                                      .whole_ffn = true};

struct world {
    struct artel_model *model;
    struct mixture m;
    struct arena arena;
    struct gates gates;
    struct apply_scratch apply;
    struct ffn_scratch own;
    struct ffn_place place;
    uint32_t self[ROWS];
    float x[ROWS * TOY_DIM], v[ROWS * TOY_DIM];
    float gate[ROWS * TOY_FFN], up[ROWS * TOY_FFN], a[ROWS * TOY_FFN];
    float out[ROWS * TOY_DIM];
};

static void carve(struct world *w, struct arena *a)
{
    const struct model_config *c = &w->model->weights->config;

    gates_carve(&w->gates, a, ROWS, ROWS, EXPERTS, 0, true);
    apply_scratch_carve(&w->apply, a, &w->m, c, ROWS);
    ffn_scratch_carve(&w->own, a, &w->m, c, ROWS, true);
}

/* Two of the three, one, or none, by turns. */
static void deal(struct world *w, struct rng *r)
{
    w->gates.n_rows = w->gates.n_units = ROWS;
    w->gates.n_fixed = 1;
    w->gates.unit_of_row = w->self;
    for (size_t t = 0; t < ROWS; t++) {
        float *g = w->gates.gate + t * EXPERTS;
        const float share = 0.2f + 0.6f * (float)rng_below(r, 1000) / 1000.0f;

        w->self[t] = (uint32_t)t;
        g[0] = 1.0f;
        if (t % 7 == 3)
            continue;
        g[1 + t % 3] = t % 5 ? share : 1.0f;
        g[1 + (t + 1) % 3] = t % 5 ? 1.0f - share : 0.0f;
    }
    gates_index(&w->gates);
}

static void world_open(struct world *w)
{
    struct arena measure = {0};
    struct artel_error err;
    struct rng r;

    *w = (struct world){.model = toy_open(3)};
    assert_int_equal(
        mixture_init(&w->m, "test", &w->model->weights->config, &rule, &err), 0);
    toy_expert(&w->m, w->model, "shared", 2, "0123", 1);
    toy_expert_of(&w->m, w->model, EXPERT_FFN, "one", 5, "456", 2);
    toy_expert_of(&w->m, w->model, EXPERT_FFN, "two", 3, "46", 3);
    toy_identity(&w->m, w->model, "identity");
    carve(w, &measure);
    assert_int_equal(arena_init(&w->arena, measure.used, &err), 0);
    carve(w, &w->arena);
    w->place = (struct ffn_place){
        .at = {.mixture = &w->m, .layer = 1, .gates = &w->gates, .dropout_seed = 11},
        .apply = &w->apply,
        .own = &w->own};
    rng_init(&r, 5, 5);
    for (size_t i = 0; i < ROWS * TOY_DIM; i++) {
        w->x[i] = rng_normal(&r);
        w->v[i] = rng_normal(&r);
    }
    deal(w, &r);
}

static void world_close(struct world *w)
{
    arena_release(&w->arena);
    mixture_release(&w->m);
    toy_close(w->model);
}

static const float *frozen(const struct world *w, enum site s)
{
    return w->model->weights->layers[1].site[s].data;
}

/* Y (rows, n_out) = X W^T */
static void times(float *y, const float *x, const float *weight, size_t n_out,
                  size_t n_in)
{
    for (size_t t = 0; t < ROWS; t++)
        for (size_t m = 0; m < n_out; m++) {
            double sum = 0;

            for (size_t n = 0; n < n_in; n++)
                sum += (double)x[t * n_in + n] * (double)weight[m * n_in + n];
            y[t * n_out + m] = (float)sum;
        }
}

static void forward(struct world *w)
{
    times(w->gate, w->x, frozen(w, SITE_GATE), TOY_FFN, TOY_DIM);
    times(w->up, w->x, frozen(w, SITE_UP), TOY_FFN, TOY_DIM);
    ffn_experts_forward(w->a, w->out, &w->place, w->x, w->gate, w->up);
}

/* One output of W + s B A of expert E (-1: of W). */
static double dense(const struct world *w, int e, enum site s, const double *x,
                    size_t n_in, size_t m)
{
    const struct lora *l = e >= 0 ? expert_lora(&w->m.experts[e], 1, s) : NULL;
    double y = 0;

    for (size_t n = 0; n < n_in; n++) {
        double weight = (double)frozen(w, s)[m * n_in + n];

        for (size_t r = 0; l && r < l->rank; r++)
            weight += (double)l->scale * (double)l->b[m * l->rank + r] *
                      (double)l->a[r * n_in + n];
        y += weight * x[n];
    }
    return y;
}

/* Adds GATE times the FFN of expert E at X to Y. */
static void add_ffn(const struct world *w, double *y, int e, double gate,
                    const float *x)
{
    double in[TOY_DIM], mid[TOY_FFN];

    for (size_t i = 0; i < TOY_DIM; i++)
        in[i] = (double)x[i];
    for (size_t f = 0; f < TOY_FFN; f++) {
        const double g = dense(w, e, SITE_GATE, in, TOY_DIM, f);

        mid[f] = g / (1 + exp(-g)) * dense(w, e, SITE_UP, in, TOY_DIM, f);
    }
    for (size_t i = 0; i < TOY_DIM; i++)
        y[i] += gate * dense(w, e, SITE_DOWN, mid, TOY_FFN, i);
}

static void the_sum_is_that_of_whole_ffns(void **state)
{
    struct world *w = malloc(sizeof(*w));
    float y[ROWS * TOY_DIM];

    (void)state;
    world_open(w);
    forward(w);
    times(y, w->a, frozen(w, SITE_DOWN), TOY_DIM, TOY_FFN);
    for (size_t t = 0; t < ROWS; t++) {
        double want[TOY_DIM] = {0};
        bool any = false;

        for (int e = 1; e < EXPERTS; e++) {
            const double gate = (double)w->gates.gate[t * EXPERTS + (size_t)e];

            any |= gate != 0;
            if (gate != 0)
                add_ffn(w, want, e, gate, w->x + t * TOY_DIM);
        }
        if (!any)
            add_ffn(w, want, -1, 1, w->x + t * TOY_DIM);
        for (size_t i = 0; i < TOY_DIM; i++)
            assert_near(y[t * TOY_DIM + i] + w->out[t * TOY_DIM + i], want[i], 1e-4);
    }
    world_close(w);
    free(w);
}

static void a_row_is_alone(void **state)
{
    struct world *w = malloc(sizeof(*w));
    float a[TOY_FFN], out[TOY_DIM];
    const size_t t = 140;

    (void)state;
    world_open(w);
    forward(w);
    memcpy(a, w->a + t * TOY_FFN, sizeof(a));
    memcpy(out, w->out + t * TOY_DIM, sizeof(out));
    for (size_t i = 0; i < t * EXPERTS; i++)
        w->gates.gate[i] = i % EXPERTS ? 0.0f : 1.0f;
    gates_index(&w->gates);
    forward(w);
    assert_memory_equal(a, w->a + t * TOY_FFN, sizeof(a));
    assert_memory_equal(out, w->out + t * TOY_DIM, sizeof(out));
    world_close(w);
    free(w);
}

/* ---- backward ---- */

/* sum of v . y over all rows */
static double loss(struct world *w)
{
    float y[ROWS * TOY_DIM];
    double sum = 0;

    forward(w);
    times(y, w->a, frozen(w, SITE_DOWN), TOY_DIM, TOY_FFN);
    for (size_t i = 0; i < ROWS * TOY_DIM; i++)
        sum += (double)w->v[i] * ((double)y[i] + (double)w->out[i]);
    return sum;
}

struct slopes {
    struct mixture_grads grads;
    float x[ROWS * TOY_DIM];
};

static void add_frozen_back(float *d_x, const float *d_y, const float *weight)
{
    for (size_t t = 0; t < ROWS; t++)
        for (size_t f = 0; f < TOY_FFN; f++)
            for (size_t i = 0; i < TOY_DIM; i++)
                d_x[t * TOY_DIM + i] += d_y[t * TOY_FFN + f] * weight[f * TOY_DIM + i];
}

static void backward(struct world *w, struct slopes *s)
{
    static float d_a[ROWS * TOY_FFN], d_gate[ROWS * TOY_FFN], d_up[ROWS * TOY_FFN];
    const float *down = frozen(w, SITE_DOWN);

    forward(w);
    s->grads = toy_grads(&w->m);
    memset(s->x, 0, sizeof(s->x));
    memset(d_a, 0, sizeof(d_a));
    memset(w->gates.d_gate, 0, ROWS * EXPERTS * sizeof(float));
    for (size_t t = 0; t < ROWS; t++)
        for (size_t i = 0; i < TOY_DIM; i++)
            for (size_t f = 0; f < TOY_FFN; f++)
                d_a[t * TOY_FFN + f] += w->v[t * TOY_DIM + i] * down[i * TOY_FFN + f];
    ffn_experts_backward(s->x, d_gate, d_up, &s->grads, &w->place, w->v, d_a, w->x,
                         w->gate, w->up);
    add_frozen_back(s->x, d_gate, frozen(w, SITE_GATE));
    add_frozen_back(s->x, d_up, frozen(w, SITE_UP));
}

/* P moves along its slope G: so does the loss. */
static void check(struct world *w, float *p, const float *g, size_t n, double step)
{
    float *kept = malloc(n * sizeof(*kept));
    double norm = 0, change = 0;

    for (size_t i = 0; i < n; i++)
        norm += (double)g[i] * (double)g[i];
    norm = sqrt(norm);
    assert_true(norm > 1e-2);
    memcpy(kept, p, n * sizeof(*p));
    for (int sign = -1; sign <= 1; sign += 2) {
        for (size_t i = 0; i < n; i++)
            p[i] = kept[i] + (float)(sign * step * (double)g[i] / norm);
        change += sign * loss(w);
    }
    memcpy(p, kept, n * sizeof(*p));
    free(kept);
    assert_near(change / (2 * step), norm, 0.01 * norm);
}

static void check_all(struct world *w)
{
    struct slopes *s = malloc(sizeof(*s));
    float d_gate[ROWS * EXPERTS];

    backward(w, s);
    for (size_t e = 1; e < 3; e++)
        for (enum site i = SITE_GATE; i < N_SITES; i++) {
            const struct lora *l = expert_lora(&w->m.experts[e], 1, i);
            const float *g = s->grads.expert[e];

            if (!l->rank)
                continue;
            check(w, l->a, g + l->d_a, l->rank * l->n_in, 3e-2);
            check(w, l->b, g + l->d_b, l->rank * l->n_out, 3e-2);
        }
    check(w, w->x, s->x, ROWS * TOY_DIM, 3e-2);
    /* only gates that are not 0 serve, and so have a slope */
    memcpy(d_gate, w->gates.d_gate, sizeof(d_gate));
    for (size_t i = 0; i < ROWS * EXPERTS; i++)
        assert_true(d_gate[i] == 0.0f || w->gates.gate[i] != 0.0f);
    check(w, w->gates.gate, d_gate, ROWS * EXPERTS, 3e-2);
    toy_grads_free(&s->grads);
    free(s);
}

static void slopes_are_those_of_differences(void **state)
{
    struct world *w = malloc(sizeof(*w));

    (void)state;
    world_open(w);
    check_all(w);
    world_close(w);
    free(w);
}

static void dropout_thins_each_row_by_its_own_mask(void **state)
{
    struct world *w = malloc(sizeof(*w));
    static float without[ROWS * TOY_FFN];

    (void)state;
    world_open(w);
    forward(w);
    memcpy(without, w->a, sizeof(without));
    w->m.experts[1].dropout = 0.3f;
    w->place.at.dropout = true;
    check_all(w);
    forward(w);
    assert_memory_not_equal(without, w->a, sizeof(without));
    /* the same row twice, 64 apart, which is where the next rows are taken */
    for (size_t i = 0; i < ROWS * EXPERTS; i++)
        w->gates.gate[i] = i % EXPERTS < 2 ? 1.0f : 0.0f;
    gates_index(&w->gates);
    memcpy(w->x + 64 * TOY_DIM, w->x, TOY_DIM * sizeof(float));
    forward(w);
    assert_memory_not_equal(w->a, w->a + 64 * TOY_FFN, TOY_FFN * sizeof(float));
    world_close(w);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sum_is_that_of_whole_ffns),
        cmocka_unit_test(a_row_is_alone),
        cmocka_unit_test(slopes_are_those_of_differences),
        cmocka_unit_test(dropout_thins_each_row_by_its_own_mask),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
