/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue as JSON: OpenAI's list of models, and all that is known of the mixture. Of
 * paths only the last part is told.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "eval/stage_log.h"
#include "files/json.h"
#include "files/write.h"
#include "serve/catalogue_parts.h"

#define POINTS_MAX        400 /* of a training curve */
#define RESULTS_MAX_BYTES ((size_t)4 << 20)

/* OpenAI's model object with vLLM's fields and ours. */
static void list_one(json_t *list, const char *id, const char *root, const char *parent,
                     const char *kind, bool added, time_t since, size_t context)
{
    json_array_append_new(
        list,
        json_pack("{s:s, s:s, s:I, s:s, s:s?, s:s?, s:I, s:[], s:{s:s, s:b}}", "id", id,
                  "object", "model", "created", (json_int_t)since, "owned_by", "artel",
                  "root", root, "parent", parent, "max_model_len", (json_int_t)context,
                  "permission", "artel", "kind", kind, "added", (int)added));
}

json_t *catalogue_list(struct catalogue *c, size_t context)
{
    json_t *const list = json_array();
    const struct artel_mixture *m;
    struct artel_error err;
    int expert;

    pthread_mutex_lock(&c->lock);
    m = c->current->mixture;
    if (artel_expert_find(m, &expert, "auto", &err) == 0)
        list_one(list, "auto", c->name, NULL, "auto", false, c->since, context);
    for (size_t e = 0; m->mixture && e < m->mixture->n_experts; e++)
        if (!m->mixture->identity[e])
            list_one(list, m->mixture->experts[e].name, m->mixture->experts[e].name,
                     "base", "expert", false, c->since, context);
    for (size_t i = 0; i < c->n_added; i++)
        list_one(list, c->added[i].name, c->added[i].folder, "base", "expert", true,
                 c->added[i].since, context);
    list_one(list, "base", last_part(c->model->weights->path), NULL, "base", false,
             c->since, context);
    pthread_mutex_unlock(&c->lock);
    return list;
}

/* At most POINTS_MAX of them, means of neighbours where there are more. */
static json_t *curve(const struct series *s)
{
    const size_t n = s->n < POINTS_MAX ? s->n : POINTS_MAX;
    json_t *const points = json_array();

    for (size_t i = 0; i < n; i++) {
        const size_t from = i * s->n / n, to = (i + 1) * s->n / n;
        double x = 0, y = 0;

        for (size_t k = from; k < to; k++) {
            x += s->step[k] / (double)(to - from);
            y += s->value[k] / (double)(to - from);
        }
        json_array_append_new(points, json_pack("[f, f]", x, y));
    }
    return points;
}

static json_t *stages(const char *path)
{
    static const char *const names[N_SERIES] = {
        [SERIES_LOSS] = "loss",
        [SERIES_EVAL_LOSS] = "eval_loss",
        [SERIES_ROUTER_ACCURACY] = "router_accuracy",
        [SERIES_EVAL_ROUTER_ACCURACY] = "eval_router_accuracy"};
    json_t *const list = json_array();
    struct stage_log *logs = NULL;
    size_t n = 0;

    if (stage_logs_read(&logs, &n, path) < 0)
        n = 0;
    for (size_t i = 0; i < n; i++) {
        json_t *const stage = json_pack("{s:s}", "name", logs[i].name);

        for (size_t k = 0; k < N_SERIES; k++)
            json_object_set_new(stage, names[k], curve(&logs[i].series[k]));
        json_array_append_new(list, stage);
    }
    stage_logs_free(logs, n);
    return list;
}

/* What `artel eval` has left in the folder of the run or of the mixture, or null. */
static json_t *evaluation(const char *path)
{
    static const char *const places[] = {"../results.json", "../table.json",
                                         "results.json", "table.json"};
    json_t *found = NULL, *method;
    size_t k;

    for (size_t i = 0; !found && i < sizeof(places) / sizeof(places[0]); i++) {
        char *const file = path_join(path, places[i]);

        if (file)
            json_read_file(&found, file, RESULTS_MAX_BYTES, NULL);
        free(file);
        if (!json_is_array(json_object_get(found, "methods"))) {
            json_decref(found);
            found = NULL;
        }
    }
    json_array_foreach(json_object_get(found, "methods"), k, method)
    {
        const char *const p = json_string_value(json_object_get(method, "path"));

        if (p)
            json_object_set_new(method, "path", json_string(last_part(p)));
    }
    return found ? found : json_null();
}

