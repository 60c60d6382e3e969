/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mixture to serve: two experts over the toy model, their routers drawn at random, as
 * files in a folder of its own; beside it a folder "adapters" that experts may come from.
 */
#ifndef ARTEL_TESTS_SERVED_H
#define ARTEL_TESTS_SERVED_H

#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "artel.h"
#include "base/rng.h"
#include "eval/opened.h"

#define TOY ARTEL_SOURCE "/tests/golden/toy-tied.gguf"

struct served {
    char folder[64]; /* of everything */
    char mixture[96], adapters[96];
};

/* A shell's command in FOLDER. */
static inline void served_run(const char *folder, const char *command)
{
    char line[800];

    snprintf(line, sizeof(line), "cd '%s' && { %s; }", folder, command);
    assert_int_equal(system(line), 0);
}

/* A mixture of so many experts; other seeds, other weights. */
static inline void served_write(const char *folder, const char *const *names, size_t n,
                                uint64_t seed)
{
    struct artel_model *model;
    struct artel_mixture *m;
    struct artel_error err;
    struct rng r;

    assert_int_equal(artel_model_open(&model, TOY, &err), 0);
    assert_int_equal(artel_mixture_new(&m, model, "moa", "fp32", &err), 0);
    rng_init(&r, seed, 7);
    for (size_t e = 0; e < n; e++) {
        struct expert *x;

        assert_int_equal(artel_mixture_add(m, names[e], NULL, &err), 0);
        x = &m->file.mixture.experts[e];
        for (size_t i = 0; i < x->n_params; i++)
            x->params[i] = 0.2f * rng_normal(&r);
    }
    mixture_draw_routers(&m->file.mixture, 1.0f, seed);
    assert_int_equal(artel_mixture_save(m, folder, &err), 0);
    artel_mixture_close(m);
    artel_model_close(model);
}

static inline void served_make(struct served *s)
{
    static const char *const names[] = {"law", "math"};

    strcpy(s->folder, "/tmp/artel-served-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->mixture, sizeof(s->mixture), "%s/moa", s->folder);
    snprintf(s->adapters, sizeof(s->adapters), "%s/adapters", s->folder);
    served_write(s->mixture, names, 2, 1);
    served_run(s->folder, "mkdir adapters && cp -r moa/experts/math adapters/sums && "
                          "cp -r '" ARTEL_TESTS "/golden/lora' adapters/tales");
}

static inline void served_remove(const struct served *s)
{
    served_run(s->folder, "rm -rf \"$PWD\"");
}

#endif
