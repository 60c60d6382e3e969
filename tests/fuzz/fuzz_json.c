/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as JSON, and as a model's config.json.
 */
#include <stdint.h>

#include "base/error.h"
#include "files/json.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct artel_error err = {0};
    struct model_config config;
    json_t *v;

    if (json_parse(&v, (const char *)data, size, "fuzz", 0, &err) < 0)
        return 0;
    if (json_is_object(v))
        (void)config_from_json(&config, v, "fuzz", &err);
    json_decref(v);
    return 0;
}
