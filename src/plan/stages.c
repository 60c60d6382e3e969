/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which stages a recipe has, and what the outcome of each depends on: every
 * setting and every digest that could change one bit of it, and nothing else.
 */
#include "plan/stages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "files/write.h"

/* Keys of the section train that no weight depends on. */
static const char *const idle_keys[] = {
    "save_steps", "save_total_limit", "packing",     "logging_steps", "precision",
    "memory",     "nan_steps",        "tensorboard", "together"};

/* Keys of the section router that a stage's weights do not depend on, by what teaches
 * its routers: labels, or the answers. */
static const char *const idle_with_labels[] = {
    "freeze_old",    "init_std",        "token_learning_rate",
    "experts",       "top_k",           "temperature",
    "ridge_layers",  "ridge_lambda",    "classifier_lambda",
    "classifier",    "ngram_min",       "ngram_max",
    "ngram_buckets", "ngram_lowercase", "cache_mib"};
static const char *const idle_with_answers[] = {"freeze_old",
                                                "eta",
                                                "learning_rate",
                                                "selector",
                                                "pool",
                                                "router_only",
                                                "label",
                                                "init",
                                                "refresh_learning_rate",
                                                "refresh",
                                                "experts",
                                                "top_k",
                                                "temperature",
                                                "ridge_layers",
                                                "ridge_lambda",
                                                "classifier_lambda",
                                                "classifier",
                                                "ngram_min",
                                                "ngram_max",
                                                "ngram_buckets",
                                                "ngram_lowercase",
                                                "cache_mib"};

/* And of routers that are made of the experts: what is read. */
static const char *const read_by_none[] = {"top_k", "temperature"};
static const char *const read_by_ridge[] = {"pool", "ridge_layers", "ridge_lambda"};
static const char *const read_by_classifier[] = {"pool", "ridge_layers",
                                                 "classifier_lambda"};
static const char *const read_by_ngrams[] = {"classifier",      "ngram_min",
                                             "ngram_max",       "ngram_buckets",
                                             "ngram_lowercase", "classifier_lambda"};
/* And which keys of train they depend on: what their text is. */
static const char *const text_keys[] = {"cutoff_len", "skip_bad", "val_size", "seed"};

#define N_OF(list) (sizeof(list) / sizeof(list[0]))

char *output_path(const struct job *job, const char *part, const char *rest)
{
    char *path = path_join(job->r->output, part), *whole;

    if (!path || !rest)
        return path;
    whole = path_join(path, rest);
    free(path);
    return whole;
}

size_t text_count(const struct recipe *r)
{
    return r->n_domains + (r->universal ? 1 : 0);
}

const struct recipe_domain *text_at(const struct recipe *r, size_t i)
{
    return i < r->n_domains ? &r->domains[i] : &r->universal->text;
}

size_t text_max_rows(const struct recipe *r, size_t i)
{
    const size_t own = text_at(r, i)->max_rows;

    return own ? own : r->max_rows;
}

char *expert_folder(const struct job *job, const char *experts, size_t domain)
{
    const bool universal = domain == job->r->n_domains;
    const char *there = !job->grow  ? NULL
                        : universal ? job->grow->universal
                                    : job->grow->folder[domain];

    if (there)
        return strdup(there);
    return output_path(job, universal ? "experts" : experts,
                       universal ? UNIVERSAL_NAME : job->r->domains[domain].name);
}

void stage_texts(const struct job *job, const struct stage *s, size_t *first,
                 size_t *end)
{
    *first = 0;
    *end = 0;
    if (stage_makes_expert(s)) {
        *first = s->domain;
        *end = s->kind == STAGE_EXPERT ? s->domain + 1 : s->domain;
    } else if (s->kind == STAGE_MIXTURE || s->kind == STAGE_SOLVED) {
        *end = s->row->text == TEXT_ALL ? text_count(job->r) : job->r->n_domains;
    }
}

json_t *stage_texts_summary(const struct job *job, const struct stage *s)
{
    json_t *data = json_object();
    size_t first, end;

    stage_texts(job, s, &first, &end);
    for (size_t i = first; i < end; i++)
        json_object_set_new(data, text_at(job->r, i)->name,
                            texts_summary(&job->texts, i));
    return data;
}

