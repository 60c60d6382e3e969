/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows J02 to J11 of the catalogue of bad inputs, fields, and writing.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "files/json.h"
#include "files/json_scan.h"
#include "support/tiny_gguf.h"

static const struct {
    const char *id, *text, *code, *where, *reason; /* code NULL: must load */
} rows[] = {
    {"J02", "\xef\xbb\xbf{}", "JSON10", "1:1", "byte-order"},
    {"J03a", "{\n \"a\": \"x\xff\"}", "JSON01", "2:9", "byte 0xFF"},
    {"J03b", "[\"\xc0\x80\"]", "JSON01", "1:3", "not UTF-8"},
    {"J03c", "[\"\xed\xa0\x80\"]", "JSON01", "1:3", "not UTF-8"},
    {"J03d", "[\"\xf4\x90\x80\x80\"]", "JSON01", "1:3", "not UTF-8"},
    {"J03e", "[\"\xe2\x82\"]", "JSON01", "1:3", "not UTF-8"},
    {"J03f", "[\"a\nb\"]", "JSON01", "1:4", "control"},
    {"J04a", "[\"\\ud800\"]", "JSON01", "1:3", "surrogate"},
    {"J04b", "[\"\\udc00\"]", "JSON01", "1:3", "surrogate"},
    {"J04c", "[\"\\ud800\\u0041\"]", "JSON01", "1:3", "surrogate"},
    {"J04d", "[\"\\ud83d\\ude00\"]", NULL, NULL, NULL},
    {"J05a", "{\"a\\u0000b\": 1}", "JSON09", "1:2", "NUL"},
    {"J05b", "[\"a\\u0000b\"]", NULL, NULL, NULL},
    {"J07a", "{\"a\":1,\n\"b\":{\"a\":2},\n \"a\":3}", "JSON02", "3:2",
     "'a' again, first at 1:2"},
    {"J07b", "[{\"k\":1},{\"k\":1,\n\"\\u006b\":2}]", "JSON02", "2:1", "first at 1:11"},
    {"J08a", "[NaN]", "JSON01", "1:2", "found 'N'"},
    {"J08b", "[-Infinity]", "JSON01", "1:3", "found 'I'"},
    {"J08c", "[+1]", "JSON01", "1:2", "found '+'"},
    {"J08d", "[01]", "JSON01", "1:2", "start with 0"},
    {"J08e", "[0x10]", "JSON01", "1:3", "found 'x'"},
    {"J08f", "[1] // no", "JSON01", "1:5", "unexpected text"},
    {"J08g", "[1,]", "JSON01", "1:4", "found ']'"},
    {"J08h", "{\"a\":1,}", "JSON01", "1:8", "key in quotes"},
    {"J08i", "[1.]", "JSON01", "1:4", "digit"},
    {"J08j", "[.5]", "JSON01", "1:2", "found '.'"},
    {"J08k", "[1e]", "JSON01", "1:4", "digit"},
    {"J08l", "['a']", "JSON01", "1:2", "found '''"},
    {"J08m", "[\"\\x41\"]", "JSON01", "1:4", "escape"},
    {"J08n", "[truee]", "JSON01", "1:6", "',' or ']'"},
    {"J09a", "[1e400]", "JSON03", "1:2", "double"},
    {"J09b", "[-1e999]", "JSON03", "1:2", "double"},
    {"J09c", "[1e-400, -0, 9007199254740993]", NULL, NULL, NULL},
    {"J11a", "", "JSON01", "1:1", "empty"},
    {"J11b", "  \n ", "JSON01", "2:2", "empty"},
    {"end1", "[1", "JSON01", "1:3", "ends"},
    {"end2", "{\"a\"", "JSON01", "1:5", "ends"},
    {"end3", "{\"a\":", "JSON01", "1:6", "ends"},
    {"end4", "[\"abc", "JSON01", "1:6", "inside a string"},
    {"mix1", "[1}", "JSON01", "1:3", "',' or ']'"},
    {"mix2", "{\"a\" 1}", "JSON01", "1:6", "':'"},
    {"mix3", "{1:2}", "JSON01", "1:2", "key in quotes"},
    {"mix4", "[]]", "JSON01", "1:3", "unexpected"},
    {"ok1", " [ ] ", NULL, NULL, NULL},
    {"ok2", "\"alone\"", NULL, NULL, NULL},
    {"ok3", "-12.5e-3", NULL, NULL, NULL},
    {"ok4", "{\"\":{\"\":[{},[],null,true,false,\"\\/\\b\\f\\n\\r\\t\\u00e9\"]}}", NULL,
     NULL, NULL},
};

