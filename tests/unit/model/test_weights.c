/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensors at their places, from both containers: rows G15, G22, J15 and J28; the
 * digest; and a real model where ARTEL_TEST_MODEL names one.
 */
#include "check.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "files/safetensors.h"
#include "files/write.h"
#include "model/weights.h"
#include "support/tiny_model.h"

static char folder[] = "/tmp/artel-weights-XXXXXX";

static char *in_folder(const char *name)
{
    char *path = path_join(folder, name);

    assert_non_null(path);
    return path;
}

static int open_changed(struct tiny_gguf *g, struct weights **w,
                        struct artel_error *err)
{
    char *path = in_folder("m.gguf");
    int rc;

    tiny_gguf_layout(g);
    assert_int_equal(tiny_gguf_write(path, g), 0);
    *err = (struct artel_error){0};
    rc = weights_open(w, path, err);
    unlink(path);
    free(path);
    return rc;
}

static void drop_one(struct tiny_gguf *g)
{
    tiny_gguf_drop(g, "blk.1.ffn_up.weight");
}
static void swap_shape(struct tiny_gguf *g)
{
    struct tiny_tensor *t = tiny_gguf_tensor(g, "blk.0.ffn_down.weight");

    t->ne[0] = 16;
    t->ne[1] = 32;
}
static void flat(struct tiny_gguf *g)
{
    struct tiny_tensor *t = tiny_gguf_tensor(g, "blk.0.attn_q.weight");

    t->n_dims = 1;
    t->ne[0] = 256;
}
static void one_layer_less(struct tiny_gguf *g)
{
    tiny_gguf_u32(g, "llama.block_count", 1);
}
static void one_layer_more(struct tiny_gguf *g)
{
    tiny_gguf_u32(g, "llama.block_count", 3);
}
static void many_layers(struct tiny_gguf *g)
{
    tiny_gguf_u32(g, "llama.block_count", 4096);
}
static void bias(struct tiny_gguf *g)
{
    const uint64_t n = 16;
    const float zeros[16] = {0};

    tiny_gguf_add(g, "blk.0.attn_q.bias", TINY_T_F32, 1, &n, zeros, sizeof(zeros));
}
static void integers(struct tiny_gguf *g)
{
    tiny_gguf_tensor(g, "blk.0.attn_k.weight")->type = 26;
}
static void half_norm(struct tiny_gguf *g)
{
    struct tiny_tensor *t = tiny_gguf_tensor(g, "output_norm.weight");

    t->type = TINY_T_F16;
    t->data.size /= 2;
}
static void no_embedding(struct tiny_gguf *g)
{
    tiny_gguf_drop(g, "token_embd.weight");
}

static const struct {
    const char *id;
    void (*change)(struct tiny_gguf *g);
    const char *code, *where, *reason; /* code NULL: must load */
} rows[] = {
    {"G15", integers, "WT03", "blk.0.attn_k.weight",
     "I32 (type 26) is not supported here"},
    {"G22a", drop_one, "WT01", "blk.1.ffn_up.weight", "missing"},
    {"G22b", swap_shape, "WT02", "blk.0.ffn_down.weight",
     "[32, 16], expected [16, 32]"},
    {"G22c", flat, "WT02", "blk.0.attn_q.weight", "[256], expected [16, 16]"},
    {"G22d", no_embedding, "WT01", "token_embd.weight", "missing"},
    {"J14", bias, "WT04", "blk.0.attn_q.bias", "no place"},
    {"J15a", one_layer_less, "WT04", "blk.1.attn_norm.weight", "1 layers"},
    {"J15b", one_layer_more, "WT01", "blk.2.attn_norm.weight", "missing"},
    {"J15c", many_layers, "WT01", "", "4096 layers, but only 20 tensors"},
    {"half", half_norm, NULL, NULL, NULL},
};

