/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows S01 to S29 of the catalogue of bad inputs: damaged headers as a table, then
 * every prefix and every flipped bit, then what must load, then writing.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/stat.h>

#include "base/error.h"
#include "files/safetensors.h"
#include "support/tiny_gguf.h"

#define SCALAR "\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]"

struct row {
    const char *id, *header;
    size_t data_bytes;
    const char *code;           /* NULL: must load */
    const char *where, *reason; /* parts the message must have, or NULL */
};

static const struct row rows[] = {
    {"S05a", "{", 0, "ST01", "byte 9", "ends"},
    {"S05b", "}", 0, "ST01", "byte 8", "value was expected"},
    {"S05c", "xyz", 0, "ST01", "byte 8", "found 'x'"},
    {"S05d", "{\"w\":{" SCALAR "},}", 4, "ST01", NULL, "key in quotes"},
    {"S05e", "{\"w\" {}}", 0, "ST01", "byte 13", "':' was expected"},
    {"S06a", "{\"\xff\":{" SCALAR "}}", 4, "ST01", "byte 10", "not UTF-8"},
    {"S06b", "{\"\xc0\x80\":{" SCALAR "}}", 4, "ST01", "byte 10", "not UTF-8"},
    {"S06c", "{\"\xed\xa0\x80\":{" SCALAR "}}", 4, "ST01", "byte 10", "not UTF-8"},
    {"S06d", "{\"\xf8\x88\x80\x80\x80\":{" SCALAR "}}", 4, "ST01", "byte 10",
     "not UTF-8"},
    {"S07a", " \t\n{\"w\":{" SCALAR "}}", 4, NULL, NULL, NULL},
    {"S07b", "{\"w\":{" SCALAR "}} \t\r\n  ", 4, NULL, NULL, NULL},
    {"S08a", "[]", 0, "ST01", NULL, "must be a JSON object"},
    {"S08b", "\"w\"", 0, "ST01", NULL, "must be a JSON object"},
    {"S08c", "12", 0, "ST01", NULL, "must be a JSON object"},
    {"S08d", "null", 0, "ST01", NULL, "must be a JSON object"},
    {"S09a", "{} x", 0, "ST01", "byte 11", "unexpected text"},
    {"S09b", "{}{}", 0, "ST01", "byte 10", "unexpected text"},
    {"S10a", "{\"w\":{" SCALAR "},\"w\":{" SCALAR "}}", 4, "ST02", "w",
     "byte 10 and at"},
    {"S10b",
     "{\"w\":{" SCALAR "},\"\\u0077\":{\"dtype\":\"F32\",\"shape\":[1],"
     "\"data_offsets\":[4,8]}}",
     8, "ST02", "w", "byte 10 and at"},
    {"S11a", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "ST03", "__metadata__",
     "twice"},
    {"S11b", "{\"__metadata__\":[]}", 0, "ST03", "__metadata__", "object"},
    {"S11c", "{\"__metadata__\":{\"k\":1}}", 0, "ST03", "k", "string"},
    {"S11d", "{\"__metadata__\":{\"k\":[\"a\"]}}", 0, "ST03", "k", "string"},
    {"S11e", "{\"__metadata__\":{\"k\":\"a\",\"k\":\"b\"}}", 0, "ST03", "k", "twice"},
    {"S12a", "{\"w\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "ST04", "w", "F33, known: F32"},
    {"S12b", "{\"w\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "ST04", "w", "f32"},
    {"S12c", "{\"w\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "ST04",
     "w", "7"},
    {"S12d", "{\"w\":{\"dtype\":null,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "ST04",
     "w", "null"},
    {"S13a", "{\"w\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "ST05", "w", "dtype"},
    {"S13b", "{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "ST05", "w",
     "shape"},
    {"S13c", "{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "ST05", "w",
     "data_offsets"},
    {"S13d", "{\"w\":{" SCALAR ",\"more\":{\"a\":[1,{}]}}}", 4, NULL, NULL, NULL},
    {"S13e", "{\"w\":{" SCALAR ",\"dtype\":\"F32\"}}", 4, "ST02", "w", "dtype twice"},
    {"S13f", "{\"w\":3}", 0, "ST14", "w", "object"},
    {"S14a", "{\"w\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
     "ST06", "w", "shape[0]"},
    {"S14b", "{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1.5],\"data_offsets\":[0,4]}}", 4,
     "ST06", "w", "shape[1]"},
    {"S14c", "{\"w\":{\"dtype\":\"F32\",\"shape\":[\"4\"],\"data_offsets\":[0,4]}}", 4,
     "ST06", "w", "shape[0]"},
    {"S14d", "{\"w\":{\"dtype\":\"F32\",\"shape\":[1e3],\"data_offsets\":[0,4]}}", 4,
     "ST06", "w", "shape[0]"},
    {"S14e",
     "{\"w\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,4]"
     "}}",
     4, "ST06", "w", "shape[0]"},
    {"S14f", "{\"w\":{\"dtype\":\"F32\",\"shape\":[[1]],\"data_offsets\":[0,4]}}", 4,
     "ST06", "w", "shape[0]"},
    {"S14g", "{\"w\":{\"dtype\":\"F32\",\"shape\":[null],\"data_offsets\":[0,4]}}", 4,
     "ST06", "w", "shape[0]"},
    {"S14h", "{\"w\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,4]}}", 4,
     "ST06", "w", "array"},
    {"S15a",
     "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,9223372036854775808],\"data_offsets\":[0,"
     "4]}}",
     4, "ST07", "w", "64 bits"},
    {"S15b",
     "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,18446744073709551614],\"data_offsets\":[0,"
     "4]}}",
     4, "ST07", "w", "64 bits"},
    {"S16a", "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4,
     "ST08", "w", "before its begin"},
    {"S16b", "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4]}}", 4,
     "ST08", "w", "two"},
    {"S16c", "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4,
     "ST08", "w", "two"},
    {"S16d", "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4,
     "ST08", "w", "two"},
    {"S16e", "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 4,
     "ST08", "w", "two"},
    {"S17", "{\"w\":{\"dtype\":\"I32\",\"shape\":[2,2],\"data_offsets\":[0,4]}}", 4,
     "ST09", "w", "needs 16 bytes, its offsets hold 4"},
    {"S18", "{\"a\":{" SCALAR "},\"b\":{" SCALAR "}}", 4, "ST10", "b",
     "overlaps tensor 'a'"},
    {"S19",
     "{\"a\":{" SCALAR
     "},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
     12, "ST11", "b", "4 to 8"},
    {"S20", "{\"w\":{" SCALAR "}}", 26, "ST12", NULL, "22 bytes"},
    {"S20b", "{\"w\":{" SCALAR "}}", 3, "ST12", "w", "holds 3"},
    {"S20c", "{}", 1, "ST12", NULL, "1 bytes"},
    {"S23a", "{\"w\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, NULL,
     NULL, NULL},
    {"S23b", "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,0],\"data_offsets\":[0,0]}}", 0,
     NULL, NULL, NULL},
    {"S23c", "{}", 0, NULL, NULL, NULL},
    {"S26b", "{\"a\\u001b[31m\\n\":{\"dtype\":\"F3\"}}", 0, "ST04", "a\\x1B[31m\\x0A",
     NULL},
    {"S26c", "{\"a\\u0000b\":{" SCALAR "}}", 4, "ST13", "byte 10", "NUL"},
    {"S28a", "{\"w\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2,
     "ST07", "w", "whole number of bytes"},
    {"S28b", "{\"w\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2, NULL,
     NULL, NULL},
};

static int parse(struct safetensors **out, const struct tiny_bytes *b,
                 struct artel_error *err)
{
    *err = (struct artel_error){0};
    return safetensors_parse(out, b->data ? b->data : (const void *)"", b->size,
                             "in memory", err);
}

/* The refusal, with file name, code and both parts. */
static void check_row(const struct row *r, const struct tiny_bytes *b)
{
    struct safetensors *s;
    struct artel_error err;
    const int rc = parse(&s, b, &err);

    if (!r->code) {
        if (rc != 0)
            fail_msg("%s: refused: %s: %s [%s]", r->id, err.where, err.reason,
                     err.code);
        safetensors_close(s);
        return;
    }
    if (rc != ARTEL_EFORMAT || strcmp(err.code, r->code) != 0 || s || err.exit != 3 ||
        strcmp(err.file, "in memory") != 0)
        fail_msg("%s: rc %d, %s: %s: %s [%s], expected [%s]", r->id, rc, err.file,
                 err.where, err.reason, err.code, r->code);
    if (r->where && strcmp(err.where, r->where) != 0)
        fail_msg("%s: where is '%s', expected '%s'", r->id, err.where, r->where);
    if (r->reason && !strstr(err.reason, r->reason))
        fail_msg("%s: '%s' lacks '%s'", r->id, err.reason, r->reason);
}

static void S05_to_S28_damaged_headers_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static const char zeros[64];
        struct tiny_bytes b = {0};

        tiny_safetensors(&b, rows[i].header, zeros, rows[i].data_bytes);
        check_row(&rows[i], &b);
        tiny_bytes_release(&b);
    }
}

static void S01_a_file_under_8_bytes_gives_its_size(void **state)
{
    (void)state;
    for (size_t n = 0; n < 8; n++) {
        struct tiny_bytes b = {0};
        char reason[48];

        tiny_put(&b, "\0\0\0\0\0\0\0\0", n);
        snprintf(reason, sizeof(reason), "%zu bytes cannot", n);
        check_row(&(struct row){"S01", NULL, 0, "ST01", NULL, reason}, &b);
        tiny_bytes_release(&b);
    }
}

static void S02_to_S04_header_lengths_are_held_against_the_file(void **state)
{
    static const struct {
        const char *id;
        uint64_t length;
        const char *reason;
    } cases[] = {{"S02", 1000, "header of 1000 bytes, 42 follow"},
                 {"S03a", (uint64_t)1 << 63, "9223372036854775808"},
                 {"S03b", UINT64_MAX, "18446744073709551615"},
                 {"S03c", 100000001, "100000001"},
                 {"S04", 0, "empty"}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static const char rest[42];
        struct tiny_bytes b = {0};

        tiny_u64(&b, cases[i].length);
        tiny_put(&b, rest, sizeof(rest));
        check_row(
            &(struct row){cases[i].id, NULL, 0, "ST01", "byte 0", cases[i].reason}, &b);
        tiny_bytes_release(&b);
    }
}

/* Two tensors, metadata, padding. */
static void make_valid(struct tiny_bytes *b)
{
    static const float values[6] = {1, 2, 3, 4, 5, 6};

    tiny_safetensors(
        b,
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[16,24]}}  ",
        values, sizeof(values));
}

