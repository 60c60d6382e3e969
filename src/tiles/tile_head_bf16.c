/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cross entropy of the head without ever storing the logits, as attention does with
 * keys and values that are both the embedding E (V, D):
 *
 *     s = log2(e) x E^T      nll = log(sum 2^s) - x E[target]
 *     d_x = scale (sum 2^s E / sum 2^s - E[target])
 *
 * The vocabulary passes in cuts of CUT panels of 32 columns. A piece of 32 rows x 32
 * logits comes out of the tiles, and while the next piece is multiplied, this one
 * becomes 2^(s - r) in bf16: r is a row's reference, a whole number above the largest s
 * so far. Where a logit exceeds it, r grows, and what the row has summed so far is
 * multiplied by a power of two, which is exact. After a cut its exponentials are
 * multiplied by the same rows of E.
 *
 *     forward   [panel][block of D][PACK_ELEMS]               K is D
 *     backward  [cut][block of D][panel in cut][PACK_ELEMS]   K is V
 *
 * Weights stream from memory: while a panel is used the next one is prefetched, a few
 * lines with every step. Rows go in rounds whose x and sums stay in L2.
 */
#include "tiles/tile_head.h"

#if defined(TILE_BUILT)
#include <assert.h>
#include <math.h>

#include "tiles/tile_avx512bf16.h"
#include "tiles/tile_quad_bf16.h"

#define CUT         8    /* with more, a cut's panel of E leaves L1 between rows */
#define PIECE_ELEMS 1024 /* floats: four tiles of 16 x 16 */

/* Rows share the weights that stream past; their x should stay in L2. */
#define ROUND_BYTES   ((size_t)1 << 20)
#define ROUND_ROWS    512
#define ROUND_MINIMUM 128

/*
 * How far above the largest s a grown reference is set, so that it grows once or
 * twice in a vocabulary and not with each of a dozen records. Floats keep their
 * precision at 2^-HEADROOM.
 */
#define HEADROOM 6.0f

struct round {
    const struct tile_head *head;
    struct tiles x;
    size_t pairs;
    float *reference;    /* (rows) r; NaN once a logit was */
    float *sum;          /* (rows, 16) of 2^(s - r) */
    float *target_logit; /* (rows) */
    int32_t *target;     /* (rows) -1: none, in rows that fill a pair */
    float *piece;        /* (2, PIECE_ELEMS) */
    uint16_t *exps;      /* tiles (rows, CUT) of the cut, or NULL: no slopes */
    float *slopes;       /* (pairs, blocks of D, PIECE_ELEMS) sum of 2^(s - r) E */
    float *d_x;          /* (rows, blocks * 32) E[target] until the end */
    size_t cut;          /* first panel of the cut */
};

/* Logits that wait to become exponentials. */
struct piece {
    const float *logits; /* four tiles */
    size_t pair;
    size_t panel; /* in the cut */
};

static size_t panels_of(size_t n_vocab)
{
    return (n_vocab + 31) / 32;
}

/* Of any round. */
static size_t round_most(const struct tile_head *h)
{
    const size_t fit = ROUND_BYTES / (h->blocks * PAIR_ROWS * sizeof(uint16_t));

    return fit > ROUND_ROWS      ? ROUND_ROWS
           : fit < ROUND_MINIMUM ? ROUND_MINIMUM
                                 : fit / 32 * 32;
}

/* ROWS in even rounds. */
static size_t round_rows(const struct tile_head *h, size_t rows)
{
    const size_t most = round_most(h), rounds = rows ? (rows + most - 1) / most : 1;

    return tile_round((rows + rounds - 1) / rounds);
}

/* Of the longest round of up to ROWS rows: fewer rows may make fewer but longer ones. */
static size_t most_round_rows(const struct tile_head *h, size_t rows)
{
    const size_t most = round_most(h), all = tile_round(rows);

    return all < most ? all : most;
}

size_t TILE(head_bytes)(size_t blocks, size_t n_vocab, bool backward)
{
    (void)backward; /* both hold the same number of 32 x 32 */
    return panels_of(n_vocab) * blocks * PACK_ELEMS * sizeof(uint16_t);
}