static void G22_J15_tensors_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct tiny_gguf *g = malloc(sizeof(*g));
        struct tiny_model m;
        struct weights *w;
        struct artel_error err;
        int rc;

        assert_non_null(g);
        tiny_model_default(&m);
        tiny_model_gguf(&m, g);
        rows[i].change(g);
        rc = open_changed(g, &w, &err);
        if (!rows[i].code
                ? rc != 0
                : rc != ARTEL_EFORMAT || strcmp(err.code, rows[i].code) != 0 ||
                      strcmp(err.where, rows[i].where) != 0 ||
                      !strstr(err.reason, rows[i].reason) ||
                      !strstr(err.file, "m.gguf"))
            fail_msg("%s: rc %d: %s: %s: %s [%s]", rows[i].id, rc, err.file, err.where,
                     err.reason, err.code);
        weights_close(w);
        tiny_gguf_release(g);
        free(g);
    }
}

static void both_containers_hold_the_same_model(void **state)
{
    struct tiny_model m;
    struct weights *a, *b;
    struct artel_error err = {0};
    char *file = in_folder("m.gguf"), *hf = in_folder("hf");

    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        tiny_model_default(&m);
        m.tied = tied;
        assert_int_equal(tiny_model_write_gguf(&m, file), 0);
        assert_int_equal(tiny_model_write_folder(&m, hf), 0);
        assert_int_equal(weights_open(&a, file, &err), 0);
        assert_int_equal(weights_open(&b, hf, &err), 0);
        assert_int_equal(a->config.tied, tied);
        assert_int_equal(b->config.tied, tied);
        assert_int_equal(a->n_parameters, b->n_parameters);
        assert_int_equal(a->n_parameters, 300 * 16 * (2 - tied) + 16 +
                                              2 * (32 + 2 * 256 + 2 * 128 + 3 * 512));
        assert_memory_equal(a->embed.data, b->embed.data, 300 * 16 * 4);
        assert_memory_equal(a->head.data, b->head.data, 300 * 16 * 4);
        assert_true((a->head.data == a->embed.data) == tied);
        assert_memory_equal(a->layers[1].site[SITE_DOWN].data,
                            b->layers[1].site[SITE_DOWN].data, 2048);
        /* GGUF row 1 of a head of 4 is Hugging Face row 2 */
        assert_memory_equal((const char *)a->layers[0].site[SITE_Q].data + 64,
                            (const char *)b->layers[0].site[SITE_Q].data + 128, 64);
        assert_non_null(a->gguf);
        assert_null(b->gguf);
        assert_string_equal(b->folder, hf);
        weights_close(a);
        weights_close(b);
    }
    unlink(file);
    free(file);
    free(hf);
}

static void a_digest_follows_the_weights_alone(void **state)
{
    struct tiny_gguf *g = malloc(sizeof(*g));
    struct tiny_model m;
    struct weights *w;
    struct artel_error err;
    char first[DIGEST_SIZE], again[DIGEST_SIZE], whole[DIGEST_SIZE];

    (void)state;
    assert_non_null(g);
    tiny_model_default(&m);
    tiny_model_gguf(&m, g);
    assert_int_equal(open_changed(g, &w, &err), 0);
    assert_int_equal(weights_digest(first, w, false, &err), 0);
    assert_int_equal(weights_digest(whole, w, true, &err), 0);
    weights_close(w);
    assert_string_equal(first, whole); /* nothing is larger than three samples */
    tiny_gguf_text(g, "general.name", "another name");
    assert_int_equal(open_changed(g, &w, &err), 0);
    assert_int_equal(weights_digest(again, w, false, &err), 0);
    weights_close(w);
    assert_string_equal(first, again);
    g->tensors[7].data.data[5] ^= 1;
    assert_int_equal(open_changed(g, &w, &err), 0);
    assert_int_equal(weights_digest(again, w, false, &err), 0);
    weights_close(w);
    assert_string_not_equal(first, again);
    tiny_gguf_release(g);
    free(g);
}

