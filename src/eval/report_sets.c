/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets down, methods across: perplexity, score, and whatever else was measured.
 */
#include <math.h>
#include <string.h>

#include "eval/report_page.h"

enum best { BEST_NONE, BEST_LOW, BEST_HIGH };

/* One table. */
struct sheet {
    const char *id, *caption; /* ours */
    const char *group, *key;
    enum number_kind kind;
    enum best best;
    bool geometric; /* the mean */
};

static const char *set_name(const json_t *sets, size_t k)
{
    return json_string_value(json_array_get(sets, k));
}

static const json_t *sets_of(const struct report *r, const char *group)
{
    return !strcmp(group, "general") ? r->c->general : r->c->domains;
}

static bool has_sheet(const struct report *r, const char *group, const char *key)
{
    const json_t *const sets = sets_of(r, group);

    for (size_t k = 0; k < json_array_size(sets); k++)
        if (compared_any(r->c, group, set_name(sets, k), key))
            return true;
    return false;
}

static void sheet_head(const struct report *r, const char *first)
{
    fprintf(r->f, "<thead><tr><th scope=\"col\">%s</th>", first);
    for (size_t i = 0; i < r->c->n; i++) {
        fputs("<th scope=\"col\">", r->f);
        html_mark(r->f, i, NULL, NULL);
        fputc(' ', r->f);
        html_name(r->f, r->c->label[i]);
        fputs("</th>", r->f);
    }
    fputs("</tr></thead>\n", r->f);
}

/* The best value of a row, where not all are the same. */
static double best_of(const struct report *r, const struct sheet *s, const char *set)
{
    double low = (double)INFINITY, high = -(double)INFINITY;

    for (size_t i = 0; i < r->c->n; i++) {
        const double v = compared_number(compared_set(r->c, i, s->group, set), s->key);

        low = fmin(low, v);
        high = fmax(high, v);
    }
    if (s->best == BEST_NONE || !(low < high))
        return (double)NAN;
    return s->best == BEST_LOW ? low : high;
}

static void sheet_row(const struct report *r, const struct sheet *s, const char *set)
{
    const double best = best_of(r, s, set);
    const double rows = compared_number(compared_set(r->c, 0, s->group, set), "rows");
    const char *const scored = compared_score_name(r->c, s->group, set);

    fputs("<tr><th scope=\"row\">", r->f);
    html_name(r->f, set);
    fputs(" <small>", r->f);
    if (isfinite(rows))
        fprintf(r->f, "%.0f rows", rows);
    if (!strcmp(s->key, "score") && *scored) {
        fputs(isfinite(rows) ? ", " : "", r->f);
        html_name(r->f, scored);
    }
    fputs("</small></th>", r->f);
    for (size_t i = 0; i < r->c->n; i++) {
        const double v = compared_number(compared_set(r->c, i, s->group, set), s->key);

        html_cell(r->f, v, s->kind, v == best ? "best" : NULL);
    }
    fputs("</tr>\n", r->f);
}

static void write_sheet(const struct report *r, const struct sheet *s)
{
    const json_t *const sets = sets_of(r, s->group);

    html_table_begin(r->f, s->id);
    fputs(s->caption, r->f);
    html_caption_end(r->f);
    sheet_head(r, "set");
    fputs("<tbody>", r->f);
    for (size_t k = 0; k < json_array_size(sets); k++)
        if (compared_any(r->c, s->group, set_name(sets, k), s->key))
            sheet_row(r, s, set_name(sets, k));
    fputs("</tbody>", r->f);
    if (s->best != BEST_NONE) {
        fprintf(r->f, "<tfoot><tr><th scope=\"row\">%s</th>",
                s->geometric ? "geometric mean" : "mean");
        for (size_t i = 0; i < r->c->n; i++)
            html_cell(r->f, compared_mean(r->c, i, s->group, s->key, s->geometric),
                      s->kind, NULL);
        fputs("</tr></tfoot>", r->f);
    }
    html_table_end(r->f);
}

/* ---- dots ---- */

static void dots_row(const struct report *r, const struct sheet *s,
                     const struct scale *scale, const char *set)
{
    fputs("<div class=\"name\">", r->f);
    html_name(r->f, set);
    fputs("</div><div class=\"track\">", r->f);
    html_ticks(r->f, scale);
    for (size_t i = 0; i < r->c->n; i++) {
        const double v = compared_number(compared_set(r->c, i, s->group, set), s->key);
        /* A little above or below its neighbours: equal values do not hide another. */
        const double top =
            50 + 44.0 * ((double)i + 0.5 - 0.5 * (double)r->c->n) / (double)r->c->n;
        char style[64], number[48], title[COMPARED_LABEL + 56];

        if (!isfinite(v))
            continue;
        snprintf(style, sizeof(style), "left:%.2f%%;top:%.0f%%", scale_at(scale, v),
                 top);
        snprintf(title, sizeof(title), "%s: %s", r->c->label[i],
                 number_text(number, sizeof(number), v, s->kind));
        html_mark(r->f, i, style, title);
    }
    fputs("</div>\n", r->f);
}

