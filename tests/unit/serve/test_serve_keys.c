/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of keys.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "artel.h"
#include "check.h"
#include "serve/serve_keys.h"

static char path[] = "/tmp/artel-keys-XXXXXX";

static int read_keys(struct serve_keys *k, const char *text, size_t n,
                     struct artel_error *err)
{
    FILE *const f = fopen(path, "w");

    assert_non_null(f);
    fwrite(text, 1, n, f);
    fclose(f);
    return serve_keys_init(k, path, err);
}

static void keys_stand_one_a_line(void **state)
{
    static const char text[] = "# who may ask\n\nsk-first-one\r\n  sk-second-one \t\n"
                               "#sk-not-this\nsk-the-last";
    struct artel_error err = {0};
    struct serve_keys k;

    (void)state;
    assert_int_equal(read_keys(&k, text, strlen(text), &err), 0);
    assert_int_equal(k.n, 3);
    assert_string_equal(k.at[0], "sk-first-one");
    assert_string_equal(k.at[1], "sk-second-one");
    assert_string_equal(k.at[2], "sk-the-last");
    serve_keys_release(&k);
    assert_int_equal(serve_keys_init(&k, NULL, &err), 0);
    assert_int_equal(k.n, 0);
}

static void h34_what_is_no_key_is_named_by_its_line(void **state)
{
    static const char *const bad[] = {"sk-first-one\nshort\n",
                                      "sk-first-one\nsk two key\n",
                                      "sk-first-one\nsk-\xc3\xa4-umlaut\n"};
    static char text[4096];
    struct artel_error err;
    struct serve_keys k;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memset(&err, 0, sizeof(err));
        assert_error(read_keys(&k, bad[i], strlen(bad[i]), &err), ARTEL_EFORMAT, err,
                     "SRV02");
        assert_string_equal(err.where, "line 2");
        assert_string_equal(err.file, path);
        assert_null(strstr(err.reason, "sk"));
    }
    memset(text, 'k', 300);
    assert_error(read_keys(&k, text, 300, &err), ARTEL_EFORMAT, err, "SRV02");
    assert_error(read_keys(&k, "# none\n\n", 8, &err), ARTEL_EFORMAT, err, "SRV02");
    assert_error(read_keys(&k, "", 0, &err), ARTEL_EFORMAT, err, "SRV02");
    assert_error(read_keys(&k, "sk-with\0a-nul", 13, &err), ARTEL_EFORMAT, err,
                 "SRV02");
    unlink(path);
    assert_int_equal(serve_keys_init(&k, path, &err), ARTEL_EIO);
    assert_int_equal(serve_keys_init(&k, "/dev/zero", &err), ARTEL_EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_stand_one_a_line),
        cmocka_unit_test(h34_what_is_no_key_is_named_by_its_line),
    };
    const int fd = mkstemp(path);

    if (fd < 0)
        return 1;
    close(fd);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
