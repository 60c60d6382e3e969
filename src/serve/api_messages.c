/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversations and tools as chat templates take them. Nothing of a message but its
 * content, its calls and its names reaches the template.
 *
 *     content     a string; parts of text are joined by a line feed; null is ""
 *     tool_calls  their arguments, a string of JSON with OpenAI, as the value itself
 *     developer   becomes system
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "files/json.h"
#include "serve/api_request.h"

#define MESSAGES_MAX 4096
#define NAME_MAX_    64

static const char name_letters[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    "0123456789_-.";

/* Parts of text as one string; a new reference in *OUT. */
static int join_parts(json_t **out, const json_t *parts, const char *where,
                      struct artel_error *err)
{
    const size_t n = json_array_size(parts);
    size_t bytes = 0;
    char *text;

    for (size_t i = 0; i < n; i++) {
        const json_t *const part = json_array_get(parts, i);
        const json_t *const type = json_object_get(part, "type");
        const json_t *const t = json_object_get(part, "text");
        char place[120];

        snprintf(place, sizeof(place), "%s[%zu].type", where, i);
        if (!json_is_string(type) || strcmp(json_string_value(type), "text") != 0)
            return request_refuse(err, place,
                                  "\"text\", for this model reads nothing "
                                  "else",
                                  type);
        snprintf(place, sizeof(place), "%s[%zu].text", where, i);
        if (!json_is_string(t))
            return request_refuse(err, place, "a string", t);
        bytes += json_string_length(t) + 1;
    }
    text = malloc(bytes + 1);
    if (!text)
        return error_nomem(err, bytes);
    bytes = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *const t = json_object_get(json_array_get(parts, i), "text");

        if (i)
            text[bytes++] = '\n';
        memcpy(text + bytes, json_string_value(t), json_string_length(t));
        bytes += json_string_length(t);
    }
    *out = json_stringn(text, bytes);
    free(text);
    return *out ? 0 : error_nomem(err, bytes);
}

static int read_content(json_t *out, const json_t *m, bool may_be_null,
                        const char *where, struct artel_error *err)
{
    json_t *const v = json_object_get(m, "content"), *text = NULL;
    char place[64];
    int rc = 0;

    snprintf(place, sizeof(place), "%s.content", where);
    if (json_is_string(v))
        text = json_incref(v);
    else if (json_is_array(v) && json_array_size(v))
        rc = join_parts(&text, v, place, err);
    else if (may_be_null && (!v || json_is_null(v)))
        text = json_string("");
    else
        rc = request_refuse(err, place, "a string or a list of text parts", v);
    if (rc == 0)
        json_object_set_new(out, "content", text);
    return rc;
}

/* What a field of a function, SOME's, must be where it is there. */
static int check_text(const json_t *some, const char *key, const char *where,
                      struct artel_error *err)
{
    const json_t *const v = json_object_get(some, key);
    char place[160];

    snprintf(place, sizeof(place), "%s.%s", where, key);
    return !v || json_is_null(v) || json_is_string(v)
               ? 0
               : request_refuse(err, place, "a string", v);
}

static int check_flag(const json_t *some, const char *key, const char *where,
                      struct artel_error *err)
{
    char place[160];
    bool ignored;

    snprintf(place, sizeof(place), "%s.%s", where, key);
    return want_flag(some, key, place, &ignored, err);
}

/* A string of JSON as its value; where it is none, as it is. */
static json_t *arguments_of(const json_t *function)
{
    json_t *const given = json_object_get(function, "arguments"), *value;

    if (json_is_string(given) &&
        json_parse(&value, json_string_value(given), json_string_length(given),
                   "arguments", 0, NULL) == 0)
        return value;
    return given && !json_is_null(given) ? json_incref(given) : json_object();
}

/* WHERE's type is "function", or left out; arguments are a string, or the object itself. */
static int check_call(const json_t *call, const char *where, struct artel_error *err)
{
    const json_t *const type = json_object_get(call, "type");
    const json_t *const arguments =
        json_object_get(json_object_get(call, "function"), "arguments");
    char place[160];

    snprintf(place, sizeof(place), "%s.type", where);
    if (type && !(json_is_string(type) && !strcmp(json_string_value(type), "function")))
        return request_refuse(err, place, "\"function\"", type);
    snprintf(place, sizeof(place), "%s.function.arguments", where);
    if (arguments && !json_is_string(arguments) && !json_is_object(arguments) &&
        !json_is_null(arguments))
        return request_refuse(err, place, "a string of JSON", arguments);
    return 0;
}

static int read_calls(json_t *out, const json_t *calls, const char *where,
                      struct artel_error *err)
{
    json_t *const list = json_array();
    const size_t n = json_array_size(calls);

