/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel eval MIXTURE...: one table that compares mixtures and the base.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/signals.h"

#define SETS_MAX  64
#define PATHS_MAX 64

/* Sets given as NAME=FILE[:SCORE]; TEXT holds the pieces. */
struct sets {
    struct artel_eval_set at[SETS_MAX];
    char *text[SETS_MAX];
    size_t n;
};

static bool is_score_name(const char *name)
{
    for (size_t i = 0; artel_score_names(i); i++)
        if (!strcmp(artel_score_names(i), name))
            return true;
    return false;
}

static int parse_sets(struct sets *s, const struct words *words, const char *where)
{
    for (size_t i = 0; i < words->n; i++) {
        char *text, *equals, *colon;

        if (s->n == SETS_MAX)
            return usage_error("eval", where, "USE07", "at most %d sets", SETS_MAX);
        text = s->text[s->n] = strdup(words->at[i]);
        equals = text ? strchr(text, '=') : NULL;
        if (!equals || equals == text || !equals[1])
            return usage_error("eval", where, "USE05", "expected NAME=FILE[:SCORE]");
        *equals = '\0';
        colon = strrchr(equals + 1, ':');
        if (colon && is_score_name(colon + 1))
            *colon = '\0';
        else
            colon = NULL;
        s->at[s->n++] =
            (struct artel_eval_set){text, equals + 1, colon ? colon + 1 : "loss"};
    }
    return 0;
}

static void free_sets(struct sets *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->text[i]);
}

/* Paths to evaluate; a run's folder stands for the mixtures in it. */
struct paths {
    char *at[PATHS_MAX]; /* owned */
    size_t n;
};

static bool holds(const char *folder, const char *name)
{
    char path[4096];
    struct stat st;

    return snprintf(path, sizeof(path), "%s/%s", folder, name) < (int)sizeof(path) &&
           stat(path, &st) == 0;
}

static int by_name(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

static int add_path(struct paths *p, const char *path)
{
    DIR *const dir = holds(path, "mixture.json") ? NULL : opendir(path);
    const size_t before = p->n;
    struct dirent *e;

    while (dir && (e = readdir(dir)) && p->n < PATHS_MAX) {
        char sub[4096];

        if (e->d_name[0] == '.' ||
            snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name) >= (int)sizeof(sub))
            continue;
        if (holds(sub, "mixture.json") && (p->at[p->n] = strdup(sub)))
            p->n++;
    }
    if (dir)
        closedir(dir);
    if (p->n > before)
        qsort(p->at + before, p->n - before, sizeof(p->at[0]), by_name);
    else if (p->n < PATHS_MAX && (p->at[p->n] = strdup(path)))
        p->n++;
    return p->n == PATHS_MAX
               ? usage_error("eval", "", "USE07", "at most %d mixtures", PATHS_MAX - 1)
               : 0;
}

static void show_note(void *user, const char *line)
{
    char text[160];

    snprintf(text, sizeof(text), "eval: %s", line);
    progress_line(user, text, true);
}

/* Tables to the places that were asked for. */
static int write_tables(const char *json, const struct common *c, const char *markdown,
                        const char *csv)
{
    const char *const kinds[] = {"text", "markdown", "csv"};
    const char *const targets[] = {json_takes_stdout(c) ? NULL : "-", markdown, csv};
    struct artel_error err = {0};
    int rc = c->json ? text_write(c->json, json) : 0;

    for (size_t i = 0; !rc && i < 3; i++) {
        char *table = NULL;

        if (!targets[i])
            continue;
        if (artel_eval_table(&table, json, kinds[i], &err) < 0)
            return report_error(&err);
        rc = text_write(targets[i], table);
        artel_free(table);
    }
    return rc;
}

