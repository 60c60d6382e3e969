/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run's folder with a good mixture in it.
 */
#ifndef ARTEL_TESTS_SAVE_MIXTURE_RUN_H
#define ARTEL_TESTS_SAVE_MIXTURE_RUN_H

#include "save/mixture_file.h"
#include "unit/save/fixture.h"

/* A run folder with a mixture "moa" of two experts, one inside it and one beside it. */
struct run {
    char *scratch, *folder; /* the mixture's */
    struct toy_base base;
    struct artel_error err;
};

static inline void add_expert(struct mixture_file *f, const struct run *r,
                              const char *name, const char *folder)
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

static inline void run_fill(struct mixture_file *f, const struct run *r,
                            const char *method)
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

static inline struct run *run_open(const char *method)
{
    struct run *r = calloc(1, sizeof(*r));
    struct mixture_file f;

    assert_non_null(r);
    r->scratch = scratch_open();
    r->folder = path_join(r->scratch, "moa");
    toy_base_init(&r->base, true);
    run_fill(&f, r, method);
    if (mixture_file_write(&f, &r->err) < 0)
        fail_msg("%s: %s", r->err.file, r->err.reason);
    mixture_file_release(&f);
    return r;
}

static inline void run_close(struct run *r)
{
    free(r->folder);
    scratch_close(r->scratch);
    free(r);
}

static inline void open_ok(struct run *r, struct mixture_file *f, const char *path)
{
    if (mixture_file_open(f, path, &r->base.model, false, &r->err) < 0)
        fail_msg("%s: %s: %s [%s]", r->err.file, r->err.where, r->err.reason,
                 r->err.code);
}

#endif
