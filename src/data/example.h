/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One training or test row as token ids: what goes in, which tokens are to be
 * predicted, and which tokens tell a router what the row is about.
 */
#ifndef ARTEL_DATA_EXAMPLE_H
#define ARTEL_DATA_EXAMPLE_H

#include <stddef.h>
#include <stdint.h>

struct example {
    const int32_t *ids; /* (n) prompt then answer */
    size_t n;           /* tokens in all */
    size_t n_prompt;    /* tokens before the (last) answer; plain text: 0 */
    const unsigned char
        *loss; /* (n) 1: this token is predicted with loss (as a target);
                                * the first token never is: nothing precedes it */
    size_t pool_first,
        pool_n;      /* tokens of the last user turn, the one before the answer
                                * that carries loss; plain text: its first 64; n > 0 */
    size_t n_loss;   /* tokens that carry loss */
    uint32_t domain; /* index given by the caller */
    size_t row;      /* physical line (array: index) in the file, from 1 */
};

#endif
