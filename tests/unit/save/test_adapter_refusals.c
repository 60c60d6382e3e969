/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way an adapter can be wrong, one row each: what is changed in a good one, and the
 * code and kind of refusal that must come of it. Nothing may be left behind.
 */
#include <math.h>

#include "unit/save/fixture.h"

struct row {
    const char *name; /* row of the catalogue and what is wrong */
    int rc;
    const char *code;
    const char *config; /* keys changed, or NULL */
    void (*change)(struct toy_adapter *t);
    void (*damage)(const char *folder);
    const char *where; /* part of WHERE or REASON that must be told, or NULL */
};

static void remove_config(const char *folder)
{
    char *path = path_join(folder, "adapter_config.json");

    assert_int_equal(unlink(path), 0);
    free(path);
}

static void remove_weights(const char *folder)
{
    char *path = path_join(folder, "adapter_model.safetensors");

    assert_int_equal(unlink(path), 0);
    free(path);
}

static void remove_both(const char *folder)
{
    remove_config(folder);
    remove_weights(folder);
}

static void put(const char *folder, const char *name, const void *data, size_t n)
{
    char *path = path_join(folder, name);

    assert_int_equal(write_file(path, data, n, NULL), 0);
    free(path);
}

static void pickle_beside(const char *folder)
{
    remove_weights(folder);
    put(folder, "adapter_model.bin", "\x80\x02}q.", 5);
}

static void pickle_renamed(const char *folder)
{
    put(folder, "adapter_model.safetensors", "\x80\x02}q\0q.12345678", 15);
}

static void zip_renamed(const char *folder)
{
    put(folder, "adapter_model.safetensors", "PK\3\4archive/data.pkl", 20);
}

static void gguf_renamed(const char *folder)
{
    put(folder, "adapter_model.safetensors", "GGUF\3\0\0\0\0\0\0\0", 12);
}

static void four_bytes(const char *folder)
{
    put(folder, "adapter_model.safetensors", "oops", 4);
}

static void config_no_json(const char *folder)
{
    put(folder, "adapter_config.json", "{\"r\": NaN}", 10);
}

static void link_out(const char *folder, const char *name, const char *to)
{
    char *path = path_join(folder, name), *target = path_join(folder, to);

    assert_int_equal(rename(path, target), 0);
    assert_int_equal(symlink(to, path), 0);
    free(path);
    free(target);
}

static void weights_link_out(const char *folder)
{
    link_out(folder, "adapter_model.safetensors", "../elsewhere.safetensors");
}

static void config_link_out(const char *folder)
{
    link_out(folder, "adapter_config.json", "../elsewhere.json");
}

static void notes_of_other_base(const char *folder)
{
    static const char text[] =
        "{\"format_version\": 1, \"base_digest\": "
        "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"}";

    put(folder, "artel.json", text, sizeof(text) - 1);
}

static void notes_of_other_tokenizer(const char *folder)
{
    static const char text[] =
        "{\"format_version\": 1, \"tokenizer_digest\": \"0123\"}";

    put(folder, "artel.json", text, sizeof(text) - 1);
}

static void notes_of_other_template(const char *folder)
{
    static const char text[] = "{\"format_version\": 1, \"chat_digest\": \"0123\"}";

    put(folder, "artel.json", text, sizeof(text) - 1);
}

static void notes_too_new(const char *folder)
{
    put(folder, "artel.json", "{\"format_version\": 2}", 21);
}

static void notes_of_other_weights(const char *folder)
{
    static const char text[] = "{\"format_version\": 1, \"weights_digest\": \"0123\"}";

    put(folder, "artel.json", text, sizeof(text) - 1);
}

static void rename_tensor(struct toy_adapter *t, size_t i, const char *name)
{
    snprintf(t->names[i], sizeof(t->names[i]), "%s", name);
}

static void half_a_pair(struct toy_adapter *t)
{
    t->n--;
}

static void other_model(struct toy_adapter *t)
{
    for (size_t i = 0; i < t->n; i++) {
        char name[128];

        snprintf(name, sizeof(name),
                 "base_model.model.transformer.h.%zu.c_attn.lora_A.weight", i);
        rename_tensor(t, i, name);
    }
}

static void layers_of_deeper_model(struct toy_adapter *t)
{
    for (size_t i = 0; i < t->n; i++)
        strstr(t->names[i], "layers.")[7] = (char)('4' + i / 4);
}

static void one_missing(struct toy_adapter *t)
{
    t->n -= 2;
}

static void one_extra(struct toy_adapter *t)
{
    toy_tensor(t, "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight", 2,
               8);
    toy_tensor(t, "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight", 4,
               2);
}

