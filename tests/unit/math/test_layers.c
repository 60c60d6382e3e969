/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Norm, rotation and SwiGLU: forward against the formula in double, backward
 * against differences of it, and that a backward adds where it says so.
 */
#include "check.h"

#include <float.h>

#include "base/arena.h"
#include "base/rng.h"
#include "math/kernels.h"
#include "math/rmsnorm.h"
#include "math/rope.h"

#define T 3
#define D 37
#define N (T * D)

static float x[N], gain[D], y[N], d_y[N], d_x[N], inv_rms[T];

static void fill(float *p, size_t n, uint64_t seed)
{
    struct rng r;

    rng_init(&r, seed, 1);
    for (size_t i = 0; i < n; i++)
        p[i] = rng_normal(&r);
}

static double norm(size_t t, size_t i)
{
    double squares = 0;

    for (size_t j = 0; j < D; j++)
        squares += (double)x[t * D + j] * (double)x[t * D + j];
    return (double)x[t * D + i] * (double)gain[i] / sqrt(squares / D + 1e-5);
}

static double norm_loss(void)
{
    double sum = 0;

    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < D; i++)
            sum += norm(t, i) * (double)d_y[t * D + i];
    return sum;
}

static void norm_and_its_gradient_match_the_formula(void **state)
{
    const float step = 1.0f / 1024;

    (void)state;
    fill(x, N, 1);
    fill(gain, D, 2);
    fill(d_y, N, 3);
    rmsnorm_forward(y, inv_rms, x, gain, 1e-5f, T, D);
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < D; i++)
            assert_near(y[t * D + i], norm(t, i),
                        (double)(D + 4) * (double)FLT_EPSILON * fabs(norm(t, i)));
    for (size_t i = 0; i < N; i++)
        d_x[i] = 1.0f;
    rmsnorm_backward(d_x, d_y, x, gain, inv_rms, T, D);
    for (size_t i = 0; i < N; i++) {
        const float kept = x[i];
        double slope;

        x[i] = kept + step;
        slope = norm_loss();
        x[i] = kept - step;
        slope = (slope - norm_loss()) / (2.0 * (double)step);
        x[i] = kept;
        assert_near(d_x[i], 1.0 + slope, 2e-5);
    }
}

static void turn_matches_the_formula(bool interleaved, size_t d, const float *divisor)
{
    enum { H = 2, P = 40 };
    const int32_t pos[T] = {0, 7, 39};
    float v[T * H * 64], kept[T * H * 64];
    struct arena arena = {0};
    struct rope r;

    rope_init(&r, &arena, d, interleaved, 10000.0f, divisor, P);
    assert_int_equal(arena_init(&arena, arena.used, NULL), 0);
    rope_init(&r, &arena, d, interleaved, 10000.0f, divisor, P);
    fill(v, T * H * d, 5);
    memcpy(kept, v, sizeof(v));
    rope_forward(&r, v, pos, T, H);
    for (size_t t = 0; t < T; t++)
        for (size_t h = 0; h < H; h++)
            for (size_t i = 0; i < d / 2; i++) {
                const size_t at = (t * H + h) * d;
                const size_t a = at + (interleaved ? 2 * i : i);
                const size_t b = at + (interleaved ? 2 * i + 1 : i + d / 2);
                const double angle = pos[t] *
                                     pow(10000.0, -2.0 * (double)i / (double)d) /
                                     (divisor ? (double)divisor[i] : 1.0);
                const double size = fabs((double)kept[a]) + fabs((double)kept[b]);

                assert_near(v[a],
                            (double)kept[a] * cos(angle) - (double)kept[b] * sin(angle),
                            4.0 * (double)FLT_EPSILON * size);
                assert_near(v[b],
                            (double)kept[b] * cos(angle) + (double)kept[a] * sin(angle),
                            4.0 * (double)FLT_EPSILON * size);
            }
    rope_backward(&r, v, pos, T, H); /* a rotation's gradient is the turn back */
    for (size_t i = 0; i < T * H * d; i++)
        assert_near(v[i], kept[i], 1e-6);
    arena_release(&arena);
}

static void rotations_turn_forth_and_back(void **state)
{
    static const float divisor[] = {1, 1, 2, 4, 8, 8, 8, 8, 8, 8};

    (void)state;
    turn_matches_the_formula(false, 64, NULL);
    turn_matches_the_formula(true, 64, NULL);
    turn_matches_the_formula(false, 20, divisor);
    turn_matches_the_formula(true, 20, divisor);
}

static double swiglu(double g, double u)
{
    return g / (1.0 + exp(-g)) * u;
}

static void swiglu_and_its_gradients_match_the_formula(void **state)
{
    const struct kernels *k = kernels();
    const double step = 1e-5;
    float gate[N], up[N], act[N], d_act[N], d_gate[N], d_up[N];

    (void)state;
    fill(gate, N, 1);
    fill(up, N, 2);
    fill(d_act, N, 3);
    for (size_t i = 0; i < N; i++)
        gate[i] *= 3.0f;
    k->swiglu(act, gate, up, N);
    k->swiglu_backward(d_gate, d_up, d_act, gate, up, N);
    for (size_t i = 0; i < N; i++) {
        const double g = (double)gate[i], u = (double)up[i], d = (double)d_act[i];

        assert_near(act[i], swiglu(g, u), 1e-6 * fabs(swiglu(g, u)));
        assert_near(d_gate[i],
                    d * (swiglu(g + step, u) - swiglu(g - step, u)) / (2.0 * step),
                    3e-6 * (1.0 + fabs(d * u * g)));
        assert_near(d_up[i], d * swiglu(g, 1.0), 1e-6 * fabs(d * swiglu(g, 1.0)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_and_its_gradient_match_the_formula),
        cmocka_unit_test(rotations_turn_forth_and_back),
        cmocka_unit_test(swiglu_and_its_gradients_match_the_formula),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
