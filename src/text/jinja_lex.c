/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Template source to tokens, with trim_blocks and lstrip_blocks on.
 *
 *   - before a tag        white space before it goes
 *   - after a tag's text  white space after it goes
 *   otherwise             one newline after %} and #} goes, and blanks between the
 *                         start of a line and {% or {# go
 *   +                     keeps what would go
 *
 * A tag's end counts only outside of brackets, so that {{ {'a': {}} }} ends late.
 */
#include <stdlib.h>
#include <string.h>

#include "text/jinja_tree.h"

#define MAX_BRACKETS 128

struct lexer {
    struct pool *pool;
    char *s; /* (n) newlines are \n */
    size_t n, i;
    size_t counted; /* line and column are those of this place */
    uint32_t line, column;
    bool line_starts; /* the last tag took a newline with it */
    struct token *tokens;
    size_t n_tokens, room;
};

/* Move the position that messages name to byte AT, which never goes back. */
static void locate(struct lexer *x, size_t at)
{
    for (; x->counted < at; x->counted++) {
        x->column++;
        if (x->s[x->counted] == '\n') {
            x->line++;
            x->column = 1;
        }
    }
    x->pool->line = x->line;
    x->pool->column = x->column;
}

static struct token *push(struct lexer *x, enum token_type type, size_t at, size_t n)
{
    struct token *t;

    if (x->n_tokens == x->room) {
        const size_t room = 2 * x->room + 64;
        struct token *more = pool_take(x->pool, room * sizeof(*more));

        if (x->n_tokens)
            memcpy(more, x->tokens, x->n_tokens * sizeof(*more));
        x->tokens = more;
        x->room = room;
    }
    locate(x, at);
    t = &x->tokens[x->n_tokens++];
    *t = (struct token){
        .type = type, .line = x->line, .column = x->column, .at = x->s + at, .n = n};
    return t;
}

static bool starts(const struct lexer *x, size_t at, const char *text)
{
    const size_t n = strlen(text);

    return at <= x->n && n <= x->n - at && !memcmp(x->s + at, text, n);
}

static size_t skip_spaces(const struct lexer *x, size_t at)
{
    int32_t c;

    while (at < x->n) {
        const size_t len = char_bytes(x->s + at, x->n - at, &c);

        if (!char_is_space(c))
            break;
        at += len;
    }
    return at;
}

/* The end of S[first..end) without white space behind it. */
static size_t strip_end(const struct lexer *x, size_t first, size_t end)
{
    size_t kept = first;
    int32_t c;

    for (size_t i = first; i < end;) {
        i += char_bytes(x->s + i, end - i, &c);
        if (!char_is_space(c))
            kept = i;
    }
    return kept;
}

/* Take the end of a tag, TAG long, standing at I; SIGN is what precedes it. */
static void tag_ends(struct lexer *x, char sign, bool trims)
{
    if (sign == '-')
        x->i = skip_spaces(x, x->i);
    else if (sign != '+' && trims && x->i < x->n && x->s[x->i] == '\n')
        x->i++;
    x->line_starts = x->s[x->i - 1] == '\n';
}

/* Text from FIRST to the tag at END, stripped as the tag's sign asks. */
static void push_text(struct lexer *x, size_t first, size_t end, char sign,
                      bool is_print)
{
    size_t kept = end;

    if (sign == '-') {
        kept = strip_end(x, first, end);
    } else if (sign != '+' && !is_print) {
        size_t line = end;

        while (line > first && x->s[line - 1] != '\n')
            line--;
        if ((line > first || x->line_starts) && skip_spaces(x, line) >= end)
            kept = line;
    }
    if (kept > first)
        push(x, T_TEXT, first, kept - first);
}

/* Is a block tag that holds only WORD here? *AFTER is behind its %}. */
static bool bare_block(const struct lexer *x, size_t at, const char *word, char *sign,
                       size_t *after)
{
    size_t i = at + 2;

    if (i < x->n && (x->s[i] == '-' || x->s[i] == '+'))
        i++;
    i = skip_spaces(x, i);
    if (!starts(x, i, word))
        return false;
    i = skip_spaces(x, i + strlen(word));
    *sign = i < x->n && (x->s[i] == '-' || x->s[i] == '+') ? x->s[i] : '\0';
    i += *sign != '\0';
    *after = i + 2;
    return starts(x, i, "%}");
}

static char sign_at(const struct lexer *x, size_t i)
{
    return i < x->n && (x->s[i] == '-' || x->s[i] == '+') ? x->s[i] : '\0';
}

/* Everything up to endraw is text. I stands behind the raw tag's %}. */
static void lex_raw(struct lexer *x, char sign)
{
    const size_t opened = x->i - 2;
    size_t first, at, after;
    char end_sign;

    tag_ends(x, sign, false);
    first = x->i;
    for (at = first; at < x->n; at++)
        if (starts(x, at, "{%") && bare_block(x, at, "endraw", &end_sign, &after))
            break;
    if (at >= x->n) {
        locate(x, opened);
        jinja_fail(x->pool, "TPL01", "a raw block is never closed");
    }
    push_text(x, first, at, sign_at(x, at + 2), false);
    x->i = after;
    tag_ends(x, end_sign, true);
}

static void lex_comment(struct lexer *x)
{
    const size_t opened = x->i;

    for (x->i += 2; x->i < x->n && !starts(x, x->i, "#}"); x->i++)
        ;
    if (x->i >= x->n) {
        locate(x, opened);
        jinja_fail(x->pool, "TPL01", "a comment is never closed");
    }
    x->i += 2;
    tag_ends(x, x->i >= opened + 5 ? x->s[x->i - 3] : '\0', true);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           c == '_' || (unsigned char)c >= 0x80;
}

static void put_char(char *out, size_t *n, uint32_t c)
{
    if (c < 0x80) {
        out[(*n)++] = (char)c;
    } else if (c < 0x800) {
        out[(*n)++] = (char)(0xc0 | c >> 6);
        out[(*n)++] = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        out[(*n)++] = (char)(0xe0 | c >> 12);
        out[(*n)++] = (char)(0x80 | (c >> 6 & 0x3f));
        out[(*n)++] = (char)(0x80 | (c & 0x3f));
    } else {
        out[(*n)++] = (char)(0xf0 | c >> 18);
        out[(*n)++] = (char)(0x80 | (c >> 12 & 0x3f));
        out[(*n)++] = (char)(0x80 | (c >> 6 & 0x3f));
        out[(*n)++] = (char)(0x80 | (c & 0x3f));
    }
}

/* The number of WIDTH hex digits at AT, or -1. */
static int64_t hex(const struct lexer *x, size_t at, size_t width)
{
    int64_t c = 0;

    for (size_t k = 0; k < width; k++) {
        const char *digits = "0123456789abcdef", *d;

        d = at + k < x->n && x->s[at + k] ? strchr(digits, x->s[at + k] | 0x20) : NULL;
        if (!d)
            return -1;
        c = c * 16 + (d - digits);
    }
    return c;
}

/* The escape whose letter is at I; moves I behind it. */
static void lex_escape(struct lexer *x, char *out, size_t *n)
{
    static const char simple[] = "n\nt\tr\r\\\\''\"\"a\ab\bf\fv\v";
    const char c = x->s[x->i];

    for (size_t k = 0; k < sizeof(simple) - 1; k += 2) {
        if (c == simple[k]) {
            out[(*n)++] = simple[k + 1];
            x->i++;
            return;
        }
    }
    if (c == '\n') {
        x->i++;
    } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t width = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        const int64_t code = hex(x, x->i + 1, width);

        if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
            locate(x, x->i);
            jinja_fail(x->pool, "TPL01", "an escape \\%c without a character", c);
        }
        put_char(out, n, (uint32_t)code);
        x->i += 1 + width;
    } else if (c >= '0' && c <= '7') {
        uint32_t code = 0;

        for (int k = 0; k < 3 && x->i < x->n && x->s[x->i] >= '0' && x->s[x->i] <= '7';
             k++)
            code = code * 8 + (uint32_t)(x->s[x->i++] - '0');
        put_char(out, n, code);
    } else {
        out[(*n)++] = '\\';
    }
}

