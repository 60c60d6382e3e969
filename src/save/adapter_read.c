/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a PEFT adapter folder into an expert.
 *
 * The configuration says which linears there are and their ranks; the header of
 * the weights says what is in the file. Both are compared before any memory is
 * taken or any weight is read; then every number is checked while it is copied.
 */
#include "save/adapter.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "base/map.h"
#include "decoder/frozen.h"
#include "files/digest.h"
#include "files/safetensors.h"
#include "files/write.h"
#include "math/kernels.h"
#include "save/adapter_keys.h"
#include "save/adapter_parts.h"
#include "save/beneath.h"
#include "save/peft_config.h"
#include "save/target_modules.h"

#define ENORMOUS       1.0e4 /* no trained LoRA comes near */
#define MAX_NAMES_TOLD 10

/* An adapter being read. */
struct source {
    const char *folder;
    char *config_path, *weights_path; /* owned */
    struct peft_config config;
    struct safetensors *file;    /* owned */
    struct module_plan *plan;    /* (L * N_SITES) owned */
    const struct tensor **found; /* (L * N_SITES, 2) A and B; owned */
};

static void source_release(struct source *s)
{
    safetensors_close(s->file);
    peft_config_release(&s->config);
    free(s->config_path);
    free(s->weights_path);
    free(s->plan);
    free(s->found);
}

/* A list of names inside one message: as many as fit, and how many more. */
struct telling {
    const char *what;
    char text[180];
    size_t used, n, n_told;
};

static void tell(struct telling *t, const char *name)
{
    char shown[160];
    const size_t n =
        strlen(escape_text(shown, sizeof(shown), name, strlen(name))) + (t->n ? 2 : 0);

    if (t->n++ >= MAX_NAMES_TOLD)
        return;
    log_warn("%s: %s", t->what, shown);
    if (t->used + n + 20 >= sizeof(t->text))
        return;
    t->used += (size_t)snprintf(t->text + t->used, sizeof(t->text) - t->used, "%s%s",
                                t->used ? ", " : "", shown);
    t->n_told++;
}

static const char *told(struct telling *t)
{
    if (t->n > t->n_told)
        snprintf(t->text + t->used, sizeof(t->text) - t->used, " and %zu more",
                 t->n - t->n_told);
    return t->text;
}

/* Pickles run code when they are read, so their content is never looked at. */
static int refuse_other_formats(const char *path, struct artel_error *err)
{
    struct map map;
    const char *what = NULL;
    int rc = map_open(&map, path, err);

    if (rc < 0)
        return rc;
    if (map.size >= 4 && !memcmp(map.data, "PK\3\4", 4))
        what = "a pickle in a zip archive";
    else if (map.size >= 2 && map.data[0] == 0x80 && map.data[1] >= 1 &&
             map.data[1] <= 5)
        what = "a pickle";
    else if (map.size >= 4 && !memcmp(map.data, "GGUF", 4))
        what = "a GGUF file";
    map_release(&map);
    if (!what)
        return 0;
    rc = error_set(err, ARTEL_EFORMAT, "ADP15", NULL,
                   "this is %s; convert it to safetensors", what);
    return error_in(err, rc, path);
}

static int need_file(const struct source *s, const char *path, struct artel_error *err)
{
    static const char *const pickles[] = {"adapter_model.bin", "adapter_model.pt",
                                          "adapter_model.ckpt"};
    int rc;

    if (access(path, F_OK) == 0)
        return path_beneath(s->folder, path, "ADP19", err);
    for (size_t i = 0; path == s->weights_path && i < 3; i++) {
        char *pickle = path_join(s->folder, pickles[i]);
        const bool there = pickle && access(pickle, F_OK) == 0;

        if (there) {
            rc = error_set(err, ARTEL_EFORMAT, "ADP15", NULL,
                           "weights in a pickle are not read; convert them "
                           "to " ADAPTER_WEIGHTS);
            error_in(err, rc, pickle);
        }
        free(pickle);
        if (there)
            return rc;
    }
    rc = error_set(err, ARTEL_EIO, "ADP01", NULL,
                   "missing: an adapter folder holds " ADAPTER_CONFIG
                   " and " ADAPTER_WEIGHTS);
    return error_in(err, rc, path);
}

