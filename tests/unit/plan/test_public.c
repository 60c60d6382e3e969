/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The toy model and its adapters through artel.h alone, against what transformers
 * and peft computed (tests/golden/toy.json).
 */
#include "check.h"

#include "artel.h"

#include <jansson.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define GOLDEN ARTEL_SOURCE "/tests/golden/"

static json_t *golden;
static char rows_path[] = "/tmp/artel-rows-XXXXXX";

/* The golden rows as a data file of token ids. */
static int write_rows(void)
{
    const json_t *const rows = json_object_get(
        json_object_get(json_object_get(golden, "models"), "toy-tied"), "rows");
    const int fd = mkstemp(rows_path);
    FILE *const f = fd < 0 ? NULL : fdopen(fd, "w");
    json_t *row;
    size_t i;

    if (!f)
        return -1;
    json_array_foreach(rows, i, row)
    {
        json_t *const ids = json_object_get(row, "ids");
        const json_int_t start =
            json_integer_value(json_object_get(row, "answer_start"));
        json_t *const labels = json_array();
        json_t *out;

        for (size_t k = 0; k < json_array_size(ids); k++)
            json_array_append_new(labels, (json_int_t)k < start
                                              ? json_integer(-100)
                                              : json_incref(json_array_get(ids, k)));
        out = json_pack("{s:O, s:o}", "input_ids", ids, "labels", labels);
        json_dumpf(out, f, JSON_COMPACT);
        fputc('\n', f);
        json_decref(out);
    }
    return fclose(f);
}

static int set_up(void **state)
{
    (void)state;
    golden = json_load_file(GOLDEN "toy.json", 0, NULL);
    return golden ? write_rows() : -1;
}

static int tear_down(void **state)
{
    (void)state;
    json_decref(golden);
    return unlink(rows_path);
}

static struct artel_mixture *opened(const char *path, const char *base)
{
    struct artel_open_options o;
    struct artel_mixture *m = NULL;
    struct artel_error err = {0};

    artel_open_options_default(&o);
    o.precision = "fp32";
    o.model = base;
    if (artel_mixture_open(&m, path, NULL, &o, &err) < 0)
        fail_msg("%s: %s [%s]", err.file, err.reason, err.code);
    return m;
}

static void score_is(const struct artel_mixture *m, int expert, const json_t *nll)
{
    struct artel_score_options o;
    struct artel_error err = {0};
    struct artel_score s;
    double sum = 0;

    artel_score_options_default(&o);
    o.expert = expert;
    if (artel_score(&s, m, rows_path, &o, &err) < 0)
        fail_msg("%s: %s: %s [%s]", err.file, err.where, err.reason, err.code);
    assert_int_equal(s.n_rows, json_array_size(nll));
    for (size_t i = 0; i < s.n_rows; i++) {
        const double want = json_number_value(json_array_get(nll, i));

        assert_near(s.rows[i].nll, want, 2e-4 * want);
        assert_int_equal(s.rows[i].expert, expert);
        assert_int_equal(s.rows[i].line, i + 1);
        sum += want;
    }
    assert_near(s.perplexity, exp(sum / (double)s.answer_tokens), 1e-3 * s.perplexity);
    artel_score_release(&s);
}

static void base_scores_as_transformers_does(void **state)
{
    const json_t *const want = json_object_get(
        json_object_get(json_object_get(golden, "models"), "toy-tied"), "nll");
    struct artel_mixture *const gguf = opened(GOLDEN "toy-tied.gguf", NULL);
    struct artel_mixture *const folder = opened(GOLDEN "toy-tied", NULL);

    (void)state;
    score_is(gguf, ARTEL_BASE, want);
    score_is(folder, ARTEL_BASE, want);
    artel_mixture_close(gguf);
    artel_mixture_close(folder);
}

