/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of the set of block operations.
 */
#include "base/cpu.h"
#include "tiles/tiles.h"

const struct tile_set *tile_set(void)
{
    const enum cpu_isa isa = cpu_isa();

    if (isa >= CPU_AMX && tile_set_amx())
        return tile_set_amx();
    return isa >= CPU_AVX512BF16 ? tile_set_avx512bf16() : NULL;
}

bool precision_native_bf16(void)
{
    return tile_set() != NULL;
}

bool precision_fast_bf16(void)
{
    const struct tile_set *set = tile_set();

    return set && (set == tile_set_amx() || cpu_fast_bf16_dots());
}
