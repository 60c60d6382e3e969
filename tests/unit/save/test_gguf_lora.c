/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts as GGUF LoRA files: back to the bit, rows where llama.cpp looks for them, one
 * alpha for all, and what is refused.
 */
#include <math.h>

#include "files/gguf.h"
#include "files/gguf_write.h"
#include "save/adapter_parts.h"
#include "save/gguf_lora.h"
#include "save/joined.h"
#include "unit/save/adapter_bench.h"

#define N_LINEARS (TOY_LAYERS * N_SITES)

/* Ranks 2 and 3; scales by SHAPE: 0 all alpha 4, 1 some of twice that, 2 some of a third,
 * 3 none at all. */
static void make_expert(struct expert *e, const struct model_config *c, int shape)
{
    uint16_t rank[N_LINEARS];
    float scale[N_LINEARS];

    for (size_t i = 0; i < N_LINEARS; i++) {
        rank[i] = i % N_SITES == SITE_UP ? 3 : 2;
        scale[i] = lora_scale(4.0f, rank[i], false);
        if (i % N_SITES == SITE_DOWN)
            scale[i] *= shape == 1 ? 2.0f : shape == 2 ? 1.0f / 3.0f : 1.0f;
        if (shape == 3)
            scale[i] = 0.0f;
        if (i == SITE_K)
            rank[i] = 0;
    }
    assert_int_equal(expert_init(e, "toy", c, rank, scale, NULL), 0);
    for (size_t i = 0; i < e->n_params; i++)
        e->params[i] = (float)(i % 97) / 16.0f - 3.0f;
}

struct place {
    struct bench *b;
    char *path;
    struct gguf *g;
};

static struct place place_open(bool interleaved)
{
    struct place p = {.b = bench_open(interleaved)};

    p.path = path_join(p.b->scratch, "lora.gguf");
    return p;
}

static void place_close(struct place *p)
{
    gguf_close(p->g);
    free(p->path);
    bench_close(p->b);
}

static struct gguf_lora_result write_ok(struct place *p, const struct expert *e,
                                        enum dtype type)
{
    const struct gguf_lora_notes notes = {"toy", p->b->base.model.base_digest};
    struct gguf_lora_result r;

    assert_int_equal(gguf_lora_write(&r, p->path, e, &p->b->base.weights.config, type,
                                     &notes, &p->b->err),
                     0);
    gguf_close(p->g);
    assert_int_equal(gguf_open(&p->g, p->path, &p->b->err), 0);
    return r;
}

static int read_back(struct place *p, struct expert *e, const struct model_config *c,
                     const char *digest)
{
    return gguf_lora_read(e, "toy", p->g, c, digest, &p->b->err);
}

/* A SCALE (ALPHA / rank) times B A, which is what an expert is. */
static double product(const struct lora *l, size_t i, size_t j)
{
    double sum = 0.0;

    for (size_t r = 0; r < l->rank; r++)
        sum += (double)l->b[i * l->rank + r] * (double)l->a[r * l->n_in + j];
    return sum * (double)l->scale;
}

static void experts_of_one_alpha_come_back_to_the_bit(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct place p = place_open(i);
        const struct model_config *c = &p.b->base.weights.config;
        struct expert e, back;
        struct gguf_lora_result r;
        char want[DIGEST_SIZE], got[DIGEST_SIZE];

        make_expert(&e, c, 0);
        r = write_ok(&p, &e, DTYPE_F32);
        assert_true(r.exact);
        assert_int_equal(r.n_folded, 0);
        assert_int_equal(r.n_linears, N_LINEARS - 1);
        assert_near(r.alpha, 4.0, 0.0);
        assert_int_equal(read_back(&p, &back, c, p.b->base.model.base_digest), 0);
        expert_digest(&e, want);
        expert_digest(&back, got);
        assert_string_equal(got, want);
        expert_release(&e);
        expert_release(&back);
        place_close(&p);
    }
}

/* The format has one alpha; what a linear's own asks beyond it goes into B. */
static void other_alphas_go_into_b(void **state)
{
    (void)state;
    for (int shape = 1; shape < 4; shape++) {
        struct place p = place_open(true);
        const struct model_config *c = &p.b->base.weights.config;
        struct expert e, back;
        struct gguf_lora_result r;

        make_expert(&e, c, shape);
        r = write_ok(&p, &e, DTYPE_F32);
        assert_int_equal(r.n_folded, shape == 3 ? N_LINEARS - 1 : TOY_LAYERS);
        assert_int_equal(r.exact, shape == 1);
        assert_true(r.alpha != 0.0f); /* readers take 0 for "none" */
        assert_int_equal(read_back(&p, &back, c, NULL), 0);
        for (size_t l = 0; l < N_LINEARS; l++)
            for (size_t i = 0; e.lora[l].rank && i < e.lora[l].n_out; i++)
                for (size_t j = 0; j < e.lora[l].n_in; j++)
                    assert_near(product(&back.lora[l], i, j), product(&e.lora[l], i, j),
                                shape == 2 ? 1e-5 : 0.0);
        expert_release(&e);
        expert_release(&back);
        place_close(&p);
    }
}

