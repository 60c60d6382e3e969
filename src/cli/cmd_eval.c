/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel eval MIXTURE...: one table that compares mixtures and the base.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/eval_output.h"
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

/* FILE:SCORE with a SCORE that is none, and what is there is FILE alone. */
static bool is_misspelt(const char *file, char *colon)
{
    bool is_file;

    if (access(file, F_OK) == 0)
        return false;
    *colon = '\0';
    is_file = access(file, F_OK) == 0;
    *colon = ':';
    return is_file;
}

static int parse_sets(struct sets *s, const struct words *words, const char *where)
{
    for (size_t i = 0; i < words->n; i++) {
        char *text, *equals, *colon;

        if (s->n == SETS_MAX)
            return usage_error("eval", where, "USE07", "at most %d sets", SETS_MAX);
        text = s->text[s->n] = strdup(words->at[i]);
        equals = text ? strchr(text, '=') : NULL;
        if (!equals || equals == text || !equals[1]) {
            free(text);
            return usage_error("eval", where, "USE05", "expected NAME=FILE[:SCORE]");
        }
        *equals = '\0';
        colon = strrchr(equals + 1, ':');
        if (colon && is_score_name(colon + 1)) {
            *colon = '\0';
        } else if (colon && is_misspelt(equals + 1, colon)) {
            char shown[80];

            artel_escape(shown, sizeof(shown), colon + 1, strlen(colon + 1));
            free(text);
            return usage_error("eval", where, "USE05",
                               "'%s' is no way to score; artel eval -h lists them",
                               shown);
        } else {
            colon = NULL;
        }
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

/* The line of progress, and what it speaks of. */
struct shown {
    struct progress line;
    char note[120];
};

static void show_note(void *user, const char *line)
{
    struct shown *const s = user;
    char text[160];

    snprintf(s->note, sizeof(s->note), "%s", line);
    snprintf(text, sizeof(text), "eval: %s", s->note);
    progress_line(&s->line, text, true);
}

static void show_rows(void *user, size_t n_done, size_t n)
{
    struct shown *const s = user;
    char text[200];

    snprintf(text, sizeof(text), "eval: %s: %zu of %zu", s->note, n_done, n);
    progress_line(&s->line, text, false);
}

/* What the command line said. */
struct asked {
    struct words words, against, data, general;
    const char *expert, *keep;
    uint64_t max_rows, general_rows, max_tokens, cutoff;
    const char *judge, *judge_model, *judge_key;
    uint64_t judge_rows, judge_ratings;
    bool no_base, no_generate, no_general;
    struct common common;
    struct eval_output output;
};

static void judge_options(struct options *o, struct asked *a)
{
    struct artel_judge_options defaults;

    artel_judge_options_default(&defaults);
    a->judge_key = defaults.key_env;
    a->judge_ratings = defaults.ratings;
    option_text(o, "judge", &a->judge, "URL",
                "let the model behind an OpenAI-compatible endpoint rate the answers");
    option_text(o, "judge-model", &a->judge_model, "NAME", "which of its models");
    option_text(o, "judge-key-env", &a->judge_key, "VARIABLE",
                "of the environment with its key; none: it needs no key");
    option_whole(o, "judge-rows", &a->judge_rows, 1, 1000000000,
                 "rate the first N answers of a set; default: all");
    option_whole(o, "judge-ratings", &a->judge_ratings, 1, 100, "of each answer");
}

static void eval_options(struct options *o, struct asked *a)
{
    a->expert = "auto";
    a->max_tokens = 256;
    option_texts(o, "against", &a->against, "MIXTURE",
                 "another one for the table; repeatable");
    option_texts(o, "data", &a->data, "NAME=FILE[:SCORE]",
                 "rows to measure on instead of the domains' own; repeatable");
    option_texts(o, "general", &a->general, "NAME=FILE[:SCORE]",
                 "rows that show forgetting, compared with the base; repeatable");
    option_flag(o, "no-general", &a->no_general,
                "leave out the general sets that the mixtures name");
    option_text(o, "expert", &a->expert, "NAME",
                "auto, base or an expert for all rows");
    option_whole(o, "max-rows", &a->max_rows, 1, 1000000000,
                 "only the first N rows of a set");
    option_whole(o, "general-rows", &a->general_rows, 1, 1000000000,
                 "of a general set; windows of a plain text");
    option_whole(o, "max-tokens", &a->max_tokens, 1, 1000000, "of a generated answer");
    option_whole(o, "cutoff-len", &a->cutoff, 16, 1000000, "tokens of a row");
    option_flag(o, "no-base", &a->no_base, "leave the base alone out of the table");
    option_flag(o, "no-generate", &a->no_generate, "perplexity and routing alone");
    option_text(o, "keep", &a->keep, "FOLDER",
                "keep what is measured there and use it again; default: eval/ in the "
                "first mixture's or run's folder; none keeps nothing");
    judge_options(o, a);
    eval_output_options(o, &a->output);
    common_options(o, &a->common);
}

/* With the results of before; *JSON may be replaced. */
static int show(const struct asked *a, char **json)
{
    const int rc = eval_output_join(json, &a->output);

    return rc ? rc : eval_output_write(&a->output, *json);
}

/* Where results are kept, in OUT; NULL: nowhere. */
static const char *keep_folder(char *out, size_t size, const struct asked *a,
                               const struct paths *paths)
{
    const char *const first = a->words.at[0];

    if (a->keep)
        return strcmp(a->keep, "none") ? a->keep : NULL;
    if ((!holds(first, "mixture.json") && !strcmp(first, paths->at[0])) ||
        access(first, W_OK) != 0 || snprintf(out, size, "%s/eval", first) >= (int)size)
        return NULL;
    return out;
}

static int evaluate(const struct asked *a, const struct paths *paths,
                    const struct sets *sets, const struct sets *general)
{
    struct artel_eval_options eo;
    struct artel_judge_options judge;
    struct artel_error err = {0};
    char folder[4096], ratings[4200];
    struct shown shown = {.note = ""};
    char *json = NULL;
    int rc;

    progress_init(&shown.line);
    artel_eval_options_default(&eo);
    eo.expert = a->expert;
    eo.max_rows = (size_t)a->max_rows;
    eo.max_tokens = (size_t)a->max_tokens;
    eo.cutoff_len = (size_t)a->cutoff;
    eo.general_rows = (size_t)a->general_rows;
    eo.seed = a->common.seed ? a->common.seed : eo.seed;
    eo.keep = keep_folder(folder, sizeof(folder), a, paths);
    if (a->judge) {
        artel_judge_options_default(&judge);
        judge.url = a->judge;
        judge.model = a->judge_model;
        judge.key_env = a->judge_key;
        judge.ratings = (size_t)a->judge_ratings;
        judge.max_rows = (size_t)a->judge_rows;
        if (eo.keep) {
            snprintf(ratings, sizeof(ratings), "%s/ratings.jsonl", eo.keep);
            judge.keep_path = ratings;
        }
        eo.judge = &judge;
    }
    eo.generate = !a->no_generate;
    eo.base = !a->no_base;
    eo.sets = sets->at;
    eo.n_sets = sets->n;
    eo.general = general->n || a->no_general ? general->at : NULL;
    eo.n_general = general->n;
    eo.open = common_open(&a->common);
    eo.stopped = &stop_signal;
    eo.on_note = show_note;
    eo.on_rows = show_rows;
    eo.user = &shown;
    rc = artel_evaluate(&json, (const char *const *)paths->at, paths->n, &eo, &err);
    progress_clear(&shown.line);
    rc = rc < 0 ? report_error(&err) : show(a, &json);
    artel_free(json);
    return rc;
}

/* Options that contradict each other, or say nothing without another. */
static int check_asked(const struct asked *a)
{
    if (!a->judge && (a->judge_model || a->judge_rows))
        return usage_error("eval", a->judge_model ? "--judge-model" : "--judge-rows",
                           "USE07", "goes with --judge URL");
    if (a->judge && a->no_generate)
        return usage_error("eval", "--judge", "USE07",
                           "a judge rates answers, and --no-generate makes none");
    if (a->no_general && a->general.n)
        return usage_error("eval", "--no-general", "USE07",
                           "and --general contradict each other");
    return 0;
}

int cmd_eval(int argc, char **argv)
{
    struct options o = {
        .command = "eval",
        .usage = "MIXTURE... [--against MIXTURE]",
        .about =
            "Perplexity, scores of generated answers and routing of each mixture and "
            "of the base alone, over the test rows of the mixtures' domains and their "
            "general sets, in one table. A run's folder stands for all mixtures in it. "
            "SCORE is one of "
            "loss, exact, last_number, answer_line, first_word, json, first_letter, "
            "last_word, last_line, sql, one_line, short, yes_no, rouge_l, bleu; rows "
            "of "
            "multiple choice are scored by likelihood, a general set of plain text by "
            "perplexity in windows.",
        .examples =
            "  artel eval runs/eight --markdown table.md\n"
            "  artel eval runs/eight/moa --against runs/eight/mixed --max-rows 100\n"
            "  artel eval runs/eight --results runs/eight\n"
            "  artel eval --from monday.json --from tuesday.json --html both.html\n"
            "  artel eval model.gguf --data math=test.jsonl:last_number --json -\n",
        .max_words = PATHS_MAX};
    static struct asked a;
    static struct sets sets, general;
    static struct paths paths;
    int rc = 0;

    eval_options(&o, &a);
    if (!options_parse(&o, argc, argv, &a.words, &rc))
        return rc;
    if ((rc = check_asked(&a)))
        return rc;
    if (!a.words.n && (!a.output.from.n || a.against.n))
        rc = usage_error("eval", "", "USE07", "usage: artel eval %s", o.usage);
    for (size_t i = 0; !rc && i < a.words.n; i++)
        rc = add_path(&paths, a.words.at[i]);
    for (size_t i = 0; !rc && i < a.against.n; i++)
        rc = add_path(&paths, a.against.at[i]);
    if (!rc && !(rc = parse_sets(&sets, &a.data, "--data")) &&
        !(rc = parse_sets(&general, &a.general, "--general")) &&
        !(rc = eval_output_check(&a.output, &a.common, &a.words)) &&
        !(rc = common_start(&a.common))) {
        char *none = NULL;

        rc = paths.n ? evaluate(&a, &paths, &sets, &general) : show(&a, &none);
        artel_free(none);
    }
    free_sets(&sets);
    free_sets(&general);
    for (size_t i = 0; i < paths.n; i++)
        free(paths.at[i]);
    return rc;
}