static void set_name(json_t *o, const char *key, const char *path)
{
    json_object_set_new(o, key, path ? json_string(last_part(path)) : json_null());
}

/* What the stages said of NAME's text as they read it, or NULL; borrowed. */
static const json_t *text_of(const struct mixture_file *f, const char *name)
{
    const char *stage;
    json_t *summary;

    json_object_foreach(json_object_get(f->training, "stages"), stage, summary)
    {
        const json_t *const data =
            json_object_get(json_object_get(summary, "data"), name);

        if (json_is_object(data))
            return data;
    }
    return NULL;
}

static json_t *data_of(const struct mixture_file *f, const char *name)
{
    static const char *const facts[] = {"format", "rows", "tokens", "answer_tokens"};
    const json_t *const text = text_of(f, name);
    const size_t n = f->folder ? mixture_file_texts(f) : 0;

    for (size_t i = 0; i < n; i++) {
        const struct domain_notes *const d = mixture_file_text(f, i);
        json_t *o;

        if (strcmp(d->name, name) != 0)
            continue;
        o = json_object();
        set_name(o, "train", d->train);
        set_name(o, "test", d->test);
        for (size_t k = 0; k < sizeof(facts) / sizeof(facts[0]); k++) {
            json_t *const fact = json_object_get(text, facts[k]);

            json_object_set_new(o, facts[k], fact ? json_deep_copy(fact) : json_null());
        }
        return o;
    }
    return json_null();
}

static void describe_experts(json_t *list, const struct artel_mixture *m,
                             const char *as_added)
{
    for (size_t e = 0; m->mixture && e < m->mixture->n_experts; e++) {
        const struct expert *const x = &m->mixture->experts[e];
        size_t rank = 0;

        for (size_t i = 0; x->lora && i < x->n_layers * N_SITES; i++)
            rank = x->lora[i].rank > rank ? x->lora[i].rank : rank;
        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:I, s:I, s:b, s:o}", "name",
                      as_added ? as_added : x->name, "kind", expert_kind_name(x->kind),
                      "rank", (json_int_t)rank, "parameters", (json_int_t)x->n_params,
                      "added", as_added != NULL, "data", data_of(&m->file, x->name)));
    }
}

const char *selector_name(const struct artel_mixture *m)
{
    const struct mixture *const x = m->mixture;

    if (!x || !x->n_routers || !x->rule.fix_expert || x->rule.place == ROUTER_BASE ||
        x->rule.place == ROUTER_TEXT)
        return NULL;
    return x->rule.selector == SELECT_VOTE ? "vote" : "last";
}

json_t *describe_mixture(const struct artel_mixture *m, const char *path)
{
    json_t *const experts = json_array();
    struct artel_mixture_info info;

    artel_mixture_info(m, &info);
    describe_experts(experts, m, NULL);
    return json_pack("{s:s, s:s, s:s?, s:s, s:{s:s, s:s}, s:o, s:o, s:o}", "path",
                     last_part(path), "method", info.method, "selector",
                     selector_name(m), "precision", info.precision, "base", "path",
                     last_part(m->model->weights->path), "digest",
                     m->model->base_digest, "experts", experts, "stages", stages(path),
                     "evaluation", evaluation(path));
}

json_t *catalogue_describe(struct catalogue *c)
{
    json_t *o, *experts;

    pthread_mutex_lock(&c->lock);
    o = json_deep_copy(c->described);
    experts = json_object_get(o, "experts");
    for (size_t i = 0; i < c->n_added; i++)
        describe_experts(experts, c->added[i].loaded->mixture, c->added[i].name);
    pthread_mutex_unlock(&c->lock);
    return o;
}
