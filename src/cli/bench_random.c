/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bits are drawn and not numbers: a sign and a mantissa under a fixed exponent, or
 * the steps of a block under a fixed scale. 7 billion weights take some seconds.
 */
#include "cli/bench_random.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "model/config.h"

static const struct shape {
    const char *name;
    size_t n_layers, dim, n_heads, n_kv_heads, head_dim, ffn_dim, n_vocab, context;
    float theta;
    bool tied;
} shapes[] = {
    {"135m", 30, 576, 9, 3, 64, 1536, 49152, 8192, 1e5f, true},
    {"1b", 16, 2048, 32, 8, 64, 8192, 128256, 8192, 5e5f, true},
    {"7b", 32, 4096, 32, 32, 128, 11008, 32000, 4096, 1e4f, false},
};

int random_shape(struct model_config *c, const char *name)
{
    const size_t n = sizeof(shapes) / sizeof(shapes[0]);
    const struct shape *s = shapes;

    while (s < shapes + n && strcmp(s->name, name) != 0)
        s++;
    if (s == shapes + n)
        return -1;
    *c = (struct model_config){.architecture = "llama",
                               .n_layers = s->n_layers,
                               .dim = s->dim,
                               .n_heads = s->n_heads,
                               .n_kv_heads = s->n_kv_heads,
                               .head_dim = s->head_dim,
                               .ffn_dim = s->ffn_dim,
                               .n_vocab = s->n_vocab,
                               .context = s->context,
                               .norm_eps = 1e-5f,
                               .rope_theta = s->theta,
                               .tied = s->tied};
    for (size_t i = 0; i < sizeof(c->rope_divisor) / sizeof(c->rope_divisor[0]); i++)
        c->rope_divisor[i] = 1.0f;
    return 0;
}

/* Half floats at the head of a block; the rest of it may be any bits. */
static const struct {
    enum dtype t;
    size_t n;
    uint16_t half[2];
} scales[] = {
    {DTYPE_Q8_0, 1, {0x0c00}},         /* 2^-12, steps to 128 */
    {DTYPE_Q4_0, 1, {0x1c00}},         /* 2^-8, steps -8 to 7 */
    {DTYPE_Q4_1, 2, {0x1c00, 0xa800}}, /* 2^-8, steps 0 to 15 from -2^-5 on */
    {DTYPE_Q5_0, 1, {0x1800}},         /* 2^-9, steps -16 to 15 */
    {DTYPE_Q4_K, 2, {0x0400, 0x1000}}, /* 2^-14 and 2^-11, each of 0 to 63 */
};

#define N_SCALES (sizeof(scales) / sizeof(scales[0]))

enum dtype random_format(const char *name)
{
    static const enum dtype known[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16, DTYPE_Q8_0,
                                       DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q4_K};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (!strcmp(dtype_name(known[i]), name))
            return known[i];
    return N_DTYPES;
}

enum dtype random_row_format(enum dtype wanted, size_t n_in)
{
    return n_in % dtype_block_elems(wanted) ? DTYPE_Q5_0 : wanted;
}

static void fill_bits(unsigned char *out, size_t n, struct rng *rng)
{
    for (size_t i = 0; i < n; i += 4) {
        const uint32_t u = rng_u32(rng);

        memcpy(out + i, &u, n - i < 4 ? n - i : 4);
    }
}

/* Plain numbers keep their signs and mantissas; their exponents become that of 2^-6. */
static void set_exponents(unsigned char *out, enum dtype t, size_t n)
{
    for (size_t i = 0; t == DTYPE_F32 && i < n; i++) {
        uint32_t u;

        memcpy(&u, out + 4 * i, 4);
        u = (u & 0x807fffffu) | 0x3c800000u;
        memcpy(out + 4 * i, &u, 4);
    }
    for (size_t i = 0; t != DTYPE_F32 && i < n; i++) {
        uint16_t u;

        memcpy(&u, out + 2 * i, 2);
        u = (uint16_t)(t == DTYPE_F16 ? (u & 0x83ffu) | 0x2400u
                                      : (u & 0x807fu) | 0x3c80u);
        memcpy(out + 2 * i, &u, 2);
    }
}

static void fill_chunk(unsigned char *out, enum dtype t, size_t n, uint64_t stream,
                       uint64_t chunk)
{
    const size_t bytes = dtype_block_bytes(t);
    struct rng rng;
    size_t s = 0;

    rng_init(&rng, 1 + chunk, stream);
    fill_bits(out, n * bytes, &rng);
    if (dtype_block_elems(t) == 1) {
        set_exponents(out, t, n);
        return;
    }
    while (scales[s].t != t)
        s++;
    for (size_t i = 0; i < n; i++)
        memcpy(out + i * bytes, scales[s].half, 2 * scales[s].n);
}

void random_blocks(void *out, enum dtype t, size_t n, uint64_t stream, size_t first)
{
    unsigned char *const at = out;

    assert(first % RANDOM_CHUNK == 0);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += RANDOM_CHUNK)
        fill_chunk(at + i * dtype_block_bytes(t), t,
                   n - i < RANDOM_CHUNK ? n - i : RANDOM_CHUNK, stream,
                   (first + i) / RANDOM_CHUNK);
}