size_t pool_size(const struct recipe *r)
{
    return r->router.experts ? r->router.experts : r->n_domains;
}

bool stage_moves_experts(const struct job *job, const struct stage *s)
{
    return s->kind == STAGE_MIXTURE && s->row->moves != MOVES_ROUTERS &&
           !(s->row->moves == MOVES_AS_ASKED && job->r->router.router_only);
}

struct lora_options stage_lora(const struct job *job, const struct stage *s)
{
    const struct recipe_universal *u = job->r->universal;
    struct lora_options o = job->r->lora;

    if (s->row->text == TEXT_UNIVERSAL) {
        o.rank = u->rank;
        o.alpha = u->alpha > 0 ? u->alpha : (float)u->rank;
    }
    if (s->row->method && method_traits(s->row->method)->ffn_only)
        for (int site = 0; site < SITE_GATE; site++)
            o.targets[site] = false;
    return o;
}

void job_tell(const struct job *job, const struct stage *s, enum run_event event,
              const char *message)
{
    struct run_progress p = {.event = event,
                             .stage = s ? s->name : "",
                             .stage_idx = s ? (size_t)(s - job->stages) : 0,
                             .n_stages = job->n_stages,
                             .seconds_left = -1,
                             .message = message};

    if (job->o->progress)
        job->o->progress(job->o->user, &p);
}

static int add_stage(struct job *job, const struct stage_row *row, size_t domain,
                     struct artel_error *err)
{
    const struct recipe *r = job->r;
    const bool own = row->text == TEXT_OWN;
    struct stage *s = &job->stages[job->n_stages];
    char *train = output_path(job, "train", NULL);

    *s = (struct stage){.row = row, .kind = row->kind, .domain = domain};
    if (own && r->domains[domain].adapter)
        s->kind = STAGE_ADAPTER;
    snprintf(s->name, sizeof(s->name), "%s%s", row->name,
             own ? r->domains[domain].name : "");
    s->folder = train ? path_join(train, s->name) : NULL;
    free(train);
    if (!s->folder)
        return error_nomem(err, 256);
    job->n_stages++;
    return 0;
}

static bool has_row(const struct job *job, const struct stage_row *row)
{
    for (size_t i = 0; i < job->n_stages; i++)
        if (job->stages[i].row == row)
            return true;
    return false;
}

static int add_row(struct job *job, const struct stage_row *row,
                   struct artel_error *err)
{
    int rc = 0;

    if (has_row(job, row))
        return 0;
    if (row->text != TEXT_OWN)
        return add_stage(job, row, row->text == TEXT_UNIVERSAL ? job->r->n_domains : 0,
                         err);
    for (size_t i = 0; rc == 0 && i < job->r->n_domains; i++)
        rc = add_stage(job, row, i, err);
    return rc;
}

/* Experts of all methods first, the mixtures after them. */
int stages_list(struct job *job, struct artel_error *err)
{
    const struct recipe *r = job->r;
    const size_t most = r->n_methods * METHOD_ROWS * (r->n_domains + 1);
    int rc = 0;

    job->stages = calloc(most, sizeof(*job->stages));
    if (!job->stages)
        return error_nomem(err, most * sizeof(*job->stages));
    for (int mixtures = 0; mixtures < 2; mixtures++)
        for (size_t i = 0; i < r->n_methods; i++) {
            const struct stage_row *row;

            for (size_t k = 0; rc == 0 && (row = method_row(r->methods[i], r, k)); k++)
                if ((row->kind != STAGE_EXPERT) == mixtures)
                    rc = add_row(job, row, err);
        }
    return rc;
}

/* ---- inputs ---- */

static void put(json_t *o, const char *prefix, const char *key, json_t *value)
{
    char name[EXPERT_NAME_MAX + 32];

    snprintf(name, sizeof(name), "%s%s", prefix, key);
    json_object_set_new(o, name, value);
}

static void put_section(json_t *o, const struct recipe *r, const char *section,
                        const char *const *leave_out, size_t n_leave_out)
{
    json_t *values = recipe_section(r, section);
    char prefix[16];
    const char *key;
    json_t *value;

    snprintf(prefix, sizeof(prefix), "%s.", section);
    json_object_foreach(values, key, value)
    {
        bool idle = false;

        for (size_t i = 0; i < n_leave_out; i++)
            idle = idle || !strcmp(key, leave_out[i]);
        if (!idle)
            put(o, prefix, key, json_incref(value));
    }
    json_decref(values);
}

