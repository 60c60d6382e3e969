/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking functions up, matching arguments to parameters, and the methods of
 * strings, dicts and loops. Bytes keep their origin through all of them.
 */
#define _GNU_SOURCE /* memmem */
#include <string.h>
#include <utf8proc.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

const struct function *jinja_function(enum function_kind kind, const char *name)
{
    static const struct function *const tables[] = {
        jinja_filters,     jinja_tests,        jinja_globals,
        jinja_str_methods, jinja_dict_methods, jinja_loop_methods};

    for (const struct function *f = tables[kind]; f->name; f++)
        if (!strcmp(f->name, name))
            return f;
    return NULL;
}

/* Word I of the blank-separated WORDS; its length in *N, NULL behind the last. */
static const char *word_at(const char *words, size_t i, size_t *n)
{
    for (;; i--) {
        *n = strcspn(words, " ");
        if (!*n)
            return NULL;
        if (!i)
            return words;
        words += *n + (words[*n] == ' ');
    }
}

static size_t positional(const struct args *args)
{
    size_t n = 0;

    while (n < args->n && !args->names[n])
        n++;
    return n;
}

const struct value *arg_at(const struct function *f, const struct args *args, size_t i)
{
    const size_t given = positional(args);
    const char *word;
    size_t n;

    if (i < given)
        return &args->at[i];
    word = word_at(f->params, i, &n);
    for (size_t k = given; word && k < args->n; k++)
        if (args->names[k] && strlen(args->names[k]) == n &&
            !memcmp(args->names[k], word, n))
            return &args->at[k];
    return NULL;
}

bool arg_fits(const struct function *f, const struct args *args)
{
    const size_t given = positional(args);
    size_t known = given, n;

    if (!strcmp(f->params, ".."))
        return args->n >= f->min_args;
    if (given && !word_at(f->params, given - 1, &n))
        return false;
    for (size_t i = given;; i++) {
        const char *word = word_at(f->params, i, &n);

        if (!word)
            break;
        for (size_t k = given; k < args->n; k++)
            known += args->names[k] && strlen(args->names[k]) == n &&
                     !memcmp(args->names[k], word, n);
    }
    return known == args->n && args->n >= f->min_args;
}

const struct str *need_str(struct run *r, const struct value *v, const char *what)
{
    if (!v || v->type != V_STRING)
        jinja_fail(r->pool, "TPL10", "%s needs a string, not %s", what,
                   v ? value_type_name(*v) : "nothing");
    run_steps(r, v->str->n / 64);
    return v->str;
}

static bool in_set(const struct str *set, const char *at, size_t n, int32_t code)
{
    size_t len;
    int32_t other;

    if (!set)
        return char_is_space(code);
    for (size_t i = 0; i < set->n; i += len) {
        len = char_bytes(set->at + i, set->n - i, &other);
        if (len == n && !memcmp(set->at + i, at, n))
            return true;
    }
    return false;
}

struct str text_strip(const struct str *s, const struct str *set, bool left, bool right)
{
    size_t first = 0, end = s->n, len;
    int32_t code;

    while (left && first < end) {
        len = char_bytes(s->at + first, end - first, &code);
        if (!in_set(set, s->at + first, len, code))
            break;
        first += len;
    }
    while (right && end > first) {
        size_t at = end - 1;

        while (at > first && ((unsigned char)s->at[at] & 0xc0) == 0x80 && end - at < 4)
            at--;
        len = char_bytes(s->at + at, end - at, &code);
        if (at + len != end) { /* not UTF-8: the last byte alone */
            at = end - 1;
            code = (unsigned char)s->at[at];
        }
        if (!in_set(set, s->at + at, end - at, code))
            break;
        end = at;
    }
    return str_part(s, first, end);
}

struct value text_case(struct run *r, const struct str *s, enum text_case how)
{
    struct builder b = {.pool = r->pool};
    bool inside = false; /* a word, for titles */

