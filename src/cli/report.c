/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON goes to a temporary beside its target and takes its place when complete;
 * what is no regular file (a pipe, a device) is written as it is.
 */
#include "cli/report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/options.h"
#include "cli/signals.h"

#define THREADS_MAX    1024
#define PROGRESS_EVERY 10.0 /* seconds, where there is no terminal */
#define STDIN_PREFIX   "/proc/self/fd/"

void compute_options(struct options *o, struct common *c)
{
    c->precision = "auto";
    option_text(o, "model", &c->model, "PATH",
                "the base, for an adapter folder or where the recorded one has moved");
    option_flag(o, "force", &c->force, "accept experts made for another base");
    option_flag(o, "nonfinite", &c->nonfinite,
                "accept a base with weights that are NaN or infinite");
    option_whole(o, "threads", &c->threads, 1, THREADS_MAX,
                 "threads to compute with; one a CPU where not given");
    option_text(o, "precision", &c->precision, "auto|fp32|bf16",
                "of weights and activations in large products; auto is bf16 where the "
                "CPU multiplies it faster than floats");
    option_bytes(o, "memory", &c->memory, "that may be used, such as 4G");
}

void common_options(struct options *o, struct common *c)
{
    c->seed = 1;
    compute_options(o, c);
    option_text(o, "json", &c->json, "FILE",
                "results as JSON; - is standard output, and nothing else goes there");
    option_whole(o, "seed", &c->seed, 0, UINT32_MAX,
                 "of everything random; 1 where not given");
}

int common_start(const struct common *c)
{
    struct artel_error err = {0};

    signals_stop_in_order();
    return artel_set_threads((size_t)c->threads, &err) < 0 ? report_error(&err) : 0;
}

struct artel_open_options common_open(const struct common *c)
{
    struct artel_open_options o;

    artel_open_options_default(&o);
    o.model = c->model;
    o.precision = c->precision;
    o.memory_bytes = c->memory;
    o.force = c->force;
    o.nonfinite = c->nonfinite;
    return o;
}

struct artel_mixture *common_mixture(const struct common *c, const char *path,
                                     int *exit_code)
{
    const struct artel_open_options o = common_open(c);
    struct artel_mixture *m = NULL;
    struct artel_error err = {0};

    if (artel_mixture_open(&m, path, NULL, &o, &err) < 0)
        *exit_code = report_error(&err);
    return m;
}

int report_error(const struct artel_error *err)
{
    struct artel_error shown = *err;
    char text[1024];

    if (!strncmp(shown.file, STDIN_PREFIX, strlen(STDIN_PREFIX)))
        strcpy(shown.file, "standard input");
    if (err->exit == -ARTEL_ESTOPPED) {
        fprintf(stderr, "stopped: %s\n", shown.reason);
        return stop_signal ? signals_exit_code() : EXIT_BUG;
    }
    fprintf(stderr, "error: %s\n", artel_error_text(text, sizeof(text), &shown));
    return err->exit ? err->exit : EXIT_BUG;
}

int report_errno(const char *path, const char *doing)
{
    char name[512];
    const int number = errno;

    artel_escape(name, sizeof(name), path, strlen(path));
    fprintf(stderr, "error: %s: %s: %s [IO01]\n", name, doing, strerror(number));
    return EXIT_IO;
}

bool json_takes_stdout(const struct common *c)
{
    return c->json && !strcmp(c->json, "-");
}

static bool is_same_file(const char *x, const char *y)
{
    struct stat sx, sy;

    return stat(x, &sx) == 0 && stat(y, &sy) == 0 && sx.st_dev == sy.st_dev &&
           sx.st_ino == sy.st_ino;
}

