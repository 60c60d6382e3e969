/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 as 64 hex digits, by libcrypto.
 */
#ifndef ARTEL_FILES_DIGEST_H
#define ARTEL_FILES_DIGEST_H

#include <stddef.h>

#define DIGEST_SIZE 65 /* 64 hex digits and the end */

struct artel_error;
struct digest; /* a running sum */

struct digest *digest_new(void); /* NULL: no memory */
void digest_add(struct digest *d, const void *data, size_t n);
void digest_finish(struct digest *d, char out[DIGEST_SIZE]); /* frees D */

int digest_file(char out[DIGEST_SIZE], const char *path, struct artel_error *err);
void digest_bytes(char out[DIGEST_SIZE], const void *data, size_t n);

#endif
