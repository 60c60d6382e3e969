/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes are shallow copies of one trainer of all experts, the lead: each has one of its
 * groups, and lists and a step of its own. The lead's blocks are the lanes' blocks put
 * beside each other, and its gradients, which come by expert, are the lanes'.
 *
 * Where anything in a step is not finite, or does not fit, all is forgotten and each lane
 * makes its step alone, so that what is said and done is what it would be alone.
 */
#include "train/together.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/list.h"
#include "train/trainer_parts.h"

/* As for a batch alone (trainer.c). */
#define BLOCK_ROWS_MIN 64
#define BLOCKS_WANTED  6

struct together {
    struct artel_trainer *lead;
    size_t n;                    /* lanes */
    struct artel_trainer **lane; /* (n) */
    size_t *left, *n_blocks;     /* (n) a lane's blocks: taken, and all */
    struct block_loss *total;    /* (n) of a step */
    double *norm;                /* (n) */
    size_t room_blocks;
    double *nll; /* (room_blocks, n) */
};

static bool *all_of(size_t n)
{
    bool *trained = calloc(n + 1, sizeof(*trained));

    for (size_t e = 0; trained && e < n; e++)
        trained[e] = true;
    return trained;
}

static int check(const struct artel_model *model, const struct mixture *m,
                 struct artel_error *err)
{
    if (model->has_tiles)
        return error_set(err, ARTEL_EUSAGE, "TRN02", "precision",
                         "experts are trained together in fp32 only");
    for (size_t e = 0; e < m->n_experts; e++)
        if (m->experts[e].dropout > 0.0f)
            return error_set(err, ARTEL_EUSAGE, "TRN02", "dropout",
                             "experts with dropout cannot be trained together");
    return 0;
}

/* The lead with one group of its own and nothing that it owns but lists to come. */
static void make_lane(struct artel_trainer *lane, const struct artel_trainer *lead,
                      size_t e, const struct schedule *schedule)
{
    *lane = *lead;
    lane->is_lane = true;
    lane->options.forced_expert = (int)e;
    lane->options.schedule = *schedule;
    lane->groups = &lead->groups[e];
    lane->n_groups = 1;
    lane->adam_steps = &lead->adam_steps[e];
    lane->state_names = &lead->state_names[3 * e];
    lane->room_rows = lane->room_inputs = 0;
    lane->seqs = NULL;
    lane->blocks = NULL;
    lane->items = NULL;
}

int together_open(struct together **out, const struct artel_model *model,
                  struct mixture *mixture, const struct schedule *schedules,
                  const struct train_options *o, struct artel_error *err)
{
    const size_t n = mixture->n_experts;
    struct together *t = calloc(1, sizeof(*t));
    bool *trained = all_of(n);
    int rc = check(model, mixture, err);

    *out = NULL;
    if (t) {
        t->n = n;
        t->lane = calloc(n + 1, sizeof(*t->lane));
        t->left = calloc(2 * n + 1, sizeof(*t->left));
        t->total = calloc(n + 1, sizeof(*t->total));
        t->norm = calloc(n + 1, sizeof(*t->norm));
    }
    if (!t || !trained || !t->lane || !t->left || !t->total || !t->norm)
        rc = error_nomem(err, (n + 1) * sizeof(*t));
    if (rc == 0)
        rc = trainer_open(&t->lead, model, mixture, trained, false, o, err);
    for (size_t e = 0; rc == 0 && e < n; e++) {
        t->lane[e] = malloc(sizeof(**t->lane));
        if (t->lane[e])
            make_lane(t->lane[e], t->lead, e, &schedules[e]);
        else
            rc = error_nomem(err, sizeof(**t->lane));
    }
    free(trained);
    if (rc < 0) {
        together_close(t);
        return rc;
    }
    t->n_blocks = t->left + n;
    *out = t;
    return 0;
}

void together_close(struct together *t)
{
    if (!t)
        return;
    for (size_t e = 0; t->lane && e < t->n; e++) {
        if (!t->lane[e])
            continue;
        free(t->lane[e]->seqs);
        free(t->lane[e]->blocks);
        free(t->lane[e]->items);
        free(t->lane[e]);
    }
    trainer_close(t->lead);
    free(t->lane);
    free(t->left);
    free(t->total);
    free(t->norm);
    free(t->nll);
    free(t);
}

size_t together_bytes(const struct artel_model *model, const struct mixture *mixture,
                      const struct train_options *o)
{
    bool *trained = all_of(mixture->n_experts);
    const size_t bytes =
        trained ? trainer_bytes(model, mixture, trained, false, o) : SIZE_MAX;

    free(trained);
    return bytes;
}

struct artel_trainer *together_lane(const struct together *t, size_t e)
{
    return t->lane[e];
}

