/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows G01 to G19, G24 and G27 of the catalogue of bad inputs: a tiny valid
 * model, one field changed at a time. Every input ends at an unreadable page.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/rng.h"
#include "files/gguf.h"
#include "support/tiny_model.h"

/* Bytes whose last one touches a page that cannot be read. */
struct fenced {
    unsigned char *pages;
    size_t page_bytes, room;
};

static void fence_make(struct fenced *f, size_t most)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    f->room = (most + page - 1) / page * page;
    f->page_bytes = f->room + page;
    f->pages = mmap(NULL, f->page_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(f->pages, MAP_FAILED);
    assert_int_equal(mprotect(f->pages + f->room, page, PROT_NONE), 0);
}

static const unsigned char *fence_put(struct fenced *f, const void *data, size_t n)
{
    unsigned char *at = f->pages + f->room - n;

    assert_true(n <= f->room);
    memcpy(at, data, n);
    return at;
}

static int parse_fenced(struct gguf **out, struct fenced *f, const struct tiny_bytes *b,
                        size_t n, struct artel_error *err)
{
    *err = (struct artel_error){0};
    return gguf_parse(out, fence_put(f, b->data, n), n, "in memory", err);
}

static struct tiny_gguf *new_model(void)
{
    struct tiny_gguf *g = malloc(sizeof(*g));
    struct tiny_model m;

    assert_non_null(g);
    tiny_model_default(&m);
    tiny_model_gguf(&m, g);
    return g;
}

static void free_model(struct tiny_gguf *g)
{
    tiny_gguf_release(g);
    free(g);
}

/* Changes that damage a laid-out model. */
static void no_magic(struct tiny_gguf *g)
{
    memcpy(g->magic, "FUGG", 4);
}
static void version_0(struct tiny_gguf *g)
{
    g->version = 0;
}
static void version_1(struct tiny_gguf *g)
{
    g->version = 1;
}
static void version_4(struct tiny_gguf *g)
{
    g->version = 4;
}
static void version_swapped(struct tiny_gguf *g)
{
    g->version = 0x03000000;
}
static void version_2(struct tiny_gguf *g)
{
    g->version = 2;
}
static void tensors_max(struct tiny_gguf *g)
{
    g->n_tensors_written = UINT64_MAX;
}
static void keys_2_63(struct tiny_gguf *g)
{
    g->n_keys_written = (uint64_t)1 << 63;
}
static void keys_billion(struct tiny_gguf *g)
{
    g->n_keys_written = 1000000000;
}
static void key_empty(struct tiny_gguf *g)
{
    g->keys[0].name_length = 0;
}
static void key_64k(struct tiny_gguf *g)
{
    g->keys[0].name_length = 65536;
}
static void key_max(struct tiny_gguf *g)
{
    g->keys[0].name_length = UINT64_MAX;
}
static void key_control(struct tiny_gguf *g)
{
    g->keys[1].name[0] = '\x1b';
}
static void key_not_utf8(struct tiny_gguf *g)
{
    g->keys[1].name[0] = '\xff';
}

static void tensor_not_utf8(struct tiny_gguf *g)
{
    g->tensors[1].name[0] = '\xff';
}
static void tensor_no_name(struct tiny_gguf *g)
{
    g->tensors[1].name_length = 0;
}
static void string_2_63(struct tiny_gguf *g)
{
    g->keys[0].value.data[7] = 0x80;
}

static void string_beyond(struct tiny_gguf *g)
{
    struct tiny_bytes b = {0};
    uint64_t length;

    tiny_gguf_pack(g, &b);
    length = b.size; /* always more than what is left */
    memcpy(g->keys[0].value.data, &length, 8);
    tiny_bytes_release(&b);
}

