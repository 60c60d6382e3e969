/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors: u64 header length, JSON header, data. Reading trusts nothing;
 * writing gives the same bytes as the reference writer for the same content.
 */
#ifndef ARTEL_FILES_SAFETENSORS_H
#define ARTEL_FILES_SAFETENSORS_H

#include "files/tensor_out.h"

struct artel_error;
struct safetensors;

/* The file stays mapped until the close. Errors ST01.. (ARTEL_EFORMAT), IO (ARTEL_EIO). */
int safetensors_open(struct safetensors **out, const char *path,
                     struct artel_error *err);
/* The same over memory that outlives the result; NAME stands for the path in errors. */
int safetensors_parse(struct safetensors **out, const void *data, size_t size,
                      const char *name, struct artel_error *err);
void safetensors_close(struct safetensors *s);

size_t safetensors_count(const struct safetensors *s);
const struct tensor *safetensors_at(const struct safetensors *s,
                                    size_t i); /* by offset */
const struct tensor *safetensors_find(const struct safetensors *s, const char *name);
size_t safetensors_bytes(const struct safetensors *s); /* of the file */
/* Value of a key of __metadata__, or NULL. */
const char *safetensors_metadata(const struct safetensors *s, const char *key);

struct key_value {
    const char *key, *value;
};

/* Write TENSORS (in any order) and METADATA; atomic as files/write.h says. */
int safetensors_write(const char *path, const struct tensor *tensors, size_t n_tensors,
                      const struct key_value *metadata, size_t n_metadata,
                      struct artel_error *err);
/* The same where tensors without data come from MAKER, in the order of the file; the
 * metadata is "format": "pt". */
int safetensors_write_made(const char *path, const struct tensor *tensors,
                           size_t n_tensors, const struct tensor_maker *maker,
                           struct artel_error *err);

#endif
