/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adapters written and read back, every spelling that PEFT and its neighbours
 * use, and the real PEFT adapters of tests/golden.
 */
#include <math.h>

#include "save/adapter_parts.h"
#include "unit/save/adapter_bench.h"

/* An expert of odd shape: ranks, scales and layers that differ. */
static void make_expert(struct expert *e, const struct model_config *c, int shape)
{
    uint16_t rank[TOY_LAYERS * N_SITES] = {0};
    float scale[TOY_LAYERS * N_SITES] = {0};

    for (size_t i = 0; i < TOY_LAYERS * N_SITES; i++) {
        const size_t s = i % N_SITES, l = i / N_SITES;

        rank[i] = 2;
        scale[i] = 2.0f;
        if (shape == 1 && l == 0) /* only the last layer */
            rank[i] = 0;
        if (shape >= 2 && s == SITE_K && l == 1) /* a site in one layer only */
            rank[i] = 0;
        if (shape >= 2 && s == SITE_UP) /* a site of another rank */
            rank[i] = 3;
        if (shape >= 2 && s == SITE_DOWN) { /* each layer its own */
            rank[i] = (uint16_t)(1 + l);
            scale[i] = 0.3f + (float)l;
        }
        if (shape >= 3 && s == SITE_O)
            scale[i] = 1.0f / 3.0f;
    }
    assert_int_equal(expert_init(e, "toy", c, rank, scale, NULL), 0);
    for (size_t i = 0; i < e->n_params; i++)
        e->params[i] = (float)(i % 97) / 16.0f - 3.0f;
    e->dropout = 0.05f;
}

static void written_adapters_read_back_to_the_bit(void **state)
{
    const struct lora_options asked = {.rank = 2, .alpha = 4.0f};
    const struct lora_options asked_rs = {
        .rank = 2, .alpha = 2.8284271f, .use_rslora = true};
    const struct lora_options *const as_asked[] = {NULL, &asked, &asked_rs};

    (void)state;
    for (int i = 0; i < 24; i++) {
        struct bench *b = bench_open(i & 1);
        struct expert e, back;
        char want[DIGEST_SIZE], got[DIGEST_SIZE];

        make_expert(&e, &b->base.weights.config, i / 2 % 4);
        assert_int_equal(adapter_write(b->folder, &e, &b->base.weights.config,
                                       as_asked[i / 8], NULL, &b->err),
                         0);
        read_ok(b, &back);
        expert_digest(&e, want);
        expert_digest(&back, got);
        assert_string_equal(got, want);
        assert_near(back.dropout, 0.05, 1e-9);
        expert_release(&e);
        expert_release(&back);
        bench_close(b);
    }
}

/* The trap: a GGUF llama holds row 2 i + j of a head where Hugging Face has j D / 2 + i. */
static void rows_of_q_and_k_are_turned_for_interleaved_heads(void **state)
{
    struct bench *b = bench_open(true);
    struct safetensors *file;
    struct expert e;
    char *path = path_join(b->folder, ADAPTER_WEIGHTS);
    const size_t D = TOY_HEAD;

    (void)state;
    make_expert(&e, &b->base.weights.config, 0);
    assert_int_equal(
        adapter_write(b->folder, &e, &b->base.weights.config, NULL, NULL, &b->err), 0);
    assert_int_equal(safetensors_open(&file, path, &b->err), 0);
    for (int s = 0; s < N_SITES; s++) {
        const struct lora *l = expert_lora(&e, 1, (enum site)s);
        const struct tensor *t;
        char key[128];

        snprintf(key, sizeof(key), "base_model.model.model.layers.1.%s.lora_B.weight",
                 site_module((enum site)s));
        t = safetensors_find(file, key);
        assert_non_null(t);
        for (size_t row = 0; row < l->n_out; row++) {
            const size_t head = row / D, i = row % D / 2, j = row % 2;
            const size_t hf =
                s == SITE_Q || s == SITE_K ? head * D + j * D / 2 + i : row;

            assert_memory_equal((const char *)t->data + hf * 2 * sizeof(float),
                                l->b + row * 2, 2 * sizeof(float));
        }
    }
    safetensors_close(file);
    expert_release(&e);
    free(path);
    bench_close(b);
}

