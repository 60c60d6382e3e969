/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Learning-rate multipliers, by completed steps t of T with W of warm-up:
 *
 *     t < W     t / W
 *     constant  1
 *     linear    (T - t) / (T - W)
 *     cosine    (1 + cos(pi (t - W) / (T - W))) / 2
 */
#ifndef ARTEL_TRAIN_SCHEDULE_H
#define ARTEL_TRAIN_SCHEDULE_H

#include <stdint.h>

enum schedule_kind { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE };

struct schedule {
    enum schedule_kind kind;
    uint64_t warmup_steps, total_steps;
};

/* "constant", "constant_with_warmup", "linear", "cosine"; -1 where unknown. */
int schedule_from_name(const char *name);
float schedule_factor(const struct schedule *s, uint64_t steps_done);

#endif
