/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bf16 products on AMX tiles of 16 rows x 64 bytes.
 *
 *     A   blocks of 16 rows x 32 k, row by row          the calling thread's scratch
 *     B   panels of 32 columns; in a panel, for every 32 k, two tiles of 16 columns
 *         whose rows hold the pairs (k, k + 1) of each column
 *     C   2 x 2 tiles in registers, read from and written to where it lies
 *
 * A block of A (256 rows x 2048 k, 1 MiB) stays in L2 while the panels of B pass by; a
 * panel's successor is prefetched between the tile operations, which the CPU would
 * not do by itself across pages. What sticks out beyond C goes through a copy.
 */
#include "math/bf16.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#include <assert.h>
#include <immintrin.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define TILE_ELEMS 512 /* bf16 in a tile */
#define M_BLOCK    256
#define K_BLOCK    2048
#define SHARED_MIN                                                                     \
    ((size_t)1 << 21) /* products below which waking threads does not pay */

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

struct product {
    float *c;
    const float *a;
    const uint16_t *packed;
    size_t m, n, k;
    bool fresh; /* beta is 0 */
};

/* A block of work: rows M0 .. M0 + M, K0 .. K0 + K. */
struct block {
    size_t m0, m, k0, k;
    uint16_t *tiles; /* A: [row block of 16][k block of 32][16][32] */
};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t bytes(size_t n, size_t k)
{
    return round_up(n, 32) * round_up(k, 32) * sizeof(uint16_t);
}

/* Tiles keep their shape until another library changes it: set before each product. */
static void configure(void)
{
    struct tile_config c = {.palette = 1};

    for (size_t i = 0; i < 8; i++) {
        c.row_bytes[i] = 64;
        c.rows[i] = 16;
    }
    __asm__ volatile("" ::: "memory");
    _tile_loadconfig(&c);
}

static pthread_key_t scratch_key;

static void make_key(void)
{
    if (pthread_key_create(&scratch_key, free) != 0)
        abort();
}

/* One block of A for each thread, taken on its first product and given back at its end. */
static uint16_t *own_scratch(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    uint16_t *scratch;

    pthread_once(&once, make_key);
    scratch = pthread_getspecific(scratch_key);
    if (!scratch) {
        scratch = aligned_alloc(64, M_BLOCK * K_BLOCK * sizeof(uint16_t));
        if (!scratch || pthread_setspecific(scratch_key, scratch) != 0)
            abort(); /* 1 MiB a thread, before the first step is through */
    }
    return scratch;
}

/* 32 floats from P, those from LEFT on taken as zero. */
static inline __m512i pair_16(const float *p, size_t left)
{
    const __mmask16 low = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
    const __mmask16 high = left >= 32   ? 0xffff
                           : left <= 16 ? 0
                                        : (__mmask16)((1u << (left - 16)) - 1);

    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, p + 16),
                                        _mm512_maskz_loadu_ps(low, p));
}

/* 32 x 32 of W at PIECE, of which ROWS and COLS are there, to where W^T has them. */
static void pack_forward(uint16_t *out, const float *piece, size_t rows, size_t cols)
{
    for (size_t r = 0; r < 32; r++) {
        uint32_t *tile = (uint32_t *)out + r / 16 * (TILE_ELEMS / 2) + r % 16;
        uint32_t pair[16];

        _mm512_storeu_si512(pair, r < rows ? pair_16(piece + r * BF16_PIECE, cols)
                                           : _mm512_setzero_si512());
        for (size_t i = 0; i < 16; i++)
            tile[i * 16] = pair[i];
    }
}

/* The same to where W has them. */
static void pack_backward(uint16_t *out, const float *piece, size_t rows, size_t cols)
{
    uint16_t row[32][32];

    for (size_t r = 0; r < 32; r++)
        _mm512_storeu_si512(row[r], r < rows ? pair_16(piece + r * BF16_PIECE, cols)
                                             : _mm512_setzero_si512());
    for (size_t r = 0; r < 32; r++)
        for (size_t c = 0; c < 32; c++)
            out[c / 16 * TILE_ELEMS + r / 2 * 32 + c % 16 * 2 + r % 2] = row[r][c];
}

static void pack(void *forward, void *backward, const float *piece, size_t i, size_t j,
                 size_t n_out, size_t n_in)
{
    const size_t rows = n_out - i < 32 ? n_out - i : 32;
    const size_t out_blocks = round_up(n_out, 32) / 32,
                 in_blocks = round_up(n_in, 32) / 32;

    assert(i % 32 == 0 && j % BF16_PIECE == 0);
    for (size_t c = j; c < n_in && c < j + BF16_PIECE; c += 32) {
        const size_t cols = n_in - c < 32 ? n_in - c : 32;

        if (forward)
            pack_forward((uint16_t *)forward +
                             (i / 32 * in_blocks + c / 32) * 2 * TILE_ELEMS,
                         piece + c - j, rows, cols);
        if (backward)
            pack_backward((uint16_t *)backward +
                              (c / 32 * out_blocks + i / 32) * 2 * TILE_ELEMS,
                          piece + c - j, rows, cols);
    }
}

/* Row block I (16 rows) of A into its tiles. */
static void convert(const struct product *p, const struct block *b, size_t i)
{
    const size_t kb = round_up(b->k, 32) / 32;

    for (size_t r = 0; r < 16; r++) {
        uint16_t *out = b->tiles + i * kb * TILE_ELEMS + r * 32;

        if (16 * i + r < b->m) {
            const float *row = p->a + (b->m0 + 16 * i + r) * p->k + b->k0;

            for (size_t j = 0; j < b->k; j += 32)
                _mm512_store_si512(out + j * 16, pair_16(row + j, b->k - j));
        } else {
            for (size_t j = 0; j < b->k; j += 32)
                _mm512_store_si512(out + j * 16, _mm512_setzero_si512());
        }
    }
}