static void S21_every_prefix_is_refused(void **state)
{
    struct tiny_bytes b = {0};

    (void)state;
    make_valid(&b);
    for (size_t n = 0; n < b.size; n++) {
        unsigned char *copy = malloc(n + 1); /* its end is watched by the sanitizer */
        struct safetensors *s;
        struct artel_error err = {0};

        assert_non_null(copy);
        memcpy(copy, b.data, n);
        copy = realloc(copy, n ? n : 1);
        assert_int_equal(safetensors_parse(&s, copy, n, "cut", &err), ARTEL_EFORMAT);
        assert_string_not_equal(err.reason, "");
        free(copy);
    }
    tiny_bytes_release(&b);
}

static void S22_every_flipped_bit_is_refused_or_another_valid_file(void **state)
{
    struct tiny_bytes b = {0};

    (void)state;
    make_valid(&b);
    for (size_t i = 0; i < b.size * 8; i++) {
        struct safetensors *s;
        struct artel_error err;
        int rc;

        b.data[i / 8] ^= (unsigned char)(1 << i % 8);
        rc = parse(&s, &b, &err);
        assert_true(rc == 0 || rc == ARTEL_EFORMAT);
        if (rc == 0) {
            for (size_t k = 0; k < safetensors_count(s); k++)
                (void)tensor_check_finite(safetensors_at(s, k), &err);
            safetensors_close(s);
        }
        b.data[i / 8] ^= (unsigned char)(1 << i % 8);
    }
    tiny_bytes_release(&b);
}