size_t TILE(head_scratch)(const struct tile_head *h, size_t rows, bool backward)
{
    const size_t n = most_round_rows(h, rows);
    const size_t row = (16 + 2) * sizeof(float) + sizeof(int32_t);
    const size_t slopes = CUT * 32 * sizeof(uint16_t) + h->blocks * 32 * sizeof(float);

    return 2 * PIECE_ELEMS * sizeof(float) + n * (row + (backward ? slopes : 0));
}

/* ---- packing ---- */

/* 32 floats from P to bf16, those from LEFT on taken as zero. */
static inline __m512i narrow(const float *p, size_t left)
{
    const uint32_t mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;

    return bf16_pair(_mm512_maskz_loadu_ps((__mmask16)mask, p),
                     _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), p + 16));
}

/* Where panel PANEL stands in block 0 of the backward form, and bf16 from one block of
 * D to the next. */
static size_t backward_at(const struct tile_head *h, size_t panel, size_t *pitch)
{
    const size_t cut = panel / CUT * CUT, left = panels_of(h->n_vocab) - cut;

    *pitch = (left < CUT ? left : CUT) * PACK_ELEMS;
    return (cut * h->blocks + panel - cut) * PACK_ELEMS;
}

void TILE(head_pack)(const struct tile_head *h, const float *w, size_t dim,
                     size_t first, size_t n)
{
    uint16_t *forward = h->forward + first * h->blocks * 32;
    uint16_t *backward = h->backward;
    size_t pitch = 0;

    assert(first % 32 == 0 && n <= 32 && first + n <= h->n_vocab);
    assert(dim <= h->blocks * 32);
    if (backward)
        backward += backward_at(h, first / 32, &pitch);
    for (size_t block = 0; block < h->blocks; block++) {
        const size_t at = block * 32, left = at < dim ? dim - at : 0;
        __m512i rows[32];

        for (size_t i = 0; i < 32; i++)
            rows[i] =
                i < n && left ? narrow(w + i * dim + at, left) : _mm512_setzero_si512();
        for (size_t i = 0; backward && i < 16; i++) {
            uint16_t *out = backward + block * pitch + i * 32;
            __m512i low, high;

            tile_interleave(rows[2 * i], rows[2 * i + 1], &low, &high);
            _mm512_store_si512(out, low);
            _mm512_store_si512(out + TILE_ELEMS, high);
        }
        tile_transpose(rows);
        tile_transpose(rows + 16);
        for (size_t i = 0; i < 32; i++)
            _mm512_store_si512(forward + block * PACK_ELEMS + i * 32, rows[i]);
    }
}

/* ---- exponentials ---- */

/* ROW's sums so far times 2^BY, BY below zero. */
static void lower_sums(const struct round *g, const struct piece *c, size_t row,
                       float by)
{
    const __m512 factor = _mm512_scalef_ps(_mm512_set1_ps(1.0f), _mm512_set1_ps(by));
    const size_t blocks = g->head->blocks;
    float *sum = g->sum + row * 16;
    float *slopes;

    _mm512_store_ps(sum, _mm512_mul_ps(_mm512_load_ps(sum), factor));
    if (!g->exps)
        return;
    for (size_t i = 0; i < c->panel; i++) {
        uint16_t *e = tile_at((struct tiles){g->exps, CUT}, row, i);
        const __m512 low = _mm512_mul_ps(bf16_load(e), factor);
        const __m512 high = _mm512_mul_ps(bf16_load(e + 16), factor);

        _mm512_store_si512(e, bf16_pair(low, high));
    }
    slopes = g->slopes + row / 32 * blocks * PIECE_ELEMS + row % 32 / 16 * 512 +
             row % 16 * 16;
    for (size_t i = 0; g->cut && i < 2 * blocks; i++) {
        float *s = slopes + i / 2 * PIECE_ELEMS + i % 2 * 256;

        _mm512_store_ps(s, _mm512_mul_ps(_mm512_load_ps(s), factor));
    }
}

/* LOW and HIGH are ROW's logits in the piece, of which one is above its reference or
 * is no number. */
