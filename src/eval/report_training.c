/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Curves of every stage that the mixtures' runs have logged, a run once.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/report_page.h"
#include "eval/stage_log.h"

#define POINTS_MAX 120 /* of a curve; more steps are put together */

/* Means of up to POINTS_MAX runs of neighbours. */
struct curve {
    double x[POINTS_MAX], y[POINTS_MAX];
    size_t n;
};

static void curve_of(struct curve *c, const struct series *s)
{
    const size_t n = s->n < POINTS_MAX ? s->n : POINTS_MAX;

    c->n = n;
    for (size_t i = 0; i < n; i++) {
        const size_t from = i * s->n / n, to = (i + 1) * s->n / n;

        c->x[i] = c->y[i] = 0;
        for (size_t k = from; k < to; k++) {
            c->x[i] += s->step[k] / (double)(to - from);
            c->y[i] += s->value[k] / (double)(to - from);
        }
    }
}

static void curve_range(const struct curve *c, double *low, double *high)
{
    for (size_t i = 0; i < c->n; i++) {
        *low = fmin(*low, c->y[i]);
        *high = fmax(*high, c->y[i]);
    }
}

static void draw(FILE *f, const struct curve *c, const struct scale *x,
                 const struct scale *y, const char *classes)
{
    if (!c->n)
        return;
    fprintf(f, "<path class=\"%s\" d=\"", classes);
    for (size_t i = 0; i < c->n; i++)
        fprintf(f, "%c%.2f %.2f", i ? 'L' : 'M', scale_at(x, c->x[i]),
                100 - scale_at(y, c->y[i]));
    if (c->n == 1)
        fputs("h.01", f); /* a line cap makes it a dot */
    fputs("\"/>", f);
}

static void draw_box(FILE *f, const struct curve *a, const struct curve *b,
                     const struct scale *x, const struct scale *y, bool share)
{
    char text[48];

    fputs("<div class=\"box\"><svg viewBox=\"0 0 100 100\" "
          "preserveAspectRatio=\"none\" aria-hidden=\"true\">",
          f);
    for (size_t i = 0; i < y->n_ticks; i++)
        fprintf(f, "<path class=\"grid\" d=\"M0 %.2fH100\"/>",
                100 - scale_at(y, y->tick[i]));
    draw(f, a, x, y, "c1");
    draw(f, b, x, y, "c2 second");
    fputs("</svg>", f);
    for (size_t i = 0; i < y->n_ticks; i++) {
        if (share)
            snprintf(text, sizeof(text), "%.0f %%", 100 * y->tick[i]);
        else
            number_text(text, sizeof(text), y->tick[i], NUMBER_PLAIN);
        fprintf(f, "<span class=\"y\" style=\"bottom:%.2f%%\">%s</span>",
                scale_at(y, y->tick[i]), text);
    }
    for (size_t i = 0; i < x->n_ticks; i++)
        fprintf(f, "<span class=\"x\" style=\"left:%.2f%%\">%.6g</span>",
                scale_at(x, x->tick[i]), x->tick[i]);
    fputs("</div>", f);
}

/* One picture: what was trained on, and what was held out. */
static void chart(FILE *f, const char *stage, const char *what, const struct series *a,
                  const struct series *b, bool share)
{
    double low = (double)INFINITY, high = -(double)INFINITY, last = 1;
    struct curve *curves = calloc(2, sizeof(*curves));
    struct scale x, y;

    if (!curves || !(a->n + b->n)) {
        free(curves);
        return;
    }
    curve_of(&curves[0], a);
    curve_of(&curves[1], b);
    curve_range(&curves[0], &low, &high);
    curve_range(&curves[1], &low, &high);
    if (a->n)
        last = a->step[a->n - 1];
    if (b->n)
        last = fmax(last, b->step[b->n - 1]);
    scale_fit(&x, 0, last, false, 3);
    if (share)
        scale_fit(&y, 0, 1, false, 4);
    else
        scale_fit(&y, low, high, false, 4);
    fputs("<figure role=\"img\" aria-label=\"", f);
    html_text(f, stage);
    fprintf(f, ": %s over the steps; the table below has first and last\"><figcaption>",
            what);
    html_name(f, stage);
    fprintf(f, ": %s</figcaption>", what);
    draw_box(f, &curves[0], &curves[1], &x, &y, share);
    fputs("</figure>\n", f);
    free(curves);
}

