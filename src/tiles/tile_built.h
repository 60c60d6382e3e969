/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which set a source is being built for. Files named *_bf16.c are compiled once for AMX
 * and once for AVX-512-BF16 (cmake/targets.cmake): their text is the same, the names of
 * what they define end in the set's, and tile_quad_bf16.h multiplies by its instructions.
 */
#ifndef ARTEL_TILES_TILE_BUILT_H
#define ARTEL_TILES_TILE_BUILT_H

#if defined(TILES_BY_AMX)
#define TILE(name) name##_amx
#define TILE_NAME  "amx"
#else
#define TILE(name) name##_avx512bf16
#define TILE_NAME  "avx512bf16"
#endif

/* The compiler was told to use the set's instructions; clang spells AMX's otherwise. */
#if defined(__AVX512BF16__) &&                                                         \
    (!defined(TILES_BY_AMX) || defined(__AMX_BF16__) || defined(__AMXBF16__))
#define TILE_BUILT
#endif

#endif
