/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line as a table: each command lists its options, and parsing, the
 * checks of values, and the help text all follow from the list.
 *
 * A value stands after a blank or "="; "--" ends the options; "-" is a value. An
 * option that stands for one thing may be given once.
 */
#ifndef ARTEL_CLI_OPTIONS_H
#define ARTEL_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OPTIONS_MAX 40
#define WORDS_MAX   1024

/* Exit codes of the program; 1 to 7 are those of struct artel_error. */
enum { EXIT_DONE = 0, EXIT_BUG = 1, EXIT_WRONG_USE = 2, EXIT_IO = 4, EXIT_LIMIT = 5 };

/* Words of the command line, borrowed from it. */
struct words {
    const char *at[WORDS_MAX];
    size_t n;
};

enum option_kind {
    OPTION_FLAG,
    OPTION_TEXT,
    OPTION_TEXTS,
    OPTION_WHOLE,
    OPTION_REAL,
    OPTION_BYTES
};

struct option {
    const char *name; /* "max-tokens" */
    enum option_kind kind;
    void *out;       /* bool, const char *, struct words, uint64_t, double, size_t */
    const char *arg; /* "N" in the help; for OPTION_TEXT "a|b|c" lists what may stand */
    const char *help;
    double min, max;   /* of numbers, both included */
    const char *given; /* its value on the command line, or NULL */
};

struct options {
    const char *command; /* "run" */
    const char *usage;   /* "MIXTURE --prompt-file FILE" */
    const char *about;   /* what it does, a paragraph */
    const char *examples;
    size_t min_words, max_words; /* words that are no options */
    size_t n;
    struct option at[OPTIONS_MAX];
};

void option_flag(struct options *o, const char *name, bool *out, const char *help);
void option_text(struct options *o, const char *name, const char **out, const char *arg,
                 const char *help);
void option_texts(struct options *o, const char *name, struct words *out,
                  const char *arg, const char *help); /* may be given several times */
void option_whole(struct options *o, const char *name, uint64_t *out, uint64_t min,
                  uint64_t max, const char *help);
void option_real(struct options *o, const char *name, double *out, double min,
                 double max, const char *help);
void option_bytes(struct options *o, const char *name, size_t *out, const char *help);

/* Was option NAME on the command line? */
bool option_given(const struct options *o, const char *name);

/*
 * Read ARGV (from the first word after the command's name). True: go on, WORDS holds what
 * is no option. False: leave with *EXIT_CODE, help or the reason has been printed.
 */
bool options_parse(struct options *o, int argc, char **argv, struct words *words,
                   int *exit_code);

/* "error: artel COMMAND: WHERE: ... [CODE]" to standard error. Returns EXIT_WRONG_USE. */
int usage_error(const char *command, const char *where, const char *code,
                const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* The name of NAMES (n) nearest to WORD, or NULL where none is near. */
const char *option_nearest(const char *word, const char *const *names, size_t n);

#endif
