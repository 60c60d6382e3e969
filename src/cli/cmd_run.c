/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel run MIXTURE --prompt-file FILE: many prompts, answered in parallel.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/asking.h"
#include "cli/commands.h"
#include "cli/signals.h"

struct batch {
    const struct artel_mixture *m;
    struct artel_prompt *prompts;
    struct artel_answer *answers;
    size_t n;
    bool merging; /* --merge auto or always */
    struct progress progress;
};

static void show_rows(void *user, size_t row, size_t done)
{
    struct batch *const b = user;
    char line[64];

    (void)row;
    snprintf(line, sizeof(line), "run: %zu of %zu answers", done, b->n);
    progress_line(&b->progress, line, false);
}

static int show_text(void *user, const char *text, size_t n)
{
    (void)user;
    fwrite(text, 1, n, stdout);
    return fflush(stdout) != 0;
}

/* What the person asked: the last turn of the prompt. */
static json_t *prompt_json(const struct artel_prompt *p)
{
    json_t *messages, *text;

    if (p->raw)
        return json_stringn(p->text, p->n);
    messages = json_loadb(p->text, p->n, JSON_ALLOW_NUL, NULL);
    text = json_object_get(json_array_get(messages, json_array_size(messages) - 1),
                           "content");
    text = text ? json_incref(text) : json_null();
    json_decref(messages);
    return text;
}

static json_t *row_json(const struct batch *b, size_t i)
{
    const struct artel_answer *const a = &b->answers[i];
    const char *const expert = artel_expert_name(b->m, a->expert);
    json_t *const ids = json_array(), *row = json_object();

    for (size_t k = 0; k < a->n_ids; k++)
        json_array_append_new(ids, json_integer(a->ids[k]));
    json_object_set_new(row, "prompt", prompt_json(&b->prompts[i]));
    json_object_set_new(row, "text", json_stringn(a->text, a->n_text));
    json_object_set_new(row, "ids", ids);
    json_object_set_new(row, "expert", json_string(expert ? expert : "base"));
    json_object_set_new(row, "routing", routing_json(a, b->m));
    json_object_set_new(row, "finish_reason", json_string(a->finish_reason));
    if (b->merging)
        json_object_set_new(row, "merged", json_boolean(a->merged));
    json_object_set_new(row, "prompt_tokens",
                        json_integer((json_int_t)a->n_prompt_tokens));
    json_object_set_new(row, "prefill_seconds", json_number(a->prefill_seconds));
    json_object_set_new(row, "decode_seconds", json_number(a->decode_seconds));
    return row;
}

/* One prompt on its own: text as it comes, all threads on it. */
static int run_one(struct batch *b, struct artel_generate_options *g, size_t context,
                   bool show, struct artel_error *err)
{
    struct artel_session *s = NULL;
    int rc = artel_session_open(&s, b->m, context, err);

    if (show)
        g->on_text = show_text;
    if (rc == 0)
        rc = artel_generate(s, b->answers, b->m, b->prompts, g, err);
    artel_session_close(s);
    if (rc == 0 && show)
        printf("\n");
    return rc;
}

static void print_answers(const struct batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        const char *const expert = artel_expert_name(b->m, b->answers[i].expert);

        printf("### %zu [%s%s, %s]\n%s\n\n", i + 1, expert ? expert : "base",
               b->answers[i].merged ? ", merged" : "", b->answers[i].finish_reason,
               b->answers[i].text);
    }
}

/* What --merge came to. */
static void tell_merged(const struct batch *b)
{
    size_t n = 0;

    for (size_t i = 0; i < b->n; i++)
        n += b->answers[i].merged != 0;
    fprintf(stderr, "run: %zu of %zu answers with merged weights\n", n, b->n);
}

