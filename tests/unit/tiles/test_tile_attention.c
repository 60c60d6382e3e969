/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in bf16 tiles against double: numbers, bits that must not change, and
 * rows that must not be touched. Skipped where the CPU has no bf16 tiles.
 */
#include "check.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/cpu.h"
#include "base/rng.h"
#include "tiles/tile_attention.h"

#if defined(__x86_64__)
#define AFTER   21     /* rows behind the sequence */
#define PATTERN 0x7fc1 /* a NaN: poison where nothing may be read, a mark in outputs */
#define BF16    (1.0 / 256) /* what one rounding may change, relative */
#define FLOAT   1e-4        /* all roundings of float together, against BF16 */

struct shape {
    size_t heads, kv_heads, dim, qk, v; /* blocks of a head */
};

/* A block of rows that holds one sequence, its outputs and its slopes. */
struct work {
    struct shape s;
    size_t row, n, rows; /* rows: a multiple of 32 */
    struct tiles qkv, o, d_o, d_qkv;
    float *lse, *cos, *sin;
    int32_t *pos;
    void *scratch;
};

static void *take(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);

    assert_non_null(p);
    return p;
}

static struct tiles tiles_new(size_t rows, size_t blocks)
{
    struct tiles t = {take(tile_elems(rows, blocks) * 2), blocks};

    for (size_t i = 0; i < tile_elems(rows, blocks); i++)
        t.at[i] = PATTERN;
    return t;
}

static struct tile_heads heads_of(const struct shape *s)
{
    return (struct tile_heads){s->heads, s->kv_heads, s->qk, s->v,
                               1.0f / sqrtf((float)s->dim)};
}

/* The natural element of a place, or -1. */
static int32_t qk_element(const struct shape *s, size_t place)
{
    const size_t pair = place / 32 * 16 + place % 16;

    if (pair >= s->dim / 2)
        return -1;
    return (int32_t)(place % 32 < 16 ? pair : pair + s->dim / 2);
}

static int32_t element(const struct shape *s, size_t place, bool value)
{
    if (value)
        return place < s->dim ? (int32_t)place : -1;
    return qk_element(s, place);
}

static uint16_t *place_at(struct tiles t, size_t row, size_t place)
{
    return tile_at(t, row, place / 32) + place % 32;
}

static double value(struct tiles t, size_t row, size_t place)
{
    return (double)bf16_to(*place_at(t, row, place));
}

static size_t qk_places(const struct shape *s)
{
    return (s->heads + s->kv_heads) * s->qk * 32;
}

static void fill(struct work *w, double size, uint64_t seed)
{
    const struct shape *s = &w->s;
    struct rng r;

    for (size_t i = 0; i < w->n; i++) {
        rng_init(&r, seed, i); /* a longer sequence begins alike */
        for (size_t p = 0; p < qk_places(s); p++)
            *place_at(w->qkv, w->row + i, p) =
                qk_element(s, p % (s->qk * 32)) < 0
                    ? 0
                    : bf16_of(rng_normal(&r) * (float)size);
        for (size_t p = 0; p < s->kv_heads * s->v * 32; p++)
            *place_at(w->qkv, w->row + i, qk_places(s) + p) =
                element(s, p % (s->v * 32), true) < 0 ? 0 : bf16_of(rng_normal(&r));
        for (size_t p = 0; p < s->heads * s->v * 32; p++)
            *place_at(w->d_o, w->row + i, p) =
                element(s, p % (s->v * 32), true) < 0 ? 0 : bf16_of(rng_normal(&r));
    }
}

static void tables(struct work *w)
{
    const size_t half = w->s.qk * 16;

    w->cos = take(w->n * half * sizeof(float));
    w->sin = take(w->n * half * sizeof(float));
    w->pos = take(w->rows * sizeof(int32_t));
    for (size_t p = 0; p < w->n; p++)
        for (size_t i = 0; i < half; i++) {
            const double angle = i < w->s.dim / 2 ? (double)p / (double)(i + 1) : 0;

            w->cos[p * half + i] = (float)cos(angle);
            w->sin[p * half + i] = (float)sin(angle);
        }
    for (size_t i = 0; i < w->rows; i++) /* any order */
        w->pos[i] = i >= w->row && i < w->row + w->n
                        ? (int32_t)((i - w->row) * 7 % w->n)
                        : INT32_MIN;
}

