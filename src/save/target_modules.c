/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PEFT's rules: a list entry matches a path that equals it or ends with "." and
 * it; a string is a regular expression for the whole path, or "all-linear";
 * exclude_modules has the same forms and wins; layers_to_transform narrows a
 * list by the number after the first "NAME." of the path, where NAME is one of
 * layers_pattern ("layers" in all our models).
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "save/target_modules.h"

#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"

#define PATTERN_MAX_BYTES ((size_t)64 << 10)
#define MATCH_MAX_STEPS   20000
#define MATCH_MAX_DEPTH   1000
#define MATCH_MAX_KIB     1024

struct pattern {
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *context;
    const char *key; /* borrowed */
};

const char *module_path(char out[MODULE_PATH_SIZE], size_t layer, enum site s)
{
    snprintf(out, MODULE_PATH_SIZE, "model.layers.%zu.%s", layer, site_module(s));
    return out;
}

void pattern_close(struct pattern *p)
{
    if (!p)
        return;
    pcre2_match_context_free(p->context);
    pcre2_match_data_free(p->data);
    pcre2_code_free(p->code);
    free(p);
}

/* "(?:.*\.)?(?:TEXT)" or TEXT itself, in new memory. */
static char *wrap(const char *text, bool suffix)
{
    const size_t size = strlen(text) + 24;
    char *whole = malloc(size);

    if (whole)
        snprintf(whole, size, suffix ? "(?:.*\\.)?(?:%s)" : "%s", text);
    return whole;
}

static int compile(struct pattern *p, const char *text, struct artel_error *err)
{
    PCRE2_UCHAR message[128];
    char shown[160];
    PCRE2_SIZE at;
    int number;

    p->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED,
                            PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF |
                                PCRE2_NEVER_BACKSLASH_C,
                            &number, &at, NULL);
    if (p->code)
        return 0;
    pcre2_get_error_message(number, message, sizeof(message));
    return error_set(err, ARTEL_EFORMAT, "ADP13", p->key,
                     "the pattern '%s' cannot be read at %zu: %s",
                     escape_text(shown, sizeof(shown), text, strlen(text)), (size_t)at,
                     (const char *)message);
}

int pattern_open(struct pattern **out, const char *text, bool suffix, const char *key,
                 struct artel_error *err)
{
    struct pattern *p;
    char *whole;
    int rc;

    *out = NULL;
    if (strlen(text) > PATTERN_MAX_BYTES)
        return error_set(err, ARTEL_EFORMAT, "ADP13", key,
                         "a pattern of %zu bytes, at most %zu are read", strlen(text),
                         PATTERN_MAX_BYTES);
    p = calloc(1, sizeof(*p));
    whole = wrap(text, suffix);
    if (!p || !whole) {
        rc = error_nomem(err, strlen(text));
        goto fail;
    }
    p->key = key;
    rc = compile(p, whole, err);
    if (rc < 0)
        goto fail;
    p->data = pcre2_match_data_create(1, NULL);
    p->context = pcre2_match_context_create(NULL);
    if (!p->data || !p->context) {
        rc = error_nomem(err, sizeof(*p));
        goto fail;
    }
    pcre2_set_match_limit(p->context, MATCH_MAX_STEPS);
    pcre2_set_depth_limit(p->context, MATCH_MAX_DEPTH);
    pcre2_set_heap_limit(p->context, MATCH_MAX_KIB);
    free(whole);
    *out = p;
    return 0;

fail:
    free(whole);
    pattern_close(p);
    return rc;
}

int pattern_matches(struct pattern *p, const char *path, struct artel_error *err)
{
    const int n =
        pcre2_match(p->code, (PCRE2_SPTR)path, strlen(path), 0, 0, p->data, p->context);

    if (n >= 0)
        return 1;
    if (n == PCRE2_ERROR_NOMATCH)
        return 0;
    return error_set(err, ARTEL_EFORMAT, "ADP13", p->key,
                     "a pattern takes more than %d steps to match '%s'",
                     MATCH_MAX_STEPS, path);
}

/* PATH is NAME or ends with ".NAME". */
static bool ends_with_name(const char *path, const char *name)
{
    const size_t n_path = strlen(path), n = strlen(name);

    if (n > n_path || strcmp(path + n_path - n, name) != 0)
        return false;
    return n == n_path || path[n_path - n - 1] == '.';
}

static int wrong_type(const char *key, const char *expected, struct artel_error *err)
{
    return error_set(err, ARTEL_EFORMAT, "ADP09", key, "expected %s", expected);
}

/* Sets HIT[i] where VALUE, a list of names or a pattern, means linear i. */
static int mark_modules(bool *hit, const json_t *value, const char *key,
                        size_t n_layers, struct artel_error *err)
{
    struct pattern *p = NULL;
    char path[MODULE_PATH_SIZE];
    int rc = 0;

    if (json_is_string(value)) {
        rc = pattern_open(&p, json_string_value(value), false, key, err);
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < n_layers * N_SITES; i++) {
        const json_t *name;
        size_t k;

        module_path(path, i / N_SITES, (enum site)(i % N_SITES));
        if (p) {
            rc = pattern_matches(p, path, err);
            if (rc < 0)
                break;
            hit[i] = rc == 1;
            continue;
        }
        json_array_foreach(value, k, name) hit[i] =
            hit[i] || ends_with_name(path, json_string_value(name));
    }
    pattern_close(p);
    return rc < 0 ? rc : 0;
}

