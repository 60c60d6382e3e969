/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trainer on a toy model: the same bits for any number of threads, after a
 * restore, with and without kept router inputs; it learns; it refuses numbers
 * that are not finite.
 */
#include "support/toy_decoder.h"

#include "base/cpu.h"
#include "train/trainer.h"
#include "laid_rows.h"

#define ROWS 8

struct fixture {
    struct artel_model *model;
    struct mixture mixture;
    struct artel_trainer *trainer;
    struct laid_rows laid;
};

struct setting {
    const char *method;
    size_t n_domains;
    bool routers, freeze;
    float eta, dropout, rate;
    size_t cache_rows;
    bool no_lm;
    size_t threads;
    enum router_pool pool;
};

static void open_fixture(struct fixture *f, const struct setting *s)
{
    struct train_options o;
    struct artel_error err;
    struct gate_rule rule;
    bool trained[4];

    memset(f, 0, sizeof(*f));
    f->model = toy_open(3);
    assert_int_equal(method_rule(&rule, s->method), 0);
    rule.pool = s->pool;
    assert_int_equal(
        mixture_init(&f->mixture, s->method, &f->model->weights->config, &rule, &err),
        0);
    for (size_t e = 0; e < s->n_domains; e++) {
        static const char *const names[] = {"one", "two", "three"};

        toy_expert(&f->mixture, f->model, names[e], 4, NULL, e + 1);
        expert_draw(&f->mixture.experts[e], 5, e);
        f->mixture.experts[e].dropout = s->dropout;
        trained[e] = !s->freeze;
    }
    lay_rows(&f->laid, ROWS, s->n_domains);
    train_options_default(&o);
    o.learning_rate = s->rate > 0.0f ? s->rate : 1e-2f;
    o.router_learning_rate = 1e-2f;
    o.eta = s->eta;
    o.max_row_tokens = 24;
    o.block_rows = 24;
    o.lm_loss = !s->no_lm;
    o.cache_rows = s->cache_rows;
    assert_int_equal(cpu_set_threads(s->threads ? s->threads : 1, &err), 0);
    assert_int_equal(
        trainer_open(&f->trainer, f->model, &f->mixture, trained, s->routers, &o, &err),
        0);
}

static void close_fixture(struct fixture *f)
{
    trainer_close(f->trainer);
    mixture_release(&f->mixture);
    toy_close(f->model);
}

static struct step_report steps(struct fixture *f, size_t n)
{
    struct step_report report = {0};
    struct artel_error err;

    for (size_t i = 0; i < n; i++)
        assert_int_equal(trainer_step(f->trainer, &f->laid.batch, 1, &report, &err), 0);
    return report;
}

/* Every trained number of both must be the same bits. */
static void assert_same(const struct fixture *a, const struct fixture *b)
{
    for (size_t e = 0; e < a->mixture.n_experts; e++)
        assert_memory_equal(a->mixture.experts[e].params, b->mixture.experts[e].params,
                            a->mixture.experts[e].n_params * sizeof(float));
    assert_memory_equal(a->mixture.router_params, b->mixture.router_params,
                        a->mixture.n_router_params * sizeof(float));
}

static void threads_change_no_bit(void **state)
{
    struct setting s = {
        .method = "moa", .n_domains = 2, .routers = true, .eta = 0.1f, .dropout = 0.2f};
    struct fixture one, many;

    (void)state;
    s.threads = 1;
    open_fixture(&one, &s);
    steps(&one, 5);
    s.threads = 3;
    open_fixture(&many, &s);
    steps(&many, 5);
    assert_same(&one, &many);
    close_fixture(&one);
    close_fixture(&many);
}

static void restored_state_continues_bit_for_bit(void **state)
{
    const struct setting s = {.method = "moa",
                              .n_domains = 2,
                              .routers = true,
                              .eta = 0.1f,
                              .dropout = 0.1f,
                              .threads = 2};
    struct fixture whole, first, second;
    struct tensor *kept;
    struct artel_error err;
    size_t n;

    (void)state;
    open_fixture(&whole, &s);
    steps(&whole, 10);
    open_fixture(&first, &s);
    steps(&first, 5);
    open_fixture(&second, &s);
    n = trainer_state(first.trainer, NULL);
    kept = calloc(n, sizeof(*kept));
    assert_int_equal(trainer_state(first.trainer, kept), n);
    assert_int_equal(trainer_restore(second.trainer, kept, n, 5, &err), 0);
    steps(&second, 5);
    assert_same(&whole, &second);

    kept[0].bytes -= 4;
    assert_error(trainer_restore(second.trainer, kept, n, 5, &err), ARTEL_EFORMAT, err,
                 "CKP20");
    free(kept);
    close_fixture(&whole);
    close_fixture(&first);
    close_fixture(&second);
}

