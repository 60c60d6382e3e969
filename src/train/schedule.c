/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The multipliers are those of the Hugging Face Trainer, t counted the same way.
 */
#include "train/schedule.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    enum schedule_kind kind;
} names[] = {
    {"constant", SCHEDULE_CONSTANT},
    {"constant_with_warmup", SCHEDULE_CONSTANT},
    {"linear", SCHEDULE_LINEAR},
    {"cosine", SCHEDULE_COSINE},
};

int schedule_from_name(const char *name)
{
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(names[i].name, name))
            return (int)names[i].kind;
    return -1;
}

float schedule_factor(const struct schedule *s, uint64_t t)
{
    const uint64_t T = s->total_steps, W = s->warmup_steps;
    const double span = T > W ? (double)(T - W) : 1.0;
    double done;

    if (t < W)
        return (float)((double)t / (double)W);
    done = (double)(t - W) / span;
    if (done > 1.0)
        done = 1.0;
    switch (s->kind) {
    case SCHEDULE_LINEAR:
        return (float)(1.0 - done);
    case SCHEDULE_COSINE:
        return (float)(0.5 * (1.0 + cos(3.14159265358979323846 * done)));
    default:
        return 1.0f;
    }
}