static void adapter_scores_as_peft_does(void **state)
{
    static const char *const names[] = {"lora", "rslora"};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char path[512];
        struct artel_mixture *m;
        int expert;

        snprintf(path, sizeof(path), GOLDEN "%s", names[i]);
        m = opened(path, GOLDEN "toy-tied.gguf");
        assert_int_equal(artel_expert_find(m, &expert, "auto", NULL), 0);
        assert_int_equal(expert, 0);
        assert_string_equal(artel_expert_name(m, 0), names[i]);
        score_is(m, 0, json_object_get(json_object_get(golden, names[i]), "nll"));
        score_is(
            m, ARTEL_BASE,
            json_object_get(
                json_object_get(json_object_get(golden, "models"), "toy-tied"), "nll"));
        artel_mixture_close(m);
    }
}

/* Prompts of different lengths, so that threads finish out of order. */
static void ask_all(struct artel_answer *answers, const struct artel_mixture *m,
                    size_t n, int threads, float temperature)
{
    struct artel_prompt prompts[12];
    struct artel_generate_options o;
    char text[64];

    artel_generate_options_default(&o, m);
    o.expert = 0;
    o.max_tokens = 24;
    o.temperature = temperature;
    o.seed = 3;
    for (size_t i = 0; i < n; i++) {
        snprintf(text, sizeof(text), "%.*s", (int)(3 * i + 1),
                 "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrst");
        assert_int_equal(artel_prompt_user(&prompts[i], text, NULL, NULL), 0);
    }
    omp_set_num_threads(threads);
    assert_int_equal(artel_generate_all(answers, m, prompts, n, &o, NULL), 0);
    for (size_t i = 0; i < n; i++)
        artel_free(prompts[i].text);
}

static void answers_depend_on_their_row_alone(void **state)
{
    struct artel_mixture *const m = opened(GOLDEN "lora", GOLDEN "toy-tied.gguf");
    struct artel_answer a[12], b[12];
    const int threads[] = {2, 3, 1};

    (void)state;
    for (float t = 0; t < 2; t++) {
        ask_all(a, m, 12, 1, t);
        for (size_t k = 0; k < 3; k++) {
            const size_t n = k == 2 ? 3 : 12; /* fewer rows, same answers */

            ask_all(b, m, n, threads[k], t);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(a[i].n_ids, b[i].n_ids);
                assert_memory_equal(a[i].ids, b[i].ids, a[i].n_ids * sizeof(*a[i].ids));
                assert_string_equal(a[i].text, b[i].text);
                assert_int_equal(b[i].expert, 0);
                artel_answer_release(&b[i]);
            }
        }
        for (size_t i = 0; i < 12; i++)
            artel_answer_release(&a[i]);
    }
    artel_mixture_close(m);
}

static void equal_prompts_draw_from_streams_of_their_own(void **state)
{
    struct artel_mixture *const m = opened(GOLDEN "toy-tied.gguf", NULL);
    struct artel_prompt p[2];
    struct artel_generate_options o;
    struct artel_answer a[2];

    (void)state;
    artel_generate_options_default(&o, m);
    o.expert = ARTEL_BASE;
    o.temperature = 2;
    o.max_tokens = 12;
    for (int i = 0; i < 2; i++)
        assert_int_equal(artel_prompt_user(&p[i], "same", NULL, NULL), 0);
    assert_int_equal(artel_generate_all(a, m, p, 2, &o, NULL), 0);
    assert_true(a[0].n_ids != a[1].n_ids ||
                memcmp(a[0].ids, a[1].ids, a[0].n_ids * sizeof(*a[0].ids)));
    for (int i = 0; i < 2; i++) {
        artel_free(p[i].text);
        artel_answer_release(&a[i]);
    }
    artel_mixture_close(m);
}

struct heard {
    char text[4096];
    size_t n, calls, most;
};

static int hear(void *user, const char *text, size_t n)
{
    struct heard *const h = user;

    memcpy(h->text + h->n, text, n);
    h->n += n;
    return ++h->calls >= h->most;
}

