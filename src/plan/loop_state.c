/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doubles go through JSON with 17 digits and come back the same; a position of
 * "never" is -1 there.
 */
#include "plan/loop_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"

#define DIVERGED_STEPS 10 /* in a row that teach nothing: the run has diverged */

void loop_state_init(struct loop_state *s)
{
    *s = (struct loop_state){.evaluated = UINT64_MAX};
}

void loop_state_count(struct loop_state *s, const struct step_report *r,
                      double max_grad_norm)
{
    const double loss = (double)r->loss;

    if (!s->n_losses)
        s->start_loss = loss;
    if (s->n_first < LOOP_WINDOW) {
        s->first_sum += loss;
        s->n_first++;
    }
    s->last[s->n_losses++ % LOOP_WINDOW] = loss;
    s->tokens += r->n_tokens;
    s->answer_tokens += r->n_loss;
    s->clipped += max_grad_norm > 0 && (double)r->grad_norm > max_grad_norm;
}

/*
 * The final norm bounds the logits, and what overflows before it may come out as zeros: a
 * run at an absurd rate can stay finite for ever. That it is dead shows all the same, in a
 * loss no better than a guess or, where there was one before, a gradient that is exactly
 * nothing. (The router of a single expert never has any.)
 */
int loop_state_check_diverged(struct loop_state *s, const struct step_report *r,
                              size_t n_vocab, struct artel_error *err)
{
    const double bound = fmax(log((double)n_vocab), 1.5 * s->start_loss);
    const bool moves = r->grad_norm > 0 || !s->had_gradient;

    s->had_gradient |= r->grad_norm > 0;
    if ((double)r->loss <= bound && moves) {
        s->diverged = 0;
        return 0;
    }
    if (++s->diverged < DIVERGED_STEPS)
        return 0;
    return error_set(
        err, ARTEL_ENONFINITE, "NAN02", "loss",
        "diverged: %.4g with a gradient of %.3g at step %llu, %d steps like "
        "this in a row; the learning rate is %.3g",
        (double)r->loss, (double)r->grad_norm, (unsigned long long)s->position,
        DIVERGED_STEPS, (double)r->rate);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Of N > 0 numbers, which are put in order. */
static double median(double *x, size_t n)
{
    qsort(x, n, sizeof(*x), ascending);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

double loop_state_spike_limit(const struct loop_state *s, double z)
{
    const size_t n = s->n_recent < LOOP_RECENT ? (size_t)s->n_recent : LOOP_RECENT;
    double x[LOOP_RECENT], middle;

    if (!(z > 0) || n < LOOP_RECENT / 2)
        return HUGE_VAL;
    memcpy(x, s->recent, n * sizeof(*x));
    middle = median(x, n);
    for (size_t i = 0; i < n; i++)
        x[i] = fabs(x[i] - middle);
    return middle + z * fmax(1.4826 * median(x, n), middle / 100);
}

void loop_state_note_loss(struct loop_state *s, double loss)
{
    if (isfinite(loss))
        s->recent[s->n_recent++ % LOOP_RECENT] = loss;
}

double loop_state_last_loss(const struct loop_state *s)
{
    const uint64_t n = s->n_losses < LOOP_WINDOW ? s->n_losses : LOOP_WINDOW;
    double sum = 0;

    for (uint64_t i = 0; i < n; i++)
        sum += s->last[i];
    return n ? sum / (double)n : 0;
}

/* One list for both ways, so that they cannot disagree. */
struct field {
    const char *name;
    size_t offset;
    enum { FIELD_U64, FIELD_REAL, FIELD_BOOL } kind;
};

#define FIELD(name, kind)                                                              \
    {                                                                                  \
#name, offsetof(struct loop_state, name), kind                                 \
    }

static const struct field fields[] = {
    FIELD(position, FIELD_U64),   FIELD(trainer_steps, FIELD_U64),
    FIELD(skipped, FIELD_U64),    FIELD(clipped, FIELD_U64),
    FIELD(tokens, FIELD_U64),     FIELD(answer_tokens, FIELD_U64),
    FIELD(seconds, FIELD_REAL),   FIELD(start_loss, FIELD_REAL),
    FIELD(first_sum, FIELD_REAL), FIELD(n_first, FIELD_U64),
    FIELD(n_losses, FIELD_U64),   FIELD(diverged, FIELD_U64),
    FIELD(has_best, FIELD_BOOL),  FIELD(best_measure, FIELD_REAL),
    FIELD(best_loss, FIELD_REAL), FIELD(valid_loss, FIELD_REAL),
    FIELD(best_step, FIELD_U64),  FIELD(worse_evals, FIELD_U64),
    FIELD(evaluated, FIELD_U64),  FIELD(early_stopped, FIELD_BOOL),
};

#define N_FIELDS (sizeof(fields) / sizeof(fields[0]))

/* JSON has no word for what is not finite: a validation loss may be that. */
json_t *real_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* Runs that leave no spike out have neither. */
static int put_spikes(json_t *o, const struct loop_state *s)
{
    const uint64_t first = s->n_recent < LOOP_RECENT ? 0 : s->n_recent - LOOP_RECENT;
    json_t *const recent = json_array();
    int bad = !recent ||
              json_object_set_new(o, "spikes", json_integer((json_int_t)s->spikes));

    for (uint64_t i = first; !bad && i < s->n_recent; i++)
        bad = json_array_append_new(recent, json_real(s->recent[i % LOOP_RECENT]));
    bad = bad || json_object_set(o, "recent", recent);
    json_decref(recent);
    return bad;
}

static void read_spikes(struct loop_state *s, const json_t *state)
{
    const json_t *const recent = json_object_get(state, "recent");

    s->spikes = (uint64_t)json_integer_value(json_object_get(state, "spikes"));
    for (size_t i = 0; i < json_array_size(recent); i++)
        loop_state_note_loss(s, json_number_value(json_array_get(recent, i)));
}

json_t *loop_state_json(const struct loop_state *s, const json_t *inputs)
{
    json_t *o = json_object(), *last = json_array();
    int bad = !o || !last;

    for (size_t i = 0; !bad && i < N_FIELDS; i++) {
        const char *at = (const char *)s + fields[i].offset;
        json_t *value;

        if (fields[i].kind == FIELD_U64)
            value = json_integer((json_int_t) * (const uint64_t *)(const void *)at);
        else if (fields[i].kind == FIELD_REAL)
            value = real_or_null(*(const double *)(const void *)at);
        else
            value = json_boolean(*(const bool *)(const void *)at);
        bad = json_object_set_new(o, fields[i].name, value);
    }
    for (size_t i = 0; !bad && i < LOOP_WINDOW; i++)
        bad = json_array_append_new(last, real_or_null(s->last[i]));
    bad =
        bad || json_object_set(o, "last", last) || (s->n_recent && put_spikes(o, s)) ||
        json_object_set_new(o, "isa", json_string(s->isa)) ||
        json_object_set_new(o, "inputs", inputs ? json_deep_copy(inputs) : json_null());
    json_decref(last);
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}

int loop_state_read(struct loop_state *s, const json_t *state, const char *path,
                    struct artel_error *err)
{
    const json_t *last = json_object_get(state, "last");
    const char *isa = json_string_value(json_object_get(state, "isa"));

    loop_state_init(s);
    for (size_t i = 0; i < N_FIELDS; i++) {
        const json_t *value = json_object_get(state, fields[i].name);
        char *at = (char *)s + fields[i].offset;

        if (fields[i].kind == FIELD_U64 && json_is_integer(value))
            *(uint64_t *)(void *)at = (uint64_t)json_integer_value(value);
        else if (fields[i].kind == FIELD_REAL &&
                 (json_is_number(value) || json_is_null(value)))
            *(double *)(void *)at =
                json_is_null(value) ? (double)NAN : json_number_value(value);
        else if (fields[i].kind == FIELD_BOOL && json_is_boolean(value))
            *(bool *)(void *)at = json_is_true(value);
        else {
            error_set(err, ARTEL_EFORMAT, "RUN07", fields[i].name,
                      "the checkpoint's state.json has no such number");
            return error_in(err, ARTEL_EFORMAT, path);
        }
    }
    for (size_t i = 0; i < LOOP_WINDOW; i++)
        s->last[i] = json_number_value(json_array_get(last, i));
    read_spikes(s, state);
    snprintf(s->isa, sizeof(s->isa), "%s", isa ? isa : "");
    return 0;
}
