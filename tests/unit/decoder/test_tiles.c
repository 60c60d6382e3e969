/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bf16 step against the float step on the same base: loss, the gradients of every
 * expert and router for every kind of gate, a session's prefill.
 *
 * Bound: a number rounded to bf16 is off by 2^-9 of itself at most, at random. A
 * gradient passes some ten such roundings a layer, two layers here and the way back, so
 * the whole of a block of gradients is off by about 2^-9 sqrt(40) = 1.3 % of its norm;
 * blocks that are small differences of large numbers more. 4 % is allowed, and 8 % for
 * routers, whose gradients are such differences, and where many experts share gates
 * that are then small; 20 % where an expert has a token or two of its own, and nothing
 * averages its roundings; a missing factor or a wrong place is far beyond both.
 */
#include "support/toy_decoder.h"

#include <stdio.h>

#include "decoder/tile_pass.h"
#include "decoder/session.h"
#include "experts/stack.h"
#include "tiles/tiles.h"

#define BLOCK_BOUND  0.04
#define ROUTER_BOUND 0.08
#define LONELY_BOUND 0.20

struct scenario {
    struct gate_rule rule;
    enum routing_mode routing;
    float ce, dropout;
    bool identity, straight;
    bool res;    /* the first expert is universal, those after it act on what it adds */
    float slope; /* theirs; 0: as they come */
    size_t more; /* experts */
    bool raised; /* expert 32 and the last are the two best wherever it is decided */
    size_t first_layer;
};

struct outcome {
    struct block_loss loss;
    struct mixture_grads grads;
    double nll[TOY_SEQS];
    uint32_t served[128];
};

static struct artel_model *base_of(enum precision precision)
{
    struct artel_model *model = toy_open(7);
    struct artel_error err;

    assert_int_equal(model_prepare(model, precision,
                                   MATRIX_DECODE | MATRIX_FORWARD | MATRIX_BACKWARD,
                                   TOY_CONTEXT, &err),
                     0);
    return model;
}

static void fill_mixture(struct mixture *m, const struct artel_model *model,
                         const struct scenario *s)
{
    struct artel_error err;

    assert_int_equal(mixture_init(m, "test", &model->weights->config, &s->rule, &err),
                     0);
    toy_expert(m, model, "all", 3, NULL, 1);
    toy_expert_of(m, model, s->res ? EXPERT_RES : EXPERT_LORA, "attention", 2, "0123",
                  2);
    toy_expert_of(m, model, s->res ? EXPERT_RES : EXPERT_LORA, "ffn", 5, "456", 3);
    if (s->identity)
        toy_identity(m, model, "identity");
    for (size_t i = 0; i < s->more; i++) {
        char name[32];

        snprintf(name, sizeof(name), "more%zu", i);
        toy_expert(m, model, name, 1 + i % 3, i % 2 ? "14" : NULL, 10 + i);
    }
    for (size_t e = 0; e < m->n_experts; e++)
        m->experts[e].dropout = s->dropout;
    for (size_t e = 1; s->slope > 0.0f && e < m->n_experts; e++)
        m->experts[e].slope = s->slope;
    mixture_draw_routers(m, 0.4f, 9);
    for (size_t i = 0; s->raised && i < m->n_routers; i++) {
        m->routers[i].b[32] = 12.0f;
        m->routers[i].b[m->n_experts - 1] = 12.0f;
    }
}

static void run(struct outcome *out, struct mixture *m, enum precision precision,
                const struct scenario *s)
{
    struct artel_model *model = base_of(precision);
    const struct pass_options o = {.routing = s->routing,
                                   .backward = true,
                                   .straight = s->straight,
                                   .router_ce = s->ce,
                                   .dropout = s->dropout > 0,
                                   .dropout_seed = 5,
                                   .first_layer = s->first_layer,
                                   .max_rows = 40,
                                   .max_seqs = 4};
    struct decoder_pass *pass;
    struct toy_data data;
    struct artel_error err;

    fill_mixture(m, model, s);
    toy_fill(&data, 5);
    assert_int_equal(pass_open(&pass, model, m, &o, &err), 0);
    assert_int_equal(pass->tiles != NULL, precision == PRECISION_BF16);
    out->grads = toy_grads(m);
    decoder_forward(pass, &data.block);
    decoder_loss(pass, &out->loss, out->nll);
    decoder_backward(pass, &out->grads);
    for (size_t e = 0; e < m->n_experts && m->n_routers; e++)
        out->served[e] = pass->gates[0].first[e + 1] - pass->gates[0].first[e];
    pass_close(pass);
    toy_close(model);
}

