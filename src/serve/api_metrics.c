/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /metrics in Prometheus' text format.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "serve/api_counts.h"
#include "serve/api_parts.h"

static void head(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void counter(FILE *f, const char *name, uint64_t value, const char *help)
{
    head(f, name, "counter", help);
    fprintf(f, "%s %llu\n", name, (unsigned long long)value);
}

static void gauge(FILE *f, const char *name, double value, const char *help)
{
    head(f, name, "gauge", help);
    fprintf(f, "%s %.9g\n", name, value);
}

static void seconds(FILE *f, const char *name, double value, const char *help)
{
    head(f, name, "counter", help);
    fprintf(f, "%s %.9g\n", name, value);
}

static void print_engine(FILE *f, const struct engine_stats *s)
{
    counter(f, "artel_jobs_total", s->jobs, "Answers that the engine was asked for.");
    counter(f, "artel_jobs_done_total", s->jobs_done, "Answers that were completed.");
    counter(f, "artel_jobs_failed_total", s->jobs_failed, "Answers that failed.");
    counter(f, "artel_jobs_cancelled_total", s->jobs_cancelled,
            "Answers that nobody waited for any more.");
    counter(f, "artel_jobs_expired_total", s->jobs_expired,
            "Answers whose deadline passed.");
    counter(f, "artel_prompt_tokens_total", s->prompt_tokens, "Tokens of prompts.");
    counter(f, "artel_cached_tokens_total", s->cached_tokens,
            "Tokens of prompts that were in the cache already.");
    counter(f, "artel_completion_tokens_total", s->completion_tokens,
            "Tokens that were written.");
    counter(f, "artel_steps_total", s->steps, "Steps of the engine.");
    gauge(f, "artel_running", (double)s->running, "Answers under way.");
    gauge(f, "artel_waiting", (double)s->waiting, "Answers in the queue.");
    gauge(f, "artel_seats", (double)s->seats, "Answers that fit side by side.");
    gauge(f, "artel_cache_used_bytes", (double)s->cache_bytes_used,
          "Keys and values in use, kept prefixes included.");
    gauge(f, "artel_cache_bytes", (double)s->cache_bytes, "Room for keys and values.");
    seconds(f, "artel_busy_seconds_total", s->busy_seconds,
            "Time that the engine computed.");
    seconds(f, "artel_idle_seconds_total", s->idle_seconds,
            "Time that it waited for work.");
}

static void print_http(FILE *f, const struct http_stats *s)
{
    gauge(f, "artel_http_connections", (double)s->connections, "Open connections.");
    gauge(f, "artel_http_exchanges", (double)s->exchanges, "Requests being answered.");
    counter(f, "artel_http_refused_total", s->refused,
            "Requests answered with 429 or 503.");
    counter(f, "artel_http_received_bytes_total", s->bytes_in, "Bytes of requests.");
    counter(f, "artel_http_sent_bytes_total", s->bytes_out, "Bytes of replies.");
    head(f, "artel_http_requests_total", "counter", "Requests by class of status.");
    for (size_t i = 1; i < 6; i++)
        fprintf(f, "artel_http_requests_total{status=\"%zuxx\"} %llu\n", i,
                (unsigned long long)s->status[i]);
}

void api_metrics(void *user, struct exchange *x)
{
    struct api *const a = user;
    struct engine_stats engine;
    char *text = NULL, *counts = counts_text(a->counts);
    size_t n = 0;
    FILE *const f = open_memstream(&text, &n);

    if (f) {
        engine_stats(a->engine, &engine);
        print_engine(f, &engine);
        if (a->http) {
            struct http_stats http;

            http_stats(a->http, &http);
            print_http(f, &http);
        }
        gauge(f, "artel_uptime_seconds", clock_seconds() - a->started,
              "Since the server began.");
        gauge(f, "artel_draining", a->draining ? 1 : 0,
              "1: no more requests are taken.");
        fputs(counts ? counts : "", f);
    }
    if (f && fclose(f) == 0 && counts)
        exchange_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", text, n);
    else
        exchange_error(x, 503, "server_error", NULL, NULL, "no memory for this answer");
    free(counts);
    free(text);
}
