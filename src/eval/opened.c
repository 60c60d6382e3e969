/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a mixture, a bare base, or one PEFT adapter as the same thing.
 */
#include "eval/opened.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/log.h"
#include "experts/expert.h"
#include "files/json.h"
#include "files/write.h"
#include "save/adapter.h"
#include "tiles/tiles.h"

#define CONFIG_MAX_BYTES ((size_t)16 << 20)

/* Does FOLDER hold a file NAME? */
static bool holds(const char *folder, const char *name)
{
    char *const path = path_join(folder, name);
    struct stat st;
    const bool yes = path && stat(path, &st) == 0;

    free(path);
    return yes;
}

int opened_kind(enum opened_kind *kind, const char *path, struct artel_error *err)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return error_errno(err, path, "cannot open");
    if (!S_ISDIR(st.st_mode))
        *kind = OPENED_MODEL;
    else if (holds(path, "adapter_config.json"))
        *kind = OPENED_ADAPTER;
    else if (holds(path, "config.json") && !holds(path, "mixture.json"))
        *kind = OPENED_MODEL;
    else
        *kind = OPENED_MIXTURE;
    return 0;
}

int precision_choose(enum precision *out, const char *name, struct artel_error *err)
{
    if (!name || !strcmp(name, "auto")) {
        *out = precision_fast_bf16() ? PRECISION_BF16 : PRECISION_FP32;
        return 0;
    }
    *out = !strcmp(name, "bf16") ? PRECISION_BF16 : PRECISION_FP32;
    if (*out == PRECISION_BF16 && !precision_native_bf16())
        return error_set(err, ARTEL_ELIMIT, "CPU02", "precision",
                         "bf16 needs AMX or AVX-512-BF16, which this CPU lacks "
                         "or ARTEL_CPU turns off");
    if (*out == PRECISION_FP32 && strcmp(name, "fp32"))
        return error_set(err, ARTEL_EUSAGE, "USE05", "precision",
                         "expected auto, fp32 or bf16");
    return 0;
}

int opened_adapter_base(char **out, const char *folder, struct artel_error *err)
{
    char *const path = path_join(folder, "adapter_config.json");
    const char *base = NULL;
    json_t *config = NULL;
    struct stat st;
    int rc;

    *out = NULL;
    if (!path)
        return error_nomem(err, strlen(folder));
    rc = json_read_file(&config, path, CONFIG_MAX_BYTES, err);
    if (rc == 0)
        rc = json_want_string(config, "base_model_name_or_path", &base, err);
    if (rc < 0)
        error_in(err, rc, path);
    else if (base && stat(base, &st) == 0 && !(*out = strdup(base)))
        rc = error_nomem(err, strlen(base));
    json_decref(config);
    free(path);
    return rc;
}

void opened_expert_name(char *out, const char *folder)
{
    size_t end = strlen(folder), start;

    while (end && folder[end - 1] == '/')
        end--;
    for (start = end; start && folder[start - 1] != '/';)
        start--;
    if (end - start <= EXPERT_NAME_MAX) {
        memcpy(out, folder + start, end - start);
        out[end - start] = '\0';
        if (expert_name_valid(out) && strcmp(out, "base") && strcmp(out, "auto"))
            return;
    }
    strcpy(out, "adapter");
}

static int open_model(struct artel_mixture *m, const char *path,
                      struct artel_error *err)
{
    m->owns_model = true;
    return model_open(&m->model, path, err);
}

/* A mixture of one expert without a router. */
static int open_adapter(struct artel_mixture *m, const char *path, const char *base,
                        bool force, struct artel_error *err)
{
    char name[EXPERT_NAME_MAX + 1], *recorded = NULL;
    struct expert expert = {0};
    struct gate_rule rule;
    int rc = 0;

    if (!m->model && !base) {
        rc = opened_adapter_base(&recorded, path, err);
        if (rc == 0 && !recorded)
            rc = error_set(err, ARTEL_EUSAGE, "USE08", NULL,
                           "this is an adapter: name its base with --model");
    }
    if (rc == 0 && !m->model)
        rc = open_model(m, base ? base : recorded, err);
    free(recorded);
    if (rc < 0)
        return rc;
    opened_expert_name(name, path);
    rc = adapter_read(&expert, name, path, m->model, force, err);
    if (rc < 0)
        return rc;
    method_rule(&rule, "single");
    rc = mixture_init(&m->file.mixture, "single", &m->model->weights->config, &rule,
                      err);
    if (rc == 0)
        rc = mixture_add(&m->file.mixture, &expert, &m->model->weights->config, err);
    expert_release(&expert);
    m->mixture = &m->file.mixture;
    return rc;
}

static int open_mixture(struct artel_mixture *m, const char *path, const char *base,
                        bool force, struct artel_error *err)
{
    int rc = 0;

    if (!m->model) {
        struct mixture_file description = {0};

        rc = mixture_file_open(&description, path, NULL, force, err);
        if (rc == 0)
            rc = open_model(m, base ? base : description.base_path, err);
        mixture_file_release(&description);
    }
    if (rc == 0)
        rc = mixture_file_open(&m->file, path, m->model, force, err);
    if (rc == 0)
        rc = mixture_wear(&m->file.mixture, &m->model->weights->config, MASK_INFERENCE,
                          err);
    if (rc == 0)
        m->mixture = &m->file.mixture;
    return rc;
}

/* A mixture that bf16 cannot compute is done in fp32 unless bf16 was asked for. */
static int suit_precision(enum precision *p, const struct mixture *m, const char *asked,
                          struct artel_error *err)
{
    struct artel_error why;