static void assert_close(const float *got, const float *want, size_t n, double bound,
                         const char *what)
{
    double off = 0.0, norm = 0.0;

    for (size_t i = 0; i < n; i++) {
        const double d = (double)got[i] - (double)want[i];

        off += d * d;
        norm += (double)want[i] * (double)want[i];
    }
    if (!(sqrt(off) <= bound * sqrt(norm) + 1e-7))
        fail_msg("%s: off by %.3g, norm %.3g", what, sqrt(off), sqrt(norm));
}

static void compare(const struct mixture *m, const struct outcome *got,
                    const struct outcome *want, double bound)
{
    char what[128];

    assert_near(got->loss.nll, want->loss.nll, 0.01 * want->loss.nll);
    assert_near(got->loss.router_ce, want->loss.router_ce,
                0.02 * fabs(want->loss.router_ce) + 1e-6);
    assert_int_equal(got->loss.n_tokens, want->loss.n_tokens);
    for (size_t s = 0; s < TOY_SEQS; s++)
        assert_near(got->nll[s], want->nll[s], 0.02 * want->nll[s]);
    for (size_t e = 0; e < m->n_experts; e++) {
        assert_int_equal(got->served[e], want->served[e]); /* or nothing compares */
        assert_int_equal(got->grads.touched[e], want->grads.touched[e]);
        for (size_t i = 0; i < m->n_layers * N_SITES; i++) {
            const struct expert *x = &m->experts[e];
            const struct lora *l = &x->lora[i];

            if (!l->rank)
                continue;
            snprintf(what, sizeof(what), "%s layer %zu %s", x->name, i / N_SITES,
                     site_name((enum site)(i % N_SITES)));
            assert_close(got->grads.expert[e] + l->d_a, want->grads.expert[e] + l->d_a,
                         l->rank * l->n_in, bound, what);
            assert_close(got->grads.expert[e] + l->d_b, want->grads.expert[e] + l->d_b,
                         l->rank * l->n_out, bound, what);
        }
    }
    assert_close(got->grads.routers, want->grads.routers, m->n_router_params,
                 ROUTER_BOUND, "routers");
}

static void both(const struct scenario *s)
{
    struct mixture in_float, in_tiles;
    struct outcome want = {0}, got = {0};

    if (!precision_native_bf16())
        skip();
    run(&want, &in_float, PRECISION_FP32, s);
    run(&got, &in_tiles, PRECISION_BF16, s);
    compare(&in_float, &got, &want,
            s->more > 30 ? LONELY_BOUND
            : s->more    ? ROUTER_BOUND
                         : BLOCK_BOUND);
    toy_grads_free(&want.grads);
    toy_grads_free(&got.grads);
    mixture_release(&in_float);
    mixture_release(&in_tiles);
}

static void labelled_experts(void **state)
{
    const struct scenario plain = {.routing = ROUTE_GIVEN};
    const struct scenario upper = {.routing = ROUTE_GIVEN, .first_layer = 1};
    const struct scenario thinned = {.routing = ROUTE_GIVEN, .dropout = 0.3f};

    (void)state;
    both(&plain);
    both(&upper);
    both(&thinned);
}

static void labelled_experts_with_routers(void **state)
{
    const struct scenario mean = {
        .rule = {.place = ROUTER_LAYER}, .routing = ROUTE_GIVEN, .ce = 0.2f};
    const struct scenario last = {.rule = {.place = ROUTER_LAYER, .pool = POOL_LAST},
                                  .routing = ROUTE_GIVEN,
                                  .ce = 0.2f};

    (void)state;
    both(&mean);
    both(&last);
}

static void soft_gates(void **state)
{
    const struct scenario sequence = {
        .rule = {.place = ROUTER_LAYER, .kind = GATE_SOFTMAX, .bias = true},
        .routing = ROUTE_ROUTER,
        .identity = true};
    const struct scenario linear = {
        .rule = {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX},
        .routing = ROUTE_ROUTER};
    struct scenario thinned = linear;

    (void)state;
    both(&sequence);
    both(&linear);
    thinned.dropout = 0.2f;
    both(&thinned);
}

/* Experts that bend, beside one that no router weighs, or in place of it. Numbers near 0
 * that round to its other side bend the other way, which weighs more where nothing else is
 * added: there nothing bends. */
