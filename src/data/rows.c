/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formats of rows and what is wrong with them.
 *
 *     DATA01 not an object    DATA02 field missing or misnamed   DATA03 wrong type
 *     DATA06 a conversation that cannot be one
 */
#include "data/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

struct format {
    enum row_kind kind;
    const char *name;
    const char *fields[4]; /* all must be there, ended by NULL; the prompt's first */
};

static const struct format formats[] = {
    {ROW_MESSAGES, "messages", {"messages", NULL}},
    {ROW_SHAREGPT, "sharegpt", {"conversations", NULL}},
    {ROW_PROMPT, "prompt/completion", {"prompt", "completion", NULL}},
    {ROW_ALPACA, "alpaca", {"instruction", "output", NULL}},
    {ROW_CHOICES, "multiple choice", {"question", "choices", "answer", NULL}},
    {ROW_TEXT, "text rows", {"text", NULL}},
    {ROW_IDS, "token ids", {"input_ids", NULL}},
};

#define N_FORMATS (sizeof(formats) / sizeof(*formats))

static const struct format *format_of(enum row_kind kind)
{
    for (size_t i = 0; i < N_FORMATS; i++)
        if (formats[i].kind == kind)
            return &formats[i];
    return NULL;
}

const char *row_kind_name(enum row_kind kind)
{
    const struct format *f = format_of(kind);

    return f ? f->name : "unknown";
}

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {"an object", "an array", "a string", "a number",
                                        "a number",  "true",     "false",    "null"};

    return v ? names[json_typeof(v)] : "nothing";
}

