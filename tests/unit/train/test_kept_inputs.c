/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Router inputs on disk: what was written is found by its digest alone, what is damaged
 * is said and gone, and the size is held.
 */
#include "check.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "train/kept_inputs.h"

#define ROWS   40
#define FLOATS 16
#define OF     "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define OTHER  "fedcba98765432100123456789abcdef0123456789abcdef0123456789abcdef"

struct fixture {
    char folder[64];
    struct example rows[ROWS];
    const struct example *list[ROWS];
    int32_t ids[ROWS][4];
    float z[ROWS * FLOATS];
    size_t n_said;
    char said[640];
};

static void hear(void *user, const char *message)
{
    struct fixture *f = user;

    f->n_said++;
    snprintf(f->said, sizeof(f->said), "%s", message);
}

static void open_fixture(struct fixture *f)
{
    *f = (struct fixture){.folder = "/tmp/artel-kept-XXXXXX"};
    assert_non_null(mkdtemp(f->folder));
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t k = 0; k < 4; k++)
            f->ids[i][k] = (int32_t)(i + k);
        f->rows[i] = (struct example){.ids = f->ids[i], .n = 4, .pool_n = 3};
        f->list[i] = &f->rows[i];
    }
    for (size_t i = 0; i < ROWS * FLOATS; i++)
        f->z[i] = (float)i / 7.0f;
}

/* The name of the only file there is; its size, 0 where there is none. */
static size_t only_file(char *path, size_t size, const struct fixture *f)
{
    DIR *dir = opendir(f->folder);
    const struct dirent *d;
    struct stat st = {0};

    assert_non_null(dir);
    while ((d = readdir(dir)))
        if (*d->d_name != '.') {
            snprintf(path, size, "%s/%s", f->folder, d->d_name);
            assert_int_equal(stat(path, &st), 0);
        }
    closedir(dir);
    return (size_t)st.st_size;
}