static void experts_on_a_universal_one(void **state)
{
    (void)state;
    for (int silent = 0; silent < 2; silent++) {
        struct scenario s = {.rule = {.place = ROUTER_LINEAR,
                                      .decides = DECIDE_TOKEN,
                                      .kind = GATE_SOFTMAX,
                                      .n_fixed = 1,
                                      .silent = silent},
                             .routing = ROUTE_ROUTER,
                             .res = true,
                             .slope = silent ? 1.0f : 0.0f};

        both(&s);
        s.rule.bias = true;
        s.rule.kind = GATE_TOP_K;
        s.rule.top_k = 1;
        both(&s);
        s.rule =
            (struct gate_rule){.place = ROUTER_NONE, .n_fixed = 1, .silent = silent};
        s.routing = ROUTE_GIVEN;
        both(&s);
    }
}

static void top_two(void **state)
{
    const struct scenario token = {.rule = {.place = ROUTER_FFN,
                                            .decides = DECIDE_TOKEN,
                                            .kind = GATE_TOP_K,
                                            .top_k = 2},
                                   .routing = ROUTE_ROUTER,
                                   .identity = true};
    const struct scenario sequence = {
        .rule = {.place = ROUTER_LAYER, .kind = GATE_TOP_K, .top_k = 2},
        .routing = ROUTE_ROUTER};

    (void)state;
    both(&token);
    both(&sequence);
}

/* Logits of q, k and v side by side: in one block, over the ends of two, in many. */
static void many_routers_read_together(void **state)
{
    static const size_t more[] = {4, 8, 30};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct scenario dense = {.rule = {.place = ROUTER_LINEAR,
                                                .decides = DECIDE_TOKEN,
                                                .kind = GATE_SOFTMAX,
                                                .bias = true},
                                       .routing = ROUTE_ROUTER,
                                       .identity = true,
                                       .more = more[i]};
        struct scenario upper = dense;

        both(&dense);
        upper.first_layer = 1;
        both(&upper);
    }
}

/* 34, 64 and 100 experts: more than a block of logits holds, and than gates are made of
 * by lanes. */
static void more_experts_than_a_block_of_logits(void **state)
{
    static const size_t more[] = {31, 61, 97}; /* beside all, attention and ffn */
    static const struct scenario kinds[] = {
        {.rule = {.place = ROUTER_LINEAR,
                  .decides = DECIDE_TOKEN,
                  .kind = GATE_SOFTMAX,
                  .bias = true},
         .routing = ROUTE_ROUTER},
        {.rule = {.place = ROUTER_FFN,
                  .decides = DECIDE_TOKEN,
                  .kind = GATE_TOP_K,
                  .top_k = 2,
                  .bias = true},
         .routing = ROUTE_ROUTER,
         .raised = true},
        {.rule = {.place = ROUTER_LAYER, .kind = GATE_ONE_HOT},
         .routing = ROUTE_ROUTER,
         .straight = true,
         .ce = 0.2f},
        {.rule = {.place = ROUTER_LAYER}, .routing = ROUTE_GIVEN, .ce = 0.2f}};

    (void)state;
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < 4; k++) {
            struct scenario s = kinds[k];

            s.more = more[i];
            both(&s);
        }
}

/* A sequence decides at every linear: what reads one input shares what is pooled. */
static void pools_of_every_linear(void **state)
{
    for (int pool = POOL_MEAN; pool <= POOL_LAST; pool++) {
        const struct scenario s = {.rule = {.place = ROUTER_LINEAR,
                                            .pool = (enum router_pool)pool,
                                            .kind = GATE_SOFTMAX,
                                            .bias = true},
                                   .routing = ROUTE_ROUTER,
                                   .identity = true,
                                   .more = 9};

        both(&s);
    }
    (void)state;
}

static void one_hot_straight_through(void **state)
{
    const struct scenario s = {.rule = {.place = ROUTER_LAYER, .kind = GATE_ONE_HOT},
                               .routing = ROUTE_ROUTER,
                               .straight = true};

    (void)state;
    both(&s);
}

static void losses_by(enum routing_mode routing, double *nll, struct artel_model *model,
                      const struct mixture *m, const struct block *block,
                      size_t max_rows)
{
    const struct pass_options o = {
        .routing = routing, .max_rows = max_rows, .max_seqs = TOY_SEQS};
    struct decoder_pass *pass;
    struct block_loss loss;
    struct artel_error err;

    assert_int_equal(pass_open(&pass, model, m, &o, &err), 0);
    decoder_forward(pass, block);
    decoder_loss(pass, &loss, nll);
    pass_close(pass);
}

