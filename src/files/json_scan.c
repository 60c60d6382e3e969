/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grammar of RFC 8259 as a loop over bytes. What is open is kept as one
 * character a level, so depth is bounded and the stack is not used.
 */
#include "files/json_scan.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 512 /* characters */

enum {
    EXPECT_VALUE,
    EXPECT_VALUE_OR_CLOSE,
    EXPECT_KEY,
    EXPECT_KEY_OR_CLOSE,
    EXPECT_COMMA_OR_CLOSE,
    EXPECT_END
};

size_t utf8_sequence(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t len = 0;

    if (!n)
        return 0;
    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        len = 2;
    else if ((s[0] & 0xf0) == 0xe0)
        len = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        len = 4;
    if (len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    /* Overlong forms, surrogates, and what lies beyond U+10FFFF. */
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

void text_position(const char *text, size_t at, size_t *line, size_t *column)
{
    size_t start = 0;

    *line = 1;
    for (size_t i = 0; i < at; i++)
        if (text[i] == '\n') {
            ++*line;
            start = i + 1;
        }
    *column = at - start + 1;
}

void json_scan_init(struct json_scan *s, const char *text, size_t n)
{
    memset(s, 0, sizeof(*s));
    s->text = text;
    s->n = n;
    s->expect = EXPECT_VALUE;
}

static enum json_token bad(struct json_scan *s, size_t at, const char *what)
{
    s->error_at = at;
    s->what = what;
    s->show_culprit = at < s->n;
    s->culprit = at < s->n ? s->text[at] : '\0';
    return JSON_TOKEN_BAD;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The four digits at AT, or -1. */
static long hex4(const struct json_scan *s, size_t at)
{
    long v = 0;

    if (at > s->n || s->n - at < 4)
        return -1;
    for (size_t i = 0; i < 4; i++) {
        const int d = hex_digit(s->text[at + i]);

        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

/* Bytes of the escape at AT (a backslash), or 0 with the error set. */
static size_t scan_escape(struct json_scan *s, size_t at)
{
    const char c = at + 1 < s->n ? s->text[at + 1] : '\0';
    long u, low;

    if (at + 1 >= s->n) {
        bad(s, s->n, "the text ends inside a string");
        return 0;
    }
    if (c && strchr("\"\\/bfnrt", c))
        return 2;
    if (c != 'u') {
        bad(s, at + 1, "no such escape in a string");
        return 0;
    }
    u = hex4(s, at + 2);
    if (u < 0) {
        bad(s, at, "\\u needs four hexadecimal digits");
        return 0;
    }
    if (u < 0xd800 || u > 0xdfff)
        return 6;
    if (u < 0xdc00 && at + 7 < s->n && s->text[at + 6] == '\\' &&
        s->text[at + 7] == 'u') {
        low = hex4(s, at + 8);
        if (low >= 0xdc00 && low <= 0xdfff)
            return 12;
    }
    bad(s, at, "a surrogate escape without its partner");
    return 0;
}

/* AT is behind the opening quote. */
static bool scan_string(struct json_scan *s)
{
    size_t i = s->at;

    s->start = i;
    while (i < s->n && s->text[i] != '"') {
        const unsigned char c = (unsigned char)s->text[i];
        size_t step;

        if (c < 0x20)
            return bad(s, i, "a control character inside a string") != JSON_TOKEN_BAD;
        if (c == '\\') {
            step = scan_escape(s, i);
            if (!step)
                return false;
        } else {
            step = utf8_sequence(s->text + i, s->n - i);
            if (!step)
                return bad(s, i, "not UTF-8") != JSON_TOKEN_BAD;
        }
        i += step;
    }
    if (i >= s->n)
        return bad(s, s->n, "the text ends inside a string") != JSON_TOKEN_BAD;
    s->end = i;
    s->at = i + 1;
    return true;
}

static size_t scan_digits(const struct json_scan *s, size_t i)
{
    while (i < s->n && is_digit(s->text[i]))
        i++;
    return i;
}

static enum json_token scan_number(struct json_scan *s)
{
    size_t i = s->at, from;

    s->start = i;
    s->integer = true;
    i += s->text[i] == '-';
    if (i >= s->n || !is_digit(s->text[i]))
        return bad(s, i, "a digit was expected");
    if (s->text[i] == '0' && i + 1 < s->n && is_digit(s->text[i + 1]))
        return bad(s, i, "a number may not start with 0");
    i = scan_digits(s, i);
    if (i < s->n && s->text[i] == '.') {
        s->integer = false;
        from = i + 1;
        i = scan_digits(s, from);
        if (i == from)
            return bad(s, i, "a digit was expected");
    }
    if (i < s->n && (s->text[i] == 'e' || s->text[i] == 'E')) {
        s->integer = false;
        i++;
        i += i < s->n && (s->text[i] == '+' || s->text[i] == '-');
        from = i;
        i = scan_digits(s, from);
        if (i == from)
            return bad(s, i, "a digit was expected");
    }
    if (i - s->start > NUMBER_MAX)
        return bad(s, s->start, "a number of more than 512 characters");
    s->end = s->at = i;
    return JSON_TOKEN_NUMBER;
}

static enum json_token scan_word(struct json_scan *s, const char *word,
                                 enum json_token token)
{
    const size_t n = strlen(word);

    if (s->n - s->at < n || memcmp(s->text + s->at, word, n) != 0)
        return bad(s, s->at, "a value was expected");
    s->start = s->at;
    s->end = s->at += n;
    return token;
}

static void after_value(struct json_scan *s)
{
    s->expect = s->depth ? EXPECT_COMMA_OR_CLOSE : EXPECT_END;
}

static enum json_token open_level(struct json_scan *s, char c)
{
    if (s->depth == JSON_SCAN_DEPTH)
        return bad(s, s->at, "nested deeper than 64 levels");
    s->open[s->depth++] = c;
    s->start = s->at++;
    s->end = s->at;
    s->expect = c == '{' ? EXPECT_KEY_OR_CLOSE : EXPECT_VALUE_OR_CLOSE;
    return c == '{' ? JSON_TOKEN_OBJECT : JSON_TOKEN_ARRAY;
}

static enum json_token close_level(struct json_scan *s)
{
    const char opened = s->open[--s->depth];

    s->start = s->at++;
    s->end = s->at;
    after_value(s);
    return opened == '{' ? JSON_TOKEN_OBJECT_END : JSON_TOKEN_ARRAY_END;
}

static void skip_space(struct json_scan *s)
{
    while (s->at < s->n && s->text[s->at] && strchr(" \t\n\r", s->text[s->at]))
        s->at++;
}

static enum json_token scan_value(struct json_scan *s)
{
    const char c = s->text[s->at];
    enum json_token token;

    if (c == '{' || c == '[')
        return open_level(s, c);
    if (c == '"') {
        s->at++;
        token = scan_string(s) ? JSON_TOKEN_STRING : JSON_TOKEN_BAD;
    } else if (c == '-' || is_digit(c)) {
        token = scan_number(s);
    } else if (c == 't') {
        token = scan_word(s, "true", JSON_TOKEN_TRUE);
    } else if (c == 'f') {
        token = scan_word(s, "false", JSON_TOKEN_FALSE);
    } else if (c == 'n') {
        token = scan_word(s, "null", JSON_TOKEN_NULL);
    } else {
        return bad(s, s->at, "a value was expected");
    }
    after_value(s);
    return token;
}

static enum json_token scan_key(struct json_scan *s)
{
    if (s->text[s->at] != '"')
        return bad(s, s->at, "a key in quotes was expected");
    s->at++;
    if (!scan_string(s))
        return JSON_TOKEN_BAD;
    skip_space(s);
    if (s->at >= s->n)
        return bad(s, s->n, "the text ends where ':' was expected");
    if (s->text[s->at] != ':')
        return bad(s, s->at, "':' was expected");
    s->at++;
    s->expect = EXPECT_VALUE;
    return JSON_TOKEN_KEY;
}

enum json_token json_scan_next(struct json_scan *s)
{
    char c;

    skip_space(s);
    if (s->expect == EXPECT_END)
        return s->at == s->n ? JSON_TOKEN_END
                             : bad(s, s->at, "unexpected text after the value");
    if (s->at >= s->n)
        return bad(s, s->n,
                   s->depth ? "the text ends before it is complete"
                            : "the text is empty, a value was expected");
    c = s->text[s->at];
    if (s->depth && c == (s->open[s->depth - 1] == '{' ? '}' : ']') &&
        s->expect != EXPECT_VALUE && s->expect != EXPECT_KEY)
        return close_level(s);
    if (s->expect == EXPECT_COMMA_OR_CLOSE) {
        const bool object = s->open[s->depth - 1] == '{';

        if (c != ',')
            return bad(s, s->at,
                       object ? "',' or '}' was expected" : "',' or ']' was expected");
        s->at++;
        skip_space(s);
        s->expect = object ? EXPECT_KEY : EXPECT_VALUE;
        if (s->at >= s->n)
            return bad(s, s->n, "the text ends before it is complete");
    }
    if (s->expect == EXPECT_KEY || s->expect == EXPECT_KEY_OR_CLOSE)
        return scan_key(s);
    return scan_value(s);
}

bool json_scan_skip(struct json_scan *s, enum json_token first)
{
    const size_t depth = s->depth;
    enum json_token t = first;

    if (first != JSON_TOKEN_OBJECT && first != JSON_TOKEN_ARRAY)
        return first != JSON_TOKEN_BAD;
    while (t != JSON_TOKEN_BAD && s->depth >= depth)
        t = json_scan_next(s);
    return t != JSON_TOKEN_BAD;
}

static size_t put_utf8(char *out, unsigned long c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

size_t json_scan_string(const struct json_scan *s, char *out)
{
    static const char names[] = "bfnrt", values[] = "\b\f\n\r\t";
    size_t used = 0;

    for (size_t i = s->start; i < s->end;) {
        const char c = s->text[i + (s->text[i] == '\\')];
        const char *name;
        long u, low;

        if (s->text[i] != '\\') {
            out[used++] = c;
            i++;
        } else if (c != 'u') {
            name = strchr(names, c);
            out[used++] = name ? values[name - names] : c;
            i += 2;
        } else {
            u = hex4(s, i + 2);
            i += 6;
            if (u >= 0xd800 && u <= 0xdfff) { /* its partner was checked */
                low = hex4(s, i + 2);
                u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
                i += 6;
            }
            used += put_utf8(out + used, (unsigned long)u);
        }
    }
    return used;
}

double json_scan_number(const struct json_scan *s)
{
    char copy[NUMBER_MAX + 1];
    const size_t n = s->end - s->start;
    char *point;

    memcpy(copy, s->text + s->start, n);
    copy[n] = '\0';
    point = strchr(copy, '.');
    if (point) /* strtod reads the point of the host program's locale */
        *point = localeconv()->decimal_point[0];
    return strtod(copy, NULL);
}
