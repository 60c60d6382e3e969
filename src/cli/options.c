/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers are read strictly: no blanks, no sign, no hexadecimal, a dot and never
 * a comma, whatever the locale says.
 */
#include "cli/options.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "artel.h"
#include "cli/help.h"

#define NAME_MAX_LENGTH 64

static struct option *add(struct options *o, const char *name, enum option_kind kind,
                          void *out, const char *arg, const char *help)
{
    struct option *const p = &o->at[o->n++];

    *p = (struct option){
        .name = name, .kind = kind, .out = out, .arg = arg, .help = help};
    return p;
}

void option_flag(struct options *o, const char *name, bool *out, const char *help)
{
    add(o, name, OPTION_FLAG, out, NULL, help);
}

void option_text(struct options *o, const char *name, const char **out, const char *arg,
                 const char *help)
{
    add(o, name, OPTION_TEXT, out, arg, help);
}

void option_texts(struct options *o, const char *name, struct words *out,
                  const char *arg, const char *help)
{
    add(o, name, OPTION_TEXTS, out, arg, help);
}

void option_whole(struct options *o, const char *name, uint64_t *out, uint64_t min,
                  uint64_t max, const char *help)
{
    struct option *const p = add(o, name, OPTION_WHOLE, out, "N", help);

    p->min = (double)min;
    p->max = (double)max;
}

void option_real(struct options *o, const char *name, double *out, double min,
                 double max, const char *help)
{
    struct option *const p = add(o, name, OPTION_REAL, out, "X", help);

    p->min = min;
    p->max = max;
}

void option_bytes(struct options *o, const char *name, size_t *out, const char *help)
{
    add(o, name, OPTION_BYTES, out, "SIZE", help);
}

bool option_given(const struct options *o, const char *name)
{
    for (size_t i = 0; i < o->n; i++)
        if (!strcmp(o->at[i].name, name))
            return o->at[i].given != NULL;
    return false;
}

int usage_error(const char *command, const char *where, const char *code,
                const char *fmt, ...)
{
    char reason[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(reason, sizeof(reason), fmt, args);
    va_end(args);
    fprintf(stderr, "error: artel%s%s: %s%s%s [%s]\n", *command ? " " : "", command,
            where, *where ? ": " : "", reason, code);
    return EXIT_WRONG_USE;
}

/* Insertions, deletions and changes that turn X into Y; at most NAME_MAX_LENGTH each. */
static size_t distance(const char *x, const char *y)
{
    size_t row[NAME_MAX_LENGTH + 1];
    const size_t n = strlen(y);

    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; x[i]; i++) {
        size_t diagonal = row[0];

        row[0] = i + 1;
        for (size_t j = 1; j <= n; j++) {
            const size_t changed = diagonal + (x[i] != y[j - 1]);
            size_t least = changed;

            diagonal = row[j];
            if (row[j] + 1 < least)
                least = row[j] + 1;
            if (row[j - 1] + 1 < least)
                least = row[j - 1] + 1;
            row[j] = least;
        }
    }
    return row[n];
}

const char *option_nearest(const char *word, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t least = 4;

    if (strlen(word) > NAME_MAX_LENGTH)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        const size_t d = distance(word, names[i]);

        if (d < least && d < strlen(names[i])) {
            least = d;
            best = names[i];
        }
    }
    return best;
}

static bool unknown(const struct options *o, const char *dashes, const char *word,
                    size_t n, int *exit_code)
{
    const char *names[OPTIONS_MAX + 1], *near = NULL;
    char given[160], bare[NAME_MAX_LENGTH + 1];

    for (size_t i = 0; i < o->n; i++)
        names[i] = o->at[i].name;
    names[o->n] = "help";
    if (n <= NAME_MAX_LENGTH) {
        memcpy(bare, word, n);
        bare[n] = '\0';
        near = option_nearest(bare, names, o->n + 1);
    }
    artel_escape(given, sizeof(given), word, n);
    if (near)
        *exit_code =
            usage_error(o->command, "", "USE02",
                        "unknown option %s%s; did you mean --%s?", dashes, given, near);
    else
        *exit_code = usage_error(o->command, "", "USE02",
                                 "unknown option %s%s; artel %s -h lists them", dashes,
                                 given, o->command);
    return false;
}

static bool bad_value(const struct options *o, const struct option *p,
                      const char *value, const char *expected, int *exit_code)
{
    char given[160], where[NAME_MAX_LENGTH + 3];

    snprintf(where, sizeof(where), "--%s", p->name);
    *exit_code =
        usage_error(o->command, where, "USE05", "'%s' is not %s",
                    artel_escape(given, sizeof(given), value, strlen(value)), expected);
    return false;
}

/* Digits alone, with a value up to MAX. */
static bool read_whole(const char *text, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        const unsigned digit = (unsigned)(*text - '0');

        if (digit > 9 || v > (max - digit) / 10)
            return false;
        v = 10 * v + digit;
    }
    *out = v;
    return true;
}

/* Digits with at most one dot and an exponent. The C locale holds: nobody sets another. */
static bool read_real(const char *text, double *out)
{
    char *end;

    if (strspn(text, "0123456789.eE+-") != strlen(text) ||
        !strpbrk(text, "0123456789") || strchr("+eE", text[0]))
        return false;
    *out = strtod(text, &end);
    return !*end && isfinite(*out);
}

