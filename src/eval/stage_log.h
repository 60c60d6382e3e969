/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stage of training left: the numbers of its log.jsonl over its steps, and the
 * summary in stage.json. Lines that cannot be read are passed over: a log is for
 * looking at.
 */
#ifndef ARTEL_EVAL_STAGE_LOG_H
#define ARTEL_EVAL_STAGE_LOG_H

#include <jansson.h>
#include <stddef.h>

struct series {
    double *step, *value; /* (n) finite; owned */
    size_t n, room;
};

enum stage_series {
    SERIES_LOSS,
    SERIES_EVAL_LOSS,
    SERIES_ROUTER_ACCURACY,
    SERIES_EVAL_ROUTER_ACCURACY,
    N_SERIES
};

struct stage_log {
    char *name; /* "expert-math", "moa-router/refresh"; owned */
    struct series series[N_SERIES];
    json_t *summary; /* NULL: none; owned */
};

/* All stages in the train folder of the run that the mixture at PATH belongs to, by name.
 * *OUT (n) is owned; a mixture that is in no run has none. 0 or ARTEL_ELIMIT. */
int stage_logs_read(struct stage_log **out, size_t *n, const char *path);
void stage_logs_free(struct stage_log *logs, size_t n);

#endif
