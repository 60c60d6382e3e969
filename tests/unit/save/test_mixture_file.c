/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mixtures on disk: what is written is read, and a crash between the two files is
 * survived.
 */
#include "unit/save/mixture_run.h"

static void check_same(const struct mixture *got, const struct mixture *want)
{
    assert_string_equal(got->method, want->method);
    assert_memory_equal(&got->rule, &want->rule, sizeof(got->rule));
    assert_int_equal(got->n_experts, want->n_experts);
    for (size_t i = 0; i < want->n_experts; i++) {
        char a[DIGEST_SIZE], b[DIGEST_SIZE];

        expert_digest(&got->experts[i], a);
        expert_digest(&want->experts[i], b);
        assert_string_equal(a, b);
        assert_string_equal(got->experts[i].name, want->experts[i].name);
    }
    assert_int_equal(got->n_router_params, want->n_router_params);
    assert_memory_equal(got->router_params, want->router_params,
                        want->n_router_params * sizeof(float));
}

static void a_written_mixture_reads_back(void **state)
{
    struct run *r = run_open("moa");
    struct mixture_file want, f;

    (void)state;
    run_fill(&want, r, "moa");
    open_ok(r, &f, r->folder);
    check_same(&f.mixture, &want.mixture);
    assert_string_equal(f.folder, r->folder);
    assert_string_equal(f.base_path, "/models/toy.gguf");
    assert_string_equal(f.base_digest, want.base_digest);
    assert_int_equal(f.n_domains, 2);
    assert_string_equal(f.domains[0].train, "/data/law.jsonl");
    assert_string_equal(f.domains[0].train_digest, want.domains[0].train_digest);
    assert_string_equal(f.domains[1].sample, "samples/math.jsonl");
    assert_null(f.domains[1].train);
    assert_int_equal(f.n_notes, 2);
    assert_string_equal(f.notes[0].folder, "../experts/law");
    assert_string_equal(f.notes[1].folder, "experts/math");
    assert_near(json_number_value(json_object_get(f.settings, "eta")), 0.1, 0.0);
    assert_int_equal(json_integer_value(json_object_get(f.training, "steps")), 10);
    mixture_file_release(&f);
    mixture_file_release(&want);
    run_close(r);
}

static void without_a_model_only_the_description_is_read(void **state)
{
    struct run *r = run_open("moa");
    struct mixture_file f;
    char *router = path_join(r->folder, "router.safetensors");

    (void)state;
    assert_int_equal(unlink(router), 0);
    assert_int_equal(mixture_file_open(&f, r->folder, NULL, false, &r->err), 0);
    assert_string_equal(f.mixture.method, "moa");
    assert_int_equal(f.mixture.n_experts, 0);
    assert_int_equal(f.n_notes, 2);
    mixture_file_release(&f);
    free(router);
    run_close(r);
}

static void a_folder_with_one_mixture_may_be_named(void **state)
{
    struct run *r = run_open("moa");
    struct mixture_file f;
    char *other = path_join(r->scratch, "two"),
         *inner = path_join(other, "mixture.json");

    (void)state;
    open_ok(r, &f, r->scratch);
    mixture_file_release(&f);
    assert_int_equal(make_folder(other, NULL), 0);
    assert_int_equal(write_file(inner, "{}", 2, NULL), 0);
    assert_error(mixture_file_open(&f, r->scratch, NULL, false, &r->err), ARTEL_EUSAGE,
                 r->err, "MIX11");
    free(other);
    other = path_join(r->scratch, "experts");
    assert_error(mixture_file_open(&f, other, NULL, false, &r->err), ARTEL_EIO, r->err,
                 "MIX11");
    free(other);
    free(inner);
    run_close(r);
}

static void methods_without_routers_have_no_router_file(void **state)
{
    struct run *r = run_open("single");
    struct mixture_file f;
    char *router = path_join(r->folder, "router.safetensors");

    (void)state;
    assert_int_equal(access(router, F_OK), -1);
    open_ok(r, &f, r->folder);
    assert_int_equal(f.mixture.n_experts, 2);
    assert_int_equal(f.mixture.n_routers, 0);
    mixture_file_release(&f);
    free(router);
    run_close(r);
}

static void routers_with_bias_at_every_linear_read_back(void **state)
{
    struct run *r = run_open("single");
    const struct gate_rule rule = {.place = ROUTER_LINEAR,
                                   .decides = DECIDE_TOKEN,
                                   .kind = GATE_TOP_K,
                                   .top_k = 2,
                                   .bias = true};
    struct mixture_file f, back;

    (void)state;
    run_fill(&f, r, "single");
    mixture_release(&f.mixture);
    assert_int_equal(
        mixture_init(&f.mixture, "single", &r->base.weights.config, &rule, NULL), 0);
    add_expert(&f, r, "law", "../experts/law");
    add_expert(&f, r, "math", "experts/math");
    for (size_t i = 0; i < f.mixture.n_router_params; i++)
        f.mixture.router_params[i] = (float)i / 8.0f;
    assert_int_equal(mixture_file_write(&f, &r->err), 0);
    open_ok(r, &back, r->folder);
    check_same(&back.mixture, &f.mixture);
    mixture_file_release(&f);
    mixture_file_release(&back);
    run_close(r);
}