static void text_comes_in_pieces_that_make_the_answer(void **state)
{
    struct artel_mixture *const m = opened(GOLDEN "toy-tied.gguf", NULL);
    struct artel_prompt p;
    struct artel_generate_options o;
    struct artel_session *s;
    struct artel_answer whole, cut;
    struct heard h = {.most = 1000};
    char stop[3] = "";
    const char *const stops[] = {stop};

    (void)state;
    assert_int_equal(artel_prompt_user(&p, "hello", "be kind", NULL), 0);
    assert_int_equal(artel_session_open(&s, m, 0, NULL), 0);
    artel_generate_options_default(&o, m);
    o.temperature = 1.5f;
    o.max_tokens = 60;
    o.expert = ARTEL_BASE;
    o.on_text = hear;
    o.user = &h;
    assert_int_equal(artel_generate(s, &whole, m, &p, &o, NULL), 0);
    assert_int_equal(h.n, whole.n_text);
    assert_memory_equal(h.text, whole.text, h.n);
    assert_true(whole.n_ids <= 60 && whole.n_text > 4);

    /* A stop string from the middle of it ends it there and is left out. */
    memcpy(stop, whole.text + whole.n_text / 2, 1);
    for (const char *at = whole.text; (unsigned char)stop[0] >= 0x80; at++)
        stop[0] = *at;
    o.stop = stops;
    o.n_stop = 1;
    h = (struct heard){.most = 1000};
    assert_int_equal(artel_generate(s, &cut, m, &p, &o, NULL), 0);
    assert_string_equal(cut.finish_reason, "stop");
    assert_int_equal(cut.n_text, (size_t)(strchr(whole.text, stop[0]) - whole.text));
    assert_memory_equal(cut.text, whole.text, cut.n_text);
    assert_int_equal(h.n, cut.n_text);
    artel_answer_release(&cut);

    /* The listener ends it. */
    o.n_stop = 0;
    h = (struct heard){.most = 2};
    assert_int_equal(artel_generate(s, &cut, m, &p, &o, NULL), 0);
    assert_string_equal(cut.finish_reason, "stopped");
    assert_true(cut.n_text < whole.n_text);
    artel_answer_release(&cut);
    artel_answer_release(&whole);
    artel_free(p.text);
    artel_session_close(s);
    artel_mixture_close(m);
}

static void experts_do_not_come_while_somebody_uses_the_others(void **state)
{
    struct artel_trainer_options o;
    struct artel_model *model = NULL;
    struct artel_mixture *m = NULL, *base;
    struct artel_session *s = NULL, *second = NULL;
    struct artel_trainer *t = NULL;
    struct artel_mixture_info info;
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(artel_model_open(&model, GOLDEN "toy-tied.gguf", &err), 0);
    assert_int_equal(artel_mixture_new(&m, model, "moa", "fp32", &err), 0);
    assert_int_equal(artel_mixture_add(m, "one", NULL, &err), 0);
    assert_int_equal(artel_session_open(&s, m, 64, &err), 0);
    assert_error(artel_session_open(&second, m, 1 << 20, &err), ARTEL_EUSAGE, err,
                 "USE05");
    assert_error(artel_mixture_add(m, "two", NULL, &err), ARTEL_ECONFLICT, err,
                 "MIX10");
    artel_mixture_info(m, &info);
    assert_int_equal(info.n_experts, 1);
    artel_session_close(s);
    assert_int_equal(artel_mixture_add(m, "two", NULL, &err), 0);
    artel_trainer_options_default(&o);
    assert_int_equal(artel_trainer_open(&t, m, &o, &err), 0);
    assert_error(artel_mixture_add(m, "three", NULL, &err), ARTEL_ECONFLICT, err,
                 "MIX10");
    artel_trainer_close(t);
    assert_int_equal(artel_mixture_add(m, "three", NULL, &err), 0);
    artel_mixture_close(m);
    artel_model_close(model);

    base = opened(GOLDEN "toy-tied.gguf", NULL);
    assert_error(artel_mixture_add(base, "one", NULL, &err), ARTEL_EUSAGE, err,
                 "USE13");
    artel_mixture_close(base);
}

