/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which expert a routed prompt ends with, by what every layer's router says: the routers'
 * weights are made for the prompt, so that each says what a table tells. And with one
 * expert, routing is that LoRA, to the bit.
 */
#define TOY_LAYERS 4
#include "support/toy_session.h"

#define E       ((size_t)3)
#define N_STEPS 3

/*
 * Under experts that stand in the last layer alone every router reads what the base makes
 * of the prompt, whoever was chosen beneath.
 */
static void open_fixture(struct fixture *f, enum selector selector)
{
    static const char *const names[] = {"one", "two", "three"};
    struct gate_rule rule;

    assert_int_equal(method_rule(&rule, "moa"), 0);
    rule.selector = selector;
    fixture_begin(f, &rule);
    for (size_t e = 0; e < E; e++) {
        toy_expert(&f->mixture, f->model, names[e], 2, NULL, e + 1);
        for (size_t i = 0; i + N_SITES < TOY_LAYERS * N_SITES; i++) {
            struct lora *l = &f->mixture.experts[e].lora[i];

            memset(l->b, 0, l->rank * l->n_out * sizeof(*l->b));
        }
    }
    fixture_end(f);
}

/* Router l's weights become such that it says PROBS[l] of the fixture's prompt: the row of
 * expert e is log(p_e) z / |z|^2, z what it reads. */
static void say(struct fixture *f, const float probs[TOY_LAYERS][E])
{
    const struct pass_options o = {
        .routing = ROUTE_ROUTER, .max_rows = N_IDS, .max_seqs = 1};
    const struct sequence seq = {
        .ids = f->ids, .n = N_IDS, .pool_first = 2, .pool_n = N_IDS - 4, .expert = -1};
    const struct block block = {.seqs = &seq, .n_seqs = 1, .n_rows = N_IDS};
    struct decoder_pass *p;
    struct artel_error err;

    assert_int_equal(pass_open(&p, f->model, &f->mixture, &o, &err), 0);
    decoder_forward(p, &block);
    for (size_t l = 0; l < TOY_LAYERS; l++) {
        const float *z = pass_router_input(p, l, 0);
        double square = 0;

        for (size_t d = 0; d < TOY_DIM; d++)
            square += (double)z[d] * (double)z[d];
        for (size_t e = 0; e < E; e++) {
            const double logit = probs[l][e] > 0 ? log((double)probs[l][e]) : -200;

            for (size_t d = 0; d < TOY_DIM; d++)
                f->mixture.routers[l].w[e * TOY_DIM + d] =
                    (float)(logit * (double)z[d] / square);
        }
    }
    pass_close(p);
}

static void prefill(struct artel_session *s, const struct fixture *f, int expert)
{
    struct artel_error err;

    assert_int_equal(session_prefill(s, f->ids, N_IDS, expert, 2, N_IDS - 4, &err), 0);
}

/* S is the work of EXPERT, and of no other. */
static void assert_work_of(const struct fixture *f, const struct artel_session *s,
                           int expert)
{
    const size_t bytes = TOY_VOCAB * sizeof(float);

    for (int e = 0; e < (int)E; e++) {
        struct artel_session *forced = fixture_session(f, false);

        prefill(forced, f, e);
        if (e == expert)
            assert_memory_equal(session_logits(s), session_logits(forced), bytes);
        else
            assert_memory_not_equal(session_logits(s), session_logits(forced), bytes);
        session_close(forced);
    }
}

struct ballot {
    const char *what;
    float probs[TOY_LAYERS][E]; /* of each layer's router */
    int vote, last;             /* who is to be chosen, */
    size_t n_vote, n_last;      /* and how many routers name it */
};

static const struct ballot ballots[] = {
    {"all name the same",
     {{0.2f, 0.5f, 0.3f}, {0.1f, 0.8f, 0.1f}, {0.3f, 0.4f, 0.3f}, {0.05f, 0.9f, 0.05f}},
     1,
     1,
     4,
     4},
    {"a lukewarm majority against a last layer that is sure",
     {{0.4f, 0.25f, 0.35f},
      {0.4f, 0.25f, 0.35f},
      {0.4f, 0.25f, 0.35f},
      {0.01f, 0.01f, 0.98f}},
     0,
     2,
     3,
     1},
    {"two of four, and one each for the others",
     {{0.9f, 0.05f, 0.05f},
      {0.3f, 0.4f, 0.3f},
      {0.3f, 0.4f, 0.3f},
      {0.05f, 0.05f, 0.9f}},
     1,
     2,
     2,
     1},
    {"a tie of votes: the higher has more probability",
     {{0.05f, 0.05f, 0.9f},
      {0.05f, 0.05f, 0.9f},
      {0.3f, 0.4f, 0.3f},
      {0.3f, 0.4f, 0.3f}},
     2,
     1,
     2,
     2},
    {"a tie of votes: the lower has more probability",
     {{0.3f, 0.4f, 0.3f},
      {0.9f, 0.05f, 0.05f},
      {0.9f, 0.05f, 0.05f},
      {0.3f, 0.4f, 0.3f}},
     0,
     1,
     2,
     2},
    {"a tie of votes: probability counts where another was named, too",
     {{0.12f, 0.43f, 0.45f},
      {0.12f, 0.43f, 0.45f},
      {0.46f, 0.1f, 0.44f},
      {0.46f, 0.1f, 0.44f}},
     2,
     0,
     2,
     2},
    {"a tie of both: the lower index",
     {{0, 1, 0}, {0, 0, 1}, {0, 1, 0}, {0, 0, 1}},
     1,
     2,
     2,
     2},
};

