/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recipes: the design's example, other people's spellings, and every mistake
 * with its code and place (C04, C05, C06, C18, A02, A04, A17, A18).
 */
#include "check.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "artel.h"
#include "plan/recipe.h"
#include "plan/recipe_keys.h"

static int parse(struct recipe **r, const char *text, struct artel_error *err)
{
    *err = (struct artel_error){0};
    return recipe_parse(r, text, strlen(text), "r.yaml", "/srv", NULL, 0, err);
}

static struct recipe *parsed(const char *text)
{
    struct artel_error err;
    struct recipe *r;

    if (parse(&r, text, &err) < 0)
        fail_msg("refused: %s: %s", err.where, err.reason);
    return r;
}

static const char design[] =
    "model: models/SmolLM2-135M-Instruct.Q4_1.gguf\n"
    "output: runs/eight\n"
    "method: moa                       # any name of docs/METHODS.md, or a list\n"
    "lora: {rank: 8, alpha: 16, target: all}\n"
    "domains:\n"
    "  math: {train: data/math/train.jsonl, valid: data/math/valid.jsonl, "
    "test: data/math/test.jsonl, score: exact}\n"
    "  law:  {train: data/law/train.jsonl, max_rows: 600}\n"
    "  code: {adapter: adapters/my-peft-lora, train: data/code.jsonl}\n"
    "universal: {train: data/general/train.jsonl}\n"
    "general: {mmlu: data/eval/mmlu/test.jsonl}\n"
    "train: {learning_rate: 2.0e-4, epochs: 1, batch_tokens: 2048, cutoff_len: 512,\n"
    "        lr_scheduler: cosine, warmup_ratio: 0.03, max_grad_norm: 1.0, seed: 1,\n"
    "        save_steps: 200, eval_steps: 100, precision: auto}\n"
    "router: {eta: 0.1, selector: last}\n";