static __attribute__((noinline, cold)) void raise_reference(const struct round *g,
                                                            const struct piece *c,
                                                            size_t row, __m512 low,
                                                            __m512 high)
{
    const __mmask16 nan = _mm512_cmp_ps_mask(low, high, _CMP_UNORD_Q);
    const float before = g->reference[row];
    const float most = _mm512_reduce_max_ps(_mm512_max_ps(low, high)) * LOG2_E;

    if (nan || isnan(before)) {
        g->reference[row] = NAN;
    } else if (most > before) {
        g->reference[row] = ceilf(most) + HEADROOM;
        lower_sums(g, c, row, before - g->reference[row]);
    }
}

/* Row R of the piece. */
static inline void exponentials(const struct round *g, const struct piece *c, size_t r)
{
    const size_t row = c->pair * 32 + r;
    const float *at = c->logits + r / 16 * 512 + r % 16 * 16;
    const __m512 low = _mm512_load_ps(at), high = _mm512_load_ps(at + 256);
    const __m512 log2_e = _mm512_set1_ps(LOG2_E), zero = _mm512_setzero_ps();
    __m512 reference = _mm512_set1_ps(g->reference[row]);
    __m512 s_low = _mm512_fmsub_ps(low, log2_e, reference);
    __m512 s_high = _mm512_fmsub_ps(high, log2_e, reference);
    float *sum = g->sum + row * 16;

    if (__builtin_expect(_mm512_cmp_ps_mask(s_low, zero, _CMP_NLE_UQ) |
                             _mm512_cmp_ps_mask(s_high, zero, _CMP_NLE_UQ),
                         0)) {
        raise_reference(g, c, row, low, high);
        reference = _mm512_set1_ps(g->reference[row]);
        s_low = _mm512_fmsub_ps(low, log2_e, reference);
        s_high = _mm512_fmsub_ps(high, log2_e, reference);
    }
    s_low = exp2_fast(s_low);
    s_high = exp2_fast(s_high);
    _mm512_store_ps(sum,
                    _mm512_add_ps(_mm512_load_ps(sum), _mm512_add_ps(s_low, s_high)));
    if (g->exps)
        _mm512_store_si512(tile_at((struct tiles){g->exps, CUT}, row, c->panel),
                           bf16_pair(s_low, s_high));
}

/* ---- products ---- */

/* What a product fetches for the next one: LINES cache lines with every step. */
struct ahead {
    const char *at;
    size_t lines;
};

static inline void step(const struct quad *c, const uint16_t *a0, const uint16_t *a1,
                        const uint16_t *b, struct ahead *ahead)
{
    for (size_t i = 0; i < ahead->lines; i++)
        _mm_prefetch(ahead->at + 64 * i, _MM_HINT_T1);
    ahead->at += 64 * ahead->lines;
    quad_step(c, a0, a1, b, b + TILE_ELEMS);
}

/* LOGITS = pair PAIR of x times a panel, while the piece BEFORE becomes exponentials. */
static inline void logits_of(float *logits, const struct round *g, size_t pair,
                             const uint16_t *panel, struct ahead *ahead,
                             const struct piece *before)
{
    const size_t blocks = g->head->blocks, share = (32 + blocks - 1) / blocks;
    const uint16_t *a0 = g->x.at + 2 * pair * g->x.pitch * TILE_ELEMS;
    const uint16_t *a1 = a0 + g->x.pitch * TILE_ELEMS;
    const struct quad c = quad_of(logits);
    size_t r = before->logits ? 0 : 32;

    quad_zero(&c);
    for (size_t k = 0; k < blocks; k++) {
        const size_t until = r + share < 32 ? r + share : 32;

        step(&c, a0 + k * TILE_ELEMS, a1 + k * TILE_ELEMS, panel + k * PACK_ELEMS,
             ahead);
        for (; r < until; r++)
            exponentials(g, before, r);
    }
    quad_store(&c);
}

/* Columns of the last panel beyond the vocabulary: 2^-inf counts for nothing. */
static void hide_gaps(float *logits, size_t n)
{
    for (size_t r = 0; r < 32; r++)
        for (size_t i = n; i < 32; i++)
            logits[r / 16 * 512 + r % 16 * 16 + i / 16 * 256 + i % 16] = -INFINITY;
}

/* Those of 16 targets that are in N words from FIRST on. */
static inline uint32_t targets_in(const int32_t *target, size_t first, size_t n)
{
    const __m512i at =
        _mm512_sub_epi32(_mm512_load_si512(target), _mm512_set1_epi32((int32_t)first));

    /* below the first, the difference wraps to a large one */
    return _mm512_cmplt_epu32_mask(at, _mm512_set1_epi32((int32_t)n));
}

