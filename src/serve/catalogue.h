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
#include "decoder/sampler.h"
#include "eval/opened.h"

/* A mixture that answers, counted. All of a catalogue are over one model. */
struct loaded {
    struct artel_mixture *mixture;
    /* As the model's makers state it; what they leave open as OpenAI has it. */
    struct sampler_options sampling;
    unsigned holders; /* under the catalogue's lock */
    struct catalogue *home;
};
struct loaded *loaded_hold(struct loaded *l);
void loaded_let_go(struct loaded *l); /* the last one closes it; NULL is fine */

struct catalogue;

/* PATH is what artel_mixture_open() takes. ALLOWED (may be NULL: none) is the folder below
 * which adapters may be added. O is not kept. */
int catalogue_open(struct catalogue **out, const char *path, const char *allowed,
                   const struct artel_open_options *o, struct artel_error *err);
void catalogue_close(struct catalogue *c); /* nothing is held any more */

/* What NAME stands for: a held *WHO and the expert to ask it for. The mixture's own name is
 * as good as "auto". ARTEL_EUSAGE SRV04: no such model. */
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

/* The base and the folder's own name, of the mixture that is served now; both live as long
 * as the catalogue. */
const struct artel_model *catalogue_model(const struct catalogue *c);
const char *catalogue_name(const struct catalogue *c);
/* "last", "vote", or NULL where no router's word is taken for the whole answer. */
const char *selector_name(const struct artel_mixture *m);

/*
 * Load the PEFT folder at PATH (below the allowed folder or from there, links resolved) as
 * NAME; REPLACE: or in the place of what was added by this name.
 *
 *     ARTEL_EUSAGE    SRV30 nothing may be added, SRV31 outside of the folder,
 *                     SRV32 the name is unfit
 *     ARTEL_ECONFLICT SRV32 the name is in use
 *     ARTEL_EIO       no such folder
 */
int catalogue_add(struct catalogue *c, const char *name, const char *path, bool replace,
                  struct artel_error *err);
/* SRV33: no expert that was added has this name. */
int catalogue_remove(struct catalogue *c, const char *name, struct artel_error *err);
/* Open the mixture's folder anew, over the base and in the precision that there are; later
 * requests use it. On failure nothing has changed. */
int catalogue_reload(struct catalogue *c, struct artel_error *err);

#endif
