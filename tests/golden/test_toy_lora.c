/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adapters that peft wrote, over the toy model: logits and losses, the gradient of
 * every A and B, and ten steps of AdamW, against PyTorch.
 *
 * Bounds: gradients of this batch reach 5 and carry about 1e-6 of rounding. AdamW's
 * first steps move each weight by about the learning rate (1e-2) whatever the size of
 * its gradient; the adapter is one without tiny gradients, and changing every weight
 * by 1e-6 of itself moves no weight by more than 1e-5 in PyTorch's own ten steps.
 */
#include "golden/golden.h"

#include <stdlib.h>

#include "decoder/session.h"
#include "save/adapter.h"
#include "train/trainer.h"

#define LOGIT_BOUND 2e-4

/* One adapter over one base, as the mixture that training sees. */
struct fixture {
    struct artel_model *model;
    struct mixture mixture;
    struct golden_rows rows;
};

static void fixture_open(struct fixture *f, const char *base, const char *adapter)
{
    const struct gate_rule rule = {.place = ROUTER_NONE};
    struct artel_error err;
    struct expert e = {0};

    f->model = golden_model(base, MATRIX_FORWARD | MATRIX_BACKWARD | MATRIX_DECODE);
    assert_int_equal(
        mixture_init(&f->mixture, "single", &f->model->weights->config, &rule, &err),
        0);
    if (adapter_read(&e, "lora", adapter, f->model, false, &err) < 0)
        fail_msg("%s: %s: %s", err.file, err.where, err.reason);
    assert_int_equal(mixture_add(&f->mixture, &e, &f->model->weights->config, &err), 0);
    golden_fill(&f->rows, "toy-tied", 0);
}

static void fixture_close(struct fixture *f)
{
    mixture_release(&f->mixture);
    model_close(f->model);
}

static struct decoder_pass *pass_over(const struct fixture *f, bool backward)
{
    const struct pass_options o = {.routing = ROUTE_GIVEN,
                                   .backward = backward,
                                   .max_rows = GOLDEN_ROWS * GOLDEN_MAX_ROW,
                                   .max_seqs = GOLDEN_ROWS};
    struct decoder_pass *pass;
    struct artel_error err;

    assert_int_equal(pass_open(&pass, f->model, &f->mixture, &o, &err), 0);
    return pass;
}

/* The session's cached decoding, step by step. */
static void check_decoding(const struct fixture *f, const json_t *greedy)
{
    const json_t *ids = json_object_get(greedy, "ids"), *id;
    struct artel_session *s;
    struct artel_error err;
    size_t i;

    assert_int_equal(session_open(&s, f->model, &f->mixture, 64, &err), 0);
    assert_int_equal(session_prefill(s, f->rows.ids[1], f->rows.answer_start[1], 0, 0,
                                     f->rows.answer_start[1], &err),
                     0);
    json_array_foreach(ids, i, id)
    {
        golden_greedy(session_logits(s), greedy, i);
        assert_int_equal(session_step(s, (int32_t)json_integer_value(id), &err), 0);
    }
    assert_int_equal(i, 12);
    session_close(s);
}

static void check_adapter(const char *base, const char *name)
{
    const json_t *facts = json_object_get(golden.facts, name);
    struct fixture f;
    struct decoder_pass *pass;
    struct block_loss loss;
    double nll[GOLDEN_ROWS];
    float logits[GOLDEN_VOCAB];
    const float *want;
    char path[512], tensor[64];

    snprintf(path, sizeof(path), GOLDEN "%s", name);
    fixture_open(&f, base, path);
    pass = pass_over(&f, false);
    decoder_forward(pass, &f.rows.block);
    snprintf(tensor, sizeof(tensor), "%s/logits", name);
    want = golden_tensor(tensor, f.rows.seqs[0].n * GOLDEN_VOCAB);
    for (size_t t = 0; t < f.rows.seqs[0].n; t++) {
        pass_logits(pass, logits, t);
        for (size_t v = 0; v < GOLDEN_VOCAB; v++)
            assert_near(logits[v], want[t * GOLDEN_VOCAB + v], LOGIT_BOUND);
    }
    decoder_loss(pass, &loss, nll);
    for (size_t i = 0; i < GOLDEN_ROWS; i++)
        assert_near(nll[i],
                    json_number_value(json_array_get(json_object_get(facts, "nll"), i)),
                    5e-4);
    pass_close(pass);
    check_decoding(&f, json_object_get(facts, "greedy"));
    fixture_close(&f);
}

static void lora_agrees_with_peft(void **state)
{
    (void)state;
    check_adapter("toy-tied", "lora");
    check_adapter("toy-tied.gguf", "lora");
}

static void rslora_with_patterns_agrees_with_peft(void **state)
{
    (void)state;
    check_adapter("toy-tied", "rslora");
    check_adapter("toy-tied.gguf", "rslora");
}

/* Row I of B as we hold it is row hugging_face_row() of B in the file: a GGUF base holds
 * the two halves of each head of q and k interleaved. */
static size_t hugging_face_row(const struct model_config *c, enum site s, size_t i)
{
    const size_t d = c->head_dim;

    if (!c->rope_interleaved || (s != SITE_Q && s != SITE_K))
        return i;
    return i / d * d + i % 2 * (d / 2) + i % d / 2;
}

struct agreement {
    size_t n, n_far; /* numbers compared, of which beyond the bound */
    double worst;
};

static void compare(struct agreement *a, const float *got, const float *want, size_t n,
                    double bound)
{
    for (size_t i = 0; i < n; i++) {
        const double apart = fabs((double)got[i] - (double)want[i]);

        assert_true(isfinite(apart));
        a->n++;
        a->n_far += apart > bound;
        a->worst = apart > a->worst ? apart : a->worst;
    }
}

