/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mixture's own stack: laid out once its experts are complete, dropped when they change.
 */
#include <stdlib.h>

#include "base/error.h"
#include "experts/stack.h"

struct owned_stack {
    struct expert_stack stack; /* first: a stack's address is its owner's */
    struct arena arena;
};

void mixture_unstack(struct mixture *m)
{
    struct owned_stack *own = (struct owned_stack *)m->stack;

    if (own)
        arena_release(&own->arena);
    free(own);
    m->stack = NULL;
}

int mixture_stack(struct mixture *m, const struct tile_shape *shape, bool training,
                  struct artel_error *err)
{
    struct owned_stack *own = (struct owned_stack *)m->stack;
    struct arena arena;
    const int rc = arena_init(&arena, expert_stack_bytes(m, shape, training), err);

    if (rc < 0)
        return rc;
    if (!own)
        own = calloc(1, sizeof(*own));
    if (!own) {
        arena_release(&arena);
        return error_nomem(err, sizeof(*own));
    }
    arena_release(&own->arena);
    own->arena = arena;
    expert_stack_init(&own->stack, &own->arena, m, shape, training);
    expert_stack_pack(&own->stack, NULL);
    m->stack = &own->stack;
    return 0;
}
