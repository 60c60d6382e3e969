/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What growing a mixture is made of: its settings as a recipe again, the text
 * of its domains, and the measurements before and after.
 */
#ifndef ARTEL_PLAN_GROW_PARTS_H
#define ARTEL_PLAN_GROW_PARTS_H

#include "plan/grow.h"
#include "plan/stages.h"
#include "save/mixture_file.h"

struct artel_mixture;
struct measured;

/* The new domain, as asked for. */
struct newcomer {
    const char *name, *adapter, *data;
    const struct grow_options *o;
};

/*
 * The recipe that F was made by, with the new domain at the end, its run going to OUTPUT.
 * Domains whose text is gone or changed take their stored sample; REPORT's domains say
 * so. A method without routers needs the new domain alone.
 */
int grow_recipe(struct recipe **out, const struct mixture_file *f,
                const struct newcomer *n, const char *model, const char *output,
                struct grow_report *report, struct artel_error *err);

/* REPORT, new, of the domains of F beside NAME, a universal expert last. */
int grow_report_start(struct grow_report *report, const struct mixture_file *f,
                      const char *name, struct artel_error *err);

/* Rows on which the old domains are measured. */
struct grow_rows {
    size_t n;           /* the report's domains */
    struct corpus **of; /* (n) NULL: no text */
    double *
        *before; /* (n) of each row's answer before, negative log-likelihood; or NULL */
    struct corpus **asked;         /* (n) rows that are answered; NULL: no score */
    struct measured *answers;      /* (n) what was answered before */
    size_t score_rows;             /* of each domain, answered for its score; 0: none */
    uint64_t seed;                 /* of the resamples */
    const struct run_options *run; /* whom to tell, and when to stop; borrowed */
};
/* Those of REPORT's domains, cut to CUTOFF_LEN tokens. G's SCORE_ROWS, SEED and RUN are set
 * before. */
int grow_rows_open(struct grow_rows *g, struct grow_report *report,
                   const struct mixture_file *f, size_t cutoff_len,
                   const struct artel_model *model, struct artel_error *err);
void grow_rows_close(struct grow_rows *g);
/* JOB's base in the form that measuring needs, which training may change. A base that is
 * trained over as it lies on disk may not fit unpacked: that is said, and G has no rows. */
int grow_prepare(struct grow_rows *g, struct grow_report *report, const struct job *job,
                 struct artel_error *err);

#define ANSWER_TOKENS 256 /* of an answer at most, as in an evaluation */

/* Rows of PATH to be answered for domain I, D, where SCORE is one of answers; may be NULL. */
int grow_asked_open(struct grow_rows *g, struct grow_domain *d, size_t i,
                    const char *path, const char *score,
                    const struct artel_model *model, struct artel_error *err);
void grow_asked_close(struct grow_rows *g);
/* Tokens that those rows with their answers reach, at most CONTEXT. */
size_t grow_positions(const struct grow_rows *g, size_t context);
/* They are answered by M, by D's own expert where nothing routes, into D. */
int grow_score(struct grow_domain *d, struct grow_rows *g, size_t i,
               const struct artel_mixture *m, int expert, bool before,
               struct artel_error *err);
/* Perplexity, routing and score of each old domain under F (loaded) into REPORT, as BEFORE
 * or after; the change comes with the latter. */
int grow_measure(struct grow_report *report, struct grow_rows *g,
                 struct mixture_file *f, struct artel_model *model, bool before,
                 struct artel_error *err);
/* Digests of the weights of the experts that REPORT tells of. */
int grow_digests(struct grow_report *report, const struct mixture_file *f, bool before,
                 struct artel_error *err);

/* Cost of this call from the stages' summaries, and of everything from F's record: of
 * N_DOMAINS domains. */
void grow_costs(struct grow_report *report, const struct mixture_file *f,
                size_t n_domains, const json_t *expert, const json_t *router);

/* Does the stage that teaches the routers teach experts too? */
bool grow_moves_experts(const struct job *job);

/* An expert's folder in F's goes; one that lies elsewhere stays. */
void grow_drop_folder(const struct mixture_file *f, const char *folder);
/* F with the new expert in its mixture to disk. */
int grow_write(struct mixture_file *f, const struct job *job, const json_t *expert,
               const json_t *router, struct artel_error *err);

/* Can F's domains come and go? One expert a domain, and perhaps a universal one, is what
 * can; ARTEL_EUSAGE (ADD04) for others. */
int grow_check_method(const struct mixture_file *f, struct artel_error *err);

/* The lock of the run that the mixture belongs to, or of its own folder. */
int grow_lock(struct run_lock *lock, const char *folder, struct artel_error *err);

#endif
