/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The methods by name. A method is a preset of the rule that turns router
 * logits into gates: this table is the only place that knows their names.
 */
#include <string.h>

#include "experts/mixture.h"

static const struct method {
    const char *name, *summary;
    struct gate_rule rule;
    struct method_traits traits;
} methods[] = {
    {"base", "the frozen model alone", {.place = ROUTER_NONE}, {0}},
    {"single",
     "one LoRA a domain; the domain of a request is told, not guessed",
     {.place = ROUTER_NONE, .decides = DECIDE_SEQUENCE, .kind = GATE_ONE_HOT},
     {.grows = true}},
    {"mixed",
     "one LoRA trained on all domains together",
     {.place = ROUTER_NONE, .decides = DECIDE_SEQUENCE, .kind = GATE_ONE_HOT},
     {.needs_text = true}},
    {"moa",
     "Mixture-of-LoRAs: one LoRA a domain, a router a layer picks one a sequence",
     {.place = ROUTER_LAYER,
      .decides = DECIDE_SEQUENCE,
      .pool = POOL_MEAN,
      .kind = GATE_ONE_HOT,
      .fix_expert = true,
      .selector = SELECT_LAST},
     {.needs_text = true, .labelled = true, .grows = true}},
    {"molora",
     "MoLoRA: LoRAs of no domain and a router a linear, all trained in one stage",
     {.place = ROUTER_LINEAR,
      .decides = DECIDE_TOKEN,
      .kind = GATE_SOFTMAX,
      .bias = true},
     {.needs_text = true}},
    {"modula-flan",
     "MoDULA-Flan: a universal LoRA and one a domain; a router a linear weighs them "
     "all for every token",
     {.place = ROUTER_LINEAR, .decides = DECIDE_TOKEN, .kind = GATE_SOFTMAX},
     {.needs_text = true, .universal = true, .scale_one = true, .grows = true}},
    {"modula-res",
     "MoDULA-Res: a universal LoRA always on, and experts that act on what it adds, "
     "weighed for every token by a router a linear",
     {.place = ROUTER_LINEAR,
      .decides = DECIDE_TOKEN,
      .kind = GATE_SOFTMAX,
      .n_fixed = 1},
     {.needs_text = true,
      .universal = true,
      .own_experts = true,
      .scale_one = true,
      .grows = true}},
    {"arrow",
     "Arrow: LoRAs weighed for every token by how strongly each would answer it; no "
     "router is trained, and no text is needed",
     {.place = ROUTER_LINEAR,
      .decides = DECIDE_TOKEN,
      .kind = GATE_TOP_K,
      .top_k = 3,
      .absolute = true,
      .temperature = 1},
     {.grows = true, .made = true}},
    {"slim",
     "SLIM: LoRAs and identities in the FFN, two of them a token; what lies far from "
     "training goes to the identities",
     {.place = ROUTER_FFN,
      .decides = DECIDE_TOKEN,
      .kind = GATE_TOP_K,
      .top_k = 2,
      .n_clusters = 8,
      .clusters = {DISTANCE_MEAN, 0.99f, 1.0f},
      .masks = {.drop = 0.5f}},
     {.needs_text = true, .ffn_only = true, .identities = true}},
    {"mixlora",
     "MixLoRA: experts that each make a whole FFN, two of them a token, beside one "
     "LoRA "
     "in attention",
     {.place = ROUTER_FFN,
      .decides = DECIDE_TOKEN,
      .kind = GATE_TOP_K,
      .top_k = 2,
      .n_fixed = 1,
      .whole_ffn = true},
     {.needs_text = true}},
    {"ridge",
     "one LoRA a domain; a linear router in closed form, by least squares over what "
     "the base makes of a request, picks one before it answers",
     {.place = ROUTER_BASE,
      .decides = DECIDE_SEQUENCE,
      .pool = POOL_MEAN,
      .kind = GATE_ONE_HOT,
      .bias = true,
      .fix_expert = true},
     {.needs_text = true, .grows = true, .made = true}},
    {"classifier",
     "one LoRA a domain; a separate classifier, a logistic regression on what the base "
     "makes of a request or on its characters, picks one before it answers",
     {.place = ROUTER_BASE,
      .decides = DECIDE_SEQUENCE,
      .pool = POOL_MEAN,
      .kind = GATE_ONE_HOT,
      .bias = true,
      .fix_expert = true},
     {.needs_text = true, .grows = true}},
};

#define N_METHODS (sizeof(methods) / sizeof(methods[0]))

static const struct method *method_find(const char *name)
{
    for (size_t i = 0; i < N_METHODS; i++)
        if (!strcmp(methods[i].name, name))
            return &methods[i];
    return NULL;
}

int method_rule(struct gate_rule *rule, const char *method)
{
    const struct method *m = method_find(method);

    if (!m)
        return -1;
    *rule = m->rule;
    return 0;
}

const char *method_name(size_t i)
{
    return i < N_METHODS ? methods[i].name : NULL;
}

const char *method_summary(const char *method)
{
    const struct method *m = method_find(method);

    return m ? m->summary : NULL;
}

const struct method_traits *method_traits(const char *method)
{
    return &method_find(method)->traits;
}