static void what_routers_have_seen_reads_back(void **state)
{
    struct run *r = run_open("single");
    struct gate_rule rule;
    struct mixture_file f, back;
    float x[TOY_DIM];
    size_t n;

    (void)state;
    assert_int_equal(method_rule(&rule, "slim"), 0);
    rule.n_clusters = 2;
    rule.clusters.beta = 0.75f;
    rule.masks = (struct mask_rule){0.25f, true, MASK_EXPECTED, 77};
    run_fill(&f, r, "single");
    mixture_release(&f.mixture);
    assert_int_equal(
        mixture_init(&f.mixture, "slim", &r->base.weights.config, &rule, NULL), 0);
    add_expert(&f, r, "law", "../experts/law");
    add_expert(&f, r, "math", "experts/math");
    for (size_t i = 0; i < 70; i++) {
        struct clusters c;

        mixture_clusters(&c, &f.mixture, i % f.mixture.n_routers);
        for (size_t j = 0; j < TOY_DIM; j++)
            x[j] = (float)(i * j % 17);
        clusters_add(&c, x, &rule.clusters);
    }
    assert_int_equal(mixture_file_write(&f, &r->err), 0);
    open_ok(r, &back, r->folder);
    check_same(&back.mixture, &f.mixture);
    n = f.mixture.n_routers * clusters_floats(2, TOY_DIM);
    assert_memory_equal(back.mixture.cluster_state, f.mixture.cluster_state,
                        n * sizeof(float));
    assert_int_equal(back.mixture.rule.n_clusters, 2);
    assert_true(back.mixture.rule.clusters.beta == 0.75f);
    assert_true(back.mixture.rule.masks.drop == 0.25f);
    assert_true(back.mixture.rule.masks.rescale);
    assert_int_equal(back.mixture.rule.masks.kind, MASK_EXPECTED);
    assert_int_equal(back.mixture.rule.masks.seed, 77);
    mixture_file_release(&back);
    /* counts that would index centres that are not there */
    f.mixture.cluster_state[clusters_floats(2, TOY_DIM) - 3] = 9.0f;
    assert_int_equal(mixture_file_write(&f, &r->err), 0);
    assert_int_equal(
        mixture_file_open(&back, r->folder, &r->base.model, false, &r->err),
        ARTEL_EFORMAT);
    assert_string_equal(r->err.code, "MIX08");
    mixture_file_release(&f);
    run_close(r);
}

static void identities_have_no_folder(void **state)
{
    struct run *r = run_open("moa");
    struct mixture_file f, back;
    struct expert e;

    (void)state;
    open_ok(r, &f, r->folder);
    assert_int_equal(expert_init_identity(&e, "idle", TOY_LAYERS, NULL), 0);
    assert_int_equal(mixture_add(&f.mixture, &e, &r->base.weights.config, NULL), 0);
    assert_int_equal(mixture_file_write(&f, &r->err), 0);
    open_ok(r, &back, r->folder);
    assert_int_equal(back.mixture.experts[2].kind, EXPERT_IDENTITY);
    assert_null(back.notes[2].folder);
    mixture_file_release(&f);
    mixture_file_release(&back);
    run_close(r);
}

/* A copy of file NAME of the mixture under the name TO. */
static void copy_file(const struct run *r, const char *name, const char *to)
{
    char *from_path = path_join(r->folder, name), *to_path = path_join(r->folder, to);
    struct map map;

    assert_int_equal(map_open(&map, from_path, NULL), 0);
    assert_int_equal(write_file(to_path, map.data, map.size, NULL), 0);
    map_release(&map);
    free(from_path);
    free(to_path);
}

/* New routers are on the disk, the new mixture.json is not: the old mixture is whole, also
 * when the write is tried again and cut short again. */
static void a_crash_between_the_files_leaves_the_old_mixture(void **state)
{
    struct run *r = run_open("moa");
    struct mixture_file want, f;

    (void)state;
    open_ok(r, &want, r->folder);
    copy_file(r, "mixture.json", "old.json");
    copy_file(r, "router.safetensors", "old.safetensors");
    for (int times = 0; times < 2; times++) {
        open_ok(r, &f, r->folder);
        f.mixture.router_params[0] += 1.0f + (float)times;
        assert_int_equal(mixture_file_write(&f, &r->err), 0);
        mixture_file_release(&f);
        copy_file(r, "old.json", "mixture.json");
        copy_file(r, "old.safetensors", "router.previous.safetensors");
        open_ok(r, &f, r->folder);
        check_same(&f.mixture, &want.mixture);
        mixture_file_release(&f);
    }
    open_ok(r, &f, r->folder);
    f.mixture.router_params[0] = 9.0f;
    assert_int_equal(mixture_file_write(&f, &r->err), 0);
    mixture_file_release(&f);
    open_ok(r, &f, r->folder);
    assert_near(f.mixture.router_params[0], 9.0, 0.0);
    mixture_file_release(&f);
    mixture_file_release(&want);
    run_close(r);
}

static void an_expert_that_is_not_there_stops_the_write(void **state)
{
    struct run *r = run_open("moa");
    struct mixture_file f;
    char before[DIGEST_SIZE], after[DIGEST_SIZE];

    (void)state;
    open_ok(r, &f, r->folder);
    free(f.domains[0].folder);
    f.domains[0].folder = strdup("../experts/nowhere");
    scratch_digest(before, r->scratch);
    assert_error(mixture_file_write(&f, &r->err), ARTEL_EIO, r->err, "ADP01");
    scratch_digest(after, r->scratch);
    assert_string_equal(before, after);
    mixture_file_release(&f);
    run_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_written_mixture_reads_back),
        cmocka_unit_test(without_a_model_only_the_description_is_read),
        cmocka_unit_test(a_folder_with_one_mixture_may_be_named),
        cmocka_unit_test(methods_without_routers_have_no_router_file),
        cmocka_unit_test(routers_with_bias_at_every_linear_read_back),
        cmocka_unit_test(what_routers_have_seen_reads_back),
        cmocka_unit_test(identities_have_no_folder),
        cmocka_unit_test(a_crash_between_the_files_leaves_the_old_mixture),
        cmocka_unit_test(an_expert_that_is_not_there_stops_the_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
