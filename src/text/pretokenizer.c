/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PCRE2 patterns, anchored, run from the end of one piece to the next.
 *
 * The published patterns come as lists (SmolLM: first every number character
 * alone, then GPT-2's pattern within what is left). Each is one pattern here:
 * \s+(?!\S) in front of a number then also sees its end of text.
 *
 * Letters, numbers and space are those of Unicode 15.1, which the reference
 * has; ranges that the library at hand (14) may lack are listed. \s of PCRE2
 * would also take U+180E. Every character is in one class, so there is no text
 * that nothing matches; no pattern goes back further than to the start of a run.
 */
#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define SPACE                                                                          \
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"
#define LETTER                                                                         \
    "a-zA-Z\\p{L}\\x{1123f}\\x{11240}\\x{11f02}\\x{11f04}-\\x{11f10}"                  \
    "\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}\\x{1b132}\\x{1b155}"         \
    "\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}\\x{1e4d0}-\\x{1e4eb}\\x{2b739}"        \
    "\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"
#define NUMBER                                                                         \
    "0-9\\p{N}\\x{11f50}-\\x{11f59}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}"

#define ENGLISH_ENDS          "'(?:[stmd]|re|ve|ll)"
#define ENGLISH_ENDS_ANY_CASE "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define WORD                  " ?[" LETTER "]++"
#define MARKS                 " ?[^" SPACE LETTER NUMBER "]++"
/* All space but the last, which the next piece takes; or all at the end of the text. */
#define SPACES               "[" SPACE "]+(?![^" SPACE "])|[" SPACE "]"
#define SPACES_BEFORE_NUMBER "[" SPACE "]+(?![^" SPACE NUMBER "])|[" SPACE "]"
#define MODERN(number)                                                                 \
    ENGLISH_ENDS_ANY_CASE "|[^\\r\\n" LETTER NUMBER "]?[" LETTER "]++|" number         \
                          "|" MARKS "[\\r\\n]*+|[" SPACE "]*[\\r\\n]++|" SPACES

static const struct {
    const char *name, *pattern;
} patterns[N_PRETOKENIZERS] = {
    [PRETOKENIZER_GPT2] = {"gpt-2",
                           ENGLISH_ENDS "|" WORD "| ?[" NUMBER "]++|" MARKS "|" SPACES},
    [PRETOKENIZER_SMOLLM] = {"smollm", ENGLISH_ENDS "|" WORD "|[" NUMBER "]|" MARKS
                                                    "|" SPACES_BEFORE_NUMBER},
    [PRETOKENIZER_LLAMA3] = {"llama-bpe", MODERN("[" NUMBER "]{1,3}+")},
    [PRETOKENIZER_QWEN2] = {"qwen2", MODERN("[" NUMBER "]")},
};

static const struct pretokenizer_alias aliases[] = {
    {"gpt-2", PRETOKENIZER_GPT2, false, false},
    {"phi-2", PRETOKENIZER_GPT2, false, false},
    {"jina-es", PRETOKENIZER_GPT2, false, false},
    {"jina-de", PRETOKENIZER_GPT2, false, false},
    {"jina-v2-es", PRETOKENIZER_GPT2, false, false},
    {"jina-v2-de", PRETOKENIZER_GPT2, false, false},
    {"mpt", PRETOKENIZER_GPT2, false, false},
    {"olmo", PRETOKENIZER_GPT2, false, false},
    {"jais", PRETOKENIZER_GPT2, false, false},
    {"trillion", PRETOKENIZER_GPT2, false, false},
    {"exaone4", PRETOKENIZER_GPT2, false, false},
    {"smollm", PRETOKENIZER_SMOLLM, false, false},
    {"starcoder", PRETOKENIZER_SMOLLM, false, false},
    {"refact", PRETOKENIZER_SMOLLM, false, false},
    {"command-r", PRETOKENIZER_SMOLLM, false, false},
    {"codeshell", PRETOKENIZER_SMOLLM, false, false},
    {"exaone", PRETOKENIZER_SMOLLM, false, false},
    {"minerva-7b", PRETOKENIZER_SMOLLM, false, false},
    {"llama-bpe", PRETOKENIZER_LLAMA3, true, true},
    {"llama3", PRETOKENIZER_LLAMA3, true, true},
    {"llama-v3", PRETOKENIZER_LLAMA3, true, true},
    {"falcon3", PRETOKENIZER_LLAMA3, true, true},
    {"falcon-h1", PRETOKENIZER_LLAMA3, true, true},
    {"pixtral", PRETOKENIZER_LLAMA3, true, true},
    {"midm-2.0", PRETOKENIZER_LLAMA3, true, true},
    {"lfm2", PRETOKENIZER_LLAMA3, true, true},
    {"dbrx", PRETOKENIZER_LLAMA3, false, false},
    {"smaug-bpe", PRETOKENIZER_LLAMA3, false, false},
    {"qwen2", PRETOKENIZER_QWEN2, false, false},
    {"deepseek-r1-qwen", PRETOKENIZER_QWEN2, false, false},
    {"megrez", PRETOKENIZER_QWEN2, false, false},
    {"stablelm2", PRETOKENIZER_QWEN2, false, false},
    {"hunyuan", PRETOKENIZER_QWEN2, false, false},
};

struct pretokenizer {
    pcre2_code *code;
};

struct splitter {
    const struct pretokenizer *pretokenizer; /* borrowed */
    pcre2_match_data *match;
    pcre2_match_context *context;
    size_t limited_for; /* bytes the limit was set for */
};

const struct pretokenizer_alias *pretokenizer_alias(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof(aliases) / sizeof(*aliases); i++)
        if (strlen(aliases[i].name) == n && !memcmp(aliases[i].name, name, n))
            return &aliases[i];
    return NULL;
}