    run_steps(r, s->n / 16);
    for (size_t i = 0; i < s->n;) {
        int32_t code, to;
        const size_t len = char_bytes(s->at + i, s->n - i, &code);
        const bool cased =
            utf8proc_toupper(code) != code || utf8proc_tolower(code) != code;
        const bool up = how == CASE_UPPER ||
                        ((how == CASE_TITLE || how == CASE_WORDS) && !inside) ||
                        (how == CASE_CAPITAL && i == 0);
        utf8proc_uint8_t out[4];

        to = up ? utf8proc_toupper(code) : utf8proc_tolower(code);
        if (len == 1 && code >= 0x80)
            build_bytes(&b, s->at + i, 1, str_origin(s, i));
        else if (up && code == 0xdf) /* sharp s has no capital of one character */
            build_bytes(&b, how == CASE_UPPER || how == CASE_WORDS ? "SS" : "Ss", 2,
                        str_origin(s, i));
        else
            build_bytes(&b, (const char *)out, (size_t)utf8proc_encode_char(to, out),
                        str_origin(s, i));
        inside = how == CASE_TITLE
                     ? cased
                     : !char_is_space(code) &&
                           (code >= 0x80 || !code || !strchr("-({[<", (int)code));
        i += len;
    }
    return built(&b);
}

struct value text_replace(struct run *r, const struct str *s, const struct str *old,
                          const struct str *with, int64_t count)
{
    struct builder b = {.pool = r->pool, .limit = JINJA_MAX_OUTPUT};
    size_t at = 0;
    int32_t code;

    for (int64_t done = 0; count < 0 || done < count; done++) {
        const char *found = memmem(s->at + at, s->n - at, old->at, old->n);
        size_t next;

        run_steps(r, 1);
        if (!found || (!old->n && at > s->n))
            break;
        next = old->n ? (size_t)(found - s->at) : at;
        build_str(&b, &(struct str){s->at + at, s->from ? s->from + at : NULL,
                                    next - at, s->origin});
        build_str(&b, with);
        at = next + old->n;
        if (old->n)
            continue;
        if (at == s->n)
            break;
        next = at + char_bytes(s->at + at, s->n - at, &code);
        build_str(&b, &(struct str){s->at + at, s->from ? s->from + at : NULL,
                                    next - at, s->origin});
        at = next;
    }
    build_str(&b, &(struct str){s->at + at, s->from ? s->from + at : NULL, s->n - at,
                                s->origin});
    return built(&b);
}

static void push_part(struct run *r, struct list *l, const struct str *s, size_t a,
                      size_t b)
{
    run_steps(r, 1);
    list_push(r->pool, l, value_str(r->pool, str_part(s, a, b)));
}

/* Runs of white space part; none at the ends. */
static void split_spaces(struct run *r, struct list *l, const struct str *s,
                         int64_t max)
{
    size_t at = 0, len;
    int32_t code;

    for (;;) {
        size_t first;

        for (; at < s->n; at += len) {
            len = char_bytes(s->at + at, s->n - at, &code);
            if (!char_is_space(code))
                break;
        }
        if (at >= s->n)
            return;
        first = at;
        if (max >= 0 && (int64_t)l->n >= max) {
            const struct str rest = str_part(s, first, s->n);

            list_push(r->pool, l,
                      value_str(r->pool, text_strip(&rest, NULL, false, true)));
            return;
        }
        for (; at < s->n; at += len) {
            len = char_bytes(s->at + at, s->n - at, &code);
            if (char_is_space(code))
                break;
        }
        push_part(r, l, s, first, at);
    }
}

static const struct function *of(const struct function *table, const char *name)
{
    while (strcmp(table->name, name) != 0)
        table++;
    return table;
}

static struct value m_split(struct run *r, struct value self, const struct args *args)
{
    const struct function *f = of(jinja_str_methods, "split");
    const struct value *sep = arg_at(f, args, 0), *most = arg_at(f, args, 1);
    const int64_t max = most && most->type == V_INT ? most->num : -1;
    struct value out = value_list(r->pool, V_LIST, 0);
    const struct str *s = self.str;
    size_t at = 0;

    run_steps(r, s->n / 16);
    if (!sep || sep->type == V_NONE) {
        split_spaces(r, out.list, s, max);
        return out;
    }
    if (!need_str(r, sep, "split")->n)
        jinja_fail(r->pool, "TPL10", "split needs a separator that is not empty");
    while (max < 0 || (int64_t)out.list->n < max) {
        const char *found = memmem(s->at + at, s->n - at, sep->str->at, sep->str->n);

        if (!found)
            break;
        push_part(r, out.list, s, at, (size_t)(found - s->at));
        at = (size_t)(found - s->at) + sep->str->n;
    }
    push_part(r, out.list, s, at, s->n);
    return out;
}

