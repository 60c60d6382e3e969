/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Row R20: the n-th allocation fails, once and from then on, while adapters, mixtures and
 * checkpoints are written and read. The answer is "a limit was reached" or the work done;
 * nothing is kept (the leak check sees it), and afterwards all of it works.
 */
#include "faults/alloc_faults.h"
#include "save/checkpoint.h"
#include "unit/save/mixture_run.h"

int __wrap_fsync(int fd);

/* The disk is not under test. */
int __wrap_fsync(int fd)
{
    (void)fd;
    return 0;
}

/* What every piece of work gets. */
struct work {
    struct run *run;
    struct expert *expert;
    struct mixture_file *file;
    char *folder, *stage;
};

static int write_adapter(struct work *w, struct artel_error *err)
{
    return adapter_write(w->folder, w->expert, &w->run->base.weights.config, NULL, NULL,
                         err);
}

static int read_adapter(struct work *w, struct artel_error *err)
{
    struct expert e;
    const int rc = adapter_read(&e, "law", w->folder, &w->run->base.model, false, err);

    expert_release(&e);
    return rc;
}

static int write_mixture(struct work *w, struct artel_error *err)
{
    return mixture_file_write(w->file, err);
}

static int read_mixture(struct work *w, struct artel_error *err)
{
    struct mixture_file f;
    const int rc =
        mixture_file_open(&f, w->run->folder, &w->run->base.model, false, err);

    mixture_file_release(&f);
    return rc;
}

static int write_checkpoint(struct work *w, struct artel_error *err)
{
    static const float numbers[4];
    const struct tensor t = {.name = "router.m",
                             .dtype = DTYPE_F32,
                             .n_dims = 1,
                             .shape = {4},
                             .data = numbers,
                             .bytes = sizeof(numbers)};
    json_t *state = json_pack("{s:i}", "row", 3);
    const int rc = state ? checkpoint_write(w->stage, 7, &t, 1, state, 1, err)
                         : error_nomem(err, 0);

    json_decref(state);
    return rc;
}

static int read_checkpoint(struct work *w, struct artel_error *err)
{
    struct checkpoint c;
    const int rc = checkpoint_newest(&c, w->stage, err);

    checkpoint_release(&c);
    if (rc == 0)
        fail_msg("the checkpoint is not seen");
    return rc < 0 ? rc : 0;
}

static int (*const works[])(struct work *, struct artel_error *) = {
    write_adapter, read_adapter,     write_mixture,
    read_mixture,  write_checkpoint, read_checkpoint,
};

static void run_with_failures(struct work *w, size_t i)
{
    for (int sticky = 0; sticky < 2; sticky++)
        for (allocation.fail_at = 0;; allocation.fail_at++) {
            struct artel_error err = {0};
            int rc;

            allocation.for_good = sticky;
            allocation.seen = 0;
            allocation.armed = true;
            rc = works[i](w, &err);
            allocation.armed = false;
            if (rc != 0 && rc != ARTEL_ELIMIT)
                fail_msg("work %zu, allocation %zu: %d %s: %s", i, allocation.fail_at,
                         rc, err.code, err.reason);
            if (rc < 0)
                assert_int_equal(err.exit, 5);
            if (allocation.seen <= allocation.fail_at)
                break;
            assert_true(allocation.fail_at < 5000);
            if (rc < 0 && works[i](w, &err) < 0)
                fail_msg("work %zu does not recover from allocation %zu: %s", i,
                         allocation.fail_at, err.reason);
        }
}

static void R20_a_failed_allocation_is_a_clean_error(void **state)
{
    struct work w = {.run = run_open("moa")};
    struct mixture_file f;

    (void)state;
    open_ok(w.run, &f, w.run->folder);
    w.file = &f;
    w.expert = &f.mixture.experts[0];
    w.folder = path_join(w.run->scratch, "adapter");
    w.stage = path_join(w.run->scratch, "stage");
    for (size_t i = 0; i < sizeof(works) / sizeof(works[0]); i++)
        run_with_failures(&w, i);
    mixture_file_release(&f);
    free(w.folder);
    free(w.stage);
    run_close(w.run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(R20_a_failed_allocation_is_a_clean_error),
    };

    json_set_alloc_funcs(__wrap_malloc, free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
