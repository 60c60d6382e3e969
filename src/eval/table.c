/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON of artel_evaluate() as a table: a row a set, two columns a method
 * (perplexity and score), the means below; CSV has a row for each pair instead.
 */
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"

#define CELL 48

/* Cells of equal number a row, printed once all widths are known. */
struct grid {
    size_t n_columns, n_rows, room;
    char (*cell)[CELL];
};

static char *grid_cell(struct grid *g, size_t row, size_t column)
{
    while (row >= g->n_rows) {
        if (g->n_rows == g->room) {
            const size_t room = 2 * g->room + 16;
            void *const more = realloc(g->cell, room * g->n_columns * CELL);

            if (!more)
                return NULL;
            g->cell = more;
            g->room = room;
        }
        memset(g->cell + g->n_rows * g->n_columns, 0, g->n_columns * CELL);
        g->n_rows++;
    }
    return g->cell[row * g->n_columns + column];
}

__attribute__((format(printf, 4, 5))) static int
put(struct grid *g, size_t row, size_t column, const char *fmt, ...)
{
    char *const cell = grid_cell(g, row, column);
    va_list args;

    if (!cell)
        return ARTEL_ELIMIT;
    va_start(args, fmt);
    vsnprintf(cell, CELL, fmt, args);
    va_end(args);
    return 0;
}

static void put_number(struct grid *g, size_t row, size_t column, const char *fmt_share,
                       const json_t *v)
{
    if (!json_is_number(v))
        put(g, row, column, "-");
    else if (*fmt_share == '%')
        put(g, row, column, "%.1f %%", 100 * json_number_value(v));
    else
        put(g, row, column, "%.4g", json_number_value(v));
}

static int print_grid(FILE *f, const struct grid *g, bool markdown)
{
    size_t *const width = calloc(g->n_columns, sizeof(*width));

    if (!width)
        return ARTEL_ELIMIT;
    for (size_t i = 0; i < g->n_rows * g->n_columns; i++)
        if (strlen(g->cell[i]) > width[i % g->n_columns])
            width[i % g->n_columns] = strlen(g->cell[i]);
    for (size_t r = 0; r < g->n_rows; r++) {
        for (size_t c = 0; c < g->n_columns; c++) {
            const char *const cell = g->cell[r * g->n_columns + c];
            const int w = (int)width[c];

            fprintf(f, markdown ? "| " : c ? "  " : "");
            fprintf(f, c > 1 ? "%*s" : "%-*s", w, cell);
            if (markdown)
                fprintf(f, c + 1 == g->n_columns ? " |" : " ");
        }
        fprintf(f, "\n");
        for (size_t c = 0; !r && c < g->n_columns; c++) {
            fprintf(f, markdown ? "|" : c ? "  " : "");
            for (size_t k = 0; k < width[c] + (markdown ? 1 : 0); k++)
                fputc('-', f);
            if (markdown)
                fputc(c > 1 ? ':' : '-', f);
        }
        if (!r)
            fprintf(f, markdown ? "|\n" : "\n");
    }
    free(width);
    return 0;
}

static const json_t *entry(const json_t *method, const char *group, const char *set)
{
    return json_object_get(json_object_get(method, group), set);
}

/* Rows of one group of sets, from row AT on; returns the next free row. */
static size_t put_group(struct grid *g, size_t at, json_t *methods, const char *group)
{
    json_t *const first = json_object_get(json_array_get(methods, 0), group);
    const bool general = !strcmp(group, "general");
    const char *set;
    json_t *unused, *method;
    size_t i;

    json_object_foreach(first, set, unused)
    {
        put(g, at, 0, "%s", set);
        put(g, at, 1, "%s",
            json_string_value(json_object_get(unused, "score_name"))
                ? json_string_value(json_object_get(unused, "score_name"))
                : "");
        json_array_foreach(methods, i, method)
        {
            const json_t *const e = entry(method, group, set);
            const bool text =
                general && json_is_number(json_object_get(e, "perplexity"));

            put_number(g, at, 2 + 2 * i, "", json_object_get(e, "perplexity"));
            if (text)
                put(g, at, 3 + 2 * i, "-");
            else
                put_number(g, at, 3 + 2 * i, "%", json_object_get(e, "score"));
        }
        at++;
    }
    return at;
}

/* Geometric mean of perplexities, mean of scores. */
static void put_means(struct grid *g, size_t at, json_t *methods)
{
    json_t *method, *e;
    const char *set;
    size_t i;

    put(g, at, 0, "mean");
    json_array_foreach(methods, i, method)
    {
        double logs = 0, scores = 0;
        size_t n = 0, n_scores = 0;

        json_object_foreach(json_object_get(method, "domains"), set, e)
        {
            const json_t *const ppl = json_object_get(e, "perplexity");
            const json_t *const score = json_object_get(e, "score");

            if (json_is_number(ppl)) {
                logs += log(json_number_value(ppl));
                n++;
            }
            if (json_is_number(score)) {
                scores += json_number_value(score);
                n_scores++;
            }
        }
        if (n)
            put(g, at, 2 + 2 * i, "%.4g", exp(logs / (double)n));
        else
            put(g, at, 2 + 2 * i, "-");
        if (n_scores)
            put(g, at, 3 + 2 * i, "%.1f %%", 100 * scores / (double)n_scores);
        else
            put(g, at, 3 + 2 * i, "-");
    }
    put(g, at + 1, 0, "routed right");
    json_array_foreach(methods, i, method)
    {
        put(g, at + 1, 2 + 2 * i, "-");
        put_number(g, at + 1, 3 + 2 * i, "%",
                   json_object_get(method, "routing_accuracy"));
    }
}

