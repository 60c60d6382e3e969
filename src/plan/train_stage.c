/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stage carried out: build the mixture it trains, run the loop, write what
 * came of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/error.h"
#include "experts/arrow.h"
#include "files/write.h"
#include "plan/loop_state.h"
#include "plan/results.h"
#include "plan/stages.h"
#include "save/adapter.h"
#include "train/kept_inputs.h"

/* Kept router inputs: 69 kB a row for a model of 30 layers of 576. */
#define KEPT_INPUT_BYTES ((size_t)1 << 30)

#define MIXED_NAME    "mixed"   /* of the one expert of that method */
#define POOL_NAME     "expert-" /* of experts of no domain, a number after it */
#define IDENTITY_NAME "identity-"
#define SHARED_NAME   "shared" /* of the one that is always on beside those */

/* FNV-1a: an expert starts the same wherever its domain stands in the recipe. */
uint64_t name_stream(const char *name)
{
    uint64_t h = 0xcbf29ce484222325;

    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001b3;
    return h;
}

static int add_fresh_kind(struct mixture *m, const struct job *job,
                          const struct stage *s, enum expert_kind kind,
                          const char *name, struct artel_error *err)
{
    const struct model_config *c = &job->model->weights->config;
    struct lora_options lora = stage_lora(job, s);
    struct expert e = {0};
    int rc;

    lora.kind = kind;
    for (enum site i = SITE_Q; m->rule.whole_ffn && i < N_SITES; i++)
        lora.targets[i] &= (i >= SITE_GATE) == (kind == EXPERT_FFN);
    rc = expert_init_uniform(&e, name, c, &lora, err);
    if (rc == 0) {
        e.instead = kind == EXPERT_RES && m->rule.silent;
        expert_draw(&e, job->r->train.seed, name_stream(name));
        rc = mixture_add(m, &e, c, err);
    }
    expert_release(&e);
    return rc;
}

static int add_fresh(struct mixture *m, const struct job *job, const struct stage *s,
                     const char *name, struct artel_error *err)
{
    return add_fresh_kind(m, job, s, s->row->domain_kind, name, err);
}

/* The expert of DOMAIN, or the universal one, as its own stage left it. */
static int add_read(struct mixture *m, const struct job *job, const struct stage *s,
                    size_t domain, struct artel_error *err)
{
    const struct recipe_domain *d = text_at(job->r, domain);
    const bool own = domain < job->r->n_domains;
    struct expert e = {0};
    char *folder = expert_folder(job, s->row->experts, domain);
    int rc = folder ? adapter_read_kind(&e, d->name, folder,
                                        own ? s->row->domain_kind : EXPERT_LORA,
                                        job->model, job->o->force, err)
                    : error_nomem(err, 256);

    if (rc == 0) {
        /* An adapter brought along keeps its own dropout; PEFT's file does not say ours. */
        if (!d->adapter && own)
            e.dropout = job->r->lora.dropout;
        rc = mixture_add(m, &e, &job->model->weights->config, err);
    }
    expert_release(&e);
    free(folder);
    return rc;
}

/* The universal expert; while it is only measured, one of its shape. */
static int add_universal(struct mixture *m, const struct job *job,
                         const struct stage *s, bool read, struct artel_error *err)
{
    const struct stage_row row = {.text = TEXT_UNIVERSAL};
    const struct stage shape = {.row = &row};

    return read ? add_read(m, job, s, job->r->n_domains, err)
                : add_fresh(m, job, &shape, UNIVERSAL_NAME, err);
}

static int add_identities(struct mixture *m, const struct job *job,
                          struct artel_error *err)
{
    const struct model_config *c = &job->model->weights->config;
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < job->r->slim.identities; i++) {
        struct expert e = {0};
        char name[32];

        snprintf(name, sizeof(name), IDENTITY_NAME "%zu", i + 1);
        rc = expert_init_identity(&e, name, c->n_layers, err);
        if (rc == 0)
            rc = mixture_add(m, &e, c, err);
        expert_release(&e);
    }
    return rc;
}

