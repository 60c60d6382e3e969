/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scratch folder, a base and a good adapter to be written, for one test.
 */
#ifndef ARTEL_TESTS_SAVE_ADAPTER_BENCH_H
#define ARTEL_TESTS_SAVE_ADAPTER_BENCH_H

#include "unit/save/fixture.h"

/* What a test works with. */
struct bench {
    char *scratch, *folder;
    struct toy_base base;
    struct toy_adapter toy;
    struct artel_error err;
};

static inline struct bench *bench_open(bool interleaved)
{
    struct bench *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    b->scratch = scratch_open();
    b->folder = path_join(b->scratch, "adapter");
    toy_base_init(&b->base, interleaved);
    toy_adapter_init(&b->toy);
    return b;
}

static inline void bench_close(struct bench *b)
{
    toy_adapter_release(&b->toy);
    free(b->folder);
    scratch_close(b->scratch);
    free(b);
}

static inline void read_ok(struct bench *b, struct expert *e)
{
    const int rc = adapter_read(e, "toy", b->folder, &b->base.model, false, &b->err);

    if (rc < 0)
        fail_msg("%s: %s: %s [%s]", b->err.file, b->err.where, b->err.reason,
                 b->err.code);
}

#endif