static void S24_a_thousand_dimensions_are_refused(void **state)
{
    struct tiny_bytes header = {0}, b = {0};
    const char *start = "{\"w\":{\"dtype\":\"F32\",\"shape\":[1";

    (void)state;
    tiny_put(&header, start, strlen(start));
    for (size_t i = 1; i < 1000; i++)
        tiny_put(&header, ",1", 2);
    tiny_put(&header, "],\"data_offsets\":[0,4]}}", 25);
    tiny_safetensors(&b, (const char *)header.data, "\0\0\0", 4);
    check_row(&(struct row){"S24", NULL, 0, "ST06", "w", "more than 8"}, &b);
    tiny_bytes_release(&header);
    tiny_bytes_release(&b);
}

static void S25_fifty_thousand_tensors_load_at_once(void **state)
{
    struct tiny_bytes header = {0}, b = {0};
    struct safetensors *s;
    struct artel_error err;
    char text[96];

    (void)state;
    for (size_t i = 0; i < 50000; i++) {
        const int n = snprintf(text, sizeof(text),
                               "%c\"t%zu\":{\"dtype\":\"U8\",\"shape\":[],"
                               "\"data_offsets\":[%zu,%zu]}",
                               i ? ',' : '{', i, i, i + 1);

        tiny_put(&header, text, (size_t)n);
    }
    tiny_put(&header, "}", 2);
    tiny_safetensors(&b, (const char *)header.data, header.data, 50000);
    assert_int_equal(parse(&s, &b, &err), 0);
    assert_int_equal(safetensors_count(s), 50000);
    assert_ptr_equal(safetensors_find(s, "t777"), safetensors_at(s, 777));
    assert_null(safetensors_find(s, "t50000"));
    safetensors_close(s);
    tiny_bytes_release(&header);
    tiny_bytes_release(&b);
}

