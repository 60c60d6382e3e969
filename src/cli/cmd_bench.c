/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel bench WORK...: what this machine does, against what it could do.
 *
 *     W           one LoRA step: 8 rows of 256 tokens, loss on every token, rank 8 at
 *                 all seven linears, AdamW
 *     P256 P1000  prefill of so many tokens, logits of the last
 *     D1          decode, token by token
 *
 * product_gflops counts frozen linears, head and LoRA over the whole time of the work;
 * limit_share of W and P is that over the rate of one product in cache on all
 * threads; of D1 it is the bytes of weights a second over the bandwidth of a read of
 * as many bytes. The one command that looks below artel.h.
 */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/rng.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/signals.h"
#include "decoder/session.h"
#include "eval/opened.h"
#include "train/trainer.h"

#define ROWS      8
#define ROW       256
#define RANK      8
#define DECODED   64
#define TIMES_MAX 100
#define HOT_ROWS  256
#define HOT_TIMES 20

struct bench {
    struct artel_model *model;
    struct weights *made; /* random weights, or NULL: the model's own */
    float *numbers;       /* behind MADE */
    enum precision precision;
    size_t n_repeats;
    struct artel_error err;
};

/* What one work took. */
struct timing {
    double seconds[TIMES_MAX]; /* of each repeat */
    size_t n;
    double tokens; /* a repeat */
    double flops;  /* a token, in products */
    double hot_gflops, bandwidth_gbs;
};

/* The shape of SmolLM2-135M. */
static const struct model_config shape = {.architecture = "llama",
                                          .n_layers = 30,
                                          .dim = 576,
                                          .n_heads = 9,
                                          .n_kv_heads = 3,
                                          .head_dim = 64,
                                          .ffn_dim = 1536,
                                          .n_vocab = 49152,
                                          .context = 2048,
                                          .norm_eps = 1e-5f,
                                          .rope_theta = 100000,
                                          .tied = true};

static float *take(struct tensor *t, const char *name, float *at, size_t rows, size_t n)
{
    const size_t elems = rows ? rows * n : n;

    *t = (struct tensor){.name = name,
                         .dtype = DTYPE_F32,
                         .n_dims = rows ? 2 : 1,
                         .shape = {rows ? rows : n, rows ? n : 0},
                         .data = at,
                         .bytes = elems * sizeof(float)};
    return at + elems;
}

/* Lays the tensors of W out from AT on; returns the end. */
static float *place(struct weights *w, float *at)
{
    const struct model_config *const c = &w->config;

    at = take(&w->embed, "embed", at, c->n_vocab, c->dim);
    w->head = w->embed;
    at = take(&w->final_norm, "norm", at, 0, c->dim);
    for (size_t l = 0; l < c->n_layers; l++) {
        at = take(&w->layers[l].attn_norm, "norm", at, 0, c->dim);
        at = take(&w->layers[l].ffn_norm, "norm", at, 0, c->dim);
        for (int s = 0; s < N_SITES; s++) {
            size_t n_out, n_in;

            site_shape(c, (enum site)s, &n_out, &n_in);
            at = take(&w->layers[l].site[s], site_name((enum site)s), at, n_out, n_in);
        }
    }
    return at;
}

static void fill(float *at, size_t n)
{
    struct rng rng;

    rng_init(&rng, 1, 0);
    for (size_t i = 0; i < n; i++)
        at[i] = 0.06f * (rng_uniform(&rng) - 0.5f);
}

/* Weights of all linears of a layer. */
static double linear_weights(const struct model_config *c)
{
    double sum = 0;

    for (int s = 0; s < N_SITES; s++) {
        size_t n_out, n_in;

        site_shape(c, (enum site)s, &n_out, &n_in);
        sum += (double)n_out * (double)n_in;
    }
    return sum;
}

static double lora_weights(const struct model_config *c)
{
    double sum = 0;

    for (int s = 0; s < N_SITES; s++) {
        size_t n_out, n_in;

        site_shape(c, (enum site)s, &n_out, &n_in);
        sum += RANK * (double)(n_out + n_in);
    }
    return sum;
}

