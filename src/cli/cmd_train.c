/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel train RECIPE: every stage that is not up to date.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/signals.h"
#include "cli/training.h"

/* --seed and --precision are words of the recipe. */
static int add_overrides(struct words *all, const struct options *o,
                         const struct common *c, char *seed, size_t seed_size,
                         char *precision, size_t precision_size)
{
    if (all->n + 2 > WORDS_MAX)
        return usage_error("train", "", "USE07", "too many words");
    if (option_given(o, "seed")) {
        snprintf(seed, seed_size, "train.seed=%llu", (unsigned long long)c->seed);
        all->at[all->n++] = seed;
    }
    if (option_given(o, "precision")) {
        snprintf(precision, precision_size, "train.precision=%s", c->precision);
        all->at[all->n++] = precision;
    }
    return 0;
}

/* What to do where the recipe is not what earlier work was made from. */
static int set_changes(struct artel_train_options *to, bool safe, bool retrain)
{
    if (safe && retrain)
        return usage_error("train", "--allow-changes", "USE06",
                           "contradicts --retrain");
    to->changes = retrain ? 2 : safe;
    return 0;
}

int cmd_train(int argc, char **argv)
{
    struct options o = {
        .command = "train",
        .usage = "RECIPE [key=value ...]",
        .about =
            "Carries out a recipe: trains what is not up to date, stage by stage, and "
            "writes experts and mixtures under the recipe's output. Stopped or killed "
            "at any moment, the same command continues. Words such as train.seed=2 "
            "override the recipe.",
        .examples =
            "  artel train recipe.yaml\n"
            "  artel train recipe.yaml output=runs/try train.learning_rate=1e-4\n"
            "  artel train recipe.yaml --only expert-math\n",
        .min_words = 1,
        .max_words = WORDS_MAX - 2};
    struct artel_train_options to;
    struct artel_error err = {0};
    struct common c = {0};
    struct training t;
    struct words words;
    char seed[48], precision[48], *output = NULL;
    const char *recipe;
    bool safe = false, retrain = false, resume = false, quiet = false;
    int rc = 0;

    artel_train_options_default(&to);
    option_text(&o, "only", &to.only, "STAGE", "one stage, such as expert-math");
    option_flag(&o, "resume", &resume, "fail where there is nothing to continue");
    option_flag(
        &o, "allow-changes", &safe,
        "continue although settings that keep shapes and data order have changed");
    option_flag(&o, "retrain", &retrain,
                "train anew what was made from another recipe or other data");
    option_flag(&o, "quiet", &quiet, "warnings and errors alone");
    common_options(&o, &c);
    if (!options_parse(&o, argc, argv, &words, &rc))
        return rc;
    recipe = words.at[0];
    if ((rc = set_changes(&to, safe, retrain)) ||
        (rc = add_overrides(&words, &o, &c, seed, sizeof(seed), precision,
                            sizeof(precision))) ||
        (rc = json_check_target("train", c.json, &recipe, 1)) ||
        (rc = common_start(&c)))
        return rc;
    signals_ignore_pipe();
    training_init(&t, quiet);
    to.progress = training_show;
    to.user = &t;
    to.stopped = &stop_signal;
    to.memory_bytes = c.memory;
    to.must_resume = resume;
    to.force = c.force;
    to.nonfinite = c.nonfinite;
    if (artel_train(&output, recipe, words.at + 1, words.n - 1, &to, &err) < 0) {
        progress_clear(&t.progress);
        rc = report_error(&err);
    } else {
        progress_clear(&t.progress);
        if (!json_takes_stdout(&c))
            printf("done: %s\n", output);
        if (c.json)
            rc = json_write(c.json, training_json(&t, output));
    }
    artel_free(output);
    training_release(&t);
    return rc;
}
