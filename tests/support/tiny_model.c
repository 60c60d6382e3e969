/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each tensor's values come from a generator seeded with its Hugging Face name,
 * so they do not depend on the order of writing nor on the container.
 */
#include "support/tiny_model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TEMPLATE                                                                       \
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "       \
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"                          \
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

#define N_SPECIAL 3
#define N_MERGES  (TINY_VOCAB - N_SPECIAL - 256)

static const char *const special[N_SPECIAL] = {"<|endoftext|>", "<|im_start|>",
                                               "<|im_end|>"};

/* A space is written G with dot above, as byte-level BPE does. */
static const char *const merges[N_MERGES] = {
    "\u0120 t",   "\u0120 a",  "h e",      "i n",      "r e",        "o n",
    "\u0120t he", "e r",       "\u0120 s", "a t",      "\u0120 w",   "\u0120 o",
    "e n",        "\u0120 c",  "i t",      "i s",      "a n",        "o r",
    "e s",        "\u0120 b",  "e d",      "\u0120 f", "in g",       "\u0120 p",
    "o u",        "\u0120a n", "a l",      "a r",      "\u0120t o",  "\u0120 m",
    "\u0120o f",  "\u0120 in", "\u0120 d", "\u0120 h", "\u0120an d", "i c",
    "l e",        "a s",       "l l",      "o m",      "r o"};

struct piece {
    char hf[96], gguf[64];
    size_t n_dims, shape[2]; /* outermost first */
    size_t permute_heads; /* rows of so many heads change order in the GGUF; 0: none */
    bool norm;
    float *values; /* Hugging Face order, owned */
};

struct pieces {
    struct piece items[TINY_MAX_TENSORS];
    size_t n;
};

void tiny_model_default(struct tiny_model *m)
{
    *m = (struct tiny_model){.n_layers = 2,
                             .dim = 16,
                             .n_heads = 4,
                             .n_kv_heads = 2,
                             .head_dim = 4,
                             .ffn_dim = 32,
                             .tied = true,
                             .type = TINY_T_F32,
                             .seed = 1};
}

static uint64_t mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void fill(struct piece *p, uint64_t seed)
{
    const size_t n = p->shape[0] * (p->n_dims == 2 ? p->shape[1] : 1);
    const float scale = p->norm ? 0.2f : 1.7f / sqrtf((float)p->shape[p->n_dims - 1]);
    uint64_t state = seed * 0x2545f4914f6cdd1du;

    for (const char *c = p->hf; *c; c++)
        state = (state ^ (unsigned char)*c) * 0x100000001b3u;
    p->values = malloc(n * sizeof(float));
    if (!p->values)
        abort();
    for (size_t i = 0; i < n; i++) {
        const float u = (float)(mix(&state) >> 40) * 0x1p-23f - 1.0f; /* [-1, 1) */

        p->values[i] = (p->norm ? 1.0f : 0.0f) + scale * u;
    }
}

/* N == 0: a vector of M. */
static struct piece *add(struct pieces *all, const struct tiny_model *m, const char *hf,
                         const char *gguf, size_t rows, size_t columns)
{
    struct piece *p;

    if (all->n == TINY_MAX_TENSORS)
        abort();
    p = &all->items[all->n++];
    memset(p, 0, sizeof(*p));
    snprintf(p->hf, sizeof(p->hf), "%s", hf);
    snprintf(p->gguf, sizeof(p->gguf), "%s", gguf);
    p->n_dims = columns ? 2 : 1;
    p->shape[0] = rows;
    p->shape[1] = columns;
    p->norm = !columns;
    fill(p, m->seed);
    return p;
}

static struct piece *add_layer(struct pieces *all, const struct tiny_model *m,
                               size_t layer, const char *hf, const char *gguf,
                               size_t rows, size_t columns)
{
    char long_name[96], short_name[64];

    snprintf(long_name, sizeof(long_name), "model.layers.%zu.%s.weight", layer, hf);
    snprintf(short_name, sizeof(short_name), "blk.%zu.%s.weight", layer, gguf);
    return add(all, m, long_name, short_name, rows, columns);
}