/* A picture of the table that follows; a reader who cannot see it goes on to that. */
static void write_dots(const struct report *r, const struct sheet *s,
                       const struct scale *scale, const char *what)
{
    const json_t *const sets = sets_of(r, s->group);

    report_legend(r);
    fprintf(r->f,
            "<figure role=\"img\" aria-label=\"%s of every method on each set; the "
            "table below has the numbers\"><div class=\"dots\">\n",
            what);
    for (size_t k = 0; k < json_array_size(sets); k++)
        if (compared_any(r->c, s->group, set_name(sets, k), s->key))
            dots_row(r, s, scale, set_name(sets, k));
    html_axis(r->f, scale, s->kind);
    fputs("</div></figure>\n", r->f);
}

static void range_of(const struct report *r, const struct sheet *s, double *low,
                     double *high)
{
    const json_t *const sets = sets_of(r, s->group);

    *low = (double)INFINITY;
    *high = -(double)INFINITY;
    for (size_t k = 0; k < json_array_size(sets); k++)
        for (size_t i = 0; i < r->c->n; i++) {
            const double v = compared_number(
                compared_set(r->c, i, s->group, set_name(sets, k)), s->key);

            *low = fmin(*low, v);
            *high = fmax(*high, v);
        }
}

void report_perplexity(const struct report *r)
{
    const struct sheet s = {
        .id = "t-perplexity",
        .caption = "Perplexity of the answers, lower is better; the best of a row is "
                   "marked.",
        .group = "domains",
        .key = "perplexity",
        .kind = NUMBER_PLAIN,
        .best = BEST_LOW,
        .geometric = true};
    struct scale scale;
    double low, high;

    if (!has_sheet(r, s.group, s.key))
        return;
    range_of(r, &s, &low, &high);
    fputs(
        "<p>How surprised a method is by the right answers: the fewer tokens it would "
        "have to choose among, the better. The scale is logarithmic.</p>\n",
        r->f);
    if (low > 0) {
        scale_fit(&scale, low, high, true, 8);
        write_dots(r, &s, &scale, "Perplexity");
    }
    write_sheet(r, &s);
}

void report_score(const struct report *r)
{
    const struct sheet s = {
        .id = "t-score",
        .caption = "Share of right answers, higher is better; the best of a row is "
                   "marked.",
        .group = "domains",
        .key = "score",
        .kind = NUMBER_SHARE,
        .best = BEST_HIGH};
    struct scale scale;

    if (!has_sheet(r, s.group, s.key))
        return;
    fputs(
        "<p>Answers that the methods wrote, or chose, and how many of them are right. "
        "Beside each set stands what counts as right.</p>\n",
        r->f);
    scale_fit(&scale, 0, 1, false, 5);
    write_dots(r, &s, &scale, "Score");
    write_sheet(r, &s);
}

void report_measures(const struct report *r)
{
    static const struct sheet all[] = {
        {"t-bleu", "BLEU, 0 to 100", "domains", "bleu", NUMBER_PLAIN, BEST_HIGH, false},
        {"t-rouge", "ROUGE-L", "domains", "rouge_l", NUMBER_SHARE, BEST_HIGH, false},
        {"t-judge", "A judge's rating, 0 to 10", "domains", "judge.score", NUMBER_PLAIN,
         BEST_HIGH, false},
        {"t-acc", "Multiple choice by the likelihood of the whole choice (acc)",
         "domains", "acc", NUMBER_SHARE, BEST_HIGH, false},
        {"t-accnorm", "Multiple choice by the likelihood a character (acc_norm)",
         "domains", "acc_norm", NUMBER_SHARE, BEST_HIGH, false},
        {"t-valid", "Answers that are JSON", "domains", "json_valid", NUMBER_SHARE,
         BEST_HIGH, false},
        {"t-called", "Calls with the right name", "domains", "json_name", NUMBER_SHARE,
         BEST_HIGH, false},
        {"t-right", "Rows that went to their own expert", "domains", "routing_accuracy",
         NUMBER_SHARE, BEST_NONE, false},
        {"t-entropy", "Entropy of the gates, nats", "domains", "gate_entropy",
         NUMBER_PLAIN, BEST_NONE, false},
        {"t-identity", "Share of the identity experts", "domains", "identity_share",
         NUMBER_SHARE, BEST_NONE, false},
        {"t-general-acc", "General sets: acc", "general", "acc", NUMBER_SHARE,
         BEST_HIGH, false},
        {"t-general-accnorm", "General sets: acc_norm", "general", "acc_norm",
         NUMBER_SHARE, BEST_HIGH, false},
        {"t-word", "Plain text: perplexity a word", "general", "word_perplexity",
         NUMBER_PLAIN, BEST_LOW, true},
        {"t-bits", "Plain text: bits a byte", "general", "bits_per_byte", NUMBER_PLAIN,
         BEST_LOW, false},
        {"t-speed", "Generated tokens a second", "domains", "tokens_per_second",
         NUMBER_PLAIN, BEST_NONE, false},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (!has_sheet(r, all[i].group, all[i].key))
            continue;
        fprintf(r->f, "<details><summary>%s</summary>\n", all[i].caption);
        write_sheet(r, &all[i]);
        fputs("</details>\n", r->f);
    }
}
