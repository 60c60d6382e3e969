/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every weight format in every set: the values to the bit, products equal to
 * dot() of the dequantised row to the bit, nothing written outside, and the
 * published test blocks.
 */
#include <stdlib.h>

#include "math/kernels.h"
#include "sets.h"

static float w[MAX_N], x[4 * MAX_N], want[MAX_N];
static struct guarded got;

/* Random blocks whose scales are small numbers, for formats that have any. */
static uint8_t *blocks(enum dtype type, size_t n, uint64_t seed)
{
    /* Where the halves d and m lie in a block, -1 for none. */
    static const int scales[N_WEIGHT_DTYPES][2] = {
        [DTYPE_F32] = {-1, -1}, [DTYPE_F16] = {-1, -1},   [DTYPE_BF16] = {-1, -1},
        [DTYPE_Q8_0] = {0, -1}, [DTYPE_Q4_0] = {0, -1},   [DTYPE_Q4_1] = {0, 2},
        [DTYPE_Q5_0] = {0, -1}, [DTYPE_Q5_1] = {0, 2},    [DTYPE_Q4_K] = {0, 2},
        [DTYPE_Q5_K] = {0, 2},  [DTYPE_Q6_K] = {208, -1}, [DTYPE_IQ4_NL] = {0, -1},
    };
    const size_t bytes = dtype_block_bytes(type),
                 n_blocks = n / dtype_block_elems(type);
    uint8_t *out = malloc(n_blocks * bytes + 1), *b = out;
    struct rng r;

    assert_non_null(out);
    rng_init(&r, seed, 2);
    for (size_t i = 0; i < n_blocks; i++, b += bytes) {
        for (size_t k = 0; k < bytes; k++)
            b[k] = (uint8_t)rng_u32(&r);
        for (size_t k = 0; k < 2; k++)
            if (scales[type][k] >= 0) /* +-0.03 .. 0.5, or subnormal now and then */
                b[scales[type][k] + 1] =
                    (uint8_t)((i % 7 == 3 ? 0x00 : 0x28 + rng_below(&r, 16)) |
                              rng_below(&r, 2) << 7);
        if (type == DTYPE_F32)
            b[3] = (uint8_t)(0x3c + rng_below(&r, 4));
        if (type == DTYPE_F16)
            b[1] = (uint8_t)(b[1] & 0xbb);
        if (type == DTYPE_BF16)
            b[1] = (uint8_t)(0x3c + rng_below(&r, 4));
    }
    return out;
}

static void dequantised_bits_are_the_same_in_every_set(void **state)
{
    const struct kernels *sets[3];
    const size_t n_sets = sets_here(sets);

    (void)state;
    for (enum dtype type = 0; type < N_WEIGHT_DTYPES; type++) {
        const size_t elems = dtype_block_elems(type);

        for (size_t n = 0; n <= 1100; n += elems == 1 && n < 70 ? 1 : elems) {
            uint8_t *in = blocks(type, n, n);

            sets[0]->dequant[type](want, in, n);
            for (size_t s = 1; s < n_sets; s++) {
                guard(&got, n);
                sets[s]->dequant[type](got.x, in, n);
                assert_memory_equal(got.x, want, n * sizeof(float));
                check_guard(&got);
            }
            free(in);
        }
    }
}

static void half_floats_are_exact(void **state)
{
    const struct kernels *sets[3];
    const size_t n_sets = sets_here(sets);

    (void)state;
    for (uint32_t h = 0; h < 65536; h += 64) {
        uint16_t in[64];

        for (uint32_t i = 0; i < 64; i++)
            in[i] = (uint16_t)(h + i);
        sets[0]->dequant[DTYPE_F16](want, in, 64);
        for (size_t i = 0; i < 64; i++) {
            const int e = in[i] >> 10 & 31;
            const double f = in[i] & 1023;
            const double size = e ? ldexp(1024.0 + f, e - 25) : ldexp(f, -24);

            if (e == 31 && in[i] & 1023)
                assert_true(isnan(want[i]));
            else if (e == 31)
                assert_true(isinf(want[i]) && !signbit(want[i]) == !(in[i] & 0x8000));
            else
                assert_true((double)want[i] == (in[i] & 0x8000 ? -size : size));
        }
        for (size_t s = 1; s < n_sets; s++) {
            sets[s]->dequant[DTYPE_F16](w, in, 64);
            assert_memory_equal(w, want, 64 * sizeof(float));
        }
    }
}

