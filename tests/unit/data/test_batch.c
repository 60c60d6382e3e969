/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans of batches: whole rows, the same plan for the same seed, even draws.
 */
#include "check.h"

#include <stdlib.h>

#include "base/error.h"
#include "data/batch.h"
#include "data/corpus_parts.h"

/* N rows of DOMAIN; row i has 3 + i % 5 tokens. */
static struct corpus *make(size_t n, uint32_t domain)
{
    struct corpus *c = calloc(1, sizeof(*c));
    struct turns t = {0};
    struct artel_error err = {0};

    assert_non_null(c);
    for (size_t i = 0; i < n; i++) {
        turns_clear(&t);
        for (size_t k = 0; k < 3 + i % 5; k++)
            assert_int_equal(turns_push(&t, (int32_t)k, k > 1, &err), 0);
        assert_int_equal(corpus_append(c, &t, 0, false, domain, i + 1, NULL, &err), 0);
    }
    turns_release(&t);
    corpus_settle(c);
    return c;
}

static void batches_hold_whole_rows_up_to_their_tokens(void **state)
{
    const struct corpus *c = make(23, 0);
    const struct batch_options o = {.batch_tokens = 16};
    struct batch_plan p;
    struct batch b;
    struct artel_error err = {0};
    size_t rows = 0;

    (void)state;
    assert_int_equal(batch_plan_init(&p, &c, 1, &o, 0, &err), 0);
    for (size_t i = 0; i < batch_plan_count(&p); i++) {
        size_t tokens = 0, loss = 0;

        batch_plan_at(&p, i, &b);
        for (size_t k = 0; k < b.n_rows; k++) {
            assert_int_equal(b.rows[k]->row, ++rows); /* the order of the file */
            tokens += b.rows[k]->n;
            loss += b.rows[k]->n_loss;
        }
        assert_true(tokens <= 16);
        assert_int_equal(b.n_tokens, tokens);
        assert_int_equal(b.n_loss, loss);
        if (i + 1 < batch_plan_count(&p)) /* the next row would not have fitted */
            assert_true(tokens + p.rows[p.first[i + 1]]->n > 16);
    }
    assert_int_equal(rows, 23);
    batch_plan_release(&p);
    corpus_close((struct corpus *)(size_t)c);
}

static void a_row_longer_than_a_batch_is_one_of_its_own(void **state)
{
    const struct corpus *c = make(5, 0);
    const struct batch_options o = {.batch_tokens = 2};
    struct batch_plan p;
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(batch_plan_init(&p, &c, 1, &o, 0, &err), 0);
    assert_int_equal(batch_plan_count(&p), 5);
    batch_plan_release(&p);
    corpus_close((struct corpus *)(size_t)c);
}

static void d13_rows_may_be_counted_and_the_last_batch_is_partial(void **state)
{
    const struct corpus *c = make(3, 0);
    const struct batch_options o = {.batch_rows = 8, .shuffle = true};
    struct batch_plan p;
    struct batch b;
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(batch_plan_init(&p, &c, 1, &o, 0, &err), 0);
    assert_int_equal(batch_plan_count(&p), 1);
    batch_plan_at(&p, 0, &b);
    assert_int_equal(b.n_rows, 3);
    batch_plan_release(&p);
    corpus_close((struct corpus *)(size_t)c);
}

static bool same_order(const struct batch_plan *a, const struct batch_plan *b)
{
    return a->n_rows == b->n_rows &&
           !memcmp(a->rows, b->rows, a->n_rows * sizeof(*a->rows));
}

static void the_plan_follows_from_seed_and_epoch(void **state)
{
    const struct corpus *both[2] = {make(40, 0), make(30, 1)};
    struct batch_options o = {.batch_rows = 4, .shuffle = true, .seed = 5};
    struct batch_plan a, b, other;
    struct artel_error err = {0};
    bool seen[2][41] = {{false}};

    (void)state;
    for (int mix = BATCH_EACH; mix <= BATCH_EVEN; mix++) {
        o.mix = (enum batch_mix)mix;
        assert_int_equal(batch_plan_init(&a, both, 2, &o, 3, &err), 0);
        assert_int_equal(batch_plan_init(&b, both, 2, &o, 3, &err), 0);
        assert_true(same_order(&a, &b));
        assert_int_equal(batch_plan_init(&other, both, 2, &o, 4, &err), 0);
        assert_false(same_order(&a, &other));
        batch_plan_release(&other);
        o.seed = 6;
        assert_int_equal(batch_plan_init(&other, both, 2, &o, 3, &err), 0);
        assert_false(same_order(&a, &other));
        o.seed = 5;
        batch_plan_release(&other);
        batch_plan_release(&b);
        if (mix == BATCH_EACH) {
            for (size_t i = 0; i < a.n_rows; i++) {
                assert_false(seen[a.rows[i]->domain][a.rows[i]->row]); /* each once */
                seen[a.rows[i]->domain][a.rows[i]->row] = true;
            }
            assert_int_equal(a.n_rows, 70);
        }
        batch_plan_release(&a);
    }
    corpus_close((struct corpus *)(size_t)both[0]);
    corpus_close((struct corpus *)(size_t)both[1]);
}

