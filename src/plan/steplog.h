/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.jsonl of a stage: one JSON object a line, a line a step or evaluation; and the same
 * numbers for TensorBoard.
 *
 * The log is for people and plots: trouble with it is said once and never stops
 * training.
 */
#ifndef ARTEL_PLAN_STEPLOG_H
#define ARTEL_PLAN_STEPLOG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "plan/events.h"
#include "train/trainer.h"

struct steplog {
    FILE *f; /* NULL: not open */
    char *path;
    struct events events; /* not open where they are not wanted */
    void (*warn)(void *user, const char *message);
    void *user;
    bool warned, events_warned;
};

/* Lines of steps after LAST_STEP, left by a run that was killed, are taken out. */
void steplog_open(struct steplog *l, const char *folder, uint64_t last_step,
                  bool tensorboard, void (*warn)(void *user, const char *message),
                  void *user);
/* Takes LINE over. Numbers that are not finite are left out of it by the caller. */
void steplog_line(struct steplog *l, json_t *line);
/* The line of a step, new: with what labels teach the routers, with the L1 term. */
json_t *step_line(const struct step_report *r, uint64_t step, double epoch,
                  bool routers, bool l1);
/* At a checkpoint: what is in the log is on disk; a log that was moved away starts anew. */
void steplog_sync(struct steplog *l);
void steplog_close(struct steplog *l);

#endif
