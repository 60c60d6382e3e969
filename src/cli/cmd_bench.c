/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel bench WORK...: what this machine does, against what it could do.
 *
 * product_gflops counts frozen linears, head and LoRA over the whole time of a work;
 * product_share is that over the rate of the same products one by one. limit_share is
 * the same number where products are the limit (training, prefill); of decoding it is
 * the bytes of weights a second over bandwidth_gbs, the rate of reading as many.
 */
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "cli/bench.h"
#include "cli/bench_random.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/signals.h"
#include "eval/opened.h"
#include "tiles/tiles.h"

#define SUMMARY_SECONDS 15 /* of one work, two repeats aside */

/* clang-format off */
#define SINGLE {.place = ROUTER_NONE, .decides = DECIDE_SEQUENCE, .kind = GATE_ONE_HOT}
#define LAYER_ONE {.place = ROUTER_LAYER, .decides = DECIDE_SEQUENCE, .kind = GATE_ONE_HOT}
#define LAYER_FIXED {.place = ROUTER_LAYER, .decides = DECIDE_SEQUENCE, \
                     .kind = GATE_ONE_HOT, .fix_expert = true}
#define LAYER_SUM {.place = ROUTER_LAYER, .decides = DECIDE_SEQUENCE, .kind = GATE_SOFTMAX}
#define LINEAR_SUM {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX}
#define LINEAR_TWO {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_TOP_K, \
                    .top_k = 2}

static const struct work works[] = {
    {"machine", "rates of products, of reading memory, of fork and join",
     WORK_MACHINE, 0, 0, 0, SINGLE, false},
    {"W", "a training step of one LoRA of rank 8 on all linears: 8 rows of 256 tokens",
     WORK_TRAIN, 0, 1, 1, SINGLE, false},
    {"W8d", "the same through eight experts: all of them, softmax a token and linear",
     WORK_TRAIN, 0, 8, 8, LINEAR_SUM, true},
    {"W8k", "the best two of eight a token and linear",
     WORK_TRAIN, 0, 8, 2, LINEAR_TWO, true},
    {"W8s", "one of eight a row, with a router a layer that learns the labels",
     WORK_TRAIN, 0, 8, 1, LAYER_ONE, false},
    {"E8", "eight separate experts in one pass, each on a row of its own",
     WORK_TRAIN, 0, 8, 1, SINGLE, false},
    {"P256", "prefill of 256 tokens", WORK_PREFILL, 256, 0, 0, SINGLE, false},
    {"P1000", "prefill of 1,000 tokens", WORK_PREFILL, 1000, 0, 0, SINGLE, false},
    {"D1", "decoding, token by token", WORK_DECODE, 1, 0, 0, SINGLE, false},
    {"D1r", "the same with one of eight experts, chosen by routers",
     WORK_DECODE, 1, 8, 1, LAYER_FIXED, true},
    {"D1x4", "the same with the sum of four experts",
     WORK_DECODE, 1, 4, 4, LAYER_SUM, true},
    {"D8", "decoding of eight sequences at once", WORK_DECODE, 8, 0, 0, SINGLE, false},
    {"D8x1", "the same with one expert for all", WORK_DECODE, 8, 1, 1, SINGLE, false},
    {"D8x8", "the same with an expert for each", WORK_DECODE, 8, 8, 1, SINGLE, false},
};
/* clang-format on */

#define N_WORKS (sizeof(works) / sizeof(works[0]))

static const char *const summary[] = {"machine", "W", "P256", "D1", "D8"};

static const struct work *work_find(const char *name)
{
    for (size_t i = 0; i < N_WORKS; i++)
        if (!strcmp(works[i].name, name))
            return &works[i];
    return NULL;
}

static int unknown_work(const char *name)
{
    char list[256] = "";

    for (size_t i = 0; i < N_WORKS; i++) {
        strcat(list, " ");
        strcat(list, works[i].name);
    }
    return usage_error("bench", name, "USE05", "works are%s", list);
}

/* The machine's rates in each precision that is asked for, a result each. */
static int bench_machine(struct bench *b, json_t *results)
{
    int rc = machine_memory(b);

    machine_fork_join(b);
    for (int p = PRECISION_FP32; rc == 0 && p <= PRECISION_BF16; p++) {
        if (p != (int)b->precision &&
            !(b->all_precisions && (p == PRECISION_FP32 || precision_native_bf16())))
            continue;
        rc = machine_products(b, (enum precision)p);
        if (rc == 0)
            json_array_append_new(results, bench_machine_json(b, (enum precision)p));
    }
    return rc;
}