static void losses_of(double *nll, struct artel_model *model, const struct mixture *m,
                      const struct block *block, size_t max_rows)
{
    losses_by(ROUTE_GIVEN, nll, model, m, block, max_rows);
}

/* A forced expert in a mixture is the expert alone; a sequence alone is the sequence
 * among others: to the bit. */
static void company_moves_no_bit(void **state)
{
    const struct scenario s = {.routing = ROUTE_GIVEN};
    struct artel_model *model;
    struct mixture all, one;
    struct toy_data data;
    struct artel_error err;
    double among[TOY_SEQS], alone[1];

    (void)state;
    if (!precision_native_bf16())
        skip();
    model = base_of(PRECISION_BF16);
    fill_mixture(&all, model, &s);
    toy_fill(&data, 5);
    losses_of(among, model, &all, &data.block, 40);
    for (size_t i = 0; i < TOY_SEQS; i++) {
        struct sequence seq = data.seqs[i];
        const struct block block = {.seqs = &seq, .n_seqs = 1, .n_rows = seq.n};
        struct expert e;

        losses_of(alone, model, &all, &block, seq.n);
        assert_memory_equal(alone, &among[i], sizeof(double));
        assert_int_equal(
            mixture_init(&one, "one", &model->weights->config, &s.rule, &err), 0);
        assert_int_equal(expert_copy(&e, &all.experts[i], &err), 0);
        assert_int_equal(mixture_add(&one, &e, &model->weights->config, &err), 0);
        seq.expert = 0;
        losses_of(alone, model, &one, &block, seq.n);
        assert_memory_equal(alone, &among[i], sizeof(double));
        mixture_release(&one);
    }
    mixture_release(&all);
    toy_close(model);
}

static void logits_after(float *out, struct artel_model *model, const struct mixture *m,
                         const int32_t *ids, size_t n, size_t cut)
{
    struct artel_session *s;
    struct artel_error err;

    assert_int_equal(session_open(&s, model, m, TOY_CONTEXT, &err), 0);
    if (cut)
        assert_int_equal(session_prefill(s, ids, cut, 0, 0, 0, &err), 0);
    assert_int_equal(session_prefill(s, ids, n, 0, 0, 0, &err), 0);
    memcpy(out, session_logits(s), TOY_VOCAB * sizeof(*out));
    session_close(s);
}

/* A prompt in tiles, whole, behind a cached part or with a few rows left over, gives the
 * float step's logits. */
static void prefill_is_the_float_one(void **state)
{
    const struct scenario s = {.routing = ROUTE_GIVEN};
    float want[TOY_VOCAB], whole[TOY_VOCAB], cut[TOY_VOCAB], few[TOY_VOCAB];
    int32_t ids[50];

    (void)state;
    if (!precision_native_bf16())
        skip();
    for (size_t i = 0; i < 50; i++)
        ids[i] = (int32_t)(i * 31 % TOY_VOCAB);
    for (int p = 0; p < 2; p++) {
        struct artel_model *model = base_of(p ? PRECISION_BF16 : PRECISION_FP32);
        struct mixture m;

        fill_mixture(&m, model, &s);
        logits_after(p ? whole : want, model, &m, ids, 50, 0);
        if (p) {
            logits_after(cut, model, &m, ids, 50, 23);
            logits_after(few, model, &m, ids, 50, 47);
        }
        mixture_release(&m);
        toy_close(model);
    }
    assert_close(whole, want, TOY_VOCAB, 0.02, "logits of a whole prompt");
    assert_close(cut, want, TOY_VOCAB, 0.02, "logits of a prompt in two pieces");
    assert_close(few, want, TOY_VOCAB, 0.02, "logits behind a few rows");
}

