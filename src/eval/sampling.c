/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the model's makers say it should be sampled: generation_config.json beside
 * a Hugging Face model (where do_sample is true), general.sampling.* in GGUF.
 * What they leave out, or say outside of its range, stays as it is without them.
 */
#include <stdlib.h>

#include "base/error.h"
#include "eval/opened.h"
#include "files/gguf.h"
#include "files/json.h"
#include "files/write.h"

#define CONFIG_MAX_BYTES ((size_t)1 << 20)

/* What may stand there: name in generation_config.json, key in GGUF, and its range. */
static const struct setting {
    const char *name, *key;
    double min, max;
} settings[] = {
    {"temperature", "general.sampling.temp", 0, 100},
    {"top_k", "general.sampling.top_k", 0, 1e6},
    {"top_p", "general.sampling.top_p", 1e-6, 1},
    {"min_p", "general.sampling.min_p", 0, 1},
    {"repetition_penalty", "general.sampling.penalty_repeat", 0.01, 100},
};

static void apply(struct artel_generate_options *o, size_t i, double value)
{
    if (!(value >= settings[i].min && value <= settings[i].max))
        return;
    switch (i) {
    case 0:
        o->temperature = (float)value;
        break;
    case 1:
        o->top_k = (size_t)value;
        break;
    case 2:
        o->top_p = (float)value;
        break;
    case 3:
        o->min_p = (float)value;
        break;
    default:
        o->repetition_penalty = (float)value;
    }
}

static void from_folder(struct artel_generate_options *o, const char *folder)
{
    char *const path = path_join(folder, "generation_config.json");
    json_t *config = NULL;

    if (path && json_read_file(&config, path, CONFIG_MAX_BYTES, NULL) == 0 &&
        json_is_true(json_object_get(config, "do_sample"))) {
        o->temperature = 1; /* as transformers reads a file that leaves it out */
        for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
            const json_t *const v = json_object_get(config, settings[i].name);

            if (json_is_number(v))
                apply(o, i, json_number_value(v));
        }
    }
    json_decref(config);
    free(path);
}

static void from_gguf(struct artel_generate_options *o, const struct gguf *g)
{
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        const struct gguf_value v = gguf_get(g, settings[i].key);

        if (v.kind == GGUF_FLOAT)
            apply(o, i, v.f);
        else if (v.kind == GGUF_INT)
            apply(o, i, (double)v.i);
    }
}

void artel_generate_options_default(struct artel_generate_options *o,
                                    const struct artel_mixture *m)
{
    *o = (struct artel_generate_options){.expert = ARTEL_AUTO,
                                         .max_tokens = 256,
                                         .top_p = 1,
                                         .repetition_penalty = 1,
                                         .seed = 1};
    if (!m)
        return;
    if (m->model->weights->folder)
        from_folder(o, m->model->weights->folder);
    else if (m->model->weights->gguf)
        from_gguf(o, m->model->weights->gguf);
}
