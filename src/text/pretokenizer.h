/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts text into the pieces that BPE works on. Four patterns are known; a file
 * names one of them or spells it out.
 */
#ifndef ARTEL_TEXT_PRETOKENIZER_H
#define ARTEL_TEXT_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>

struct artel_error;
struct pretokenizer;
struct splitter;

enum pretokenizer_kind {
    PRETOKENIZER_GPT2,
    PRETOKENIZER_SMOLLM,
    PRETOKENIZER_LLAMA3,
    PRETOKENIZER_QWEN2,
    N_PRETOKENIZERS
};

/* What a name in GGUF metadata stands for. */
struct pretokenizer_alias {
    const char *name;
    enum pretokenizer_kind kind;
    bool ignore_merges; /* a piece that is a token as a whole is that token */
    bool adds_bos;
};

/* NULL when the name is unknown. */
const struct pretokenizer_alias *pretokenizer_alias(const char *name, size_t n);
const char *pretokenizer_name(enum pretokenizer_kind kind); /* "smollm" */

int pretokenizer_open(struct pretokenizer **out, enum pretokenizer_kind kind,
                      struct artel_error *err);
void pretokenizer_close(struct pretokenizer *p);

/* The state of one call; a pretokenizer may have any number at once. */
int splitter_open(struct splitter **out, const struct pretokenizer *p,
                  struct artel_error *err);
void splitter_close(struct splitter *s);

/* Length of the piece of TEXT (N bytes of valid UTF-8) that begins at OFFSET, into
 * *PIECE. Matching is bounded by a limit in proportion to N (TOK13). */
int splitter_next(struct splitter *s, size_t *piece, const char *text, size_t n,
                  size_t offset, struct artel_error *err);

/* Length of the valid UTF-8 that TEXT begins with. */
size_t utf8_prefix(const char *text, size_t n);

#endif
