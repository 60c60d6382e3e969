/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chat template from where models keep it, and conversations through it.
 */
#include "text/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/map.h"
#include "files/gguf.h"
#include "files/json.h"
#include "model/weights.h"
#include "text/jinja_run.h"

#define MAX_SOURCE       ((size_t)1 << 20)
#define MAX_TREE         ((size_t)64 << 20) /* bytes of a parsed template */
#define MAX_CONFIG_BYTES ((size_t)64 << 20)

struct chat_template {
    struct pool pool;
    struct parser parser;
    struct node *tree;
    char digest[DIGEST_SIZE];
    char *name; /* where it is from, for messages */
};

/* One rendering; on the heap, so that a longjmp leaves it as it was. */
struct rendering {
    struct pool pool;
    struct builder out;
    struct scope globals;
    struct run run;
};

int chat_parse(struct chat_template **out, const char *source, size_t n,
               const char *name, struct artel_error *err)
{
    struct chat_template *t;
    int rc;

    *out = NULL;
    t = calloc(1, sizeof(*t));
    if (!t)
        return error_nomem(err, sizeof(*t));
    digest_bytes(t->digest, source, n);
    t->name = strdup(name ? name : "chat template");
    t->pool.limit = MAX_TREE;
    t->pool.err = err;
    t->parser.pool = &t->pool;
    if (!t->name) {
        rc = error_nomem(err, 0);
        goto fail;
    }
    if (n > MAX_SOURCE) {
        rc = error_set(err, ARTEL_EFORMAT, "TPL04", NULL,
                       "a chat template of %zu bytes; at most %zu are read", n,
                       MAX_SOURCE);
        goto fail;
    }
    if (setjmp(t->pool.back)) {
        rc = t->pool.rc;
        goto fail;
    }
    t->tree = parse_template(&t->parser, source, n);
    t->pool.err = NULL;
    *out = t;
    return 0;

fail:
    error_in(err, rc, name ? name : "chat template");
    chat_close(t);
    return rc;
}

void chat_close(struct chat_template *t)
{
    if (!t)
        return;
    pool_release(&t->pool);
    free(t->name);
    free(t);
}

void chat_digest(const struct chat_template *t, char out[DIGEST_SIZE])
{
    if (t)
        memcpy(out, t->digest, DIGEST_SIZE);
    else
        digest_bytes(out, "", 0);
}

/* "chat_template" of tokenizer_config.json: a string, or a list of named ones. */
static const json_t *default_template(const json_t *config)
{
    const json_t *t = json_object_get(config, "chat_template"), *item;
    size_t i;

    if (!json_is_array(t))
        return json_is_string(t) ? t : NULL;
    json_array_foreach((json_t *)(size_t)t, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));

        if (name && !strcmp(name, "default"))
            return json_object_get(item, "template");
    }
    return NULL;
}

static int open_from_folder(struct chat_template **out, const char *folder,
                            struct artel_error *err)
{
    const size_t room = strlen(folder) + 32;
    char *path = malloc(room);
    struct map map = {0};
    json_t *config = NULL;
    const json_t *text;
    int rc = 0;

    if (!path)
        return error_nomem(err, room);
    snprintf(path, room, "%s/chat_template.jinja", folder);
    if (access(path, F_OK) == 0) {
        rc = map_open(&map, path, err);
        if (rc == 0)
            rc = chat_parse(out, map.data ? (const char *)map.data : "", map.size, path,
                            err);
        goto done;
    }
    snprintf(path, room, "%s/tokenizer_config.json", folder);
    if (access(path, F_OK) != 0)
        goto done;
    rc = json_read_file(&config, path, MAX_CONFIG_BYTES, err);
    text = rc == 0 ? default_template(config) : NULL;
    if (text && json_is_string(text))
        rc = chat_parse(out, json_string_value(text), json_string_length(text), path,
                        err);

done:
    map_release(&map);
    json_decref(config);
    free(path);
    return rc;
}

int chat_open(struct chat_template **out, const struct weights *w,
              struct artel_error *err)
{
    *out = NULL;
    if (w->gguf) {
        const struct gguf_value v = gguf_get(w->gguf, "tokenizer.chat_template");

        if (v.kind == GGUF_ABSENT)
            return 0;
        if (v.kind != GGUF_STRING)
            return error_in(err,
                            error_set(err, ARTEL_EFORMAT, "TPL05",
                                      "tokenizer.chat_template", "expected a string"),
                            w->path);
        return chat_parse(out, v.text, v.length, w->path, err);
    }
    return w->folder ? open_from_folder(out, w->folder, err) : 0;
}

void rendered_release(struct rendered *r)
{
    free(r->text);
    free(r->mask);
    *r = (struct rendered){0};
}

