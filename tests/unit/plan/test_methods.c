/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recipes of the methods whose routers decide for every token: what their stages leave,
 * what moves and what does not, that a run continues to the same bytes, and what is
 * refused before any work.
 */
#include "methods_fixture.h"
#include "tiles/tiles.h"

static void molora_trains_experts_of_no_domain(void **state)
{
    struct fixture f;
    json_t *root;

    (void)state;
    open_methods(&f);
    assert_int_equal(run_with(&f, "method=molora", NULL), 0);
    assert_false(there(&f, "out/experts"));
    learnt(&f, "molora", 0.3);
    root = read_json(&f, "out/molora/mixture.json");
    assert_int_equal(json_array_size(json_object_get(root, "experts")), 2);
    assert_string_equal(
        json_string_value(json_object_get(
            json_array_get(json_object_get(root, "experts"), 1), "folder")),
        "experts/expert-2");
    assert_true(json_is_true(json_object_get(json_object_get(root, "rule"), "bias")));
    json_decref(root);
    fixture_close(&f);
}

static void check_text(const struct fixture *f, const char *name, const char *key,
                       const char *want)
{
    json_t *root = read_json(f, name);

    assert_string_equal(json_string_value(json_object_get(root, key)), want);
    json_decref(root);
}

static void mixlora_trains_whole_ffns_beside_shared_attention(void **state)
{
    struct fixture f;
    json_t *root, *list;

    (void)state;
    open_methods(&f);
    assert_int_equal(run_with(&f, "method=mixlora", NULL), 0);
    learnt(&f, "mixlora", 0.3);
    root = read_json(&f, "out/mixlora/mixture.json");
    list = json_object_get(root, "experts");
    assert_int_equal(json_array_size(list), 3);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(
            json_string_value(json_object_get(json_array_get(list, i), "kind")),
            i ? "ffn" : "lora");
    assert_true(
        json_is_true(json_object_get(json_object_get(root, "rule"), "whole_ffn")));
    json_decref(root);
    check_text(&f, "out/mixlora/experts/shared/adapter_config.json", "peft_type",
               "LORA");
    check_text(&f, "out/mixlora/experts/expert-1/adapter_config.json", "peft_type",
               "ARTEL_FFN");
    root = read_json(&f, "out/mixlora/experts/shared/adapter_config.json");
    assert_int_equal(json_array_size(json_object_get(root, "target_modules")), 4);
    json_decref(root);
    root = read_json(&f, "out/mixlora/experts/expert-1/adapter_config.json");
    assert_int_equal(json_array_size(json_object_get(root, "target_modules")), 3);
    json_decref(root);
    shell(&f, "grep -q '\"balance\":1\\.' out/train/mixlora/log.jsonl");
    fixture_close(&f);
}

static void mixlora_of_a_share_and_of_one_linear(void **state)
{
    static const char *const set[] = {"method=mixlora", "mixlora.top_p=0.8",
                                      "mixlora.balance=0", "lora.target=up_proj",
                                      "router.experts=3"};
    struct fixture f;
    json_t *root, *rule;

    (void)state;
    open_methods(&f);
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 5}), 0);
    root = read_json(&f, "out/mixlora/mixture.json");
    rule = json_object_get(root, "rule");
    assert_string_equal(json_string_value(json_object_get(rule, "gate")), "top-p");
    assert_int_equal(json_integer_value(json_object_get(rule, "fixed")), 0);
    assert_int_equal(json_array_size(json_object_get(root, "experts")), 3);
    json_decref(root);
    assert_int_equal(child_opens(&f, "out/mixlora"), 0);
    assert_int_equal(child_opens(&f, "out/mixlora/experts/expert-2"), 12);
    /* a LoRA where a whole FFN should be */
    shell(&f,
          "sed -i s/ARTEL_FFN/LORA/ out/mixlora/experts/expert-2/adapter_config.json");
    assert_int_equal(child_opens(&f, "out/mixlora"), 22);
    fixture_close(&f);
}

