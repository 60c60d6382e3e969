/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the program can do, from the tables of commands and options.
 */
#include "cli/help.h"

#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"

#define LINE_WIDTH 79

void help_program(FILE *f)
{
    fprintf(f, "usage: artel COMMAND ... [--option VALUE ...]\n\n"
               "Trains and serves mixtures of LoRA experts over one frozen language "
               "model.\n\n");
    for (const struct command *c = commands; c->name; c++)
        fprintf(f, "  %-9s %s\n", c->name, c->summary);
    fprintf(f, "\nartel COMMAND -h shows its options and examples, artel --version the "
               "version.\n");
}

/* TEXT from column INDENT on, broken at blanks; the cursor is at COLUMN. */
static void wrap(const char *text, size_t indent, size_t column)
{
    while (*text) {
        const size_t n = strcspn(text, " \n");

        if (column > indent && column + 1 + n > LINE_WIDTH) {
            printf("\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            printf(" ");
            column++;
        } else if (column < indent) {
            printf("%*s", (int)(indent - column), "");
            column = indent;
        }
        printf("%.*s", (int)n, text);
        column += n;
        text += n;
        if (*text == '\n') {
            printf("\n");
            column = 0;
        }
        if (*text)
            text++;
    }
    printf("\n");
}

void help_command(const struct options *o)
{
    char left[96];

    printf("usage: artel %s %s\n\n", o->command, o->usage);
    wrap(o->about, 0, 0);
    printf("\n");
    for (size_t i = 0; i < o->n; i++) {
        const struct option *const p = &o->at[i];

        snprintf(left, sizeof(left), "  --%s%s%s", p->name, p->arg ? " " : "",
                 p->arg ? p->arg : "");
        printf("%s", left);
        if (strlen(left) > 26)
            printf("\n");
        wrap(p->help, 28, strlen(left) > 26 ? 0 : strlen(left));
    }
    printf("  -h, --help");
    wrap("this text", 28, 12);
    printf("\nexamples:\n%s", o->examples);
}
