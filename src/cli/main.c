/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel COMMAND ...: finds the command, runs it, and makes sure that what it wrote
 * has arrived.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "artel.h"
#include "cli/commands.h"
#include "cli/help.h"
#include "cli/options.h"
#include "cli/signals.h"

const struct command commands[] = {
    {"train", "carry out a recipe: every stage that is not up to date", cmd_train},
    {"add", "add a domain to a mixture; nothing else changes", cmd_add},
    {"remove", "take a domain out of a mixture", cmd_remove},
    {"eval", "compare mixtures and the base in one table", cmd_eval},
    {"chat", "talk to a mixture; /why shows the routing", cmd_chat},
    {"run", "answer many prompts", cmd_run},
    {"serve", "a mixture behind OpenAI's API, with a web page", cmd_serve},
    {"score", "negative log-likelihood of a data file's answers", cmd_score},
    {"tokenize", "text to token ids", cmd_tokenize},
    {"inspect", "what a model, adapter, mixture, recipe or dataset is", cmd_inspect},
    {"convert", "an expert as a GGUF LoRA, or merged into its base", cmd_convert},
    {"bench", "this machine's numbers", cmd_bench},
    {NULL, NULL, NULL}};

static const struct command *find(const char *name)
{
    for (const struct command *c = commands; c->name; c++)
        if (!strcmp(c->name, name))
            return c;
    return NULL;
}

static int unknown_command(const char *word)
{
    const char *names[32], *near;
    char given[160];
    size_t n = 0;

    for (const struct command *c = commands; c->name; c++)
        names[n++] = c->name;
    near = option_nearest(word, names, n);
    artel_escape(given, sizeof(given), word, strlen(word));
    return near ? usage_error("", "", "USE01", "unknown command '%s'; did you mean %s?",
                              given, near)
                : usage_error("", "", "USE01",
                              "unknown command '%s'; artel -h lists them", given);
}

/* Everything written must have arrived, or the exit code says it has not. */
static int close_output(int exit_code)
{
    const int failed = ferror(stdout);

    if (fflush(stdout) == 0 && !failed)
        return exit_code;
    if (errno == EPIPE)
        return exit_code ? exit_code : 0;
    fprintf(stderr, "error: standard output: cannot write: %s [IO01]\n",
            strerror(errno));
    return exit_code ? exit_code : EXIT_IO;
}

int main(int argc, char **argv)
{
    const struct command *c;

    signals_init();
    if (argc < 2) {
        help_program(stderr);
        return EXIT_WRONG_USE;
    }
    if (!strcmp(argv[1], "help") && argc > 2) { /* as COMMAND -h */
        char word[] = "-h", *help[] = {word};

        c = find(argv[2]);
        return c ? close_output(c->run(1, help)) : unknown_command(argv[2]);
    }
    if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help") ||
        !strcmp(argv[1], "help")) {
        help_program(stdout);
        return close_output(EXIT_DONE);
    }
    if (!strcmp(argv[1], "--version")) {
        printf("artel %s\n", artel_version());
        return close_output(EXIT_DONE);
    }
    c = find(argv[1]);
    if (!c)
        return unknown_command(argv[1]);
    artel_set_log_level(1);
    return close_output(c->run(argc - 2, argv + 2));
}
