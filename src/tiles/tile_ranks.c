/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of the set of low-rank operations.
 */
#include "base/cpu.h"
#include "tiles/tile_ranks.h"

#if !defined(__x86_64__)
const struct tile_rank_set *tile_rank_set_amx(void)
{
    return NULL;
}
#endif

const struct tile_rank_set *tile_rank_set(void)
{
    return cpu_isa() >= CPU_AMX ? tile_rank_set_amx() : NULL;
}
