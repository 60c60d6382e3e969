/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON as people and Python write it: two spaces a level and the shortest digits
 * that give the same number (jansson prints 0.05 as 0.050000000000000003).
 */
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"
#include "files/write.h"

#define INDENT 2

struct printer {
    FILE *out;
    bool sorted;
    bool failed; /* no memory */
};

static void print_value(struct printer *p, const json_t *v, int indent);

static void print_string(struct printer *p, const char *text, size_t n)
{
    fputc('"', p->out);
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];

        if (c == '"' || c == '\\')
            fprintf(p->out, "\\%c", c);
        else if (c == '\n')
            fputs("\\n", p->out);
        else if (c == '\t')
            fputs("\\t", p->out);
        else if (c == '\r')
            fputs("\\r", p->out);
        else if (c < 0x20 || c == 0x7f)
            fprintf(p->out, "\\u%04x", c);
        else
            fputc(c, p->out);
    }
    fputc('"', p->out);
}

static void print_real(struct printer *p, double v)
{
    char text[40], *point;
    const char local = localeconv()->decimal_point[0];

    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    point = strchr(text, local);
    if (point)
        *point = '.';
    /* "1" would come back as an integer */
    fprintf(p->out, "%s%s", text, strpbrk(text, ".e") ? "" : ".0");
}

static int by_key(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The keys of O in the order of printing; NULL without memory. Caller frees. */
static const char **ordered_keys(const struct printer *p, const json_t *o)
{
    const size_t n = json_object_size(o);
    const char **keys = calloc(n ? n : 1, sizeof(*keys));
    size_t i = 0;
    void *iter = json_object_iter((json_t *)(size_t)o);

    if (!keys)
        return NULL;
    for (; iter; iter = json_object_iter_next((json_t *)(size_t)o, iter))
        keys[i++] = json_object_iter_key(iter);
    if (p->sorted)
        qsort(keys, n, sizeof(*keys), by_key);
    return keys;
}

static void new_line(struct printer *p, int indent)
{
    fprintf(p->out, "\n%*s", indent, "");
}

static void print_object(struct printer *p, const json_t *o, int indent)
{
    const char **keys = ordered_keys(p, o);

    if (!keys) {
        p->failed = true;
        return;
    }
    fputc('{', p->out);
    for (size_t i = 0; i < json_object_size(o); i++) {
        if (i)
            fputc(',', p->out);
        new_line(p, indent + INDENT);
        print_string(p, keys[i], strlen(keys[i]));
        fputs(": ", p->out);
        print_value(p, json_object_get(o, keys[i]), indent + INDENT);
    }
    if (json_object_size(o))
        new_line(p, indent);
    fputc('}', p->out);
    free(keys);
}

static void print_array(struct printer *p, const json_t *a, int indent)
{
    fputc('[', p->out);
    for (size_t i = 0; i < json_array_size(a); i++) {
        if (i)
            fputc(',', p->out);
        new_line(p, indent + INDENT);
        print_value(p, json_array_get(a, i), indent + INDENT);
    }
    if (json_array_size(a))
        new_line(p, indent);
    fputc(']', p->out);
}

static void print_value(struct printer *p, const json_t *v, int indent)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        print_object(p, v, indent);
        break;
    case JSON_ARRAY:
        print_array(p, v, indent);
        break;
    case JSON_STRING:
        print_string(p, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        fprintf(p->out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        break;
    case JSON_REAL:
        print_real(p, json_real_value(v));
        break;
    case JSON_TRUE:
        fputs("true", p->out);
        break;
    case JSON_FALSE:
        fputs("false", p->out);
        break;
    case JSON_NULL:
        fputs("null", p->out);
        break;
    }
}

int json_write_file(const char *path, const json_t *value, bool sorted,
                    struct artel_error *err)
{
    struct atomic_file f;
    struct printer p = {.sorted = sorted};
    int rc = atomic_open(&f, path, err);

    if (rc < 0)
        return rc;
    p.out = f.stream;
    print_value(&p, value, 0);
    fputc('\n', p.out);
    if (p.failed) {
        atomic_abort(&f);
        return error_in(err, error_nomem(err, sizeof(char *)), path);
    }
    return atomic_commit(&f, err);
}
