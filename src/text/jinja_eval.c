/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walking the tree: statements write to the output, expressions give values.
 *
 * A loop's body and a macro have scopes of their own, an if has none. Every node
 * counts as a step, nested evaluation is bounded, and so are output and memory:
 * a template that never ends is stopped by one of the four.
 */
#include <string.h>

#include "text/jinja_run.h"

void run_steps(struct run *r, size_t n)
{
    pool_steps(r->pool, n);
}

static void enter(struct run *r, const struct node *n)
{
    r->pool->line = n->line;
    r->pool->column = n->column;
    run_steps(r, 1);
    if (++r->depth > JINJA_MAX_DEPTH)
        jinja_fail(r->pool, "TPL14", "evaluation is nested more than %d deep",
                   JINJA_MAX_DEPTH);
}

void run_bind(struct run *r, const char *name, struct value v)
{
    struct binding *b = r->scope->first;

    while (b && b->name != name)
        b = b->next;
    if (!b) {
        b = pool_take(r->pool, sizeof(*b));
        b->name = name;
        b->next = r->scope->first;
        r->scope->first = b;
    }
    b->value = v;
}

static void push_scope(struct run *r, struct scope *up)
{
    struct scope *s = pool_take(r->pool, sizeof(*s));

    s->up = up;
    r->scope = s;
}

static struct value look_up(struct run *r, const char *name)
{
    const struct function *f;
    size_t walked = 0;

    for (const struct scope *s = r->scope; s; s = s->up)
        for (const struct binding *b = s->first; b; b = b->next, walked++)
            if (b->name == name)
                return b->value;
    run_steps(r, walked / 8);
    f = jinja_function(IS_GLOBAL, name);
    if (f)
        return (struct value){.type = V_FUNCTION, .function = f};
    return value_undefined(name);
}

static void assign_attribute(struct run *r, const struct node *target, struct value v)
{
    const struct value space = look_up(r, target->name);
    const struct str *name = target->constant.str;

    if (space.type != V_NAMESPACE)
        jinja_fail(r->pool, "TPL10",
                   "'%.64s' is no namespace: nothing can be set in it", target->name);
    if (name->n && *name->at == '_')
        jinja_fail(r->pool, "TPL10", "a namespace takes no name that begins with _");
    dict_set(r->pool, space.dict, target->constant, v);
}

static void assign(struct run *r, const struct node *target, struct value v)
{
    const struct list *items;
    size_t i = 0;

    if (target->type == N_NAME) {
        run_bind(r, target->name, v);
        return;
    }
    if (target->type == N_ATTR_SET) {
        assign_attribute(r, target, v);
        return;
    }
    items = run_items(r, v);
    for (const struct node *t = target->list; t; t = t->next, i++)
        if (i < items->n)
            assign(r, t, items->at[i]);
    if (i != items->n)
        jinja_fail(r->pool, "TPL10", "%zu values cannot be unpacked into %zu names",
                   items->n, i);
}

/* The text LIST writes, in a scope of its own. */
static struct value capture(struct run *r, const struct node *list, struct scope *up)
{
    struct builder text = {.pool = r->pool, .limit = JINJA_MAX_OUTPUT};
    struct builder *const outer = r->out;
    struct scope *const scope = r->scope;

    if (up)
        push_scope(r, up);
    r->out = &text;
    run_statements(r, list);
    r->out = outer;
    r->scope = scope;
    return built(&text);
}

/* FILTERS hang over N_BODY: evaluate them with the captured text in its place. */
static struct value filter_body(struct run *r, const struct node *n)
{
    const struct value *const outer = r->body;
    const struct value body = capture(r, n->list, r->scope);
    struct value v;

    r->body = &body;
    v = run_value(r, n->b);
    r->body = outer;
    return v;
}

/* The items for which the loop's condition holds. */
static struct list *select_items(struct run *r, const struct node *n, struct list *all)
{
    struct scope *const scope = r->scope;
    struct list *kept = value_list(r->pool, V_LIST, all->n).list;

    for (size_t i = 0; i < all->n; i++) {
        push_scope(r, scope);
        assign(r, n->a, all->at[i]);
        if (value_true(run_value(r, n->c)))
            list_push(r->pool, kept, all->at[i]);
    }
    r->scope = scope;
    return kept;
}

static void run_for(struct run *r, const struct node *n)
{
    struct scope *const scope = r->scope;
    struct loop *loop = pool_take(r->pool, sizeof(*loop));

    loop->items = run_items(r, run_value(r, n->b));
    if (n->c)
        loop->items = select_items(r, n, loop->items);
    for (; loop->i < loop->items->n; loop->i++) {
        push_scope(r, scope);
        assign(r, n->a, loop->items->at[loop->i]);
        run_bind(r, n->name, (struct value){.type = V_LOOP, .loop = loop});
        run_statements(r, n->list);
        if (r->flow == FLOW_BREAK)
            break;
        r->flow = FLOW_ON;
    }
    r->flow = FLOW_ON;
    r->scope = scope;
    if (!loop->items->n && n->d) {
        push_scope(r, scope);
        run_statements(r, n->d);
        r->scope = scope;
    }
}

