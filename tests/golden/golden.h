/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The golden numbers of README.md, opened once for a test program, and the rows
 * they were computed from.
 */
#ifndef ARTEL_TESTS_GOLDEN_H
#define ARTEL_TESTS_GOLDEN_H

#include <jansson.h>
#include <stdio.h>

#include "artel.h"
#include "check.h"
#include "decoder/decoder.h"
#include "files/json.h"
#include "files/safetensors.h"

#define GOLDEN         ARTEL_TESTS "/golden/"
#define GOLDEN_ROWS    3
#define GOLDEN_MAX_ROW 32 /* tokens */
#define GOLDEN_VOCAB   320

struct golden {
    json_t *facts;               /* toy.json */
    struct safetensors *numbers; /* toy.safetensors */
};

static struct golden golden;

static int golden_open(void **state)
{
    struct artel_error err;

    (void)state;
    if (json_read_file(&golden.facts, GOLDEN "toy.json", 1 << 20, &err) < 0 ||
        safetensors_open(&golden.numbers, GOLDEN "toy.safetensors", &err) < 0) {
        fprintf(stderr, "%s: %s\n", err.file, err.reason);
        return -1;
    }
    return 0;
}

static int golden_close(void **state)
{
    (void)state;
    json_decref(golden.facts);
    safetensors_close(golden.numbers);
    return 0;
}

/* An array of numbers in the reference; the name must be there with N elements. */
static inline const float *golden_tensor(const char *name, size_t n)
{
    const struct tensor *t = safetensors_find(golden.numbers, name);

    if (!t || tensor_elems(t) != n || t->dtype != DTYPE_F32)
        fail_msg("toy.safetensors has no %s of %zu numbers", name, n);
    return t->data;
}

static inline size_t golden_ids(int32_t *out, size_t room, const json_t *array)
{
    const size_t n = json_array_size(array);

    assert_in_range(n, 1, room);
    for (size_t i = 0; i < n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return n;
}

/* The three rows of a model as one block, each with loss on its answer. */
struct golden_rows {
    int32_t ids[GOLDEN_ROWS][GOLDEN_MAX_ROW];
    unsigned char loss[GOLDEN_ROWS][GOLDEN_MAX_ROW];
    size_t answer_start[GOLDEN_ROWS];
    struct sequence seqs[GOLDEN_ROWS];
    struct block block;
    size_t n_loss; /* tokens, over the rows */
};

static inline void golden_fill(struct golden_rows *r, const char *model, int expert)
{
    const json_t *rows = json_object_get(
        json_object_get(json_object_get(golden.facts, "models"), model), "rows");

    memset(r, 0, sizeof(*r));
    assert_int_equal(json_array_size(rows), GOLDEN_ROWS);
    for (size_t i = 0; i < GOLDEN_ROWS; i++) {
        const json_t *row = json_array_get(rows, i);
        const size_t n =
            golden_ids(r->ids[i], GOLDEN_MAX_ROW, json_object_get(row, "ids"));

        r->answer_start[i] =
            (size_t)json_integer_value(json_object_get(row, "answer_start"));
        for (size_t t = r->answer_start[i]; t < n; t++)
            r->loss[i][t] = 1;
        r->seqs[i] = (struct sequence){.ids = r->ids[i],
                                       .n = n,
                                       .loss = r->loss[i],
                                       .pool_n = r->answer_start[i],
                                       .expert = expert};
        r->n_loss += n - r->answer_start[i];
        r->block.n_rows += n;
    }
    for (size_t i = 0; i < GOLDEN_ROWS; i++)
        r->seqs[i].loss_scale = 1.0f / (float)r->n_loss;
    r->block.seqs = r->seqs;
    r->block.n_seqs = GOLDEN_ROWS;
}

static inline struct artel_model *golden_model(const char *file, int use)
{
    struct artel_model *m;
    struct artel_error err;
    char path[512];

    snprintf(path, sizeof(path), GOLDEN "%s", file);
    if (model_open(&m, path, &err) < 0)
        fail_msg("%s: %s: %s", err.file, err.where, err.reason);
    assert_int_equal(model_prepare(m, PRECISION_FP32, use, 512, &err), 0);
    return m;
}

/* Greedy: each id must be the reference's, as long as the reference was sure. */
static inline void golden_greedy(const float *logits, const json_t *greedy, size_t i)
{
    const long want =
        (long)json_integer_value(json_array_get(json_object_get(greedy, "ids"), i));
    size_t best = 0;

    for (size_t v = 1; v < GOLDEN_VOCAB; v++)
        if (logits[v] > logits[best])
            best = v;
    assert_int_equal(best, want);
}

#endif
