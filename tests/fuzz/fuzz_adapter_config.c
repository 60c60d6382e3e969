/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as the adapter_config.json of a stranger, applied to a small base. What is
 * accepted must give ranks and scales that can be computed with.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/error.h"
#include "files/json.h"
#include "save/peft_config.h"

#define N_LAYERS 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct model_config c = {.n_layers = N_LAYERS,
                                   .dim = 8,
                                   .n_heads = 2,
                                   .n_kv_heads = 1,
                                   .head_dim = 4,
                                   .ffn_dim = 12};
    struct module_plan plan[N_LAYERS * N_SITES];
    struct artel_error err = {0};
    struct peft_config p;
    json_t *root;

    if (json_parse(&root, (const char *)data, size, "fuzz", 0, &err) < 0)
        return 0;
    if (json_is_object(root) && peft_config_parse(&p, root, &err) == 0) {
        if (peft_config_plan(plan, &p, &c, &err) == 0)
            for (size_t i = 0; i < N_LAYERS * N_SITES; i++)
                if (plan[i].rank && (plan[i].rank > 12 || !isfinite(plan[i].scale)))
                    abort();
        peft_config_release(&p);
    }
    json_decref(root);
    return 0;
}
