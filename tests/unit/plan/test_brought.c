/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Experts that are brought to a mixture instead of being trained, for every method that can,
 * what is refused among them, and domains that leave.
 */
#include "methods_fixture.h"

struct request {
    const char *mixture, *name;
    const char *adapter, *data; /* NULL: none; neither: NAME leaves */
};

/* What a child's report must say for every method: nothing of the others has moved, and an
 * expert that is brought costs no parameter of its own. */
static int check_report(const struct grow_report *r, const struct request *q)
{
    size_t routers = r->everything.parameters;

    if (!r->others_unchanged || strcmp(r->name, q->name) != 0)
        return 70;
    for (size_t i = 0; i < r->n_domains; i++)
        if (!r->domains[i].unchanged || !(r->domains[i].perplexity_after > 1))
            return 71;
    if (!q->adapter && !q->data)
        return r->cost.parameters || r->cost.tokens || r->cost.steps ? 72 : 0;
    /* at rank 3 and 4 an expert of the toy model has thousands, its routers hundreds */
    return r->cost.parameters * 4 < routers ? 0 : 73;
}

static int carry_out_request(const struct fixture *f, const struct request *q)
{
    struct grow_options o = {0};
    struct artel_error err = {0};
    struct grow_report r;
    char mixture[256], adapter[256], data[256];
    int rc;

    cpu_set_threads(1, &err);
    path_in(mixture, sizeof(mixture), f, q->mixture);
    path_in(adapter, sizeof(adapter), f, q->adapter ? q->adapter : "");
    path_in(data, sizeof(data), f, q->data ? q->data : "");
    rc = q->adapter || q->data ? run_add(mixture, q->name, q->adapter ? adapter : NULL,
                                         q->data ? data : NULL, &o, &r, &err)
                               : run_remove(mixture, q->name, &o, &r, &err);
    write_text(f, "code", rc < 0 ? err.code : "");
    if (rc < 0) {
        fprintf(stderr, "child: %s: %s: %s [%s]\n", err.file, err.where, err.reason,
                err.code);
        return -rc;
    }
    rc = check_report(&r, q);
    grow_report_release(&r);
    return rc;
}

static int ask(const struct fixture *f, struct request q)
{
    const pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        exit(carry_out_request(f, &q));
    return finish(pid);
}

/* Q is refused with RC and CODE, and MIXTURE stays as it is. */
static void refused(const struct fixture *f, struct request q, int rc, const char *code)
{
    char before[DIGEST_SIZE], after[DIGEST_SIZE], name[128], *got;

    snprintf(name, sizeof(name), "%s/mixture.json", q.mixture);
    digest_of(before, f, name);
    assert_int_equal(ask(f, q), -rc);
    got = slurp(f, "code");
    assert_string_equal(got, code);
    free(got);
    digest_of(after, f, name);
    assert_string_equal(before, after);
    snprintf(name, sizeof(name), "%s/adding", q.mixture);
    assert_false(there(f, name));
    snprintf(name, sizeof(name), "%s/experts/%s", q.mixture, q.name);
    assert_false(there(f, name));
}

/* MIXTURE has its domains and the file of its Nth expert, from 0, is that of WEIGHTS. */
static void has_domains(const struct fixture *f, const char *mixture, size_t n,
                        const char *last, const char *weights)
{
    char own[DIGEST_SIZE], theirs[DIGEST_SIZE], path[256], name[160];
    struct artel_error err;
    struct mixture_file m;

    path_in(path, sizeof(path), f, mixture);
    assert_int_equal(mixture_file_open(&m, path, NULL, false, &err), 0);
    assert_int_equal(m.n_domains, n);
    assert_string_equal(m.domains[n - 1].name, last);
    snprintf(name, sizeof(name), "%s/%s/adapter_model.safetensors", mixture,
             m.domains[n - 1].folder);
    mixture_file_release(&m);
    digest_of(own, f, name);
    digest_of(theirs, f, weights);
    assert_string_equal(own, theirs);
    assert_int_equal(child_opens(f, mixture), 0);
}

/* A LoRA of "three" that another run has trained, of another rank than the recipe's. */
static void train_other(const struct fixture *f)
{
    write_text(f, "three.yaml",
               "model: " TOY "\nmethod: single\noutput: other\nlora: {rank: 3}\n"
               "domains: {three: {train: c.jsonl}}\n"
               "train: {precision: fp32, batch_size: 4, learning_rate: 1e-2}\n");
    assert_int_equal(run(f, &(struct child){.recipe = "three.yaml"}), 0);
}

#define THREE   "other/experts/three"
#define WEIGHTS "/adapter_model.safetensors"

/* It joins, bit by bit, and leaves; the router is then what it was where it is made of the
 * experts alone. */
