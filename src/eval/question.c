/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts of multiple choice, character by character those of the harness.
 */
#include "eval/question.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "data/corpus.h"

static const struct {
    const char *domain;
    enum question_style style;
} styles[] = {{"mmlu", QUESTION_MMLU},
              {"piqa", QUESTION_PIQA},
              {"winogrande", QUESTION_WINOGRANDE},
              {"truthfulqa", QUESTION_TRUTHFULQA}};

enum question_style question_style(const char *domain)
{
    const size_t n = strcspn(domain, "/");

    for (size_t i = 0; i < sizeof(styles) / sizeof(styles[0]); i++)
        if (strlen(styles[i].domain) == n && !memcmp(styles[i].domain, domain, n))
            return styles[i].style;
    return QUESTION_CHAT;
}

bool question_by_length(enum question_style s)
{
    return s == QUESTION_CHAT || s == QUESTION_PIQA;
}

double question_length(enum question_style s, const struct choice_row *row, size_t k)
{
    size_t n = 0;

    if (s == QUESTION_MMLU || s == QUESTION_WINOGRANDE)
        return 1; /* a letter; the same text after every choice */
    for (const char *p = row->choices[k]; *p; p++)
        n += ((unsigned char)*p & 0xc0) != 0x80;
    return n ? (double)n : 1;
}

/* Blanks around a text, as Python strips them off; those in ASCII. */
static const char *strip(int *n, const char *text)
{
    size_t end;

    while (isspace((unsigned char)*text))
        text++;
    end = strlen(text);
    while (end && isspace((unsigned char)text[end - 1]))
        end--;
    *n = (int)end;
    return text;
}

static void mmlu(FILE *f, const struct choice_row *row)
{
    const char *subject = strchr(row->domain, '/'), *question;
    int n;

    if (subject) {
        fputs("The following are multiple choice questions (with answers) about ", f);
        for (subject++; *subject; subject++)
            fputc(*subject == '_' ? ' ' : *subject, f);
        fputs(".\n\n", f);
    }
    question = strip(&n, row->question);
    fprintf(f, "%.*s", n, question);
    for (size_t i = 0; i < row->n_choices; i++)
        fprintf(f, "\n%c. %s", (char)('A' + i), row->choices[i]);
    fputs("\nAnswer:", f);
}

static int write_texts(FILE *given, FILE *rest, enum question_style s,
                       const struct choice_row *row, size_t k, struct artel_error *err)
{
    const char *gap, *text;
    int n;

    switch (s) {
    case QUESTION_MMLU:
        mmlu(given, row);
        fprintf(rest, " %c", (char)('A' + k));
        break;
    case QUESTION_PIQA:
        fprintf(given, "Question: %s\nAnswer:", row->question);
        fprintf(rest, " %s", row->choices[k]);
        break;
    case QUESTION_TRUTHFULQA:
        fprintf(given, "Q: %s\nA:", row->question);
        fprintf(rest, " %s", row->choices[k]);
        break;
    case QUESTION_WINOGRANDE:
        gap = strchr(row->question, '_');
        if (!gap)
            return error_set(err, ARTEL_EFORMAT, "EVL04", NULL,
                             "a question of winogrande needs a '_' for its choices");
        fprintf(given, "%.*s%s", (int)(gap - row->question), row->question,
                row->choices[k]);
        text = strip(&n, gap + 1);
        fprintf(rest, " %.*s", n, text);
        break;
    case QUESTION_CHAT:
        break;
    }
    return 0;
}

int question_texts(char **given, char **rest, enum question_style s,
                   const struct choice_row *row, size_t k, struct artel_error *err)
{
    size_t n_given = 0, n_rest = 0;
    FILE *f, *g;
    int rc = 0;

    *given = *rest = NULL;
    f = open_memstream(given, &n_given);
    g = open_memstream(rest, &n_rest);
    if (f && g)
        rc = write_texts(f, g, s, row, k, err);
    if (!f || !g)
        rc = error_nomem(err, 0);
    if (f && fclose(f) && rc == 0)
        rc = error_nomem(err, n_given);
    if (g && fclose(g) && rc == 0)
        rc = error_nomem(err, n_rest);
    if (rc < 0) {
        free(*given);
        free(*rest);
        *given = *rest = NULL;
    }
    return rc;
}
