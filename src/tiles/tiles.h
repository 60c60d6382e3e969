/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block operations of the bf16 step, over activations that live in tiles.
 *
 * A tile is 16 rows x 32 columns of bf16, 1 KiB, so that a tile load reads one
 * stretch of memory. A matrix of T rows is an array of tiles, row block by row
 * block. Weights are packed for the right side of a product: for 32 of K and 32
 * columns two tiles of 16 columns, whose 16 rows hold pairs (k, k + 1) of each column.
 *
 *     tiles    [row block][column block][16][32]
 *     packed   [panel of 32 columns][k block][2][16][16][2]
 *
 * Rows come in pairs of row blocks: from T to the next multiple of 32 every operation
 * finds zeros and leaves zeros. Sums are float. A row's result depends on that row
 * alone (attention: on its sequence), to the bit.
 */
#ifndef ARTEL_TILES_TILES_H
#define ARTEL_TILES_TILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tiles/tile_shape.h"

#define TILE_ROWS  16
#define TILE_COLS  32
#define TILE_ELEMS 512
#define PAIR_ROWS  32   /* rows of a pair of row blocks */
#define PACK_ELEMS 1024 /* bf16 of a packed 32 x 32 */

/* A view of a matrix in tiles; AT may point into the middle of its columns. */
struct tiles {
    uint16_t *at;
    size_t pitch; /* tiles from one row block to the next */
};

static inline size_t tile_round(size_t n) /* to whole blocks of 32 */
{
    return (n + 31) / 32 * 32;
}

static inline size_t tile_elems(size_t rows, size_t blocks)
{
    return tile_round(rows) / TILE_ROWS * blocks * TILE_ELEMS;
}

/* The 32 places of a row in a column block. */
static inline uint16_t *tile_at(struct tiles t, size_t row, size_t block)
{
    return t.at + ((row / TILE_ROWS) * t.pitch + block) * TILE_ELEMS +
           row % TILE_ROWS * TILE_COLS;
}

static inline struct tiles tiles_from(struct tiles t, size_t block)
{
    return (struct tiles){t.at + block * TILE_ELEMS, t.pitch};
}

/* Where (k, column) of a 32 x 32 block stands in its packed form. */
static inline size_t pack_at(size_t k, size_t column)
{
    return column / 16 * TILE_ELEMS + k / 2 * 32 + column % 16 * 2 + k % 2;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t bf16_of(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1)) >> 16);
}