    json_object_set_new(out, "tool_calls", list);
    if (!json_is_array(calls) || n > REQUEST_TOOLS_MAX)
        return request_refuse(err, where, "a list of at most 128 calls", calls);
    for (size_t i = 0; i < n; i++) {
        const json_t *const call = json_array_get(calls, i);
        const json_t *const f = json_object_get(call, "function");
        const char *name, *id = "";
        char place[120];
        int rc;

        snprintf(place, sizeof(place), "%s[%zu].function.name", where, i);
        rc = need_text(f, "name", place, &name, err);
        snprintf(place, sizeof(place), "%s[%zu].id", where, i);
        if (rc == 0)
            rc = want_text(call, "id", place, &id, err);
        snprintf(place, sizeof(place), "%s[%zu]", where, i);
        if (rc == 0)
            rc = check_call(call, place, err);
        if (rc < 0)
            return rc;
        json_array_append_new(list, json_pack("{s:s, s:s, s:{s:s, s:o}}", "id", id,
                                              "type", "function", "function", "name",
                                              name, "arguments", arguments_of(f)));
    }
    return 0;
}

static int read_role(json_t *out, const json_t *m, const char **role, const char *where,
                     struct artel_error *err)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant",
                                        "tool"};
    char place[64];
    int rc;

    snprintf(place, sizeof(place), "%s.role", where);
    rc = need_text(m, "role", place, role, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (!strcmp(*role, roles[i])) {
            json_object_set_new(out, "role", json_string(roles[i == 1 ? 0 : i]));
            return 0;
        }
    return request_refuse(
        err, place, "\"system\", \"developer\", \"user\", \"assistant\" or \"tool\"",
        json_object_get(m, "role"));
}

/* Names go to the template as content does. */
static int read_names(json_t *out, const json_t *m, const char *where,
                      struct artel_error *err)
{
    static const char *const keys[] = {"name", "tool_call_id"};

    for (size_t i = 0; i < 2; i++) {
        const char *text = NULL;
        char place[80];
        int rc;

        snprintf(place, sizeof(place), "%s.%s", where, keys[i]);
        rc = want_text(m, keys[i], place, &text, err);
        if (rc < 0)
            return rc;
        if (text)
            json_object_set_new(out, keys[i], json_string(text));
    }
    return 0;
}

static int read_message(struct request *r, const json_t *m, size_t i, bool strict,
                        struct artel_error *err)
{
    /* The last ones are what OpenAI's own answers carry; they come back as history. */
    static const char *const known[] = {
        "role",    "content",     "name",          "tool_calls", "tool_call_id",
        "refusal", "annotations", "function_call", "audio",      NULL};
    json_t *const out = json_object();
    const json_t *const calls = json_object_get(m, "tool_calls");
    bool assistant;
    const char *role;
    char where[32], prefix[40], place[64];
    int rc;

    json_array_append_new(r->messages, out);
    snprintf(where, sizeof(where), "messages[%zu]", i);
    if (!json_is_object(m))
        return request_refuse(err, where, "an object", m);
    rc = read_role(out, m, &role, where, err);
    assistant = rc == 0 && !strcmp(role, "assistant");
    if (rc == 0)
        rc = read_content(out, m, assistant && json_array_size(calls), where, err);
    if (rc == 0)
        rc = read_names(out, m, where, err);
    snprintf(place, sizeof(place), "%s.tool_calls", where);
    if (rc == 0 && assistant && calls && !json_is_null(calls))
        rc = read_calls(out, calls, place, err);
    if (rc == 0 && !assistant && calls && !json_is_null(calls) &&
        !(json_is_array(calls) && !json_array_size(calls)))
        rc = error_set(err, ARTEL_EUSAGE, "SRV06", place,
                       "is for messages of the assistant alone");
    snprintf(prefix, sizeof(prefix), "%s.", where);
    return rc < 0 ? rc
                  : request_unknown(r->ignored, sizeof(r->ignored), m, known, prefix,
                                    strict, err);
}

int request_messages(struct request *r, bool strict, struct artel_error *err)
{
    const json_t *const given = json_object_get(r->body, "messages");
    const size_t n = json_array_size(given);
    int rc = 0;

    if (!given)
        return error_set(err, ARTEL_EUSAGE, "SRV15", "messages",
                         "this field is required");
    if (!json_is_array(given) || !n || n > MESSAGES_MAX)
        return request_refuse(err, "messages", "a list of 1 to 4096 messages", given);
    r->messages = json_array();
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = read_message(r, json_array_get(given, i), i, strict, err);
    return rc;
}

static int check_tool(const json_t *tool, size_t i, struct artel_error *err)
{
    const json_t *const f = json_object_get(tool, "function");
    const json_t *const parameters = json_object_get(f, "parameters");
    const char *type, *name;
    char where[64];
    int rc;

    snprintf(where, sizeof(where), "tools[%zu].type", i);
    rc = need_text(tool, "type", where, &type, err);
    if (rc == 0 && strcmp(type, "function") != 0)
        rc = request_refuse(err, where, "\"function\"", json_object_get(tool, "type"));
    snprintf(where, sizeof(where), "tools[%zu].function.name", i);
    if (rc == 0)
        rc = need_text(f, "name", where, &name, err);
    if (rc == 0 && (!*name || strlen(name) > NAME_MAX_ ||
                    strspn(name, name_letters) != strlen(name)))
        rc = request_refuse(err, where,
                            "1 to 64 letters, digits, dots, dashes or underscores",
                            json_object_get(f, "name"));
    snprintf(where, sizeof(where), "tools[%zu].function.parameters", i);
    if (rc == 0 && parameters && !json_is_object(parameters))
        rc = request_refuse(err, where, "an object: a JSON schema", parameters);
    snprintf(where, sizeof(where), "tools[%zu].function", i);
    if (rc == 0)
        rc = check_text(f, "description", where, err);
    return rc < 0 ? rc : check_flag(f, "strict", where, err);
}

