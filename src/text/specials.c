/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One walk of the trie at each place where a token may begin gives the longest
 * candidate there. Where candidates overlap, they are taken from a heap, longest
 * first; one whose end is taken already comes back as the next shorter token.
 */
#include "text/specials.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/list.h"
#include "text/vocabulary.h"

static bool is_special(const struct token *token)
{
    return token->kind == TOKEN_CONTROL || token->kind == TOKEN_USER;
}

static uint64_t edge_key(size_t node, unsigned char byte)
{
    return (uint64_t)node << 8 | byte;
}

/* The node behind the edge, or 0. */
static size_t step(const struct specials *s, size_t node, unsigned char byte)
{
    const uint32_t to = index_get(&s->edges, edge_key(node, byte));

    return to == INDEX_NONE ? 0 : to;
}

/* False: another token has the same text. */
static bool insert(struct specials *s, const char *text, size_t n, int32_t id)
{
    size_t node = 0;

    s->first[(unsigned char)text[0]] = true;
    for (size_t i = 0; i < n; i++) {
        const unsigned char byte = (unsigned char)text[i];
        size_t next = step(s, node, byte);

        if (!next) {
            next = s->n_nodes++;
            index_put(&s->edges, edge_key(node, byte), (uint32_t)next);
            s->ids[next] = -1;
        }
        node = next;
    }
    if (s->ids[node] >= 0)
        return false;
    s->ids[node] = id;
    return true;
}

int specials_init(struct specials *s, const struct vocabulary *v,
                  struct artel_error *err)
{
    size_t n_bytes = 1;
    int rc;

    memset(s, 0, sizeof(*s));
    for (size_t id = 0; id < v->n_tokens; id++)
        if (is_special(&v->tokens[id]))
            n_bytes += v->tokens[id].length;
    if (n_bytes > UINT32_MAX / 2)
        return error_set(err, ARTEL_EFORMAT, "TOK09", NULL,
                         "control and user tokens of %zu bytes together", n_bytes);
    rc = index_room(&s->edges, n_bytes, err);
    if (rc < 0)
        return rc;
    s->ids = malloc(n_bytes * sizeof(*s->ids));
    if (!s->ids) {
        specials_release(s);
        return error_nomem(err, n_bytes * sizeof(*s->ids));
    }
    s->ids[s->n_nodes++] = -1;
    for (size_t id = 0; id < v->n_tokens; id++) {
        const struct token *token = &v->tokens[id];

        if (is_special(token) && token->length &&
            !insert(s, v->bytes + token->start, token->length, (int32_t)id))
            return error_set(err, ARTEL_EFORMAT, "TOK09", NULL,
                             "token %zu has the text of another", id);
    }
    return 0;
}

void specials_release(struct specials *s)
{
    index_release(&s->edges);
    free(s->ids);
    memset(s, 0, sizeof(*s));
}

int32_t specials_lookup(const struct specials *s, const char *text, size_t n)
{
    size_t node = 0;

    for (size_t i = 0; i < n; i++) {
        node = step(s, node, (unsigned char)text[i]);
        if (!node)
            return -1;
    }
    return s->ids[node];
}

void special_list_release(struct special_list *list)
{
    free(list->at);
    memset(list, 0, sizeof(*list));
}

static int list_push(struct special_list *list, struct special item,
                     struct artel_error *err)
{
    if (list->n == list->room) {
        const size_t room = list->room ? 2 * list->room : 16;
        const int rc = list_grow(&list->at, room, sizeof(*list->at), err);

        if (rc < 0)
            return rc;
        list->room = room;
    }
    list->at[list->n++] = item;
    return 0;
}

/* What is being searched. */
struct search {
    const struct specials *s;
    const struct vocabulary *v;
    const char *text;
    const unsigned char *mask; /* may be NULL */
    bool control;
};

/* The longest token of at most LIMIT bytes at START; length 0: none. */
static struct special longest_at(const struct search *q, size_t start, size_t limit)
{
    struct special found = {start, 0, -1};
    bool control = q->control;
    size_t node = 0;

    for (size_t i = 0; i < limit; i++) {
        int32_t id;

        node = step(q->s, node, (unsigned char)q->text[start + i]);
        if (!node)
            break;
        control = control && (!q->mask || q->mask[start + i]);
        id = q->s->ids[node];
        if (id >= 0 && (control || q->v->tokens[id].kind == TOKEN_USER)) {
            found.length = i + 1;
            found.id = id;
        }
    }
    return found;
}

static bool before(const struct special *a, const struct special *b)
{
    return a->length > b->length || (a->length == b->length && a->start < b->start);
}

static void sift_down(struct special *heap, size_t n, size_t i)
{
    const struct special item = heap[i];

    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        child += child + 1 < n && before(&heap[child + 1], &heap[child]);
        if (!before(&heap[child], &item))
            break;
        heap[i] = heap[child];
    }
    heap[i] = item;
}

static int by_place(const void *a, const void *b)
{
    const struct special *x = a, *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

/* Choose among overlapping candidates; LIST becomes those chosen. */
static int choose(const struct search *q, struct special_list *list, size_t n,
                  struct artel_error *err)
{
    struct special_list chosen = {0};
    unsigned char *taken = calloc(n, 1);
    struct special *heap = list->at;
    int rc = taken ? 0 : error_nomem(err, n);

    for (size_t i = list->n / 2; i-- > 0;)
        sift_down(heap, list->n, i);
    while (rc == 0 && list->n) {
        struct special top = heap[0];

        /* Those taken so far are no shorter: an overlap covers an end of TOP. */
        if (!taken[top.start] && taken[top.start + top.length - 1]) {
            size_t room = 1;

            while (!taken[top.start + room])
                room++;
            heap[0] = longest_at(q, top.start, room);
            if (!heap[0].length)
                heap[0] = heap[--list->n];
        } else {
            if (!taken[top.start]) {
                memset(taken + top.start, 1, top.length);
                rc = list_push(&chosen, top, err);
            }
            heap[0] = heap[--list->n];
        }
        if (list->n)
            sift_down(heap, list->n, 0);
    }
    free(taken);
    if (chosen.n)
        qsort(chosen.at, chosen.n, sizeof(*chosen.at), by_place);
    special_list_release(list);
    *list = chosen;
    return rc;
}

int specials_find(const struct specials *s, struct special_list *list,
                  const struct vocabulary *v, const char *text,
                  const unsigned char *mask, size_t n, bool control,
                  struct artel_error *err)
{
    const struct search q = {s, v, text, mask, control};
    bool overlap = false;
    size_t end = 0;

    list->n = 0;
    for (size_t i = 0; i < n; i++) {
        struct special found;
        int rc;

        if (!s->first[(unsigned char)text[i]])
            continue;
        found = longest_at(&q, i, n - i);
        if (!found.length)
            continue;
        rc = list_push(list, found, err);
        if (rc < 0)
            return rc;
        overlap = overlap || i < end;
        if (i + found.length > end)
            end = i + found.length;
    }
    return overlap ? choose(&q, list, n, err) : 0;
}