static void put_text(json_t *o, const struct job *job, size_t i)
{
    const struct recipe_domain *d = text_at(job->r, i);

    put(o, "data.", d->name, json_string(job->train_digest[i]));
    put(o, "max_rows.", d->name, json_integer((json_int_t)text_max_rows(job->r, i)));
    if (d->valid && job->r->train.eval_steps)
        put(o, "valid.", d->name, json_string(job->valid_digest[i]));
}

/* What a drawn expert is made of. */
static void put_lora(json_t *o, const struct job *job, const struct stage *s)
{
    const struct lora_options lora = stage_lora(job, s);

    put_section(o, job->r, "lora", NULL, 0);
    if (lora.rank != job->r->lora.rank)
        put(o, "lora.", "rank", json_integer((json_int_t)lora.rank));
    if (lora.alpha != job->r->lora.alpha)
        put(o, "lora.", "alpha", json_real((double)lora.alpha));
}

static int put_file(json_t *o, const char *prefix, const char *name, const char *folder,
                    struct artel_error *err)
{
    char *path = folder ? path_join(folder, "adapter_model.safetensors") : NULL;
    char digest[DIGEST_SIZE];
    int rc = path ? digest_file(digest, path, err) : error_nomem(err, 256);

    if (rc == 0)
        put(o, prefix, name, json_string(digest));
    free(path);
    return rc;
}

static int put_expert(json_t *o, const struct job *job, const struct stage *s,
                      size_t domain, struct artel_error *err)
{
    char *folder = expert_folder(job, s->row->experts, domain);
    const int rc = put_file(o, "expert.", text_at(job->r, domain)->name, folder, err);

    free(folder);
    return rc;
}

/* Experts that are read, in the mixture's order; their names alone while they are not
 * made yet. */
static int put_experts(json_t *o, const struct job *job, const struct stage *s,
                       bool digests, struct artel_error *err)
{
    const size_t n =
        stage_makes_expert(s) || s->row->start == START_POOL ? 0 : job->r->n_domains;
    json_t *names = json_array();
    int rc = 0;

    if (s->row->universal) {
        json_array_append_new(names, json_string(UNIVERSAL_NAME));
        if (digests)
            rc = put_expert(o, job, s, job->r->n_domains, err);
    }
    for (size_t i = 0; rc == 0 && i < n; i++) {
        json_array_append_new(names, json_string(job->r->domains[i].name));
        if (digests)
            rc = put_expert(o, job, s, i, err);
    }
    json_object_set_new(o, "domains", names);
    return rc;
}

/* What the routers of a stage depend on beside text and experts. */
static void put_router(json_t *o, const struct job *job, const struct stage *s)
{
    const struct recipe *r = job->r;
    struct gate_rule rule;

    if (s->row->lesson == LESSON_LABELS)
        put_section(o, r, "router", idle_with_labels, N_OF(idle_with_labels));
    else
        put_section(o, r, "router", idle_with_answers, N_OF(idle_with_answers));
    if (method_traits(s->row->method)->identities)
        put_section(o, r, "slim", NULL, 0);
    if (s->row->start == START_POOL)
        put(o, "router.", "experts", json_integer((json_int_t)pool_size(r)));
    method_rule(&rule, s->row->method);
    if (rule.whole_ffn)
        put_section(o, r, "mixlora", NULL, 0);
    if (job->grow) {
        put(o, "", "grow.joint", json_boolean(job->grow->joint));
        put(o, "", "grow.routers", json_string(job->grow->digest));
    }
}

static void put_precision(json_t *o, const struct job *job, const struct stage *s)
{
    put(o, "", "precision",
        json_string(stage_precision(job, s) == PRECISION_BF16 ? "bf16" : "fp32"));
}

