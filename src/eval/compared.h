/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON of an evaluation as tables and reports read it: labels that tell methods
 * apart, the sets that any of them was measured on, and means.
 *
 * The text may come from a file, so that nothing in it is trusted to be there or to be of
 * its type; what is missing is NaN, and a mean over sets of which one is missing too.
 */
#ifndef ARTEL_EVAL_COMPARED_H
#define ARTEL_EVAL_COMPARED_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct artel_error;

#define COMPARED_LABEL 96

struct compared {
    json_t *root;                  /* owned */
    size_t n;                      /* methods */
    char (*label)[COMPARED_LABEL]; /* (n) safe to print; owned */
    json_t *domains, *general;     /* arrays of names; owned */
    size_t base;                   /* the first method that is a base alone; N: none */
};

int compared_open(struct compared *c, const char *json, struct artel_error *err);
void compared_release(struct compared *c);

const json_t *compared_method(const struct compared *c, size_t i);
bool compared_is_base(const struct compared *c, size_t i);
/* The base that method I is over, C->base where it does not tell. */
size_t compared_base(const struct compared *c, size_t i);
/* SET of GROUP ("domains", "general") as method I was measured on it, or NULL. */
const json_t *compared_set(const struct compared *c, size_t i, const char *group,
                           const char *set);
/* KEY of O, "a.b" for b in a; NaN where it is no number. */
double compared_number(const json_t *o, const char *key);
const char *compared_text(const json_t *o, const char *key); /* "" where it is none */
/* "exact": how the first method that tells was scored on SET. */
const char *compared_score_name(const struct compared *c, const char *group,
                                const char *set);
/* Does any method have KEY on SET? */
bool compared_any(const struct compared *c, const char *group, const char *set,
                  const char *key);
/* Mean of KEY over the sets of GROUP that any method has it on; of logarithms, and back,
 * where GEOMETRIC. */
double compared_mean(const struct compared *c, size_t i, const char *group,
                     const char *key, bool geometric);

/* Is a general set's change a difference of shares (else of perplexities)? */
bool compared_is_share(const struct compared *c, const char *set);
/* Mean change on the general sets whose change is a share. */
double compared_change(const struct compared *c, size_t i);

#endif
