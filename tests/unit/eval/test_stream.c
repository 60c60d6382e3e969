/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "eval/stream.h"

#include <stdio.h>
#include <stdlib.h>

/* Feeds BYTES in pieces of SIZE; what came out in all goes to OUT. */
static void feed(char *out, size_t room, const char *bytes, size_t n, size_t size,
                 const char *const *stop, size_t n_stop)
{
    struct stream s;
    size_t used = 0, k;
    const char *text;

    stream_init(&s, stop, n_stop);
    for (size_t i = 0; i < n && !s.stopped; i += size) {
        assert_int_equal(stream_add(&s, bytes + i, n - i < size ? n - i : size, NULL),
                         0);
        text = stream_take(&s, &k);
        assert_true(used + k < room);
        memcpy(out + used, text, k);
        used += k;
    }
    assert_int_equal(stream_finish(&s, NULL), 0);
    text = stream_take(&s, &k);
    memcpy(out + used, text, k);
    out[used + k] = '\0';
    assert_string_equal(out, s.text);
    stream_release(&s);
}

static void check(const char *bytes, const char *want, const char *stop)
{
    char out[256];

    for (size_t size = 1; size < 9; size++) {
        feed(out, sizeof(out), bytes, strlen(bytes), size, &stop, stop ? 1 : 0);
        assert_string_equal(out, want);
    }
}

static void stop_string_is_found_across_pieces_and_left_out(void **state)
{
    (void)state;
    check("hello END world", "hello ", "END");
    check("hello EN world", "hello EN world", "END");
    check("EEND", "E", "END");
    check("aab aaab", "aab ", "aaab");
    check("END", "", "END");
    check("half EN", "half EN", "END");
}

static void possible_start_of_a_stop_string_is_held_back(void **state)
{
    const char *const stop[] = {"###", "\nUser:"};
    struct stream s;
    size_t n;

    (void)state;
    stream_init(&s, stop, 2);
    stream_add(&s, "yes\nUs", 6, NULL);
    stream_take(&s, &n);
    assert_int_equal(n, 3);
    stream_add(&s, "e", 1, NULL);
    stream_take(&s, &n);
    assert_int_equal(n, 0);
    stream_add(&s, "d", 1, NULL);
    assert_memory_equal(stream_take(&s, &n), "\nUsed", 5);
    assert_int_equal(n, 5);
    stream_add(&s, "#", 1, NULL);
    stream_add(&s, "##", 2, NULL);
    assert_true(s.stopped);
    stream_take(&s, &n);
    assert_int_equal(n, 0);
    assert_string_equal(s.text, "yes\nUsed");
    stream_release(&s);
}

static void earliest_of_several_stop_strings_wins(void **state)
{
    const char *const stop[] = {"zzz", "bc", "abc"};
    char out[64];

    (void)state;
    feed(out, sizeof(out), "xxabczzz", 8, 8, stop, 3);
    assert_string_equal(out, "xx");
}

static void characters_come_whole_and_broken_ones_are_replaced(void **state)
{
    struct stream s;
    size_t n;

    (void)state;
    check("\xf0\x9f\x98\x80!", "\xf0\x9f\x98\x80!", NULL);
    check("a\xff"
          "b",
          "a\xef\xbf\xbd"
          "b",
          NULL);
    check("\xe2\x82", "\xef\xbf\xbd", NULL);
    check("\xe2\x82z", "\xef\xbf\xbdz", NULL);
    check("\xe2\xc3\xa9", "\xef\xbf\xbd\xc3\xa9", NULL);
    check("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", NULL);
    stream_init(&s, NULL, 0);
    stream_add(&s, "\xf0\x9f\x98", 3, NULL);
    stream_take(&s, &n);
    assert_int_equal(n, 0);
    stream_add(&s, "\x80", 1, NULL);
    stream_take(&s, &n);
    assert_int_equal(n, 4);
    stream_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_string_is_found_across_pieces_and_left_out),
        cmocka_unit_test(possible_start_of_a_stop_string_is_held_back),
        cmocka_unit_test(earliest_of_several_stop_strings_wins),
        cmocka_unit_test(characters_come_whole_and_broken_ones_are_replaced),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
