/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings of moa's second stage, by the weights that a run leaves: what it starts from,
 * whom a row is served by, and what the routers' loss reaches. What these are in formulas
 * is held in train/test_mixture_plain.c; here a recipe's words arrive there.
 */
#include "run_fixture.h"

#include "files/safetensors.h"

#define SET(list) .set = list, .n_set = sizeof(list) / sizeof(list[0])

/* How many numbers of FILE's tensors whose name holds PART are not zero. */
static size_t alive(const struct fixture *f, const char *file, const char *part)
{
    struct safetensors *s;
    struct artel_error err;
    char path[256];
    size_t n = 0, n_tensors = 0;

    path_in(path, sizeof(path), f, file);
    assert_int_equal(safetensors_open(&s, path, &err), 0);
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct tensor *t = safetensors_at(s, i);

        if (!strstr(t->name, part))
            continue;
        assert_int_equal(t->dtype, DTYPE_F32);
        n_tensors++;
        for (size_t k = 0; k < t->bytes / sizeof(float); k++) {
            float x;

            memcpy(&x, (const char *)t->data + k * sizeof(x), sizeof(x));
            n += x != 0.0f;
        }
    }
    assert_true(n_tensors > 0);
    safetensors_close(s);
    return n;
}

static bool same(const struct fixture *f, const char *left, const char *right)
{
    char a[DIGEST_SIZE], b[DIGEST_SIZE];

    digest_of(a, f, left);
    digest_of(b, f, right);
    return !strcmp(a, b);
}

#define WEIGHTS "adapter_model.safetensors"

/* One step of stage 2 whose learning rate is still zero leaves what it starts from. */
static void stage_two_starts_from_stage_one_or_afresh(void **state)
{
    static const char *const read[] = {"method=moa", "train.warmup_steps=1",
                                       "router.max_steps=1", "output=read"};
    static const char *const drawn[] = {"method=moa", "train.warmup_steps=1",
                                        "router.max_steps=1", "output=drawn",
                                        "router.init=fresh"};
    static const char *const names[] = {"one", "two"};
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", SET(read)}), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", SET(drawn)}), 0);
    for (size_t i = 0; i < 2; i++) {
        char one[96], two[96], fresh[96];

        snprintf(one, sizeof(one), "experts/%s/" WEIGHTS, names[i]);
        same_bytes(&f, "read", "drawn", one); /* stage 1 is the same */
        snprintf(one, sizeof(one), "read/experts/%s/" WEIGHTS, names[i]);
        snprintf(two, sizeof(two), "read/moa/experts/%s/" WEIGHTS, names[i]);
        snprintf(fresh, sizeof(fresh), "drawn/moa/experts/%s/" WEIGHTS, names[i]);
        assert_true(alive(&f, one, "lora_B") > 0);
        assert_true(same(&f, one, two));
        assert_int_equal(alive(&f, fresh, "lora_B"), 0);
        assert_true(alive(&f, fresh, "lora_A") > 0);
    }
    fixture_close(&f);
}

/* Routers that stay at zero choose the first expert for every row: the other one is left as
 * stage 1 made it. By labels both are served. */
static void a_row_is_served_by_its_label_or_by_the_choice(void **state)
{
    static const char *const label[] = {"method=moa", "router.learning_rate=0",
                                        "output=label"};
    static const char *const choice[] = {"method=moa", "router.learning_rate=0",
                                         "output=choice", "router.label=argmax"};
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", SET(label)}), 0);
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", SET(choice)}), 0);
    assert_int_equal(alive(&f, "choice/moa/router.safetensors", ""), 0);
    assert_false(
        same(&f, "label/experts/one/" WEIGHTS, "label/moa/experts/one/" WEIGHTS));
    assert_false(
        same(&f, "label/experts/two/" WEIGHTS, "label/moa/experts/two/" WEIGHTS));
    assert_false(
        same(&f, "choice/experts/one/" WEIGHTS, "choice/moa/experts/one/" WEIGHTS));
    assert_true(
        same(&f, "choice/experts/two/" WEIGHTS, "choice/moa/experts/two/" WEIGHTS));
    fixture_close(&f);
}

/* Without the labels' cross entropy a choice teaches through its gate alone. */
static void a_choice_teaches_through_its_gate(void **state)
{
    static const char *const set[] = {"method=moa", "router.eta=0",
                                      "router.label=argmax"};
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", SET(set)}), 0);
    assert_true(alive(&f, "out/moa/router.safetensors", "") > 0);
    fixture_close(&f);
}

/* However much the routers' loss weighs, experts learn the same beneath detached inputs. */
static void a_detached_input_keeps_the_routers_loss_from_experts(void **state)
{
    static const char *const etas[] = {"router.eta=0.1", "router.eta=20"};
    static const char *const outputs[2][2] = {
        {"output=felt-little", "output=felt-much"}, {"output=little", "output=much"}};
    static const char *const detach[] = {"router.detach_router_input=false",
                                         "router.detach_router_input=true"};
    const char *const one = "moa/experts/one/" WEIGHTS;
    const char *const two = "moa/experts/two/" WEIGHTS;
    struct fixture f;

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    for (size_t d = 0; d < 2; d++)
        for (size_t e = 0; e < 2; e++) {
            const char *const set[] = {"method=moa", "train.max_grad_norm=0", etas[e],
                                       outputs[d][e], detach[d]};

            assert_int_equal(run(&f, &(struct child){.recipe = "r.yaml", SET(set)}), 0);
        }
    same_bytes(&f, "little", "much", one);
    same_bytes(&f, "little", "much", two);
    assert_false(same(&f, "felt-little/moa/experts/one/" WEIGHTS,
                      "felt-much/moa/experts/one/" WEIGHTS));
    assert_false(same(&f, "felt-little/moa/experts/two/" WEIGHTS,
                      "felt-much/moa/experts/two/" WEIGHTS));
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stage_two_starts_from_stage_one_or_afresh),
        cmocka_unit_test(a_row_is_served_by_its_label_or_by_the_choice),
        cmocka_unit_test(a_choice_teaches_through_its_gate),
        cmocka_unit_test(a_detached_input_keeps_the_routers_loss_from_experts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
