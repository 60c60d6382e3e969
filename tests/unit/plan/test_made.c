/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mixtures whose routers are computed, not trained: what their stages leave, which text
 * they need, and that a new domain leaves the others' rows as they are.
 */
#include "run_fixture.h"

#include "experts/arrow.h"
#include "files/json.h"
#include "plan/grow.h"
#include "save/mixture_file.h"

static void open_made(struct fixture *f)
{
    fixture_open(f);
    write_dialect(f, "c.jsonl", "ghijkl", 24, 3);
    write_text(f, "r.yaml", RECIPE("out"));
}

static int run_with(const struct fixture *f, const char *recipe, const char *set,
                    const char *notes)
{
    return run(
        f, &(struct child){.recipe = recipe, .set = &set, .n_set = 1, .notes = notes});
}

/* An adapter folder for "two" and no text: everything but "one" is brought. */
static void write_brought(const struct fixture *f, const char *name, const char *method)
{
    char text[1024];

    snprintf(text, sizeof(text),
             "model: " TOY "\nmethod: %s\noutput: brought\n"
             "domains:\n  one: {adapter: out/experts/one}\n"
             "  two: {adapter: out/experts/two}\n"
             "train: {precision: fp32}\n",
             method);
    write_text(f, name, text);
}

/* In a child, or models would be open where children are forked. */
static int in_child(const struct fixture *f, int (*work)(const struct fixture *f))
{
    const pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct artel_error err = {0};

        cpu_set_threads(1, &err);
        exit(work(f));
    }
    return finish(pid);
}

static int tell(const struct artel_error *err)
{
    fprintf(stderr, "child: %s: %s: %s [%s]\n", err->file, err->where, err->reason,
            err->code);
    return 90;
}

/* Every row of every router of out/arrow is the prototype of its expert there. */
static int rows_are_prototypes(const struct fixture *f)
{
    struct artel_error err = {0};
    struct artel_model *model;
    struct mixture_file m;
    char path[256];
    float v[256];

    path_in(path, sizeof(path), f, "out/arrow");
    if (model_open(&model, TOY, &err) < 0 ||
        mixture_file_open(&m, path, model, false, &err) < 0)
        return tell(&err);
    if (!m.mixture.rule.absolute || m.mixture.rule.temperature != 0.5f ||
        m.mixture.rule.top_k != 3)
        return 70;
    for (size_t r = 0; r < m.mixture.n_routers; r++)
        for (size_t e = 0; e < m.mixture.n_experts; e++) {
            const struct router *router = &m.mixture.routers[r];
            double length = 0;

            assert_true(router->dim <= 256);
            if (arrow_prototype(v, &m.mixture.experts[e].lora[r], &err) < 0)
                return tell(&err);
            if (memcmp(v, router->w + e * router->dim, router->dim * sizeof(*v)))
                return 71;
            for (size_t i = 0; i < router->dim; i++)
                length += (double)v[i] * (double)v[i];
            if (fabs(length - 1) > 1e-5)
                return 72;
        }
    mixture_file_release(&m);
    model_close(model);
    return 0;
}

static void arrow_is_made_of_experts_alone(void **state)
{
    struct fixture f;
    char before[DIGEST_SIZE], after[DIGEST_SIZE];

    (void)state;
    open_made(&f);
    assert_int_equal(run_with(&f, "r.yaml", "method=single", NULL), 0);
    digest_of(before, &f, "out/experts/one/adapter_model.safetensors");
    write_text(&f, "t.yaml", RECIPE("out") "method: arrow\n");
    assert_int_equal(run_with(&f, "t.yaml", "router.temperature=0.5", "notes"), 0);
    digest_of(after, &f, "out/experts/one/adapter_model.safetensors");
    assert_string_equal(before, after);
    assert_true(said(&f, "notes", "1 expert-one")); /* it was up to date */
    assert_int_equal(in_child(&f, rows_are_prototypes), 0);
    /* Adapters do as well, and leave the same rows; a setting that differs is told. */
    write_brought(&f, "brought.yaml", "arrow");
    assert_int_equal(run_with(&f, "brought.yaml", "router.temperature=0.5", NULL), 0);
    same_bytes(&f, "out", "brought", "arrow/router.safetensors");
    assert_int_equal(run_with(&f, "t.yaml", "router.temperature=0.25", "notes"),
                     -ARTEL_ECONFLICT);
    assert_true(said(&f, "notes", "router.temperature"));
    fixture_close(&f);
}

