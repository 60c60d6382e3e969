/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A measured set as JSON and back: what is summed up for a table, and row by row what
 * differences are taken of.
 */
#include "eval/keep.h"

#include <dirent.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "decoder/gate_sums.h"
#include "eval/judge.h"
#include "files/json.h"
#include "files/write.h"

#define FORMAT    1
#define MAX_BYTES ((size_t)64 << 20)

enum kind { COUNT, REAL, FLAG };

static const struct {
    const char *key;
    enum kind kind;
    size_t at;
} fields[] = {
    {"rows", COUNT, offsetof(struct measured, n_rows)},
    {"dropped", COUNT, offsetof(struct measured, n_dropped)},
    {"answer_tokens", COUNT, offsetof(struct measured, answer_tokens)},
    {"nll", REAL, offsetof(struct measured, nll)},
    {"perplexity", REAL, offsetof(struct measured, perplexity)},
    {"routed", COUNT, offsetof(struct measured, n_routed)},
    {"right", COUNT, offsetof(struct measured, n_right)},
    {"experts", COUNT, offsetof(struct measured, n_experts)},
    {"routers", COUNT, offsetof(struct measured, n_routers)},
    {"judged", COUNT, offsetof(struct measured, n_judged)},
    {"score", REAL, offsetof(struct measured, score)},
    {"json_valid", REAL, offsetof(struct measured, json_valid)},
    {"json_name", REAL, offsetof(struct measured, json_name)},
    {"bleu", REAL, offsetof(struct measured, bleu)},
    {"rouge_l", REAL, offsetof(struct measured, rouge_l)},
    {"generated_tokens", REAL, offsetof(struct measured, generated_tokens)},
    {"generate_seconds", REAL, offsetof(struct measured, generate_seconds)},
    {"choices", FLAG, offsetof(struct measured, choices)},
    {"by_length", FLAG, offsetof(struct measured, by_length)},
    {"acc", REAL, offsetof(struct measured, acc)},
    {"acc_norm", REAL, offsetof(struct measured, acc_norm)},
    {"windows", FLAG, offsetof(struct measured, windows)},
    {"words", REAL, offsetof(struct measured, n_words)},
    {"bytes", REAL, offsetof(struct measured, n_bytes)},
    {"ratings", COUNT, offsetof(struct measured, judged.n)},
    {"ratings_missing", COUNT, offsetof(struct measured, judged.missing)},
};
#define N_FIELDS (sizeof(fields) / sizeof(fields[0]))

static json_t *reals(const double *x, size_t n)
{
    json_t *const a = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, isfinite(x[i]) ? json_real(x[i]) : json_null());
    return a;
}

static size_t values_of(const struct measured *r)
{
    return r->n_rows * (r->n_each ? r->n_each : 1);
}

static json_t *pack(const struct measured *r)
{
    json_t *const o = json_object(), *const chosen = json_array();

    json_object_set_new(o, "format_version", json_integer(FORMAT));
    for (size_t i = 0; i < N_FIELDS; i++) {
        const char *const p = (const char *)r + fields[i].at;
        json_t *v;

        if (fields[i].kind == COUNT)
            v = json_integer((json_int_t) * (const size_t *)(const void *)p);
        else if (fields[i].kind == FLAG)
            v = json_boolean(*(const bool *)(const void *)p);
        else
            v = isfinite(*(const double *)(const void *)p)
                    ? json_real(*(const double *)(const void *)p)
                    : json_null();
        json_object_set_new(o, fields[i].key, v);
    }
    for (size_t e = 0; e < r->n_experts; e++)
        json_array_append_new(chosen, json_integer((json_int_t)r->chosen[e]));
    json_object_set_new(o, "chosen", chosen);
    json_object_set_new(o, "qualities", reals(r->judged.quality, JUDGE_QUALITIES));
    json_object_set_new(o, "shares", json_boolean(r->shares));
    json_object_set_new(o, "value", reals(r->value, values_of(r)));
    if (r->n_each)
        json_object_set_new(o, "each", json_integer((json_int_t)r->n_each));
    json_object_set_new(o, "weight", reals(r->weight, r->n_rows));
    if (r->sums) {
        const double head[] = {r->sums->n, r->sums->decisions, r->sums->entropy,
                               r->sums->identity};

        json_object_set_new(o, "decisions", reals(head, 4));
        json_object_set_new(o, "gates",
                            reals(r->sums->gate, r->n_routers * r->n_experts));
    }
    return o;
}

