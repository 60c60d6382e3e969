/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates of the mathematics on this machine, one line a case, as CSV:
 *
 *     kind, case, set, threads, value, unit
 *
 * Products run as in a training step: every thread works on rows of its own inside
 * one parallel region, over enough different weights that they come from memory.
 * Each figure is the best of a few tries. BENCH names the kinds to run (default all):
 * products, decode, attention, rows.
 */
#define _GNU_SOURCE
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "math/attention.h"
#include "math/kernels.h"
#include "math/matmul.h"
#include "math/matrix.h"

#define TRIES     5
#define N_WEIGHTS 12 /* different matrices, one after another */
#define T         256

static void *memory(size_t bytes)
{
    struct arena a;

    if (arena_init(&a, bytes, NULL) < 0) {
        fprintf(stderr, "bench_math: no memory\n");
        exit(3);
    }
    return a.base; /* until the end */
}

static float *floats(size_t n)
{
    float *p = memory(n * sizeof(float));

    for (size_t i = 0; i < n; i++)
        p[i] = (float)((double)(i * 2654435761u % 1000) * 1e-3 - 0.5);
    return p;
}

static void line(const char *kind, const char *what, const char *set, size_t threads,
                 double value, const char *unit)
{
    printf("%s,%s,%s,%zu,%.2f,%s\n", kind, what, set, threads, value, unit);
    fflush(stdout);
}

struct work {
    void (*run)(const struct work *w, size_t thread, size_t round);
    const float *x[64];
    float *y[64];
    struct matrix m[N_WEIGHTS];
    const float *b; /* small products */
    size_t n, k;
    int form; /* 0 forward or nt, 1 backward or nn, 2 tn */
};

/* Best seconds of one ROUND done by every thread at once. */
static double seconds(const struct work *w, size_t rounds)
{
    double best = 1e30;

    for (int i = 0; i < TRIES; i++) {
        const double start = clock_seconds();
        double took;

#pragma omp parallel
        for (size_t r = 0; r < rounds; r++)
            w->run(w, (size_t)omp_get_thread_num(), r);
        took = (clock_seconds() - start) / (double)rounds;
        best = took < best ? took : best;
    }
    return best;
}

static void run_matrix(const struct work *w, size_t thread, size_t round)
{
    const struct matrix *m = &w->m[round % N_WEIGHTS];

    if (w->form)
        matrix_backward(w->y[thread], 0.0f, w->x[thread], m, T);
    else
        matrix_forward(w->y[thread], 0.0f, w->x[thread], m, T);
}

static void run_small(const struct work *w, size_t thread, size_t round)
{
    (void)round;
    if (w->form == 0)
        gemm_nt(w->y[thread], 0.0f, w->x[thread], w->b, T, w->n, w->k);
    else if (w->form == 1)
        gemm_nn(w->y[thread], 0.0f, w->x[thread], w->b, T, w->n, w->k);
    else
        gemm_tn(w->y[thread], 0.0f, w->x[thread], w->b, w->n, w->k, T);
}

static void bench_matrix(size_t M, size_t N, struct work *w)
{
    const struct tensor raw = {"w", DTYPE_F32, 2, {M, N}, floats(M * N), M * N * 4};
    const size_t threads = cpu_threads();
    char what[64];

    w->run = run_matrix;
    for (size_t i = 0; i < N_WEIGHTS; i++) {
        struct arena arena = {0};

        matrix_init(&w->m[i], &arena, &raw, MATRIX_FORWARD | MATRIX_BACKWARD);
        arena = (struct arena){.base = memory(arena.used), .size = arena.used + 64};
        matrix_init(&w->m[i], &arena, &raw, MATRIX_FORWARD | MATRIX_BACKWARD);
    }
    for (w->form = 0; w->form < 2; w->form++) {
        snprintf(what, sizeof(what), "%s %dx%zux%zu", w->form ? "backward" : "forward",
                 T, M, N);
        line("product", what, "fp32", threads,
             2e-9 * (double)(T * M * N * threads) / seconds(w, 2 * N_WEIGHTS),
             "GFLOP/s");
    }
}

static void bench_small(size_t n, size_t k, int form, struct work *w)
{
    static const char *const names[] = {"nt", "nn", "tn"};
    char what[64];

    w->run = run_small;
    w->n = n;
    w->k = k;
    w->form = form;
    w->b = floats(form == 2 ? T * k : n * k);
    if (form == 2)
        snprintf(what, sizeof(what), "tn %zux%zux%d", n, k, T);
    else
        snprintf(what, sizeof(what), "%s %dx%zux%zu", names[form], T, n, k);
    line("product", what, "fp32", cpu_threads(),
         2e-9 * (double)(T * n * k * cpu_threads()) / seconds(w, 100), "GFLOP/s");
}