struct addition {
    const char *mixture, *adapter, *data;
};

static struct addition adding;

/* "three" joins; the report says that the others stayed. */
static int add_three(const struct fixture *f)
{
    struct grow_options o = {0};
    struct artel_error err = {0};
    struct grow_report r;
    char path[256], data[256], adapter[256];
    int rc;

    path_in(path, sizeof(path), f, adding.mixture);
    path_in(data, sizeof(data), f, adding.data ? adding.data : "");
    path_in(adapter, sizeof(adapter), f, adding.adapter ? adding.adapter : "");
    rc = run_add(path, "three", adding.adapter ? adapter : NULL,
                 adding.data ? data : NULL, &o, &r, &err);
    if (rc < 0) {
        tell(&err);
        return -rc;
    }
    if (!r.others_unchanged)
        rc = 61;
    for (size_t i = 0; rc == 0 && i < r.n_domains; i++)
        if (!r.domains[i].unchanged)
            rc = 62;
    grow_report_release(&r);
    return rc;
}

/* The first two rows of each router of out/arrow are those of brought/arrow, whose text
 * never was there. */
static int old_rows_stayed(const struct fixture *f)
{
    struct artel_error err = {0};
    struct artel_model *model;
    struct mixture_file m[2];
    int rc = 0;

    if (model_open(&model, TOY, &err) < 0)
        return tell(&err);
    for (int i = 0; i < 2; i++) {
        char path[256];

        path_in(path, sizeof(path), f, i ? "brought/arrow" : "out/arrow");
        if (mixture_file_open(&m[i], path, model, false, &err) < 0)
            return tell(&err);
    }
    if (m[0].mixture.n_experts != 2 || m[1].mixture.n_experts != 3)
        rc = 80;
    for (size_t r = 0; rc == 0 && r < m[0].mixture.n_routers; r++)
        if (memcmp(m[0].mixture.routers[r].w, m[1].mixture.routers[r].w,
                   2 * m[0].mixture.routers[r].dim * sizeof(float)))
            rc = 81;
    mixture_file_release(&m[0]);
    mixture_file_release(&m[1]);
    model_close(model);
    return rc;
}

/* What the mixture answers is finite, and names an expert for every row. */
static int answers_are_finite(const struct fixture *f)
{
    struct artel_error err = {0};
    struct artel_mixture *m;
    struct artel_score score;
    char path[256], rows[256];
    int rc = 0;

    path_in(path, sizeof(path), f, "brought/arrow");
    path_in(rows, sizeof(rows), f, "a-valid.jsonl");
    if (artel_mixture_open(&m, path, NULL, NULL, &err) < 0)
        return tell(&err);
    if (artel_score(&score, m, rows,
                    &(struct artel_score_options){.expert = ARTEL_AUTO}, &err) < 0)
        return tell(&err);
    for (size_t i = 0; i < score.n_rows; i++)
        if (!isfinite(score.rows[i].nll) || score.rows[i].expert < 0)
            rc = 85;
    artel_score_release(&score);
    artel_mixture_close(m);
    return rc;
}