static int bench_one(struct bench *b, const struct work *w, json_t *results)
{
    struct timing t = {0};
    int rc;

    if (w->kind == WORK_MACHINE)
        return bench_machine(b, results);
    rc = machine_memory(b);
    if (rc == 0)
        rc = machine_products(b, b->precision);
    if (rc < 0)
        return rc;
    bench_model_rest(b);
    bench_begin(b, w);
    if (w->kind == WORK_TRAIN)
        rc = bench_train(b, w, &t);
    else if (w->kind == WORK_PREFILL)
        rc = bench_prefill(b, w, &t);
    else
        rc = bench_decode(b, w, &t);
    if (rc == 0 && t.n)
        json_array_append_new(results, bench_timing_json(b, w, &t));
    return rc;
}

static int bench_all(struct bench *b, const struct words *names, const struct common *c)
{
    json_t *const results = json_array();
    size_t shown = 0;
    int rc = 0;

    for (int p = PRECISION_FP32; p <= PRECISION_BF16; p++)
        b->machine.products[p].peak = bench_peak_gflops((enum precision)p);
    if (!json_takes_stdout(c))
        bench_print_head(b);
    for (size_t i = 0; rc == 0 && i < names->n && !stop_signal; i++) {
        rc = bench_one(b, work_find(names->at[i]), results);
        progress_clear(&b->progress);
        for (; shown < json_array_size(results); shown++)
            if (!json_takes_stdout(c))
                bench_print(json_array_get(results, shown));
    }
    if (rc < 0)
        rc = report_error(&b->err);
    else if (c->json && shown)
        rc = json_write(c->json, json_pack("{s:O}", "results", results));
    json_decref(results);
    return rc ? rc : signals_exit_code();
}

static void bench_options(struct options *o, struct common *c, const char **format,
                          const char **memory, uint64_t *repeats)
{
    c->precision = "auto";
    *memory = "auto";
    option_text(o, "model", &c->model, "PATH",
                "weights to work with; random ones where not given");
    option_text(o, "format", format, RANDOM_FORMATS,
                "number format of the random weights; F32 where not given");
    option_text(o, "precision", &c->precision, "auto|fp32|bf16",
                "of weights and activations in large products; auto is bf16 where the "
                "CPU multiplies it faster than floats");
    option_text(o, "memory", memory, "auto|keep|recompute|quantised",
                "what a training step keeps for its way back; auto is keep");
    option_whole(o, "repeat", repeats, 1, BENCH_TIMES_MAX,
                 "times each work is measured after a first that is not; 5");
    option_whole(o, "threads", &c->threads, 1, 1024,
                 "threads to compute with; one a CPU where not given");
    option_text(o, "json", &c->json, "FILE",
                "results as JSON; - is standard output, and nothing else goes there");
}

static int open_model(struct bench *b, const struct common *c)
{
    int rc = precision_choose(&b->precision, c->precision, &b->err);

    b->all_precisions = !strcmp(c->precision, "auto");
    if (rc == 0)
        rc = c->model ? model_open(&b->model, c->model, &b->err) : bench_model_make(b);
    return rc < 0 ? report_error(&b->err) : 0;
}

int cmd_bench(int argc, char **argv)
{
    static char about[2048];
    struct options o = {.command = "bench",
                        .usage = "[WORK...] [--model MODEL]",
                        .about = about,
                        .examples =
                            "  artel bench\n"
                            "  artel bench W P256 D1 --model model.gguf --json -\n"
                            "  artel bench D1 D8 --format Q8_0\n",
                        .max_words = 32};
    const char *format = "F32", *memory;
    struct bench b = {0};
    struct common c = {0};
    struct words names;
    uint64_t repeats = 5;
    int rc = 0;

    snprintf(
        about, sizeof(about),
        "This machine's numbers against its limits, median and extremes of several "
        "repeats. Without WORK a summary of at most two minutes. Without --model "
        "the weights are random, in the shape of SmolLM2-135M. Works:\n");
    for (size_t i = 0; i < N_WORKS; i++)
        snprintf(about + strlen(about), sizeof(about) - strlen(about), "\n%s: %s",
                 works[i].name, works[i].about);
    bench_options(&o, &c, &format, &memory, &repeats);
    if (!options_parse(&o, argc, argv, &names, &rc))
        return rc;
    for (size_t i = 0; i < names.n; i++)
        if (!work_find(names.at[i]))
            return unknown_work(names.at[i]);
    if (c.model && option_given(&o, "format"))
        return usage_error("bench", "--format", "USE06", "a model has its own");
    if (!names.n) {
        names.n = sizeof(summary) / sizeof(summary[0]);
        memcpy(names.at, summary, sizeof(summary));
        b.budget = SUMMARY_SECONDS;
    }
    if ((rc = json_check_target("bench", c.json, &c.model, 1)) ||
        (rc = common_start(&c)))
        return rc;
    progress_init(&b.progress);
    b.n_repeats = (size_t)repeats;
    b.format = random_format(format);
    (void)memory_mode_find(&b.memory, memory); /* the option has no other values */
    rc = open_model(&b, &c);
    if (!rc)
        rc = bench_all(&b, &names, &c);
    bench_model_close(&b);
    return rc;
}