static void S26_a_name_over_1024_bytes_is_refused(void **state)
{
    char header[1400];
    struct tiny_bytes b = {0};
    size_t n = (size_t)snprintf(header, sizeof(header), "{\"");

    (void)state;
    memset(header + n, 'n', 1025);
    n += 1025;
    snprintf(header + n, sizeof(header) - n, "\":{" SCALAR "}}");
    tiny_safetensors(&b, header, "\0\0\0", 4);
    check_row(&(struct row){"S26a", NULL, 0, "ST13", NULL, "1024"}, &b);
    tiny_bytes_release(&b);
}

static void S27_deep_nesting_is_refused(void **state)
{
    struct tiny_bytes header = {0}, b = {0};

    (void)state;
    tiny_put(&header, "{\"w\":{\"x\":", 10);
    for (size_t i = 0; i < 100000; i++)
        tiny_put(&header, "{\"a\":", 5);
    tiny_put(&header, "", 1);
    tiny_safetensors(&b, (const char *)header.data, "", 0);
    check_row(&(struct row){"S27", NULL, 0, "ST01", NULL, "deeper than 64"}, &b);
    tiny_bytes_release(&header);
    tiny_bytes_release(&b);
}

static void S29_unaligned_data_is_read(void **state)
{
    const char *header =
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}} ";
    const float values[2] = {1.5f, -2.0f};
    struct tiny_bytes b = {0};
    struct safetensors *s;
    struct artel_error err;
    float got[2];

    (void)state;
    tiny_safetensors(&b, header, values, sizeof(values));
    assert_int_not_equal(strlen(header) % 4, 0);
    assert_int_equal(parse(&s, &b, &err), 0);
    memcpy(got, safetensors_find(s, "w")->data, sizeof(got));
    assert_near(got[1], -2.0, 0);
    assert_int_equal(tensor_check_finite(safetensors_find(s, "w"), &err), 0);
    safetensors_close(s);
    tiny_bytes_release(&b);
}

