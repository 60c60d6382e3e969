/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The toy models against transformers and peft in fp32: logits, answer
 * likelihoods, every LoRA gradient, ten AdamW steps (tests/golden/README.md).
 *
 * Bounds: logits and losses carry about eps * sqrt(terms) of rounding on either
 * side, 1e-4 covers values up to 20; gradients relative to the largest of their
 * tensor; weights after N steps of 1e-2 within N / 200 of a step, but for the few
 * whose gradient is lost in rounding.
 */
#include "artel.h"
#include "check.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/batch.h"
#include "decoder/session.h"
#include "files/safetensors.h"
#include "save/adapter.h"
#include "train/trainer.h"

#define GOLDEN  ARTEL_SOURCE "/tests/golden/"
#define MAX_ROW 64
#define N_ROWS  3

struct rows {
    int32_t ids[N_ROWS][MAX_ROW];
    unsigned char loss[N_ROWS][MAX_ROW];
    struct example example[N_ROWS];
    const struct example *list[N_ROWS];
    struct batch batch;
};

static json_t *golden;
static struct safetensors *numbers;

static int open_golden(void **state)
{
    struct artel_error err;

    (void)state;
    golden = json_load_file(GOLDEN "toy.json", 0, NULL);
    return !golden || safetensors_open(&numbers, GOLDEN "toy.safetensors", &err) < 0;
}

static int close_golden(void **state)
{
    (void)state;
    json_decref(golden);
    safetensors_close(numbers);
    return 0;
}

static void read_rows(struct rows *r, const char *model)
{
    const json_t *rows = json_object_get(
        json_object_get(json_object_get(golden, "models"), model), "rows");

    *r = (struct rows){0};
    assert_int_equal(json_array_size(rows), N_ROWS);
    for (size_t i = 0; i < N_ROWS; i++) {
        const json_t *row = json_array_get(rows, i), *ids = json_object_get(row, "ids");
        const size_t start =
            (size_t)json_integer_value(json_object_get(row, "answer_start"));
        const size_t n = json_array_size(ids);

        assert_true(n <= MAX_ROW);
        for (size_t t = 0; t < n; t++) {
            r->ids[i][t] = (int32_t)json_integer_value(json_array_get(ids, t));
            r->loss[i][t] = t >= start;
        }
        r->example[i] = (struct example){.ids = r->ids[i],
                                         .n = n,
                                         .n_prompt = start,
                                         .loss = r->loss[i],
                                         .pool_n = 1,
                                         .n_loss = n - start,
                                         .row = i + 1};
        r->list[i] = &r->example[i];
        r->batch.n_tokens += n;
        r->batch.n_loss += n - start;
    }
    r->batch.rows = r->list;
    r->batch.n_rows = N_ROWS;
}

static struct artel_model *open_model(const char *path)
{
    struct artel_model *m;
    struct artel_error err;

    if (model_open(&m, path, &err) < 0)
        fail_msg("%s: %s: %s", err.file, err.where, err.reason);
    assert_int_equal(model_prepare(m, PRECISION_FP32,
                                   MATRIX_DECODE | MATRIX_FORWARD | MATRIX_BACKWARD, 64,
                                   &err),
                     0);
    return m;
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* Likelihoods of all rows and the logits of row 0, under expert 0 of M or the base. */
static void check_forward(const struct artel_model *model, const struct mixture *m,
                          const struct rows *r, const json_t *want, const char *logits)
{
    const struct pass_options o = {
        .routing = ROUTE_GIVEN, .max_rows = N_ROWS * MAX_ROW, .max_seqs = N_ROWS};
    const struct tensor *golden_logits = safetensors_find(numbers, logits);
    const size_t V = model->weights->config.n_vocab;
    struct sequence seqs[N_ROWS];
    struct block block = {.seqs = seqs, .n_seqs = N_ROWS};
    struct decoder_pass *p;
    struct block_loss loss;
    struct artel_error err;
    double nll[N_ROWS];
    float *got = malloc(V * sizeof(*got));

    for (size_t i = 0; i < N_ROWS; i++) {
        seqs[i] = (struct sequence){.ids = r->ids[i],
                                    .n = r->example[i].n,
                                    .loss = r->loss[i],
                                    .pool_n = 1,
                                    .expert = m ? 0 : -1};
        block.n_rows += seqs[i].n;
    }
    assert_int_equal(pass_open(&p, model, m, &o, &err), 0);
    decoder_forward(p, &block);
    decoder_loss(p, &loss, nll);
    for (size_t i = 0; i < N_ROWS; i++)
        assert_near(nll[i],
                    json_number_value(json_array_get(json_object_get(want, "nll"), i)),
                    1e-3);
    assert_near(loss.nll / (double)loss.n_tokens, number(want, "loss"), 1e-5);
    assert_non_null(golden_logits);
    for (size_t t = 0; t < r->example[0].n; t++) {
        pass_logits(p, got, t);
        for (size_t v = 0; v < V; v++)
            assert_near(got[v], ((const float *)golden_logits->data)[t * V + v], 1e-4);
    }
    free(got);
    pass_close(p);
}

/* Greedy tokens from the prompt of row 1, as long as the golden gaps are clear. */
static void check_greedy(const struct artel_model *model, const struct mixture *m,
                         const struct rows *r, const json_t *want)
{
    const json_t *ids = json_object_get(json_object_get(want, "greedy"), "ids");
    const json_t *gaps = json_object_get(json_object_get(want, "greedy"), "gaps");
    const size_t V = model->weights->config.n_vocab;
    struct artel_session *s;
    struct artel_error err;

    assert_int_equal(session_open(&s, model, m, 64, &err), 0);
    assert_int_equal(session_prefill(s, r->ids[1], r->example[1].n_prompt,
                                     m ? 0 : EXPERT_BASE, 0, 1, &err),
                     0);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const float *logits = session_logits(s);
        size_t best = 0;

        for (size_t v = 1; v < V; v++)
            best = logits[v] > logits[best] ? v : best;
        if (json_number_value(json_array_get(gaps, i)) < 1e-3)
            break;
        assert_int_equal(best, json_integer_value(json_array_get(ids, i)));
        assert_int_equal(session_step(s, (int32_t)best, &err), 0);
    }
    session_close(s);
}

