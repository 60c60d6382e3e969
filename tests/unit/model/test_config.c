/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes and switches from both containers: rows G20, G21, G23 and J12 to J15.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "files/gguf.h"
#include "files/json.h"
#include "model/config.h"
#include "support/tiny_model.h"

/* config.json of the tiny model with FIELDS (an object) laid over it. */
static int read_json(struct model_config *c, const char *fields, bool llama3,
                     struct artel_error *err)
{
    struct tiny_model m;
    char *text;
    json_t *root, *over;
    int rc;

    tiny_model_default(&m);
    m.rope_llama3 = llama3;
    text = tiny_model_config(&m);
    assert_int_equal(json_parse(&root, text, strlen(text), "config", 0, err), 0);
    assert_int_equal(json_parse(&over, fields, strlen(fields), "fields", 0, err), 0);
    assert_int_equal(json_object_update(root, over), 0);
    *err = (struct artel_error){0};
    rc = config_from_json(c, root, "config.json", err);
    json_decref(root);
    json_decref(over);
    free(text);
    return rc;
}

static const struct {
    const char *id, *fields, *code, *where, *reason; /* code NULL: must load */
} json_rows[] = {
    {"J12a", "{\"hidden_size\":0}", "CFG03", "hidden_size", "0 is not within"},
    {"J12b", "{\"hidden_size\":-1}", "JSON08", "hidden_size", "-1"},
    {"J12c", "{\"hidden_size\":\"4096\"}", "JSON07", "hidden_size", "\"4096\""},
    {"J12d", "{\"hidden_size\":4096.5}", "JSON07", "hidden_size", "4096.5"},
    {"J12e", "{\"hidden_size\":1099511627776}", "CFG03", "hidden_size",
     "1099511627776"},
    {"J12f", "{\"num_attention_heads\":4,\"num_key_value_heads\":3}", "CFG04",
     "num_key_value_heads", "3 key-value heads do not divide 4"},
    {"J12g", "{\"head_dim\":null,\"num_attention_heads\":3,\"num_key_value_heads\":3}",
     "CFG04", "num_attention_heads", "3 heads do not divide the width 16"},
    {"J12h", "{\"head_dim\":3}", "CFG04", "head_dim", "odd"},
    {"J12i", "{\"num_hidden_layers\":null}", "CFG02", "num_hidden_layers", "missing"},
    {"J12j", "{\"num_hidden_layers\":1000000}", "CFG03", "num_hidden_layers",
     "1000000"},
    {"J12k", "{\"rms_norm_eps\":0}", "CFG03", "rms_norm_eps", "0 is not"},
    {"J12l", "{\"rms_norm_eps\":-1e-5}", "CFG03", "rms_norm_eps", "-1e-05"},
    {"J12p", "{\"rms_norm_eps\":1e-46}", "CFG03", "rms_norm_eps", "smallest"},
    {"J12q", "{\"rms_norm_eps\":1e-40}", "CFG03", "rms_norm_eps", "1e-40"},
    {"J12r", "{\"rms_norm_eps\":1e-37}", NULL, NULL, NULL},
    {"J12m", "{\"rope_theta\":0.5}", "CFG03", "rope_theta", "0.5"},
    {"J12n", "{\"num_key_value_heads\":0}", "CFG03", "num_key_value_heads", "0 is not"},
    {"J12o", "{\"tie_word_embeddings\":\"yes\"}", "JSON07", "tie_word_embeddings",
     "yes"},
    {"J13a", "{\"model_type\":\"gpt2\"}", "CFG01", "model_type", "gpt2"},
    {"J13b", "{\"model_type\":null}", "JSON06", "model_type", "missing"},
    {"J13c", "{\"architectures\":[\"LlamaForSequenceClassification\"]}", "CFG01",
     "architectures", "LlamaForSequenceClassification"},
    {"J13d", "{\"model_type\":\"mistral\",\"architectures\":[\"MistralForCausalLM\"]}",
     NULL, NULL, NULL},
    {"J14a", "{\"sliding_window\":4096}", "CFG05", "sliding_window", NULL},
    {"J14b", "{\"attention_bias\":true}", "CFG05", "attention_bias", NULL},
    {"J14c", "{\"mlp_bias\":true}", "CFG05", "mlp_bias", NULL},
    {"J14d", "{\"hidden_act\":\"gelu\"}", "CFG05", "hidden_act", NULL},
    {"J14e", "{\"final_logit_softcapping\":30.0}", "CFG05", "final_logit_softcapping",
     NULL},
    {"J14f", "{\"attn_logit_softcapping\":50.0}", "CFG05", "attn_logit_softcapping",
     NULL},
    {"J14g", "{\"use_qk_norm\":true}", "CFG05", "use_qk_norm", NULL},
    {"J14h", "{\"partial_rotary_factor\":0.5}", "CFG05", "partial_rotary_factor", NULL},
    {"J14i", "{\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", "CFG05",
     "layer_types", NULL},
    {"J14j", "{\"quantization_config\":{\"bits\":4}}", "CFG05", "quantization_config",
     NULL},
    {"J14k", "{\"logits_scaling\":8}", "CFG05", "logits_scaling", NULL},
    {"J14l", "{\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}}", "CFG06",
     "rope_scaling", "'yarn'"},
    {"J14m", "{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}", "CFG06",
     "rope_scaling", "'dynamic'"},
    {"J14n", "{\"rope_scaling\":{\"factor\":2}}", "CFG06", "rope_scaling", "missing"},
    {"J14o", "{\"rope_scaling\":{\"type\":\"linear\"}}", "CFG06", "factor", "missing"},
    {"J14p", "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0.5}}", "CFG06",
     "rope_scaling", "0.5"},
    {"J14q", "{\"rope_scaling\":[1]}", "CFG06", "rope_scaling", "object"},
    {"J14r",
     "{\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,"
     "\"high_freq_factor\":1,\"original_max_position_embeddings\":64}}",
     "CFG06", "rope_scaling", "below"},
    {"J14s", "{\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1}}}", "CFG06",
     "rope_parameters", "rope_type is missing"},
    {"J14t",
     "{\"sliding_window\":null,\"layer_types\":[\"full_attention\"],\"mlp_bias\":"
     "false}",
     NULL, NULL, NULL},
    {"J16a", "{\"bos_token_id\":300}", "CFG07", "bos_token_id",
     "300 is not one of the 300"},
    {"J16b", "{\"eos_token_id\":[2,4000000000]}", "CFG07", "eos_token_id",
     "4000000000"},
    {"J16c", "{\"eos_token_id\":\"2\"}", "JSON07", "eos_token_id", NULL},
    {"J16d", "{\"pad_token_id\":-2}", "CFG07", "pad_token_id", "-2"},
    {"J16e", "{\"pad_token_id\":-1}", NULL, NULL, NULL},
};

