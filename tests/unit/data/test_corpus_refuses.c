/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data files that are refused, and variants that are not.
 */
#include "corpus_fixture.h"

#include <sys/stat.h>

/* TEXT is refused with CODE at WHERE, and the reason says SAYS. */
static void check_refused(const char *text, const char *code, const char *where,
                          const char *says)
{
    const struct corpus_options o = {.max_rows = 0};
    struct corpus *c;
    struct artel_error err = {0};

    put_bytes(text, strlen(text));
    assert_error(corpus_open(&c, f.path, f.tok, f.chat, &o, &err), ARTEL_EFORMAT, err,
                 code);
    assert_null(c);
    assert_string_equal(err.where, where);
    assert_string_equal(err.file, f.path);
    if (!strstr(err.reason, says))
        fail_msg("'%s' does not say '%s'", err.reason, says);
}

#define GOOD "{\"prompt\":\"a\",\"completion\":\"b\"}\n"

static void d01_d02_d03_a_bad_line_is_named(void **state)
{
    (void)state;
    check_refused(GOOD "\n" GOOD "{\"prompt\":\"a\",\"comp", "JSON01", "4:20", "");
    check_refused(GOOD "[]\n", "DATA01", "2:1", "an array");
    check_refused(GOOD "5\n", "DATA01", "2:1", "a number");
    check_refused(GOOD "\"x\"\n", "DATA01", "2:1", "a string");
    check_refused(GOOD "null\n", "DATA01", "2:1", "null");
    check_refused("{\"promt\":\"a\",\"completion\":\"b\"}", "DATA02", "1:1", "'promt'");
    check_refused(GOOD "{\"prompt\":\"a\",\"compeltion\":\"b\"}", "DATA02", "2:1",
                  "compeltion");
    check_refused("{\"message\":[]}", "DATA02", "1:1",
                  "'messages' is missing; 'message'");
    check_refused("{\"foo\":1}", "DATA02", "1:1", "no known fields");
    check_refused(GOOD "{\"prompt\":7,\"completion\":\"b\"}", "DATA03", "2:1",
                  "'prompt': expected a string, found a number");
    check_refused(GOOD "{\"prompt\":\"a\",\"completion\":null}", "DATA03", "2:1",
                  "found null");
    check_refused("{\"text\":[]}", "DATA03", "1:1", "found an array");
}

static void d01_bad_lines_may_be_skipped_up_to_a_number(void **state)
{
    static const char text[] = GOOD "{\"prompt\":\n" GOOD "[]\n" GOOD;
    struct corpus_options o = {.skip_bad = 2};
    struct corpus *c = open_with(text, f.chat, &o);
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(corpus_count(c), 3);
    assert_int_equal(corpus_stats(c)->skipped_bad, 2);
    assert_int_equal(corpus_stats(c)->rows, 5);
    assert_int_equal(corpus_at(c, 2)->row, 5);
    corpus_close(c);
    o.skip_bad = 1;
    assert_error(corpus_open(&c, f.path, f.tok, f.chat, &o, &err), ARTEL_EFORMAT, err,
                 "DATA11");
    assert_string_equal(err.where, "4:1");
}

static void d04_d11_d12_nothing_to_learn_from_is_refused(void **state)
{
    const struct corpus_options o = {.cutoff_len = 8};
    struct corpus *c;
    struct artel_error err = {0};

    (void)state;
    check_refused("", "DATA04", "", "no examples");
    check_refused("\n\n  \r\n", "DATA04", "", "no examples");
    check_refused("{\"prompt\":\"a\",\"completion\":\" \"}\n", "DATA08", "",
                  "1 with an empty");
    put_bytes(GOOD, strlen(GOOD));
    assert_error(corpus_open(&c, f.path, f.tok, f.chat, &o, &err), ARTEL_EFORMAT, err,
                 "DATA08");
    assert_non_null(strstr(err.reason, "1 longer than cutoff_len 8"));
}

