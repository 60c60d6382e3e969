/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line a note, written with one call so that lines of threads never mix.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static enum log_level shown = LOG_QUIET;

void log_set_level(enum log_level level)
{
    shown = level;
}

void log_note(enum log_level level, const char *fmt, ...)
{
    char line[1024];
    va_list args;

    if (level > shown)
        return;
    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    fprintf(stderr, level == LOG_WARN ? "warning: %s\n" : "%s\n", line);
}
