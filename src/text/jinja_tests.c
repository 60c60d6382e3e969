/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests (x is defined) and global functions.
 */
#include <math.h>
#include <string.h>
#include <time.h>

#include "text/jinja_text.h"

#define TEST(name, condition)                                                          \
    static struct value name(struct run *r, struct value v, const struct args *args)   \
    {                                                                                  \
        (void)r, (void)args;                                                           \
        return value_bool(condition);                                                  \
    }

TEST(t_defined, v.type != V_UNDEFINED)
TEST(t_undefined, v.type == V_UNDEFINED)
TEST(t_none, v.type == V_NONE)
TEST(t_string, v.type == V_STRING)
TEST(t_mapping, v.type == V_DICT)
TEST(t_iterable, v.type == V_STRING || v.type == V_LIST || v.type == V_TUPLE ||
                     v.type == V_DICT || v.type == V_UNDEFINED || v.type == V_LOOP)
TEST(t_sequence, v.type == V_STRING || v.type == V_LIST || v.type == V_TUPLE ||
                     v.type == V_DICT || v.type == V_UNDEFINED)
TEST(t_number, value_is_number(v))
TEST(t_boolean, v.type == V_BOOL)
TEST(t_integer, v.type == V_INT)
TEST(t_float, v.type == V_FLOAT)
TEST(t_true, v.type == V_BOOL && v.flag)
TEST(t_false, v.type == V_BOOL && !v.flag)
TEST(t_callable, v.type == V_MACRO || v.type == V_FUNCTION || v.type == V_METHOD ||
                     v.type == V_UNDEFINED)
TEST(t_eq, value_equal(r->pool, v, args->at[0]))
TEST(t_ne, !value_equal(r->pool, v, args->at[0]))
TEST(t_lt, value_order(r->pool, v, args->at[0]) < 0)
TEST(t_le, value_order(r->pool, v, args->at[0]) <= 0)
TEST(t_gt, value_order(r->pool, v, args->at[0]) > 0)
TEST(t_ge, value_order(r->pool, v, args->at[0]) >= 0)
TEST(t_in, run_contains(r, v, args->at[0]))
TEST(t_sameas, v.type == args->at[0].type && value_equal(r->pool, v, args->at[0]))

static bool divides(struct run *r, struct value v, struct value by, int64_t rest)
{
    return value_equal(r->pool, run_binary(r, '%', v, by), value_int(rest));
}

TEST(t_odd, divides(r, v, value_int(2), 1))
TEST(t_even, divides(r, v, value_int(2), 0))
TEST(t_divisibleby, divides(r, v, args->at[0], 0))

/* As str.islower(): there is a letter with two cases, and none of the other case. */
static bool is_cased(struct run *r, struct value v, enum text_case how)
{
    const struct value s = value_str(r->pool, *value_as_str(r->pool, v));
    const struct value same = text_case(r, s.str, how);
    const struct value other =
        text_case(r, s.str, how == CASE_LOWER ? CASE_UPPER : CASE_LOWER);

    return value_equal(r->pool, s, same) && !value_equal(r->pool, s, other);
}

TEST(t_lower, is_cased(r, v, CASE_LOWER))
TEST(t_upper, is_cased(r, v, CASE_UPPER))

const struct function jinja_tests[] = {
    {"defined", t_defined, "", 0},
    {"undefined", t_undefined, "", 0},
    {"none", t_none, "", 0},
    {"string", t_string, "", 0},
    {"mapping", t_mapping, "", 0},
    {"iterable", t_iterable, "", 0},
    {"sequence", t_sequence, "", 0},
    {"number", t_number, "", 0},
    {"boolean", t_boolean, "", 0},
    {"integer", t_integer, "", 0},
    {"float", t_float, "", 0},
    {"true", t_true, "", 0},
    {"false", t_false, "", 0},
    {"callable", t_callable, "", 0},
    {"eq", t_eq, "other", 1},
    {"equalto", t_eq, "other", 1},
    {"==", t_eq, "other", 1},
    {"ne", t_ne, "other", 1},
    {"!=", t_ne, "other", 1},
    {"lt", t_lt, "other", 1},
    {"lessthan", t_lt, "other", 1},
    {"<", t_lt, "other", 1},
    {"le", t_le, "other", 1},
    {"<=", t_le, "other", 1},
    {"gt", t_gt, "other", 1},
    {"greaterthan", t_gt, "other", 1},
    {">", t_gt, "other", 1},
    {"ge", t_ge, "other", 1},
    {">=", t_ge, "other", 1},
    {"in", t_in, "seq", 1},
    {"sameas", t_sameas, "other", 1},
    {"odd", t_odd, "", 0},
    {"even", t_even, "", 0},
    {"divisibleby", t_divisibleby, "num", 1},
    {"lower", t_lower, "", 0},
    {"upper", t_upper, "", 0},
    {NULL, NULL, NULL, 0},
};