static void mixlora_is_computed_in_fp32(void **state)
{
    static const char *const bf16[] = {"method=mixlora", "train.precision=bf16"};
    static const char *const automatic[] = {"method=[mixed, mixlora]",
                                            "train.precision=auto"};
    struct fixture f;
    json_t *root;

    (void)state;
    if (!precision_native_bf16())
        skip();
    open_methods(&f);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = bf16,
                                             .n_set = 2,
                                             .notes = "notes"}),
                     -ARTEL_ELIMIT);
    assert_true(said(&f, "notes", "computed in fp32 alone"));
    assert_false(there(&f, "out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = automatic,
                                             .n_set = 2,
                                             .notes = "notes"}),
                     0);
    root = read_json(&f, "out/train/mixlora/stage.json");
    assert_string_equal(json_string_value(json_object_get(
                            json_object_get(root, "summary"), "precision")),
                        "fp32");
    json_decref(root);
    assert_int_equal(child_opens(&f, "out/mixlora"), 0);
    fixture_close(&f);
}

/* The bytes of expert I of the mixture OUT/METHOD, wherever it finds them. */
static void digest_of_expert(char out[DIGEST_SIZE], const struct fixture *f,
                             const char *method, size_t i)
{
    char name[200];
    const char *folder;
    json_t *root;

    snprintf(name, sizeof(name), "out/%s/mixture.json", method);
    root = read_json(f, name);
    folder = json_string_value(
        json_object_get(json_array_get(json_object_get(root, "experts"), i), "folder"));
    assert_non_null(folder);
    snprintf(name, sizeof(name), "out/%s/%s/adapter_model.safetensors", method, folder);
    json_decref(root);
    digest_of(out, f, name);
}

/* Its first N experts are byte for byte those of BEFORE. */
static void kept_bytes(const struct fixture *f, const char *method,
                       char before[3][DIGEST_SIZE], size_t n)
{
    char after[DIGEST_SIZE];

    for (size_t i = 0; i < n; i++) {
        digest_of_expert(after, f, method, i);
        assert_string_equal(before[i], after);
    }
}

static const char *const flan_files[] = {
    "out/experts/universal/adapter_model.safetensors",
    "out/experts/one/adapter_model.safetensors",
    "out/experts/two/adapter_model.safetensors"};

/* Experts of another method, the universal one, and then the router alone. */
static void flan_shares_its_experts_and_moves_none(void **state)
{
    static const char *const set[] = {"method=[single, modula-flan]", "train.epochs=2"};
    const struct child universal = {
        .recipe = "r.yaml", .set = set, .n_set = 2, .only = "universal"};
    char before[3][DIGEST_SIZE], after[DIGEST_SIZE];
    struct fixture f;
    json_t *root;

    (void)state;
    open_methods(&f);
    assert_int_equal(run_with(&f, "method=single", NULL), 0);
    assert_int_equal(run(&f, &universal), 0);
    for (size_t i = 0; i < 3; i++)
        digest_of(before[i], &f, flan_files[i]);
    assert_false(there(&f, "out/modula-flan"));
    assert_int_equal(run_with(&f, set[0], "notes"), 0);
    assert_true(said(&f, "notes", "1 expert-one"));
    assert_false(said(&f, "notes", "4 expert-one"));
    learnt(&f, "universal", 0.3);
    for (size_t i = 0; i < 3; i++) {
        digest_of(after, &f, flan_files[i]);
        assert_string_equal(before[i], after);
    }
    kept_bytes(&f, "modula-flan", before, 3);
    assert_false(there(&f, "out/modula-flan/experts"));
    root = read_json(&f, "out/modula-flan/mixture.json");
    assert_string_equal(json_string_value(json_object_get(
                            json_object_get(root, "universal"), "folder")),
                        "../experts/universal");
    assert_int_equal(json_array_size(json_object_get(root, "experts")), 3);
    assert_int_equal(
        json_object_size(json_object_get(json_object_get(root, "training"), "stages")),
        4);
    json_decref(root);
    root = read_json(&f, "out/experts/universal/adapter_config.json");
    assert_int_equal((int)number_at(root, "r", NULL, NULL), 6);
    assert_int_equal((int)number_at(root, "lora_alpha", NULL, NULL), 6);
    json_decref(root);
    fixture_close(&f);
}