static int make_model(struct bench *b)
{
    size_t n;

    b->made = calloc(1, sizeof(*b->made));
    b->model = calloc(1, sizeof(*b->model));
    if (!b->made || !b->model)
        return error_nomem(&b->err, sizeof(*b->model));
    b->made->config = shape;
    for (size_t i = 0; i < sizeof(shape.rope_divisor) / sizeof(shape.rope_divisor[0]);
         i++)
        b->made->config.rope_divisor[i] = 1;
    b->made->layers = calloc(shape.n_layers, sizeof(*b->made->layers));
    if (!b->made->layers)
        return error_nomem(&b->err, shape.n_layers * sizeof(*b->made->layers));
    n = (shape.n_vocab + 1 + 2 * shape.n_layers) * shape.dim +
        shape.n_layers * (size_t)linear_weights(&shape);
    b->numbers = malloc(n * sizeof(float));
    if (!b->numbers)
        return error_nomem(&b->err, n * sizeof(float));
    fill(b->numbers, n);
    place(b->made, b->numbers);
    b->made->file_bytes = n * sizeof(float);
    b->model->weights = b->made;
    return 0;
}

static void bench_release(struct bench *b)
{
    if (!b->made) {
        model_close(b->model);
        return;
    }
    if (b->model)
        arena_release(&b->model->arena);
    free(b->model);
    free(b->made->layers);
    free(b->made);
    free(b->numbers);
}

/* Rate of the widest linear when it stays in cache, each thread on rows of its own. */
static double hot_gflops(const struct bench *b)
{
    const struct matrix *const w = &b->model->layers[0].site[SITE_GATE];
    const size_t threads = cpu_threads();
    float *const x = calloc(threads * HOT_ROWS * w->n_in, sizeof(float));
    float *const y = calloc(threads * HOT_ROWS * w->n_out, sizeof(float));
    double start = 0;

    for (int warm = 0; x && y && warm < 2; warm++) {
        start = seconds_now();
#pragma omp parallel
        {
            const size_t t = (size_t)omp_get_thread_num();

            for (int i = 0; i < HOT_TIMES; i++)
                matrix_forward(y + t * HOT_ROWS * w->n_out, 0,
                               x + t * HOT_ROWS * w->n_in, w, HOT_ROWS);
        }
    }
    start = seconds_now() - start;
    free(x);
    free(y);
    return 2e-9 * (double)(w->n_in * w->n_out * HOT_ROWS * HOT_TIMES) *
           (double)threads / start;
}

/* GB/s of reading BYTES with all threads, best of three. */
static double bandwidth(size_t bytes)
{
    const size_t n = bytes / sizeof(uint64_t);
    uint64_t *const data = malloc(n * sizeof(*data));
    volatile uint64_t keep = 0;
    double best = 0;

    if (!data)
        return 0;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        data[i] = i;
    for (int k = 0; k < 3; k++) {
        const double start = seconds_now();
        uint64_t sum = 0;
        double rate;

#pragma omp parallel for schedule(static) reduction(+ : sum)
        for (size_t i = 0; i < n; i++)
            sum += data[i];
        keep = keep + sum;
        rate = 1e-9 * (double)bytes / (seconds_now() - start);
        best = rate > best ? rate : best;
    }
    free(data);
    return best;
}

/* ROWS rows of random ids, all but the first token of each with loss. */
struct rows {
    int32_t ids[ROWS][ROW];
    unsigned char loss[ROW];
    struct example example[ROWS];
    const struct example *list[ROWS];
};

static void rows_init(struct rows *r, size_t n_vocab, size_t step)
{
    struct rng rng;

    rng_init(&rng, 7, step);
    memset(r->loss, 1, sizeof(r->loss));
    r->loss[0] = 0;
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t k = 0; k < ROW; k++)
            r->ids[i][k] = (int32_t)rng_below(&rng, (uint32_t)n_vocab);
        r->example[i] = (struct example){.ids = r->ids[i],
                                         .n = ROW,
                                         .loss = r->loss,
                                         .pool_n = 64,
                                         .n_loss = ROW - 1,
                                         .row = i + 1};
        r->list[i] = &r->example[i];
    }
}

static int steps(struct bench *b, struct timing *out, struct mixture *mixture)
{
    static struct rows rows;
    const bool trained[] = {true};
    struct artel_trainer *trainer = NULL;
    struct train_options o;
    struct step_report report;
    int rc;

    train_options_default(&o);
    o.forced_expert = 0;
    o.lm_loss = true;
    o.max_row_tokens = ROW;
    o.schedule = (struct schedule){.kind = SCHEDULE_CONSTANT, .total_steps = 1000000};
    rc = trainer_open(&trainer, b->model, mixture, trained, false, &o, &b->err);
    for (size_t i = 0; rc == 0 && i <= b->n_repeats && !stop_signal; i++) {
        const struct batch batch = {.rows = rows.list,
                                    .n_rows = ROWS,
                                    .n_tokens = ROWS * ROW,
                                    .n_loss = ROWS * (ROW - 1)};
        const double start = seconds_now();

        rows_init(&rows, b->model->weights->config.n_vocab, i);
        rc = trainer_step(trainer, &batch, 1, &report, &b->err);
        if (i) /* the first one warms up */
            out->seconds[out->n++] = seconds_now() - start;
    }
    trainer_close(trainer);
    return rc;
}

