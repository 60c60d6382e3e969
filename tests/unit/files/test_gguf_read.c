/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a reader gets from valid GGUF files, and sets of several files (row G26).
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "files/gguf.h"
#include "support/tiny_model.h"

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

static void values_are_read_with_their_types(void **state)
{
    static const int32_t numbers[] = {-1, 7};
    static const char *const texts[] = {"one", ""};
    struct tiny_gguf *t = new_model();
    struct tiny_bytes b = {0};
    struct gguf *g;
    struct artel_error err = {0};
    struct gguf_value v, e;
    size_t cursor = 0;
    uint64_t u = 9;
    double d = 0;
    bool flag = false;

    (void)state;
    tiny_gguf_i32(t, "negative", -5);
    tiny_gguf_numbers(t, "numbers", TINY_I32, numbers, 2);
    tiny_gguf_texts(t, "texts", texts, 2);
    tiny_gguf_raw(t, "i8", 1, "\x80", 1);
    tiny_gguf_raw(t, "f64", 12, "\0\0\0\0\0\0\xf8\x3f", 8);
    tiny_gguf_bool(t, "flag", 1);
    tiny_gguf_layout(t);
    tiny_gguf_pack(t, &b);
    assert_int_equal(gguf_parse(&g, b.data, b.size, "values", &err), 0);

    assert_int_equal(gguf_get(g, "i8").i, -128);
    assert_near(gguf_get(g, "f64").f, 1.5, 0);
    assert_int_equal(gguf_get(g, "absent").kind, GGUF_ABSENT);
    v = gguf_get(g, "numbers");
    assert_int_equal(v.of, GGUF_INT);
    assert_true(gguf_next(&v, &cursor, &e) && e.i == -1);
    assert_true(gguf_next(&v, &cursor, &e) && e.i == 7);
    assert_false(gguf_next(&v, &cursor, &e));
    v = gguf_get(g, "texts");
    cursor = 0;
    assert_true(gguf_next(&v, &cursor, &e) && e.length == 3 &&
                !memcmp(e.text, "one", 3));
    assert_true(gguf_next(&v, &cursor, &e) && e.length == 0);
    assert_false(gguf_next(&v, &cursor, &e));

    assert_int_equal(gguf_want_uint(g, "absent", &u, &err), 0);
    assert_int_equal(u, 9);
    assert_error(gguf_need_uint(g, "absent", &u, &err), ARTEL_EFORMAT, err, "GGUF20");
    assert_error(gguf_need_uint(g, "texts", &u, &err), ARTEL_EFORMAT, err, "GGUF20");
    assert_string_equal(err.reason, "expected an integer, found an array");
    assert_error(gguf_want_uint(g, "negative", &u, &err), ARTEL_EFORMAT, err, "GGUF20");
    assert_error(gguf_need_float(g, "flag", &d, &err), ARTEL_EFORMAT, err, "GGUF20");
    assert_int_equal(gguf_want_bool(g, "flag", &flag, &err), 0);
    assert_true(flag);
    assert_error(gguf_want_bool(g, "f64", &flag, &err), ARTEL_EFORMAT, err, "GGUF20");
    gguf_close(g);
    tiny_bytes_release(&b);
    free_model(t);
}

static void tensors_keep_shape_and_bytes(void **state)
{
    struct tiny_gguf *t = new_model();
    struct tiny_bytes b = {0};
    struct gguf *g;
    struct artel_error err = {0};
    const struct tensor *down;

    (void)state;
    tiny_gguf_pack(t, &b);
    assert_int_equal(gguf_parse(&g, b.data, b.size, "shapes", &err), 0);
    down = gguf_find(g, "blk.1.ffn_down.weight");
    assert_non_null(down);
    assert_int_equal(down->n_dims, 2);
    assert_int_equal(down->shape[0], 16); /* outermost first */
    assert_int_equal(down->shape[1], 32);
    assert_memory_equal(down->data,
                        tiny_gguf_tensor(t, "blk.1.ffn_down.weight")->data.data,
                        down->bytes);
    assert_null(gguf_find(g, "blk.2.ffn_down.weight"));
    assert_int_equal(gguf_type_number(DTYPE_IQ4_NL), 20);
    gguf_close(g);
    tiny_bytes_release(&b);
    free_model(t);
}

