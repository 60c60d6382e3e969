/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding and reading a mixture: mixture.json first, all of it checked; then the
 * experts it names; then the routers' rows for them.
 */
#include "save/mixture_file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/error.h"
#include "decoder/frozen.h"
#include "files/json.h"
#include "files/write.h"
#include "save/adapter.h"
#include "save/adapter_parts.h"
#include "save/beneath.h"
#include "save/gate_rule_json.h"
#include "save/mixture_parts.h"
#include "save/router_file.h"

#define MIXTURE_MAX_BYTES ((size_t)64 << 20)
#define MAX_EXPERTS       65536

void domain_notes_release(struct domain_notes *d)
{
    free(d->folder);
    free(d->train);
    free(d->valid);
    free(d->test);
    free(d->score);
    free(d->sample);
}

void mixture_file_release(struct mixture_file *f)
{
    for (size_t i = 0; i < f->n_domains; i++)
        domain_notes_release(&f->domains[i]);
    if (f->universal)
        domain_notes_release(f->universal);
    free(f->universal);
    for (size_t i = 0; i < f->n_notes; i++)
        free(f->notes[i].folder);
    mixture_release(&f->mixture);
    free(f->domains);
    free(f->notes);
    free(f->folder);
    free(f->base_path);
    json_decref(f->settings);
    json_decref(f->training);
    *f = (struct mixture_file){0};
}

size_t mixture_file_texts(const struct mixture_file *f)
{
    return f->n_domains + (f->universal ? 1 : 0);
}

const struct domain_notes *mixture_file_text(const struct mixture_file *f, size_t i)
{
    return i < f->n_domains ? &f->domains[i] : f->universal;
}

/* 1 or 0, or there was no memory to ask. */
static int has_mixture(const char *folder, struct artel_error *err)
{
    char *path = path_join(folder, MIXTURE_JSON);
    const int rc = path ? access(path, F_OK) == 0 : error_nomem(err, strlen(folder));

    free(path);
    return rc;
}

/* PATH/NAME goes to *FOUND where it holds a mixture; a second one is an error. */
static int try_inner(char **found, const char *path, const char *name,
                     struct artel_error *err)
{
    char *inner = path_join(path, name), shown[80], other[80];
    int rc = inner ? has_mixture(inner, err) : error_nomem(err, strlen(path));

    if (rc == 1 && *found) {
        const char *first = strrchr(*found, '/') + 1;

        rc = error_set(err, ARTEL_EUSAGE, "MIX11", NULL,
                       "holds several mixtures, name one of them: '%s', '%s'",
                       escape_text(other, sizeof(other), first, strlen(first)),
                       escape_text(shown, sizeof(shown), name, strlen(name)));
    } else if (rc == 1) {
        *found = inner;
        return 0;
    }
    free(inner);
    return rc;
}

