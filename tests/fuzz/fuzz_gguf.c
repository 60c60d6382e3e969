/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a GGUF file: container, values, then a configuration.
 */
#include <stdint.h>

#include "base/error.h"
#include "files/gguf.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g;
    struct artel_error err = {0};
    struct model_config config;
    struct gguf_value array, element;
    size_t cursor = 0;

    if (gguf_parse(&g, data, size, "fuzz", &err) < 0)
        return 0;
    for (size_t i = 0; i < gguf_count(g); i++)
        (void)tensor_check_finite(gguf_at(g, i), &err);
    array = gguf_get(g, "a");
    while (gguf_next(&array, &cursor, &element))
        continue;
    (void)config_from_gguf(&config, g, &err);
    gguf_close(g);
    return 0;
}