static void values_out_of_range_are_refused(void **state)
{
    struct artel_mixture *const m = opened(GOLDEN "toy-tied.gguf", NULL);
    struct artel_generate_options good, o;
    struct artel_answer a;
    struct artel_error err;
    struct artel_prompt p;
    const char *const empty[] = {""};

    (void)state;
    assert_int_equal(artel_prompt_user(&p, "x", NULL, NULL), 0);
    artel_generate_options_default(&good, m);
    good.expert = ARTEL_BASE;
    for (int i = 0; i < 8; i++) {
        o = good;
        if (i == 0)
            o.temperature = -1;
        if (i == 1)
            o.temperature = NAN;
        if (i == 2)
            o.top_p = 0;
        if (i == 3)
            o.top_p = 1.5f;
        if (i == 4)
            o.min_p = 2;
        if (i == 5)
            o.repetition_penalty = 0;
        if (i == 6)
            o.max_tokens = 0;
        if (i == 7) {
            o.stop = empty;
            o.n_stop = 1;
        }
        assert_error(artel_generate_all(&a, m, &p, 1, &o, &err), ARTEL_EUSAGE, err,
                     "USE05");
        assert_null(a.text);
    }
    artel_free(p.text);
    artel_mixture_close(m);
}

static void tokens_come_back_as_text(void **state)
{
    const char text[] = "caf\xc3\xa9 \xff<|im_end|>\0end";
    struct artel_model *m = NULL;
    struct artel_model_info info;
    int32_t *ids, bad[] = {0, 1 << 20};
    char *back;
    size_t n, n_back;

    (void)state;
    assert_int_equal(artel_model_open(&m, GOLDEN "toy-tied", NULL), 0);
    artel_model_info(m, &info);
    assert_string_equal(info.architecture, "llama");
    assert_int_equal(info.n_layers, 2);
    assert_int_equal(artel_tokenize(m, &ids, &n, text, sizeof(text) - 1, 0, NULL), 0);
    assert_int_equal(artel_detokenize(m, &back, &n_back, ids, n, NULL), 0);
    assert_int_equal(n_back, sizeof(text) - 1);
    assert_memory_equal(back, text, n_back);
    artel_free(back);
    assert_int_equal(artel_detokenize(m, &back, &n_back, bad, 2, NULL), ARTEL_EUSAGE);
    assert_null(back);
    artel_free(ids);
    assert_int_equal(artel_detokenize(m, &back, &n_back, NULL, 0, NULL), 0);
    artel_free(back);
    artel_model_close(m);
}

/* Rows "expert e says its own letter": prompt ids differ by expert and by row. */
static void make_rows(struct artel_row *rows, int32_t (*ids)[8], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const int e = (int)(i % 2);

        for (size_t k = 0; k < 8; k++)
            ids[i][k] = k < 5 ? (int32_t)(40 + 60 * (size_t)e + (3 * i + k) % 20)
                              : 250 + 20 * e;
        rows[i] = (struct artel_row){.ids = ids[i], .n = 8, .n_prompt = 5, .expert = e};
    }
}

