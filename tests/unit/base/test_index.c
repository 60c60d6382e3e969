/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "base/error.h"
#include "base/index.h"

/* Keys that differ in upper bits alone, and in lower ones alone. */
static uint64_t key(size_t i)
{
    return i % 2 ? (uint64_t)i << 40 : (uint64_t)i;
}

static void what_is_put_is_found(void **state)
{
    struct index x = {0};

    (void)state;
    assert_int_equal(index_get(&x, 0), INDEX_NONE);
    for (size_t i = 0; i < 5000; i++) {
        assert_int_equal(index_room(&x, i + 1, NULL), 0);
        assert_true(x.n_slots >= 2 * (i + 1));
        assert_int_equal(index_get(&x, key(i)), INDEX_NONE);
        index_put(&x, key(i), (uint32_t)i);
    }
    assert_int_equal(x.n, 5000);
    for (size_t i = 0; i < 5000; i++)
        assert_int_equal(index_get(&x, key(i)), i);
    index_put(&x, key(7), 70);
    assert_int_equal(index_get(&x, key(7)), 70);
    assert_int_equal(x.n, 5000);
    index_release(&x);
    assert_int_equal(index_get(&x, key(7)), INDEX_NONE);
}

static void room_comes_from_an_arena_too(void **state)
{
    struct artel_error err;
    struct arena a = {0};
    struct index x;

    (void)state;
    index_carve(&x, &a, 100);
    assert_int_equal(arena_init(&a, a.used, &err), 0);
    index_carve(&x, &a, 100);
    for (size_t i = 0; i < 100; i++)
        index_put(&x, index_key(a.base + i), (uint32_t)i);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(index_get(&x, index_key(a.base + i)), i);
    assert_int_equal(index_get(&x, index_key(a.base + 100)), INDEX_NONE);
    arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_found),
        cmocka_unit_test(room_comes_from_an_arena_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