static void even_draws_give_every_domain_its_share_in_every_round(void **state)
{
    const struct corpus *c[3] = {make(50, 0), make(4, 1), make(36, 2)};
    const struct batch_options o = {
        .batch_rows = 3, .shuffle = true, .mix = BATCH_EVEN};
    struct batch_plan p;
    struct batch b;
    struct artel_error err = {0};
    size_t drawn[5] = {0};

    (void)state;
    assert_int_equal(batch_plan_init(&p, c, 3, &o, 1, &err), 0);
    assert_int_equal(batch_plan_count(&p), 30); /* 90 rows in all, 30 of each */
    for (size_t i = 0; i < 30; i++) {
        unsigned domains = 0;

        batch_plan_at(&p, i, &b);
        for (size_t k = 0; k < b.n_rows; k++) {
            domains |= 1u << b.rows[k]->domain;
            if (b.rows[k]->domain == 1)
                drawn[b.rows[k]->row]++;
        }
        assert_int_equal(domains, 7);
    }
    for (size_t r = 1; r <= 4; r++) /* the small one repeats evenly */
        assert_in_range(drawn[r], 7, 8);
    batch_plan_release(&p);
    for (size_t i = 0; i < 3; i++)
        corpus_close((struct corpus *)(size_t)c[i]);
}

/* The order of the rows inside one corpus, whatever the rounds are. */
static void even_draws_differ_from_epoch_to_epoch(void **state)
{
    const struct corpus *c[2] = {make(40, 0), make(40, 1)};
    const struct batch_options o = {
        .batch_rows = 2, .shuffle = true, .mix = BATCH_EVEN};
    size_t row[2][40], n, same = 0;
    struct batch_plan p;
    struct artel_error err = {0};

    (void)state;
    for (size_t epoch = 0; epoch < 2; epoch++) {
        assert_int_equal(batch_plan_init(&p, c, 2, &o, epoch, &err), 0);
        n = 0;
        for (size_t i = 0; i < p.n_rows; i++)
            if (p.rows[i]->domain == 0)
                row[epoch][n++] = p.rows[i]->row;
        assert_int_equal(n, 40);
        batch_plan_release(&p);
    }
    for (size_t i = 0; i < 40; i++)
        same += row[0][i] == row[1][i];
    assert_true(same < 20);
    corpus_close((struct corpus *)(size_t)c[0]);
    corpus_close((struct corpus *)(size_t)c[1]);
}

static void a_batch_without_size_or_rows_is_refused(void **state)
{
    const struct corpus *c = make(3, 0);
    struct batch_options o = {0};
    struct batch_plan p;
    struct artel_error err = {0};

    (void)state;
    assert_error(batch_plan_init(&p, &c, 1, &o, 0, &err), ARTEL_EUSAGE, err, "DATA12");
    o.batch_rows = 1;
    assert_error(batch_plan_init(&p, &c, 0, &o, 0, &err), ARTEL_EUSAGE, err, "DATA12");
    corpus_close((struct corpus *)(size_t)c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_hold_whole_rows_up_to_their_tokens),
        cmocka_unit_test(a_row_longer_than_a_batch_is_one_of_its_own),
        cmocka_unit_test(d13_rows_may_be_counted_and_the_last_batch_is_partial),
        cmocka_unit_test(the_plan_follows_from_seed_and_epoch),
        cmocka_unit_test(even_draws_give_every_domain_its_share_in_every_round),
        cmocka_unit_test(even_draws_differ_from_epoch_to_epoch),
        cmocka_unit_test(a_batch_without_size_or_rows_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