/* The toy adapter's numbers where they belong, whatever its spelling. */
static void check_toy(const struct expert *e, float scale)
{
    static const enum site sites[] = {SITE_Q, SITE_V};

    for (size_t l = 0; l < TOY_LAYERS; l++)
        for (size_t k = 0; k < 2; k++) {
            const struct lora *lora = expert_lora(e, l, sites[k]);
            const float first = (float)(l * 4 + k * 2 + 1);

            assert_int_equal(lora->rank, TOY_RANK);
            assert_near(lora->scale, scale, 1e-7);
            for (size_t i = 0; i < TOY_RANK * TOY_DIM; i++)
                assert_near(lora->a[i], first + (float)i / 64.0f, 0.0);
            for (size_t i = 0; i < TOY_RANK * lora->n_out; i++)
                assert_near(lora->b[i], first + 1.0f + (float)i / 64.0f, 0.0);
        }
    for (size_t i = 0; i < TOY_LAYERS * N_SITES; i++)
        if (i % N_SITES != SITE_Q && i % N_SITES != SITE_V)
            assert_int_equal(e->lora[i].rank, 0);
}

static void respell(struct toy_adapter *t, const char *prefix, const char *end)
{
    for (size_t i = 0; i < t->n; i++) {
        char name[256];
        const char *at = strstr(t->names[i], "layers.");

        snprintf(name, sizeof(name), "%s%.*s%s", prefix,
                 (int)(strlen(at) - strlen(".weight")), at, end);
        snprintf(t->names[i], sizeof(t->names[i]), "%s", name);
    }
}

static void every_spelling_of_keys_is_read(void **state)
{
    static const char *const prefixes[] = {"base_model.model.model.", "model.", "",
                                           "base_model.model."};
    static const char *const ends[] = {".weight", ".default.weight", ".my-lora.weight"};

    (void)state;
    for (size_t i = 0; i < 12; i++) {
        struct bench *b = bench_open(false);
        struct expert e;

        respell(&b->toy, prefixes[i / 3], ends[i % 3]);
        toy_adapter_write(&b->toy, b->folder);
        read_ok(b, &e);
        check_toy(&e, 2.0f);
        expert_release(&e);
        bench_close(b);
    }
}

static void every_form_of_targets_is_read(void **state)
{
    static const char *const forms[] = {
        "{\"target_modules\": [\"self_attn.q_proj\", \"v_proj\"]}",
        "{\"target_modules\": [\"v_proj\", \"q_proj\", \"c_attn\", "
        "\"query_key_value\"]}",
        "{\"target_modules\": \".*\\\\.(q|v)_proj\"}",
        "{\"target_modules\": "
        "\"model\\\\.layers\\\\.\\\\d+\\\\.self_attn\\\\.[qv]_proj\"}",
        "{\"target_modules\": null}",
        "{\"target_modules\": \"All-Linear\", \"exclude_modules\": "
        "[\"k_proj\", \"o_proj\", \"gate_proj\", \"up_proj\", \"down_proj\"]}",
        "{\"target_modules\": \"all-linear\", \"exclude_modules\": "
        "\".*(mlp.*|[ko]_proj)\"}",
        "{\"layers_to_transform\": [1, 0]}",
        "{\"layers_to_transform\": [0, 1], \"layers_pattern\": \"layers\"}",
        "{\"layers_to_transform\": [0, 1], \"layers_pattern\": [\"h\", \"layers\"]}",
        "{\"layers_to_transform\": []}",
        "{\"rank_pattern\": {\"k_proj\": 7}, \"alpha_pattern\": {}}",
        "{\"r\": 8, \"rank_pattern\": {\"q_proj\": 2, \".*\": 2}}",
        "{\"init_lora_weights\": \"gaussian\", \"loftq_config\": {}, \"unknown\": 1}",
        "{\"use_rslora\": true, \"lora_alpha\": 2.8284271247461903}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct bench *b = bench_open(false);
        struct expert e;

        toy_configure(&b->toy, forms[i]);
        toy_adapter_write(&b->toy, b->folder);
        if (adapter_read(&e, "toy", b->folder, &b->base.model, false, &b->err) < 0)
            fail_msg("%s: %s %s", forms[i], b->err.where, b->err.reason);
        check_toy(&e, 2.0f);
        expert_release(&e);
        bench_close(b);
    }
}

