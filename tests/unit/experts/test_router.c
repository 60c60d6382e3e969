/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gates of many units at once are those of each unit alone, to the bit, forward and
 * backward; and what the rules promise holds.
 */
#include "check.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/rng.h"
#include "experts/router.h"

#define UNITS ((size_t)37) /* two groups of 16 and some */
#define MOST  ((size_t)100)
#define PITCH ((size_t)128)

struct room {
    struct arena arena;
    struct gates gates;
    uint32_t self[UNITS];
    float logits[UNITS * PITCH], bias[MOST];
    float d_logits[UNITS * PITCH];
};

static void open_room(struct room *r, size_t n_units, size_t n_experts)
{
    struct arena measure = {0};
    struct artel_error err;

    memset(r, 0, sizeof(*r));
    gates_carve(&r->gates, &measure, n_units, n_units, n_experts, 0, true);
    assert_int_equal(arena_init(&r->arena, measure.used, &err), 0);
    gates_carve(&r->gates, &r->arena, n_units, n_units, n_experts, 0, true);
    for (size_t u = 0; u < n_units; u++)
        r->self[u] = (uint32_t)u;
    r->gates.n_rows = r->gates.n_units = n_units;
    r->gates.unit_of_row = r->self;
}

/* Logits with ties and with probabilities that underflow; slopes where gates are. */
static void fill(struct room *r, size_t E, uint64_t seed)
{
    struct rng rng;

    rng_init(&rng, seed, 0);
    for (size_t i = 0; i < r->gates.n_units * PITCH; i++)
        r->logits[i] = rng_below(&rng, 8) ? rng_normal(&rng) : 0.25f;
    for (size_t u = 0; u < r->gates.n_units; u += 5)
        r->logits[u * PITCH] = 200.0f;
    for (size_t e = 0; e < E; e++)
        r->bias[e] = e % 3 ? 0.0f : rng_normal(&rng);
    for (size_t i = 0; i < r->gates.n_units * E; i++)
        r->gates.d_gate[i] = rng_normal(&rng);
}

static void decide(struct room *r, const struct gate_rule *rule, bool biased)
{
    const struct router router = {.n_experts = r->gates.n_experts,
                                  .b = biased ? r->bias : NULL,
                                  .absolute = rule->absolute,
                                  .temperature = rule->temperature};
    const struct gates_slope slope = {.rule = rule};

    gates_read_logits(&r->gates, &router, r->logits, PITCH);
    gates_decide(&r->gates, rule);
    gates_backward_logits(&r->gates, &slope, r->d_logits, PITCH);
}

static void check_unit(const struct room *all, size_t u, const struct gate_rule *rule,
                       bool biased)
{
    const size_t E = all->gates.n_experts;
    struct room *one = malloc(sizeof(*one));

    assert_non_null(one);
    open_room(one, 1, E);
    memcpy(one->logits, all->logits + u * PITCH, PITCH * sizeof(float));
    memcpy(one->bias, all->bias, sizeof(one->bias));
    memcpy(one->gates.d_gate, all->gates.d_gate + u * E, E * sizeof(float));
    decide(one, rule, biased);
    assert_memory_equal(one->gates.probs, all->gates.probs + u * E, E * sizeof(float));
    assert_memory_equal(one->gates.gate, all->gates.gate + u * E, E * sizeof(float));
    for (size_t e = 0; e < E; e++) /* -0 is 0 */
        assert_true(one->d_logits[e] == all->d_logits[u * PITCH + e]);
    arena_release(&one->arena);
    free(one);
}

/* What the softmax is taken of. */
static double score(const struct room *r, size_t u, size_t e,
                    const struct gate_rule *rule, bool biased)
{
    const double x =
        (double)r->logits[u * PITCH + e] + (biased ? (double)r->bias[e] : 0);

    return (rule->absolute ? fabs(x) : x) /
           (rule->temperature > 0 ? (double)rule->temperature : 1);
}

