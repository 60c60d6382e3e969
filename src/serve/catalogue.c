/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every mixture is opened over the one model that the first has opened, in the precision
 * that it has by then: such an opening lays no weights anew, so that sessions go on.
 *
 * What is opened is not seen by anybody until it is whole; then a pointer changes under
 * the lock. Who had the old one holds it, and the last to let go closes it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "decoder/session.h"
#include "files/write.h"
#include "serve/catalogue_parts.h"

struct loaded *loaded_hold(struct loaded *l)
{
    pthread_mutex_lock(&l->home->lock);
    l->holders++;
    pthread_mutex_unlock(&l->home->lock);
    return l;
}

void loaded_let_go(struct loaded *l)
{
    unsigned left;

    if (!l)
        return;
    pthread_mutex_lock(&l->home->lock);
    left = --l->holders;
    pthread_mutex_unlock(&l->home->lock);
    if (left)
        return;
    artel_mixture_close(l->mixture);
    free(l);
}

const char *last_part(const char *path)
{
    const char *const slash = strrchr(path, '/');

    return slash && slash[1] ? slash + 1 : path;
}

/* Takes over M. One holder: who asked for it. */
static struct loaded *loaded_make(struct catalogue *c, struct artel_mixture *m)
{
    struct loaded *const l = calloc(1, sizeof(*l));
    struct artel_generate_options own;

    if (!l) {
        artel_mixture_close(m);
        return NULL;
    }
    artel_generate_options_default(&own, m);
    l->mixture = m;
    l->holders = 1;
    l->home = c;
    l->sampling = (struct sampler_options){
        .temperature = own.temperature > 0 ? own.temperature : 1,
        .top_k = own.top_k,
        .top_p = own.top_p,
        .min_p = own.min_p,
        .repetition_penalty = own.repetition_penalty};
    return l;
}

/* Over the model that there is. */
static int open_over(struct loaded **out, struct catalogue *c, const char *path,
                     struct artel_error *err)
{
    struct artel_mixture *m;
    int rc = artel_mixture_open(&m, path, c->model, &c->open, err);

    *out = NULL;
    if (rc < 0)
        return rc;
    *out = loaded_make(c, m);
    return *out ? 0 : error_nomem(err, sizeof(**out));
}

static int resolve(char **out, const char *path, struct artel_error *err)
{
    *out = realpath(path, NULL);
    return *out ? 0 : error_errno(err, path, "cannot open");
}

/* The first mixture opens the model, which is the catalogue's from then on. */
static int open_first(struct catalogue *c, const struct artel_open_options *o,
                      struct artel_error *err)
{
    struct artel_mixture *m;
    int rc = artel_mixture_open(&m, c->path, NULL, o, err);

    if (rc < 0)
        return rc;
    m->owns_model = false;
    c->model = m->model;
    c->open = (struct artel_open_options){
        .precision = c->model->precision == PRECISION_BF16 ? "bf16" : "fp32",
        .force = o->force,
        .nonfinite = o->nonfinite};
    c->current = loaded_make(c, m);
    c->since = time(NULL);
    return c->current ? 0 : error_nomem(err, sizeof(*c->current));
}

int catalogue_open(struct catalogue **out, const char *path, const char *allowed,
                   const struct artel_open_options *o, struct artel_error *err)
{
    struct catalogue *const c = calloc(1, sizeof(*c));
    struct stat st;
    int rc;

    *out = NULL;
    if (!c)
        return error_nomem(err, sizeof(*c));
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->changing, NULL);
    rc = resolve(&c->path, path, err);
    if (rc == 0 && !(c->name = strdup(last_part(c->path))))
        rc = error_nomem(err, strlen(c->path));
    if (rc == 0 && allowed)
        rc = resolve(&c->allowed, allowed, err);
    if (rc == 0 && allowed && (stat(c->allowed, &st) < 0 || !S_ISDIR(st.st_mode)))
        rc = error_in(err,
                      error_set(err, ARTEL_EUSAGE, "USE05", NULL,
                                "expected a folder with adapters"),
                      allowed);
    if (rc == 0)
        rc = open_first(c, o, err);
    if (rc == 0) {
        c->described = describe_mixture(c->current->mixture, c->path);
        *out = c;
    } else {
        catalogue_close(c);
    }
    return rc;
}

void catalogue_close(struct catalogue *c)
{
    if (!c)
        return;
    loaded_let_go(c->current);
    for (size_t i = 0; i < c->n_added; i++) {
        loaded_let_go(c->added[i].loaded);
        free(c->added[i].folder);
    }
    model_close(c->model);
    json_decref(c->described);
    pthread_mutex_destroy(&c->lock);
    pthread_mutex_destroy(&c->changing);
    free(c->path);
    free(c->allowed);
    free(c->name);
    free(c);
}