/* Micro-batch I of every lane that has one, as that lane's blocks, and its room here. */
static int lay_lanes(struct together *t, const struct lane_step *steps, size_t n,
                     size_t i, size_t *n_tokens, struct artel_error *err)
{
    size_t n_rows = 0, n_blocks = 0;
    int rc = 0;

    *n_tokens = 0;
    for (size_t k = 0; rc == 0 && k < n; k++) {
        const struct lane_step *s = &steps[k];
        const struct batch *b = &s->micro[i];
        const float scale = s->report.n_loss ? 1.0f / (float)s->report.n_loss : 0.0f;

        t->left[s->lane] = t->n_blocks[s->lane] = 0;
        if (i >= s->n_micro)
            continue;
        rc = trainer_lay_blocks(t->lane[s->lane], &t->n_blocks[s->lane], b->rows,
                                b->n_rows, scale, err);
        n_rows += b->n_rows;
        n_blocks += t->n_blocks[s->lane];
        *n_tokens += b->n_tokens;
    }
    if (rc == 0)
        rc = trainer_room(t->lead, n_rows, err);
    if (rc == 0 && n_blocks > t->room_blocks) {
        rc = list_grow(&t->nll, n_blocks, t->n * sizeof(*t->nll), err);
        if (rc == 0)
            t->room_blocks = n_blocks;
    }
    return rc;
}

/* The next block of the step: the next of each lane, as far as AIM reaches. */
static bool next_block(struct together *t, const struct lane_step *steps, size_t n,
                       size_t aim, struct block *b, struct sequence *room)
{
    *b = (struct block){.seqs = room};
    for (size_t k = 0; k < n; k++) {
        const size_t lane = steps[k].lane;
        const struct block *own = &t->lane[lane]->blocks[t->left[lane]];

        if (t->left[lane] == t->n_blocks[lane] ||
            (b->n_seqs && b->n_rows + own->n_rows > aim))
            continue;
        memcpy(room + b->n_seqs, own->seqs, own->n_seqs * sizeof(*room));
        b->n_seqs += own->n_seqs;
        b->n_rows += own->n_rows;
        t->left[lane]++;
    }
    return b->n_seqs > 0;
}

/* Put the lanes' blocks beside each other. Returns how many there are. */
static size_t lay_beside(struct together *t, const struct lane_step *steps, size_t n,
                         size_t n_tokens)
{
    struct artel_trainer *lead = t->lead;
    size_t used = 0, n_seqs = 0, aim = n_tokens / BLOCKS_WANTED;

    aim = aim < BLOCK_ROWS_MIN ? BLOCK_ROWS_MIN : aim;
    aim = aim > lead->options.block_rows ? lead->options.block_rows : aim;
    for (struct block b; next_block(t, steps, n, aim, &b, lead->seqs + n_seqs);) {
        b.by_expert = t->nll + used * t->n;
        memset(b.by_expert, 0, t->n * sizeof(*b.by_expert));
        lead->blocks[used++] = b;
        n_seqs += b.n_seqs;
    }
    return used;
}

/* Gradients of all lanes into the lead's sums, losses into TOTAL. False where something
 * was not finite or did not fit. */
static bool all_grads(struct together *t, const struct lane_step *steps, size_t n)
{
    size_t n_micro = 0;

    for (size_t k = 0; k < n; k++)
        n_micro = steps[k].n_micro > n_micro ? steps[k].n_micro : n_micro;
    for (size_t i = 0; i < n_micro; i++) {
        struct block_loss all = {0};
        struct artel_error unsaid;
        size_t n_tokens, n_blocks, layer;

        if (lay_lanes(t, steps, n, i, &n_tokens, &unsaid) < 0)
            return false;
        n_blocks = lay_beside(t, steps, n, n_tokens);
        if (trainer_run_blocks(t->lead, n_blocks, i, &all, &layer) < n_blocks)
            return false;
        for (size_t b = 0; b < n_blocks; b++)
            for (size_t e = 0; e < t->n; e++)
                t->total[e].nll += t->nll[b * t->n + e];
    }
    return true;
}

static void begin(struct together *t, struct lane_step *s)
{
    struct artel_trainer *lane = t->lane[s->lane];

    s->rc = 0;
    s->report = (struct step_report){0};
    for (size_t i = 0; i < s->n_micro; i++) {
        s->report.n_tokens += s->micro[i].n_tokens;
        s->report.n_loss += s->micro[i].n_loss;
    }
    t->total[s->lane] = (struct block_loss){.n_tokens = s->report.n_loss};
    trainer_zero_sums(lane);
    lane->unclean = true;
}

void together_step(struct together *t, struct lane_step *steps, size_t n)
{
    const double began = clock_seconds();
    size_t n_tokens = 0;
    bool good;

    for (size_t k = 0; k < n; k++) {
        begin(t, &steps[k]);
        n_tokens += steps[k].report.n_tokens;
    }
    good = all_grads(t, steps, n);
    for (size_t k = 0; good && k < n; k++) {
        t->norm[k] = trainer_norm(t->lane[steps[k].lane], &steps[k].report);
        good = isfinite(t->norm[k]);
    }
    for (size_t k = 0; k < n; k++) {
        struct lane_step *s = &steps[k];
        struct artel_trainer *lane = t->lane[s->lane];

        if (!good)
            s->rc = trainer_step(lane, s->micro, s->n_micro, &s->report, &s->error);
        else
            trainer_update(lane, &t->total[s->lane], t->norm[k], &s->report);
    }
    for (size_t k = 0; good && n_tokens && k < n; k++)
        steps[k].report.seconds = (clock_seconds() - began) *
                                  (double)steps[k].report.n_tokens / (double)n_tokens;
}
