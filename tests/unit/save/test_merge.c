/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts merged into tiny models: numbers within their bounds, rows where each form has
 * them, tokenizers that stay the same, and what else the files hold.
 */
#include <math.h>

#include "files/gguf.h"
#include "math/kernels.h"
#include "save/adapter_parts.h"
#include "save/merge.h"
#include "support/tiny_model.h"
#include "unit/save/fixture.h"

#define U 0x1p-24 /* of a float */

struct bench {
    char *scratch, *gguf, *folder, *out;
    struct artel_model *model; /* of the GGUF file */
    struct expert expert;
    struct merge merge;
    struct artel_error err;
};

/* An expert in the order of rows that C has; the same one in both forms of a base. */
static void make_expert(struct expert *e, const struct model_config *c)
{
    struct lora_options o;

    lora_options_default(&o);
    o.rank = 3;
    o.alpha = 5.0f;
    o.targets[SITE_O] = false;
    assert_int_equal(expert_init_uniform(e, "toy", c, &o, NULL), 0);
    for (size_t i = 0; i < c->n_layers * N_SITES; i++) {
        const struct lora *l = &e->lora[i];

        for (size_t k = 0; k < l->rank * l->n_in; k++)
            l->a[k] = sinf((float)(k + 7 * i)) / 4.0f;
        for (size_t j = 0; l->rank && j < l->n_out; j++)
            for (size_t r = 0; r < l->rank; r++)
                l->b[hf_row(c, (enum site)(i % N_SITES), j) * l->rank + r] =
                    cosf((float)(j * l->rank + r + 5 * i)) / 16.0f;
    }
}

static struct bench *bench_open(const struct tiny_model *shape)
{
    struct bench *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    b->scratch = scratch_open();
    b->gguf = path_join(b->scratch, "base.gguf");
    b->folder = path_join(b->scratch, "base");
    b->out = path_join(b->scratch, "out");
    assert_int_equal(tiny_model_write_gguf(shape, b->gguf), 0);
    assert_int_equal(model_open(&b->model, b->gguf, &b->err), 0);
    make_expert(&b->expert, &b->model->weights->config);
    return b;
}

static void bench_close(struct bench *b)
{
    merge_release(&b->merge);
    expert_release(&b->expert);
    model_close(b->model);
    scratch_close(b->scratch);
    free(b->gguf);
    free(b->folder);
    free(b->out);
    free(b);
}

static struct artel_model *reopen(struct bench *b)
{
    struct artel_model *m;

    if (model_open(&m, b->out, &b->err) < 0)
        fail_msg("%s: %s [%s]", b->err.file, b->err.reason, b->err.code);
    return m;
}

static float *floats(const struct tensor *t)
{
    float *x = malloc(tensor_elems(t) * sizeof(*x));

    assert_non_null(x);
    kernels_ref()->dequant[t->dtype](x, t->data, tensor_elems(t));
    return x;
}

/* Every number of GOT is within its bound of W + s B A; and through a product with X,
 * where N, R and the rounding of each step say how far the two ways may be apart. */
static void check_linear(const struct tensor *base, const struct tensor *got,
                         const struct lora *l, double stored)
{
    float *w = floats(base), *g = floats(got);
    const size_t N = got->shape[1];

    for (size_t i = 0; i < got->shape[0]; i++) {
        double y = 0.0, way = 0.0, size = 0.0;

        for (size_t j = 0; j < N; j++) {
            const double x = cos((double)(3 * j + i));
            double update = 0.0, sum = 0.0, exact, bound;

            for (size_t r = 0; r < l->rank; r++) {
                const double term = (double)l->scale * (double)l->b[i * l->rank + r] *
                                    (double)l->a[r * N + j];

                update += term;
                sum += fabs(term);
            }
            exact = (double)w[i * N + j] + update;
            bound = ((double)l->rank + 2.0) * U * sum + (U + stored) * fabs(exact);
            if (fabs((double)g[i * N + j] - exact) > bound + 1e-30)
                fail_msg("%s [%zu, %zu]: %g, exact %g", got->name, i, j,
                         (double)g[i * N + j], exact);
            y += (double)g[i * N + j] * x;
            way += exact * x;
            size += fabs(x) * bound;
        }
        assert_true(fabs(y - way) <= size + 1e-12);
    }
    free(w);
    free(g);
}

static void check_merged(struct bench *b, double stored)
{
    struct artel_model *got = reopen(b);

    for (size_t i = 0; i < 2 * N_SITES; i++) {
        const enum site s = (enum site)(i % N_SITES);
        const struct tensor *base = &b->model->weights->layers[i / N_SITES].site[s];
        const struct tensor *merged = &got->weights->layers[i / N_SITES].site[s];

        if (b->expert.lora[i].rank)
            check_linear(base, merged, &b->expert.lora[i], stored);
        else
            assert_memory_equal(merged->data, base->data, base->bytes);
    }
    assert_memory_equal(got->weights->embed.data, b->model->weights->embed.data,
                        b->model->weights->embed.bytes);
    assert_string_equal(got->tokenizer_digest, b->model->tokenizer_digest);
    assert_string_equal(got->chat_digest, b->model->chat_digest);
    model_close(got);
}

