/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Little-endian throughout. Records are small and rare (a few a training step), so the
 * checksum goes bit by bit, without a table.
 */
#include "files/tfrecord.h"

#define POLYNOMIAL 0x82f63b78u /* of CRC-32C, its bits reversed */
#define MASK_DELTA 0xa282ead8u

uint32_t crc32c(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint32_t crc = ~0u;

    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
    }
    return ~crc;
}

uint32_t crc32c_masked(const void *data, size_t n)
{
    const uint32_t crc = crc32c(data, n);

    return ((crc >> 15) | (crc << 17)) + MASK_DELTA;
}

static void put_little(unsigned char *out, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)(value >> 8 * i);
}

int tfrecord_put(FILE *f, const void *data, size_t n)
{
    unsigned char head[12], tail[4];

    put_little(head, n, 8);
    put_little(head + 8, crc32c_masked(head, 8), 4);
    put_little(tail, crc32c_masked(data, n), 4);
    return fwrite(head, 1, sizeof(head), f) == sizeof(head) &&
                   fwrite(data, 1, n, f) == n &&
                   fwrite(tail, 1, sizeof(tail), f) == sizeof(tail)
               ? 0
               : -1;
}
