/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statements, and the check that every function called by name exists.
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "text/jinja_run.h"

struct interned {
    struct interned *next;
    bool assigned; /* some set, for, macro or parameter binds it */
    char name[];
};

static size_t bucket(const char *at, size_t n)
{
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)at[i]) * 16777619u;
    return h % NAME_BUCKETS;
}

static struct interned *find_name(struct interned *const *names, const char *at,
                                  size_t n)
{
    struct interned *i = names[bucket(at, n)];

    while (i && (strlen(i->name) != n || memcmp(i->name, at, n) != 0))
        i = i->next;
    return i;
}

const char *jinja_interned(struct interned *const *names, const char *at, size_t n)
{
    const struct interned *i = find_name(names, at, n);

    return i ? i->name : NULL;
}

const char *jinja_intern(struct parser *p, const char *at, size_t n)
{
    struct interned *i = find_name(p->names, at, n);

    if (!i) {
        struct interned **head = &p->names[bucket(at, n)];

        i = pool_take(p->pool, sizeof(*i) + n + 1);
        memcpy(i->name, at, n);
        i->next = *head;
        *head = i;
    }
    return i->name;
}

static struct interned *of_name(const char *name)
{
    return (struct interned *)(size_t)(name - offsetof(struct interned, name));
}

bool jinja_is_assigned(const char *name)
{
    return of_name(name)->assigned;
}

void jinja_mark_assigned(const char *name)
{
    of_name(name)->assigned = true;
}

static struct node *parse_until(struct parser *p, const char *const *ends);

/* Does a block tag with one of ENDS as its first word stand here? */
static bool at_end(const struct parser *p, const char *const *ends)
{
    for (; *ends; ends++)
        if (p->at->type == T_BLOCK && token_is(p->at + 1, T_NAME, *ends))
            return true;
    return false;
}

static struct node *parse_body(struct parser *p, const char *const *ends)
{
    struct node *list;

    expect(p, T_BLOCK_END, NULL);
    list = parse_until(p, ends);
    if (p->at->type == T_END)
        parse_fail(p, *ends);
    p->at++; /* the tag's begin; its word is at hand */
    return list;
}

static void end_block(struct parser *p)
{
    p->at++;
    expect(p, T_BLOCK_END, NULL);
}

static struct node *parse_if(struct parser *p)
{
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    struct node *const first = new_node(p, N_IF);
    struct node *n = first;

    for (;;) {
        n->a = parse_expression(p);
        n->list = parse_body(p, ends);
        if (!take(p, T_NAME, "elif"))
            break;
        n->b = new_node(p, N_IF);
        n = n->b;
    }
    if (take(p, T_NAME, "else")) {
        n->b = parse_body(p, ends);
        if (!token_is(p->at, T_NAME, "endif"))
            parse_fail(p, "endif");
    }
    end_block(p);
    return first;
}

static struct node *parse_for(struct parser *p)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    static const char *const end[] = {"endfor", NULL};
    struct node *n = new_node(p, N_FOR);
    const char *loop = jinja_intern(p, "loop", 4);

    jinja_mark_assigned(loop);
    n->name = loop;
    n->a = parse_target(p, false);
    expect(p, T_NAME, "in");
    n->b = parse_tuple(p, false, NULL);
    if (take(p, T_NAME, "if"))
        n->c = parse_expression(p);
    if (token_is(p->at, T_NAME, "recursive"))
        jinja_fail(p->pool, "TPL03", "recursive loops are not supported");
    p->loops++;
    n->list = parse_body(p, ends);
    p->loops--;
    if (take(p, T_NAME, "else"))
        n->d = parse_body(p, end);
    end_block(p);
    return n;
}

static struct node *parse_set(struct parser *p)
{
    static const char *const ends[] = {"endset", NULL};
    struct node *n = new_node(p, N_SET);

    n->a = parse_target(p, true);
    if (take(p, T_OP, "=")) {
        n->b = parse_tuple(p, true, NULL);
        expect(p, T_BLOCK_END, NULL);
        return n;
    }
    n->type = N_SET_BLOCK;
    n->b = new_node(p, N_BODY);
    if (take(p, T_OP, "|"))
        n->b = parse_filters(p, n->b);
    n->list = parse_body(p, ends);
    end_block(p);
    return n;
}

static struct node *parse_filter_block(struct parser *p)
{
    static const char *const ends[] = {"endfilter", NULL};
    struct node *n = new_node(p, N_FILTERED);

    n->b = parse_filters(p, new_node(p, N_BODY));
    n->list = parse_body(p, ends);
    end_block(p);
    return n;
}

static struct node *parse_macro(struct parser *p)
{
    static const char *const ends[] = {"endmacro", NULL};
    struct node *n = new_node(p, N_MACRO);
    struct node **last = &n->c;
    const unsigned loops = p->loops;
    unsigned count = 0;

