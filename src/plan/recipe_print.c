/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recipe in its own words again: as JSON through the key table, and that JSON
 * as YAML. Numbers are written with the fewest digits that read back the same.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/yaml.h"
#include "plan/recipe.h"
#include "plan/recipe_keys.h"

static json_t *targets_json(const bool *targets)
{
    json_t *list = json_array();
    size_t n = 0;

    for (size_t s = 0; s < N_SITES; s++) {
        n += targets[s];
        if (targets[s])
            json_array_append_new(list, json_string(site_name((enum site)s)));
    }
    if (n < N_SITES)
        return list;
    json_decref(list);
    return json_string("all");
}

/* A float as the shortest decimal that is that float, so that 0.1f prints as 0.1. */
static double shortest(float value)
{
    char text[32];

    for (int digits = 6; digits < 10; digits++) {
        double back;

        snprintf(text, sizeof(text), "%.*g", digits, (double)value);
        back = strtod(text, NULL);
        if ((float)back == value)
            return back;
    }
    return (double)value;
}

/* The name of a number; true and false are no text. */
static json_t *named_json(const char *name)
{
    return !strcmp(name, "true")    ? json_true()
           : !strcmp(name, "false") ? json_false()
                                    : json_string(name);
}

static json_t *layers_json(const struct layer_list *layers)
{
    json_t *list = json_array();

    for (size_t i = 0; i < layers->n; i++)
        json_array_append_new(list, json_integer(layers->at[i]));
    return list;
}

/* Bytes that are not UTF-8 cannot stand in YAML or JSON; such text is left out. */
static json_t *value_json(const struct recipe_key *key, const void *base)
{
    const char *place = (const char *)base + key->offset;
    const char *text;

    switch (key->kind) {
    case KEY_PATH:
    case KEY_TEXT:
        text = *(char *const *)(const void *)place;
        return text ? json_string(text) : NULL;
    case KEY_COUNT:
        for (const struct key_choice *c = key->choices; c && c->name; c++)
            if ((uint64_t)c->value == *(const uint64_t *)(const void *)place)
                return named_json(c->name);
        return json_integer((json_int_t) * (const uint64_t *)(const void *)place);
    case KEY_REAL:
        return json_real(*(const double *)(const void *)place);
    case KEY_FLOAT:
        return json_real(shortest(*(const float *)(const void *)place));
    case KEY_BOOL:
        return json_boolean(*(const bool *)(const void *)place);
    case KEY_CHOICE:
        for (const struct key_choice *c = key->choices; c->name; c++)
            if (c->value == *(const int *)(const void *)place)
                return json_string(c->name);
        return NULL;
    case KEY_LAYERS:
        return layers_json((const struct layer_list *)(const void *)place);
    case KEY_TARGETS:
        return targets_json((const bool *)(const void *)place);
    default:
        return NULL;
    }
}

static json_t *section_json(const struct recipe *r, const char *section,
                            const void *base)
{
    json_t *o = json_object();

    for (size_t i = 0; i < recipe_key_count(); i++) {
        const struct recipe_key *key = recipe_key_at(i);
        json_t *value;

        if (strcmp(key->section, section) != 0)
            continue;
        /* One of the two sizes of a batch rules; the other is not said. */
        if (!strcmp(section, "train") &&
            ((!strcmp(key->name, "batch_tokens") && r->train.batch_size) ||
             (!strcmp(key->name, "batch_size") && !r->train.batch_size)))
            continue;
        value = value_json(key, base);
        if (value)
            json_object_set_new(o, key->name, value);
    }
    return o;
}

json_t *recipe_section(const struct recipe *r, const char *section)
{
    return section_json(r, section,
                        !strcmp(section, "lora")      ? (const void *)&r->lora
                        : !strcmp(section, "train")   ? (const void *)&r->train
                        : !strcmp(section, "router")  ? (const void *)&r->router
                        : !strcmp(section, "slim")    ? (const void *)&r->slim
                        : !strcmp(section, "mixlora") ? (const void *)&r->mixlora
                        : !strcmp(section, "modula")  ? (const void *)&r->modula
                                                      : (const void *)r->universal);
}