static const char *const res_files[] = {
    "out/experts/universal/adapter_model.safetensors",
    "out/experts-res/one/adapter_model.safetensors",
    "out/experts-res/two/adapter_model.safetensors"};

/* The stages of modula-res but its last, one by one, and then that. */
static void res_learns_on_the_universal_expert_and_the_router_moves_none(void **state)
{
    static const char *const stages[] = {"universal", "res-one", "res-two"};
    static const char *const set[] = {"method=modula-res", "train.epochs=6"};
    char before[3][DIGEST_SIZE], after[DIGEST_SIZE];
    struct fixture f;
    json_t *root, *rule;

    (void)state;
    open_methods(&f);
    for (size_t i = 0; i < 3; i++) {
        const struct child c = {
            .recipe = "r.yaml", .set = set, .n_set = 2, .only = stages[i]};

        assert_int_equal(run(&f, &c), 0);
        digest_of(before[i], &f, res_files[i]);
    }
    assert_false(there(&f, "out/modula-res"));
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 2}), 0);
    for (size_t i = 0; i < 3; i++) {
        digest_of(after, &f, res_files[i]);
        assert_string_equal(before[i], after);
    }
    kept_bytes(&f, "modula-res", before, 3);
    assert_false(there(&f, "out/modula-res/experts"));
    learnt(&f, "res-one", 1.0);
    root = read_json(&f, "out/modula-res/mixture.json");
    rule = json_object_get(root, "rule");
    assert_int_equal(json_integer_value(json_object_get(rule, "fixed")), 1);
    assert_string_equal(
        json_string_value(json_object_get(
            json_array_get(json_object_get(root, "experts"), 1), "kind")),
        "res");
    json_decref(root);
    root = read_json(&f, "out/experts-res/one/adapter_config.json");
    assert_string_equal(json_string_value(json_object_get(root, "peft_type")),
                        "ARTEL_RES");
    json_decref(root);
    root = read_json(&f, "out/experts-res/one/artel.json");
    assert_string_equal(json_string_value(json_object_get(root, "universal_digest")),
                        before[0]);
    json_decref(root);
    fixture_close(&f);
}

static void flan_may_keep_the_universal_expert_beside_each(void **state)
{
    static const char *const set[] = {"method=modula-flan", "universal.keep=true"};
    struct fixture f;

    (void)state;
    open_methods(&f);
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 2}), 0);
    assert_true(there(&f, "out/experts-flan/two/adapter_config.json"));
    assert_false(there(&f, "out/experts/two"));
    fixture_close(&f);
}