static void lex_string(struct lexer *x)
{
    const size_t first = x->i;
    const char quote = x->s[x->i++];
    struct token *t = push(x, T_STRING, first, 0);
    const size_t k = (size_t)(t - x->tokens);
    size_t end = x->i, n = 0;
    char *out;

    while (end < x->n && x->s[end] != quote)
        end += x->s[end] == '\\' ? 2 : 1;
    if (end >= x->n)
        jinja_fail(x->pool, "TPL01", "a string is never closed");
    out = pool_take(x->pool, end - x->i + 1);
    while (x->i < end) {
        if (x->s[x->i] != '\\') {
            out[n++] = x->s[x->i++];
            continue;
        }
        x->i++;
        lex_escape(x, out, &n);
    }
    x->i = end + 1;
    x->tokens[k].at = out;
    x->tokens[k].n = n;
}

static size_t digits_end(const struct lexer *x, size_t at)
{
    while (at < x->n && (is_digit(x->s[at]) ||
                         (x->s[at] == '_' && at + 1 < x->n && is_digit(x->s[at + 1]))))
        at++;
    return at;
}

static void lex_number(struct lexer *x)
{
    const size_t first = x->i;
    size_t end = digits_end(x, first), n = 0;
    bool whole = true;
    char text[64];
    struct token *t;

    if (end + 1 < x->n && x->s[end] == '.' && is_digit(x->s[end + 1])) {
        end = digits_end(x, end + 1);
        whole = false;
    }
    if (end < x->n && (x->s[end] | 0x20) == 'e') {
        size_t e = end + 1;

        e += e < x->n && (x->s[e] == '+' || x->s[e] == '-');
        if (e < x->n && is_digit(x->s[e])) {
            end = digits_end(x, e);
            whole = false;
        }
    }
    t = push(x, whole ? T_INT : T_FLOAT, first, end - first);
    for (size_t i = first; i < end; i++) {
        if (n + 1 == sizeof(text) || (whole && n == 18))
            jinja_fail(x->pool, "TPL01", "a number is too long");
        if (x->s[i] != '_')
            text[n++] = x->s[i];
    }
    text[n] = '\0';
    t->num = whole ? strtoll(text, NULL, 10) : 0;
    t->real = strtod(text, NULL);
    x->i = end;
}