static void type_13(struct tiny_gguf *g)
{
    g->keys[2].type = 13;
}
static void type_255(struct tiny_gguf *g)
{
    g->keys[2].type = 255;
}
static void type_minus_1(struct tiny_gguf *g)
{
    g->keys[2].type = UINT32_MAX;
}
static void elem_type(struct tiny_gguf *g, uint32_t type)
{
    memcpy(tiny_gguf_key(g, "tokenizer.ggml.token_type")->value.data, &type, 4);
}
static void array_type_99(struct tiny_gguf *g)
{
    elem_type(g, 99);
}
static void array_nested(struct tiny_gguf *g)
{
    elem_type(g, TINY_ARRAY);
}
static void array_2_62(struct tiny_gguf *g)
{
    const uint64_t n = (uint64_t)1 << 62;

    elem_type(g, TINY_U64);
    memcpy(tiny_gguf_key(g, "tokenizer.ggml.token_type")->value.data + 4, &n, 8);
}
static void strings_2_62(struct tiny_gguf *g)
{
    const uint64_t n = (uint64_t)1 << 62;

    memcpy(tiny_gguf_key(g, "tokenizer.ggml.tokens")->value.data + 4, &n, 8);
}
static void bool_7(struct tiny_gguf *g)
{
    tiny_gguf_key(g, "tokenizer.ggml.add_bos_token")->value.data[0] = 7;
}
static void twice_key(struct tiny_gguf *g)
{
    snprintf(g->keys[3].name, sizeof(g->keys[3].name), "%s", g->keys[2].name);
    g->keys[3].name_length = g->keys[2].name_length;
}
static void twice_tensor(struct tiny_gguf *g)
{
    snprintf(g->tensors[3].name, sizeof(g->tensors[3].name), "%s", g->tensors[2].name);
    g->tensors[3].name_length = g->tensors[2].name_length;
}
static void set_align(struct tiny_gguf *g, uint32_t align)
{
    tiny_gguf_u32(g, "general.alignment", align);
    tiny_gguf_layout(g);
}
static void align_0(struct tiny_gguf *g)
{
    set_align(g, 0);
}
static void align_3(struct tiny_gguf *g)
{
    set_align(g, 3);
}
static void align_13(struct tiny_gguf *g)
{
    set_align(g, 13);
}
static void align_2_31(struct tiny_gguf *g)
{
    set_align(g, 1u << 31);
}
static void align_text(struct tiny_gguf *g)
{
    tiny_gguf_text(g, "general.alignment", "32");
    tiny_gguf_layout(g);
}
static void align_64(struct tiny_gguf *g)
{
    g->align = 64;
    set_align(g, 64);
}
static void dims_0(struct tiny_gguf *g)
{
    g->tensors[1].n_dims = 0;
}
static void dims_5(struct tiny_gguf *g)
{
    g->tensors[1].n_dims = 5;
}
static void dims_max(struct tiny_gguf *g)
{
    g->tensors[1].n_dims = UINT32_MAX;
}
static void size_0(struct tiny_gguf *g)
{
    g->tensors[1].ne[0] = 0;
}
static void size_2_63(struct tiny_gguf *g)
{
    g->tensors[1].ne[0] = (uint64_t)1 << 63;
}
static void size_product(struct tiny_gguf *g)
{
    g->tensors[2].ne[0] = g->tensors[2].ne[1] = (uint64_t)1 << 32;
}
static void size_bytes(struct tiny_gguf *g)
{
    g->tensors[2].ne[0] = (uint64_t)1 << 62;
    g->tensors[2].ne[1] = 1;
}
static void type_200(struct tiny_gguf *g)
{
    g->tensors[1].type = 200;
}
static void type_removed(struct tiny_gguf *g)
{
    g->tensors[1].type = 4;
}
static void type_q2_k(struct tiny_gguf *g)
{
    g->tensors[1].type = 10;
}
static void row_33(struct tiny_gguf *g)
{
    g->tensors[1].type = TINY_T_Q8_0;
    g->tensors[1].ne[0] = 33;
}
static void offset_unaligned(struct tiny_gguf *g)
{
    g->tensors[1].offset += 4;
}
static void offset_overlap(struct tiny_gguf *g)
{
    g->tensors[1].offset -= 32;
}
static void offset_hole(struct tiny_gguf *g)
{
    g->tensors[1].offset += 32;
}
static void offset_max(struct tiny_gguf *g)
{
    g->tensors[1].offset = UINT64_MAX - 31;
}
static void last_longer(struct tiny_gguf *g)
{
    struct tiny_tensor *t = &g->tensors[g->n_tensors - 1];

    t->type = 24; /* I8: one byte an element */
    t->ne[0] = t->data.size + 1;
    t->n_dims = 1;
}
static void huge_integer(struct tiny_gguf *g)
{
    tiny_gguf_u64(g, "llama.context_length", (uint64_t)1 << 63);
    tiny_gguf_layout(g);
}

