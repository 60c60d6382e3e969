/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every test needs: cmocka, and comparisons that NaN cannot slip through.
 */
#ifndef ARTEL_TESTS_CHECK_H
#define ARTEL_TESTS_CHECK_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* cmocka 1.1's assert_float_equal() lets NaN pass, so the comparison is our own. */
#define assert_near(got, want, tol)                                                    \
    do {                                                                               \
        const double got_ = (double)(got), want_ = (double)(want);                     \
        if (!(fabs(got_ - want_) <= (double)(tol)))                                    \
            fail_msg("%s is %.9g, expected %.9g within %.3g", #got, got_, want_,       \
                     (double)(tol));                                                   \
    } while (0)

/* An error with this code must have come back. */
#define assert_error(rc, want_rc, err, want_code)                                      \
    do {                                                                               \
        assert_int_equal((rc), (want_rc));                                             \
        assert_string_equal((err).code, (want_code));                                  \
    } while (0)

#endif
