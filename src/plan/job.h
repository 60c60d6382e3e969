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
/* What is not up to date, or the refusal; then text, memory and disk for it. */
int job_plan(struct job *job, struct artel_error *err);
/* Folder, lock and weights: the first writing. */
int job_begin(struct job *job, struct artel_error *err);
void job_close(struct job *job);

/* 1: up to date; 0: to be done, its folder is ready for it. *INPUTS is new. */
int job_stage_ready(struct job *job, const struct stage *s, json_t **inputs,
                    struct artel_error *err);

#endif
