/* SPDX-License-Identifier: Apache-2.0 */
/*
 * router.safetensors, all F32; E rows in the order of mixture.json's experts, but for the
 * fixed ones, which have none:
 *
 *   router.LAYER.weight (E, D)        router.LAYER.bias (E)        one router a layer
 *   router.LAYER.SITE.weight (E, N)   router.LAYER.SITE.bias (E)   one a linear
 *   router.LAYER.clusters (n)   where the rule yields: a block as experts/clusters.h lays it
 *   router.base.weight (E, D)        router.base.bias (E)        one of the base
 *   ridge.gram (D + 1, D + 1), ridge.sums (E, D + 1), both F64: what it was solved from
 *   (experts/ridge.h), where it was; of ridge.gram the lower triangle says it all
 *   __metadata__   format "pt", method, experts "a,b,c"
 *
 * mixture.json holds the digest of the file it goes with, and the file it replaces
 * keeps a second name until mixture.json is new: a crash between the two writes
 * leaves the old pair whole.
 */
#include "save/router_file.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/map.h"
#include "files/digest.h"
#include "files/safetensors.h"
#include "files/write.h"
#include "math/kernels.h"
#include "save/beneath.h"

#define ROUTER_NAME_SIZE 64
#define PARTS            3 /* most tensors of a router */

static const char *router_tensor(char out[ROUTER_NAME_SIZE], const struct mixture *m,
                                 size_t i, const char *part)
{
    if (m->rule.place == ROUTER_LINEAR)
        snprintf(out, ROUTER_NAME_SIZE, "router.%zu.%s.%s", i / N_SITES,
                 site_name((enum site)(i % N_SITES)), part);
    else if (m->rule.place == ROUTER_BASE)
        snprintf(out, ROUTER_NAME_SIZE, "router.base.%s", part);
    else if (m->rule.place == ROUTER_TEXT)
        snprintf(out, ROUTER_NAME_SIZE, "router.text.%s", part);
    else
        snprintf(out, ROUTER_NAME_SIZE, "router.%zu.%s", i, part);
    return out;
}

/* "a,b,c", new memory. */
static char *expert_list(const struct mixture *m)
{
    char *list = calloc(m->n_experts + 1, EXPERT_NAME_MAX + 2);
    size_t used = 0;

    for (size_t i = m->rule.n_fixed; list && i < m->n_experts; i++)
        used +=
            (size_t)sprintf(list + used, "%s%s", used ? "," : "", m->experts[i].name);
    return list;
}

#define GRAM "ridge.gram"
#define SUMS "ridge.sums"

static struct tensor exact(const char *name, double *data, size_t n_rows, size_t n_cols)
{
    return (struct tensor){.name = name,
                           .dtype = DTYPE_F64,
                           .n_dims = 2,
                           .shape = {n_rows, n_cols},
                           .data = data,
                           .bytes = n_rows * n_cols * sizeof(*data)};
}

static int write_tensors(const char *path, const struct mixture *m,
                         struct artel_error *err)
{
    struct tensor *tensors = calloc(PARTS * m->n_routers + 3, sizeof(*tensors));
    char(*names)[ROUTER_NAME_SIZE] = calloc(PARTS * m->n_routers + 1, sizeof(*names));
    char *experts = expert_list(m);
    const struct key_value metadata[] = {
        {"format", "pt"}, {"method", m->method}, {"experts", experts}};
    size_t n = 0;
    int rc;

    for (size_t i = 0; tensors && names && i < m->n_routers; i++) {
        const struct router *r = &m->routers[i];

        tensors[n] = (struct tensor){.name = router_tensor(names[n], m, i, "weight"),
                                     .dtype = DTYPE_F32,
                                     .n_dims = 2,
                                     .shape = {r->n_experts, r->dim},
                                     .data = r->w,
                                     .bytes = r->n_experts * r->dim * sizeof(float)};
        n++;
        if (r->b) {
            tensors[n] = tensor_floats(router_tensor(names[n], m, i, "bias"), r->b,
                                       r->n_experts);
            n++;
        }
        if (m->cluster_state) {
            tensors[n] = tensor_floats(router_tensor(names[n], m, i, "clusters"),
                                       mixture_cluster_block(m, i),
                                       mixture_cluster_floats(m, i));
            n++;
        }
    }
    for (size_t i = 0; tensors && i < 2 && m->sums.dim; i++, n++)
        tensors[n] = i ? exact(SUMS, m->sums.s, m->sums.n_domains, m->sums.dim)
                       : exact(GRAM, m->sums.g, m->sums.dim, m->sums.dim);
    rc = tensors && names && experts
             ? safetensors_write(path, tensors, n, metadata, 3, err)
             : error_nomem(err, PARTS * m->n_routers * sizeof(*tensors));
    free(tensors);
    free(names);
    free(experts);
    return rc;
}