static void J12_to_J16_bad_fields_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(json_rows) / sizeof(json_rows[0]); i++) {
        struct model_config c;
        struct artel_error err = {0};
        const int rc = read_json(&c, json_rows[i].fields, false, &err);

        if (!json_rows[i].code
                ? rc != 0
                : rc != ARTEL_EFORMAT || strcmp(err.code, json_rows[i].code) != 0 ||
                      strcmp(err.where, json_rows[i].where) != 0 ||
                      strcmp(err.file, "config.json") != 0 ||
                      (json_rows[i].reason && !strstr(err.reason, json_rows[i].reason)))
            fail_msg("%s: rc %d: %s: %s: %s [%s]", json_rows[i].id, rc, err.file,
                     err.where, err.reason, err.code);
    }
}

static int read_gguf(struct model_config *c, struct tiny_gguf *g,
                     struct artel_error *err)
{
    struct tiny_bytes b = {0};
    struct gguf *parsed;
    int rc;

    tiny_gguf_layout(g);
    tiny_gguf_pack(g, &b);
    *err = (struct artel_error){0};
    assert_int_equal(gguf_parse(&parsed, b.data, b.size, "tiny.gguf", err), 0);
    rc = config_from_gguf(c, parsed, err);
    gguf_close(parsed);
    tiny_bytes_release(&b);
    return rc;
}

