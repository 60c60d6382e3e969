/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What commands share: options of everything that computes, errors and JSON on
 * their way out, a line of progress, standard input as a file.
 */
#ifndef ARTEL_CLI_REPORT_H
#define ARTEL_CLI_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "artel.h"

struct options;

/* Options that every computing command takes. */
struct common {
    uint64_t threads, seed; /* threads 0: one a CPU */
    const char *precision;  /* "auto" */
    const char *model;      /* base beside an adapter, or NULL */
    size_t memory;          /* bytes; 0: what the machine has */
    const char *json;       /* FILE or "-", or NULL */
    bool force, nonfinite;
};
void common_options(struct options *o, struct common *c);
/* Those of them that say how to compute: without --json and --seed. */
void compute_options(struct options *o, struct common *c);
/* Threads and signals. 0, or an exit code after the error was printed. */
int common_start(const struct common *c);
struct artel_open_options common_open(const struct common *c);
/* Open what the command works on; NULL after the error was printed into *EXIT_CODE. */
struct artel_mixture *common_mixture(const struct common *c, const char *path,
                                     int *exit_code);

/* "error: ..." to standard error; returns the exit code. */
int report_error(const struct artel_error *err);
/* The same for a failure of the program's own files, from errno. */
int report_errno(const char *path, const char *doing);

/* Is JSON asked for on standard output? Then nothing else goes there. */
bool json_takes_stdout(const struct common *c);
/* Can --json FILE be written, and is it none of the inputs? Before the work starts. */
int json_check_target(const char *command, const char *json, const char *const *inputs,
                      size_t n);
/* VALUE (taken over) to FILE or "-". Returns an exit code. */
int json_write(const char *json, json_t *value);
json_t *json_number(double v); /* null where it is not finite */
/* The same for text that is JSON or a table already. */
int text_write(const char *path, const char *text);

/* "-" becomes a file that holds standard input: its path in OUT. Else PATH itself. */
int input_path(const char **out, const char *path);

/* One line that is written over on a terminal. Elsewhere only now and then. */
struct progress {
    bool terminal;
    double last; /* seconds, when the last line was written */
    bool dirty;  /* a line is on the screen */
};
void progress_init(struct progress *p);
/* FORCE: a line elsewhere too, however soon after the last. */
void progress_line(struct progress *p, const char *line, bool force);
void progress_clear(struct progress *p);

double seconds_now(void); /* of a clock that only goes forward */
/* "1:02:03" or "2:03". */
const char *duration_text(char *out, size_t size, double seconds);

#endif
