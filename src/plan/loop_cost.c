/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stage will take, known before it starts.
 */
#include "plan/loop.h"

static size_t trained_parameters(const struct loop_input *in)
{
    size_t n = in->train_routers ? in->mixture->n_router_params : 0;

    for (size_t e = 0; e < in->mixture->n_experts; e++)
        if (in->trained[e])
            n += in->mixture->experts[e].n_params;
    return n;
}

size_t loop_memory(const struct loop_input *in)
{
    return trainer_bytes(in->model, in->mixture, in->trained, in->train_routers,
                         &in->train);
}

/* Parameters and two moments in F32; the checkpoints kept, one being written, the best
 * one and its successor, and the result. */
uint64_t loop_disk(const struct loop_input *in)
{
    const uint64_t values = trained_parameters(in) * sizeof(float);
    const uint64_t copies =
        in->settings->save_total_limit + 1 + (in->settings->load_best ? 2 : 0);

    return 3 * values * copies + values + (1 << 20);
}