/* A set of two: the keys and some tensors, then the rest of them. */
static void write_set(const char *folder, int64_t number, int64_t count, uint32_t total,
                      bool overlap, bool second)
{
    struct tiny_gguf *g = new_model();
    struct tiny_gguf *rest = malloc(sizeof(*rest));
    const struct tiny_tensor *t;
    char path[256];

    assert_non_null(rest);
    tiny_gguf_init(rest);
    for (size_t i = g->n_tensors / 2; i < g->n_tensors; i++) {
        t = &g->tensors[i];
        tiny_gguf_add(rest, t->name, t->type, t->n_dims, t->ne, t->data.data,
                      t->data.size);
    }
    while (g->n_tensors > (overlap ? 12 : 10)) /* 20 in all */
        tiny_gguf_drop(g, g->tensors[g->n_tensors - 1].name);
    tiny_gguf_u32(g, "split.no", 0);
    tiny_gguf_u32(g, "split.count", 2);
    tiny_gguf_i32(g, "split.tensors.count", 20);
    tiny_gguf_u32(rest, "split.no", (uint32_t)number);
    tiny_gguf_u32(rest, "split.count", (uint32_t)count);
    tiny_gguf_u32(rest, "split.tensors.count", total);
    tiny_gguf_layout(g);
    tiny_gguf_layout(rest);
    snprintf(path, sizeof(path), "%s/m-00001-of-00002.gguf", folder);
    assert_int_equal(tiny_gguf_write(path, g), 0);
    snprintf(path, sizeof(path), "%s/m-00002-of-00002.gguf", folder);
    unlink(path);
    if (second)
        assert_int_equal(tiny_gguf_write(path, rest), 0);
    free_model(rest);
    free_model(g);
}

static void parts_of_a_set_are_named_after_the_first(void **state)
{
    static const char first[] = "a/m-00001-of-00012.gguf";
    char name[64];

    (void)state;
    assert_true(gguf_part_name(name, sizeof(name), first, 0));
    assert_string_equal(name, first);
    assert_true(gguf_part_name(name, sizeof(name), first, 11));
    assert_string_equal(name, "a/m-00012-of-00012.gguf");
    assert_false(gguf_part_name(name, sizeof(name), first, 12));
    assert_false(gguf_part_name(name, 20, first, 1));
    assert_false(gguf_part_name(name, sizeof(name), "m-00002-of-00012.gguf", 1));
    assert_false(gguf_part_name(name, sizeof(name), "m-00001-of-0012.gguf", 1));
    assert_false(gguf_part_name(name, sizeof(name), "-00001-of-00012.gguf", 1));
    assert_false(gguf_part_name(name, sizeof(name), "model.gguf", 0));
}

static void G26_a_broken_set_is_refused_by_its_part(void **state)
{
    static const struct {
        int64_t number, count;
        uint32_t total;
        bool overlap, second;
        int rc;
        const char *code;
    } cases[] = {{1, 2, 20, false, true, 0, ""},
                 {1, 2, 20, false, false, ARTEL_EIO, "IO01"},
                 {0, 2, 20, false, true, ARTEL_EFORMAT, "GGUF26"},
                 {1, 3, 20, false, true, ARTEL_EFORMAT, "GGUF26"},
                 {1, 2, 21, false, true, ARTEL_EFORMAT, "GGUF26"},
                 {1, 2, 20, true, true, ARTEL_EFORMAT, "GGUF26"}};
    char folder[] = "/tmp/artel-set-XXXXXX", path[256];
    struct gguf *g;
    struct artel_error err;

    (void)state;
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_set(folder, cases[i].number, cases[i].count, cases[i].total,
                  cases[i].overlap, cases[i].second);
        snprintf(path, sizeof(path), "%s/m-00001-of-00002.gguf", folder);
        err = (struct artel_error){0};
        assert_error(gguf_open(&g, path, &err), cases[i].rc, err, cases[i].code);
        if (cases[i].rc < 0) {
            assert_non_null(strstr(err.file, "m-00002-of-00002.gguf"));
            continue;
        }
        assert_int_equal(gguf_count(g), 20);
        assert_non_null(gguf_find(g, "output_norm.weight"));
        assert_string_equal(gguf_at(g, 19)->name, "output_norm.weight");
        gguf_close(g);
    }
    write_set(folder, 1, 2, 20, false, true);
    snprintf(path, sizeof(path), "%s/m-00002-of-00002.gguf", folder);
    assert_error(gguf_open(&g, path, &err), ARTEL_EFORMAT, err, "GGUF26");
    assert_non_null(strstr(err.reason, "name the first"));
    unlink(path);
    snprintf(path, sizeof(path), "%s/m-00001-of-00002.gguf", folder);
    unlink(path);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_of_a_set_are_named_after_the_first),
        cmocka_unit_test(G26_a_broken_set_is_refused_by_its_part),
        cmocka_unit_test(values_are_read_with_their_types),
        cmocka_unit_test(tensors_keep_shape_and_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
