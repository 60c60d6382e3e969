/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena's block comes from mmap: zeroed, page aligned, returned whole.
 */
#define _GNU_SOURCE
#include "base/arena.h"

#include <assert.h>
#include <sys/mman.h>

#include "base/error.h"

#define HUGE_PAGE ((size_t)2 << 20)

int arena_init(struct arena *a, size_t size_bytes, struct artel_error *err)
{
    size_t size = size_bytes ? size_bytes : ARENA_ALIGN;
    void *block;

    *a = (struct arena){0};
    if (size > SIZE_MAX - HUGE_PAGE)
        return error_nomem(err, size);
    size = (size + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (size >= HUGE_PAGE)
        size = (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    block =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        return error_nomem(err, size);
    if (size >= HUGE_PAGE)
        (void)madvise(block, size,
                      MADV_HUGEPAGE); /* a wish: refusal costs only speed */
    a->base = block;
    a->size = size;
    return 0;
}

void arena_release(struct arena *a)
{
    if (a->base)
        munmap(a->base, a->size);
    *a = (struct arena){0};
}

void *arena_take(struct arena *a, size_t n_bytes)
{
    const size_t take = (n_bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    char *p = NULL;

    if (a->base) {
        assert(take <= a->size - a->used);
        p = a->base + a->used;
    }
    a->used += take;
    return p;
}

float *arena_f32(struct arena *a, size_t n)
{
    return arena_take(a, n * sizeof(float));
}