/* Letters to add, remove, change or swap to get from A to B; above 2 it is just far. */
static int distance(const char *a, const char *b)
{
    int row[3][32];
    const size_t n = strlen(a), m = strlen(b);

    if (n > 30 || m > 30)
        return 9;
    for (size_t j = 0; j <= m; j++)
        row[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *now = row[i % 3], *before = row[(i + 2) % 3], *two = row[(i + 1) % 3];

        now[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = before[j - 1] + (a[i - 1] != b[j - 1]);

            if (before[j] + 1 < best)
                best = before[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                two[j - 2] + 1 < best)
                best = two[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

/* A key of OBJECT that was likely meant to be NAME, or NULL. */
static const char *near_key(const json_t *object, const char *name)
{
    const char *key, *best = NULL;
    json_t *v;
    int least = 3;

    json_object_foreach((json_t *)(size_t)object, key, v)
    {
        const int d = distance(key, name);

        if (d > 0 && d < least && (size_t)d < strlen(name)) {
            least = d;
            best = key;
        }
    }
    return best;
}

static int missing(const json_t *object, const char *name, struct artel_error *err)
{
    const char *near = near_key(object, name);
    char shown[132];

    if (near)
        return error_set(err, ARTEL_EFORMAT, "DATA02", NULL,
                         "field '%s' is missing; '%s' is near it: was that meant?",
                         name, escape_text(shown, sizeof(shown), near, strlen(near)));
    return error_set(err, ARTEL_EFORMAT, "DATA02", NULL, "field '%s' is missing", name);
}

static int need(const json_t *object, const char *name, json_type type,
                const json_t **out, struct artel_error *err)
{
    static const char *const names[] = {"an object", "an array", "a string",
                                        "a number"};
    const json_t *v = json_object_get(object, name);

    *out = v;
    if (!v)
        return missing(object, name, err);
    if (json_typeof(v) != type)
        return error_set(err, ARTEL_EFORMAT, "DATA03", NULL,
                         "field '%s': expected %s, found %s", name, names[type],
                         type_name(v));
    return 0;
}

/* As need(), but *OUT is NULL where the field is absent or null. */
static int want(const json_t *object, const char *name, json_type type,
                const json_t **out, struct artel_error *err)
{
    const json_t *v = json_object_get(object, name);

    *out = NULL;
    return !v || json_is_null(v) ? 0 : need(object, name, type, out, err);
}

/* The format that OBJECT is of, or is nearest to. */
static int find_format(enum row_kind *kind, const json_t *object, bool prompts_only,
                       struct artel_error *err)
{
    const struct format *nearest = NULL;
    int most = 0;

    for (size_t i = 0; i < N_FORMATS; i++) {
        int there = 0, all = 0, score = 0;

        for (const char *const *f = formats[i].fields; *f; f++) {
            const bool has = json_object_get(object, *f) != NULL;

            all++;
            there += has;
            score += has ? 3 : near_key(object, *f) ? 2 : 0;
        }
        if (there == all ||
            (prompts_only && json_object_get(object, formats[i].fields[0]))) {
            *kind = formats[i].kind;
            return 0;
        }
        if (score > most) {
            most = score;
            nearest = &formats[i];
        }
    }
    for (const char *const *f = nearest ? nearest->fields : NULL; f && *f; f++)
        if (!json_object_get(object, *f))
            return missing(object, *f, err);
    return error_set(err, ARTEL_EFORMAT, "DATA02", NULL,
                     "no known fields: expected messages, prompt and completion, "
                     "instruction and output, conversations, or text");
}

static int bad_turn(size_t i, const char *why, const char *what,
                    struct artel_error *err)
{
    char shown[132];

    return error_set(err, ARTEL_EFORMAT, "DATA06", NULL, "turn %zu: %s%s", i + 1, why,
                     what ? escape_text(shown, sizeof(shown), what, strlen(what)) : "");
}

/* CONTENT is shared, not copied: it may hold NUL. */
static int push(json_t *list, const char *role, const json_t *content,
                struct artel_error *err)
{
    json_t *m = json_pack("{s:s, s:O}", "role", role, "content", content);

    return m && json_array_append_new(list, m) == 0 ? 0 : error_nomem(err, 64);
}

/* The texts of a list of parts as one string. */
static int join_parts(json_t **out, const json_t *parts, size_t i,
                      struct artel_error *err)
{
    char *text = NULL;
    size_t n = 0, k;
    const json_t *part;
    FILE *f = open_memstream(&text, &n);
    int rc = f ? 0 : error_nomem(err, 64);

    *out = NULL;
    json_array_foreach((json_t *)(size_t)parts, k, part)
    {
        const json_t *s = json_object_get(part, "text");

        if (rc == 0 && !json_is_string(s))
            rc = bad_turn(i, "a part of its content is no text", NULL, err);
        else if (rc == 0)
            fwrite(json_string_value(s), 1, json_string_length(s), f);
    }
    if (f && fclose(f) != 0 && rc == 0)
        rc = error_nomem(err, n);
    if (rc == 0) {
        *out = json_stringn_nocheck(text, n);
        rc = *out ? 0 : error_nomem(err, n);
    }
    free(text);
    return rc;
}

/* One turn, checked; content in parts becomes one text. */
static int add_turn(json_t *list, const json_t *m, size_t i, struct artel_error *err)
{
    static const char *const roles[] = {"system",    "developer", "user",
                                        "assistant", "tool",      "function"};
    const json_t *role = json_object_get(m, "role");
    const json_t *content = json_object_get(m, "content");
    json_t *copy, *joined;
    bool known = false;
    int rc;

    if (!json_is_object(m))
        return bad_turn(i, "expected an object, found ", type_name(m), err);
    if (!json_is_string(role))
        return bad_turn(i, "'role': expected a string, found ", type_name(role), err);
    for (size_t k = 0; k < sizeof(roles) / sizeof(*roles); k++)
        known = known || !strcmp(json_string_value(role), roles[k]);
    if (!known)
        return bad_turn(i, "unknown role ", json_string_value(role), err);
    if (json_is_array(content)) {
        rc = join_parts(&joined, content, i, err);
        copy = rc == 0 ? json_copy((json_t *)(size_t)m) : NULL;
        if (rc < 0)
            return rc;
        if (!copy || json_object_set_new(copy, "content", joined) != 0 ||
            json_array_append_new(list, copy) != 0)
            return error_nomem(err, 64);
        return 0;
    }
    if (!json_is_string(content) && !json_array_size(json_object_get(m, "tool_calls")))
        return bad_turn(i, "'content': expected a string, found ", type_name(content),
                        err);
    return json_array_append(list, (json_t *)(size_t)m) == 0 ? 0 : error_nomem(err, 64);
}

static const char *role_of(const json_t *messages, size_t i)
{
    return json_string_value(json_object_get(json_array_get(messages, i), "role"));
}

/* What must hold of every conversation, whatever it was written as. */
static int check_turns(struct row *r, bool prompts_only, struct artel_error *err)
{
    const size_t n = json_array_size(r->messages);
    const json_t *last = json_array_get(r->messages, n - 1);
    size_t systems = 0, answers = 0;

    if (!n)
        return error_set(err, ARTEL_EFORMAT, "DATA06", NULL,
                         "the conversation is empty");
    for (size_t i = 0; i < n; i++) {
        const char *role = role_of(r->messages, i);

        answers += !strcmp(role, "assistant");
        systems += !strcmp(role, "system");
        if (systems > 1)
            return bad_turn(i, "a second system turn", NULL, err);
    }
    if (!strcmp(role_of(r->messages, n - 1), "assistant"))
        r->answer = json_string_value(json_object_get(last, "content"));
    else if (!prompts_only)
        return bad_turn(n - 1,
                        answers ? "the conversation does not end in an answer"
                                : "there is no answer turn",
                        NULL, err);
    return 0;
}

static int read_messages(struct row *r, const json_t *object, struct artel_error *err)
{
    const json_t *list, *m;
    size_t i;
    int rc = need(object, "messages", JSON_ARRAY, &list, err);

    if (rc == 0)
        rc = want(object, "tools", JSON_ARRAY, &r->tools, err);
    if (rc < 0)
        return rc;
    json_array_foreach((json_t *)(size_t)list, i, m)
    {
        rc = add_turn(r->messages, m, i, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* A prompt or completion: a string is one turn of ROLE, a list is turns. */
static int read_side(struct row *r, const json_t *object, const char *field,
                     const char *role, struct artel_error *err)
{
    const json_t *v = json_object_get(object, field), *m;
    size_t i;
    int rc = 0;

    if (!json_is_array(v)) {
        rc = need(object, field, JSON_STRING, &v, err);
        return rc < 0 ? rc : push(r->messages, role, v, err);
    }
    json_array_foreach((json_t *)(size_t)v, i, m)
    {
        rc = add_turn(r->messages, m, json_array_size(r->messages), err);
        if (rc < 0)
            break;
    }
    return rc;
}

static int read_prompt(struct row *r, const json_t *object, bool prompts_only,
                       bool plain, struct artel_error *err)
{
    const char *prompt = json_string_value(json_object_get(object, "prompt"));
    int rc = read_side(r, object, "prompt", "user", err);

    if (rc == 0 && (!prompts_only || json_object_get(object, "completion")))
        rc = read_side(r, object, "completion", "assistant", err);
    if (rc == 0 && plain && prompt) {
        r->prompt = strdup(prompt);
        rc = r->prompt ? 0 : error_nomem(err, strlen(prompt));
    }
    return rc;
}

/* The prompt that Alpaca was trained with, for models without a chat template. */
static int alpaca_prompt(struct row *r, const char *instruction, const char *input,
                         struct artel_error *err)
{
    size_t n;
    FILE *f = open_memstream(&r->prompt, &n);

    if (!f)
        return error_nomem(err, 64);
    fprintf(f,
            "Below is an instruction that describes a task%s. Write a response that "
            "appropriately completes the request.\n\n### Instruction:\n%s\n\n",
            *input ? ", paired with an input that provides further context" : "",
            instruction);
    if (*input)
        fprintf(f, "### Input:\n%s\n\n", input);
    fprintf(f, "### Response:");
    return fclose(f) == 0 ? 0 : error_nomem(err, n);
}

static int alpaca_history(struct row *r, const json_t *object, struct artel_error *err)
{
    const json_t *history, *pair;
    size_t i;
    int rc = want(object, "history", JSON_ARRAY, &history, err);

    if (rc < 0 || !history)
        return rc;
    json_array_foreach((json_t *)(size_t)history, i, pair)
    {
        const json_t *user = json_array_get(pair, 0), *answer = json_array_get(pair, 1);

        if (json_array_size(pair) != 2 || !json_is_string(user) ||
            !json_is_string(answer))
            return error_set(err, ARTEL_EFORMAT, "DATA03", NULL,
                             "field 'history': pair %zu is not two strings", i + 1);
        rc = push(r->messages, "user", user, err);
        if (rc == 0)
            rc = push(r->messages, "assistant", answer, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The user turn: the instruction, and the input on a line of its own. */
static int alpaca_question(struct row *r, const json_t *instruction,
                           const json_t *input, struct artel_error *err)
{
    char *text = NULL;
    size_t n = 0;
    json_t *question;
    FILE *f;
    int rc;

    if (!json_string_length(input))
        return push(r->messages, "user", instruction, err);
    f = open_memstream(&text, &n);
    if (!f)
        return error_nomem(err, 64);
    fwrite(json_string_value(instruction), 1, json_string_length(instruction), f);
    fputc('\n', f);
    fwrite(json_string_value(input), 1, json_string_length(input), f);
    question = fclose(f) == 0 ? json_stringn_nocheck(text, n) : NULL;
    rc = question ? push(r->messages, "user", question, err) : error_nomem(err, n);
    json_decref(question);
    free(text);
    return rc;
}

static int read_alpaca(struct row *r, const json_t *object, bool prompts_only,
                       bool plain, struct artel_error *err)
{
    const json_t *instruction, *input, *output, *system;
    int rc = need(object, "instruction", JSON_STRING, &instruction, err);

    if (rc == 0)
        rc = want(object, "input", JSON_STRING, &input, err);
    if (rc == 0)
        rc = (prompts_only ? want : need)(object, "output", JSON_STRING, &output, err);
    if (rc == 0)
        rc = want(object, "system", JSON_STRING, &system, err);
    if (rc == 0 && system && json_string_length(system))
        rc = push(r->messages, "system", system, err);
    if (rc == 0)
        rc = alpaca_history(r, object, err);
    if (rc == 0 && plain && !json_array_size(r->messages))
        rc = alpaca_prompt(r, json_string_value(instruction),
                           input ? json_string_value(input) : "", err);
    if (rc == 0)
        rc = alpaca_question(r, instruction, input, err);
    if (rc == 0 && output)
        rc = push(r->messages, "assistant", output, err);
    return rc;
}

static int read_sharegpt(struct row *r, const json_t *object, struct artel_error *err)
{
    static const char *const names[][2] = {{"human", "user"},
                                           {"gpt", "assistant"},
                                           {"system", "system"},
                                           {"observation", "tool"},
                                           {"user", "user"},
                                           {"assistant", "assistant"},
                                           {"function_call", "assistant"},
                                           {"tool", "tool"}};
    const json_t *list, *system, *m;
    size_t i;
    int rc = need(object, "conversations", JSON_ARRAY, &list, err);

    if (rc == 0)
        rc = want(object, "system", JSON_STRING, &system, err);
    if (rc < 0)
        return rc;
    json_array_foreach((json_t *)(size_t)list, i, m)
    {
        const json_t *from = json_object_get(m, "from"),
                     *value = json_object_get(m, "value");
        const char *role = NULL;

        if (!json_is_string(from) || !json_is_string(value))
            return bad_turn(i, "expected strings 'from' and 'value', found ",
                            type_name(json_is_string(from) ? value : from), err);
        for (size_t k = 0; k < sizeof(names) / sizeof(*names); k++)
            if (!strcmp(json_string_value(from), names[k][0]))
                role = names[k][1];
        if (!role)
            return bad_turn(i, "unknown role ", json_string_value(from), err);
        if (i == 0 && system && json_string_length(system) &&
            strcmp(role, "system") != 0)
            rc = push(r->messages, "system", system, err);
        if (rc == 0)
            rc = push(r->messages, role, value, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_choices(struct row *r, const json_t *object, bool plain,
                        struct artel_error *err)
{
    const json_t *question, *choices, *answer, *c;
    size_t i;
    int rc = need(object, "question", JSON_STRING, &question, err);

    if (rc == 0)
        rc = need(object, "choices", JSON_ARRAY, &choices, err);
    if (rc == 0)
        rc = need(object, "answer", JSON_INTEGER, &answer, err);
    if (rc < 0)
        return rc;
    json_array_foreach((json_t *)(size_t)choices, i, c)
    {
        if (!json_is_string(c))
            return error_set(err, ARTEL_EFORMAT, "DATA03", NULL,
                             "field 'choices': choice %zu is %s, not a string", i + 1,
                             type_name(c));
    }
    if (json_integer_value(answer) < 0 ||
        (size_t)json_integer_value(answer) >= json_array_size(choices))
        return error_set(
            err, ARTEL_EFORMAT, "DATA03", NULL,
            "field 'answer': %lld is none of the %zu choices, counted from 0",
            (long long)json_integer_value(answer), json_array_size(choices));
    r->text = json_string_value(question);
    r->text_n = json_string_length(question);
    if (plain && !(r->prompt = strdup(r->text)))
        return error_nomem(err, r->text_n);
    return push(r->messages, "user", question, err);
}

static int read_kind(struct row *r, const json_t *object, bool prompts_only, bool plain,
                     struct artel_error *err)
{
    const json_t *text;
    int rc;

    switch (r->kind) {
    case ROW_MESSAGES:
        rc = read_messages(r, object, err);
        break;
    case ROW_PROMPT:
        rc = read_prompt(r, object, prompts_only, plain, err);
        break;
    case ROW_ALPACA:
        rc = read_alpaca(r, object, prompts_only, plain, err);
        break;
    case ROW_SHAREGPT:
        rc = read_sharegpt(r, object, err);
        break;
    case ROW_CHOICES:
        return read_choices(r, object, plain, err);
    case ROW_TEXT:
        rc = need(object, "text", JSON_STRING, &text, err);
        r->text = json_string_value(text);
        r->text_n = json_string_length(text);
        return rc;
    default:
        rc = need(object, "input_ids", JSON_ARRAY, &r->ids, err);
        return rc < 0 ? rc : want(object, "labels", JSON_ARRAY, &r->labels, err);
    }
    return rc < 0 ? rc : check_turns(r, prompts_only, err);
}

int row_read(struct row *out, enum row_kind *kind, const json_t *object,
             bool prompts_only, bool plain, struct artel_error *err)
{
    int rc = 0;

    *out = (struct row){0};
    if (!json_is_object(object))
        return error_set(err, ARTEL_EFORMAT, "DATA01", NULL,
                         "a row must be an object, this is %s", type_name(object));
    if (*kind == ROW_UNKNOWN)
        rc = find_format(kind, object, prompts_only, err);
    if (rc < 0)
        return rc;
    out->kind = *kind;
    out->messages = json_array();
    rc = out->messages ? read_kind(out, object, prompts_only, plain, err)
                       : error_nomem(err, 64);
    if (rc < 0)
        row_release(out);
    return rc;
}

void row_release(struct row *r)
{
    json_decref(r->messages);
    free(r->prompt);
    *r = (struct row){0};
}
