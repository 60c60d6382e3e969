/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the arithmetic units do when nothing else is in the way: products whose
 * operands never leave the registers, on all threads at once.
 */
#include <omp.h>

#include "base/cpu.h"
#include "cli/bench.h"

#define TRIES   3
#define SECONDS 0.02 /* of a try, about */

#if defined(__x86_64__)
#include <immintrin.h>

/* Enough sums to hide the latency of a fused product: 4 cycles, 2 a cycle. */
#define TWELVE(do)                                                                     \
    do                                                                                 \
    (0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11)

__attribute__((target("avx512f"))) static float fma_avx512(size_t n)
{
    const __m512 x = _mm512_set1_ps(0.5f), y = _mm512_set1_ps(0.25f);
    __m512 sum;
#define SUM(i)  __m512 s##i = _mm512_set1_ps(1.0f + i);
#define STEP(i) s##i = _mm512_fmadd_ps(s##i, x, y);
#define ADD(i)  sum = _mm512_add_ps(sum, s##i);
    TWELVE(SUM)

    for (size_t i = 0; i < n; i++) {
        TWELVE(STEP)
    }
    sum = _mm512_setzero_ps();
    TWELVE(ADD)
    return _mm512_reduce_add_ps(sum);
#undef SUM
#undef STEP
#undef ADD
}

__attribute__((target("avx2,fma"))) static float fma_avx2(size_t n)
{
    const __m256 x = _mm256_set1_ps(0.5f), y = _mm256_set1_ps(0.25f);
    float out[8];
    __m256 sum;
#define SUM(i)  __m256 s##i = _mm256_set1_ps(1.0f + i);
#define STEP(i) s##i = _mm256_fmadd_ps(s##i, x, y);
#define ADD(i)  sum = _mm256_add_ps(sum, s##i);
    TWELVE(SUM)

    for (size_t i = 0; i < n; i++) {
        TWELVE(STEP)
    }
    sum = _mm256_setzero_ps();
    TWELVE(ADD)
    _mm256_storeu_ps(out, sum);
    return out[0];
#undef SUM
#undef STEP
#undef ADD
}

__attribute__((target("avx512f,avx512bf16"))) static float dots_avx512bf16(size_t n)
{
    const __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f003e80);
    __m512 sum;
#define SUM(i)  __m512 s##i = _mm512_set1_ps(1.0f + i);
#define STEP(i) s##i = _mm512_dpbf16_ps(s##i, x, x);
#define ADD(i)  sum = _mm512_add_ps(sum, s##i);
    TWELVE(SUM)

    for (size_t i = 0; i < n; i++) {
        TWELVE(STEP)
    }
    sum = _mm512_setzero_ps();
    TWELVE(ADD)
    return _mm512_reduce_add_ps(sum);
#undef SUM
#undef STEP
#undef ADD
}

/* The compiler may not leave out what X took to compute. */
static void keep(float x)
{
    __asm__ volatile("" : : "x"(x));
}

/* Four tiles of sums, each product a different pair of operands. */
__attribute__((target("amx-tile,amx-bf16"))) static void tiles_amx(size_t n)
{
    /* Static: the compiler sees a load of its first bytes alone. */
    static const struct {
        unsigned char palette, start, zero[14];
        unsigned short columns[16]; /* bytes */
        unsigned char rows[16];
    } shape = {.palette = 1,
               .columns = {64, 64, 64, 64, 64, 64, 64, 64},
               .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

    _tile_loadconfig(&shape);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (size_t i = 0; i < n; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
}
#endif

/* N rounds by one thread; returns the operations of a round. */
static double rounds(size_t n, enum precision p)
{
#if defined(__x86_64__)
    if (p == PRECISION_BF16 && cpu_isa() >= CPU_AMX) {
        tiles_amx(n);
        return 4 * 2.0 * 16 * 16 * 32;
    }
    if (p == PRECISION_BF16 && cpu_isa() >= CPU_AVX512BF16) {
        keep(dots_avx512bf16(n));
        return 12 * 4.0 * 16;
    }
    if (cpu_isa() >= CPU_AVX512) {
        keep(fma_avx512(n));
        return 12 * 2.0 * 16;
    }
    if (cpu_isa() >= CPU_AVX2) {
        keep(fma_avx2(n));
        return 12 * 2.0 * 8;
    }
#endif
    (void)n;
    (void)p;
    return 0;
}

static double all_rounds(size_t n, enum precision p, double *seconds)
{
    const double start = seconds_now();
    double flops = 0;

#pragma omp parallel reduction(+ : flops)
    flops = (double)n * rounds(n, p);
    *seconds = seconds_now() - start;
    return flops;
}

double bench_peak_gflops(enum precision p)
{
    double seconds = 0, best = 0;
    size_t n = 1000;

    if (all_rounds(n, p, &seconds) <= 0)
        return 0;
    while (seconds < SECONDS && n < SIZE_MAX / 2) {
        n *= 2;
        (void)all_rounds(n, p, &seconds);
    }
    for (int i = 0; i < TRIES; i++) {
        const double flops = all_rounds(n, p, &seconds), rate = 1e-9 * flops / seconds;

        best = rate > best ? rate : best;
    }
    return best;
}