static void a_gguf_keeps_formats_and_keys(void **state)
{
    static const struct {
        uint32_t type;
        double stored;
    } kinds[] = {{TINY_T_F32, 0}, {TINY_T_F16, 0x1p-11}, {TINY_T_BF16, 0x1p-8}};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct tiny_model shape;
        struct bench *b;

        tiny_model_default(&shape);
        shape.type = kinds[i].type;
        shape.tied = i == 1;
        b = bench_open(&shape);
        assert_int_equal(
            merge_to_gguf(&b->merge, b->out, b->model, &b->expert, N_DTYPES, &b->err),
            0);
        check_merged(b, kinds[i].stored);
        assert_int_equal(b->merge.n_kinds, N_SITES - 1);
        for (size_t k = 0; k < b->merge.n_kinds; k++) {
            const struct merge_kind *kind = &b->merge.kinds[k];

            assert_true(kind->update > 0.0 && kind->weight > 0.0);
            assert_true(fabs(kind->along) <= sqrt(kind->error * kind->update) * 1.001);
        }
        bench_close(b);
    }
}

static void a_gguf_of_blocks_can_be_stored_finer(void **state)
{
    struct tiny_model shape;
    struct bench *b;
    struct artel_model *got;

    (void)state;
    tiny_model_default(&shape);
    shape.dim = 32;
    shape.head_dim = 8;
    shape.type = TINY_T_Q8_0;
    b = bench_open(&shape);
    assert_int_equal(
        merge_to_gguf(&b->merge, b->out, b->model, &b->expert, DTYPE_F32, &b->err), 0);
    check_merged(b, 0.0);
    merge_release(&b->merge);
    assert_int_equal(
        merge_to_gguf(&b->merge, b->out, b->model, &b->expert, N_DTYPES, &b->err), 0);
    got = reopen(b);
    assert_int_equal(got->weights->layers[0].site[SITE_Q].dtype, DTYPE_Q8_0);
    for (size_t i = 0; i < b->merge.n_kinds; i++) {
        const struct merge_kind *k = &b->merge.kinds[i];

        /* half a step of 127 beside the block's largest, which is at least its rms */
        assert_true(k->error > 0.0 && k->error < k->weight * 1e-4);
    }
    model_close(got);
    bench_close(b);
}

/* A change far below the step of its blocks is gone after the rounding, and "along" says
 * so: sum of error times update is minus that of update squared. */
static void a_swallowed_change_is_told(void **state)
{
    struct tiny_model shape;
    struct bench *b;

    (void)state;
    tiny_model_default(&shape);
    shape.dim = 32;
    shape.head_dim = 8;
    shape.type = TINY_T_Q8_0;
    b = bench_open(&shape);
    for (size_t i = 0; i < 2 * N_SITES; i++)
        b->expert.lora[i].scale *= 1e-5f;
    assert_int_equal(
        merge_to_gguf(&b->merge, b->out, b->model, &b->expert, N_DTYPES, &b->err), 0);
    for (size_t i = 0; i < b->merge.n_kinds; i++) {
        const struct merge_kind *k = &b->merge.kinds[i];

        assert_true(k->along < -0.5 * k->update);
    }
    merge_release(&b->merge);
    assert_int_equal(
        merge_to_gguf(&b->merge, b->out, b->model, &b->expert, DTYPE_F32, &b->err), 0);
    assert_true(b->merge.kinds[0].error == 0.0 && b->merge.kinds[0].along == 0.0);
    bench_close(b);
}

/* What no quantiser is there for becomes Q8_0, and is counted. */
static void formats_without_a_quantiser_become_q8_0(void **state)
{
    struct tiny_model shape;
    struct tiny_gguf *g = calloc(1, sizeof(*g));
    struct tiny_tensor *t;
    struct artel_model *got;
    struct bench *b;

    (void)state;
    tiny_model_default(&shape);
    shape.dim = 256;
    shape.head_dim = 64;
    b = bench_open(&shape);
    tiny_model_gguf(&shape, g);
    t = tiny_gguf_tensor(g, "blk.1.attn_q.weight");
    t->type = 12; /* Q4_K */
    t->data.size = 256 * 144;
    memset(t->data.data, 0, t->data.size);
    tiny_gguf_layout(g);
    assert_int_equal(tiny_gguf_write(b->gguf, g), 0);
    tiny_gguf_release(g);
    free(g);
    model_close(b->model);
    assert_int_equal(model_open(&b->model, b->gguf, &b->err), 0);
    assert_int_equal(
        merge_to_gguf(&b->merge, b->out, b->model, &b->expert, N_DTYPES, &b->err), 0);
    assert_int_equal(b->merge.n_substituted, 1);
    got = reopen(b);
    assert_int_equal(got->weights->layers[1].site[SITE_Q].dtype, DTYPE_Q8_0);
    assert_int_equal(got->weights->layers[0].site[SITE_Q].dtype, DTYPE_F32);
    model_close(got);
    bench_close(b);
}

