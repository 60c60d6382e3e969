/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mixtures on disk: what is written is read, a crash between the two files is
 * survived, and whatever is wrong is refused by its own code.
 */
#include <math.h>

#include "save/mixture_file.h"
#include "unit/save/fixture.h"

/* A run folder with a mixture "moa" of two experts, one inside it and one beside it. */
struct run {
    char *scratch, *folder; /* the mixture's */
    struct toy_base base;
    struct artel_error err;
};

static void add_expert(struct mixture_file *f, const struct run *r, const char *name,
                       const char *folder)
{
    const struct lora_options o = {.rank = 2, .alpha = 4.0f, .targets = {true, true}};
    char *path = path_join(f->folder, folder);
    struct expert e;

    assert_int_equal(expert_init_uniform(&e, name, &r->base.weights.config, &o, NULL),
                     0);
    expert_draw(&e, 1, (uint64_t)name[0]);
    for (size_t i = 0; i < e.n_params; i++)
        e.params[i] += 0.125f;
    assert_int_equal(adapter_write(path, &e, &r->base.weights.config, &o, NULL, NULL),
                     0);
    assert_int_equal(mixture_add(&f->mixture, &e, &r->base.weights.config, NULL), 0);
    free(path);
}

static void fill(struct mixture_file *f, const struct run *r, const char *method)
{
    struct gate_rule rule;

    *f = (struct mixture_file){.folder = strdup(r->folder)};
    assert_int_equal(method_rule(&rule, method), 0);
    assert_int_equal(
        mixture_init(&f->mixture, method, &r->base.weights.config, &rule, NULL), 0);
    add_expert(f, r, "law", "../experts/law");
    add_expert(f, r, "math", "experts/math");
    mixture_draw_routers(&f->mixture, 0.5f, 7);
    f->base_path = strdup("/models/toy.gguf");
    snprintf(f->base_digest, DIGEST_SIZE, "%s", r->base.model.base_digest);
    snprintf(f->tokenizer_digest, DIGEST_SIZE, "%s", r->base.model.tokenizer_digest);
    snprintf(f->chat_digest, DIGEST_SIZE, "%s", r->base.model.chat_digest);
    f->n_domains = 2;
    f->domains = calloc(2, sizeof(*f->domains));
    snprintf(f->domains[0].name, sizeof(f->domains[0].name), "law");
    snprintf(f->domains[1].name, sizeof(f->domains[1].name), "math");
    f->domains[0].folder = strdup("../experts/law");
    f->domains[0].train = strdup("/data/law.jsonl");
    f->domains[0].score = strdup("exact");
    digest_bytes(f->domains[0].train_digest, "law", 3);
    f->domains[1].sample = strdup("samples/math.jsonl");
    f->settings = json_pack("{s:f}", "eta", 0.1);
    f->training = json_pack("{s:i}", "steps", 10);
}

static struct run *run_open(const char *method)
{
    struct run *r = calloc(1, sizeof(*r));
    struct mixture_file f;

    assert_non_null(r);
    r->scratch = scratch_open();
    r->folder = path_join(r->scratch, "moa");
    toy_base_init(&r->base, true);
    fill(&f, r, method);
    if (mixture_file_write(&f, &r->err) < 0)
        fail_msg("%s: %s", r->err.file, r->err.reason);
    mixture_file_release(&f);
    return r;
}

static void run_close(struct run *r)
{
    free(r->folder);
    scratch_close(r->scratch);
    free(r);
}

static void open_ok(struct run *r, struct mixture_file *f, const char *path)
{
    if (mixture_file_open(f, path, &r->base.model, false, &r->err) < 0)
        fail_msg("%s: %s: %s [%s]", r->err.file, r->err.where, r->err.reason,
                 r->err.code);
}

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
    fill(&want, r, "moa");
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
                 r->err, "MIX01");
    free(other);
    other = path_join(r->scratch, "experts");
    assert_error(mixture_file_open(&f, other, NULL, false, &r->err), ARTEL_EIO, r->err,
                 "MIX01");
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
    fill(&f, r, "single");
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

/* --- refusals --------------------------------------------------------------------- */

