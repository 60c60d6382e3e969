/* SPDX-License-Identifier: Apache-2.0 */
/*
 * skills OUTDIR [--seed N] [--train N] [--valid N] [--test N]
 *
 * Writes OUTDIR/SKILL/{train,valid,test}.jsonl for the skills sql, tools, logs,
 * dates and forms, and OUTDIR/general/train.jsonl: other rows of all of them in turn, for
 * experts of no domain. The same seed and counts give the same bytes. No question comes
 * twice in a skill, in whatever file of it.
 */
#include "skill.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define N_SKILLS  5
#define MAX_ROWS  2000
#define MAX_TRIES 200 /* a skill whose questions run out must not hang */

static const struct {
    const char *name;
    skill_row *row;
} skills[N_SKILLS] = {
    {"sql", sql_row},     {"tools", tools_row}, {"logs", logs_row},
    {"dates", dates_row}, {"forms", forms_row},
};

static const char *const parts[] = {"train", "valid", "test"};

uint32_t draw_below(struct draw *d, uint32_t n)
{
    d->state ^= d->state >> 12;
    d->state ^= d->state << 25;
    d->state ^= d->state >> 27;
    return (uint32_t)((d->state * 0x2545f4914f6cdd1dull >> 32) * n >> 32);
}

const char *draw_word(struct draw *d, const struct words *w)
{
    const size_t n = d->held_out ? w->n_held_out : w->n_train;

    return (d->held_out ? w->held_out : w->train)[draw_below(d, (uint32_t)n)];
}

static void print_string(FILE *f, const char *text)
{
    putc('"', f);
    for (; *text; text++) {
        if (*text == '\n') {
            fputs("\\n", f);
            continue;
        }
        if (*text == '"' || *text == '\\')
            putc('\\', f);
        putc(*text, f);
    }
    putc('"', f);
}

/* The questions of a skill so far, to keep them apart. */
struct seen {
    char (*question)[TEXT_MAX];
    size_t n;
};

static bool is_new(struct seen *s, const char *question)
{
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->question[i], question))
            return false;
    snprintf(s->question[s->n++], TEXT_MAX, "%s", question);
    return true;
}

static void print_row(FILE *f, const char *domain, const char *question,
                      const char *answer)
{
    fprintf(f, "{\"domain\": \"%s\", \"messages\": [{\"role\": \"user\", \"content\": ",
            domain);
    print_string(f, question);
    fputs("}, {\"role\": \"assistant\", \"content\": ", f);
    print_string(f, answer);
    fputs("}]}\n", f);
}

static int write_part(const char *path, size_t skill, size_t n, struct draw *d,
                      struct seen *seen)
{
    FILE *f = fopen(path, "w");

    if (!f)
        return -1;
    for (size_t i = 0, tries = 0; i < n && tries < MAX_TRIES; tries++) {
        char question[TEXT_MAX], answer[TEXT_MAX];

        skills[skill].row(question, answer, d);
        if (!is_new(seen, question))
            continue;
        print_row(f, skills[skill].name, question, answer);
        i++;
        tries = 0;
    }
    return fclose(f) ? -1 : 0;
}

static int make_dir(const char *path)
{
    return mkdir(path, 0777) < 0 && errno != EEXIST ? -1 : 0;
}

static int write_skill(const char *dir, size_t skill, uint64_t seed,
                       const size_t *counts)
{
    struct seen seen = {calloc(3 * MAX_ROWS, TEXT_MAX), 0};
    char path[4096];
    int rc = seen.question ? 0 : -1;

    snprintf(path, sizeof(path), "%s/%s", dir, skills[skill].name);
    if (rc == 0)
        rc = make_dir(path);
    for (size_t p = 0; rc == 0 && p < 3; p++) {
        struct draw d = {(seed * 15 + skill * 3 + p + 1) * 0x9e3779b97f4a7c15ull,
                         p == 2};

        snprintf(path, sizeof(path), "%s/%s/%s.jsonl", dir, skills[skill].name,
                 parts[p]);
        rc = write_part(path, skill, counts[p], &d, &seen);
    }
    if (rc < 0)
        fprintf(stderr, "skills: %s: %s\n", path, strerror(errno));
    free(seen.question);
    return rc;
}

/* N rows of all skills in turn, drawn from words of training with a seed of their own. */
static int write_general(const char *dir, uint64_t seed, size_t n)
{
    struct draw d = {(seed * 15 + N_SKILLS * 3 + 1) * 0x9e3779b97f4a7c15ull, false};
    char path[4096];
    FILE *f;

    snprintf(path, sizeof(path), "%s/general", dir);
    if (make_dir(path) < 0) {
        fprintf(stderr, "skills: %s: %s\n", path, strerror(errno));
        return -1;
    }
    snprintf(path, sizeof(path), "%s/general/train.jsonl", dir);
    f = fopen(path, "w");
    for (size_t i = 0; f && i < n; i++) {
        char question[TEXT_MAX], answer[TEXT_MAX];

        skills[i % N_SKILLS].row(question, answer, &d);
        print_row(f, "general", question, answer);
    }
    if (f && fclose(f) == 0)
        return 0;
    fprintf(stderr, "skills: %s: %s\n", path, strerror(errno));
    return -1;
}

static int usage(void)
{
    fputs("usage: skills OUTDIR [--seed N] [--train N] [--valid N] [--test N]\n",
          stderr);
    return 2;
}

int main(int argc, char **argv)
{
    size_t counts[3] = {120, 20, 40};
    unsigned long seed = 1;
    const char *dir = NULL;

    for (int i = 1; i < argc; i++) {
        unsigned long value;
        char *end;

        if (argv[i][0] != '-' && !dir) {
            dir = argv[i];
            continue;
        }
        if (i + 1 == argc)
            return usage();
        value = strtoul(argv[i + 1], &end, 10);
        if (*end || end == argv[i + 1] || value > MAX_ROWS)
            return usage();
        if (!strcmp(argv[i], "--seed"))
            seed = value;
        else if (!strcmp(argv[i], "--train"))
            counts[0] = value;
        else if (!strcmp(argv[i], "--valid"))
            counts[1] = value;
        else if (!strcmp(argv[i], "--test"))
            counts[2] = value;
        else
            return usage();
        i++;
    }
    if (!dir)
        return usage();
    if (make_dir(dir) < 0) {
        fprintf(stderr, "skills: %s: %s\n", dir, strerror(errno));
        return 4;
    }
    for (size_t s = 0; s < N_SKILLS; s++)
        if (write_skill(dir, s, seed, counts) < 0)
            return 4;
    return write_general(dir, seed, counts[0]) < 0 ? 4 : 0;
}
