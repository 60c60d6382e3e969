/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Notes for the person who runs the program, to standard error. The library
 * says nothing unless the level is raised; the program raises it to LOG_INFO.
 */
#ifndef ARTEL_BASE_LOG_H
#define ARTEL_BASE_LOG_H

enum log_level { LOG_QUIET, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level); /* before threads start */
void log_note(enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#define log_warn(...) log_note(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_note(LOG_INFO, __VA_ARGS__)

#endif
