/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention backward on bf16 tiles, by squares of 256 queries and 256 keys.
 *
 *     p = 2^(c q k^T - lse)          d_s = p (d_o v^T - delta)      delta = sum(d_o o)
 *     d_v = p^T d_o    d_k = scale d_s^T q    d_q = scale d_s k     c = log2(e) scale
 *
 * Scores are made with a row for each key, [32 keys][32 queries]: then p^T and d_s^T
 * are left sides as they are, lse and delta are vectors, and d_v and d_k come out as
 * rows. Only d_q has to be turned: it is summed as d_q^T = k^T d_s^T.
 *
 * Queries past the end are zeros with a slope of zero and add nothing; keys past the
 * end are seen by such queries alone.
 */
#include "tiles/tile_attention.h"

#if defined(TILE_BUILT)
#include "base/arena.h"
#include "tiles/tile_attention_bf16.h"

#define SIDE   (CHUNK * 32)
#define SQUARE ((size_t)CHUNK * CHUNK * PACK_ELEMS)

struct room {
    /* of a group */
    uint16_t *k;        /* [key block][2][qk_blocks][TILE_ELEMS] rows */
    uint16_t *v;        /* [key block][2][v_blocks][TILE_ELEMS] rows */
    uint16_t *k_turned; /* [qk_blocks][2][key block][TILE_ELEMS] pairs turned */
    float *d_k;         /* [key block][qk_blocks](32, 32) */
    float *d_v;         /* [key block][v_blocks](32, 32) */
    /* of a chunk of queries of one head */
    uint16_t *q_turned;   /* [CHUNK][qk_blocks][PACK_ELEMS] */
    uint16_t *q_pairs;    /* [qk_blocks][CHUNK][PACK_ELEMS] */
    uint16_t *d_o_turned; /* [CHUNK][v_blocks][PACK_ELEMS] */
    uint16_t *d_o_pairs;  /* [v_blocks][CHUNK][PACK_ELEMS] */
    float *lse, *delta;   /* (SIDE) */
    float *d_q;           /* [CHUNK][qk_blocks](32 columns, 32 queries) */
    /* of a square */
    uint16_t *p, *d_s;   /* [key block][2][CHUNK queries][TILE_ELEMS] p^T, d_s^T */
    uint16_t *d_s_pairs; /* [CHUNK keys][PACK_ELEMS] of one block of queries */
    float *s, *d_p;      /* (32 keys, 32 queries) */
    float (*part)[16];   /* (16, 16) of each row's delta */
    size_t blocks;       /* of keys, and of queries */
};

/* What is at work: queries FIRST .. FIRST + N (blocks) of HEAD, keys from KEY on. */
struct square {
    size_t group, head, first, n, key, n_keys;
};

static void lay(struct room *r, struct arena *m, const struct tile_heads *h, size_t n)
{
    const size_t K = h->qk_blocks, V = h->v_blocks, J = tile_round(n) / 32;

    r->blocks = J;
    r->k = arena_take(m, J * K * PACK_ELEMS * 2);
    r->v = arena_take(m, J * V * PACK_ELEMS * 2);
    r->k_turned = arena_take(m, J * K * PACK_ELEMS * 2);
    r->d_k = arena_f32(m, J * K * 1024);
    r->d_v = arena_f32(m, J * V * 1024);
    r->q_turned = arena_take(m, CHUNK * K * PACK_ELEMS * 2);
    r->q_pairs = arena_take(m, CHUNK * K * PACK_ELEMS * 2);
    r->d_o_turned = arena_take(m, CHUNK * V * PACK_ELEMS * 2);
    r->d_o_pairs = arena_take(m, CHUNK * V * PACK_ELEMS * 2);
    r->lse = arena_f32(m, SIDE);
    r->delta = arena_f32(m, SIDE);
    r->d_q = arena_f32(m, CHUNK * K * 1024);
    r->p = arena_take(m, SQUARE * 2);
    r->d_s = arena_take(m, SQUARE * 2);
    r->d_s_pairs = arena_take(m, CHUNK * PACK_ELEMS * 2);
    r->s = arena_f32(m, 1024);
    r->d_p = arena_f32(m, 1024);
    r->part = arena_take(m, 16 * sizeof(*r->part));
}

