/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.json from anywhere: the input is one such file, a NUL byte, and text.
 * What opens must encode the text to ids that are tokens; a file that has every
 * byte and composes nothing must give the text back.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "artel.h"
#include "files/json.h"
#include "text/tokenizer_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* IDS decode to TEXT. */
static bool comes_back(const struct tokenizer *t, const struct ids *ids,
                       const char *text, size_t n)
{
    size_t used = 0;

    for (size_t i = 0; i < ids->n; i++) {
        size_t length;
        const char *piece = tokenizer_piece(t, ids->at[i], &length);

        if (length > n - used || memcmp(piece, text + used, length))
            return false;
        used += length;
    }
    return used == n;
}

static void encode(const struct tokenizer *t, const char *text, size_t n, bool special)
{
    struct ids ids = {0};
    struct artel_error err;
    bool exact = !t->nfc;

    for (size_t b = 0; b < 256; b++)
        exact = exact && t->vocabulary.byte_id[b] >= 0;
    if (tokenizer_encode(t, &ids, text, n, special, &err) == 0) {
        for (size_t i = 0; i < ids.n; i++)
            if (ids.at[i] < 0 || (size_t)ids.at[i] >= tokenizer_size(t) ||
                (!special && tokenizer_is_control(t, ids.at[i])))
                abort();
        if (exact && !comes_back(t, &ids, text, n))
            abort();
    }
    ids_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const char *nul = size ? memchr(text, '\0', size) : NULL;
    const size_t n_json = nul ? (size_t)(nul - text) : size;
    struct tokenizer_files f = {.tokenizer = {NULL, "fuzz"}};
    struct tokenizer *t;
    struct artel_error err;
    json_t *root;

    if (json_parse(&root, text, n_json, "fuzz", 0, &err) < 0)
        return 0;
    f.tokenizer.root = root;
    /* The same object stands for the other files: their keys may be in it too. */
    f.config = f.special_map = f.generation = f.tokenizer;
    if (tokenizer_from_files(&t, &f, &err) == 0) {
        const size_t n = nul ? size - n_json - 1 : 0;

        encode(t, nul ? nul + 1 : "", n, false);
        encode(t, nul ? nul + 1 : "", n, true);
        tokenizer_close(t);
    }
    json_decref(root);
    return 0;
}
