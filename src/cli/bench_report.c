/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repeats of a work and what they say, for machines and for people.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cpu.h"
#include "cli/bench.h"
#include "cli/signals.h"

#define MIB (1024.0 * 1024.0)

static const char *precision_name(enum precision p)
{
    return p == PRECISION_BF16 ? "bf16" : "fp32";
}

/* The process's peak, since the kernel was asked to forget the last one. */
static double peak_rss_mib(void)
{
    FILE *const f = fopen("/proc/self/status", "re");
    struct rusage usage;
    char line[256];
    double kib = 0;

    while (f && kib <= 0 && fgets(line, sizeof(line), f))
        if (!strncmp(line, "VmHWM:", 6))
            kib = strtod(line + 6, NULL);
    if (f)
        fclose(f);
    if (kib > 0)
        return kib / 1024;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

static void forget_peak(void)
{
    FILE *const f = fopen("/proc/self/clear_refs", "we");

    if (!f)
        return; /* then the peak is the process's, not the work's */
    fputs("5\n", f);
    fclose(f);
}

void bench_begin(struct bench *b, const struct work *w)
{
    char line[64];

    forget_peak();
    b->began = seconds_now();
    snprintf(line, sizeof(line), "%s: warming up", w->name);
    progress_line(&b->progress, line, true);
}

bool bench_goes_on(const struct bench *b, const struct timing *t)
{
    const bool in_time =
        b->budget <= 0 || t->n < 2 || seconds_now() - b->began < b->budget;

    return t->n < b->n_repeats && in_time && !stop_signal;
}

void bench_took(struct bench *b, const struct work *w, struct timing *t, double seconds)
{
    char line[96];

    t->seconds[t->n++] = seconds;
    t->peak_rss_mib = peak_rss_mib();
    snprintf(line, sizeof(line), "%s: %zu of %zu, %.0f tokens/s", w->name, t->n,
             b->n_repeats, t->tokens / seconds);
    progress_line(&b->progress, line, false);
}

static int by_size(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;

    return (a > b) - (a < b);
}

/* What every result says of where it was measured, into R. */
static void add_place(json_t *r, const struct bench *b)
{
    const struct weights *const w = b->model->weights;

    json_object_set_new(r, "cpu", json_string(cpu_model_name()));
    json_object_set_new(r, "threads", json_integer((json_int_t)cpu_threads()));
    json_object_set_new(r, "instructions", json_string(cpu_isa_name(cpu_isa())));
    json_object_set_new(r, "format",
                        json_string(dtype_name(w->layers[0].site[SITE_DOWN].dtype)));
    json_object_set_new(r, "memory", json_string(memory_mode_name(b->memory)));
}

json_t *bench_timing_json(const struct bench *b, const struct work *w, struct timing *t)
{
    const struct product_rates *const p = &b->machine.products[b->precision];
    const double limit = w->kind == WORK_TRAIN ? p->step : p->prefill;
    double median, rate, gflops, read;
    json_t *r;

    qsort(t->seconds, t->n, sizeof(t->seconds[0]), by_size);
    median = t->n % 2 ? t->seconds[t->n / 2]
                      : 0.5 * (t->seconds[t->n / 2 - 1] + t->seconds[t->n / 2]);
    rate = t->tokens / median;
    gflops = 1e-9 * t->flops * rate;
    read = 1e-9 * t->bytes * rate;
    r = json_pack(
        "{s:s, s:s, s:f, s:{s:f, s:f, s:f, s:I}, s:f, s:f, s:o, s:f, s:o}", "work",
        w->name, "precision", precision_name(b->precision), "tokens_per_second", rate,
        "seconds", "median", median, "min", t->seconds[0], "max", t->seconds[t->n - 1],
        "n", (json_int_t)t->n, "peak_rss_mib", t->peak_rss_mib, "product_gflops",
        gflops, "product_share", limit > 0 ? json_real(gflops / limit) : json_null(),
        "bandwidth_gbs", b->machine.bandwidth_gbs, "limit_share",
        json_number(t->bytes > 0 ? read / b->machine.bandwidth_gbs : gflops / limit));
    json_object_set_new(r, "tokens", json_real(t->tokens));
    json_object_set_new(r, "read_gbs", t->bytes > 0 ? json_real(read) : json_null());
    add_place(r, b);
    return r;
}

static json_t *product_json(const struct bench *b, const char *name,
                            const struct tensor *w, double forward, double backward)
{
    (void)b;
    return json_pack("{s:s, s:I, s:I, s:f, s:f}", "linear", name, "outputs",
                     (json_int_t)w->shape[0], "inputs", (json_int_t)w->shape[1],
                     "forward_gflops", forward, "backward_gflops", backward);
}

json_t *bench_machine_json(const struct bench *b, enum precision p)
{
    const struct product_rates *const rates = &b->machine.products[p];
    const struct weights *const w = b->model->weights;
    const struct machine *const m = &b->machine;
    json_t *const products = json_array(), *r;

    for (int s = 0; s < N_SITES; s++)
        json_array_append_new(
            products, product_json(b, site_name((enum site)s), &w->layers[0].site[s],
                                   rates->forward[s], rates->backward[s]));
    json_array_append_new(products,
                          product_json(b, "head", &w->head, rates->forward[N_SITES],
                                       rates->backward[N_SITES]));
    r = json_pack("{s:s, s:s, s:n, s:n, s:f, s:f, s:o, s:f, s:n}", "work", "machine",
                  "precision", precision_name(p), "tokens_per_second", "seconds",
                  "peak_rss_mib", peak_rss_mib(), "product_gflops", rates->step,
                  "product_share",
                  rates->peak > 0 ? json_real(rates->step / rates->peak) : json_null(),
                  "bandwidth_gbs", m->bandwidth_gbs, "limit_share");
    json_object_set_new(r, "peak_gflops",
                        rates->peak > 0 ? json_real(rates->peak) : json_null());
    json_object_set_new(r, "prefill_gflops", json_real(rates->prefill));
    json_object_set_new(r, "bandwidth_one_thread_gbs", json_real(m->bandwidth_one_gbs));
    json_object_set_new(r, "bandwidth_bytes", json_real(bench_bytes_a_token(w)));
    json_object_set_new(r, "fork_join_us",
                        json_pack("{s:f, s:f}", "spinning", m->spinning_us, "sleeping",
                                  m->sleeping_us));
    json_object_set_new(r, "products", products);
    add_place(r, b);
    return r;
}

void bench_print_head(const struct bench *b)
{
    const struct weights *const w = b->model->weights;

    printf("%s, %zu threads, %s\n", cpu_model_name(), cpu_threads(),
           cpu_isa_name(cpu_isa()));
    printf("%s%s, %.0f MiB of weights a token\n\n", w->path,
           b->is_random ? " in the shape of SmolLM2-135M" : "",
           bench_bytes_a_token(w) / MIB);
    fflush(stdout);
}

static double number_of(const json_t *r, const char *key)
{
    return json_number_value(json_object_get(r, key));
}

static void print_machine(const json_t *r)
{
    const json_t *const fork = json_object_get(r, "fork_join_us");
    const double peak = number_of(r, "peak_gflops");

    printf("machine %s  products of a step %.0f GFLOP/s, of a prefill %.0f",
           json_string_value(json_object_get(r, "precision")),
           number_of(r, "product_gflops"), number_of(r, "prefill_gflops"));
    if (peak > 0)
        printf("; in registers %.0f", peak);
    printf("\n              memory is read at %.1f GB/s (%.1f by one thread); fork and "
           "join %.1f us (%.0f asleep)\n",
           number_of(r, "bandwidth_gbs"), number_of(r, "bandwidth_one_thread_gbs"),
           number_of(fork, "spinning"), number_of(fork, "sleeping"));
    fflush(stdout);
}

void bench_print(const json_t *r)
{
    const json_t *const s = json_object_get(r, "seconds");
    const json_t *const read = json_object_get(r, "read_gbs");
    const double tokens = number_of(r, "tokens");
    char rate[64];

    if (!strcmp(json_string_value(json_object_get(r, "work")), "machine")) {
        print_machine(r);
        return;
    }
    if (json_is_number(read))
        snprintf(rate, sizeof(rate), "reads %.1f of %.1f GB/s", json_number_value(read),
                 number_of(r, "bandwidth_gbs"));
    else
        snprintf(rate, sizeof(rate), "products %.0f of %.0f GFLOP/s",
                 number_of(r, "product_gflops"),
                 number_of(r, "product_gflops") / number_of(r, "product_share"));
    printf("%-7s %s %9.1f tokens/s (%.1f to %.1f in %lld)  %-31s %3.0f %%  %5.0f MiB\n",
           json_string_value(json_object_get(r, "work")),
           json_string_value(json_object_get(r, "precision")),
           number_of(r, "tokens_per_second"), tokens / number_of(s, "max"),
           tokens / number_of(s, "min"),
           (long long)json_integer_value(json_object_get(s, "n")), rate,
           100 * number_of(r, "limit_share"), number_of(r, "peak_rss_mib"));
    fflush(stdout);
}