/* The trap: llama's GGUF has row 2 i + j of a head where Hugging Face has j D / 2 + i. */
static void rows_of_q_and_k_are_those_of_gguf(void **state)
{
    (void)state;
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        struct place p = place_open(interleaved);
        struct expert e;
        const struct lora *l;
        const struct tensor *q, *v, *a;

        make_expert(&e, &p.b->base.weights.config, 0);
        write_ok(&p, &e, DTYPE_F32);
        q = gguf_find(p.g, "blk.1.attn_q.weight.lora_b");
        v = gguf_find(p.g, "blk.1.attn_v.weight.lora_b");
        a = gguf_find(p.g, "blk.1.attn_q.weight.lora_a");
        assert_true(q && v && a && !gguf_find(p.g, "blk.0.attn_k.weight.lora_a"));
        l = expert_lora(&e, 1, SITE_Q);
        assert_memory_equal(a->data, l->a, a->bytes);
        for (size_t row = 0; row < l->n_out; row++) {
            const size_t in_head = row % TOY_HEAD, i = in_head / 2, j = in_head % 2;
            const size_t ours =
                interleaved ? row : row - in_head + j * TOY_HEAD / 2 + i;

            assert_memory_equal((const char *)q->data + row * 8, l->b + ours * 2, 8);
        }
        assert_memory_equal(v->data, expert_lora(&e, 1, SITE_V)->b, v->bytes);
        expert_release(&e);
        place_close(&p);
    }
}

/* Written beside one form of the base, read beside the other. */
static void the_base_may_be_a_folder_or_a_gguf(void **state)
{
    struct place p = place_open(false);
    const struct model_config turned = toy_config(true);
    struct expert e, back;

    (void)state;
    make_expert(&e, &p.b->base.weights.config, 0);
    write_ok(&p, &e, DTYPE_F32);
    assert_int_equal(read_back(&p, &back, &turned, NULL), 0);
    for (size_t j = 0; j < e.lora[SITE_Q].n_out; j++)
        assert_memory_equal(back.lora[SITE_Q].b + hf_row(&turned, SITE_Q, j) * 2,
                            e.lora[SITE_Q].b + j * 2, 8);
    expert_release(&e);
    expert_release(&back);
    place_close(&p);
}

static void halves_are_rounded_and_overflow_is_told(void **state)
{
    struct place p = place_open(true);
    const struct gguf_lora_notes notes = {"toy", NULL};
    const struct model_config *c = &p.b->base.weights.config;
    const enum dtype types[] = {DTYPE_F16, DTYPE_BF16};
    struct gguf_lora_result r;
    struct expert e, back;

    (void)state;
    make_expert(&e, c, 0);
    for (size_t i = 0; i < 2; i++) {
        assert_false(write_ok(&p, &e, types[i]).exact);
        assert_int_equal(read_back(&p, &back, c, NULL), 0);
        for (size_t k = 0; k < e.n_params; k++)
            assert_near(back.params[k], e.params[k],
                        fabs((double)e.params[k]) * (i ? 0x1p-8 : 0x1p-11));
        expert_release(&back);
    }
    e.params[5] = 70000.0f;
    assert_int_equal(gguf_lora_write(&r, p.path, &e, c, DTYPE_F16, &notes, &p.b->err),
                     ARTEL_EFORMAT);
    assert_string_equal(p.b->err.code, "GLA06");
    expert_release(&e);
    place_close(&p);
}

/* A file of given keys and tensors, read: the code, or "". */
static const char *read_made(struct place *p, const char *type, const char *arch,
                             float alpha, const struct tensor *tensors, size_t n)
{
    struct gguf_keys *keys;
    struct expert e;
    int rc;

    assert_int_equal(gguf_keys_open(&keys, &p->b->err), 0);
    gguf_keys_text(keys, "general.architecture", arch);
    gguf_keys_text(keys, "general.type", "adapter");
    gguf_keys_text(keys, "adapter.type", type);
    gguf_keys_f32(keys, "adapter.lora.alpha", alpha);
    assert_int_equal(gguf_write(p->path, keys, tensors, n, NULL, &p->b->err), 0);
    gguf_keys_close(keys);
    gguf_close(p->g);
    assert_int_equal(gguf_open(&p->g, p->path, &p->b->err), 0);
    p->b->err = (struct artel_error){0};
    rc = read_back(p, &e, &p->b->base.weights.config, NULL);
    if (rc == 0)
        expert_release(&e);
    assert_true(rc == 0 || rc == ARTEL_EFORMAT);
    return p->b->err.code;
}

