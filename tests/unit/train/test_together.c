/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts trained in one pass end in the bits that each has alone: with batches of
 * different sizes, some that run out before others, schedules of their own, clipping,
 * accumulation, any number of threads, and each memory mode; and what is wrong with one
 * is that one's alone.
 */
#define TOY_LAYERS 3
#include "support/toy_decoder.h"

#include <math.h>

#include "base/cpu.h"
#include "train/together.h"

#define LANES   3
#define STEPS   5
#define ROWS    24
#define LONGEST 40

static const char *const names[] = {"one", "two", "three"};
/* How many steps, rows a batch and batches a step each has: enough tokens that blocks of
 * several share one, and two of one could. */
static const size_t n_steps[] = {5, 3, 4}, n_rows[] = {4, 24, 12},
                    n_micro[] = {1, 1, 2};

struct data {
    int32_t ids[LANES][ROWS][LONGEST];
    unsigned char loss[LONGEST];
    struct example row[LANES][ROWS];
    const struct example *rows[LANES][STEPS][2][ROWS];
    struct batch batch[LANES][STEPS][2];
};

static void fill(struct data *d)
{
    struct rng r;

    memset(d, 0, sizeof(*d));
    rng_init(&r, 21, 0);
    for (size_t t = 0; t < LONGEST; t++)
        d->loss[t] = t > 1 && t % 5 != 3;
    for (size_t e = 0; e < LANES; e++)
        for (size_t i = 0; i < ROWS; i++) {
            struct example *x = &d->row[e][i];

            for (size_t t = 0; t < LONGEST; t++)
                d->ids[e][i][t] = (int32_t)rng_below(&r, TOY_VOCAB);
            *x = (struct example){.ids = d->ids[e][i],
                                  .n = 3 + rng_below(&r, LONGEST - 2),
                                  .n_prompt = 2,
                                  .loss = d->loss,
                                  .pool_n = 2,
                                  .domain = (uint32_t)e,
                                  .row = i + 1};
            for (size_t t = 1; t < x->n; t++)
                x->n_loss += d->loss[t];
        }
    for (size_t e = 0; e < LANES; e++)
        for (size_t s = 0; s < STEPS; s++)
            for (size_t m = 0; m < n_micro[e]; m++) {
                struct batch *b = &d->batch[e][s][m];

                b->rows = d->rows[e][s][m];
                b->n_rows = n_rows[e];
                for (size_t i = 0; i < n_rows[e]; i++) {
                    b->rows[i] = &d->row[e][(i + s + 3 * m) % ROWS];
                    b->n_tokens += b->rows[i]->n;
                    b->n_loss += b->rows[i]->n_loss;
                }
            }
}

static struct data data;

struct setting {
    size_t threads;
    enum memory_mode memory;
    enum precision precision;
    float dropout;
};

static struct train_options options_of(const struct setting *s)
{
    struct train_options o;

    train_options_default(&o);
    o.learning_rate = 2e-2f;
    o.weight_decay = 0.01f;
    o.max_grad_norm = 0.05f;
    o.max_row_tokens = LONGEST;
    o.block_rows = 100;
    o.memory = s->memory;
    return o;
}

static struct schedule schedule_of(size_t e)
{
    return (struct schedule){
        .kind = SCHEDULE_COSINE, .warmup_steps = 1, .total_steps = n_steps[e]};
}

static struct artel_model *model_of(const struct setting *s)
{
    struct artel_model *model = toy_open(3);
    struct artel_error err;

    assert_int_equal(
        model_prepare(model, s->precision, memory_mode_use(s->memory), 64, &err), 0);
    assert_int_equal(cpu_set_threads(s->threads, &err), 0);
    return model;
}

static void mixture_of(struct mixture *m, const struct artel_model *model, size_t first,
                       size_t n, float dropout)
{
    struct artel_error err;
    struct gate_rule rule;

    assert_int_equal(method_rule(&rule, "single"), 0);
    assert_int_equal(mixture_init(m, "single", &model->weights->config, &rule, &err),
                     0);
    for (size_t e = first; e < first + n; e++) {
        toy_expert(m, model, names[e], 4, NULL, e + 1);
        m->experts[e - first].dropout = dropout;
    }
}

/* What one expert came to. */
struct outcome {
    size_t n;
    float *params, *state;
    size_t n_state;
    struct step_report report[STEPS];
    struct eval_report eval;
};

static void keep(struct outcome *o, struct artel_trainer *t, const struct expert *x,
                 size_t e)
{
    const struct example *rows[ROWS];
    struct tensor tensors[8];
    const size_t n = trainer_state(t, NULL);
    struct artel_error err;

    assert_true(n <= 8);
    trainer_state(t, tensors);
    o->n = x->n_params;
    o->params = malloc(o->n * sizeof(float));
    memcpy(o->params, x->params, o->n * sizeof(float));
    o->state = malloc(4 * o->n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        memcpy(o->state + o->n_state, tensors[i].data, tensors[i].bytes);
        o->n_state += tensors[i].bytes / sizeof(float);
    }
    for (size_t i = 0; i < ROWS; i++)
        rows[i] = &data.row[e][i];
    assert_int_equal(trainer_eval(t, rows, ROWS, &o->eval, &err), 0);
}