/* The folder of PATH into OUT, ended. */
static void folder_of(char *out, size_t size, const char *path)
{
    const char *const slash = strrchr(path, '/');

    if (!slash)
        snprintf(out, size, ".");
    else
        snprintf(out, size, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* A file that the folder INPUT, or one in it, is made of: not to be written over. */
static bool is_part_of(const char *path, const char *input)
{
    static const char *const ends[] = {"mixture.json",   "config.json", "artel.json",
                                       "tokenizer.json", ".index.json", "stage.json",
                                       "state.json",     "recipe.yaml", ".safetensors",
                                       ".gguf",          ".jsonl",      ".lock"};
    char *const file = realpath(path, NULL);
    char *const folder = file ? realpath(input, NULL) : NULL;
    const size_t n = folder ? strlen(folder) : 0;
    bool part = false;

    if (folder && !strncmp(file, folder, n) && file[n] == '/')
        for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
            const size_t length = strlen(ends[i]), all = strlen(file);

            part = part || (all > length && !strcmp(file + all - length, ends[i]));
        }
    free(folder);
    free(file);
    return part;
}

int json_check_target(const char *command, const char *json, const char *const *inputs,
                      size_t n)
{
    char folder[4096];
    struct stat st;

    if (!json || !strcmp(json, "-"))
        return 0;
    for (size_t i = 0; i < n; i++)
        if (inputs[i] && (is_same_file(json, inputs[i]) || is_part_of(json, inputs[i])))
            return usage_error(command, "--json", "USE06",
                               "the output is an input at the same time");
    if (stat(json, &st) == 0 && S_ISDIR(st.st_mode)) {
        errno = EISDIR;
        return report_errno(json, "cannot write there");
    }
    folder_of(folder, sizeof(folder), json);
    if (access(folder, W_OK) < 0)
        return report_errno(json, "cannot write there");
    return 0;
}

static bool is_ended(const char *text)
{
    return *text && text[strlen(text) - 1] == '\n';
}

/* TEXT to stream F, which is closed. */
static int write_all(FILE *f, const char *text, const char *path, bool sync)
{
    const bool good = fputs(text, f) >= 0 &&
                      (is_ended(text) || fputc('\n', f) != EOF) && fflush(f) == 0 &&
                      (!sync || fsync(fileno(f)) == 0);
    const int number = errno;

    if (fclose(f) == 0 && good)
        return 0;
    errno = good ? errno : number;
    return report_errno(path, "cannot write");
}

int text_write(const char *path, const char *text)
{
    char temporary[4200];
    struct stat st;
    FILE *f;
    int rc;

    if (!strcmp(path, "-")) {
        fputs(text, stdout);
        if (!is_ended(text))
            fputc('\n', stdout);
        return 0;
    }
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        f = fopen(path, "w");
        return f ? write_all(f, text, path, false) : report_errno(path, "cannot open");
    }
    if (snprintf(temporary, sizeof(temporary), "%s.artel-tmp.%ld", path,
                 (long)getpid()) >= (int)sizeof(temporary)) {
        errno = ENAMETOOLONG;
        return report_errno(path, "cannot create");
    }
    f = fopen(temporary, "wx");
    if (!f)
        return report_errno(path, "cannot create");
    rc = write_all(f, text, path, true);
    if (!rc && rename(temporary, path) < 0)
        rc = report_errno(path, "cannot rename to");
    if (rc)
        unlink(temporary);
    return rc;
}

int json_write(const char *json, json_t *value)
{
    char *const text = value ? json_dumps(value, JSON_INDENT(1)) : NULL;
    int rc;

    json_decref(value);
    if (!text) {
        fprintf(stderr, "error: results: not enough memory, or text that is no UTF-8 "
                        "[MEM01]\n");
        return EXIT_LIMIT;
    }
    rc = text_write(json, text);
    free(text);
    return rc;
}

json_t *json_number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

int input_path(const char **out, const char *path)
{
    static char name[64]; /* the program reads standard input once */
    char buffer[8192];
    FILE *f;
    size_t n;

    *out = path;
    if (strcmp(path, "-"))
        return 0;
    f = tmpfile();
    if (!f)
        return report_errno("standard input", "cannot make a temporary file for");
    while ((n = fread(buffer, 1, sizeof(buffer), stdin)) > 0)
        if (fwrite(buffer, 1, n, f) != n)
            return report_errno("standard input", "cannot keep");
    if (ferror(stdin) || fflush(f))
        return report_errno("standard input", "cannot read");
    snprintf(name, sizeof(name), STDIN_PREFIX "%d", fileno(f));
    *out = name; /* the stream stays open until the program ends */
    return 0;
}

double seconds_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_init(struct progress *p)
{
    *p = (struct progress){.terminal = isatty(STDERR_FILENO), .last = seconds_now()};
}

void progress_line(struct progress *p, const char *line, bool force)
{
    const double now = seconds_now();

    if (p->terminal) {
        fprintf(stderr, "\r%.118s\033[K", line);
        p->dirty = true;
    } else if (force || now - p->last >= PROGRESS_EVERY) {
        fprintf(stderr, "%s\n", line);
        p->last = now;
    }
}

void progress_clear(struct progress *p)
{
    if (p->dirty)
        fprintf(stderr, "\r\033[K");
    p->dirty = false;
}

const char *duration_text(char *out, size_t size, double seconds)
{
    const long s = seconds > 0 && seconds < 1e8 ? (long)(seconds + 0.5) : 0;

    if (s >= 3600)
        snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
    return out;
}