static void the_example_of_the_design_is_read(void **state)
{
    struct recipe *r = parsed(design);

    (void)state;
    assert_string_equal(r->model, "/srv/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert_string_equal(r->output, "/srv/runs/eight");
    assert_int_equal(r->n_methods, 1);
    assert_string_equal(r->methods[0], "moa");
    assert_int_equal(r->lora.rank, 8);
    assert_near(r->lora.alpha, 16, 0);
    assert_true(r->lora.targets[SITE_Q] && r->lora.targets[SITE_DOWN]);
    assert_int_equal(r->n_domains, 3);
    assert_string_equal(r->domains[0].name, "math");
    assert_string_equal(r->domains[0].score, "exact");
    assert_string_equal(r->domains[0].valid, "/srv/data/math/valid.jsonl");
    assert_int_equal(r->domains[1].max_rows, 600);
    assert_string_equal(r->domains[2].adapter, "/srv/adapters/my-peft-lora");
    assert_string_equal(r->universal->text.train, "/srv/data/general/train.jsonl");
    assert_int_equal(r->n_general, 1);
    assert_string_equal(r->general[0].name, "mmlu");
    assert_near(r->train.learning_rate, 2e-4, 0);
    assert_int_equal(r->train.batch_tokens, 2048);
    assert_int_equal(r->train.cutoff_len, 512);
    assert_int_equal(r->train.eval_steps, 100);
    assert_true(r->train.load_best);
    assert_int_equal(r->train.schedule, SCHEDULE_COSINE);
    assert_near(r->router.eta, 0.1, 0);
    assert_int_equal(r->router.selector, SELECT_LAST);
    recipe_close(r);
}

static void other_spellings_mean_the_same(void **state)
{
    struct recipe *r = parsed("model_name_or_path: /m\noutput_dir: out\n"
                              "num_train_epochs: 3.0\nlora_rank: 4\nlora_alpha: 8\n"
                              "lora_target: q_proj,v_proj\nmax_samples: 50\n"
                              "learning_rate: 1E-3\nper_device_train_batch_size: 8\n"
                              "lr_scheduler_type: linear\nuse_rslora: yes\n"
                              "methods: [mixed, moa]\n"
                              "domains: {a: a.jsonl, b: {train: b.jsonl, "
                              "max_samples: 7}}\n");

    (void)state;
    assert_string_equal(r->model, "/m");
    assert_string_equal(r->output, "/srv/out");
    assert_near(r->train.epochs, 3, 0);
    assert_int_equal(r->lora.rank, 4);
    assert_near(r->lora.alpha, 8, 0);
    assert_true(r->lora.targets[SITE_Q] && r->lora.targets[SITE_V]);
    assert_false(r->lora.targets[SITE_K]);
    assert_true(r->lora.use_rslora);
    assert_int_equal(r->max_rows, 50);
    assert_int_equal(r->domains[1].max_rows, 7);
    assert_string_equal(r->domains[0].train, "/srv/a.jsonl");
    assert_int_equal(r->train.batch_size, 8);
    assert_int_equal(r->train.batch_tokens, 0);
    assert_int_equal(r->train.schedule, SCHEDULE_LINEAR);
    assert_int_equal(r->n_methods, 2);
    assert_string_equal(r->methods[1], "moa");
    recipe_close(r);
}

#define HEAD "model: m\noutput: o\ndomains: {a: a.jsonl}\n"

static void any_spelling_of_a_number_is_read(void **state)
{
    static const char *const spellings[] = {"0.0001", "1e-4",   "1.0e-4", "1E-04",
                                            ".0001",  "0.1e-3", "+1e-4",  "1.e-4"};

    (void)state;
    for (size_t i = 0; i < sizeof(spellings) / sizeof(spellings[0]); i++) {
        char text[200];
        struct recipe *r;

        snprintf(text, sizeof(text), HEAD "train: {learning_rate: %s}\n", spellings[i]);
        r = parsed(text);
        assert_near(r->train.learning_rate, 1e-4, 0);
        recipe_close(r);
    }
}

struct bad {
    const char *text, *code, *where, *says;
};

static const struct bad bad_recipes[] = {
    {HEAD "train: {lerning_rate: 1}\n", "RCP01", "4:9", "learning_rate"},
    {HEAD "trian: {seed: 1}\n", "RCP01", "4:1", "'train'"},
    {HEAD "num_train_epoch: 1\n", "RCP01", "4:1", "num_train_epochs"},
    {HEAD "zzzzzzzz: 1\n", "RCP01", "4:1", "zzzzzzzz"},
    {HEAD "lora: {rank: 0}\n", "RCP03", "4:8", "from 1"},
    {HEAD "lora: {rank: -1}\n", "RCP03", "4:8", "from 1"},
    {HEAD "lora: {rank: 2147483648}\n", "RCP03", "4:8", "4096"},
    {HEAD "lora: {rank: \"8\"}\n", "RCP02", "4:8", "quoted"},
    {HEAD "lora: {alpha: nan}\n", "RCP02", "4:8", "nan"},
    {HEAD "lora: {alpha: .inf}\n", "RCP02", "4:8", "inf"},
    {HEAD "lora: {alpha: 1e308}\n", "RCP03", "4:8", "1e308"},
    {HEAD "lora: {target: [q_proj, z_proj]}\n", "RCP03", NULL, "z_proj"},
    {HEAD "lora: {target: []}\n", "RCP02", "4:8", "linears"},
    {HEAD "lora: 8\n", "RCP02", "4:1", "map"},
    {HEAD "train: {learning_rate: 1,5}\n", NULL, NULL, NULL},
    {HEAD "train: {learning_rate: '1,5'}\n", "RCP02", "4:9", "1,5"},
    {HEAD "train: {learning_rate: -5}\n", "RCP03", "4:9", "-5"},
    {HEAD "train: {learning_rate: 0x10}\n", "RCP02", "4:9", "0x10"},
    {HEAD "train: {learning_rate: 5x}\n", "RCP02", "4:9", "5x"},
    {HEAD "train: {learning_rate: ' 5'}\n", "RCP02", "4:9", "quoted"},
    {HEAD "train: {learning_rate: 1e999}\n", "RCP03", "4:9", "1e999"},
    {HEAD "train: {batch_size: 0}\n", "RCP03", "4:9", "from 1"},
    {HEAD "train: {batch_size: 010}\n", "RCP02", "4:9", "010"},
    {HEAD "train: {batch_size: 2.5}\n", "RCP02", "4:9", "whole"},
    {HEAD "train: {cutoff_len: 1}\n", "RCP03", "4:9", "from 2"},
    {HEAD "train: {cutoff_len: 1099511627776}\n", "RCP03", "4:9", "1048576"},
    {HEAD "train: {seed: 99999999999999999999}\n", "RCP03", "4:9", "9007199254740992"},
    {HEAD "train: {epochs: 0}\n", "RCP03", "4:9", "above 0"},
    {HEAD "train: {shuffle: 2}\n", "RCP02", "4:9", "true or false"},
    {HEAD "train: {shuffle: [true]}\n", "RCP02", "4:9", "list"},
    {HEAD "train: {lr_scheduler: cosin}\n", "RCP03", "4:9", "cosine"},
    {HEAD "train: {precision: fp16}\n", "RCP03", "4:9", "bf16"},
    {HEAD "train: {batch_size: 4, batch_tokens: 100}\n", "RCP06", "4:9", "not both"},
    {HEAD "train: {epochs: 1, num_train_epochs: 2}\n", "RCP06", "4:20", "line 4"},
    {HEAD "learning_rate: 1\ntrain: {learning_rate: 2}\n", "RCP06", "5:9", "line 4"},
    {HEAD "train: {early_stopping_patience: 3}\n", "RCP06", "4:9", "eval_steps"},
    {HEAD "router: {eta: 0}\n", "RCP06", "4:10", "nothing"},
    {HEAD "method: mao\n", "RCP03", "4:1", "'moa'"},
    {HEAD "router: {label: argmax, router_only: true}\n", "RCP06", "4:25", "argmax"},
    {HEAD "router: {refresh: 1, label: argmax}\n", "RCP06", "4:10", "refresh"},
    {HEAD "router: {init: fresh, router_only: true}\n", "RCP06", "4:10", "new LoRAs"},
    {HEAD "router: {ngram_min: 5}\n", "RCP06", "4:10", "ngram_max 4"},
    {HEAD "router: {ngram_max: 9}\n", "RCP03", "4:10", "8"},
    {HEAD "router: {ngram_buckets: 10}\n", "RCP03", "4:10", "64"},
    {HEAD "router: {classifier: ngram}\n", "RCP03", "4:10", "ngrams"},
    {HEAD "method: classifier\nrouter: {classifier: ngrams, ridge_layers: [1]}\n",
     "RCP06", "5:30", "layers of the base"},
    {HEAD "router: {cache_mib: -1}\n", "RCP03", "4:10", "cache_mib"},
    {HEAD "method: [moa, moa]\n", "RCP06", NULL, "twice"},
    {HEAD "method: []\n", "RCP02", "4:1", "no method"},
    {"output: o\ndomains: {a: a.jsonl}\n", "RCP04", NULL, "'model'"},
    {"model: m\ndomains: {a: a.jsonl}\n", "RCP04", NULL, "'output'"},
    {"model: m\noutput: o\n", "RCP04", NULL, "'domains'"},
    {"model: m\noutput: o\ndomains: {}\n", "RCP02", "3:1", "domains"},
    {"model: m\noutput: o\ndomains: {a: {}}\n", "RCP04", NULL, "'a'"},
    {"model: m\noutput: o\ndomains: {a: {trian: x}}\n", "RCP01", NULL, "'train'"},
    {"model: m\noutput: o\ndomains: {a: {adapter: x}}\n", "RCP04", NULL, "router"},
    {"model: m\noutput: o\ndomains:\n  a: {train: x, score: exakt}\n", "RCP03", "4:1",
     "'exact'"},
    {"model: m\noutput: o\ndomains:\n  a: x\n  A: y\n", "RCP05", "5:3", "line 4"},
    {"model: m\noutput: o\ndomains:\n  ../x: y\n", "RCP05", "4:3", "../x"},
    {"model: m\noutput: o\ndomains:\n  -x: y\n", "RCP05", "4:3", "-x"},
    {"model: m\noutput: o\ndomains:\n  auto: y\n", "RCP05", "4:3", "auto"},
    {"model: [m]\noutput: o\ndomains: {a: b}\n", "RCP02", "1:1", "path"},
    {"model: ''\noutput: o\ndomains: {a: b}\n", "RCP02", "1:1", "empty"},
    {"- a\n- b\n", "RCP02", "1:1", "map"},
    {"", NULL, NULL, NULL},
    {"model: m\nmodel: n\n", NULL, NULL, NULL},
    {"model: &a m\noutput: *a\n", NULL, NULL, NULL},
    {"a: [\n", NULL, NULL, NULL},
};

static void every_mistake_has_its_code_and_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_recipes) / sizeof(bad_recipes[0]); i++) {
        const struct bad *b = &bad_recipes[i];
        struct artel_error err;
        struct recipe *r;
        const int rc = parse(&r, b->text, &err);

        if (rc != ARTEL_EUSAGE || err.exit != 2)
            fail_msg("recipe %zu gave %d: %s\n%s", i, rc, err.reason, b->text);
        assert_null(r);
        assert_string_equal(err.file, "r.yaml");
        if (b->code && strcmp(err.code, b->code) != 0)
            fail_msg("recipe %zu: [%s] %s: %s\n%s", i, err.code, err.where, err.reason,
                     b->text);
        if (b->where && strcmp(err.where, b->where) != 0)
            fail_msg("recipe %zu: at %s: %s\n%s", i, err.where, err.reason, b->text);
        if (b->says && !strstr(err.reason, b->says))
            fail_msg("recipe %zu says '%s', not '%s'", i, err.reason, b->says);
    }
}

