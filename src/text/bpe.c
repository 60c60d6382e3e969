/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A linked list of symbols and a heap of candidate merges: O(n log n), so that a
 * megabyte of one letter is no trouble.
 *
 * A heap entry holds rank and left symbol only; the rank tells the pair. An entry
 * whose pair is no longer there is stale and dropped when it comes up.
 */
#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

#define NO_TOKEN (-1)
#define MERGED   (-2)

void bpe_work_release(struct bpe_work *w)
{
    free(w->id);
    free(w->prev);
    free(w->next);
    free(w->heap);
    memset(w, 0, sizeof(*w));
}

static int work_reserve(struct bpe_work *w, size_t n, struct artel_error *err)
{
    size_t room = 256;

    if (n <= w->room)
        return 0;
    while (room < n)
        room *= 2;
    bpe_work_release(w);
    w->id = malloc(room * sizeof(*w->id));
    w->prev = malloc(room * sizeof(*w->prev));
    w->next = malloc(room * sizeof(*w->next));
    w->heap = malloc(3 * room * sizeof(*w->heap));
    if (!w->id || !w->prev || !w->next || !w->heap) {
        bpe_work_release(w);
        return error_nomem(err, room * 36);
    }
    w->room = room;
    return 0;
}

static void sift_down(uint64_t *heap, size_t n, size_t i)
{
    const uint64_t entry = heap[i];

    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        child += child + 1 < n && heap[child + 1] < heap[child];
        if (entry <= heap[child])
            break;
        heap[i] = heap[child];
    }
    heap[i] = entry;
}

static void heap_push(uint64_t *heap, size_t *n, uint64_t entry)
{
    size_t i = (*n)++;

    while (i && heap[(i - 1) / 2] > entry) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = entry;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    const uint64_t top = heap[0];

    heap[0] = heap[--*n];
    if (*n)
        sift_down(heap, *n, 0);
    return top;
}

/* The entry of the pair (left, right) into *ENTRY; false when it cannot merge. */
static bool pair_entry(const struct vocabulary *v, const struct bpe_work *w,
                       uint64_t *entry, int32_t left, int32_t right)
{
    int64_t rank;

    if (w->id[left] < 0 || w->id[right] < 0)
        return false;
    rank = vocabulary_rank(v, w->id[left], w->id[right]);
    if (rank < 0)
        return false;
    *entry = (uint64_t)rank << 32 | (uint32_t)left;
    return true;
}

static void merge_all(const struct vocabulary *v, struct bpe_work *w, size_t n)
{
    size_t n_heap = 0;
    uint64_t entry;

    for (size_t i = 0; i + 1 < n; i++)
        if (pair_entry(v, w, &entry, (int32_t)i, (int32_t)i + 1))
            w->heap[n_heap++] = entry;
    for (size_t i = n_heap / 2; i-- > 0;)
        sift_down(w->heap, n_heap, i);

    /* At most n - 1 entries at first and two for each of n - 1 merges: 3n suffice. */
    while (n_heap) {
        int32_t left, right;
        const struct merge *merge;

        entry = heap_pop(w->heap, &n_heap);
        left = (int32_t)(uint32_t)entry;
        merge = &v->merges[entry >> 32];
        right = w->next[left];
        if (w->id[left] != merge->left || right < 0 || w->id[right] != merge->right)
            continue;
        w->id[left] = merge->result;
        w->id[right] = MERGED;
        w->next[left] = w->next[right];
        if (w->next[right] >= 0)
            w->prev[w->next[right]] = left;
        if (w->prev[left] >= 0 && pair_entry(v, w, &entry, w->prev[left], left))
            heap_push(w->heap, &n_heap, entry);
        if (w->next[left] >= 0 && pair_entry(v, w, &entry, left, w->next[left]))
            heap_push(w->heap, &n_heap, entry);
    }
}

int bpe_encode(const struct vocabulary *v, struct ids *ids, struct bpe_work *w,
               const char *bytes, size_t n, bool ignore_merges, struct artel_error *err)
{
    int rc;

    if (n > BPE_MAX_PIECE)
        return error_set(err, ARTEL_ELIMIT, "TOK13", NULL,
                         "a single word of %zu bytes is more than the limit of %zu", n,
                         BPE_MAX_PIECE);
    if (ignore_merges) {
        const int32_t id = vocabulary_lookup(v, bytes, n);

        if (id >= 0 && v->tokens[id].kind != TOKEN_CONTROL)
            return ids_push(ids, id, err);
    }
    rc = work_reserve(w, n, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        w->id[i] = v->byte_id[(unsigned char)bytes[i]];
        w->prev[i] = (int32_t)i - 1;
        w->next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    merge_all(v, w, n);
    for (int32_t i = n ? 0 : -1; i >= 0; i = w->next[i]) {
        if (w->id[i] < 0)
            continue;
        rc = ids_push(ids, w->id[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