static int source_open(struct source *s, const char *folder,
                       const struct model_config *c, struct artel_error *err)
{
    const size_t n = c->n_layers * N_SITES;
    int rc;

    *s = (struct source){
        .folder = folder,
        .config_path = path_join(folder, ADAPTER_CONFIG),
        .weights_path = path_join(folder, ADAPTER_WEIGHTS),
        .plan = calloc(n, sizeof(*s->plan)),
        .found = calloc(2 * n, sizeof(*s->found)),
    };
    if (!s->config_path || !s->weights_path || !s->plan || !s->found)
        return error_nomem(err, 2 * n * sizeof(*s->found));
    rc = need_file(s, s->config_path, err);
    if (rc == 0)
        rc = need_file(s, s->weights_path, err);
    if (rc == 0)
        rc = peft_config_read(&s->config, s->config_path, err);
    if (rc == 0) {
        rc = peft_config_plan(s->plan, &s->config, c, err);
        if (rc < 0)
            error_in(err, rc, s->config_path);
    }
    if (rc == 0)
        rc = refuse_other_formats(s->weights_path, err);
    return rc < 0 ? rc : safetensors_open(&s->file, s->weights_path, err);
}

/* The last part of a path without what follows the model's name. */
static void warn_other_name(const char *of_adapter, const char *of_model)
{
    const char *a = strrchr(of_adapter, '/'), *m = strrchr(of_model, '/');
    size_t n;

    a = a ? a + 1 : of_adapter;
    m = m ? m + 1 : of_model;
    n = strlen(a);
    if (n && strncmp(a, m, n) != 0)
        log_warn("the adapter was made for '%s', the base here is '%s'; nothing tells "
                 "whether they are the same model",
                 a, m);
}

/* What artel.json says must be what the base says. */
static int check_notes(const json_t *notes, const struct source *s,
                       const struct artel_model *model, bool force,
                       struct artel_error *err)
{
    const struct {
        const char *key, *what, *ours;
    } digests[] = {
        {"base_digest", "base model", model->base_digest},
        {"tokenizer_digest", "tokenizer", model->tokenizer_digest},
        {"chat_digest", "chat template", model->chat_digest},
    };
    const char *weights = json_string_value(json_object_get(notes, "weights_digest"));
    char digest[DIGEST_SIZE];
    int rc;

    for (size_t i = 0; !force && i < 3; i++) {
        const char *theirs = json_string_value(json_object_get(notes, digests[i].key));

        if (theirs && strcmp(theirs, digests[i].ours) != 0)
            return error_set(err, ARTEL_EFORMAT, "ADP14", digests[i].key,
                             "made for another %s: %.64s, here %s; take its own base, "
                             "or --force",
                             digests[i].what, theirs,
                             *digests[i].ours ? digests[i].ours : "none");
    }
    if (!weights)
        return 0;
    rc = digest_file(digest, s->weights_path, err);
    if (rc == 0 && strcmp(weights, digest) != 0)
        rc = error_set(err, ARTEL_EFORMAT, "ADP21", "weights_digest",
                       "artel.json is of other weights than lie beside it: a write was "
                       "cut short, or they were replaced (then remove artel.json)");
    return rc;
}

static int check_origin(const struct source *s, const struct artel_model *model,
                        bool force, struct artel_error *err)
{
    json_t *notes;
    int rc = adapter_notes_read(&notes, s->folder, err);

    if (rc < 0)
        return rc;
    if (rc == 1)
        rc = check_notes(notes, s, model, force, err);
    if (s->config.base_path && !json_object_get(notes, "base_digest"))
        warn_other_name(s->config.base_path, model->weights->path);
    json_decref(notes);
    return rc;
}

