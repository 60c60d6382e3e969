/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands. Each takes the words after its name and returns an exit code.
 */
#ifndef ARTEL_CLI_COMMANDS_H
#define ARTEL_CLI_COMMANDS_H

struct command {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
};

extern const struct command commands[]; /* name NULL after the last */

int cmd_train(int argc, char **argv);
int cmd_add(int argc, char **argv);
int cmd_remove(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_score(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_bench(int argc, char **argv);

#endif
