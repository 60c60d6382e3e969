/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzzer's target without a fuzzer: every file of a corpus folder, whole, cut
 * short and with single bytes changed, in a fixed order. No folder: the empty
 * input and a few bytes alone.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_MAX  ((size_t)1 << 20)
#define N_CHANGES  200
#define N_PREFIXES 50

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* In memory of exactly its size, so that the sanitizer sees a step beyond it. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);

    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void run_variants(uint8_t *data, size_t size)
{
    static const uint8_t changes[] = {0x00, 0xff, 0x80, 0x7f, 0x01, '"', '{', ' '};

    run(data, size);
    for (size_t i = 0; size && i < N_PREFIXES; i++)
        run(data, size * i / N_PREFIXES);
    for (size_t i = 0; size && i < N_CHANGES; i++) {
        const size_t at = i < size ? i : (i * 2654435761u) % size;
        const uint8_t kept = data[at];

        data[at] = changes[i % sizeof(changes)];
        run(data, size);
        data[at] = kept;
    }
}

static int run_file(const char *folder, const char *name)
{
    char path[4096];
    uint8_t *data;
    size_t size;
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    f = fopen(path, "rb");
    data = malloc(INPUT_MAX);
    if (!f || !data) {
        perror(path);
        free(data);
        if (f)
            fclose(f);
        return 1;
    }
    size = fread(data, 1, INPUT_MAX, f);
    fclose(f);
    printf("%s: %zu bytes\n", name, size);
    run_variants(data, size);
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    struct dirent **entries = NULL;
    uint8_t few[] = "{\"a\":[1,2.5,\"\\u00e9\"]}";
    const int n = argc > 1 ? scandir(argv[1], &entries, NULL, alphasort) : 0;
    int rc = 0;

    run(few, 0);
    run_variants(few, sizeof(few) - 1);
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.')
            rc |= run_file(argv[1], entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return rc;
}