/* KEY set to VALUE of a type; 'x' drops the key, 't' is text, 'f' float, 'b' bool. */
static const struct {
    const char *id, *key;
    char type;
    double value;
    const char *text;
    const char *code; /* NULL: must load */
} gguf_rows[] = {
    {"G20a", "llama.block_count", 't', 0, "2", "GGUF20"},
    {"G20b", "llama.block_count", 'x', 0, NULL, "CFG02"},
    {"G20c", "general.architecture", 'x', 0, NULL, "GGUF20"},
    {"G20d", "llama.attention.layer_norm_rms_epsilon", 'x', 0, NULL, "GGUF20"},
    {"G20e", "llama.attention.layer_norm_rms_epsilon", 't', 0, "1", "GGUF20"},
    {"G20f", "llama.embedding_length", 'b', 1, NULL, "GGUF20"},
    {"G21a", "llama.attention.head_count", 'u', 0, NULL, "CFG03"},
    {"G21b", "llama.attention.head_count_kv", 'u', 3, NULL, "CFG04"},
    {"G21c", "llama.block_count", 'u', 2147483648.0, NULL, "CFG03"},
    {"G21d", "llama.context_length", 'u', 0, NULL, "CFG03"},
    {"G21e", "llama.rope.dimension_count", 'u', 3, NULL, "CFG05"},
    {"G21f", "llama.attention.layer_norm_rms_epsilon", 'f', 0, NULL, "CFG03"},
    {"G21g", "llama.attention.layer_norm_rms_epsilon", 'f', -1, NULL, "CFG03"},
    {"G21h", "llama.attention.layer_norm_rms_epsilon", 'f', NAN, NULL, "CFG03"},
    {"G21o", "llama.attention.layer_norm_rms_epsilon", 'f', 1e-40, NULL, "CFG03"},
    {"G21p", "llama.attention.layer_norm_rms_epsilon", 'd', 1e-46, NULL, "CFG03"},
    {"G21q", "llama.attention.layer_norm_rms_epsilon", 'd', 1e-6, NULL, NULL},
    {"G21i", "llama.expert_used_count", 'u', 8, NULL, "CFG05"},
    {"G21j", "llama.attention.key_length", 'u', 5, NULL, "CFG04"},
    {"G21k", "llama.attention.value_length", 'u', 8, NULL, "CFG05"},
    {"G21l", "llama.rope.freq_base", 'f', INFINITY, NULL, "CFG03"},
    {"G21m", "llama.embedding_length", 'u', 0, NULL, "CFG03"},
    {"G21n", "llama.feed_forward_length", 'u', 4294967295.0, NULL, "CFG03"},
    {"G23a", "llama.vocab_size", 'u', 299, NULL, "CFG08"},
    {"G23b", "tokenizer.ggml.bos_token_id", 'u', 300, NULL, "CFG07"},
    {"G23c", "tokenizer.ggml.bos_token_id", 'u', 4294967295.0, NULL, NULL},
    {"J13", "general.architecture", 't', 0, "gpt2", "CFG01"},
    {"J13a", "general.type", 't', 0, "adapter", "CFG01"},
    {"J14a", "llama.attention.sliding_window", 'u', 4096, NULL, "CFG05"},
    {"J14b", "llama.attention.sliding_window", 'u', 0, NULL, NULL},
    {"J14c", "llama.final_logit_softcapping", 'f', 30, NULL, "CFG05"},
    {"J14d", "llama.logit_scale", 'f', 8, NULL, "CFG05"},
    {"J14e", "llama.attention.causal", 'b', 0, NULL, "CFG05"},
    {"J14f", "llama.rope.scaling.type", 't', 0, "yarn", "CFG06"},
    {"J14g", "llama.rope.scaling.factor", 'f', -2, NULL, "CFG06"},
    {"J14h", "llama.rope.scaling.type", 't', 0, "none", NULL},
    {"J14i", "llama.expert_count", 'u', 8, NULL, "CFG05"},
};