static void an_adapter_joins_arrow_without_any_text(void **state)
{
    struct artel_error err = {0};
    struct mixture_file m;
    struct fixture f;
    char path[256];

    (void)state;
    open_made(&f);
    assert_int_equal(run_with(&f, "r.yaml", "method=arrow", NULL), 0);
    write_brought(&f, "brought.yaml", "arrow");
    assert_int_equal(run_with(&f, "brought.yaml", "train.seed=1", NULL), 0);
    /* An adapter of its own for "three". */
    write_text(&f, "three.yaml",
               "model: " TOY "\nmethod: single\noutput: other\nlora: {rank: 3}\n"
               "domains: {three: {train: c.jsonl}}\n"
               "train: {precision: fp32, batch_size: 4, learning_rate: 1e-2}\n");
    assert_int_equal(run_with(&f, "three.yaml", "train.seed=2", NULL), 0);
    adding = (struct addition){"brought/arrow", NULL, "other/experts/three"};
    assert_int_equal(in_child(&f, add_three), 0);
    assert_int_equal(in_child(&f, old_rows_stayed), 0);
    assert_int_equal(in_child(&f, answers_are_finite), 0);
    path_in(path, sizeof(path), &f, "brought/arrow");
    assert_int_equal(mixture_file_open(&m, path, NULL, false, &err), 0);
    assert_int_equal(m.n_domains, 3);
    assert_null(m.domains[2].train);
    assert_null(m.domains[2].sample);
    mixture_file_release(&m);
    /* Text alone trains the expert, and the others' text is not asked for. */
    path_in(path, sizeof(path), &f, "a.jsonl");
    assert_int_equal(unlink(path), 0);
    adding = (struct addition){"out/arrow", NULL, "c.jsonl"};
    assert_int_equal(in_child(&f, add_three), 0);
    /* Where a router is taught, an adapter does not do. */
    adding = (struct addition){"out/moa", "other/experts/three", NULL};
    write_dialect(&f, "a.jsonl", "abcdef", 24, 1);
    assert_int_equal(run_with(&f, "r.yaml", "method=moa", NULL), 0);
    assert_int_equal(in_child(&f, add_three), -ARTEL_EUSAGE);
    fixture_close(&f);
}

/* How many of ROWS of "out/METHOD" go to EXPERT; each must be worth what that expert's own
 * answer is, to the bit. */
static int routed_rows(const struct fixture *f, const char *mixture, const char *rows,
                       int expert)
{
    struct artel_error err = {0};
    struct artel_mixture *m;
    struct artel_score routed;
    char path[256], data[256];
    int n = 0;

    path_in(path, sizeof(path), f, mixture);
    path_in(data, sizeof(data), f, rows);
    if (artel_mixture_open(&m, path, NULL, NULL, &err) < 0 ||
        artel_score(&routed, m, data,
                    &(struct artel_score_options){.expert = ARTEL_AUTO}, &err) < 0)
        return -tell(&err);
    for (int e = 0; e < 2; e++) {
        struct artel_score own;

        if (artel_score(&own, m, data, &(struct artel_score_options){.expert = e},
                        &err) < 0)
            return -tell(&err);
        for (size_t i = 0; i < own.n_rows; i++)
            if (routed.rows[i].expert == e && routed.rows[i].nll != own.rows[i].nll)
                return -95;
        artel_score_release(&own);
    }
    for (size_t i = 0; i < routed.n_rows; i++)
        n += routed.rows[i].expert == expert;
    artel_score_release(&routed);
    artel_mixture_close(m);
    return n;
}

static const char *routing; /* the mixture of routes_by_text */

static int routes_by_text(const struct fixture *f)
{
    const int one = routed_rows(f, routing, "a-valid.jsonl", 0);
    const int two = routed_rows(f, routing, "b-valid.jsonl", 1);

    fprintf(stderr, "%s: %d and %d of 6 rows\n", routing, one, two);
    return one < 0 ? -one : two < 0 ? -two : one == 6 && two == 6 ? 0 : 96;
}