static struct work work_new(struct shape s, size_t row, size_t n)
{
    struct work w = {.s = s, .row = row, .n = n, .rows = tile_round(row + n + AFTER)};
    const struct tile_heads h = heads_of(&s);
    const size_t blocks = (s.heads + s.kv_heads) * s.qk + s.kv_heads * s.v;

    w.qkv = tiles_new(w.rows, blocks);
    w.d_qkv = tiles_new(w.rows, blocks);
    w.o = tiles_new(w.rows, s.heads * s.v);
    w.d_o = tiles_new(w.rows, s.heads * s.v);
    w.lse = take(s.heads * w.rows * sizeof(float));
    for (size_t i = 0; i < s.heads * w.rows; i++)
        w.lse[i] = NAN;
    w.scratch = take(tile_set()->attention_scratch(&h, n, n));
    memset(w.scratch, 0xff, tile_set()->attention_scratch(&h, n, n)); /* NaN */
    tables(&w);
    fill(&w, 1, 7);
    return w;
}

static void release(void *const *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(p[i]);
}

static void work_free(struct work *w)
{
    release((void *[]){w->qkv.at, w->d_qkv.at, w->o.at, w->d_o.at, w->lse, w->cos,
                       w->sin, w->pos, w->scratch},
            9);
}

static struct tile_attention call_of(struct work *w)
{
    return (struct tile_attention){.heads = heads_of(&w->s),
                                   .qkv = w->qkv,
                                   .o = w->o,
                                   .lse = w->lse,
                                   .lse_pitch = w->rows,
                                   .row = w->row,
                                   .n = w->n,
                                   .n_parts = 1,
                                   .scratch = w->scratch};
}

static void run(struct work *w, bool backward)
{
    const struct tile_attention a = call_of(w);
    const struct tile_attention_slopes s = {
        w->d_o, w->d_qkv, {w->cos, w->sin, w->s.qk * 16, w->pos}};

    if (backward)
        tile_set()->attention_backward(&a, &s);
    else
        tile_set()->attention(&a);
}

/* Where heads begin, in places. */
static size_t k_place(const struct work *w, size_t h)
{
    return (w->s.heads + h / (w->s.heads / w->s.kv_heads)) * w->s.qk * 32;
}

static size_t v_place(const struct work *w, size_t h)
{
    return qk_places(&w->s) + h / (w->s.heads / w->s.kv_heads) * w->s.v * 32;
}

/* The score of query T and key J in units of log2. */
static double score(const struct work *w, size_t h, size_t t, size_t j)
{
    double s = 0;

    for (size_t p = 0; p < w->s.qk * 32; p++)
        s += value(w->qkv, w->row + t, h * w->s.qk * 32 + p) *
             value(w->qkv, w->row + j, k_place(w, h) + p);
    return s / sqrt((double)w->s.dim) / log(2);
}

/* Sum of what was wrong and of what was right, squared. */
struct error_sum {
    double wrong, right;
};

/* Within TOLERANCE one by one; assert_close: within one rounding on the whole. */
static void compare(struct error_sum *e, double got, double want, double tolerance)
{
    assert_near(got, want, tolerance + 1e-30);
    e->wrong += (got - want) * (got - want);
    e->right += want * want;
}

static void assert_close(const struct error_sum *e)
{
    assert_true(sqrt(e->wrong) <= BF16 * sqrt(e->right));
}

/* o: p is rounded once, the result once. */
static void check_query_forward(struct error_sum *e, const struct work *w, size_t h,
                                size_t t)
{
    double *s = take((t + 1) * sizeof(double)), most = -INFINITY, sum = 0;

    for (size_t j = 0; j <= t; j++) {
        s[j] = score(w, h, t, j);
        most = fmax(most, s[j]);
    }
    for (size_t j = 0; j <= t; j++)
        sum += exp2(s[j] - most);
    assert_near(w->lse[h * w->rows + w->row + t], most + log2(sum), 2e-5);
    for (size_t p = 0; p < w->s.v * 32; p++) {
        double o = 0, size = 0;

        for (size_t j = 0; j <= t; j++) {
            const double x =
                exp2(s[j] - most) / sum * value(w->qkv, w->row + j, v_place(w, h) + p);

            o += x;
            size += fabs(x);
        }
        compare(e, value(w->o, w->row + t, h * w->s.v * 32 + p), o,
                (BF16 + FLOAT) * size + BF16 * fabs(o));
    }
    free(s);
}

/* p and d_s of query T and key J, and how large the terms of d_s are. */
struct pair {
    double p, d_s, size;
};

