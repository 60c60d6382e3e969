/* SPDX-License-Identifier: Apache-2.0 */
/*
 * router.safetensors: the weights of a mixture's routers.
 */
#ifndef ARTEL_SAVE_ROUTER_FILE_H
#define ARTEL_SAVE_ROUTER_FILE_H

#include "experts/mixture.h"

struct artel_error;

#define ROUTER_FILE          "router.safetensors"
#define ROUTER_FILE_PREVIOUS "router.previous.safetensors"

/* The routers of digest IN_USE (NULL: none), which mixture.json names so far, stay at hand as
 * ROUTER_FILE_PREVIOUS until router_file_settle(). DIGEST gets that of the new file. */
int router_file_write(char digest[DIGEST_SIZE], const char *folder,
                      const struct mixture *m, const char *in_use,
                      struct artel_error *err);
void router_file_settle(const char *folder);

/* Fills the routers of M, whose experts are in place, from the file of DIGEST. Every tensor
 * must be there, in shape, finite, with rows in the order of the experts. */
int router_file_read(struct mixture *m, const char *folder, const char *digest,
                     struct artel_error *err);

#endif
