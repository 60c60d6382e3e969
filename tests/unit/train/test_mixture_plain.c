/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forward, loss and every slope of moa, modula-flan and molora, as a trainer of theirs finds
 * them, against plain loops in double (mixture_plain.h): logits and losses as they are,
 * slopes by differences along directions that move every number of a block.
 *
 * Bounds: values below 10 of sums of 48 products in float are good to 1e-5, shares to 1e-6.
 * A difference of losses in double knows no rounding to speak of; what is left is that of
 * the slopes, and curvature, whose part shrinks with the square of steps of 2e-3: below 1e-4
 * of what moves.
 */
#include "mixture_plain.h"

#include "base/cpu.h"
#include "support/trainer_state.h"

#include <stdio.h>

struct scene {
    const char *method;
    enum plain_gates gates;
    enum router_pool pool;
    float eta;
    bool detach;
};

/* A trainer that finds slopes and moves nothing. */
struct course {
    struct artel_model *model;
    struct mixture mixture;
    struct toy_data data;
    struct artel_trainer *trainer;
    struct example row[TOY_SEQS];
    const struct example *rows[TOY_SEQS];
    struct step_report report;
    struct plain *plain;
};

static void open_mixture(struct course *c, const struct scene *s)
{
    struct artel_error err;
    struct gate_rule rule;
    struct rng r;

    c->model = toy_open(7);
    assert_int_equal(method_rule(&rule, s->method), 0);
    rule.pool = s->pool;
    assert_int_equal(
        mixture_init(&c->mixture, s->method, &c->model->weights->config, &rule, &err),
        0);
    toy_expert(&c->mixture, c->model, "all", 3, NULL, 1);
    toy_expert(&c->mixture, c->model, "attention", 2, "0123", 2);
    toy_expert(&c->mixture, c->model, "ffn", 5, "456", 3);
    mixture_draw_routers(&c->mixture, 0.4f, 9);
    rng_init(&r, 4, 0);
    for (size_t i = 0; i < c->mixture.n_routers * PLAIN_EXPERTS; i++)
        if (c->mixture.routers[i / PLAIN_EXPERTS].b)
            c->mixture.routers[i / PLAIN_EXPERTS].b[i % PLAIN_EXPERTS] = rng_normal(&r);
    toy_fill(&c->data, 5);
}

static void open_trainer(struct course *c, const struct scene *s)
{
    const bool trained[PLAIN_EXPERTS] = {true, true, true};
    struct train_options o;
    struct artel_error err;

    train_options_default(&o);
    o.learning_rate = o.router_learning_rate = 0.0f;
    tell_slopes(&o);
    o.max_row_tokens = o.block_rows = PLAIN_ROWS;
    o.routing = s->gates == PLAIN_GIVEN ? ROUTE_GIVEN : ROUTE_ROUTER;
    o.unlabelled = s->gates == PLAIN_SOFT;
    o.straight = s->gates == PLAIN_STRAIGHT;
    o.detach_router = s->detach;
    o.eta = s->eta;
    assert_int_equal(cpu_set_threads(1, &err), 0);
    assert_int_equal(
        trainer_open(&c->trainer, c->model, &c->mixture, trained, true, &o, &err), 0);
}

static struct course *open_course(const struct scene *s)
{
    struct course *c = calloc(1, sizeof(*c));
    struct batch batch = {.n_rows = TOY_SEQS};
    struct artel_error err;

    assert_non_null(c);
    open_mixture(c, s);
    open_trainer(c, s);
    for (size_t i = 0; i < TOY_SEQS; i++) {
        const struct sequence *q = &c->data.seqs[i];

        c->row[i] = (struct example){.ids = q->ids,
                                     .n = q->n,
                                     .n_prompt = q->n / 2,
                                     .loss = q->loss,
                                     .pool_first = q->pool_first,
                                     .pool_n = q->pool_n,
                                     .n_loss = q->n - q->n / 2,
                                     .domain = (uint32_t)q->expert,
                                     .row = i + 1};
        c->rows[i] = &c->row[i];
        batch.n_tokens += q->n;
        batch.n_loss += c->row[i].n_loss;
    }
    batch.rows = c->rows;
    assert_int_equal(trainer_step(c->trainer, &batch, 1, &c->report, &err), 0);
    c->plain = calloc(1, sizeof(*c->plain));
    assert_non_null(c->plain);
    c->plain->model = c->model;
    c->plain->mixture = &c->mixture;
    c->plain->block = &c->data.block;
    c->plain->gates = s->gates;
    c->plain->detached = s->detach;
    return c;
}

static void close_course(struct course *c)
{
    trainer_close(c->trainer);
    mixture_release(&c->mixture);
    toy_close(c->model);
    free(c->plain);
    free(c);
}