static void remove_tree(const char *path)
{
    char command[600];

    snprintf(command, sizeof(command), "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

static void mixture_is_trained_saved_and_opened_again(void **state)
{
    struct artel_trainer_options o;
    struct artel_model *model = NULL;
    struct artel_mixture *m = NULL, *again;
    struct artel_trainer *t = NULL;
    struct artel_error err = {0};
    struct artel_row rows[8], bad;
    int32_t ids[8][8];
    struct artel_step step;
    struct artel_score_options so;
    struct artel_score before, after;
    char folder[] = "/tmp/artel-mixture-XXXXXX";
    double first = 0;

    (void)state;
    assert_non_null(mkdtemp(folder));
    make_rows(rows, ids, 8);
    assert_int_equal(artel_model_open(&model, GOLDEN "toy-tied.gguf", &err), 0);
    assert_error(artel_mixture_new(&m, model, "moo", "fp32", &err), ARTEL_EUSAGE, err,
                 "USE05");
    assert_int_equal(artel_mixture_new(&m, model, "moa", "fp32", &err), 0);
    assert_error(artel_mixture_save(m, folder, &err), ARTEL_EUSAGE, err, "USE13");
    assert_int_equal(artel_mixture_add(m, "one", NULL, &err), 0);
    assert_int_equal(artel_mixture_add(m, "two", NULL, &err), 0);
    assert_error(artel_mixture_add(m, "../up", NULL, &err), ARTEL_EUSAGE, err, "USE05");
    artel_trainer_options_default(&o);
    o.learning_rate = 2e-2f;
    o.router_learning_rate = 5e-2f;
    assert_int_equal(artel_trainer_open(&t, m, &o, &err), 0);
    bad = rows[0];
    bad.expert = 2;
    assert_error(artel_trainer_step(t, &step, &bad, 1, &err), ARTEL_EUSAGE, err,
                 "USE14");
    bad = rows[0];
    bad.n_prompt = 8;
    assert_error(artel_trainer_step(t, &step, &bad, 1, &err), ARTEL_EUSAGE, err,
                 "USE14");
    ids[7][0] = 320;
    assert_error(artel_trainer_step(t, &step, rows, 8, &err), ARTEL_EUSAGE, err,
                 "USE14");
    make_rows(rows, ids, 8);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(artel_trainer_step(t, &step, rows, 8, &err), 0);
        first = i ? first : step.loss;
    }
    assert_int_equal(step.step, 30);
    assert_true(step.loss < 0.2 * first && step.router_loss < 0.3);
    artel_trainer_close(t);

    artel_score_options_default(&so);
    assert_int_equal(artel_score(&before, m, rows_path, &so, &err), 0);
    assert_int_equal(artel_mixture_save(m, folder, &err), 0);
    artel_mixture_close(m);
    artel_model_close(model);
    again = opened(folder, NULL);
    assert_int_equal(artel_score(&after, again, rows_path, &so, &err), 0);
    assert_int_equal(before.n_rows, after.n_rows);
    for (size_t i = 0; i < after.n_rows; i++) {
        assert_int_equal(before.rows[i].expert, after.rows[i].expert);
        assert_near(before.rows[i].nll, after.rows[i].nll, 1e-9);
    }
    artel_score_release(&before);
    artel_score_release(&after);
    artel_mixture_close(again);
    remove_tree(folder);
}

/* Positions end where the model does, whatever the options allow. */
static void a_row_longer_than_the_model_is_refused(void **state)
{
    struct artel_trainer_options o;
    struct artel_model *model = NULL;
    struct artel_mixture *m = NULL;
    struct artel_trainer *t = NULL;
    struct artel_error err = {0};
    struct artel_step step;
    int32_t ids[600];
    struct artel_row row = {.ids = ids, .n = 512, .n_prompt = 5};

    (void)state;
    for (size_t i = 0; i < 600; i++)
        ids[i] = (int32_t)(40 + i % 200);
    assert_int_equal(artel_model_open(&model, GOLDEN "toy-tied.gguf", &err), 0);
    assert_int_equal(artel_mixture_new(&m, model, "single", "fp32", &err), 0);
    assert_int_equal(artel_mixture_add(m, "one", NULL, &err), 0);
    artel_trainer_options_default(&o);
    assert_int_equal(artel_trainer_open(&t, m, &o, &err), 0);
    assert_int_equal(artel_trainer_step(t, &step, &row, 1, &err), 0);
    row.n = 513;
    assert_error(artel_trainer_step(t, &step, &row, 1, &err), ARTEL_ELIMIT, err,
                 "TRN01");
    row.n = 600;
    assert_error(artel_trainer_step(t, &step, &row, 1, &err), ARTEL_ELIMIT, err,
                 "TRN01");
    artel_trainer_close(t);
    artel_mixture_close(m);
    artel_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base_scores_as_transformers_does),
        cmocka_unit_test(adapter_scores_as_peft_does),
        cmocka_unit_test(answers_depend_on_their_row_alone),
        cmocka_unit_test(equal_prompts_draw_from_streams_of_their_own),
        cmocka_unit_test(text_comes_in_pieces_that_make_the_answer),
        cmocka_unit_test(experts_do_not_come_while_somebody_uses_the_others),
        cmocka_unit_test(values_out_of_range_are_refused),
        cmocka_unit_test(mixture_is_trained_saved_and_opened_again),
        cmocka_unit_test(a_row_longer_than_the_model_is_refused),
        cmocka_unit_test(tokens_come_back_as_text),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
