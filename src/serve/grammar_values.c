/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects and arrays. Between the parts of one a blank may stand behind each colon and
 * each comma, and nowhere else: a model cannot get lost in blanks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "serve/grammar_schema.h"
#include "serve/grammar_text.h"

/* FROM: one blank or none, a value that starts at VALUE, and on at RET. */
static void then_value(struct schema_compiler *c, uint32_t from, uint32_t value,
                       uint32_t ret)
{
    const struct net_edge e = {.kind = NET_CALL, .to = ret, .callee = value};
    const uint32_t blank = net_state(&c->b);

    net_bytes(&c->b, from, ' ', ' ', blank);
    net_edge(&c->b, from, &e);
    net_edge(&c->b, blank, &e);
}

/* A comma, one blank or none, and on at TO. */
static void comma(struct net_build *b, uint32_t from, uint32_t to)
{
    const uint32_t behind = net_state(b);

    net_bytes(b, from, ',', ',', behind);
    text_blank(b, behind, to);
}

/* An object while its net grows: its properties in order, then those it does not name. */
struct properties {
    json_t *named;      /* name: schema; owned */
    json_t *required;   /* name: true; owned */
    const json_t *more; /* schema of all others, NULL: there are none */
    uint32_t in, end;   /* behind the opening and the closing bracket */
};

static bool read_required(struct schema_compiler *c, struct properties *p,
                          const json_t *schema, const char *place)
{
    const json_t *list = json_object_get(schema, "required"), *name;
    size_t i;

    if (list && !json_is_array(list)) {
        schema_refused(&c->b, place, "required", "must be an array of names");
        return false;
    }
    json_array_foreach(list, i, name)
    {
        const char *text = json_string_value(name);

        if (!text) {
            schema_refused(&c->b, place, "required", "must be an array of names");
            return false;
        }
        json_object_set_new(p->required, text, json_true());
        if (json_object_get(p->named, text))
            continue;
        if (!p->more || json_object_get(json_object_get(schema, "properties"), text)) {
            schema_refused(&c->b, place, "required",
                           "names a property that the schema does not allow");
            return false;
        }
        json_object_set(p->named, text, (json_t *)p->more);
    }
    return true;
}

static bool read_properties(struct schema_compiler *c, struct properties *p,
                            const json_t *schema, const char *place)
{
    const json_t *named = json_object_get(schema, "properties");
    const json_t *more = json_object_get(schema, "additionalProperties");
    const char *name;
    json_t *value;

    if (named && !json_is_object(named)) {
        schema_refused(&c->b, place, "properties", "must be an object");
        return false;
    }
    if (more && !json_is_object(more) && !json_is_boolean(more)) {
        schema_refused(&c->b, place, "additionalProperties",
                       "must be a schema, true or false");
        return false;
    }
    /* An object that names no property at all is a free one. */
    p->more = more ? more : named ? NULL : json_true();
    if (json_is_false(p->more))
        p->more = NULL;
    json_object_foreach((json_t *)named, name, value) if (!json_is_false(value))
        json_object_set(p->named, name, value);
    return read_required(c, p, schema, place);
}

/* One after the other: KEY is where the next may begin, AFTER where each has ended. ALL
 * holds the names that no free key may have. */
static void chain_properties(struct schema_compiler *c, struct properties *p,
                             const json_t *all, const char *place)
{
    struct net_build *b = &c->b;
    uint32_t key = net_state(b), optional = 0;
    const size_t n = json_object_size(p->named);
    uint32_t *after = calloc(n + 1, sizeof(*after));
    const char *name;
    json_t *schema;
    size_t i = 0;

    if (!after) {
        if (!b->rc)
            b->rc = error_nomem(b->err, n * sizeof(*after));
        return;
    }
    net_empty(b, p->in, key);
    after[0] = p->in;
    json_object_foreach(p->named, name, schema)
    {
        const bool required = json_object_get(p->required, name) != NULL;
        const uint32_t next = net_state(b), colon = net_state(b), value = net_state(b);

        optional = required ? 0 : optional + 1;
        if (optional > SCHEMA_OPTIONAL)
            schema_refused(b, place, "properties",
                           "more than %d optional properties in a row",
                           SCHEMA_OPTIONAL);
        after[++i] = net_state(b);
        text_name(b, key, colon, name);
        net_bytes(b, colon, ':', ':', value);
        then_value(c, value, schema_inner(c, schema, place, "properties", name),
                   after[i]);
        comma(b, after[i], next);
        if (!required)
            net_empty(b, key, next);
        else
            for (size_t k = 0; k < i; k++)
                after[k] = 0; /* too early to close */
        key = next;
    }
    if (p->more) {
        const uint32_t colon = net_state(b), value = net_state(b), last = net_state(b);

        text_key(b, key, colon, all);
        net_bytes(b, colon, ':', ':', value);
        then_value(c, value,
                   schema_inner(c, p->more, place, "additionalProperties", NULL), last);
        comma(b, last, key);
        net_bytes(b, last, '}', '}', p->end);
    }
    for (i = 0; i <= n; i++)
        if (after[i])
            net_bytes(b, after[i], '}', '}', p->end);
    free(after);
}