static void check_base(const char *path, const char *name)
{
    struct artel_model *model = open_model(path);
    const json_t *want = json_object_get(json_object_get(golden, "models"), name);
    struct rows r;
    char logits[64];

    read_rows(&r, name);
    snprintf(logits, sizeof(logits), "%s/logits", name);
    check_forward(model, NULL, &r, want, logits);
    check_greedy(model, NULL, &r, want);
    model_close(model);
}

static void folder_with_tied_head(void **state)
{
    (void)state;
    check_base(GOLDEN "toy-tied", "toy-tied");
}

static void gguf_with_tied_head(void **state)
{
    (void)state;
    check_base(GOLDEN "toy-tied.gguf", "toy-tied");
}

static void shards_with_own_head_and_llama3_rope(void **state)
{
    (void)state;
    check_base(GOLDEN "toy-untied", "toy-untied");
}

static void gguf_with_own_head_and_llama3_rope(void **state)
{
    (void)state;
    check_base(GOLDEN "toy-untied.gguf", "toy-untied");
}

static void mixture_of(struct mixture *m, const struct artel_model *model,
                       const char *folder)
{
    struct gate_rule rule;
    struct artel_error err;
    struct expert e;

    assert_int_equal(method_rule(&rule, "single"), 0);
    assert_int_equal(mixture_init(m, "single", &model->weights->config, &rule, &err),
                     0);
    if (adapter_read(&e, "toy", folder, model, false, &err) < 0)
        fail_msg("%s: %s: %s", err.file, err.where, err.reason);
    assert_int_equal(mixture_add(m, &e, &model->weights->config, &err), 0);
}

/* The adapter was made for the folder's spelling; GGUF turns the heads of q and k. */
static void adapters_of_peft(void **state)
{
    static const char *const bases[] = {GOLDEN "toy-tied", GOLDEN "toy-tied.gguf"};
    static const char *const names[] = {"lora", "rslora"};

    (void)state;
    for (size_t b = 0; b < 2; b++)
        for (size_t a = 0; a < 2; a++) {
            struct artel_model *model = open_model(bases[b]);
            const json_t *want = json_object_get(golden, names[a]);
            struct mixture m;
            struct rows r;
            char text[256];

            snprintf(text, sizeof(text), GOLDEN "%s", names[a]);
            mixture_of(&m, model, text);
            read_rows(&r, "toy-tied");
            snprintf(text, sizeof(text), "%s/logits", names[a]);
            check_forward(model, &m, &r, want, text);
            check_greedy(model, &m, &r, want);
            mixture_release(&m);
            model_close(model);
        }
}

/*
 * GOT in the expert's layout against the golden tensors PREFIX/KEY: all within the bound
 * but for ODD numbers of a thousand.
 */
