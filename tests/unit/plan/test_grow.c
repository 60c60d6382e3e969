/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A third dialect joins two, and one leaves: what the report says, and that the
 * old experts' files keep their bytes.
 */
#include "run_fixture.h"

#include <math.h>

#include "plan/grow.h"
#include "save/mixture_file.h"

/* What a child of this test does. */
struct act {
    const char *mixture, *name, *adapter, *data;
    bool joint, removes;
    uint64_t stop_step;    /* of the routers' stage; 0: never */
    size_t max_rows;       /* 0: all */
    const char *note;      /* that must be among those of the run; NULL: any */
    const char *stop_note; /* that asks to stop; NULL: none */
    size_t score_rows;
};

struct watcher {
    const struct act *a;
    volatile sig_atomic_t stop;
    bool noted;
};

static void watch(void *user, const struct run_progress *p)
{
    struct watcher *w = user;

    if (p->event == RUN_STEP && w->a->stop_step && p->step == w->a->stop_step &&
        !strcmp(p->stage, "moa-router"))
        w->stop = 1;
    if (p->event == RUN_NOTE && w->a->stop_note && !strcmp(p->message, w->a->stop_note))
        w->stop = 1;
    w->noted |= p->event == RUN_NOTE && w->a->note && !strcmp(p->message, w->a->note);
}

/* What the parent cannot see, the child asserts by its exit code. */
static int check_report(const struct act *a, const struct grow_report *r)
{
    if (strcmp(r->name, a->name) != 0 || r->n_domains < 2)
        return 50;
    if (r->others_unchanged == a->joint)
        return 51;
    for (size_t i = 0; i < r->n_domains; i++) {
        const struct grow_domain *d = &r->domains[i];

        fprintf(stderr, "%s: perplexity %.3f -> %.3f, routed %.2f -> %.2f (%s)\n",
                d->name, d->perplexity_before, d->perplexity_after, d->routing_before,
                d->routing_after, d->text);
        if (strlen(d->digest_before) != 64 || !(d->perplexity_before > 1) ||
            !(d->perplexity_after > 1))
            return 52;
        if (d->unchanged != !strcmp(d->digest_before, d->digest_after))
            return 53;
        if (fabs(d->change - (d->perplexity_after - d->perplexity_before)) > 1e-9 ||
            d->change_low > d->change_high || d->change_low > d->change + 1e-9 ||
            d->change_high < d->change - 1e-9)
            return 56;
        if (d->change != 0 && d->change_low == d->change_high)
            return 57;
    }
    fprintf(stderr, "cost %zu parameters, %zu tokens, %zu steps of %zu, %zu, %zu\n",
            r->cost.parameters, r->cost.tokens, r->cost.steps, r->everything.parameters,
            r->everything.tokens, r->everything.steps);
    if (!r->cost.parameters || !r->cost.tokens || !r->cost.steps)
        return 54;
    if (r->everything.tokens <= r->cost.tokens ||
        (!a->joint && r->everything.parameters <= r->cost.parameters))
        return 55;
    return 0;
}

static int check_removal(const struct act *a, const struct grow_report *r)
{
    if (strcmp(r->name, a->name) != 0 || !r->n_domains || !r->others_unchanged)
        return 60;
    for (size_t i = 0; i < r->n_domains; i++) {
        const struct grow_domain *d = &r->domains[i];

        if (!(d->perplexity_before > 1) || !(d->perplexity_after > 1))
            return 62;
        if (!strcmp(d->name, a->name) || strlen(d->digest_before) != 64 ||
            strcmp(d->digest_before, d->digest_after) != 0 || !d->unchanged)
            return 61;
    }
    return 0;
}

/* For the parent. */
static void write_costs(const struct fixture *f, const struct grow_report *r)
{
    char text[120];

    snprintf(text, sizeof(text), "{\"parameters\": %zu, \"all\": %zu}",
             r->cost.parameters, r->everything.tokens);
    write_text(f, "costs.json", text);
}