static void make_pieces(struct pieces *all, const struct tiny_model *m)
{
    const size_t q = m->n_heads * m->head_dim, kv = m->n_kv_heads * m->head_dim;

    all->n = 0;
    add(all, m, "model.embed_tokens.weight", "token_embd.weight", TINY_VOCAB, m->dim);
    for (size_t l = 0; l < m->n_layers; l++) {
        add_layer(all, m, l, "input_layernorm", "attn_norm", m->dim, 0);
        add_layer(all, m, l, "self_attn.q_proj", "attn_q", q, m->dim)->permute_heads =
            m->n_heads;
        add_layer(all, m, l, "self_attn.k_proj", "attn_k", kv, m->dim)->permute_heads =
            m->n_kv_heads;
        add_layer(all, m, l, "self_attn.v_proj", "attn_v", kv, m->dim);
        add_layer(all, m, l, "self_attn.o_proj", "attn_output", m->dim, q);
        add_layer(all, m, l, "post_attention_layernorm", "ffn_norm", m->dim, 0);
        add_layer(all, m, l, "mlp.gate_proj", "ffn_gate", m->ffn_dim, m->dim);
        add_layer(all, m, l, "mlp.up_proj", "ffn_up", m->ffn_dim, m->dim);
        add_layer(all, m, l, "mlp.down_proj", "ffn_down", m->dim, m->ffn_dim);
    }
    add(all, m, "model.norm.weight", "output_norm.weight", m->dim, 0);
    if (!m->tied)
        add(all, m, "lm_head.weight", "output.weight", TINY_VOCAB, m->dim);
}

static void free_pieces(struct pieces *all)
{
    for (size_t i = 0; i < all->n; i++)
        free(all->items[i].values);
    free(all);
}

static struct pieces *new_pieces(const struct tiny_model *m)
{
    struct pieces *all = calloc(1, sizeof(*all));

    if (!all)
        abort();
    make_pieces(all, m);
    return all;
}

static uint16_t to_bf16(float x)
{
    uint32_t u;

    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* Normal range and subnormals to nearest even; the values here are finite and small. */
static uint16_t to_f16(float x)
{
    const float a = fabsf(x);
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    int e;
    float steps;

    if (a < 0x1p-14f)
        return (uint16_t)(sign | (uint16_t)nearbyintf(a * 0x1p24f));
    (void)frexpf(a, &e); /* a in [2^(e-1), 2^e) */
    steps = nearbyintf(ldexpf(a, 11 - e));
    return (uint16_t)(sign | (uint16_t)(((e + 13) << 10) + (int)steps));
}

static void put_q8_0(struct tiny_bytes *b, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 32) {
        float top = 0.0f, d;
        uint16_t half;

        for (size_t j = 0; j < 32; j++)
            top = fmaxf(top, fabsf(x[i + j]));
        d = top / 127.0f;
        half = to_f16(d);
        tiny_put(b, &half, 2);
        for (size_t j = 0; j < 32; j++) {
            const int8_t q = (int8_t)(d > 0.0f ? roundf(x[i + j] / d) : 0.0f);

            tiny_put(b, &q, 1);
        }
    }
}

