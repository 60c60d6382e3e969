/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random weights in the number formats of models, and the shapes that benches use.
 * A block is what its format calls one: valid, finite, all values within 1/16 of zero.
 */
#ifndef ARTEL_CLI_BENCH_RANDOM_H
#define ARTEL_CLI_BENCH_RANDOM_H

#include "files/dtype.h"

struct model_config;

#define RANDOM_FORMATS "F32|F16|BF16|Q8_0|Q4_0|Q4_1|Q4_K"

/* "135m" (SmolLM2), "1b" (Llama 3.2), "7b" (Llama 2): -1 where there is no such shape. */
int random_shape(struct model_config *c, const char *name);

/* One of RANDOM_FORMATS by name, or N_DTYPES. */
enum dtype random_format(const char *name);
/* What a row of N_IN weights has where WANTED is asked for: Q5_0 where rows are no whole
 * blocks of 256, which is llama.cpp's choice too. */
enum dtype random_row_format(enum dtype wanted, size_t n_in);

/* N blocks of format T, from block FIRST of stream STREAM; the same blocks however the
 * stream is cut into calls at multiples of RANDOM_CHUNK. All threads share the work. */
#define RANDOM_CHUNK 8192
void random_blocks(void *out, enum dtype t, size_t n, uint64_t stream, size_t first);

#endif