static void S30_G25_values_that_are_not_finite_are_named(void **state)
{
    float f[8] = {0};
    uint16_t half[8] = {0x3c00, 0, 0x7bff, 0, 0, 0x7c00, 0, 0},
             brain[4] = {0x3f80, 0, 0xffc0, 0};
    unsigned char blocks[40] = {0};
    struct tensor t = {.name = "w", .n_dims = 1, .shape = {8}};
    struct artel_error err = {0};

    (void)state;
    f[5] = NAN;
    t.data = f;
    t.bytes = sizeof(f);
    assert_error(tensor_check_finite(&t, &err), ARTEL_EFORMAT, err, "DT01");
    assert_string_equal(err.where, "w");
    assert_non_null(strstr(err.reason, "element 5"));
    t.dtype = DTYPE_F16;
    t.data = half;
    t.bytes = sizeof(half);
    assert_error(tensor_check_finite(&t, &err), ARTEL_EFORMAT, err, "DT01");
    assert_non_null(strstr(err.reason, "element 5"));
    t.dtype = DTYPE_BF16;
    t.data = brain;
    t.bytes = sizeof(brain);
    assert_error(tensor_check_finite(&t, &err), ARTEL_EFORMAT, err, "DT01");
    assert_non_null(strstr(err.reason, "element 2"));
    t.dtype = DTYPE_Q4_1; /* the minimum of block 1 */
    t.data = blocks;
    t.bytes = sizeof(blocks);
    assert_int_equal(tensor_check_finite(&t, &err), 0);
    blocks[20 + 3] = 0x7e;
    assert_error(tensor_check_finite(&t, &err), ARTEL_EFORMAT, err, "DT01");
    assert_non_null(strstr(err.reason, "block 1"));
}

static void S32_what_is_no_file_is_an_input_error(void **state)
{
    struct safetensors *s;
    struct artel_error err = {0};
    char path[] = "/tmp/artel-fifo-XXXXXX";

    (void)state;
    assert_int_equal(safetensors_open(&s, "/tmp", &err), ARTEL_EIO);
    assert_non_null(strstr(err.reason, "folder"));
    assert_int_equal(safetensors_open(&s, "/dev/zero", &err), ARTEL_EIO);
    assert_non_null(strstr(err.reason, "device"));
    assert_int_equal(close(mkstemp(path)), 0);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(safetensors_open(&s, path, &err),
                     ARTEL_EIO); /* and does not block */
    assert_non_null(strstr(err.reason, "FIFO"));
    unlink(path);
}

static void tensors_are_listed_by_offset_and_metadata_is_found(void **state)
{
    struct tiny_bytes b = {0};
    struct safetensors *s;
    struct artel_error err;

    (void)state;
    tiny_safetensors(
        &b,
        "{\"late\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[4,6]},"
        "\"__metadata__\":{\"k\":\"v\\n\"},\"early\":{" SCALAR "}}",
        "\0\0\0\0ab", 6);
    assert_int_equal(parse(&s, &b, &err), 0);
    assert_string_equal(safetensors_at(s, 0)->name, "early");
    assert_string_equal(safetensors_at(s, 1)->name, "late");
    assert_null(safetensors_at(s, 2));
    assert_memory_equal(safetensors_find(s, "late")->data, "ab", 2);
    assert_string_equal(safetensors_metadata(s, "k"), "v\n");
    assert_null(safetensors_metadata(s, "absent"));
    safetensors_close(s);
    tiny_bytes_release(&b);
}