static int add_pool(struct mixture *m, const struct job *job, const struct stage *s,
                    struct artel_error *err)
{
    int rc =
        m->rule.n_fixed ? add_fresh_kind(m, job, s, EXPERT_LORA, SHARED_NAME, err) : 0;

    for (size_t i = 0; rc == 0 && i < pool_size(job->r); i++) {
        char name[32];

        snprintf(name, sizeof(name), POOL_NAME "%zu", i + 1);
        rc = add_fresh(m, job, s, name, err);
    }
    if (rc == 0 && method_traits(s->row->method)->identities)
        rc = add_identities(m, job, err);
    return rc;
}

static int add_experts(struct mixture *m, const struct job *job, const struct stage *s,
                       bool read, struct artel_error *err)
{
    const struct recipe *r = job->r;
    const enum stage_start start = s->row->start;
    int rc = s->row->universal ? add_universal(m, job, s, read, err) : 0;

    if (rc < 0)
        return rc;
    if (start == START_OWN)
        return add_fresh(m, job, s, text_at(r, s->domain)->name, err);
    if (start == START_MIXED)
        return add_fresh(m, job, s, MIXED_NAME, err);
    if (start == START_POOL)
        return add_pool(m, job, s, err);
    read = read && (start == START_READ || r->router.init == INIT_STAGE1);
    for (size_t i = 0; rc == 0 && i < r->n_domains; i++)
        rc = read ? add_read(m, job, s, i, err)
                  : add_fresh(m, job, s, r->domains[i].name, err);
    return rc;
}

/* What the recipe says of a rule that yields. */
static void set_slim(struct gate_rule *rule, const struct recipe *r)
{
    const struct recipe_slim *s = &r->slim;

    rule->top_k = s->top_k;
    rule->n_clusters = s->clusters;
    rule->clusters = (struct cluster_options){.distance = s->distance,
                                              .momentum = (float)s->momentum,
                                              .beta = (float)s->beta};
    rule->masks = (struct mask_rule){.drop = (float)s->drop,
                                     .rescale = s->rescale,
                                     .kind = s->mask,
                                     .seed = r->train.seed};
}

/* What the recipe says of a rule whose experts make whole FFNs. */
static void set_whole_ffn(struct gate_rule *rule, const struct recipe *r)
{
    const size_t n = pool_size(r);

    rule->top_k = r->mixlora.top_k < n ? r->mixlora.top_k : n;
    if (r->mixlora.top_p > 0) {
        rule->kind = GATE_TOP_P;
        rule->top_p = (float)r->mixlora.top_p;
    }
    rule->n_fixed = 0; /* without a linear of attention nothing is shared */
    for (enum site i = SITE_Q; i < SITE_GATE; i++)
        rule->n_fixed |= r->lora.targets[i];
}

/* What a router reads before the experts: the text, or layers of the base, as asked or the
 * last. */
static void set_reads(struct gate_rule *rule, const struct job *job,
                      const struct stage *s)
{
    const struct recipe_router *from = &job->r->router;
    const struct layer_list *asked = &from->ridge_layers;

    if (s->row->lesson == LESSON_CLASSIFIER && from->classifier == CLASSIFY_NGRAMS) {
        rule->place = ROUTER_TEXT;
        rule->pool = POOL_MEAN; /* all of the turn */
        rule->ngrams = from->ngrams;
        return;
    }
    rule->n_reads = asked->n ? asked->n : 1;
    memcpy(rule->reads, asked->at, sizeof(rule->reads));
    if (!asked->n)
        rule->reads[0] = (uint16_t)job->model->weights->config.n_layers;
}