static bool holds_nul(const json_t *text)
{
    return strlen(json_string_value(text)) != json_string_length(text);
}

/* NULL, or the value of KEY after a check: a list of strings, or a string. */
static int names_or_pattern(const json_t **out, const json_t *root, const char *key,
                            struct artel_error *err)
{
    const json_t *value = json_object_get(root, key), *entry;
    size_t k;

    *out = NULL;
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_string(value) && !json_is_array(value))
        return wrong_type(key, "a list of module names or a pattern", err);
    json_array_foreach(
        value, k,
        entry) if (!json_is_string(entry) ||
                   holds_nul(entry)) return wrong_type(key, "names only in the list",
                                                       err);
    if (json_is_string(value) && holds_nul(value))
        return wrong_type(key, "text without NUL", err);
    *out = value;
    return 0;
}

/* Output heads and embeddings may be named by a list that others wrote, not adapted by us. */
static int refuse_unsupported(const json_t *list, struct artel_error *err)
{
    static const char *const names[] = {"lm_head", "embed_tokens"};
    const json_t *entry;
    size_t k;

    json_array_foreach(list, k, entry) for (size_t i = 0; i < 2; i++) if (
        ends_with_name(json_string_value(entry),
                       names[i])) return error_set(err, ARTEL_EFORMAT, "ADP12",
                                                   "target_modules",
                                                   "a LoRA on %s is not supported",
                                                   names[i]);
    return 0;
}

/* "layers" must be one of the names that may stand before a layer's number. */
static int check_layers_pattern(bool *fits, const json_t *root, struct artel_error *err)
{
    const json_t *value;
    int rc = names_or_pattern(&value, root, "layers_pattern", err);
    size_t k;
    const json_t *entry;

    if (rc < 0)
        return rc;
    *fits = !value || (json_is_array(value) && !json_array_size(value)) ||
            (json_is_string(value) && (!*json_string_value(value) ||
                                       !strcmp(json_string_value(value), "layers")));
    json_array_foreach(value, k, entry) *fits =
        *fits || !strcmp(json_string_value(entry), "layers");
    return 0;
}

/* Keep only the layers of layers_to_transform. */
static int narrow_layers(bool *hit, const json_t *root, size_t n_layers, bool is_list,
                         struct artel_error *err)
{
    static const char key[] = "layers_to_transform";
    const json_t *value = json_object_get(root, key), *entry;
    bool fits;
    size_t k;
    int rc;

    if (!value || json_is_null(value) ||
        (json_is_array(value) && !json_array_size(value)))
        return 0;
    if (!json_is_integer(value) && !json_is_array(value))
        return wrong_type(key, "a layer's number or a list of them", err);
    json_array_foreach(value, k, entry) if (!json_is_integer(entry)) return wrong_type(
        key, "numbers only in the list", err);
    if (!is_list)
        return error_set(err, ARTEL_EFORMAT, "ADP13", key,
                         "stands only beside a list of target_modules, not a pattern");
    rc = check_layers_pattern(&fits, root, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n_layers * N_SITES; i++) {
        const json_int_t layer = (json_int_t)(i / N_SITES);
        bool kept = json_is_integer(value) && json_integer_value(value) == layer;

        json_array_foreach(value, k, entry) kept =
            kept || json_integer_value(entry) == layer;
        hit[i] = hit[i] && kept && fits;
    }
    return 0;
}

static int drop_excluded(bool *hit, const json_t *root, size_t n_layers,
                         struct artel_error *err)
{
    const json_t *value;
    bool *excluded;
    int rc = names_or_pattern(&value, root, "exclude_modules", err);

    if (rc < 0 || !value || (json_is_string(value) && !*json_string_value(value)))
        return rc;
    excluded = calloc(n_layers * N_SITES, sizeof(*excluded));
    if (!excluded)
        return error_nomem(err, n_layers * N_SITES);
    rc = mark_modules(excluded, value, "exclude_modules", n_layers, err);
    for (size_t i = 0; rc == 0 && i < n_layers * N_SITES; i++)
        hit[i] = hit[i] && !excluded[i];
    free(excluded);
    return rc;
}

int modules_targeted(bool *targeted, const json_t *root, size_t n_layers,
                     struct artel_error *err)
{
    const size_t n = n_layers * N_SITES;
    const json_t *value;
    int rc = names_or_pattern(&value, root, "target_modules", err);

    if (rc < 0)
        return rc;
    memset(targeted, 0, n * sizeof(*targeted));
    if (!value) { /* PEFT's own choice for these models */
        for (size_t i = 0; i < n; i++)
            targeted[i] = i % N_SITES == SITE_Q || i % N_SITES == SITE_V;
    } else if (!strcasecmp(json_is_string(value) ? json_string_value(value) : "",
                           "all-linear")) {
        memset(targeted, 1, n * sizeof(*targeted));
    } else {
        rc = refuse_unsupported(value, err);
        if (rc == 0)
            rc = mark_modules(targeted, value, "target_modules", n_layers, err);
    }
    if (rc == 0)
        rc = narrow_layers(targeted, root, n_layers, !json_is_string(value), err);
    if (rc == 0)
        rc = drop_excluded(targeted, root, n_layers, err);
    return rc;
}