static const struct {
    const char *id;
    void (*change)(struct tiny_gguf *g);
    const char *code; /* NULL: must load */
    const char *where, *reason;
} rows[] = {
    {"G01", no_magic, "GGUF01", "byte 0", "46 55 47 47"},
    {"G02a", version_0, "GGUF02", "byte 4", "invalid"},
    {"G02b", version_1, "GGUF02", "byte 4", "too old"},
    {"G02c", version_4, "GGUF02", "byte 4", "too new"},
    {"G02d", version_swapped, "GGUF02", "byte 4", "byte order"},
    {"G02e", version_2, NULL, NULL, NULL},
    {"G03a", tensors_max, "GGUF03", NULL, "18446744073709551615"},
    {"G03b", keys_2_63, "GGUF03", NULL, "9223372036854775808"},
    {"G03c", keys_billion, "GGUF03", NULL, "1000000000"},
    {"G04a", key_empty, "GGUF04", "key 0", "0 bytes"},
    {"G04b", key_64k, "GGUF04", "key 0", "65536"},
    {"G04c", key_max, "GGUF04", "key 0", "18446744073709551615"},
    {"G04d", tensor_no_name, "GGUF04", "tensor 1", "0 bytes"},
    {"G05a", key_control, "GGUF05", "key 1", "\\x1B"},
    {"G05b", key_not_utf8, "GGUF05", "key 1", "\\xFF"},
    {"G05c", tensor_not_utf8, "GGUF05", "tensor 1", "\\xFF"},
    {"G06a", string_2_63, "GGUF06", "general.architecture", "9223372036854775813"},
    {"G06b", string_beyond, "GGUF06", "general.architecture", "are left"},
    {"G07a", type_13, "GGUF07", "llama.block_count", "13"},
    {"G07b", type_255, "GGUF07", "llama.block_count", "255"},
    {"G07c", type_minus_1, "GGUF07", "llama.block_count", "4294967295"},
    {"G07d", array_type_99, "GGUF07", "tokenizer.ggml.token_type", "99"},
    {"G08a", array_2_62, "GGUF08", "tokenizer.ggml.token_type", "4611686018427387904"},
    {"G08b", strings_2_62, "GGUF08", "tokenizer.ggml.tokens", "4611686018427387904"},
    {"G09", array_nested, "GGUF09", "tokenizer.ggml.token_type", "array of arrays"},
    {"G10", bool_7, "GGUF10", "tokenizer.ggml.add_bos_token", "7"},
    {"G11a", twice_key, "GGUF11", "llama.block_count", "at byte"},
    {"G11b", twice_tensor, "GGUF11", "blk.0.attn_q.weight", "number 2 and number 3"},
    {"G12a", align_0, "GGUF12", "general.alignment", "0 is not"},
    {"G12b", align_3, "GGUF12", "general.alignment", "3 is not"},
    {"G12c", align_13, "GGUF12", "general.alignment", "13 is not"},
    {"G12d", align_2_31, "GGUF12", "general.alignment", "2147483648"},
    {"G12e", align_text, "GGUF12", "general.alignment", "integer"},
    {"G12f", align_64, NULL, NULL, NULL},
    {"G13a", dims_0, "GGUF13", "blk.0.attn_norm.weight", "0 dimensions"},
    {"G13b", dims_5, "GGUF13", "blk.0.attn_norm.weight", "5 dimensions"},
    {"G13c", dims_max, "GGUF13", "blk.0.attn_norm.weight", "4294967295"},
    {"G14a", size_0, "GGUF14", "blk.0.attn_norm.weight", "size 0"},
    {"G14b", size_2_63, "GGUF14", "blk.0.attn_norm.weight", "9223372036854775808"},
    {"G14c", size_product, "GGUF14", "blk.0.attn_q.weight", "too large"},
    {"G14d", size_bytes, "GGUF14", "blk.0.attn_q.weight", "64 bits"},
    {"G15a", type_200, "GGUF15", "blk.0.attn_norm.weight",
     "200 is not supported, these"},
    {"G15b", type_removed, "GGUF15", "blk.0.attn_norm.weight", "type 4 "},
    {"G15c", type_q2_k, "GGUF15", "blk.0.attn_norm.weight", "IQ4_NL"},
    {"G16", row_33, "GGUF16", "blk.0.attn_norm.weight", "33 are no multiple of the 32"},
    {"G17a", offset_unaligned, "GGUF17", "blk.0.attn_norm.weight", "not aligned"},
    {"G17b", offset_overlap, "GGUF17", "blk.0.attn_norm.weight", "overlaps"},
    {"G17c", offset_hole, "GGUF17", "blk.0.attn_norm.weight", "hole"},
    {"G17d", offset_max, "GGUF17", "blk.0.attn_norm.weight", "18446744073709551584"},
    {"G18", last_longer, "GGUF18", "output_norm.weight", "the file holds"},
    {"G20u", huge_integer, "GGUF21", "llama.context_length", "2^63"},
};

