/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass over the text; only where two bytes begin some control token are those
 * compared.
 */
#include "data/forged.h"

#include <string.h>

static unsigned pair_of(const char *s)
{
    return (unsigned)(unsigned char)s[0] << 8 | (unsigned char)s[1];
}

int forged_init(struct forged *f, const struct tokenizer *tok, struct artel_error *err)
{
    int rc = 0;

    *f = (struct forged){.tok = tok};
    for (size_t id = 0; rc == 0 && id < tokenizer_size(tok); id++) {
        size_t n;
        const char *piece;

        if (!tokenizer_is_control(tok, (int32_t)id))
            continue;
        piece = tokenizer_piece(tok, (int32_t)id, &n);
        if (n < 2)
            continue;
        rc = ids_push(&f->control, (int32_t)id, err);
        f->pairs[pair_of(piece) / 8] |= (uint8_t)(1u << pair_of(piece) % 8);
    }
    return rc;
}

void forged_release(struct forged *f)
{
    ids_release(&f->control);
}

static bool begins_control(const struct forged *f, const char *text, size_t n)
{
    for (size_t i = 0; i < f->control.n; i++) {
        size_t len;
        const char *piece = tokenizer_piece(f->tok, f->control.at[i], &len);

        if (len <= n && !memcmp(piece, text, len))
            return true;
    }
    return false;
}

bool forged_in(const struct forged *f, const char *text, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++) {
        const unsigned pair = pair_of(text + i);

        if (f->pairs[pair / 8] & 1u << pair % 8 && begins_control(f, text + i, n - i))
            return true;
    }
    return false;
}

bool forged_in_messages(const struct forged *f, const json_t *messages)
{
    const json_t *m;
    size_t i;

    json_array_foreach((json_t *)(size_t)messages, i, m)
    {
        const json_t *content = json_object_get(m, "content");

        if (json_is_string(content) &&
            forged_in(f, json_string_value(content), json_string_length(content)))
            return true;
    }
    return false;
}
