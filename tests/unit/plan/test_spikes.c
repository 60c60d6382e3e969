/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steps whose loss stands out are left out where that is asked for (R25).
 */
#include "run_fixture.h"

#include <math.h>

#include "plan/loop_state.h"

static void R25_a_limit_is_told_by_losses_that_are_numbers(void **state)
{
    struct loop_state s;

    (void)state;
    loop_state_init(&s);
    for (size_t i = 0; i < LOOP_RECENT / 2; i++) {
        assert_true(isinf(loop_state_spike_limit(&s, 6)));
        loop_state_note_loss(&s, i % 2 ? 1.9 : 2.1);
        loop_state_note_loss(&s, (double)NAN);
        loop_state_note_loss(&s, HUGE_VAL);
    }
    assert_near(loop_state_spike_limit(&s, 6), 2 + 6 * 1.4826 * 0.1, 1e-9);
    assert_true(isinf(loop_state_spike_limit(&s, 0)));
    /* One spike moves nothing much; a level that stays is the new one. */
    loop_state_note_loss(&s, 200);
    assert_true(loop_state_spike_limit(&s, 6) < 4);
    for (size_t i = 0; i < LOOP_RECENT; i++)
        loop_state_note_loss(&s, 200);
    /* All the same: a hundredth of the median is the least deviation. */
    assert_near(loop_state_spike_limit(&s, 6), 200 + 6 * 2.0, 1e-9);
}

/* a.jsonl: 240 rows of one dialect; b.jsonl: the same, with 4 rows of another after 220. */
static void write_rows(const struct fixture *f)
{
    char command[600];

    write_dialect(f, "a.jsonl", "abcdef", 240, 1);
    write_dialect(f, "strange.jsonl", "QXZJ0189#~", 4, 3);
    snprintf(
        command, sizeof(command),
        "cd %s && (head -220 a.jsonl; cat strange.jsonl; tail -20 a.jsonl) >b.jsonl",
        f->folder);
    assert_int_equal(system(command), 0);
}

#define SPIKY(output, data)                                                            \
    "model: " TOY "\nmethod: single\nlora: {rank: 4, alpha: 8}\noutput: " output       \
    "\ndomains: {one: {train: " data "}}\n"                                            \
    "train: {batch_size: 4, learning_rate: 1e-2, lr_scheduler: constant,\n"            \
    "        warmup_ratio: 0, shuffle: false, save_steps: 5, cutoff_len: 64,\n"        \
    "        precision: fp32, spike_z: 6}\n"

static void R25_a_spike_is_left_out_said_counted_and_resumed(void **state)
{
    static const char *const off[] = {"train.spike_z=0", "output=off"};
    const char *const weights = "experts/one/adapter_model.safetensors";
    struct fixture f;
    char *summary, one[DIGEST_SIZE], other[DIGEST_SIZE];

    (void)state;
    fixture_open(&f);
    write_rows(&f);
    write_text(&f, "without.yaml", SPIKY("without", "a.jsonl"));
    write_text(&f, "with.yaml", SPIKY("with", "b.jsonl"));
    write_text(&f, "parts.yaml", SPIKY("parts", "b.jsonl"));
    assert_int_equal(run(&f, &(struct child){.recipe = "without.yaml"}), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "with.yaml", .notes = "notes"}),
                     0);
    assert_true(said(&f, "notes", "step 56 skipped: loss: "));
    summary = slurp(&f, "with/train/expert-one/stage.json");
    assert_non_null(summary);
    assert_non_null(strstr(summary, "\"spike_steps\": 1"));
    assert_non_null(strstr(summary, "\"steps\": 60"));
    free(summary);
    same_bytes(&f, "without", "with", weights);
    assert_int_equal(run(&f, &(struct child){.recipe = "with.yaml",
                                             .set = off,
                                             .n_set = 2,
                                             .notes = "notes"}),
                     0);
    assert_false(said(&f, "notes", "skipped"));
    digest_of(one, &f, "with/experts/one/adapter_model.safetensors");
    digest_of(other, &f, "off/experts/one/adapter_model.safetensors");
    assert_string_not_equal(one, other);

    for (uint64_t step = 33; step < 56; step += 21)
        assert_int_equal(run(&f, &(struct child){.recipe = "parts.yaml",
                                                 .stop_stage = "expert-one",
                                                 .stop_step = step}),
                         -ARTEL_ESTOPPED);
    assert_int_equal(run(&f, &(struct child){.recipe = "parts.yaml", .notes = "notes"}),
                     0);
    assert_true(said(&f, "notes", "step 56 skipped: loss: "));
    same_bytes(&f, "without", "parts", weights);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(R25_a_limit_is_told_by_losses_that_are_numbers),
        cmocka_unit_test(R25_a_spike_is_left_out_said_counted_and_resumed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
