/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways to judge an answer. Each extracts a span of either text and compares.
 */
#include "eval/answer.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "files/json.h"

static const char *const names[N_ANSWER_SCORES] = {
    "loss",     "exact",        "last_number", "answer_line", "first_word",
    "json",     "first_letter", "last_word",   "last_line",   "sql",
    "one_line", "short",        "yes_no",      "rouge_l",     "bleu"};

const char *answer_score_name(enum answer_score s)
{
    return names[s];
}

int answer_score_from_name(const char *name)
{
    for (int i = 0; i < N_ANSWER_SCORES; i++)
        if (!strcmp(names[i], name))
            return i;
    return -1;
}

struct span {
    const char *at; /* NULL: there is none */
    size_t n;
};

static struct span trimmed(const char *text, size_t n)
{
    while (n && isspace((unsigned char)*text))
        text++, n--;
    while (n && isspace((unsigned char)text[n - 1]))
        n--;
    return (struct span){text, n};
}

static bool span_equal(struct span x, struct span y, bool any_case)
{
    if (!x.at || !y.at || x.n != y.n)
        return false;
    return any_case ? !strncasecmp(x.at, y.at, x.n) : !memcmp(x.at, y.at, x.n);
}

/* Letters and digits; bytes of other scripts count as letters. */
static bool is_word(char c)
{
    return isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

static struct span first_word(const char *text)
{
    struct span s = {0};

    while (*text && !is_word(*text))
        text++;
    if (*text)
        s.at = text;
    while (is_word(text[s.n]))
        s.n++;
    return s;
}

static struct span last_word(const char *text)
{
    size_t end = strlen(text), start;

    while (end && !is_word(text[end - 1]))
        end--;
    for (start = end; start && is_word(text[start - 1]);)
        start--;
    return (struct span){end ? text + start : NULL, end - start};
}

static struct span answer_line(const char *text)
{
    struct span found = {0};

    for (const char *line = text; line;) {
        const char *const end = strchr(line, '\n');
        const size_t n = end ? (size_t)(end - line) : strlen(line);
        const struct span t = trimmed(line, n);

        if (t.n >= 7 && !strncasecmp(t.at, "answer:", 7))
            found = trimmed(t.at + 7, t.n - 7);
        line = end ? end + 1 : NULL;
    }
    return found;
}

/* A number at P: digits with commas between and a fraction. Its length, or 0. */
static size_t number_at(const char *p, double *out)
{
    char digits[64];
    size_t n = 0, used = 0, fraction = 0;

    if (p[n] == '-')
        digits[used++] = p[n++];
    if (!isdigit((unsigned char)p[n]))
        return 0;
    for (; used + 2 < sizeof(digits); n++) {
        if (isdigit((unsigned char)p[n]))
            digits[used++] = p[n];
        else if (p[n] == '.' && !fraction && isdigit((unsigned char)p[n + 1]))
            fraction = 1, digits[used++] = '.';
        else if (p[n] != ',' || fraction || !isdigit((unsigned char)p[n + 1]))
            break;
    }
    digits[used] = '\0';
    *out = strtod(digits, NULL);
    return n;
}

static double last_number(const char *text)
{
    const char *mark = NULL;
    double value = (double)NAN, one;

    for (const char *p = text; (p = strstr(p, "####")); p += 4)
        mark = p + 4;
    for (const char *p = mark ? mark : text; *p;) {
        const size_t n = number_at(p, &one);

        if (n) {
            value = one;
            if (mark)
                break;
        }
        p += n ? n : 1;
    }
    return value;
}

/* One JSON object with nothing but blanks around it, or NULL. */
static json_t *object_of(const char *text)
{
    json_t *value = NULL;

    if (json_parse(&value, text, strlen(text), "answer", 0, NULL) < 0)
        return NULL;
    if (!json_is_object(value)) {
        json_decref(value);
        return NULL;
    }
    return value;
}

static struct answer_verdict judge_json(const char *got, const char *want)
{
    struct answer_verdict v = {0};
    json_t *const g = object_of(got), *const w = object_of(want);

    v.json_valid = g != NULL;
    if (g && w) {
        const json_t *const name = json_object_get(g, "name");

        v.json_name = name && json_equal(name, json_object_get(w, "name"));
        v.right = json_equal(g, w);
    }
    json_decref(g);
    json_decref(w);
    return v;
}

static struct span last_line(const char *text)
{
    struct span found = {0};

    for (const char *line = text; line;) {
        const char *const end = strchr(line, '\n');
        const struct span t = trimmed(line, end ? (size_t)(end - line) : strlen(line));

        if (t.n)
            found = t;
        line = end ? end + 1 : NULL;
    }
    return found;
}

/* The next sign of a query at *P: a quoted text, a word, or one character. */
static struct span sql_sign(const char **p)
{
    struct span s;

    *p += strspn(*p, " \t\r\n");
    s = (struct span){*p, 1};
    if (**p == ';' && !(*p)[1 + strspn(*p + 1, "; \t\r\n")])
        *p += strlen(*p);
    if (!**p)
        return (struct span){0};
    if (strchr("'\"`", **p)) {
        const char *const end = strchr(*p + 1, **p);

        s.n = end ? (size_t)(end - *p) + 1 : strlen(*p);
    } else if (is_word(**p) || **p == '_') {
        while (is_word(s.at[s.n]) || s.at[s.n] == '_')
            s.n++;
    }
    *p += s.n;
    return s;
}

static bool sql_equal(const char *got, const char *want)
{
    for (bool any = false;; any = true) {
        const struct span x = sql_sign(&got), y = sql_sign(&want);

        if (!x.at || !y.at)
            return any && !x.at && !y.at;
        if (!span_equal(x, y, !strchr("'\"`", *x.at)))
            return false;
    }
}

static size_t count_words(const char *text)
{
    size_t n = 0;

    for (bool in = false; *text; text++) {
        n += !in && !isspace((unsigned char)*text);
        in = !isspace((unsigned char)*text);
    }
    return n;
}

bool answer_counts(enum answer_score s, const char *want)
{
    const struct span all = trimmed(want, strlen(want)), first = first_word(want);

    switch (s) {
    case ANSWER_SHORT:
        if (count_words(want) > 3)
            return false;
        return all.n && !memchr(all.at, '\n', all.n);
    case ANSWER_ONE_LINE:
        return all.n && !memchr(all.at, '\n', all.n);
    case ANSWER_YES_NO:
        return span_equal(first, (struct span){"yes", 3}, true) ||
               span_equal(first, (struct span){"no", 2}, true) ||
               span_equal(first, (struct span){"maybe", 5}, true);
    default:
        return s != ANSWER_LOSS;
    }
}

bool answer_is_judged(enum answer_score s)
{
    return s != ANSWER_LOSS && s != ANSWER_ROUGE_L && s != ANSWER_BLEU;
}

struct answer_verdict answer_judge(enum answer_score s, const char *got,
                                   const char *want)
{
    struct answer_verdict v = {0};
    struct span x, y;

    switch (s) {
    case ANSWER_EXACT:
    case ANSWER_ONE_LINE:
    case ANSWER_SHORT:
        v.right =
            span_equal(trimmed(got, strlen(got)), trimmed(want, strlen(want)), false);
        break;
    case ANSWER_LAST_NUMBER:
        v.right = last_number(got) == last_number(want); /* NaN equals nothing */
        break;
    case ANSWER_LINE:
        v.right = span_equal(answer_line(got), answer_line(want), false);
        break;
    case ANSWER_FIRST_WORD:
    case ANSWER_YES_NO:
        v.right = span_equal(first_word(got), first_word(want), true);
        break;
    case ANSWER_LAST_WORD:
        v.right = span_equal(last_word(got), last_word(want), true);
        break;
    case ANSWER_LAST_LINE:
        v.right = span_equal(last_line(got), last_line(want), false);
        break;
    case ANSWER_SQL:
        v.right = sql_equal(got, want);
        break;
    case ANSWER_FIRST_LETTER:
        x = first_word(got);
        y = first_word(want);
        v.right = x.n == 1 && isalpha((unsigned char)*x.at) && span_equal(x, y, true);
        break;
    case ANSWER_JSON:
        v = judge_json(got, want);
        break;
    case ANSWER_LOSS:
    case ANSWER_ROUGE_L:
    case ANSWER_BLEU:
    case N_ANSWER_SCORES:
        break;
    }
    return v;
}
