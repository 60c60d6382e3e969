/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a path holds, as JSON: a model with its memory plan, an adapter (as a GGUF file:
 * api_inspect_lora.c), a mixture, a recipe with its stages (api_inspect_recipe.c), or a
 * dataset with a preview of what carries loss (api_inspect_data.c).
 */
#include "plan/api_inspect.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/map.h"
#include "data/corpus.h"
#include "eval/opened.h"
#include "files/gguf.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "files/write.h"
#include "save/adapter.h"
#include "save/gguf_lora.h"
#include "save/peft_config.h"
#include "train/trainer.h"

#define CONFIG_MAX_BYTES ((size_t)16 << 20)

static json_t *whole(size_t n)
{
    return json_integer((json_int_t)n);
}

/* Formats of the linears and the embedding, with how many tensors have each. */
static json_t *formats_json(const struct weights *w)
{
    json_t *const out = json_object();
    size_t count[N_DTYPES] = {0};

    count[w->embed.dtype]++;
    for (size_t l = 0; l < w->config.n_layers; l++)
        for (int s = 0; s < N_SITES; s++)
            count[w->layers[l].site[s].dtype]++;
    for (int t = 0; t < N_DTYPES; t++)
        if (count[t])
            json_object_set_new(out, dtype_name((enum dtype)t), whole(count[t]));
    return out;
}

static int train_bytes(size_t *out, const struct artel_model *m,
                       struct artel_error *err)
{
    const bool trained[] = {true};
    struct lora_options lora;
    struct train_options o;
    struct expert expert = {0};
    struct mixture mixture = {0};
    struct gate_rule rule;
    int rc;

    lora_options_default(&lora);
    train_options_default(&o);
    o.max_row_tokens = 1024;
    method_rule(&rule, "single");
    rc = mixture_init(&mixture, "single", &m->weights->config, &rule, err);
    if (rc < 0)
        return rc;
    rc = expert_init_uniform(&expert, "plan", &m->weights->config, &lora, err);
    if (rc == 0)
        rc = mixture_add(&mixture, &expert, &m->weights->config, err);
    if (rc == 0)
        *out = trainer_bytes(m, &mixture, trained, false, &o) +
               mixture.experts[0].n_params * sizeof(float);
    expert_release(&expert);
    mixture_release(&mixture);
    return rc;
}

static int memory_json(json_t **out, const struct artel_model *m,
                       struct artel_error *err)
{
    const struct model_config *const c = &m->weights->config;
    const size_t context = c->context < 4096 ? c->context : 4096;
    struct artel_model planned;
    enum precision precision;
    size_t step = 0;
    int rc = precision_choose(&precision, "auto", err);

    if (rc < 0)
        return rc;
    rc = model_plan(&planned, m, precision, MATRIX_FORWARD | MATRIX_BACKWARD, context,
                    err);
    if (rc == 0)
        rc = train_bytes(&step, &planned, err);
    model_plan_release(&planned);
    if (rc < 0)
        return rc;
    *out =
        json_pack("{s:s, s:o, s:o, s:o, s:o}", "precision",
                  precision == PRECISION_BF16 ? "bf16" : "fp32", "generate_bytes",
                  whole(model_prepared_bytes(
                      m, precision, MATRIX_DECODE | MATRIX_FORWARD, c->context)),
                  "cache_bytes_per_token",
                  whole(2 * c->n_layers * c->n_kv_heads * c->head_dim * sizeof(float)),
                  "train_model_bytes",
                  whole(model_prepared_bytes(
                      m, precision, MATRIX_FORWARD | MATRIX_BACKWARD, context)),
                  "train_step_bytes", whole(step));
    return *out ? 0 : error_nomem(err, 0);
}

static int verify_model(json_t *root, const struct artel_model *m,
                        struct artel_error *err)
{
    const struct weights *const w = m->weights;
    char digest[DIGEST_SIZE];
    int rc = weights_check_finite(w, err);

    if (rc == 0)
        rc = weights_digest(digest, w, true, err);
    if (rc == 0) {
        json_object_set_new(root, "verified", json_true());
        json_object_set_new(root, "digest_of_all_bytes", json_string(digest));
    }
    return rc < 0 ? error_in(err, rc, w->path) : 0;
}

static json_t *digests_json(const char *base, const char *tokenizer, const char *chat)
{
    return json_pack("{s:s, s:s, s:s}", "base", base, "tokenizer", tokenizer,
                     "template", chat);
}

int inspect_model(json_t *root, const char *path, const struct artel_inspect_options *o,
                  struct artel_error *err)
{
    struct artel_model *m = NULL;
    const struct model_config *c;
    json_t *memory = NULL;
    int rc = model_open(&m, path, err);

