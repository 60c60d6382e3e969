/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call of writing a mixture anew fails in turn: the mixture before is there, to the
 * bit, or the new one is; never routers of one with the description of the other.
 */
#include "faults/io_faults.h"
#include "unit/save/mixture_run.h"

/* First router weight of the mixture on the disk, which must open. */
static float first_weight(struct run *r)
{
    struct mixture_file f;
    float x;

    open_ok(r, &f, r->folder);
    x = f.mixture.router_params[0];
    for (size_t i = 1; i < f.mixture.n_router_params; i++)
        assert_near(f.mixture.router_params[i], x, 0.0);
    mixture_file_release(&f);
    return x;
}

static int write_all(struct run *r, float x)
{
    struct artel_error err;
    struct mixture_file f;
    int rc;

    fault.armed = false;
    open_ok(r, &f, r->folder);
    for (size_t i = 0; i < f.mixture.n_router_params; i++)
        f.mixture.router_params[i] = x;
    fault.seen = 0;
    fault.armed = true;
    rc = mixture_file_write(&f, &err);
    fault.armed = false;
    mixture_file_release(&f);
    return rc;
}

/* Twice without luck, so that the second write finds what the first left behind. */
static bool rewrite_with_fault(struct run *r)
{
    const enum call call = fault.call;
    const size_t nth = fault.nth;
    bool reached = false;

    fault.nth = 0; /* none */
    fault.sticky = false;
    assert_int_equal(write_all(r, 1.0f), 0);
    for (int times = 0; times < 2; times++) {
        const float before = first_weight(r), new = 2.0f + (float)times;
        float found;
        int rc;

        fault.call = call;
        fault.nth = nth;
        fault.sticky = true;
        rc = write_all(r, new);
        reached = reached || fault.seen >= nth;
        found = first_weight(r);
        if (rc == 0 || found != before)
            assert_near(found, new, 0.0);
    }
    fault.nth = 0;
    fault.sticky = false;
    assert_int_equal(write_all(r, 9.0f), 0);
    assert_near(first_weight(r), 9.0, 0.0);
    return reached;
}

static void R05_a_failed_write_leaves_the_mixture_before(void **state)
{
    struct run *r = run_open("moa");

    (void)state;
    fault.number = ENOSPC;
    for (int call = 0; call < N_CALLS; call++)
        for (size_t nth = 1;; nth++) {
            fault.call = (enum call)call;
            fault.nth = nth;
            if (!rewrite_with_fault(r))
                break;
            assert_true(nth < 100);
        }
    run_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(R05_a_failed_write_leaves_the_mixture_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