static void files_that_do_not_fit_are_refused(void **state)
{
    static float numbers[64];
    struct place p = place_open(true);
    struct tensor t[2] = {{.name = "blk.0.attn_v.weight.lora_a",
                           .dtype = DTYPE_F32,
                           .n_dims = 2,
                           .shape = {2, TOY_DIM},
                           .data = numbers,
                           .bytes = 2 * TOY_DIM * 4},
                          {.name = "blk.0.attn_v.weight.lora_b",
                           .dtype = DTYPE_F32,
                           .n_dims = 2,
                           .shape = {TOY_HEAD, 2},
                           .data = numbers,
                           .bytes = 2 * TOY_HEAD * 4}};
    struct tensor other[2];

    (void)state;
    assert_string_equal(read_made(&p, "lora", "llama", 4, t, 2), "");
    assert_string_equal(read_made(&p, "lora", "llama", 0, t, 2), "");
    assert_string_equal(read_made(&p, "ia3", "llama", 4, t, 2), "GLA01");
    assert_string_equal(read_made(&p, "lora", "qwen2", 4, t, 2), "GLA02");
    assert_string_equal(read_made(&p, "lora", "llama", 4, t, 0), "GLA03");
    assert_string_equal(read_made(&p, "lora", "llama", 4, t, 1), "GLA04");
    assert_string_equal(read_made(&p, "lora", "llama", NAN, t, 2), "GLA07");
    numbers[3] = INFINITY;
    assert_string_equal(read_made(&p, "lora", "llama", 4, t, 2), "GLA06");
    numbers[3] = 0.0f;
    for (int i = 0; i < 4; i++) {
        static const char *const names[] = {
            "blk.2.attn_v.weight.lora_a", "blk.00.attn_v.weight.lora_a",
            "blk.0.attn_norm.weight", "token_embd.weight.lora_a"};

        memcpy(other, t, sizeof(t));
        other[0].name = names[i];
        assert_string_equal(read_made(&p, "lora", "llama", 4, other, 2), "GLA03");
    }
    memcpy(other, t, sizeof(t));
    other[1].name = "blk.0.attn_q.weight.lora_b";
    assert_string_equal(read_made(&p, "lora", "llama", 4, other, 2), "GLA04");
    other[0].name = "blk.0.attn_q.weight.lora_a";
    assert_string_equal(read_made(&p, "lora", "llama", 4, other, 2), "GLA05");
    place_close(&p);
}

static void a_file_of_another_base_is_refused(void **state)
{
    struct place p = place_open(true);
    struct expert e, back;

    (void)state;
    make_expert(&e, &p.b->base.weights.config, 0);
    write_ok(&p, &e, DTYPE_F32);
    assert_int_equal(
        read_back(&p, &back, &p.b->base.weights.config, p.b->base.model.chat_digest),
        ARTEL_EFORMAT);
    assert_string_equal(p.b->err.code, "GLA02");
    /* Both are named: which base to look for, and which was given. */
    assert_non_null(strstr(p.b->err.reason, p.b->base.model.base_digest));
    assert_non_null(strstr(p.b->err.reason, p.b->base.model.chat_digest));
    expert_release(&e);
    place_close(&p);
}

/* Of a file that read_made() wrote. */
static const char *sizes_code(struct place *p, struct gguf_lora_sizes *out)
{
    const int rc = gguf_lora_sizes(out, p->g, &p->b->err);

    assert_true(rc == 0 || rc == ARTEL_EFORMAT);
    return rc == 0 ? "" : p->b->err.code;
}