/* Logits of every row, and what the layers' routers say. */
static void check_forward(struct course *c, const struct scene *s)
{
    const struct pass_options o = {.routing = s->gates == PLAIN_GIVEN ? ROUTE_GIVEN
                                                                      : ROUTE_ROUTER,
                                   .want_probs = true,
                                   .max_rows = PLAIN_ROWS,
                                   .max_seqs = 4};
    struct decoder_pass *p;
    struct artel_error err;
    float logits[TOY_VOCAB];

    assert_int_equal(pass_open(&p, c->model, &c->mixture, &o, &err), 0);
    decoder_forward(p, &c->data.block);
    for (size_t t = 0; t < c->data.block.n_rows; t++) {
        pass_logits(p, logits, t);
        for (size_t v = 0; v < TOY_VOCAB; v++)
            assert_near(logits[v], c->plain->logits[t][v], 1e-5);
    }
    for (size_t r = 0; s->gates != PLAIN_SOFT && r < c->mixture.n_routers; r++)
        for (size_t q = 0; q < TOY_SEQS; q++)
            for (size_t e = 0; e < PLAIN_EXPERTS; e++)
                assert_near(pass_router_probs(p, r, q)[e], c->plain->prob[r][q][e],
                            1e-6);
    pass_close(p);
}

/* PARAMS (N) move along DIR and back: the loss moves as SLOPE says. Returns by how much. */
static double check_along(struct course *c, float eta, float *params,
                          const float *slope, const double *dir, size_t n,
                          const char *what)
{
    float *kept = malloc(n * sizeof(*kept));
    double want = 0.0, moved = 0.0, above, below;

    memcpy(kept, params, n * sizeof(*params));
    for (size_t i = 0; i < n; i++) {
        const float up = (float)((double)kept[i] + 2e-3 * dir[i]);
        const float down = (float)((double)kept[i] - 2e-3 * dir[i]);
        const double by = (double)slope[i] * ((double)up - (double)down);

        params[i] = up;
        want += by;
        moved += fabs(by);
    }
    above = plain_loss(c->plain, (double)eta);
    for (size_t i = 0; i < n; i++)
        params[i] = (float)((double)kept[i] - 2e-3 * dir[i]);
    below = plain_loss(c->plain, (double)eta);
    memcpy(params, kept, n * sizeof(*params));
    free(kept);
    if (!(fabs(above - below - want) <= 1e-4 * moved + 1e-10))
        fail_msg("%s: the loss moves by %.8g, the slope says %.8g", what, above - below,
                 want);
    return moved;
}

/* Along the slope and along another direction. */
static double check_block(struct course *c, float eta, float *params,
                          const float *slope, size_t n, const char *what)
{
    double *dir = calloc(n, sizeof(*dir)), norm = 0.0, moved;
    struct rng r;

    for (size_t i = 0; i < n; i++)
        norm += (double)slope[i] * (double)slope[i];
    for (size_t i = 0; i < n; i++)
        dir[i] = norm > 0.0 ? (double)slope[i] / sqrt(norm) : 0.0;
    moved = check_along(c, eta, params, slope, dir, n, what);
    rng_init(&r, n, 3);
    for (size_t i = 0; i < n; i++)
        dir[i] = (double)rng_normal(&r) / sqrt((double)n);
    check_along(c, eta, params, slope, dir, n, what);
    free(dir);
    return moved;
}

/* Of every A and B and of every router. */
static void check_slopes(struct course *c, float eta)
{
    const struct mixture *m = &c->mixture;
    double alive = 0.0, routed = 0.0;
    char what[128];

    for (size_t e = 0; e < m->n_experts; e++) {
        const struct expert *x = &m->experts[e];
        const float *g = expert_slopes(c->trainer, x);

        for (size_t i = 0; i < m->n_layers * N_SITES; i++) {
            const struct lora *l = &x->lora[i];

            snprintf(what, sizeof(what), "%s, layer %zu, %s", x->name, i / N_SITES,
                     site_name((enum site)(i % N_SITES)));
            if (!l->rank)
                continue;
            alive += check_block(c, eta, l->a, g + (l->a - x->params),
                                 l->rank * l->n_in, what);
            alive += check_block(c, eta, l->b, g + (l->b - x->params),
                                 l->rank * l->n_out, what);
        }
    }
    for (size_t r = 0; r < m->n_routers; r++) {
        const struct router *x = &m->routers[r];
        const float *g = router_slopes(c->trainer);

        snprintf(what, sizeof(what), "router %zu", r);
        routed += check_block(c, eta, x->w, g + (x->w - m->router_params),
                              x->n_experts * x->dim, what);
        if (x->b)
            routed += check_block(c, eta, x->b, g + (x->b - m->router_params),
                                  x->n_experts, what);
    }
    assert_true(alive > 1e-3 && routed > 1e-5); /* zeros would prove nothing */
}

