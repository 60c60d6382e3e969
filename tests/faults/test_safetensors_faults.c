/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Row R20: the n-th allocation of a reader fails, once and from then on. The answer
 * is "a limit was reached", nothing is kept (the leak check sees it), and the same
 * input loads afterwards.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "files/gguf.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "files/yaml.h"
#include "faults/alloc_faults.h"
#include "support/tiny_model.h"

static int read_safetensors(const struct tiny_bytes *b, struct artel_error *err)
{
    struct safetensors *s;
    const int rc = safetensors_parse(&s, b->data, b->size, "memory", err);

    assert_true((rc == 0) == (s != NULL));
    safetensors_close(s);
    return rc;
}

static int read_gguf(const struct tiny_bytes *b, struct artel_error *err)
{
    struct gguf *g;
    const int rc = gguf_parse(&g, b->data, b->size, "memory", err);

    assert_true((rc == 0) == (g != NULL));
    gguf_close(g);
    return rc;
}

static int read_json(const struct tiny_bytes *b, struct artel_error *err)
{
    json_t *v;
    const int rc = json_parse(&v, (const char *)b->data, b->size, "memory", 0, err);

    assert_true((rc == 0) == (v != NULL));
    json_decref(v);
    return rc;
}

static int read_yaml(const struct tiny_bytes *b, struct artel_error *err)
{
    struct yaml_node *root;
    const int rc = yaml_parse(&root, (const char *)b->data, b->size, "memory", err);

    assert_true((rc == 0) == (root != NULL));
    yaml_close(root);
    return rc;
}

static void fail_each_in_turn(int (*read)(const struct tiny_bytes *,
                                          struct artel_error *),
                              const struct tiny_bytes *b)
{
    struct artel_error err = {0};
    size_t total;

    allocation.armed = true;
    allocation.for_good = false;
    allocation.seen = 0;
    allocation.fail_at = SIZE_MAX;
    assert_int_equal(read(b, &err), 0);
    total = allocation.seen;
    assert_true(total > 0);
    for (int always = 0; always < 2; always++)
        for (size_t i = 0; i < total; i++) {
            int rc;

            allocation.for_good = always;
            allocation.fail_at = i;
            allocation.seen = 0;
            err = (struct artel_error){0};
            allocation.armed = true;
            rc = read(b, &err);
            allocation.armed = false;
            assert_error(rc, ARTEL_ELIMIT, err, "MEM01");
            assert_string_equal(err.file, "memory");
        }
    allocation.armed = false;
    assert_int_equal(read(b, &err), 0);
}

static void R20_safetensors_survives_every_failing_allocation(void **state)
{
    struct tiny_bytes header = {0}, b = {0};
    char text[96];

    (void)state;
    tiny_put(&header, "{\"__metadata__\":{\"a\":\"b\"}", 25);
    for (size_t i = 0; i < 100; i++) {
        snprintf(text, sizeof(text),
                 ",\"t%zu\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[%zu,%zu]}",
                 i, i, i + 1);
        tiny_put(&header, text, strlen(text));
    }
    tiny_put(&header, "}", 2);
    tiny_safetensors(&b, (const char *)header.data, header.data, 100);
    fail_each_in_turn(read_safetensors, &b);
    tiny_bytes_release(&header);
    tiny_bytes_release(&b);
}

static void R20_gguf_survives_every_failing_allocation(void **state)
{
    static struct tiny_gguf g;
    struct tiny_model m;
    struct tiny_bytes b = {0};

    (void)state;
    tiny_model_default(&m);
    tiny_model_gguf(&m, &g);
    tiny_gguf_pack(&g, &b);
    fail_each_in_turn(read_gguf, &b);
    tiny_gguf_release(&g);
    tiny_bytes_release(&b);
}

static void R20_json_survives_every_failing_allocation(void **state)
{
    const char *text =
        "{\"key\":[1,2.5,\"text\",{\"inner\":null,\"more\":true}],\"z\":{}}";
    struct tiny_bytes b = {0};

    (void)state;
    tiny_put(&b, text, strlen(text));
    fail_each_in_turn(read_json, &b);
    tiny_bytes_release(&b);
}

static void R20_yaml_survives_every_failing_allocation(void **state)
{
    const char *text = "a: [1, \"two\"]\nb:\n  c: {d: e}\n";
    struct tiny_bytes b = {0};

    (void)state;
    tiny_put(&b, text, strlen(text));
    fail_each_in_turn(read_yaml, &b);
    tiny_bytes_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(R20_safetensors_survives_every_failing_allocation),
        cmocka_unit_test(R20_gguf_survives_every_failing_allocation),
        cmocka_unit_test(R20_json_survives_every_failing_allocation),
        cmocka_unit_test(R20_yaml_survives_every_failing_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