static void check_tensors(const struct expert *e, const float *got, const char *prefix,
                          double relative, double absolute, size_t odd)
{
    size_t n_off = 0;

    for (size_t i = 0; i < e->n_layers * N_SITES; i++) {
        const struct lora *l = &e->lora[i];
        const float *const part[] = {l->a, l->b};

        for (size_t k = 0; k < 2; k++) {
            const size_t n = l->rank * (k ? l->n_out : l->n_in);
            const float *have = got + (part[k] - e->params), *want;
            const struct tensor *t;
            double largest = 0.0;
            char key[256];

            snprintf(key, sizeof(key),
                     "%sbase_model.model.model.layers.%zu.%s.lora_%c.weight", prefix,
                     i / N_SITES, site_module((enum site)(i % N_SITES)), k ? 'B' : 'A');
            t = safetensors_find(numbers, key);
            if (!t)
                fail_msg("no golden tensor %s", key);
            assert_int_equal(t->bytes, n * sizeof(float));
            want = t->data;
            for (size_t j = 0; j < n; j++)
                largest = fmax(largest, fabs((double)want[j]));
            for (size_t j = 0; j < n; j++)
                if (!(fabs((double)have[j] - (double)want[j]) <=
                      relative * largest + absolute) &&
                    ++n_off * 1000 > odd * e->n_params)
                    fail_msg("%s[%zu] is %.9g, expected %.9g (largest %.3g)", key, j,
                             (double)have[j], (double)want[j], largest);
        }
    }
}

static void gradients_of_peft(void **state)
{
    struct artel_model *model = open_model(GOLDEN "toy-tied");
    const struct pass_options o = {.routing = ROUTE_GIVEN,
                                   .backward = true,
                                   .max_rows = N_ROWS * MAX_ROW,
                                   .max_seqs = N_ROWS};
    struct sequence seqs[N_ROWS];
    struct block block = {.seqs = seqs, .n_seqs = N_ROWS};
    struct decoder_pass *p;
    struct block_loss loss;
    struct mixture m;
    struct rows r;
    struct artel_error err;
    bool touched = false;
    struct mixture_grads g = {.n_experts = 1, .touched = &touched};
    float *d;

    (void)state;
    mixture_of(&m, model, GOLDEN "lora");
    read_rows(&r, "toy-tied");
    for (size_t i = 0; i < N_ROWS; i++) {
        seqs[i] = (struct sequence){.ids = r.ids[i],
                                    .n = r.example[i].n,
                                    .loss = r.loss[i],
                                    .pool_n = 1,
                                    .loss_scale = 1.0f / (float)r.batch.n_loss};
        block.n_rows += seqs[i].n;
    }
    d = calloc(m.experts[0].n_params, sizeof(*d));
    g.expert = &d;
    assert_int_equal(pass_open(&p, model, &m, &o, &err), 0);
    decoder_forward(p, &block);
    decoder_loss(p, &loss, NULL);
    decoder_backward(p, &g);
    check_tensors(&m.experts[0], d, "grad/", 1e-4, 1e-7, 0);
    free(d);
    pass_close(p);
    mixture_release(&m);
    model_close(model);
}

static void ten_steps_of_peft(void **state)
{
    struct artel_model *model = open_model(GOLDEN "toy-tied");
    const json_t *lora = json_object_get(golden, "lora");
    const json_t *steps = json_object_get(lora, "steps");
    const json_t *kept = json_object_get(golden, "kept_steps");
    const bool trained = true;
    struct artel_trainer *t;
    struct train_options o;
    struct mixture m;
    struct rows r;
    struct artel_error err;

    (void)state;
    mixture_of(&m, model, GOLDEN "lora");
    read_rows(&r, "toy-tied");
    train_options_default(&o);
    o.learning_rate = 1e-2f;
    o.max_row_tokens = MAX_ROW;
    o.forced_expert = 0;
    assert_int_equal(trainer_open(&t, model, &m, &trained, false, &o, &err), 0);
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *want = json_array_get(steps, i);
        struct step_report report;

        assert_int_equal(trainer_step(t, &r.batch, 1, &report, &err), 0);
        assert_near(report.loss, number(want, "loss"), 2e-4 * (1.0 + (double)i));
        assert_near(report.grad_norm, number(want, "grad_norm"),
                    1e-3 * (1.0 + (double)i) * (1.0 + number(want, "grad_norm")));
        for (size_t k = 0; k < json_array_size(kept); k++) {
            char prefix[32];

            if ((size_t)json_integer_value(json_array_get(kept, k)) != i + 1)
                continue;
            snprintf(prefix, sizeof(prefix), "step.%zu/", i + 1);
            /* Where a gradient is as small as its rounding, Adam's first steps of full
             * length may differ; a wrong rate, moment or clip would move them all. */
            check_tensors(&m.experts[0], m.experts[0].params, prefix, 0.0,
                          5e-5 * (double)(i + 1), 5);
        }
    }
    trainer_close(t);
    mixture_release(&m);
    model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folder_with_tied_head),
        cmocka_unit_test(gguf_with_tied_head),
        cmocka_unit_test(shards_with_own_head_and_llama3_rope),
        cmocka_unit_test(gguf_with_own_head_and_llama3_rope),
        cmocka_unit_test(adapters_of_peft),
        cmocka_unit_test(gradients_of_peft),
        cmocka_unit_test(ten_steps_of_peft),
    };

    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
