/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A 32 x 32 piece of a frozen weight matrix to the right side of a product.
 */
#include "tiles/tile_products.h"

#if defined(__AVX512BF16__)
#include "tiles/tile_avx512bf16.h"

static inline __m512i row_of(const float *w, size_t pitch, size_t r)
{
    return bf16_pair(_mm512_loadu_ps(w + r * pitch),
                     _mm512_loadu_ps(w + r * pitch + 16));
}

/* Outputs are columns, inputs run along K: pairs of a row already stand together. */
void bf16_pack_forward(uint16_t *out, const float *w, size_t pitch)
{
    for (size_t half = 0; half < 2; half++) {
        __m512i r[16];

        for (size_t i = 0; i < 16; i++)
            r[i] = row_of(w, pitch, 16 * half + i);
        tile_transpose(r);
        for (size_t i = 0; i < 16; i++)
            _mm512_store_si512(out + half * TILE_ELEMS + i * 32, r[i]);
    }
}

/* Inputs are columns, outputs run along K: two rows are laid side by side. */
void bf16_pack_backward(uint16_t *out, const float *w, size_t pitch)
{
    for (size_t i = 0; i < 16; i++) {
        __m512i low, high;

        tile_interleave(row_of(w, pitch, 2 * i), row_of(w, pitch, 2 * i + 1), &low,
                        &high);
        _mm512_store_si512(out + i * 32, low);
        _mm512_store_si512(out + TILE_ELEMS + i * 32, high);
    }
}
#endif