/* C of 32 x 32 with LD floats a row: A's two row blocks A0, A1 times a panel. LINES cache
 * lines of AHEAD are fetched with every step. */
static inline void tiles_2x2(float *c, size_t ld, bool fresh, const uint16_t *a0,
                             const uint16_t *a1, const uint16_t *b, size_t kb,
                             const char *ahead, size_t lines)
{
    const size_t row = ld * sizeof(float);

    /* gcc 12 does not know that tile loads read memory. */
    __asm__ volatile("" ::: "memory");
    if (fresh) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, c, row);
        _tile_loadd(1, c + 16, row);
        _tile_loadd(2, c + 16 * ld, row);
        _tile_loadd(3, c + 16 * ld + 16, row);
    }
    for (size_t i = 0; i < kb; i++) {
        _tile_loadd(6, b, 64);
        _tile_loadd(4, a0, 64);
        _tile_dpbf16ps(0, 4, 6);
        for (size_t l = 0; l < lines; l++)
            _mm_prefetch(ahead + 64 * l, _MM_HINT_T1);
        _tile_loadd(7, b + TILE_ELEMS, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a1, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        a0 += TILE_ELEMS;
        a1 += TILE_ELEMS;
        b += 2 * TILE_ELEMS;
        ahead += 64 * lines;
    }
    _tile_stored(0, c, row);
    _tile_stored(1, c + 16, row);
    _tile_stored(2, c + 16 * ld, row);
    _tile_stored(3, c + 16 * ld + 16, row);
    __asm__ volatile("" ::: "memory");
}

/* Panel J (32 columns) of the block. */
static void panel(const struct product *p, const struct block *b, size_t j)
{
    const size_t kb = round_up(b->k, 32) / 32, all = round_up(p->k, 32) / 32;
    const size_t pairs = round_up(b->m, 32) / 32,
                 wide = p->n - 32 * j < 32 ? p->n - 32 * j : 32;
    const uint16_t *tiles = p->packed + (j * all + b->k0 / 32) * 2 * TILE_ELEMS;
    const char *next = (const char *)(tiles + all * 2 * TILE_ELEMS);
    const size_t lines =
        (32 + pairs - 1) / pairs; /* a step's 2 KiB, shared by the pairs */
    const bool fresh = p->fresh && !b->k0;
    float edge[32 * 32] __attribute__((aligned(64)));

    for (size_t i = 0; i < pairs; i++) {
        const uint16_t *a = b->tiles + 2 * i * kb * TILE_ELEMS;
        const size_t tall = b->m - 32 * i < 32 ? b->m - 32 * i : 32;
        float *c = p->c + (b->m0 + 32 * i) * p->n + 32 * j;
        const char *ahead = next + i * kb * lines * 64;

        if (tall == 32 && wide == 32) {
            tiles_2x2(c, p->n, fresh, a, a + kb * TILE_ELEMS, tiles, kb, ahead, lines);
            continue;
        }
        memset(edge, 0, sizeof(edge));
        for (size_t r = 0; r < tall && !fresh; r++)
            memcpy(edge + 32 * r, c + r * p->n, wide * sizeof(float));
        tiles_2x2(edge, 32, fresh, a, a + kb * TILE_ELEMS, tiles, kb, ahead, lines);
        for (size_t r = 0; r < tall; r++)
            memcpy(c + r * p->n, edge + 32 * r, wide * sizeof(float));
    }
}

static void block_alone(const struct product *p, const struct block *b)
{
    for (size_t i = 0; i < round_up(b->m, 32) / 16; i++)
        convert(p, b, i);
    configure();
    for (size_t j = 0; j < round_up(p->n, 32) / 32; j++)
        panel(p, b, j);
    _tile_release();
}

static void block_shared(const struct product *p, const struct block *b)
{
    const size_t row_blocks = round_up(b->m, 32) / 16, panels = round_up(p->n, 32) / 32;

#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (size_t i = 0; i < row_blocks; i++)
            convert(p, b, i);
        configure();
#pragma omp for schedule(static)
        for (size_t j = 0; j < panels; j++)
            panel(p, b, j);
        _tile_release();
    }
}

static void product(float *c, float beta, const float *a, const void *packed, size_t m,
                    size_t n, size_t k)
{
    const struct product p = {c, a, packed, m, n, k, beta == 0.0f};
    const bool alone =
        omp_in_parallel() || omp_get_max_threads() == 1 || m * n * k < SHARED_MIN;

    assert(beta == 0.0f || beta == 1.0f);
    for (size_t m0 = 0; m0 < m; m0 += M_BLOCK)
        for (size_t k0 = 0; k0 < k; k0 += K_BLOCK) {
            const struct block b = {.m0 = m0,
                                    .m = m - m0 < M_BLOCK ? m - m0 : M_BLOCK,
                                    .k0 = k0,
                                    .k = k - k0 < K_BLOCK ? k - k0 : K_BLOCK,
                                    .tiles = own_scratch()};

            (alone ? block_alone : block_shared)(&p, &b);
        }
}

static const struct bf16_set set = {
    .name = "amx", .bytes = bytes, .pack = pack, .product = product};

const struct bf16_set *bf16_amx(void)
{
    return &set;
}
#elif defined(__x86_64__)
const struct bf16_set *bf16_amx(void)
{
    return NULL;
}
#endif