static struct value m_rsplit(struct run *r, struct value self, const struct args *args)
{
    const struct function *f = of(jinja_str_methods, "rsplit");
    const struct str *sep = need_str(r, arg_at(f, args, 0), "rsplit");
    const struct value *most = arg_at(f, args, 1);
    const int64_t max = most && most->type == V_INT ? most->num : -1;
    struct value back = value_list(r->pool, V_LIST, 0), out;
    size_t end = self.str->n, at = end;

    if (!sep->n)
        jinja_fail(r->pool, "TPL10", "rsplit needs a separator that is not empty");
    while ((max < 0 || (int64_t)back.list->n < max) && at-- > 0) {
        run_steps(r, 1);
        if (at + sep->n > end || memcmp(self.str->at + at, sep->at, sep->n) != 0)
            continue;
        push_part(r, back.list, self.str, at + sep->n, end);
        end = at;
    }
    push_part(r, back.list, self.str, 0, end);
    out = value_list(r->pool, V_LIST, back.list->n);
    for (size_t i = back.list->n; i-- > 0;)
        list_push(r->pool, out.list, back.list->at[i]);
    return out;
}

static struct value strip_as(struct run *r, struct value self, const struct args *args,
                             bool left, bool right)
{
    const bool given = args->n && args->at[0].type != V_NONE;
    const struct str *set = given ? need_str(r, &args->at[0], "strip") : NULL;

    run_steps(r, self.str->n / 64);
    return value_str(r->pool, text_strip(self.str, set, left, right));
}

static struct value m_strip(struct run *r, struct value self, const struct args *args)
{
    return strip_as(r, self, args, true, true);
}

static struct value m_lstrip(struct run *r, struct value self, const struct args *args)
{
    return strip_as(r, self, args, true, false);
}

static struct value m_rstrip(struct run *r, struct value self, const struct args *args)
{
    return strip_as(r, self, args, false, true);
}

/* Does S begin (or end) with V, or with one of a tuple? */
static bool has_edge(struct run *r, const struct str *s, const struct value *v,
                     bool end)
{
    const struct str *part;

    if (v->type == V_TUPLE) {
        for (size_t i = 0; i < v->list->n; i++)
            if (has_edge(r, s, &v->list->at[i], end))
                return true;
        return false;
    }
    part = need_str(r, v, "startswith and endswith");
    return part->n <= s->n &&
           !memcmp(s->at + (end ? s->n - part->n : 0), part->at, part->n);
}

static struct value m_startswith(struct run *r, struct value self,
                                 const struct args *args)
{
    return value_bool(has_edge(r, self.str, &args->at[0], false));
}

static struct value m_endswith(struct run *r, struct value self,
                               const struct args *args)
{
    return value_bool(has_edge(r, self.str, &args->at[0], true));
}

static struct value m_replace(struct run *r, struct value self, const struct args *args)
{
    const struct function *f = of(jinja_str_methods, "replace");
    const struct value *count = arg_at(f, args, 2);

    return text_replace(r, self.str, need_str(r, arg_at(f, args, 0), "replace"),
                        need_str(r, arg_at(f, args, 1), "replace"),
                        count && count->type == V_INT ? count->num : -1);
}

static struct value m_upper(struct run *r, struct value self, const struct args *args)
{
    (void)args;
    return text_case(r, self.str, CASE_UPPER);
}

static struct value m_lower(struct run *r, struct value self, const struct args *args)
{
    (void)args;
    return text_case(r, self.str, CASE_LOWER);
}

static struct value m_title(struct run *r, struct value self, const struct args *args)
{
    (void)args;
    return text_case(r, self.str, CASE_TITLE);
}

static struct value m_capitalize(struct run *r, struct value self,
                                 const struct args *args)
{
    (void)args;
    return text_case(r, self.str, CASE_CAPITAL);
}

/* Where in S the characters of PART stand first, or -1; *COUNT: how often. */
static int64_t place_of(struct run *r, const struct str *s, const struct str *part,
                        int64_t *count)
{
    int64_t first = -1;
    size_t at = 0;

    *count = 0;
    run_steps(r, s->n / 16);
    if (!part->n) {
        *count = (int64_t)str_chars(s) + 1;
        return 0;
    }
    for (;;) {
        const char *found = memmem(s->at + at, s->n - at, part->at, part->n);

        if (!found)
            return first;
        if (first < 0)
            first = (int64_t)str_chars(
                &(struct str){s->at, NULL, (size_t)(found - s->at), 0});
        ++*count;
        at = (size_t)(found - s->at) + part->n;
    }
}