static int refuse_double(const struct tensor *t, const struct tensor *other,
                         struct artel_error *err)
{
    char shown[100], shown_other[100];

    return error_set(err, ARTEL_EFORMAT, "ADP18",
                     escape_text(shown, sizeof(shown), t->name, strlen(t->name)),
                     "'%s' is a second tensor of the same linear or another adapter's",
                     escape_text(shown_other, sizeof(shown_other), other->name,
                                 strlen(other->name)));
}

/* Fill FOUND from the file's names; tell those that are none of ours. */
static int sort_tensors(struct source *s, struct telling *extra, size_t n_layers,
                        struct artel_error *err)
{
    const struct tensor *first = NULL;
    struct adapter_key first_key = {0}, key;

    for (size_t i = 0; i < safetensors_count(s->file); i++) {
        const struct tensor *t = safetensors_at(s->file, i), **slot;
        const int rc = adapter_key_parse(&key, t->name, n_layers, err);

        if (rc < 0)
            return rc;
        if (rc == 0) {
            tell(extra, t->name);
            continue;
        }
        if (!first) {
            first = t;
            first_key = key;
        }
        slot =
            &s->found[(key.layer * N_SITES + (size_t)key.site) * 2 + (size_t)key.half];
        if (*slot)
            return refuse_double(t, *slot, err);
        if (key.n_adapter != first_key.n_adapter ||
            (key.n_adapter &&
             memcmp(key.adapter, first_key.adapter, key.n_adapter) != 0))
            return refuse_double(t, first, err);
        *slot = t;
    }
    return 0;
}

/* The linears of the plan and those of the file must be the same. */
static int compare_sets(const struct source *s, struct telling *extra, size_t n_layers,
                        struct artel_error *err)
{
    const size_t n_tensors = safetensors_count(s->file);
    struct telling missing = {.what = "missing"};
    char path[MODULE_PATH_SIZE];

    if (extra->n == n_tensors)
        return error_set(err, ARTEL_EFORMAT, "ADP06", NULL,
                         "0 of %zu tensors belong to this base: %s", n_tensors,
                         told(extra));
    for (size_t i = 0; i < n_layers * N_SITES; i++) {
        const struct tensor *a = s->found[2 * i], *b = s->found[2 * i + 1];

        module_path(path, i / N_SITES, (enum site)(i % N_SITES));
        if (!a != !b)
            return error_set(err, ARTEL_EFORMAT, "ADP05", path,
                             "lora_%c without lora_%c", a ? 'A' : 'B', a ? 'B' : 'A');
        if (a && !s->plan[i].rank)
            tell(extra, a->name);
        else if (!a && s->plan[i].rank)
            tell(&missing, path);
    }
    if (extra->n)
        return error_set(err, ARTEL_EFORMAT, "ADP07", NULL,
                         "not of a linear that the configuration names: %s",
                         told(extra));
    if (missing.n)
        return error_set(err, ARTEL_EFORMAT, "ADP07", NULL,
                         "named by the configuration but not there: %s",
                         told(&missing));
    return 0;
}

static int check_shape(const struct tensor *t, size_t n_rows, size_t n_cols, bool is_a,
                       struct artel_error *err)
{
    const size_t found = t->n_dims == 2 ? t->shape[is_a ? 1 : 0] : 0;
    const size_t rank = t->n_dims == 2 ? t->shape[is_a ? 0 : 1] : 0;
    const size_t want_rank = is_a ? n_rows : n_cols;

    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16 &&
        t->dtype != DTYPE_F64)
        return error_set(err, ARTEL_EFORMAT, "ADP10", t->name,
                         "numbers of type %s, expected F32, F16, BF16 or F64",
                         dtype_name(t->dtype));
    if (t->n_dims != 2 || found != (is_a ? n_cols : n_rows))
        return error_set(err, ARTEL_EFORMAT, "ADP08", t->name,
                         "expected %zu x %zu, found %zu axes: %zu x %zu", n_rows,
                         n_cols, t->n_dims, t->n_dims > 0 ? t->shape[0] : 0,
                         t->n_dims > 1 ? t->shape[1] : 0);
    if (rank != want_rank)
        return error_set(err, ARTEL_EFORMAT, "ADP03", t->name,
                         "the tensor has rank %zu, the configuration says %zu", rank,
                         want_rank);
    return 0;
}

