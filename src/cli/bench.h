/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of `artel bench` share: the works, what one took, and what the
 * machine can do. These files alone of the program look below artel.h.
 */
#ifndef ARTEL_CLI_BENCH_H
#define ARTEL_CLI_BENCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/error.h"
#include "cli/report.h"
#include "decoder/frozen.h"
#include "experts/mixture.h"

#define BENCH_TIMES_MAX 100
#define BENCH_RANK      8

enum work_kind { WORK_MACHINE, WORK_TRAIN, WORK_PREFILL, WORK_DECODE };

struct work {
    const char *name, *about;
    enum work_kind kind;
    size_t n;              /* tokens of a prompt, or sequences that decode together */
    size_t n_experts;      /* 0: the base alone */
    size_t n_active;       /* experts that a token meets */
    struct gate_rule rule; /* of the mixture */
    bool routed;           /* the routers decide; else sequence i has expert i */
};

/* What one work took. */
struct timing {
    double seconds[BENCH_TIMES_MAX]; /* of each repeat */
    size_t n;
    double tokens; /* a repeat */
    double flops;  /* a token, in products */
    double bytes;  /* of weights, read for a token; 0: products are the limit */
    double peak_rss_mib;
};

/* Rates of one precision in GFLOP/s, each thread on rows of its own; the last is the
 * head's. */
struct product_rates {
    bool known;
    double peak;                  /* registers only */
    double forward[N_SITES + 1];  /* of 256 rows */
    double backward[N_SITES + 1]; /* to the gradient of the input */
    double prefill, step;         /* of all forwards, and of both, in a step's shares */
};

struct machine {
    struct product_rates products[2]; /* by enum precision */
    double bandwidth_gbs;             /* of reading as many bytes as a token does */
    double bandwidth_one_gbs;         /* the same by one thread */
    double spinning_us, sleeping_us;  /* of an empty parallel region, soon and late */
};

struct bench {
    struct artel_model *model;
    bool is_random;
    struct arena numbers; /* of a random model */
    enum dtype format;    /* of a random model */
    enum precision precision;
    bool all_precisions; /* the machine's own numbers in each that it has */
    size_t n_repeats;
    double budget; /* seconds for a work; 0: as long as it takes */
    double began;  /* the work under way */
    enum memory_mode memory;
    struct machine machine;
    struct progress progress;
    struct artel_error err;
};

/* bench_model.c: a model of random weights in the shape of SmolLM2-135M. */
int bench_model_make(struct bench *b);
void bench_model_close(struct bench *b);
/* Forget what was prepared for the last work, so that memory is each work's own. */
void bench_model_rest(struct bench *b);
/* Weights in all linears of the model, of its head, and in one LoRA on all linears. */
double bench_linear_weights(const struct model_config *c);
double bench_head_weights(const struct model_config *c);
double bench_lora_weights(const struct model_config *c);
double bench_bytes_a_token(const struct weights *w);
/* The mixture of a work; zeroed where it has no experts. */
int bench_mixture(struct mixture *m, const struct work *w, struct bench *b);

/* bench_peak.c: products in registers on all threads. Before any other work, since it
 * leaves tile registers unset. */
double bench_peak_gflops(enum precision p);

/* bench_machine.c: what is not known yet of the machine. */
int machine_products(struct bench *b, enum precision p);
int machine_memory(struct bench *b);
void machine_fork_join(struct bench *b);

/* bench_train.c, bench_session.c */
int bench_train(struct bench *b, const struct work *w, struct timing *out);
int bench_prefill(struct bench *b, const struct work *w, struct timing *out);
int bench_decode(struct bench *b, const struct work *w, struct timing *out);

/* bench_report.c: one repeat is done; false: that was the last. */
void bench_begin(struct bench *b, const struct work *w);
bool bench_goes_on(const struct bench *b, const struct timing *t);
void bench_took(struct bench *b, const struct work *w, struct timing *t,
                double seconds);
json_t *bench_timing_json(const struct bench *b, const struct work *w,
                          struct timing *t);
json_t *bench_machine_json(const struct bench *b, enum precision p);
void bench_print_head(const struct bench *b);
void bench_print(const json_t *result);

#endif
