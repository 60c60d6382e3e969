/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which expert rows went to, and how sure each layer was of it, as tables whose cells are
 * shaded: the numbers are the heat map.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "eval/report_page.h"

/* A share as a shaded cell: the text is ours. Where its colour turns from that for pale cells
 * to that for full ones, either has a contrast of 4.5 and more: at 0.6 in the dark, at 0.77 in
 * the light. */
static void heat_cell(FILE *f, double share, const char *text, bool own)
{
    fprintf(f, "<td class=\"heat%s%s\" style=\"--v:%.3f\">%s</td>",
            share > 0.77  ? " hi"
            : share > 0.6 ? " mid"
                          : "",
            own ? " own" : "", share, text);
}

static void column_head(FILE *f, const char *name)
{
    fputs("<th scope=\"col\">", f);
    html_name(f, name);
    fputs("</th>", f);
}

/* ---- confusion ---- */

static double row_total(const json_t *row)
{
    json_t *v;
    const char *name;
    double total = 0;

    json_object_foreach((json_t *)(uintptr_t)row, name, v)
    {
        total += json_number_value(v);
    }
    return total;
}

static void confusion_row(FILE *f, const char *set, const json_t *row)
{
    const double total = row_total(row);
    json_t *v;
    const char *name;

    fputs("<tr><th scope=\"row\">", f);
    html_name(f, set);
    fputs("</th>", f);
    json_object_foreach((json_t *)(uintptr_t)row, name, v)
    {
        char text[48];
        const double n = json_number_value(v);

        number_text(text, sizeof(text), n, NUMBER_COUNT);
        heat_cell(f, total > 0 ? n / total : 0, n > 0 ? text : "", !strcmp(name, set));
    }
    fputs("</tr>\n", f);
}

void report_confusion(const struct report *r)
{
    for (size_t i = 0; i < r->c->n; i++) {
        json_t *const c = json_object_get(compared_method(r->c, i), "confusion");
        json_t *row, *unused;
        const char *set, *name;
        char id[64];

        if (!json_object_size(c))
            continue;
        snprintf(id, sizeof(id), "t-confusion-%zu", i);
        html_table_begin(r->f, id);
        html_mark(r->f, i, NULL, NULL);
        fputc(' ', r->f);
        html_name(r->f, r->c->label[i]);
        fputs(
            ": rows of each set (down) by the expert that was chosen (across); a set's "
            "own expert is framed.",
            r->f);
        html_caption_end(r->f);
        fputs("<thead><tr><th scope=\"col\">set</th>", r->f);
        row = json_object_iter_value(json_object_iter(c));
        json_object_foreach(row, name, unused)
        {
            column_head(r->f, name);
        }
        fputs("</tr></thead>\n<tbody>", r->f);
        json_object_foreach(c, set, row)
        {
            confusion_row(r->f, set, row);
        }
        fputs("</tbody>", r->f);
        html_table_end(r->f);
    }
}

/* ---- layers ---- */

static int expert_index(const json_t *experts, const char *name)
{
    for (size_t e = 0; e < json_array_size(experts); e++) {
        const char *const text = json_string_value(json_array_get(experts, e));

        if (text && !strcmp(text, name))
            return (int)e;
    }
    return -1;
}

/* Gate of expert E in router L of a set's rows; NaN where it is not told. */
static double gate(const json_t *routers, size_t l, size_t e)
{
    const json_t *const v = json_array_get(json_array_get(routers, l), e);

    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

static void gate_cell(FILE *f, double v, bool own)
{
    char text[16];

    if (!isfinite(v)) {
        html_cell(f, v, NUMBER_PLAIN, NULL);
        return;
    }
    snprintf(text, sizeof(text), "%.0f", 100 * v);
    heat_cell(f, fmin(fmax(v, 0), 1), text, own);
}

static size_t most_routers(json_t *routing)
{
    const char *set;
    json_t *routers;
    size_t most = 0;

    json_object_foreach(routing, set, routers)
    {
        if (json_array_size(routers) > most)
            most = json_array_size(routers);
    }
    return most;
}

/* Layers down, sets across: the gate of each set's own expert. */
static void own_table(const struct report *r, size_t i, json_t *routing,
                      const json_t *experts)
{
    const size_t n = most_routers(routing);
    const char *set;
    json_t *routers;
    char id[64];

    snprintf(id, sizeof(id), "t-layers-%zu", i);
    html_table_begin(r->f, id);
    html_mark(r->f, i, NULL, NULL);
    fputc(' ', r->f);
    html_name(r->f, r->c->label[i]);
    fputs(": mean gate of a set's own expert in percent, in each router from the first "
          "layer to the last.",
          r->f);
    html_caption_end(r->f);
    fputs("<thead><tr><th scope=\"col\">router</th>", r->f);
    json_object_foreach(routing, set, routers)
    {
        if (expert_index(experts, set) >= 0)
            column_head(r->f, set);
    }
    fputs("</tr></thead>\n<tbody>", r->f);
    for (size_t l = 0; l < n; l++) {
        fprintf(r->f, "<tr><th scope=\"row\">%zu</th>", l);
        json_object_foreach(routing, set, routers)
        {
            const int e = expert_index(experts, set);

            if (e >= 0)
                gate_cell(r->f, gate(routers, l, (size_t)e), false);
        }
        fputs("</tr>\n", r->f);
    }
    fputs("</tbody>", r->f);
    html_table_end(r->f);
}

/* One set: layers down, experts across. */
static void set_table(const struct report *r, size_t i, size_t k, const char *set,
                      const json_t *routers, const json_t *experts)
{
    char id[64];

    snprintf(id, sizeof(id), "t-layers-%zu-%zu", i, k);
    html_table_begin(r->f, id);
    html_name(r->f, set);
    fputs(": mean gate of every expert in percent.", r->f);
    html_caption_end(r->f);
    fputs("<thead><tr><th scope=\"col\">router</th>", r->f);
    for (size_t e = 0; e < json_array_size(experts); e++) {
        const char *const name = json_string_value(json_array_get(experts, e));

        column_head(r->f, name ? name : "?");
    }
    fputs("</tr></thead>\n<tbody>", r->f);
    for (size_t l = 0; l < json_array_size(routers); l++) {
        fprintf(r->f, "<tr><th scope=\"row\">%zu</th>", l);
        for (size_t e = 0; e < json_array_size(experts); e++)
            gate_cell(r->f, gate(routers, l, e), expert_index(experts, set) == (int)e);
        fputs("</tr>\n", r->f);
    }
    fputs("</tbody>", r->f);
    html_table_end(r->f);
}

static bool has_own(json_t *routing, const json_t *experts)
{
    const char *set;
    json_t *unused;

    json_object_foreach(routing, set, unused)
    {
        if (expert_index(experts, set) >= 0)
            return true;
    }
    return false;
}

void report_layers(const struct report *r)
{
    for (size_t i = 0; i < r->c->n; i++) {
        const json_t *const m = compared_method(r->c, i);
        const json_t *const experts = json_object_get(m, "experts");
        json_t *const routing = json_object_get(m, "routing");
        const char *set;
        json_t *routers;
        size_t k = 0;

        if (!most_routers(routing) || !json_array_size(experts))
            continue;
        if (has_own(routing, experts))
            own_table(r, i, routing, experts);
        fputs("<details><summary>", r->f);
        html_name(r->f, r->c->label[i]);
        fputs(": every expert</summary>\n", r->f);
        json_object_foreach(routing, set, routers)
        {
            set_table(r, i, k++, set, routers, experts);
        }
        fputs("</details>\n", r->f);
    }
}
