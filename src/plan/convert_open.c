/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a path and options to a base and one expert. What lies where is found first, so
 * that an output which would destroy an input is refused before anything is read.
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
#include "files/write.h"
#include "plan/convert.h"
#include "save/adapter.h"
#include "save/gguf_lora.h"
#include "save/joined.h"
#include "save/output_place.h"

#define MAX_GATES 256
#define GATE_MAX  1e4

void conversion_release(struct conversion *c)
{
    expert_release(&c->expert);
    model_close(c->model);
    free(c->base);
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

/* No input may be lost to OUT. */
static int spare(const struct conversion *c, const char *input, struct artel_error *err)
{
    const size_t room = strlen(input) + 32;
    char *part = malloc(room);
    int rc = part ? output_spares(c->out, input, err) : error_nomem(err, room);

    for (size_t i = 1; rc == 0 && gguf_part_name(part, room, input, i); i++)
        rc = output_spares(c->out, part, err);
    free(part);
    return rc;
}

/* PATH is the base. */
static int take_base(struct conversion *c, const char *path, struct artel_error *err)
{
    c->base = strdup(path);
    return c->base ? spare(c, c->base, err) : error_nomem(err, strlen(path));
}

static int find_gguf_lora(struct conversion *c, struct artel_error *err)
{
    const int rc = refuse_choice(c, "one LoRA", err);

    if (rc == 0 && !c->o->model)
        return error_set(err, ARTEL_EUSAGE, "USE08", NULL,
                         "this is a LoRA: name its base with --model");
    return rc < 0 ? rc : take_base(c, c->o->model, err);
}

static int find_adapter(struct conversion *c, struct artel_error *err)
{
    char *recorded = NULL;
    int rc = refuse_choice(c, "one adapter", err);

    if (rc == 0 && !c->o->model)
        rc = opened_adapter_base(&recorded, c->source, err);
    if (rc == 0 && !c->o->model && !recorded)
        rc = error_set(err, ARTEL_EUSAGE, "USE08", NULL,
                       "this is an adapter: name its base with --model");
    if (rc == 0)
        rc = take_base(c, recorded ? recorded : c->o->model, err);
    free(recorded);
    return rc;
}

/* Its own folder and those of all experts, also of those that are not asked for. */
static int spare_mixture(const struct conversion *c, const struct mixture_file *f,
                         struct artel_error *err)
{
    int rc = spare(c, f->folder, err);

    for (size_t i = 0; rc == 0 && i < f->n_notes; i++) {
        char *folder;

        if (!f->notes[i].folder)
            continue;
        folder = path_join(f->folder, f->notes[i].folder);
        rc = folder ? spare(c, folder, err)
                    : error_nomem(err, strlen(f->notes[i].folder));
        free(folder);
    }
    return rc;
}

static int find_mixture(struct conversion *c, struct artel_error *err)
{
    struct mixture_file f = {0};
    int rc;

    if (c->o->gates && c->o->expert)
        return error_set(err, ARTEL_EUSAGE, "CNV02", "gates",
                         "--expert and --gates exclude one another");
    rc = mixture_file_open(&f, c->source, NULL, c->o->force, err);
    if (rc == 0)
        rc = spare_mixture(c, &f, err);
    if (rc == 0)
        rc = take_base(c, c->o->model ? c->o->model : f.base_path, err);
    mixture_file_release(&f);
    return rc;
}

static int find_model(struct conversion *c, struct artel_error *err)
{
    const int rc = refuse_choice(c, "a bare model", err);

    if (rc == 0 && c->o->model)
        return error_set(
            err, ARTEL_EUSAGE, "CNV02", "model",
            "the source is a model itself; --model is the base of adapters");
    return rc < 0 ? rc : take_base(c, c->source, err);
}

static int find_kind(enum source_kind *out, const char *source, struct artel_error *err)
{
    enum opened_kind kind;
    struct gguf *g = NULL;
    struct stat st;
    int rc = opened_kind(&kind, source, err);

    if (rc < 0)
        return rc;
    *out = kind == OPENED_MODEL     ? SOURCE_MODEL
           : kind == OPENED_ADAPTER ? SOURCE_ADAPTER
                                    : SOURCE_MIXTURE;
    if (stat(source, &st) == 0 && !S_ISDIR(st.st_mode)) {
        rc = gguf_open(&g, source, err);
        if (rc == 0 && gguf_lora_is(g))
            *out = SOURCE_GGUF_LORA;
        gguf_close(g);
    }
    return rc;
}

int conversion_find(struct conversion *c, const char *source, const char *out,
                    const struct artel_convert_options *o, struct artel_error *err)
{
    static int (*const find[])(struct conversion *, struct artel_error *) = {
        [SOURCE_MODEL] = find_model,
        [SOURCE_ADAPTER] = find_adapter,
        [SOURCE_GGUF_LORA] = find_gguf_lora,
        [SOURCE_MIXTURE] = find_mixture};
    int rc;

    *c = (struct conversion){.o = o, .source = source, .out = out};
    rc = spare(c, source, err);
    if (rc == 0 && o->measure)
        rc = spare(c, o->measure, err);
    if (rc == 0)
        rc = find_kind(&c->kind, source, err);
    if (rc == 0)
        rc = find[c->kind](c, err);
    return rc < 0 ? error_in(err, rc, source) : 0;
}

static int read_gguf_lora(struct conversion *c, struct artel_error *err)
{
    char name[EXPERT_NAME_MAX + 1];
    struct gguf *g;
    int rc = gguf_open(&g, c->source, err);

    if (rc < 0)
        return rc;
    if (!gguf_lora_name(name, g))
        opened_expert_name(name, c->source);
    rc = gguf_lora_read(&c->expert, name, g, &c->model->weights->config,
                        c->o->force ? NULL : c->model->base_digest, err);
    gguf_close(g);
    return rc < 0 ? rc : note_expert(c, name, err);
}

static int read_adapter(struct conversion *c, struct artel_error *err)
{
    char name[EXPERT_NAME_MAX + 1];
    int rc;

    opened_expert_name(name, c->source);
    rc = adapter_read(&c->expert, name, c->source, c->model, c->o->force, err);
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

static int read_mixture(struct conversion *c, struct artel_error *err)
{
    struct mixture_file f = {0};
    int rc = mixture_file_open(&f, c->source, c->model, c->o->force, err);

    if (rc == 0) /* what is written is what `artel run` computes with */
        rc = mixture_wear(&f.mixture, &c->model->weights->config, MASK_INFERENCE, err);
    if (rc == 0)
        rc = join(c, &f.mixture, err);
    mixture_file_release(&f);
    return rc;
}

int conversion_open(struct conversion *c, struct artel_error *err)
{
    int rc = model_open(&c->model, c->base, err);

    if (rc == 0 && c->kind == SOURCE_GGUF_LORA)
        rc = read_gguf_lora(c, err);
    else if (rc == 0 && c->kind == SOURCE_ADAPTER)
        rc = read_adapter(c, err);
    else if (rc == 0 && c->kind == SOURCE_MIXTURE)
        rc = read_mixture(c, err);
    return rc < 0 ? error_in(err, rc, c->source) : 0;
}