static bool take_reals(double *x, size_t n, const json_t *a)
{
    if (json_array_size(a) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *const v = json_array_get(a, i);

        x[i] = json_is_null(v) ? (double)NAN : json_number_value(v);
    }
    return true;
}

static bool take_field(struct measured *r, size_t i, const json_t *v)
{
    char *const p = (char *)r + fields[i].at;

    if (fields[i].kind == FLAG) {
        *(bool *)(void *)p = json_is_true(v);
        return json_is_boolean(v);
    }
    if (fields[i].kind == COUNT) {
        *(size_t *)(void *)p = (size_t)json_integer_value(v);
        return json_is_integer(v) && json_integer_value(v) >= 0 &&
               json_integer_value(v) < (1 << 30);
    }
    *(double *)(void *)p = json_is_null(v) ? (double)NAN : json_number_value(v);
    return v != NULL;
}

static bool take_arrays(struct measured *r, const json_t *o)
{
    const json_t *const gates = json_object_get(o, "gates");
    const json_t *const chosen = json_object_get(o, "chosen");

    r->chosen = calloc(r->n_experts + 1, sizeof(*r->chosen));
    r->value = calloc(values_of(r) + 1, sizeof(*r->value));
    r->weight = calloc(r->n_rows + 1, sizeof(*r->weight));
    if (!r->chosen || !r->value || !r->weight ||
        !take_reals(r->value, values_of(r), json_object_get(o, "value")) ||
        !take_reals(r->weight, r->n_rows, json_object_get(o, "weight")) ||
        !take_reals(r->judged.quality, JUDGE_QUALITIES,
                    json_object_get(o, "qualities")) ||
        json_array_size(chosen) != r->n_experts)
        return false;
    for (size_t e = 0; e < r->n_experts; e++)
        r->chosen[e] = (size_t)json_integer_value(json_array_get(chosen, e));
    if (gates) {
        double head[4];

        if (json_array_size(gates) != r->n_routers * r->n_experts ||
            !(r->sums = calloc(1, gate_sums_bytes(r->n_routers, r->n_experts))) ||
            !take_reals(head, 4, json_object_get(o, "decisions")))
            return false;
        r->sums->n = head[0];
        r->sums->decisions = head[1];
        r->sums->entropy = head[2];
        r->sums->identity = head[3];
        take_reals(r->sums->gate, r->n_routers * r->n_experts, gates);
    }
    return true;
}

static bool unpack(struct measured *r, const json_t *o)
{
    const json_t *const each = json_object_get(o, "each");
    const json_t *const shares = json_object_get(o, "shares");

    *r = (struct measured){0};
    if (json_integer_value(json_object_get(o, "format_version")) != FORMAT)
        return false;
    for (size_t i = 0; i < N_FIELDS; i++)
        if (!take_field(r, i, json_object_get(o, fields[i].key)))
            return false;
    /* as many as there are experts, or not there: one measurement */
    if (each && json_integer_value(each) != (json_int_t)r->n_experts)
        return false;
    r->n_each = each ? r->n_experts : 0;
    r->shares = shares ? json_is_true(shares) : r->choices; /* once choices alone */
    if (take_arrays(r, o))
        return true;
    measured_release(r);
    return false;
}

static char *path_of(const char *folder, const char *key)
{
    char name[DIGEST_SIZE + 8];

    snprintf(name, sizeof(name), "%s.json", key);
    return path_join(folder, name);
}

int keep_read(struct measured *out, const char *folder, const char *key,
              struct artel_error *err)
{
    char *const path = path_of(folder, key);
    json_t *o = NULL;
    int rc = 0;

    if (!path)
        return error_nomem(err, 0);
    if (json_read_file(&o, path, MAX_BYTES, NULL) == 0)
        rc = unpack(out, o);
    json_decref(o);
    free(path);
    return rc;
}

int keep_write(const struct measured *r, const char *folder, const char *key,
               struct artel_error *err)
{
    char *const path = path_of(folder, key);
    json_t *const o = pack(r);
    int rc = path && o ? make_folder(folder, err) : error_nomem(err, 0);

