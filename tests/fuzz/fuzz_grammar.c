/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a JSON Schema, and random tokens of what it lets through: some token is
 * always allowed, and a text that is whole is JSON.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/rng.h"
#include "files/json.h"
#include "serve/grammar.h"
#include "text/tokenizer.h"

#define TOKENS 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool is_so)
{
    if (!is_so)
        abort();
}

static void walk(struct grammar *g, const struct tokenizer *tok, struct rng *r)
{
    const uint32_t n = (uint32_t)tokenizer_size(tok);
    char text[TOKENS * 256 + 1];
    size_t used = 0;

    for (size_t i = 0; i < TOKENS; i++) {
        const unsigned char *mask = grammar_allowed(g);
        int32_t id = (int32_t)rng_below(r, n);
        const char *piece;
        size_t n_piece, tried = 0;

        for (; tried < n && !(mask[id / 8] >> id % 8 & 1); tried++)
            id = (id + 1) % (int32_t)n;
        must(tried < n);
        if (tokenizer_is_end(tok, id)) {
            json_t *value;

            must(grammar_complete(g));
            value = json_loadb(text, used, JSON_DECODE_ANY, NULL);
            must(value != NULL);
            json_decref(value);
            return;
        }
        piece = tokenizer_piece(tok, id, &n_piece);
        must(n_piece <= 256);
        memcpy(text + used, piece, n_piece);
        used += n_piece;
        grammar_accept(g, id);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *tok;
    static struct grammar_pieces *pieces;
    struct artel_error err = {0};
    struct grammar *g;
    json_t *schema;
    struct rng r;

    if (!tok) {
        must(tokenizer_from_folder(&tok, ARTEL_SOURCE "/tests/golden/toy-tied", &err) ==
             0);
        must(grammar_pieces_open(&pieces, tok, &err) == 0);
    }
    if (json_parse(&schema, (const char *)data, size, "fuzz", 0, &err) < 0)
        return 0;
    if (grammar_open(&g, pieces, schema, &err) == 0) {
        rng_init(&r, size, 1);
        walk(g, tok, &r);
        grammar_close(g);
    }
    json_decref(schema);
    return 0;
}