/* The logits of targets that are in PANEL. */
static inline void pick_targets(const struct round *g, const float *logits, size_t pair,
                                size_t panel)
{
    const int32_t *target = g->target + pair * 32;
    uint32_t hits = targets_in(target + 16, panel * 32, 32) << 16 |
                    targets_in(target, panel * 32, 32);

    for (; hits; hits &= hits - 1) {
        const size_t r = (size_t)__builtin_ctz(hits), i = (size_t)target[r] % 32;

        g->target_logit[pair * 32 + r] =
            logits[r / 16 * 512 + r % 16 * 16 + i / 16 * 256 + i % 16];
    }
}

/* Logits of N panels from g->cut on, to exponentials and sums. NEXT is fetched at the
 * end. */
static void cut_forward(const struct round *g, size_t n, const void *next)
{
    const size_t blocks = g->head->blocks, left = g->head->n_vocab - g->cut * 32;
    const uint16_t *panel = g->head->forward + g->cut * blocks * PACK_ELEMS;
    struct piece before = {.logits = NULL};
    size_t turn = 0;

    for (size_t p = 0; p < n; p++, panel += blocks * PACK_ELEMS) {
        struct ahead ahead = {(const char *)(panel + blocks * PACK_ELEMS),
                              (32 + g->pairs - 1) / g->pairs};

        if (p + 1 == n)
            ahead.at = next;
        for (size_t i = 0; i < g->pairs; i++, turn ^= PIECE_ELEMS) {
            float *logits = g->piece + turn;

            logits_of(logits, g, i, panel, &ahead, &before);
            pick_targets(g, logits, i, g->cut + p);
            if (left < (p + 1) * 32)
                hide_gaps(logits, left - p * 32);
            before = (struct piece){logits, i, p};
        }
    }
    for (size_t r = 0; r < 32; r++)
        exponentials(g, &before, r);
}

/* slopes += exponentials of the cut times its N panels of E */
static void cut_backward(const struct round *g, size_t n, const void *next)
{
    const size_t blocks = g->head->blocks;
    const uint16_t *e = g->head->backward + g->cut * blocks * PACK_ELEMS;

    for (size_t j = 0; j < blocks; j++, e += n * PACK_ELEMS) {
        struct ahead ahead = {(const char *)(e + n * PACK_ELEMS),
                              (32 + g->pairs - 1) / g->pairs};

        if (j + 1 == blocks)
            ahead.at = next;
        for (size_t i = 0; i < g->pairs; i++) {
            const struct quad c = quad_of(g->slopes + (i * blocks + j) * PIECE_ELEMS);
            const uint16_t *a0 = g->exps + 2 * i * CUT * TILE_ELEMS;

            if (g->cut)
                quad_load(&c);
            else
                quad_zero(&c);
            for (size_t k = 0; k < n; k++)
                step(&c, a0 + k * TILE_ELEMS, a0 + (CUT + k) * TILE_ELEMS,
                     e + k * PACK_ELEMS, &ahead);
            quad_store(&c);
        }
    }
}

/* d_x = E[target] where the target is in the cut, whose weights are still near. */
static void take_targets(const struct round *g, size_t n)
{
    const size_t blocks = g->head->blocks;
    const uint16_t *e = g->head->backward + g->cut * blocks * PACK_ELEMS;

    for (size_t first = 0; first < g->pairs * 32; first += 16)
        for (uint32_t hits = targets_in(g->target + first, g->cut * 32, n * 32); hits;
             hits &= hits - 1) {
            const size_t row = first + (size_t)__builtin_ctz(hits);
            const size_t at = (size_t)g->target[row] - g->cut * 32;
            const uint16_t *from = e + at / 32 * PACK_ELEMS + at % 32 / 2 * 32;
            float *to = g->d_x + row * blocks * 32;

            for (size_t j = 0; j < 2 * blocks; j++) {
                /* pairs of rows of E: the even one in the low half */
                const __m512i pair = _mm512_load_si512(from + j / 2 * n * PACK_ELEMS +
                                                       j % 2 * TILE_ELEMS);
                const __m512i odd = _mm512_and_si512(pair, _mm512_set1_epi32(-65536));

                _mm512_storeu_ps(
                    to + j * 16,
                    _mm512_castsi512_ps(at % 2 ? odd : _mm512_slli_epi32(pair, 16)));
            }
        }
}

