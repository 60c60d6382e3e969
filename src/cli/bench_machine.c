/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine can do, measured in the process that does the work: the rate of
 * the step's own products one by one, reading memory, forking and joining.
 *
 * A product is measured as a step runs it, each thread on 256 rows of its own, again
 * and again on the weights of the first layer: what remains when nothing else is done
 * between products. Every figure is the best of a few tries.
 */
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "tiles/tiles.h"

#define TRIES     3
#define SECONDS   0.02 /* of a try, about */
#define ROWS      256
#define HEAD_ROWS 64   /* of x, where a step takes logits */
#define HEAD_MOST 8192 /* tokens of the vocabulary that are measured */
#define REGIONS   2000
#define SLEEPS    20

struct product {
    struct matrix w;
    float *x, *y; /* of all threads */
    size_t n_rows;
    bool backward;
};

static void run(const struct product *p, size_t times)
{
#pragma omp parallel
    {
        const size_t t = (size_t)omp_get_thread_num();
        float *const x = p->x + t * p->n_rows * p->w.n_in;
        float *const y = p->y + t * p->n_rows * p->w.n_out;

        for (size_t i = 0; i < times; i++)
            if (p->backward)
                matrix_backward(x, 0, y, &p->w, p->n_rows);
            else
                matrix_forward(y, 0, x, &p->w, p->n_rows);
    }
}

/* GFLOP/s of all threads together. */
static double rate_of(const struct product *p)
{
    const double flops =
        2.0 * (double)(p->w.n_in * p->w.n_out * p->n_rows) * (double)cpu_threads();
    double best = 0, seconds = 0;
    size_t times = 1;

    run(p, 1);
    for (int i = 0; i < TRIES;) {
        const double start = seconds_now();

        run(p, times);
        seconds = seconds_now() - start;
        if (seconds < SECONDS && i == 0 && times < 1 << 20) {
            times *= 2;
            continue;
        }
        seconds = 1e-9 * flops * (double)times / seconds;
        best = seconds > best ? seconds : best;
        i++;
    }
    return best;
}

static void fill(float *x, size_t n)
{
    struct rng rng;

    rng_init(&rng, 5, 0);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_uniform(&rng) - 0.5f;
}

/* The bf16 step's own product of the same sizes; 0 where this CPU has none. All numbers
 * are zero, which units multiply as fast as others. */
static double tile_rate(const struct tensor *raw, bool backward, size_t n_rows)
{
    const struct tile_set *const set = tile_set();
    const size_t k = tile_round(raw->shape[backward ? 0 : 1]) / TILE_COLS;
    const size_t panels = tile_round(raw->shape[backward ? 1 : 0]) / TILE_COLS;
    const size_t n_a = tile_elems(n_rows, k), n_out = tile_elems(n_rows, panels);
    const size_t n_b = k * panels * PACK_ELEMS;
    struct arena a;
    uint16_t *at;
    double best = 0;

    if (!set || arena_init(&a, 2 * (n_b + cpu_threads() * (n_a + n_out)), NULL) < 0)
        return 0;
    at = (uint16_t *)(void *)a.base;
    for (int i = 0; i <= TRIES; i++) {
        const size_t times = 4;
        double rate, start = seconds_now();

#pragma omp parallel
        {
            uint16_t *const own =
                at + n_b + (size_t)omp_get_thread_num() * (n_a + n_out);
            const struct tile_product p = {.a = {own, k},
                                           .k = k,
                                           .b = at,
                                           .b_pitch = k * PACK_ELEMS,
                                           .panels = panels,
                                           .rows = n_rows};

            for (size_t j = 0; j < times; j++)
                set->product_tiles(&p, (struct tiles){own + n_a, panels});
        }
        rate = 2e-9 * (double)(raw->shape[0] * raw->shape[1] * n_rows * times) *
               (double)cpu_threads() / (seconds_now() - start);
        best = i && rate > best ? rate : best; /* the first one warms up */
    }
    arena_release(&a);
    return best;
}

/* Both directions of a product with RAW, and what they take off the machine. */
static int rate_both(double *forward, double *backward, const struct tensor *raw,
                     enum precision p, size_t n_rows, struct artel_error *err)
{
    const int use = MATRIX_FORWARD | MATRIX_BACKWARD;
    const size_t n_x = cpu_threads() * n_rows * raw->shape[1];
    const size_t n_y = cpu_threads() * n_rows * raw->shape[0];
    struct product product = {.n_rows = n_rows};
    struct arena a = {0};
    int rc;

    if (p == PRECISION_BF16) {
        *forward = tile_rate(raw, false, n_rows);
        *backward = tile_rate(raw, true, n_rows);
        return 0;
    }
    matrix_init(&product.w, &a, raw, use);
    rc = arena_init(&a, a.used + (n_x + n_y) * sizeof(float) + 2 * ARENA_ALIGN, err);
    if (rc < 0)
        return rc;
    matrix_init(&product.w, &a, raw, use);
    product.x = arena_f32(&a, n_x);
    product.y = arena_f32(&a, n_y);
    fill(product.x, n_x);
    *forward = rate_of(&product);
    product.backward = true;
    *backward = rate_of(&product);
    arena_release(&a);
    return 0;
}