static void encode(struct tiny_bytes *b, const float *x, size_t n, uint32_t type)
{
    if (type == TINY_T_Q8_0) {
        put_q8_0(b, x, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const uint16_t half = type == TINY_T_F16 ? to_f16(x[i]) : to_bf16(x[i]);

        if (type == TINY_T_F32)
            tiny_put(b, &x[i], 4);
        else
            tiny_put(b, &half, 2);
    }
}

/* Within a head of size D, GGUF row 2i + j is row j * D/2 + i of Hugging Face. */
static void permute(float *out, const struct piece *p)
{
    const size_t columns = p->shape[1], size = p->shape[0] / p->permute_heads;

    for (size_t h = 0; h < p->permute_heads; h++)
        for (size_t r = 0; r < size; r++)
            memcpy(out + (h * size + r) * columns,
                   p->values + (h * size + r % 2 * (size / 2) + r / 2) * columns,
                   columns * sizeof(float));
}

static void add_piece(struct tiny_gguf *g, const struct tiny_model *m,
                      const struct piece *p)
{
    const size_t inner = p->shape[p->n_dims - 1];
    const size_t n = p->shape[0] * (p->n_dims == 2 ? inner : 1);
    const uint64_t ne[2] = {inner, p->shape[0]};
    uint32_t type = p->norm ? TINY_T_F32 : m->type;
    float *rows = NULL;
    struct tiny_bytes b = {0};

    if (type == TINY_T_Q8_0 && inner % 32)
        type = TINY_T_F32;
    if (p->permute_heads) {
        rows = malloc(n * sizeof(float));
        if (!rows)
            abort();
        permute(rows, p);
    }
    encode(&b, rows ? rows : p->values, n, type);
    tiny_gguf_add(g, p->gguf, type, p->n_dims, ne, b.data, b.size);
    tiny_bytes_release(&b);
    free(rows);
}

/* Bytes that are printable stand for themselves, the others for U+0100 and up. */
static bool is_plain(unsigned b)
{
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

/* UTF-8 of U+0000 ... U+07FF. */
static void put_char(char *out, unsigned c)
{
    if (c < 0x80) {
        snprintf(out, 4, "%c", (int)c);
        return;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3f));
    out[2] = '\0';
}

static void token_text(char out[16], size_t id)
{
    size_t rank = id - N_SPECIAL;
    unsigned others = 0;

    if (id < N_SPECIAL) {
        snprintf(out, 16, "%s", special[id]);
        return;
    }
    if (rank >= 256) {
        const char *pair = merges[rank - 256], *gap = strchr(pair, ' ');

        snprintf(out, 16, "%.*s%s", (int)(gap - pair), pair, gap + 1);
        return;
    }
    for (unsigned b = 0; b < 256; b++)
        if (is_plain(b) && rank-- == 0) {
            put_char(out, b);
            return;
        }
    for (unsigned b = 0; b < 256; b++, others += !is_plain(b - 1))
        if (!is_plain(b) && rank-- == 0) {
            put_char(out, 0x100 + others);
            return;
        }
    abort();
}

static void add_tokenizer(struct tiny_gguf *g)
{
    char texts[TINY_VOCAB][16];
    const char *tokens[TINY_VOCAB];
    int32_t types[TINY_VOCAB];

    for (size_t i = 0; i < TINY_VOCAB; i++) {
        token_text(texts[i], i);
        tokens[i] = texts[i];
        types[i] = i < N_SPECIAL ? 3 : 1;
    }
    tiny_gguf_text(g, "tokenizer.ggml.model", "gpt2");
    tiny_gguf_text(g, "tokenizer.ggml.pre", "smollm");
    tiny_gguf_texts(g, "tokenizer.ggml.tokens", tokens, TINY_VOCAB);
    tiny_gguf_numbers(g, "tokenizer.ggml.token_type", TINY_I32, types, TINY_VOCAB);
    tiny_gguf_texts(g, "tokenizer.ggml.merges", merges, N_MERGES);
    tiny_gguf_u32(g, "tokenizer.ggml.bos_token_id", 1);
    tiny_gguf_u32(g, "tokenizer.ggml.eos_token_id", 2);
    tiny_gguf_u32(g, "tokenizer.ggml.padding_token_id", 2);
    tiny_gguf_bool(g, "tokenizer.ggml.add_bos_token", 0);
    tiny_gguf_text(g, "tokenizer.chat_template", TEMPLATE);
}

static void add_rope_freqs(struct tiny_gguf *g, const struct tiny_model *m)
{
    const uint64_t n = m->head_dim / 2;
    float divisors[512];

    /* factor 8, low 1, high 4, original context 64: as Llama 3.1 has them */
    for (size_t i = 0; i < n; i++) {
        const double f = pow(10000.0, -2.0 * (double)i / (double)m->head_dim);
        const double wave = 2.0 * 3.14159265358979323846 / f;
        const double s = (64.0 / wave - 1.0) / 3.0;

        divisors[i] = 1.0f;
        if (wave > 64.0)
            divisors[i] = 8.0f;
        else if (wave >= 16.0)
            divisors[i] = (float)(1.0 / ((1.0 - s) / 8.0 + s));
    }
    tiny_gguf_add(g, "rope_freqs.weight", TINY_T_F32, 1, &n, divisors, n * 4);
}

void tiny_model_gguf(const struct tiny_model *m, struct tiny_gguf *g)
{
    struct pieces *all = new_pieces(m);

    tiny_gguf_init(g);
    tiny_gguf_text(g, "general.architecture", "llama");
    tiny_gguf_text(g, "general.name", "tiny");
    tiny_gguf_u32(g, "llama.block_count", (uint32_t)m->n_layers);
    tiny_gguf_u32(g, "llama.context_length", 512);
    tiny_gguf_u32(g, "llama.embedding_length", (uint32_t)m->dim);
    tiny_gguf_u32(g, "llama.feed_forward_length", (uint32_t)m->ffn_dim);
    tiny_gguf_u32(g, "llama.attention.head_count", (uint32_t)m->n_heads);
    tiny_gguf_u32(g, "llama.attention.head_count_kv", (uint32_t)m->n_kv_heads);
    tiny_gguf_u32(g, "llama.attention.key_length", (uint32_t)m->head_dim);
    tiny_gguf_u32(g, "llama.attention.value_length", (uint32_t)m->head_dim);
    tiny_gguf_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tiny_gguf_f32(g, "llama.rope.freq_base", 10000.0f);
    tiny_gguf_u32(g, "llama.rope.dimension_count", (uint32_t)m->head_dim);
    tiny_gguf_u32(g, "llama.vocab_size", TINY_VOCAB);
    add_tokenizer(g);
    for (size_t i = 0; i < all->n; i++)
        add_piece(g, m, &all->items[i]);
    if (m->rope_llama3)
        add_rope_freqs(g, m);
    tiny_gguf_layout(g);
    free_pieces(all);
}

int tiny_model_write_gguf(const struct tiny_model *m, const char *path)
{
    struct tiny_gguf *g = malloc(sizeof(*g));
    int rc;

    if (!g)
        abort();
    tiny_model_gguf(m, g);
    rc = tiny_gguf_write(path, g);
    tiny_gguf_release(g);
    free(g);
    return rc;
}

char *tiny_model_config(const struct tiny_model *m)
{
    const char *scaling =
        m->rope_llama3
            ? "{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
              "\"high_freq_factor\":4.0,"
              "\"original_max_position_embeddings\":64}"
            : "null";
    char *text = malloc(2048);

    if (!text)
        abort();
    snprintf(text, 2048,
             "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\","
             "\"hidden_size\":%zu,\"intermediate_size\":%zu,\"num_hidden_layers\":%zu,"
             "\"num_attention_heads\":%zu,\"num_key_value_heads\":%zu,\"head_dim\":%zu,"
             "\"vocab_size\":%d,\"max_position_embeddings\":512,\"rms_norm_eps\":1e-05,"
             "\"rope_theta\":10000.0,\"rope_scaling\":%s,\"hidden_act\":\"silu\","
             "\"attention_bias\":false,\"mlp_bias\":false,\"tie_word_embeddings\":%s,"
             "\"torch_dtype\":\"%s\","
             "\"bos_token_id\":1,\"eos_token_id\":2,\"pad_token_id\":2}\n",
             m->dim, m->ffn_dim, m->n_layers, m->n_heads, m->n_kv_heads, m->head_dim,
             TINY_VOCAB, scaling, m->tied ? "true" : "false",
             m->type == TINY_T_F16    ? "float16"
             : m->type == TINY_T_BF16 ? "bfloat16"
                                      : "float32");
    return text;
}

static void put_text(struct tiny_bytes *b, const char *text)
{
    tiny_put(b, text, strlen(text));
}

/* A JSON string; only the two characters that need it are escaped. */
static void put_quoted(struct tiny_bytes *b, const char *text)
{
    put_text(b, "\"");
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            put_text(b, "\\");
        if (*text == '\n')
            put_text(b, "\\n");
        else
            tiny_put(b, text, 1);
    }
    put_text(b, "\"");
}