size_t TILE(attention_backward_bytes)(const struct tile_heads *h, size_t n)
{
    struct arena m = {0};
    struct room r;

    lay(&r, &m, h, n);
    return m.used;
}

/* Rows of block J of the sequence. */
static struct piece piece_of(const struct tile_attention *a, struct tiles t, size_t j,
                             size_t block)
{
    const size_t left = a->n - j * 32;

    return (struct piece){t, a->row + j * 32, left < 32 ? left : 32, block};
}

static void take_keys(const struct room *r, const struct tile_attention *a,
                      size_t group)
{
    const struct tile_heads *h = &a->heads;
    const size_t K = h->qk_blocks, V = h->v_blocks, k_at = (h->n_heads + group) * K,
                 v_at = (h->n_heads + h->n_kv_heads) * K + group * V;
    _Alignas(64) uint16_t pairs[PACK_ELEMS];

    for (size_t j = 0; j < r->blocks; j++) {
        for (size_t b = 0; b < K; b++) {
            const struct piece p = piece_of(a, a->qkv, j, k_at + b);

            piece_rows(r->k + (j * 2 * K + b) * TILE_ELEMS, K * TILE_ELEMS, &p);
            piece_pairs(pairs, &p);
            pairs_turned(r->k_turned + (b * 2 * r->blocks + j) * TILE_ELEMS,
                         r->blocks * TILE_ELEMS, pairs);
        }
        for (size_t b = 0; b < V; b++) {
            const struct piece p = piece_of(a, a->qkv, j, v_at + b);

            piece_rows(r->v + (j * 2 * V + b) * TILE_ELEMS, V * TILE_ELEMS, &p);
        }
    }
}

/* LSE and DELTA of 16 rows from ROW of the block on, LEFT of them there, to place I. */
static void take_row_sums(const struct room *r, const struct tile_attention *a,
                          struct tiles d_o, size_t head, size_t row, size_t left,
                          size_t i)
{
    const size_t V = a->heads.v_blocks;
    __m512i x[16], y[16];

    for (size_t b = head * V; b < (head + 1) * V; b++) {
        const struct piece slopes = {d_o, row, left, b}, values = {a->o, row, left, b};

        piece_load(x, &slopes, 0);
        piece_load(y, &values, 0);
#pragma GCC unroll 16
        for (size_t k = 0; k < 16; k++) {
            const __m512 before =
                b == head * V ? _mm512_setzero_ps() : _mm512_load_ps(r->part[k]);

            _mm512_store_ps(r->part[k],
                            _mm512_dpbf16_ps(before, (__m512bh)x[k], (__m512bh)y[k]));
        }
    }
    _mm512_store_ps(r->delta + i, sum_rows((const float(*)[16])r->part));
    _mm512_store_ps(r->lse + i,
                    _mm512_maskz_loadu_ps((__mmask16)first_bits(left),
                                          a->lse + head * a->lse_pitch + row));
}

static void take_queries(const struct room *r, const struct tile_attention *a,
                         struct tiles d_o, const struct square *s)
{
    const size_t K = a->heads.qk_blocks, V = a->heads.v_blocks;

    for (size_t j = 0; j < s->n; j++) {
        const size_t row = (s->first + j) * 32, left = a->n - row;

        for (size_t b = 0; b < K; b++) {
            const struct piece p = piece_of(a, a->qkv, s->first + j, s->head * K + b);

            piece_right_sides(r->q_turned + (j * K + b) * PACK_ELEMS,
                              r->q_pairs + (b * CHUNK + j) * PACK_ELEMS, &p);
        }
        for (size_t b = 0; b < V; b++) {
            const struct piece p = piece_of(a, d_o, s->first + j, s->head * V + b);

            piece_right_sides(r->d_o_turned + (j * V + b) * PACK_ELEMS,
                              r->d_o_pairs + (b * CHUNK + j) * PACK_ELEMS, &p);
        }
        take_row_sums(r, a, d_o, s->head, a->row + row, left, j * 32);
        take_row_sums(r, a, d_o, s->head, a->row + row + 16, left > 16 ? left - 16 : 0,
                      j * 32 + 16);
    }
}