int stage_mixture(struct mixture *out, const struct job *job, const struct stage *s,
                  bool read, struct artel_error *err)
{
    const struct recipe *r = job->r;
    const char *method = s->row->method ? s->row->method : "single";
    struct gate_rule rule;
    int rc = method_rule(&rule, method);

    *out = (struct mixture){0};
    if (rc < 0)
        return error_set(err, ARTEL_EBUG, "BUG01", method, "no such method");
    if (rule.place != ROUTER_NONE && rule.decides == DECIDE_SEQUENCE) {
        rule.pool = r->router.pool;
        rule.selector = r->router.selector;
    }
    if (stage_makes_expert(s) && s->row->universal)
        rule.n_fixed = 1;
    rule.silent = s->row->domain_kind == EXPERT_RES && !r->modula.residual;
    if (rule.place == ROUTER_BASE)
        set_reads(&rule, job, s);
    if (rule.absolute) {
        rule.temperature = (float)r->router.temperature;
        rule.top_k = r->router.top_k ? r->router.top_k : rule.top_k;
    }
    if (rule.n_clusters)
        set_slim(&rule, r);
    if (rule.whole_ffn)
        set_whole_ffn(&rule, r);
    rc = mixture_init(out, method, &job->model->weights->config, &rule, err);
    if (rc == 0)
        rc = add_experts(out, job, s, read, err);
    if (rc == 0 && s->row->lesson == LESSON_ANSWERS)
        mixture_draw_routers(out, (float)r->router.init_std, r->train.seed);
    if (rc == 0 && s->row->lesson == LESSON_NONE)
        rc = arrow_rows(out, 0, err);
    if (rc < 0)
        mixture_release(out);
    return rc;
}

/* Rows whose router inputs may be kept, so that later epochs of routers alone need no
 * decoder. */
static size_t rows_to_keep(const struct job *job)
{
    const struct model_config *c = &job->model->weights->config;
    const size_t bound = KEPT_INPUT_BYTES / (c->n_layers * c->dim * sizeof(float));
    size_t rows = 0;

    for (size_t i = 0; i < job->texts.n; i++)
        rows += job->texts.trains[i] ? corpus_count(job->texts.trains[i]) : 0;
    return rows < bound ? rows : bound;
}

/* Routers that are taught by the domains' labels. */
static void teach_labels(struct train_options *t, const struct job *job)
{
    const struct recipe_router *router = &job->r->router;

    t->router_learning_rate = (float)router->learning_rate;
    t->forced_expert = -1;
    t->eta = (float)router->eta;
    t->detach_router = router->detach_router_input;
    t->lm_loss = !router->router_only;
    t->cache_rows = router->router_only ? rows_to_keep(job) : 0;
    if (router->label == LABEL_ARGMAX) {
        t->routing = ROUTE_ROUTER;
        t->straight = true;
    }
}

/* Routers that decide, and are taught by the loss on the answers. */
static void teach_answers(struct train_options *t, const struct job *job)
{
    const struct recipe_router *router = &job->r->router;

    t->router_learning_rate =
        (float)(router->token_rate > 0 ? router->token_rate
                                       : job->r->train.learning_rate);
    t->routing = ROUTE_ROUTER;
    t->forced_expert = -1;
    t->unlabelled = true;
    t->detach_router = router->detach_router_input;
}

static void set_train_options(struct train_options *t, const struct job *job,
                              const struct stage *s, const struct mixture *m)
{
    const struct recipe_train *from = &job->r->train;

    train_options_default(t);
    t->learning_rate = (float)from->learning_rate;
    t->beta1 = (float)from->beta1;
    t->beta2 = (float)from->beta2;
    t->eps = (float)from->eps;
    t->weight_decay = (float)from->weight_decay;
    t->max_grad_norm = (float)from->max_grad_norm;
    t->seed = from->seed;
    t->max_row_tokens = job->texts.longest;
    t->memory = job->memory;
    t->routing = ROUTE_GIVEN;
    t->forced_expert = (int)m->n_experts - 1; /* the one that is trained */
    t->lm_loss = true;
    t->eta = 0;
    if (!m->n_routers)
        return;
    if (s->row->lesson == LESSON_LABELS)
        teach_labels(t, job);
    else
        teach_answers(t, job);
    if (m->rule.n_clusters)
        t->l1 = (float)job->r->slim.l1;
    if (m->rule.whole_ffn)
        t->balance = (float)job->r->mixlora.balance;
}

static bool expert_moves(const struct job *job, const struct stage *s, size_t expert)
{
    const size_t first = s->row->universal ? 1 : 0; /* of the domains' */

    if (expert < first)
        return false;
    if (s->kind == STAGE_EXPERT)
        return true;
    return stage_moves_experts(job, s) &&
           (!job->grow || job->grow->joint || expert - first == job->grow->domain);
}