/* The run's answer by name of an expert, its gates, and no layers to agree. */
static int answers_say_who(const struct fixture *f)
{
    struct artel_generate_options o;
    struct artel_error err = {0};
    struct artel_mixture *m;
    struct artel_prompt prompt;
    struct artel_answer a;
    char path[256];
    int rc = 0;

    path_in(path, sizeof(path), f, routing);
    if (artel_mixture_open(&m, path, NULL, NULL, &err) < 0 ||
        artel_prompt_user(&prompt, "uvwx yzuv wxyz", NULL, &err) < 0)
        return tell(&err);
    artel_generate_options_default(&o, m);
    o.expert = ARTEL_AUTO;
    o.max_tokens = 4;
    if (artel_generate_all(&a, m, &prompt, 1, &o, &err) < 0)
        return tell(&err);
    if (!a.from_base || a.per_token || a.n_routers != 1 || a.n_experts != 2 ||
        a.expert != 1)
        rc = 97;
    if (rc == 0 && !(a.probabilities[1] > a.probabilities[0] &&
                     fabsf(a.probabilities[0] + a.probabilities[1] - 1.0f) < 1e-5f))
        rc = 98;
    artel_answer_release(&a);
    free(prompt.text);
    artel_mixture_close(m);
    return rc;
}

#define THREE(output)                                                                  \
    "model: " TOY "\nlora: {rank: 4, alpha: 8}\nmethod: ridge\noutput: " output "\n"   \
    "domains:\n  one: {train: a.jsonl, valid: a-valid.jsonl}\n"                        \
    "  two: {train: b.jsonl, valid: b-valid.jsonl}\n  three: {train: c.jsonl}\n"       \
    "train: {batch_size: 4, epochs: 1, learning_rate: 1e-2, save_steps: 2,\n"          \
    "        cutoff_len: 64, precision: fp32}\n"

static void ridge_routes_and_grows_by_a_column(void **state)
{
    struct artel_error err = {0};
    struct mixture_file m;
    struct fixture f;
    char path[256], files[2][DIGEST_SIZE];

    (void)state;
    open_made(&f);
    assert_int_equal(run_with(&f, "r.yaml", "method=ridge", NULL), 0);
    routing = "out/ridge";
    assert_int_equal(in_child(&f, routes_by_text), 0);
    /* A thread more or a run again: the same bytes. */
    digest_of(files[0], &f, "out/ridge/router.safetensors");
    assert_int_equal(
        run(&f, &(struct child){.recipe = "r.yaml",
                                .set = (const char *const[]){"method=ridge",
                                                             "output=again"},
                                .n_set = 2,
                                .threads = 2}),
        0);
    digest_of(files[1], &f, "again/ridge/router.safetensors");
    assert_string_equal(files[0], files[1]);
    /* All three at once, then the third beside two whose text is gone. */
    write_text(&f, "three.yaml", THREE("whole"));
    assert_int_equal(run_with(&f, "three.yaml", "train.seed=1", NULL), 0);
    path_in(path, sizeof(path), &f, "a.jsonl");
    assert_int_equal(unlink(path), 0);
    path_in(path, sizeof(path), &f, "b.jsonl");
    assert_int_equal(unlink(path), 0);
    adding = (struct addition){"out/ridge", NULL, "c.jsonl"};
    assert_int_equal(in_child(&f, add_three), 0);
    same_bytes(&f, "out", "whole", "ridge/router.safetensors");
    path_in(path, sizeof(path), &f, "out/ridge");
    assert_int_equal(mixture_file_open(&m, path, NULL, false, &err), 0);
    assert_int_equal(m.n_domains, 3);
    assert_null(m.domains[0].sample); /* no row is kept: there is no use for it */
    assert_null(m.domains[2].sample);
    mixture_file_release(&m);
    fixture_close(&f);
}

static int remove_three(const struct fixture *f)
{
    struct grow_options o = {0};
    struct artel_error err = {0};
    struct grow_report r;
    char path[256];

    path_in(path, sizeof(path), f, routing);
    if (run_remove(path, "three", &o, &r, &err) < 0)
        return tell(&err);
    grow_report_release(&r);
    return 0;
}

/* A column that goes leaves the others, which still route; an adapter needs text. */
static void ridge_takes_adapters_with_text_and_lets_go(void **state)
{
    struct fixture f;

    (void)state;
    open_made(&f);
    write_text(&f, "three.yaml", THREE("out"));
    assert_int_equal(run_with(&f, "three.yaml", "router.ridge_layers=[1, 2]", NULL), 0);
    routing = "out/ridge";
    assert_int_equal(in_child(&f, remove_three), 0);
    assert_int_equal(in_child(&f, routes_by_text), 0);
    assert_int_equal(in_child(&f, answers_say_who), 0);
    adding = (struct addition){"out/ridge", "out/experts/one", NULL};
    assert_int_equal(in_child(&f, add_three), -ARTEL_EUSAGE);
    adding = (struct addition){"out/ridge", "out/experts/three", "c.jsonl"};
    assert_int_equal(in_child(&f, add_three), 0);
    assert_int_equal(in_child(&f, routes_by_text), 0);
    fixture_close(&f);
}