/* The rates of single products as one, each with its share of the operations. */
static void mix(struct product_rates *r, const struct model_config *c)
{
    double flops = 0, forward = 0, both = 0;

    for (int s = 0; s <= N_SITES; s++) {
        size_t n_out = c->n_vocab, n_in = c->dim;
        double share;

        if (s < N_SITES)
            site_shape(c, (enum site)s, &n_out, &n_in);
        share = (double)n_out * (double)n_in * (s < N_SITES ? (double)c->n_layers : 1);
        flops += share;
        forward += s < N_SITES ? share / r->forward[s] : 0;
        both += share / r->forward[s] + share / r->backward[s];
    }
    r->prefill = (flops - bench_head_weights(c)) / forward;
    r->step = 2 * flops / both;
}

int machine_products(struct bench *b, enum precision p)
{
    const struct weights *const w = b->model->weights;
    struct product_rates *const r = &b->machine.products[p];
    struct tensor head = w->head;
    int rc = 0;

    if (r->known)
        return 0;
    progress_line(&b->progress, "machine: products", true);
    if (head.shape[0] > HEAD_MOST) {
        head.bytes = head.bytes / head.shape[0] * HEAD_MOST;
        head.shape[0] = HEAD_MOST;
    }
    for (int s = 0; rc == 0 && s < N_SITES; s++)
        rc = rate_both(&r->forward[s], &r->backward[s], &w->layers[0].site[s], p, ROWS,
                       &b->err);
    if (rc == 0)
        rc = rate_both(&r->forward[N_SITES], &r->backward[N_SITES], &head, p, HEAD_ROWS,
                       &b->err);
    if (rc < 0)
        return rc;
    mix(r, &w->config);
    r->known = true;
    return 0;
}

/* Words that one register holds, so that a sum keeps up with memory. */
typedef uint64_t words __attribute__((vector_size(32), aligned(32)));

static uint64_t sum_of(const char *data, size_t n_bytes)
{
    words a = {0}, b = {0}, c = {0}, d = {0};

    for (size_t i = 0; i + 4 * sizeof(words) <= n_bytes; i += 4 * sizeof(words)) {
        const words *const at = (const words *)(const void *)(data + i);

        a ^= at[0];
        b ^= at[1];
        c ^= at[2];
        d ^= at[3];
    }
    a ^= b ^ c ^ d;
    return a[0] ^ a[1] ^ a[2] ^ a[3];
}

/* GB/s of N_THREADS that read shares of BYTES. */
static double read_rate(const char *data, size_t bytes, size_t n_threads)
{
    const size_t share = bytes / n_threads / 4096 * 4096;
    double best = 0;

    for (int i = 0; i < TRIES + 2; i++) {
        const double start = seconds_now();
        uint64_t sum = 0;
        volatile uint64_t keep;
        double rate;

#pragma omp parallel if (n_threads > 1) reduction(^ : sum)
        sum ^= sum_of(data + (size_t)omp_get_thread_num() * share, share);
        rate = 1e-9 * (double)(share * n_threads) / (seconds_now() - start);
        keep = sum;
        (void)keep;
        best = rate > best ? rate : best;
    }
    return best;
}

int machine_memory(struct bench *b)
{
    const double wanted = bench_bytes_a_token(b->model->weights);
    const size_t bytes = wanted < 1 << 22 ? 1 << 22 : (size_t)wanted;
    struct arena a;
    char *data;
    int rc;

    if (b->machine.bandwidth_gbs > 0)
        return 0;
    progress_line(&b->progress, "machine: memory", true);
    rc = arena_init(&a, bytes, &b->err);
    if (rc < 0)
        return rc;
    data = arena_take(&a, bytes);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < bytes / 4096; i++)
        memset(data + i * 4096, (int)i, 4096);
    b->machine.bandwidth_gbs = read_rate(data, bytes, cpu_threads());
    b->machine.bandwidth_one_gbs = read_rate(data, bytes, 1);
    arena_release(&a);
    return 0;
}

/* Microseconds of an empty parallel region, after a pause that lets the threads sleep. */
static double region_us(bool after_pause)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    const int n = after_pause ? SLEEPS : REGIONS;
    double sum = 0;

    for (int i = 0; i < n; i++) {
        volatile int done = 0;
        double start;

        if (after_pause)
            nanosleep(&pause, NULL);
        start = seconds_now();
#pragma omp parallel
        {
            if (omp_get_thread_num() == 0)
                done = 1;
        }
        sum += seconds_now() - start;
        (void)done;
    }
    return 1e6 * sum / n;
}

void machine_fork_join(struct bench *b)
{
    (void)region_us(false);
    b->machine.spinning_us = region_us(false);
    b->machine.sleeping_us = region_us(true);
}