static void a_file_tells_its_sizes_without_its_base(void **state)
{
    static float numbers[8];
    struct place p = place_open(true);
    struct gguf_lora_sizes sizes;
    struct expert e;
    struct tensor t[4] = {{.name = "blk.7.attn_v.weight.lora_a", .shape = {2, 3}},
                          {.name = "blk.7.attn_v.weight.lora_b", .shape = {4, 2}},
                          {.name = "blk.99999.ffn_up.weight.lora_a", .shape = {1, 5}},
                          {.name = "blk.99999.ffn_up.weight.lora_b", .shape = {6, 1}}};

    (void)state;
    for (int i = 0; i < 4; i++) {
        t[i].n_dims = 2;
        t[i].dtype = DTYPE_F32;
        t[i].data = numbers;
        t[i].bytes = t[i].shape[0] * t[i].shape[1] * sizeof(float);
    }
    (void)read_made(&p, "lora", "llama", 4, t, 4);
    assert_string_equal(sizes_code(&p, &sizes), "");
    assert_int_equal(sizes.n_params, 14 + 11);
    assert_int_equal(sizes.n_layers, 2);
    assert_int_equal(sizes.smallest_rank, 1);
    assert_int_equal(sizes.largest_rank, 2);
    for (int i = 0; i < N_SITES; i++)
        assert_int_equal(sizes.sites[i], i == SITE_V || i == SITE_UP);
    (void)read_made(&p, "lora", "llama", 4, t, 3);
    assert_string_equal(sizes_code(&p, &sizes), "GLA04");
    (void)read_made(&p, "lora", "llama", 4, t, 0);
    assert_string_equal(sizes_code(&p, &sizes), "GLA03");
    (void)read_made(&p, "ia3", "llama", 4, t, 2);
    assert_string_equal(sizes_code(&p, &sizes), "GLA01");
    (void)read_made(&p, "lora", "unheard", 4, t, 2);
    assert_string_equal(sizes_code(&p, &sizes), "GLA02");
    t[1].shape[1] = 1;
    t[1].bytes = 4 * sizeof(float);
    (void)read_made(&p, "lora", "llama", 4, t, 2);
    assert_string_equal(sizes_code(&p, &sizes), "GLA05");
    t[1].name = "blk.100000.attn_v.weight.lora_b";
    (void)read_made(&p, "lora", "llama", 4, t + 1, 1);
    assert_string_equal(sizes_code(&p, &sizes), "GLA03");
    /* Of one that was written, the expert's own. */
    make_expert(&e, &p.b->base.weights.config, 0);
    write_ok(&p, &e, DTYPE_F16);
    assert_string_equal(sizes_code(&p, &sizes), "");
    assert_int_equal(sizes.n_params, e.n_params);
    assert_int_equal(sizes.n_layers, TOY_LAYERS);
    expert_release(&e);
    place_close(&p);
}

static void joined_experts_are_their_weighted_sum(void **state)
{
    struct place p = place_open(true);
    const struct model_config *c = &p.b->base.weights.config;
    struct expert one, two, none, sum;
    struct gated parts[3];

    (void)state;
    make_expert(&one, c, 0);
    make_expert(&two, c, 1);
    for (size_t i = 0; i < two.n_params; i++)
        two.params[i] = (float)(i % 53) / 32.0f - 0.5f;
    assert_int_equal(expert_init_identity(&none, "none", TOY_LAYERS, NULL), 0);
    parts[0] = (struct gated){&one, 0.75f};
    parts[1] = (struct gated){&none, 0.5f};
    parts[2] = (struct gated){&two, -0.25f};
    assert_int_equal(experts_join(&sum, "sum", c, parts, 3, &p.b->err), 0);
    for (size_t l = 0; l < N_LINEARS; l++)
        for (size_t i = 0; sum.lora[l].rank && i < sum.lora[l].n_out; i++)
            for (size_t j = 0; j < sum.lora[l].n_in; j++)
                assert_near(product(&sum.lora[l], i, j),
                            0.75 * product(&one.lora[l], i, j) -
                                0.25 * product(&two.lora[l], i, j),
                            1e-4);
    expert_release(&sum);
    /* One alone keeps its numbers; its gate is in the scale. */
    parts[2].gate = 0.0f;
    assert_int_equal(experts_join(&sum, "sum", c, parts, 3, &p.b->err), 0);
    assert_memory_equal(sum.params, one.params, one.n_params * sizeof(float));
    assert_near(sum.lora[0].scale, 0.75f * one.lora[0].scale, 0.0);
    expert_release(&sum);
    assert_int_equal(experts_join(&sum, "sum", c, parts + 1, 1, &p.b->err),
                     ARTEL_EUSAGE);
    assert_string_equal(p.b->err.code, "CNV03");
    expert_release(&one);
    expert_release(&two);
    expert_release(&none);
    place_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(experts_of_one_alpha_come_back_to_the_bit),
        cmocka_unit_test(other_alphas_go_into_b),
        cmocka_unit_test(rows_of_q_and_k_are_those_of_gguf),
        cmocka_unit_test(the_base_may_be_a_folder_or_a_gguf),
        cmocka_unit_test(halves_are_rounded_and_overflow_is_told),
        cmocka_unit_test(files_that_do_not_fit_are_refused),
        cmocka_unit_test(a_file_of_another_base_is_refused),
        cmocka_unit_test(a_file_tells_its_sizes_without_its_base),
        cmocka_unit_test(joined_experts_are_their_weighted_sum),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