const struct artel_model *catalogue_model(const struct catalogue *c)
{
    return c->model;
}

const char *catalogue_name(const struct catalogue *c)
{
    return c->name;
}

struct loaded *catalogue_current(struct catalogue *c)
{
    struct loaded *l;

    pthread_mutex_lock(&c->lock);
    l = c->current;
    l->holders++;
    pthread_mutex_unlock(&c->lock);
    return l;
}

/* Index among those that were added, or N_ADDED. Under a lock. */
static size_t find_added(const struct catalogue *c, const char *name)
{
    size_t i = 0;

    while (i < c->n_added && strcmp(c->added[i].name, name) != 0)
        i++;
    return i;
}

/* An expert that answers by itself: an identity says what the base says. */
static int find_expert(const struct artel_mixture *m, const char *name)
{
    const int e = m->mixture ? mixture_find(m->mixture, name) : -1;

    return e >= 0 && !m->mixture->identity[e] ? e : -1;
}

int catalogue_find(struct catalogue *c, struct loaded **who, int *expert,
                   const char *name, struct artel_error *err)
{
    char given[96];
    size_t i;
    int rc = 0, e;

    pthread_mutex_lock(&c->lock);
    *who = c->current;
    *expert = EXPERT_BASE;
    e = find_expert(c->current->mixture, name);
    i = find_added(c, name);
    if (!strcmp(name, "auto")) {
        rc = artel_expert_find(c->current->mixture, expert, name, err);
    } else if (!strcmp(name, "base")) {
        *expert = EXPERT_BASE;
    } else if (e >= 0) {
        *expert = e;
    } else if (i < c->n_added) {
        *who = c->added[i].loaded;
        *expert = 0;
    } else if (!strcmp(name, c->name)) {
        rc = artel_expert_find(c->current->mixture, expert, "auto", err);
    } else {
        rc = error_set(err, ARTEL_EUSAGE, "SRV04", "model",
                       "the model '%s' does not exist; GET /v1/models lists those "
                       "that do",
                       escape_text(given, sizeof(given), name, strlen(name)));
    }
    if (rc == 0)
        (*who)->holders++;
    else
        *who = NULL;
    pthread_mutex_unlock(&c->lock);
    return rc;
}

/* May NAME be that of an expert that is added? */
static int check_name(struct catalogue *c, const char *name, bool replace,
                      struct artel_error *err)
{
    char given[96];
    bool taken, own;

    if (!expert_name_valid(name))
        return error_set(
            err, ARTEL_EUSAGE, "SRV32", "name",
            "'%s' is no name for an expert: 1 to %d letters, digits, dots, "
            "dashes or underscores, not starting with a dot or dash",
            escape_text(given, sizeof(given), name, strlen(name)), EXPERT_NAME_MAX);
    pthread_mutex_lock(&c->lock);
    own = !strcmp(name, "auto") || !strcmp(name, "base") || !strcmp(name, c->name) ||
          (c->current->mixture->mixture &&
           mixture_find(c->current->mixture->mixture, name) >= 0);
    taken = find_added(c, name) < c->n_added;
    pthread_mutex_unlock(&c->lock);
    if (own)
        return error_set(err, ARTEL_ECONFLICT, "SRV32", "name",
                         "'%s' is a name of the mixture itself", name);
    if (taken && !replace)
        return error_set(err, ARTEL_ECONFLICT, "SRV32", "name",
                         "'%s' is there already; \"replace\": true puts another in its "
                         "place",
                         name);
    return 0;
}

/* PATH as it is without links, which must lie below the allowed folder. */
static int resolve_allowed(char **out, const struct catalogue *c, const char *path,
                           struct artel_error *err)
{
    const size_t n = c->allowed ? strlen(c->allowed) : 0;
    char *from, given[96];
    int rc;

    *out = NULL;
    if (!n)
        return error_set(err, ARTEL_EUSAGE, "SRV30", NULL,
                         "no experts may be added: the server was started without a "
                         "folder for them");
    from = path[0] == '/' ? strdup(path) : path_join(c->allowed, path);
    if (!from)
        return error_nomem(err, strlen(path));
    *out = realpath(from, NULL);
    free(from);
    escape_text(given, sizeof(given), path, strlen(path));
    rc = *out ? 0 : -errno;
    /* Nobody is told what lies outside of the folder, not even whether it is there. */
    if (rc < 0 && path[0] != '/' && !strstr(path, ".."))
        return error_set(err, ARTEL_EIO, "IO01", "path", "'%s': cannot open: %s", given,
                         strerror(-rc));
    if (rc < 0 || strncmp(*out, c->allowed, n) != 0 ||
        ((*out)[n] != '/' && c->allowed[n - 1] != '/')) {
        free(*out);
        *out = NULL;
        return error_set(err, ARTEL_EUSAGE, "SRV31", "path",
                         "'%s' is not below the folder that experts may come from",
                         given);
    }
    return 0;
}