static const json_t *find_tool(const json_t *tools, const char *name)
{
    const size_t n = json_array_size(tools);

    for (size_t i = 0; name && i < n; i++) {
        const json_t *const tool = json_array_get(tools, i);
        const char *const its = json_string_value(
            json_object_get(json_object_get(tool, "function"), "name"));

        if (its && !strcmp(its, name))
            return tool;
    }
    return NULL;
}

static int read_choice(struct request *r, struct artel_error *err)
{
    const json_t *const v = json_object_get(r->body, "tool_choice");
    const char *const word = json_string_value(v);
    const json_t *const name = json_object_get(json_object_get(v, "function"), "name");

    r->tool_choice = r->tools ? TOOLS_AUTO : TOOLS_NONE;
    if (!v || json_is_null(v) || (word && !strcmp(word, "auto")))
        return 0;
    if (word && !strcmp(word, "none")) {
        r->tool_choice = TOOLS_NONE;
        return 0;
    }
    if (!r->tools)
        return error_set(err, ARTEL_EUSAGE, "SRV06", "tool_choice",
                         "is for requests with tools alone");
    r->tool_choice = TOOLS_REQUIRED;
    if (word && !strcmp(word, "required"))
        return 0;
    if (!name)
        return request_refuse(err, "tool_choice",
                              "\"none\", \"auto\", \"required\" or {\"type\": "
                              "\"function\", \"function\": {\"name\": ...}}",
                              v);
    r->tool_name = json_string_value(name);
    if (!find_tool(r->tools, r->tool_name))
        return request_refuse(err, "tool_choice.function.name", "the name of a tool",
                              name);
    return 0;
}

/* Two tools of one name could not be told apart by who is called. */
static int check_tools(const json_t *tools, struct artel_error *err)
{
    const size_t n = json_array_size(tools);
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < n; i++) {
        const json_t *const tool = json_array_get(tools, i), *name;
        char where[64];

        rc = check_tool(tool, i, err);
        name = json_object_get(json_object_get(tool, "function"), "name");
        snprintf(where, sizeof(where), "tools[%zu].function.name", i);
        if (rc == 0 && find_tool(tools, json_string_value(name)) != tool)
            rc = request_refuse(err, where, "a name that no other tool has", name);
    }
    return rc;
}

static int read_format(struct request *r, struct artel_error *err)
{
    const json_t *const v = json_object_get(r->body, "response_format");
    const json_t *const whole = json_object_get(v, "json_schema");
    const char *type;
    int rc;

    if (!v || json_is_null(v))
        return 0;
    if (!json_is_object(v))
        return request_refuse(err, "response_format", "an object", v);
    rc = need_text(v, "type", "response_format.type", &type, err);
    if (rc < 0)
        return rc;
    if (!strcmp(type, "text"))
        return 0;
    if (r->tool_choice == TOOLS_REQUIRED)
        return error_set(err, ARTEL_EUSAGE, "SRV06", "response_format",
                         "a call that is required has the form of its tool's "
                         "parameters");
    r->format = FORMAT_OBJECT;
    if (!strcmp(type, "json_object"))
        return 0;
    if (strcmp(type, "json_schema") != 0)
        return request_refuse(err, "response_format.type",
                              "\"text\", \"json_object\" or \"json_schema\"",
                              json_object_get(v, "type"));
    r->format = FORMAT_SCHEMA;
    r->schema = json_object_get(whole, "schema");
    if (!json_is_object(r->schema))
        return request_refuse(err, "response_format.json_schema.schema",
                              "an object: a JSON schema", r->schema);
    rc = check_text(whole, "name", "response_format.json_schema", err);
    if (rc == 0)
        rc = check_text(whole, "description", "response_format.json_schema", err);
    return rc < 0 ? rc
                  : check_flag(whole, "strict", "response_format.json_schema", err);
}

int request_tools(struct request *r, struct artel_error *err)
{
    static const char *const old[] = {"functions", "function_call"};
    const json_t *const given = json_object_get(r->body, "tools");
    int rc = 0;

    for (size_t i = 0; i < 2; i++)
        if (json_object_get(r->body, old[i]))
            return error_set(err, ARTEL_EUSAGE, "SRV06", old[i],
                             "is not supported; \"tools\" has taken its place");
    if (given && !json_is_null(given)) {
        if (!json_is_array(given) || json_array_size(given) > REQUEST_TOOLS_MAX)
            return request_refuse(err, "tools", "a list of at most 128 tools", given);
        rc = check_tools(given, err);
        r->tools = json_array_size(given) ? given : NULL;
    }
    if (rc == 0)
        rc = read_choice(r, err);
    return rc < 0 ? rc : read_format(r, err);
}