static size_t cost(const struct fixture *f, const char *key)
{
    json_t *const root = read_json(f, "costs.json");
    const json_int_t n = json_integer_value(json_object_get(root, key));

    json_decref(root);
    return (size_t)n;
}

static int act_out(const struct fixture *f, const struct act *a)
{
    struct watcher w = {.a = a};
    struct grow_options o = {.run = {.progress = watch, .user = &w, .stop = &w.stop},
                             .joint = a->joint,
                             .max_rows = a->max_rows,
                             .score_rows = a->score_rows};
    struct artel_error err = {0};
    struct grow_report report;
    char mixture[256], data[256], adapter[256];
    int rc;

    cpu_set_threads(1, &err);
    path_in(mixture, sizeof(mixture), f, a->mixture);
    path_in(data, sizeof(data), f, a->data ? a->data : "");
    path_in(adapter, sizeof(adapter), f, a->adapter ? a->adapter : "");
    if (a->removes) {
        rc = run_remove(mixture, a->name, &o, &report, &err);
        if (rc == 0)
            rc = -check_removal(a, &report);
        grow_report_release(&report);
    } else {
        rc = run_add(mixture, a->name, a->adapter ? adapter : NULL, data, &o, &report,
                     &err);
        if (rc == 0)
            rc = -check_report(a, &report);
        if (rc == 0)
            write_costs(f, &report);
        grow_report_release(&report);
    }
    if (rc == 0 && a->note && !w.noted)
        rc = -58;
    if (rc < 0 && rc != ARTEL_ESTOPPED)
        fprintf(stderr, "child: %s: %s: %s [%s]\n", err.file, err.where, err.reason,
                err.code);
    return -rc;
}

static int act(const struct fixture *f, struct act a)
{
    const pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        exit(act_out(f, &a));
    return finish(pid);
}

static void open_run(struct fixture *f, const char *setting)
{
    const char *const set[] = {setting, "train.epochs=2"};

    fixture_open(f);
    write_dialect(f, "c.jsonl", "ghijkl", 24, 3);
    write_text(f, "r.yaml", RECIPE("out"));
    assert_int_equal(
        run(f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 2}), 0);
}

/* The run "out" once more as "copy". */
static void copy_run(const struct fixture *f)
{
    char from[256], to[256], command[600];

    path_in(from, sizeof(from), f, "out");
    path_in(to, sizeof(to), f, "copy");
    snprintf(command, sizeof(command), "cp -r %s %s", from, to);
    assert_int_equal(system(command), 0);
}

static void a_domain_joins_and_the_others_keep_their_bytes(void **state)
{
    char one[DIGEST_SIZE], two[DIGEST_SIZE], after[DIGEST_SIZE];
    struct mixture_file m;
    struct artel_error err;
    struct fixture f;
    char path[256];

    (void)state;
    open_run(&f, "method=moa");
    digest_of(one, &f, "out/moa/experts/one/adapter_model.safetensors");
    digest_of(two, &f, "out/moa/experts/two/adapter_model.safetensors");
    assert_int_equal(act(&f, (struct act){.mixture = "out/moa",
                                          .name = "three",
                                          .data = "c.jsonl",
                                          .stop_step = 4}),
                     -ARTEL_ESTOPPED);
    path_in(path, sizeof(path), &f, "out/moa");
    assert_int_equal(mixture_file_open(&m, path, NULL, false, &err), 0);
    assert_int_equal(m.n_domains, 2);
    mixture_file_release(&m);
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "three", .data = "c.jsonl"}),
        0);
    digest_of(after, &f, "out/moa/experts/one/adapter_model.safetensors");
    assert_string_equal(one, after);
    digest_of(after, &f, "out/moa/experts/two/adapter_model.safetensors");
    assert_string_equal(two, after);
    assert_int_equal(mixture_file_open(&m, path, NULL, false, &err), 0);
    assert_int_equal(m.n_domains, 3);
    assert_string_equal(m.domains[2].name, "three");
    assert_string_equal(m.domains[2].sample, "data/three.jsonl");
    mixture_file_release(&m);
    path_in(path, sizeof(path), &f, "out/moa/adding");
    assert_int_not_equal(access(path, F_OK), 0);
    /* The recipe still finds its run in order. */
    assert_int_equal(
        run(&f, &(struct child){.recipe = "out/recipe.yaml", .notes = "notes"}), 0);
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "three", .data = "c.jsonl"}),
        -ARTEL_ECONFLICT);
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "../x", .data = "c.jsonl"}),
        -ARTEL_EUSAGE);
    fixture_close(&f);
}

