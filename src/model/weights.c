/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each place of the model gets its tensor by name, checked for shape and format;
 * then no tensor may be left over, for one that is not used (a bias, another norm)
 * would have changed the results.
 *
 *     WT01 missing tensor   WT02 shape   WT03 format   WT04 tensor without a place
 */
#include "model/weights.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/map.h"
#include "files/gguf.h"
#include "files/json.h"
#include "files/write.h"
#include "model/architectures.h"
#include "model/base_files.h"

#define CONFIG_MAX   ((size_t)1 << 20)
#define NAME_SIZE    160
#define SAMPLE_BYTES ((size_t)64 << 10)

static const struct {
    const char *name, *module;
} sites[N_SITES] = {[SITE_Q] = {"q_proj", "self_attn.q_proj"},
                    [SITE_K] = {"k_proj", "self_attn.k_proj"},
                    [SITE_V] = {"v_proj", "self_attn.v_proj"},
                    [SITE_O] = {"o_proj", "self_attn.o_proj"},
                    [SITE_GATE] = {"gate_proj", "mlp.gate_proj"},
                    [SITE_UP] = {"up_proj", "mlp.up_proj"},
                    [SITE_DOWN] = {"down_proj", "mlp.down_proj"}};

_Static_assert((int)PLACE_Q == (int)SITE_Q && (int)PLACE_DOWN == (int)SITE_DOWN,
               "the sites are the first places");

const char *site_name(enum site s)
{
    return sites[s].name;
}

const char *site_module(enum site s)
{
    return sites[s].module;
}

int site_from_name(const char *name)
{
    for (int s = 0; s < N_SITES; s++)
        if (!strcmp(name, sites[s].name))
            return s;
    return -1;
}

void site_shape(const struct model_config *c, enum site s, size_t *n_out, size_t *n_in)
{
    const size_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const size_t shapes[N_SITES][2] = {[SITE_Q] = {q, c->dim},
                                       [SITE_K] = {kv, c->dim},
                                       [SITE_V] = {kv, c->dim},
                                       [SITE_O] = {c->dim, q},
                                       [SITE_GATE] = {c->ffn_dim, c->dim},
                                       [SITE_UP] = {c->ffn_dim, c->dim},
                                       [SITE_DOWN] = {c->dim, c->ffn_dim}};

    *n_out = shapes[s][0];
    *n_in = shapes[s][1];
}

static const char *pattern_of(const struct weights *w, const struct architecture *a,
                              enum place p)
{
    return w->gguf ? a->gguf[p] : a->hf[p];
}

static size_t count_tensors(const struct weights *w)
{
    return w->gguf ? gguf_count(w->gguf) : base_files_count(w->files);
}

static const struct tensor *tensor_number(const struct weights *w, size_t i)
{
    return w->gguf ? gguf_at(w->gguf, i) : base_files_at(w->files, i);
}

static const struct tensor *find_tensor(const struct weights *w, const char *name)
{
    return w->gguf ? gguf_find(w->gguf, name) : base_files_find(w->files, name);
}

/* Shape of a place: columns 0 for a vector. */
static void place_shape(const struct model_config *c, enum place p, size_t *rows,
                        size_t *columns)
{
    *columns = 0;
    *rows = c->dim;
    if (p <= PLACE_DOWN) {
        site_shape(c, (enum site)p, rows, columns);
    } else if (p == PLACE_EMBED || p == PLACE_HEAD) {
        *rows = c->n_vocab;
        *columns = c->dim;
    }
}

static const char *shape_text(char out[96], const size_t *shape, size_t n)
{
    size_t used = (size_t)snprintf(out, 96, "[");

    for (size_t i = 0; i < n && used < 80; i++)
        used +=
            (size_t)snprintf(out + used, 96 - used, "%s%zu", i ? ", " : "", shape[i]);
    snprintf(out + (used < 95 ? used : 94), 2, "]");
    return out;
}

static int check_shape(const struct weights *w, const struct tensor *t, enum place p,
                       struct artel_error *err)
{
    char found[96], expected[96], name[NAME_SIZE];
    size_t shape[2];
    size_t n_dims;

    place_shape(&w->config, p, &shape[0], &shape[1]);
    n_dims = shape[1] ? 2 : 1;
    if (t->n_dims == n_dims && !memcmp(t->shape, shape, n_dims * sizeof(*shape)))
        return 0;
    escape_text(name, sizeof(name), t->name, strlen(t->name));
    if (p == PLACE_EMBED && t->n_dims == 2 && t->shape[1] == shape[1])
        return error_set(err, ARTEL_EFORMAT, "CFG08", name,
                         "%zu rows, but config.json has vocab_size %zu", t->shape[0],
                         shape[0]);
    return error_set(err, ARTEL_EFORMAT, "WT02", name, "shape %s, expected %s",
                     shape_text(found, t->shape, t->n_dims),
                     shape_text(expected, shape, n_dims));
}

