/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a mixture: the routers, then mixture.json, which makes them current.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "files/json.h"
#include "files/write.h"
#include "save/adapter_parts.h"
#include "save/beneath.h"
#include "save/gate_rule_json.h"
#include "save/mixture_file.h"
#include "save/mixture_parts.h"
#include "save/router_file.h"

#define MIXTURE_MAX_BYTES ((size_t)64 << 20)

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* Where the header says an expert's folder is told. DEFAULTED is room for the last resort. */
static const char *folder_of(const struct mixture_file *f, const char *name,
                             char *defaulted, size_t size)
{
    if (f->universal && f->universal->folder && !strcmp(f->universal->name, name))
        return f->universal->folder;
    for (size_t i = 0; i < f->n_domains; i++)
        if (f->domains[i].folder && !strcmp(f->domains[i].name, name))
            return f->domains[i].folder;
    for (size_t i = 0; i < f->n_notes; i++)
        if (f->notes[i].folder && !strcmp(f->notes[i].name, name))
            return f->notes[i].folder;
    for (size_t i = 0; i < f->n_domains; i++)
        if (f->domains[i].folder && !strcmp(last_part(f->domains[i].folder), name))
            return f->domains[i].folder;
    snprintf(defaulted, size, "experts/%s", name);
    return defaulted;
}

static int add_expert(json_t *list, const struct mixture_file *f,
                      const struct expert *e, struct artel_error *err)
{
    char room[EXPERT_NAME_MAX + 16], *path;
    const char *folder;
    int rc;

    if (e->kind == EXPERT_IDENTITY)
        return json_array_append_new(list, json_pack("{s:s, s:s}", "name", e->name,
                                                     "kind", expert_kind_name(e->kind)))
                   ? error_nomem(err, 0)
                   : 0;
    folder = folder_of(f, e->name, room, sizeof(room));
    if (!path_stays(folder, 1))
        return error_set(err, ARTEL_EUSAGE, "MIX03", e->name,
                         "the expert's folder is not inside the run's folder");
    path = path_join(f->folder, folder);
    if (!path)
        return error_nomem(err, strlen(folder));
    rc = access(path, F_OK) == 0 ? 0
                                 : error_set(err, ARTEL_EIO, "ADP01", e->name,
                                             "the expert has not been written there");
    if (rc < 0)
        error_in(err, rc, path);
    free(path);
    if (rc == 0 && json_array_append_new(
                       list, json_pack("{s:s, s:s, s:s}", "name", e->name, "kind",
                                       expert_kind_name(e->kind), "folder", folder)))
        rc = error_nomem(err, 0);
    return rc;
}

static json_t *domain_new(const struct domain_notes *d)
{
    return json_pack("{s:s, s:s*, s:s*, s:s*, s:s*, s:s*, s:s*, s:s*}", "name", d->name,
                     "folder", d->folder, "train", d->train, "train_digest",
                     *d->train_digest ? d->train_digest : NULL, "valid", d->valid,
                     "test", d->test, "score", d->score, "sample", d->sample);
}

static json_t *domains_new(const struct mixture_file *f)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < f->n_domains; i++)
        if (json_array_append_new(list, domain_new(&f->domains[i]))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

/* Everything but the routers' digest. */
static int build(json_t **out, const struct mixture_file *f, struct artel_error *err)
{
    const struct mixture *m = &f->mixture;
    json_t *experts = json_array();
    int rc = experts ? 0 : error_nomem(err, 0);

    *out = NULL;
    for (size_t i = 0; rc == 0 && i < m->n_experts; i++)
        rc = add_expert(experts, f, &m->experts[i], err);
    if (rc < 0) {
        json_decref(experts);
        return rc;
    }
    *out = json_pack(
        "{s:i, s:s, s:s, s:o, s:{s:s?, s:s, s:s, s:s}, s:o, s:o, s:n,"
        " s:O?, s:O?, s:o*}",
        "format_version", SAVE_FORMAT_VERSION, "artel_version", ARTEL_VERSION, "method",
        m->method, "rule", gate_rule_new(&m->rule), "base", "path", f->base_path,
        "digest", f->base_digest, "tokenizer_digest", f->tokenizer_digest,
        "chat_digest", f->chat_digest, "experts", experts, "domains", domains_new(f),
        "router", "settings", f->settings, "training", f->training, "universal",
        f->universal ? domain_new(f->universal) : NULL);
    return *out ? 0 : error_nomem(err, 0);
}

/* Digest of the routers that the mixture.json at PATH names; "" where there is none or it
 * cannot be read for what it is: then there is nothing to keep. */
static int digest_in_use(char out[DIGEST_SIZE], const char *path,
                         struct artel_error *err)
{
    json_t *root = NULL;
    const char *digest;
    int rc;

    out[0] = '\0';
    if (access(path, F_OK) < 0)
        return 0;
    rc = json_read_file(&root, path, MIXTURE_MAX_BYTES, err);
    if (rc < 0)
        return rc == ARTEL_EFORMAT ? 0 : rc;
    digest =
        json_string_value(json_object_get(json_object_get(root, "router"), "digest"));
    snprintf(out, DIGEST_SIZE, "%s", digest ? digest : "");
    json_decref(root);
    return 0;
}

/* The routers to their file, its digest to ROOT. IN_USE as router_file_write has it. */
static int write_routers(json_t *root, const struct mixture_file *f, const char *in_use,
                         struct artel_error *err)
{
    char digest[DIGEST_SIZE];
    int rc;

    if (!f->mixture.n_router_params)
        return 0;
    rc =
        router_file_write(digest, f->folder, &f->mixture, *in_use ? in_use : NULL, err);
    if (rc == 0 && json_object_set_new(
                       root, "router",
                       json_pack("{s:s, s:s}", "file", ROUTER_FILE, "digest", digest)))
        rc = error_nomem(err, 0);
    return rc;
}

int mixture_file_write(const struct mixture_file *f, struct artel_error *err)
{
    char *path = path_join(f->folder, MIXTURE_JSON);
    char in_use[DIGEST_SIZE];
    json_t *root = NULL;
    int rc = path ? make_folder(f->folder, err) : error_nomem(err, strlen(f->folder));

    if (rc == 0)
        rc = build(&root, f, err);
    if (rc == 0) {
        remove_leftovers(f->folder);
        rc = digest_in_use(in_use, path, err);
    }
    if (rc == 0)
        rc = write_routers(root, f, in_use, err);
    if (rc == 0)
        rc = json_write_file(path, root, false, err);
    if (rc == 0)
        router_file_settle(f->folder);
    else
        error_in(err, rc, f->folder);
    json_decref(root);
    free(path);
    return rc;
}
