/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names that a request may ask for, and what stands behind them: the mixture's "auto", its
 * experts, "base", and experts that were added while the server runs. What is replaced or
 * removed stays loaded as long as somebody answers with it.
 */
#ifndef ARTEL_SERVE_CATALOGUE_H
#define ARTEL_SERVE_CATALOGUE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "artel.h"
#include "eval/opened.h"

/* A mixture that answers, counted. */
struct loaded {
    struct artel_mixture *mixture;
    unsigned holders; /* under the catalogue's lock */
    struct catalogue *home;
};
struct loaded *loaded_hold(struct loaded *l);
void loaded_let_go(struct loaded *l); /* the last one closes it */

struct catalogue;

/* PATH is what artel_mixture_open() takes. ALLOWED (may be NULL: none) is the folder below
 * which adapters may be added. */
int catalogue_open(struct catalogue **out, const char *path, const char *allowed,
                   const struct artel_open_options *o, struct artel_error *err);
void catalogue_close(struct catalogue *c);

/* What NAME stands for: a held *WHO and the expert to ask it for. ARTEL_EUSAGE SRV04: no such
 * model. */
int catalogue_find(struct catalogue *c, struct loaded **who, int *expert,
                   const char *name, struct artel_error *err);
/* The mixture that is served now, held. */
struct loaded *catalogue_current(struct catalogue *c);

/* The names as /v1/models lists them: a new array of OpenAI's model objects with "root",
 * "parent", "max_model_len" and "artel": {"kind": "auto" | "expert" | "base", ...}. */
json_t *catalogue_list(struct catalogue *c, size_t context);
/*
 * Of the mixture that is served now, for the page; null stands for what is not known:
 *
 *     path method selector     "moa"; "last", "vote" or null
 *     base                     {path, digest}
 *     experts                  [{name, kind, rank, parameters, added, data}]; data is
 *                              {train, test, format, rows, tokens, answer_tokens} or null
 *     stages                   [{name, loss, eval_loss, router_accuracy,
 *                              eval_router_accuracy}], of the run's training; each a
 *                              list of [step, value], evenly thinned to at most 400
 *     evaluation               what artel_evaluate() said of its run, or null
 */
json_t *catalogue_describe(struct catalogue *c);

/* Load the PEFT folder at PATH (below the allowed folder, links resolved) as NAME, or put it
 * in NAME's place. Codes: SRV30 nothing may be added, SRV31 outside of the folder, SRV32 name
 * in use or unfit. */
int catalogue_add(struct catalogue *c, const char *name, const char *path, bool replace,
                  struct artel_error *err);
/* SRV33: no expert that was added has this name. */
int catalogue_remove(struct catalogue *c, const char *name, struct artel_error *err);
/* Open the mixture's folder anew; later requests use it. On failure nothing has changed. */
int catalogue_reload(struct catalogue *c, struct artel_error *err);

#endif