/* 1 where the file at PATH has DIGEST, 0 where it has not or is not there. */
static int has_digest(const char *path, const char *digest, struct artel_error *err)
{
    char found[DIGEST_SIZE];
    int rc;

    if (access(path, F_OK) < 0)
        return 0;
    rc = digest_file(found, path, err);
    return rc < 0 ? rc : !strcmp(found, digest);
}

/* Give the file at PATH, if it is the one IN_USE, a second name, PREVIOUS; a copy where links
 * cannot be had. If it is not, a write was cut short before and PREVIOUS already is it. */
static int keep_previous(const char *folder, const char *path, const char *previous,
                         const char *in_use, struct artel_error *err)
{
    struct map map;
    int rc = in_use ? has_digest(path, in_use, err) : 0;

    if (rc <= 0)
        return rc;
    if (unlink(previous) < 0 && errno != ENOENT)
        return error_errno(err, previous, "cannot remove");
    if (link(path, previous) == 0)
        return sync_folder(folder, err);
    rc = map_open(&map, path, err);
    if (rc < 0)
        return rc;
    rc = write_file(previous, map.data, map.size, err);
    map_release(&map);
    return rc;
}

int router_file_write(char digest[DIGEST_SIZE], const char *folder,
                      const struct mixture *m, const char *in_use,
                      struct artel_error *err)
{
    char *path = path_join(folder, ROUTER_FILE);
    char *previous = path_join(folder, ROUTER_FILE_PREVIOUS);
    int rc = path && previous ? keep_previous(folder, path, previous, in_use, err)
                              : error_nomem(err, strlen(folder));

    if (rc == 0)
        rc = write_tensors(path, m, err);
    if (rc == 0)
        rc = digest_file(digest, path, err);
    free(path);
    free(previous);
    return rc;
}

void router_file_settle(const char *folder)
{
    char *previous = path_join(folder, ROUTER_FILE_PREVIOUS);

    if (previous)
        (void)unlink(previous); /* only room on the disk depends on it */
    free(previous);
}

/* TO (n_rows, n_cols) from the tensor NAME. n_cols 0: one axis. */
static int read_tensor(float *to, const struct safetensors *s, const char *name,
                       size_t n_rows, size_t n_cols, struct artel_error *err)
{
    const struct tensor *t = safetensors_find(s, name);
    const size_t n = n_rows * (n_cols ? n_cols : 1);

    if (!t)
        return error_set(err, ARTEL_EFORMAT, "MIX07", name, "there is no such tensor");
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16)
        return error_set(err, ARTEL_EFORMAT, "MIX07", name,
                         "numbers of type %s, expected F32", dtype_name(t->dtype));
    if (t->n_dims != (n_cols ? 2 : 1) || t->shape[0] != n_rows ||
        (n_cols && t->shape[1] != n_cols))
        return error_set(err, ARTEL_EFORMAT, "MIX07", name,
                         "expected %zu x %zu, found %zu axes: %zu x %zu", n_rows,
                         n_cols, t->n_dims, t->n_dims > 0 ? t->shape[0] : 0,
                         t->n_dims > 1 ? t->shape[1] : 0);
    kernels_ref()->dequant[t->dtype](to, t->data, n);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(to[i]))
            return error_set(err, ARTEL_EFORMAT, "MIX08", name,
                             "element %zu is not a finite number", i);
    return 0;
}

static int check_order(const struct safetensors *s, const struct mixture *m,
                       struct artel_error *err)
{
    const char *found = safetensors_metadata(s, "experts");
    char *want = expert_list(m);
    char shown[160];
    int rc = want ? 0 : error_nomem(err, m->n_experts);

    if (rc == 0 && found && strcmp(found, want) != 0)
        rc = error_set(err, ARTEL_EFORMAT, "MIX07", "experts",
                       "the routers' rows are of other experts: %s",
                       escape_text(shown, sizeof(shown), found, strlen(found)));
    free(want);
    return rc;
}

/* Counts that index centres are not taken on trust. */
static int check_clusters(const struct mixture *m, size_t router, const char *name,
                          struct artel_error *err)
{
    struct clusters c;

    mixture_clusters(&c, m, router);
    if (clusters_valid(&c))
        return 0;
    return error_set(err, ARTEL_EFORMAT, "MIX08", name,
                     "its counts or variances are none that training leaves");
}

