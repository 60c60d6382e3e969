/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run will take, before it takes it: the stages are laid out in the first memory
 * mode that fits without a byte of them being there.
 */
#include <stdlib.h>

#include "base/error.h"
#include "base/room.h"
#include "plan/job.h"

static int measure_stage(const struct job *job, const struct stage *s, size_t *memory,
                         uint64_t *disk, struct artel_error *err)
{
    struct mixture m = {0};
    struct loop_input in;
    bool *trained;
    int rc;

    if (!stage_computes(s))
        return 0;
    rc = stage_mixture(&m, job, s, false, err);
    if (rc < 0)
        return rc;
    if (s->kind == STAGE_SOLVED) {
        *memory = stage_solve_bytes(job, &m);
        mixture_release(&m);
        return 0;
    }
    trained = calloc(m.n_experts + 1, sizeof(*trained));
    if (!trained) {
        mixture_release(&m);
        return error_nomem(err, m.n_experts);
    }
    stage_loop_input(&in, job, s, &m, trained);
    *memory = loop_memory(&in);
    *disk = loop_disk(&in);
    if (stage_refreshes(job, s)) {
        struct loop_input refresh;
        size_t more;

        stage_refresh_input(&refresh, job, &in, trained);
        more = loop_memory(&refresh);
        *memory = more > *memory ? more : *memory;
        *disk += loop_disk(&refresh);
    }
    for (size_t e = 0; e < m.n_experts; e++)
        *memory += m.experts[e].n_params * sizeof(float);
    free(trained);
    mixture_release(&m);
    return 0;
}

/* The first group is the largest. */
static int measure_group(const struct job *job, struct stage *s, size_t *memory,
                         bool *grouped, struct artel_error *err)
{
    struct stage_group g;
    int rc = group_open(&g, job, s, err);

    *grouped = rc == 0 && g.n > 1;
    if (*grouped)
        rc = group_memory(memory, &g, job, err);
    group_release(&g);
    return rc;
}

#define PROCESS_BYTES ((size_t)32 << 20) /* libraries, tokenizer, stacks */

/* Ids and loss marks of all rows, and what stands for a row. */
static size_t text_bytes(const struct job *job)
{
    size_t bytes = 0;

    for (size_t i = 0; i < job->texts.n; i++) {
        const struct corpus *both[] = {job->texts.of[i].train, job->texts.of[i].valid};

        for (size_t k = 0; k < 2; k++)
            if (both[k])
                bytes += corpus_stats(both[k])->n_tokens * 5 +
                         corpus_count(both[k]) * 2 * sizeof(struct example);
    }
    return bytes;
}

size_t job_positions(const struct job *job)
{
    return job->texts.longest > job->n_positions ? job->texts.longest
                                                 : job->n_positions;
}

enum precision stage_precision(const struct job *job, const struct stage *s)
{
    struct gate_rule rule;

    if (s->row->method && method_rule(&rule, s->row->method) == 0 && rule.whole_ffn)
        return PRECISION_FP32;
    return job->precision;
}

int job_prepare(const struct job *job, enum precision p, struct artel_error *err)
{
    const int rc = job->o->nonfinite ? 0 : model_check_finite(job->model, err);

    if (rc < 0)
        return rc;
    return model_prepare(job->model, p, memory_mode_use(job->memory),
                         job_positions(job), err);
}

int job_prepare_to_measure(const struct job *job, struct artel_error *err)
{
    const int use = MATRIX_FORWARD | MATRIX_DECODE;
    const size_t n = job_positions(job);
    int rc = job->o->nonfinite ? 0 : model_check_finite(job->model, err);

    if (rc == 0 && job->memory == MEMORY_QUANTISED)
        rc =
            room_check_memory(model_prepared_bytes(job->model, job->precision, use, n) +
                                  text_bytes(job) + PROCESS_BYTES,
                              job->o->memory_bytes, err);
    return rc < 0 ? rc : model_prepare(job->model, job->precision, use, n, err);
}

/* What those of the stages take that are computed in P. */
static int measure_in(const struct job *job, enum precision p, enum memory_mode mode,
                      size_t *memory, uint64_t *disk, struct artel_error *err)
{
    const int use = memory_mode_use(mode);
    struct job planned = *job;
    struct artel_model model;
    size_t most = 0;
    bool grouped = false;
    int rc = model_plan(&model, job->model, p, use, job_positions(job), err);

    planned.model = &model;
    planned.memory = mode;
    for (size_t i = 0; rc == 0 && i < job->n_stages; i++) {
        size_t bytes = 0;
        uint64_t more = 0;

        if (!job->stages[i].pending || stage_precision(job, &job->stages[i]) != p)
            continue;
        rc = measure_stage(&planned, &job->stages[i], &bytes, &more, err);
        if (rc == 0 && !grouped)
            rc = measure_group(&planned, &job->stages[i], &bytes, &grouped, err);
        if (bytes > most)
            most = bytes;
        *disk += more;
    }
    model_plan_release(&model);
    most += model_prepared_bytes(job->model, p, use, job_positions(job)) +
            text_bytes(job) + PROCESS_BYTES;
    *memory = most > *memory ? most : *memory;
    return rc;
}

/* What all of the run takes at once, were memory used in this MODE. */
static int measure(const struct job *job, enum memory_mode mode, size_t *memory,
                   uint64_t *disk, struct artel_error *err)
{
    bool other = false;
    int rc;

    *memory = 0;
    *disk = 0;
    rc = measure_in(job, job->precision, mode, memory, disk, err);
    for (size_t i = 0; i < job->n_stages; i++)
        other |= stage_precision(job, &job->stages[i]) != job->precision;
    return rc == 0 && other ? measure_in(job, PRECISION_FP32, mode, memory, disk, err)
                            : rc;
}

int job_memory(struct job *job, size_t *needed, uint64_t *disk, struct artel_error *err)
{
    const enum memory_mode asked = job->r->train.memory;
    const enum memory_mode last = asked == MEMORY_AUTO ? MEMORY_QUANTISED : asked;
    const size_t allowed = job->o->memory_bytes;
    const size_t room = allowed ? allowed : room_memory();

    job->memory = asked == MEMORY_AUTO ? MEMORY_KEEP : asked;
    for (;;) {
        const int rc = measure(job, job->memory, needed, disk, err);

        if (rc < 0 || *needed <= room || job->memory == last)
            return rc;
        job->memory++;
    }
}

int job_check_room(struct job *job, struct artel_error *err)
{
    size_t needed;
    uint64_t disk;
    int rc = job_memory(job, &needed, &disk, err);

    if (rc == 0)
        rc = room_check_memory(needed, job->o->memory_bytes, err);
    return rc < 0 ? rc : room_check_disk(job->r->output, disk, err);
}