static void half_and_double_numbers_are_read(void **state)
{
    static const enum dtype types[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F64};
    static const size_t bytes[] = {2, 2, 8};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct bench *b = bench_open(false);
        struct tensor *t = &b->toy.tensors[0];
        struct expert e;

        for (size_t k = 0; k < TOY_RANK * TOY_DIM; k++) {
            const uint16_t half[] = {0x3c00, 0x3f80}; /* 1 */

            if (i == 2)
                b->toy.data[0].f64[k] = 1.0;
            else
                memcpy(b->toy.data[0].bytes + 2 * k, &half[i], 2);
        }
        t->dtype = types[i];
        t->bytes = TOY_RANK * TOY_DIM * bytes[i];
        toy_adapter_write(&b->toy, b->folder);
        read_ok(b, &e);
        for (size_t k = 0; k < TOY_RANK * TOY_DIM; k++)
            assert_near(expert_lora(&e, 0, SITE_Q)->a[k], 1.0, 0.0);
        expert_release(&e);
        bench_close(b);
    }
}

static void ranks_and_scales_follow_their_patterns(void **state)
{
    struct bench *b = bench_open(false);
    struct expert e;

    (void)state;
    toy_configure(&b->toy,
                  "{\"r\": 9, \"rank_pattern\": {\"layers.0.self_attn.q_proj\": 2, "
                  "\"q_proj\": 2, \"v_proj\": 2}, \"alpha_pattern\": "
                  "{\"layers.1.*q_proj\": 6, \"q_proj\": 5.5, \".*v_proj\": 1}}");
    toy_adapter_write(&b->toy, b->folder);
    read_ok(b, &e);
    assert_near(expert_lora(&e, 0, SITE_Q)->scale, 2.75, 0.0);
    assert_near(expert_lora(&e, 1, SITE_Q)->scale, 3.0, 0.0);
    assert_near(expert_lora(&e, 0, SITE_V)->scale, 0.5, 0.0);
    expert_release(&e);
    bench_close(b);
}

static void A14_force_passes_over_another_base(void **state)
{
    struct bench *b = bench_open(false);
    const struct adapter_notes notes = {.domain = "law",
                                        .base_digest = "11",
                                        .tokenizer_digest = "22",
                                        .chat_digest = "33"};
    struct expert e, back;
    json_t *read;

    (void)state;
    make_expert(&e, &b->base.weights.config, 0);
    assert_int_equal(
        adapter_write(b->folder, &e, &b->base.weights.config, NULL, &notes, &b->err),
        0);
    assert_error(adapter_read(&back, "x", b->folder, &b->base.model, false, &b->err),
                 ARTEL_EFORMAT, b->err, "ADP14");
    assert_int_equal(adapter_read(&back, "x", b->folder, &b->base.model, true, &b->err),
                     0);
    assert_int_equal(adapter_notes_read(&read, b->folder, &b->err), 1);
    assert_string_equal(json_string_value(json_object_get(read, "domain")), "law");
    json_decref(read);
    expert_release(&e);
    expert_release(&back);
    bench_close(b);
}

static void A29_a_zero_adapter_is_zero(void **state)
{
    struct bench *b = bench_open(true);
    struct expert e;

    (void)state;
    for (size_t i = 1; i < b->toy.n; i += 2)
        memset(&b->toy.data[i], 0, sizeof(b->toy.data[i]));
    toy_adapter_write(&b->toy, b->folder);
    read_ok(b, &e);
    for (size_t i = 0; i < TOY_LAYERS * N_SITES; i++)
        for (size_t k = 0; k < e.lora[i].rank * e.lora[i].n_out; k++)
            assert_near(e.lora[i].b[k], 0.0, 0.0);
    expert_release(&e);
    bench_close(b);
}