    if (rc == 0)
        rc = json_write_file(path, o, false, err);
    json_decref(o);
    free(path);
    return rc;
}

static int add_file(struct digest *d, const char *folder, const char *name,
                    struct artel_error *err)
{
    char *const path = path_join(folder, name), digest[DIGEST_SIZE];
    struct stat st;
    int rc = path ? 0 : error_nomem(err, 0);

    if (rc == 0 && stat(path, &st) == 0 && S_ISREG(st.st_mode)) {
        rc = digest_file(digest, path, err);
        if (rc == 0) {
            digest_add(d, name, strlen(name) + 1);
            digest_add(d, digest, sizeof(digest));
        }
    }
    free(path);
    return rc;
}

/* What a mixture or an adapter is made of; reports beside it are not. */
static int counts(const struct dirent *e)
{
    static const char *const names[] = {"mixture.json", "adapter_config.json",
                                        "artel.json"};
    const char *const end = strrchr(e->d_name, '.');

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(e->d_name, names[i]))
            return 1;
    return e->d_name[0] != '.' && end && !strcmp(end, ".safetensors");
}

/* The files of FOLDER that count, by name. */
static int add_folder(struct digest *d, const char *folder, struct artel_error *err)
{
    struct dirent **names = NULL;
    const int n = scandir(folder, &names, counts, alphasort);
    int rc = n < 0 ? error_errno(err, folder, "cannot list") : 0;

    for (int i = 0; i < n; i++) {
        if (rc == 0)
            rc = add_file(d, folder, names[i]->d_name, err);
        free(names[i]);
    }
    free(names);
    return rc;
}

static int add_experts(struct digest *d, const struct artel_mixture *m,
                       struct artel_error *err)
{
    int rc = add_folder(d, m->file.folder, err);

    for (size_t i = 0; rc == 0 && i < m->file.n_notes; i++) {
        char *folder;

        if (!m->file.notes[i].folder)
            continue;
        folder = path_join(m->file.folder, m->file.notes[i].folder);
        rc = folder ? add_folder(d, folder, err) : error_nomem(err, 0);
        free(folder);
    }
    return rc;
}

int keep_digest(char out[DIGEST_SIZE], const struct artel_mixture *m, bool base,
                struct artel_error *err)
{
    struct digest *const d = digest_new();
    int rc = d ? 0 : error_nomem(err, 0);

    out[0] = '\0';
    if (rc < 0)
        return rc;
    digest_add(d, m->model->base_digest, DIGEST_SIZE);
    digest_add(d, m->model->tokenizer_digest, DIGEST_SIZE);
    digest_add(d, m->model->chat_digest, DIGEST_SIZE);
    if (base)
        rc = 0; /* the same beside whatever mixture */
    else if (m->file.folder)
        rc = add_experts(d, m, err);
    else if (m->mixture)
        rc = add_folder(d, m->path, err);
    digest_finish(d, out);
    return rc;
}

int keep_key(char out[DIGEST_SIZE], const char *digest, const struct artel_mixture *m,
             const char *path, const struct measure_options *o, struct artel_error *err)
{
    const double numbers[] = {
        o->expert,     o->expected,           (double)o->score,
        o->generate,   (double)o->max_rows,   (double)o->max_tokens,
        o->in_windows, (double)o->cutoff_len, (double)m->model->precision};
    struct digest *d;
    char rows[DIGEST_SIZE];
    int rc = digest_file(rows, path, err);

    if (rc < 0)
        return rc;
    d = digest_new();
    if (!d)
        return error_nomem(err, 0);
    digest_add(d, "eval " ARTEL_VERSION, sizeof("eval " ARTEL_VERSION));
    digest_add(d, digest, DIGEST_SIZE);
    digest_add(d, rows, DIGEST_SIZE);
    digest_add(d, numbers, sizeof(numbers));
    /* what was kept of several experts before their rows were is of the last one alone */
    if (measures_each(m, o))
        digest_add(d, "each", sizeof("each"));
    /* and of a general set's answers, the rows' likelihood alone */
    if (o->in_windows && o->generate && o->score != ANSWER_LOSS)
        digest_add(d, "shares", sizeof("shares"));
    if (o->judge)
        judge_digest(d, o->judge);
    digest_finish(d, out);
    return 0;
}