static void G20_to_G23_bad_keys_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(gguf_rows) / sizeof(gguf_rows[0]); i++) {
        struct tiny_gguf *g = malloc(sizeof(*g));
        struct tiny_model m;
        struct model_config c;
        struct artel_error err;
        const char *key = gguf_rows[i].key;
        int rc;

        assert_non_null(g);
        tiny_model_default(&m);
        tiny_model_gguf(&m, g);
        if (gguf_rows[i].type == 'x')
            tiny_gguf_drop_key(g, key);
        else if (gguf_rows[i].type == 't')
            tiny_gguf_text(g, key, gguf_rows[i].text);
        else if (gguf_rows[i].type == 'f')
            tiny_gguf_f32(g, key, (float)gguf_rows[i].value);
        else if (gguf_rows[i].type == 'd')
            tiny_gguf_raw(g, key, 12, &gguf_rows[i].value, sizeof(double));
        else if (gguf_rows[i].type == 'b')
            tiny_gguf_bool(g, key, (unsigned char)gguf_rows[i].value);
        else
            tiny_gguf_u32(g, key, (uint32_t)gguf_rows[i].value);
        rc = read_gguf(&c, g, &err);
        if (!gguf_rows[i].code
                ? rc != 0
                : rc != ARTEL_EFORMAT || strcmp(err.code, gguf_rows[i].code) != 0 ||
                      strcmp(err.where, key) != 0 || strcmp(err.file, "tiny.gguf") != 0)
            fail_msg("%s: rc %d: %s: %s: %s [%s]", gguf_rows[i].id, rc, err.file,
                     err.where, err.reason, err.code);
        tiny_gguf_release(g);
        free(g);
    }
}

static void both_containers_give_the_same_sizes(void **state)
{
    struct tiny_gguf *g = malloc(sizeof(*g));
    struct tiny_model m;
    struct model_config a, b;
    struct artel_error err;

    (void)state;
    assert_non_null(g);
    tiny_model_default(&m);
    m.rope_llama3 = true;
    tiny_model_gguf(&m, g);
    assert_int_equal(read_gguf(&a, g, &err), 0);
    assert_int_equal(read_json(&b, "{}", true, &err), 0);
    assert_string_equal(a.architecture, "llama");
    assert_string_equal(b.architecture, "llama");
    assert_int_equal(a.n_layers, 2);
    assert_int_equal(a.dim, 16);
    assert_int_equal(a.n_heads, 4);
    assert_int_equal(a.n_kv_heads, 2);
    assert_int_equal(a.head_dim, 4);
    assert_int_equal(a.ffn_dim, 32);
    assert_int_equal(a.n_vocab, 300);
    assert_int_equal(a.context, 512);
    assert_true(a.tied && b.tied);
    assert_true(a.rope_interleaved && !b.rope_interleaved);
    assert_true(a.bos == 1 && a.eos == 2 && a.pad == 2);
    assert_near(a.rope_divisor[0], 1, 0); /* short waves stay */
    assert_near(a.rope_divisor[1], 8, 0); /* long ones are slowed by the factor */
    /* but for the one switch, everything agrees */
    b.rope_interleaved = true;
    for (size_t i = 0; i < 512; i++)
        assert_near(a.rope_divisor[i], b.rope_divisor[i], 0);
    assert_memory_equal(&a.n_layers, &b.n_layers,
                        offsetof(struct model_config, norm_eps) -
                            offsetof(struct model_config, n_layers));
    assert_near(a.norm_eps, b.norm_eps, 0);
    assert_near(a.rope_theta, b.rope_theta, 0);
    assert_int_equal(a.n_ends, b.n_ends);
    tiny_gguf_release(g);
    free(g);
}

