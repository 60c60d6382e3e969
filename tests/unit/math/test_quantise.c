/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Floats to blocks: the bytes of the formats' reference, halves rounded to nearest
 * even, and what does not fit.
 */
#include <math.h>

#include "base/error.h"
#include "check.h"
#include "files/safetensors.h"
#include "math/kernels.h"
#include "math/kernels_sets.h"
#include "math/quantise.h"

static void blocks_are_those_of_the_reference(void **state)
{
    static const enum dtype types[] = {DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0, DTYPE_Q4_0,
                                       DTYPE_Q4_1, DTYPE_Q5_0, DTYPE_Q5_1};
    struct safetensors *file;
    struct artel_error err;
    const struct tensor *x;

    (void)state;
    assert_int_equal(
        safetensors_open(&file, ARTEL_TESTS "/golden/quantised.safetensors", &err), 0);
    x = safetensors_find(file, "x");
    assert_non_null(x);
    for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++) {
        const struct tensor *want = safetensors_find(file, dtype_name(types[t]));
        const size_t bytes =
            32 / dtype_block_elems(types[t]) * dtype_block_bytes(types[t]);
        unsigned char got[128];
        float row[32];

        assert_true(want && quantise_knows(types[t]));
        for (size_t i = 0; i < x->shape[0]; i++) {
            memcpy(row, (const char *)x->data + i * sizeof(row), sizeof(row));
            assert_true(quantise(got, types[t], row, 32));
            if (memcmp(got, (const char *)want->data + i * bytes, bytes) != 0)
                fail_msg("row %zu as %s differs", i, dtype_name(types[t]));
        }
    }
    safetensors_close(file);
}

/* Every half comes back from its float, and what lies between goes to the nearer. */
static void halves_round_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        const float low = half_to_float((uint16_t)h);
        const float high = h + 1 < 0x7c00 ? half_to_float((uint16_t)(h + 1)) : 65536.0f;
        const float middle = low + (high - low) / 2.0f;

        assert_int_equal(half_of(low), h);
        assert_int_equal(half_of(-low), h | 0x8000);
        assert_int_equal(half_of(nextafterf(middle, 0.0f)), h);
        assert_int_equal(half_of(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(half_of(middle), h + (h & 1));
    }
    assert_int_equal(half_of(INFINITY), 0x7c00);
    assert_int_equal(half_of(NAN) & 0x7e00, 0x7e00);
}

/* What has been read from blocks once goes back into the same blocks: merging rounds only
 * what an expert moved. */
static void a_grid_of_blocks_is_kept(void **state)
{
    static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q5_0,
                                       DTYPE_Q5_1};
    float x[32], once[32], twice[32];
    unsigned char block[64];

    (void)state;
    for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++)
        for (size_t seed = 1; seed < 40; seed++) {
            for (size_t i = 0; i < 32; i++)
                x[i] = sinf((float)(i * seed + seed)) * 0.1f;
            assert_true(quantise(block, types[t], x, 32));
            kernels_ref()->dequant[types[t]](once, block, 32);
            assert_true(quantise(block, types[t], once, 32));
            kernels_ref()->dequant[types[t]](twice, block, 32);
            for (size_t i = 0; i < 32; i++)
                assert_near(twice[i], once[i], 2e-3 * 0.1);
        }
}

static void what_does_not_fit_is_told(void **state)
{
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    unsigned char block[128];
    float x[32] = {0};

    (void)state;
    for (enum dtype t = DTYPE_F32; t < N_DTYPES; t++) {
        if (!quantise_knows(t))
            continue;
        for (size_t i = 0; i < 3; i++) {
            x[5] = bad[i];
            assert_false(quantise(block, t, x, 32));
        }
        x[5] = 1e30f;
        assert_int_equal(quantise(block, t, x, 32), t == DTYPE_F32 || t == DTYPE_BF16);
        x[5] = 65000.0f;
        assert_true(quantise(block, t, x, 32));
    }
    assert_false(quantise_knows(DTYPE_Q4_K));
    assert_false(quantise_knows(DTYPE_I32));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_those_of_the_reference),
        cmocka_unit_test(halves_round_to_nearest_even),
        cmocka_unit_test(a_grid_of_blocks_is_kept),
        cmocka_unit_test(what_does_not_fit_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