static void an_expert_is_brought_and_leaves(void **state)
{
    static const char *const methods[] = {"single", "arrow", "classifier",
                                          "modula-flan"};
    struct fixture f;

    (void)state;
    open_methods(&f);
    train_other(&f);
    for (size_t i = 0; i < 4; i++) {
        char method[32], name[32];

        snprintf(method, sizeof(method), "method=%s", methods[i]);
        snprintf(name, sizeof(name), "out/%s", methods[i]);
        assert_int_equal(run_with(&f, method, NULL), 0);
        if (i == 1)
            shell(&f, "cp -r out/arrow/router.safetensors arrow-before");
        assert_int_equal(ask(&f, (struct request){name, "three", THREE, "c.jsonl"}), 0);
        has_domains(&f, name, 3, "three", THREE WEIGHTS);
        assert_int_equal(ask(&f, (struct request){.mixture = name, .name = "three"}),
                         0);
        has_domains(&f, name, 2, "two", "out/experts/two" WEIGHTS);
        if (i == 1)
            shell(&f, "cmp out/arrow/router.safetensors arrow-before");
        assert_int_equal(ask(&f, (struct request){.mixture = name, .name = "one"}), 0);
        has_domains(&f, name, 1, "two", "out/experts/two" WEIGHTS);
    }
    fixture_close(&f);
}

static json_t *stages_of(const json_t *root)
{
    return json_object_get(json_object_get(root, "training"), "stages");
}

/* What was trained with the universal expert beside it leaves its record too. */
static void what_leaves_is_no_part_of_the_record(void **state)
{
    static const char *const set[] = {"method=modula-flan", "universal.keep=true"};
    struct fixture f;
    json_t *root;

    (void)state;
    open_methods(&f);
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 2}), 0);
    assert_int_equal(
        ask(&f, (struct request){.mixture = "out/modula-flan", .name = "two"}), 0);
    root = read_json(&f, "out/modula-flan/mixture.json");
    assert_non_null(json_object_get(stages_of(root), "flan-one"));
    assert_null(json_object_get(stages_of(root), "flan-two"));
    json_decref(root);
    fixture_close(&f);
}

/* An expert of modula-res comes back beside the universal expert that it acts on; no other
 * adapter can stand in its place, and it can in no other's. */
static void res_takes_its_own_kind_of_expert_alone(void **state)
{
    static const char two[] = "domains.two={adapter: out/experts-res/two, "
                              "train: b.jsonl}";
    static const char *const brought[] = {"method=modula-res", two, "output=again"};
    static const char *const without[] = {"method=modula-res", "modula.residual=false",
                                          "train.epochs=2", "output=without"};
    static const char *const seed[] = {"method=[modula-res, modula-flan]",
                                       "train.seed=3", "output=seeded"};
    const struct request back = {"out/modula-res", "two", "out/experts-res/two",
                                 "b.jsonl"};
    struct child c = {.recipe = "r.yaml", .set = brought, .n_set = 3, .notes = "notes"};
    struct fixture f;

    (void)state;
    open_methods(&f);
    train_other(&f);
    assert_int_equal(run_with(&f, "method=modula-res", NULL), 0);
    assert_int_equal(ask(&f, (struct request){.mixture = back.mixture, .name = "two"}),
                     0);
    assert_int_equal(ask(&f, back), 0);
    has_domains(&f, "out/modula-res", 2, "two", "out/experts-res/two" WEIGHTS);
    refused(&f, (struct request){"out/modula-res", "three", THREE, "c.jsonl"},
            ARTEL_EFORMAT, "ADP22");
    /* Before there is a universal expert there is nothing that it could act on. */
    assert_int_equal(run(&f, &c), -ARTEL_EUSAGE);
    assert_true(said(&f, "notes", "error RCP06"));
    assert_true(said(&f, "notes", "artel add"));
    assert_false(there(&f, "again"));
    c.set = seed;
    assert_int_equal(run(&f, &c), 0);
    refused(&f,
            (struct request){"seeded/modula-res", "three", "out/experts-res/two",
                             "c.jsonl"},
            ARTEL_EFORMAT, "MIX14");
    refused(&f,
            (struct request){"seeded/modula-flan", "three", "out/experts-res/two",
                             "c.jsonl"},
            ARTEL_EFORMAT, "ADP12");
    /* One that leaves the universal expert's own part out does not fit where it is added. */
    c.set = without;
    c.n_set = 4;
    assert_int_equal(run(&f, &c), 0);
    shell(&f, "cmp without/experts/universal" WEIGHTS " out/experts/universal" WEIGHTS);
    refused(&f,
            (struct request){"out/modula-res", "three", "without/experts-res/two",
                             "c.jsonl"},
            ARTEL_EFORMAT, "MIX17");
    assert_int_equal(
        ask(&f, (struct request){.mixture = "without/modula-res", .name = "two"}), 0);
    assert_int_equal(ask(&f, (struct request){"without/modula-res", "two",
                                              "without/experts-res/two", "b.jsonl"}),
                     0);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_expert_is_brought_and_leaves),
        cmocka_unit_test(what_leaves_is_no_part_of_the_record),
        cmocka_unit_test(res_takes_its_own_kind_of_expert_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
