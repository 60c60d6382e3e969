/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stages of several experts carried out side by side. Folders, checkpoints, stamps and
 * results are those that each would have by itself, so nothing but the recipe's key says
 * that they were together, and a stage that was begun one way may go on the other.
 */
#include <stdlib.h>

#include "base/error.h"
#include "plan/results.h"
#include "plan/stages.h"
#include "train/together.h"

#define AUTO_EXPERTS                                                                   \
    8 /* beyond these a pass gains little and its gradients take room */

/* A pass of several experts can be had, and ends in the bits of several passes. */
static bool is_exact(const struct job *job)
{
    return job->precision == PRECISION_FP32 && job->r->lora.dropout <= 0.0f;
}

size_t together_limit(const struct job *job)
{
    const size_t asked = job->r->train.together;

    if (job->grow || !is_exact(job))
        return 1;
    return asked ? asked : AUTO_EXPERTS;
}

int together_check(const struct job *job, struct artel_error *err)
{
    if (job->r->train.together < 2 || job->grow || is_exact(job))
        return 0;
    error_set(err, ARTEL_EUSAGE, "RCP03", "train.together",
              job->precision == PRECISION_FP32
                  ? "experts with lora.dropout are trained one after the other"
                  : "experts are trained together in fp32 only: train.precision: fp32");
    return error_in(err, ARTEL_EUSAGE, job->r->path);
}

/* A domain's expert that needs no other. */
static bool stands_alone(const struct stage *s)
{
    return s->kind == STAGE_EXPERT && s->row->text == TEXT_OWN && !s->row->universal;
}

static bool joins(const struct stage *s, const struct stage *first)
{
    return s->row == first->row && s->kind == STAGE_EXPERT && s->pending && !s->done;
}

int group_open(struct stage_group *g, const struct job *job, struct stage *s,
               struct artel_error *err)
{
    const size_t limit = stands_alone(s) ? together_limit(job) : 1;
    struct stage *const end = job->stages + job->n_stages;

    *g = (struct stage_group){.of = calloc(job->n_stages, sizeof(*g->of)),
                              .inputs = calloc(job->n_stages, sizeof(json_t *)),
                              .summaries = calloc(job->n_stages, sizeof(json_t *))};
    if (!g->of || !g->inputs || !g->summaries) {
        group_release(g);
        return error_nomem(err, job->n_stages * sizeof(*g->of));
    }
    g->of[g->n++] = s;
    while (++s < end && g->n < limit)
        if (joins(s, g->of[0]))
            g->of[g->n++] = s;
    return 0;
}

void group_release(struct stage_group *g)
{
    for (size_t i = 0; i < g->n; i++) {
        json_decref(g->inputs[i]);
        json_decref(g->summaries[i]);
    }
    free(g->of);
    free(g->inputs);
    free(g->summaries);
    *g = (struct stage_group){0};
}

/* All experts of the group, each as its own stage would begin. */
static int group_mixture(struct mixture *m, const struct stage_group *g,
                         const struct job *job, bool read, struct artel_error *err)
{
    int rc = stage_mixture(m, job, g->of[0], read, err);

    for (size_t i = 1; rc == 0 && i < g->n; i++) {
        struct mixture one;

        rc = stage_mixture(&one, job, g->of[i], read, err);
        if (rc == 0)
            rc = mixture_add(m, &one.experts[0], &job->model->weights->config, err);
        mixture_release(&one);
    }
    if (rc < 0)
        mixture_release(m);
    return rc;
}

/* The mixture of expert I alone, borrowed from M. */
static struct mixture mixture_of_one(const struct mixture *m, size_t i)
{
    struct mixture one = *m;

    one.experts = &m->experts[i];
    one.n_experts = 1;
    return one;
}

struct beside {
    struct mixture all;
    struct mixture *one;        /* (n) */
    bool *trained;              /* (n) */
    struct loop_input *in;      /* (n) */
    struct loop_result *result; /* (n) */
};

static void beside_release(struct beside *b)
{
    free(b->one);
    free(b->trained);
    free(b->in);
    free(b->result);
    mixture_release(&b->all);
}

static int beside_open(struct beside *b, const struct stage_group *g,
                       const struct job *job, bool read, struct artel_error *err)
{
    int rc;

    *b = (struct beside){.one = calloc(g->n, sizeof(*b->one)),
                         .trained = calloc(g->n, sizeof(*b->trained)),
                         .in = calloc(g->n, sizeof(*b->in)),
                         .result = calloc(g->n, sizeof(*b->result))};
    rc = b->one && b->trained && b->in && b->result
             ? group_mixture(&b->all, g, job, read, err)
             : error_nomem(err, g->n * sizeof(*b->in));
    if (rc < 0) {
        beside_release(b);
        return rc;
    }
    for (size_t i = 0; i < g->n; i++) {
        b->one[i] = mixture_of_one(&b->all, i);
        stage_loop_input(&b->in[i], job, g->of[i], &b->one[i], &b->trained[i]);
    }
    return 0;
}

int group_memory(size_t *bytes, const struct stage_group *g, const struct job *job,
                 struct artel_error *err)
{
    struct beside b;
    const int rc = beside_open(&b, g, job, false, err);

    if (rc < 0)
        return rc;
    *bytes = together_bytes(job->model, &b.all, &b.in[0].train);
    for (size_t e = 0; e < g->n; e++)
        *bytes += b.all.experts[e].n_params * sizeof(float);
    beside_release(&b);
    return 0;
}

int group_carry_out(struct stage_group *g, struct job *job, struct artel_error *err)
{
    struct beside b;
    int rc = beside_open(&b, g, job, true, err);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < g->n; i++) {
        b.in[i].inputs = g->inputs[i];
        b.in[i].watch = &job->watch;
    }
    rc = job_prepare(job, PRECISION_FP32, err);
    if (rc == 0)
        rc = loop_run_together(b.in, b.result, g->n, &b.all, err);
    for (size_t i = 0; rc == 0 && i < g->n; i++) {
        g->summaries[i] = stage_summary(job, &b.in[i], &b.result[i]);
        rc = g->summaries[i]
                 ? results_write(job, g->of[i], &b.one[i], g->summaries[i], err)
                 : error_nomem(err, 1024);
    }
    beside_release(&b);
    return rc;
}