/* A dict of the arguments: those of one positional dict, then the named ones. */
static struct value make_dict(struct run *r, const struct args *args,
                              enum value_type type)
{
    struct value out = value_dict(r->pool, type);

    for (size_t i = 0; i < args->n; i++) {
        const struct value v = args->at[i];

        if (args->names[i]) {
            dict_set(r->pool, out.dict, value_text(r->pool, args->names[i]), v);
            continue;
        }
        if (i > 0 || v.type != V_DICT)
            jinja_fail(r->pool, "TPL10", "only a dict or named values make a %s",
                       type == V_DICT ? "dict" : "namespace");
        for (size_t k = 0; k < v.dict->n; k++)
            dict_set(r->pool, out.dict, v.dict->keys[k], v.dict->values[k]);
    }
    for (size_t i = 0; type == V_NAMESPACE && i < out.dict->n; i++) {
        const struct value key = out.dict->keys[i];

        if (key.type == V_STRING && key.str->n && *key.str->at == '_')
            jinja_fail(r->pool, "TPL10",
                       "a namespace takes no name that begins with _");
    }
    return out;
}

static struct value g_namespace(struct run *r, struct value self,
                                const struct args *args)
{
    (void)self;
    return make_dict(r, args, V_NAMESPACE);
}

static struct value g_dict(struct run *r, struct value self, const struct args *args)
{
    (void)self;
    return make_dict(r, args, V_DICT);
}

static struct value g_range(struct run *r, struct value self, const struct args *args)
{
    int64_t part[3] = {0, 0, 1};
    struct value out = value_list(r->pool, V_LIST, 0);

    (void)self;
    for (size_t i = 0; i < args->n; i++) {
        if (args->at[i].type != V_INT && args->at[i].type != V_BOOL)
            jinja_fail(r->pool, "TPL10", "range needs whole numbers, not a %s",
                       value_type_name(args->at[i]));
        part[args->n == 1 ? 1 : i] =
            args->at[i].type == V_INT ? args->at[i].num : args->at[i].flag;
    }
    if (!part[2])
        jinja_fail(r->pool, "TPL10", "range's step is 0");
    for (int64_t i = part[0]; part[2] > 0 ? i < part[1] : i > part[1];) {
        if (out.list->n == JINJA_MAX_RANGE)
            jinja_fail(r->pool, "TPL12", "a range has more than %d numbers",
                       JINJA_MAX_RANGE);
        list_push(r->pool, out.list, value_int(i));
        if (__builtin_add_overflow(i, part[2], &i))
            break;
    }
    run_steps(r, out.list->n / 8);
    return out;
}

static struct value g_raise(struct run *r, struct value self, const struct args *args)
{
    const struct str *s = value_as_str(r->pool, args->at[0]);

    (void)self;
    jinja_fail(r->pool, "TPL11", "the chat template refuses this: %.*s",
               (int)(s->n < 180 ? s->n : 180), s->at);
}

static struct value g_strftime(struct run *r, struct value self,
                               const struct args *args)
{
    const struct str *s = need_str(r, &args->at[0], "strftime_now");
    struct builder b = {.pool = r->pool};
    char format[200] = "", text[800];
    const time_t now = time(NULL);
    struct tm local;
    size_t n;

    (void)self;
    if (s->n >= sizeof(format))
        jinja_fail(r->pool, "TPL10", "strftime_now's format is too long");
    memcpy(format, s->at, s->n);
    localtime_r(&now, &local);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    n = strftime(text, sizeof(text), format, &local);
#pragma GCC diagnostic pop
    build_bytes(&b, text, n, FROM_TEMPLATE);
    return built(&b);
}

const struct function jinja_globals[] = {
    {"namespace", g_namespace, "..", 0},
    {"dict", g_dict, "..", 0},
    {"range", g_range, "start stop step", 1},
    {"raise_exception", g_raise, "message", 1},
    {"strftime_now", g_strftime, "format", 1},
    {NULL, NULL, NULL, 0},
};
