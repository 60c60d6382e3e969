/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pointer is copied in and out, since a pointer to any pointer is no type of C.
 */
#include "base/list.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

int list_grow(void *list, size_t n, size_t size, struct artel_error *err)
{
    void *more, *old;

    memcpy(&old, list, sizeof(old));
    more = realloc(old, n ? n * size : 1);
    if (!more)
        return error_nomem(err, n * size);
    memcpy(list, &more, sizeof(more));
    return 0;
}