/* One domain: the labelled expert of moa without router loss is plain LoRA. */
static void one_expert_is_plain_lora(void **state)
{
    const struct setting plain = {.method = "single", .n_domains = 1};
    const struct setting moa = {.method = "moa", .n_domains = 1, .routers = true};
    struct fixture a, b;

    (void)state;
    open_fixture(&a, &plain);
    open_fixture(&b, &moa);
    steps(&a, 5);
    steps(&b, 5);
    assert_memory_equal(a.mixture.experts[0].params, b.mixture.experts[0].params,
                        a.mixture.experts[0].n_params * sizeof(float));
    close_fixture(&a);
    close_fixture(&b);
}

static void it_overfits_eight_rows(void **state)
{
    const struct setting s = {.method = "single", .n_domains = 1, .rate = 2e-2f};
    struct fixture f;
    float before, after;

    (void)state;
    open_fixture(&f, &s);
    before = steps(&f, 1).loss;
    after = steps(&f, 199).loss;
    assert_true(before > 2.0f);
    assert_true(after < 0.2f);
    close_fixture(&f);
}

static void two_dialects_are_told_apart(void **state)
{
    struct setting s = {
        .method = "moa", .n_domains = 2, .routers = true, .eta = 0.1f, .threads = 2};
    struct fixture f;
    struct step_report first, last;

    (void)state;
    open_fixture(&f, &s);
    first = steps(&f, 1);
    assert_near(first.router_loss, log(2.0), 1e-5); /* routers start at zero */
    last = steps(&f, 80);
    assert_true(last.router_accuracy == 1.0f);
    assert_true(last.loss < first.loss);
    close_fixture(&f);
    s.pool = POOL_LAST;
    open_fixture(&f, &s);
    assert_true(steps(&f, 80).router_accuracy == 1.0f);
    close_fixture(&f);
}

static void router_has_layers_width_experts_parameters(void **state)
{
    const struct setting s = {.method = "moa", .n_domains = 3, .routers = true};
    struct fixture f;

    (void)state;
    open_fixture(&f, &s);
    assert_int_equal(f.mixture.n_router_params, TOY_LAYERS * TOY_DIM * 3);
    close_fixture(&f);
}

static void kept_router_inputs_change_no_bit(void **state)
{
    struct setting s = {.method = "moa",
                        .n_domains = 2,
                        .routers = true,
                        .freeze = true,
                        .no_lm = true,
                        .threads = 2};
    struct fixture kept, anew, half;
    struct step_report report;

    (void)state;
    open_fixture(&anew, &s);
    steps(&anew, 20);
    s.cache_rows = ROWS;
    open_fixture(&kept, &s);
    report = steps(&kept, 20);
    s.cache_rows = ROWS / 2;
    s.threads = 1;
    open_fixture(&half, &s);
    steps(&half, 20);
    assert_same(&anew, &kept);
    assert_same(&anew, &half);
    assert_true(report.router_accuracy == 1.0f);
    close_fixture(&anew);
    close_fixture(&kept);
    close_fixture(&half);
}

/* Routers alone must see the slope that the joint path computes. */
static void router_only_is_the_joint_path_without_experts(void **state)
{
    struct setting s = {
        .method = "moa", .n_domains = 2, .routers = true, .freeze = true, .eta = 1.0f};
    struct fixture joint, alone;

    (void)state;
    open_fixture(&joint, &s);
    s.no_lm = true;
    open_fixture(&alone, &s);
    steps(&joint, 3);
    steps(&alone, 3);
    for (size_t i = 0; i < joint.mixture.n_router_params; i++)
        assert_near(alone.mixture.router_params[i], joint.mixture.router_params[i],
                    1e-5);
    close_fixture(&joint);
    close_fixture(&alone);
}

static void numbers_that_are_not_finite_stop_the_step(void **state)
{
    const struct setting s = {.method = "single", .n_domains = 2};
    struct fixture f;
    struct step_report report;
    struct artel_error err;
    struct lora *l;
    float kept;

    (void)state;
    open_fixture(&f, &s);
    steps(&f, 2);
    l = expert_lora(&f.mixture.experts[0], 1, SITE_UP);
    l->a[3] = NAN;
    l->b[0] = 1.0f;
    kept = f.mixture.experts[1].params[0];
    assert_error(trainer_step(f.trainer, &f.laid.batch, 1, &report, &err),
                 ARTEL_ENONFINITE, err, "NAN01");
    assert_non_null(strstr(err.where, "step 3"));
    assert_non_null(strstr(err.where, "layer 1"));
    assert_non_null(strstr(err.where, "one"));
    assert_true(f.mixture.experts[1].params[0] == kept);
    assert_int_equal(trainer_steps_done(f.trainer), 2);
    close_fixture(&f);
}

/* R24: B is beyond what its product with a gradient can hold; A is zero, so the loss is
 * finite all the same. */
