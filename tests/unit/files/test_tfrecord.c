/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums and framing of TensorFlow's records, against values of its own writer.
 */
#include "check.h"

#include <string.h>

#include "files/tfrecord.h"

static void checksums_are_those_of_castagnoli(void **state)
{
    static const char zeros[32];

    (void)state;
    assert_int_equal(crc32c("123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c_masked("123456789", 9), 0xc78ab0e5u);
    assert_int_equal(crc32c(zeros, sizeof(zeros)), 0x8a9136aau);
    assert_int_equal(crc32c("", 0), 0);
}

/* A version event of wall time 1700000000. */
static const unsigned char data[] = "\x09\x00\x00\x00\x40\xfc\x54\xd9\x41\x1a\x0d"
                                    "brain.Event:2";
static const unsigned char record[] = "\x18\x00\x00\x00\x00\x00\x00\x00\xa3\x7f\x4b\x22"
                                      "\x09\x00\x00\x00\x40\xfc\x54\xd9\x41\x1a\x0d"
                                      "brain.Event:2"
                                      "\xec\xed\x8f\x9d";

static void a_record_is_framed_as_tensorflow_does(void **state)
{
    unsigned char got[64];
    FILE *f = fmemopen(got, sizeof(got), "w");

    (void)state;
    assert_non_null(f);
    assert_int_equal(tfrecord_put(f, data, sizeof(data) - 1), 0);
    assert_int_equal(ftell(f), sizeof(record) - 1);
    assert_int_equal(fclose(f), 0);
    assert_memory_equal(got, record, sizeof(record) - 1);
}

static void a_full_disk_is_told(void **state)
{
    unsigned char small[8];
    FILE *f = fmemopen(small, sizeof(small), "w");

    (void)state;
    assert_non_null(f);
    setvbuf(f, NULL, _IONBF, 0);
    assert_int_equal(tfrecord_put(f, data, sizeof(data) - 1), -1);
    fclose(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksums_are_those_of_castagnoli),
        cmocka_unit_test(a_record_is_framed_as_tensorflow_does),
        cmocka_unit_test(a_full_disk_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
