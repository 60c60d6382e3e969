/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rendering a conversation up to each answer, and tokenising between the bars.
 */
#include "data/turns.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/chat.h"

void turns_clear(struct turns *t)
{
    t->ids.n = 0;
    t->n = 0;
}

void turns_release(struct turns *t)
{
    ids_release(&t->ids);
    free(t->loss);
    free(t->byte_at);
    free(t->turn);
    *t = (struct turns){0};
}

/* Room for as many marks as there are ids. */
static int grow(struct turns *t, struct artel_error *err)
{
    const size_t room = t->ids.room;
    unsigned char *loss;
    size_t *byte_at;

    if (t->ids.n <= t->room)
        return 0;
    loss = realloc(t->loss, room);
    if (!loss)
        return error_nomem(err, room);
    t->loss = loss;
    byte_at = realloc(t->byte_at, room * sizeof(*byte_at));
    if (!byte_at)
        return error_nomem(err, room * sizeof(*byte_at));
    t->byte_at = byte_at;
    t->room = room;
    return 0;
}

/* Where the tokens from FIRST on begin, when together they are N bytes from BASE on.
 * A tokenizer that composes or drops bytes makes this a near guess. */
static void place(struct turns *t, const struct tokenizer *tok, size_t first,
                  size_t base, size_t n)
{
    size_t sum = 0, at = 0, len;

    for (size_t i = first; i < t->ids.n; i++) {
        tokenizer_piece(tok, t->ids.at[i], &len);
        sum += len;
    }
    for (size_t i = first; i < t->ids.n; i++) {
        t->byte_at[i] = base + (sum == n || !sum ? at : at * n / sum);
        tokenizer_piece(tok, t->ids.at[i], &len);
        at += len;
    }
}

static int add_at(struct turns *t, const struct tokenizer *tok, const char *text,
                  const unsigned char *mask, size_t n, size_t base, bool loss,
                  struct artel_error *err)
{
    const size_t first = t->ids.n;
    int rc = mask ? tokenizer_encode_masked(tok, &t->ids, text, mask, n, err)
                  : tokenizer_encode(tok, &t->ids, text, n, false, err);

    if (rc == 0)
        rc = grow(t, err);
    if (rc < 0)
        return rc;
    if (t->ids.n > first)
        memset(t->loss + first, loss, t->ids.n - first);
    place(t, tok, first, base, n);
    return 0;
}

int turns_add(struct turns *t, const struct tokenizer *tok, const char *text,
              const unsigned char *mask, size_t n, bool loss, struct artel_error *err)
{
    return add_at(t, tok, text, mask, n, 0, loss, err);
}

int turns_push(struct turns *t, int32_t id, bool loss, struct artel_error *err)
{
    int rc = ids_push(&t->ids, id, err);

    if (rc == 0)
        rc = grow(t, err);
    if (rc < 0)
        return rc;
    t->loss[t->ids.n - 1] = loss;
    t->byte_at[t->ids.n - 1] = 0;
    return 0;
}

int turns_open(struct turns *t, size_t pool_first, size_t pool_n,
               struct artel_error *err)
{
    if (t->n == t->turn_room) {
        const size_t room = 2 * t->turn_room + 4;
        struct turn *turn = realloc(t->turn, room * sizeof(*turn));

        if (!turn)
            return error_nomem(err, room * sizeof(*turn));
        t->turn = turn;
        t->turn_room = room;
    }
    t->turn[t->n++] = (struct turn){t->ids.n, pool_first, pool_n};
    return 0;
}

void turns_pool(const struct turns *t, size_t first, size_t end, size_t *pool_first,
                size_t *pool_n)
{
    size_t from = 0, to = t->ids.n;

    if (first < end) {
        while (from + 1 < t->ids.n && t->byte_at[from + 1] <= first)
            from++;
        while (to > from + 1 && t->byte_at[to - 1] >= end)
            to--;
    }
    *pool_first = from;
    *pool_n = to - from;
}

int turns_render(struct rendered *out, const struct tokenizer *tok,
                 const struct chat_template *chat, const json_t *messages,
                 const json_t *tools, const json_t *extra, bool generate,
                 struct artel_error *err)
{
    const int32_t id[2] = {tokenizer_bos(tok), tokenizer_eos(tok)};
    char text[2][64];

    for (int i = 0; i < 2; i++) {
        size_t n = 0;
        const char *piece = id[i] >= 0 ? tokenizer_piece(tok, id[i], &n) : "";

        n = n < sizeof(text[i]) ? n : sizeof(text[i]) - 1;
        memcpy(text[i], piece, n);
        text[i][n] = '\0';
    }
    return chat_render(chat, out, messages, tools, extra, generate,
                       id[0] >= 0 ? text[0] : NULL, id[1] >= 0 ? text[1] : NULL, err);
}

/* What one conversation needs while it is walked. */
struct walk {
    struct turns *t;
    const struct tokenizer *tok;
    const struct chat_template *chat;
    const json_t *messages, *tools;
    struct rendered full;
    size_t cursor;  /* bytes of FULL that are tokens already */
    size_t open;    /* index of the message whose answer is open, or SIZE_MAX */
    bool open_loss; /* it is to carry loss */
};

