/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open addressing with linear probing, at most half full. A merge is three
 * look-ups when it is read, so that encoding compares ids and never text.
 */
#include "text/vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/list.h"

#define QUOTED 192

void vocabulary_release(struct vocabulary *v)
{
    free(v->tokens);
    free(v->bytes);
    free(v->slots);
    free(v->merges);
    index_release(&v->ranks);
    memset(v, 0, sizeof(*v));
}

/* Code point of the one- or two-byte sequence at TEXT; all of the alphabet is below
 * U+0144. Returns its length, 0 for anything else. */
static size_t short_code_point(unsigned *c, const unsigned char *text, size_t n)
{
    if (text[0] < 0x80) {
        *c = text[0];
        return 1;
    }
    if ((text[0] & 0xe0) != 0xc0 || n < 2 || (text[1] & 0xc0) != 0x80)
        return 0;
    *c = (text[0] & 0x1fu) << 6 | (text[1] & 0x3fu);
    return 2;
}

/* The 68 bytes without a printable character of their own are U+0100.. in order. */
static int byte_of(unsigned c)
{
    if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) ||
        (c >= 0xae && c <= 0xff))
        return (int)c;
    if (c >= 0x100 && c <= 0x120)
        return (int)(c - 0x100);
    if (c >= 0x121 && c <= 0x142)
        return (int)(c - 0x121 + 0x7f);
    return c == 0x143 ? 0xad : -1;
}

bool spelling_to_bytes(char *out, size_t *n_out, const char *text, size_t n)
{
    size_t used = 0;

    for (size_t i = 0; i < n;) {
        unsigned c;
        const size_t len = short_code_point(&c, (const unsigned char *)text + i, n - i);
        const int byte = len ? byte_of(c) : -1;

        if (byte < 0)
            return false;
        out[used++] = (char)byte;
        i += len;
    }
    *n_out = used;
    return true;
}

/* Room for N more bytes and their end. */
static int reserve_bytes(struct vocabulary *v, size_t n, struct artel_error *err)
{
    size_t room = v->room ? v->room : 4096;
    char *grown;

    if (n < v->room - v->n_bytes)
        return 0;
    while (room - v->n_bytes <= n) {
        if (room > SIZE_MAX / 2)
            return error_nomem(err, room);
        room *= 2;
    }
    grown = realloc(v->bytes, room);
    if (!grown)
        return error_nomem(err, room);
    v->bytes = grown;
    v->room = room;
    return 0;
}

int vocabulary_init(struct vocabulary *v, size_t n_tokens, struct artel_error *err)
{
    memset(v, 0, sizeof(*v));
    for (size_t b = 0; b < 256; b++)
        v->byte_id[b] = -1;
    if (n_tokens > INT32_MAX / 4)
        return error_set(err, ARTEL_EFORMAT, "TOK05", NULL,
                         "%zu tokens are more than this program takes", n_tokens);
    v->tokens = calloc(n_tokens ? n_tokens : 1, sizeof(*v->tokens));
    if (!v->tokens)
        return error_nomem(err, n_tokens * sizeof(*v->tokens));
    v->n_tokens = n_tokens;
    if (reserve_bytes(v, 1, err) < 0)
        return ARTEL_ELIMIT;
    v->bytes[v->n_bytes++] = '\0'; /* the piece of ids that are no token */
    return 0;
}

int vocabulary_set(struct vocabulary *v, size_t id, const char *text, size_t n,
                   enum token_kind kind, bool literal, struct artel_error *err)
{
    struct token *token = &v->tokens[id];
    size_t length = n;
    bool spelled;
    int rc;

    if (n > UINT32_MAX / 2)
        return error_set(err, ARTEL_EFORMAT, "TOK14", NULL, "token %zu has %zu bytes",
                         id, n);
    rc = reserve_bytes(v, n, err);
    if (rc < 0)
        return rc;
    spelled = spelling_to_bytes(v->bytes + v->n_bytes, &length, text, n);
    /* A literal text is what it says; merges reach it only where both readings agree. */
    if (literal && spelled)
        spelled = length == n && !memcmp(v->bytes + v->n_bytes, text, n);
    if (!spelled) {
        memcpy(v->bytes + v->n_bytes, text, n);
        length = n;
    }
    v->bytes[v->n_bytes + length] = '\0';
    token->start = v->n_bytes;
    token->length = (uint32_t)length;
    token->kind = (uint8_t)kind;
    token->spelled = spelled && length;
    v->n_bytes += length + 1;
    return 0;
}