static void d05_harmless_variants_are_read(void **state)
{
    struct corpus *c =
        open_text("\xef\xbb\xbf" GOOD "\r\n\n{\"prompt\":\"a\",\"completion\":"
                  "\"b\"}\r\n   \n{\"prompt\":\"c\",\"completion\":\"d\"}");

    (void)state;
    assert_int_equal(corpus_count(c), 3);
    assert_int_equal(corpus_at(c, 1)->row, 4);
    assert_int_equal(corpus_at(c, 2)->row, 6);
    corpus_close(c);
}

static void d06_other_kinds_of_files_are_named(void **state)
{
    const struct {
        const char *begin;
        size_t n;
        const char *says;
    } rows[] = {
        {"\xff\xfe{\0", 4, "UTF-16"},
        {"\x1f\x8b\x08\0", 4, "gzip"},
        {"PK\x03\x04", 4, "zip"},
        {"PAR1\x15", 5, "Parquet"},
        {"\x7f"
         "ELF\0\0",
         6, "binary"},
        {"prompt,completion\na,b\n", 22, "CSV"},
    };
    const struct corpus_options o = {0};
    struct corpus *c;
    struct artel_error err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        put_bytes(rows[i].begin, rows[i].n);
        assert_error(corpus_open(&c, f.path, f.tok, f.chat, &o, &err), ARTEL_EFORMAT,
                     err, "DATA05");
        if (!strstr(err.reason, rows[i].says))
            fail_msg("'%s' does not say '%s'", err.reason, rows[i].says);
    }
}

static void d07_bytes_that_are_no_text_are_refused(void **state)
{
    (void)state;
    check_refused(GOOD "{\"prompt\":\"a\xff\",\"completion\":\"b\"}", "JSON01", "2:13",
                  "0xFF");
    check_refused(GOOD "{\"prompt\":\"a\001\",\"completion\":\"b\"}", "JSON01", "2:13",
                  "");
}

static void d14_conversations_that_cannot_be_are_refused(void **state)
{
    static const char *const rows[][2] = {
        {"[]", "empty"},
        {"[{\"role\":\"usr\",\"content\":\"a\"}]", "turn 1: unknown role usr"},
        {"[{\"role\":\"user\",\"content\":null}]",
         "turn 1: 'content': expected a string"},
        {"[{\"role\":\"user\",\"content\":\"a\"}]", "no answer turn"},
        {"[{\"role\":\"user\"}]", "found nothing"},
        {"[{\"content\":\"a\"}]", "'role': expected a string"},
        {"[5]", "turn 1: expected an object"},
        {"[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"system\",\"content\":"
         "\"b\"}]",
         "turn 2: a second system turn"},
        {"[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":"
         "\"b\"},"
         "{\"role\":\"user\",\"content\":\"c\"}]",
         "turn 3: the conversation does not end"},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]", "no text"},
    };
    char text[512];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        snprintf(text, sizeof(text), "\n{\"messages\":%s}\n", rows[i][0]);
        check_refused(text, "DATA06", "2:1", rows[i][1]);
    }
}