/* p = softmax(score); d_score = g (d_gate - sum g d_gate) over the kept, whose
 * gates are g; nothing where the choice is one and hard. */
static void check_formulas(const struct room *r, size_t u, const struct gate_rule *rule,
                           bool biased)
{
    const size_t E = r->gates.n_experts;
    const float *const g = r->gates.gate + u * E, *const d = r->gates.d_gate + u * E;
    double sum = 0, most = -1e9, mean = 0;

    for (size_t e = 0; e < E; e++)
        most = fmax(most, score(r, u, e, rule, biased));
    for (size_t e = 0; e < E; e++) {
        sum += exp(score(r, u, e, rule, biased) - most);
        mean += (double)g[e] * (double)d[e];
    }
    for (size_t e = 0; e < E; e++) {
        const double x = score(r, u, e, rule, biased);
        const double slope =
            rule->kind == GATE_ONE_HOT ? 0 : (double)g[e] * ((double)d[e] - mean);

        assert_near(r->gates.probs[u * E + e], exp(x - most) / sum, 1e-6);
        assert_near(r->d_logits[u * PITCH + e], slope, 1e-5);
    }
}

/* Gates sum to 1, the kept are the most probable, and each row is listed where served. */
static void check_rule(const struct room *r, const struct gate_rule *rule)
{
    const struct gates *g = &r->gates;
    const size_t E = g->n_experts;
    size_t listed = 0;

    for (size_t u = 0; u < g->n_units; u++) {
        float sum = 0.0f, least_kept = 1.0f, most_left = 0.0f;
        size_t n = 0;

        for (size_t e = 0; e < E; e++) {
            const float gate = g->gate[u * E + e], p = g->probs[u * E + e];

            sum += gate;
            n += gate != 0.0f;
            if (gate != 0.0f && p < least_kept)
                least_kept = p;
            if (gate == 0.0f && p > most_left)
                most_left = p;
        }
        assert_near(sum, 1.0, 1e-5);
        assert_true(least_kept >= most_left || rule->kind == GATE_SOFTMAX);
        if (rule->kind == GATE_TOP_K && u % 5) /* a tiny one may be 0 of the sum */
            assert_int_equal(n, rule->top_k < E ? rule->top_k : E);
        listed += n;
    }
    assert_int_equal(g->first[E], listed);
    for (size_t e = 0; e < E; e++)
        for (size_t i = g->first[e]; i < g->first[e + 1]; i++) {
            assert_true(g->gate[g->row[i] * E + e] != 0.0f);
            assert_true(i == g->first[e] || g->row[i - 1] < g->row[i]);
        }
}

static void many_units_are_each_alone(void **state)
{
    static const size_t experts[] = {1, 2, 8, 31, 32, 33, 40, 64, 100};
    static const struct gate_rule rules[] = {
        {.kind = GATE_SOFTMAX},
        {.kind = GATE_TOP_K, .top_k = 1},
        {.kind = GATE_TOP_K, .top_k = 2},
        {.kind = GATE_TOP_K, .top_k = 5},
        {.kind = GATE_ONE_HOT},
        {.kind = GATE_TOP_K, .top_k = 3, .absolute = true, .temperature = 0.7f}};
    struct room *all = malloc(sizeof(*all));

    (void)state;
    assert_non_null(all);
    for (size_t i = 0; i < 9; i++)
        for (size_t k = 0; k < 6; k++) {
            open_room(all, UNITS, experts[i]);
            fill(all, experts[i], i * 8 + k);
            decide(all, &rules[k], k % 2);
            check_rule(all, &rules[k]);
            for (size_t u = 0; u < UNITS; u++)
                check_formulas(all, u, &rules[k], k % 2);
            for (size_t u = 0; u < UNITS; u++)
                check_unit(all, u, &rules[k], k % 2);
            arena_release(&all->arena);
        }
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_units_are_each_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