static void res_experts_are_refused_where_they_do_not_fit(void **state)
{
    static const char *const set[] = {"method=modula-res", "train.learning_rate=0"};
    static const char *const seed[] = {"method=modula-res", "seed=3"};
    struct child c = {.recipe = "r.yaml",
                      .set = set,
                      .n_set = 1,
                      .only = "res-one",
                      .notes = "notes"};
    struct fixture f;

    (void)state;
    open_methods(&f);
    /* without a universal expert, and beside one that learnt nothing */
    assert_int_equal(run(&f, &c), -ARTEL_EUSAGE);
    assert_true(said(&f, "notes", "no universal expert yet"));
    c.only = NULL;
    c.n_set = 2;
    assert_int_equal(run(&f, &c), -ARTEL_EUSAGE);
    assert_true(said(&f, "notes", "the universal expert is zero"));
    assert_false(there(&f, "out/experts-res"));
    c.n_set = 1;
    c.changes = CHANGES_RETRAIN;
    assert_int_equal(run(&f, &c), 0);
    assert_int_equal(child_opens(&f, "out/modula-res"), 0);
    /* as an adapter, with a LoRA in its place, beside another universal expert */
    shell(&f, "cp -r out keep && cp -r out/experts/universal/* out/experts-res/one/");
    assert_int_equal(child_opens(&f, "out/modula-res"), 22);
    shell(&f, "rm -r out && mv keep out");
    c.set = seed;
    c.n_set = 2;
    c.only = "universal";
    assert_int_equal(run(&f, &c), 0);
    assert_int_equal(child_opens(&f, "out/modula-res"), 14);
    fixture_close(&f);
}

#define ALL_METHODS "method: [molora, slim, mixlora, modula-flan, modula-res]\n"

static void every_method_continues_to_the_same_bytes(void **state)
{
    static const struct {
        const char *stage;
        uint64_t step;
    } stops[] = {{"res-two", 3},
                 {"molora", 3},
                 {"slim", 3},
                 {"mixlora", 3},
                 {"modula-flan-router", 2},
                 {"modula-res-router", 5}};
    static const char *const results[] = {
        "molora/experts/expert-1/adapter_model.safetensors",
        "molora/router.safetensors",
        "slim/experts/expert-1/adapter_model.safetensors",
        "slim/router.safetensors",
        "mixlora/experts/expert-2/adapter_model.safetensors",
        "mixlora/router.safetensors",
        "modula-flan/router.safetensors",
        "modula-res/router.safetensors",
        "experts-res/two/adapter_model.safetensors"};
    struct fixture f;

    (void)state;
    open_methods(&f);
    write_text(&f, "whole.yaml", RECIPE("whole") UNIVERSAL ALL_METHODS);
    write_text(&f, "r.yaml", RECIPE("out") UNIVERSAL ALL_METHODS);
    assert_int_equal(run(&f, &(struct child){.recipe = "whole.yaml", .threads = 2}), 0);
    for (size_t i = 0; i < sizeof(stops) / sizeof(stops[0]); i++)
        assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                                 .stop_stage = stops[i].stage,
                                                 .stop_step = stops[i].step}),
                         -ARTEL_ESTOPPED);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml"}), 0);
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
        char name[96], whole[DIGEST_SIZE], again[DIGEST_SIZE];

        snprintf(name, sizeof(name), "whole/%s", results[i]);
        digest_of(whole, &f, name);
        snprintf(name, sizeof(name), "out/%s", results[i]);
        digest_of(again, &f, name);
        assert_string_equal(whole, again);
    }
    fixture_close(&f);
}

/* In a child: remove "two" from MIXTURE. */
static int child_removes(const struct fixture *f, const char *mixture)
{
    const pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct grow_options o = {0};
        struct artel_error err = {0};
        struct grow_report r;
        char path[256];
        int rc;

        path_in(path, sizeof(path), f, mixture);
        rc = run_remove(path, "two", &o, &r, &err);
        if (rc < 0) {
            fprintf(stderr, "child: %s: %s [%s]\n", err.file, err.reason, err.code);
            exit(-rc);
        }
        rc = r.n_domains == 3 && r.others_unchanged ? 0 : 60;
        grow_report_release(&r);
        exit(rc);
    }
    return finish(pid);
}