/* Scores of key block J and query block I of the square, and the slopes of p. */
static void score(const struct room *r, const struct tile_heads *h,
                  const struct square *s, size_t j, size_t i)
{
    const size_t K = h->qk_blocks, V = h->v_blocks;
    const uint16_t *k = r->k + (s->key + j) * K * PACK_ELEMS,
                   *v = r->v + (s->key + j) * V * PACK_ELEMS;
    const struct quad s_sums = quad_within(r->s, 32),
                      d_p_sums = quad_within(r->d_p, 32);

    quad_zero(&s_sums);
    quad_add(&s_sums, k, k + K * TILE_ELEMS, r->q_turned + i * K * PACK_ELEMS, K);
    quad_store(&s_sums);
    quad_zero(&d_p_sums);
    quad_add(&d_p_sums, v, v + V * TILE_ELEMS, r->d_o_turned + i * V * PACK_ELEMS, V);
    quad_store(&d_p_sums);
}

/* What 32 queries bring to their slopes, in halves of 16. */
struct row_sums {
    __m512 lse[2], delta[2], c;
};

/* One key's p and d_s over 32 queries, of which SEES see it. */
struct slopes {
    __m512i p, d_s;
};

static inline struct slopes slopes_of(const float *s, const float *d_p,
                                      const struct row_sums *q, bool diagonal,
                                      uint32_t sees)
{
    __m512 p[2], d[2];

#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++) {
        p[i] = exp2_fast(_mm512_fmsub_ps(_mm512_load_ps(s + i * 16), q->c, q->lse[i]));
        if (diagonal)
            p[i] = _mm512_maskz_mov_ps((__mmask16)(sees >> (i * 16)), p[i]);
        d[i] = _mm512_mul_ps(p[i],
                             _mm512_sub_ps(_mm512_load_ps(d_p + i * 16), q->delta[i]));
    }
    return (struct slopes){bf16_pair(p[0], p[1]), bf16_pair(d[0], d[1])};
}

/* p^T, d_s^T and the pairs of d_s^T from what score() left. */
static inline void slope(const struct room *r, const struct tile_heads *h, size_t j,
                         size_t i, bool diagonal)
{
    const float *lse = r->lse + i * 32, *delta = r->delta + i * 32;
    const struct row_sums q = {{_mm512_load_ps(lse), _mm512_load_ps(lse + 16)},
                               {_mm512_load_ps(delta), _mm512_load_ps(delta + 16)},
                               _mm512_set1_ps(h->scale * LOG2_E)};
    uint16_t *pairs = r->d_s_pairs + j * PACK_ELEMS;

    for (size_t n = 0; n < 32; n += 2) {
        const float *s = r->s + n * 32, *d_p = r->d_p + n * 32;
        const size_t at =
            ((j * 2 + n / 16) * CHUNK + i) * TILE_ELEMS + n % 16 * TILE_COLS;
        const struct slopes x = slopes_of(s, d_p, &q, diagonal, 0xffffffffu << n),
                            y = slopes_of(s + 32, d_p + 32, &q, diagonal,
                                          0xfffffffeu << n);
        __m512i low, high;

        _mm512_store_si512(r->p + at, x.p);
        _mm512_store_si512(r->p + at + TILE_COLS, y.p);
        _mm512_store_si512(r->d_s + at, x.d_s);
        _mm512_store_si512(r->d_s + at + TILE_COLS, y.d_s);
        tile_interleave(x.d_s, y.d_s, &low, &high);
        _mm512_store_si512(pairs + n * 16, low);
        _mm512_store_si512(pairs + TILE_ELEMS + n * 16, high);
    }
}

