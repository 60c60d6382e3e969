/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is odd about an adapter but no reason to refuse it is said.
 */
#include "base/log.h"
#include "unit/save/adapter_bench.h"

/* Standard error of FN as text; the caller frees. */
static char *warnings_of(void (*fn)(struct bench *), struct bench *b)
{
    char *path = path_join(b->scratch, "stderr"), *text = calloc(1, 4096);
    const int kept = dup(2);
    FILE *f = fopen(path, "w+");

    assert_true(f && text && kept >= 0 && dup2(fileno(f), 2) == 2);
    log_set_level(LOG_WARN);
    fn(b);
    log_set_level(LOG_QUIET);
    fflush(stderr);
    dup2(kept, 2);
    close(kept);
    rewind(f);
    (void)!fread(text, 1, 4095, f);
    fclose(f);
    free(path);
    return text;
}

static void read_and_drop(struct bench *b)
{
    struct expert e;

    read_ok(b, &e);
    expert_release(&e);
}

static void A04_alpha_zero_is_read_with_a_warning(void **state)
{
    struct bench *b = bench_open(false);
    char *text;

    (void)state;
    toy_configure(&b->toy, "{\"lora_alpha\": 0}");
    toy_adapter_write(&b->toy, b->folder);
    text = warnings_of(read_and_drop, b);
    assert_non_null(strstr(text, "lora_alpha is 0"));
    free(text);
    bench_close(b);
}

static void A11_enormous_values_are_read_with_a_warning(void **state)
{
    struct bench *b = bench_open(false);
    char *text;

    (void)state;
    b->toy.data[4].f32[3] = 1e38f;
    toy_adapter_write(&b->toy, b->folder);
    text = warnings_of(read_and_drop, b);
    assert_non_null(strstr(text, "layers.1.self_attn.q_proj.lora_A.weight: enormous"));
    assert_non_null(strstr(text, "norm 1e+38"));
    free(text);
    bench_close(b);
}

static void A14_another_name_of_the_base_is_a_warning(void **state)
{
    struct bench *b = bench_open(false);
    char *text;

    (void)state;
    toy_configure(&b->toy, "{\"base_model_name_or_path\": \"org/other-7b\"}");
    toy_adapter_write(&b->toy, b->folder);
    text = warnings_of(read_and_drop, b);
    assert_non_null(strstr(text, "other-7b"));
    free(text);
    toy_configure(&b->toy, "{\"base_model_name_or_path\": \"org/toy\"}");
    toy_adapter_write(&b->toy, b->folder);
    text = warnings_of(read_and_drop, b);
    assert_string_equal(text, "");
    free(text);
    bench_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(A04_alpha_zero_is_read_with_a_warning),
        cmocka_unit_test(A11_enormous_values_are_read_with_a_warning),
        cmocka_unit_test(A14_another_name_of_the_base_is_a_warning),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