/* It learns from all texts again when one comes, from what is stored where they are gone. */
static void a_classifier_routes_and_learns_again(void **state)
{
    struct artel_error err = {0};
    struct mixture_file m;
    struct fixture f;
    char path[256];

    (void)state;
    open_made(&f);
    assert_int_equal(run_with(&f, "r.yaml", "method=classifier", NULL), 0);
    routing = "out/classifier";
    assert_int_equal(in_child(&f, routes_by_text), 0);
    assert_int_equal(in_child(&f, answers_say_who), 0);
    path_in(path, sizeof(path), &f, "a.jsonl");
    assert_int_equal(unlink(path), 0);
    adding = (struct addition){"out/classifier", NULL, "c.jsonl"};
    assert_int_equal(in_child(&f, add_three), 0);
    assert_int_equal(in_child(&f, routes_by_text), 0);
    path_in(path, sizeof(path), &f, "out/classifier");
    assert_int_equal(mixture_file_open(&m, path, NULL, false, &err), 0);
    assert_int_equal(m.n_domains, 3);
    assert_non_null(m.domains[0].sample);
    mixture_file_release(&m);
    fixture_close(&f);
}

static const char *damage; /* words of mixture.json, and what stands there instead */
static const char *instead;

/* The error of out/classifier with other words in its mixture.json; 0 where it opens. */
static int opens_damaged(const struct fixture *f)
{
    char *text = slurp(f, "out/classifier/mixture.json"), *at = strstr(text, damage);
    struct artel_error err = {0};
    struct artel_mixture *m;
    char path[256];
    FILE *file;
    int rc;

    assert_non_null(at);
    path_in(path, sizeof(path), f, "out/classifier/mixture.json");
    file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "%.*s%s%s", (int)(at - text), text, instead, at + strlen(damage));
    fclose(file);
    path_in(path, sizeof(path), f, "out/classifier");
    rc = artel_mixture_open(&m, path, NULL, NULL, &err);
    artel_mixture_close(m);
    write_text(f, "out/classifier/mixture.json", text);
    free(text);
    return -rc;
}

/* An answer's probabilities are those of the words that were asked, as they stand there. */
static int probabilities_are_those_of_the_words(const struct fixture *f)
{
    static const char text[] = "Fade abed CAB\n uvw deface!";
    struct artel_generate_options o;
    struct artel_error err = {0};
    struct artel_mixture *m;
    struct artel_prompt prompt;
    struct artel_answer a;
    struct arena arena = {0};
    struct ngrams g = {0};
    struct mixture_file own;
    const struct router *r;
    float x[2];
    char path[256];

    path_in(path, sizeof(path), f, routing);
    if (artel_mixture_open(&m, path, NULL, NULL, &err) < 0 ||
        artel_prompt_user(&prompt, text, NULL, &err) < 0)
        return tell(&err);
    artel_generate_options_default(&o, m);
    o.max_tokens = 1;
    if (artel_generate_all(&a, m, &prompt, 1, &o, &err) < 0 ||
        mixture_file_open(&own, path, artel_mixture_model(m), false, &err) < 0)
        return tell(&err);
    r = &own.mixture.routers[0];
    ngrams_carve(&g, &arena, &own.mixture.rule.ngrams);
    assert_int_equal(arena_init(&arena, arena.used, &err), 0);
    ngrams_carve(&g, &arena, &own.mixture.rule.ngrams);
    ngrams_begin(&g);
    ngrams_add(&g, text, strlen(text));
    ngrams_end(&g);
    ngrams_product(x, &g, r->w, 2);
    for (size_t e = 0; e < 2; e++) {
        const float there =
            1.0f / (1.0f + expf(x[1 - e] + r->b[1 - e] - x[e] - r->b[e]));

        if (!(fabsf(a.probabilities[e] - there) < 1e-5f))
            return 88;
    }
    mixture_file_release(&own);
    arena_release(&arena);
    artel_answer_release(&a);
    free(prompt.text);
    artel_mixture_close(m);
    return 0;
}