/* D_Q of query block I from its N key blocks of the square. */
static void add_queries(const struct room *r, const struct tile_heads *h,
                        const struct square *s, size_t i, size_t n)
{
    for (size_t b = 0; b < h->qk_blocks; b++) {
        const uint16_t *k = r->k_turned + (b * 2 * r->blocks + s->key) * TILE_ELEMS;
        const struct quad d_q = quad_within(r->d_q + (i * h->qk_blocks + b) * 1024, 32);

        if (s->key == 0)
            quad_zero(&d_q);
        else
            quad_load(&d_q);
        quad_add(&d_q, k, k + r->blocks * TILE_ELEMS, r->d_s_pairs, n);
        quad_store(&d_q);
    }
}

/* Slopes of all scores of a square, and what they add to D_Q. */
static void slope_square(const struct room *r, const struct tile_heads *h,
                         const struct square *s)
{
    const bool diagonal = s->key == s->first;

    for (size_t i = 0; i < s->n; i++) {
        const size_t n = diagonal ? i : s->n_keys;

        for (size_t j = 0; j < n; j++) {
            score(r, h, s, j, i);
            slope(r, h, j, i, false);
        }
        if (diagonal) {
            score(r, h, s, i, i);
            slope(r, h, i, i, true);
        }
        add_queries(r, h, s, i, n + diagonal);
    }
}

/* What a square adds to D_K or D_V (OUT, BLOCKS): X is d_s or p, Y the pairs of q or
 * d_o. */
static void add_keys(float *out, const struct square *s, const uint16_t *x,
                     const uint16_t *y, size_t blocks, bool fresh)
{
    for (size_t j = 0; j < s->n_keys; j++) {
        const size_t from = s->key == s->first ? j : 0; /* queries before see nothing */
        const uint16_t *upper = x + (j * 2 * CHUNK + from) * TILE_ELEMS;

        for (size_t b = 0; b < blocks; b++) {
            const struct quad sum =
                quad_within(out + ((s->key + j) * blocks + b) * 1024, 32);

            if (fresh)
                quad_zero(&sum);
            else
                quad_load(&sum);
            quad_add(&sum, upper, upper + CHUNK * TILE_ELEMS,
                     y + (b * CHUNK + from) * PACK_ELEMS, s->n - from);
            quad_store(&sum);
        }
    }
}

/* A row of 16 pairs (X, Y) turned back to where rope found them, scaled, to OUT. */
static inline void put_turned(uint16_t *out, __m512 x, __m512 y, float scale,
                              const struct tile_rope *rope, size_t row, size_t block)
{
    const size_t at = (size_t)rope->pos[row] * rope->half + block * 16;
    const __m512 f = _mm512_set1_ps(scale),
                 cosine = _mm512_mul_ps(_mm512_loadu_ps(rope->cos + at), f),
                 sine = _mm512_mul_ps(_mm512_loadu_ps(rope->sin + at), f);

    _mm512_storeu_si512(out,
                        bf16_pair(_mm512_fmadd_ps(x, cosine, _mm512_mul_ps(y, sine)),
                                  _mm512_fmsub_ps(y, cosine, _mm512_mul_ps(x, sine))));
}

/* 16 queries of d_q^T from D_Q (rows of 32) as rows, from ROW of the block on. */
static void put_queries(const struct tile_attention *a,
                        const struct tile_attention_slopes *out, const float *d_q,
                        size_t head, size_t block, size_t row, size_t n)
{
    const size_t K = a->heads.qk_blocks;
    __m512i x[16], y[16];

    for (size_t i = 0; i < 16; i++) {
        x[i] = _mm512_load_si512(d_q + i * 32);
        y[i] = _mm512_load_si512(d_q + (i + 16) * 32);
    }
    tile_transpose(x);
    tile_transpose(y);
    for (size_t i = 0; i < n; i++)
        put_turned(tile_at(out->d_qkv, row + i, head * K + block),
                   _mm512_castsi512_ps(x[i]), _mm512_castsi512_ps(y[i]), a->heads.scale,
                   &out->rope, row + i, block);
}