/* The one folder inside PATH that holds a mixture, in new memory. */
static int find_only(char **out, const char *path, struct artel_error *err)
{
    DIR *d = opendir(path);
    struct dirent *entry;
    char *found = NULL;
    int rc = d ? 0 : error_errno(err, path, "cannot open the folder");

    while (rc == 0 && (entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.')
            rc = try_inner(&found, path, entry->d_name, err);
    if (d)
        closedir(d);
    if (rc == 0 && !found)
        rc = error_set(err, ARTEL_EIO, "MIX11", NULL,
                       "no " MIXTURE_JSON " in this folder or the folders in it");
    if (rc < 0) {
        free(found);
        return error_in(err, rc, path);
    }
    *out = found;
    return 0;
}

static int find_folder(char **out, const char *path, struct artel_error *err)
{
    const int there = has_mixture(path, err);

    *out = NULL;
    if (there < 0)
        return there;
    if (!there)
        return find_only(out, path, err);
    *out = strdup(path);
    return *out ? 0 : error_nomem(err, strlen(path));
}

/* A copy of a string that may be absent. */
static int copy_text(char **out, const json_t *o, const char *key,
                     struct artel_error *err)
{
    const char *text = NULL;
    const int rc = json_want_string(o, key, &text, err);

    if (rc < 0 || !text)
        return rc;
    *out = strdup(text);
    return *out ? 0 : error_nomem(err, strlen(text));
}

static int copy_digest(char out[DIGEST_SIZE], const json_t *o, const char *key,
                       struct artel_error *err)
{
    const char *text = NULL;
    const int rc = json_want_string(o, key, &text, err);

    if (rc < 0 || !text)
        return rc;
    if (*text && (strlen(text) != DIGEST_SIZE - 1 ||
                  strspn(text, "0123456789abcdef") != DIGEST_SIZE - 1))
        return error_set(err, ARTEL_EFORMAT, "MIX12", key,
                         "expected 64 hexadecimal digits");
    snprintf(out, DIGEST_SIZE, "%s", text);
    return 0;
}

static int copy_name(char out[EXPERT_NAME_MAX + 1], const json_t *o,
                     struct artel_error *err)
{
    const char *name;
    char shown[160];
    const int rc = json_need_string(o, "name", &name, err);

    if (rc < 0)
        return rc;
    if (!expert_name_valid(name))
        return error_set(
            err, ARTEL_EFORMAT, "ADP17", "name",
            "'%s' cannot be a name: 1 to %d letters, digits, dots, dashes, "
            "underscores, not first a dot or dash",
            escape_text(shown, sizeof(shown), name, strlen(name)), EXPERT_NAME_MAX);
    snprintf(out, EXPERT_NAME_MAX + 1, "%s", name);
    return 0;
}

/* Experts lie in the mixture's folder or beside it (../experts/x), nowhere else. */
static int check_stays(const char *path, const char *key, struct artel_error *err)
{
    char shown[160];

    if (!path || path_stays(path, 1))
        return 0;
    return error_set(err, ARTEL_EFORMAT, "MIX03", key,
                     "'%s' leads out of the run's folder",
                     escape_text(shown, sizeof(shown), path, strlen(path)));
}

static int list_of(const json_t **out, size_t *n, const json_t *root, const char *key,
                   struct artel_error *err)
{
    const json_t *entry;
    size_t i;

    *out = json_object_get(root, key);
    *n = json_array_size(*out);
    if (!json_is_array(*out) || *n > MAX_EXPERTS)
        return error_set(err, ARTEL_EFORMAT, "MIX12", key,
                         "expected a list of at most %d objects", MAX_EXPERTS);
    json_array_foreach(*out, i, entry) if (!json_is_object(entry)) return error_set(
        err, ARTEL_EFORMAT, "MIX12", key, "entry %zu is no object", i);
    return 0;
}

static int read_expert(struct expert_notes *e, const json_t *o, struct artel_error *err)
{
    const char *kind = "lora";
    int rc = copy_name(e->name, o, err);

    if (rc == 0)
        rc = json_want_string(o, "kind", &kind, err);
    if (rc == 0)
        rc = copy_text(&e->folder, o, "folder", err);
    if (rc < 0)
        return rc;
    rc = expert_kind_find(kind);
    if (rc < 0)
        return error_set(err, ARTEL_EFORMAT, "MIX12", e->name,
                         "kind is \"lora\", \"res\" or \"identity\"");
    e->kind = (enum expert_kind)rc;
    if (!e->folder != (e->kind == EXPERT_IDENTITY))
        return error_set(err, ARTEL_EFORMAT, "MIX12", e->name,
                         "a lora has a folder, an identity has none");
    return check_stays(e->folder, e->name, err);
}

static int read_experts(struct mixture_file *f, const json_t *root,
                        struct artel_error *err)
{
    const json_t *list;
    size_t n;
    int rc = list_of(&list, &n, root, "experts", err);

    if (rc < 0)
        return rc;
    f->notes = calloc(n + 1, sizeof(*f->notes));
    if (!f->notes)
        return error_nomem(err, n * sizeof(*f->notes));
    for (size_t i = 0; i < n; i++) {
        f->n_notes = i + 1;
        rc = read_expert(&f->notes[i], json_array_get(list, i), err);
        if (rc < 0)
            return rc;
        for (size_t k = 0; k < i; k++)
            if (!strcasecmp(f->notes[k].name, f->notes[i].name))
                return error_set(err, ARTEL_EFORMAT, "MIX06", f->notes[i].name,
                                 "two experts of this name: '%s' and '%s'",
                                 f->notes[k].folder ? f->notes[k].folder : "identity",
                                 f->notes[i].folder ? f->notes[i].folder : "identity");
    }
    return 0;
}

static int read_domain(struct domain_notes *d, const json_t *o, struct artel_error *err)
{
    const struct {
        char **to;
        const char *key;
    } texts[] = {{&d->folder, "folder"}, {&d->train, "train"}, {&d->valid, "valid"},
                 {&d->test, "test"},     {&d->score, "score"}, {&d->sample, "sample"}};
    int rc = copy_name(d->name, o, err);

    for (size_t i = 0; rc == 0 && i < sizeof(texts) / sizeof(texts[0]); i++)
        rc = copy_text(texts[i].to, o, texts[i].key, err);
    if (rc == 0)
        rc = copy_digest(d->train_digest, o, "train_digest", err);
    if (rc == 0)
        rc = check_stays(d->folder, d->name, err);
    return rc < 0 ? rc : check_stays(d->sample, d->name, err);
}

static int read_domains(struct mixture_file *f, const json_t *root,
                        struct artel_error *err)
{
    const json_t *list;
    size_t n;
    int rc = list_of(&list, &n, root, "domains", err);

    if (rc < 0)
        return rc;
    f->domains = calloc(n + 1, sizeof(*f->domains));
    if (!f->domains)
        return error_nomem(err, n * sizeof(*f->domains));
    for (size_t i = 0; i < n; i++) {
        f->n_domains = i + 1;
        rc = read_domain(&f->domains[i], json_array_get(list, i), err);
        if (rc < 0)
            return rc;
        for (size_t k = 0; k < i; k++)
            if (!strcasecmp(f->domains[k].name, f->domains[i].name))
                return error_set(err, ARTEL_EFORMAT, "MIX06", f->domains[i].name,
                                 "two domains of this name");
    }
    return 0;
}

/* Absent where the method has no universal expert. */
static int read_universal(struct mixture_file *f, const json_t *root,
                          struct artel_error *err)
{
    const json_t *o = json_object_get(root, "universal");

    if (!o || json_is_null(o))
        return 0;
    if (!json_is_object(o))
        return error_set(err, ARTEL_EFORMAT, "MIX12", "universal",
                         "expected an object");
    f->universal = calloc(1, sizeof(*f->universal));
    if (!f->universal)
        return error_nomem(err, sizeof(*f->universal));
    return read_domain(f->universal, o, err);
}

static int read_base(struct mixture_file *f, const json_t *root,
                     struct artel_error *err)
{
    const json_t *base = json_object_get(root, "base");
    int rc;

    if (!json_is_object(base))
        return error_set(err, ARTEL_EFORMAT, "MIX12", "base", "expected an object");
    rc = copy_text(&f->base_path, base, "path", err);
    if (rc == 0)
        rc = copy_digest(f->base_digest, base, "digest", err);
    if (rc == 0)
        rc = copy_digest(f->tokenizer_digest, base, "tokenizer_digest", err);
    return rc < 0 ? rc : copy_digest(f->chat_digest, base, "chat_digest", err);
}

static int read_method(struct mixture_file *f, const json_t *root,
                       struct artel_error *err)
{
    struct gate_rule preset;
    const char *method;
    char shown[100];
    uint64_t version = 0;
    int rc = json_want_uint(root, "format_version", 1, UINT32_MAX, &version, err);

    if (rc < 0)
        return rc;
    if (version < 1 || version > SAVE_FORMAT_VERSION)
        return error_set(err, ARTEL_EFORMAT, "MIX04", "format_version",
                         "version %llu, this program reads 1 to %d",
                         (unsigned long long)version, SAVE_FORMAT_VERSION);
    rc = json_need_string(root, "method", &method, err);
    if (rc < 0)
        return rc;
    if (method_rule(&preset, method) < 0 || strlen(method) >= sizeof(f->mixture.method))
        return error_set(err, ARTEL_EFORMAT, "MIX05", "method",
                         "'%s' is not a method of this program",
                         escape_text(shown, sizeof(shown), method, strlen(method)));
    snprintf(f->mixture.method, sizeof(f->mixture.method), "%s", method);
    return gate_rule_read(&f->mixture.rule, json_object_get(root, "rule"), f->n_notes,
                          err);
}

static int read_objects(struct mixture_file *f, json_t *root, struct artel_error *err)
{
    json_t *settings = json_object_get(root, "settings");
    json_t *training = json_object_get(root, "training");

    if ((settings && !json_is_object(settings) && !json_is_null(settings)) ||
        (training && !json_is_object(training) && !json_is_null(training)))
        return error_set(err, ARTEL_EFORMAT, "MIX12", "settings",
                         "settings and training are objects");
    f->settings = json_is_object(settings) ? json_incref(settings) : NULL;
    f->training = json_is_object(training) ? json_incref(training) : NULL;
    return 0;
}

/* The description; nothing outside mixture.json is opened. */
static int read_description(struct mixture_file *f, json_t *root,
                            struct artel_error *err)
{
    int rc = read_experts(f, root, err);

    if (rc == 0)
        rc = read_method(f, root, err);
    if (rc == 0)
        rc = read_domains(f, root, err);
    if (rc == 0)
        rc = read_universal(f, root, err);
    if (rc == 0)
        rc = read_base(f, root, err);
    return rc < 0 ? rc : read_objects(f, root, err);
}

static int check_base(const struct mixture_file *f, const struct artel_model *model,
                      struct artel_error *err)
{
    const struct {
        const char *theirs, *ours, *what;
    } digests[] = {
        {f->base_digest, model->base_digest, "base model"},
        {f->tokenizer_digest, model->tokenizer_digest, "tokenizer"},
        {f->chat_digest, model->chat_digest, "chat template"},
    };

    for (size_t i = 0; i < 3; i++)
        if (*digests[i].theirs && strcmp(digests[i].theirs, digests[i].ours) != 0)
            return error_set(err, ARTEL_EFORMAT, "ADP14", "base",
                             "made for another %s: %s, here %s; take its own base, or "
                             "--force",
                             digests[i].what, digests[i].theirs,
                             *digests[i].ours ? digests[i].ours : "none");
    return 0;
}

/* The expert at FOLDER learnt beside the universal expert that is in F. */
static int check_universal(const struct mixture_file *f, const char *folder,
                           struct artel_error *err)
{
    char *of = path_join(f->folder, f->notes[0].folder ? f->notes[0].folder : "");
    const int rc =
        of ? adapter_check_universal(folder, of, err) : error_nomem(err, 256);

    free(of);
    return rc;
}

/* One expert from its folder, which must lie in the run's folder, links followed. */
static int load_expert(struct mixture_file *f, const struct expert_notes *n,
                       const struct artel_model *model, bool force,
                       struct artel_error *err)
{
    const struct model_config *c = &model->weights->config;
    struct expert e = {0};
    char *run, *folder;
    int rc;

    if (n->kind == EXPERT_IDENTITY) {
        rc = expert_init_identity(&e, n->name, c->n_layers, err);
    } else {
        run = path_join(f->folder, "..");
        folder = path_join(f->folder, n->folder);
        rc = run && folder ? path_beneath(run, folder, "ADP19", err)
                           : error_nomem(err, strlen(n->folder));
        if (rc == 0)
            rc = adapter_read_kind(&e, n->name, folder, n->kind, model, force, err);
        if (rc == 0 && n->kind == EXPERT_RES && !force)
            rc = check_universal(f, folder, err);
        if (rc < 0 && folder)
            error_in(err, rc, folder);
        free(run);
        free(folder);
    }
    if (rc == 0)
        rc = mixture_add(&f->mixture, &e, c, err);
    expert_release(&e);
    return rc;
}

static int load(struct mixture_file *f, const json_t *root,
                const struct artel_model *model, bool force, struct artel_error *err)
{
    const json_t *router = json_object_get(root, "router");
    char method[sizeof(f->mixture.method)], digest[DIGEST_SIZE] = "";
    const struct gate_rule rule = f->mixture.rule;
    int rc = force ? 0 : check_base(f, model, err);

    memcpy(method, f->mixture.method, sizeof(method));
    if (rc == 0)
        rc = mixture_init(&f->mixture, method, &model->weights->config, &rule, err);
    for (size_t i = 0; rc == 0 && i < f->n_notes; i++)
        rc = load_expert(f, &f->notes[i], model, force, err);
    if (rc < 0 || !f->mixture.n_router_params)
        return rc;
    rc = copy_digest(digest, router, "digest", err);
    if (rc == 0 && !*digest)
        rc = error_set(err, ARTEL_EFORMAT, "MIX12", "router",
                       "this method has routers, their digest is missing");
    return rc < 0 ? rc : router_file_read(&f->mixture, f->folder, digest, err);
}

int mixture_file_open(struct mixture_file *f, const char *path,
                      const struct artel_model *model, bool force,
                      struct artel_error *err)
{
    json_t *root = NULL;
    char *json = NULL;
    int rc;

    *f = (struct mixture_file){0};
    rc = find_folder(&f->folder, path, err);
    if (rc < 0)
        return rc;
    json = path_join(f->folder, MIXTURE_JSON);
    rc = json ? json_read_file(&root, json, MIXTURE_MAX_BYTES, err)
              : error_nomem(err, strlen(path));
    if (rc == 0)
        rc = read_description(f, root, err);
    if (rc == 0 && model)
        rc = load(f, root, model, force, err);
    if (rc < 0) {
        error_in(err, rc, json ? json : path);
        mixture_file_release(f);
    }
    json_decref(root);
    free(json);
    return rc < 0 ? rc : 0;
}