static size_t bytes_there(const struct fixture *f, size_t *n_files)
{
    DIR *dir = opendir(f->folder);
    const struct dirent *d;
    size_t bytes = 0;

    *n_files = 0;
    assert_non_null(dir);
    while ((d = readdir(dir))) {
        char path[400];
        struct stat st;

        if (*d->d_name == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", f->folder, d->d_name);
        assert_int_equal(stat(path, &st), 0);
        bytes += (size_t)st.st_size;
        ++*n_files;
    }
    closedir(dir);
    return bytes;
}

static void close_fixture(struct fixture *f)
{
    DIR *dir = opendir(f->folder);
    const struct dirent *d;

    while ((d = readdir(dir))) {
        char path[400];

        snprintf(path, sizeof(path), "%s/%s", f->folder, d->d_name);
        unlink(path);
    }
    closedir(dir);
    rmdir(f->folder);
}

static struct kept_inputs *look(struct fixture *f, const char *of, const char *own,
                                uint64_t limit)
{
    const struct kept_options o = {.folder = f->folder,
                                   .of = of,
                                   .floats = FLOATS,
                                   .limit_bytes = limit,
                                   .warn = hear,
                                   .user = f};
    struct kept_inputs *k;

    assert_int_equal(kept_inputs_open(&k, &o, NULL), 0);
    for (size_t i = 0; i < ROWS; i++)
        assert_int_equal(kept_inputs_name(k, &f->rows[i], 4, own, NULL), 0);
    assert_int_equal(kept_inputs_named(k), ROWS);
    return k;
}

static size_t found(struct fixture *f, const char *of, const char *own)
{
    struct kept_inputs *k = look(f, of, own, 1 << 20);
    const size_t n = kept_inputs_found(k);
    size_t counted = 0;

    for (size_t i = 0; i < ROWS; i++) {
        const float *z = kept_inputs_find(k, &f->rows[i]);

        counted += z != NULL;
        if (z)
            assert_memory_equal(z, f->z + i * FLOATS, FLOATS * sizeof(float));
    }
    assert_int_equal(counted, n);
    kept_inputs_close(k);
    return n;
}

/* Rows FIRST to END - 1 into a file. */
static void put(struct fixture *f, const char *of, size_t first, size_t end,
                uint64_t limit)
{
    struct kept_inputs *k = look(f, of, "base", limit);

    kept_inputs_write(k, f->list + first, f->z + first * FLOATS, end - first);
    kept_inputs_close(k);
}

static void what_was_written_is_found_by_all_it_depends_on(void **state)
{
    struct fixture f;

    (void)state;
    open_fixture(&f);
    assert_int_equal(found(&f, OF, "base"), 0);
    put(&f, OF, 0, 10, 1 << 20);
    put(&f, OF, 25, ROWS, 1 << 20);
    assert_int_equal(found(&f, OF, "base"), 10 + ROWS - 25);
    assert_int_equal(found(&f, OF, "an expert"), 0);
    assert_int_equal(found(&f, OTHER, "base"), 0);
    f.ids[3][1]++;
    f.rows[4].pool_n--;
    assert_int_equal(found(&f, OF, "base"), 8 + ROWS - 25);
    assert_int_equal(f.n_said, 0);
    close_fixture(&f);
}

/* Change one byte at AT, or cut there. */
static void damage(const struct fixture *f, long at, bool cut)
{
    char path[400];
    FILE *file;
    int c;

    assert_true(only_file(path, sizeof(path), f) > (size_t)at);
    if (cut) {
        assert_int_equal(truncate(path, at), 0);
        return;
    }
    file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    c = fgetc(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    fputc(c ^ 1, file);
    assert_int_equal(fclose(file), 0);
}

static void a_damaged_file_is_said_once_and_goes(void **state)
{
    static const struct {
        long at;
        bool cut;
    } cases[] = {{5, false}, {1500, false}, {3000, false}, {1500, true}, {0, true}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        char path[400];

        open_fixture(&f);
        put(&f, OF, 0, ROWS, 1 << 20);
        damage(&f, cases[i].at, cases[i].cut);
        assert_int_equal(found(&f, OF, "base"), 0);
        assert_int_equal(f.n_said, 1);
        assert_non_null(strstr(f.said, "computed again"));
        assert_int_equal(only_file(path, sizeof(path), &f), 0);
        put(&f, OF, 0, ROWS, 1 << 20);
        assert_int_equal(found(&f, OF, "base"), ROWS);
        assert_int_equal(f.n_said, 1);
        close_fixture(&f);
    }
}

/* A file that was renamed to what another is called. */
static void a_file_of_something_else_is_not_taken(void **state)
{
    struct fixture f;
    char path[400], to[400];

    (void)state;
    open_fixture(&f);
    put(&f, OTHER, 0, ROWS, 1 << 20);
    assert_true(only_file(path, sizeof(path), &f) > 0);
    snprintf(to, sizeof(to), "%s/%.16s-0007.safetensors", f.folder, OF);
    assert_int_equal(rename(path, to), 0);
    assert_int_equal(found(&f, OF, "base"), 0);
    assert_int_equal(f.n_said, 1);
    close_fixture(&f);
}

static void the_size_is_held(void **state)
{
    const size_t limit = 2500;
    struct fixture f;
    size_t n_files, there;

    (void)state;
    open_fixture(&f);
    put(&f, OF, 0, ROWS, limit);
    assert_int_equal(f.n_said, 1);
    assert_non_null(strstr(f.said, "router.cache_mib"));
    assert_true(bytes_there(&f, &n_files) <= limit);
    there = found(&f, OF, "base");
    assert_true(there > 0 && there < ROWS);
    /* What nobody here has use for gives way, what is in use does not. */
    put(&f, OTHER, 0, there, limit);
    assert_int_equal(f.n_said, 1);
    assert_int_equal(found(&f, OF, "base"), 0);
    assert_int_equal(found(&f, OTHER, "base"), there);
    put(&f, OTHER, there, ROWS, limit);
    assert_int_equal(f.n_said, 2);
    assert_int_equal(found(&f, OTHER, "base"), there);
    assert_true(bytes_there(&f, &n_files) <= limit);
    assert_int_equal(n_files, 1);
    close_fixture(&f);
}

static void a_folder_that_cannot_be_is_said(void **state)
{
    struct fixture f;
    struct kept_inputs *k;
    struct kept_options o = {.folder = "/dev/null/inputs",
                             .of = OF,
                             .floats = FLOATS,
                             .limit_bytes = 1 << 20,
                             .warn = hear,
                             .user = &f};

    (void)state;
    open_fixture(&f);
    assert_int_equal(kept_inputs_open(&k, &o, NULL), 0);
    for (size_t i = 0; i < ROWS; i++)
        assert_int_equal(kept_inputs_name(k, &f.rows[i], 4, "base", NULL), 0);
    kept_inputs_write(k, f.list, f.z, ROWS);
    kept_inputs_write(k, f.list, f.z, ROWS);
    kept_inputs_close(k);
    assert_int_equal(f.n_said, 1);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_found_by_all_it_depends_on),
        cmocka_unit_test(a_damaged_file_is_said_once_and_goes),
        cmocka_unit_test(a_file_of_something_else_is_not_taken),
        cmocka_unit_test(the_size_is_held),
        cmocka_unit_test(a_folder_that_cannot_be_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
