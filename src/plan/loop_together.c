/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops of several experts side by side. Each keeps its own batches, numbers, log and
 * checkpoints, as it would alone; only the pass over the base is shared. So they may
 * stand at different steps, and any of them may have been begun, or go on, alone.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "plan/loop_parts.h"
#include "train/together.h"

struct beside {
    size_t n;
    struct loop *loop;       /* (n) */
    struct lane_step *steps; /* (n) */
    struct schedule *schedules;
    struct together *together;
    bool *finished;          /* (n) */
    struct loop_result *out; /* (n) */
};

/* What loop I has done since SINCE was no time of the others. */
static void lend(struct beside *b, size_t i, double since)
{
    const double seconds = clock_seconds() - since;

    for (size_t k = 0; k < b->n; k++)
        b->loop[k].lent += k == i ? 0 : seconds;
}

/* All loops save, whatever comes of it, so that what is done is kept. */
static int stop(struct beside *b, struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < b->n; i++) {
        struct artel_error own = {0};
        int one;

        if (b->finished[i])
            continue;
        one = loop_stop(&b->loop[i], &own);
        if (rc == 0 || (rc == ARTEL_ESTOPPED && one != ARTEL_ESTOPPED)) {
            rc = one;
            *err = own;
        }
    }
    return rc;
}

static int take_in(struct beside *b, struct lane_step *s, struct artel_error *err)
{
    struct loop *l = &b->loop[s->lane];
    const double began = clock_seconds();
    int rc = loop_stepped(l, s->rc, &s->report, &s->error);

    if (rc < 0)
        *err = s->error;
    else
        rc = loop_look_round(l, err);
    lend(b, s->lane, began);
    return rc < 0 ? error_in(err, rc, l->in->folder) : 0;
}

/* One step of every loop that is not done. */
static int turn(struct beside *b, size_t *n, struct artel_error *err)
{
    double began, seconds;
    int rc = 0;

    *n = 0;
    for (size_t i = 0; rc == 0 && i < b->n; i++) {
        struct lane_step *s = &b->steps[*n];

        if (loop_is_done(&b->loop[i]))
            continue;
        *s = (struct lane_step){.lane = i};
        rc = loop_next(&b->loop[i], &s->micro, &s->n_micro, err);
        ++*n;
    }
    if (rc < 0 || !*n)
        return rc;
    began = clock_seconds();
    together_step(b->together, b->steps, *n);
    seconds = clock_seconds() - began;
    for (size_t i = 0; i < b->n; i++)
        b->loop[i].lent += seconds;
    for (size_t k = 0; k < *n; k++)
        b->loop[b->steps[k].lane].lent -= b->steps[k].report.seconds;
    for (size_t k = 0; k < *n; k++) {
        struct artel_error own = {0};
        const int one = take_in(b, &b->steps[k], &own);

        /* The others' steps are made all the same, and counted. */
        if (one < 0 && rc == 0) {
            rc = one;
            *err = own;
        }
    }
    return rc;
}

/* Loops that have come to their end are ended while others go on. */
static int finish_done(struct beside *b, struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < b->n; i++) {
        const double began = clock_seconds();

        if (b->finished[i] || !loop_is_done(&b->loop[i]))
            continue;
        rc = loop_finish(&b->loop[i], &b->out[i], err);
        b->finished[i] = true;
        lend(b, i, began);
    }
    return rc;
}

static int turns(struct beside *b, struct artel_error *err)
{
    size_t n = 1;
    int rc = 0;

    while (rc == 0 && n) {
        rc = finish_done(b, err);
        if (rc == 0 && loop_asked_to_stop(&b->loop[0]))
            return stop(b, err);
        if (rc == 0)
            rc = turn(b, &n, err);
    }
    return rc;
}

static int start(struct beside *b, const struct loop_input *in, struct mixture *mixture,
                 struct artel_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < b->n; i++) {
        rc = loop_lay_out(&b->loop[i], &in[i], err);
        if (rc == 0)
            loop_fill_schedule(&b->loop[i], &b->schedules[i]);
    }
    if (rc == 0)
        rc = together_open(&b->together, in->model, mixture, b->schedules, &in->train,
                           err);
    for (size_t i = 0; rc == 0 && i < b->n; i++) {
        b->loop[i].trainer = together_lane(b->together, i);
        rc = loop_start(&b->loop[i], err);
    }
    return rc;
}

int loop_run_together(const struct loop_input *in, struct loop_result *out, size_t n,
                      struct mixture *mixture, struct artel_error *err)
{
    struct artel_error own = {0};
    struct beside b = {.n = n,
                       .loop = calloc(n, sizeof(*b.loop)),
                       .steps = calloc(n, sizeof(*b.steps)),
                       .schedules = calloc(n, sizeof(*b.schedules)),
                       .finished = calloc(n, sizeof(*b.finished)),
                       .out = out};
    int rc = 0;

    if (!b.loop || !b.steps || !b.schedules || !b.finished)
        rc = error_nomem(&own, n * sizeof(*b.loop));
    if (rc == 0)
        rc = start(&b, in, mixture, &own);
    if (rc == 0)
        rc = turns(&b, &own);
    for (size_t i = 0; b.loop && i < n; i++)
        loop_close(&b.loop[i]);
    together_close(b.together);
    free(b.loop);
    free(b.steps);
    free(b.schedules);
    free(b.finished);
    if (rc < 0)
        error_in(&own, rc, in->folder);
    if (rc < 0 && err)
        *err = own;
    return rc < 0 ? rc : 0;
}
