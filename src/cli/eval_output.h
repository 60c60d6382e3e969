/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the results of `artel eval` go, and results of before that are shown along.
 */
#ifndef ARTEL_CLI_EVAL_OUTPUT_H
#define ARTEL_CLI_EVAL_OUTPUT_H

#include "cli/options.h"
#include "cli/report.h"

#define EVAL_TARGETS 4 /* JSON, Markdown, CSV, HTML */

struct eval_output {
    const char *markdown, *csv, *html; /* FILE or "-", or NULL */
    const char *results;               /* a folder for all four, or NULL */
    struct words from;                 /* results of before */
    const char *target[EVAL_TARGETS];  /* after eval_output_check() */
    char path[EVAL_TARGETS][4096];     /* those within the folder */
};
void eval_output_options(struct options *o, struct eval_output *e);

/* Can all targets be written, and is none an input? Makes the folder. An exit code. */
int eval_output_check(struct eval_output *e, const struct common *c,
                      const struct words *inputs);

/* The results with those of before in front of them. *JSON is freed with artel_free() and may
 * be NULL before: nothing was measured now. An exit code. */
int eval_output_join(char **json, const struct eval_output *e);

/* The table on standard output, unless that is taken, and everything that was asked for.
 * An exit code. */
int eval_output_write(const struct eval_output *e, const char *json);

#endif