/* One token inside a tag; brackets nest in OPEN. */
static void lex_inside(struct lexer *x, char *open, size_t *n_open)
{
    static const char *const twos[] = {"//", "**", "==", "!=", ">=", "<="};
    const char c = x->s[x->i];
    size_t n = 1;

    if (is_digit(c)) {
        lex_number(x);
        return;
    }
    if (c == '\'' || c == '"') {
        lex_string(x);
        return;
    }
    if (is_name(c)) {
        while (x->i + n < x->n && is_name(x->s[x->i + n]))
            n++;
        push(x, T_NAME, x->i, n);
        x->i += n;
        return;
    }
    for (size_t k = 0; k < sizeof(twos) / sizeof(*twos); k++)
        if (starts(x, x->i, twos[k]))
            n = 2;
    push(x, T_OP, x->i, n);
    if (n == 1 && (!c || !strchr("+-*/%~()[]{}<>=.,:|;", c)))
        jinja_fail(x->pool, "TPL01", "unexpected character 0x%02X", (unsigned char)c);
    if (c == '(' || c == '[' || c == '{') {
        if (*n_open == MAX_BRACKETS)
            jinja_fail(x->pool, "TPL04", "more than %d open brackets", MAX_BRACKETS);
        open[(*n_open)++] = c;
    } else if (c == ')' || c == ']' || c == '}') {
        const char want = c == ')' ? '(' : c == ']' ? '[' : '{';

        if (!*n_open || open[--*n_open] != want)
            jinja_fail(x->pool, "TPL01", "unexpected '%c'", c);
    }
    x->i += n;
}

static void lex_tag(struct lexer *x, bool is_print)
{
    const char *close = is_print ? "}}" : "%}";
    const size_t opened = x->i;
    char open[MAX_BRACKETS];
    size_t n_open = 0;

    push(x, is_print ? T_PRINT : T_BLOCK, x->i, 2);
    x->i += 2;
    x->i += sign_at(x, x->i) != '\0';
    for (;;) {
        char sign;

        x->i = skip_spaces(x, x->i);
        if (x->i >= x->n) {
            x->line = 1, x->column = 1, x->counted = 0; /* back to where it began */
            locate(x, opened);
            jinja_fail(x->pool, "TPL01", "a tag is never closed: no %s", close);
        }
        sign = sign_at(x, x->i);
        if (!n_open && starts(x, x->i + (sign != '\0'), close) &&
            !(is_print && sign == '+')) {
            push(x, is_print ? T_PRINT_END : T_BLOCK_END, x->i, 2);
            x->i += 2 + (sign != '\0');
            tag_ends(x, sign, !is_print);
            return;
        }
        lex_inside(x, open, &n_open);
    }
}

/* The first {{, {% or {# from AT on. */
static size_t next_tag(const struct lexer *x, size_t at)
{
    for (; at + 1 < x->n; at++)
        if (x->s[at] == '{' &&
            (x->s[at + 1] == '{' || x->s[at + 1] == '%' || x->s[at + 1] == '#'))
            return at;
    return x->n;
}

/* Newlines of every kind become \n, and one at the very end goes. */
static void normalise(struct lexer *x, const char *source, size_t n)
{
    x->s = pool_take(x->pool, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r') {
            x->s[x->n++] = '\n';
            i += i + 1 < n && source[i + 1] == '\n';
        } else {
            x->s[x->n++] = source[i];
        }
    }
    if (x->n && x->s[x->n - 1] == '\n')
        x->n--;
}

struct token *jinja_tokens(struct pool *p, const char *source, size_t n)
{
    struct lexer x = {.pool = p, .line = 1, .column = 1, .line_starts = true};

    normalise(&x, source, n);
    while (x.i < x.n) {
        const size_t first = x.i, at = next_tag(&x, first);
        size_t after;
        char sign;

        if (at == x.n) {
            push(&x, T_TEXT, first, at - first);
            break;
        }
        push_text(&x, first, at, sign_at(&x, at + 2), x.s[at + 1] == '{');
        x.i = at;
        if (x.s[at + 1] == '#') {
            lex_comment(&x);
        } else if (x.s[at + 1] == '%' && bare_block(&x, at, "raw", &sign, &after)) {
            x.i = after;
            lex_raw(&x, sign);
        } else {
            lex_tag(&x, x.s[at + 1] == '{');
        }
    }
    push(&x, T_END, x.n, 0);
    return x.tokens;
}