static int check_shapes(const struct source *s, const struct model_config *c,
                        struct artel_error *err)
{
    for (size_t i = 0; i < c->n_layers * N_SITES; i++) {
        const size_t rank = s->plan[i].rank;
        size_t n_out, n_in;
        int rc;

        if (!rank)
            continue;
        site_shape(c, (enum site)(i % N_SITES), &n_out, &n_in);
        rc = check_shape(s->found[2 * i], rank,
                         s->config.kind == EXPERT_RES ? n_out : n_in, true, err);
        if (rc == 0)
            rc = check_shape(s->found[2 * i + 1], n_out, rank, false, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* N numbers of T from element FIRST on, as floats, each finite. */
static int copy_numbers(float *to, const struct tensor *t, size_t first, size_t n,
                        struct artel_error *err)
{
    const char *from = (const char *)t->data + first * (t->bytes / tensor_elems(t));

    if (t->dtype == DTYPE_F64) {
        for (size_t i = 0; i < n; i++) {
            double x;

            memcpy(&x, from + i * sizeof(x), sizeof(x));
            to[i] = (float)x;
            if (isfinite(x) && (double)to[i] != x)
                return error_set(err, ARTEL_EFORMAT, "ADP10", t->name,
                                 "element %zu of the F64 tensor does not fit a float",
                                 first + i);
        }
    } else {
        kernels_ref()->dequant[t->dtype](to, from, n);
    }
    for (size_t i = 0; i < n; i++)
        if (!isfinite(to[i]))
            return error_set(err, ARTEL_EFORMAT, "ADP11", t->name,
                             "element %zu is not a finite number", first + i);
    return 0;
}

static void warn_enormous(const struct tensor *t, const float *x, size_t n)
{
    double sum = 0.0, largest = 0.0;

    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * (double)x[i];
        largest = fmax(largest, fabs((double)x[i]));
    }
    if (largest > ENORMOUS)
        log_warn("%s: enormous values, up to %g, norm %g", t->name, largest, sqrt(sum));
}

/* A as the file has it. Where it reads outputs, its columns are those of outputs. */
static int fill_a(const struct expert *e, const struct lora *l, enum site site,
                  const struct tensor *t, const struct model_config *c,
                  struct artel_error *err)
{
    const bool turns = e->kind == EXPERT_RES && c->rope_interleaved &&
                       (site == SITE_Q || site == SITE_K);
    float *row = turns ? malloc(l->n_a * sizeof(*row)) : NULL;
    int rc = copy_numbers(l->a, t, 0, l->rank * l->n_a, err);

    if (turns && !row)
        return error_nomem(err, l->n_a * sizeof(*row));
    for (size_t r = 0; turns && rc == 0 && r < l->rank; r++) {
        memcpy(row, l->a + r * l->n_a, l->n_a * sizeof(*row));
        for (size_t j = 0; j < l->n_a; j++)
            l->a[r * l->n_a + hf_row(c, site, j)] = row[j];
    }
    free(row);
    return rc;
}

static int fill(struct expert *e, const struct source *s, const struct model_config *c,
                struct artel_error *err)
{
    for (size_t i = 0; i < e->n_layers * N_SITES; i++) {
        const struct lora *l = &e->lora[i];
        const struct tensor *a = s->found[2 * i], *b = s->found[2 * i + 1];
        int rc;

        if (!l->rank)
            continue;
        rc = fill_a(e, l, (enum site)(i % N_SITES), a, c, err);
        for (size_t j = 0; rc == 0 && j < l->n_out; j++)
            rc = copy_numbers(l->b + hf_row(c, (enum site)(i % N_SITES), j) * l->rank,
                              b, j * l->rank, l->rank, err);
        if (rc < 0)
            return rc;
        warn_enormous(a, l->a, l->rank * l->n_a);
        warn_enormous(b, l->b, l->rank * l->n_out);
    }
    return 0;
}

/* An expert of the plan's shape. */
static int shape_expert(struct expert *e, const char *name, const struct source *s,
                        const struct model_config *c, struct artel_error *err)
{
    const size_t n = c->n_layers * N_SITES;
    uint16_t *rank = calloc(n, sizeof(*rank));
    float *scale = calloc(n, sizeof(*scale));
    int rc;

    for (size_t i = 0; rank && scale && i < n; i++) {
        rank[i] = (uint16_t)s->plan[i].rank;
        scale[i] = s->plan[i].scale;
    }
    if (!rank || !scale)
        rc = error_nomem(err, n * sizeof(*scale));
    else
        rc = expert_init_kind(e, name, s->config.kind, c, rank, scale, err);
    free(rank);
    free(scale);
    e->dropout = s->config.dropout;
    e->slope = s->config.slope;
    e->instead = s->config.instead;
    return rc;
}

static int check_kind(const struct source *s, enum expert_kind kind,
                      struct artel_error *err)
{
    int rc;

    if (s->config.kind == kind)
        return 0;
    if (kind == EXPERT_LORA)
        rc = error_set(err, ARTEL_EFORMAT, "ADP12", "peft_type", "%s",
                       s->config.kind == EXPERT_RES
                           ? "an expert of modula-res acts on what the universal "
                             "expert of its mixture adds; alone it is no adapter: "
                             "open the mixture, where --expert names it"
                           : "an expert of mixlora makes a whole FFN beside what its "
                             "mixture shares; alone it is no adapter: open the "
                             "mixture, where --expert names it");
    else
        rc = error_set(err, ARTEL_EFORMAT, "ADP22", "peft_type",
                       "this is of type %s, an expert of type %s is expected here%s",
                       peft_type_of(s->config.kind), peft_type_of(kind),
                       kind == EXPERT_RES
                           ? ": one that was trained to act on what the universal "
                             "expert adds; no other adapter can"
                           : "");
    return error_in(err, rc, s->config_path);
}

int adapter_read(struct expert *e, const char *name, const char *folder,
                 const struct artel_model *model, bool force, struct artel_error *err)
{
    return adapter_read_kind(e, name, folder, EXPERT_LORA, model, force, err);
}

int adapter_read_kind(struct expert *e, const char *name, const char *folder,
                      enum expert_kind kind, const struct artel_model *model,
                      bool force, struct artel_error *err)
{
    const struct model_config *c = &model->weights->config;
    struct telling extra = {.what = "not expected"};
    struct source s = {0};
    char shown[160];
    int rc;

    *e = (struct expert){0};
    if (!expert_name_valid(name))
        return error_set(err, ARTEL_EFORMAT, "ADP17", "name",
                         "'%s' cannot be an expert's name: 1 to %d letters, digits, "
                         "dots, dashes, underscores, not first a dot or dash",
                         escape_text(shown, sizeof(shown), name, strlen(name)),
                         EXPERT_NAME_MAX);
    rc = source_open(&s, folder, c, err);
    if (rc == 0)
        rc = check_kind(&s, kind, err);
    if (rc == 0)
        rc = check_origin(&s, model, force, err);
    if (rc == 0)
        rc = sort_tensors(&s, &extra, c->n_layers, err);
    if (rc == 0)
        rc = compare_sets(&s, &extra, c->n_layers, err);
    if (rc == 0)
        rc = check_shapes(&s, c, err);
    if (rc == 0)
        rc = shape_expert(e, name, &s, c, err);
    if (rc == 0)
        rc = fill(e, &s, c, err);
    if (rc < 0) {
        expert_release(e);
        error_in(err, rc, s.weights_path ? s.weights_path : folder);
    }
    source_release(&s);
    return rc < 0 ? rc : 0;
}
