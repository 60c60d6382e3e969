/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plain append: half a line at the end is what a kill may leave, and what
 * opening it again takes away.
 */
#include "plan/steplog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "files/lines.h"
#include "files/write.h"

static void trouble(struct steplog *l, const char *doing, const char *why)
{
    char message[512];

    if (l->warned)
        return;
    l->warned = true;
    snprintf(message, sizeof(message), "cannot %s %s: %s; training goes on", doing,
             l->path ? l->path : "log.jsonl", why);
    if (l->warn)
        l->warn(l->user, message);
}

static void events_trouble(struct steplog *l)
{
    char message[512];

    if (l->events_warned)
        return;
    l->events_warned = true;
    snprintf(message, sizeof(message),
             "cannot write TensorBoard's events beside %s: %s; training goes on",
             l->path ? l->path : "log.jsonl", strerror(errno));
    if (l->warn)
        l->warn(l->user, message);
}

/* Does the line tell of a step up to LAST? Half a line does not. */
static bool is_kept(const char *text, size_t n, uint64_t last)
{
    json_t *line = json_loadb(text, n, 0, NULL);
    const json_int_t step = json_integer_value(json_object_get(line, "step"));
    const bool kept = json_is_object(line) && step >= 0 && (uint64_t)step <= last;

    json_decref(line);
    return kept;
}

static void take_back(struct steplog *l, uint64_t last_step)
{
    struct artel_error err = {0};
    struct atomic_file out;
    struct lines lines;
    const char *text;
    size_t n;

    if (access(l->path, F_OK) != 0)
        return;
    if (lines_open(&lines, l->path, &err) < 0) {
        trouble(l, "read", err.reason);
        return;
    }
    if (atomic_open(&out, l->path, &err) < 0) {
        trouble(l, "rewrite", err.reason);
        lines_release(&lines);
        return;
    }
    while (lines_next(&lines, &text, &n, &err) == 1) {
        if (is_kept(text, n, last_step)) {
            fwrite(text, 1, n, out.stream);
            fputc('\n', out.stream);
        }
    }
    lines_release(&lines);
    if (atomic_commit(&out, &err) < 0)
        trouble(l, "rewrite", err.reason);
}

void steplog_open(struct steplog *l, const char *folder, uint64_t last_step,
                  bool tensorboard, void (*warn)(void *user, const char *message),
                  void *user)
{
    *l = (struct steplog){.warn = warn, .user = user};
    l->path = path_join(folder, "log.jsonl");
    if (!l->path)
        return;
    take_back(l, last_step);
    l->f = fopen(l->path, "ae");
    if (!l->f)
        trouble(l, "open", strerror(errno));
    if (tensorboard && events_open(&l->events, folder, last_step) < 0)
        events_trouble(l);
}

void steplog_line(struct steplog *l, json_t *line)
{
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));

    if (events_line(&l->events, line) < 0)
        events_trouble(l);
    json_decref(line);
    if (text && l->f) {
        errno = 0;
        if (fputs(text, l->f) < 0 || fputc('\n', l->f) < 0 || fflush(l->f) != 0) {
            trouble(l, "write", strerror(errno));
            clearerr(l->f);
        }
    }
    free(text);
}

json_t *step_line(const struct step_report *r, uint64_t step, double epoch,
                  bool routers, bool l1)
{
    json_t *line = json_object();

    json_object_set_new(line, "step", json_integer((json_int_t)step));
    json_object_set_new(line, "epoch", json_real(epoch));
    json_object_set_new(line, "loss", json_real((double)r->loss));
    if (routers) {
        json_object_set_new(line, "router_loss", json_real((double)r->router_loss));
        json_object_set_new(line, "router_accuracy",
                            json_real((double)r->router_accuracy));
    }
    if (l1)
        json_object_set_new(line, "l1", json_real((double)r->penalty));
    if (r->balance > 0)
        json_object_set_new(line, "balance", json_real((double)r->balance));
    json_object_set_new(line, "learning_rate", json_real((double)r->rate));
    json_object_set_new(line, "grad_norm", json_real((double)r->grad_norm));
    json_object_set_new(line, "tokens", json_integer((json_int_t)r->n_tokens));
    json_object_set_new(line, "seconds", json_real(r->seconds));
    json_object_set_new(
        line, "tokens_per_second",
        json_real(r->seconds > 0 ? (double)r->n_tokens / r->seconds : 0.0));
    return line;
}

void steplog_sync(struct steplog *l)
{
    struct stat open_one, at_path;

    if (events_sync(&l->events) < 0)
        events_trouble(l);
    if (!l->f)
        return;
    if (fdatasync(fileno(l->f)) != 0)
        trouble(l, "sync", strerror(errno));
    if (fstat(fileno(l->f), &open_one) != 0 ||
        (stat(l->path, &at_path) == 0 && at_path.st_ino == open_one.st_ino &&
         at_path.st_dev == open_one.st_dev))
        return;
    trouble(l, "find", "it was moved away, a new one is begun");
    fclose(l->f);
    l->f = fopen(l->path, "ae");
}

void steplog_close(struct steplog *l)
{
    if (l->f)
        fclose(l->f);
    events_close(&l->events);
    free(l->path);
    *l = (struct steplog){0};
}
