/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts from a person or a file, as messages for the chat template.
 *
 *     {"messages": [...]}           a last assistant turn is left out
 *     {"conversations": [...]}      human, gpt, system: the same
 *     {"prompt": "..." or [...]}    {"question": "..."}
 *     {"instruction", "input"}      joined by a line break
 *     anything else that is text    one prompt a line, blank lines left out
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
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

static const char *sharegpt_role(const char *from)
{
    static const char *const roles[][2] = {{"human", "user"},
                                           {"user", "user"},
                                           {"gpt", "assistant"},
                                           {"assistant", "assistant"},
                                           {"system", "system"}};

    for (size_t i = 0; from && i < sizeof(roles) / sizeof(roles[0]); i++)
        if (!strcmp(roles[i][0], from))
            return roles[i][1];
    return NULL;
}

/* Messages of a ShareGPT conversation, or NULL. */
static json_t *from_sharegpt(const json_t *turns)
{
    json_t *const messages = json_array();
    json_t *turn;
    size_t i;

    json_array_foreach(turns, i, turn)
    {
        const char *const role =
            sharegpt_role(json_string_value(json_object_get(turn, "from")));
        const char *const value = json_string_value(json_object_get(turn, "value"));

        if (!role || !value || add_turn(messages, role, value, strlen(value)) < 0) {
            json_decref(messages);
            return NULL;
        }
    }
    return messages;
}

/* Messages as given, with SYSTEM in front where they have none and no last answer. */
static int messages_prompt(struct artel_prompt *out, json_t *messages,
                           const char *system, struct artel_error *err)
{
    size_t n = json_array_size(messages);
    const char *role;

    if (!messages || !n)
        goto bad;
    role = json_string_value(json_object_get(json_array_get(messages, n - 1), "role"));
    if (role && !strcmp(role, "assistant"))
        json_array_remove(messages, --n);
    if (!n)
        goto bad;
    role = json_string_value(json_object_get(json_array_get(messages, 0), "role"));
    if (system && (!role || strcmp(role, "system")))
        json_array_insert_new(
            messages, 0, json_pack("{s:s, s:s}", "role", "system", "content", system));
    return finish(out, messages, err);

bad:
    json_decref(messages);
    return error_set(err, ARTEL_EFORMAT, "PRM02", NULL,
                     "the row has no turn before the answer");
}

static int row_prompt(struct artel_prompt *out, json_t *row, const char *system,
                      struct artel_error *err)
{
    json_t *const messages = json_object_get(row, "messages");
    json_t *const turns = json_object_get(row, "conversations");
    const json_t *prompt = json_object_get(row, "prompt");
    const json_t *const input = json_object_get(row, "input");

    if (json_is_array(messages))
        return messages_prompt(out, json_deep_copy(messages), system, err);
    if (json_is_array(turns))
        return messages_prompt(out, from_sharegpt(turns), system, err);
    if (json_is_array(prompt))
        return messages_prompt(out, json_deep_copy(prompt), system, err);
    if (!json_is_string(prompt))
        prompt = json_object_get(row, "question");
    if (json_is_string(prompt))
        return user_prompt(out, json_string_value(prompt), json_string_length(prompt),
                           system, err);
    prompt = json_object_get(row, "instruction");
    if (json_is_string(prompt) && json_string_length(input)) {
        const json_t *const both =
            json_sprintf("%s\n%s", json_string_value(prompt), json_string_value(input));
        const int rc = user_prompt(out, json_string_value(both),
                                   json_string_length(both), system, err);

        json_decref((json_t *)(size_t)both);
        return rc;
    }
    if (json_is_string(prompt))
        return user_prompt(out, json_string_value(prompt), json_string_length(prompt),
                           system, err);
    return error_set(
        err, ARTEL_EFORMAT, "PRM03", NULL,
        "expected messages, prompt, instruction, conversations or question");
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
        rc = row_prompt(out, row, system, err);
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