    if (p->at->type != T_NAME)
        parse_fail(p, "the name of a macro");
    n->name = jinja_intern(p, p->at->at, p->at->n);
    jinja_mark_assigned(n->name);
    p->at++;
    expect(p, T_OP, "(");
    while (!take(p, T_OP, ")")) {
        struct node *param;

        if (n->c)
            expect(p, T_OP, ",");
        if (n->c && take(p, T_OP, ")"))
            break;
        if (p->at->type != T_NAME || count++ == MAX_ARGS)
            parse_fail(p, count < MAX_ARGS ? "the name of a parameter"
                                           : "at most 16 parameters");
        param = new_node(p, N_PARAM);
        param->name = jinja_intern(p, p->at->at, p->at->n);
        jinja_mark_assigned(param->name);
        p->at++;
        if (take(p, T_OP, "="))
            param->a = parse_expression(p);
        *last = param;
        last = &param->next;
    }
    p->loops = 0;
    n->list = parse_body(p, ends);
    p->loops = loops;
    end_block(p);
    return n;
}

static struct node *parse_generation(struct parser *p)
{
    static const char *const ends[] = {"endgeneration", NULL};
    struct node *n = new_node(p, N_GENERATION);

    n->list = parse_body(p, ends);
    end_block(p);
    return n;
}

static struct node *parse_leave(struct parser *p, enum node_type type)
{
    struct node *n = new_node(p, type);

    if (!p->loops) {
        p->at--;
        parse_fail(p, "a loop around it");
    }
    expect(p, T_BLOCK_END, NULL);
    return n;
}

static struct node *parse_block(struct parser *p)
{
    p->at++; /* {% */
    p->pool->line = p->at->line;
    p->pool->column = p->at->column;
    if (take(p, T_NAME, "if"))
        return parse_if(p);
    if (take(p, T_NAME, "for"))
        return parse_for(p);
    if (take(p, T_NAME, "set"))
        return parse_set(p);
    if (take(p, T_NAME, "macro"))
        return parse_macro(p);
    if (take(p, T_NAME, "filter"))
        return parse_filter_block(p);
    if (take(p, T_NAME, "generation"))
        return parse_generation(p);
    if (take(p, T_NAME, "break"))
        return parse_leave(p, N_BREAK);
    if (take(p, T_NAME, "continue"))
        return parse_leave(p, N_CONTINUE);
    if (p->at->type == T_NAME)
        jinja_fail(p->pool, "TPL03", "statement '%.*s' is unknown here",
                   (int)(p->at->n < 40 ? p->at->n : 40), p->at->at);
    parse_fail(p, "the name of a statement");
}

static struct node *parse_output(struct parser *p)
{
    struct node *n;

    p->at++; /* {{ */
    n = new_node(p, N_OUTPUT);
    n->a = parse_tuple(p, true, NULL);
    expect(p, T_PRINT_END, NULL);
    return n;
}

/* Statements up to one of ENDS, which is not taken, or the end of the template. */
static struct node *parse_until(struct parser *p, const char *const *ends)
{
    struct node *list = NULL, **last = &list;

    parse_enter(p);
    while (p->at->type != T_END && !at_end(p, ends)) {
        struct node *n;

        if (p->at->type == T_TEXT) {
            n = new_node(p, N_TEXT);
            n->constant =
                value_str(p->pool, (struct str){p->at->at, NULL, p->at->n, 0});
            p->at++;
        } else if (p->at->type == T_PRINT) {
            n = parse_output(p);
        } else {
            n = parse_block(p);
        }
        *last = n;
        last = &n->next;
    }
    p->depth--;
    return list;
}

static void check_calls(struct parser *p, const struct node *n);

static void check_list(struct parser *p, const struct node *n)
{
    for (; n; n = n->next)
        check_calls(p, n);
}

static void check_call(struct parser *p, const struct node *n)
{
    const char *name = n->a->name;

    if (n->a->type != N_NAME || jinja_is_assigned(name) ||
        jinja_function(IS_GLOBAL, name))
        return;
    p->pool->line = n->line;
    p->pool->column = n->column;
    jinja_fail(p->pool, "TPL02", "unknown function '%.64s'", name);
}

/*
 * A called name must be a function of ours or something the template sets. The
 * recursion is as deep as the parser's was: chains of operators lean to the left
 * and chains of elif to the right, and both are walked.
 */
static void check_calls(struct parser *p, const struct node *n)
{
    while (n) {
        const bool has_elif =
            n->type == N_IF && n->b && n->b->type == N_IF && !n->b->next;

        if (n->type == N_CALL)
            check_call(p, n);
        check_list(p, n->list);
        if (has_elif)
            check_calls(p, n->a);
        else
            check_list(p, n->b);
        check_list(p, n->c);
        check_list(p, n->d);
        n = has_elif ? n->b : n->a;
    }
}

struct node *parse_template(struct parser *p, const char *source, size_t n)
{
    static const char *const none[] = {NULL};
    struct node *list;

    p->names = pool_take(p->pool, NAME_BUCKETS * sizeof(struct interned *));
    p->at = jinja_tokens(p->pool, source, n);
    list = parse_until(p, none);
    check_list(p, list);
    return list;
}
