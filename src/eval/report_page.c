/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page around the sections, the overview, and where the numbers come from.
 */
#include "eval/report_page.h"

#include <math.h>
#include <stdlib.h>
#include <stdint.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"
#include "files/write.h"

#define FILE_MAX_BYTES ((size_t)64 << 20)

static const struct section {
    const char *id, *title;
    void (*write)(const struct report *r);
} sections[] = {
    {"overview", "Overview", report_overview},
    {"perplexity", "Perplexity of the answers", report_perplexity},
    {"score", "Scores", report_score},
    {"measures", "Other measures", report_measures},
    {"general", "Gain and forgetting", report_general},
    {"confusion", "Where rows were sent", report_confusion},
    {"layers", "Routing by layer", report_layers},
    {"training", "Training", report_training},
    {"origin", "Where this comes from", report_origin},
};
#define N_SECTIONS (sizeof(sections) / sizeof(sections[0]))

void report_legend(const struct report *r)
{
    fputs("<ul class=\"legend\">", r->f);
    for (size_t i = 0; i < r->c->n; i++) {
        fputs("<li>", r->f);
        html_mark(r->f, i, NULL, NULL);
        html_name(r->f, r->c->label[i]);
        fputs("</li>", r->f);
    }
    fputs("</ul>\n", r->f);
}

/* ---- overview ---- */

struct column {
    const char *title;
    enum number_kind kind;
    double (*value)(const struct compared *c, size_t i);
};

static double mean_perplexity(const struct compared *c, size_t i)
{
    return compared_mean(c, i, "domains", "perplexity", true);
}

static double mean_score(const struct compared *c, size_t i)
{
    return compared_mean(c, i, "domains", "score", false);
}

static double routed_right(const struct compared *c, size_t i)
{
    return compared_number(compared_method(c, i), "routing_accuracy");
}

/* What took nothing has no cost to show: the base, or what was only bundled. */
static double above_zero(double v)
{
    return v > 0 ? v : (double)NAN;
}

static double parameters(const struct compared *c, size_t i)
{
    return above_zero(compared_number(compared_method(c, i), "trainable_parameters"));
}

static double tokens(const struct compared *c, size_t i)
{
    return above_zero(compared_number(compared_method(c, i), "tokens"));
}

static double steps(const struct compared *c, size_t i)
{
    return above_zero(compared_number(compared_method(c, i), "steps"));
}

static double minutes(const struct compared *c, size_t i)
{
    return above_zero(compared_number(compared_method(c, i), "seconds") / 60);
}

static const struct column columns[] = {
    {"perplexity<br><small>geometric mean</small>", NUMBER_PLAIN, mean_perplexity},
    {"score<br><small>mean</small>", NUMBER_SHARE, mean_score},
    {"routed<br>right", NUMBER_SHARE, routed_right},
    {"general sets<br><small>change, points</small>", NUMBER_CHANGE, compared_change},
    {"trained<br>parameters", NUMBER_COUNT, parameters},
    {"training<br>tokens", NUMBER_COUNT, tokens},
    {"steps", NUMBER_COUNT, steps},
    {"minutes", NUMBER_PLAIN, minutes},
};

static bool is_told(const struct compared *c, const struct column *col)
{
    for (size_t i = 0; i < c->n; i++)
        if (isfinite(col->value(c, i)))
            return true;
    return false;
}

void report_overview(const struct report *r)
{
    const size_t n = sizeof(columns) / sizeof(columns[0]);

    html_table_begin(r->f, "t-overview");
    fputs("Means over the domains, and what it took to train.", r->f);
    html_caption_end(r->f);
    fputs("<thead><tr><th scope=\"col\">method</th>", r->f);
    for (size_t k = 0; k < n; k++)
        if (is_told(r->c, &columns[k]))
            fprintf(r->f, "<th scope=\"col\">%s</th>", columns[k].title);
    fputs("</tr></thead>\n<tbody>", r->f);
    for (size_t i = 0; i < r->c->n; i++) {
        fputs("<tr><th scope=\"row\">", r->f);
        html_mark(r->f, i, NULL, NULL);
        fputc(' ', r->f);
        html_name(r->f, r->c->label[i]);
        fputs("</th>", r->f);
        for (size_t k = 0; k < n; k++)
            if (is_told(r->c, &columns[k]))
                html_cell(r->f, columns[k].value(r->c, i), columns[k].kind, NULL);
        fputs("</tr>\n", r->f);
    }
    fputs("</tbody>", r->f);
    html_table_end(r->f);
}

