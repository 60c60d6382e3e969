/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sets under test, numbers to feed them, and guarded buffers: GUARD floats
 * of CANARY lie on both sides of what a kernel may write.
 */
#ifndef ARTEL_TESTS_SETS_H
#define ARTEL_TESTS_SETS_H

#include "check.h"

#include <float.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "math/kernels.h"

#define GUARD  16
#define CANARY 1234.5f
#define MAX_N  2400

/* The sets that this CPU runs, ref first. Returns how many. */
static inline size_t sets_here(const struct kernels *sets[3])
{
    size_t n = 0;

    sets[n++] = kernels_ref();
    if (cpu_isa() >= CPU_AVX2 && kernels_avx2())
        sets[n++] = kernels_avx2();
    if (cpu_isa() >= CPU_AVX512 && kernels_avx512())
        sets[n++] = kernels_avx512();
    return n;
}

static inline void fill(float *x, size_t n, uint64_t seed)
{
    struct rng r;

    rng_init(&r, seed, 1);
    for (size_t i = 0; i < n; i++)
        x[i] = rng_normal(&r);
}

struct guarded {
    float all[MAX_N + 2 * GUARD];
    float *x; /* (n) */
    size_t n;
};

static inline void guard(struct guarded *g, size_t n)
{
    g->x = g->all + GUARD;
    g->n = n;
    for (size_t i = 0; i < n + 2 * GUARD; i++)
        g->all[i] = CANARY;
}

static inline void check_guard(const struct guarded *g)
{
    for (size_t i = 0; i < GUARD; i++) {
        assert_true(g->all[i] == CANARY);
        assert_true(g->x[g->n + i] == CANARY);
    }
}

/* Runs CHECK for every set but ref, for all tails and two real widths. */
typedef void set_check(const struct kernels *ref, const struct kernels *set, size_t n);

static inline void for_all_sets(set_check *check)
{
    const struct kernels *sets[3];
    const size_t n_sets = sets_here(sets);

    for (size_t s = 1; s < n_sets; s++) {
        for (size_t n = 0; n <= 70; n++)
            check(sets[0], sets[s], n);
        check(sets[0], sets[s], 576);
        check(sets[0], sets[s], 1999);
    }
}

#endif
