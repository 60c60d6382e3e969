/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two questions about a path: where does its text lead, and where do its links.
 */
#include "save/beneath.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

bool path_stays(const char *relative, size_t up)
{
    size_t depth = up;

    if (!*relative || *relative == '/')
        return false;
    while (*relative) {
        const size_t n = strcspn(relative, "/");

        if (n == 2 && !strncmp(relative, "..", 2)) {
            if (!depth)
                return false;
            depth--;
        } else if (n && !(n == 1 && *relative == '.')) {
            depth++;
        }
        relative += n + strspn(relative + n, "/");
    }
    return true;
}

int path_beneath(const char *folder, const char *path, const char *code,
                 struct artel_error *err)
{
    char *outer = realpath(folder, NULL);
    char *inner = outer ? realpath(path, NULL) : NULL;
    size_t n;
    int rc = 0;

    if (!outer || !inner) {
        rc = error_errno(err, outer ? path : folder, "cannot be found");
        goto done;
    }
    n = strlen(outer);
    n -= n == 1; /* the root itself */
    if (strncmp(inner, outer, n) != 0 || (inner[n] != '/' && inner[n] != '\0'))
        rc = error_in(err,
                      error_set(err, ARTEL_EFORMAT, code, NULL,
                                "a link leads out of the folder; copy what it names to "
                                "where the link is"),
                      path);
done:
    free(outer);
    free(inner);
    return rc;
}
