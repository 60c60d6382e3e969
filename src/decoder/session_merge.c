/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which weights a session's sequence is computed with: the model's with the experts beside
 * them, or merged ones. In bf16 whole chunks of a prompt run on tiles and stay as they are.
 */
#include <assert.h>

#include "base/error.h"
#include "base/room.h"
#include "decoder/session_parts.h"

int session_set_merge(struct artel_session *s, enum merge_mode mode, size_t n_steps,
                      size_t most_bytes, struct artel_error *err)
{
    assert(!s->pool || mode == MERGE_NEVER);
    s->merge = mode;
    s->merge_steps = n_steps;
    s->merge_most = most_bytes;
    if (mode == MERGE_NEVER || s->merged || !s->mixture || !s->mixture->n_experts)
        return 0;
    return merged_open(&s->merged, s->model, s->mixture, err);
}

enum merge_extent session_merged(const struct artel_session *s)
{
    return s->extent;
}

/* Is there anything to merge, and can it be? Found by no computing with weights. */
static int find_gates(struct artel_session *s, struct merge_count *count,
                      struct artel_error *err)
{
    int rc;

    *count = (struct merge_count){0};
    if (s->by_token)
        return error_set(err, ARTEL_EUSAGE, "MRG01", "merge",
                         "this %s mixture finds gates for every token: name an expert, "
                         "or no weights can be merged",
                         s->mixture->method);
    merged_want(s->merged, s->expert, s->by_router ? s->held : NULL);
    rc = merged_check(s->merged, err);
    if (rc == 0)
        merged_count(count, s->merged);
    return rc;
}

static int check_fits(const struct artel_session *s, struct artel_error *err)
{
    const size_t needed = merged_bytes(s->merged);
    const size_t room = s->merge_most ? s->merge_most : room_memory();
    const size_t taken = s->merge_most ? s->merged->arena.size : 0;

    if (needed <= room && taken <= room - needed)
        return 0;
    return error_set(
        err, ARTEL_ELIMIT, "MRG02", "merge",
        "merged weights need %zu bytes (%zu MiB) more, %zu (%zu MiB) are %s",
        needed + taken, (needed + taken) >> 20, room, room >> 20,
        s->merge_most ? "allowed" : "available");
}

/* The extent that is asked for, by the count or whatever it says. */
static enum merge_extent choose(const struct artel_session *s,
                                const struct merge_count *count, size_t n_rows)
{
    const size_t n = s->prefill.n, room = s->kv.n_context - n;
    const bool few = n_rows <= PASS_FEW_ROWS; /* read as a step is */
    const size_t steps = s->merge_steps < room ? s->merge_steps : room;

    if (!count->weights)
        return MERGE_NOTHING; /* no expert adds anything */
    if (s->merge == MERGE_ALWAYS)
        return count->prompts ? MERGE_ALL : MERGE_STEPS;
    return merge_choose(count, few ? 0 : n_rows, steps);
}

int session_merge(struct artel_session *s, size_t n_rows, struct artel_error *err)
{
    struct merge_count count;
    struct artel_error why;
    int rc;

    s->extent = MERGE_NOTHING;
    if (s->merge == MERGE_NEVER || !s->merged)
        return 0;
    rc = find_gates(s, &count, &why);
    if (rc == 0) {
        s->extent = choose(s, &count, n_rows);
        if (s->extent)
            rc = check_fits(s, &why);
    }
    if (rc == 0 && s->extent)
        rc = merged_form(s->merged, &why);
    if (rc == 0)
        return 0;
    s->extent = MERGE_NOTHING;
    if (s->merge == MERGE_AUTO)
        return 0;
    *err = why;
    return rc;
}

void session_set_weights(const struct artel_session *s, struct decoder_pass *p)
{
    const bool merged = s->extent == MERGE_ALL || (p == s->few && s->extent);

    pass_set_weights(p, merged ? &s->merged->model : s->model,
                     merged ? NULL : s->mixture);
}