/* What is measured beside the domains, and how much of each text: the next one to add, or
 * to evaluate, finds it as it was. */
static void settings_go_on_with_the_mixture(void **state)
{
    static const char *const set[] = {"method=moa", "train.epochs=2"};
    struct fixture f;
    char path[256];
    json_t *root, *settings;

    (void)state;
    fixture_open(&f);
    write_dialect(&f, "c.jsonl", "ghijkl", 24, 3);
    write_text(&f, "r.yaml", RECIPE("out") "general: {wiki: w.txt}\ngeneral_rows: 7\n");
    path_in(path, sizeof(path), &f, "w.txt");
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 2}),
        -ARTEL_EIO);
    write_text(&f, "w.txt", "any text");
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 2}), 0);
    assert_int_equal(unlink(path), 0); /* only a run asks for it again */
    assert_int_equal(act(&f, (struct act){.mixture = "out/moa",
                                          .name = "three",
                                          .data = "c.jsonl",
                                          .max_rows = 16,
                                          .stop_step = 2}),
                     -ARTEL_ESTOPPED);
    assert_true(said(&f, "out/moa/adding/three/recipe.yaml", path));
    assert_int_equal(act(&f, (struct act){.mixture = "out/moa",
                                          .name = "three",
                                          .data = "c.jsonl",
                                          .max_rows = 16}),
                     0);
    root = read_json(&f, "out/moa/mixture.json");
    settings = json_object_get(root, "settings");
    assert_string_equal(json_string_value(json_object_get(
                            json_object_get(settings, "general"), "wiki")),
                        path);
    assert_int_equal(json_integer_value(json_object_get(settings, "general_rows")), 7);
    assert_int_equal(json_integer_value(json_object_get(
                         json_object_get(settings, "domain_max_rows"), "three")),
                     16);
    json_decref(root);
    fixture_close(&f);
}

static void a_stopped_addition_ends_in_the_same_bytes(void **state)
{
    struct fixture f;

    (void)state;
    open_run(&f, "method=moa");
    copy_run(&f);
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "three", .data = "c.jsonl"}),
        0);
    for (uint64_t step = 3; step < 12; step += 4)
        assert_int_equal(act(&f, (struct act){.mixture = "copy/moa",
                                              .name = "three",
                                              .data = "c.jsonl",
                                              .stop_step = step}),
                         -ARTEL_ESTOPPED);
    assert_int_equal(
        act(&f,
            (struct act){.mixture = "copy/moa", .name = "three", .data = "c.jsonl"}),
        0);
    same_bytes(&f, "out", "copy", "moa/experts/three/adapter_model.safetensors");
    same_bytes(&f, "out", "copy", "moa/router.safetensors");
    fixture_close(&f);
}

