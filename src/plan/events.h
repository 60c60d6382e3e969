/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TensorBoard's event file of a stage: the numbers of log.jsonl as curves.
 *
 * Event files are only appended to. A run that continues begins a new one, which
 * says from which step it counts; TensorBoard then forgets what a killed run wrote
 * beyond its last checkpoint. Trouble never stops training.
 */
#ifndef ARTEL_PLAN_EVENTS_H
#define ARTEL_PLAN_EVENTS_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

struct events {
    FILE *f; /* NULL: not open */
    char *folder, *path;
    uint64_t last_step;
};

/* Steps after LAST_STEP come now. 0, or -1 with errno; events_sync() tries again. */
int events_open(struct events *e, const char *folder, uint64_t last_step);
/*
 * Every number in LINE but "step" at that step, now: "eval_loss" as the curve eval/loss,
 * any other NAME of a line without such as train/NAME. Nothing where E is not open. 0, or -1 with errno: E is
 * then closed, for what follows half a record cannot be read.
 */
int events_line(struct events *e, const json_t *line);
/* What is in the file is on disk; a file that failed or was moved away is followed by a
 * new one. */
int events_sync(struct events *e);
void events_close(struct events *e);

#endif
