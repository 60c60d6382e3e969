/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a text spell a control token? It stays text; this is for counting.
 */
#ifndef ARTEL_DATA_FORGED_H
#define ARTEL_DATA_FORGED_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/tokenizer.h"

struct artel_error;

struct forged {
    const struct tokenizer *tok; /* borrowed */
    struct ids control;          /* tokens of two bytes and more */
    uint8_t pairs[8192];         /* bit set: some control token begins with these two */
};

int forged_init(struct forged *f, const struct tokenizer *tok, struct artel_error *err);
void forged_release(struct forged *f);
bool forged_in(const struct forged *f, const char *text, size_t n);
/* In the content of any message. */
bool forged_in_messages(const struct forged *f, const json_t *messages);

#endif
