/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run in miniature: the toy model, two dialects that share no letter, a
 * recipe, and children that carry it out (so that one may be killed, and no
 * thread of a parallel region is there when the parent forks).
 */
#ifndef ARTEL_TESTS_RUN_FIXTURE_H
#define ARTEL_TESTS_RUN_FIXTURE_H

#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "artel.h"
#include "base/cpu.h"
#include "base/rng.h"
#include "files/digest.h"
#include "files/json.h"
#include "plan/recipe.h"
#include "plan/run.h"
#include "plan/stamp.h"

#define TOY ARTEL_SOURCE "/tests/golden/toy-tied.gguf"

struct fixture {
    char folder[64]; /* of everything */
};

__attribute__((unused)) static void path_in(char *out, size_t size,
                                            const struct fixture *f, const char *name)
{
    const int n = snprintf(out, size, "%s/%s", f->folder, name);

    assert_true(n > 0 && (size_t)n < size);
}

__attribute__((unused)) static void write_text(const struct fixture *f,
                                               const char *name, const char *text)
{
    char path[256];
    FILE *file;

    path_in(path, sizeof(path), f, name);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

/* Rows whose words are made of LETTERS; the answer is the last word reversed. */
__attribute__((unused)) static void write_dialect(const struct fixture *f,
                                                  const char *name, const char *letters,
                                                  size_t n, uint64_t seed)
{
    char path[256];
    struct rng rng;
    FILE *file;

    path_in(path, sizeof(path), f, name);
    file = fopen(path, "w");
    assert_non_null(file);
    rng_init(&rng, seed, 1);
    for (size_t i = 0; i < n; i++) {
        char word[6] = "";

        fputs("{\"prompt\": \"", file);
        for (size_t w = 0; w < 3; w++) {
            for (size_t k = 0; k < 4; k++)
                word[k] = letters[rng_below(&rng, (uint32_t)strlen(letters))];
            fprintf(file, "%s%s", w ? " " : "", word);
        }
        fprintf(file, "\", \"completion\": \"%c%c%c%c\"}\n", word[3], word[2], word[1],
                word[0]);
    }
    assert_int_equal(fclose(file), 0);
}

__attribute__((unused)) static void fixture_open(struct fixture *f)
{
    snprintf(f->folder, sizeof(f->folder), "/tmp/artel-plan-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    write_dialect(f, "a.jsonl", "abcdef", 24, 1);
    write_dialect(f, "b.jsonl", "uvwxyz", 24, 2);
    write_dialect(f, "a-valid.jsonl", "abcdef", 6, 11);
    write_dialect(f, "b-valid.jsonl", "uvwxyz", 6, 12);
}

__attribute__((unused)) static void fixture_close(struct fixture *f)
{
    assert_int_equal(remove_tree(f->folder, NULL), 0);
}

#define WITHOUT_OUTPUT                                                                 \
    "model: " TOY "\nlora: {rank: 4, alpha: 8}\n"                                      \
    "domains:\n"                                                                       \
    "  one: {train: a.jsonl, valid: a-valid.jsonl}\n"                                  \
    "  two: {train: b.jsonl, valid: b-valid.jsonl}\n"                                  \
    "train: {batch_size: 4, epochs: 1, learning_rate: 1e-2, save_steps: 2,\n"          \
    "        cutoff_len: 64, precision: fp32}\n"                                       \
    "router: {learning_rate: 1e-2}\n"
#define RECIPE(output) WITHOUT_OUTPUT "output: " output "\n"

/* What a child is to do beside the recipe. */
struct child {
    const char *recipe; /* name in the fixture's folder */
    const char *const *set;
    size_t n_set;
    const char *stop_stage; /* ask to stop at STOP_STEP of this stage; NULL: never */
    uint64_t stop_step;
    enum run_changes changes;
    bool must_resume;
    const char *only; /* a single stage, or NULL */
    size_t threads;
    const char *notes; /* a file that gets a line an event, or NULL */
    size_t memory;
    const char *shell; /* a command run at SHELL_STEP of every stage, or NULL */
    uint64_t shell_step;
    uint64_t full_from,
        full_to; /* steps of every stage between which no file may grow */
};

struct listener {
    const struct child *c;
    volatile sig_atomic_t stop;
    FILE *notes;
};

/* A disk that is full: a limit on the size of files fails the writes alike (R05, R09). */
__attribute__((unused)) static void set_full(bool full)
{
    struct rlimit limit;

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = full ? 300 : limit.rlim_max;
    setrlimit(RLIMIT_FSIZE, &limit);
}

__attribute__((unused)) static void listen_to(void *user, const struct run_progress *p)
{
    struct listener *l = user;

    if (p->event == RUN_STEP && l->c->stop_stage &&
        !strcmp(p->stage, l->c->stop_stage) && p->step == l->c->stop_step)
        l->stop = 1;
    if (p->event == RUN_STEP && l->c->full_from && p->step == l->c->full_from)
        set_full(true);
    if (p->event == RUN_STEP && l->c->full_to && p->step == l->c->full_to)
        set_full(false);
    if (p->event == RUN_STEP && l->c->shell && p->step == l->c->shell_step &&
        system(l->c->shell) != 0)
        _exit(99);
    if (l->notes) {
        fprintf(l->notes, "%d %s %llu %.9g %s\n", (int)p->event, p->stage,
                (unsigned long long)p->step, p->loss, p->message ? p->message : "");
        fflush(l->notes);
    }
}

/* In the child: the exit code of the run. */
__attribute__((unused)) static int carry_out(const struct fixture *f,
                                             const struct child *c)
{
    struct listener l = {.c = c};
    struct run_options o = {.progress = listen_to,
                            .user = &l,
                            .stop = &l.stop,
                            .changes = c->changes,
                            .must_resume = c->must_resume,
                            .only = c->only,
                            .memory_bytes = c->memory};
    struct artel_error err = {0};
    struct recipe *r;
    char path[256];
    int rc;

    if (c->notes) {
        path_in(path, sizeof(path), f, c->notes);
        l.notes = fopen(path, "w");
    }
    cpu_set_threads(c->threads ? c->threads : 1, &err);
    path_in(path, sizeof(path), f, c->recipe);
    rc = recipe_open(&r, path, c->set, c->n_set, &err);
    if (rc == 0) {
        rc = run_recipe(r, &o, &err);
        recipe_close(r);
    }
    if (rc < 0 && rc != ARTEL_ESTOPPED)
        fprintf(stderr, "child: %s: %s: %s [%s]\n", err.file, err.where, err.reason,
                err.code);
    if (l.notes) {
        if (rc < 0)
            fprintf(l.notes, "error %s %s: %s: %s\n", err.code, err.file, err.where,
                    err.reason);
        fclose(l.notes);
    }
    return -rc;
}

__attribute__((unused)) static pid_t start(const struct fixture *f,
                                           const struct child *c)
{
    const pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        exit(carry_out(f, c));
    return pid;
}

/* Exit code, or 128 + signal. */
__attribute__((unused)) static int finish(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

__attribute__((unused)) static int run(const struct fixture *f, const struct child *c)
{
    return finish(start(f, c));
}

/* All of a file in new memory. */
__attribute__((unused)) static char *slurp(const struct fixture *f, const char *name)
{
    char path[256];
    struct stat st;
    char *text;
    FILE *file;

    path_in(path, sizeof(path), f, name);
    file = fopen(path, "r");
    if (!file)
        return NULL;
    assert_int_equal(fstat(fileno(file), &st), 0);
    text = calloc(1, (size_t)st.st_size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)st.st_size, file), (size_t)st.st_size);
    fclose(file);
    return text;
}

/* Has a child written WORDS into its notes? */
__attribute__((unused)) static bool said(const struct fixture *f, const char *notes,
                                         const char *words)
{
    char *text = slurp(f, notes);
    const bool found = text && strstr(text, words);

    free(text);
    return found;
}

__attribute__((unused)) static void digest_of(char out[DIGEST_SIZE],
                                              const struct fixture *f, const char *name)
{
    struct artel_error err = {0};
    char path[256];

    path_in(path, sizeof(path), f, name);
    if (digest_file(out, path, &err) < 0)
        fail_msg("%s: %s", path, err.reason);
}

/* FILE under both outputs has the same bytes. */
__attribute__((unused)) static void same_bytes(const struct fixture *f,
                                               const char *left, const char *right,
                                               const char *file)
{
    char a[DIGEST_SIZE], b[DIGEST_SIZE], name[200];

    snprintf(name, sizeof(name), "%s/%s", left, file);
    digest_of(a, f, name);
    snprintf(name, sizeof(name), "%s/%s", right, file);
    digest_of(b, f, name);
    if (strcmp(a, b) != 0)
        fail_msg("%s differs between %s and %s", file, left, right);
}

/* Every weight that a run of moa leaves. */
__attribute__((unused)) static void same_weights(const struct fixture *f,
                                                 const char *left, const char *right)
{
    static const char *const files[] = {"experts/one/adapter_model.safetensors",
                                        "experts/two/adapter_model.safetensors",
                                        "moa/experts/one/adapter_model.safetensors",
                                        "moa/experts/two/adapter_model.safetensors",
                                        "moa/router.safetensors"};

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        same_bytes(f, left, right, files[i]);
}

static inline json_t *read_json(const struct fixture *f, const char *name)
{
    struct artel_error err = {0};
    char path[256];
    json_t *root;

    path_in(path, sizeof(path), f, name);
    if (json_read_file(&root, path, 1 << 20, &err) < 0)
        fail_msg("%s: %s", path, err.reason);
    return root;
}

#endif
