/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TensorFlow's framing of records in a file: length, checksum of the length,
 * bytes, checksum of the bytes. TensorBoard reads its event files in it.
 */
#ifndef ARTEL_FILES_TFRECORD_H
#define ARTEL_FILES_TFRECORD_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* CRC-32C (Castagnoli). */
uint32_t crc32c(const void *data, size_t n);
/* As the framing stores it: so that the checksum of a text with checksums in it is no
 * special case. */
uint32_t crc32c_masked(const void *data, size_t n);

/* One record at the end of F. 0, or -1 with errno. */
int tfrecord_put(FILE *f, const void *data, size_t n);

#endif
