/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel_convert(): an expert from one form to another, or merged into its base.
 *
 *     CNV01 something is there already     CNV02 what does not go together
 *     CNV05 a number format that is not possible there
 *     CNV08 the output would be written over an input
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/write.h"
#include "plan/convert.h"
#include "save/adapter.h"
#include "save/gguf_lora.h"
#include "save/output_place.h"

enum target { TO_GGUF_LORA, TO_PEFT, TO_GGUF, TO_SAFETENSORS, N_TARGETS };

static const char *const target_names[N_TARGETS] = {[TO_GGUF_LORA] = "gguf-lora",
                                                    [TO_PEFT] = "peft",
                                                    [TO_GGUF] = "gguf",
                                                    [TO_SAFETENSORS] = "safetensors"};

void artel_convert_options_default(struct artel_convert_options *o)
{
    *o = (struct artel_convert_options){.to = "gguf-lora"};
}

static int find_target(enum target *out, const char *name, struct artel_error *err)
{
    for (int t = 0; name && t < N_TARGETS; t++)
        if (!strcmp(name, target_names[t])) {
            *out = (enum target)t;
            return 0;
        }
    return error_set(err, ARTEL_EUSAGE, "USE05", "to",
                     "expected gguf-lora, peft, gguf or safetensors");
}

/* NULL: DEFAULT_TYPE. */
static int find_type(enum dtype *out, const char *name, enum dtype default_type,
                     enum target to, struct artel_error *err)
{
    static const struct {
        const char *name;
        enum dtype type;
    } types[] = {{"f32", DTYPE_F32},
                 {"f16", DTYPE_F16},
                 {"bf16", DTYPE_BF16},
                 {"q8_0", DTYPE_Q8_0}};
    const size_t n = to == TO_GGUF ? 4 : 3;

    *out = default_type;
    if (!name)
        return 0;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(name, types[i].name)) {
            *out = types[i].type;
            return 0;
        }
    return error_set(err, ARTEL_EUSAGE, "CNV05", "type", "expected f32, f16%s for %s",
                     to == TO_GGUF ? ", bf16 or q8_0" : " or bf16", target_names[to]);
}

static int to_gguf_lora(json_t *report, const struct conversion *c, const char *out,
                        struct artel_error *err)
{
    const struct gguf_lora_notes notes = {.name = c->expert.name,
                                          .base_digest = c->model->base_digest};
    struct gguf_lora_result r;
    enum dtype type;
    json_t *told;
    int rc = find_type(&type, c->o->type, DTYPE_F32, TO_GGUF_LORA, err);

    if (rc == 0)
        rc = gguf_lora_write(&r, out, &c->expert, &c->model->weights->config, type,
                             &notes, err);
    if (rc < 0)
        return rc;
    told = json_pack("{s:s, s:f, s:i, s:i, s:b}", "type", dtype_name(type), "alpha",
                     (double)r.alpha, "linears", (int)r.n_linears, "folded",
                     (int)r.n_folded, "exact", (int)r.exact);
    return json_object_set_new(report, "adapter", told) ? error_nomem(err, 0) : 0;
}

/* PATH as a place that means the same from everywhere, in new memory. */
static char *absolute(const char *path)
{
    char *real = realpath(path, NULL);

    return real ? real : strdup(path);
}

static int to_peft(const struct conversion *c, const char *out, struct artel_error *err)
{
    char *base = absolute(c->model->weights->path), *temporary = NULL;
    const struct adapter_notes notes = {.domain = c->expert.name,
                                        .base_path = base,
                                        .base_digest = c->model->base_digest,
                                        .tokenizer_digest = c->model->tokenizer_digest,
                                        .chat_digest = c->model->chat_digest};
    int rc = base ? 0 : error_nomem(err, strlen(c->model->weights->path));

    if (rc == 0 && c->o->type && strcmp(c->o->type, "f32") != 0)
        rc = error_set(err, ARTEL_EUSAGE, "CNV05", "type",
                       "adapters are written in f32");
    if (rc == 0)
        rc = output_begin(&temporary, out, err);
    if (rc == 0)
        rc = adapter_write(temporary, &c->expert, &c->model->weights->config, NULL,
                           &notes, err);
    if (rc == 0)
        rc = output_finish(temporary, out, err);
    if (rc < 0)
        output_abandon(temporary);
    free(temporary);
    free(base);
    return rc;
}

/* What the target cannot be made of, before any work. */
static int check_parts(const struct conversion *c, const char *source, enum target to,
                       struct artel_error *err)
{
    const bool model = to == TO_GGUF || to == TO_SAFETENSORS;
    int rc = 0;

    if (!model && !c->expert.n_params)
        rc = error_set(err, ARTEL_EUSAGE, "CNV02", "to",
                       "a bare model holds no expert; gguf and safetensors are what it "
                       "can become");
    else if (!model && c->o->measure)
        rc = error_set(err, ARTEL_EUSAGE, "CNV02", "measure",
                       "measures a merged model; %s holds none", target_names[to]);
    return rc < 0 ? error_in(err, rc, source) : 0;
}

static int to_model(json_t *report, const struct conversion *c, const char *out,
                    enum target to, struct artel_error *err)
{
    enum dtype type;
    int rc = find_type(&type, c->o->type, N_DTYPES, to, err);

    if (rc == 0)
        rc = conversion_merge(report, c, out, to == TO_GGUF, type, err);
    if (rc == 0 && c->o->measure)
        rc = conversion_measure(report, c, out, err);
    return rc;
}

static json_t *report_new(const struct conversion *c, const char *source,
                          const char *out, enum target to)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:O?}", "source", source, "output", out,
                     "to", target_names[to], "base", c->model->weights->path, "gates",
                     c->gates);
}

static int convert(json_t **report, const struct conversion *c, const char *source,
                   const char *out, enum target to, struct artel_error *err)
{
    int rc = check_parts(c, source, to, err);

    *report = report_new(c, source, out, to);
    if (rc == 0 && !*report)
        rc = error_nomem(err, 0);
    if (rc == 0 && to == TO_GGUF_LORA)
        rc = to_gguf_lora(*report, c, out, err);
    else if (rc == 0 && to == TO_PEFT)
        rc = to_peft(c, out, err);
    else if (rc == 0)
        rc = to_model(*report, c, out, to, err);
    return rc;
}

int artel_convert(char **json, const char *source, const char *out,
                  const struct artel_convert_options *o, struct artel_error *err)
{
    struct artel_convert_options defaults;
    struct conversion c = {0};
    json_t *report = NULL;
    enum target to = TO_PEFT;
    int rc;

    *json = NULL;
    if (!o) {
        artel_convert_options_default(&defaults);
        o = &defaults;
    }
    rc = find_target(&to, o->to, err);
    if (rc == 0)
        rc = conversion_find(&c, source, out, o, err);
    if (rc == 0)
        rc = output_check(out, to == TO_PEFT || to == TO_SAFETENSORS, o->force, err);
    if (rc == 0)
        rc = conversion_open(&c, err);
    if (rc == 0)
        rc = convert(&report, &c, source, out, to, err);
    conversion_release(&c);
    if (rc == 0 && !(*json = json_dumps(report, JSON_INDENT(2))))
        rc = error_nomem(err, 0);
    json_decref(report);
    return rc;
}