static struct pair pair_of(const struct work *w, size_t h, size_t t, size_t j)
{
    const size_t o = h * w->s.v * 32;
    struct pair x = {
        .p = exp2(score(w, h, t, j) - (double)w->lse[h * w->rows + w->row + t])};
    double d_p = 0, delta = 0, size = 0;

    for (size_t p = 0; p < w->s.v * 32; p++) {
        const double d_o = value(w->d_o, w->row + t, o + p);

        d_p += d_o * value(w->qkv, w->row + j, v_place(w, h) + p);
        delta += d_o * value(w->o, w->row + t, o + p);
        size += fabs(d_o * value(w->qkv, w->row + j, v_place(w, h) + p)) +
                fabs(d_o * value(w->o, w->row + t, o + p));
    }
    x.d_s = x.p * (d_p - delta) / sqrt((double)w->s.dim);
    x.size = x.p * size / sqrt((double)w->s.dim);
    return x;
}

/* WANT and its tolerance SIZE, of one head in places before rope, against d_qkv. */
static void compare_turned(struct error_sum *e, const struct work *w, size_t row,
                           size_t place, const double *want, const double *size)
{
    const size_t half = w->s.qk * 16;

    for (size_t i = 0; i < half; i++) {
        const size_t at = i / 16 * 32 + i % 16, turn = (size_t)w->pos[row] * half + i;
        const double c = (double)w->cos[turn], s = (double)w->sin[turn];
        const double x = want[at] * c + want[at + 16] * s,
                     y = want[at + 16] * c - want[at] * s;

        compare(e, value(w->d_qkv, row, place + at), x,
                size[at] * fabs(c) + size[at + 16] * fabs(s) + BF16 * fabs(x));
        compare(e, value(w->d_qkv, row, place + at + 16), y,
                size[at + 16] * fabs(c) + size[at] * fabs(s) + BF16 * fabs(y));
    }
}

static void check_query_backward(struct error_sum *e, const struct work *w, size_t h,
                                 size_t t)
{
    double want[256] = {0}, size[256] = {0};

    for (size_t j = 0; j <= t; j++) {
        const struct pair x = pair_of(w, h, t, j);

        for (size_t p = 0; p < w->s.qk * 32; p++) {
            const double k = value(w->qkv, w->row + j, k_place(w, h) + p);

            want[p] += x.d_s * k;
            size[p] += (BF16 * fabs(x.d_s) + FLOAT * x.size) * fabs(k);
        }
    }
    compare_turned(e, w, w->row + t, h * w->s.qk * 32, want, size);
}

/* d_k and d_v of key J for the group that begins with head FIRST. */
static void check_key_backward(struct error_sum *e, const struct work *w, size_t first,
                               size_t j)
{
    const size_t shared = w->s.heads / w->s.kv_heads;
    double d_k[256] = {0}, k_size[256] = {0}, d_v[256] = {0}, v_size[256] = {0};

    for (size_t h = first; h < first + shared; h++)
        for (size_t t = j; t < w->n; t++) {
            const struct pair x = pair_of(w, h, t, j);

            for (size_t p = 0; p < w->s.qk * 32; p++) {
                const double q = value(w->qkv, w->row + t, h * w->s.qk * 32 + p);

                d_k[p] += x.d_s * q;
                k_size[p] += (BF16 * fabs(x.d_s) + FLOAT * x.size) * fabs(q);
            }
            for (size_t p = 0; p < w->s.v * 32; p++) {
                const double y = x.p * value(w->d_o, w->row + t, h * w->s.v * 32 + p);

                d_v[p] += y;
                v_size[p] += (BF16 + FLOAT) * fabs(y);
            }
        }
    compare_turned(e, w, w->row + j, k_place(w, first), d_k, k_size);
    for (size_t p = 0; p < w->s.v * 32; p++)
        compare(e, value(w->d_qkv, w->row + j, v_place(w, first) + p), d_v[p],
                v_size[p] + BF16 * fabs(d_v[p]));
}

/* Rows of other sequences are as they were. */
static void check_rows_outside(const struct work *w)
{
    for (size_t i = 0; i < w->rows; i++) {
        if (i >= w->row && i < w->row + w->n)
            continue;
        for (size_t p = 0; p < w->d_qkv.pitch * 32; p++)
            assert_int_equal(*place_at(w->d_qkv, i, p), PATTERN);
        for (size_t p = 0; p < w->o.pitch * 32; p++)
            assert_int_equal(*place_at(w->o, i, p), PATTERN);
        for (size_t h = 0; h < w->s.heads; h++)
            assert_true(isnan(w->lse[h * w->rows + i]));
    }
}