/* The tiny folder's tensors in two shards, and an index to be changed. */
static void write_shards(const char *hf, const char *index)
{
    char path[512];
    struct safetensors *s;
    struct tensor all[32];
    struct artel_error err = {0};
    size_t n;

    snprintf(path, sizeof(path), "%s/model.safetensors", hf);
    assert_int_equal(safetensors_open(&s, path, &err), 0);
    n = safetensors_count(s);
    assert_int_equal(n, 20);
    for (size_t i = 0; i < n; i++)
        all[i] = *safetensors_at(s, i);
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/s%zu.safetensors", hf, i + 1);
        assert_int_equal(safetensors_write(path, all + (i ? 10 : 0), 10, NULL, 0, &err),
                         0);
    }
    /* s3 has the second half and one tensor of the first */
    snprintf(path, sizeof(path), "%s/s3.safetensors", hf);
    assert_int_equal(safetensors_write(path, all + 9, 11, NULL, 0, &err), 0);
    snprintf(path, sizeof(path), "%s/model.safetensors.index.json", hf);
    {
        struct tiny_bytes b = {0};
        char line[256];

        tiny_put(&b, "{\"metadata\":{\"total_size\":", 26);
        snprintf(line, sizeof(line), "%s},\"weight_map\":{",
                 strstr(index, "size") ? "7" : "37952");
        tiny_put(&b, line, strlen(line));
        for (size_t i = 0; i < n; i++) {
            const bool last = i == n - 1;
            const char *file = i < 10                    ? "s1.safetensors"
                               : !strcmp(index, "twice") ? "s3.safetensors"
                                                         : "s2.safetensors";

            if (last && !strcmp(index, "unlisted"))
                break;
            if (last &&
                (strchr(index, '/') || strstr(index, "absent") || !strcmp(index, "..")))
                file = index;
            if (last && !strcmp(index, "wrong"))
                file = "s1.safetensors";
            snprintf(line, sizeof(line), "%s\"%s\":\"%s\"", i ? "," : "", all[i].name,
                     file);
            tiny_put(&b, line, strlen(line));
        }
        tiny_put(&b, "}}", 2);
        assert_int_equal(tiny_save(path, b.data, b.size), 0);
        tiny_bytes_release(&b);
    }
    safetensors_close(s);
}

static void J28_shards_and_index_must_agree(void **state)
{
    static const struct {
        const char *index;
        int rc;
        const char *code;
    } cases[] = {{"fine", 0, ""},
                 {"../s2.safetensors", ARTEL_EFORMAT, "WT05"},
                 {"/etc/passwd", ARTEL_EFORMAT, "WT05"},
                 {"..", ARTEL_EFORMAT, "WT05"},
                 {"absent.safetensors", ARTEL_EIO, "IO01"},
                 {"twice", ARTEL_EFORMAT, "WT06"},
                 {"unlisted", ARTEL_EFORMAT, "WT06"},
                 {"wrong", ARTEL_EFORMAT, "WT06"},
                 {"wrong size", ARTEL_EFORMAT, "WT06"}};
    struct tiny_model m;
    struct weights *w;
    struct artel_error err;
    char *hf = in_folder("hf"), *index = in_folder("hf/model.safetensors.index.json");

    (void)state;
    tiny_model_default(&m);
    assert_int_equal(tiny_model_write_folder(&m, hf), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int rc;

        write_shards(hf, cases[i].index);
        err = (struct artel_error){0};
        rc = weights_open(&w, hf, &err);
        if (rc != cases[i].rc || strcmp(err.code, cases[i].code) != 0)
            fail_msg("%s: rc %d: %s: %s: %s [%s]", cases[i].index, rc, err.file,
                     err.where, err.reason, err.code);
        weights_close(w);
    }
    unlink(index);
    free(index);
    free(hf);
}

static void remove_index(void)
{
    char *index = in_folder("hf/model.safetensors.index.json");

    unlink(index);
    free(index);
}