static const struct {
    const char *title, *key;
    enum number_kind kind;
} facts[] = {{"steps", "steps", NUMBER_COUNT},
             {"tokens", "tokens", NUMBER_COUNT},
             {"seconds", "seconds", NUMBER_PLAIN},
             {"first loss", "first_loss", NUMBER_PLAIN},
             {"last loss", "last_loss", NUMBER_PLAIN},
             {"held-out loss", "valid_loss", NUMBER_PLAIN}};
#define N_FACTS (sizeof(facts) / sizeof(facts[0]))

static void stages_table(FILE *f, const struct stage_log *logs, size_t n, size_t run)
{
    char id[64];

    snprintf(id, sizeof(id), "t-stages-%zu", run);
    html_table_begin(f, id);
    fputs("Stages; first and last loss are means of ten steps.", f);
    html_caption_end(f);
    fputs("<thead><tr><th scope=\"col\">stage</th>", f);
    for (size_t k = 0; k < N_FACTS; k++)
        fprintf(f, "<th scope=\"col\">%s</th>", facts[k].title);
    fputs("</tr></thead>\n<tbody>", f);
    for (size_t i = 0; i < n; i++) {
        fputs("<tr><th scope=\"row\">", f);
        html_name(f, logs[i].name);
        fputs("</th>", f);
        for (size_t k = 0; k < N_FACTS; k++) {
            double v = compared_number(logs[i].summary, facts[k].key);

            /* 0 says that nothing was held out. */
            if (!strcmp(facts[k].key, "valid_loss") && v == 0)
                v = (double)NAN;
            html_cell(f, v, facts[k].kind, NULL);
        }
        fputs("</tr>\n", f);
    }
    fputs("</tbody>", f);
    html_table_end(f);
}

static void write_run(FILE *f, const struct stage_log *logs, size_t n, size_t run,
                      const char *folder)
{
    fputs("<h3>", f);
    html_name(f, folder);
    fputs("</h3>\n<div class=\"charts\">\n", f);
    for (size_t i = 0; i < n; i++) {
        const struct series *const s = logs[i].series;

        chart(f, logs[i].name, "loss", &s[SERIES_LOSS], &s[SERIES_EVAL_LOSS], false);
        chart(f, logs[i].name, "rows routed right", &s[SERIES_ROUTER_ACCURACY],
              &s[SERIES_EVAL_ROUTER_ACCURACY], true);
    }
    fputs("</div>\n", f);
    stages_table(f, logs, n, run);
}

/* Where two mixtures' folders lie side by side their run is the same. */
static size_t parent_length(const char *path)
{
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n && path[n - 1] != '/')
        n--;
    while (n > 1 && path[n - 1] == '/')
        n--;
    return n;
}

static bool is_first_of_run(const struct compared *c, size_t i, const char *path)
{
    const size_t n = parent_length(path);

    for (size_t k = 0; k < i; k++) {
        const char *const other = compared_text(compared_method(c, k), "path");

        if (parent_length(other) == n && !strncmp(other, path, n))
            return false;
    }
    return true;
}

void report_training(const struct report *r)
{
    size_t n_runs = 0;

    for (size_t i = 0; i < r->c->n; i++) {
        const char *const path = compared_text(compared_method(r->c, i), "path");
        char folder[4096];
        struct stage_log *logs;
        size_t n;

        if (i == r->c->base || !*path || !is_first_of_run(r->c, i, path) ||
            stage_logs_read(&logs, &n, path) < 0)
            continue;
        if (n && !n_runs)
            fputs("<p>Solid: rows that were trained on. <span class=\"soft\">Dotted: "
                  "rows that were held out.</span></p>\n",
                  r->f);
        snprintf(folder, sizeof(folder), "%.*s", (int)parent_length(path), path);
        if (n)
            write_run(r->f, logs, n, n_runs++, *folder ? folder : ".");
        stage_logs_free(logs, n);
    }
}