static void a_domain_joins_and_no_byte_of_the_others_moves(void **state)
{
    static const char *const methods[] = {"modula-flan", "modula-res"};
    struct mixture_file m;
    struct artel_error err;
    struct fixture f;
    char path[256], before[3][DIGEST_SIZE], three[DIGEST_SIZE], after[DIGEST_SIZE];

    (void)state;
    open_methods(&f);
    for (size_t i = 0; i < 2; i++) {
        char method[32], name[32];

        snprintf(method, sizeof(method), "method=%s", methods[i]);
        snprintf(name, sizeof(name), "out/%s", methods[i]);
        assert_int_equal(run_with(&f, method, NULL), 0);
        for (size_t e = 0; e < 3; e++)
            digest_of_expert(before[e], &f, methods[i], e);
        assert_int_equal(child_adds(&f, name), 0);
        kept_bytes(&f, methods[i], before, 3);
        digest_of_expert(three, &f, methods[i], 3);
        path_in(path, sizeof(path), &f, name);
        assert_int_equal(mixture_file_open(&m, path, NULL, false, &err), 0);
        assert_int_equal(m.n_domains, 3);
        assert_int_equal(m.n_notes, 4);
        assert_string_equal(m.notes[3].name, "three");
        assert_int_equal(m.notes[3].kind, i ? EXPERT_RES : EXPERT_LORA);
        mixture_file_release(&m);
        assert_int_equal(child_removes(&f, name), 0);
        assert_int_equal(mixture_file_open(&m, path, NULL, false, &err), 0);
        assert_int_equal(m.n_domains, 2);
        assert_int_equal(m.n_notes, 3);
        assert_string_equal(m.notes[2].name, "three");
        kept_bytes(&f, methods[i], before, 2);
        digest_of_expert(after, &f, methods[i], 2);
        assert_string_equal(three, after);
        mixture_file_release(&m);
    }
    fixture_close(&f);
}

static void what_cannot_work_is_refused_at_once(void **state)
{
    static const struct {
        const char *set, *words;
    } cases[] = {
        {"universal.rank=5000", "rank"},
        {"universal.rank=200", "universal.rank"},
        {"universal.train=nowhere.jsonl", "nowhere.jsonl"},
    };
    static const char *const no_ffn[] = {"method=mixlora", "lora.target=q_proj"};
    struct fixture f;

    (void)state;
    open_methods(&f);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *const set[] = {"method=modula-flan", cases[i].set};

        assert_int_not_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                                     .set = set,
                                                     .n_set = 2,
                                                     .notes = "notes"}),
                             0);
        if (!said(&f, "notes", cases[i].words))
            fail_msg("case %zu does not say %s", i, cases[i].words);
        assert_false(there(&f, "out"));
    }
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                             .set = no_ffn,
                                             .n_set = 2,
                                             .notes = "notes"}),
                     -ARTEL_EUSAGE);
    assert_true(said(&f, "notes", "gate_proj, up_proj or down_proj"));
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run_with(&f, "method=modula-flan", "notes"), -ARTEL_EUSAGE);
    assert_true(said(&f, "notes", "universal: {train: FILE}"));
    assert_int_equal(run_with(&f, "method=molora", NULL), 0);
    assert_int_equal(child_adds(&f, "out/molora"), -ARTEL_EUSAGE);
    assert_int_equal(child_removes(&f, "out/molora"), -ARTEL_EUSAGE);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(molora_trains_experts_of_no_domain),
        cmocka_unit_test(mixlora_trains_whole_ffns_beside_shared_attention),
        cmocka_unit_test(mixlora_of_a_share_and_of_one_linear),
        cmocka_unit_test(mixlora_is_computed_in_fp32),
        cmocka_unit_test(flan_shares_its_experts_and_moves_none),
        cmocka_unit_test(every_method_continues_to_the_same_bytes),
        cmocka_unit_test(res_learns_on_the_universal_expert_and_the_router_moves_none),
        cmocka_unit_test(flan_may_keep_the_universal_expert_beside_each),
        cmocka_unit_test(res_experts_are_refused_where_they_do_not_fit),
        cmocka_unit_test(a_domain_joins_and_no_byte_of_the_others_moves),
        cmocka_unit_test(what_cannot_work_is_refused_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