static int run_batch(struct batch *b, struct artel_generate_options *g, size_t context,
                     const struct common *c)
{
    const bool show = !json_takes_stdout(c), one = b->n == 1;
    struct artel_error err = {0};
    json_t *rows;
    int rc;

    b->answers = calloc(b->n, sizeof(*b->answers));
    if (!b->answers)
        return EXIT_LIMIT;
    if (one) {
        rc = run_one(b, g, context, show, &err);
    } else {
        progress_init(&b->progress);
        g->on_row = show_rows;
        g->user = b;
        rc = artel_generate_all(b->answers, b->m, b->prompts, b->n, g, &err);
        progress_clear(&b->progress);
    }
    if (rc < 0)
        return report_error(&err);
    if (b->merging)
        tell_merged(b);
    if (show && !one)
        print_answers(b);
    if (!c->json)
        return signals_exit_code();
    rows = json_array();
    for (size_t i = 0; i < b->n; i++)
        json_array_append_new(rows, row_json(b, i));
    rc = json_write(c->json, json_pack("{s:o}", "rows", rows));
    return rc ? rc : signals_exit_code();
}

static int read_prompts(struct batch *b, const struct asking *a, size_t max_rows)
{
    struct artel_error err = {0};
    const char *path;
    int rc;

    if (a->prompt_file) {
        rc = input_path(&path, a->prompt_file);
        if (rc)
            return rc;
        rc = artel_prompts_read(&b->prompts, &b->n, path, a->system, a->raw, max_rows,
                                &err);
        return rc < 0 ? report_error(&err) : 0;
    }
    b->prompts = calloc(1, sizeof(*b->prompts));
    if (!b->prompts)
        return EXIT_LIMIT;
    b->n = 1;
    if (!a->raw) {
        rc = artel_prompt_user(b->prompts, a->prompt, a->system, &err);
        return rc < 0 ? report_error(&err) : 0;
    }
    b->prompts->raw = 1;
    b->prompts->n = strlen(a->prompt);
    b->prompts->text = strdup(a->prompt);
    return b->prompts->text ? 0 : EXIT_LIMIT;
}

int cmd_run(int argc, char **argv)
{
    struct options o = {
        .command = "run",
        .usage = "MIXTURE --prompt TEXT | --prompt-file FILE",
        .about =
            "Answers prompts, each with the expert its routing picks. A prompt is one "
            "user turn through the model's chat template unless --raw. Rows of a file "
            "are answered in parallel; an answer does not depend on the others.",
        .examples =
            "  artel run runs/eight/moa --prompt 'What is 3 * 14?'\n"
            "  artel run runs/eight/moa --prompt-file test.jsonl --json out.json\n"
            "  artel run adapters/math --model model.gguf --prompt 'Hi' --raw\n",
        .min_words = 1,
        .max_words = 1};
    static struct asking a; /* its list of stop strings is long */
    struct artel_generate_options g;
    struct batch b = {0};
    struct common c = {0};
    struct words words;
    uint64_t max_rows = 0;
    struct artel_mixture *m;
    const char *inputs[2];
    int rc = 0;

    asking_options(&o, &a);
    option_whole(&o, "max-rows", &max_rows, 1, 1000000000, "only the first N prompts");
    common_options(&o, &c);
    if (!options_parse(&o, argc, argv, &words, &rc))
        return rc;
    if (!a.prompt && !a.prompt_file)
        return usage_error("run", "", "USE07",
                           "give --prompt TEXT or --prompt-file FILE");
    inputs[0] = words.at[0];
    inputs[1] = a.prompt_file;
    if ((rc = asking_check(&o, &a)) ||
        (rc = json_check_target("run", c.json, inputs, 2)) || (rc = common_start(&c)))
        return rc;
    rc = read_prompts(&b, &a, (size_t)max_rows);
    m = rc ? NULL : common_mixture(&c, words.at[0], &rc);
    b.m = m;
    if (m && !(rc = asking_generate(&g, &o, &a, &c, m))) {
        b.merging = g.merge != ARTEL_MERGE_NEVER;
        rc = run_batch(&b, &g, (size_t)a.context, &c);
    }
    for (size_t i = 0; b.answers && i < b.n; i++)
        artel_answer_release(&b.answers[i]);
    free(b.answers);
    artel_prompts_free(b.prompts, b.n);
    artel_mixture_close(m);
    return rc;
}