static json_t *config_of(struct bench *b, const struct expert *e,
                         const struct lora_options *asked)
{
    char *path = path_join(b->folder, ADAPTER_CONFIG);
    json_t *root;

    assert_int_equal(
        adapter_write(b->folder, e, &b->base.weights.config, asked, NULL, &b->err), 0);
    assert_int_equal(json_read_file(&root, path, 1 << 20, &b->err), 0);
    free(path);
    return root;
}

static void check_json(const json_t *root, const char *key, const char *want)
{
    json_t *value = json_loads(want, JSON_DECODE_ANY, NULL);

    assert_non_null(value);
    if (!json_equal(json_object_get(root, key), value))
        fail_msg("%s is %s, expected %s", key,
                 json_dumps(json_object_get(root, key), JSON_ENCODE_ANY), want);
    json_decref(value);
}

static void the_configuration_is_as_peft_writes_it(void **state)
{
    const struct lora_options asked = {.rank = 2, .alpha = 4.0f};
    struct bench *b = bench_open(false);
    struct expert e;
    json_t *root;

    (void)state;
    make_expert(&e, &b->base.weights.config, 0);
    root = config_of(b, &e, &asked);
    check_json(root, "target_modules",
               "[\"down_proj\", \"gate_proj\", \"k_proj\", \"o_proj\", \"q_proj\", "
               "\"up_proj\", \"v_proj\"]");
    check_json(root, "r", "2");
    check_json(root, "lora_alpha", "4");
    check_json(root, "rank_pattern", "{}");
    check_json(root, "layers_to_transform", "null");
    check_json(root, "use_rslora", "false");
    json_decref(root);
    expert_release(&e);

    make_expert(&e, &b->base.weights.config, 1);
    root = config_of(b, &e, &asked);
    check_json(root, "layers_to_transform", "[1]");
    json_decref(root);
    expert_release(&e);

    make_expert(&e, &b->base.weights.config, 2);
    root = config_of(b, &e, &asked);
    check_json(root, "rank_pattern", "{\"up_proj\": 3, \"layers.0.mlp.down_proj\": 1}");
    check_json(root, "layers_to_transform", "null");
    assert_true(json_is_string(json_object_get(root, "target_modules")));
    json_decref(root);
    expert_release(&e);
    bench_close(b);
}

static void an_expert_without_linears_is_no_adapter(void **state)
{
    struct bench *b = bench_open(false);
    struct expert e;

    (void)state;
    assert_int_equal(expert_init_identity(&e, "idle", TOY_LAYERS, NULL), 0);
    assert_error(
        adapter_write(b->folder, &e, &b->base.weights.config, NULL, NULL, &b->err),
        ARTEL_EUSAGE, b->err, "ADP06");
    assert_int_equal(access(b->folder, F_OK), -1);
    expert_release(&e);
    bench_close(b);
}

/* Another process cut short between the weights and artel.json. */
static void a_rewrite_cut_short_is_noticed(void **state)
{
    struct bench *b = bench_open(false);
    char *weights = path_join(b->folder, ADAPTER_WEIGHTS), *kept;
    struct expert e, back;

    (void)state;
    kept = path_join(b->folder, "kept");
    make_expert(&e, &b->base.weights.config, 0);
    e.params[0] += 1.0f;
    assert_int_equal(
        adapter_write(b->folder, &e, &b->base.weights.config, NULL, NULL, &b->err), 0);
    assert_int_equal(rename(weights, kept), 0);
    e.params[0] -= 1.0f;
    assert_int_equal(
        adapter_write(b->folder, &e, &b->base.weights.config, NULL, NULL, &b->err), 0);
    assert_int_equal(rename(kept, weights), 0);
    assert_error(adapter_read(&back, "x", b->folder, &b->base.model, false, &b->err),
                 ARTEL_EFORMAT, b->err, "ADP21");
    expert_release(&e);
    free(weights);
    free(kept);
    bench_close(b);
}