static void J02_to_J11_bad_texts_are_refused_where_they_are_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const size_t n = strlen(rows[i].text);
        char *copy = malloc(n ? n : 1); /* not terminated: reading on is seen */
        struct artel_error err = {0};
        json_t *v;
        int rc;

        assert_non_null(copy);
        memcpy(copy, rows[i].text, n);
        rc = json_parse(&v, copy, n, "text", 0, &err);
        free(copy);
        if (!rows[i].code) {
            if (rc != 0)
                fail_msg("%s: %s: %s [%s]", rows[i].id, err.where, err.reason,
                         err.code);
            json_decref(v);
            continue;
        }
        if (rc != ARTEL_EFORMAT || strcmp(err.code, rows[i].code) != 0 ||
            strcmp(err.where, rows[i].where) != 0 ||
            !strstr(err.reason, rows[i].reason) || strcmp(err.file, "text") != 0 || v)
            fail_msg("%s: rc %d: %s: %s [%s]", rows[i].id, rc, err.where, err.reason,
                     err.code);
    }
}

static void J06_depth_64_loads_and_65_does_not(void **state)
{
    struct tiny_bytes b = {0};
    struct artel_error err = {0};
    json_t *v;

    (void)state;
    for (size_t i = 0; i < 64; i++)
        tiny_put(&b, "[", 1);
    for (size_t i = 0; i < 64; i++)
        tiny_put(&b, "]", 1);
    assert_int_equal(json_parse(&v, (char *)b.data, b.size, "deep", 0, &err), 0);
    json_decref(v);
    b.size = 0;
    for (size_t i = 0; i < 100000; i++)
        tiny_put(&b, "[", 1);
    assert_error(json_parse(&v, (char *)b.data, b.size, "deep", 0, &err), ARTEL_EFORMAT,
                 err, "JSON01");
    assert_string_equal(err.where, "1:65");
    tiny_bytes_release(&b);
}

static void J09_integers_are_exact_or_reals(void **state)
{
    const char *text =
        "[9007199254740993, -0, 1000000000000000019884624838656, 1e-400]";
    struct artel_error err = {0};
    json_t *v;

    (void)state;
    assert_int_equal(json_parse(&v, text, strlen(text), "numbers", 0, &err), 0);
    assert_true(json_integer_value(json_array_get(v, 0)) == 9007199254740993);
    assert_true(json_is_integer(json_array_get(v, 1)));
    assert_true(json_is_real(json_array_get(v, 2)));
    assert_near(json_real_value(json_array_get(v, 2)), 1e30, 0);
    assert_near(json_real_value(json_array_get(v, 3)), 0, 0);
    json_decref(v);
}

static void strings_are_unescaped(void **state)
{
    const char *text = "[\"\\ud83d\\ude00\\u00e9\\u20ac\\n\\u0000z\"]";
    struct artel_error err = {0};
    json_t *v;

    (void)state;
    assert_int_equal(json_parse(&v, text, strlen(text), "text", 0, &err), 0);
    assert_int_equal(json_string_length(json_array_get(v, 0)), 12);
    assert_memory_equal(json_string_value(json_array_get(v, 0)),
                        "\xf0\x9f\x98\x80\xc3\xa9\xe2\x82\xac\n\0z", 12);
    json_decref(v);
}

static void lines_of_a_part_count_from_its_base(void **state)
{
    struct artel_error err = {0};
    json_t *v;

    (void)state;
    assert_int_equal(json_parse(&v, "{x", 2, "rows.jsonl", 41, &err), ARTEL_EFORMAT);
    assert_string_equal(err.where, "42:2");
}

static const char *write_temporary(char path[32], const char *text, size_t n)
{
    strcpy(path, "/tmp/artel-json-XXXXXX");
    assert_int_equal(close(mkstemp(path)), 0);
    assert_int_equal(tiny_save(path, text, n), 0);
    return path;
}

static void J10_J11_files_have_a_size_and_an_object(void **state)
{
    struct artel_error err = {0};
    char path[32];
    json_t *v;

    (void)state;
    assert_int_equal(json_read_file(&v,
                                    write_temporary(path, "\xef\xbb\xbf{\"a\":1}", 10),
                                    64, &err),
                     0); /* J02: the mark is skipped in files */
    json_decref(v);
    assert_error(json_read_file(&v, path, 9, &err), ARTEL_EFORMAT, err, "JSON05");
    unlink(path);
    for (size_t i = 0; i < 3; i++) {
        static const char *const texts[] = {"", "null", "[]"};

        err = (struct artel_error){0};
        write_temporary(path, texts[i], strlen(texts[i]));
        assert_error(json_read_file(&v, path, 64, &err), ARTEL_EFORMAT, err,
                     i ? "JSON04" : "JSON01");
        assert_string_equal(err.file, path);
        unlink(path);
    }
}

