/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a recipe. One that is accepted, printed and read again must say the
 * same; one that is refused is wrong use, never anything else.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "artel.h"
#include "plan/recipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct artel_error err = {0};
    struct recipe *r, *back;
    char *first, *second;
    int rc = recipe_parse(&r, (const char *)data, size, "fuzz", "/work", NULL, 0, &err);

    if (rc < 0) {
        if ((rc != ARTEL_EUSAGE && rc != ARTEL_ELIMIT) || err.exit != -rc || !*err.code)
            abort();
        return 0;
    }
    if (recipe_print(&first, r, &err) < 0)
        abort();
    if (recipe_parse(&back, first, strlen(first), "printed", "/", NULL, 0, &err) < 0)
        abort();
    if (recipe_print(&second, back, &err) < 0 || strcmp(first, second) != 0)
        abort();
    free(first);
    free(second);
    recipe_close(back);
    recipe_close(r);
    return 0;
}
