/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing GGUF v3: first the keys are gathered, then all is written at once,
 * atomically as files/write.h says.
 */
#ifndef ARTEL_FILES_GGUF_WRITE_H
#define ARTEL_FILES_GGUF_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "files/tensor_out.h"

struct artel_error;
struct gguf;
struct gguf_keys; /* keys and values of a file to be */

int gguf_keys_open(struct gguf_keys **out, struct artel_error *err);
void gguf_keys_close(struct gguf_keys *k);

/* Each key once. What goes wrong here is told by gguf_write(). */
void gguf_keys_text(struct gguf_keys *k, const char *key, const char *value);
void gguf_keys_u32(struct gguf_keys *k, const char *key, uint32_t value);
void gguf_keys_f32(struct gguf_keys *k, const char *key, float value);
/* Every key of G byte for byte, but for EXCEPT (may be NULL) and those that make it one
 * part of a set. The data of the file will be aligned as G says. */
void gguf_keys_copy(struct gguf_keys *k, const struct gguf *g, const char *except);

/* TENSORS in this order; those without data come from MAKER. */
int gguf_write(const char *path, struct gguf_keys *keys, const struct tensor *tensors,
               size_t n_tensors, const struct tensor_maker *maker,
               struct artel_error *err);

#endif
