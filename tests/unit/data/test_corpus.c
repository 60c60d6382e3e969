/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data files to examples: what is learnt and what routers look at.
 */
#include "corpus_fixture.h"

#include "data/prompt.h"

/* Opens a thought in the generation prompt alone. */
static const char thinking[] =
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + "
    "'<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>' }}"
    "{% endif %}";

/* The tokens FIRST .. END-1 of E as text. */
static const char *spell(const struct example *e, size_t first, size_t end)
{
    static char text[4096];
    size_t n = 0, len;

    for (size_t i = first; i < end; i++) {
        const char *piece = tokenizer_piece(f.tok, e->ids[i], &len);

        assert_true(n + len < sizeof(text));
        memcpy(text + n, piece, len);
        n += len;
    }
    text[n] = '\0';
    return text;
}

/* The tokens that carry loss as text, runs apart by '|'. */
static const char *learnt(const struct example *e)
{
    static char text[4096];
    size_t n = 0, len;

    for (size_t i = 0; i < e->n; i++) {
        const char *piece = tokenizer_piece(f.tok, e->ids[i], &len);

        if (!e->loss[i])
            continue;
        if (n && !e->loss[i - 1])
            text[n++] = '|';
        memcpy(text + n, piece, len);
        n += len;
    }
    text[n] = '\0';
    return text;
}

static void check_example(const struct example *e, const char *prompt,
                          const char *answers, const char *pool)
{
    size_t n_loss = 0;

    assert_string_equal(spell(e, 0, e->n_prompt), prompt);
    assert_string_equal(learnt(e), answers);
    assert_string_equal(spell(e, e->pool_first, e->pool_first + e->pool_n), pool);
    for (size_t i = 0; i < e->n; i++)
        n_loss += e->loss[i];
    assert_int_equal(e->n_loss, n_loss);
    assert_int_equal(e->loss[0], 0);
}

static void the_answer_alone_is_learnt(void **state)
{
    struct corpus *c = open_text(
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi there\"},"
        "{\"role\":\"assistant\",\"content\":\"Good day\"}],\"domain\":\"x\"}\n");
    const struct example *e = corpus_at(c, 0);

    (void)state;
    check_example(e, "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
                  "Good day<|im_end|>", "Hi there");
    assert_int_equal(e->row, 1);
    assert_string_equal(spell(e, e->n_prompt, e->n), "Good day<|im_end|>");
    assert_string_equal(corpus_prompt_text(c, 0), "Hi there");
    assert_string_equal(corpus_answer_text(c, 0), "Good day");
    assert_int_equal(json_array_size(corpus_messages(c, 0)), 1);
    assert_string_equal(corpus_stats(c)->format, "messages");
    corpus_close(c);
}

static void every_answer_of_a_conversation_is_learnt(void **state)
{
    struct corpus *c =
        open_text("{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},"
                  "{\"role\":\"user\",\"content\":\"one\"},{\"role\":\"assistant\","
                  "\"content\":\"two\"},"
                  "{\"role\":\"user\",\"content\":\"three\"},{\"role\":\"assistant\","
                  "\"content\":\"four\"}]}");

    (void)state;
    check_example(
        corpus_at(c, 0),
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\none<|im_end|>\n"
        "<|im_start|>assistant\ntwo<|im_end|>\n<|im_start|>user\nthree<|im_end|>\n"
        "<|im_start|>assistant\n",
        "two<|im_end|>|four<|im_end|>", "three");
    corpus_close(c);
}

static void a_weight_of_zero_takes_the_loss_from_a_turn(void **state)
{
    struct corpus *c =
        open_text("{\"messages\":[{\"role\":\"user\",\"content\":\"one\"},"
                  "{\"role\":\"assistant\",\"content\":\"two\",\"weight\":0},"
                  "{\"role\":\"user\",\"content\":\"three\"},{\"role\":\"assistant\","
                  "\"content\":\"four\"}]}");

    (void)state;
    assert_string_equal(learnt(corpus_at(c, 0)), "four<|im_end|>");
    corpus_close(c);
}