static void one_alien(struct toy_adapter *t)
{
    toy_tensor(t, "base_model.model.model.layers.0.block.router.lora_A.weight", 2, 8);
}

static void transposed(struct toy_adapter *t)
{
    t->tensors[0].shape[0] = TOY_DIM;
    t->tensors[0].shape[1] = TOY_RANK;
}

static void wider(struct toy_adapter *t)
{
    t->tensors[1].shape[0] = 16;
    t->tensors[1].bytes = 16 * 2 * sizeof(float);
}

static void stacked(struct toy_adapter *t)
{
    t->tensors[0].n_dims = 3;
    t->tensors[0].shape[0] = 1;
    t->tensors[0].shape[1] = TOY_RANK;
    t->tensors[0].shape[2] = TOY_DIM;
}

static void empty_tensor(struct toy_adapter *t)
{
    t->tensors[0].shape[0] = 0;
    t->tensors[0].bytes = 0;
}

static void retype(struct toy_adapter *t, enum dtype type, size_t bytes)
{
    t->tensors[0].dtype = type;
    t->tensors[0].bytes = TOY_RANK * TOY_DIM * bytes;
}

static void type_i8(struct toy_adapter *t)
{
    retype(t, DTYPE_I8, 1);
}

static void type_bool(struct toy_adapter *t)
{
    retype(t, DTYPE_BOOL, 1);
    memset(t->data[0].bytes, 0, 16);
}

static void type_f64_inexact(struct toy_adapter *t)
{
    retype(t, DTYPE_F64, 8);
    for (size_t i = 0; i < 16; i++)
        t->data[0].f64[i] = i == 5 ? 0.1 : 0.5;
}

static void with_nan(struct toy_adapter *t)
{
    t->data[2].f32[7] = NAN;
}

static void with_inf_in_b(struct toy_adapter *t)
{
    t->data[1].f32[3] = -INFINITY;
}

static void with_magnitude(struct toy_adapter *t)
{
    toy_tensor(t,
               "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
               8, 0);
}

static void with_bias(struct toy_adapter *t)
{
    toy_tensor(t, "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", 8, 0);
}

static void with_base_bias(struct toy_adapter *t)
{
    toy_tensor(t, "base_model.model.model.layers.0.self_attn.q_proj.bias", 8, 0);
}

static void with_head(struct toy_adapter *t)
{
    toy_tensor(t, "base_model.model.lm_head.weight", 2, 8);
}

static void with_head_lora(struct toy_adapter *t)
{
    toy_tensor(t, "base_model.model.lm_head.lora_A.weight", 2, 8);
}

static void with_embedding(struct toy_adapter *t)
{
    toy_tensor(t, "base_model.model.model.embed_tokens.lora_embedding_A", 2, 16);
}

static void with_tokens(struct toy_adapter *t)
{
    toy_tensor(
        t, "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta",
        2, 8);
}

static void two_adapters(struct toy_adapter *t)
{
    rename_tensor(t, 0,
                  "base_model.model.model.layers.0.self_attn.q_proj.lora_A.one.weight");
    rename_tensor(t, 1,
                  "base_model.model.model.layers.0.self_attn.q_proj.lora_B.two.weight");
}

static void twice(struct toy_adapter *t)
{
    toy_tensor(t, "model.layers.0.self_attn.q_proj.lora_A.weight", 2, 8);
}

#define F ARTEL_EFORMAT