    if (rc < 0)
        return rc;
    c = &m->weights->config;
    json_object_set_new(root, "kind", json_string("model"));
    json_object_set_new(root, "architecture", json_string(c->architecture));
    json_object_set_new(root, "parameters", whole(m->weights->n_parameters));
    json_object_set_new(root, "file_bytes", whole(m->weights->file_bytes));
    json_object_set_new(root, "formats", formats_json(m->weights));
    json_object_set_new(root, "sizes",
                        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b}",
                                  "layers", whole(c->n_layers), "width", whole(c->dim),
                                  "heads", whole(c->n_heads), "key_value_heads",
                                  whole(c->n_kv_heads), "head_width",
                                  whole(c->head_dim), "ffn_width", whole(c->ffn_dim),
                                  "vocabulary", whole(c->n_vocab), "context",
                                  whole(c->context), "tied_head", c->tied));
    json_object_set_new(root, "chat_template", json_boolean(m->chat != NULL));
    json_object_set_new(
        root, "digests",
        digests_json(m->base_digest, m->tokenizer_digest, m->chat_digest));
    rc = memory_json(&memory, m, err);
    if (rc == 0)
        json_object_set_new(root, "memory", memory);
    if (rc == 0 && o->verify)
        rc = verify_model(root, m, err);
    model_close(m);
    return rc;
}

json_t *inspect_expert_json(const struct expert *e)
{
    char digest[DIGEST_SIZE];
    json_t *const sites = json_array();
    size_t low = EXPERT_MAX_RANK + 1, high = 0, n_layers = 0;

    for (size_t l = 0; e->lora && l < e->n_layers; l++) {
        bool adapted = false;

        for (int s = 0; s < N_SITES; s++)
            adapted |= expert_lora(e, l, (enum site)s)->rank > 0;
        n_layers += adapted;
    }

    for (int s = 0; s < N_SITES; s++) {
        bool adapted = false;

        for (size_t l = 0; e->lora && l < e->n_layers; l++) {
            const size_t rank = expert_lora(e, l, (enum site)s)->rank;

            adapted |= rank > 0;
            if (rank && rank < low)
                low = rank;
            if (rank > high)
                high = rank;
        }
        if (adapted)
            json_array_append_new(sites, json_string(site_name((enum site)s)));
    }
    expert_digest(e, digest);
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:s}", "name", e->name,
                     "kind", expert_kind_name(e->kind), "parameters",
                     whole(e->n_params), "layers", whole(n_layers), "smallest_rank",
                     whole(high ? low : 0), "largest_rank", whole(high), "linears",
                     sites, "digest", digest);
}

/* A JSON file beside an adapter under KEY; what is not there is left out. */
static int include_file(json_t *root, const char *key, const char *folder,
                        const char *name, bool needed, struct artel_error *err)
{
    char *const path = path_join(folder, name);
    json_t *value = NULL;
    struct stat st;
    int rc = path ? 0 : error_nomem(err, strlen(folder));

    if (rc == 0 && (needed || stat(path, &st) == 0))
        rc = json_read_file(&value, path, CONFIG_MAX_BYTES, err);
    if (rc < 0)
        error_in(err, rc, path ? path : folder);
    else if (value)
        json_object_set_new(root, key, value);
    free(path);
    return rc;
}

/* The kind of expert that an adapter's configuration tells of. */
static enum expert_kind kind_in(const json_t *root)
{
    const char *type = json_string_value(
        json_object_get(json_object_get(root, "adapter_config"), "peft_type"));

    return peft_type_kind(type);
}

int inspect_adapter(json_t *root, const char *path,
                    const struct artel_inspect_options *o, struct artel_error *err)
{
    char name[EXPERT_NAME_MAX + 1], *base = NULL;
    struct artel_model *m = NULL;
    struct expert e = {0};
    int rc;

    json_object_set_new(root, "kind", json_string("adapter"));
    json_object_set_new(root, "form", json_string("peft"));
    rc = include_file(root, "adapter_config", path, "adapter_config.json", true, err);
    if (rc == 0)
        rc = include_file(root, "artel", path, "artel.json", false, err);
    if (rc == 0 && !o->model)
        rc = opened_adapter_base(&base, path, err);
    if (rc < 0 || (!base && !o->model)) {
        if (rc == 0)
            json_object_set_new(
                root, "note",
                json_string("its base is not here: name it with --model "
                            "and the tensors are checked too"));
        free(base);
        return rc;
    }
    rc = model_open(&m, o->model ? o->model : base, err);
    opened_expert_name(name, path);
    if (rc == 0)
        rc = adapter_read_kind(&e, name, path, kind_in(root), m, false, err);
    if (rc == 0)
        json_object_set_new(root, "expert", inspect_expert_json(&e));
    expert_release(&e);
    model_close(m);
    free(base);
    return rc;
}

static json_t *domains_json(const struct mixture_file *f)
{
    json_t *const out = json_array();

    for (size_t i = 0; i < f->n_domains; i++) {
        const struct domain_notes *const d = &f->domains[i];

        json_array_append_new(
            out, json_pack("{s:s, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:s}", "name",
                           d->name, "folder", d->folder, "train", d->train, "valid",
                           d->valid, "test", d->test, "score", d->score, "sample",
                           d->sample, "train_digest", d->train_digest));
    }
    return out;
}

/* With the base at hand: experts and routers too. */
static int mixture_parts(json_t *root, const char *path, const char *base,
                         struct artel_error *err)
{
    struct artel_model *m = NULL;
    struct mixture_file f = {0};
    int rc = model_open(&m, base, err);

