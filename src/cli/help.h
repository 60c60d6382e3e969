/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Help texts, to standard output.
 */
#ifndef ARTEL_CLI_HELP_H
#define ARTEL_CLI_HELP_H

#include <stdio.h>

struct options;

void help_program(FILE *f);
void help_command(const struct options *o);

#endif
