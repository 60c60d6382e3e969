/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run before its first step: model, digests, stages and their stamps, text,
 * memory and disk. Everything that can be refused is refused here, and nothing
 * is written.
 */
#ifndef ARTEL_PLAN_JOB_H
#define ARTEL_PLAN_JOB_H

#include "plan/stages.h"

/* R and O must outlive JOB. Takes the lock where the output folder is there already. */
int job_open(struct job *job, const struct recipe *r, const struct run_options *o,
             struct artel_error *err);
/* For who only looks: which stages are pending, and their text where one *TRAINS. The
 * output folder is neither judged nor locked; where the base is missing nothing is known
 * of the stages, JOB->model is NULL. */
int job_look(bool *trains, struct job *job, const struct recipe *r,
             struct artel_error *err);
/* A file that only evaluations read (or NULL): one that is missing is better told before
 * training. Done for the domains' when a job is opened. */
int job_check_read_later(const char *path, struct artel_error *err);
/* What is not up to date, or the refusal; then text, memory and disk for it. */
int job_plan(struct job *job, struct artel_error *err);
/* What the pending stages take, in the first mode that fits or that the recipe says, which
 * becomes JOB->memory; and the refusal where that is not there. */
int job_memory(struct job *job, size_t *needed, uint64_t *disk,
               struct artel_error *err);
int job_check_room(struct job *job, struct artel_error *err);
/* Folder, lock and weights: the first writing. */
int job_begin(struct job *job, struct artel_error *err);
void job_close(struct job *job);

/* 1: up to date; 0: to be done, its folder is ready for it. *INPUTS is new. */
int job_stage_ready(struct job *job, const struct stage *s, json_t **inputs,
                    struct artel_error *err);

#endif
