/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel add MIXTURE name=[ADAPTER,]DATA and artel remove MIXTURE NAME.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/signals.h"
#include "cli/training.h"

/* "name=[ADAPTER,]DATA" in pieces; ADAPTER NULL where it is not given. Borrowed from the
 * copy in *TEXT, which the caller frees. */
struct addition {
    char *text;
    const char *name, *adapter, *data;
};

static int parse_addition(struct addition *a, const char *word)
{
    char *equals, *comma;

    *a = (struct addition){.text = strdup(word)};
    if (!a->text)
        return EXIT_LIMIT;
    equals = strchr(a->text, '=');
    if (!equals || equals == a->text || !equals[1])
        return usage_error("add", "", "USE07",
                           "usage: artel add MIXTURE name=[ADAPTER,]DATA");
    *equals = '\0';
    a->name = a->text;
    a->data = equals + 1;
    comma = strchr(equals + 1, ',');
    if (comma) {
        *comma = '\0';
        a->adapter = equals + 1;
        a->data = comma + 1;
    }
    if (!*a->data || (a->adapter && !*a->adapter))
        return usage_error("add", "", "USE07", "an empty path in name=[ADAPTER,]DATA");
    return 0;
}

static double real_of(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* KEY of O in percent, "-" where it is null. */
static const char *share_text(char *out, size_t size, const json_t *o, const char *key)
{
    if (json_is_number(json_object_get(o, key)))
        snprintf(out, size, "%.1f %%", 100 * real_of(o, key));
    else
        snprintf(out, size, "-");
    return out;
}

/* KEY of O, "-" where it is null. */
static const char *real_text(char *out, size_t size, const json_t *o, const char *key)
{
    if (json_is_number(json_object_get(o, key)))
        snprintf(out, size, "%.4f", real_of(o, key));
    else
        snprintf(out, size, "-");
    return out;
}

/* The interval KEY of O, its ends times FACTOR with DIGITS after the point. */
static const char *interval_text(char *out, size_t size, const json_t *o,
                                 const char *key, double factor, int digits)
{
    const json_t *const ends = json_object_get(o, key);

    if (json_array_size(ends) == 2)
        snprintf(out, size, "[%+.*f, %+.*f]", digits,
                 factor * json_number_value(json_array_get(ends, 0)), digits,
                 factor * json_number_value(json_array_get(ends, 1)));
    else
        snprintf(out, size, "-");
    return out;
}

static const char *name_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void print_digests(const json_t *domains)
{
    const json_t *d;
    size_t i;

    printf("%-20s %-10s %-17s %s\n", "expert", "its file", "SHA-256 before", "after");
    json_array_foreach(domains, i, d)
    {
        printf("%-20s %-10s %-17.16s %.16s\n", name_of(d, "name"),
               json_is_true(json_object_get(d, "unchanged")) ? "unchanged" : "CHANGED",
               name_of(d, "digest_before"), name_of(d, "digest_after"));
    }
}

static void print_perplexities(const json_t *domains)
{
    char change[48], text[4][32];
    const json_t *d;
    size_t i;

    printf("\n%-20s %10s %10s %21s %9s %9s\n", "domain", "ppl before", "after",
           "change, 95 %", "routed", "after");
    json_array_foreach(domains, i, d)
    {
        printf("%-20s %10s %10s %21s %9s %9s\n", name_of(d, "name"),
               real_text(text[0], sizeof(text[0]), d, "perplexity_before"),
               real_text(text[1], sizeof(text[1]), d, "perplexity_after"),
               interval_text(change, sizeof(change), d, "ci95", 1, 4),
               share_text(text[2], sizeof(text[2]), d, "routing_before"),
               share_text(text[3], sizeof(text[3]), d, "routing_after"));
    }
}

/* Of the domains that have one. */
static void print_scores(const json_t *domains)
{
    char change[48], text[2][32];
    bool headed = false;
    const json_t *d;
    size_t i;

    json_array_foreach(domains, i, d)
    {
        if (!name_of(d, "score_name"))
            continue;
        if (!headed)
            printf("\n%-20s %-12s %5s %9s %9s %22s\n", "domain", "score", "rows",
                   "before", "after", "change in points, 95 %");
        headed = true;
        printf("%-20s %-12s %5.0f %9s %9s %22s\n", name_of(d, "name"),
               name_of(d, "score_name"), real_of(d, "score_rows"),
               share_text(text[0], sizeof(text[0]), d, "score_before"),
               share_text(text[1], sizeof(text[1]), d, "score_after"),
               interval_text(change, sizeof(change), d, "score_ci95", 100, 1));
    }
}

/* The other domains: the bytes of their experts, and how well they do. */
static void print_domains(const json_t *r)
{
    const json_t *const domains = json_object_get(r, "domains");

    print_digests(domains);
    print_perplexities(domains);
    print_scores(domains);
    printf("\n");
}

static const char *bytes_changed(const json_t *r)
{
    return json_is_true(json_object_get(r, "others_unchanged"))
               ? "No byte of the other experts has changed."
               : "Other experts have changed.";
}

static void print_costs(const json_t *r)
{
    static const char *const keys[] = {"parameters", "tokens", "steps", "seconds"};
    const json_t *const cost = json_object_get(r, "cost");
    const json_t *const all = json_object_get(r, "everything_anew");
    const json_t *const share = json_object_get(r, "share");
    char text[32];

    printf("%-12s %14s %14s %10s\n", "", "this call", "all anew", "share");
    for (size_t i = 0; i < 4; i++)
        printf("%-12s %14.*f %14.*f %10s\n", keys[i], i == 3, real_of(cost, keys[i]),
               i == 3, real_of(all, keys[i]),
               share_text(text, sizeof(text), share, keys[i]));
    printf("\n");
}

static void print_report(const json_t *r)
{
    print_costs(r);
    print_domains(r);
    printf("%s\n", bytes_changed(r));
}

static int add(struct addition *a, const char *path, const struct common *c,
               const struct artel_train_options *to, struct training *t)
{
    struct artel_error err = {0};
    char *json = NULL;
    json_t *report;
    int rc = 0;

    if (artel_add(&json, path, a->name, a->adapter, a->data, to, &err) < 0) {
        progress_clear(&t->progress);
        return report_error(&err);
    }
    progress_clear(&t->progress);
    report = json_loads(json, 0, NULL);
    if (!json_takes_stdout(c))
        print_report(report);
    if (c->json)
        rc = json_write(c->json, json_incref(report));
    json_decref(report);
    artel_free(json);
    return rc;
}

/* Of either command. */
static void score_option(struct options *o, uint64_t *rows)
{
    option_whole(o, "score-rows", rows, 0, 1000000000,
                 "rows of each other domain that are answered before and after, for "
                 "its score; 0: none (20)");
}

static void set_options(struct artel_train_options *to, const struct common *c,
                        struct training *t)
{
    to->progress = training_show;
    to->user = t;
    to->stopped = &stop_signal;
    to->memory_bytes = c->memory;
    to->force = c->force;
    to->nonfinite = c->nonfinite;
    to->model = c->model;
}

int cmd_add(int argc, char **argv)
{
    struct options o = {
        .command = "add",
        .usage = "MIXTURE name=[ADAPTER,]DATA",
        .about = "Adds a domain: trains an expert on DATA (or takes the PEFT folder "
                 "ADAPTER) and the routers, and proves that the other experts did not "
                 "move. Stopped or killed, the same command continues.",
        .examples = "  artel add runs/eight/moa legal=data/legal.jsonl\n"
                    "  artel add runs/eight/moa code=adapters/code,data/code.jsonl\n"
                    "  artel add runs/eight/arrow code=adapters/code\n",
        .min_words = 2,
        .max_words = 2};
    struct artel_train_options to;
    struct common c = {0};
    struct addition a = {0};
    struct training t;
    struct words words;
    uint64_t max_rows = 0, score_rows;
    bool joint = false, quiet = false;
    int rc = 0;

    artel_train_options_default(&to);
    score_rows = to.score_rows;
    option_text(&o, "valid", &to.valid, "FILE", "validation rows of the domain");
    option_text(&o, "test", &to.test, "FILE", "test rows of the domain");
    option_text(&o, "score", &to.score, "NAME", "how its answers are scored");
    option_whole(&o, "max-rows", &max_rows, 1, 1000000000,
                 "only the first N rows of DATA");
    score_option(&o, &score_rows);
    option_flag(&o, "joint", &joint, "the old experts move too");
    option_flag(&o, "quiet", &quiet, "warnings and errors alone");
    common_options(&o, &c);
    if (!options_parse(&o, argc, argv, &words, &rc))
        return rc;
    if (!(rc = parse_addition(&a, words.at[1])) &&
        !(rc = json_check_target("add", c.json, &a.data, 1)) &&
        !(rc = common_start(&c))) {
        signals_ignore_pipe();
        training_init(&t, quiet);
        set_options(&to, &c, &t);
        to.max_rows = (size_t)max_rows;
        to.score_rows = (size_t)score_rows;
        to.joint = joint;
        rc = add(&a, words.at[0], &c, &to, &t);
        training_release(&t);
    }
    free(a.text);
    return rc;
}

static void print_removal(const json_t *r, const char *path)
{
    print_costs(r);
    print_domains(r);
    printf("%s is no longer in %s. Nothing was trained. %s\n", name_of(r, "removed"),
           path, bytes_changed(r));
}

static int take_out(const struct words *words, const struct common *c,
                    const struct artel_train_options *to, struct training *t)
{
    struct artel_error err = {0};
    char *json = NULL;
    json_t *report;
    int rc = 0;

    if (artel_remove(&json, words->at[0], words->at[1], to, &err) < 0) {
        progress_clear(&t->progress);
        return report_error(&err);
    }
    progress_clear(&t->progress);
    report = json_loads(json, 0, NULL);
    if (!json_takes_stdout(c))
        print_removal(report, words->at[0]);
    if (c->json)
        rc = json_write(c->json, json_incref(report));
    json_decref(report);
    artel_free(json);
    return rc;
}

int cmd_remove(int argc, char **argv)
{
    struct options o = {
        .command = "remove",
        .usage = "MIXTURE NAME",
        .about =
            "Takes a domain out: its expert and its row of every router. The other "
            "experts and rows stay as they are: shown by the digests of their files "
            "and by how well they do, before and after.",
        .examples = "  artel remove runs/eight/moa legal\n",
        .min_words = 2,
        .max_words = 2};
    struct artel_train_options to;
    struct common c = {0};
    struct training t;
    struct words words;
    uint64_t score_rows;
    bool quiet = false;
    int rc = 0;

    artel_train_options_default(&to);
    score_rows = to.score_rows;
    score_option(&o, &score_rows);
    option_flag(&o, "quiet", &quiet, "warnings and errors alone");
    common_options(&o, &c);
    if (!options_parse(&o, argc, argv, &words, &rc))
        return rc;
    if ((rc = json_check_target("remove", c.json, words.at, 1)) ||
        (rc = common_start(&c)))
        return rc;
    training_init(&t, quiet);
    set_options(&to, &c, &t);
    to.score_rows = (size_t)score_rows;
    rc = take_out(&words, &c, &to, &t);
    training_release(&t);
    return rc;
}