/* The trap once more: the same expert merged into both forms of the same model gives the
 * same folder. */
static void both_forms_of_a_base_give_the_same_folder(void **state)
{
    (void)state;
    for (int scaled = 0; scaled < 2; scaled++) {
        struct tiny_model shape;
        struct bench *b;
        struct artel_model *folder, *ours, *theirs;
        struct expert e;
        struct merge merge;
        char *other;

        tiny_model_default(&shape);
        shape.rope_llama3 = scaled;
        b = bench_open(&shape);
        other = path_join(b->scratch, "other");
        assert_int_equal(tiny_model_write_folder(&shape, b->folder), 0);
        assert_int_equal(make_folder(b->out, &b->err) | make_folder(other, &b->err), 0);
        assert_int_equal(model_open(&folder, b->folder, &b->err), 0);
        make_expert(&e, &folder->weights->config);
        if (merge_to_folder(&b->merge, b->out, b->model, &b->expert, DTYPE_F32,
                            &b->err) < 0)
            fail_msg("%s [%s]", b->err.reason, b->err.code);
        assert_non_null(b->merge.missing);
        assert_int_equal(merge_to_folder(&merge, other, folder, &e, N_DTYPES, &b->err),
                         0);
        ours = reopen(b);
        assert_int_equal(model_open(&theirs, other, &b->err), 0);
        assert_string_equal(ours->base_digest, theirs->base_digest);
        assert_string_equal(ours->tokenizer_digest, b->model->tokenizer_digest);
        assert_string_equal(ours->chat_digest, b->model->chat_digest);
        for (size_t i = 0; i < shape.head_dim / 2; i++)
            assert_near(ours->weights->config.rope_divisor[i],
                        b->model->weights->config.rope_divisor[i], 1e-4);
        assert_near(ours->weights->config.norm_eps, b->model->weights->config.norm_eps,
                    0.0);
        assert_near(ours->weights->config.rope_theta,
                    b->model->weights->config.rope_theta, 0.0);
        model_close(ours);
        model_close(theirs);
        model_close(folder);
        merge_release(&merge);
        expert_release(&e);
        free(other);
        bench_close(b);
    }
}

static void shards_become_one_file(void **state)
{
    struct tiny_model shape;
    struct bench *b;
    struct artel_model *sharded, *got;
    char whole[2][DIGEST_SIZE];

    (void)state;
    tiny_model_default(&shape);
    b = bench_open(&shape);
    assert_int_equal(model_open(&sharded, ARTEL_TESTS "/golden/toy-untied", &b->err),
                     0);
    assert_int_equal(make_folder(b->out, &b->err), 0);
    assert_int_equal(
        merge_to_folder(&b->merge, b->out, sharded, NULL, N_DTYPES, &b->err), 0);
    got = reopen(b);
    weights_digest(whole[0], sharded->weights, true, &b->err);
    weights_digest(whole[1], got->weights, true, &b->err);
    assert_string_equal(whole[0], whole[1]);
    assert_string_equal(got->tokenizer_digest, sharded->tokenizer_digest);
    model_close(got);
    model_close(sharded);
    bench_close(b);
}

static void numbers_too_large_leave_nothing(void **state)
{
    struct tiny_model shape;
    struct bench *b;
    struct stat st;

    (void)state;
    tiny_model_default(&shape);
    b = bench_open(&shape);
    b->expert.lora[SITE_Q].b[0] = 1e9f;
    assert_int_equal(
        merge_to_gguf(&b->merge, b->out, b->model, &b->expert, DTYPE_F16, &b->err),
        ARTEL_EFORMAT);
    assert_string_equal(b->err.code, "CNV07");
    assert_int_equal(stat(b->out, &st), -1);
    bench_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gguf_keeps_formats_and_keys),
        cmocka_unit_test(a_gguf_of_blocks_can_be_stored_finer),
        cmocka_unit_test(a_swallowed_change_is_told),
        cmocka_unit_test(formats_without_a_quantiser_become_q8_0),
        cmocka_unit_test(both_forms_of_a_base_give_the_same_folder),
        cmocka_unit_test(shards_become_one_file),
        cmocka_unit_test(numbers_too_large_leave_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