static void make_weights(struct tiny_bytes *out, const struct tiny_model *m)
{
    struct pieces *all = new_pieces(m);
    struct tiny_bytes header = {0}, data = {0};
    const uint32_t type = m->type == TINY_T_Q8_0 ? TINY_T_F32 : m->type;

    put_text(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < all->n; i++) {
        const struct piece *p = &all->items[i];
        const size_t begin = data.size;
        char entry[256], shape[64];

        encode(&data, p->values, p->shape[0] * (p->n_dims == 2 ? p->shape[1] : 1),
               type);
        snprintf(shape, sizeof(shape), p->n_dims == 2 ? "%zu,%zu" : "%zu", p->shape[0],
                 p->shape[1]);
        snprintf(entry, sizeof(entry),
                 ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                 p->hf,
                 type == TINY_T_F32   ? "F32"
                 : type == TINY_T_F16 ? "F16"
                                      : "BF16",
                 shape, begin, data.size);
        put_text(&header, entry);
    }
    put_text(&header, "}");
    while (header.size % 8)
        put_text(&header, " ");
    tiny_put(&header, "", 1);
    tiny_safetensors(out, (const char *)header.data, data.data, data.size);
    tiny_bytes_release(&header);
    tiny_bytes_release(&data);
    free_pieces(all);
}

