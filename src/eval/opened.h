/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a question can be put to: a base, alone or with experts, made ready to
 * compute. The struct behind the public artel_mixture.
 */
#ifndef ARTEL_EVAL_OPENED_H
#define ARTEL_EVAL_OPENED_H

#include <stdbool.h>

#include "decoder/frozen.h"
#include "save/mixture_file.h"

struct artel_mixture {
    struct artel_model *model;
    bool owns_model;
    struct mixture_file file;      /* of a mixture or adapter; zeroed for a bare base */
    const struct mixture *mixture; /* &file.mixture, or NULL for a bare base */
    char *path;                    /* as given; owned */
    size_t memory_bytes;           /* that may be used; 0: what the machine has */
};

/* What lies at a path, by its name and by what a folder holds. */
enum opened_kind { OPENED_MODEL, OPENED_ADAPTER, OPENED_MIXTURE };
int opened_kind(enum opened_kind *kind, const char *path, struct artel_error *err);

/* Recorded base of an adapter folder in *OUT (owned by the caller), or NULL. */
int opened_adapter_base(char **out, const char *folder, struct artel_error *err);
/* Name an expert after its folder. OUT has room for EXPERT_NAME_MAX + 1. */
void opened_expert_name(char *out, const char *folder);

/* "auto", "fp32", "bf16" to what this CPU does. ARTEL_ELIMIT: bf16 is not native. */
int precision_choose(enum precision *out, const char *name, struct artel_error *err);

#endif