static const struct row rows[] = {
    {"A01_config_missing", ARTEL_EIO, "ADP01", .damage = remove_config},
    {"A01_weights_missing", ARTEL_EIO, "ADP01", .damage = remove_weights},
    {"A01_empty_folder", ARTEL_EIO, "ADP01", .damage = remove_both},
    {"A02_rank_zero", F, "ADP02", .config = "{\"r\": 0}", .where = "r"},
    {"A02_rank_negative", F, "ADP02", .config = "{\"r\": -1}"},
    {"A02_rank_huge", F, "ADP02", .config = "{\"r\": 2147483648}"},
    {"A02_rank_is_text", F, "ADP02", .config = "{\"r\": \"8\"}"},
    {"A02_rank_is_null", F, "ADP02", .config = "{\"r\": null}"},
    {"A02_rank_fraction", F, "ADP02", .config = "{\"r\": 2.0}"},
    {"A02_rank_above_matrix", F, "ADP02", .config = "{\"r\": 64}"},
    {"A02_pattern_rank_zero", F, "ADP02",
     .config = "{\"rank_pattern\": {\"q_proj\": 0}}"},
    {"A03_rank_disagrees", F, "ADP03", .config = "{\"r\": 4}",
     .where = "q_proj.lora_A"},
    {"A03_pattern_rank_disagrees", F, "ADP03",
     .config = "{\"rank_pattern\": {\"layers.1.self_attn.v_proj\": 3}}",
     .where = "layers.1.self_attn.v"},
    {"A04_alpha_not_finite", F, "ADP04", .config = "{\"lora_alpha\": 1e308}"},
    {"A04_alpha_is_text", F, "ADP04", .config = "{\"lora_alpha\": \"16\"}"},
    {"A04_alpha_literal_nan", F, "JSON01", .damage = config_no_json},
    {"A04_pattern_alpha_text", F, "ADP04",
     .config = "{\"alpha_pattern\": {\"q_proj\": \"1\"}}"},
    {"A05_half_a_pair", F, "ADP05", .change = half_a_pair,
     .where = "layers.1.self_attn.v_proj"},
    {"A06_other_model", F, "ADP06", .change = other_model, .where = "0 of 8"},
    {"A06_deeper_model", F, "ADP06", .change = layers_of_deeper_model},
    {"A07_one_missing", F, "ADP07", .change = one_missing,
     .where = "layers.1.self_attn.v_proj"},
    {"A07_one_extra", F, "ADP07", .change = one_extra, .where = "k_proj"},
    {"A07_one_alien", F, "ADP07", .change = one_alien, .where = "router"},
    {"A07_layers_to_transform_disagrees", F, "ADP07",
     .config = "{\"layers_to_transform\": [1]}"},
    {"A07_excluded_but_there", F, "ADP07",
     .config = "{\"exclude_modules\": [\"v_proj\"]}"},
    {"A08_transposed", F, "ADP08", .change = transposed, .where = "2 x 8"},
    {"A08_wider", F, "ADP08", .change = wider, .where = "16"},
    {"A09_stacked", F, "ADP08", .change = stacked, .where = "3 axes"},
    {"S23_empty_tensor", F, "ADP03", .change = empty_tensor},
    {"A10_type_i8", F, "ADP10", .change = type_i8, .where = "I8"},
    {"A10_type_bool", F, "ADP10", .change = type_bool, .where = "BOOL"},
    {"A10_type_f64_inexact", F, "ADP10", .change = type_f64_inexact,
     .where = "element 5"},
    {"A11_S30_nan", F, "ADP11", .change = with_nan, .where = "element 7"},
    {"A11_S30_infinity", F, "ADP11", .change = with_inf_in_b, .where = "element 3"},
    {"A12_dora_key", F, "ADP12", .change = with_magnitude, .where = "magnitude"},
    {"A12_dora_config", F, "ADP12", .config = "{\"use_dora\": true}",
     .where = "use_dora"},
    {"A12_lora_bias", F, "ADP12", .change = with_bias},
    {"A12_base_bias", F, "ADP12", .change = with_base_bias},
    {"A12_bias_config", F, "ADP12", .config = "{\"bias\": \"lora_only\"}",
     .where = "bias"},
    {"A12_saved_head", F, "ADP12", .change = with_head, .where = "lm_head"},
    {"A12_modules_to_save", F, "ADP12",
     .config = "{\"modules_to_save\": [\"lm_head\"]}"},
    {"A12_head_lora", F, "ADP12", .change = with_head_lora},
    {"A12_embedding_lora", F, "ADP12", .change = with_embedding},
    {"A12_trained_tokens", F, "ADP12", .change = with_tokens},
    {"A12_target_head", F, "ADP12",
     .config = "{\"target_modules\": [\"q_proj\", \"lm_head\"]}"},
    {"A12_replicated_layers", F, "ADP12",
     .config = "{\"layer_replication\": [[0, 2]]}"},
    {"A12_target_parameters", F, "ADP12", .config = "{\"target_parameters\": [\"x\"]}"},
    {"A12_pissa", F, "ADP12", .config = "{\"init_lora_weights\": \"pissa_niter_4\"}"},
    {"A12_other_peft_type", F, "ADP12", .config = "{\"peft_type\": \"IA3\"}"},
    {"A12_own_peft_type", F, "ADP12", .config = "{\"peft_type\": \"ARTEL_RES\"}"},
    {"A12_whole_ffn", F, "ADP12", .config = "{\"peft_type\": \"ARTEL_FFN\"}"},
    {"A12_no_peft_type", F, "ADP09", .config = "{\"peft_type\": null}"},
    {"A13_endless_pattern", F, "ADP13",
     .config = "{\"target_modules\": \"(.*.*)*x(a+)+$\"}"},
    {"A13_classic_pattern", F, "ADP13",
     .config = "{\"target_modules\": \"([a-z._0-9]+)+[!?]\"}", .where = "steps"},
    {"A13_pattern_no_regex", F, "ADP13", .config = "{\"target_modules\": \"(q_proj\"}"},
    {"A13_endless_exclusion", F, "ADP13",
     .config = "{\"exclude_modules\": \"([a-z._0-9]+)+[!?]\"}"},
    {"A13_endless_rank_key", F, "ADP13",
     .config = "{\"rank_pattern\": {\"([a-z._0-9]+)+[!?]\": 3}}"},
    {"A13_deep_recursion", F, "ADP13",
     .config = "{\"target_modules\": \"(?R)*x|(.(?1))\"}"},
    {"A13_layers_beside_pattern", F, "ADP13",
     .config =
         "{\"target_modules\": \".*[qv]_proj\", \"layers_to_transform\": [0, 1]}"},
    {"A13_targets_are_numbers", F, "ADP09", .config = "{\"target_modules\": [1, 2]}"},
    {"A14_other_base", F, "ADP14", .damage = notes_of_other_base, .where = "00112233"},
    {"A14_other_tokenizer", F, "ADP14", .damage = notes_of_other_tokenizer},
    {"A14_other_template", F, "ADP14", .damage = notes_of_other_template},
    {"A15_pickle_beside", F, "ADP15", .damage = pickle_beside, .where = "convert"},
    {"A15_pickle_renamed", F, "ADP15", .damage = pickle_renamed},
    {"A15_zip_renamed", F, "ADP15", .damage = zip_renamed},
    {"A15_gguf_renamed", F, "ADP15", .damage = gguf_renamed},
    {"A16_four_bytes", F, "ST01", .damage = four_bytes},
    {"A18_two_adapters_in_one_file", F, "ADP18", .change = two_adapters},
    {"A18_a_linear_twice", F, "ADP18", .change = twice},
    {"A19_weights_link_out", F, "ADP19", .damage = weights_link_out},
    {"A19_config_link_out", F, "ADP19", .damage = config_link_out},
    {"R16_notes_too_new", F, "ADP20", .damage = notes_too_new},
    {"notes_of_other_weights", F, "ADP21", .damage = notes_of_other_weights},
};