/* Roles from this list cannot spell anything else; templates build tokens of them. */
static bool is_plain_role(const char *role)
{
    static const char *const roles[] = {
        "user",    "assistant", "system", "tool", "developer",   "function",
        "ipython", "model",     "human",  "gpt",  "observation", NULL};

    for (size_t i = 0; roles[i]; i++)
        if (role && !strcmp(role, roles[i]))
            return true;
    return false;
}

static struct value message_value(struct pool *p, const json_t *message, bool last_user)
{
    struct value out = value_dict(p, V_DICT);
    const char *key;
    json_t *item;

    if (!json_is_object(message))
        return value_from_json(p, message, FROM_CONTENT);
    json_object_foreach((json_t *)(size_t)message, key, item)
    {
        enum origin from = FROM_CONTENT;

        if (!strcmp(key, "role") && is_plain_role(json_string_value(item)))
            from = FROM_TEMPLATE;
        else if (!strcmp(key, "content") && last_user)
            from = FROM_LAST_USER;
        dict_set(p, out.dict,
                 value_str(p, (struct str){key, NULL, strlen(key), FROM_CONTENT}),
                 value_from_json(p, item, from));
    }
    return out;
}

static struct value messages_value(struct pool *p, const json_t *messages)
{
    const size_t n = json_array_size(messages);
    struct value out = value_list(p, V_LIST, n);
    size_t last = n;

    for (size_t i = 0; i < n; i++) {
        const json_t *role = json_object_get(json_array_get(messages, i), "role");

        if (json_is_string(role) && !strcmp(json_string_value(role), "user"))
            last = i;
    }
    for (size_t i = 0; i < n; i++)
        list_push(p, out.list,
                  message_value(p, json_array_get(messages, i), i == last));
    return out;
}

/* Only names the template uses are known here; the others cannot matter. */
static void bind(struct run *r, const char *name, struct value v)
{
    const char *known = jinja_interned(r->names, name, strlen(name));

    if (known)
        run_bind(r, known, v);
}

static void bind_token(struct run *r, const char *name, const char *text)
{
    if (text)
        bind(r, name, value_text(r->pool, text));
}

/* What is rendered, as handed to chat_render(). */
struct request {
    const json_t *messages, *tools, *extra;
    const char *bos, *eos;
    bool add_generation_prompt;
};

static void render(struct rendering *x, const struct chat_template *t,
                   const struct request *q)
{
    struct run *r = &x->run;
    const char *key;
    json_t *item;

    bind(r, "messages", messages_value(r->pool, q->messages));
    bind(r, "tools",
         q->tools ? value_from_json(r->pool, q->tools, FROM_CONTENT) : value_none());
    bind(r, "documents", value_none());
    bind(r, "add_generation_prompt", value_bool(q->add_generation_prompt));
    bind_token(r, "bos_token", q->bos);
    bind_token(r, "eos_token", q->eos);
    json_object_foreach((json_t *)(size_t)q->extra, key, item)
        bind(r, key, value_from_json(r->pool, item, FROM_CONTENT));
    run_statements(r, t->tree);
}

/* The builder's text, its origins folded into mask and span. */
static int hand_over(struct rendered *out, const struct builder *b,
                     struct artel_error *err)
{
    out->text = malloc(b->n + 1);
    out->mask = malloc(b->n + 1);
    if (!out->text || !out->mask) {
        rendered_release(out);
        return error_nomem(err, 2 * b->n);
    }
    if (b->n)
        memcpy(out->text, b->at, b->n);
    out->text[b->n] = '\0';
    out->n = b->n;
    for (size_t i = 0; i < b->n; i++) {
        out->mask[i] = b->from[i] == FROM_TEMPLATE;
        if (b->from[i] != FROM_LAST_USER)
            continue;
        if (!out->pool_end)
            out->pool_first = i;
        out->pool_end = i + 1;
    }
    return 0;
}

int chat_render(const struct chat_template *t, struct rendered *out,
                const json_t *messages, const json_t *tools, const json_t *extra,
                bool add_generation_prompt, const char *bos, const char *eos,
                struct artel_error *err)
{
    const struct request q = {messages, tools, extra, bos, eos, add_generation_prompt};
    struct rendering *x = calloc(1, sizeof(*x));
    int rc;

    *out = (struct rendered){0};
    if (!x)
        return error_nomem(err, sizeof(*x));
    x->pool.limit = JINJA_MAX_MEMORY;
    x->pool.max_steps = JINJA_MAX_STEPS;
    x->pool.err = err;
    x->out.pool = &x->pool;
    x->out.limit = JINJA_MAX_OUTPUT;
    x->run = (struct run){.pool = &x->pool,
                          .out = &x->out,
                          .scope = &x->globals,
                          .names = t->parser.names};
    if (setjmp(x->pool.back)) {
        rc = error_in(err, x->pool.rc, t->name);
    } else {
        render(x, t, &q);
        rc = hand_over(out, &x->out, err);
    }
    pool_release(&x->pool);
    free(x);
    return rc;
}