static void overrides_win(void **state)
{
    static const char *const set[] = {"train.seed=7", "output=elsewhere",
                                      "domains.a.max_rows=5",
                                      "train.learning_rate=1e-3"};
    static const char *const wrong[] = {"train.sead=7"};
    struct artel_error err = {0};
    struct recipe *r;

    (void)state;
    assert_int_equal(recipe_parse(&r, design, strlen(design), "r", "/w", set, 2, &err),
                     0);
    assert_int_equal(r->train.seed, 7);
    assert_string_equal(r->output, "/w/elsewhere");
    recipe_close(r);
    assert_int_equal(
        recipe_parse(&r, design, strlen(design), "r", "/w", wrong, 1, &err),
        ARTEL_EUSAGE);
    assert_non_null(strstr(err.reason, "'seed'"));
}

static void what_is_printed_reads_back_the_same(void **state)
{
    struct artel_error err = {0};
    struct recipe *r = parsed(design), *back;
    char *text, *again;

    (void)state;
    r->train.learning_rate = 1.0 / 3.0;
    r->lora.dropout = 0.1f;
    assert_int_equal(recipe_print(&text, r, &err), 0);
    if (recipe_parse(&back, text, strlen(text), "r.yaml", "/", NULL, 0, &err) < 0)
        fail_msg("%s: %s\n%s", err.where, err.reason, text);
    assert_true(back->train.learning_rate == r->train.learning_rate);
    assert_true(back->lora.dropout == 0.1f);
    assert_non_null(strstr(text, "dropout: 0.1\n"));
    assert_int_equal(recipe_print(&again, back, &err), 0);
    assert_string_equal(text, again);
    free(text);
    free(again);
    recipe_close(back);
    recipe_close(r);
}