    if (!m || *p == PRECISION_FP32 || rule_check_tiles(&m->rule, m->method, &why) == 0)
        return 0;
    if (asked && !strcmp(asked, "bf16")) {
        *err = why;
        return ARTEL_ELIMIT;
    }
    *p = PRECISION_FP32;
    log_info("precision fp32: %s", why.reason);
    return 0;
}

static int prepare(struct artel_mixture *m, const struct artel_open_options *o,
                   struct artel_error *err)
{
    const int use = MATRIX_DECODE | MATRIX_FORWARD;
    const size_t n_positions = m->model->weights->config.context;
    enum precision precision;
    size_t needed;
    int rc = precision_choose(&precision, o->precision, err);

    if (rc == 0)
        rc = suit_precision(&precision, m->mixture, o->precision, err);
    if (rc < 0)
        return rc;
    needed = model_prepared_bytes(m->model, precision, use, n_positions);
    if (o->memory_bytes && needed > o->memory_bytes) {
        rc = error_set(err, ARTEL_ELIMIT, "MEM02", NULL,
                       "the weights need %zu bytes, %zu are allowed", needed,
                       o->memory_bytes);
        return error_in(err, rc, m->model->weights->path);
    }
    rc = o->nonfinite ? 0 : model_check_finite(m->model, err);
    return rc < 0 ? rc : model_prepare(m->model, precision, use, n_positions, err);
}

void artel_open_options_default(struct artel_open_options *o)
{
    *o = (struct artel_open_options){.precision = "auto"};
}

int artel_mixture_open(struct artel_mixture **out, const char *path,
                       struct artel_model *model, const struct artel_open_options *o,
                       struct artel_error *err)
{
    struct artel_open_options defaults;
    struct artel_mixture *m;
    enum opened_kind kind;
    int rc;

    *out = NULL;
    if (!o) {
        artel_open_options_default(&defaults);
        o = &defaults;
    }
    rc = opened_kind(&kind, path, err);
    if (rc < 0)
        return rc;
    m = calloc(1, sizeof(*m));
    if (!m || !(m->path = strdup(path))) {
        free(m);
        return error_nomem(err, sizeof(*m));
    }
    m->model = model;
    m->memory_bytes = o->memory_bytes;
    if (kind == OPENED_MODEL)
        rc = model ? 0 : open_model(m, path, err);
    else if (kind == OPENED_ADAPTER)
        rc = open_adapter(m, path, o->model, o->force, err);
    else
        rc = open_mixture(m, path, o->model, o->force, err);
    if (rc < 0) {
        error_in(err, rc, path);
        goto fail;
    }
    rc = prepare(m, o, err);
    if (rc < 0)
        goto fail;
    *out = m;
    return 0;

fail:
    artel_mixture_close(m);
    return rc;
}

void artel_mixture_close(struct artel_mixture *m)
{
    if (!m)
        return;
    if (m->file.folder) {
        mixture_file_release(&m->file);
    } else if (m->mixture) {
        mixture_release(&m->file.mixture);
    }
    if (m->owns_model)
        model_close(m->model);
    free(m->path);
    free(m);
}

const struct artel_model *artel_mixture_model(const struct artel_mixture *m)
{
    return m->model;
}

void artel_mixture_info(const struct artel_mixture *m, struct artel_mixture_info *out)
{
    *out = (struct artel_mixture_info){.path = m->path, .method = "base"};
    out->precision = m->model->precision == PRECISION_BF16 ? "bf16" : "fp32";
    if (!m->mixture)
        return;
    out->method = m->mixture->method;
    out->n_experts = m->mixture->n_experts;
    out->n_routers = m->mixture->n_routers;
    out->n_parameters = m->mixture->n_router_params;
    for (size_t e = 0; e < m->mixture->n_experts; e++)
        out->n_parameters += m->mixture->experts[e].n_params;
    out->routes = m->mixture->n_routers > 0;
}

const char *artel_expert_name(const struct artel_mixture *m, int idx)
{
    if (idx == ARTEL_BASE)
        return "base";
    if (!m->mixture || idx < 0 || (size_t)idx >= m->mixture->n_experts)
        return NULL;
    return m->mixture->experts[idx].name;
}

/* The names of all experts, as many as fit. */
static void list_names(char *out, size_t size, const struct artel_mixture *m)
{
    size_t used = (size_t)snprintf(out, size, "base");

    for (size_t e = 0; m->mixture && e < m->mixture->n_experts && used < size; e++)
        used += (size_t)snprintf(out + used, size - used, ", %s",
                                 m->mixture->experts[e].name);
}

int artel_expert_find(const struct artel_mixture *m, int *idx, const char *name,
                      struct artel_error *err)
{
    const size_t n = m->mixture ? m->mixture->n_experts : 0;
    char names[160], given[96];
    int rc;

    *idx = ARTEL_AUTO;
    if (!name || !strcmp(name, "auto")) {
        if (m->mixture && m->mixture->n_routers)
            return 0;
        *idx = n ? 0 : ARTEL_BASE;
        if (n <= 1)
            return 0;
        list_names(names, sizeof(names), m);
        rc = error_set(err, ARTEL_EUSAGE, "USE09", "expert",
                       "this mixture has no router; name one of %s", names);
        return error_in(err, rc, m->path);
    }
    *idx = ARTEL_BASE;
    if (!strcmp(name, "base"))
        return 0;
    *idx = m->mixture ? mixture_find(m->mixture, name) : -1;
    if (*idx >= 0)
        return 0;
    list_names(names, sizeof(names), m);
    rc = error_set(err, ARTEL_EUSAGE, "USE09", "expert", "no expert '%s'; there are %s",
                   escape_text(given, sizeof(given), name, strlen(name)), names);
    return error_in(err, rc, m->path);
}