/* Rows of W with every number of rows of x, each into a place of its own. */
static void check_matvec(const struct kernels *set, enum dtype type, const uint8_t *in,
                         size_t n)
{
    enum { ROWS = 3, MOST = 9, APART = 5 };
    const size_t bytes = n / dtype_block_elems(type) * dtype_block_bytes(type);

    for (size_t T = 1; T <= MOST; T += T < 5 ? 1 : 4) {
        float *y[MOST];

        guard(&got, T * APART);
        for (size_t t = 0; t < T; t++) {
            y[t] = got.x + t * APART;
            for (size_t i = 0; i < APART; i++)
                y[t][i] = CANARY;
        }
        set->matvec[type](y, x, T, in, ROWS, n);
        check_guard(&got);
        for (size_t r = 0; r < ROWS; r++) {
            set->dequant[type](w, in + r * bytes, n);
            for (size_t t = 0; t < T; t++)
                assert_true(y[t][r] == set->dot(w, x + t * n, n));
        }
        for (size_t t = 0; t < T; t++)
            for (size_t i = ROWS; i < APART; i++)
                assert_true(y[t][i] == CANARY);
    }
}

/* matvec of every number of rows of x, and dots() over pieces with several rows of x, against dot(). */
static void products_equal_dot_of_the_dequantised_row(void **state)
{
    enum { ROWS = 3, T = 9 };
    static float sums[T * DOT_LANES];
    const struct kernels *sets[3];
    const size_t n_sets = sets_here(sets);

    (void)state;
    fill(x, T * 600, 9);
    for (enum dtype type = 0; type < N_WEIGHT_DTYPES; type++) {
        const size_t elems = dtype_block_elems(type);

        for (size_t n = elems; n <= 600; n += elems == 1 ? 23 : elems) {
            uint8_t *in = blocks(type, ROWS * n, n);

            for (size_t s = 0; s < n_sets; s++) {
                check_matvec(sets[s], type, in, n);
                for (size_t r = 0; r < ROWS; r++) {
                    const size_t bytes = n / elems * dtype_block_bytes(type);
                    const size_t cut = n > 128 ? 128 : 0;

                    sets[s]->dequant[type](w, in + r * bytes, n);
                    memset(sums, 0, sizeof(sums));
                    sets[s]->dots(sums, w, x, n, T, cut);
                    sets[s]->dots(sums, w + cut, x + cut, n, T, n - cut);
                    for (size_t t = 0; t < T; t++)
                        assert_true(sets[s]->dots_end(sums + t * DOT_LANES) ==
                                    sets[s]->dot(w, x + t * n, n));
                }
            }
            free(in);
        }
    }
}

