/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing in place of what was there, folders, leftovers; lines and digests.
 */
#include "check.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "files/digest.h"
#include "files/lines.h"
#include "files/write.h"

static char folder[] = "/tmp/artel-write-XXXXXX";

static char *in_folder(const char *name)
{
    char *path = path_join(folder, name);

    assert_non_null(path);
    return path;
}

static void assert_content(const char *path, const char *want)
{
    char got[64] = {0};
    FILE *f = fopen(path, "rb");

    assert_non_null(f);
    assert_int_equal(fread(got, 1, sizeof(got) - 1, f), strlen(want));
    fclose(f);
    assert_string_equal(got, want);
}

static size_t entries(void)
{
    DIR *d = opendir(folder);
    size_t n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void R36_a_file_is_replaced_whole_or_not_at_all(void **state)
{
    char *path = in_folder("x");
    struct artel_error err = {0};
    struct atomic_file f;

    (void)state;
    assert_int_equal(write_file(path, "old", 3, &err), 0);
    assert_int_equal(atomic_open(&f, path, &err), 0);
    fputs("new and longer", f.stream);
    assert_content(path, "old");
    assert_int_equal(entries(), 2); /* the temporary lies beside its target */
    atomic_abort(&f);
    assert_content(path, "old");
    assert_int_equal(entries(), 1);
    assert_int_equal(atomic_open(&f, path, &err), 0);
    fputs("new", f.stream);
    assert_int_equal(atomic_commit(&f, &err), 0);
    assert_content(path, "new");
    assert_int_equal(write_file(path, NULL, 0, &err), 0);
    assert_content(path, "");
    assert_int_equal(entries(), 1);
    unlink(path);
    free(path);
}

static void R37_a_link_at_the_target_is_replaced_not_followed(void **state)
{
    char *precious = in_folder("precious"), *link = in_folder("link");
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(write_file(precious, "keep", 4, &err), 0);
    assert_int_equal(symlink(precious, link), 0);
    assert_int_equal(write_file(link, "new", 3, &err), 0);
    assert_content(precious, "keep");
    assert_content(link, "new");
    unlink(precious);
    unlink(link);
    free(precious);
    free(link);
}

static void a_missing_folder_or_a_folder_at_the_target_is_refused(void **state)
{
    char *lost = in_folder("no/such"), *taken = in_folder("taken");
    struct artel_error err = {0};

    (void)state;
    assert_error(write_file(lost, "x", 1, &err), ARTEL_EIO, err, "IO01");
    assert_string_equal(err.file, lost);
    assert_int_equal(mkdir(taken, 0777), 0);
    assert_error(write_file(taken, "x", 1, &err), ARTEL_EIO, err, "IO01");
    assert_int_equal(entries(), 1);
    rmdir(taken);
    free(lost);
    free(taken);
}

static void folders_are_made_to_any_depth(void **state)
{
    char *deep = in_folder("a/b//c/"), *file = in_folder("a/f"),
         *under = in_folder("a/f/g");
    struct artel_error err = {0};

    (void)state;
    assert_int_equal(make_folder(deep, &err), 0);
    assert_int_equal(make_folder(deep, &err), 0);
    assert_int_equal(sync_folder(deep, &err), 0);
    assert_int_equal(write_file(file, "", 0, &err), 0);
    assert_error(make_folder(file, &err), ARTEL_EIO, err, "IO03");
    assert_error(make_folder(under, &err), ARTEL_EIO, err, "IO01");
    unlink(file);
    free(deep);
    free(file);
    free(under);
    for (size_t i = 0; i < 3; i++) {
        static const char *const names[] = {"a/b/c", "a/b", "a"};
        char *path = in_folder(names[i]);

        assert_int_equal(rmdir(path), 0);
        free(path);
    }
}

static void R13_leftovers_of_dead_processes_go_others_stay(void **state)
{
    static const char *const names[] = {".x.artel-tmp.999999999", ".x.artel-tmp.1",
                                        "x.artel-tmp.999999999", ".x.artel-tmp.12a",
                                        ".artel-tmp.7.artel-tmp.999999998"};
    struct artel_error err = {0};
    size_t n = 0;

    (void)state;
    for (size_t i = 0; i < 5; i++) {
        char *path = in_folder(names[i]);

        assert_int_equal(write_file(path, "", 0, &err), 0);
        free(path);
    }
    remove_leftovers(folder);
    for (size_t i = 0; i < 5; i++) {
        char *path = in_folder(names[i]);
        const bool there = access(path, F_OK) == 0;

        assert_int_equal(there, i >= 1 && i <= 3);
        n += there;
        unlink(path);
        free(path);
    }
    assert_int_equal(n, 3);
    remove_leftovers("/no/such/folder");
}

static void lines_end_in_any_way(void **state)
{
    static const char *const want[] = {"a", "", "b\rc", " d"};
    const char *content = "\xef\xbb\xbf"
                          "a\r\n\nb\rc\n d";
    char *path = in_folder("lines");
    struct artel_error err = {0};
    struct lines l;
    const char *text;
    size_t n, i = 0;

    (void)state;
    assert_int_equal(write_file(path, content, strlen(content), &err), 0);
    assert_int_equal(lines_open(&l, path, &err), 0);
    for (; lines_next(&l, &text, &n, &err) == 1; i++) {
        assert_int_equal(n, strlen(want[i]));
        assert_memory_equal(text, want[i], n);
        assert_int_equal(l.number, i + 1);
    }
    assert_int_equal(i, 4);
    lines_release(&l);
    assert_int_equal(write_file(path, "", 0, &err), 0);
    assert_int_equal(lines_open(&l, path, &err), 0);
    assert_int_equal(lines_next(&l, &text, &n, &err), 0);
    lines_release(&l);
    unlink(path);
    assert_int_equal(lines_open(&l, path, &err), ARTEL_EIO);
    free(path);
}

static void digests_are_sha_256(void **state)
{
    static const char abc[] =
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    char *path = in_folder("d"), got[DIGEST_SIZE];
    struct artel_error err = {0};
    struct digest *d = digest_new();

    (void)state;
    assert_non_null(d);
    digest_add(d, "a", 1);
    digest_add(d, NULL, 0);
    digest_add(d, "bc", 2);
    digest_finish(d, got);
    assert_string_equal(got, abc);
    digest_bytes(got, "abc", 3);
    assert_string_equal(got, abc);
    assert_int_equal(write_file(path, "abc", 3, &err), 0);
    assert_int_equal(digest_file(got, path, &err), 0);
    assert_string_equal(got, abc);
    unlink(path);
    assert_int_equal(digest_file(got, path, &err), ARTEL_EIO);
    free(path);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(R36_a_file_is_replaced_whole_or_not_at_all),
        cmocka_unit_test(R37_a_link_at_the_target_is_replaced_not_followed),
        cmocka_unit_test(a_missing_folder_or_a_folder_at_the_target_is_refused),
        cmocka_unit_test(folders_are_made_to_any_depth),
        cmocka_unit_test(R13_leftovers_of_dead_processes_go_others_stay),
        cmocka_unit_test(lines_end_in_any_way),
        cmocka_unit_test(digests_are_sha_256),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