/* While rows are answered nothing is written yet, neither before nor after the training. */
static void stopped_while_it_answers_nothing_has_changed(void **state)
{
    static const char *const notes[] = {"two: answering 5 rows",
                                        "two: answering 5 rows again"};
    struct act joins = {
        .mixture = "copy/moa", .name = "three", .data = "c.jsonl", .score_rows = 5};
    struct act leaves = {
        .mixture = "copy/moa", .name = "three", .removes = true, .score_rows = 5};
    char before[DIGEST_SIZE], after[DIGEST_SIZE];
    struct fixture f;

    (void)state;
    open_run(&f, "domains.two={train: b.jsonl, test: b-valid.jsonl, score: exact}");
    copy_run(&f);
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "three", .data = "c.jsonl"}),
        0);
    for (size_t i = 0; i < 2; i++) {
        digest_of(before, &f, "copy/moa/mixture.json");
        joins.stop_note = notes[i];
        assert_int_equal(act(&f, joins), -ARTEL_ESTOPPED);
        digest_of(after, &f, "copy/moa/mixture.json");
        assert_string_equal(before, after);
    }
    joins.stop_note = NULL;
    joins.note = notes[1];
    assert_int_equal(act(&f, joins), 0);
    same_bytes(&f, "out", "copy", "moa/experts/three/adapter_model.safetensors");
    same_bytes(&f, "out", "copy", "moa/router.safetensors");
    digest_of(before, &f, "copy/moa/mixture.json");
    for (size_t i = 0; i < 2; i++) {
        leaves.stop_note = notes[i];
        assert_int_equal(act(&f, leaves), -ARTEL_ESTOPPED);
        digest_of(after, &f, "copy/moa/mixture.json");
        assert_string_equal(before, after);
    }
    leaves.stop_note = NULL;
    assert_int_equal(act(&f, leaves), 0);
    fixture_close(&f);
}

static void what_the_run_kept_for_its_routers_is_used(void **state)
{
    struct act in_run = {.mixture = "out/moa",
                         .name = "three",
                         .data = "c.jsonl",
                         .note = "router inputs: 48 rows found on disk, 24 computed"};
    struct fixture f;
    char kept[256], command[300];

    (void)state;
    open_run(&f, "router.router_only=true");
    copy_run(&f);
    path_in(kept, sizeof(kept), &f, "copy/train/router-inputs");
    snprintf(command, sizeof(command), "rm -r %s", kept);
    assert_int_equal(system(command), 0);
    assert_int_equal(act(&f, in_run), 0);
    in_run.mixture = "copy/moa";
    in_run.note = "router inputs: 0 rows found on disk, 72 computed";
    assert_int_equal(act(&f, in_run), 0);
    same_bytes(&f, "out", "copy", "moa/router.safetensors");
    fixture_close(&f);
}

static void the_stored_sample_stands_in_for_lost_text(void **state)
{
    struct fixture f;
    char path[256];

    (void)state;
    open_run(&f, "method=moa");
    path_in(path, sizeof(path), &f, "a.jsonl");
    assert_int_equal(unlink(path), 0);
    write_dialect(&f, "b.jsonl", "uvwxyz", 9, 9);
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "three", .data = "c.jsonl"}),
        0);
    path_in(path, sizeof(path), &f, "out/moa/data/one.jsonl");
    assert_int_equal(unlink(path), 0);
    write_dialect(&f, "d.jsonl", "mnopqr", 24, 4);
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "four", .data = "d.jsonl"}),
        -ARTEL_EUSAGE);
    fixture_close(&f);
}

static void jointly_the_old_experts_move_to_new_folders(void **state)
{
    struct fixture f;
    char path[256];

    (void)state;
    open_run(&f, "method=moa");
    assert_int_equal(act(&f, (struct act){.mixture = "out/moa",
                                          .name = "three",
                                          .data = "c.jsonl",
                                          .joint = true}),
                     0);
    path_in(path, sizeof(path), &f, "out/moa/experts-2/one/adapter_model.safetensors");
    assert_int_equal(access(path, F_OK), 0);
    path_in(path, sizeof(path), &f, "out/moa/experts/one");
    assert_int_not_equal(access(path, F_OK), 0);
    fixture_close(&f);
}

static json_int_t recorded(const struct fixture *f, const char *stage)
{
    json_t *const root = read_json(f, "out/moa/mixture.json");
    const json_t *stages = json_object_get(json_object_get(root, "training"), "stages");
    const json_t *const one = json_object_get(stages, stage);
    const json_int_t n = one ? json_integer_value(json_object_get(one, "tokens")) : -1;

    json_decref(root);
    return n;
}