/* Byte k of the block is 37 k + 11, every d is 66 2e, every m or dmin 00 34. */
static void published_blocks_have_their_values(void **state)
{
    static const struct {
        enum dtype type;
        int d, m;
        double first, second, seventeenth, last, sum, size;
    } blocks_of[] = {
        {DTYPE_Q4_0, 0, -1, -0.299926758, 0.199951172, -0.0999755859, 0, -2.0994873,
         12.2969971},
        {DTYPE_Q4_1, 0, 2, 1.74963379, 0.649902344, 1.44970703, 1.44970703, 32.4940186,
         32.4940186},
        {DTYPE_Q5_0, 0, -1, 0.899780273, -0.199951172, 0, 0.0999755859, 1.49963379,
         24.6939697},
        {DTYPE_Q5_1, 0, 2, 2.14953613, 2.64941406, 0.74987793, 0.74987793, 58.4876709,
         58.4876709},
        {DTYPE_Q8_0, 0, -1, 8.4979248, 12.1970215, -5.39868164, -4.79882812,
         -17.5957031, 217.146973},
        {DTYPE_Q4_K, 0, 2, 21.3416748, -12.75, -12.75, -2.15161133, 3752.96777,
         4662.36865},
        {DTYPE_Q5_K, 0, 2, 70.9295654, -12.75, -12.75, 3.84692383, 9929.05957,
         10395.9775},
        {DTYPE_Q6_K, 208, -1, -143.065063, 169.558594, 51.1875, -5.99853516, 461.087402,
         26643.6936},
    };

    (void)state;
    for (size_t b = 0; b < sizeof(blocks_of) / sizeof(*blocks_of); b++) {
        const enum dtype type = blocks_of[b].type;
        const size_t n = dtype_block_elems(type);
        double sum = 0, size = 0;
        uint8_t block[210];

        for (size_t k = 0; k < dtype_block_bytes(type); k++)
            block[k] = (uint8_t)(37 * k + 11);
        block[blocks_of[b].d] = 0x66;
        block[blocks_of[b].d + 1] = 0x2e;
        if (blocks_of[b].m >= 0) {
            block[blocks_of[b].m] = 0x00;
            block[blocks_of[b].m + 1] = 0x34;
        }
        kernels_ref()->dequant[type](w, block, n);
        for (size_t i = 0; i < n; i++) {
            sum += (double)w[i];
            size += fabs((double)w[i]);
        }
        /* The table has nine digits. */
        assert_near(w[0], blocks_of[b].first, 1e-8 * fabs(blocks_of[b].first));
        assert_near(w[1], blocks_of[b].second, 1e-8 * fabs(blocks_of[b].second));
        assert_near(w[17], blocks_of[b].seventeenth,
                    1e-8 * fabs(blocks_of[b].seventeenth));
        assert_near(w[n - 1], blocks_of[b].last, 1e-8 * fabs(blocks_of[b].last));
        assert_near(sum, blocks_of[b].sum, 1e-8 * size + 1e-6);
        assert_near(size, blocks_of[b].size, 1e-8 * size);
    }
}

/* What the gguf package of Python makes of the same blocks, bit for bit. */
static void every_format_equals_the_gguf_package(void **state)
{
    static const struct {
        enum dtype type;
        uint64_t digest;
    } golden[] = {
#include "formats_golden.inc"
    };

    (void)state;
    assert_int_equal(sizeof(golden) / sizeof(*golden), N_WEIGHT_DTYPES);
    for (size_t g = 0; g < N_WEIGHT_DTYPES; g++) {
        enum { BLOCKS = 24 };
        const enum dtype type = golden[g].type;
        const size_t size = dtype_block_bytes(type),
                     n = BLOCKS * dtype_block_elems(type);
        const int first_scale = type == DTYPE_Q6_K ? 208 : 0;
        const int n_scales = type == DTYPE_F32 || type == DTYPE_BF16 ? 0
                             : type == DTYPE_Q4_1 || type == DTYPE_Q5_1 ||
                                     type == DTYPE_Q4_K || type == DTYPE_Q5_K
                                 ? 2
                                 : 1;
        static uint8_t in[BLOCKS * 256];
        static float out[BLOCKS * 256];
        uint32_t lcg = 1;
        uint64_t h = 0xcbf29ce484222325u;

        for (size_t b = 0; b < BLOCKS; b++) {
            for (size_t i = 0; i < size; i++) {
                lcg = lcg * 1664525u + 1013904223u;
                in[b * size + i] = (uint8_t)(lcg >> 24);
            }
            for (int i = 0; i < n_scales; i++) {
                uint8_t *high = in + b * size + first_scale + 2 * i + 1;

                *high = (uint8_t)((*high & 0x8f) | 0x20);
            }
        }
        kernels()->dequant[type](out, in, n);
        for (size_t i = 0; i < n * sizeof(float); i++)
            h = (h ^ ((const uint8_t *)out)[i]) * 0x100000001b3u;
        if (h != golden[g].digest)
            fail_msg("%s differs from the gguf package", dtype_name(type));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dequantised_bits_are_the_same_in_every_set),
        cmocka_unit_test(half_floats_are_exact),
        cmocka_unit_test(products_equal_dot_of_the_dequantised_row),
        cmocka_unit_test(published_blocks_have_their_values),
        cmocka_unit_test(every_format_equals_the_gguf_package),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