void stage_loop_input(struct loop_input *out, const struct job *job,
                      const struct stage *s, struct mixture *m, bool *trained)
{
    const struct recipe *r = job->r;
    const struct texts *t = &job->texts;
    size_t first, last;

    stage_texts(job, s, &first, &last);
    *out = (struct loop_input){
        .stage = s->name,
        .folder = s->folder,
        .stage_idx = (size_t)(s - job->stages),
        .n_stages = job->n_stages,
        .model = job->model,
        .mixture = m,
        .trained = trained,
        .train_routers = m->n_routers > 0,
        .settings = &r->train,
        .epochs = r->train.epochs,
        .max_steps = r->train.max_steps,
        .mix = s->row->mix,
        .corpora = t->trains + first,
        .n_corpora = last - first,
        .valid = t->valid + t->valid_first[first],
        .n_valid = t->valid_first[last] - t->valid_first[first],
        .held = t->held,
        .n_held = t->n_held,
        .run = job->o,
        .lock = &job->lock,
    };
    if (m->n_routers) {
        if (r->router.epochs > 0)
            out->epochs = r->router.epochs;
        if (r->router.max_steps)
            out->max_steps = r->router.max_steps;
    }
    for (size_t e = 0; e < m->n_experts; e++)
        trained[e] = expert_moves(job, s, e);
    set_train_options(&out->train, job, s, m);
}

json_t *stage_summary(const struct job *job, const struct loop_input *in,
                      const struct loop_result *l)
{
    size_t parameters = in->train_routers ? in->mixture->n_router_params : 0;
    json_t *data = json_object(), *o;

    for (size_t e = 0; e < in->mixture->n_experts; e++)
        parameters += in->trained[e] ? in->mixture->experts[e].n_params : 0;
    for (size_t i = 0; i < job->texts.n; i++)
        for (size_t k = 0; k < in->n_corpora; k++)
            if (in->corpora[k] && in->corpora[k] == job->texts.trains[i])
                json_object_set_new(data, job->texts.of[i].name,
                                    texts_summary(&job->texts, i));
    o = json_pack("{s:I, s:I, s:I, s:I, s:f, s:o, s:o, s:I, s:I, s:b, s:s, s:I, s:o}",
                  "parameters", (json_int_t)parameters, "steps", (json_int_t)l->steps,
                  "tokens", (json_int_t)l->tokens, "answer_tokens",
                  (json_int_t)l->answer_tokens, "seconds", l->seconds, "first_loss",
                  real_or_null(l->first_loss), "last_loss", real_or_null(l->last_loss),
                  "skipped_steps", (json_int_t)l->skipped, "clipped_steps",
                  (json_int_t)l->clipped, "early_stopped", l->early_stopped,
                  "precision", in->model->precision == PRECISION_BF16 ? "bf16" : "fp32",
                  "threads", (json_int_t)cpu_threads(), "data", data);
    if (o && in->n_valid)
        json_object_set_new(o, "valid_loss", real_or_null(l->valid_loss));
    if (o && in->settings->spike_z > 0)
        json_object_set_new(o, "spike_steps", json_integer((json_int_t)l->spikes));
    if (o && l->inputs_found + l->inputs_computed)
        json_object_set_new(o, "router_inputs",
                            json_pack("{s:I, s:I}", "found",
                                      (json_int_t)l->inputs_found, "computed",
                                      (json_int_t)l->inputs_computed));
    if (o && l->best_step)
        json_object_set_new(o, "best_step", json_integer((json_int_t)l->best_step));
    return o;
}

static void add_result(struct loop_result *sum, const struct loop_result *more)
{
    sum->steps += more->steps;
    sum->skipped += more->skipped;
    sum->spikes += more->spikes;
    sum->clipped += more->clipped;
    sum->tokens += more->tokens;
    sum->answer_tokens += more->answer_tokens;
    sum->seconds += more->seconds;
    sum->inputs_found += more->inputs_found;
    sum->inputs_computed += more->inputs_computed;
}