static void G01_to_G18_one_changed_field_is_refused_by_name(void **state)
{
    struct fenced f;

    (void)state;
    fence_make(&f, 1 << 20);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct tiny_gguf *g = new_model();
        struct tiny_bytes b = {0};
        struct gguf *parsed;
        struct artel_error err;
        int rc;

        rows[i].change(g);
        tiny_gguf_pack(g, &b);
        rc = parse_fenced(&parsed, &f, &b, b.size, &err);
        if (!rows[i].code
                ? rc != 0
                : rc != ARTEL_EFORMAT || strcmp(err.code, rows[i].code) != 0 ||
                      strcmp(err.file, "in memory") != 0)
            fail_msg("%s: rc %d: %s: %s [%s]", rows[i].id, rc, err.where, err.reason,
                     err.code);
        if (rows[i].where && strcmp(err.where, rows[i].where) != 0)
            fail_msg("%s: where is '%s'", rows[i].id, err.where);
        if (rows[i].reason && !strstr(err.reason, rows[i].reason))
            fail_msg("%s: '%s' lacks '%s'", rows[i].id, err.reason, rows[i].reason);
        gguf_close(parsed);
        tiny_bytes_release(&b);
        free_model(g);
    }
    munmap(f.pages, f.page_bytes);
}

static void G19_every_prefix_is_refused(void **state)
{
    struct tiny_gguf *g = new_model();
    struct tiny_bytes b = {0};
    struct fenced f;
    struct gguf *parsed;
    struct artel_error err;

    (void)state;
    tiny_gguf_pack(g, &b);
    fence_make(&f, b.size);
    for (size_t n = 0; n < b.size; n += n < 9000 ? 1 : 61)
        assert_int_equal(parse_fenced(&parsed, &f, &b, n, &err), ARTEL_EFORMAT);
    assert_int_equal(parse_fenced(&parsed, &f, &b, b.size - 1, &err), ARTEL_EFORMAT);
    assert_int_equal(parse_fenced(&parsed, &f, &b, b.size, &err), 0);
    gguf_close(parsed);
    munmap(f.pages, f.page_bytes);
    tiny_bytes_release(&b);
    free_model(g);
}

/* Touch everything that a reader would. */
static void walk(const struct gguf *g)
{
    struct artel_error err;

    for (size_t i = 0; i < gguf_count(g); i++)
        (void)tensor_check_finite(gguf_at(g, i), &err);
    for (size_t k = 0; k < 2; k++) {
        const struct gguf_value v =
            gguf_get(g, k ? "tokenizer.ggml.tokens" : "tokenizer.ggml.token_type");
        struct gguf_value e;
        size_t cursor = 0, n = 0;

        while (gguf_next(&v, &cursor, &e))
            n++;
        if (v.kind == GGUF_ARRAY)
            assert_int_equal(n, v.length);
    }
}

static uint64_t odd_number(struct rng *r)
{
    static const uint64_t odd[] = {0,
                                   1,
                                   2,
                                   31,
                                   32,
                                   33,
                                   255,
                                   65535,
                                   65536,
                                   UINT32_MAX,
                                   (uint64_t)1 << 62,
                                   (uint64_t)1 << 63,
                                   UINT64_MAX};

    return odd[rng_below(r, sizeof(odd) / sizeof(odd[0]))] + rng_below(r, 3) - 1;
}