static void alone(struct outcome *o, size_t e, const struct setting *s)
{
    struct artel_model *model = model_of(s);
    struct train_options options = options_of(s);
    const bool trained[] = {true};
    struct artel_trainer *t;
    struct artel_error err;
    struct mixture m;

    mixture_of(&m, model, e, 1, s->dropout);
    options.forced_expert = 0;
    options.schedule = schedule_of(e);
    assert_int_equal(trainer_open(&t, model, &m, trained, false, &options, &err), 0);
    for (size_t i = 0; i < n_steps[e]; i++)
        assert_int_equal(
            trainer_step(t, data.batch[e][i], n_micro[e], &o->report[i], &err), 0);
    keep(o, t, &m.experts[0], e);
    trainer_close(t);
    mixture_release(&m);
    toy_close(model);
}

static struct together *open_all(struct mixture *m, struct artel_model *model,
                                 const struct setting *s)
{
    const struct train_options o = options_of(s);
    const struct schedule schedules[] = {schedule_of(0), schedule_of(1),
                                         schedule_of(2)};
    struct artel_error err;
    struct together *t;

    mixture_of(m, model, 0, LANES, s->dropout);
    assert_int_equal(together_open(&t, model, m, schedules, &o, &err), 0);
    return t;
}

/* Step I of every lane that has one. */
static size_t gather(struct lane_step *steps, size_t i)
{
    size_t n = 0;

    for (size_t e = 0; e < LANES; e++)
        if (i < n_steps[e])
            steps[n++] = (struct lane_step){
                .lane = e, .micro = data.batch[e][i], .n_micro = n_micro[e]};
    return n;
}

static void together(struct outcome *o, const struct setting *s)
{
    struct artel_model *model = model_of(s);
    struct mixture m;
    struct together *t = open_all(&m, model, s);

    for (size_t i = 0; i < STEPS; i++) {
        struct lane_step steps[LANES];
        const size_t n = gather(steps, i);

        together_step(t, steps, n);
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(steps[k].rc, 0);
            o[steps[k].lane].report[i] = steps[k].report;
        }
    }
    for (size_t e = 0; e < LANES; e++)
        keep(&o[e], together_lane(t, e), &m.experts[e], e);
    together_close(t);
    mixture_release(&m);
    toy_close(model);
}

static void drop(struct outcome *o)
{
    free(o->params);
    free(o->state);
}

static void assert_same_outcome(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->n_state, b->n_state);
    assert_memory_equal(a->params, b->params, a->n * sizeof(float));
    assert_memory_equal(a->state, b->state, a->n_state * sizeof(float));
    assert_memory_equal(&a->eval.nll, &b->eval.nll, sizeof(a->eval.nll));
    for (size_t i = 0; i < STEPS; i++) {
        struct step_report x = a->report[i], y = b->report[i];

        x.seconds = y.seconds = 0;
        assert_memory_equal(&x.loss, &y.loss, sizeof(x.loss));
        assert_memory_equal(&x.grad_norm, &y.grad_norm, sizeof(x.grad_norm));
        assert_memory_equal(&x.rate, &y.rate, sizeof(x.rate));
        assert_int_equal(x.step, y.step);
        assert_int_equal(x.n_tokens, y.n_tokens);
        assert_int_equal(x.n_loss, y.n_loss);
    }
}

static void compare(const struct setting *s)
{
    struct outcome one[LANES] = {0}, all[LANES] = {0};
    bool clipped = false;

    fill(&data);
    together(all, s);
    for (size_t e = 0; e < LANES; e++) {
        alone(&one[e], e, s);
        assert_same_outcome(&one[e], &all[e]);
        for (size_t i = 0; i < n_steps[e]; i++) {
            assert_true(isfinite(all[e].report[i].loss));
            clipped |= all[e].report[i].grad_norm > 0.05f;
        }
        drop(&one[e]);
        drop(&all[e]);
    }
    assert_true(clipped);
}

static void each_expert_ends_as_it_does_alone(void **state)
{
    (void)state;
    compare(&(struct setting){.threads = 1});
    compare(&(struct setting){.threads = 3});
}

static void and_in_every_memory_mode(void **state)
{
    (void)state;
    compare(&(struct setting){.threads = 2, .memory = MEMORY_RECOMPUTE});
    compare(&(struct setting){.threads = 2, .memory = MEMORY_QUANTISED});
}

/* An expert with a number that is not finite: its steps fail as they would alone, and
 * those of the others do not notice. */