/* A classifier of the characters: nothing of the base is read, and it grows and shrinks. */
static void ngrams_route_by_what_was_written(void **state)
{
    static const char *const words[][2] = {{"\"buckets\": 512", "\"buckets\": 7"},
                                           {"\"min\": 1", "\"min\": 4"},
                                           {"\"ngrams\"", "\"no\""},
                                           {"\"buckets\": 512", "\"buckets\": 513"}};
    const char *set[] = {"method=classifier",        "router.classifier=ngrams",
                         "router.ngram_min=1",       "router.ngram_max=3",
                         "router.ngram_buckets=512", "output=out"};
    struct child c = {.recipe = "r.yaml", .set = set, .n_set = 6, .notes = "notes"};
    struct fixture f;

    (void)state;
    open_made(&f);
    assert_int_equal(run(&f, &c), 0);
    routing = "out/classifier";
    assert_int_equal(in_child(&f, routes_by_text), 0);
    assert_int_equal(in_child(&f, answers_say_who), 0);
    assert_int_equal(in_child(&f, probabilities_are_those_of_the_words), 0);
    set[5] = "output=again";
    c.threads = 2;
    assert_int_equal(run(&f, &c), 0);
    same_bytes(&f, "out", "again", "classifier/router.safetensors");
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        damage = words[i][0];
        instead = words[i][1];
        assert_int_equal(in_child(&f, opens_damaged), -ARTEL_EFORMAT);
    }
    adding = (struct addition){"out/classifier", NULL, "c.jsonl"};
    assert_int_equal(in_child(&f, add_three), 0);
    assert_int_equal(in_child(&f, routes_by_text), 0);
    assert_int_equal(in_child(&f, remove_three), 0);
    assert_int_equal(in_child(&f, routes_by_text), 0);
    assert_int_equal(in_child(&f, answers_say_who), 0);
    /* Its settings are part of what it was made from; those of the other classifier not. */
    assert_int_equal(run_with(&f, "out/recipe.yaml", "router.pool=last", "notes"), 0);
    assert_int_equal(run_with(&f, "out/recipe.yaml", "router.ngram_max=2", "notes"),
                     -ARTEL_ECONFLICT);
    assert_true(said(&f, "notes", "router.ngram_max"));
    fixture_close(&f);
}

static void what_ridge_cannot_do_is_refused(void **state)
{
    static const struct {
        const char *set, *words;
    } cases[] = {{"router.ridge_layers=[2, 1]", "ascending"},
                 {"router.ridge_layers=99", "layer 99"},
                 {"router.ridge_layers=0", "ridge_layers"},
                 {"router.ridge_lambda=0", "ridge_lambda"},
                 {"domains.two={adapter: nowhere}", "needs text"}};
    struct fixture f;

    (void)state;
    open_made(&f);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *const set[] = {"method=ridge", cases[i].set};

        assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml",
                                                 .set = set,
                                                 .n_set = 2,
                                                 .notes = "notes"}),
                         -ARTEL_EUSAGE);
        if (!said(&f, "notes", cases[i].words))
            fail_msg("case %zu does not say %s", i, cases[i].words);
    }
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrow_is_made_of_experts_alone),
        cmocka_unit_test(an_adapter_joins_arrow_without_any_text),
        cmocka_unit_test(ridge_routes_and_grows_by_a_column),
        cmocka_unit_test(ridge_takes_adapters_with_text_and_lets_go),
        cmocka_unit_test(a_classifier_routes_and_learns_again),
        cmocka_unit_test(ngrams_route_by_what_was_written),
        cmocka_unit_test(what_ridge_cannot_do_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