static void mutate(struct tiny_gguf *g, struct rng *r)
{
    struct tiny_key *k = &g->keys[rng_below(r, (uint32_t)g->n_keys)];
    struct tiny_tensor *t = &g->tensors[rng_below(r, (uint32_t)g->n_tensors)];

    switch (rng_below(r, 10)) {
    case 0:
        g->n_keys_written = odd_number(r);
        break;
    case 1:
        g->n_tensors_written = rng_below(r, 40);
        break;
    case 2:
        k->type = rng_below(r, 14);
        break;
    case 3:
        k->name_length = odd_number(r);
        break;
    case 4:
        k->value.data[rng_below(r, (uint32_t)k->value.size)] ^=
            (unsigned char)(1u << rng_below(r, 8));
        break;
    case 5:
        t->type = rng_below(r, 32);
        break;
    case 6:
        t->n_dims = rng_below(r, 6);
        break;
    case 7:
        t->ne[rng_below(r, 2)] = odd_number(r);
        break;
    case 8:
        t->offset = odd_number(r);
        break;
    default:
        t->name[rng_below(r, 4)] ^= (char)(1u << rng_below(r, 8));
    }
}

static void G27_mutants_are_refused_or_read_whole(void **state)
{
    struct fenced f;
    struct rng r;

    (void)state;
    fence_make(&f, 1 << 20);
    rng_init(&r, 27, 1);
    for (size_t i = 0; i < 2000; i++) {
        struct tiny_gguf *g = new_model();
        struct tiny_bytes b = {0};
        struct gguf *parsed;
        struct artel_error err;
        int rc;

        for (uint32_t n = 1 + rng_below(&r, 3); n > 0; n--)
            mutate(g, &r);
        tiny_gguf_pack(g, &b);
        rc = parse_fenced(&parsed, &f, &b, b.size, &err);
        assert_true(rc == 0 || rc == ARTEL_EFORMAT);
        if (rc == 0)
            walk(parsed);
        gguf_close(parsed);
        tiny_bytes_release(&b);
        free_model(g);
    }
    munmap(f.pages, f.page_bytes);
}

static void every_flipped_bit_of_the_head_is_survived(void **state)
{
    struct tiny_gguf *g = new_model();
    struct tiny_bytes b = {0};
    struct gguf *parsed;
    struct artel_error err = {0};

    (void)state;
    tiny_gguf_pack(g, &b);
    for (size_t i = 0; i < 1200 * 8; i++) {
        b.data[i / 8] ^= (unsigned char)(1 << i % 8);
        if (gguf_parse(&parsed, b.data, b.size, "flipped", &err) == 0)
            walk(parsed);
        gguf_close(parsed);
        b.data[i / 8] ^= (unsigned char)(1 << i % 8);
    }
    tiny_bytes_release(&b);
    free_model(g);
}

static void G24_many_keys_take_linear_time(void **state)
{
    struct tiny_bytes b = {0};
    struct gguf *g;
    struct artel_error err = {0};
    char name[16];

    (void)state;
    tiny_put(&b, "GGUF\x03\0\0\0", 8);
    tiny_u64(&b, 0);
    tiny_u64(&b, 200000);
    for (size_t i = 0; i < 200000; i++) {
        const int n = snprintf(name, sizeof(name), "k%zu", i);

        tiny_u64(&b, (uint64_t)n);
        tiny_put(&b, name, (size_t)n);
        tiny_u32(&b, 0);
        tiny_put(&b, "\x05", 1);
    }
    assert_int_equal(gguf_parse(&g, b.data, b.size, "many", &err), 0);
    assert_int_equal(gguf_get(g, "k199999").i, 5);
    gguf_close(g);
    tiny_bytes_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(G01_to_G18_one_changed_field_is_refused_by_name),
        cmocka_unit_test(G19_every_prefix_is_refused),
        cmocka_unit_test(G24_many_keys_take_linear_time),
        cmocka_unit_test(G27_mutants_are_refused_or_read_whole),
        cmocka_unit_test(every_flipped_bit_of_the_head_is_survived),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