/* A path may hold what YAML folds or refuses when it stands there as it is. */
static void odd_characters_of_a_path_are_printed_so_that_they_read_back(void **state)
{
    static const char odd[] =
        "/srv/x\ty: \xe2\x80\xa9 \xc2\x85\xef\xbf\xbe\xef\xbb\xbf\x7f\"\\\n";
    struct artel_error err = {0};
    struct recipe *r = parsed("model: m\ndomains: {a: a.jsonl}\noutput: \"x\\ty: "
                              "\\u2029 \\x85\\uFFFE\\uFEFF\\x7f"
                              "\\\"\\\\\\n\"\n"),
                  *back;
    char *text;

    (void)state;
    assert_string_equal(r->output, odd);
    assert_int_equal(recipe_print(&text, r, &err), 0);
    if (recipe_parse(&back, text, strlen(text), "r.yaml", "/", NULL, 0, &err) < 0)
        fail_msg("%s: %s\n%s", err.where, err.reason, text);
    assert_string_equal(back->output, odd);
    free(text);
    recipe_close(back);
    recipe_close(r);
}

static void a_comma_locale_changes_nothing(void **state)
{
    struct recipe *r;

    (void)state;
    if (!setlocale(LC_ALL, "de_DE.UTF-8") && !setlocale(LC_ALL, "fr_FR.UTF-8"))
        skip();
    r = parsed(HEAD "train: {learning_rate: 1.5e-4}\n");
    setlocale(LC_ALL, "C");
    assert_near(r->train.learning_rate, 1.5e-4, 0);
    recipe_close(r);
}

static void a_file_is_read_and_named(void **state)
{
    char folder[] = "/tmp/artel-recipe-XXXXXX", path[64];
    struct artel_error err = {0};
    struct recipe *r;
    FILE *f;

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/r.yaml", folder);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(HEAD, f);
    fclose(f);
    assert_int_equal(recipe_open(&r, path, NULL, 0, &err), 0);
    assert_memory_equal(r->model, folder, strlen(folder));
    assert_string_equal(r->path, path);
    recipe_close(r);
    unlink(path);
    assert_int_equal(recipe_open(&r, path, NULL, 0, &err), ARTEL_EIO);
    assert_int_equal(recipe_open(&r, folder, NULL, 0, &err), ARTEL_EIO);
    rmdir(folder);
}

static void every_alias_leads_to_a_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < recipe_key_count(); i++)
        for (size_t k = 0; k < i; k++)
            assert_false(!strcmp(recipe_key_at(i)->name, recipe_key_at(k)->name) &&
                         !strcmp(recipe_key_at(i)->section, recipe_key_at(k)->section));
    assert_ptr_equal(recipe_key_find("", "lora_target"),
                     recipe_key_find("lora", "target"));
    assert_ptr_equal(recipe_key_find("", "lr_scheduler_type"),
                     recipe_key_find("train", "lr_scheduler"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_example_of_the_design_is_read),
        cmocka_unit_test(other_spellings_mean_the_same),
        cmocka_unit_test(any_spelling_of_a_number_is_read),
        cmocka_unit_test(every_mistake_has_its_code_and_place),
        cmocka_unit_test(overrides_win),
        cmocka_unit_test(what_is_printed_reads_back_the_same),
        cmocka_unit_test(odd_characters_of_a_path_are_printed_so_that_they_read_back),
        cmocka_unit_test(a_comma_locale_changes_nothing),
        cmocka_unit_test(a_file_is_read_and_named),
        cmocka_unit_test(every_alias_leads_to_a_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
