/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A log line in one of several layouts to its fields in a fixed order.
 */
#include "skill.h"

#include <stdio.h>

static const char *const levels[] = {"INFO", "WARN", "ERROR", "DEBUG"};

static const char *const train_services[] = {"db",    "auth",  "cache", "mailer",
                                             "proxy", "queue", "disk",  "search"};
static const char *const test_services[] = {"billing", "upload", "gateway", "indexer"};
static const struct words services = WORDS(train_services, test_services);

static const char *const train_messages[] = {
    "connection lost", "request timed out",  "file not found", "login accepted",
    "retry scheduled", "token has expired",  "disk is full",   "job finished",
    "worker started",  "config was reloaded"};
static const char *const test_messages[] = {"password rejected", "backup completed",
                                            "memory is low", "session closed"};
static const struct words messages = WORDS(train_messages, test_messages);

/* Time, level, service, message, code. */
static const char *const train_lines[] = {
    "%1$s %2$s %3$s: %4$s (code %5$u)",
    "[%2$s] %1$s %3$s - %4$s, code=%5$u",
    "%1$s | %3$s | %2$s | %4$s | %5$u",
    "%2$s %1$s <%3$s> %4$s #%5$u",
};
static const char *const test_lines[] = {
    "%1$s [%3$s] %2$s: %4$s (%5$u)",
    "%2$s;%1$s;%3$s;%4$s;%5$u",
};
static const struct words lines = WORDS(train_lines, test_lines);

void logs_row(char *question, char *answer, struct draw *d)
{
    const char *level = levels[draw_below(d, 4)], *service = draw_word(d, &services);
    const char *message = draw_word(d, &messages);
    const uint32_t code = 1 + draw_below(d, 99);
    char time[32], line[TEXT_MAX / 2];

    snprintf(time, sizeof(time), "%02u:%02u:%02u", draw_below(d, 24), draw_below(d, 60),
             draw_below(d, 60));
    snprintf(line, sizeof(line), draw_word(d, &lines), time, level, service, message,
             code);
    snprintf(question, TEXT_MAX, "Log line: %s", line);
    snprintf(answer, TEXT_MAX, "time=%s level=%s service=%s code=%u message=%s", time,
             level, service, code, message);
}