json_t *recipe_json(const struct recipe *r)
{
    json_t *o = section_json(r, "", r), *map = json_object(), *methods = json_array();

    for (size_t i = 0; i < r->n_methods; i++)
        json_array_append_new(methods, json_string(r->methods[i]));
    json_object_set_new(o, "method", methods);
    json_object_set_new(o, "lora", recipe_section(r, "lora"));
    for (size_t i = 0; i < r->n_domains; i++)
        json_object_set_new(map, r->domains[i].name,
                            section_json(r, "domain", &r->domains[i]));
    json_object_set_new(o, "domains", map);
    if (r->universal)
        json_object_set_new(o, "universal", recipe_section(r, "universal"));
    if (r->n_general) {
        map = json_object();
        for (size_t i = 0; i < r->n_general; i++)
            json_object_set_new(map, r->general[i].name,
                                json_string(r->general[i].path));
        json_object_set_new(o, "general", map);
    }
    json_object_set_new(o, "train", recipe_section(r, "train"));
    json_object_set_new(o, "router", recipe_section(r, "router"));
    json_object_set_new(o, "slim", recipe_section(r, "slim"));
    json_object_set_new(o, "mixlora", recipe_section(r, "mixlora"));
    json_object_set_new(o, "modula", recipe_section(r, "modula"));
    return o;
}

/* jansson writes numbers with a dot in any locale; 15 digits where they suffice. */
static void print_real(FILE *f, double value)
{
    char text[64] = "";

    for (size_t digits = 6; digits <= 17; digits++) {
        json_t *number = json_real(value), *back;

        const size_t n = json_dumpb(number, text, sizeof(text) - 1,
                                    JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits));

        json_decref(number);
        text[n < sizeof(text) ? n : 0] = '\0';
        back = json_loads(text, JSON_DECODE_ANY, NULL);
        if (back && json_number_value(back) == value)
            digits = 17;
        json_decref(back);
    }
    fputs(text, f);
}

static void print_flow(FILE *f, const json_t *value)
{
    const char *comma = "";
    size_t i;
    json_t *item;

    if (json_is_real(value)) {
        print_real(f, json_real_value(value));
    } else if (json_is_array(value)) {
        fputc('[', f);
        json_array_foreach(value, i, item)
        {
            fputs(comma, f);
            print_flow(f, item);
            comma = ", ";
        }
        fputc(']', f);
    } else if (json_is_string(value)) {
        yaml_print_quoted(f, json_string_value(value));
    } else {
        char *text = json_dumps(value, JSON_ENCODE_ANY);

        fputs(text ? text : "null", f);
        free(text);
    }
}

/* Keys are the table's, or names that expert_name_valid() let through: quoting is needed
 * only where YAML would read something else ("1", "true"), so names are always quoted. */
static void print_map(FILE *f, json_t *map, int indent, bool quote)
{
    const char *key;
    json_t *value;

    json_object_foreach(map, key, value)
    {
        fprintf(f, "%*s%s%s%s:", indent, "", quote ? "\"" : "", key, quote ? "\"" : "");
        if (json_is_object(value)) {
            fputs(json_object_size(value) ? "\n" : " {}\n", f);
            print_map(f, value, indent + 4,
                      indent == 0 &&
                          (!strcmp(key, "domains") || !strcmp(key, "general")));
        } else {
            fputc(' ', f);
            print_flow(f, value);
            fputc('\n', f);
        }
    }
}

int recipe_print(char **out, const struct recipe *r, struct artel_error *err)
{
    json_t *o = recipe_json(r);
    size_t n = 0;
    FILE *f;

    *out = NULL;
    f = o ? open_memstream(out, &n) : NULL;
    if (!f) {
        json_decref(o);
        return error_nomem(err, 4096);
    }
    fputs("# As used, every setting said. Written by artel.\n", f);
    print_map(f, o, 0, false);
    json_decref(o);
    if (fclose(f) != 0) {
        free(*out);
        *out = NULL;
        return error_nomem(err, n);
    }
    return 0;
}