/* The toy llama of tests/golden: its adapters were written by PEFT itself. */
static void golden_base_init(struct toy_base *base, bool interleaved)
{
    toy_base_init(base, interleaved);
    base->weights.config.dim = 32;
    base->weights.config.n_heads = 4;
    base->weights.config.n_kv_heads = 2;
    base->weights.config.head_dim = 8;
    base->weights.config.ffn_dim = 64;
}

static void check_golden(const char *name, bool interleaved)
{
    char folder[512], path[600], key[128];
    struct artel_error err = {0};
    struct safetensors *file;
    struct toy_base base;
    struct expert e;

    snprintf(folder, sizeof(folder), "%s/golden/%s", ARTEL_TESTS, name);
    snprintf(path, sizeof(path), "%s/%s", folder, ADAPTER_WEIGHTS);
    golden_base_init(&base, interleaved);
    if (adapter_read(&e, "golden", folder, &base.model, false, &err) < 0)
        fail_msg("%s: %s: %s", err.file, err.where, err.reason);
    assert_int_equal(safetensors_open(&file, path, &err), 0);
    for (size_t i = 0; i < 2 * N_SITES; i++) {
        const struct lora *l = &e.lora[i];
        const enum site s = (enum site)(i % N_SITES);

        for (int half = 0; l->rank && half < 2; half++) {
            const struct tensor *t;
            const size_t n_cols = half ? l->rank : l->n_in;

            snprintf(key, sizeof(key),
                     "base_model.model.model.layers.%zu.%s.lora_%c.weight", i / N_SITES,
                     site_module(s), half ? 'B' : 'A');
            t = safetensors_find(file, key);
            assert_non_null(t);
            for (size_t row = 0; row < t->shape[0]; row++) {
                const size_t ours = half ? hf_row(&base.weights.config, s, row) : row;

                assert_memory_equal((half ? l->b : l->a) + ours * n_cols,
                                    (const char *)t->data +
                                        row * n_cols * sizeof(float),
                                    n_cols * sizeof(float));
            }
        }
    }
    if (!strcmp(name, "lora")) {
        for (size_t i = 0; i < 2 * N_SITES; i++)
            assert_near(e.lora[i].scale, 2.0, 0.0);
    } else { /* alpha / sqrt(r) with the patterns of make_golden.py */
        assert_near(expert_lora(&e, 0, SITE_Q)->scale, 8.0 / sqrt(2.0), 1e-6);
        assert_near(expert_lora(&e, 1, SITE_V)->scale, 5.0 / sqrt(4.0), 1e-6);
        assert_near(expert_lora(&e, 0, SITE_DOWN)->scale, 8.0 / sqrt(4.0), 1e-6);
        assert_near(expert_lora(&e, 1, SITE_DOWN)->scale, 6.0 / sqrt(3.0), 1e-6);
        assert_int_equal(expert_lora(&e, 0, SITE_K)->rank, 0);
    }
    safetensors_close(file);
    expert_release(&e);
}

static void adapters_of_peft_are_read_to_the_bit(void **state)
{
    (void)state;
    check_golden("lora", false);
    check_golden("lora", true);
    check_golden("rslora", false);
    check_golden("rslora", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_adapters_read_back_to_the_bit),
        cmocka_unit_test(rows_of_q_and_k_are_turned_for_interleaved_heads),
        cmocka_unit_test(every_spelling_of_keys_is_read),
        cmocka_unit_test(every_form_of_targets_is_read),
        cmocka_unit_test(half_and_double_numbers_are_read),
        cmocka_unit_test(ranks_and_scales_follow_their_patterns),
        cmocka_unit_test(A14_force_passes_over_another_base),
        cmocka_unit_test(A29_a_zero_adapter_is_zero),
        cmocka_unit_test(the_configuration_is_as_peft_writes_it),
        cmocka_unit_test(an_expert_without_linears_is_no_adapter),
        cmocka_unit_test(a_rewrite_cut_short_is_noticed),
        cmocka_unit_test(adapters_of_peft_are_read_to_the_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