static void d17_what_is_no_readable_file_is_an_io_error(void **state)
{
    const struct corpus_options o = {0};
    struct corpus *c;
    struct artel_error err = {0};
    char fifo[96];

    (void)state;
    assert_int_equal(corpus_open(&c, f.folder, f.tok, f.chat, &o, &err), ARTEL_EIO);
    snprintf(fifo, sizeof(fifo), "%s/fifo", f.folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(corpus_open(&c, fifo, f.tok, f.chat, &o, &err), ARTEL_EIO);
    unlink(fifo);
    assert_int_equal(corpus_open(&c, fifo, f.tok, f.chat, &o, &err), ARTEL_EIO);
}

static void d20_deep_fields_are_refused(void **state)
{
    char *text = malloc(210000);
    char *at = text + sprintf(text, "%s",
                              GOOD "{\"prompt\":\"a\",\"completion\":\"b\",\"x\":");

    (void)state;
    memset(at, '[', 100000);
    memset(at + 100000, ']', 100000);
    strcpy(at + 200000, "}\n");
    check_refused(text, "JSON01", "2:99", "");
    free(text);
}

static void d21_ids_out_of_range_are_refused(void **state)
{
    struct corpus *c =
        open_text("{\"input_ids\":[5,6,7,8],\"labels\":[-100,-100,7,8]}\n");

    (void)state;
    assert_int_equal(corpus_at(c, 0)->n_prompt, 2);
    assert_int_equal(corpus_at(c, 0)->n_loss, 2);
    corpus_close(c);
    check_refused("\n{\"input_ids\":[1,-1]}\n", "DATA09", "2:1", "input_ids[1]");
    check_refused("{\"input_ids\":[320]}\n", "DATA09", "1:1", "input_ids[0]");
    check_refused("{\"input_ids\":[1,2],\"labels\":[-100,3]}\n", "DATA09", "1:1",
                  "labels[1]");
}

static void d22_overlap_is_counted(void **state)
{
    struct corpus *a = open_text(GOOD "{\"prompt\":\"c\",\"completion\":\"d\"}\n");
    struct corpus *b = open_text(GOOD "{\"prompt\":\"e\",\"completion\":\"f\"}\n");

    (void)state;
    assert_int_equal(corpus_overlap(a, b), 1);
    corpus_close(a);
    corpus_close(b);
}

static void d23_awkward_names_work(void **state)
{
    const struct corpus_options o = {0};
    struct corpus *c;
    struct artel_error err = {0};
    char path[128];

    (void)state;
    snprintf(path, sizeof(path), "%s/a b\n\xff.jsonl", f.folder);
    put_bytes(GOOD, strlen(GOOD));
    assert_int_equal(rename(f.path, path), 0);
    assert_int_equal(corpus_open(&c, path, f.tok, f.chat, &o, &err), 0);
    corpus_close(c);
    unlink(path);
    put_bytes("{", 1);
    assert_int_equal(rename(f.path, path), 0);
    assert_int_equal(corpus_open(&c, path, f.tok, f.chat, &o, &err), ARTEL_EFORMAT);
    assert_non_null(strstr(err.file, "a b\\x0A\\xFF.jsonl"));
    unlink(path);
}

static void only_the_first_rows_are_read(void **state)
{
    const struct corpus_options o = {.max_rows = 2, .domain = 7};
    struct corpus *c = open_with(GOOD GOOD GOOD "broken\n", f.chat, &o);

    (void)state;
    assert_int_equal(corpus_count(c), 2);
    assert_int_equal(corpus_at(c, 1)->domain, 7);
    corpus_close(c);
}

static void arrays_that_break_off_are_refused(void **state)
{
    (void)state;
    snprintf(f.path, sizeof(f.path), "%s/d.json", f.folder);
    check_refused("[{\"prompt\":\"a\",\"completion\":\"b\"}\n", "JSON01", "2:1", "");
    check_refused("[{\"prompt\":\"a\",\"completion\":\"b\"}] x", "JSON01", "1:35", "");
    check_refused("[{\"prompt\":\"a\",\"completion\":\"b\"},\n5]", "DATA01", "2:1",
                  "a number");
    check_refused("[]", "DATA04", "", "no examples");
    unlink(f.path);
    snprintf(f.path, sizeof(f.path), "%s/d.jsonl", f.folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(d01_d02_d03_a_bad_line_is_named),
        cmocka_unit_test(d01_bad_lines_may_be_skipped_up_to_a_number),
        cmocka_unit_test(d04_d11_d12_nothing_to_learn_from_is_refused),
        cmocka_unit_test(d05_harmless_variants_are_read),
        cmocka_unit_test(d06_other_kinds_of_files_are_named),
        cmocka_unit_test(d07_bytes_that_are_no_text_are_refused),
        cmocka_unit_test(d14_conversations_that_cannot_be_are_refused),
        cmocka_unit_test(d17_what_is_no_readable_file_is_an_io_error),
        cmocka_unit_test(d20_deep_fields_are_refused),
        cmocka_unit_test(d21_ids_out_of_range_are_refused),
        cmocka_unit_test(d22_overlap_is_counted),
        cmocka_unit_test(d23_awkward_names_work),
        cmocka_unit_test(only_the_first_rows_are_read),
        cmocka_unit_test(arrays_that_break_off_are_refused),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
