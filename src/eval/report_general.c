/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the domains gained against what general sets lost, both against the base.
 */
#include <math.h>
#include <string.h>

#include "eval/report_page.h"

static const char *general_name(const struct report *r, size_t k)
{
    return json_string_value(json_array_get(r->c->general, k));
}

/* Low and high of an interval; false where there is none. */
static bool interval(double out[2], const json_t *e)
{
    const json_t *const ci = json_object_get(e, "ci95");

    for (size_t i = 0; i < 2; i++) {
        const json_t *const v = json_array_get(ci, i);

        if (!json_is_number(v))
            return false;
        out[i] = json_number_value(v);
    }
    return true;
}

/* ---- gain against change ---- */

/* In points of score; where no answers were scored, percent of perplexity saved. */
static double gain(const struct compared *c, size_t i, bool *by_score)
{
    const size_t own = compared_base(c, i);
    const double score = compared_mean(c, i, "domains", "score", false);
    const double base = compared_mean(c, own, "domains", "score", false);

    if (isfinite(score) && isfinite(base)) {
        *by_score = true;
        return 100 * (score - base);
    }
    return 100 * (1 - compared_mean(c, i, "domains", "perplexity", true) /
                          compared_mean(c, own, "domains", "perplexity", true));
}

struct plane {
    struct scale x, y;
};

static void grid_lines(FILE *f, const struct plane *p)
{
    fputs("<svg viewBox=\"0 0 100 100\" preserveAspectRatio=\"none\" "
          "aria-hidden=\"true\">",
          f);
    for (size_t i = 0; i < p->x.n_ticks; i++)
        fprintf(f, "<path class=\"%s\" d=\"M%.2f 0V100\"/>",
                p->x.tick[i] == 0 ? "zero" : "grid", scale_at(&p->x, p->x.tick[i]));
    for (size_t i = 0; i < p->y.n_ticks; i++)
        fprintf(f, "<path class=\"%s\" d=\"M0 %.2fH100\"/>",
                p->y.tick[i] == 0 ? "zero" : "grid",
                100 - scale_at(&p->y, p->y.tick[i]));
    fputs("</svg>", f);
    for (size_t i = 0; i < p->x.n_ticks; i++)
        fprintf(f, "<span class=\"x\" style=\"left:%.2f%%\">%.4g</span>",
                scale_at(&p->x, p->x.tick[i]), p->x.tick[i]);
    for (size_t i = 0; i < p->y.n_ticks; i++)
        fprintf(f, "<span class=\"y\" style=\"bottom:%.2f%%\">%.3g</span>",
                scale_at(&p->y, p->y.tick[i]), p->y.tick[i]);
}

static void put_point(const struct report *r, const struct plane *p, size_t i, double x,
                      double y)
{
    const double left = scale_at(&p->x, x), bottom = scale_at(&p->y, y);
    char title[COMPARED_LABEL + 64];

    snprintf(title, sizeof(title), "%s: gain %.1f, change %+.1f", r->c->label[i], x, y);
    fprintf(r->f, "<span class=\"point\" style=\"left:%.2f%%;bottom:%.2f%%\">", left,
            bottom);
    html_mark(r->f, i, NULL, title);
    fprintf(r->f, "</span><span class=\"label%s\" style=\"left:%.2f%%;bottom:%.2f%%\">",
            left > 55 ? " left" : "", left, bottom);
    html_name(r->f, r->c->label[i]);
    fputs("</span>\n", r->f);
}

static void write_plane(const struct report *r)
{
    double low_x = 0, high_x = 0, low_y = 0, high_y = 0;
    const struct compared *const c = r->c;
    bool by_score = false;
    struct plane p;
    size_t n = 0;

    if (c->base == c->n)
        return;
    for (size_t i = 0; i < c->n; i++) {
        const double x = gain(c, i, &by_score), y = 100 * compared_change(c, i);

        if (!isfinite(x) || !isfinite(y))
            continue;
        low_x = fmin(low_x, x);
        high_x = fmax(high_x, x);
        low_y = fmin(low_y, y);
        high_y = fmax(high_y, y);
        n++;
    }
    if (n < 2)
        return;
    scale_fit(&p.x, low_x, high_x, false, 6);
    scale_fit(&p.y, low_y, high_y, false, 6);
    fputs(
        "<p>To the right a method knows the domains better than the base, below the "
        "line it has forgotten something else.</p>\n<figure role=\"img\" "
        "aria-label=\"Gain on the domains against change on general sets; the overview "
        "and the table below have the numbers\">\n<div class=\"box big\">",
        r->f);
    grid_lines(r->f, &p);
    for (size_t i = 0; i < c->n; i++) {
        const double x = gain(c, i, &by_score), y = 100 * compared_change(c, i);

        if (isfinite(x) && isfinite(y))
            put_point(r, &p, i, x, y);
    }
    fprintf(r->f,
            "<span class=\"title\">gain on the domains, %s</span><span "
            "class=\"side\">change on general sets, points</span></div></figure>\n",
            by_score ? "points of score" : "% of perplexity");
}

