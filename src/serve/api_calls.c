/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls of tools in the text of an answer, and the schema of a call that must come.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files/json.h"
#include "serve/api_reply.h"

static const char open_tag[] = "<tool_call>", close_tag[] = "</tool_call>";

static void trim(const char **text, size_t *n)
{
    while (*n && isspace((unsigned char)**text)) {
        (*text)++;
        (*n)--;
    }
    while (*n && isspace((unsigned char)(*text)[*n - 1]))
        (*n)--;
}

static const char *tool_name(const json_t *tool)
{
    return json_string_value(
        json_object_get(json_object_get(tool, "function"), "name"));
}

static bool is_tool(const json_t *tools, const char *name)
{
    const size_t n = json_array_size(tools);
    bool found = false;

    for (size_t i = 0; name && i < n; i++) {
        const char *const its = tool_name(json_array_get(tools, i));

        found |= its && !strcmp(its, name);
    }
    return found;
}

/* One {"name", "arguments"} ("parameters" as some models say) behind those in LIST. */
static bool add_call(json_t *list, const json_t *call, const json_t *tools,
                     const char *id, size_t index)
{
    const char *const name = json_string_value(json_object_get(call, "name"));
    const json_t *given = json_object_get(call, "arguments");
    char its_id[80], *text;

    if (!given)
        given = json_object_get(call, "parameters");
    if (!is_tool(tools, name) || !json_is_object(given) || json_object_size(call) != 2)
        return false;
    text = json_dumps(given, JSON_COMPACT);
    snprintf(its_id, sizeof(its_id), "call_%s_%zu_%zu", id, index,
             json_array_size(list));
    json_array_append_new(list, json_pack("{s:s, s:s, s:{s:s, s:s}}", "id", its_id,
                                          "type", "function", "function", "name", name,
                                          "arguments", text ? text : "{}"));
    free(text);
    return true;
}

/* An object, or a list of them. */
static bool add_calls(json_t *list, const char *text, size_t n, const json_t *tools,
                      const char *id, size_t index)
{
    json_t *value;
    bool good = true;

    if (json_parse(&value, text, n, "call", 0, NULL) < 0)
        return false;
    if (json_is_array(value)) {
        good = json_array_size(value) > 0;
        for (size_t i = 0; good && i < json_array_size(value); i++)
            good = add_call(list, json_array_get(value, i), tools, id, index);
    } else {
        good = add_call(list, value, tools, id, index);
    }
    json_decref(value);
    return good;
}

/* Where the tag begins in TEXT (N bytes), or N. */
static size_t find(const char *text, size_t n, const char *tag)
{
    const size_t length = strlen(tag);

    for (size_t i = 0; i + length <= n; i++)
        if (!memcmp(text + i, tag, length))
            return i;
    return n;
}

json_t *tool_calls_of(const char *text, size_t n, const json_t *tools, const char *id,
                      size_t index)
{
    json_t *const list = json_array();
    const size_t tag = sizeof(open_tag) - 1;
    bool good = true;

    trim(&text, &n);
    if (n < tag || memcmp(text, open_tag, tag) != 0)
        good = n && add_calls(list, text, n, tools, id, index);
    while (good && n >= tag && !memcmp(text, open_tag, tag)) {
        const size_t end = find(text, n, close_tag);
        const size_t next = end == n ? n : end + sizeof(close_tag) - 1;

        good = add_calls(list, text + tag, end - tag, tools, id, index);
        text += next;
        n -= next;
        trim(&text, &n);
        good &= !n || (n >= tag && !memcmp(text, open_tag, tag));
    }
    if (good && json_array_size(list))
        return list;
    json_decref(list);
    return NULL;
}

bool tool_call_begins(const char *text, size_t n)
{
    const size_t tag = sizeof(open_tag) - 1;

    while (n && isspace((unsigned char)*text)) {
        text++;
        n--;
    }
    if (!n || *text == '{' || *text == '[')
        return true;
    return !memcmp(text, open_tag, n < tag ? n : tag);
}

/* References to a schema's own definitions, which have moved to the root. */
static void move_references(json_t *node, const char *prefix)
{
    static const char *const places[] = {"#/$defs/", "#/definitions/"};
    const char *key;
    json_t *item;
    size_t i;

    json_array_foreach(node, i, item) move_references(item, prefix);
    if (!json_is_object(node))
        return;
    json_object_foreach(node, key, item)
    {
        const char *const to = json_string_value(item);

        if (to && !strcmp(key, "$ref")) {
            for (size_t k = 0; k < 2; k++)
                if (!strncmp(to, places[k], strlen(places[k]))) {
                    json_t *const moved =
                        json_sprintf("#/$defs/%s%s", prefix, to + strlen(places[k]));

                    json_object_set_new(node, key, moved);
                    break;
                }
        } else {
            move_references(item, prefix);
        }
    }
}

/* Definitions of SCHEMA into DEFS under names of their own. */
static void lift_definitions(json_t *defs, json_t *schema, const char *prefix)
{
    static const char *const names[] = {"$defs", "definitions"};

    move_references(schema, prefix);
    for (size_t k = 0; k < 2; k++) {
        const char *key;
        json_t *item;

        json_object_foreach(json_object_get(schema, names[k]), key, item)
        {
            json_t *const name = json_sprintf("%s%s", prefix, key);

            if (name)
                json_object_set(defs, json_string_value(name), item);
            json_decref(name);
        }
        json_object_del(schema, names[k]);
    }
}

json_t *tool_schema(const json_t *tools, const char *name)
{
    json_t *const any = json_array(), *const defs = json_object(), *root;

    for (size_t i = 0; i < json_array_size(tools); i++) {
        const json_t *const tool = json_array_get(tools, i);
        json_t *parameters = json_deep_copy(
            json_object_get(json_object_get(tool, "function"), "parameters"));
        char prefix[24];

        if (name && strcmp(name, tool_name(tool)) != 0) {
            json_decref(parameters);
            continue;
        }
        if (!parameters || !json_object_size(parameters)) {
            json_decref(parameters);
            parameters = json_pack("{s:s}", "type", "object");
        }
        snprintf(prefix, sizeof(prefix), "t%zu_", i);
        lift_definitions(defs, parameters, prefix);
        json_array_append_new(any, json_pack("{s:s, s:{s:{s:s}, s:o}, s:[s, s], s:b}",
                                             "type", "object", "properties", "name",
                                             "const", tool_name(tool), "arguments",
                                             parameters, "required", "name",
                                             "arguments", "additionalProperties", 0));
    }
    if (json_array_size(any) == 1) {
        root = json_incref(json_array_get(any, 0));
        json_decref(any);
    } else {
        root = json_pack("{s:o}", "anyOf", any);
    }
    if (json_object_size(defs))
        json_object_set(root, "$defs", defs);
    json_decref(defs);
    return root;
}
