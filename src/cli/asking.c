/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling values come from the model's makers unless the command line names them.
 */
#include "cli/asking.h"

#include <string.h>

#include "cli/signals.h"

void asking_options(struct options *o, struct asking *a)
{
    a->expert = "auto";
    option_text(o, "prompt", &a->prompt, "TEXT", "one prompt");
    option_text(o, "prompt-file", &a->prompt_file, "FILE",
                "one prompt a line, or chat JSONL; - is standard input");
    option_text(o, "expert", &a->expert, "NAME",
                "auto (the routers decide), base, or an expert");
    option_flag(o, "raw", &a->raw,
                "prompts are text to go on with, without the template");
    option_text(o, "system", &a->system, "TEXT",
                "a system turn before the first user turn");
    option_whole(o, "max-tokens", &a->max_tokens, 1, 1000000,
                 "of an answer; 256 where not given");
    option_real(o, "temperature", &a->temperature, 0, 100,
                "0 takes the likeliest token; without any of these the model's own "
                "sampling where it states one, else 0");
    option_whole(o, "top-k", &a->top_k, 0, 1000000,
                 "only the N likeliest tokens; 0: all");
    option_real(o, "top-p", &a->top_p, 0.000001, 1,
                "only the likeliest tokens that hold this share");
    option_real(o, "min-p", &a->min_p, 0, 1,
                "only tokens with this share of the likeliest one's probability");
    option_real(o, "repetition-penalty", &a->repetition_penalty, 0.01, 100,
                "above 1: tokens seen before become less likely");
    option_texts(o, "stop", &a->stop, "TEXT",
                 "ends an answer and is left out of it; may be given 16 times");
    a->merge = "never";
    option_text(
        o, "merge", &a->merge, "never|auto|always",
        "add an answer's expert into the weights first: auto where counting says "
        "that it pays for the prompt and --max-tokens");
    option_whole(o, "context", &a->context, 16, 10000000,
                 "tokens a conversation may have");
}

int asking_check(const struct options *o, const struct asking *a)
{
    if (a->prompt && a->prompt_file)
        return usage_error(o->command, "--prompt", "USE06",
                           "contradicts --prompt-file: give one of them");
    if (a->raw && a->system)
        return usage_error(
            o->command, "--raw", "USE06",
            "contradicts --system: without a template there are no turns");
    return 0;
}

int asking_generate(struct artel_generate_options *g, const struct options *o,
                    const struct asking *a, const struct common *c,
                    const struct artel_mixture *m)
{
    struct artel_error err = {0};

    artel_generate_options_default(g, m);
    if (option_given(o, "max-tokens"))
        g->max_tokens = (size_t)a->max_tokens;
    if (option_given(o, "temperature"))
        g->temperature = (float)a->temperature;
    if (option_given(o, "top-k"))
        g->top_k = (size_t)a->top_k;
    if (option_given(o, "top-p"))
        g->top_p = (float)a->top_p;
    if (option_given(o, "min-p"))
        g->min_p = (float)a->min_p;
    if (option_given(o, "repetition-penalty"))
        g->repetition_penalty = (float)a->repetition_penalty;
    g->seed = c->seed;
    g->merge = !strcmp(a->merge, "auto")     ? ARTEL_MERGE_AUTO
               : !strcmp(a->merge, "always") ? ARTEL_MERGE_ALWAYS
                                             : ARTEL_MERGE_NEVER;
    g->stop = a->stop.at;
    g->n_stop = a->stop.n;
    g->stopped = &stop_signal;
    return artel_expert_find(m, &g->expert, a->expert, &err) < 0 ? report_error(&err)
                                                                 : 0;
}

size_t routing_choice(const struct artel_answer *a, size_t r)
{
    const float *const p = a->probabilities + r * a->n_experts;
    size_t best = 0;

    for (size_t e = 1; e < a->n_experts; e++)
        if (p[e] > p[best])
            best = e;
    return best;
}

json_t *routing_json(const struct artel_answer *a, const struct artel_mixture *m)
{
    const bool by_layer = !a->per_token && !a->from_base;
    json_t *probabilities, *layers;

    if (!a->probabilities)
        return json_null();
    probabilities = json_object();
    layers = by_layer ? json_array() : json_null();
    for (size_t e = 0; e < a->n_experts; e++) {
        double sum = 0;

        for (size_t r = 0; r < a->n_routers; r++)
            sum += (double)a->probabilities[r * a->n_experts + e];
        json_object_set_new(probabilities, artel_expert_name(m, (int)e),
                            json_number(sum / (double)a->n_routers));
    }
    for (size_t r = 0; r < a->n_routers && by_layer; r++)
        json_array_append_new(
            layers, json_string(artel_expert_name(m, (int)routing_choice(a, r))));
    return json_pack("{s:o, s:o, s:o}", "probabilities", probabilities, "layers",
                     layers, "layers_agreeing",
                     by_layer ? json_integer((json_int_t)a->layers_agreeing)
                              : json_null());
}