/* ---- intervals ---- */

static void interval_row(const struct report *r, const struct scale *s, size_t i,
                         const json_t *e)
{
    const double change = compared_number(e, "change");
    char style[80], title[COMPARED_LABEL + 64];
    double ci[2];

    if (!isfinite(change))
        return;
    fputs("<div class=\"name\">", r->f);
    html_name(r->f, r->c->label[i]);
    fputs("</div><div class=\"track\">", r->f);
    html_ticks(r->f, s);
    if (interval(ci, e))
        fprintf(r->f,
                "<span class=\"span c%zu\" style=\"left:%.2f%%;width:%.2f%%\"></span>",
                i % 8, scale_at(s, ci[0]), scale_at(s, ci[1]) - scale_at(s, ci[0]));
    snprintf(style, sizeof(style), "left:%.2f%%", scale_at(s, change));
    snprintf(title, sizeof(title), "%s: %+.1f", r->c->label[i], 100 * change);
    html_mark(r->f, i, style, title);
    fputs("</div>\n", r->f);
}

static void write_intervals(const struct report *r)
{
    double low = 0, high = 0, ci[2];
    struct scale s;

    for (size_t k = 0; k < json_array_size(r->c->general); k++)
        for (size_t i = 0; i < r->c->n; i++) {
            const json_t *const e =
                compared_set(r->c, i, "general", general_name(r, k));

            if (!compared_is_share(r->c, general_name(r, k)))
                continue;
            low = fmin(low, compared_number(e, "change"));
            high = fmax(high, compared_number(e, "change"));
            if (interval(ci, e)) {
                low = fmin(low, ci[0]);
                high = fmax(high, ci[1]);
            }
        }
    if (!(low < high))
        return;
    scale_fit(&s, low, high, false, 6);
    fputs("<figure role=\"img\" aria-label=\"Change on each general set with its 95 % "
          "interval; the table below has the numbers\"><figcaption>Change against the "
          "base in points; bars are 95 % intervals.</figcaption><div class=\"dots "
          "thin\">\n",
          r->f);
    for (size_t k = 0; k < json_array_size(r->c->general); k++) {
        if (!compared_is_share(r->c, general_name(r, k)))
            continue;
        fputs("<div class=\"group\">", r->f);
        html_name(r->f, general_name(r, k));
        fputs("</div>", r->f);
        for (size_t i = 0; i < r->c->n; i++)
            interval_row(r, &s, i,
                         compared_set(r->c, i, "general", general_name(r, k)));
    }
    html_axis(r->f, &s, NUMBER_CHANGE);
    fputs("</div></figure>\n", r->f);
}

/* ---- the table ---- */

static void change_cell(FILE *f, const json_t *e, bool share)
{
    const enum number_kind kind = share ? NUMBER_CHANGE : NUMBER_SIGNED;
    const double change = compared_number(e, "change");
    char a[48], b[48], c[48];
    double ci[2];

    if (!isfinite(change) || !interval(ci, e)) {
        html_cell(f, change, kind, NULL);
        return;
    }
    fprintf(f, "<td>%s <small>[%s, %s]</small></td>",
            number_text(a, sizeof(a), change, kind),
            number_text(b, sizeof(b), ci[0], kind),
            number_text(c, sizeof(c), ci[1], kind));
}

static void write_table(const struct report *r)
{
    html_table_begin(r->f, "t-general");
    fputs("General sets: score (or perplexity where nothing is scored), and its change "
          "against the base with a 95 % interval, in points for scores.",
          r->f);
    html_caption_end(r->f);
    fputs("<thead><tr><th scope=\"col\">set</th><th class=\"text\" "
          "scope=\"col\">method</th><th scope=\"col\">score</th><th "
          "scope=\"col\">perplexity</th><th scope=\"col\">change</th></tr></thead>\n"
          "<tbody>",
          r->f);
    for (size_t k = 0; k < json_array_size(r->c->general); k++)
        for (size_t i = 0; i < r->c->n; i++) {
            const char *const set = general_name(r, k);
            const json_t *const e = compared_set(r->c, i, "general", set);
            const bool share = compared_is_share(r->c, set);

            if (!e)
                continue;
            fputs("<tr><th scope=\"row\">", r->f);
            html_name(r->f, set);
            fputs("</th><td class=\"text\">", r->f);
            html_mark(r->f, i, NULL, NULL);
            fputc(' ', r->f);
            html_name(r->f, r->c->label[i]);
            fputs("</td>", r->f);
            html_cell(r->f, share ? compared_number(e, "score") : (double)NAN,
                      NUMBER_SHARE, NULL);
            html_cell(r->f, compared_number(e, "perplexity"), NUMBER_PLAIN, NULL);
            change_cell(r->f, e, share);
            fputs("</tr>\n", r->f);
        }
    fputs("</tbody>", r->f);
    html_table_end(r->f);
}

void report_general(const struct report *r)
{
    if (!json_array_size(r->c->general))
        return;
    write_plane(r);
    write_intervals(r);
    write_table(r);
}