/* "512M", "4G", "1073741824". */
static bool read_bytes(const char *text, size_t *out)
{
    const size_t n = strlen(text);
    char digits[24];
    uint64_t v;
    unsigned shift = 0;

    if (!n || n >= sizeof(digits))
        return false;
    strcpy(digits, text);
    switch (digits[n - 1]) {
    case 'K':
        shift = 10;
        break;
    case 'M':
        shift = 20;
        break;
    case 'G':
        shift = 30;
        break;
    default:
        break;
    }
    if (shift)
        digits[n - 1] = '\0';
    if (!read_whole(digits, ((uint64_t)1 << 50) >> shift, &v) || !v)
        return false;
    *out = (size_t)v << shift;
    return true;
}

static bool is_choice(const char *list, const char *value)
{
    const size_t n = strlen(value);

    if (!strchr(list, '|'))
        return true;
    for (const char *p = list; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (!strncmp(p, value, n) && (p[n] == '|' || !p[n]) && n)
            return true;
    return false;
}

static bool take_value(const struct options *o, struct option *p, const char *value,
                       int *exit_code)
{
    char expected[160];
    struct words *list;

    switch (p->kind) {
    case OPTION_TEXT:
        snprintf(expected, sizeof(expected), "one of %s", p->arg);
        if (!is_choice(p->arg, value))
            return bad_value(o, p, value, expected, exit_code);
        *(const char **)p->out = value;
        return true;
    case OPTION_TEXTS:
        list = p->out;
        if (list->n == WORDS_MAX)
            return bad_value(o, p, value, "one of 1024 values at most", exit_code);
        list->at[list->n++] = value;
        return true;
    case OPTION_WHOLE:
        snprintf(expected, sizeof(expected), "a whole number from %.0f to %.0f", p->min,
                 p->max);
        if (!read_whole(value, (uint64_t)p->max, p->out) ||
            *(uint64_t *)p->out < (uint64_t)p->min)
            return bad_value(o, p, value, expected, exit_code);
        return true;
    case OPTION_REAL:
        snprintf(expected, sizeof(expected), "a number from %g to %g", p->min, p->max);
        if (!read_real(value, p->out) || *(double *)p->out < p->min ||
            *(double *)p->out > p->max)
            return bad_value(o, p, value, expected, exit_code);
        return true;
    case OPTION_BYTES:
        if (!read_bytes(value, p->out))
            return bad_value(o, p, value, "a size such as 512M or 4G", exit_code);
        return true;
    case OPTION_FLAG:
        *(bool *)p->out = true;
        break;
    }
    return true;
}

/* The option at ARGV[*I], which starts with "--"; its value may be the next word. */
static bool take_option(struct options *o, int argc, char **argv, int *i,
                        int *exit_code)
{
    const char *const word = argv[*i] + 2, *const equals = strchr(word, '=');
    const size_t n = equals ? (size_t)(equals - word) : strlen(word);
    struct option *p = NULL;
    const char *value;
    char where[NAME_MAX_LENGTH + 3];

    for (size_t k = 0; k < o->n && !p; k++)
        if (strlen(o->at[k].name) == n && !memcmp(o->at[k].name, word, n))
            p = &o->at[k];
    if (!p)
        return unknown(o, "--", word, n, exit_code);
    snprintf(where, sizeof(where), "--%s", p->name);
    if (p->kind == OPTION_FLAG) {
        if (equals)
            return bad_value(o, p, equals + 1, "expected: this option has no value",
                             exit_code);
        value = "on";
    } else if (equals) {
        value = equals + 1;
    } else if (*i + 1 >= argc || !strncmp(argv[*i + 1], "--", 2)) {
        *exit_code = usage_error(o->command, where, "USE03", "needs a value: --%s %s",
                                 p->name, p->arg);
        return false;
    } else {
        value = argv[++*i];
    }
    if (p->given && p->kind != OPTION_TEXTS) {
        char first[160], second[160];

        artel_escape(first, sizeof(first), p->given, strlen(p->given));
        artel_escape(second, sizeof(second), value, strlen(value));
        *exit_code = usage_error(o->command, where, "USE04",
                                 "given twice: '%s' and '%s'", first, second);
        return false;
    }
    p->given = value;
    return take_value(o, p, value, exit_code);
}

bool options_parse(struct options *o, int argc, char **argv, struct words *words,
                   int *exit_code)
{
    bool only_words = false;

    words->n = 0;
    for (int i = 0; i < argc; i++) {
        const char *const word = argv[i];

        if (!only_words && (!strcmp(word, "-h") || !strcmp(word, "--help"))) {
            help_command(o);
            *exit_code = EXIT_DONE;
            return false;
        }
        if (!only_words && !strcmp(word, "--version")) {
            printf("artel %s\n", artel_version());
            *exit_code = EXIT_DONE;
            return false;
        }
        if (!only_words && !strcmp(word, "--")) {
            only_words = true;
        } else if (!only_words && !strncmp(word, "--", 2)) {
            if (!take_option(o, argc, argv, &i, exit_code))
                return false;
        } else if (!only_words && word[0] == '-' && word[1]) {
            return unknown(o, "-", word + 1, strlen(word + 1), exit_code);
        } else if (words->n < o->max_words && words->n < WORDS_MAX) {
            words->at[words->n++] = word;
        } else {
            char given[160];

            *exit_code =
                usage_error(o->command, "", "USE07", "one word too many: '%s'",
                            artel_escape(given, sizeof(given), word, strlen(word)));
            return false;
        }
    }
    if (words->n < o->min_words) {
        *exit_code = usage_error(o->command, "", "USE07", "usage: artel %s %s",
                                 o->command, o->usage);
        return false;
    }
    return true;
}