void schema_object(struct schema_compiler *c, const json_t *schema, uint32_t start,
                   const char *place)
{
    struct properties p = {.named = json_object(), .required = json_object()};

    p.in = net_state(&c->b);
    p.end = net_state(&c->b);
    if (!p.named || !p.required) {
        if (!c->b.rc)
            c->b.rc = error_nomem(c->b.err, sizeof(json_t *));
    } else if (read_properties(c, &p, schema, place)) {
        json_t *all = json_object_get(schema, "properties");

        net_bytes(&c->b, start, '{', '{', p.in);
        net_accept(&c->b, p.end);
        /* A free key is neither a named one nor one that may not be. */
        all = all ? json_copy(all) : json_object();
        json_object_update(all, p.named);
        chain_properties(c, &p, all, place);
        json_decref(all);
    }
    json_decref(p.named);
    json_decref(p.required);
}

/* The items behind a fixed beginning of FIXED: between MIN and MAX in all. FROM stands
 * behind the bracket where FIXED is 0, else behind a value. */
static void more_items(struct schema_compiler *c, uint32_t from, uint32_t end,
                       uint32_t item, const uint32_t count[3])
{
    const uint32_t fixed = count[0];
    const uint32_t min = count[1] > fixed ? count[1] - fixed : 0;
    const uint32_t max = count[2] == NET_NO_LIMIT ? NET_NO_LIMIT : count[2] - fixed;
    struct net_build *b = &c->b;
    const uint32_t limits = net_limits(b, min, max);
    const uint32_t comma = net_state(b), blank = net_state(b), behind = net_state(b);
    struct net_edge value = {.kind = NET_CALL,
                             .flags = NET_COUNTS,
                             .to = behind,
                             .callee = item,
                             .limits = limits};
    struct net_edge close = {.kind = NET_BYTES,
                             .lo = ']',
                             .hi = ']',
                             .flags = NET_ENOUGH,
                             .to = end,
                             .limits = limits};
    struct net_edge more = {.kind = NET_BYTES,
                            .lo = ',',
                            .hi = ',',
                            .flags = NET_MORE,
                            .to = comma,
                            .limits = limits};

    net_edge(b, behind, &close);
    net_edge(b, behind, &more);
    net_edge(b, comma, &value);
    net_bytes(b, comma, ' ', ' ', blank);
    net_edge(b, blank, &value);
    if (fixed)
        net_bytes(b, from, ',', ',', comma);
    else
        net_edge(b, from, &value);
}

void schema_array(struct schema_compiler *c, const json_t *schema, uint32_t start,
                  const char *place)
{
    const json_t *fixed = json_object_get(schema, "prefixItems"), *value;
    const json_t *items = json_object_get(schema, "items");
    uint32_t count[3] = {0, schema_count(c, schema, "minItems", 0, place),
                         schema_count(c, schema, "maxItems", NET_NO_LIMIT, place)};
    struct net_build *b = &c->b;
    uint32_t at = net_state(b);
    const uint32_t end = net_state(b);
    size_t i;

    if (count[1] > count[2])
        schema_refused(b, place, "minItems", "is above maxItems");
    if (fixed && !json_is_array(fixed))
        schema_refused(b, place, "prefixItems", "must be an array of schemas");
    if (json_is_array(items))
        schema_refused(b, place, "items", "must be a schema; lists are prefixItems");
    if (b->rc)
        return;
    net_bytes(b, start, '[', '[', at);
    net_accept(b, end);
    json_array_foreach(fixed, i, value)
    {
        const uint32_t behind = net_state(b);
        struct net_edge first = {.kind = NET_CALL, .to = behind};
        char name[24];

        if (i >= count[2])
            break;
        snprintf(name, sizeof(name), "%zu", i);
        first.callee = schema_inner(c, value, place, "prefixItems", name);
        if (count[1] <= i)
            net_bytes(b, at, ']', ']', end);
        if (i) {
            const uint32_t from = net_state(b);

            net_bytes(b, at, ',', ',', from);
            then_value(c, from, first.callee, behind);
        } else {
            net_edge(b, at, &first);
        }
        at = behind;
    }
    count[0] = (uint32_t)i;
    if (count[1] <= count[0])
        net_bytes(b, at, ']', ']', end);
    if (count[0] >= count[2] || json_is_false(items))
        return;
    more_items(c, at, end,
               schema_inner(c, items ? items : json_true(), place, "items", NULL),
               count);
}
