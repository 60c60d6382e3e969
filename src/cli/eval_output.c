/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/eval_output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const kinds[EVAL_TARGETS] = {"json", "markdown", "csv", "html"};
static const char *const names[EVAL_TARGETS] = {"results.json", "results.md",
                                                "results.csv", "report.html"};

void eval_output_options(struct options *o, struct eval_output *e)
{
    option_text(o, "markdown", &e->markdown, "FILE",
                "the table as Markdown; - is standard output");
    option_text(o, "csv", &e->csv, "FILE", "the table as CSV");
    option_text(o, "html", &e->html, "FILE",
                "a report for the browser, with curves and plots");
    option_text(o, "results", &e->results, "FOLDER",
                "results.json, results.md, results.csv and report.html in FOLDER");
    option_texts(o, "from", &e->from, "FILE",
                 "JSON results of before, to stand beside; repeatable");
}

/* ---- targets ---- */

static int place_in_folder(struct eval_output *e)
{
    struct stat st;

    if (mkdir(e->results, 0777) < 0 && errno != EEXIST)
        return report_errno(e->results, "cannot make the folder");
    if (stat(e->results, &st) < 0 || !S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return report_errno(e->results, "cannot write there");
    }
    for (size_t i = 0; i < EVAL_TARGETS; i++) {
        if (e->target[i])
            continue;
        if (snprintf(e->path[i], sizeof(e->path[i]), "%s/%s", e->results, names[i]) >=
            (int)sizeof(e->path[i])) {
            errno = ENAMETOOLONG;
            return report_errno(e->results, "cannot write there");
        }
        e->target[i] = e->path[i];
    }
    return 0;
}

int eval_output_check(struct eval_output *e, const struct common *c,
                      const struct words *inputs)
{
    const char *const asked[EVAL_TARGETS] = {c->json, e->markdown, e->csv, e->html};
    size_t n_stdout = 0;
    int rc;

    memcpy(e->target, asked, sizeof(e->target));
    if (e->results && (rc = place_in_folder(e)))
        return rc;
    for (size_t i = 0; i < EVAL_TARGETS; i++) {
        const char *const t = e->target[i];

        rc = json_check_target("eval", t, inputs->at, inputs->n);
        if (rc)
            return rc;
        n_stdout += t && !strcmp(t, "-");
        for (size_t k = 0; k < i; k++)
            if (t && e->target[k] && strcmp(t, "-") != 0 && !strcmp(t, e->target[k]))
                return usage_error("eval", "", "USE06",
                                   "two results cannot share a file");
    }
    return n_stdout > 1
               ? usage_error("eval", "", "USE06",
                             "--json, --markdown, --csv and --html cannot share "
                             "standard output")
               : 0;
}

/* ---- results of before ---- */

static const char *text_of(const json_t *o, const char *key)
{
    const char *const text = json_string_value(json_object_get(o, key));

    return text ? text : "";
}

/* The base is measured with every evaluation; once is enough. */
static bool is_there(const json_t *methods, const json_t *method)
{
    if (strcmp(text_of(method, "name"), "base") != 0)
        return false;
    for (size_t i = 0; i < json_array_size(methods); i++)
        if (!strcmp(text_of(json_array_get(methods, i), "name"), "base") &&
            !strcmp(text_of(json_array_get(methods, i), "path"),
                    text_of(method, "path")))
            return true;
    return false;
}

static void take_methods(json_t *all, const json_t *root)
{
    const json_t *const methods = json_object_get(root, "methods");

    for (size_t i = 0; i < json_array_size(methods); i++)
        if (!is_there(all, json_array_get(methods, i)))
            json_array_append(all, json_array_get(methods, i));
}

static int take_file(json_t *all, const char *path)
{
    struct artel_error err = {.exit = 3, .code = "EVL03"};
    json_error_t why;
    json_t *root;

    if (access(path, R_OK) < 0)
        return report_errno(path, "cannot open");
    root = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    snprintf(err.file, sizeof(err.file), "%s", path);
    if (!root) {
        if (why.line > 0)
            snprintf(err.where, sizeof(err.where), "%d:%d", why.line, why.column);
        artel_escape(err.reason, sizeof(err.reason), why.text, strlen(why.text));
        return report_error(&err);
    }
    if (!json_is_array(json_object_get(root, "methods"))) {
        json_decref(root);
        snprintf(err.where, sizeof(err.where), "methods");
        snprintf(err.reason, sizeof(err.reason),
                 "these are no results of artel eval --json");
        return report_error(&err);
    }
    take_methods(all, root);
    json_decref(root);
    return 0;
}

int eval_output_join(char **json, const struct eval_output *e)
{
    json_t *root, *all, *now = NULL;
    int rc = 0;

    if (!e->from.n)
        return 0;
    now = *json ? json_loads(*json, 0, NULL) : NULL;
    root = now ? json_incref(now) : json_object();
    all = json_array();
    for (size_t i = 0; !rc && i < e->from.n; i++)
        rc = take_file(all, e->from.at[i]);
    if (!rc) {
        take_methods(all, now);
        json_object_set(root, "methods", all);
        artel_free(*json);
        *json = json_dumps(root, JSON_INDENT(2));
        rc = *json ? 0 : EXIT_LIMIT;
    }
    json_decref(all);
    json_decref(root);
    json_decref(now);
    return rc;
}

/* ---- writing ---- */

static int write_table(const char *json, const char *kind, const char *target)
{
    struct artel_error err = {0};
    char *table = NULL;
    int rc;

    if (artel_eval_table(&table, json, kind, &err) < 0)
        return report_error(&err);
    rc = text_write(target, table);
    artel_free(table);
    return rc;
}

int eval_output_write(const struct eval_output *e, const char *json)
{
    bool taken = false;
    int rc = e->target[0] ? text_write(e->target[0], json) : 0;

    for (size_t i = 0; i < EVAL_TARGETS; i++)
        taken = taken || (e->target[i] && !strcmp(e->target[i], "-"));
    if (!rc && !taken)
        rc = write_table(json, "text", "-");
    for (size_t i = 1; !rc && i < EVAL_TARGETS; i++)
        if (e->target[i])
            rc = write_table(json, kinds[i], e->target[i]);
    return rc;
}
