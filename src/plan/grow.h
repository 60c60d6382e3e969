/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mixture grows by a domain, or loses one, without the others' experts
 * moving: only the new expert and the routers are trained, and the report
 * proves what stayed the same.
 */
#ifndef ARTEL_PLAN_GROW_H
#define ARTEL_PLAN_GROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "experts/expert.h"
#include "files/digest.h"
#include "plan/run.h"

struct artel_error;

struct grow_options {
    struct run_options run;
    bool joint;               /* old experts move too, as in the recipe's stage 2 */
    const char *valid, *test; /* of the new domain; may be NULL */
    const char *score;        /* may be NULL */
    size_t max_rows;          /* of the new domain's training text; 0: all */
    const char *model; /* the base, where it is not at its recorded place; or NULL */
    size_t score_rows; /* of each other domain, answered for its score; 0: none */
};

/* One of the domains that were there before. Numbers are NaN where there is no text, and
 * what they do not apply to. */
struct grow_domain {
    char name[EXPERT_NAME_MAX + 1];
    char digest_before[DIGEST_SIZE],
        digest_after[DIGEST_SIZE]; /* of the expert's file */
    bool unchanged;
    const char *text; /* "recorded", "sample": where its rows came from; static */
    double perplexity_before,
        perplexity_after; /* routed, on test, valid or its sample */
    /* Share of rows routed to it, 0 to 1; NaN where it is always on. */
    double routing_before, routing_after;
    /* Of the perplexity, with the middle 95 % of a paired bootstrap over its rows. */
    double change, change_low, change_high;
    /* Of its own answers, 0 to 1; NaN where nothing was asked. */
    const char *score_name; /* static; NULL: it is not scored */
    size_t score_rows;      /* that were answered */
    double score_before, score_after;
    double score_change, score_low, score_high; /* NaN: no mean over rows */
};

/* What training cost. */
struct grow_cost {
    size_t parameters; /* trained */
    size_t tokens, steps;
    double seconds;
};

struct grow_report {
    char *path; /* of the mixture; owned */
    char name[EXPERT_NAME_MAX + 1];
    struct grow_cost cost; /* of this call */
    struct grow_cost
        everything; /* of training all domains afresh: what was recorded, with or
                     * without this domain; parameters are all of the mixture's */
    size_t n_domains;
    struct grow_domain *domains; /* a universal expert's last; owned */
    bool others_unchanged;       /* every digest is the same before and after */
};
void grow_report_release(struct grow_report *r);

/*
 * Add NAME to the mixture at PATH. ADAPTER: a PEFT folder instead of training, or NULL;
 * DATA: text of the domain; NULL, or that folder itself, where no router learns from it. Killed or stopped, the same call continues.
 */
int run_add(const char *path, const char *name, const char *adapter, const char *data,
            const struct grow_options *o, struct grow_report *report,
            struct artel_error *err);

/* Take NAME out: its row of every router and its place; its folder is removed where it
 * lies inside the mixture's. The other experts and rows stay as they are: REPORT's domains,
 * which are those others, have digests and measurements as after run_add(). Nothing is
 * trained: the cost is the seconds of the taking out, the measuring aside. Stopped while
 * it measures, nothing has changed. */
int run_remove(const char *path, const char *name, const struct grow_options *o,
               struct grow_report *report, struct artel_error *err);

#endif
