/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcrypto does the sums. Should it fail, which only lack of memory causes, the
 * digest comes out empty and so equals no real one.
 */
#include "files/digest.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/map.h"

struct digest {
    EVP_MD_CTX *context;
    bool failed;
};

static void to_hex(char out[DIGEST_SIZE], const unsigned char *sum)
{
    for (size_t i = 0; i < (DIGEST_SIZE - 1) / 2; i++)
        snprintf(out + 2 * i, 3, "%02x", sum[i]);
}

static void discard(struct digest *d)
{
    EVP_MD_CTX_free(d->context);
    free(d);
}

struct digest *digest_new(void)
{
    struct digest *d = calloc(1, sizeof(*d));

    if (!d)
        return NULL;
    d->context = EVP_MD_CTX_new();
    if (!d->context || EVP_DigestInit_ex(d->context, EVP_sha256(), NULL) != 1) {
        discard(d);
        return NULL;
    }
    return d;
}

void digest_add(struct digest *d, const void *data, size_t n)
{
    if (n && EVP_DigestUpdate(d->context, data, n) != 1)
        d->failed = true;
}

void digest_finish(struct digest *d, char out[DIGEST_SIZE])
{
    unsigned char sum[EVP_MAX_MD_SIZE];

    out[0] = '\0';
    if (!d->failed && EVP_DigestFinal_ex(d->context, sum, NULL) == 1)
        to_hex(out, sum);
    discard(d);
}

void digest_bytes(char out[DIGEST_SIZE], const void *data, size_t n)
{
    struct digest *d = digest_new();

    out[0] = '\0';
    if (!d)
        return;
    digest_add(d, data, n);
    digest_finish(d, out);
}

int digest_file(char out[DIGEST_SIZE], const char *path, struct artel_error *err)
{
    struct map map;
    int rc = map_open(&map, path, err);

    out[0] = '\0';
    if (rc < 0)
        return rc;
    digest_bytes(out, map.data, map.size);
    map_release(&map);
    return out[0] ? 0 : error_in(err, error_nomem(err, sizeof(struct digest)), path);
}