static void llama3_scaling_blends_between(void **state)
{
    /* head size 64, theta 5e5, factor 32, low 1, high 4, length 8192: by transformers */
    struct model_config c;
    struct artel_error err;

    (void)state;
    assert_int_equal(
        read_json(&c,
                  "{\"head_dim\":64,\"rope_theta\":500000.0,\"rope_scaling\":"
                  "{\"rope_type\":\"llama3\",\"factor\":32.0,"
                  "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                  "\"original_max_position_embeddings\":8192}}",
                  false, &err),
        0);
    assert_near(c.rope_divisor[14], 1.0, 0);
    assert_near(c.rope_divisor[15], 1.651329, 1e-4);
    assert_near(c.rope_divisor[17], 9.666731, 1e-3);
    assert_near(c.rope_divisor[18], 31.999999, 1e-3);
    assert_near(c.rope_divisor[31], 32.0, 0);
}

static void scaling_may_have_the_newer_keys(void **state)
{
    struct model_config c;
    struct artel_error err;

    (void)state;
    assert_int_equal(
        read_json(&c,
                  "{\"rope_theta\":null,\"rope_parameters\":{\"rope_theta\":5e5,"
                  "\"rope_type\":\"linear\",\"factor\":2.0}}",
                  false, &err),
        0);
    assert_near(c.rope_theta, 5e5, 0);
    assert_near(c.rope_divisor[1], 2, 0);
    assert_int_equal(
        read_json(
            &c, "{\"rope_parameters\":{\"rope_theta\":7.0,\"rope_type\":\"default\"}}",
            false, &err),
        0);
    assert_near(c.rope_theta, 7, 0);
    assert_near(c.rope_divisor[1], 1, 0);
    assert_error(read_json(&c,
                           "{\"rope_parameters\":{\"rope_type\":\"default\"},"
                           "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2}}",
                           false, &err),
                 ARTEL_EFORMAT, err, "CFG06");
}

static void defaults_and_lists_are_understood(void **state)
{
    struct model_config c;
    struct artel_error err;

    (void)state;
    assert_int_equal(read_json(&c,
                               "{\"num_key_value_heads\":null,\"head_dim\":null,"
                               "\"tie_word_embeddings\":null,\"eos_token_id\":[2,0,2],"
                               "\"bos_token_id\":null}",
                               false, &err),
                     0);
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(c.head_dim, 4);
    assert_false(c.tied);
    assert_int_equal(c.bos, -1);
    assert_int_equal(c.eos, 2);
    assert_int_equal(c.n_ends, 2);
    assert_int_equal(c.ends[1], 0);
}

static void sizes_may_be_listed_by_layer_when_equal(void **state)
{
    const int32_t same[] = {2, 2}, other[] = {2, 1};
    struct tiny_gguf *g = malloc(sizeof(*g));
    struct tiny_model m;
    struct model_config c;
    struct artel_error err;

    (void)state;
    assert_non_null(g);
    tiny_model_default(&m);
    tiny_model_gguf(&m, g);
    tiny_gguf_numbers(g, "llama.attention.head_count_kv", TINY_I32, same, 2);
    tiny_gguf_f32(g, "llama.rope.scaling.factor", 4.0f);
    assert_int_equal(read_gguf(&c, g, &err), 0);
    assert_int_equal(c.n_kv_heads, 2);
    assert_near(c.rope_divisor[0], 4, 0);
    tiny_gguf_numbers(g, "llama.attention.head_count_kv", TINY_I32, other, 2);
    assert_error(read_gguf(&c, g, &err), ARTEL_EFORMAT, err, "CFG09");
    assert_string_equal(err.where, "llama.attention.head_count_kv");
    tiny_gguf_release(g);
    free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(J12_to_J16_bad_fields_are_refused_by_name),
        cmocka_unit_test(G20_to_G23_bad_keys_are_refused_by_name),
        cmocka_unit_test(both_containers_give_the_same_sizes),
        cmocka_unit_test(llama3_scaling_blends_between),
        cmocka_unit_test(scaling_may_have_the_newer_keys),
        cmocka_unit_test(defaults_and_lists_are_understood),
        cmocka_unit_test(sizes_may_be_listed_by_layer_when_equal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
