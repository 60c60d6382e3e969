/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a recipe: what is read must print, and what was printed must read.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct yaml_node *root, *again;
    struct artel_error err = {0};
    char *text;

    if (yaml_parse(&root, (const char *)data, size, "fuzz", &err) < 0)
        return 0;
    if (yaml_print(&text, root, &err) == 0) {
        if (yaml_parse(&again, text, strlen(text), "printed", &err) < 0)
            abort();
        yaml_close(again);
        free(text);
    }
    (void)yaml_override(root, "a.b=[1, x]", &err);
    yaml_close(root);
    return 0;
}
