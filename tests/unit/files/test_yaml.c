/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recipes as trees: what is read, what is refused and where, overrides, printing.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "files/yaml.h"
#include "support/tiny_gguf.h"

static struct yaml_node *read_text(const char *text)
{
    struct yaml_node *root;
    struct artel_error err = {0};

    if (yaml_parse(&root, text, strlen(text), "recipe", &err) < 0)
        fail_msg("%s: %s [%s]", err.where, err.reason, err.code);
    return root;
}

static const struct {
    const char *text, *code, *where;
} rows[] = {
    {"a: [1, 2", "YAML01", "2:1"},           {"a: 1\n b: 2\n", "YAML01", "2:3"},
    {"a: \"\xff\"", "YAML01", ""},           {"\tb: 1", "YAML01", "1:1"},
    {"a: 1\nb: 2\na: 3\n", "YAML02", "3:1"}, {"x: {k: 1, k: 2}", "YAML02", "1:11"},
    {"a: &x 1\nb: *x\n", "YAML03", "1:4"},   {"b: *x\n", "YAML03", "1:4"},
    {"a: &x {k: 1}\n", "YAML03", "1:4"},     {"a: !!int 3\n", "YAML04", "1:4"},
    {"a: !!map {}\n", "YAML04", "1:4"},      {"a: 1\n---\nb: 2\n", "YAML05", "2:1"},
    {"? [1]\n: 2\n", "YAML07", "1:3"},       {"", "YAML08", "1:1"},
    {"# only words\n", "YAML08", "1:1"},     {"a: \"x\\0y\"", "YAML10", "1:4"},
};

static void refused_texts_tell_line_and_column(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct yaml_node *root;
        struct artel_error err = {0};
        const int rc =
            yaml_parse(&root, rows[i].text, strlen(rows[i].text), "recipe", &err);

        if (rc != ARTEL_EFORMAT || strcmp(err.code, rows[i].code) != 0 ||
            strcmp(err.where, rows[i].where) != 0 || strcmp(err.file, "recipe") != 0 ||
            root)
            fail_msg("row %zu: rc %d: %s: %s [%s]", i, rc, err.where, err.reason,
                     err.code);
    }
}

static void depth_above_64_is_refused(void **state)
{
    struct tiny_bytes b = {0};
    struct yaml_node *root;
    struct artel_error err = {0};

    (void)state;
    for (size_t i = 0; i < 65; i++)
        tiny_put(&b, "[", 1);
    for (size_t i = 0; i < 65; i++)
        tiny_put(&b, "]", 1);
    assert_error(yaml_parse(&root, (char *)b.data, b.size, "deep", &err), ARTEL_EFORMAT,
                 err, "YAML06");
    assert_string_equal(err.where, "1:65");
    tiny_bytes_release(&b);
}

static void a_recipe_becomes_a_tree_with_lines(void **state)
{
    struct yaml_node *root = read_text("# head\n"
                                       "model: a.gguf\n"
                                       "train: {learning_rate: 1e-4, on: \"yes\"}\n"
                                       "list:\n"
                                       "  - one\n"
                                       "  - k: v\n"
                                       "empty:\n");
    const struct yaml_node *train = yaml_get(root, "train"),
                           *list = yaml_get(root, "list");

    (void)state;
    assert_int_equal(root->kind, YAML_MAP);
    assert_string_equal(yaml_get(root, "model")->text, "a.gguf");
    assert_int_equal(train->line, 3);
    assert_string_equal(yaml_get(train, "learning_rate")->text, "1e-4");
    assert_false(yaml_get(train, "learning_rate")->quoted);
    assert_true(yaml_get(train, "on")->quoted);
    assert_int_equal(yaml_get(train, "on")->column, 30);
    assert_int_equal(list->kind, YAML_LIST);
    assert_string_equal(list->child->text, "one");
    assert_string_equal(yaml_get(list->child->next, "k")->text, "v");
    assert_int_equal(list->child->next->line, 6);
    assert_string_equal(yaml_get(root, "empty")->text, "");
    assert_null(yaml_get(root, "absent"));
    assert_null(yaml_get(list, "one"));
    yaml_close(root);
    yaml_close(NULL);
}