/* Vectors stay small and are read as they are: no blocks. */
static int check_format(const struct weights *w, const struct tensor *t, enum place p,
                        struct artel_error *err)
{
    const bool vector =
        p == PLACE_ATTN_NORM || p == PLACE_FFN_NORM || p == PLACE_FINAL_NORM;
    const bool fine =
        vector || !w->gguf ? t->dtype <= DTYPE_BF16 : dtype_is_weight(t->dtype);
    char name[NAME_SIZE], number[24] = "";

    if (fine)
        return 0;
    if (w->gguf)
        snprintf(number, sizeof(number), " (type %d)", gguf_type_number(t->dtype));
    return error_set(err, ARTEL_EFORMAT, "WT03",
                     escape_text(name, sizeof(name), t->name, strlen(t->name)),
                     "%s%s is not supported here, these are: %s", dtype_name(t->dtype),
                     number, vector || !w->gguf ? "F32 F16 BF16" : dtype_weight_list());
}

static int take(struct weights *w, struct tensor *out, const struct architecture *a,
                enum place p, size_t layer, struct artel_error *err)
{
    char name[NAME_SIZE];
    const struct tensor *t;
    int rc;

    place_name(name, sizeof(name), pattern_of(w, a, p), layer);
    t = find_tensor(w, name);
    if (!t)
        return error_set(err, ARTEL_EFORMAT, "WT01", name, "the tensor is missing");
    rc = check_shape(w, t, p, err);
    if (rc == 0)
        rc = check_format(w, t, p, err);
    if (rc < 0)
        return rc;
    *out = *t;
    w->n_parameters += tensor_elems(t);
    return 0;
}

static int take_layer(struct weights *w, size_t layer, const struct architecture *a,
                      struct artel_error *err)
{
    struct layer_weights *l = &w->layers[layer];
    int rc = take(w, &l->attn_norm, a, PLACE_ATTN_NORM, layer, err);

    if (rc == 0)
        rc = take(w, &l->ffn_norm, a, PLACE_FFN_NORM, layer, err);
    for (int s = 0; s < N_SITES && rc == 0; s++)
        rc = take(w, &l->site[s], a, (enum place)s, layer, err);
    return rc;
}

static int take_all(struct weights *w, const struct architecture *a,
                    struct artel_error *err)
{
    int rc = take(w, &w->embed, a, PLACE_EMBED, 0, err);

    if (rc == 0)
        rc = take(w, &w->final_norm, a, PLACE_FINAL_NORM, 0, err);
    if (rc == 0 && !w->config.tied)
        rc = take(w, &w->head, a, PLACE_HEAD, 0, err);
    if (w->config.tied)
        w->head = w->embed;
    /* The count of layers is believed only as far as there are tensors for them. */
    if (rc == 0 && w->config.n_layers > count_tensors(w))
        return error_set(err, ARTEL_EFORMAT, "WT01", NULL,
                         "%zu layers, but only %zu tensors", w->config.n_layers,
                         count_tensors(w));
    if (rc < 0)
        return rc;
    w->layers = calloc(w->config.n_layers, sizeof(*w->layers));
    if (!w->layers)
        return error_nomem(err, w->config.n_layers * sizeof(*w->layers));
    for (size_t i = 0; i < w->config.n_layers && rc == 0; i++)
        rc = take_layer(w, i, a, err);
    return rc;
}

/* Is NAME that of PATTERN in one of N_LAYERS layers? */
static bool name_matches(const char *name, const char *pattern, size_t n_layers)
{
    const char *number = strstr(pattern, "%zu");
    const size_t start = number ? (size_t)(number - pattern) : 0;
    size_t layer = 0, i = start;

    if (!number)
        return !strcmp(name, pattern);
    if (strncmp(name, pattern, start) != 0)
        return false;
    for (; name[i] >= '0' && name[i] <= '9' && layer < n_layers; i++)
        layer = layer * 10 + (size_t)(name[i] - '0');
    if (i == start || (name[start] == '0' && i > start + 1) || layer >= n_layers)
        return false;
    return !strcmp(name + i, number + 3);
}

static bool ends_with(const char *name, const char *end)
{
    const size_t n = strlen(name), k = strlen(end);

    return n >= k && !strcmp(name + n - k, end);
}

static int check_rest(const struct weights *w, const struct architecture *a,
                      struct artel_error *err)
{
    char shown[NAME_SIZE];

    for (size_t i = 0; i < count_tensors(w); i++) {
        const char *name = tensor_number(w, i)->name;
        bool known = w->gguf ? word_among(a->gguf_ignored, name, strlen(name))
                             : ends_with(name, a->hf_ignored);

        for (int p = 0; p < N_PLACES && !known; p++)
            known =
                name_matches(name, pattern_of(w, a, (enum place)p), w->config.n_layers);
        if (!known)
            return error_set(err, ARTEL_EFORMAT, "WT04",
                             escape_text(shown, sizeof(shown), name, strlen(name)),
                             "the tensor has no place in a %s model of %zu layers",
                             a->name, w->config.n_layers);
    }
    return 0;
}

static int read_config(struct weights *w, const char *folder, struct artel_error *err)
{
    char *path = path_join(folder, "config.json");
    json_t *root = NULL;
    int rc;

    if (!path)
        return error_nomem(err, strlen(folder));
    rc = json_read_file(&root, path, CONFIG_MAX, err);
    if (rc == 0)
        rc = config_from_json(&w->config, root, path, err);
    json_decref(root);
    free(path);
    return rc;
}