static void r24_an_infinite_gradient_names_its_tensor(void **state)
{
    const struct setting s = {.method = "single", .n_domains = 2};
    struct fixture f;
    struct step_report report;
    struct artel_error err;
    struct lora *l;
    float kept;

    (void)state;
    open_fixture(&f, &s);
    steps(&f, 2);
    l = expert_lora(&f.mixture.experts[0], 1, SITE_UP);
    for (size_t i = 0; i < l->rank * l->n_in; i++)
        l->a[i] = 0.0f;
    for (size_t i = 0; i < l->rank * l->n_out; i++)
        l->b[i] = 3e38f;
    l->scale = 1e9f;
    kept = f.mixture.experts[1].params[0];
    assert_error(trainer_step(f.trainer, &f.laid.batch, 1, &report, &err),
                 ARTEL_ENONFINITE, err, "NAN02");
    assert_non_null(strstr(err.where, "step 3"));
    assert_non_null(strstr(err.where, "one"));
    assert_true(f.mixture.experts[1].params[0] == kept);
    assert_int_equal(trainer_steps_done(f.trainer), 2);
    close_fixture(&f);
}

static void accumulation_equals_one_batch(void **state)
{
    const struct setting s = {.method = "single", .n_domains = 1};
    struct fixture whole, parts;
    float whole_loss;
    struct batch micro[2];
    struct step_report report;
    struct artel_error err;

    (void)state;
    open_fixture(&whole, &s);
    open_fixture(&parts, &s);
    whole_loss = steps(&whole, 1).loss;
    for (size_t i = 0; i < 2; i++) {
        micro[i] =
            (struct batch){.rows = parts.laid.rows + i * ROWS / 2, .n_rows = ROWS / 2};
        for (size_t k = 0; k < ROWS / 2; k++) {
            micro[i].n_tokens += micro[i].rows[k]->n;
            micro[i].n_loss += micro[i].rows[k]->n_loss;
        }
    }
    assert_int_equal(trainer_step(parts.trainer, micro, 2, &report, &err), 0);
    for (size_t i = 0; i < whole.mixture.experts[0].n_params; i++)
        assert_near(parts.mixture.experts[0].params[i],
                    whole.mixture.experts[0].params[i],
                    2e-3); /* one step of Adam moves by 1e-2; tiny slopes may flip */
    assert_near(report.loss, whole_loss, 1e-5);
    close_fixture(&whole);
    close_fixture(&parts);
}

static void a_domain_without_rows_does_not_drift(void **state)
{
    const struct setting s = {.method = "single", .n_domains = 2};
    struct fixture f;
    struct batch only_first = {0};
    const struct example *rows[ROWS / 2];
    struct step_report report;
    struct artel_error err;
    float *kept;
    size_t n;

    (void)state;
    open_fixture(&f, &s);
    steps(&f, 3);
    n = f.mixture.experts[1].n_params;
    kept = malloc(n * sizeof(*kept));
    memcpy(kept, f.mixture.experts[1].params, n * sizeof(*kept));
    for (size_t i = 0; i < ROWS; i += 2) {
        rows[i / 2] = f.laid.rows[i];
        only_first.n_tokens += f.laid.rows[i]->n;
        only_first.n_loss += f.laid.rows[i]->n_loss;
    }
    only_first.rows = rows;
    only_first.n_rows = ROWS / 2;
    assert_int_equal(trainer_step(f.trainer, &only_first, 1, &report, &err), 0);
    assert_memory_equal(kept, f.mixture.experts[1].params, n * sizeof(*kept));
    free(kept);
    close_fixture(&f);
}

static void schedules_follow_their_formulas(void **state)
{
    const struct schedule cosine = {SCHEDULE_COSINE, 10, 110};
    const struct schedule linear = {SCHEDULE_LINEAR, 0, 4};
    const struct schedule constant = {SCHEDULE_CONSTANT, 2, 0};

    (void)state;
    assert_near(schedule_factor(&cosine, 0), 0.0, 0.0);
    assert_near(schedule_factor(&cosine, 5), 0.5, 1e-7);
    assert_near(schedule_factor(&cosine, 10), 1.0, 1e-7);
    assert_near(schedule_factor(&cosine, 60), 0.5, 1e-6);
    assert_near(schedule_factor(&cosine, 110), 0.0, 1e-7);
    assert_near(schedule_factor(&linear, 1), 0.75, 1e-7);
    assert_near(schedule_factor(&constant, 1), 0.5, 1e-7);
    assert_near(schedule_factor(&constant, 99), 1.0, 0.0);
    assert_int_equal(schedule_from_name("cosine"), SCHEDULE_COSINE);
    assert_int_equal(schedule_from_name("sine"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(restored_state_continues_bit_for_bit),
        cmocka_unit_test(one_expert_is_plain_lora),
        cmocka_unit_test(it_overfits_eight_rows),
        cmocka_unit_test(two_dialects_are_told_apart),
        cmocka_unit_test(router_has_layers_width_experts_parameters),
        cmocka_unit_test(kept_router_inputs_change_no_bit),
        cmocka_unit_test(router_only_is_the_joint_path_without_experts),
        cmocka_unit_test(numbers_that_are_not_finite_stop_the_step),
        cmocka_unit_test(r24_an_infinite_gradient_names_its_tensor),
        cmocka_unit_test(accumulation_equals_one_batch),
        cmocka_unit_test(a_domain_without_rows_does_not_drift),
        cmocka_unit_test(schedules_follow_their_formulas),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