/* L, which is taken over, under its name. */
static int put(struct catalogue *c, const char *name, char *folder, struct loaded *l,
               struct artel_error *err)
{
    struct added old = {0};
    size_t i;
    int rc = 0;

    pthread_mutex_lock(&c->lock);
    i = find_added(c, name);
    if (i == ADDED_MAX) {
        rc = error_set(err, ARTEL_ELIMIT, "SRV32", "name",
                       "%d experts have been added, no more fit", ADDED_MAX);
        old = (struct added){.loaded = l, .folder = folder};
    } else {
        old = c->added[i];
        c->added[i] =
            (struct added){.folder = folder, .loaded = l, .since = time(NULL)};
        snprintf(c->added[i].name, sizeof(c->added[i].name), "%s", name);
        c->n_added += i == c->n_added;
    }
    pthread_mutex_unlock(&c->lock);
    loaded_let_go(old.loaded);
    free(old.folder);
    return rc;
}

static int add(struct catalogue *c, const char *name, const char *path, bool replace,
               struct artel_error *err)
{
    enum opened_kind kind = OPENED_ADAPTER;
    struct loaded *l = NULL;
    char *resolved, *folder;
    int rc = check_name(c, name, replace, err);

    if (rc < 0)
        return rc;
    rc = resolve_allowed(&resolved, c, path, err);
    if (rc < 0)
        return rc;
    rc = opened_kind(&kind, resolved, err);
    if (rc == 0 && kind != OPENED_ADAPTER)
        rc = error_set(err, ARTEL_EFORMAT, "ADP01", "path",
                       "'%s' is no adapter folder: adapter_config.json is missing",
                       last_part(resolved));
    if (rc == 0)
        rc = open_over(&l, c, resolved, err);
    folder = strdup(last_part(resolved));
    free(resolved);
    if (rc == 0 && !folder)
        rc = error_nomem(err, 0);
    if (rc == 0)
        return put(c, name, folder, l, err);
    loaded_let_go(l);
    free(folder);
    return rc;
}

int catalogue_add(struct catalogue *c, const char *name, const char *path, bool replace,
                  struct artel_error *err)
{
    int rc;

    pthread_mutex_lock(&c->changing);
    rc = add(c, name, path, replace, err);
    pthread_mutex_unlock(&c->changing);
    return rc;
}

int catalogue_remove(struct catalogue *c, const char *name, struct artel_error *err)
{
    struct added gone = {0};
    char given[96];
    size_t i;
    int rc = 0;

    pthread_mutex_lock(&c->changing);
    pthread_mutex_lock(&c->lock);
    i = find_added(c, name);
    if (i < c->n_added) {
        gone = c->added[i];
        c->n_added--;
        memmove(&c->added[i], &c->added[i + 1], (c->n_added - i) * sizeof(c->added[0]));
        c->added[c->n_added] = (struct added){0};
    } else {
        rc = error_set(err, ARTEL_EUSAGE, "SRV33", "name",
                       "no expert '%s' was added while the server runs",
                       escape_text(given, sizeof(given), name, strlen(name)));
    }
    pthread_mutex_unlock(&c->lock);
    pthread_mutex_unlock(&c->changing);
    loaded_let_go(gone.loaded);
    free(gone.folder);
    return rc;
}

/* A new expert of the mixture's must not hide one that was added. Under CHANGING, which
 * alone lets names come and go. */
static int check_added(const struct catalogue *c, const struct artel_mixture *m,
                       struct artel_error *err)
{
    for (size_t i = 0; i < c->n_added; i++)
        if (m->mixture && mixture_find(m->mixture, c->added[i].name) >= 0)
            return error_set(err, ARTEL_ECONFLICT, "SRV32", "name",
                             "the mixture has an expert '%s' now, and one of that name "
                             "was added before: remove it first",
                             c->added[i].name);
    return 0;
}

int catalogue_reload(struct catalogue *c, struct artel_error *err)
{
    json_t *described = NULL, *old_described;
    struct loaded *fresh = NULL, *old;
    int rc;

    pthread_mutex_lock(&c->changing);
    rc = open_over(&fresh, c, c->path, err);
    if (rc == 0)
        rc = check_added(c, fresh->mixture, err);
    if (rc == 0 && !(described = describe_mixture(fresh->mixture, c->path)))
        rc = error_nomem(err, 0);
    old = fresh;
    old_described = described;
    if (rc == 0) {
        pthread_mutex_lock(&c->lock);
        old = c->current;
        old_described = c->described;
        c->current = fresh;
        c->described = described;
        c->since = time(NULL);
        pthread_mutex_unlock(&c->lock);
    }
    pthread_mutex_unlock(&c->changing);
    loaded_let_go(old);
    json_decref(old_described);
    return rc;
}
