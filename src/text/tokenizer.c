/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to ids: control and user tokens are cut out; what lies between is split
 * by the pre-tokenizer and merged piece by piece.
 *
 * Bytes that are no UTF-8 part the text: each is a byte token of its own. Bytes
 * that the vocabulary has no token for (SmolLM lacks 21 of 256) give none.
 */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/error.h"
#include "model/weights.h"
#include "text/bpe.h"
#include "text/tokenizer_parts.h"

int ids_push(struct ids *ids, int32_t id, struct artel_error *err)
{
    if (ids->n == ids->room) {
        const size_t room = ids->room ? 2 * ids->room : 64;
        int32_t *grown = realloc(ids->at, room * sizeof(*grown));

        if (!grown)
            return error_nomem(err, room * sizeof(*grown));
        ids->at = grown;
        ids->room = room;
    }
    ids->at[ids->n++] = id;
    return 0;
}

void ids_release(struct ids *ids)
{
    free(ids->at);
    memset(ids, 0, sizeof(*ids));
}

/* What one call needs. */
struct encoder {
    const struct tokenizer *t;
    struct ids *ids;
    struct splitter *splitter;
    struct bpe_work work;
};

static int encode_pieces(struct encoder *e, const char *text, size_t n,
                         struct artel_error *err)
{
    for (size_t i = 0; i < n;) {
        size_t piece = 0;
        int rc = splitter_next(e->splitter, &piece, text, n, i, err);

        if (rc == 0)
            rc = bpe_encode(&e->t->vocabulary, e->ids, &e->work, text + i, piece,
                            e->t->ignore_merges, err);
        if (rc < 0)
            return rc;
        i += piece;
    }
    return 0;
}

/* No character below U+0300 combines with another: such text is composed already
 * unless it holds a byte above 0xcb. */
static bool may_compose(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] >= 0xcc)
            return true;
    return false;
}

/* TEXT is valid UTF-8. */
static int encode_valid(struct encoder *e, const char *text, size_t n,
                        struct artel_error *err)
{
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t length;
    int rc;

    if (!e->t->nfc || !may_compose(text, n))
        return encode_pieces(e, text, n, err);
    length = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n,
                          &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (length == UTF8PROC_ERROR_NOMEM)
        return error_nomem(err, n);
    if (length < 0)
        return error_set(err, ARTEL_ELIMIT, "TOK13", NULL, "composing %zu bytes: %s", n,
                         utf8proc_errmsg(length));
    rc = encode_pieces(e, (const char *)composed, (size_t)length, err);
    free(composed);
    return rc;
}

/* Text without control and user tokens. */
static int encode_raw(struct encoder *e, const char *text, size_t n,
                      struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0;) {
        const size_t valid = utf8_prefix(text + i, n - i);

        if (valid) {
            rc = encode_valid(e, text + i, valid, err);
            i += valid;
        } else {
            const int32_t id = e->t->vocabulary.byte_id[(unsigned char)text[i++]];

            if (id >= 0)
                rc = ids_push(e->ids, id, err);
        }
    }
    return rc;
}

static int encode(const struct tokenizer *t, struct ids *ids, const char *text,
                  const unsigned char *mask, size_t n, bool control,
                  struct artel_error *err)
{
    struct encoder e = {.t = t, .ids = ids};
    struct special_list found = {0};
    const size_t n_before = ids->n;
    size_t done = 0;
    int rc;

    if (!n)
        return 0;
    rc = splitter_open(&e.splitter, t->pretokenizer, err);
    if (rc == 0)
        rc = specials_find(&t->specials, &found, &t->vocabulary, text, mask, n, control,
                           err);
    for (size_t i = 0; i < found.n && rc == 0; i++) {
        rc = encode_raw(&e, text + done, found.at[i].start - done, err);
        if (rc == 0)
            rc = ids_push(ids, found.at[i].id, err);
        done = found.at[i].start + found.at[i].length;
    }
    if (rc == 0)
        rc = encode_raw(&e, text + done, n - done, err);
    if (rc < 0)
        ids->n = n_before;
    special_list_release(&found);
    bpe_work_release(&e.work);
    splitter_close(e.splitter);
    return rc;
}

int tokenizer_encode(const struct tokenizer *t, struct ids *ids, const char *text,
                     size_t n, bool special, struct artel_error *err)
{
    return encode(t, ids, text, NULL, n, special, err);
}

int tokenizer_encode_masked(const struct tokenizer *t, struct ids *ids,
                            const char *text, const unsigned char *template_mask,
                            size_t n, struct artel_error *err)
{
    return encode(t, ids, text, template_mask, n, true, err);
}