static int read_exact(double *to, const struct safetensors *s, const char *name,
                      size_t n_rows, size_t n_cols, struct artel_error *err)
{
    const struct tensor *t = safetensors_find(s, name);

    if (!t || t->dtype != DTYPE_F64 || t->n_dims != 2 || t->shape[0] != n_rows ||
        t->shape[1] != n_cols)
        return error_set(err, ARTEL_EFORMAT, "MIX07", name,
                         "expected a tensor of %zu x %zu in F64", n_rows, n_cols);
    memcpy(to, t->data, n_rows * n_cols * sizeof(*to));
    for (size_t i = 0; i < n_rows * n_cols; i++)
        if (!isfinite(to[i]))
            return error_set(err, ARTEL_EFORMAT, "MIX08", name,
                             "element %zu is not a finite number", i);
    return 0;
}

/* What a router of the base was solved from, where the file has it. Adds to *N_TENSORS. */
static int read_sums(struct mixture *m, const struct safetensors *s, size_t *n_tensors,
                     struct artel_error *err)
{
    int rc;

    if (m->rule.place != ROUTER_BASE || !safetensors_find(s, GRAM))
        return 0;
    rc = ridge_init(&m->sums, m->routers[0].dim, m->n_experts, err);
    if (rc == 0)
        rc = read_exact(m->sums.g, s, GRAM, m->sums.dim, m->sums.dim, err);
    if (rc == 0)
        rc = read_exact(m->sums.s, s, SUMS, m->sums.n_domains, m->sums.dim, err);
    *n_tensors += 2;
    return rc;
}

static int read_routers(struct mixture *m, const struct safetensors *s,
                        struct artel_error *err)
{
    char name[ROUTER_NAME_SIZE];
    size_t n = 0;
    int rc = check_order(s, m, err);

    for (size_t i = 0; rc == 0 && i < m->n_routers; i++) {
        const struct router *r = &m->routers[i];

        rc = read_tensor(r->w, s, router_tensor(name, m, i, "weight"), r->n_experts,
                         r->dim, err);
        if (rc == 0 && r->b)
            rc = read_tensor(r->b, s, router_tensor(name, m, i, "bias"), r->n_experts,
                             0, err);
        if (rc == 0 && m->cluster_state)
            rc = read_tensor(mixture_cluster_block(m, i), s,
                             router_tensor(name, m, i, "clusters"),
                             mixture_cluster_floats(m, i), 0, err);
        if (rc == 0 && m->cluster_state)
            rc = check_clusters(m, i, name, err);
        n += 1 + (r->b != NULL) + (m->cluster_state != NULL);
    }
    if (rc == 0)
        rc = read_sums(m, s, &n, err);
    if (rc == 0 && safetensors_count(s) != n)
        rc = error_set(err, ARTEL_EFORMAT, "MIX07", NULL, "%zu tensors, expected %zu",
                       safetensors_count(s), n);
    return rc;
}

/* The file that DIGEST is of, new memory: the current one or, after a crash, the one before. */
static int find_file(char **out, const char *folder, const char *digest,
                     struct artel_error *err)
{
    char *path = path_join(folder, ROUTER_FILE);
    char *previous = path_join(folder, ROUTER_FILE_PREVIOUS);
    int rc = path && previous ? path_beneath(folder, path, "MIX03", err)
                              : error_nomem(err, strlen(folder));

    *out = NULL;
    if (rc == 0)
        rc = has_digest(path, digest, err);
    if (rc == 1) {
        *out = path;
        path = NULL;
    } else if (rc == 0) {
        rc = has_digest(previous, digest, err);
        if (rc == 1) {
            *out = previous;
            previous = NULL;
        } else if (rc == 0) {
            rc = error_set(err, ARTEL_EFORMAT, "MIX10", "router.digest",
                           "the routers are not those that mixture.json was written "
                           "with: the file is damaged or was replaced");
            error_in(err, rc, path);
        }
    }
    free(path);
    free(previous);
    return rc < 0 ? rc : 0;
}

int router_file_read(struct mixture *m, const char *folder, const char *digest,
                     struct artel_error *err)
{
    struct safetensors *s = NULL;
    char *path;
    int rc = find_file(&path, folder, digest, err);

    if (rc == 0)
        rc = safetensors_open(&s, path, err);
    if (rc == 0)
        rc = read_routers(m, s, err);
    if (rc < 0)
        error_in(err, rc, path ? path : folder);
    safetensors_close(s);
    free(path);
    return rc;
}
