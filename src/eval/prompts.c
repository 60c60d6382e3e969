/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts from a person or a file, as messages for the chat template: chat JSONL in
 * any format that training reads, each line by itself, or text with one prompt a line.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "data/rows.h"
#include "files/json.h"
#include "files/lines.h"

#define ROWS_MAX ((size_t)1 << 24)

static int add_turn(json_t *messages, const char *role, const char *text, size_t n)
{
    return json_array_append_new(
        messages, json_pack("{s:s, s:s%}", "role", role, "content", text, n));
}

/* Takes over MESSAGES. */
static int finish(struct artel_prompt *out, json_t *messages, struct artel_error *err)
{
    *out = (struct artel_prompt){.text = messages ? json_dumps(messages, JSON_COMPACT)
                                                  : NULL};
    json_decref(messages);
    if (!out->text)
        return error_nomem(err, 0);
    out->n = strlen(out->text);
    return 0;
}

static int user_prompt(struct artel_prompt *out, const char *text, size_t n,
                       const char *system, struct artel_error *err)
{
    json_t *const messages = json_array();

    if (system && add_turn(messages, "system", system, strlen(system)) < 0)
        goto bad;
    if (add_turn(messages, "user", text, n) < 0)
        goto bad;
    return finish(out, messages, err);

bad:
    json_decref(messages);
    return error_set(err, ARTEL_EFORMAT, "PRM01", NULL, "a prompt must be UTF-8");
}

int artel_prompt_user(struct artel_prompt *out, const char *text, const char *system,
                      struct artel_error *err)
{
    *out = (struct artel_prompt){0};
    return user_prompt(out, text, strlen(text), system, err);
}

/* A row of chat data without its last answer, with SYSTEM in front where it has none. */
static int row_prompt(struct artel_prompt *out, const struct row *row,
                      const char *system, struct artel_error *err)
{
    json_t *messages;
    const char *role;
    size_t n;

    if (row->kind == ROW_CHOICES)
        return user_prompt(out, row->text, row->text_n, system, err);
    messages = json_deep_copy(row->messages);
    n = json_array_size(messages);
    role = json_string_value(json_object_get(json_array_get(messages, n - 1), "role"));
    if (role && !strcmp(role, "assistant"))
        json_array_remove(messages, --n);
    if (!n) {
        json_decref(messages);
        return error_set(err, ARTEL_EFORMAT, "PRM02", NULL,
                         "the row has no turn before an answer");
    }
    role = json_string_value(json_object_get(json_array_get(messages, 0), "role"));
    if (system && (!role || strcmp(role, "system")))
        json_array_insert_new(
            messages, 0, json_pack("{s:s, s:s}", "role", "system", "content", system));
    if (row->tools)
        messages = json_pack("{s:o, s:O}", "messages", messages, "tools", row->tools);
    return finish(out, messages, err);
}

static int json_prompt(struct artel_prompt *out, const json_t *object,
                       const char *system, struct artel_error *err)
{
    enum row_kind kind = ROW_UNKNOWN;
    struct row row = {0};
    int rc = row_read(&row, &kind, object, true, false, err);

    if (rc == 0 && !row.messages && row.kind != ROW_CHOICES)
        rc = error_set(err, ARTEL_EFORMAT, "PRM03", NULL,
                       "a row of %s is no prompt; --raw takes lines as they are",
                       row_kind_name(row.kind));
    if (rc == 0)
        rc = row_prompt(out, &row, system, err);
    row_release(&row);
    return rc;
}

static int line_prompt(struct artel_prompt *out, const char *text, size_t n,
                       size_t number, const char *path, const char *system, int raw,
                       int is_json, struct artel_error *err)
{
    json_t *row = NULL;
    int rc;

    if (raw) {
        *out = (struct artel_prompt){.text = malloc(n + 1), .n = n, .raw = 1};
        if (!out->text)
            return error_nomem(err, n);
        memcpy(out->text, text, n);
        out->text[n] = '\0';
        return 0;
    }
    if (!is_json)
        return user_prompt(out, text, n, system, err);
    rc = json_parse(&row, text, n, path, number - 1, err);
    if (rc == 0 && !json_is_object(row))
        rc = error_set(err, ARTEL_EFORMAT, "PRM04", NULL, "a line must be an object");
    if (rc == 0)
        rc = json_prompt(out, row, system, err);
    json_decref(row);
    return rc;
}

static int grow(struct artel_prompt **rows, size_t n, size_t *room,
                struct artel_error *err)
{
    struct artel_prompt *more;

    if (n < *room)
        return 0;
    *room = 2 * *room + 64;
    more = realloc(*rows, *room * sizeof(**rows));
    if (!more)
        return error_nomem(err, *room * sizeof(**rows));
    *rows = more;
    return 0;
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!memchr(" \t\r\n", text[i], 4))
            return false;
    return true;
}

/* The first byte that is no blank tells JSON lines from plain text. */
static int looks_like_json(const struct map *map)
{
    for (size_t i = 0; i < map->size; i++)
        if (!strchr(" \t\r\n\xef\xbb\xbf", map->data[i]) || !map->data[i])
            return map->data[i] == '{';
    return 0;
}

int artel_prompts_read(struct artel_prompt **out, size_t *n, const char *path,
                       const char *system, int raw, size_t max_rows,
                       struct artel_error *err)
{
    struct artel_prompt *rows = NULL;
    struct lines lines = {0};
    size_t room = 0, length;
    const char *text;
    char where[32];
    int rc, is_json;

    *out = NULL;
    *n = 0;
    rc = lines_open(&lines, path, err);
    if (rc < 0)
        return error_in(err, rc, path);
    is_json = !raw && looks_like_json(&lines.map);
    while (rc == 0 && (!max_rows || *n < max_rows) && *n < ROWS_MAX) {
        rc = lines_next(&lines, &text, &length, err);
        if (rc <= 0)
            break;
        rc = 0;
        if (is_blank(text, length))
            continue;
        rc = grow(&rows, *n, &room, err);
        if (rc == 0)
            rc = line_prompt(&rows[*n], text, length, lines.number, path, system, raw,
                             is_json, err);
        if (rc == 0)
            rows[(*n)++].line = lines.number;
        else if (err && !err->where[0]) {
            snprintf(where, sizeof(where), "%zu:1", lines.number);
            memcpy(err->where, where, sizeof(where));
        }
    }
    lines_release(&lines);
    if (rc == 0 && !*n)
        rc = error_set(err, ARTEL_EFORMAT, "PRM05", NULL, "there is no prompt in it");
    if (rc < 0) {
        artel_prompts_free(rows, *n);
        *n = 0;
        return error_in(err, rc, path);
    }
    *out = rows;
    return 0;
}

void artel_prompts_free(struct artel_prompt *prompts, size_t n)
{
    for (size_t i = 0; prompts && i < n; i++)
        free(prompts[i].text);
    free(prompts);
}