static void run_if(struct run *r, const struct node *n)
{
    for (;;) {
        if (value_true(run_value(r, n->a))) {
            run_statements(r, n->list);
            return;
        }
        if (!n->b || n->b->type != N_IF || n->b->next)
            break;
        n = n->b; /* elif, or an else with nothing but an if in it */
    }
    run_statements(r, n->b);
}

static void run_statement(struct run *r, const struct node *n)
{
    switch ((enum node_type)n->type) {
    case N_TEXT:
        build_str(r->out, n->constant.str);
        break;
    case N_OUTPUT:
        build_value(r->out, run_value(r, n->a));
        break;
    case N_IF:
        run_if(r, n);
        break;
    case N_FOR:
        run_for(r, n);
        break;
    case N_SET:
        assign(r, n->a, run_value(r, n->b));
        break;
    case N_SET_BLOCK:
        assign(r, n->a, filter_body(r, n));
        break;
    case N_FILTERED:
        build_value(r->out, filter_body(r, n));
        break;
    case N_MACRO: {
        struct macro *m = pool_take(r->pool, sizeof(*m));

        m->def = n;
        m->closure = r->scope;
        run_bind(r, n->name, (struct value){.type = V_MACRO, .macro = m});
        break;
    }
    case N_GENERATION: {
        struct scope *const scope = r->scope;

        push_scope(r, scope);
        run_statements(r, n->list);
        r->scope = scope;
        break;
    }
    case N_BREAK:
        r->flow = FLOW_BREAK;
        break;
    case N_CONTINUE:
        r->flow = FLOW_CONTINUE;
        break;
    default:
        jinja_fail(r->pool, "TPL10", "not a statement");
    }
}

void run_statements(struct run *r, const struct node *list)
{
    for (; list && r->flow == FLOW_ON; list = list->next) {
        enter(r, list);
        run_statement(r, list);
        r->depth--;
    }
}

/* Bind the parameters of M in the current scope, then their defaults. */
static void bind_parameters(struct run *r, const struct macro *m,
                            const struct args *args)
{
    size_t i = 0, used = 0;

    for (const struct node *p = m->def->c; p; p = p->next, i++) {
        const struct value *given =
            i < args->n && !args->names[i] ? &args->at[i] : NULL;

        for (size_t k = 0; k < args->n && !given; k++)
            if (args->names[k] == p->name)
                given = &args->at[k];
        used += given != NULL;
        if (given)
            run_bind(r, p->name, *given);
        else
            run_bind(r, p->name, p->a ? run_value(r, p->a) : value_undefined(p->name));
    }
    if (used != args->n)
        jinja_fail(r->pool, "TPL10", "macro '%.64s' does not take these %zu arguments",
                   m->def->name, args->n);
}

static struct value call_macro(struct run *r, const struct macro *m,
                               const struct args *args)
{
    struct scope *const scope = r->scope;
    struct value text;

    push_scope(r, m->closure);
    bind_parameters(r, m, args);
    text = capture(r, m->def->list, NULL);
    r->scope = scope;
    return text;
}

struct value run_call(struct run *r, struct value callee, const struct args *args)
{
    const struct function *f = callee.type == V_FUNCTION ? callee.function
                               : callee.type == V_METHOD ? callee.bound->method
                                                         : NULL;

    if (callee.type == V_MACRO)
        return call_macro(r, callee.macro, args);
    if (callee.type == V_UNDEFINED)
        jinja_fail(r->pool, "TPL16", "'%.64s' is undefined and cannot be called",
                   callee.name ? callee.name : "value");
    if (!f)
        jinja_fail(r->pool, "TPL10", "a %s cannot be called", value_type_name(callee));
    if (!arg_fits(f, args))
        jinja_fail(r->pool, "TPL10", "'%.64s' does not take these arguments", f->name);
    return f->call(r, callee.type == V_METHOD ? callee.bound->self : value_none(),
                   args);
}

static void evaluate_args(struct run *r, const struct node *list, struct args *args)
{
    args->n = 0;
    for (; list; list = list->next) {
        args->names[args->n] = list->name;
        args->at[args->n++] = run_value(r, list->a);
    }
}

/* Apart from run_value(), so that its frame is large only where calls are. */
static struct value __attribute__((noinline)) call(struct run *r, const struct node *n)
{
    struct value self = run_value(r, n->a);
    struct args args;

