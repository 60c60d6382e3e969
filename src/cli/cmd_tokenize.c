/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel tokenize MODEL FILE|-: one list of ids an input line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"
#include "cli/signals.h"

struct job {
    struct artel_model *model;
    const char *name; /* of the input, for messages */
    json_t *texts;    /* NULL: ids are printed */
    bool special, jsonl;
};

static int one_text(struct job *j, const char *text, size_t n)
{
    struct artel_error err = {0};
    int32_t *ids = NULL;
    size_t n_ids = 0;

    if (artel_tokenize(j->model, &ids, &n_ids, text, n, j->special, &err) < 0)
        return report_error(&err);
    if (j->texts) {
        json_t *const list = json_array();

        for (size_t i = 0; i < n_ids; i++)
            json_array_append_new(list, json_integer(ids[i]));
        json_array_append_new(j->texts, json_pack("{s:o}", "ids", list));
    } else {
        for (size_t i = 0; i < n_ids; i++)
            printf(i ? " %ld" : "%ld", (long)ids[i]);
        printf("\n");
    }
    artel_free(ids);
    return 0;
}

static int json_line(struct job *j, const char *line, size_t n, size_t number)
{
    json_error_t where;
    json_t *const row =
        json_loadb(line, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    const json_t *const text = json_object_get(row, "text");
    int rc;

    if (json_is_string(text)) {
        rc = one_text(j, json_string_value(text), json_string_length(text));
    } else {
        fprintf(stderr, "error: %s: %zu:%d: %s [TOK91]\n", j->name, number,
                row ? 1 : where.column,
                row ? "a line needs a \"text\" that is a string" : where.text);
        rc = -ARTEL_EFORMAT;
    }
    json_decref(row);
    return rc;
}

static int each_line(struct job *j, FILE *f)
{
    char *line = NULL;
    size_t room = 0, number = 0;
    ssize_t n;
    int rc = 0;

    while (!rc && !stop_signal && (n = getline(&line, &room, f)) >= 0) {
        size_t length = (size_t)n;

        number++;
        if (length && line[length - 1] == '\n')
            length--;
        if (length && line[length - 1] == '\r')
            length--;
        if (!j->jsonl)
            rc = one_text(j, line, length);
        else if (length)
            rc = json_line(j, line, length, number);
    }
    free(line);
    return rc ? rc : ferror(f) ? report_errno(j->name, "cannot read") : 0;
}

static int ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), k = strlen(end);

    return n >= k && !strcmp(text + n - k, end);
}

int cmd_tokenize(int argc, char **argv)
{
    struct options o = {
        .command = "tokenize",
        .usage = "MODEL FILE|- [--json FILE]",
        .about =
            "Token ids of each line of FILE (- is standard input), or of each \"text\" "
            "where FILE is .jsonl. No BOS or EOS is added.",
        .examples = "  echo 'Hello there' | artel tokenize model.gguf -\n"
                    "  artel tokenize model.gguf rows.jsonl --json ids.json\n",
        .min_words = 2,
        .max_words = 2};
    struct job j = {0};
    const char *json = NULL, *input = NULL;
    struct artel_error err = {0};
    struct words words;
    FILE *f = NULL;
    int rc = 0;

    option_text(&o, "json", &json, "FILE",
                "{\"texts\": [{\"ids\": [...]}]}; - is standard "
                "output");
    option_flag(&o, "special", &j.special,
                "control tokens spelled in the text count as such");
    option_flag(&o, "jsonl", &j.jsonl,
                "lines are objects with a \"text\", whatever the "
                "file's name");
    if (!options_parse(&o, argc, argv, &words, &rc))
        return rc;
    rc = json_check_target("tokenize", json, words.at, words.n);
    if (rc || (rc = input_path(&input, words.at[1])))
        return rc;
    if (artel_model_open(&j.model, words.at[0], &err) < 0)
        return report_error(&err);
    j.name = words.at[1];
    j.jsonl |= ends_with(j.name, ".jsonl");
    j.texts = json ? json_array() : NULL;
    f = fopen(input, "r");
    rc = f ? each_line(&j, f) : report_errno(j.name, "cannot open");
    if (!rc && json)
        rc = json_write(json, json_pack("{s:O}", "texts", j.texts));
    if (f)
        fclose(f);
    json_decref(j.texts);
    artel_model_close(j.model);
    return rc;
}
