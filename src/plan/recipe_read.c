/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML scalars are text until here: "1e-4", "1.0E-4" and ".0001" are one
 * number, "0x10", "010", "nan" and "1,5" none, whatever the locale and
 * whatever YAML 1.1 thought of them.
 */
#include "plan/recipe_read.h"

#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "files/write.h"

int recipe_fault(struct artel_error *err, const struct yaml_node *node,
                 const char *code, const char *fmt, ...)
{
    char where[64], reason[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(reason, sizeof(reason), fmt, args);
    va_end(args);
    if (node && node->line)
        snprintf(where, sizeof(where), "%zu:%zu", node->line, node->column);
    else
        snprintf(where, sizeof(where), "%.60s", node && node->key ? node->key : "");
    return error_set(err, ARTEL_EUSAGE, code, where, "%s", reason);
}

bool recipe_is_null(const struct yaml_node *node)
{
    return !node || (node->kind == YAML_SCALAR && !node->quoted &&
                     (!node->text || !*node->text || !strcmp(node->text, "~") ||
                      !strcasecmp(node->text, "null")));
}

/* [sign] digits [. digits] [e [sign] digits], with a digit before or after the dot and no
 * leading zero that another reader would take for octal. */
static bool is_number(const char *s)
{
    size_t whole = 0, part = 0, power = 0;

    if (*s == '+' || *s == '-')
        s++;
    if (s[0] == '0' && isdigit((unsigned char)s[1]))
        return false;
    for (; isdigit((unsigned char)*s); s++)
        whole++;
    if (*s == '.')
        for (s++; isdigit((unsigned char)*s); s++)
            part++;
    if (!whole && !part)
        return false;
    if (*s == 'e' || *s == 'E') {
        s++;
        if (*s == '+' || *s == '-')
            s++;
        for (; isdigit((unsigned char)*s); s++)
            power++;
        if (!power)
            return false;
    }
    return !*s;
}

/* TEXT passed is_number(). Its dot becomes the locale's. */
static double to_double(const char *text)
{
    const char *point = localeconv()->decimal_point;
    char buffer[128];
    size_t used = 0;

    for (; *text && used + 8 < sizeof(buffer); text++) {
        if (*text == '.' && strlen(point) < 8) {
            memcpy(buffer + used, point, strlen(point));
            used += strlen(point);
        } else {
            buffer[used++] = *text;
        }
    }
    buffer[used] = '\0';
    return strtod(buffer, NULL);
}

static const char *kind_name(const struct yaml_node *node)
{
    return node->kind == YAML_MAP    ? "a map"
           : node->kind == YAML_LIST ? "a list"
           : node->quoted            ? "quoted text"
                                     : "text";
}

/* Range of KEY as people read it. */
static void range_text(char *out, size_t size, const struct recipe_key *key)
{
    snprintf(out, size, "%s %.16g %s %.16g", key->open & KEY_ABOVE ? "above" : "from",
             key->min, key->open & KEY_BELOW ? "to below" : "to", key->max);
}

static int read_number(double *out, const struct recipe_key *key,
                       const struct yaml_node *node, struct artel_error *err)
{
    const bool whole = key->kind == KEY_COUNT;
    const char *noun = whole ? "a whole number" : "a number";
    char shown[200], range[96];
    double value;

    range_text(range, sizeof(range), key);
    if (node->kind != YAML_SCALAR)
        return recipe_fault(err, node, "RCP02", "'%s' must be %s %s, found %s",
                            key->name, noun, range, kind_name(node));
    escape_text(shown, sizeof(shown), node->text, strnlen(node->text, 40));
    if (node->quoted || !is_number(node->text) || strlen(node->text) > 60)
        return recipe_fault(err, node, "RCP02", "'%s' must be %s %s, found %s'%s'",
                            key->name, noun, range, node->quoted ? "quoted text " : "",
                            shown);
    value = to_double(node->text);
    if (whole && isfinite(value) && value != floor(value))
        return recipe_fault(err, node, "RCP02",
                            "'%s' must be a whole number, found '%s'", key->name,
                            shown);
    if (!(value >= key->min && value <= key->max) ||
        (key->open & KEY_ABOVE && value <= key->min) ||
        (key->open & KEY_BELOW && value >= key->max))
        return recipe_fault(err, node, "RCP03", "'%s' is %s, allowed is %s", key->name,
                            shown, range);
    *out = value;
    return 0;
}

static int read_bool(bool *out, const struct recipe_key *key,
                     const struct yaml_node *node, struct artel_error *err)
{
    static const char *const yes[] = {"true", "yes", "on"};
    static const char *const no[] = {"false", "no", "off"};
    char shown[200];

    for (size_t i = 0; node->kind == YAML_SCALAR && !node->quoted && i < 3; i++) {
        if (!strcasecmp(node->text, yes[i]) || !strcasecmp(node->text, no[i])) {
            *out = !strcasecmp(node->text, yes[i]);
            return 0;
        }
    }
    if (node->kind != YAML_SCALAR)
        return recipe_fault(err, node, "RCP02", "'%s' must be true or false, found %s",
                            key->name, kind_name(node));
    escape_text(shown, sizeof(shown), node->text, strnlen(node->text, 40));
    return recipe_fault(err, node, "RCP02", "'%s' must be true or false, found '%s'",
                        key->name, shown);
}

/* "a, b or c" */
static void join_names(char *out, size_t size, const char *const *names, size_t n)
{
    size_t used = 0;

    *out = '\0';
    for (size_t i = 0; i < n && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%s",
                                 !i           ? ""
                                 : i + 1 == n ? " or "
                                              : ", ",
                                 names[i]);
}

static int not_among(const struct recipe_key *key, const struct yaml_node *node,
                     const char *const *names, size_t n, struct artel_error *err)
{
    char shown[200], known[160];

    join_names(known, sizeof(known), names, n);
    if (node->kind != YAML_SCALAR)
        return recipe_fault(err, node, "RCP02", "'%s' must be %s, found %s", key->name,
                            known, kind_name(node));
    escape_text(shown, sizeof(shown), node->text, strnlen(node->text, 40));
    return recipe_fault(err, node, "RCP03", "'%s' is '%s', known are %s", key->name,
                        shown, known);
}

static int read_choice(int *out, const struct recipe_key *key,
                       const struct yaml_node *node, struct artel_error *err)
{
    const char *names[16];
    size_t n = 0;

    for (const struct key_choice *c = key->choices; c->name; c++) {
        if (node->kind == YAML_SCALAR && !strcmp(node->text, c->name)) {
            *out = c->value;
            return 0;
        }
        names[n++] = c->name;
    }
    return not_among(key, node, names, n, err);
}

static int read_target(bool *targets, const char *text, const struct recipe_key *key,
                       const struct yaml_node *node, struct artel_error *err)
{
    const char *names[N_SITES + 1] = {"all"};
    const int site = site_from_name(text);

    if (!strcmp(text, "all") || !strcmp(text, "all-linear")) {
        for (size_t s = 0; s < N_SITES; s++)
            targets[s] = true;
        return 0;
    }
    if (site >= 0) {
        targets[site] = true;
        return 0;
    }
    for (size_t s = 0; s < N_SITES; s++)
        names[s + 1] = site_name((enum site)s);
    return not_among(key, node, names, N_SITES + 1, err);
}

/* "all", "q_proj,v_proj" or a list. */
static int read_targets(bool *out, const struct recipe_key *key,
                        const struct yaml_node *node, struct artel_error *err)
{
    bool targets[N_SITES] = {false};
    const struct yaml_node *item = node->kind == YAML_LIST ? node->child : node;
    int rc = 0;

    if (!item || node->kind == YAML_MAP)
        return recipe_fault(err, node, "RCP02", "'%s' must be all or names of linears",
                            key->name);
    for (; item && rc == 0; item = node->kind == YAML_LIST ? item->next : NULL) {
        char word[64];
        const char *at = item->text;

        if (item->kind != YAML_SCALAR)
            return read_target(targets, "", key, item, err);
        do {
            const size_t skip = strspn(at, ", ");
            const size_t n = strcspn(at + skip, ", ");

            snprintf(word, sizeof(word), "%.*s", (int)(n < 63 ? n : 63), at + skip);
            rc = read_target(targets, word, key, item, err);
            at += skip + n;
            at += strspn(at, ", ");
        } while (rc == 0 && *at);
    }
    if (rc == 0)
        memcpy(out, targets, sizeof(targets));
    return rc;
}

/* A layer, or a list of them in ascending order. */
static int read_layers(struct layer_list *out, const struct recipe_key *key,
                       const struct yaml_node *node, struct artel_error *err)
{
    const struct recipe_key one = {
        .name = key->name, .kind = KEY_COUNT, .min = 1, .max = UINT16_MAX};
    const struct yaml_node *item = node->kind == YAML_LIST ? node->child : node;
    struct layer_list list = {0};

    for (; item; item = node->kind == YAML_LIST ? item->next : NULL) {
        double number;
        const int rc = read_number(&number, &one, item, err);

        if (rc < 0)
            return rc;
        if (list.n == ROUTER_READS)
            return recipe_fault(err, item, "RCP03", "'%s' takes at most %d layers",
                                key->name, ROUTER_READS);
        if (list.n && (uint16_t)number <= list.at[list.n - 1])
            return recipe_fault(err, item, "RCP03",
                                "'%s' takes layers in ascending order, each once",
                                key->name);
        list.at[list.n++] = (uint16_t)number;
    }
    *out = list;
    return 0;
}

char *recipe_path(const char *folder, const char *text)
{
    return *text == '/' ? strdup(text) : path_join(folder, text);
}

static int read_text(char **out, const struct recipe_key *key,
                     const struct yaml_node *node, const char *folder,
                     struct artel_error *err)
{
    char *text;

    if (node->kind != YAML_SCALAR)
        return recipe_fault(err, node, "RCP02", "'%s' must be %s, found %s", key->name,
                            key->kind == KEY_PATH ? "a path" : "text", kind_name(node));
    if (!*node->text)
        return recipe_fault(err, node, "RCP02", "'%s' is empty", key->name);
    text = key->kind == KEY_PATH ? recipe_path(folder, node->text) : strdup(node->text);
    if (!text)
        return error_nomem(err, strlen(node->text));
    free(*out);
    *out = text;
    return 0;
}

/* A number, or a name that stands for one. */
static int read_named(double *out, const struct recipe_key *key,
                      const struct yaml_node *node, struct artel_error *err)
{
    const char *names[16];
    size_t n = 0;

    for (const struct key_choice *c = key->choices; c && c->name; c++) {
        if (node->kind == YAML_SCALAR && !strcmp(node->text, c->name)) {
            *out = c->value;
            return 0;
        }
        names[n++] = c->name;
    }
    names[n++] = "a number";
    if (key->choices && (node->kind != YAML_SCALAR || !is_number(node->text)))
        return not_among(key, node, names, n, err);
    return read_number(out, key, node, err);
}

int recipe_read_value(void *base, const struct recipe_key *key,
                      const struct yaml_node *node, const char *folder,
                      struct artel_error *err)
{
    char *place = (char *)base + key->offset;
    double number = 0;
    int rc;

    switch (key->kind) {
    case KEY_COUNT:
    case KEY_REAL:
    case KEY_FLOAT:
        rc = read_named(&number, key, node, err);
        if (rc < 0)
            return rc;
        if (key->kind == KEY_COUNT)
            *(uint64_t *)(void *)place = (uint64_t)number;
        else if (key->kind == KEY_REAL)
            *(double *)(void *)place = number;
        else
            *(float *)(void *)place = (float)number;
        return 0;
    case KEY_BOOL:
        return read_bool((bool *)(void *)place, key, node, err);
    case KEY_CHOICE:
        return read_choice((int *)(void *)place, key, node, err);
    case KEY_LAYERS:
        return read_layers((struct layer_list *)(void *)place, key, node, err);
    case KEY_TARGETS:
        return read_targets((bool *)(void *)place, key, node, err);
    default:
        return read_text((char **)(void *)place, key, node, folder, err);
    }
}
