/* SPDX-License-Identifier: Apache-2.0 */
/*
 * artel inspect PATH: the JSON of artel_inspect(), or the same for people.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/report.h"

static void print_value(const json_t *v, int indent);

static void print_scalar(const json_t *v)
{
    char *text;
    size_t n;

    if (json_is_string(v)) {
        /* Control bytes of files must not reach the terminal. */
        for (const char *p = json_string_value(v); *p; p += n) {
            char safe[640];

            n = strlen(p) < 64 ? strlen(p) : 64;
            while (n > 60 && ((unsigned char)p[n] & 0xc0) == 0x80)
                n--; /* no character is cut in two */
            fputs(artel_escape(safe, sizeof(safe), p, n), stdout);
        }
        return;
    }
    text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    printf("%s", text ? text : "?");
    free(text);
}

static bool is_small(const json_t *v)
{
    if (json_is_object(v))
        return json_object_size(v) == 0;
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++)
        if (json_is_object(json_array_get(v, i)) || json_is_array(json_array_get(v, i)))
            return false;
    return true;
}

static void print_small(const json_t *v)
{
    if (!json_is_array(v) && !json_is_object(v)) {
        print_scalar(v);
        return;
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        printf(i ? ", " : "");
        print_scalar(json_array_get(v, i));
    }
    if (!json_array_size(v))
        printf("none");
}

static void print_object(json_t *o, int indent)
{
    const char *key;
    json_t *v;

    json_object_foreach(o, key, v)
    {
        printf("%*s%-*s", indent, "", 24 - indent, key);
        if (is_small(v)) {
            printf(" ");
            print_small(v);
            printf("\n");
        } else {
            printf("\n");
            print_value(v, indent + 2);
        }
    }
}

static void print_value(const json_t *v, int indent)
{
    if (json_is_object(v)) {
        print_object((json_t *)(size_t)v, indent);
        return;
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (i)
            printf("\n");
        print_value(json_array_get(v, i), indent);
    }
}

/* Text that carries loss stands out: in colour on a terminal, in brackets elsewhere. */
static void print_preview(const json_t *rows, bool colour)
{
    const json_t *row, *part;
    size_t i, k;

    json_array_foreach(rows, i, row)
    {
        printf("\nline %lld, %lld tokens, %lld with loss%s:\n",
               (long long)json_integer_value(json_object_get(row, "line")),
               (long long)json_integer_value(json_object_get(row, "tokens")),
               (long long)json_integer_value(json_object_get(row, "loss_tokens")),
               colour ? "" : " (in double brackets)");
        json_array_foreach(json_object_get(row, "parts"), k, part)
        {
            const bool loss = json_is_true(json_object_get(part, "loss"));

            printf("%s", !loss ? "" : colour ? "\033[32m" : "[[");
            for (const char *p = json_string_value(json_object_get(part, "text")); *p;
                 p++)
                if (*p == '\n' || *p == '\t' || (unsigned char)*p >= 0x20)
                    putchar(*p);
                else
                    printf("\\x%02X", (unsigned char)*p);
            printf("%s", !loss ? "" : colour ? "\033[0m" : "]]");
        }
        printf("\n");
    }
}

int cmd_inspect(int argc, char **argv)
{
    struct options o = {
        .command = "inspect",
        .usage = "PATH [--verify]",
        .about =
            "What PATH is: a model (sizes, digests, memory it will take), an adapter "
            "(a PEFT folder or a GGUF LoRA: ranks, linears, parameters, base), a "
            "mixture, a recipe (its stages, which are up to date, what the others "
            "will "
            "take), or a dataset (format, rows, tokens, what was dropped and why, "
            "and which text carries loss).",
        .examples = "  artel inspect model.gguf --verify\n"
                    "  artel inspect runs/eight/moa\n"
                    "  artel inspect recipe.yaml\n"
                    "  artel inspect train.jsonl --model model.gguf --preview 2\n",
        .min_words = 1,
        .max_words = 1};
    struct artel_inspect_options io = {0};
    struct artel_error err = {0};
    struct words words;
    const char *json = NULL, *path;
    char *text = NULL;
    uint64_t preview = 1, cutoff = 0, skip_bad = 0;
    bool verify = false;
    json_t *root;
    int rc = 0;

    option_flag(&o, "verify", &verify, "read every byte: all finite, digests in full");
    option_text(&o, "model", &io.model, "PATH",
                "the base, for a dataset, an adapter or a recipe");
    option_whole(&o, "preview", &preview, 0, 1000, "rows of a dataset to show; 1");
    option_whole(&o, "cutoff-len", &cutoff, 16, 1000000, "tokens of a row");
    option_whole(&o, "skip-bad", &skip_bad, 0, 1000000000,
                 "malformed rows passed over");
    option_text(&o, "json", &json, "FILE", "as JSON; - is standard output");
    if (!options_parse(&o, argc, argv, &words, &rc))
        return rc;
    if ((rc = json_check_target("inspect", json, words.at, 1)) ||
        (rc = input_path(&path, words.at[0])))
        return rc;
    io.verify = verify;
    io.preview = (size_t)preview;
    io.cutoff_len = (size_t)cutoff;
    io.skip_bad = (size_t)skip_bad;
    if (artel_inspect(&text, path, &io, &err) < 0)
        return report_error(&err);
    if (json) {
        rc = text_write(json, text);
    } else if ((root = json_loads(text, JSON_ALLOW_NUL, NULL))) {
        json_t *const rows = json_incref(json_object_get(root, "preview"));

        json_object_del(root, "preview");
        print_object(root, 0);
        print_preview(rows, isatty(STDOUT_FILENO));
        json_decref(rows);
        json_decref(root);
    }
    artel_free(text);
    return rc;
}