/* Every EVERY-th row, and the last. */
static void check(struct shape s, size_t row, size_t n, size_t every)
{
    struct work w = work_new(s, row, n);
    struct error_sum o = {0}, q = {0}, kv = {0};

    run(&w, false);
    run(&w, true);
    check_rows_outside(&w);
    for (size_t i = n - 1;; i = i >= every ? i - every : 0) {
        for (size_t h = 0; h < s.heads; h++) {
            check_query_forward(&o, &w, h, i);
            check_query_backward(&q, &w, h, i);
        }
        for (size_t h = 0; h < s.heads; h += s.heads / s.kv_heads)
            check_key_backward(&kv, &w, h, i);
        if (i == 0)
            break;
    }
    assert_close(&o);
    assert_true(n == 1 || sqrt(q.wrong) <= BF16 * sqrt(q.right)); /* 0 for one */
    assert_close(&kv);
    work_free(&w);
}

static const struct shape w_shape = {9, 3, 64, 2, 2}, wide = {4, 2, 128, 4, 4},
                          narrow = {3, 1, 32, 1, 1}, padded = {2, 2, 80, 3, 3},
                          uneven = {2, 1, 48, 2, 2};

static void both_directions_match_double(void **state)
{
    static const size_t lengths[] = {1, 5, 31, 32, 33, 100};

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        check(w_shape, i * 7, lengths[i], 9);
        check(wide, i * 11, lengths[i], 9);
        check(narrow, i * 5, lengths[i], 1);
        check(padded, i * 16, lengths[i], 7);
        check(uneven, i * 13, lengths[i], 7);
    }
}

/* Several chunks of keys and squares of slopes. */
static void long_sequences_match_double(void **state)
{
    (void)state;
    check(w_shape, 0, 256, 51);
    check(w_shape, 3, 300, 83);
    check(wide, 40, 300, 67);
    check(narrow, 31, 1000, 37);
    check(padded, 5, 1000, 333);
    check(narrow, 1, 8192, 2047);
}

static void assert_same_rows(struct tiles a, size_t a_row, struct tiles b, size_t b_row,
                             size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < a.pitch; j++)
            assert_memory_equal(tile_at(a, a_row + i, j), tile_at(b, b_row + i, j), 64);
}

static void bits_do_not_depend_on_place_parts_or_length(void **state)
{
    struct work one = work_new(w_shape, 0, 333), other = work_new(w_shape, 45, 333),
                longer = work_new(w_shape, 7, 400);
    struct tile_attention a = call_of(&other);

    (void)state;
    run(&one, false);
    run(&longer, false);
    for (a.n_parts = 1; a.n_parts <= 3; a.n_parts++) {
        memset(other.o.at, 0, tile_elems(other.rows, other.o.pitch) * 2);
        for (a.part = 0; a.part < a.n_parts; a.part++)
            tile_set()->attention(&a);
        assert_same_rows(one.o, 0, other.o, 45, 333);
        for (size_t h = 0; h < 9; h++)
            assert_memory_equal(one.lse + h * one.rows, other.lse + h * other.rows + 45,
                                333 * sizeof(float));
    }
    assert_same_rows(one.o, 0, longer.o, 7, 333);
    run(&one, true);
    run(&other, true);
    assert_same_rows(one.d_qkv, 0, other.d_qkv, 45, 333);
    work_free(&one);
    work_free(&other);
    work_free(&longer);
}

/* Keys and values of W in natural order, behind PITCH floats a position. */
static float *cache_of(const struct work *w, bool values, size_t pitch)
{
    const struct shape *s = &w->s;
    const size_t places = (values ? s->v : s->qk) * 32;
    float *x = take(w->n * pitch * sizeof(float));

    for (size_t i = 0; i < w->n * pitch; i++)
        x[i] = NAN;
    for (size_t i = 0; i < w->n; i++)
        for (size_t p = 0; p < s->kv_heads * places; p++) {
            const size_t head = p / places;
            const int32_t e = element(s, p % places, values);
            const size_t from = values ? qk_places(s) : s->heads * s->qk * 32;

            if (e >= 0)
                x[i * pitch + head * s->dim + (size_t)e] =
                    (float)value(w->qkv, w->row + i, from + p);
        }
    return x;
}

