/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage may have a second part below it ("refresh"), so that folders are looked at two
 * deep.
 */
#include "eval/stage_log.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "artel.h"
#include "files/json.h"
#include "files/lines.h"
#include "files/write.h"

#define STAGES_MAX      1000
#define STAGE_MAX_BYTES ((size_t)16 << 20)

static const char *const keys[N_SERIES] = {"loss", "eval_loss", "router_accuracy",
                                           "eval_router_accuracy"};

static int series_add(struct series *s, double step, double value)
{
    if (s->n == s->room) {
        const size_t room = 2 * s->room + 64;
        double *const steps = realloc(s->step, room * sizeof(*steps));
        double *values;

        if (!steps)
            return ARTEL_ELIMIT;
        s->step = steps;
        values = realloc(s->value, room * sizeof(*values));
        if (!values)
            return ARTEL_ELIMIT;
        s->value = values;
        s->room = room;
    }
    s->step[s->n] = step;
    s->value[s->n++] = value;
    return 0;
}

static int read_line(struct stage_log *log, const char *text, size_t n)
{
    const json_t *step;
    json_t *line = NULL;
    int rc = 0;

    if (json_parse(&line, text, n, "log.jsonl", 0, NULL) < 0)
        return 0;
    step = json_object_get(line, "step");
    for (size_t i = 0; rc == 0 && json_is_integer(step) && i < N_SERIES; i++) {
        const json_t *const v = json_object_get(line, keys[i]);

        if (json_is_number(v))
            rc = series_add(&log->series[i], json_number_value(step),
                            json_number_value(v));
    }
    json_decref(line);
    return rc;
}

static int read_log(struct stage_log *log, const char *path)
{
    struct lines lines;
    const char *text;
    size_t n;
    int rc = 0;

    if (lines_open(&lines, path, NULL) < 0)
        return 0;
    while (rc == 0 && lines_next(&lines, &text, &n, NULL) == 1)
        rc = read_line(log, text, n);
    lines_release(&lines);
    return rc;
}

static json_t *read_summary(const char *folder)
{
    char *path = path_join(folder, "stage.json");
    json_t *root = NULL, *summary;

    if (path)
        json_read_file(&root, path, STAGE_MAX_BYTES, NULL);
    summary = json_incref(json_object_get(root, "summary"));
    json_decref(root);
    free(path);
    return summary;
}

static void log_release(struct stage_log *log)
{
    for (size_t i = 0; i < N_SERIES; i++) {
        free(log->series[i].step);
        free(log->series[i].value);
    }
    json_decref(log->summary);
    free(log->name);
}

void stage_logs_free(struct stage_log *logs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        log_release(&logs[i]);
    free(logs);
}

/* The stage NAME of TRAIN at the end of the list, where it has a log. */
static int add_stage(struct stage_log **out, size_t *n, const char *train,
                     const char *name)
{
    char *folder = path_join(train, name);
    char *path = folder ? path_join(folder, "log.jsonl") : NULL;
    struct stage_log *more;
    int rc = path ? 0 : ARTEL_ELIMIT;

    if (rc == 0 && access(path, R_OK) == 0 && *n < STAGES_MAX) {
        more = realloc(*out, (*n + 1) * sizeof(*more));
        rc = more ? 0 : ARTEL_ELIMIT;
        if (more) {
            *out = more;
            more += (*n)++;
            *more = (struct stage_log){.name = strdup(name)};
            rc = more->name ? read_log(more, path) : ARTEL_ELIMIT;
            more->summary = read_summary(folder);
        }
    }
    free(path);
    free(folder);
    return rc;
}

static int is_visible(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static int read_stages(struct stage_log **out, size_t *n, const char *train)
{
    struct dirent **names = NULL;
    const int found = scandir(train, &names, is_visible, alphasort);
    int rc = 0;

    for (int i = 0; i < found; i++) {
        char second[300];

        snprintf(second, sizeof(second), "%s/refresh", names[i]->d_name);
        if (rc == 0)
            rc = add_stage(out, n, train, names[i]->d_name);
        if (rc == 0)
            rc = add_stage(out, n, train, second);
        free(names[i]);
    }
    free(names);
    return rc;
}

int stage_logs_read(struct stage_log **out, size_t *n, const char *path)
{
    char *description = path_join(path, "mixture.json");
    char *train = path_join(path, "../train");
    int rc = description && train ? 0 : ARTEL_ELIMIT;

    *out = NULL;
    *n = 0;
    if (rc == 0 && access(description, F_OK) == 0)
        rc = read_stages(out, n, train);
    free(description);
    free(train);
    if (rc < 0) {
        stage_logs_free(*out, *n);
        *out = NULL;
        *n = 0;
    }
    return rc;
}