static void finish_queries(const struct room *r, const struct tile_attention *a,
                           const struct tile_attention_slopes *out,
                           const struct square *s)
{
    const size_t K = a->heads.qk_blocks;

    for (size_t j = 0; j < s->n; j++)
        for (size_t b = 0; b < K; b++)
            for (size_t i = 0; i < 32; i += 16) {
                const size_t row = (s->first + j) * 32 + i;
                const size_t left = row < a->n ? a->n - row : 0;

                put_queries(a, out, r->d_q + (j * K + b) * 1024 + i, s->head, b,
                            a->row + row, left < 16 ? left : 16);
            }
}

static void finish_keys(const struct room *r, const struct tile_attention *a,
                        const struct tile_attention_slopes *out, size_t group)
{
    const struct tile_heads *h = &a->heads;
    const size_t K = h->qk_blocks, V = h->v_blocks, k_at = (h->n_heads + group) * K,
                 v_at = (h->n_heads + h->n_kv_heads) * K + group * V;

    for (size_t i = 0; i < a->n; i++) {
        for (size_t b = 0; b < K; b++) {
            const float *d_k = r->d_k + (i / 32 * K + b) * 1024 + i % 32 * 32;

            put_turned(tile_at(out->d_qkv, a->row + i, k_at + b), _mm512_load_ps(d_k),
                       _mm512_load_ps(d_k + 16), h->scale, &out->rope, a->row + i, b);
        }
        for (size_t b = 0; b < V; b++) {
            const float *d_v = r->d_v + (i / 32 * V + b) * 1024 + i % 32 * 32;

            _mm512_storeu_si512(
                tile_at(out->d_qkv, a->row + i, v_at + b),
                bf16_pair(_mm512_load_ps(d_v), _mm512_load_ps(d_v + 16)));
        }
    }
}

/* A chunk of queries of one head against all keys that it sees. */
static void chunk_backward(const struct room *r, const struct tile_attention *a,
                           const struct tile_attention_slopes *out, struct square *s)
{
    const struct tile_heads *h = &a->heads;
    const bool first_head = s->head % (h->n_heads / h->n_kv_heads) == 0;

    s->n = r->blocks - s->first < CHUNK ? r->blocks - s->first : CHUNK;
    take_queries(r, a, out->d_o, s);
    for (s->key = 0; s->key <= s->first; s->key += CHUNK) {
        const bool fresh = first_head && s->key == s->first;

        s->n_keys = s->key == s->first ? s->n : CHUNK;
        slope_square(r, h, s);
        add_keys(r->d_k, s, r->d_s, r->q_pairs, h->qk_blocks, fresh);
        add_keys(r->d_v, s, r->p, r->d_o_pairs, h->v_blocks, fresh);
    }
    finish_queries(r, a, out, s);
}

void TILE(attention_backward)(const struct tile_attention *a,
                              const struct tile_attention_slopes *out)
{
    const struct tile_heads *h = &a->heads;
    const size_t shared = h->n_heads / h->n_kv_heads;
    struct arena m = {.base = a->scratch, .size = SIZE_MAX};
    struct room r;
    struct square s;

    m.used = -(uintptr_t)a->scratch % ARENA_ALIGN;
    lay(&r, &m, h, a->n);
    tiles_begin();
    for (s.group = 0; s.group < h->n_kv_heads; s.group++) {
        take_keys(&r, a, s.group);
        for (s.head = s.group * shared; s.head < (s.group + 1) * shared; s.head++)
            for (s.first = 0; s.first < r.blocks; s.first += CHUNK)
                chunk_backward(&r, a, out, &s);
        finish_keys(&r, a, out, s.group);
    }
    tiles_end();
}
#endif
