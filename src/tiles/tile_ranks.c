/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of the set of low-rank operations.
 */
#include "base/cpu.h"
#include "tiles/tile_ranks.h"

const struct tile_rank_set *tile_rank_set(void)
{
    const enum cpu_isa isa = cpu_isa();

    if (isa >= CPU_AMX && tile_rank_set_amx())
        return tile_rank_set_amx();
    return isa >= CPU_AVX512BF16 ? tile_rank_set_avx512bf16() : NULL;
}
