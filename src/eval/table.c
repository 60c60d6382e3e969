/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON of artel_evaluate() as a table: a row a set, two columns a method
 * (perplexity and score), the means below, a general set's change against the base under
 * it; CSV has a row for each pair instead.
 */
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "eval/report_page.h"

#define CELL (COMPARED_LABEL + 16)

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

static void put_number(struct grid *g, size_t row, size_t column, bool share, double v)
{
    if (!isfinite(v))
        put(g, row, column, "-");
    else if (share)
        put(g, row, column, "%.1f %%", 100 * v);
    else
        put(g, row, column, "%.4g", v);
}

/* In Markdown a bar would end the cell. */
static void print_cell(FILE *f, const char *text, int width, bool left, bool markdown)
{
    if (!markdown || !strchr(text, '|')) {
        fprintf(f, left ? "%-*s" : "%*s", width, text);
        return;
    }
    for (; *text; text++)
        fprintf(f, *text == '|' ? "\\%c" : "%c", *text);
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
            print_cell(f, cell, w, c <= 1, markdown);
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

/* CHANGE with its interval, under the row of the set that it belongs to. */
static void put_change(struct grid *g, size_t at, const struct compared *c,
                       const char *set)
{
    const bool share = compared_is_share(c, set);
    const double scale = share ? 100 : 1;

    put(g, at, 0, "  change%s", share ? ", points" : "");
    for (size_t i = 0; i < c->n; i++) {
        const json_t *const e = compared_set(c, i, "general", set);
        const json_t *const ci = json_object_get(e, "ci95");
        const double change = compared_number(e, "change");
        const size_t column = (share ? 3 : 2) + 2 * i;

        put(g, at, 2 + 2 * i, "-");
        put(g, at, 3 + 2 * i, "-");
        if (isfinite(change) && json_array_size(ci) == 2)
            put(g, at, column, "%+.3g [%+.3g, %+.3g]", scale * change,
                scale * json_number_value(json_array_get(ci, 0)),
                scale * json_number_value(json_array_get(ci, 1)));
        else if (isfinite(change))
            put(g, at, column, "%+.3g", scale * change);
    }
}

static bool has_change(const struct compared *c, const char *set)
{
    return compared_any(c, "general", set, "change");
}

/* Rows of one group of sets, from row AT on; returns the next free row. */
static size_t put_group(struct grid *g, size_t at, const struct compared *c,
                        const char *group)
{
    const bool general = !strcmp(group, "general");
    const json_t *const sets = general ? c->general : c->domains;

    for (size_t k = 0; k < json_array_size(sets); k++) {
        const char *const set = json_string_value(json_array_get(sets, k));
        const bool share = !general || compared_is_share(c, set);
        char shown[CELL];

        put(g, at, 0, "%s", escape_text(shown, sizeof(shown), set, strlen(set)));
        put(g, at, 1, "%.20s", compared_score_name(c, group, set));
        for (size_t i = 0; i < c->n; i++) {
            const json_t *const e = compared_set(c, i, group, set);

            put_number(g, at, 2 + 2 * i, false, compared_number(e, "perplexity"));
            put_number(g, at, 3 + 2 * i, true,
                       share ? compared_number(e, "score") : (double)NAN);
        }
        at++;
        if (general && has_change(c, set))
            put_change(g, at++, c, set);
    }
    return at;
}

/* Geometric mean of perplexities, mean of scores. */
static void put_means(struct grid *g, size_t at, const struct compared *c)
{
    put(g, at, 0, "mean");
    put(g, at + 1, 0, "routed right");
    for (size_t i = 0; i < c->n; i++) {
        put_number(g, at, 2 + 2 * i, false,
                   compared_mean(c, i, "domains", "perplexity", true));
        put_number(g, at, 3 + 2 * i, true,
                   compared_mean(c, i, "domains", "score", false));
        put(g, at + 1, 2 + 2 * i, "-");
        put_number(g, at + 1, 3 + 2 * i, true,
                   compared_number(compared_method(c, i), "routing_accuracy"));
    }
}

/* What the mixtures cost to train; "-" where nothing was trained or recorded. */
static void put_costs(struct grid *g, size_t at, const struct compared *c)
{
    put(g, at, 0, "trained parameters");
    put(g, at + 1, 0, "training minutes");
    put(g, at + 2, 0, "training tokens/s");
    for (size_t i = 0; i < c->n; i++) {
        const json_t *const method = compared_method(c, i);
        const double seconds = compared_number(method, "seconds");
        const double tokens = compared_number(method, "tokens");
        const double parameters = compared_number(method, "trainable_parameters");

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

static int wide_table(FILE *f, const struct compared *c, bool markdown)
{
    struct grid g = {.n_columns = 2 + 2 * c->n};
    size_t at;
    int rc;

    put(&g, 0, 0, "set");
    put(&g, 0, 1, "scored by");
    for (size_t i = 0; i < c->n; i++) {
        put(&g, 0, 2 + 2 * i, "%s ppl", c->label[i]);
        put(&g, 0, 3 + 2 * i, "score");
    }
    at = put_group(&g, 1, c, "domains");
    if (at > 1) {
        put_means(&g, at, c);
        at += 2;
    }
    at = put_group(&g, at, c, "general");
    put_costs(&g, at, c);
    rc = g.cell ? print_grid(f, &g, markdown) : ARTEL_ELIMIT;
    free(g.cell);
    return rc;
}

/* A field of CSV: quoted where it must be, and never read as a formula. */
static void csv_text(FILE *f, const char *text)
{
    if (!*text || (!strpbrk(text, ",\"\n\r") && !strchr("=+-@", text[0]))) {
        fputs(text, f);
        return;
    }
    fputc('"', f);
    for (; *text; text++)
        fprintf(f, *text == '"' ? "\"\"" : "%c", *text);
    fputc('"', f);
}

static void csv_number(FILE *f, double v)
{
    fputc(',', f);
    if (isfinite(v))
        fprintf(f, "%.9g", v);
}

/* What a set may have beside perplexity and score. */
static const char *const measures[] = {"acc",
                                       "acc_norm",
                                       "bleu",
                                       "rouge_l",
                                       "json_valid",
                                       "json_name",
                                       "judge.score",
                                       "gate_entropy",
                                       "identity_share",
                                       "word_perplexity",
                                       "byte_perplexity",
                                       "bits_per_byte",
                                       "tokens_per_second"};
#define N_MEASURES (sizeof(measures) / sizeof(measures[0]))

static void csv_set(FILE *f, const struct compared *c, size_t i, const char *group,
                    const char *set)
{
    static const char *const text[] = {"name", "path"};
    static const char *const numbers[] = {"rows", "perplexity", "score", "change",
                                          "routing_accuracy"};
    const json_t *const method = compared_method(c, i);
    const json_t *const e = compared_set(c, i, group, set);
    const json_t *const ci = json_object_get(e, "ci95");

    for (size_t k = 0; k < 2; k++) {
        csv_text(f, compared_text(method, text[k]));
        fputc(',', f);
    }
    csv_text(f, set);
    fprintf(f, ",%s,", group);
    csv_text(f, compared_text(e, "score_name"));
    for (size_t k = 0; k < sizeof(numbers) / sizeof(numbers[0]); k++)
        csv_number(f, compared_number(e, numbers[k]));
    csv_number(f, compared_number(method, "seed"));
    for (size_t k = 0; k < 2; k++)
        csv_number(f, json_is_number(json_array_get(ci, k))
                          ? json_number_value(json_array_get(ci, k))
                          : (double)NAN);
    for (size_t k = 0; k < N_MEASURES; k++)
        csv_number(f, compared_number(e, measures[k]));
    fputc('\n', f);
}

static void csv_table(FILE *f, const struct compared *c)
{
    static const char *const groups[] = {"domains", "general"};

    fprintf(f, "method,path,set,group,score_name,rows,perplexity,score,change,"
               "routing_accuracy,seed,ci95_low,ci95_high");
    for (size_t k = 0; k < N_MEASURES; k++)
        fprintf(f, ",%s", strcmp(measures[k], "judge.score") ? measures[k] : "judge");
    fputc('\n', f);
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < 2; k++) {
            json_t *const sets = json_object_get(compared_method(c, i), groups[k]);
            const char *set;
            json_t *unused;

            json_object_foreach(sets, set, unused)
            {
                csv_set(f, c, i, groups[k], set);
            }
        }
}

static int print_table(char **out, const struct compared *c, const char *kind,
                       struct artel_error *err)
{
    size_t n = 0;
    FILE *f = open_memstream(out, &n);
    int rc = f ? 0 : ARTEL_ELIMIT;

    if (rc == 0 && !strcmp(kind, "csv"))
        csv_table(f, c);
    else if (rc == 0)
        rc = wide_table(f, c, !strcmp(kind, "markdown"));
    if ((f && fclose(f)) || rc < 0) {
        free(*out);
        *out = NULL;
        return error_nomem(err, n);
    }
    return 0;
}

int artel_eval_table(char **out, const char *json, const char *kind,
                     struct artel_error *err)
{
    struct compared c;
    int rc;

    *out = NULL;
    rc = compared_open(&c, json, err);
    if (rc < 0)
        return rc;
    if (!strcmp(kind, "html"))
        rc = report_page(out, &c, err);
    else
        rc = print_table(out, &c, kind, err);
    compared_release(&c);
    return rc;
}
