/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grammars over a tokenizer, text fed to them, and random text out of them.
 */
#ifndef ARTEL_TESTS_GRAMMAR_CASE_H
#define ARTEL_TESTS_GRAMMAR_CASE_H

#include "check.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "artel.h"
#include "base/rng.h"
#include "files/gguf.h"
#include "serve/grammar.h"
#include "text/tokenizer.h"

struct fixture {
    struct tokenizer *tok;
    struct grammar_pieces *pieces;
    int32_t byte_id[256]; /* -1: no token of its own */
    int32_t end;
};

static inline void fixture_open(struct fixture *f, const char *path)
{
    struct artel_error err;
    struct gguf *g;

    assert_int_equal(gguf_open(&g, path, &err), 0);
    assert_int_equal(tokenizer_from_gguf(&f->tok, g, &err), 0);
    gguf_close(g);
    assert_int_equal(grammar_pieces_open(&f->pieces, f->tok, &err), 0);
    memset(f->byte_id, 0xff, sizeof(f->byte_id));
    f->end = -1;
    for (int32_t id = 0; id < (int32_t)tokenizer_size(f->tok); id++) {
        size_t n;
        const char *piece = tokenizer_piece(f->tok, id, &n);

        if (tokenizer_is_end(f->tok, id))
            f->end = id;
        else if (n == 1 && !tokenizer_is_control(f->tok, id))
            f->byte_id[(unsigned char)*piece] = id;
    }
    assert_true(f->end >= 0);
}

static inline void fixture_close(struct fixture *f)
{
    grammar_pieces_close(f->pieces);
    tokenizer_close(f->tok);
}

/* The one that a program's tests share, over the toy model's tokenizer. */
static inline int fixture_setup(void **state)
{
    static struct fixture f;

    fixture_open(&f, ARTEL_SOURCE "/tests/golden/toy-tied.gguf");
    *state = &f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    fixture_close(*state);
    return 0;
}

static inline bool is_allowed(const unsigned char *mask, int32_t id)
{
    return id >= 0 && (mask[id / 8] >> id % 8 & 1);
}

/* SCHEMA NULL: any object. */
static inline struct grammar *grammar_of(const struct fixture *f, const char *schema)
{
    struct artel_error err = {0};
    struct grammar *g;
    json_t *s = schema ? json_loads(schema, JSON_DECODE_ANY, NULL) : NULL;

    if (schema && !s)
        fail_msg("not JSON: %s", schema);
    if (grammar_open(&g, f->pieces, s, &err) < 0)
        fail_msg("%s: %s: %s", schema ? schema : "object", err.where, err.reason);
    json_decref(s);
    return g;
}

/* Bytes of TEXT that may come, one token each; its length + 1 where it is whole. */
static inline size_t taken(const struct fixture *f, const char *schema,
                           const char *text)
{
    struct grammar *g = grammar_of(f, schema);
    size_t n = 0;
    bool whole;

    while (text[n]) {
        const int32_t id = f->byte_id[(unsigned char)text[n]];

        if (!is_allowed(grammar_allowed(g), id))
            break;
        grammar_accept(g, id);
        n++;
    }
    whole = !text[n] && grammar_complete(g);
    assert_int_equal(is_allowed(grammar_allowed(g), f->end), grammar_complete(g));
    grammar_close(g);
    return n + whole;
}

/* TEXT as the tokenizer cuts it. */
static inline void assert_takes(const struct fixture *f, const char *schema,
                                const char *text)
{
    struct grammar *g = grammar_of(f, schema);
    struct artel_error err;
    struct ids ids = {0};

    assert_int_equal(tokenizer_encode(f->tok, &ids, text, strlen(text), false, &err),
                     0);
    for (size_t i = 0; i < ids.n; i++) {
        if (!is_allowed(grammar_allowed(g), ids.at[i]))
            fail_msg("%s: token %zu of %s", schema ? schema : "object", i, text);
        grammar_accept(g, ids.at[i]);
    }
    if (!grammar_complete(g))
        fail_msg("%s: %s is not whole", schema ? schema : "object", text);
    ids_release(&ids);
    grammar_close(g);
}

/* The first byte of TEXT that may not come is AT; its length: it may not end there. */
static inline void assert_stops(const struct fixture *f, const char *schema,
                                const char *text, size_t at)
{
    const size_t n = taken(f, schema, text);

    if (n != at)
        fail_msg("%s: %s: stopped at %zu, expected %zu", schema ? schema : "object",
                 text, n, at);
}

/* Tokens that bring a text to its end come first after LONG of them. */
static inline int32_t random_token(const struct fixture *f, struct rng *r,
                                   const unsigned char *mask, size_t n_so_far,
                                   size_t length)
{
    static const char closing[] = "\"}]:";
    const int32_t size = (int32_t)tokenizer_size(f->tok);
    int32_t id = (int32_t)rng_below(r, (uint32_t)size);

    if (is_allowed(mask, f->end) && (n_so_far > length || rng_below(r, 4) == 0))
        return f->end;
    if (n_so_far > length || rng_below(r, 8) == 0)
        for (const char *c = closing; *c; c++)
            if (is_allowed(mask, f->byte_id[(unsigned char)*c]))
                return f->byte_id[(unsigned char)*c];
    for (int32_t i = 0; i < size; i++, id = (id + 1) % size)
        if (is_allowed(mask, id) && !tokenizer_is_end(f->tok, id))
            return id;
    if (is_allowed(mask, f->end))
        return f->end;
    fail_msg("no token is allowed");
    return -1;
}

/* A text of G, made of random tokens; to be freed. */
static inline char *random_text(const struct fixture *f, struct grammar *g,
                                struct rng *r, size_t length)
{
    size_t room = 1 << 16, n = 0;
    char *text = malloc(room);

    for (size_t i = 0; i < 6000; i++) {
        const int32_t id = random_token(f, r, grammar_allowed(g), i, length);
        const char *piece;
        size_t n_piece;

        if (id == f->end) {
            text[n] = 0;
            return text;
        }
        piece = tokenizer_piece(f->tok, id, &n_piece);
        assert_true(n + n_piece + 1 < room);
        memcpy(text + n, piece, n_piece);
        n += n_piece;
        grammar_accept(g, id);
    }
    text[n] = 0;
    fail_msg("no end to %s", text);
    return NULL;
}

#endif