static void J15_config_and_folder_must_agree(void **state)
{
    struct tiny_model m, other;
    struct weights *w;
    struct artel_error err = {0};
    char *hf = in_folder("hf"), *config = in_folder("hf/config.json");
    char *weights = in_folder("hf/model.safetensors"), *text, *place;

    (void)state;
    remove_index();
    tiny_model_default(&m);
    other = m;
    other.tied = false;
    assert_int_equal(tiny_model_write_folder(&m, hf), 0);
    text = tiny_model_config(&other);
    assert_int_equal(tiny_save(config, text, strlen(text)), 0);
    assert_error(weights_open(&w, hf, &err), ARTEL_EFORMAT, err, "WT01");
    assert_string_equal(err.where, "lm_head.weight");
    place = strstr(text, "\"vocab_size\":300");
    assert_non_null(place);
    memcpy(place, "\"vocab_size\":301", 16);
    assert_int_equal(tiny_save(config, text, strlen(text)), 0);
    assert_error(weights_open(&w, hf, &err), ARTEL_EFORMAT, err, "CFG08");
    assert_non_null(strstr(err.reason, "300 rows"));
    assert_non_null(strstr(err.reason, "301"));
    unlink(weights);
    err = (struct artel_error){0};
    assert_error(weights_open(&w, hf, &err), ARTEL_EIO, err, "WT07");
    unlink(config);
    err = (struct artel_error){0};
    assert_error(weights_open(&w, hf, &err), ARTEL_EIO, err, "IO01");
    assert_string_equal(err.file, config);
    free(text);
    free(config);
    free(weights);
    free(hf);
}

static void sites_have_their_names_and_shapes(void **state)
{
    const struct model_config c = {
        .dim = 576, .n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .ffn_dim = 1536};
    size_t m, n;

    (void)state;
    for (int s = 0; s < N_SITES; s++)
        assert_int_equal(site_from_name(site_name((enum site)s)), s);
    assert_int_equal(site_from_name("lm_head"), -1);
    assert_string_equal(site_module(SITE_GATE), "mlp.gate_proj");
    site_shape(&c, SITE_K, &m, &n);
    assert_true(m == 192 && n == 576);
    site_shape(&c, SITE_DOWN, &m, &n);
    assert_true(m == 576 && n == 1536);
}

static void the_real_model_opens_in_no_time(void **state)
{
    const char *path = getenv("ARTEL_TEST_MODEL");
    struct timespec from, to;
    struct weights *w;
    struct artel_error err = {0};

    (void)state;
    if (!path)
        skip();
    clock_gettime(CLOCK_MONOTONIC, &from);
    assert_int_equal(weights_open(&w, path, &err), 0);
    clock_gettime(CLOCK_MONOTONIC, &to);
    assert_int_equal(w->config.n_layers, 30);
    assert_int_equal(w->config.dim, 576);
    assert_int_equal(w->config.n_vocab, 49152);
    assert_true(w->config.tied);
    assert_int_equal(w->n_parameters, 134515008);
    for (size_t i = 0; i < 30; i++)
        assert_int_equal(tensor_check_finite(&w->layers[i].site[SITE_UP], &err), 0);
    weights_close(w);
    assert_true(
        (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 < 500);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"hf/s1.safetensors",
                                        "hf/s2.safetensors",
                                        "hf/s3.safetensors",
                                        "hf/model.safetensors",
                                        "hf/config.json",
                                        "hf/tokenizer.json",
                                        "hf/tokenizer_config.json",
                                        "hf",
                                        "m.gguf"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char *path = in_folder(names[i]);

        remove(path);
        free(path);
    }
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(G22_J15_tensors_that_do_not_fit_are_refused),
        cmocka_unit_test(both_containers_hold_the_same_model),
        cmocka_unit_test(a_digest_follows_the_weights_alone),
        cmocka_unit_test(J28_shards_and_index_must_agree),
        cmocka_unit_test(J15_config_and_folder_must_agree),
        cmocka_unit_test(sites_have_their_names_and_shapes),
        cmocka_unit_test(the_real_model_opens_in_no_time),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
