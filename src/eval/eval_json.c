/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/eval_json.h"

#include <math.h>
#include <string.h>

#include "artel.h"
#include "decoder/gate_sums.h"
#include "eval/judge.h"

json_t *eval_number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static void put(json_t *o, const char *key, double v)
{
    json_object_set_new(o, key, eval_number(v));
}

static void put_count(json_t *o, const char *key, size_t n)
{
    json_object_set_new(o, key, json_integer((json_int_t)n));
}

static json_t *judge_json(const struct judged *j)
{
    json_t *const o = json_object();
    double sum = 0;

    for (size_t i = 0; i < JUDGE_QUALITIES; i++)
        sum += j->quality[i];
    put(o, "score", j->n ? sum : (double)NAN);
    for (size_t i = 0; i < JUDGE_QUALITIES; i++)
        put(o, judge_qualities[i], j->n ? j->quality[i] : (double)NAN);
    put_count(o, "ratings", j->n);
    put_count(o, "missing", j->missing);
    return o;
}

static void generated_json(json_t *o, const struct measured *r, enum answer_score score)
{
    put_count(o, "score_rows", r->n_judged);
    put(o, "bleu", r->bleu);
    put(o, "rouge_l", r->rouge_l);
    if (score == ANSWER_JSON) {
        put(o, "json_valid", r->json_valid);
        put(o, "json_name", r->json_name);
    }
    if (r->generate_seconds > 0)
        put(o, "tokens_per_second", r->generated_tokens / r->generate_seconds);
}

/* exp(nll / N), of several experts the mean of theirs. */
static double perplexity_of(const struct measured *r, double n)
{
    double sum = 0;

    if (!r->n_each)
        return exp(r->nll / n);
    for (size_t e = 0; e < r->n_each; e++) {
        double nll = 0;

        for (size_t i = 0; i < r->n_rows; i++)
            nll += r->value[e * r->n_rows + i];
        sum += exp(nll / n);
    }
    return sum / (double)r->n_each;
}

static void windows_json(json_t *o, const struct measured *r)
{
    put(o, "word_perplexity", perplexity_of(r, r->n_words));
    put(o, "byte_perplexity", perplexity_of(r, r->n_bytes));
    put(o, "bits_per_byte", r->nll / (r->n_bytes * log(2)));
}

void eval_routing_json(json_t *o, double decisions, double entropy, double identity)
{
    put(o, "gate_entropy", decisions > 0 ? entropy / decisions : (double)NAN);
    put(o, "identity_share", decisions > 0 ? identity / decisions : (double)NAN);
}

json_t *eval_set_json(const struct measured *r, enum answer_score score,
                      bool has_expert)
{
    const char *const name = r->windows     ? answer_score_name(ANSWER_LOSS)
                             : !r->choices  ? answer_score_name(score)
                             : r->by_length ? "acc_norm"
                                            : "acc";
    json_t *const o = json_object();

    put_count(o, "rows", r->n_rows);
    put_count(o, "dropped", r->n_dropped);
    put(o, "perplexity", r->perplexity);
    put_count(o, "answer_tokens", r->answer_tokens);
    put(o, "score", r->n_judged ? r->score : (double)NAN);
    json_object_set_new(o, "score_name", json_string(name));
    if (r->choices) {
        put(o, "acc", r->acc);
        put(o, "acc_norm", r->acc_norm);
    } else if (r->n_judged) {
        generated_json(o, r, score);
    }
    if (r->judged.n || r->judged.missing)
        json_object_set_new(o, "judge", judge_json(&r->judged));
    if (r->windows)
        windows_json(o, r);
    put(o, "routing_accuracy",
        r->n_routed && has_expert ? (double)r->n_right / (double)r->n_routed
                                  : (double)NAN);
    if (r->sums)
        eval_routing_json(o, r->sums->decisions, r->sums->entropy, r->sums->identity);
    return o;
}

void eval_change_json(json_t *set, const struct change *change)
{
    json_t *const interval = change ? json_array() : json_null();

    if (change) {
        json_array_append_new(interval, eval_number(change->low));
        json_array_append_new(interval, eval_number(change->high));
    }
    json_object_set_new(set, "change",
                        change ? eval_number(change->value) : json_null());
    json_object_set_new(set, "ci95", interval);
}

json_t *eval_confusion_json(const struct measured *r, const struct artel_mixture *m)
{
    json_t *const row = json_object();

    for (size_t e = 0; m->mixture && e < m->mixture->n_experts; e++)
        put_count(row, m->mixture->experts[e].name, r->chosen[e]);
    return row;
}

json_t *eval_gates_json(const struct measured *r)
{
    json_t *const routers = json_array();

    for (size_t i = 0; r->sums && i < r->n_routers; i++) {
        json_t *const gates = json_array();

        for (size_t e = 0; e < r->n_experts; e++) {
            const double mean = r->sums->gate[i * r->n_experts + e] / r->sums->n;

            /* four digits are what a picture shows */
            json_array_append_new(gates, eval_number(round(mean * 1e4) / 1e4));
        }
        json_array_append_new(routers, gates);
    }
    return routers;
}

/* Sum of KEY over the stages that made the mixture, or null where none tells. */
static json_t *training_sum(const json_t *training, const char *key)
{
    const json_t *const stages = json_object_get(training, "stages");
    double sum = 0;
    bool whole = true, any = false;
    const char *name;
    json_t *stage;

    json_object_foreach((json_t *)(size_t)stages, name, stage)
    {
        const json_t *const v = json_object_get(stage, key);

        any |= json_is_number(v);
        whole &= !json_is_real(v);
        sum += json_number_value(v);
    }
    return !any    ? json_null()
           : whole ? json_integer((json_int_t)sum)
                   : eval_number(sum);
}

void eval_method_json(json_t *method, const struct artel_mixture *m, bool is_base)
{
    static const char *const keys[] = {"tokens", "steps", "seconds"};
    json_t *const seed =
        json_object_get(json_object_get(m->file.settings, "train"), "seed");
    json_t *const experts = json_array();
    struct artel_mixture_info info;

    artel_mixture_info(m, &info);
    json_object_set_new(method, "name", json_string(is_base ? "base" : info.method));
    json_object_set_new(method, "path",
                        json_string(is_base ? m->model->weights->path : m->path));
    json_object_set_new(method, "base", json_string(m->model->weights->path));
    json_object_set_new(method, "seed",
                        is_base || !seed ? json_null() : json_incref(seed));
    json_object_set_new(method, "trainable_parameters",
                        json_integer(is_base ? 0 : (json_int_t)info.n_parameters));
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        json_object_set_new(method, keys[i],
                            is_base ? json_integer(0)
                                    : training_sum(m->file.training, keys[i]));
    for (size_t e = 0; !is_base && m->mixture && e < m->mixture->n_experts; e++)
        json_array_append_new(experts, json_string(m->mixture->experts[e].name));
    json_object_set_new(method, "experts", experts);
}