/* ---- rounds ---- */

static void finish_row(const struct round *g, double *nll, size_t row, float scale)
{
    /* The base of s is what float makes of log2(e): so it cancels. */
    const double base = (double)LOG2_E;
    const float sum = _mm512_reduce_add_ps(_mm512_load_ps(g->sum + row * 16));
    const float r = g->reference[row];
    const size_t blocks = g->head->blocks;
    const float *slopes;
    float *d_x;
    __m512 by, times;

    if (nll)
        *nll = (log2((double)sum) + (double)r) / base - (double)g->target_logit[row];
    if (!g->exps)
        return;
    slopes = g->slopes + row / 32 * blocks * PIECE_ELEMS + row % 32 / 16 * 512 +
             row % 16 * 16;
    d_x = g->d_x + row * blocks * 32;
    by = _mm512_set1_ps(isfinite(r) ? 1.0f / sum : NAN);
    times = _mm512_set1_ps(scale);
    for (size_t j = 0; j < 2 * blocks; j++) {
        const __m512 s = _mm512_load_ps(slopes + j / 2 * PIECE_ELEMS + j % 2 * 256);
        const __m512 d = _mm512_fmsub_ps(s, by, _mm512_loadu_ps(d_x + j * 16));

        _mm512_storeu_ps(d_x + j * 16,
                         nll ? _mm512_mul_ps(d, times) : _mm512_setzero_ps());
    }
}

/* Rows FIRST .. FIRST + ROWS of LOSS. */
static void round_run(struct round *g, const struct tile_loss *loss, size_t first,
                      size_t rows)
{
    const size_t panels = panels_of(g->head->n_vocab), blocks = g->head->blocks;

    g->pairs = tile_round(rows) / 32;
    g->x = (struct tiles){loss->x.at + first / TILE_ROWS * loss->x.pitch * TILE_ELEMS,
                          loss->x.pitch};
    g->d_x = loss->d_x ? loss->d_x + first * blocks * 32 : NULL;
    memset(g->sum, 0, g->pairs * 32 * 16 * sizeof(*g->sum));
    for (size_t i = 0; i < g->pairs * 32; i++) {
        g->reference[i] = -INFINITY;
        g->target[i] = i < rows ? loss->target[first + i] : -1;
        assert(i >= rows ||
               (g->target[i] >= 0 && (size_t)g->target[i] < g->head->n_vocab));
    }
    if (g->exps) {
        for (g->cut = 0; g->cut < panels; g->cut += CUT) {
            const size_t n = panels - g->cut < CUT ? panels - g->cut : CUT;
            const size_t at = g->cut * blocks * PACK_ELEMS;

            cut_forward(g, n, g->head->backward + at);
            cut_backward(g, n, g->head->forward + at + n * blocks * PACK_ELEMS);
            take_targets(g, n);
        }
    } else {
        g->cut = 0;
        cut_forward(g, panels, g->head->forward);
    }
    for (size_t i = 0; i < g->pairs * 32; i++)
        finish_row(g, i < rows ? &loss->nll[first + i] : NULL, i,
                   i < rows && g->d_x ? loss->scale[first + i] : 0.0f);
}

void TILE(head_loss)(const struct tile_head *h, const struct tile_loss *loss)
{
    const size_t most = round_rows(h, loss->rows);
    struct round g = {.head = h};
    char *at = loss->scratch;

    assert((uintptr_t)at % 64 == 0 && (!loss->d_x || h->backward));
    g.piece = (float *)at;
    g.sum = g.piece + 2 * PIECE_ELEMS;
    g.reference = g.sum + most * 16;
    g.target_logit = g.reference + most;
    g.target = (int32_t *)(g.target_logit + most);
    if (loss->d_x) {
        g.exps = (uint16_t *)(g.target + most);
        g.slopes = (float *)(g.exps + most * CUT * 32);
    }
    tiles_begin();
    for (size_t row = 0; row < loss->rows; row += most)
        round_run(&g, loss, row, loss->rows - row < most ? loss->rows - row : most);
    tiles_end();
}
#endif
