/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results that are kept on disk, so that an evaluation that was stopped, or that gets
 * one more mixture, measures only what is new.
 *
 *     FOLDER/KEY.json     KEY: SHA-256 over all that the numbers follow from
 *
 * which is: the base, the mixture's files, the rows' file, the settings, the
 * precision, and the version of the program. A file that cannot be read as a result
 * counts as none.
 */
#ifndef ARTEL_EVAL_KEEP_H
#define ARTEL_EVAL_KEEP_H

#include "eval/measure.h"
#include "files/digest.h"

/* Digest of what answers: the base, and unless BASE the experts as they lie on disk. */
int keep_digest(char out[DIGEST_SIZE], const struct artel_mixture *m, bool base,
                struct artel_error *err);

/* Key of one set put to what has DIGEST. */
int keep_key(char out[DIGEST_SIZE], const char *digest, const struct artel_mixture *m,
             const char *path, const struct measure_options *o,
             struct artel_error *err);

/* 1: OUT is filled; 0: nothing is kept under KEY. */
int keep_read(struct measured *out, const char *folder, const char *key,
              struct artel_error *err);
int keep_write(const struct measured *r, const char *folder, const char *key,
               struct artel_error *err);

#endif
