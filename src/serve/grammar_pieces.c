/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/grammar_pieces.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/tokenizer.h"

struct piece {
    const char *at; /* (n) */
    size_t n;
    int32_t id;
};

static int by_bytes(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    const int order = memcmp(x->at, y->at, x->n < y->n ? x->n : y->n);

    if (order)
        return order;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Nodes from LIST, which is in order: each piece adds what it does not share. */
static void fill_nodes(struct grammar_pieces *p, const struct piece *list, size_t n)
{
    uint32_t path[PIECE_BYTES]; /* nodes of the piece before */
    size_t depth = 0;

    for (size_t i = 0; i < n; i++) {
        const struct piece *now = &list[i];
        size_t shared = 0;

        while (i && shared < now->n && shared < depth &&
               list[i - 1].at[shared] == now->at[shared])
            shared++;
        for (size_t d = shared; d < depth; d++)
            p->nodes[path[d]].end = (uint32_t)p->n_nodes;
        if (i && shared == now->n) { /* the same bytes once more */
            int32_t *twin = &p->nodes[path[shared - 1]].id;

            p->twins[now->id] = *twin;
            *twin = now->id;
        }
        for (size_t d = shared; d < now->n; d++) {
            path[d] = (uint32_t)p->n_nodes;
            p->nodes[p->n_nodes++] =
                (struct piece_node){.id = d + 1 == now->n ? now->id : -1,
                                    .byte = (uint8_t)now->at[d],
                                    .depth = (uint8_t)(d + 1)};
        }
        depth = now->n;
    }
    for (size_t d = 0; d < depth; d++)
        p->nodes[path[d]].end = (uint32_t)p->n_nodes;
}

static size_t collect(struct grammar_pieces *p, struct piece *list, size_t *n_bytes,
                      const struct tokenizer *tok)
{
    size_t n = 0;

    for (size_t i = 0; i < p->n_ids; i++) {
        const int32_t id = (int32_t)i;
        struct piece piece = {.id = id};

        p->twins[i] = -1;
        if (tokenizer_is_end(tok, id)) {
            p->ends[p->n_ends++] = id;
            continue;
        }
        piece.at = tokenizer_piece(tok, id, &piece.n);
        if (tokenizer_is_control(tok, id) || !piece.n || piece.n > PIECE_BYTES)
            continue;
        list[n++] = piece;
        *n_bytes += piece.n;
        if (piece.n == 1)
            p->has[(unsigned char)piece.at[0]] = true;
    }
    qsort(list, n, sizeof(*list), by_bytes);
    return n;
}

int grammar_pieces_open(struct grammar_pieces **out, const struct tokenizer *tok,
                        struct artel_error *err)
{
    const size_t n_ids = tokenizer_size(tok);
    struct grammar_pieces *p = calloc(1, sizeof(*p));
    struct piece *list = malloc(n_ids * sizeof(*list));
    size_t n_bytes = 0, n;
    int rc = 0;

    *out = NULL;
    if (!p || !list)
        goto nomem;
    p->tok = tok;
    p->n_ids = n_ids;
    p->twins = malloc(n_ids * sizeof(*p->twins));
    p->ends = malloc(n_ids * sizeof(*p->ends));
    if (!p->twins || !p->ends)
        goto nomem;
    n = collect(p, list, &n_bytes, tok);
    if (!p->n_ends) {
        rc =
            error_set(err, ARTEL_EUSAGE, "SRV07", NULL,
                      "this model has no token that ends a turn, so its text cannot be "
                      "held to a form");
        goto fail;
    }
    p->nodes = malloc((n_bytes + 1) * sizeof(*p->nodes));
    if (!p->nodes)
        goto nomem;
    fill_nodes(p, list, n);
    free(list);
    *out = p;
    return 0;

nomem:
    rc = error_nomem(err, n_ids * sizeof(*list));
fail:
    free(list);
    grammar_pieces_close(p);
    return rc;
}

void grammar_pieces_close(struct grammar_pieces *p)
{
    if (!p)
        return;
    free(p->nodes);
    free(p->twins);
    free(p->ends);
    free(p);
}