static uint32_t hash_bytes(const char *bytes, size_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;

    for (; n >= 8; bytes += 8, n -= 8) {
        uint64_t word;

        memcpy(&word, bytes, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    for (; n; bytes++, n--)
        h = (h ^ (unsigned char)*bytes) * 0x100000001b3u;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53u;
    return (uint32_t)(h >> 32);
}

static size_t slots_for(size_t n)
{
    size_t slots = 16;

    while (slots < 2 * n)
        slots *= 2;
    return slots;
}

/* The slot of these bytes: filled, or the empty one where they belong. */
static size_t find_slot(const struct vocabulary *v, const char *bytes, size_t n,
                        uint32_t hash)
{
    const size_t mask = v->n_slots - 1;

    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        const struct token_slot *slot = &v->slots[i];

        if (slot->id < 0)
            return i;
        if (slot->hash == hash && v->tokens[slot->id].length == n &&
            !memcmp(v->bytes + v->tokens[slot->id].start, bytes, n))
            return i;
    }
}

int vocabulary_index(struct vocabulary *v, struct artel_error *err)
{
    v->n_slots = slots_for(v->n_tokens);
    v->slots = malloc(v->n_slots * sizeof(*v->slots));
    if (!v->slots)
        return error_nomem(err, v->n_slots * sizeof(*v->slots));
    for (size_t i = 0; i < v->n_slots; i++)
        v->slots[i].id = -1;
    for (size_t id = 0; id < v->n_tokens; id++) {
        const struct token *token = &v->tokens[id];
        const char *bytes = v->bytes + token->start;
        uint32_t hash;
        size_t at;

        if (!token->spelled)
            continue;
        hash = hash_bytes(bytes, token->length);
        at = find_slot(v, bytes, token->length, hash);
        if (v->slots[at].id >= 0) {
            char quoted[QUOTED];

            return error_set(err, ARTEL_EFORMAT, "TOK14", NULL,
                             "tokens %d and %zu are the same: '%s'", v->slots[at].id,
                             id,
                             escape_text(quoted, sizeof(quoted), bytes, token->length));
        }
        v->slots[at] = (struct token_slot){hash, (int32_t)id};
        if (token->length == 1 && token->kind != TOKEN_CONTROL)
            v->byte_id[(unsigned char)*bytes] = (int32_t)id;
    }
    return 0;
}

int32_t vocabulary_lookup(const struct vocabulary *v, const char *bytes, size_t n)
{
    return v->slots[find_slot(v, bytes, n, hash_bytes(bytes, n))].id;
}

/* Id of a spelled part, or -1. SCRATCH has room for its bytes. */
static int32_t lookup_spelling(const struct vocabulary *v, const char *text, size_t n,
                               char *scratch, size_t *n_bytes)
{
    if (!n || !spelling_to_bytes(scratch, n_bytes, text, n))
        return -1;
    return vocabulary_lookup(v, scratch, *n_bytes);
}

static int bad_merge(struct artel_error *err, const char *list, size_t number,
                     const char *what, const char *text, size_t n)
{
    char where[96], quoted[QUOTED];

    snprintf(where, sizeof(where), "%s[%zu]", list, number);
    return error_set(err, ARTEL_EFORMAT, "TOK06", where,
                     "merge %zu: %s '%s' is not in the vocabulary", number, what,
                     escape_text(quoted, sizeof(quoted), text, n));
}

int vocabulary_add_merge(struct vocabulary *v, const char *list, size_t number,
                         const char *left, size_t n_left, const char *right,
                         size_t n_right, struct artel_error *err)
{
    struct merge merge;
    size_t left_bytes = 0, right_bytes = 0;
    char *joined;
    int rc;

    /* The free end of BYTES serves as scratch. */
    if (n_left > SIZE_MAX / 4 || n_right > SIZE_MAX / 4)
        return error_nomem(err, n_left);
    rc = reserve_bytes(v, n_left + n_right, err);
    if (rc < 0)
        return rc;
    joined = v->bytes + v->n_bytes;
    merge.left = lookup_spelling(v, left, n_left, joined, &left_bytes);
    if (merge.left < 0)
        return bad_merge(err, list, number, "the left part", left, n_left);
    merge.right = lookup_spelling(v, right, n_right, joined + left_bytes, &right_bytes);
    if (merge.right < 0)
        return bad_merge(err, list, number, "the right part", right, n_right);
    merge.result = vocabulary_lookup(v, joined, left_bytes + right_bytes);
    if (merge.result < 0)
        return bad_merge(err, list, number, "the result", joined,
                         left_bytes + right_bytes);
    if (v->tokens[merge.result].kind == TOKEN_CONTROL)
        merge.result = -1; /* ordinary text must not become a control token */
    if (v->n_merges == v->merge_room) {
        const size_t room = v->merge_room ? 2 * v->merge_room : 1024;

        rc = list_grow(&v->merges, room, sizeof(*v->merges), err);
        if (rc < 0)
            return rc;
        v->merge_room = room;
    }
    v->merges[v->n_merges++] = merge;
    return 0;
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

int vocabulary_index_merges(struct vocabulary *v, struct artel_error *err)
{
    const int rc = index_room(&v->ranks, v->n_merges, err);

    for (size_t rank = 0; rc == 0 && rank < v->n_merges; rank++) {
        const struct merge *merge = &v->merges[rank];
        const uint64_t key = pair_key(merge->left, merge->right);

        if (merge->result >= 0 && index_get(&v->ranks, key) == INDEX_NONE)
            index_put(&v->ranks, key, (uint32_t)rank);
    }
    return rc;
}

int64_t vocabulary_rank(const struct vocabulary *v, int32_t left, int32_t right)
{
    const uint32_t rank = index_get(&v->ranks, pair_key(left, right));

    return rank == INDEX_NONE ? -1 : (int64_t)rank;
}