struct row {
    const char *name;
    int rc;
    const char *code;
    void (*edit)(json_t *root);
    void (*damage)(struct run *r);
    const char *where;
};

static json_t *expert_at(json_t *root, size_t i)
{
    return json_array_get(json_object_get(root, "experts"), i);
}

static void newer_version(json_t *root)
{
    json_object_set_new(root, "format_version", json_integer(2));
}

static void no_version(json_t *root)
{
    json_object_del(root, "format_version");
}

static void unknown_method(json_t *root)
{
    json_object_set_new(root, "method", json_string("telepathy"));
}

static void unknown_gate(json_t *root)
{
    json_object_set_new(json_object_get(root, "rule"), "gate", json_string("dice"));
}

static void no_rule(json_t *root)
{
    json_object_del(root, "rule");
}

static void set_top_k(json_t *root, int k)
{
    json_t *rule = json_object_get(root, "rule");

    json_object_set_new(rule, "gate", json_string("top-k"));
    json_object_set_new(rule, "top_k", json_integer(k));
}

static void top_k_zero(json_t *root)
{
    set_top_k(root, 0);
}

static void top_k_three(json_t *root)
{
    set_top_k(root, 3);
}

static void name_twice(json_t *root)
{
    json_object_set_new(expert_at(root, 1), "name", json_string("law"));
}

static void name_in_capitals(json_t *root)
{
    json_object_set_new(expert_at(root, 1), "name", json_string("LAW"));
}

static void hostile_name(json_t *root)
{
    json_object_set_new(expert_at(root, 1), "name", json_string("../x"));
}

static void set_folder(json_t *root, const char *folder)
{
    json_object_set_new(expert_at(root, 1), "folder", json_string(folder));
}

static void folder_outside(json_t *root)
{
    set_folder(root, "../../etc");
}

static void folder_outside_by_turns(json_t *root)
{
    set_folder(root, "a/b/../../../../etc");
}

static void folder_absolute(json_t *root)
{
    set_folder(root, "/etc");
}

static void folder_missing(json_t *root)
{
    set_folder(root, "experts/none");
}

static void folder_is_number(json_t *root)
{
    json_object_set_new(expert_at(root, 1), "folder", json_integer(1));
}

static void sample_outside(json_t *root)
{
    json_t *domain = json_array_get(json_object_get(root, "domains"), 0);

    json_object_set_new(domain, "sample", json_string("/etc/passwd"));
}

static void domain_digest_short(json_t *root)
{
    json_t *domain = json_array_get(json_object_get(root, "domains"), 0);

    json_object_set_new(domain, "train_digest", json_string("abc"));
}

static void experts_no_list(json_t *root)
{
    json_object_set_new(root, "experts", json_object());
}

static void expert_no_object(json_t *root)
{
    json_array_append_new(json_object_get(root, "experts"), json_integer(1));
}

static void order_swapped(json_t *root)
{
    json_t *list = json_object_get(root, "experts");
    json_t *first = json_incref(json_array_get(list, 0));

    json_array_remove(list, 0);
    json_array_append_new(list, first);
}

static void one_expert_less(json_t *root)
{
    json_array_remove(json_object_get(root, "experts"), 1);
}

static void base_digest_other(json_t *root)
{
    char digest[DIGEST_SIZE];

    digest_bytes(digest, "other", 5);
    json_object_set_new(json_object_get(root, "base"), "digest", json_string(digest));
}

static void router_digest_gone(json_t *root)
{
    json_object_set_new(root, "router", json_null());
}

/* Rewrite the routers with CHANGE applied to two tensors of (2, 8), and their digest. */
static void spoil_routers(struct run *r, void (*change)(struct tensor *t, float *data))
{
    static float data[64];
    struct tensor t[2] = {
        {.name = "router.0.weight", .dtype = DTYPE_F32, .n_dims = 2, .shape = {2, 8}},
        {.name = "router.1.weight", .dtype = DTYPE_F32, .n_dims = 2, .shape = {2, 8}}};
    char *path = path_join(r->folder, "router.safetensors");
    char *json = path_join(r->folder, "mixture.json"), digest[DIGEST_SIZE];
    json_t *root;

    for (size_t i = 0; i < 2; i++) {
        t[i].data = data;
        t[i].bytes = 64;
    }
    memset(data, 0, sizeof(data));
    change(t, data);
    assert_int_equal(safetensors_write(path, t, 2, NULL, 0, &r->err), 0);
    digest_file(digest, path, NULL);
    assert_int_equal(json_read_file(&root, json, 1 << 20, NULL), 0);
    json_object_set_new(json_object_get(root, "router"), "digest", json_string(digest));
    assert_int_equal(json_write_file(json, root, false, NULL), 0);
    json_decref(root);
    free(path);
    free(json);
}