static inline float bf16_to(uint16_t x)
{
    const uint32_t u = (uint32_t)x << 16;
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

/* One active block of stacked ranks: its place in H and in the packed operand. */
struct tile_stacked {
    uint16_t h, stack;
};

/* The stacked blocks that panels up to END take. */
struct tile_share {
    size_t end;
    size_t n;
    const struct tile_stacked *blocks; /* (n) */
};

/* [A, H] [B ; LOW]: low-rank blocks ride as more of K, LOW and then MORE. */
struct tile_low {
    struct tiles h;
    const uint16_t *packed;          /* [panel][stack][PACK_ELEMS] */
    size_t stack;                    /* blocks of a panel in PACKED */
    const struct tile_share *shares; /* by panel, ascending ends */
};

struct tile_product {
    struct tiles a;
    size_t k;          /* column blocks of A */
    const uint16_t *b; /* [panel][k][PACK_ELEMS] */
    size_t b_pitch;    /* bf16 from one panel to the next; k * PACK_ELEMS where whole */
    size_t panels;
    const struct tile_low *low, *more; /* or NULL each */
    const float *plus;                 /* (rows, plus_pitch) added, or NULL */
    size_t plus_pitch;                 /* floats; a multiple of 32 */
    size_t row, rows;                  /* the rows it works on; multiples of 32 */
};

/* Turns of rope by position: (n_positions, half), half = 16 * qk_blocks, gaps (1, 0). */
struct tile_rope {
    const float *cos, *sin;
    size_t half;
    const int32_t *pos; /* (rows) */
};

struct tile_heads {
    size_t n_heads, n_kv_heads, qk_blocks, v_blocks;
    float scale; /* 1 / sqrt(head size) */
};

/* Keys and values that lie in float beside the tiles: a session's cache. */
struct tile_cache {
    const float *k, *v; /* (n, pitch) in natural order; v may alias nothing */
    size_t pitch;       /* floats a position */
    size_t n;           /* keys, those of the queries included: the last */
    /* Positions lie in blocks of BLOCK rows, a multiple of 32: the I-th is BLOCKS[i]. NULL:
     * one behind the other. */
    const uint32_t *blocks;
    size_t block;
    const int32_t
        *k_index; /* (n_kv_heads * qk_blocks * 32) place -> element of a row, -1 */
    const int32_t *v_index; /* (n_kv_heads * v_blocks * 32) */
};

/* One sequence of a row block. QKV holds q heads, k heads, v heads in this order. */
struct tile_attention {
    struct tile_heads heads;
    struct tiles qkv;
    struct tiles o; /* n_heads * v_blocks columns */
    float *lse;     /* (n_heads, lse_pitch): log2 of the sum of 2^scores; or NULL */
    size_t lse_pitch;
    size_t row, n;                  /* its rows; any */
    const struct tile_cache *cache; /* or NULL: keys are the sequence's own rows */
    size_t part, n_parts;           /* forward: of the blocks of 32 queries, those with
                             index % n_parts == part */
    void *scratch;                  /* of the calling thread */
};

struct tile_attention_slopes {
    struct tiles d_o;   /* as o */
    struct tiles d_qkv; /* as qkv; rows of the sequence are overwritten, q and k
                           turned back by ROPE */
    struct tile_rope rope;
};

struct tile_head {
    size_t blocks;      /* of D */
    size_t n_vocab;     /* V */
    uint16_t *forward;  /* the layout is tile_head's own (head_pack) */
    uint16_t *backward; /* NULL: no slopes */
};

/* What the rows of one chunk predict. */
struct tile_loss {
    struct tiles x;        /* (rows, blocks) after the final norm */
    size_t rows;           /* any; tiles are padded with zero rows */
    const int32_t *target; /* (rows) */
    const float *scale;    /* (rows) of d_x */
    double *nll;           /* (rows) -log p[target] */
    float *d_x;            /* (tile_round(rows), blocks * 32) overwritten, or NULL */
    void *scratch;
};

/* The operations. */
struct tile_set {
    const char *name;

    /* A 32 x 32 piece of W (outputs, inputs), rows of PITCH floats, to its packed form
     * for y = x W^T (inputs along K) and for d_x = d_y W (outputs along K). */
    void (*pack_forward)(uint16_t *out, const float *w, size_t pitch);
    void (*pack_backward)(uint16_t *out, const float *w, size_t pitch);

    /* OUT = x * gain / rms(x), INV_RMS (rows); X (rows, blocks * 32), gaps zero. */
    void (*norm)(struct tiles out, float *inv_rms, const float *x, const float *gain,
                 float eps, size_t dim, size_t blocks, size_t row, size_t rows);
    /* D_X += slope of the norm; XN its output; D_XN as X. OUT = bf16 of D_X, if its AT
     * is not NULL. GAIN has no zeros (tile_gain). */
    void (*norm_backward)(struct tiles out, float *d_x, const float *d_xn,
                          struct tiles xn, const float *inv_rms, const float *gain,
                          size_t dim, size_t blocks, size_t row, size_t rows);
    /* SUM (32) += rows ROW .. ROW + N of one column block, one after the other */
    void (*sum_rows)(float *sum, struct tiles t, size_t row, size_t n);
    /* float rows (rows, pitch) to tiles of BLOCKS blocks */
    void (*to_tiles)(struct tiles out, const float *x, size_t pitch, size_t blocks,
                     size_t row, size_t rows);

    /* Place i of rows ROW .. of T to element INDEX[i] of rows 0 .. of X; -1: nowhere. Any
     * rows. */
    void (*spread)(float *x, size_t pitch, struct tiles t, size_t blocks,
                   const int32_t *index, size_t row, size_t rows);

    /* Products and what becomes of their 32 x 32 pieces. */
    void (*product_tiles)(const struct tile_product *p, struct tiles out);
    /* panels below TURNED are q and k and turned by rope */
    void (*product_rope)(const struct tile_product *p, struct tiles out, size_t turned,
                         size_t head_blocks, const struct tile_rope *rope);
    void (*product_float)(const struct tile_product *p, float *out, size_t pitch);
    void (*product_add)(const struct tile_product *p, float *x, size_t pitch);
    /* GATE_UP: the pieces; ACT: silu(gate) * up, 16 columns a panel */
    void (*product_swiglu)(const struct tile_product *p, struct tiles gate_up,
                           struct tiles act);
    /* pieces are d_act; D_GATE_UP from them and GATE_UP (may be the same tiles) */
    void (*product_swiglu_backward)(const struct tile_product *p,
                                    struct tiles d_gate_up, struct tiles gate_up);
    /* ACT again from GATE_UP, BLOCKS of act */
    void (*swiglu)(struct tiles act, struct tiles gate_up, size_t blocks, size_t row,
                   size_t rows);

    size_t (*attention_scratch)(const struct tile_heads *h, size_t n_queries,
                                size_t n_keys); /* bytes */
    void (*attention)(const struct tile_attention *a);
    void (*attention_backward)(const struct tile_attention *a,
                               const struct tile_attention_slopes *s);

    size_t (*head_bytes)(size_t blocks, size_t n_vocab, bool backward);
    /* Rows FIRST .. FIRST + 32 of the vocabulary, or fewer at its end: W (n, D) floats. */
    void (*head_pack)(const struct tile_head *h, const float *w, size_t dim,
                      size_t first, size_t n);
    /* bytes, for up to ROWS rows */
    size_t (*head_scratch)(const struct tile_head *h, size_t rows, bool backward);
    void (*head_loss)(const struct tile_head *h, const struct tile_loss *loss);
};

/* Both NULL when not built in. */
const struct tile_set *tile_set_amx(void);
const struct tile_set *tile_set_avx512bf16(void);

/* The set that cpu_isa() allows, or NULL. */
const struct tile_set *tile_set(void);

/* Does this CPU multiply bf16 natively, by AMX or AVX-512-BF16: is there a set? */
bool precision_native_bf16(void);
/* And is that faster than fp32? */
bool precision_fast_bf16(void);

#endif