/* ---- where it comes from ---- */

static void term(FILE *f, const char *what, const char *text, bool digest)
{
    if (!*text)
        return;
    fprintf(f, "<dt>%s</dt><dd%s>", what, digest ? " class=\"digest\"" : "");
    html_name(f, text);
    fputs("</dd>\n", f);
}

/* Every value below O as "a.b.c = 1". */
static void settings(FILE *f, const json_t *o, const char *prefix)
{
    json_t *value;
    const char *key;

    json_object_foreach((json_t *)(uintptr_t)o, key, value)
    {
        char name[200];
        char *text;

        snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
        if (json_is_object(value)) {
            if (strlen(name) < 100)
                settings(f, value, name);
            continue;
        }
        text = json_is_string(value)
                   ? strdup(json_string_value(value))
                   : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
        fputs("<li>", f);
        html_text(f, name);
        fputs(" = ", f);
        html_name(f, text ? text : "");
        fputs("</li>", f);
        free(text);
    }
}

static void settings_list(FILE *f, const char *title, const json_t *o)
{
    if (!json_object_size(o))
        return;
    fprintf(f, "<details><summary>%s</summary><ul class=\"settings\">", title);
    settings(f, o, "");
    fputs("</ul></details>\n", f);
}

static void data_digests(FILE *f, const json_t *mixture)
{
    const json_t *const domains = json_object_get(mixture, "domains");

    if (!json_array_size(domains))
        return;
    fputs("<details><summary>Training text</summary><dl>", f);
    for (size_t i = 0; i < json_array_size(domains); i++) {
        const json_t *const d = json_array_get(domains, i);

        fputs("<dt>", f);
        html_name(f, compared_text(d, "name"));
        fputs("</dt><dd>", f);
        html_name(f, compared_text(d, "train"));
        fputs("<br><span class=\"digest\">", f);
        html_text(f, compared_text(d, "train_digest"));
        fputs("</span></dd>\n", f);
    }
    fputs("</dl></details>\n", f);
}

/* What method I says of itself on disk, or NULL: it is no mixture, or gone. Owned. */
static json_t *mixture_of(const struct compared *c, size_t i)
{
    char *file =
        path_join(compared_text(compared_method(c, i), "path"), "mixture.json");
    json_t *mixture = NULL;

    if (file && json_read_file(&mixture, file, FILE_MAX_BYTES, NULL) < 0)
        mixture = NULL;
    free(file);
    return mixture;
}

static void origin_of(const struct report *r, size_t i)
{
    const json_t *const method = compared_method(r->c, i);
    json_t *mixture = mixture_of(r->c, i);
    const json_t *base;
    char text[48];

    fputs("<h3>", r->f);
    html_mark(r->f, i, NULL, NULL);
    fputc(' ', r->f);
    html_name(r->f, r->c->label[i]);
    fputs("</h3><dl>", r->f);
    term(r->f, "path", compared_text(method, "path"), false);
    if (json_is_number(json_object_get(method, "seed")))
        term(r->f, "seed",
             number_text(text, sizeof(text), compared_number(method, "seed"),
                         NUMBER_COUNT),
             false);
    if (mixture) {
        base = json_object_get(mixture, "base");
        term(r->f, "written by artel", compared_text(mixture, "artel_version"), false);
        term(r->f, "base", compared_text(base, "path"), false);
        term(r->f, "digest of the base", compared_text(base, "digest"), true);
        term(r->f, "of its tokenizer", compared_text(base, "tokenizer_digest"), true);
        term(r->f, "of its chat template", compared_text(base, "chat_digest"), true);
        term(r->f, "of the routers",
             compared_text(json_object_get(mixture, "router"), "digest"), true);
    }
    fputs("</dl>\n", r->f);
    data_digests(r->f, mixture);
    settings_list(r->f, "Settings", json_object_get(mixture, "settings"));
    json_decref(mixture);
}