/* Every A and B below NUMBERS (in the layout of the expert's params) against the
 * reference's tensors PREFIX + PEFT's name. */
static struct agreement compare_expert(const struct fixture *f, const float *numbers,
                                       const char *prefix, double bound)
{
    const struct model_config *c = &f->model->weights->config;
    const struct expert *e = &f->mixture.experts[0];
    struct agreement a = {0};

    for (size_t i = 0; i < e->n_layers * N_SITES; i++) {
        const enum site s = (enum site)(i % N_SITES);
        const struct lora *l = &e->lora[i];
        const float *got_b = numbers + (l->b - e->params), *want_b;
        char name[160];

        snprintf(name, sizeof(name),
                 "%sbase_model.model.model.layers.%zu.%s.lora_A.weight", prefix,
                 i / N_SITES, site_module(s));
        compare(&a, numbers + (l->a - e->params),
                golden_tensor(name, l->rank * l->n_in), l->rank * l->n_in, bound);
        name[strlen(name) - strlen("A.weight")] = 'B';
        want_b = golden_tensor(name, l->rank * l->n_out);
        for (size_t m = 0; m < l->n_out; m++)
            compare(&a, got_b + m * l->rank,
                    want_b + hugging_face_row(c, s, m) * l->rank, l->rank, bound);
    }
    assert_int_equal(a.n, e->n_params);
    return a;
}

static void check_gradients(const char *base)
{
    struct fixture f;
    struct decoder_pass *pass;
    struct block_loss loss;
    struct agreement a;
    float *grad;
    bool touched = false;

    fixture_open(&f, base, GOLDEN "lora");
    grad = calloc(f.mixture.experts[0].n_params, sizeof(*grad));
    assert_non_null(grad);
    pass = pass_over(&f, true);
    decoder_forward(pass, &f.rows.block);
    decoder_loss(pass, &loss, NULL);
    decoder_backward(pass, &(struct mixture_grads){.n_experts = 1,
                                                   .expert = (float *[]){grad},
                                                   .touched = &touched});
    assert_true(touched);
    a = compare_expert(&f, grad, "grad/", 5e-5);
    if (a.n_far)
        fail_msg("%zu of %zu gradients differ, by up to %g", a.n_far, a.n, a.worst);
    pass_close(pass);
    free(grad);
    fixture_close(&f);
}

static void gradients_of_every_a_and_b_agree_with_pytorch(void **state)
{
    (void)state;
    check_gradients("toy-tied");
    check_gradients("toy-tied.gguf");
}

static void check_steps(const char *base)
{
    const json_t *steps =
        json_object_get(json_object_get(golden.facts, "lora"), "steps");
    const bool trained = true;
    struct example examples[GOLDEN_ROWS] = {0};
    const struct example *order[GOLDEN_ROWS];
    struct batch batch = {.rows = order, .n_rows = GOLDEN_ROWS};
    struct train_options o;
    struct artel_trainer *t;
    struct artel_error err;
    struct fixture f;

    fixture_open(&f, base, GOLDEN "lora");
    for (size_t i = 0; i < GOLDEN_ROWS; i++) {
        const struct sequence *s = &f.rows.seqs[i];

        examples[i] = (struct example){.ids = s->ids,
                                       .n = s->n,
                                       .n_prompt = f.rows.answer_start[i],
                                       .loss = s->loss,
                                       .pool_n = f.rows.answer_start[i],
                                       .n_loss = s->n - f.rows.answer_start[i]};
        order[i] = &examples[i];
        batch.n_tokens += s->n;
        batch.n_loss += examples[i].n_loss;
    }
    train_options_default(&o);
    o.learning_rate = 1e-2f;
    o.schedule = (struct schedule){.kind = SCHEDULE_CONSTANT, .total_steps = 10};
    o.forced_expert = 0;
    o.max_row_tokens = GOLDEN_MAX_ROW;
    assert_int_equal(trainer_open(&t, f.model, &f.mixture, &trained, false, &o, &err),
                     0);
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *want = json_array_get(steps, i);
        const double loss = json_number_value(json_object_get(want, "loss"));
        const double norm = json_number_value(json_object_get(want, "grad_norm"));
        char prefix[32];

        struct step_report report;
        assert_int_equal(trainer_step(t, &batch, 1, &report, &err), 0);
        assert_near(report.loss, loss, 1e-4 * loss);
        assert_near(report.grad_norm, norm, 1e-3 * norm);
        snprintf(prefix, sizeof(prefix), "step.%zu/", i + 1);
        if (i == 0 || i == 1 || i == 4 || i == 9) {
            const struct agreement a =
                compare_expert(&f, f.mixture.experts[0].params, prefix, 1e-4);

            if (a.n_far)
                fail_msg("step %zu: %zu of %zu weights differ, by up to %g", i + 1,
                         a.n_far, a.n, a.worst);
        }
    }
    trainer_close(t);
    fixture_close(&f);
}

static void ten_adamw_steps_agree_with_pytorch(void **state)
{
    (void)state;
    check_steps("toy-tied");
    check_steps("toy-tied.gguf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lora_agrees_with_peft),
        cmocka_unit_test(rslora_with_patterns_agrees_with_peft),
        cmocka_unit_test(gradients_of_every_a_and_b_agree_with_pytorch),
        cmocka_unit_test(ten_adamw_steps_agree_with_pytorch),
    };

    return cmocka_run_group_tests(tests, golden_open, golden_close);
}
