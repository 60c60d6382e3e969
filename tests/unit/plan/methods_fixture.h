/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recipes of two domains and a universal text, runs of them, and what may be asked of
 * their results: in children, for a process has one number of threads.
 */
#ifndef ARTEL_TESTS_METHODS_FIXTURE_H
#define ARTEL_TESTS_METHODS_FIXTURE_H

#include "run_fixture.h"

#include "experts/expert.h"
#include "plan/grow.h"
#include "save/mixture_file.h"

#define UNIVERSAL "universal: {train: g.jsonl, rank: 6}\n"

__attribute__((unused)) static void open_methods(struct fixture *f)
{
    fixture_open(f);
    write_dialect(f, "g.jsonl", "abcxyz", 24, 5);
    write_dialect(f, "c.jsonl", "ghijkl", 24, 3);
    write_text(f, "r.yaml", RECIPE("out") UNIVERSAL);
}

__attribute__((unused)) static int run_with(const struct fixture *f, const char *method,
                                            const char *notes)
{
    const char *const set[] = {method, "train.epochs=2"};

    return run(
        f, &(struct child){.recipe = "r.yaml", .set = set, .n_set = 2, .notes = notes});
}

__attribute__((unused)) static double number_at(const json_t *root, const char *a,
                                                const char *b, const char *c)
{
    const json_t *o = json_object_get(root, a);

    o = b ? json_object_get(o, b) : o;
    return json_number_value(c ? json_object_get(o, c) : o);
}

__attribute__((unused)) static bool there(const struct fixture *f, const char *name)
{
    char path[256];

    path_in(path, sizeof(path), f, name);
    return access(path, F_OK) == 0;
}

/* The stage's loss fell by at least BY. */
__attribute__((unused)) static void learnt(const struct fixture *f, const char *stage,
                                           double by)
{
    char name[96];
    json_t *root;

    snprintf(name, sizeof(name), "out/train/%s/stage.json", stage);
    root = read_json(f, name);
    assert_true(json_is_true(json_object_get(root, "complete")));
    assert_true(number_at(root, "summary", "last_loss", NULL) <
                number_at(root, "summary", "first_loss", NULL) - by);
    json_decref(root);
}

/* In a child: open MIXTURE with its base. */
__attribute__((unused)) static int open_it(const struct fixture *f, const char *mixture)
{
    struct artel_mixture *m;
    struct artel_error err = {0};
    char path[256];
    int rc;

    cpu_set_threads(1, &err);
    path_in(path, sizeof(path), f, mixture);
    rc = artel_mixture_open(&m, path, NULL, NULL, &err);
    if (rc < 0)
        return !strcmp(err.code, "ADP12")   ? 12
               : !strcmp(err.code, "ADP22") ? 22
               : !strcmp(err.code, "MIX14") ? 14
               : !strcmp(err.code, "MIX17") ? 17
                                            : 1;
    artel_mixture_close(m);
    return 0;
}

__attribute__((unused)) static int child_opens(const struct fixture *f,
                                               const char *mixture)
{
    const pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        exit(open_it(f, mixture));
    return finish(pid);
}

__attribute__((unused)) static void shell(const struct fixture *f, const char *what)
{
    char command[512];

    snprintf(command, sizeof(command), "cd %s && %s", f->folder, what);
    assert_int_equal(system(command), 0);
}

/* In a child: add "three" to MIXTURE; the exit code tells what was wrong. */
__attribute__((unused)) static int add_three(const struct fixture *f,
                                             const char *mixture)
{
    struct grow_options o = {0};
    struct artel_error err = {0};
    struct grow_report r;
    char path[256], data[256];
    int rc;

    cpu_set_threads(1, &err);
    path_in(path, sizeof(path), f, mixture);
    path_in(data, sizeof(data), f, "c.jsonl");
    rc = run_add(path, "three", NULL, data, &o, &r, &err);
    if (rc < 0) {
        fprintf(stderr, "child: %s: %s [%s]\n", err.file, err.reason, err.code);
        return -rc;
    }
    rc = 0;
    if (r.n_domains != 3 || strcmp(r.domains[2].name, UNIVERSAL_NAME) != 0)
        rc = 60;
    else if (!r.others_unchanged || !r.domains[2].unchanged)
        rc = 61;
    else if (!(r.cost.parameters > 0 && r.cost.parameters < r.everything.parameters))
        rc = 62;
    for (size_t i = 0; rc == 0 && i < 3; i++)
        if (!(r.domains[i].perplexity_before > 1 && r.domains[i].perplexity_after > 1))
            rc = 63;
    grow_report_release(&r);
    return rc;
}

__attribute__((unused)) static int child_adds(const struct fixture *f,
                                              const char *mixture)
{
    const pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        exit(add_three(f, mixture));
    return finish(pid);
}

#endif