static void what_is_not_finite_is_one_lanes_own(void **state)
{
    const struct setting s = {.threads = 2};
    struct artel_model *model;
    struct outcome one[LANES] = {0};
    struct together *t;
    struct mixture m;

    (void)state;
    fill(&data);
    alone(&one[0], 0, &s);
    alone(&one[2], 2, &s);
    model = model_of(&s);
    t = open_all(&m, model, &s);
    m.experts[1].params[3] = NAN;
    for (size_t i = 0; i < STEPS; i++) {
        struct lane_step steps[LANES];
        const size_t n = gather(steps, i);

        together_step(t, steps, n);
        for (size_t k = 0; k < n; k++) {
            const size_t e = steps[k].lane;

            assert_int_equal(steps[k].rc, e == 1 ? ARTEL_ENONFINITE : 0);
            if (e == 1)
                assert_non_null(strstr(steps[k].error.where, "expert two"));
            else
                assert_memory_equal(&steps[k].report.loss, &one[e].report[i].loss,
                                    sizeof(float));
        }
    }
    for (size_t e = 0; e < LANES; e += 2) {
        assert_memory_equal(m.experts[e].params, one[e].params,
                            one[e].n * sizeof(float));
        drop(&one[e]);
    }
    assert_int_equal(trainer_steps_done(together_lane(t, 1)), 0);
    together_close(t);
    mixture_release(&m);
    toy_close(model);
}

/* A lane's state put into another set of lanes, the rest of its steps made there. */
static void a_lane_goes_on_from_its_state(void **state)
{
    const struct setting s = {.threads = 1};
    struct artel_model *model;
    struct outcome one = {0};
    struct together *t, *more;
    struct mixture m, m2;
    struct tensor tensors[8];
    struct lane_step steps[LANES];
    struct artel_error err;

    (void)state;
    fill(&data);
    alone(&one, 2, &s);
    model = model_of(&s);
    t = open_all(&m, model, &s);
    for (size_t i = 0; i < 2; i++)
        together_step(t, steps, gather(steps, i));
    more = open_all(&m2, model, &s);
    assert_int_equal(trainer_restore(together_lane(more, 2), tensors,
                                     trainer_state(together_lane(t, 2), tensors), 2,
                                     &err),
                     0);
    for (size_t i = 2; i < n_steps[2]; i++) {
        /* Beside others that are elsewhere. */
        steps[0] = (struct lane_step){
            .lane = 2, .micro = data.batch[2][i], .n_micro = n_micro[2]};
        steps[1] = (struct lane_step){
            .lane = 0, .micro = data.batch[0][i - 2], .n_micro = n_micro[0]};
        together_step(more, steps, 2);
        assert_int_equal(steps[0].rc, 0);
    }
    assert_memory_equal(m2.experts[2].params, one.params, one.n * sizeof(float));
    drop(&one);
    together_close(t);
    together_close(more);
    mixture_release(&m);
    mixture_release(&m2);
    toy_close(model);
}

static void a_loss_limit_is_a_lanes_own(void **state)
{
    const struct setting s = {.threads = 1};
    struct artel_model *model;
    struct outcome one = {0};
    struct together *t;
    struct mixture m;
    struct lane_step steps[LANES];

    (void)state;
    fill(&data);
    alone(&one, 0, &s);
    model = model_of(&s);
    t = open_all(&m, model, &s);
    trainer_limit_loss(together_lane(t, 1), 0.0);
    for (size_t i = 0; i < STEPS; i++) {
        const size_t n = gather(steps, i);

        together_step(t, steps, n);
        for (size_t k = 0; k < n; k++)
            assert_int_equal(steps[k].report.left_out, steps[k].lane == 1);
    }
    assert_memory_equal(m.experts[0].params, one.params, one.n * sizeof(float));
    assert_int_equal(trainer_steps_done(together_lane(t, 1)), 0);
    drop(&one);
    together_close(t);
    mixture_release(&m);
    toy_close(model);
}

static void dropout_is_refused(void **state)
{
    const struct setting s = {.threads = 1, .dropout = 0.1f};
    const struct train_options o = options_of(&s);
    const struct schedule schedules[LANES] = {0};
    struct artel_model *model = model_of(&s);
    struct artel_error err;
    struct together *t;
    struct mixture m;

    (void)state;
    mixture_of(&m, model, 0, LANES, s.dropout);
    assert_error(together_open(&t, model, &m, schedules, &o, &err), ARTEL_EUSAGE, err,
                 "TRN02");
    assert_null(t);
    mixture_release(&m);
    toy_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_expert_ends_as_it_does_alone),
        cmocka_unit_test(and_in_every_memory_mode),
        cmocka_unit_test(what_is_not_finite_is_one_lanes_own),
        cmocka_unit_test(a_lane_goes_on_from_its_state),
        cmocka_unit_test(a_loss_limit_is_a_lanes_own),
        cmocka_unit_test(dropout_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