    evaluate_args(r, n->list, &args);
    r->pool->line = n->line;
    r->pool->column = n->column;
    if (n->type == N_CALL)
        return run_call(r, self, &args);
    self = n->builtin->call(r, self, &args);
    if (n->op == '!')
        self = value_bool(!value_true(self));
    return self;
}

static bool compare(struct run *r, unsigned char op, struct value a, struct value b)
{
    switch (op) {
    case '=':
        return value_equal(r->pool, a, b);
    case 'n':
        return !value_equal(r->pool, a, b);
    case 'i':
        return run_contains(r, a, b);
    case 'o':
        return !run_contains(r, a, b);
    case '<':
        return value_order(r->pool, a, b) < 0;
    case 'l':
        return value_order(r->pool, a, b) <= 0;
    case '>':
        return value_order(r->pool, a, b) > 0;
    default:
        return value_order(r->pool, a, b) >= 0;
    }
}

static struct value compare_chain(struct run *r, const struct node *n)
{
    struct value left = run_value(r, n->a);

    for (const struct node *side = n->list; side; side = side->next) {
        const struct value right = run_value(r, side->a);

        if (left.type == V_STRING)
            run_steps(r, left.str->n / 64);
        if (!compare(r, side->op, left, right))
            return value_bool(false);
        left = right;
    }
    return value_bool(true);
}

static struct value make_items(struct run *r, const struct node *n)
{
    struct value v;

    if (n->type == N_DICT) {
        v = value_dict(r->pool, V_DICT);
        for (const struct node *i = n->list; i; i = i->next) {
            const struct value key = run_value(r, i->a);

            dict_set(r->pool, v.dict, key, run_value(r, i->b));
        }
        return v;
    }
    v = value_list(r->pool, n->type == N_LIST ? V_LIST : V_TUPLE, 0);
    for (const struct node *i = n->list; i; i = i->next)
        list_push(r->pool, v.list, run_value(r, i));
    return v;
}

static struct value slice(struct run *r, const struct node *n)
{
    const struct value v = run_value(r, n->a);
    struct value part[3];

    part[0] = n->b ? run_value(r, n->b) : value_none();
    part[1] = n->c ? run_value(r, n->c) : value_none();
    part[2] = n->d ? run_value(r, n->d) : value_none();
    return run_slice(r, v, part);
}

static struct value negate(struct run *r, const struct node *n)
{
    struct value v = run_value(r, n->a);

    if (!value_is_number(v))
        jinja_fail(r->pool, "TPL10", "a %s has no sign", value_type_name(v));
    if (n->type == N_NEGATE)
        return run_binary(r, '-', value_int(0), v);
    return v.type == V_BOOL ? value_int(v.flag) : v;
}

static struct value binary(struct run *r, const struct node *n)
{
    const struct value a = run_value(r, n->a), b = run_value(r, n->b);

    r->pool->line = n->line;
    r->pool->column = n->column;
    return run_binary(r, n->op, a, b);
}

static struct value evaluate(struct run *r, const struct node *n)
{
    struct value v;

    switch ((enum node_type)n->type) {
    case N_CONST:
        return n->constant;
    case N_NAME:
        return look_up(r, n->name);
    case N_BODY:
        return *r->body;
    case N_LIST:
    case N_TUPLE:
    case N_DICT:
        return make_items(r, n);
    case N_ATTR:
        v = run_value(r, n->a);
        return run_attribute(r, v, n->name, strlen(n->name));
    case N_ITEM:
        v = run_value(r, n->a);
        return run_item(r, v, run_value(r, n->b));
    case N_SLICE:
        return slice(r, n);
    case N_CALL:
    case N_FILTER:
    case N_TEST:
        return call(r, n);
    case N_NEGATE:
    case N_PLUS:
        return negate(r, n);
    case N_BINARY:
    case N_CONCAT:
        return binary(r, n);
    case N_COMPARE:
        return compare_chain(r, n);
    case N_AND:
        v = run_value(r, n->a);
        return value_true(v) ? run_value(r, n->b) : v;
    case N_OR:
        v = run_value(r, n->a);
        return value_true(v) ? v : run_value(r, n->b);
    case N_NOT:
        return value_bool(!value_true(run_value(r, n->a)));
    case N_COND:
        if (value_true(run_value(r, n->a)))
            return run_value(r, n->b);
        return n->c ? run_value(r, n->c) : value_undefined(NULL);
    default:
        jinja_fail(r->pool, "TPL10", "not an expression");
    }
}

struct value run_value(struct run *r, const struct node *n)
{
    struct value v;

    enter(r, n);
    v = evaluate(r, n);
    r->depth--;
    return v;
}