static void an_override_sets_replaces_and_creates(void **state)
{
    struct yaml_node *root = read_text("train: {epochs: 3}\nname: x\nempty:\n");
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(yaml_override(root, "train.epochs=5", &err), 0);
    assert_int_equal(yaml_override(root, "train.seed=7", &err), 0);
    assert_int_equal(yaml_override(root, "domains.math.files=[a, b]", &err), 0);
    assert_int_equal(yaml_override(root, "empty.k=\"=.\"", &err), 0);
    assert_int_equal(yaml_override(root, "name=", &err), 0);
    assert_string_equal(yaml_get(yaml_get(root, "train"), "epochs")->text, "5");
    assert_string_equal(yaml_get(yaml_get(root, "train"), "seed")->text, "7");
    assert_string_equal(yaml_get(yaml_get(yaml_get(root, "domains"), "math"), "files")
                            ->child->next->text,
                        "b");
    assert_string_equal(yaml_get(yaml_get(root, "empty"), "k")->text, "=.");
    assert_string_equal(yaml_get(root, "name")->text, "");
    assert_int_equal(yaml_override(root, "train=1", &err), 0); /* a map gives way */
    assert_string_equal(yaml_get(root, "train")->text, "1");
    yaml_close(root);
}

static void a_bad_override_is_wrong_use(void **state)
{
    static const char *const bad[] = {"epochs", "=3",   "a..b=1",  ".a=1",
                                      "a.=1",   "x=[1", "name.k=1"};
    struct yaml_node *root = read_text("name: x\n");
    struct artel_error err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_error(yaml_override(root, bad[i], &err), ARTEL_EUSAGE, err, "YAML11");
    assert_null(root->child->next);
    yaml_close(root);
}

static bool same(const struct yaml_node *a, const struct yaml_node *b)
{
    for (; a && b; a = a->next, b = b->next) {
        if (a->kind != b->kind || (a->key != NULL) != (b->key != NULL) ||
            (a->key && strcmp(a->key, b->key) != 0))
            return false;
        if (a->kind == YAML_SCALAR &&
            (strcmp(a->text, b->text) != 0 || (a->quoted && !b->quoted)))
            return false;
        if (a->kind != YAML_SCALAR && !same(a->child, b->child))
            return false;
    }
    return !a && !b;
}

static void printed_text_reads_back_the_same(void **state)
{
    static const char *const texts[] = {
        "model: a.gguf\nlora: {rank: 8, target: all}\nlist: [1, [2, {x: y}], []]\nm: "
        "{}\n",
        "a: \"x: y # z\"\nb: 'it''s'\nc: |\n  line\n  two\nd: plain words, with "
        "[x]\ne:\nf:\n  -\n",
        "\"odd key: #\": 1\n\"-\": 2\n\"\": 3\n\"\\t\\x85\\u2028\xc3\xa9\": "
        "\"\\t\\x85\\u2029\\u00e9\\uFEFF\"\n",
        "plain over\n  two lines\n",
        "- a\n- - b\n  - c: d\n    e: f\n",
        "{}",
        "[]",
        "\"\"",
        "{a: -, b: [--- x, ..., -.5, -1, +.5, .5, -x]}\n",
        "url: http://x/y?z=1#q\nneg: -1\nt: 12:30\nw: c:/x\n"};

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct yaml_node *root = read_text(texts[i]), *again;
        struct artel_error err = {0};
        char *text;

        assert_int_equal(yaml_print(&text, root, &err), 0);
        again = read_text(text);
        if (!same(root, again))
            fail_msg("text %zu came back as:\n%s", i, text);
        free(text);
        yaml_close(again);
        yaml_close(root);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_texts_tell_line_and_column),
        cmocka_unit_test(depth_above_64_is_refused),
        cmocka_unit_test(a_recipe_becomes_a_tree_with_lines),
        cmocka_unit_test(an_override_sets_replaces_and_creates),
        cmocka_unit_test(a_bad_override_is_wrong_use),
        cmocka_unit_test(printed_text_reads_back_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