static struct value m_find(struct run *r, struct value self, const struct args *args)
{
    int64_t count;

    return value_int(place_of(r, self.str, need_str(r, &args->at[0], "find"), &count));
}

static struct value m_count(struct run *r, struct value self, const struct args *args)
{
    int64_t count;

    place_of(r, self.str, need_str(r, &args->at[0], "count"), &count);
    return value_int(count);
}

static struct value m_join(struct run *r, struct value self, const struct args *args)
{
    struct builder b = {.pool = r->pool, .limit = JINJA_MAX_OUTPUT};
    const struct list *items = run_items(r, args->at[0]);

    for (size_t i = 0; i < items->n; i++) {
        if (i)
            build_str(&b, self.str);
        build_str(&b, need_str(r, &items->at[i], "join"));
    }
    return built(&b);
}

static struct value m_isdigit(struct run *r, struct value self, const struct args *args)
{
    (void)args;
    run_steps(r, self.str->n / 16);
    for (size_t i = 0; i < self.str->n; i++)
        if (self.str->at[i] < '0' || self.str->at[i] > '9')
            return value_bool(false);
    return value_bool(self.str->n > 0);
}

const struct function jinja_str_methods[] = {
    {"split", m_split, "sep maxsplit", 0},
    {"rsplit", m_rsplit, "sep maxsplit", 1},
    {"strip", m_strip, "chars", 0},
    {"lstrip", m_lstrip, "chars", 0},
    {"rstrip", m_rstrip, "chars", 0},
    {"startswith", m_startswith, "prefix", 1},
    {"endswith", m_endswith, "suffix", 1},
    {"replace", m_replace, "old new count", 2},
    {"upper", m_upper, "", 0},
    {"lower", m_lower, "", 0},
    {"title", m_title, "", 0},
    {"capitalize", m_capitalize, "", 0},
    {"find", m_find, "sub", 1},
    {"count", m_count, "sub", 1},
    {"join", m_join, "items", 1},
    {"isdigit", m_isdigit, "", 0},
    {NULL, NULL, NULL, 0},
};

struct value dict_items(struct run *r, const struct dict *d)
{
    struct value out = value_list(r->pool, V_LIST, d->n);

    for (size_t i = 0; i < d->n; i++) {
        struct value pair = value_list(r->pool, V_TUPLE, 2);

        list_push(r->pool, pair.list, d->keys[i]);
        list_push(r->pool, pair.list, d->values[i]);
        list_push(r->pool, out.list, pair);
    }
    run_steps(r, d->n / 8);
    return out;
}

static struct value m_items(struct run *r, struct value self, const struct args *args)
{
    (void)args;
    return dict_items(r, self.dict);
}

static struct value m_keys(struct run *r, struct value self, const struct args *args)
{
    (void)args;
    return (struct value){.type = V_LIST, .list = run_items(r, self)};
}

static struct value m_values(struct run *r, struct value self, const struct args *args)
{
    struct value out = value_list(r->pool, V_LIST, self.dict->n);

    (void)args;
    for (size_t i = 0; i < self.dict->n; i++)
        list_push(r->pool, out.list, self.dict->values[i]);
    return out;
}

static struct value m_get(struct run *r, struct value self, const struct args *args)
{
    const struct value *found = dict_find(r->pool, self.dict, args->at[0]);

    run_steps(r, self.dict->n / 8);
    return found ? *found : args->n > 1 ? args->at[1] : value_none();
}

const struct function jinja_dict_methods[] = {
    {"items", m_items, "", 0},   {"keys", m_keys, "", 0},
    {"values", m_values, "", 0}, {"get", m_get, "key default", 1},
    {NULL, NULL, NULL, 0},
};

static struct value m_cycle(struct run *r, struct value self, const struct args *args)
{
    (void)r;
    return args->at[self.loop->i % args->n];
}

const struct function jinja_loop_methods[] = {
    {"cycle", m_cycle, "..", 1},
    {NULL, NULL, NULL, 0},
};