static int open_files(struct weights *w, const char *path, struct artel_error *err)
{
    struct base_files *files;
    struct stat st;
    int rc;

    if (stat(path, &st) < 0)
        return error_errno(err, path, "cannot open");
    if (!S_ISDIR(st.st_mode)) {
        rc = gguf_open(&w->gguf, path, err);
        if (rc == 0)
            rc = config_from_gguf(&w->config, w->gguf, err);
        if (rc == 0)
            w->file_bytes = gguf_bytes(w->gguf);
        return rc;
    }
    w->folder = strdup(path);
    if (!w->folder)
        return error_nomem(err, strlen(path));
    rc = read_config(w, path, err);
    if (rc == 0)
        rc = base_files_open(&files, path, err);
    if (rc < 0)
        return rc;
    w->files = files;
    w->file_bytes = base_files_bytes(files);
    return 0;
}

int weights_open(struct weights **out, const char *path, struct artel_error *err)
{
    struct weights *w = calloc(1, sizeof(*w));
    const struct architecture *a;
    int rc;

    *out = NULL;
    if (!w)
        return error_nomem(err, sizeof(*w));
    w->path = strdup(path);
    if (!w->path) {
        rc = error_nomem(err, strlen(path));
        goto fail;
    }
    rc = open_files(w, path, err);
    if (rc < 0)
        goto fail;
    a = architecture_find(w->config.architecture, strlen(w->config.architecture));
    assert(a);
    rc = take_all(w, a, err);
    if (rc == 0)
        rc = check_rest(w, a, err);
    if (rc < 0)
        goto fail;
    *out = w;
    return 0;

fail:
    weights_close(w);
    return error_in(err, rc, path);
}

void weights_close(struct weights *w)
{
    if (!w)
        return;
    gguf_close(w->gguf);
    base_files_close(w->files);
    free(w->layers);
    free(w->folder);
    free(w->path);
    free(w);
}

static void digest_tensor(struct digest *d, const struct tensor *t, bool whole)
{
    const unsigned char *p = t->data;
    const size_t last = t->bytes > SAMPLE_BYTES ? t->bytes - SAMPLE_BYTES : 0;
    unsigned char size[8];

    digest_add(d, t->name, strlen(t->name) + 1);
    digest_add(d, dtype_name(t->dtype), strlen(dtype_name(t->dtype)) + 1);
    for (size_t i = 0; i < t->n_dims; i++) {
        for (size_t k = 0; k < 8; k++)
            size[k] = (unsigned char)((uint64_t)t->shape[i] >> 8 * k);
        digest_add(d, size, 8);
    }
    if (whole || t->bytes <= 3 * SAMPLE_BYTES) {
        digest_add(d, p, t->bytes);
        return;
    }
    digest_add(d, p, SAMPLE_BYTES);
    digest_add(d, p + last / 2, SAMPLE_BYTES);
    digest_add(d, p + last, SAMPLE_BYTES);
}

void weights_forget_layer(const struct weights *w, size_t layer)
{
    for (int s = 0; (w->gguf || w->files) && s < N_SITES; s++)
        map_forget(w->layers[layer].site[s].data, w->layers[layer].site[s].bytes);
}

int weights_check_finite(const struct weights *w, struct artel_error *err)
{
    int rc = tensor_check_finite(&w->embed, err);

    if (rc == 0)
        rc = tensor_check_finite(&w->final_norm, err);
    if (rc == 0 && !w->config.tied)
        rc = tensor_check_finite(&w->head, err);
    for (size_t l = 0; rc == 0 && l < w->config.n_layers; l++) {
        rc = tensor_check_finite(&w->layers[l].attn_norm, err);
        if (rc == 0)
            rc = tensor_check_finite(&w->layers[l].ffn_norm, err);
        for (int s = 0; rc == 0 && s < N_SITES; s++)
            rc = tensor_check_finite(&w->layers[l].site[s], err);
        weights_forget_layer(w, l);
    }
    return rc < 0 ? error_in(err, rc, w->path) : 0;
}

/* The order is that of the model, not of the file, so repacking changes nothing. */
int weights_digest(char out[DIGEST_SIZE], const struct weights *w, bool whole,
                   struct artel_error *err)
{
    struct digest *d = digest_new();

    out[0] = '\0';
    if (!d)
        return error_nomem(err, DIGEST_SIZE);
    digest_tensor(d, &w->embed, whole);
    digest_tensor(d, &w->final_norm, whole);
    if (!w->config.tied)
        digest_tensor(d, &w->head, whole);
    for (size_t i = 0; i < w->config.n_layers; i++) {
        digest_tensor(d, &w->layers[i].attn_norm, whole);
        digest_tensor(d, &w->layers[i].ffn_norm, whole);
        for (size_t s = 0; s < N_SITES; s++)
            digest_tensor(d, &w->layers[i].site[s], whole);
    }
    digest_finish(d, out);
    return out[0] ? 0 : error_nomem(err, DIGEST_SIZE);
}