static void d10_a_cut_conversation_ends_in_the_last_answer_it_holds(void **state)
{
    static const char row[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"one\"},"
        "{\"role\":\"assistant\",\"content\":\"two\"},{\"role\":\"user\",\"content\":"
        "\"three\"},"
        "{\"role\":\"assistant\",\"content\":\"four and some more\"}]}";
    struct corpus *whole = open_text(row), *c;
    const struct example *e = corpus_at(whole, 0);
    struct corpus_options o = {.cutoff_len = e->n - 2};

    (void)state;
    c = open_with(row, f.chat, &o);
    assert_int_equal(corpus_at(c, 0)->n, e->n - 2);
    assert_int_equal(corpus_at(c, 0)->n_loss, e->n_loss - 2);
    assert_int_equal(corpus_at(c, 0)->n_prompt, e->n_prompt);
    assert_int_equal(corpus_stats(c)->truncated, 1);
    corpus_close(c);
    o.cutoff_len = e->n_prompt; /* nothing of the second answer */
    c = open_with(row, f.chat, &o);
    check_example(corpus_at(c, 0),
                  "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n",
                  "two<|im_end|>", "one");
    corpus_close(c);
    corpus_close(whole);
}

static void a_thought_opened_for_generation_stays_in_the_prompt(void **state)
{
    const struct corpus_options o = {0};
    struct chat_template *chat;
    struct artel_error err = {0};
    struct corpus *c;

    (void)state;
    assert_int_equal(chat_parse(&chat, thinking, strlen(thinking), "thinking", &err),
                     0);
    c = open_with("{\"prompt\":\"q\",\"completion\":\"<think>a\"}\n", chat, &o);
    check_example(corpus_at(c, 0),
                  "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n<think>",
                  "<think>a<|im_end|>", "q");
    corpus_close(c);
    chat_close(chat);
}

static void all_formats_mean_the_same(void **state)
{
    static const char *const rows[][2] = {
        {"prompt/completion", "{\"prompt\":\"a\\nb\",\"completion\":\"c\"}"},
        {"alpaca", "{\"instruction\":\"a\",\"input\":\"b\",\"output\":\"c\"}"},
        {"alpaca", "{\"instruction\":\"a\\nb\",\"input\":\"\",\"output\":\"c\"}"},
        {"sharegpt", "{\"conversations\":[{\"from\":\"human\",\"value\":\"a\\nb\"},"
                     "{\"from\":\"gpt\",\"value\":\"c\"}]}"},
        {"messages",
         "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
         "\"text\":\"a\\n\"},{\"type\":\"text\",\"text\":\"b\"}]},"
         "{\"role\":\"assistant\",\"content\":\"c\"}]}"},
        {"prompt/completion",
         "{\"prompt\":[{\"role\":\"user\",\"content\":\"a\\nb\"}],"
         "\"completion\":[{\"role\":\"assistant\",\"content\":\"c\"}]}"},
        {"messages", "\n  [ {\"messages\":[{\"role\":\"user\",\"content\":\"a\\nb\"},\n"
                     "{\"role\":\"assistant\",\"content\":\"c\"}]} ]\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct corpus *c;

        if (rows[i][1][0] == '\n')
            snprintf(f.path, sizeof(f.path), "%s/d.json", f.folder);
        c = open_text(rows[i][1]);
        assert_string_equal(corpus_stats(c)->format, rows[i][0]);
        check_example(corpus_at(c, 0),
                      "<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n",
                      "c<|im_end|>", "a\nb");
        corpus_close(c);
        unlink(f.path);
        snprintf(f.path, sizeof(f.path), "%s/d.jsonl", f.folder);
    }
}

static void without_a_template_rows_are_joined_as_they_are(void **state)
{
    static const char messages[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
        "{\"role\":\"assistant\",\"content\":\"b\"}]}";
    const struct corpus_options o = {.keep_text = true};
    struct corpus *c =
        open_with("{\"prompt\":\"one \",\"completion\":\"two\"}", NULL, &o);
    struct artel_error err = {0};
    const struct example *e = corpus_at(c, 0);
    size_t eos_n;
    const char *eos = tokenizer_piece(f.tok, tokenizer_eos(f.tok), &eos_n);
    char want[64];

    (void)state;
    snprintf(want, sizeof(want), "two%.*s", (int)eos_n, eos);
    assert_string_equal(learnt(e), want);
    assert_string_equal(spell(e, e->pool_first, e->pool_first + e->pool_n), "one ");
    assert_string_equal(corpus_prompt_text(c, 0), "one ");
    assert_null(corpus_messages(c, 0));
    corpus_close(c);
    put_bytes(messages, strlen(messages));
    assert_error(corpus_open(&c, f.path, f.tok, NULL, &o, &err), ARTEL_EFORMAT, err,
                 "DATA07");
}

static void plain_text_is_cut_into_chunks(void **state)
{
    const struct corpus_options o = {.cutoff_len = 16};
    char text[1024] = "";
    struct corpus *c;
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 40; i++)
        strcat(text, "some words\n");
    snprintf(f.path, sizeof(f.path), "%s/d.txt", f.folder);
    c = open_with(text, NULL, &o);
    assert_string_equal(corpus_stats(c)->format, "plain text");
    for (size_t i = 0; i < corpus_count(c); i++) {
        const struct example *e = corpus_at(c, i);

        assert_true(i + 1 == corpus_count(c) || e->n == 16);
        assert_int_equal(e->n_loss, e->n - 1);
        assert_int_equal(e->n_prompt, 0);
        n += e->n;
    }
    assert_int_equal(n, corpus_stats(c)->n_tokens);
    assert_true(n > 100);
    corpus_close(c);
    unlink(f.path);
    snprintf(f.path, sizeof(f.path), "%s/d.jsonl", f.folder);
}

static void choices_are_kept_beside_the_question(void **state)
{
    const struct corpus_options o = {0};
    struct corpus *c =
        open_with("{\"domain\":\"mmlu/x\",\"question\":\"Which?\",\"choices\":"
                  "[\"a\",\"b\",\"c\"],\"answer\":2}",
                  f.chat, &o);
    const struct choice_row *row = corpus_choices(c, 0);
    const struct example *e = corpus_at(c, 0);

    (void)state;
    assert_non_null(row);
    assert_string_equal(row->choices[2], "c");
    assert_int_equal(row->answer, 2);
    assert_string_equal(row->domain, "mmlu/x");
    assert_int_equal(e->n_prompt, e->n);
    assert_int_equal(e->n_loss, 0);
    assert_string_equal(spell(e, 0, e->n),
                        "<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n");
    corpus_close(c);
}

static void prompts_may_come_without_answers(void **state)
{
    const struct corpus_options o = {.keep_text = true, .prompts_only = true};
    struct corpus *c =
        open_with("{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}\n"
                  "{\"messages\":[{\"role\":\"user\",\"content\":\"r\"},"
                  "{\"role\":\"assistant\",\"content\":\"s\"}]}\n",
                  f.chat, &o);

    (void)state;
    assert_int_equal(corpus_count(c), 2);
    assert_int_equal(corpus_at(c, 0)->n_prompt, corpus_at(c, 0)->n);
    assert_null(corpus_answer_text(c, 0));
    assert_int_equal(json_array_size(corpus_messages(c, 0)), 1);
    assert_string_equal(learnt(corpus_at(c, 1)), "s<|im_end|>");
    corpus_close(c);
}

static void j32_d19_control_tokens_in_content_stay_text(void **state)
{
    struct corpus *c =
        open_text("{\"prompt\":\"say <|im_end|> now\",\"completion\":\"x\"}\n"
                  "{\"prompt\":\"plain\",\"completion\":\"y\"}\n");
    const struct example *e = corpus_at(c, 0);
    const int32_t end = tokenizer_find(f.tok, "<|im_end|>");
    size_t ends = 0;

    (void)state;
    for (size_t i = 0; i < e->n; i++)
        ends += e->ids[i] == end;
    assert_int_equal(ends, 2);
    assert_int_equal(corpus_stats(c)->special_text_rows, 1);
    check_example(
        e, "<|im_start|>user\nsay <|im_end|> now<|im_end|>\n<|im_start|>assistant\n",
        "x<|im_end|>", "say <|im_end|> now");
    corpus_close(c);
}

static void a_prompt_for_generation_is_that_of_training(void **state)
{
    struct corpus *c = open_text("{\"prompt\":\"Hello you\",\"completion\":\"x\"}\n");
    const struct example *e = corpus_at(c, 0);
    struct prompt p = {0};
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(
        prompt_encode(&p, f.tok, f.chat, corpus_messages(c, 0), NULL, NULL, &err), 0);
    assert_int_equal(p.ids.n, e->n_prompt);
    assert_memory_equal(p.ids.at, e->ids, e->n_prompt * sizeof(int32_t));
    assert_int_equal(p.pool_first, e->pool_first);
    assert_int_equal(p.pool_n, e->pool_n);
    assert_int_equal(prompt_encode_raw(&p, f.tok, "Hello", 5, &err), 0);
    assert_int_equal(p.pool_n, p.ids.n);
    prompt_release(&p);
    corpus_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_alone_is_learnt),
        cmocka_unit_test(every_answer_of_a_conversation_is_learnt),
        cmocka_unit_test(a_weight_of_zero_takes_the_loss_from_a_turn),
        cmocka_unit_test(d10_a_cut_conversation_ends_in_the_last_answer_it_holds),
        cmocka_unit_test(a_thought_opened_for_generation_stays_in_the_prompt),
        cmocka_unit_test(all_formats_mean_the_same),
        cmocka_unit_test(without_a_template_rows_are_joined_as_they_are),
        cmocka_unit_test(plain_text_is_cut_into_chunks),
        cmocka_unit_test(choices_are_kept_beside_the_question),
        cmocka_unit_test(prompts_may_come_without_answers),
        cmocka_unit_test(j32_d19_control_tokens_in_content_stay_text),
        cmocka_unit_test(a_prompt_for_generation_is_that_of_training),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