static int bench_train(struct bench *b, struct timing *out)
{
    const struct model_config *const c = &b->model->weights->config;
    const double head = (double)c->n_vocab * (double)c->dim;
    struct lora_options lora;
    struct mixture mixture = {0};
    struct expert expert = {0};
    struct gate_rule rule;
    int rc = model_prepare(b->model, b->precision, MATRIX_FORWARD | MATRIX_BACKWARD,
                           ROW, &b->err);

    if (rc < 0)
        return rc;
    out->hot_gflops = hot_gflops(b);
    out->tokens = ROWS * ROW;
    out->flops = 4 * ((double)c->n_layers * linear_weights(c) + head) +
                 6 * (double)c->n_layers * lora_weights(c);
    lora_options_default(&lora);
    method_rule(&rule, "single");
    rc = mixture_init(&mixture, "single", c, &rule, &b->err);
    if (rc < 0)
        return rc;
    rc = expert_init_uniform(&expert, "bench", c, &lora, &b->err);
    if (rc == 0) {
        expert_draw(&expert, 1, 0);
        rc = mixture_add(&mixture, &expert, c, &b->err);
    }
    if (rc == 0)
        rc = steps(b, out, &mixture);
    expert_release(&expert);
    mixture_release(&mixture);
    return rc;
}

static int bench_session(struct bench *b, struct timing *out, size_t n_prompt,
                         size_t n_decoded)
{
    const struct model_config *const c = &b->model->weights->config;
    const double linears = (double)c->n_layers * linear_weights(c);
    const double head = (double)c->n_vocab * (double)c->dim;
    struct artel_session *s = NULL;
    int32_t *const ids = calloc(n_prompt + 1, sizeof(*ids));
    struct rng rng;
    int rc = ids ? model_prepare(b->model, b->precision, MATRIX_FORWARD | MATRIX_DECODE,
                                 n_prompt + n_decoded + 1, &b->err)
                 : error_nomem(&b->err, n_prompt * sizeof(*ids));

    if (rc == 0)
        rc = session_open(&s, b->model, NULL, n_prompt + n_decoded + 1, &b->err);
    out->tokens = (double)(n_decoded ? n_decoded : n_prompt);
    out->flops = 2 * (linears + head / (n_decoded ? 1 : (double)n_prompt));
    if (rc == 0 && n_decoded)
        out->bandwidth_gbs = bandwidth(b->model->weights->file_bytes);
    else if (rc == 0)
        out->hot_gflops = hot_gflops(b);
    rng_init(&rng, 11, 0);
    for (size_t i = 0; rc == 0 && i <= b->n_repeats && !stop_signal; i++) {
        double start = seconds_now();

        for (size_t k = 0; k < n_prompt; k++)
            ids[k] = (int32_t)rng_below(&rng, (uint32_t)c->n_vocab);
        session_reset(s);
        rc = session_prefill(s, ids, n_prompt, EXPERT_BASE, 0, n_prompt, &b->err);
        if (n_decoded)
            start = seconds_now();
        for (size_t k = 0; rc == 0 && k < n_decoded; k++)
            rc = session_step(s, (int32_t)rng_below(&rng, (uint32_t)c->n_vocab),
                              &b->err);
        if (i)
            out->seconds[out->n++] = seconds_now() - start;
    }
    session_close(s);
    free(ids);
    return rc;
}

