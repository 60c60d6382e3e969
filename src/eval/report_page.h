/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page of an evaluation, section by section. A section that has nothing to show
 * writes nothing and is not there; none shows a number that the evaluation does not have.
 *
 * One file, no script, nothing fetched. Every plot's numbers stand in a table beside it.
 */
#ifndef ARTEL_EVAL_REPORT_PAGE_H
#define ARTEL_EVAL_REPORT_PAGE_H

#include "eval/compared.h"
#include "eval/html.h"

/* What a section writes to, and from. */
struct report {
    FILE *f;
    const struct compared *c;
};

extern const char palette_css[], palette_dark_css[], report_css[]; /* palette.css ... */

void report_overview(const struct report *r);
void report_perplexity(const struct report *r);
void report_score(const struct report *r);
void report_measures(const struct report *r);
void report_general(const struct report *r);
void report_confusion(const struct report *r);
void report_layers(const struct report *r);
void report_training(const struct report *r);
void report_origin(const struct report *r);

/* Marks and names of all methods. */
void report_legend(const struct report *r);

/* All of it: a memory stream's text in *OUT. */
int report_page(char **out, const struct compared *c, struct artel_error *err);

#endif