static int32_t *index_of(const struct shape *s, bool values)
{
    const size_t places = (values ? s->v : s->qk) * 32;
    int32_t *index = take(s->kv_heads * places * sizeof(int32_t));

    for (size_t p = 0; p < s->kv_heads * places; p++) {
        const int32_t e = element(s, p % places, values);

        index[p] = e < 0 ? -1 : (int32_t)(p / places * s->dim) + e;
    }
    return index;
}

/* The last N of W's rows as queries over a cache of all of them. */
static void check_cache(struct work *w, size_t n, size_t n_parts)
{
    const size_t pitch = w->s.kv_heads * w->s.dim + 3;
    float *k = cache_of(w, false, pitch), *v = cache_of(w, true, pitch);
    int32_t *k_index = index_of(&w->s, false), *v_index = index_of(&w->s, true);
    const struct tile_cache cache = {k, v, pitch, w->n, NULL, 0, k_index, v_index};
    struct tile_attention a = call_of(w);
    const struct tiles o = tiles_new(w->rows, w->o.pitch);

    a.o = o;
    a.row = w->row + w->n - n;
    a.n = n;
    a.lse = NULL;
    a.cache = &cache;
    a.n_parts = n_parts;
    for (a.part = 0; a.part < n_parts; a.part++)
        tile_set()->attention(&a);
    assert_same_rows(o, a.row, w->o, a.row, n);
    for (size_t i = 0; i < a.row; i++)
        for (size_t p = 0; p < o.pitch * 32; p++)
            assert_int_equal(*place_at(o, i, p), PATTERN);
    release((void *[]){k, v, k_index, v_index, o.at}, 5);
}

static void queries_over_a_cache_give_the_same_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct work w = work_new(i ? padded : w_shape, 9, 301);

        run(&w, false);
        check_cache(&w, 301, 1);
        check_cache(&w, 1, 1);
        check_cache(&w, 50, 1);
        check_cache(&w, 257, 2);
        work_free(&w);
    }
}

/* Scores in the thousands: one key takes it all, nothing overflows. */
static void large_scores_stay_finite(void **state)
{
    struct work w = work_new(w_shape, 2, 300);

    (void)state;
    fill(&w, 60, 3);
    for (size_t i = 0; i < w.n; i++)
        for (size_t p = 0; p < 192; p++)
            *place_at(w.qkv, w.row + i, qk_places(&w.s) + p) = bf16_of(1);
    run(&w, false);
    run(&w, true);
    for (size_t i = 0; i < w.n; i++) {
        for (size_t p = 0; p < w.o.pitch * 32; p++)
            assert_near(value(w.o, w.row + i, p), 1, 2 * BF16);
        for (size_t p = 0; p < w.d_qkv.pitch * 32; p++)
            assert_true(isfinite(value(w.d_qkv, w.row + i, p)));
    }
    work_free(&w);
}

static void a_broken_row_shows(void **state)
{
    struct work w = work_new(narrow, 4, 100), sound = work_new(narrow, 4, 100);

    (void)state;
    run(&sound, false);
    for (size_t p = 0; p < 96; p++) /* the query of each head */
        *place_at(w.qkv, w.row + 40, p) = bf16_of(NAN);
    run(&w, false);
    for (size_t i = 0; i < 100; i++)
        for (size_t p = 0; p < 96; p++)
            if (i == 40)
                assert_true(isnan(value(w.o, w.row + i, p)));
            else
                assert_int_equal(*place_at(w.o, w.row + i, p),
                                 *place_at(sound.o, w.row + i, p));
    assert_true(isnan(w.lse[w.row + 40]));

    fill(&w, 1, 7);
    *place_at(w.qkv, w.row + 40, 96) = bf16_of(NAN); /* a key */
    run(&w, false);
    for (size_t i = 40; i < 100; i++)
        assert_true(isnan(value(w.o, w.row + i, 0)));
    assert_same_rows(w.o, w.row, sound.o, w.row, 40);
    run(&w, true); /* must come back */
    work_free(&w);
    work_free(&sound);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_directions_match_double),
        cmocka_unit_test(long_sequences_match_double),
        cmocka_unit_test(bits_do_not_depend_on_place_parts_or_length),
        cmocka_unit_test(queries_over_a_cache_give_the_same_bits),
        cmocka_unit_test(large_scores_stay_finite),
        cmocka_unit_test(a_broken_row_shows),
    };

    if (!tile_set())
        return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
    return 0;
}
#endif