    if (rc == 0)
        rc = mixture_file_open(&f, path, m, false, err);
    if (rc == 0) {
        json_t *const experts = json_array();

        for (size_t e = 0; e < f.mixture.n_experts; e++)
            json_array_append_new(experts, inspect_expert_json(&f.mixture.experts[e]));
        json_object_set_new(root, "experts", experts);
        json_object_set_new(root, "routers", whole(f.mixture.n_routers));
        json_object_set_new(root, "router_parameters",
                            whole(f.mixture.n_router_params));
    }
    mixture_file_release(&f);
    model_close(m);
    return rc;
}

int inspect_mixture(json_t *root, const char *path,
                    const struct artel_inspect_options *o, struct artel_error *err)
{
    struct mixture_file f = {0};
    const char *base, *summary;
    struct stat st;
    int rc = mixture_file_open(&f, path, NULL, false, err);

    if (rc < 0)
        return error_in(err, rc, path);
    summary = method_summary(f.mixture.method);
    json_object_set_new(root, "kind", json_string("mixture"));
    json_object_set_new(root, "method", json_string(f.mixture.method));
    json_object_set_new(root, "about", json_string(summary ? summary : ""));
    json_object_set_new(root, "folder", json_string(f.folder));
    json_object_set_new(root, "base", json_string(f.base_path));
    json_object_set_new(root, "digests",
                        digests_json(f.base_digest, f.tokenizer_digest, f.chat_digest));
    json_object_set_new(root, "domains", domains_json(&f));
    if (f.training)
        json_object_set(root, "training", f.training);
    if (f.settings)
        json_object_set(root, "settings", f.settings);
    base = o->model ? o->model : f.base_path;
    if (base && stat(base, &st) == 0) {
        rc = mixture_parts(root, path, base, err);
    } else if (o->verify) {
        rc = error_set(err, ARTEL_EUSAGE, "USE08", NULL,
                       "its base is not at the recorded place: name it with --model");
        error_in(err, rc, path);
    } else {
        json_object_set_new(
            root, "note",
            json_string("its base is not at the recorded place: name it "
                        "with --model to see the experts"));
    }
    if (rc == 0 && o->verify)
        json_object_set_new(root, "verified", json_true());
    mixture_file_release(&f);
    return rc;
}

/* Recipes have no mark but their name. */
static bool is_recipe(const char *path)
{
    const char *const end = strrchr(path, '.');

    return end && (!strcmp(end, ".yaml") || !strcmp(end, ".yml"));
}

/* By its first bytes; or by its name, so that a damaged one is told to be that. */
static int is_model_file(bool *yes, const char *path, struct artel_error *err)
{
    const size_t n = strlen(path);
    struct map map;
    const int rc = map_open(&map, path, err);

    *yes = false;
    if (rc < 0)
        return rc;
    *yes = (map.size >= 4 && !memcmp(map.data, "GGUF", 4)) ||
           (n > 5 && !strcmp(path + n - 5, ".gguf"));
    map_release(&map);
    return 0;
}

/* A model, or a LoRA beside one. */
static int inspect_gguf(json_t *root, const char *path,
                        const struct artel_inspect_options *o, struct artel_error *err)
{
    struct gguf *g = NULL;
    int rc = gguf_open(&g, path, err);
    const bool lora = rc == 0 && gguf_lora_is(g);

    if (lora)
        rc = inspect_gguf_lora(root, path, g, o, err);
    gguf_close(g);
    return rc < 0 || lora ? rc : inspect_model(root, path, o, err);
}

int artel_inspect(char **json, const char *path, const struct artel_inspect_options *o,
                  struct artel_error *err)
{
    const struct artel_inspect_options none = {0};
    enum opened_kind kind;
    json_t *root;
    struct stat st;
    bool folder = true, model = true;
    int rc = opened_kind(&kind, path, err);

    *json = NULL;
    if (rc == 0 && stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        folder = false;
        rc = is_model_file(&model, path, err);
    }
    if (rc < 0)
        return rc;
    root = json_object();
    if (!root || json_object_set_new(root, "path", json_string(path)) < 0) {
        json_decref(root);
        return error_set(err, ARTEL_EUSAGE, "USE05", NULL,
                         "a path that is no UTF-8 cannot be shown as JSON");
    }
    if (!o)
        o = &none;
    if (kind == OPENED_MIXTURE)
        rc = inspect_mixture(root, path, o, err);
    else if (kind == OPENED_ADAPTER)
        rc = inspect_adapter(root, path, o, err);
    else if (model && !folder)
        rc = inspect_gguf(root, path, o, err);
    else if (model)
        rc = inspect_model(root, path, o, err);
    else if (is_recipe(path))
        rc = inspect_recipe(root, path, o, err);
    else
        rc = inspect_dataset(root, path, o, err);
    if (rc == 0 && !(*json = json_dumps(root, JSON_INDENT(2))))
        rc = error_nomem(err, 0);
    json_decref(root);
    return rc;
}