#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static void is_refused(void **state)
{
    const struct row *row = *state;
    char *scratch = scratch_open(), *folder = path_join(scratch, "adapter");
    char before[DIGEST_SIZE], after[DIGEST_SIZE];
    struct artel_error err = {0};
    struct toy_adapter t;
    struct toy_base base;
    struct expert e;
    int rc;

    toy_base_init(&base, true);
    toy_adapter_init(&t);
    if (row->config)
        toy_configure(&t, row->config);
    if (row->change)
        row->change(&t);
    toy_adapter_write(&t, folder);
    if (row->damage)
        row->damage(folder);
    scratch_digest(before, scratch);
    rc = adapter_read(&e, "toy", folder, &base.model, false, &err);
    scratch_digest(after, scratch);
    if (rc != row->rc || strcmp(err.code, row->code) != 0)
        fail_msg("%s: %d %s: %s: %s", row->name, rc, err.code, err.where, err.reason);
    assert_non_null(strstr(err.file, scratch));
    assert_int_equal(err.exit, -rc);
    if (row->where && !strstr(err.where, row->where) && !strstr(err.reason, row->where))
        fail_msg("'%s' is not told: %s: %s", row->where, err.where, err.reason);
    assert_string_equal(before, after);
    assert_null(e.params);
    toy_adapter_release(&t);
    free(folder);
    scratch_close(scratch);
}

static void A17_hostile_names_are_refused(void **state)
{
    static const char *const names[] = {
        "../x",
        "/abs",
        "a/b",
        "",
        ".",
        "..",
        "-dash",
        "new\nline",
        "\x1b[31m",
        "\xe2\x80\x8frtl",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    struct artel_error err;
    struct toy_base base;
    struct expert e;

    (void)state;
    toy_base_init(&base, false);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_error(
            adapter_read(&e, names[i], "/nonexistent", &base.model, false, &err),
            ARTEL_EFORMAT, err, "ADP17");
}

int main(void)
{
    static struct CMUnitTest tests[N_ROWS + 1];

    for (size_t i = 0; i < N_ROWS; i++)
        tests[i] = (struct CMUnitTest){.name = rows[i].name,
                                       .test_func = is_refused,
                                       .initial_state = (void *)(size_t)&rows[i]};
    tests[N_ROWS] = (struct CMUnitTest)cmocka_unit_test(A17_hostile_names_are_refused);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
