/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of safetensors: one entry of the header. Used by safetensors*.c only.
 */
#ifndef ARTEL_FILES_SAFETENSORS_ENTRY_H
#define ARTEL_FILES_SAFETENSORS_ENTRY_H

#include "files/dtype.h"
#include "files/json_scan.h"

struct artel_error;

struct safetensors_entry {
    struct tensor tensor;
    size_t begin, end; /* in the data */
    size_t at;         /* of the name, in the header */
    size_t bits;       /* of an element */
};

/* The fields of the object just opened; the name of E's tensor is set already. */
int safetensors_read_fields(struct safetensors_entry *e, struct json_scan *scan,
                            struct artel_error *err);

/* What SCAN did not like, placed in the file; AT counts from the header's start. */
int safetensors_refuse_scan(const struct json_scan *scan, struct artel_error *err);
int safetensors_refuse_at(size_t at, const char *code, const char *reason,
                          struct artel_error *err);
/* T's name escaped for a message. Returns OUT. */
const char *safetensors_shown(char out[160], const struct tensor *t);

#endif