/* What the mixtures cost to train; "-" where nothing was trained or recorded. */
static void put_costs(struct grid *g, size_t at, json_t *methods)
{
    json_t *method;
    size_t i;

    put(g, at, 0, "trained parameters");
    put(g, at + 1, 0, "training minutes");
    put(g, at + 2, 0, "training tokens/s");
    json_array_foreach(methods, i, method)
    {
        const double seconds = json_number_value(json_object_get(method, "seconds"));
        const double tokens = json_number_value(json_object_get(method, "tokens"));
        const double parameters =
            json_number_value(json_object_get(method, "trainable_parameters"));

        for (size_t row = at; row < at + 3; row++)
            put(g, row, 3 + 2 * i, "-");
        if (parameters > 0)
            put(g, at, 3 + 2 * i, "%.2f M", parameters / 1e6);
        if (seconds > 0) {
            put(g, at + 1, 3 + 2 * i, "%.1f", seconds / 60);
            put(g, at + 2, 3 + 2 * i, "%.0f", tokens / seconds);
        }
    }
}

static int wide_table(FILE *f, json_t *methods, bool markdown)
{
    struct grid g = {.n_columns = 2 + 2 * json_array_size(methods)};
    json_t *method;
    size_t i, at;
    int rc;

    put(&g, 0, 0, "set");
    put(&g, 0, 1, "scored by");
    json_array_foreach(methods, i, method)
    {
        const char *const name = json_string_value(json_object_get(method, "name"));

        put(&g, 0, 2 + 2 * i, "%.30s ppl", name ? name : "?");
        put(&g, 0, 3 + 2 * i, "score");
    }
    at = put_group(&g, 1, methods, "domains");
    if (at > 1) {
        put_means(&g, at, methods);
        at += 2;
    }
    at = put_group(&g, at, methods, "general");
    put_costs(&g, at, methods);
    rc = g.cell ? print_grid(f, &g, markdown) : ARTEL_ELIMIT;
    free(g.cell);
    return rc;
}

/* A field of CSV: quoted where it must be, and never read as a formula. */
static void csv_text(FILE *f, const char *text)
{
    if (!strpbrk(text, ",\"\n\r") && !strchr("=+-@", text[0])) {
        fputs(text, f);
        return;
    }
    fputc('"', f);
    for (; *text; text++)
        fprintf(f, *text == '"' ? "\"\"" : "%c", *text);
    fputc('"', f);
}

static void csv_number(FILE *f, const json_t *v)
{
    fputc(',', f);
    if (json_is_number(v))
        fprintf(f, "%.9g", json_number_value(v));
}

static void csv_group(FILE *f, const json_t *method, const char *group)
{
    static const char *const text[] = {"name", "path"};
    json_t *const sets = json_object_get(method, group);
    const char *set;
    json_t *e;

    json_object_foreach(sets, set, e)
    {
        const char *const score_name =
            json_string_value(json_object_get(e, "score_name"));

        for (size_t i = 0; i < 2; i++) {
            const char *const v = json_string_value(json_object_get(method, text[i]));

            csv_text(f, v ? v : "");
            fputc(',', f);
        }
        csv_text(f, set);
        fprintf(f, ",%s,%s", group, score_name ? score_name : "");
        csv_number(f, json_object_get(e, "rows"));
        csv_number(f, json_object_get(e, "perplexity"));
        csv_number(f, json_object_get(e, "score"));
        csv_number(f, json_object_get(e, "change"));
        csv_number(f, json_object_get(e, "routing_accuracy"));
        fputc('\n', f);
    }
}

static void csv_table(FILE *f, json_t *methods)
{
    json_t *method;
    size_t i;

    fprintf(f, "method,path,set,group,score_name,rows,perplexity,score,change,"
               "routing_accuracy\n");
    json_array_foreach(methods, i, method)
    {
        csv_group(f, method, "domains");
        csv_group(f, method, "general");
    }
}

int artel_eval_table(char **out, const char *json, const char *kind,
                     struct artel_error *err)
{
    json_t *root = NULL, *methods;
    size_t n = 0;
    FILE *f;
    int rc;

    *out = NULL;
    rc = json_parse(&root, json, strlen(json), "evaluation", 0, err);
    if (rc < 0)
        return rc;
    methods = json_object_get(root, "methods");
    f = json_is_array(methods) ? open_memstream(out, &n) : NULL;
    if (!f) {
        json_decref(root);
        return error_set(err, ARTEL_EFORMAT, "EVL03", NULL, "this is no evaluation");
    }
    if (!strcmp(kind, "csv"))
        csv_table(f, methods);
    else
        rc = wide_table(f, methods, !strcmp(kind, "markdown"));
    json_decref(root);
    if (fclose(f) || rc < 0) {
        free(*out);
        *out = NULL;
        return error_nomem(err, n);
    }
    return 0;
}