/* What routers that nothing teaches depend on beside the experts. */
static void put_keys(json_t *o, const struct job *job, const char *section,
                     const char *const *keys, size_t n)
{
    json_t *values = recipe_section(job->r, section);
    char prefix[16];

    snprintf(prefix, sizeof(prefix), "%s.", section);
    for (size_t i = 0; i < n; i++)
        put(o, prefix, keys[i], json_incref(json_object_get(values, keys[i])));
    json_decref(values);
}

static void put_made(json_t *o, const struct job *job, const struct stage *s)
{
    if (s->row->lesson == LESSON_NONE)
        put_keys(o, job, "router", read_by_none, N_OF(read_by_none));
    if (s->row->lesson == LESSON_RIDGE)
        put_keys(o, job, "router", read_by_ridge, N_OF(read_by_ridge));
    if (s->row->lesson == LESSON_CLASSIFIER &&
        job->r->router.classifier == CLASSIFY_NGRAMS)
        put_keys(o, job, "router", read_by_ngrams, N_OF(read_by_ngrams));
    else if (s->row->lesson == LESSON_CLASSIFIER)
        put_keys(o, job, "router", read_by_classifier, N_OF(read_by_classifier));
    if (s->kind != STAGE_SOLVED)
        return;
    put_keys(o, job, "train", text_keys, N_OF(text_keys));
    put_precision(o, job, s);
    if (job->grow)
        put(o, "", "grow.routers", json_string(job->grow->digest));
}

static void put_training(json_t *o, const struct job *job, const struct stage *s)
{
    put_precision(o, job, s);
    put_section(o, job->r, "train", idle_keys, N_OF(idle_keys));
    /* What was made before there was such a key is still up to date. */
    if (job->r->train.spike_z == 0)
        json_object_del(o, "train.spike_z");
}

static bool draws_experts(const struct job *job, const struct stage *s)
{
    const enum stage_start start = s->row->start;

    return stage_trains(s) &&
           (start == START_OWN || start == START_MIXED || start == START_POOL ||
            (start == START_INIT && job->r->router.init == INIT_FRESH));
}

int stage_inputs(json_t **out, const struct job *job, const struct stage *s,
                 bool experts, struct artel_error *err)
{
    const bool routers = s->kind == STAGE_MIXTURE && s->row->moves != MOVES_EXPERTS;
    json_t *o = json_object();
    size_t first, end;
    int rc = 0;

    *out = NULL;
    if (!o)
        return error_nomem(err, 1024);
    put(o, "", "base", json_string(job->model->base_digest));
    put(o, "", "tokenizer", json_string(job->model->tokenizer_digest));
    put(o, "", "template", json_string(job->model->chat_digest));
    if (stage_trains(s))
        put_training(o, job, s);
    if (draws_experts(job, s))
        put_lora(o, job, s);
    stage_texts(job, s, &first, &end);
    for (size_t i = first; i < end; i++)
        put_text(o, job, i);
    if (s->kind == STAGE_ADAPTER)
        rc = put_file(o, "", "adapter", job->r->domains[s->domain].adapter, err);
    if (routers)
        put_router(o, job, s);
    put_made(o, job, s);
    /* What was made before there was such a key is still up to date. */
    if (s->row->domain_kind == EXPERT_RES && !job->r->modula.residual)
        put_section(o, job->r, "modula", NULL, 0);
    if (rc == 0 && (routers || s->kind == STAGE_BUNDLE || s->kind == STAGE_SOLVED ||
                    s->row->universal))
        rc = put_experts(o, job, s, experts, err);
    if (rc < 0) {
        json_decref(o);
        return rc;
    }
    *out = o;
    return 0;
}

bool stage_result_there(const struct job *job, const struct stage *s)
{
    const bool expert = stage_makes_expert(s);
    char *folder = expert ? expert_folder(job, s->row->experts, s->domain)
                          : output_path(job, s->row->method, NULL);
    bool there = folder != NULL;

    static const char *const of_expert[] = {"adapter_model.safetensors",
                                            "adapter_config.json", "artel.json"};
    static const char *const of_mixture[] = {"mixture.json"};

    for (size_t i = 0; there && i < (expert ? 3u : 1u); i++) {
        char *path = path_join(folder, expert ? of_expert[i] : of_mixture[i]);

        there = path && access(path, F_OK) == 0;
        free(path);
    }
    free(folder);
    return there;
}
