/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a safetensors file, every tensor read whole.
 */
#include <stdint.h>

#include "base/error.h"
#include "files/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors *s;
    struct artel_error err = {0};

    if (safetensors_parse(&s, data, size, "fuzz", &err) < 0)
        return 0;
    for (size_t i = 0; i < safetensors_count(s); i++)
        (void)tensor_check_finite(safetensors_at(s, i), &err);
    (void)safetensors_metadata(s, "format");
    safetensors_close(s);
    return 0;
}