/* Where a router's score is |w . x|, what -w says is what w says. */
static void absolute_scores_have_no_sign(void **state)
{
    const struct gate_rule rule = {.place = ROUTER_LINEAR,
                                   .decides = DECIDE_TOKEN,
                                   .kind = GATE_TOP_K,
                                   .top_k = 2,
                                   .absolute = true,
                                   .temperature = 0.5f};
    double nll[2][2][TOY_SEQS]; /* [absolute][turned] */

    (void)state;
    for (int p = 0; p < 1 + precision_native_bf16(); p++) {
        struct artel_model *model = base_of(p ? PRECISION_BF16 : PRECISION_FP32);
        struct toy_data data;

        toy_fill(&data, 5);
        for (int i = 0; i < 4; i++) {
            struct scenario s = {.rule = rule, .routing = ROUTE_ROUTER};
            struct mixture m;

            s.rule.absolute = i / 2;
            fill_mixture(&m, model, &s);
            for (size_t k = 0; k < m.n_routers; k++)
                for (size_t n = 0; i % 2 && n < m.routers[k].dim; n++)
                    m.routers[k].w[n] *= -1.0f;
            losses_by(ROUTE_ROUTER, nll[i / 2][i % 2], model, &m, &data.block, 40);
            mixture_release(&m);
        }
        assert_memory_equal(nll[1][0], nll[1][1], sizeof(nll[1][0]));
        assert_memory_not_equal(nll[0][0], nll[0][1], sizeof(nll[0][0]));
        assert_memory_not_equal(nll[0][0], nll[1][0], sizeof(nll[0][0]));
        toy_close(model);
    }
}

/* Training packs the experts anew, for both directions, under a session's feet. */
static void a_session_outlives_that_training_begins(void **state)
{
    const struct scenario s = {.routing = ROUTE_GIVEN};
    const struct pass_options o = {
        .routing = ROUTE_GIVEN, .backward = true, .max_rows = 40, .max_seqs = 1};
    struct artel_model *model;
    struct artel_session *session;
    struct decoder_pass *pass;
    struct mixture m;
    struct artel_error err;
    float before[TOY_VOCAB];
    int32_t ids[40];

    (void)state;
    if (!precision_native_bf16())
        skip();
    for (size_t i = 0; i < 40; i++)
        ids[i] = (int32_t)(i * 31 % TOY_VOCAB);
    model = base_of(PRECISION_BF16);
    fill_mixture(&m, model, &s);
    assert_int_equal(session_open(&session, model, &m, TOY_CONTEXT, &err), 0);
    assert_int_equal(session_prefill(session, ids, 40, 0, 0, 0, &err), 0);
    memcpy(before, session_logits(session), sizeof(before));
    assert_int_equal(pass_open(&pass, model, &m, &o, &err), 0);
    session_reset(session);
    assert_int_equal(session_prefill(session, ids, 40, 0, 0, 0, &err), 0);
    assert_memory_equal(session_logits(session), before, sizeof(before));
    pass_close(pass);
    session_close(session);
    mixture_release(&m);
    toy_close(model);
}

/* What a pass will take is known before its experts are packed. */
static void bytes_are_the_same_before_experts_are_packed(void **state)
{
    const struct scenario s = {.routing = ROUTE_GIVEN, .dropout = 0.1f};
    const struct pass_options o = {.routing = ROUTE_GIVEN,
                                   .backward = true,
                                   .dropout = true,
                                   .max_rows = 40,
                                   .max_seqs = 4};
    struct artel_model *model;
    struct decoder_pass *pass;
    struct mixture m;
    struct artel_error err;
    size_t bytes;

    (void)state;
    if (!precision_native_bf16())
        skip();
    model = base_of(PRECISION_BF16);
    fill_mixture(&m, model, &s);
    assert_null(m.stack);
    bytes = pass_bytes(model, &m, &o);
    assert_int_equal(pass_open(&pass, model, &m, &o, &err), 0);
    assert_int_equal(bytes, pass->arena.used);
    pass_close(pass);
    mixture_release(&m);
    toy_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labelled_experts),
        cmocka_unit_test(labelled_experts_with_routers),
        cmocka_unit_test(soft_gates),
        cmocka_unit_test(experts_on_a_universal_one),
        cmocka_unit_test(top_two),
        cmocka_unit_test(many_routers_read_together),
        cmocka_unit_test(more_experts_than_a_block_of_logits),
        cmocka_unit_test(pools_of_every_linear),
        cmocka_unit_test(one_hot_straight_through),
        cmocka_unit_test(company_moves_no_bit),
        cmocka_unit_test(prefill_is_the_float_one),
        cmocka_unit_test(absolute_scores_have_no_sign),
        cmocka_unit_test(a_session_outlives_that_training_begins),
        cmocka_unit_test(bytes_are_the_same_before_experts_are_packed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