static void three_rows(struct tensor *t, float *data)
{
    (void)data;
    t[1].shape[0] = 3;
    t[1].bytes = 96;
}

static void narrow(struct tensor *t, float *data)
{
    (void)data;
    t[1].shape[1] = 4;
    t[1].bytes = 32;
}

static void one_nan(struct tensor *t, float *data)
{
    (void)t;
    data[5] = NAN;
}

static void other_name(struct tensor *t, float *data)
{
    (void)data;
    t[1].name = "router.7.weight";
}

static void integers(struct tensor *t, float *data)
{
    (void)data;
    t[0].dtype = DTYPE_I32;
}

static void router_rows(struct run *r)
{
    spoil_routers(r, three_rows);
}

static void router_narrow(struct run *r)
{
    spoil_routers(r, narrow);
}

static void router_nan(struct run *r)
{
    spoil_routers(r, one_nan);
}

static void router_name(struct run *r)
{
    spoil_routers(r, other_name);
}

static void router_type(struct run *r)
{
    spoil_routers(r, integers);
}

static void router_missing(struct run *r)
{
    char *path = path_join(r->folder, "router.safetensors");

    assert_int_equal(unlink(path), 0);
    free(path);
}

static void router_flipped(struct run *r)
{
    char *path = path_join(r->folder, "router.safetensors");
    FILE *f = fopen(path, "r+");

    assert_true(f && fseek(f, -1, SEEK_END) == 0 && fputc(0x55, f) != EOF);
    fclose(f);
    free(path);
}

static void rubbish_expert(struct run *r)
{
    char *path = path_join(r->folder, "experts/math/adapter_model.safetensors");

    assert_int_equal(write_file(path, "oops", 4, NULL), 0);
    free(path);
}

static void expert_link_out(struct run *r)
{
    char *path = path_join(r->folder, "experts/math");
    char *away = path_join(r->folder, "experts/kept");

    assert_int_equal(rename(path, away), 0);
    assert_int_equal(symlink("/usr", path), 0);
    free(path);
    free(away);
}

static void not_json(struct run *r)
{
    char *path = path_join(r->folder, "mixture.json");

    assert_int_equal(write_file(path, "{", 1, NULL), 0);
    free(path);
}

#define F ARTEL_EFORMAT

