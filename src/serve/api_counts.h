/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /metrics tells beside the engine's and the server's own numbers.
 */
#ifndef ARTEL_SERVE_API_COUNTS_H
#define ARTEL_SERVE_API_COUNTS_H

#include <stdbool.h>
#include <stddef.h>

struct api_counts;

enum api_histogram {
    SECONDS_FIRST_TOKEN,
    SECONDS_BETWEEN_TOKENS,
    SECONDS_REQUEST,
    N_HISTOGRAMS
};

struct api_counts *counts_open(void); /* NULL: no memory; held once */
struct api_counts *counts_hold(struct api_counts *c);
void counts_let_go(struct api_counts *c); /* the last one frees it; NULL is fine */
/* From any thread. N times VALUE. */
void counts_observe(struct api_counts *c, enum api_histogram h, double value, size_t n);
/* EXPERT has answered once more. Names beyond a bound are counted together. */
void counts_answer(struct api_counts *c, const char *expert);
/* A text in Prometheus' form to be freed, of these numbers alone; NULL: no memory. */
char *counts_text(struct api_counts *c);

#endif
