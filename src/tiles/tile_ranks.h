/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Low-rank factors on tiles: what stands between a frozen product and the experts.
 *
 * Ranks of several factors stand side by side in blocks of 32 places. For one block:
 *
 *     h = x A^T            h~ = gate scale phi(h)             forward
 *     d_h~ = d_y B         d_h = gate scale phi'(h) d_h~      backward
 *     d_gate += scale <d_h~, phi(h)>
 *     dA += d_h^T x        dB += d_y^T h~
 *
 * A gate belongs to a unit (a row, or the rows of a sequence) and to an owner (an
 * expert); a row whose unit has gate 0 for the owner of a place gets 0 there.
 */
#ifndef ARTEL_TILES_TILE_RANKS_H
#define ARTEL_TILES_TILE_RANKS_H

#include "tiles/tiles.h"

#define RANK_PARTS 16 /* of a block at most: they begin at even places */

/* Gates that rule some places of a block. */
struct rank_gates {
    const float *gate;           /* (U, n_owners) */
    float *d_gate;               /* (U, n_owners), or NULL */
    const uint32_t *unit_of_row; /* (n_rows) */
    size_t n_owners, n_rows;     /* rows from n_rows on are served by nobody */
    uint32_t places;             /* a bit each */
    bool by_row;                 /* every row is a unit of its own */
};

/* Some places next to each other with the same owner. */
struct rank_part {
    uint32_t owner;
    uint8_t gates; /* index into the block's */
    uint8_t first, n;
};

struct rank_rule {
    struct rank_gates gates[3];
    struct rank_part parts[RANK_PARTS];
    size_t n_gates, n_parts;
    int32_t owner[32]; /* of each place */
    float scale[32];   /* 0 in gaps */
    uint32_t bent; /* places whose h goes through phi: below 0 it is times its SLOPE */
    float slope[32];
};

/* A, K column blocks, times B (32 K, 32), packed: [k][PACK_ELEMS]. */
struct rank_product {
    struct tiles a;
    size_t k;
    const uint16_t *b;
    size_t row, rows; /* multiples of 32 */
};

/* Where the gradient of some places of a block goes. */
struct rank_target {
    float *to; /* of the first of them: A (n, PITCH), or B (.., PITCH) a column each */
    size_t pitch;  /* floats */
    uint8_t site;  /* of B: only outputs of this site */
    uint8_t first; /* place */
    uint8_t n;
};

struct rank_block {
    const uint16_t
        *turned;      /* rank_turned of h~ or d_h: [pair of row blocks][2][TILE] */
    size_t row, rows; /* outside of them it is zero; multiples of 32 */
    const struct rank_target *targets;
    size_t n_targets;
};

/* Rows or columns that a packed block is made of. */
struct rank_rows {
    const float *row[32]; /* of A by place; NULL: a gap */
};

struct rank_columns {
    const float *b; /* B's first of these columns */
    size_t pitch;   /* rank: floats from one output to the next */
    uint8_t site, first, n;
};

struct tile_rank_set {
    /* h~ of one block; H is one column block. */
    void (*forward)(struct tiles h, const struct rank_product *x,
                    const struct rank_rule *rule);
    /* h~ and d_h, and the slopes of gates. GIVEN (rows, 32): h where it is known. */
    void (*backward)(struct tiles h, struct tiles d_h, const struct rank_product *x,
                     const float *given, const struct rank_product *d_y,
                     const struct rank_rule *rule);
    /* OUT (rows from row 0 on, pitch) = the product; only PLACES are written. */
    void (*product)(float *out, size_t pitch, const struct rank_product *p,
                    uint32_t places);
    /* h~ of given h. */
    void (*scale)(struct tiles h, const float *given, size_t row, size_t rows,
                  const struct rank_rule *rule);

    /* H, one column block, as the left side of a product over its rows. */
    void (*turn)(uint16_t *turned, struct tiles h, size_t row, size_t rows);
    /* For all blocks and BLOCKS column blocks of X, which MAP lays out (NULL: as they
     * stand). MAP with sites: B's layout, else A's. MIXED: scratch(rows) bytes. */
    void (*gradients)(const struct rank_block *blocks, size_t n_blocks, struct tiles x,
                      size_t x_blocks, const struct tile_map *map, size_t row,
                      size_t rows, void *mixed);
    size_t (*scratch)(size_t rows);

    /* DOWN [in block][PACK_ELEMS] and, not where NULL, TURNED the same at PITCH. */
    void (*pack_rows)(uint16_t *down, uint16_t *turned, size_t pitch,
                      const struct rank_rows *a, const struct tile_map *map);
    /* UP from panel PANEL of MAP on, at PITCH; TURNED, or NULL, [panel][PACK_ELEMS]. */
    void (*pack_columns)(uint16_t *up, size_t pitch, uint16_t *turned,
                         const struct rank_columns *parts, size_t n_parts,
                         const struct tile_map *map, size_t panel, size_t n_panels);

    /* Which of N elements of a row stay: bit i is set where the i-th number of
     * rng_init(SEED, STREAM) is LIMIT or more. KEPT: n / 8 bytes, rounded up to 8. */
    void (*draw_kept)(uint64_t *kept, uint64_t seed, uint64_t stream, uint32_t limit,
                      size_t n);
    /* OUT = X where kept, else 0. KEPT (rows, pitch) in the elements' own order. */
    void (*thin)(struct tiles out, struct tiles x, const struct tile_map *map,
                 const uint64_t *kept, size_t pitch, size_t row, size_t rows);
    /* OUT (rows, map->blocks * 32) += the kept of H times B [in block] at B_PITCH. */
    void (*add_kept)(float *out, struct tiles h, const uint16_t *b, size_t b_pitch,
                     const struct tile_map *map, const uint64_t *kept, size_t pitch,
                     size_t row, size_t rows);
};

/* Both NULL when not built in. */
const struct tile_rank_set *tile_rank_set_amx(void);
const struct tile_rank_set *tile_rank_set_avx512bf16(void);

/* The set that cpu_isa() allows, or NULL. */
const struct tile_rank_set *tile_rank_set(void);

#endif
