/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of the set of block operations.
 */
#include "base/cpu.h"
#include "tiles/tiles.h"

#if !defined(__x86_64__)
const struct tile_set *tile_set_amx(void)
{
    return NULL;
}
#endif

const struct tile_set *tile_set(void)
{
    return cpu_isa() >= CPU_AMX ? tile_set_amx() : NULL;
}

bool precision_native_bf16(void)
{
    return tile_set() != NULL;
}