const char *pretokenizer_name(enum pretokenizer_kind kind)
{
    return patterns[kind].name;
}

int pretokenizer_open(struct pretokenizer **out, enum pretokenizer_kind kind,
                      struct artel_error *err)
{
    struct pretokenizer *p = calloc(1, sizeof(*p));
    PCRE2_SIZE offset = 0;
    int number = 0;

    *out = NULL;
    if (!p)
        return error_nomem(err, sizeof(*p));
    p->code =
        pcre2_compile((PCRE2_SPTR)patterns[kind].pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &number, &offset, NULL);
    if (!p->code) {
        free(p);
        if (number == PCRE2_ERROR_HEAP_FAILED)
            return error_nomem(err, strlen(patterns[kind].pattern));
        return error_set(err, ARTEL_EBUG, "TOK02", patterns[kind].name,
                         "PCRE2 refuses the pattern at %zu: error %d", (size_t)offset,
                         number);
    }
    /* Where the system forbids writable code, the interpreter gives the same pieces. */
    pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
    *out = p;
    return 0;
}

void pretokenizer_close(struct pretokenizer *p)
{
    if (!p)
        return;
    pcre2_code_free(p->code);
    free(p);
}

int splitter_open(struct splitter **out, const struct pretokenizer *p,
                  struct artel_error *err)
{
    struct splitter *s = calloc(1, sizeof(*s));

    *out = NULL;
    if (!s)
        return error_nomem(err, sizeof(*s));
    s->pretokenizer = p;
    s->match = pcre2_match_data_create(1, NULL);
    s->context = pcre2_match_context_create(NULL);
    if (!s->match || !s->context) {
        splitter_close(s);
        return error_nomem(err, sizeof(*s));
    }
    *out = s;
    return 0;
}

void splitter_close(struct splitter *s)
{
    if (!s)
        return;
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    free(s);
}

int splitter_next(struct splitter *s, size_t *piece, const char *text, size_t n,
                  size_t offset, struct artel_error *err)
{
    int rc;

    if (n > s->limited_for) {
        const size_t limit = n > UINT32_MAX / 16 ? UINT32_MAX : 8 * n + 10000;

        pcre2_set_match_limit(s->context, (uint32_t)limit);
        s->limited_for = n;
    }
    rc = pcre2_match(s->pretokenizer->code, (PCRE2_SPTR)text, n, offset,
                     PCRE2_NO_UTF_CHECK, s->match, s->context);
    if (rc > 0) {
        *piece = pcre2_get_ovector_pointer(s->match)[1] - offset;
        return 0;
    }
    if (rc == PCRE2_ERROR_NOMEMORY || rc == PCRE2_ERROR_HEAPLIMIT)
        return error_nomem(err, n);
    return error_set(err, ARTEL_ELIMIT, "TOK13", NULL,
                     "splitting %zu bytes of text stopped at %zu: PCRE2 error %d", n,
                     offset, rc);
}

/* Length of the valid sequence at S that begins with a byte above 0x7f, or 0. */
static size_t sequence_length(const unsigned char *s, size_t n)
{
    const unsigned char lead = s[0];
    const size_t len = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;

    if (lead < 0xc2 || lead > 0xf4 || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    /* Longer than need be, surrogates, above U+10FFFF. */
    if ((lead == 0xe0 && s[1] < 0xa0) || (lead == 0xed && s[1] > 0x9f) ||
        (lead == 0xf0 && s[1] < 0x90) || (lead == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

size_t utf8_prefix(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0;

    while (i < n) {
        size_t len;

        if (s[i] < 0x80) {
            i++;
            continue;
        }
        len = sequence_length(s + i, n - i);
        if (!len)
            break;
        i += len;
    }
    return i;
}