int cmd_eval(int argc, char **argv)
{
    struct options o = {
        .command = "eval",
        .usage = "MIXTURE... [--against MIXTURE]",
        .about =
            "Perplexity, scores of generated answers and routing of each mixture and "
            "of the base alone, over the test rows of the mixtures' domains, in one "
            "table. A run's folder stands for all mixtures in it. SCORE is one of "
            "loss, exact, last_number, answer_line, first_word, json, first_letter, "
            "last_word; rows of multiple choice are scored by likelihood.",
        .examples =
            "  artel eval runs/eight --markdown table.md\n"
            "  artel eval runs/eight/moa --against runs/eight/mixed --max-rows 100\n"
            "  artel eval model.gguf --data math=test.jsonl:last_number --json -\n",
        .min_words = 1,
        .max_words = PATHS_MAX};
    static struct words words, against, data, general;
    static struct sets sets, general_sets;
    static struct paths paths;
    struct artel_eval_options eo;
    struct artel_error err = {0};
    struct common c = {0};
    struct progress p;
    const char *expert = "auto", *markdown = NULL, *csv = NULL;
    uint64_t max_rows = 0, max_tokens = 256, cutoff = 0;
    bool no_base = false, no_generate = false;
    char *json = NULL;
    int rc = 0;

    option_texts(&o, "against", &against, "MIXTURE",
                 "another one for the table; repeatable");
    option_texts(&o, "data", &data, "NAME=FILE[:SCORE]",
                 "rows to measure on instead of the domains' own; repeatable");
    option_texts(&o, "general", &general, "NAME=FILE[:SCORE]",
                 "rows that show forgetting, compared with the base; repeatable");
    option_text(&o, "expert", &expert, "NAME", "auto, base or an expert for all rows");
    option_whole(&o, "max-rows", &max_rows, 1, 1000000000,
                 "only the first N rows of a set");
    option_whole(&o, "max-tokens", &max_tokens, 1, 1000000, "of a generated answer");
    option_whole(&o, "cutoff-len", &cutoff, 16, 1000000, "tokens of a row");
    option_flag(&o, "no-base", &no_base, "leave the base alone out of the table");
    option_flag(&o, "no-generate", &no_generate, "perplexity and routing alone");
    option_text(&o, "markdown", &markdown, "FILE",
                "the table as Markdown; - is standard "
                "output");
    option_text(&o, "csv", &csv, "FILE", "the table as CSV");
    common_options(&o, &c);
    if (!options_parse(&o, argc, argv, &words, &rc))
        return rc;
    artel_eval_options_default(&eo);
    for (size_t i = 0; !rc && i < words.n; i++)
        rc = add_path(&paths, words.at[i]);
    for (size_t i = 0; !rc && i < against.n; i++)
        rc = add_path(&paths, against.at[i]);
    if (rc || (rc = parse_sets(&sets, &data, "--data")) ||
        (rc = parse_sets(&general_sets, &general, "--general")) ||
        (rc = json_check_target("eval", c.json, words.at, words.n)) ||
        (rc = json_check_target("eval", markdown, words.at, words.n)) ||
        (rc = json_check_target("eval", csv, words.at, words.n)) ||
        (rc = common_start(&c)))
        goto done;
    progress_init(&p);
    signals_name_file(words.at[0]);
    eo.expert = expert;
    eo.max_rows = (size_t)max_rows;
    eo.max_tokens = (size_t)max_tokens;
    eo.cutoff_len = (size_t)cutoff;
    eo.generate = !no_generate;
    eo.base = !no_base;
    eo.sets = sets.at;
    eo.n_sets = sets.n;
    eo.general = general_sets.at;
    eo.n_general = general_sets.n;
    eo.open = common_open(&c);
    eo.stopped = &stop_signal;
    eo.on_note = show_note;
    eo.user = &p;
    if (artel_evaluate(&json, (const char *const *)paths.at, paths.n, &eo, &err) < 0) {
        progress_clear(&p);
        rc = report_error(&err);
    } else {
        progress_clear(&p);
        rc = write_tables(json, &c, markdown, csv);
    }
    artel_free(json);

done:
    free_sets(&sets);
    free_sets(&general_sets);
    for (size_t i = 0; i < paths.n; i++)
        free(paths.at[i]);
    return rc;
}
