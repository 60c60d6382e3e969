/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/api_counts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 256 /* experts that are counted each on its own */
#define BOUNDS    14

static const double bounds[BOUNDS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                      0.25,  0.5,    1,     2.5,  5,     10,   60};

static const struct {
    const char *name, *help;
} histograms[N_HISTOGRAMS] = {
    {"artel_time_to_first_token_seconds",
     "From a request's arrival to its first token."},
    {"artel_inter_token_seconds", "From one token of an answer to the next."},
    {"artel_request_seconds", "From a request's arrival to the end of its reply."}};

struct api_counts {
    atomic_uint holders;
    pthread_mutex_t lock;
    struct {
        uint64_t at[BOUNDS], n; /* AT: up to that bound, and not to the one before */
        double sum;
    } h[N_HISTOGRAMS];
    size_t n_names;
    struct {
        char name[72];
        uint64_t n;
    } answers[NAMES_MAX];
};

struct api_counts *counts_open(void)
{
    struct api_counts *const c = calloc(1, sizeof(*c));

    if (c) {
        pthread_mutex_init(&c->lock, NULL);
        c->holders = 1;
    }
    return c;
}

struct api_counts *counts_hold(struct api_counts *c)
{
    atomic_fetch_add(&c->holders, 1);
    return c;
}

void counts_let_go(struct api_counts *c)
{
    if (!c || atomic_fetch_sub(&c->holders, 1) > 1)
        return;
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void counts_observe(struct api_counts *c, enum api_histogram h, double value, size_t n)
{
    size_t i = 0;

    while (i < BOUNDS && value > bounds[i])
        i++;
    pthread_mutex_lock(&c->lock);
    if (i < BOUNDS)
        c->h[h].at[i] += n;
    c->h[h].n += n;
    c->h[h].sum += value * (double)n;
    pthread_mutex_unlock(&c->lock);
}

void counts_answer(struct api_counts *c, const char *expert)
{
    size_t i = 0;

    pthread_mutex_lock(&c->lock);
    while (i < c->n_names && strcmp(c->answers[i].name, expert) != 0)
        i++;
    if (i == NAMES_MAX)
        i--; /* the last one stands for all others */
    else if (i == c->n_names)
        snprintf(c->answers[c->n_names++].name, sizeof(c->answers[0].name), "%s",
                 i == NAMES_MAX - 1 ? "others" : expert);
    c->answers[i].n++;
    pthread_mutex_unlock(&c->lock);
}

static void print_histogram(FILE *f, const struct api_counts *c, size_t h)
{
    const char *const name = histograms[h].name;
    uint64_t sum = 0;

    fprintf(f, "# HELP %s %s\n# TYPE %s histogram\n", name, histograms[h].help, name);
    for (size_t i = 0; i < BOUNDS; i++) {
        sum += c->h[h].at[i];
        fprintf(f, "%s_bucket{le=\"%g\"} %llu\n", name, bounds[i],
                (unsigned long long)sum);
    }
    fprintf(f, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.9g\n%s_count %llu\n", name,
            (unsigned long long)c->h[h].n, name, c->h[h].sum, name,
            (unsigned long long)c->h[h].n);
}

char *counts_text(struct api_counts *c)
{
    char *text = NULL;
    size_t n;
    FILE *const f = open_memstream(&text, &n);

    if (!f)
        return NULL;
    pthread_mutex_lock(&c->lock);
    fputs("# HELP artel_answers_total Answers by the expert that gave them.\n"
          "# TYPE artel_answers_total counter\n",
          f);
    /* A name has no sign that would need an escape. */
    for (size_t i = 0; i < c->n_names; i++)
        fprintf(f, "artel_answers_total{expert=\"%s\"} %llu\n", c->answers[i].name,
                (unsigned long long)c->answers[i].n);
    for (size_t h = 0; h < N_HISTOGRAMS; h++)
        print_histogram(f, c, h);
    pthread_mutex_unlock(&c->lock);
    if (fclose(f) == 0)
        return text;
    free(text);
    return NULL;
}
