/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ARTEL_H
#define ARTEL_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define ARTEL_API __attribute__((visibility("default")))
#else
#define ARTEL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What went wrong; the program's exit code is minus the number. */
enum {
    ARTEL_EBUG = -1,      /* a fault of the library itself */
    ARTEL_EUSAGE = -2,    /* wrong use: unknown name, value out of range */
    ARTEL_EFORMAT = -3,   /* the content of a file is not what it should be */
    ARTEL_EIO = -4,       /* reading or writing failed */
    ARTEL_ELIMIT = -5,    /* memory, threads, descriptors, CPU features */
    ARTEL_ECONFLICT = -6, /* run folder in use, output exists, another run's checkpoint */
    ARTEL_ENONFINITE = -7,/* training met a value that is not finite */
    ARTEL_ESTOPPED = -8   /* asked to stop; everything is saved */
};

struct artel_error {
    int exit;         /* exit code for a program: 1 to 7 */
    char code[8];     /* stable, for scripts: "GGUF07" */
    char file[256];   /* path, or "" */
    char where[160];  /* tensor, key, line:column or byte offset, or "" */
    char reason[256]; /* what was found and what was expected */
};

#ifdef __cplusplus
}
#endif
#endif
