/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel score MIXTURE DATA: how likely the answers of a file are.
 */
#include <stdio.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/signals.h"

static void show_rows(void *user, size_t done, size_t n)
{
    char line[64];

    snprintf(line, sizeof(line), "score: %zu of %zu rows", done, n);
    progress_line(user, line, false);
}

static json_t *score_json(const struct artel_score *s, const struct artel_mixture *m)
{
    json_t *const rows = json_array();

    for (size_t i = 0; i < s->n_rows; i++) {
        const struct artel_score_row *const r = &s->rows[i];
        const char *const expert = artel_expert_name(m, r->expert);

        json_array_append_new(
            rows, json_pack("{s:I, s:I, s:I, s:f, s:s}", "line", (json_int_t)r->line,
                            "prompt_tokens", (json_int_t)r->prompt_tokens,
                            "answer_tokens", (json_int_t)r->answer_tokens, "nll",
                            r->nll, "expert", expert ? expert : "base"));
    }
    return json_pack("{s:o, s:I, s:o, s:o, s:I, s:o}", "rows", rows, "answer_tokens",
                     (json_int_t)s->answer_tokens, "nll", json_number(s->nll),
                     "perplexity", json_number(s->perplexity), "dropped",
                     (json_int_t)s->n_dropped, "seconds", json_number(s->seconds));
}

static void print_score(const struct artel_score *s, const struct artel_mixture *m)
{
    struct artel_mixture_info info;

    artel_mixture_info(m, &info);
    printf("rows %zu (%zu dropped), answer tokens %zu, nll %.6f a token, perplexity "
           "%.4f\n",
           s->n_rows, s->n_dropped, s->answer_tokens,
           s->answer_tokens ? s->nll / (double)s->answer_tokens : 0.0, s->perplexity);
    for (int e = -1; info.n_experts && e < (int)info.n_experts; e++) {
        size_t n = 0;

        for (size_t i = 0; i < s->n_rows; i++)
            n += s->rows[i].expert == e;
        if (n)
            printf("  %-20s %zu rows\n", artel_expert_name(m, e), n);
    }
}

int cmd_score(int argc, char **argv)
{
    struct options o = {
        .command = "score",
        .usage = "MIXTURE DATA [--expert auto|base|NAME]",
        .about =
            "Negative log-likelihood of the answers in DATA, row by row, the "
            "end-of-turn token included, and perplexity. MIXTURE may be a bare model, "
            "or an adapter folder with --model.",
        .examples = "  artel score runs/eight/moa data/math/test.jsonl\n"
                    "  artel score model.gguf test.jsonl --json - | jq .perplexity\n",
        .min_words = 2,
        .max_words = 2};
    struct artel_score_options so;
    struct artel_error err = {0};
    struct artel_score s = {0};
    struct artel_mixture *m;
    struct common c = {0};
    struct progress p;
    struct words words;
    const char *expert = "auto", *data;
    uint64_t max_rows = 0, cutoff = 0, skip_bad = 0;
    int rc = 0;

    option_text(&o, "expert", &expert, "NAME",
                "auto (the routers), base, or an expert");
    option_whole(&o, "max-rows", &max_rows, 1, 1000000000, "only the first N rows");
    option_whole(&o, "cutoff-len", &cutoff, 16, 1000000,
                 "tokens of a row; the end of a longer answer is cut");
    option_whole(&o, "skip-bad", &skip_bad, 0, 1000000000,
                 "malformed rows passed over");
    common_options(&o, &c);
    if (!options_parse(&o, argc, argv, &words, &rc))
        return rc;
    rc = json_check_target("score", c.json, words.at, words.n);
    if (rc || (rc = common_start(&c)) || (rc = input_path(&data, words.at[1])))
        return rc;
    m = common_mixture(&c, words.at[0], &rc);
    if (!m)
        return rc;
    progress_init(&p);
    artel_score_options_default(&so);
    so.max_rows = (size_t)max_rows;
    so.cutoff_len = (size_t)cutoff;
    so.skip_bad = (size_t)skip_bad;
    so.stopped = &stop_signal;
    so.on_rows = show_rows;
    so.user = &p;
    if (artel_expert_find(m, &so.expert, expert, &err) < 0 ||
        artel_score(&s, m, data, &so, &err) < 0) {
        progress_clear(&p);
        rc = report_error(&err);
    } else {
        progress_clear(&p);
        if (!json_takes_stdout(&c))
            print_score(&s, m);
        if (c.json)
            rc = json_write(c.json, score_json(&s, m));
    }
    artel_score_release(&s);
    artel_mixture_close(m);
    return rc;
}
