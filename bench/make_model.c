/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make_model SHAPE FORMAT FILE [LAYERS]: a GGUF of random weights, for benches of sizes
 * that nobody wants to download.
 *
 *     make_model 1b Q8_0 1b.gguf         Llama 3.2 1B's shape
 *     make_model 7b Q4_0 7b.gguf 4       4 layers of Llama 2 7B's
 *
 * The vocabulary spells bytes, so any text can be put in. Written from front to end;
 * no more than some MiB are in memory.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "artel.h"
#include "cli/bench_random.h"
#include "files/gguf.h"
#include "model/weights.h"

#define ALIGN     32
#define N_SPECIAL 3
#define JOINED    (N_SPECIAL + 256) /* the one token that a merge makes */

/* Type numbers of values, as in the file. */
enum { AS_U32 = 4, AS_I32 = 5, AS_F32 = 6, AS_BOOL = 7, AS_TEXT = 8, AS_LIST = 9 };

static const char *const special[N_SPECIAL] = {"<|endoftext|>", "<|im_start|>",
                                               "<|im_end|>"};
static const char chat[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

struct entry {
    char name[64];
    enum dtype type;
    size_t rows, n; /* rows 0: a vector of ones */
    uint64_t offset;
};

struct writer {
    FILE *f;
    struct model_config config;
    enum dtype format;
    struct entry *entries;
    size_t n_entries, n_keys;
    uint64_t bytes; /* of all tensors */
};

static void leave(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void leave(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    fprintf(stderr, "make_model: ");
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(2);
}

static void put(struct writer *w, const void *data, size_t n)
{
    if (fwrite(data, 1, n, w->f) != n)
        leave("cannot write");
}

static void put_u32(struct writer *w, uint32_t v)
{
    put(w, &v, sizeof(v));
}

static void put_u64(struct writer *w, uint64_t v)
{
    put(w, &v, sizeof(v));
}

static void put_text(struct writer *w, const char *text)
{
    put_u64(w, strlen(text));
    put(w, text, strlen(text));
}

static void key(struct writer *w, const char *name, uint32_t type)
{
    put_text(w, name);
    put_u32(w, type);
    w->n_keys++;
}

static void key_text(struct writer *w, const char *name, const char *text)
{
    key(w, name, AS_TEXT);
    put_text(w, text);
}

static void key_u32(struct writer *w, const char *name, size_t v)
{
    key(w, name, AS_U32);
    put_u32(w, (uint32_t)v);
}

static void key_f32(struct writer *w, const char *name, float v)
{
    key(w, name, AS_F32);
    put(w, &v, sizeof(v));
}

/* Bytes that are printable stand for themselves, the others for U+0100 and up. */
static int is_plain(unsigned b)
{
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

/* The spelling of token ID: a control token, a byte, a joined pair, or a word that no merge makes. */
static const char *token_text(char out[32], size_t id)
{
    const unsigned byte = (unsigned)(id - N_SPECIAL);
    unsigned code = byte;

    if (id < N_SPECIAL)
        return special[id];
    if (id == JOINED)
        return "ab";
    if (id > JOINED) {
        snprintf(out, 32, "unused%zu", id);
        return out;
    }
    if (!is_plain(byte)) {
        code = 0x100;
        for (unsigned b = 0; b < byte; b++)
            code += !is_plain(b);
    }
    if (code < 0x80)
        snprintf(out, 32, "%c", (int)code);
    else
        snprintf(out, 32, "%c%c", (int)(0xc0 | code >> 6), (int)(0x80 | (code & 0x3f)));
    return out;
}

static void put_tokenizer(struct writer *w)
{
    const size_t n = w->config.n_vocab;
    char text[32];

    key_text(w, "tokenizer.ggml.model", "gpt2");
    key_text(w, "tokenizer.ggml.pre", "smollm");
    key(w, "tokenizer.ggml.tokens", AS_LIST);
    put_u32(w, AS_TEXT);
    put_u64(w, n);
    for (size_t i = 0; i < n; i++)
        put_text(w, token_text(text, i));
    key(w, "tokenizer.ggml.token_type", AS_LIST);
    put_u32(w, AS_I32);
    put_u64(w, n);
    for (size_t i = 0; i < n; i++)
        put_u32(w, i < N_SPECIAL ? 3 : 1);
    key(w, "tokenizer.ggml.merges", AS_LIST);
    put_u32(w, AS_TEXT);
    put_u64(w, 1);
    put_text(w, "a b");
    key_u32(w, "tokenizer.ggml.bos_token_id", 1);
    key_u32(w, "tokenizer.ggml.eos_token_id", 2);
    key(w, "tokenizer.ggml.add_bos_token", AS_BOOL);
    put(w, "", 1);
    key_text(w, "tokenizer.chat_template", chat);
}

static void put_keys(struct writer *w)
{
    const struct model_config *const c = &w->config;

    key_text(w, "general.architecture", "llama");
    key_text(w, "general.name", "random weights");
    key_u32(w, "general.alignment", ALIGN);
    key_u32(w, "llama.block_count", c->n_layers);
    key_u32(w, "llama.context_length", c->context);
    key_u32(w, "llama.embedding_length", c->dim);
    key_u32(w, "llama.feed_forward_length", c->ffn_dim);
    key_u32(w, "llama.attention.head_count", c->n_heads);
    key_u32(w, "llama.attention.head_count_kv", c->n_kv_heads);
    key_f32(w, "llama.attention.layer_norm_rms_epsilon", c->norm_eps);
    key_f32(w, "llama.rope.freq_base", c->rope_theta);
    key_u32(w, "llama.rope.dimension_count", c->head_dim);
    key_u32(w, "llama.vocab_size", c->n_vocab);
    put_tokenizer(w);
}

static size_t entry_blocks(const struct entry *e)
{
    return (e->rows ? e->rows : 1) * e->n / dtype_block_elems(e->type);
}

static void add(struct writer *w, const char *name, size_t rows, size_t n)
{
    struct entry *const e = &w->entries[w->n_entries++];

    *e = (struct entry){.type = rows ? random_row_format(w->format, n) : DTYPE_F32,
                        .rows = rows,
                        .n = n,
                        .offset = w->bytes};
    snprintf(e->name, sizeof(e->name), "%s.weight", name);
    w->bytes +=
        (entry_blocks(e) * dtype_block_bytes(e->type) + ALIGN - 1) / ALIGN * ALIGN;
}

static void list_tensors(struct writer *w)
{
    static const char *const names[N_SITES] = {
        [SITE_Q] = "attn_q",      [SITE_K] = "attn_k",      [SITE_V] = "attn_v",
        [SITE_O] = "attn_output", [SITE_GATE] = "ffn_gate", [SITE_UP] = "ffn_up",
        [SITE_DOWN] = "ffn_down"};
    const struct model_config *const c = &w->config;
    char name[48];

    w->entries = calloc(c->n_layers * (N_SITES + 2) + 3, sizeof(*w->entries));
    if (!w->entries)
        leave("no memory");
    add(w, "token_embd", c->n_vocab, c->dim);
    add(w, "output_norm", 0, c->dim);
    if (!c->tied)
        add(w, "output", c->n_vocab, c->dim);
    for (size_t l = 0; l < c->n_layers; l++) {
        snprintf(name, sizeof(name), "blk.%zu.attn_norm", l);
        add(w, name, 0, c->dim);
        snprintf(name, sizeof(name), "blk.%zu.ffn_norm", l);
        add(w, name, 0, c->dim);
        for (int s = 0; s < N_SITES; s++) {
            size_t n_out, n_in;

            site_shape(c, (enum site)s, &n_out, &n_in);
            snprintf(name, sizeof(name), "blk.%zu.%s", l, names[s]);
            add(w, name, n_out, n_in);
        }
    }
}

static void put_table(struct writer *w)
{
    for (size_t i = 0; i < w->n_entries; i++) {
        const struct entry *const e = &w->entries[i];

        put_text(w, e->name);
        put_u32(w, e->rows ? 2 : 1);
        put_u64(w, e->n);
        if (e->rows)
            put_u64(w, e->rows);
        put_u32(w, (uint32_t)gguf_type_number(e->type));
        put_u64(w, e->offset);
    }
}

static void pad(struct writer *w)
{
    static const char zero[ALIGN];
    const long at = ftell(w->f);

    if (at < 0)
        leave("cannot tell where the file ends");
    put(w, zero, (ALIGN - (size_t)at % ALIGN) % ALIGN);
}

static void put_tensor(struct writer *w, const struct entry *e, uint64_t stream,
                       void *piece)
{
    const size_t n = entry_blocks(e), bytes = dtype_block_bytes(e->type);
    const size_t most = 16 * (size_t)RANDOM_CHUNK;

    for (size_t i = 0; e->rows && i < n; i += most) {
        const size_t now = n - i < most ? n - i : most;

        random_blocks(piece, e->type, now, stream, i);
        put(w, piece, now * bytes);
    }
    for (size_t i = 0; !e->rows && i < n; i++) {
        const float one = 1.0f;

        put(w, &one, sizeof(one));
    }
    pad(w);
}

int main(int argc, char **argv)
{
    struct writer w = {0};
    void *piece;
    long count_at;

    if (argc < 4 || argc > 5)
        leave("usage: make_model 135m|1b|7b " RANDOM_FORMATS " FILE [LAYERS]");
    w.format = random_format(argv[2]);
    if (random_shape(&w.config, argv[1]) < 0)
        leave("there is no shape %s", argv[1]);
    if (w.format == N_DTYPES)
        leave("there is no format %s", argv[2]);
    if (argc == 5)
        w.config.n_layers = strtoul(argv[4], NULL, 10);
    if (w.config.n_layers < 1 || w.config.n_layers > 1000)
        leave("1 to 1000 layers");
    w.f = fopen(argv[3], "wb");
    piece = malloc(16 * (size_t)RANDOM_CHUNK * 144);
    if (!w.f || !piece)
        leave("cannot open %s", argv[3]);
    list_tensors(&w);
    put(&w, "GGUF", 4);
    put_u32(&w, 3);
    put_u64(&w, w.n_entries);
    count_at = ftell(w.f);
    put_u64(&w, 0);
    put_keys(&w);
    put_table(&w);
    pad(&w);
    for (size_t i = 0; i < w.n_entries; i++)
        put_tensor(&w, &w.entries[i], i, piece);
    if (fseek(w.f, count_at, SEEK_SET) < 0)
        leave("cannot go back");
    put_u64(&w, w.n_keys);
    if (fclose(w.f) != 0)
        leave("cannot write %s", argv[3]);
    free(piece);
    free(w.entries);
    return 0;
}