bool text_ends_generation(const char *text, size_t n)
{
    static const char *const names[] = {
        "<|eot_id|>", "<|im_end|>",      "<|end|>", "<end_of_turn>", "<|endoftext|>",
        "<|eom_id|>", "<|end_of_text|>", "<EOT>",   "</s>",
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strlen(names[i]) == n && !memcmp(names[i], text, n))
            return true;
    return false;
}

int tokenizer_check_id(const struct tokenizer *t, const char *key, int64_t id,
                       struct artel_error *err)
{
    if (id >= 0 && (uint64_t)id < t->vocabulary.n_tokens &&
        t->vocabulary.tokens[id].kind != TOKEN_ABSENT)
        return 0;
    return error_set(err, ARTEL_EFORMAT, "TOK04", key,
                     "id %lld is not one of the %zu tokens", (long long)id,
                     t->vocabulary.n_tokens);
}

int tokenizer_complete(struct tokenizer *t, struct artel_error *err)
{
    const struct vocabulary *v = &t->vocabulary;
    int rc;

    rc = specials_init(&t->specials, v, err);
    if (rc == 0)
        rc = pretokenizer_open(&t->pretokenizer, t->kind, err);
    if (rc < 0)
        return rc;
    t->ends = calloc(v->n_tokens ? v->n_tokens : 1, sizeof(*t->ends));
    if (!t->ends)
        return error_nomem(err, v->n_tokens * sizeof(*t->ends));
    for (size_t id = 0; id < v->n_tokens; id++)
        t->ends[id] =
            v->tokens[id].kind == TOKEN_CONTROL &&
            text_ends_generation(v->bytes + v->tokens[id].start, v->tokens[id].length);
    if (t->eos >= 0)
        t->ends[t->eos] = true;
    return 0;
}

/* The embedding must have a row for every id (and no other where the file says so). */
static int check_rows(const struct tokenizer *t, const struct weights *w,
                      struct artel_error *err)
{
    const size_t n = t->vocabulary.n_tokens, rows = w->config.n_vocab;

    if (w->gguf ? n == rows : n <= rows)
        return 0;
    error_set(err, ARTEL_EFORMAT, "TOK03", w->gguf ? "tokenizer.ggml.tokens" : NULL,
              "the vocabulary has %zu tokens, the embedding %zu rows", n, rows);
    return error_in(err, ARTEL_EFORMAT, w->path);
}

int tokenizer_open(struct tokenizer **out, const struct weights *w,
                   struct artel_error *err)
{
    int rc = w->gguf ? tokenizer_from_gguf(out, w->gguf, err)
                     : tokenizer_from_folder(out, w->folder, err);

    if (rc == 0)
        rc = check_rows(*out, w, err);
    if (rc < 0) {
        tokenizer_close(*out);
        *out = NULL;
    }
    return rc;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    vocabulary_release(&t->vocabulary);
    specials_release(&t->specials);
    pretokenizer_close(t->pretokenizer);
    free(t->ends);
    free(t);
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *n)
{
    return vocabulary_piece(&t->vocabulary, id, n);
}

bool tokenizer_is_control(const struct tokenizer *t, int32_t id)
{
    return t->vocabulary.tokens[id].kind == TOKEN_CONTROL;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    return t->ends[id];
}

size_t tokenizer_size(const struct tokenizer *t)
{
    return t->vocabulary.n_tokens;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->adds_bos;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *piece)
{
    const size_t n = strlen(piece);
    const int32_t id = specials_lookup(&t->specials, piece, n);

    return id >= 0 ? id : vocabulary_lookup(&t->vocabulary, piece, n);
}

static void digest_number(struct digest *d, uint64_t number)
{
    unsigned char bytes[8];

    for (size_t i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(number >> 8 * i);
    digest_add(d, bytes, sizeof(bytes));
}

void tokenizer_digest(const struct tokenizer *t, char out[DIGEST_SIZE])
{
    const struct vocabulary *v = &t->vocabulary;
    const char *name = pretokenizer_name(t->kind);
    struct digest *d = digest_new();

    if (!d) {
        memset(out, '0', DIGEST_SIZE - 1);
        out[DIGEST_SIZE - 1] = '\0';
        return;
    }
    digest_add(d, name, strlen(name) + 1);
    digest_number(d, (uint64_t)t->ignore_merges << 1 | t->nfc);
    digest_number(d, v->n_tokens);
    for (size_t id = 0; id < v->n_tokens; id++) {
        digest_number(d, (uint64_t)v->tokens[id].length << 8 | v->tokens[id].kind);
        digest_add(d, v->bytes + v->tokens[id].start, v->tokens[id].length);
    }
    digest_number(d, v->n_merges);
    for (size_t rank = 0; rank < v->n_merges; rank++)
        digest_number(d, (uint64_t)(uint32_t)v->merges[rank].left << 32 |
                             (uint32_t)v->merges[rank].right);
    digest_finish(d, out);
}