static void costs_are_of_what_was_trained(void **state)
{
    static const struct act adapter = {.mixture = "out/moa",
                                       .name = "brought",
                                       .adapter = "out/experts/two",
                                       .data = "b.jsonl"};
    struct fixture f;
    size_t trained;

    (void)state;
    open_run(&f, "router.router_only=true");
    assert_int_equal(act(&f, (struct act){.mixture = "out/moa",
                                          .name = "three",
                                          .data = "c.jsonl",
                                          .joint = true}),
                     -ARTEL_EUSAGE);
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "three", .data = "c.jsonl"}),
        0);
    trained = cost(&f, "parameters");
    /* stage 1 thrice, and a stage 2 of three texts where two were recorded */
    assert_int_equal(cost(&f, "all"), recorded(&f, "expert-one") +
                                          recorded(&f, "expert-two") +
                                          recorded(&f, "expert-three") +
                                          recorded(&f, "moa-router") * 3 / 2);
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "two", .removes = true}), 0);
    assert_int_equal(recorded(&f, "expert-two"), -1);
    assert_true(recorded(&f, "expert-one") > 0);
    /* routers alone learn where the expert is brought and stays as it is */
    assert_int_equal(act(&f, adapter), 0);
    assert_true(cost(&f, "parameters") < trained / 2);
    assert_int_equal(cost(&f, "all"), recorded(&f, "expert-one") +
                                          recorded(&f, "expert-three") +
                                          recorded(&f, "moa-router") * 3 / 2);
    fixture_close(&f);
}

static void single_grows_without_routers(void **state)
{
    struct mixture_file m;
    struct artel_error err;
    struct fixture f;
    char path[256];

    (void)state;
    open_run(&f, "method=single");
    assert_int_equal(
        act(&f,
            (struct act){.mixture = "out/single", .name = "three", .data = "c.jsonl"}),
        0);
    path_in(path, sizeof(path), &f, "out/single");
    assert_int_equal(mixture_file_open(&m, path, NULL, false, &err), 0);
    assert_int_equal(m.n_domains, 3);
    assert_string_equal(m.domains[0].folder, "../experts/one");
    assert_string_equal(m.domains[2].folder, "experts/three");
    mixture_file_release(&m);
    fixture_close(&f);
}

static void a_domain_leaves_and_an_adapter_takes_its_place(void **state)
{
    char one[DIGEST_SIZE], after[DIGEST_SIZE];
    struct mixture_file m;
    struct artel_error err;
    struct fixture f;
    char path[256];

    (void)state;
    open_run(&f, "method=moa");
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "three", .data = "c.jsonl"}),
        0);
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "tow", .removes = true}),
        -ARTEL_EUSAGE);
    digest_of(one, &f, "out/moa/experts/one/adapter_model.safetensors");
    assert_int_equal(
        act(&f, (struct act){.mixture = "out/moa", .name = "two", .removes = true}), 0);
    digest_of(after, &f, "out/moa/experts/one/adapter_model.safetensors");
    assert_string_equal(one, after);
    path_in(path, sizeof(path), &f, "out/moa");
    assert_int_equal(mixture_file_open(&m, path, NULL, false, &err), 0);
    assert_int_equal(m.n_domains, 2);
    assert_string_equal(m.domains[1].name, "three");
    mixture_file_release(&m);
    path_in(path, sizeof(path), &f, "out/moa/experts/two");
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(act(&f, (struct act){.mixture = "out/moa",
                                          .name = "second",
                                          .adapter = "out/experts/two",
                                          .data = "b.jsonl"}),
                     0);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_domain_joins_and_the_others_keep_their_bytes),
        cmocka_unit_test(settings_go_on_with_the_mixture),
        cmocka_unit_test(a_stopped_addition_ends_in_the_same_bytes),
        cmocka_unit_test(stopped_while_it_answers_nothing_has_changed),
        cmocka_unit_test(what_the_run_kept_for_its_routers_is_used),
        cmocka_unit_test(the_stored_sample_stands_in_for_lost_text),
        cmocka_unit_test(jointly_the_old_experts_move_to_new_folders),
        cmocka_unit_test(costs_are_of_what_was_trained),
        cmocka_unit_test(single_grows_without_routers),
        cmocka_unit_test(a_domain_leaves_and_an_adapter_takes_its_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