static const struct row rows[] = {
    {"R16_newer_format", F, "MIX04", .edit = newer_version, .where = "version 2"},
    {"no_format_version", F, "MIX04", .edit = no_version},
    {"unknown_method", F, "MIX05", .edit = unknown_method, .where = "telepathy"},
    {"unknown_gate", F, "MIX05", .edit = unknown_gate, .where = "dice"},
    {"no_rule", F, "MIX05", .edit = no_rule},
    {"A23_top_k_zero", F, "MIX09", .edit = top_k_zero},
    {"A23_top_k_above_n", F, "MIX09", .edit = top_k_three, .where = "3 of 2"},
    {"A18_same_name_twice", F, "MIX06", .edit = name_twice, .where = "../experts/law"},
    {"A18_names_differ_in_case", F, "MIX06", .edit = name_in_capitals,
     .where = "experts/math"},
    {"A17_hostile_name", F, "ADP17", .edit = hostile_name},
    {"A19_folder_outside", F, "MIX03", .edit = folder_outside, .where = "../../etc"},
    {"A19_folder_outside_by_turns", F, "MIX03", .edit = folder_outside_by_turns},
    {"A19_folder_absolute", F, "MIX03", .edit = folder_absolute},
    {"A19_sample_absolute", F, "MIX03", .edit = sample_outside},
    {"A19_expert_is_a_link_out", F, "ADP19", .damage = expert_link_out},
    {"A01_expert_missing", ARTEL_EIO, "IO01", .edit = folder_missing},
    {"folder_is_a_number", F, "JSON07", .edit = folder_is_number},
    {"domain_digest_short", F, "MIX02", .edit = domain_digest_short},
    {"experts_no_list", F, "MIX02", .edit = experts_no_list},
    {"expert_no_object", F, "MIX02", .edit = expert_no_object},
    {"A23_rows_in_another_order", F, "MIX07", .edit = order_swapped},
    {"A23_fewer_experts_than_rows", F, "MIX07", .edit = one_expert_less},
    {"A23_more_rows_than_experts", F, "MIX07", .damage = router_rows, .where = "3 x 8"},
    {"A23_wrong_width", F, "MIX07", .damage = router_narrow, .where = "2 x 4"},
    {"A23_router_nan", F, "MIX08", .damage = router_nan, .where = "element 5"},
    {"A23_router_missing_tensor", F, "MIX07", .damage = router_name,
     .where = "router.1.weight"},
    {"A23_router_of_integers", F, "MIX07", .damage = router_type},
    {"A23_router_file_missing", ARTEL_EIO, "IO01", .damage = router_missing},
    {"R14_router_file_flipped", F, "MIX10", .damage = router_flipped},
    {"router_digest_gone", F, "MIX02", .edit = router_digest_gone},
    {"A14_other_base", F, "ADP14", .edit = base_digest_other},
    {"A16_rubbish_beside_good", F, "ST01", .damage = rubbish_expert},
    {"mixture_json_cut", F, "JSON01", .damage = not_json},
};

#define N_ROWS (sizeof(rows) / sizeof(rows[0]))

static void is_refused(void **state)
{
    const struct row *row = *state;
    struct run *r = run_open("moa");
    char *path = path_join(r->folder, "mixture.json");
    char before[DIGEST_SIZE], after[DIGEST_SIZE];
    struct mixture_file f;
    json_t *root;
    int rc;

    if (row->edit) {
        assert_int_equal(json_read_file(&root, path, 1 << 20, NULL), 0);
        row->edit(root);
        assert_int_equal(json_write_file(path, root, false, NULL), 0);
        json_decref(root);
    }
    if (row->damage)
        row->damage(r);
    scratch_digest(before, r->scratch);
    rc = mixture_file_open(&f, r->folder, &r->base.model, false, &r->err);
    scratch_digest(after, r->scratch);
    if (rc != row->rc || strcmp(r->err.code, row->code) != 0)
        fail_msg("%s: %d %s: %s: %s", row->name, rc, r->err.code, r->err.where,
                 r->err.reason);
    if (row->where && !strstr(r->err.where, row->where) &&
        !strstr(r->err.reason, row->where))
        fail_msg("'%s' is not told: %s: %s", row->where, r->err.where, r->err.reason);
    assert_non_null(strstr(r->err.file, r->scratch));
    assert_string_equal(before, after);
    assert_null(f.folder);
    free(path);
    run_close(r);
}

static const struct CMUnitTest plain[] = {
    cmocka_unit_test(a_written_mixture_reads_back),
    cmocka_unit_test(without_a_model_only_the_description_is_read),
    cmocka_unit_test(a_folder_with_one_mixture_may_be_named),
    cmocka_unit_test(methods_without_routers_have_no_router_file),
    cmocka_unit_test(routers_with_bias_at_every_linear_read_back),
    cmocka_unit_test(identities_have_no_folder),
    cmocka_unit_test(a_crash_between_the_files_leaves_the_old_mixture),
    cmocka_unit_test(an_expert_that_is_not_there_stops_the_write),
};

#define N_PLAIN (sizeof(plain) / sizeof(plain[0]))

int main(void)
{
    static struct CMUnitTest tests[N_PLAIN + N_ROWS];

    memcpy(tests, plain, sizeof(plain));
    for (size_t i = 0; i < N_ROWS; i++)
        tests[N_PLAIN + i] =
            (struct CMUnitTest){.name = rows[i].name,
                                .test_func = is_refused,
                                .initial_state = (void *)(size_t)&rows[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
