/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doubles go through JSON with 17 digits and come back the same; a position of
 * "never" is -1 there.
 */
#include "plan/loop_state.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"

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
        bad || json_object_set(o, "last", last) ||
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
    snprintf(s->isa, sizeof(s->isa), "%s", isa ? isa : "");
    return 0;
}