static void written_bytes_are_those_of_the_reference(void **state)
{
    /* safetensors 0.8 (Python) wrote this for the same content */
    static const char want[] =
        "\xc8\0\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"a\":{\"dtype\":\"F16\",\"shape\":[1,2],\"data_offsets\":[8,12]},"
        "\"z\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[12,13]}}      "
        "\0\0\x80?\0\0\0@\0<\0@\x07";
    static const float b[2] = {1, 2};
    static const uint16_t a[2] = {0x3c00, 0x4000};
    static const unsigned char z = 7;
    const struct tensor tensors[] = {
        {"z", DTYPE_U8, 0, {0}, &z, 1},
        {"a", DTYPE_F16, 2, {1, 2}, a, sizeof(a)},
        {"b", DTYPE_F32, 1, {2}, b, sizeof(b)},
    };
    const struct key_value meta = {"format", "pt"};
    char path[] = "/tmp/artel-st-XXXXXX", got[sizeof(want) + 8];
    struct artel_error err = {0};
    FILE *f;

    (void)state;
    assert_int_equal(close(mkstemp(path)), 0);
    assert_int_equal(safetensors_write(path, tensors, 3, &meta, 1, &err), 0);
    f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, sizeof(got), f), sizeof(want) - 1);
    assert_memory_equal(got, want, sizeof(want) - 1);
    fclose(f);
    unlink(path);
}

static void hostile_names_survive_a_round_trip(void **state)
{
    static const unsigned char v = 1;
    const struct tensor t = {"q\"\\\n\x01\xc3\xa9", DTYPE_U8, 1, {1}, &v, 1};
    const struct key_value meta[] = {{"b", "\t"}, {"a", "\"x\""}};
    char path[] = "/tmp/artel-st-XXXXXX";
    struct safetensors *s;
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(close(mkstemp(path)), 0);
    assert_int_equal(safetensors_write(path, &t, 1, meta, 2, &err), 0);
    assert_int_equal(safetensors_open(&s, path, &err), 0);
    assert_non_null(safetensors_find(s, t.name));
    assert_string_equal(safetensors_metadata(s, "a"), "\"x\"");
    assert_string_equal(safetensors_metadata(s, "b"), "\t");
    safetensors_close(s);
    unlink(path);
}

static void a_caller_s_wrong_tensor_is_not_written(void **state)
{
    static const float v[4];
    struct tensor t[2] = {{"w", DTYPE_F32, 1, {3}, v, 16},
                          {"w", DTYPE_F32, 1, {4}, v, 16}};
    struct artel_error err = {0};
    const char *path = "/tmp/artel-never-written";

    (void)state;
    assert_error(safetensors_write(path, t, 1, NULL, 0, &err), ARTEL_EBUG, err, "ST21");
    t[0].shape[0] = 4;
    assert_error(safetensors_write(path, t, 2, NULL, 0, &err), ARTEL_EBUG, err, "ST22");
    t[0].dtype = DTYPE_Q8_0;
    assert_error(safetensors_write(path, t, 1, NULL, 0, &err), ARTEL_EBUG, err, "ST20");
    assert_int_not_equal(access(path, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(S01_a_file_under_8_bytes_gives_its_size),
        cmocka_unit_test(S02_to_S04_header_lengths_are_held_against_the_file),
        cmocka_unit_test(S05_to_S28_damaged_headers_are_refused_by_name),
        cmocka_unit_test(S21_every_prefix_is_refused),
        cmocka_unit_test(S22_every_flipped_bit_is_refused_or_another_valid_file),
        cmocka_unit_test(S24_a_thousand_dimensions_are_refused),
        cmocka_unit_test(S25_fifty_thousand_tensors_load_at_once),
        cmocka_unit_test(S26_a_name_over_1024_bytes_is_refused),
        cmocka_unit_test(S27_deep_nesting_is_refused),
        cmocka_unit_test(S29_unaligned_data_is_read),
        cmocka_unit_test(S30_G25_values_that_are_not_finite_are_named),
        cmocka_unit_test(S32_what_is_no_file_is_an_input_error),
        cmocka_unit_test(tensors_are_listed_by_offset_and_metadata_is_found),
        cmocka_unit_test(written_bytes_are_those_of_the_reference),
        cmocka_unit_test(hostile_names_survive_a_round_trip),
        cmocka_unit_test(a_caller_s_wrong_tensor_is_not_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
