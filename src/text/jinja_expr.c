/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Expressions, by precedence climbing. From loose to tight:
 *
 *     a if c else b   or   and   not   == != < <= > >= in   + -   ~   * / // %   **
 *     - +   . [] ()   | filter   is test
 *
 * Letters of operators: < l(<=) > g(>=) = n(!=) i(in) o(not in), + - * / f(//) % p(**).
 */
#include <string.h>

#include "text/jinja_run.h"

enum { BY_OR = 1, BY_AND, BY_NOT, BY_COMPARE, BY_SUM, BY_CONCAT, BY_PRODUCT, BY_POWER };

struct operator_form {
    const char *text;
    unsigned char level, op;
    enum token_type type;
};

static const struct operator_form operators[] = {
    {"or", BY_OR, 0, T_NAME},        {"and", BY_AND, 0, T_NAME},
    {"==", BY_COMPARE, '=', T_OP},   {"!=", BY_COMPARE, 'n', T_OP},
    {"<", BY_COMPARE, '<', T_OP},    {"<=", BY_COMPARE, 'l', T_OP},
    {">", BY_COMPARE, '>', T_OP},    {">=", BY_COMPARE, 'g', T_OP},
    {"in", BY_COMPARE, 'i', T_NAME}, {"not", BY_COMPARE, 'o', T_NAME},
    {"+", BY_SUM, '+', T_OP},        {"-", BY_SUM, '-', T_OP},
    {"~", BY_CONCAT, '~', T_OP},     {"*", BY_PRODUCT, '*', T_OP},
    {"/", BY_PRODUCT, '/', T_OP},    {"//", BY_PRODUCT, 'f', T_OP},
    {"%", BY_PRODUCT, '%', T_OP},    {"**", BY_POWER, 'p', T_OP},
};

bool token_is(const struct token *t, enum token_type type, const char *text)
{
    return t->type == type &&
           (!text || (t->n == strlen(text) && !memcmp(t->at, text, t->n)));
}

bool take(struct parser *p, enum token_type type, const char *text)
{
    if (!token_is(p->at, type, text))
        return false;
    p->at++;
    return true;
}

void parse_fail(struct parser *p, const char *expected)
{
    static const char *const names[] = {"text",
                                        "{%",
                                        "%}",
                                        "{{",
                                        "}}",
                                        "name",
                                        "a string",
                                        "a number",
                                        "a number",
                                        "",
                                        "the end of the template"};
    const struct token *t = p->at;

    p->pool->line = t->line;
    p->pool->column = t->column;
    if (t->type == T_NAME || t->type == T_OP)
        jinja_fail(p->pool, "TPL01", "expected %s, found '%.*s'", expected,
                   (int)(t->n < 40 ? t->n : 40), t->at);
    jinja_fail(p->pool, "TPL01", "expected %s, found %s", expected, names[t->type]);
}

void expect(struct parser *p, enum token_type type, const char *text)
{
    if (!take(p, type, text))
        parse_fail(p, text                  ? text
                      : type == T_BLOCK_END ? "%}"
                      : type == T_PRINT_END ? "}}"
                                            : "a name");
}

struct node *new_node(struct parser *p, enum node_type type)
{
    struct node *n = pool_take(p->pool, sizeof(*n));

    n->type = (unsigned char)type;
    n->line = p->at->line;
    n->column = p->at->column;
    return n;
}

void parse_enter(struct parser *p)
{
    if (++p->depth > NESTING_MAX) {
        p->pool->line = p->at->line;
        p->pool->column = p->at->column;
        jinja_fail(p->pool, "TPL04", "nested more than %d deep", NESTING_MAX);
    }
}

/* TYPE over A, standing where A stands. */
static struct node *wrap(struct parser *p, enum node_type type, struct node *a)
{
    struct node *n = new_node(p, type);

    n->a = a;
    return n;
}

static struct node *constant(struct parser *p, struct value v)
{
    struct node *n = new_node(p, N_CONST);

    n->constant = v;
    return n;
}

static struct node *parse_string(struct parser *p)
{
    struct node *n = new_node(p, N_CONST);
    struct builder b = {.pool = p->pool};

    while (p->at->type == T_STRING) {
        build_bytes(&b, p->at->at, p->at->n, FROM_TEMPLATE);
        p->at++;
    }
    n->constant = value_str(p->pool, (struct str){b.at, NULL, b.n, FROM_TEMPLATE});
    return n;
}

/* Items up to the bracket CLOSE, which is taken; a comma may be the last. */
static void parse_items(struct parser *p, struct node *into, const char *close)
{
    struct node **last = &into->list;

    while (!take(p, T_OP, close)) {
        struct node *item;

        if (into->list && !(take(p, T_OP, ",")))
            parse_fail(p, close);
        if (into->list && take(p, T_OP, close))
            return;
        item = parse_expression(p);
        if (into->type == N_DICT) {
            item = wrap(p, N_PAIR, item);
            expect(p, T_OP, ":");
            item->b = parse_expression(p);
        }
        *last = item;
        last = &item->next;
    }
}

/* name or name.attribute of an assignment, or a tuple of them. */
static struct node *parse_one_target(struct parser *p, bool with_attribute)
{
    struct node *n = new_node(p, N_NAME);

    if (take(p, T_OP, "(")) {
        n = parse_target(p, with_attribute);
        expect(p, T_OP, ")");
        return n;
    }
    if (p->at->type != T_NAME)
        parse_fail(p, "a name");
    n->name = jinja_intern(p, p->at->at, p->at->n);
    p->at++;
    if (with_attribute && take(p, T_OP, ".")) {
        n->type = N_ATTR_SET;
        if (p->at->type != T_NAME)
            parse_fail(p, "a name");
        n->constant = value_str(p->pool, (struct str){p->at->at, NULL, p->at->n, 0});
        p->at++;
    } else {
        jinja_mark_assigned(n->name);
    }
    return n;
}

struct node *parse_target(struct parser *p, bool with_attribute)
{
    struct node *first, *tuple, **last;

    parse_enter(p);
    first = parse_one_target(p, with_attribute);
    if (token_is(p->at, T_OP, ",")) {
        tuple = new_node(p, N_TUPLE);
        tuple->list = first;
        last = &first->next;
        while (take(p, T_OP, ",") &&
               (p->at->type == T_NAME || token_is(p->at, T_OP, "("))) {
            if (token_is(p->at, T_NAME, "in"))
                break;
            *last = parse_one_target(p, with_attribute);
            last = &(*last)->next;
        }
        first = tuple;
    }
    p->depth--;
    return first;
}

/* Positional and keyword arguments up to ")". */
static void parse_arguments(struct parser *p, struct node *into)
{
    struct node **last = &into->list;
    unsigned n = 0;

    while (!take(p, T_OP, ")")) {
        struct node *arg;

        if (n && !take(p, T_OP, ","))
            parse_fail(p, "')'");
        if (n && take(p, T_OP, ")"))
            return;
        if (n++ == MAX_ARGS)
            parse_fail(p, "at most 16 arguments");
        arg = new_node(p, N_ARG);
        if (p->at->type == T_NAME && token_is(p->at + 1, T_OP, "=")) {
            arg->name = jinja_intern(p, p->at->at, p->at->n);
            p->at += 2;
        }
        arg->a = parse_expression(p);
        *last = arg;
        last = &arg->next;
    }
}

static struct node *parse_primary(struct parser *p)
{
    const struct token *t = p->at;
    struct node *n;

    if (t->type == T_STRING)
        return parse_string(p);
    if (t->type == T_INT || t->type == T_FLOAT) {
        const bool whole = t->type == T_INT;

        n = constant(p, whole ? value_int(t->num)
                              : (struct value){.type = V_FLOAT, .real = t->real});
        p->at++;
        return n;
    }
    if (t->type == T_NAME) {
        if (token_is(t, T_NAME, "true") || token_is(t, T_NAME, "True"))
            n = constant(p, value_bool(true));
        else if (token_is(t, T_NAME, "false") || token_is(t, T_NAME, "False"))
            n = constant(p, value_bool(false));
        else if (token_is(t, T_NAME, "none") || token_is(t, T_NAME, "None"))
            n = constant(p, value_none());
        else {
            n = new_node(p, N_NAME);
            n->name = jinja_intern(p, t->at, t->n);
        }
        p->at++;
        return n;
    }
    if (take(p, T_OP, "(")) {
        if (token_is(p->at, T_OP, ")"))
            n = new_node(p, N_TUPLE);
        else
            n = parse_tuple(p, true, ")");
        expect(p, T_OP, ")");
        return n;
    }
    n = new_node(p, N_LIST);
    if (take(p, T_OP, "[")) {
        parse_items(p, n, "]");
        return n;
    }
    n->type = N_DICT;
    if (take(p, T_OP, "{")) {
        parse_items(p, n, "}");
        return n;
    }
    parse_fail(p, "an expression");
}

static struct node *parse_brackets(struct parser *p, struct node *object)
{
    struct node *n = wrap(p, N_ITEM, object);
    struct node *part[3] = {NULL, NULL, NULL};
    unsigned colons = 0;

    while (!token_is(p->at, T_OP, "]")) {
        if (take(p, T_OP, ":")) {
            if (++colons > 2)
                parse_fail(p, "']'");
        } else if (part[colons]) {
            parse_fail(p, "']'");
        } else {
            part[colons] = parse_expression(p);
        }
    }
    if (!colons && !part[0])
        parse_fail(p, "an expression");
    expect(p, T_OP, "]");
    n->type = colons ? N_SLICE : N_ITEM;
    n->b = part[0];
    n->c = part[1];
    n->d = part[2];
    return n;
}

/* A name called that nothing in the template sets and that is no function of ours is
 * refused when all is parsed; the pool of nodes is walked there (jinja_parse.c). */
static struct node *parse_postfix(struct parser *p, struct node *n)
{
    for (;;) {
        if (token_is(p->at, T_OP, ".")) {
            struct node *object = n;

            n = wrap(p, N_ATTR, object);
            p->at++;
            if (p->at->type == T_INT) {
                n->type = N_ITEM;
                n->b = parse_primary(p);
                continue;
            }
            if (p->at->type != T_NAME)
                parse_fail(p, "a name");
            n->name = jinja_intern(p, p->at->at, p->at->n);
            p->at++;
        } else if (token_is(p->at, T_OP, "[")) {
            p->at++;
            n = parse_brackets(p, n);
        } else if (token_is(p->at, T_OP, "(")) {
            n = wrap(p, N_CALL, n);
            n->line = n->a->line; /* a call is found by its name */
            n->column = n->a->column;
            p->at++;
            parse_arguments(p, n);
        } else {
            return n;
        }
    }
}

/* Refuse what the table does not know, or arguments it does not take, by name. */
static void check_builtin(struct parser *p, const struct node *n, const char *kind)
{
    struct args args = {0};

    p->pool->line = n->line;
    p->pool->column = n->column;
    if (!n->builtin)
        jinja_fail(p->pool, "TPL02", "unknown %s '%.64s'", kind, n->name);
    for (const struct node *a = n->list; a; a = a->next)
        args.names[args.n++] = a->name;
    if (!arg_fits(n->builtin, &args))
        jinja_fail(p->pool, "TPL02", "%s '%.64s' is not known with these arguments",
                   kind, n->name);
}

static struct node *parse_filter(struct parser *p, struct node *inner)
{
    struct node *n = wrap(p, N_FILTER, inner);

    if (p->at->type != T_NAME)
        parse_fail(p, "the name of a filter");
    n->line = p->at->line;
    n->column = p->at->column;
    n->name = jinja_intern(p, p->at->at, p->at->n);
    n->builtin = jinja_function(IS_FILTER, n->name);
    p->at++;
    if (take(p, T_OP, "("))
        parse_arguments(p, n);
    check_builtin(p, n, "filter");
    return n;
}

struct node *parse_filters(struct parser *p, struct node *inner)
{
    inner = parse_filter(p, inner);
    while (take(p, T_OP, "|"))
        inner = parse_filter(p, inner);
    return inner;
}

/* One argument may follow a test without brackets: is divisibleby 3. */
static bool starts_argument(const struct token *t)
{
    if (t->type == T_NAME)
        return !token_is(t, T_NAME, "else") && !token_is(t, T_NAME, "or") &&
               !token_is(t, T_NAME, "and") && !token_is(t, T_NAME, "is") &&
               !token_is(t, T_NAME, "if");
    return t->type == T_STRING || t->type == T_INT || t->type == T_FLOAT ||
           token_is(t, T_OP, "[") || token_is(t, T_OP, "{");
}

static struct node *parse_test(struct parser *p, struct node *inner)
{
    struct node *n = wrap(p, N_TEST, inner);

    if (take(p, T_NAME, "not"))
        n->op = '!';
    if (p->at->type != T_NAME)
        parse_fail(p, "the name of a test");
    n->line = p->at->line;
    n->column = p->at->column;
    n->name = jinja_intern(p, p->at->at, p->at->n);
    n->builtin = jinja_function(IS_TEST, n->name);
    p->at++;
    if (take(p, T_OP, "(")) {
        parse_arguments(p, n);
    } else if (starts_argument(p->at)) {
        n->list = new_node(p, N_ARG);
        n->list->a = parse_postfix(p, parse_primary(p));
    }
    check_builtin(p, n, "test");
    return n;
}

static struct node *parse_unary(struct parser *p, bool with_filter)
{
    struct node *n;

    parse_enter(p);
    if (token_is(p->at, T_OP, "-") || token_is(p->at, T_OP, "+")) {
        n = new_node(p, *p->at->at == '-' ? N_NEGATE : N_PLUS);
        p->at++;
        n->a = parse_unary(p, false);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    while (with_filter) {
        if (take(p, T_OP, "|"))
            n = parse_filter(p, n);
        else if (take(p, T_NAME, "is"))
            n = parse_test(p, n);
        else if (token_is(p->at, T_OP, "("))
            n = parse_postfix(p, n);
        else
            break;
    }
    p->depth--;
    return n;
}

static const struct operator_form *operator_here(const struct parser *p)
{
    for (size_t i = 0; i < sizeof(operators) / sizeof(*operators); i++) {
        const struct operator_form *o = &operators[i];

        if (token_is(p->at, o->type, o->text))
            return o->op != 'o' || token_is(p->at + 1, T_NAME, "in") ? o : NULL;
    }
    return NULL;
}

static struct node *parse_level(struct parser *p, int min);

static struct node *parse_compare(struct parser *p, struct node *left,
                                  const struct operator_form *o)
{
    struct node *n = wrap(p, N_COMPARE, left);
    struct node **last = &n->list;

    do {
        struct node *side = new_node(p, N_OPERAND);

        p->at += o->op == 'o' ? 2 : 1;
        side->op = o->op;
        side->a = parse_level(p, BY_COMPARE + 1);
        *last = side;
        last = &side->next;
        o = operator_here(p);
    } while (o && o->level == BY_COMPARE);
    return n;
}

static struct node *parse_level(struct parser *p, int min)
{
    struct node *left;

    parse_enter(p);
    if (min <= BY_NOT && token_is(p->at, T_NAME, "not")) {
        left = new_node(p, N_NOT);
        p->at++;
        left->a = parse_level(p, BY_NOT);
    } else {
        left = parse_unary(p, true);
    }
    for (;;) {
        const struct operator_form *o = operator_here(p);
        struct node *n;

        if (!o || o->level < min)
            break;
        if (o->level == BY_COMPARE) {
            left = parse_compare(p, left, o);
            continue;
        }
        n = wrap(p,
                 o->level == BY_OR       ? N_OR
                 : o->level == BY_AND    ? N_AND
                 : o->level == BY_CONCAT ? N_CONCAT
                                         : N_BINARY,
                 left);
        n->op = o->op;
        p->at++;
        n->b = parse_level(p, o->level + 1);
        left = n;
    }
    p->depth--;
    return left;
}

struct node *parse_expression(struct parser *p)
{
    struct node *n, *value;

    parse_enter(p);
    value = parse_level(p, BY_OR);
    while (token_is(p->at, T_NAME, "if")) {
        n = new_node(p, N_COND);
        p->at++;
        n->b = value;
        n->a = parse_level(p, BY_OR);
        if (take(p, T_NAME, "else"))
            n->c = parse_expression(p);
        value = n;
    }
    p->depth--;
    return value;
}

/* One expression, or several with commas between: a tuple. END may follow a comma. */
struct node *parse_tuple(struct parser *p, bool with_condition, const char *end)
{
    struct node *first = with_condition ? parse_expression(p) : parse_level(p, BY_OR);
    struct node *tuple, **last = &first->next;

    if (!token_is(p->at, T_OP, ","))
        return first;
    tuple = new_node(p, N_TUPLE);
    tuple->list = first;
    while (take(p, T_OP, ",")) {
        if (p->at->type == T_BLOCK_END || p->at->type == T_PRINT_END ||
            (end && token_is(p->at, T_OP, end)))
            break;
        *last = with_condition ? parse_expression(p) : parse_level(p, BY_OR);
        last = &(*last)->next;
    }
    return tuple;
}
