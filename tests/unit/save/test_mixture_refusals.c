/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way a mixture on disk can be wrong, one row each, as in test_adapter_refusals.c.
 */
#include <math.h>

#include "unit/save/mixture_run.h"

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

static void rule_of_the_base(json_t *root, const char *reads)
{
    json_t *rule = json_object_get(root, "rule");

    json_object_set_new(rule, "place", json_string("base"));
    json_object_set_new(rule, "reads", json_loads(reads, 0, NULL));
}

static void base_reads_nothing(json_t *root)
{
    rule_of_the_base(root, "[]");
}

static void base_reads_downwards(json_t *root)
{
    rule_of_the_base(root, "[2, 1]");
}

static void base_reads_too_much(json_t *root)
{
    rule_of_the_base(root, "[1, 2, 3, 4, 5, 6, 7, 8, 9]");
}

static void base_decides_by_token(json_t *root)
{
    rule_of_the_base(root, "[1]");
    json_object_set_new(json_object_get(root, "rule"), "decides", json_string("token"));
}

/* No expert is fixed here. */
static void residual_of_none(json_t *root)
{
    json_object_set_new(json_object_get(root, "rule"), "residual", json_false());
}

static void residual_in_words(json_t *root)
{
    json_object_set_new(json_object_get(root, "rule"), "residual", json_string("no"));
}

static void no_temperature(json_t *root)
{
    json_object_set_new(json_object_get(root, "rule"), "temperature", json_real(0));
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
    {"base_reads_nothing", F, "MIX05", .edit = base_reads_nothing, .where = "1 to 8"},
    {"base_reads_downwards", F, "MIX05", .edit = base_reads_downwards,
     .where = "ascending"},
    {"base_reads_too_much", F, "MIX05", .edit = base_reads_too_much},
    {"base_decides_by_token", F, "MIX05", .edit = base_decides_by_token,
     .where = "sequence"},
    {"residual_of_none", F, "MIX05", .edit = residual_of_none, .where = "left out"},
    {"residual_in_words", F, "JSON07", .edit = residual_in_words, .where = "residual"},
    {"no_temperature", F, "MIX05", .edit = no_temperature},
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
    {"domain_digest_short", F, "MIX12", .edit = domain_digest_short},
    {"experts_no_list", F, "MIX12", .edit = experts_no_list},
    {"expert_no_object", F, "MIX12", .edit = expert_no_object},
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
    {"router_digest_gone", F, "MIX12", .edit = router_digest_gone},
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

int main(void)
{
    static struct CMUnitTest tests[N_ROWS];

    for (size_t i = 0; i < N_ROWS; i++)
        tests[i] = (struct CMUnitTest){.name = rows[i].name,
                                       .test_func = is_refused,
                                       .initial_state = (void *)(size_t)&rows[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