static int by_size(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

static json_t *timing_json(const char *work, struct timing *t, const struct bench *b)
{
    struct rusage usage;
    double median, rate, gflops, limit;

    qsort(t->seconds, t->n, sizeof(t->seconds[0]), by_size);
    median = t->n % 2 ? t->seconds[t->n / 2]
                      : 0.5 * (t->seconds[t->n / 2 - 1] + t->seconds[t->n / 2]);
    rate = t->tokens / median;
    gflops = 1e-9 * t->flops * rate;
    limit = t->bandwidth_gbs > 0
                ? 1e-9 * (double)b->model->weights->file_bytes * rate / t->bandwidth_gbs
                : gflops / t->hot_gflops;
    getrusage(RUSAGE_SELF, &usage);
    return json_pack(
        "{s:s, s:s, s:f, s:{s:f, s:f, s:f, s:I}, s:f, s:f, s:o, s:o, s:f, s:s, s:I}",
        "work", work, "precision", b->precision == PRECISION_BF16 ? "bf16" : "fp32",
        "tokens_per_second", rate, "seconds", "median", median, "min", t->seconds[0],
        "max", t->seconds[t->n - 1], "n", (json_int_t)t->n, "peak_rss_mib",
        (double)usage.ru_maxrss / 1024, "product_gflops", gflops, "product_share",
        t->hot_gflops > 0 ? json_number(gflops / t->hot_gflops) : json_null(),
        "bandwidth_gbs",
        t->bandwidth_gbs > 0 ? json_number(t->bandwidth_gbs) : json_null(),
        "limit_share", limit, "cpu", cpu_model_name(), "threads",
        (json_int_t)cpu_threads());
}

static int bench_one(struct bench *b, const char *work, json_t **out)
{
    static struct timing t;
    int rc;

    t = (struct timing){0};
    if (!strcmp(work, "W"))
        rc = bench_train(b, &t);
    else if (!strcmp(work, "P256"))
        rc = bench_session(b, &t, 256, 0);
    else if (!strcmp(work, "P1000"))
        rc = bench_session(b, &t, 1000, 0);
    else if (!strcmp(work, "D1"))
        rc = bench_session(b, &t, 16, DECODED);
    else
        return usage_error("bench", work, "USE05", "works are W, P256, P1000 and D1");
    if (rc < 0)
        return report_error(&b->err);
    if (!t.n)
        return signals_exit_code();
    *out = timing_json(work, &t, b);
    return 0;
}

static void print_result(const json_t *r)
{
    const json_t *const s = json_object_get(r, "seconds");

    printf(
        "%-6s %s  %9.1f tokens/s  %8.4f s (%.4f to %.4f, %lld times)  %6.0f GFLOP/s  "
        "%.0f %% of the limit  %.0f MiB\n",
        json_string_value(json_object_get(r, "work")),
        json_string_value(json_object_get(r, "precision")),
        json_number_value(json_object_get(r, "tokens_per_second")),
        json_number_value(json_object_get(s, "median")),
        json_number_value(json_object_get(s, "min")),
        json_number_value(json_object_get(s, "max")),
        (long long)json_integer_value(json_object_get(s, "n")),
        json_number_value(json_object_get(r, "product_gflops")),
        100 * json_number_value(json_object_get(r, "limit_share")),
        json_number_value(json_object_get(r, "peak_rss_mib")));
    fflush(stdout);
}

static int bench_all(struct bench *b, const struct words *works, const struct common *c)
{
    json_t *const results = json_array();
    int rc = 0;

    for (size_t i = 0; !rc && i < works->n; i++) {
        json_t *result = NULL;

        rc = bench_one(b, works->at[i], &result);
        if (!result)
            continue;
        if (!json_takes_stdout(c))
            print_result(result);
        json_array_append_new(results, result);
    }
    if (!rc && c->json)
        rc = json_write(c->json, json_pack("{s:O}", "results", results));
    json_decref(results);
    return rc;
}

int cmd_bench(int argc, char **argv)
{
    struct options o = {
        .command = "bench",
        .usage = "WORK... [--model MODEL]",
        .about =
            "This machine's numbers against its limits. W is a LoRA training step of 8 "
            "rows of 256 tokens, P256 and P1000 are prefills, D1 is decoding token by "
            "token. Without --model the weights are random, in the shape of "
            "SmolLM2-135M in F32.",
        .examples = "  artel bench W\n"
                    "  artel bench W P256 D1 --model model.gguf --json -\n",
        .min_words = 1,
        .max_words = 16};
    struct bench b = {0};
    struct common c = {0};
    struct words works;
    uint64_t repeats = 5;
    int rc = 0;

    option_whole(&o, "repeat", &repeats, 1, TIMES_MAX,
                 "times each work is measured; 5");
    common_options(&o, &c);
    if (!options_parse(&o, argc, argv, &works, &rc))
        return rc;
    if ((rc = json_check_target("bench", c.json, &c.model, 1)) ||
        (rc = common_start(&c)))
        return rc;
    b.n_repeats = (size_t)repeats;
    if (precision_choose(&b.precision, c.precision, &b.err) < 0 ||
        (c.model ? model_open(&b.model, c.model, &b.err) : make_model(&b)) < 0)
        rc = report_error(&b.err);
    else
        rc = bench_all(&b, &works, &c);
    bench_release(&b);
    return rc;
}