static void fields_have_the_type_they_must(void **state)
{
    const char *text =
        "{\"s\":\"x\",\"n\":\"a\\u0000\",\"i\":4096,\"neg\":-1,\"f\":4096.5,"
        "\"b\":true,\"z\":null,\"big\":1e30}";
    struct artel_error err = {0};
    const char *s = "kept";
    uint64_t u = 3;
    double d = 2;
    bool b = false;
    json_t *o;

    (void)state;
    assert_int_equal(json_parse(&o, text, strlen(text), "fields", 0, &err), 0);
    assert_int_equal(json_want_string(o, "absent", &s, &err), 0);
    assert_int_equal(json_want_string(o, "z", &s, &err), 0);
    assert_string_equal(s, "kept");
    assert_int_equal(json_need_string(o, "s", &s, &err), 0);
    assert_string_equal(s, "x");
    assert_error(json_need_string(o, "z", &s, &err), ARTEL_EFORMAT, err, "JSON06");
    assert_error(json_want_string(o, "i", &s, &err), ARTEL_EFORMAT, err, "JSON07");
    assert_string_equal(err.reason, "expected a string, found an integer");
    assert_error(json_want_string(o, "n", &s, &err), ARTEL_EFORMAT, err, "JSON09");
    assert_int_equal(json_want_uint(o, "i", 1, 4096, &u, &err), 0);
    assert_int_equal(u, 4096);
    assert_error(json_want_uint(o, "i", 1, 4095, &u, &err), ARTEL_EFORMAT, err,
                 "JSON08");
    assert_error(json_want_uint(o, "neg", 0, 9, &u, &err), ARTEL_EFORMAT, err,
                 "JSON08");
    assert_error(json_want_uint(o, "f", 0, 9, &u, &err), ARTEL_EFORMAT, err, "JSON07");
    assert_error(json_want_uint(o, "s", 0, 9, &u, &err), ARTEL_EFORMAT, err, "JSON07");
    assert_error(json_want_uint(o, "big", 0, UINT64_MAX, &u, &err), ARTEL_EFORMAT, err,
                 "JSON07");
    assert_int_equal(json_want_double(o, "i", &d, &err), 0);
    assert_near(d, 4096, 0);
    assert_error(json_want_double(o, "b", &d, &err), ARTEL_EFORMAT, err, "JSON07");
    assert_int_equal(json_want_bool(o, "b", &b, &err), 0);
    assert_true(b);
    assert_error(json_want_bool(o, "i", &b, &err), ARTEL_EFORMAT, err, "JSON07");
    json_decref(o);
}

static void written_json_is_what_people_write(void **state)
{
    const char *text =
        "{\"b\":[0.05,1.0,1e300,-2,[],{}],\"a\":\"\\u0001\\\"\xc3\xa9\"}";
    const char *want =
        "{\n  \"a\": \"\\u0001\\\"\xc3\xa9\",\n  \"b\": [\n    0.05,\n    1.0,\n"
        "    1e+300,\n    -2,\n    [],\n    {}\n  ]\n}\n";
    struct artel_error err = {0};
    char path[32], got[256] = {0};
    json_t *v, *again;
    FILE *f;

    (void)state;
    assert_int_equal(json_parse(&v, text, strlen(text), "text", 0, &err), 0);
    write_temporary(path, "", 0);
    assert_int_equal(json_write_file(path, v, true, &err), 0);
    f = fopen(path, "rb");
    assert_non_null(f);
    assert_true(fread(got, 1, sizeof(got) - 1, f) > 0);
    fclose(f);
    assert_string_equal(got, want);
    assert_int_equal(json_read_file(&again, path, 4096, &err), 0);
    assert_true(json_equal(v, again));
    json_decref(again);
    json_decref(v);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(J02_to_J11_bad_texts_are_refused_where_they_are_bad),
        cmocka_unit_test(J06_depth_64_loads_and_65_does_not),
        cmocka_unit_test(J09_integers_are_exact_or_reals),
        cmocka_unit_test(J10_J11_files_have_a_size_and_an_object),
        cmocka_unit_test(strings_are_unescaped),
        cmocka_unit_test(lines_of_a_part_count_from_its_base),
        cmocka_unit_test(fields_have_the_type_they_must),
        cmocka_unit_test(written_json_is_what_people_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