bool stage_refreshes(const struct job *job, const struct stage *s)
{
    return s->row->lesson == LESSON_LABELS && stage_moves_experts(job, s) &&
           job->r->router.refresh > 0;
}

void stage_refresh_input(struct loop_input *out, const struct job *job,
                         const struct loop_input *joint, bool *none)
{
    const struct recipe_router *router = &job->r->router;

    memset(none, 0, joint->mixture->n_experts * sizeof(*none));
    *out = *joint;
    out->trained = none;
    out->epochs = router->refresh;
    out->max_steps = 0;
    out->train.lm_loss = false;
    out->train.routing = ROUTE_GIVEN;
    out->train.cache_rows = rows_to_keep(job);
    if (router->refresh_rate > 0)
        out->train.router_learning_rate = (float)router->refresh_rate;
}

/* Routers alone over experts that do not move; their inputs may be on disk. */
static int run_routers(struct loop_input *in, const struct job *job,
                       const struct stage *s, struct loop_result *out,
                       struct artel_error *err)
{
    int rc = stage_kept_inputs(&in->train.kept, job, s, in->mixture, err);

    if (rc == 0)
        rc = loop_run(in, out, err);
    if (rc == 0)
        tell_inputs(job, s, out->inputs_found, out->inputs_computed);
    kept_inputs_close(in->train.kept);
    in->train.kept = NULL;
    return rc;
}

static int refresh_routers(const struct loop_input *joint, const struct job *job,
                           const struct stage *s, bool *none, struct loop_result *sum,
                           struct artel_error *err)
{
    struct loop_input in;
    struct loop_result result = {0};
    char *folder = path_join(joint->folder, "refresh");
    int rc = folder ? make_folder(folder, err) : error_nomem(err, 256);

    stage_refresh_input(&in, job, joint, none);
    in.folder = folder;
    if (rc == 0)
        rc = run_routers(&in, job, s, &result, err);
    free(folder);
    add_result(sum, &result);
    return rc;
}

int stage_train(json_t **summary, struct job *job, const struct stage *s,
                struct mixture *m, const json_t *inputs, struct artel_error *err)
{
    bool *trained = calloc(m->n_experts + 1, sizeof(*trained));
    bool *none = calloc(m->n_experts + 1, sizeof(*none));
    struct loop_result result = {0};
    struct loop_input in;
    int rc;

    if (!trained || !none) {
        free(trained);
        free(none);
        return error_nomem(err, m->n_experts);
    }
    stage_loop_input(&in, job, s, m, trained);
    in.inputs = inputs;
    in.watch = &job->watch;
    rc = job_prepare(job, stage_precision(job, s),
                     err); /* an evaluation may have wanted another form */
    if (rc == 0)
        rc = in.train.lm_loss ? loop_run(&in, &result, err)
                              : run_routers(&in, job, s, &result, err);
    if (rc == 0 && stage_refreshes(job, s))
        rc = refresh_routers(&in, job, s, none, &result, err);
    if (rc == 0) {
        *summary = stage_summary(job, &in, &result);
        rc = *summary ? 0 : error_nomem(err, 1024);
    }
    free(trained);
    free(none);
    return rc;
}

int stage_carry_out(json_t **summary, struct job *job, const struct stage *s,
                    const json_t *inputs, struct artel_error *err)
{
    struct mixture m = {0};
    int rc;

    *summary = NULL;
    rc = s->row->universal ? stage_check_universal(job, s, err) : 0;
    if (rc < 0)
        return rc;
    rc = s->kind == STAGE_ADAPTER ? stage_adapter(&m, job, s, err)
                                  : stage_mixture(&m, job, s, true, err);
    if (rc == 0 && stage_trains(s))
        rc = stage_train(summary, job, s, &m, inputs, err);
    if (rc == 0 && s->kind == STAGE_SOLVED)
        rc = stage_solve(summary, job, s, &m, err);
    if (rc == 0 && !*summary) {
        *summary = json_object();
        rc = *summary ? 0 : error_nomem(err, 64);
    }
    if (rc == 0)
        rc = results_write(job, s, &m, *summary, err);
    mixture_release(&m);
    if (rc < 0) {
        json_decref(*summary);
        *summary = NULL;
    }
    return rc;
}