void report_origin(const struct report *r)
{
    settings_list(r->f, "How it was measured", json_object_get(r->c->root, "settings"));
    for (size_t i = 0; i < r->c->n; i++)
        origin_of(r, i);
    fputs("<p class=\"soft\">Written by artel " ARTEL_VERSION
          ". Digests are SHA-256.</p>\n",
          r->f);
}

/* ---- the page ---- */

static void write_head(FILE *f)
{
    /* Nothing may be fetched and nothing may run, whatever a name tries. */
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
          "style-src 'unsafe-inline'\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n"
          "<title>Evaluation</title>\n<style>\n",
          f);
    fprintf(f, "%s@media (prefers-color-scheme: dark) {\n%s}\n%s", palette_css,
            palette_dark_css, report_css);
    fputs("</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#main\">To the "
          "results</a>\n<header>\n<h1>Evaluation</h1>\n",
          f);
}

static void counted(FILE *f, size_t n, const char *what)
{
    fprintf(f, "%zu %s%s", n, what, n == 1 ? "" : "s");
}

static void write_summary(FILE *f, const struct compared *c)
{
    size_t n_bases = 0, n;

    for (size_t i = 0; i < c->n; i++)
        n_bases += compared_is_base(c, i);
    n = c->n - n_bases;
    fputs("<p>", f);
    if (n_bases == 1)
        fputs("The base alone", f);
    else if (n_bases)
        fprintf(f, "%zu bases alone", n_bases);
    if (n_bases && n)
        fputs(" and ", f);
    if (n)
        counted(f, n, "method");
    fputs(" on ", f);
    counted(f, json_array_size(c->domains), "domain");
    if (json_array_size(c->general)) {
        fputs(" and ", f);
        counted(f, json_array_size(c->general), "general set");
    }
    fputs(".</p>\n", f);
}

/* The bases that the mixtures were made over; mostly one. */
static void write_bases(FILE *f, const struct compared *c)
{
    json_t *seen = json_object();

    fputs("<dl>", f);
    for (size_t i = 0; i < c->n; i++) {
        json_t *mixture = mixture_of(c, i);
        const json_t *const base = json_object_get(mixture, "base");
        const char *const digest = compared_text(base, "digest");
        const char *const path = compared_text(base, "path");

        if (*digest && !json_object_get(seen, digest)) {
            json_object_set_new(seen, digest, json_true());
            term(f, "base", strrchr(path, '/') ? strrchr(path, '/') + 1 : path, false);
            term(f, "its digest", digest, true);
        }
        json_decref(mixture);
    }
    fputs("</dl>\n", f);
    json_decref(seen);
}

static void write_page(FILE *f, const struct compared *c, char **texts)
{
    write_head(f);
    write_summary(f, c);
    write_bases(f, c);
    fputs("<nav aria-label=\"Sections\"><ul>", f);
    for (size_t i = 0; i < N_SECTIONS; i++)
        if (texts[i][0])
            fprintf(f, "<li><a href=\"#%s\">%s</a></li>", sections[i].id,
                    sections[i].title);
    fputs("</ul></nav>\n</header>\n<main id=\"main\">\n", f);
    for (size_t i = 0; i < N_SECTIONS; i++)
        if (texts[i][0])
            fprintf(f,
                    "<section aria-labelledby=\"%s\">\n<h2 "
                    "id=\"%s\">%s</h2>\n%s</section>\n",
                    sections[i].id, sections[i].id, sections[i].title, texts[i]);
    fputs("</main>\n</body>\n</html>\n", f);
}

int report_page(char **out, const struct compared *c, struct artel_error *err)
{
    char *texts[N_SECTIONS] = {NULL};
    size_t n = 0;
    bool bad = false;
    FILE *f;

    *out = NULL;
    for (size_t i = 0; i < N_SECTIONS && !bad; i++) {
        struct report r = {.f = open_memstream(&texts[i], &n), .c = c};

        if (r.f)
            sections[i].write(&r);
        bad = !r.f || fclose(r.f) != 0;
    }
    f = bad ? NULL : open_memstream(out, &n);
    if (f)
        write_page(f, c, texts);
    bad = !f || fclose(f) != 0;
    for (size_t i = 0; i < N_SECTIONS; i++)
        free(texts[i]);
    if (!bad)
        return 0;
    free(*out);
    *out = NULL;
    return error_nomem(err, n);
}