static void check_ballot(struct fixture *f, const struct ballot *b, bool votes)
{
    const int want = votes ? b->vote : b->last;
    struct artel_session *s = fixture_session(f, false);

    say(f, b->probs);
    prefill(s, f, EXPERT_AUTO);
    for (size_t l = 0; l < TOY_LAYERS; l++)
        for (size_t e = 0; e < E; e++)
            assert_near(session_probs(s, l)[e], b->probs[l][e], 1e-5);
    if (session_expert(s) != want)
        fail_msg("%s: the %s is %d, expected %d", b->what, votes ? "vote" : "last",
                 session_expert(s), want);
    assert_int_equal(session_layers_agreeing(s), votes ? b->n_vote : b->n_last);
    assert_work_of(f, s, want);
    session_close(s);
}

static void votes_are_counted_and_the_last_layer_is_heard(void **state)
{
    (void)state;
    for (int votes = 0; votes < 2; votes++) {
        struct fixture f;

        open_fixture(&f, votes ? SELECT_VOTE : SELECT_LAST);
        for (size_t i = 0; i < sizeof(ballots) / sizeof(ballots[0]); i++)
            check_ballot(&f, &ballots[i], votes);
        fixture_close(&f);
    }
}

/* Whatever it is that all routers name, both selectors end with it. */
static void vote_equals_last_where_all_agree(void **state)
{
    struct fixture voted, heard;

    (void)state;
    open_fixture(&voted, SELECT_VOTE);
    open_fixture(&heard, SELECT_LAST);
    for (size_t named = 0; named < E; named++) {
        struct artel_session *a = fixture_session(&voted, false);
        struct artel_session *b = fixture_session(&heard, false);
        float probs[TOY_LAYERS][E];

        for (size_t l = 0; l < TOY_LAYERS; l++)
            for (size_t e = 0; e < E; e++)
                probs[l][e] =
                    e == named ? 0.4f + 0.1f * (float)l : 0.3f - 0.05f * (float)l;
        say(&voted, (const float(*)[E])probs);
        say(&heard, (const float(*)[E])probs);
        prefill(a, &voted, EXPERT_AUTO);
        prefill(b, &heard, EXPERT_AUTO);
        assert_int_equal(session_expert(a), named);
        assert_int_equal(session_layers_agreeing(a), TOY_LAYERS);
        assert_same(&voted, a, b);
        session_close(a);
        session_close(b);
    }
    fixture_close(&voted);
    fixture_close(&heard);
}

/* What one expert and nothing beside it adds, by METHOD's rule. */
static void open_alone(struct fixture *f, const char *method)
{
    struct gate_rule rule;

    assert_int_equal(method_rule(&rule, method), 0);
    fixture_begin(f, &rule);
    toy_expert(&f->mixture, f->model, "one", 3, NULL, 1);
    fixture_end(f);
}

/* Routed, and plain: a prompt, steps behind it, and every row of a block. */
static void one_expert_is_plain_lora(void **state)
{
    struct fixture moa, plain;
    struct artel_session *routed, *forced, *base;
    struct artel_error err;
    float *of_routers, *of_plain;
    const size_t bytes = TOY_VOCAB * sizeof(float);

    (void)state;
    open_alone(&moa, "moa");
    open_alone(&plain, "single");
    assert_int_equal(moa.mixture.n_routers, TOY_LAYERS);
    assert_int_equal(plain.mixture.n_routers, 0);
    routed = fixture_session(&moa, false);
    forced = fixture_session(&plain, false);
    base = fixture_session(&plain, false);
    prefill(routed, &moa, EXPERT_AUTO);
    prefill(forced, &plain, 0);
    prefill(base, &plain, EXPERT_BASE);
    assert_int_equal(session_expert(routed), 0);
    assert_int_equal(session_layers_agreeing(routed), TOY_LAYERS);
    assert_memory_not_equal(session_logits(routed), session_logits(base), bytes);
    for (size_t i = 0; i < N_STEPS; i++) {
        assert_memory_equal(session_logits(routed), session_logits(forced), bytes);
        assert_int_equal(session_step(routed, moa.ids[i], &err), 0);
        assert_int_equal(session_step(forced, moa.ids[i], &err), 0);
    }
    assert_memory_equal(session_logits(routed), session_logits(forced), bytes);
    session_close(routed);
    session_close(forced);
    session_close(base);
    of_routers = toy_logits(moa.model, &moa.mixture, -2);
    of_plain = toy_logits(plain.model, &plain.mixture, 0);
    assert_memory_equal(of_routers, of_plain, 26 * bytes);
    free(of_routers);
    free(of_plain);
    fixture_close(&moa);
    fixture_close(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(votes_are_counted_and_the_last_layer_is_heard),
        cmocka_unit_test(vote_equals_last_where_all_agree),
        cmocka_unit_test(one_expert_is_plain_lora),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
