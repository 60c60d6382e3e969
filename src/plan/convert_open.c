/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a path and options to a base and one expert.
 *
 *     CNV03 gates that cannot be
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "eval/opened.h"
#include "files/gguf.h"
#include "plan/convert.h"
#include "save/adapter.h"
#include "save/gguf_lora.h"
#include "save/joined.h"

#define MAX_GATES 256
#define GATE_MAX  1e4

void conversion_release(struct conversion *c)
{
    expert_release(&c->expert);
    model_close(c->model);
    json_decref(c->gates);
    *c = (struct conversion){0};
}

/* One gate of 1. */
static int note_expert(struct conversion *c, const char *name, struct artel_error *err)
{
    c->gates = json_pack("{s:f}", name, 1.0);
    return c->gates ? 0 : error_nomem(err, 0);
}

static int refuse_choice(const struct conversion *c, const char *what,
                         struct artel_error *err)
{
    if (c->o->gates || c->o->expert)
        return error_set(err, ARTEL_EUSAGE, "CNV02", c->o->gates ? "gates" : "expert",
                         "chooses among the experts of a mixture; this is %s", what);
    return 0;
}

static int open_gguf_lora(struct conversion *c, const char *source,
                          const struct gguf *g, struct artel_error *err)
{
    char name[EXPERT_NAME_MAX + 1];
    const struct gguf_value stored = gguf_get(g, "general.name");
    int rc = refuse_choice(c, "one LoRA", err);

    if (rc == 0 && !c->o->model)
        rc = error_set(err, ARTEL_EUSAGE, "USE08", NULL,
                       "this is a LoRA: name its base with --model");
    if (rc == 0)
        rc = model_open(&c->model, c->o->model, err);
    if (rc < 0)
        return rc;
    opened_expert_name(name, source);
    if (stored.kind == GGUF_STRING && stored.length <= EXPERT_NAME_MAX) {
        char given[EXPERT_NAME_MAX + 1] = "";

        memcpy(given, stored.text, stored.length);
        if (expert_name_valid(given))
            strcpy(name, given);
    }
    rc = gguf_lora_read(&c->expert, name, g, &c->model->weights->config,
                        c->o->force ? NULL : c->model->base_digest, err);
    return rc < 0 ? rc : note_expert(c, name, err);
}

/* 1: a GGUF LoRA file has been read; 0: it is something else. */
static int try_gguf_lora(struct conversion *c, const char *source,
                         struct artel_error *err)
{
    struct gguf *g = NULL;
    struct stat st;
    int rc;

    if (stat(source, &st) < 0)
        return error_errno(err, source, "cannot open");
    if (S_ISDIR(st.st_mode))
        return 0;
    rc = gguf_open(&g, source, err);
    if (rc < 0)
        return rc;
    if (gguf_lora_is(g)) {
        rc = open_gguf_lora(c, source, g, err);
        rc = rc < 0 ? rc : 1;
    }
    gguf_close(g);
    return rc;
}

static int open_adapter(struct conversion *c, const char *source,
                        struct artel_error *err)
{
    char name[EXPERT_NAME_MAX + 1], *recorded = NULL;
    int rc = refuse_choice(c, "one adapter", err);

    if (rc == 0 && !c->o->model)
        rc = opened_adapter_base(&recorded, source, err);
    if (rc == 0 && !c->o->model && !recorded)
        rc = error_set(err, ARTEL_EUSAGE, "USE08", NULL,
                       "this is an adapter: name its base with --model");
    if (rc == 0)
        rc = model_open(&c->model, recorded ? recorded : c->o->model, err);
    free(recorded);
    if (rc < 0)
        return rc;
    opened_expert_name(name, source);
    rc = adapter_read(&c->expert, name, source, c->model, c->o->force, err);
    return rc < 0 ? rc : note_expert(c, name, err);
}

static int refuse_gates(const char *piece, const char *why, struct artel_error *err)
{
    char shown[96];

    return error_set(err, ARTEL_EUSAGE, "CNV03", "gates", "'%s': %s",
                     escape_text(shown, sizeof(shown), piece, strlen(piece)), why);
}

/* One "name=0.7" of M. */
static int parse_gate(struct gated *out, const struct mixture *m, char *piece,
                      struct artel_error *err)
{
    char *equals = strchr(piece, '='), *end;
    double gate;
    int i;

    if (!equals)
        return refuse_gates(piece, "expected name=number", err);
    *equals = '\0';
    i = mixture_find(m, piece);
    if (i < 0)
        return refuse_gates(piece, "no expert of this name", err);
    gate = strtod(equals + 1, &end);
    if (end == equals + 1 || *end || !(fabs(gate) <= GATE_MAX))
        return refuse_gates(equals + 1, "a gate is a number from -10000 to 10000", err);
    *out = (struct gated){.expert = &m->experts[i], .gate = (float)gate};
    return 0;
}