static int render_first(struct rendered *out, const struct walk *w, size_t count,
                        bool generate, struct artel_error *err)
{
    json_t *some = json_array();
    int rc = some ? 0 : error_nomem(err, 64);

    for (size_t i = 0; rc == 0 && i < count; i++)
        if (json_array_append(some, json_array_get(w->messages, i)) != 0)
            rc = error_nomem(err, 64);
    if (rc == 0)
        rc = turns_render(out, w->tok, w->chat, some, w->tools, NULL, generate, err);
    json_decref(some);
    return rc;
}

/* How many bytes A and B begin with alike, in text and origin. */
static size_t common(const struct rendered *a, const struct rendered *b)
{
    const size_t n = a->n < b->n ? a->n : b->n;
    size_t i = 0;

    while (i < n && a->text[i] == b->text[i] && a->mask[i] == b->mask[i])
        i++;
    return i;
}

/* Does PROMPT leave FULL only in what it adds to the messages before I? */
static int parts_late(bool *late, const struct walk *w, size_t i, size_t shared,
                      struct artel_error *err)
{
    struct rendered before = {0};
    const int rc = render_first(&before, w, i, false, err);

    *late = rc == 0 && common(&before, &w->full) <= shared;
    rendered_release(&before);
    return rc;
}

/* Give loss to the tokens of the open answer, from its start to its first end of turn;
 * where the region has none, to those the full render had when the answer was last. */
static int close_answer(struct walk *w, struct artel_error *err)
{
    struct turns *t = w->t;
    struct rendered upto = {0};
    size_t end;
    int rc = 0;

    if (w->open == SIZE_MAX)
        return 0;
    end = t->turn[t->n - 1].start;
    while (end < t->ids.n && !tokenizer_is_end(w->tok, t->ids.at[end]))
        end++;
    if (end < t->ids.n) {
        end++;
    } else if (w->open + 1 < json_array_size(w->messages)) {
        size_t bytes;

        rc = render_first(&upto, w, w->open + 1, false, err);
        bytes = rc == 0 ? common(&upto, &w->full) : 0;
        while (end > t->turn[t->n - 1].start && t->byte_at[end - 1] >= bytes)
            end--;
        rendered_release(&upto);
    }
    for (size_t i = t->turn[t->n - 1].start; w->open_loss && i < end; i++)
        t->loss[i] = 1;
    w->open = SIZE_MAX;
    return rc;
}

static bool carries_loss(const json_t *message)
{
    const json_t *weight = json_object_get(message, "weight");
    const char *content = json_string_value(json_object_get(message, "content"));

    if (weight && json_number_value(weight) == 0.0)
        return false;
    return (content && content[strspn(content, " \t\r\n")]) ||
           json_array_size(json_object_get(message, "tool_calls"));
}

/* Tokens up to the answer that is message I, which is then open. */
static int walk_prompt(struct walk *w, size_t i, struct artel_error *err)
{
    const bool last = i + 1 == json_array_size(w->messages);
    struct rendered prompt = {0};
    size_t shared, pool_first, pool_n;
    bool late = true;
    int rc = render_first(&prompt, w, i, true, err);

    if (rc < 0)
        return rc;
    shared = common(&prompt, &w->full);
    if (shared < prompt.n)
        rc = parts_late(&late, w, i, shared, err);
    if (rc == 0 && !late && last)
        rc = error_set(
            err, ARTEL_EFORMAT, "DATA10", NULL,
            "the chat template writes the prompt of the last turn differently "
            "once its answer is there");
    if (rc < 0 || !late || shared < w->cursor)
        goto done; /* an earlier turn that cannot be told apart carries no loss */
    rc = last ? add_at(w->t, w->tok, prompt.text + w->cursor, prompt.mask + w->cursor,
                       prompt.n - w->cursor, w->cursor, false, err)
              : add_at(w->t, w->tok, w->full.text + w->cursor, w->full.mask + w->cursor,
                       shared - w->cursor, w->cursor, false, err);
    if (rc == 0)
        rc = close_answer(w, err);
    if (rc < 0)
        goto done;
    w->cursor = shared;
    turns_pool(w->t, prompt.pool_first, prompt.pool_end, &pool_first, &pool_n);
    rc = turns_open(w->t, pool_first, pool_n, err);
    w->open = i;
    w->open_loss = carries_loss(json_array_get(w->messages, i));

done:
    rendered_release(&prompt);
    return rc;
}

int turns_encode(struct turns *t, const struct tokenizer *tok,
                 const struct chat_template *chat, const json_t *messages,
                 const json_t *tools, struct artel_error *err)
{
    struct walk w = {t, tok, chat, messages, tools, {0}, 0, SIZE_MAX, false};
    int rc;

    turns_clear(t);
    rc = turns_render(&w.full, tok, chat, messages, tools, NULL, false, err);
    for (size_t i = 0; rc == 0 && i < json_array_size(messages); i++) {
        const char *role =
            json_string_value(json_object_get(json_array_get(messages, i), "role"));

        if (role && !strcmp(role, "assistant"))
            rc = walk_prompt(&w, i, err);
    }
    if (rc == 0)
        rc = add_at(t, tok, w.full.text + w.cursor, w.full.mask + w.cursor,
                    w.full.n - w.cursor, w.cursor, false, err);
    if (rc == 0)
        rc = close_answer(&w, err);
    rendered_release(&w.full);
    return rc;
}