static void make_tokenizer(struct tiny_bytes *out)
{
    char text[64];

    put_text(out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
                  "\"added_tokens\":[");
    for (size_t i = 0; i < N_SPECIAL; i++) {
        snprintf(text, sizeof(text), "%s{\"id\":%zu,\"content\":\"%s\",", i ? "," : "",
                 i, special[i]);
        put_text(out, text);
        put_text(out, "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                      "\"normalized\":false,\"special\":true}");
    }
    put_text(out, "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\","
                  "\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
                  "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                  "\"trim_offsets\":true,\"use_regex\":true}]},"
                  "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\","
                  "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
                  "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                  "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
                  "\"fuse_unk\":false,\"byte_fallback\":false,\"vocab\":{");
    for (size_t i = 0; i < TINY_VOCAB; i++) {
        char token[16];

        token_text(token, i);
        put_text(out, i ? "," : "");
        put_quoted(out, token);
        snprintf(text, sizeof(text), ":%zu", i);
        put_text(out, text);
    }
    put_text(out, "},\"merges\":[");
    for (size_t i = 0; i < N_MERGES; i++) {
        put_text(out, i ? "," : "");
        put_quoted(out, merges[i]);
    }
    put_text(out, "]}}\n");
}

static int save_in(const char *folder, const char *name, const void *data, size_t n)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return tiny_save(path, data, n);
}

int tiny_model_write_folder(const struct tiny_model *m, const char *folder)
{
    struct tiny_bytes weights = {0}, tokenizer = {0}, settings = {0};
    char *config = tiny_model_config(m);
    int rc = 0;

    if (mkdir(folder, 0777) < 0 && errno != EEXIST)
        rc = -1;
    make_weights(&weights, m);
    make_tokenizer(&tokenizer);
    put_text(&settings, "{\"add_bos_token\":false,\"bos_token\":\"<|im_start|>\","
                        "\"eos_token\":\"<|im_end|>\",\"pad_token\":\"<|im_end|>\","
                        "\"chat_template\":");
    put_quoted(&settings, TEMPLATE);
    put_text(&settings, "}\n");
    if (rc == 0)
        rc = save_in(folder, "config.json", config, strlen(config));
    if (rc == 0)
        rc = save_in(folder, "model.safetensors", weights.data, weights.size);
    if (rc == 0)
        rc = save_in(folder, "tokenizer.json", tokenizer.data, tokenizer.size);
    if (rc == 0)
        rc = save_in(folder, "tokenizer_config.json", settings.data, settings.size);
    tiny_bytes_release(&weights);
    tiny_bytes_release(&tokenizer);
    tiny_bytes_release(&settings);
    free(config);
    return rc;
}