static int parse_gates(struct gated *parts, size_t *n, const struct mixture *m,
                       char *text, struct artel_error *err)
{
    char *rest = NULL;
    int rc = 0;

    *n = 0;
    for (char *piece = strtok_r(text, ",", &rest); rc == 0 && piece;
         piece = strtok_r(NULL, ",", &rest)) {
        if (*n == MAX_GATES)
            return refuse_gates(piece, "too many gates", err);
        rc = parse_gate(&parts[*n], m, piece, err);
        for (size_t k = 0; rc == 0 && k < *n; k++)
            if (parts[k].expert == parts[*n].expert)
                rc = refuse_gates(piece, "stands there twice", err);
        (*n)++;
    }
    return rc == 0 && !*n ? refuse_gates("", "no gate is given", err) : rc;
}

/* The only expert, or the one that is named, last; what is shared by experts that make
 * whole FFNs goes with it. */
static int choose_one(struct gated *parts, size_t *n, const struct mixture *m,
                      const char *name, struct artel_error *err)
{
    int i = m->n_experts == 1 ? 0 : -1;

    if (name)
        i = mixture_find(m, name);
    if (i < 0)
        return error_set(err, ARTEL_EUSAGE, "USE09", "expert",
                         "%s; the first of %zu is '%s' (artel inspect lists them)",
                         name ? "the mixture has no expert of this name"
                              : "the mixture has several experts: name one, or give "
                                "--gates",
                         m->n_experts, m->n_experts ? m->experts[0].name : "");
    *n = 0;
    for (size_t e = 0; m->rule.whole_ffn && e < m->rule.n_fixed && (int)e != i; e++)
        parts[(*n)++] = (struct gated){.expert = &m->experts[e], .gate = 1.0f};
    parts[(*n)++] = (struct gated){.expert = &m->experts[i], .gate = 1.0f};
    return 0;
}

static int join(struct conversion *c, const struct mixture *m, struct artel_error *err)
{
    const struct model_config *config = &c->model->weights->config;
    struct gated *parts = calloc(MAX_GATES, sizeof(*parts));
    char *text = c->o->gates ? strdup(c->o->gates) : NULL;
    size_t n = 1;
    int rc = 0;

    if (!parts || (c->o->gates && !text))
        rc = error_nomem(err, MAX_GATES * sizeof(*parts));
    else if (text)
        rc = parse_gates(parts, &n, m, text, err);
    else
        rc = choose_one(parts, &n, m, c->o->expert, err);
    if (rc == 0)
        rc = experts_join(&c->expert,
                          n == 1 || !text ? parts[n - 1].expert->name : "joined",
                          config, parts, n, err);
    if (rc == 0 && !(c->gates = json_object()))
        rc = error_nomem(err, 0);
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (json_object_set_new(c->gates, parts[i].expert->name,
                                json_real((double)parts[i].gate)))
            rc = error_nomem(err, 0);
    free(text);
    free(parts);
    return rc;
}

static int open_mixture(struct conversion *c, const char *source,
                        struct artel_error *err)
{
    struct mixture_file f = {0};
    int rc = 0;

    if (c->o->gates && c->o->expert)
        return error_set(err, ARTEL_EUSAGE, "CNV02", "gates",
                         "--expert and --gates exclude one another");
    rc = mixture_file_open(&f, source, NULL, c->o->force, err);
    if (rc == 0)
        rc = model_open(&c->model, c->o->model ? c->o->model : f.base_path, err);
    mixture_file_release(&f);
    if (rc < 0)
        return rc;
    rc = mixture_file_open(&f, source, c->model, c->o->force, err);
    if (rc == 0) /* what is written is what `artel run` computes with */
        rc = mixture_wear(&f.mixture, &c->model->weights->config, MASK_INFERENCE, err);
    if (rc == 0)
        rc = join(c, &f.mixture, err);
    mixture_file_release(&f);
    return rc;
}

static int open_model(struct conversion *c, const char *source, struct artel_error *err)
{
    int rc = refuse_choice(c, "a bare model", err);

    if (rc == 0 && c->o->model)
        rc = error_set(err, ARTEL_EUSAGE, "CNV02", "model",
                       "the source is a model itself; --model is the base of adapters");
    return rc < 0 ? rc : model_open(&c->model, source, err);
}

int conversion_open(struct conversion *c, const char *source,
                    const struct artel_convert_options *o, struct artel_error *err)
{
    enum opened_kind kind;
    int rc;

    *c = (struct conversion){.o = o};
    rc = try_gguf_lora(c, source, err);
    if (rc == 0) {
        rc = opened_kind(&kind, source, err);
        if (rc == 0 && kind == OPENED_MODEL)
            rc = open_model(c, source, err);
        else if (rc == 0 && kind == OPENED_ADAPTER)
            rc = open_adapter(c, source, err);
        else if (rc == 0)
            rc = open_mixture(c, source, err);
    }
    if (rc >= 0)
        return 0;
    conversion_release(c);
    return error_in(err, rc, source);
}