static void bench_products(void)
{
    static struct work w;

    for (size_t i = 0; i < cpu_threads() && i < 64; i++) {
        w.x[i] = floats((size_t)T * 1536);
        w.y[i] = floats((size_t)1536 * 1536);
    }
    bench_matrix(576, 576, &w);
    bench_matrix(192, 576, &w);
    bench_matrix(1536, 576, &w);
    bench_matrix(576, 1536, &w);
    bench_small(8, 576, 0, &w);
    bench_small(1536, 8, 0, &w);
    bench_small(8, 1536, 1, &w);
    bench_small(576, 8, 1, &w);
    bench_small(8, 576, 2, &w);
    bench_small(1536, 8, 2, &w);
}

/* One thread over 64 MiB of weights: from memory, as decoding does. */
static void bench_decode(void)
{
    const struct kernels *k = kernels();
    const size_t bytes = (size_t)64 << 20, N = 1536;
    const float *x = floats(N);
    uint8_t *w = memory(bytes);
    float y[16], *const to[] = {y};

    memset(w, 0x11, bytes);
    for (enum dtype t = 0; t < N_WEIGHT_DTYPES; t++) {
        const size_t row = N / dtype_block_elems(t) * dtype_block_bytes(t);
        double best = 1e30;

        for (int i = 0; i < TRIES; i++) {
            const double start = clock_seconds();

            for (size_t at = 0; at + 16 * row <= bytes; at += 16 * row)
                k->matvec[t](to, x, 1, w + at, 16, N);
            best = clock_seconds() - start < best ? clock_seconds() - start : best;
        }
        line("decode", dtype_name(t), k->name, 1, 1e-9 * (double)bytes / best, "GB/s");
    }
}

static void bench_attention(void)
{
    const struct attention_shape a = {9, 3, 64};
    const size_t n = (size_t)T * 576;
    float *scratch = floats(attention_scratch(&a, T, T)), *lse = floats((size_t)T * 9);
    float *p[8], forward = 1e30f, backward = 1e30f;

    for (size_t i = 0; i < 8; i++)
        p[i] = floats(n);
#pragma omp parallel num_threads(2)
#pragma omp single
    for (int i = 0; i < 4 * TRIES; i++) { /* inside a region: on this thread alone */
        const double start = clock_seconds();
        double middle;

        attention_forward(p[0], lse, p[1], p[2], p[3], T, T, &a, scratch);
        middle = clock_seconds();
        attention_backward(p[4], p[5], p[6], p[7], p[1], p[2], p[3], p[0], lse, T, &a,
                           scratch);
        forward = (float)(middle - start) < forward ? (float)(middle - start) : forward;
        backward = (float)(clock_seconds() - middle) < backward
                       ? (float)(clock_seconds() - middle)
                       : backward;
    }
    line("attention", "forward T=256 H=9 G=3 d=64", kernels()->name, 1,
         1e3 * (double)forward, "ms");
    line("attention", "backward T=256 H=9 G=3 d=64", kernels()->name, 1,
         1e3 * (double)backward, "ms");
}

static void bench_rows(void)
{
    const struct kernels *k = kernels();
    const size_t n = (size_t)T * 1536;
    float *a = floats(n), *b = floats(n), *c = floats(n), *d = floats(n);
    double swiglu = 1e30, back = 1e30, soft = 1e30, adamw = 1e30;

    for (int i = 0; i < TRIES; i++) {
        double t0 = clock_seconds(), t1;

        k->swiglu(a, b, c, n);
        t1 = clock_seconds();
        swiglu = t1 - t0 < swiglu ? t1 - t0 : swiglu;
        k->swiglu_backward(a, d, a, b, c, n);
        t0 = clock_seconds();
        back = t0 - t1 < back ? t0 - t1 : back;
        k->exp_sum(a, 1.0f, n);
        t1 = clock_seconds();
        soft = t1 - t0 < soft ? t1 - t0 : soft;
        memset(d, 0, n * sizeof(float));
        t1 = clock_seconds();
        k->adamw(a, b, d, c, n, 1e-4f, 0.9f, 0.999f, 1e-8f, 0.0f, 1.0f, 1.0f, 1.0f);
        t0 = clock_seconds();
        adamw = t0 - t1 < adamw ? t0 - t1 : adamw;
    }
    line("rows", "swiglu", k->name, 1, 1e9 * swiglu / (double)n, "ns a number");
    line("rows", "swiglu backward", k->name, 1, 1e9 * back / (double)n, "ns a number");
    line("rows", "exp_sum", k->name, 1, 1e9 * soft / (double)n, "ns a number");
    line("rows", "adamw", k->name, 1, 1e9 * adamw / (double)n, "ns a number");
}

int main(void)
{
    const char *which = getenv("BENCH");
    struct artel_error err;

    if (cpu_check(&err) < 0 || cpu_set_threads(0, &err) < 0) {
        fprintf(stderr, "bench_math: %s\n", err.reason);
        return 2;
    }
    printf("kind,case,set,threads,value,unit\n");
    if (!which || strstr(which, "products"))
        bench_products();
    if (!which || strstr(which, "decode"))
        bench_decode();
    if (!which || strstr(which, "attention"))
        bench_attention();
    if (!which || strstr(which, "rows"))
        bench_rows();
    return 0;
}
