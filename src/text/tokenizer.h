/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-level BPE: text to token ids and back, exact against llama.cpp's
 * pre-tokenizers. From GGUF metadata or tokenizer.json.
 *
 * Invalid UTF-8 is encoded byte by byte, so decoding gives back any input.
 * Control tokens are recognised only where the caller says the text is the
 * template's own (TOKENIZE_SPECIAL).
 */
#ifndef ARTEL_TEXT_TOKENIZER_H
#define ARTEL_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "files/digest.h"

struct artel_error;
struct gguf;
struct weights;
struct tokenizer;

int tokenizer_open(struct tokenizer **out, const struct weights *w,
                   struct artel_error *err); /* from either source */
int tokenizer_from_gguf(struct tokenizer **out, const struct gguf *g,
                        struct artel_error *err);
int tokenizer_from_folder(struct tokenizer **out, const char *folder,
                          struct artel_error *err);
void tokenizer_close(struct tokenizer *t);

/* A growing list of ids. Zeroed is empty. */
struct ids {
    int32_t *at;
    size_t n, room;
};
int ids_push(struct ids *ids, int32_t id, struct artel_error *err);
void ids_release(struct ids *ids);

/* Append the ids of TEXT (N bytes, NUL allowed). SPECIAL: control tokens in it count. */
int tokenizer_encode(const struct tokenizer *t, struct ids *ids, const char *text,
                     size_t n, bool special, struct artel_error *err);

/*
 * Text made of parts, where only the template's own parts may hold control
 * tokens: parts of equal kind between control tokens are joined before BPE.
 * TEMPLATE_MASK (N bytes) is 1 for bytes the template wrote, 0 for content. A
 * control token is recognised only where all of its bytes are the template's.
 */
int tokenizer_encode_masked(const struct tokenizer *t, struct ids *ids,
                            const char *text, const unsigned char *template_mask,
                            size_t n, struct artel_error *err);

/* Bytes of one token (borrowed, may be partial UTF-8); *N its length. Control
 * tokens give their text. ID must be below tokenizer_size(). */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *n);
bool tokenizer_is_control(const struct tokenizer *t, int32_t id);
/* Ends a generation: eos, eot, and control tokens spelled like one (formats 12). */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id);
size_t tokenizer_size(const struct tokenizer *t); /* ids are below this */
int32_t tokenizer_bos(const struct tokenizer *t); /* -1: none */
int32_t tokenizer_eos(const struct tokenizer *t);
bool tokenizer_adds_bos(const struct tokenizer *t); /* for plain text and --raw */
int32_t tokenizer_find(const struct tokenizer *t,
                       const char *piece); /* control or plain; -1 */
/* SHA-256 over kind, pieces, types and merges: same vocabulary, same digest. */
void tokenizer_digest(const struct tokenizer *t, char out[DIGEST_SIZE]);

#endif
