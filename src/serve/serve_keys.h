/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of keys: one a line, blanks around it do not count; empty lines and those that
 * begin with # are passed over.
 */
#ifndef ARTEL_SERVE_SERVE_KEYS_H
#define ARTEL_SERVE_SERVE_KEYS_H

#include <stddef.h>

struct artel_error;

struct serve_keys {
    char **at; /* (n) */
    size_t n;
};

/* PATH NULL: none. ARTEL_EFORMAT SRV02 names the line of what is no key, or tells that
 * there is none in the file. */
int serve_keys_init(struct serve_keys *k, const char *path, struct artel_error *err);
void serve_keys_release(struct serve_keys *k);

#endif