/* No choice is near a tie, and not all are the same. */
static void check_choices(const struct course *c)
{
    const struct plain *p = c->plain;
    size_t others = 0;

    for (size_t r = 0; r < c->mixture.n_routers; r++)
        for (size_t s = 0; s < TOY_SEQS; s++) {
            for (size_t e = 0; e < PLAIN_EXPERTS; e++)
                assert_true(e == p->chosen[r][s] ||
                            p->prob[r][s][e] < 0.95 * p->stopped[r][s]);
            others += p->chosen[r][s] != p->chosen[0][0];
        }
    assert_true(others > 0);
}

static void play(const struct scene *s)
{
    struct course *c = open_course(s);

    plain_loss(c->plain, (double)s->eta);
    check_forward(c, s);
    assert_near(c->report.loss, c->plain->nll, 1e-5);
    if (s->gates != PLAIN_SOFT)
        assert_near(c->report.router_loss, c->plain->ce, 1e-5);
    if (s->gates == PLAIN_STRAIGHT)
        check_choices(c);
    c->plain->held = true;
    check_slopes(c, s->eta);
    close_course(c);
}

static void modula_flan_is_its_formula(void **state)
{
    (void)state;
    play(&(const struct scene){"modula-flan", PLAIN_SOFT, POOL_MEAN, 0.0f, false});
    play(&(const struct scene){"modula-flan", PLAIN_SOFT, POOL_MEAN, 0.0f, true});
}

static void molora_is_its_formula(void **state)
{
    (void)state;
    play(&(const struct scene){"molora", PLAIN_SOFT, POOL_MEAN, 0.0f, false});
}

static void moa_adds_the_routers_mean_cross_entropy(void **state)
{
    (void)state;
    play(&(const struct scene){"moa", PLAIN_GIVEN, POOL_MEAN, 0.3f, false});
    play(&(const struct scene){"moa", PLAIN_GIVEN, POOL_LAST, 0.3f, false});
    play(&(const struct scene){"moa", PLAIN_GIVEN, POOL_MEAN, 0.3f, true});
}

/* label: argmax. The forward's gate is 1 at the router's own choice, its slope that of
 * p / stop(p). */
static void moa_by_its_own_choice_learns_straight_through(void **state)
{
    (void)state;
    play(&(const struct scene){"moa", PLAIN_STRAIGHT, POOL_MEAN, 0.0f, false});
    play(&(const struct scene){"moa", PLAIN_STRAIGHT, POOL_MEAN, 0.3f, false});
    play(&(const struct scene){"moa", PLAIN_STRAIGHT, POOL_MEAN, 0.3f, true});
}

/* With what they read detached, routers are taught as before, and experts as if there were
 * no routers; otherwise the experts beneath a router feel what it is taught. */
static void a_detached_input_shields_the_experts_beneath(void **state)
{
    const struct scene scenes[] = {{"moa", PLAIN_GIVEN, POOL_MEAN, 0.0f, false},
                                   {"moa", PLAIN_GIVEN, POOL_MEAN, 0.3f, false},
                                   {"moa", PLAIN_GIVEN, POOL_MEAN, 0.3f, true}};
    struct course *none = open_course(&scenes[0]), *on = open_course(&scenes[1]),
                  *off = open_course(&scenes[2]);
    const size_t routers = none->mixture.n_router_params;

    (void)state;
    for (size_t e = 0; e < PLAIN_EXPERTS; e++) {
        const struct expert *x = &none->mixture.experts[e];
        const size_t
            beneath = /* what stands below the last layer, whose router is last */
            (size_t)(x->lora[(TOY_LAYERS - 1) * N_SITES + (e == 2 ? SITE_GATE : SITE_Q)]
                         .a -
                     x->params);
        const float *a = expert_slopes(none->trainer, x);
        const float *b = expert_slopes(on->trainer, &on->mixture.experts[e]);
        const float *c = expert_slopes(off->trainer, &off->mixture.experts[e]);

        assert_memory_equal(a, c, x->n_params * sizeof(float));
        assert_memory_not_equal(a, b, beneath * sizeof(float));
        assert_memory_equal(a + beneath, b + beneath,
                            (x->n_params - beneath) * sizeof(float));
    }
    assert_memory_equal(router_slopes(on->trainer), router_slopes(off->trainer),
                        routers * sizeof(float));
    assert_memory_not_equal(router_slopes(none->trainer), router_slopes(off->trainer),
                            routers * sizeof(float));
    close_course(none);
    close_course(on);
    close_course(off);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modula_flan_is_its_formula),
        cmocka_unit_test(molora_is_its_formula),
        cmocka_unit_test(moa_adds_the_routers_mean_cross_entropy),
        cmocka_unit_test(moa_by_its_own_choice_learns_straight_through),
        cmocka_unit_test(a_detached_input_shields_the_experts_beneath),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
