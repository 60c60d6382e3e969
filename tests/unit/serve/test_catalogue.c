/* SPDX-License-Identifier: Apache-2.0 */
#include "served.h"

#include <pthread.h>
#include <stdatomic.h>

#include "decoder/session.h"
#include "serve/catalogue.h"

static struct served s;

static struct catalogue *opened(const char *allowed)
{
    const struct artel_open_options o = {.precision = "fp32"};
    struct catalogue *c;
    struct artel_error err;
    const int rc = catalogue_open(&c, s.mixture, allowed, &o, &err);

    if (rc < 0)
        fail_msg("%s: %s", err.where, err.reason);
    return c;
}

/* The expert that NAME stands for; it is let go of. */
static int number_of(struct catalogue *c, const char *name)
{
    struct loaded *who;
    struct artel_error err;
    int expert;

    assert_int_equal(catalogue_find(c, &who, &expert, name, &err), 0);
    loaded_let_go(who);
    return expert;
}

static void names_stand_for_experts(void **state)
{
    struct catalogue *const c = opened(NULL);
    struct artel_error err;
    struct loaded *who;
    int expert;

    (void)state;
    assert_int_equal(number_of(c, "auto"), EXPERT_AUTO);
    assert_int_equal(number_of(c, "moa"), EXPERT_AUTO); /* the mixture's own name */
    assert_int_equal(number_of(c, "base"), EXPERT_BASE);
    assert_int_equal(number_of(c, "law"), 0);
    assert_int_equal(number_of(c, "math"), 1);
    assert_error(catalogue_find(c, &who, &expert, "../x", &err), ARTEL_EUSAGE, err,
                 "SRV04");
    assert_null(who);
    assert_string_equal(err.where, "model");
    catalogue_close(c);
}

/* H22: what is told of a hostile name is escaped and short. */
static void h22_hostile_names_are_escaped(void **state)
{
    struct catalogue *const c = opened(NULL);
    char *const name = malloc(1 << 20);
    struct artel_error err;
    struct loaded *who;
    int expert;

    (void)state;
    memset(name, 'x', (1 << 20) - 1);
    memcpy(name, "\033[2J\n\"", 6);
    name[(1 << 20) - 1] = '\0';
    assert_error(catalogue_find(c, &who, &expert, name, &err), ARTEL_EUSAGE, err,
                 "SRV04");
    assert_null(strchr(err.reason, '\033'));
    assert_null(strchr(err.reason, '\n'));
    free(name);
    catalogue_close(c);
}

static const char *id_of(const json_t *list, size_t i)
{
    return json_string_value(json_object_get(json_array_get(list, i), "id"));
}

static void the_list_has_auto_experts_and_base(void **state)
{
    struct catalogue *const c = opened(s.adapters);
    struct artel_error err;
    json_t *list;
    const json_t *added;

    (void)state;
    assert_int_equal(catalogue_add(c, "tales", "tales", false, &err), 0);
    list = catalogue_list(c, 512);
    assert_int_equal(json_array_size(list), 5);
    assert_string_equal(id_of(list, 0), "auto");
    assert_string_equal(id_of(list, 1), "law");
    assert_string_equal(id_of(list, 2), "math");
    assert_string_equal(id_of(list, 3), "tales");
    assert_string_equal(id_of(list, 4), "base");
    added = json_array_get(list, 3);
    assert_string_equal(json_string_value(json_object_get(added, "object")), "model");
    assert_string_equal(json_string_value(json_object_get(added, "parent")), "base");
    assert_int_equal(json_integer_value(json_object_get(added, "max_model_len")), 512);
    assert_true(
        json_is_true(json_object_get(json_object_get(added, "artel"), "added")));
    json_decref(list);
    catalogue_close(c);
}

static void the_description_names_no_folders(void **state)
{
    struct catalogue *const c = opened(s.adapters);
    struct artel_error err;
    const json_t *experts;
    json_t *o;
    char *text;

    (void)state;
    assert_int_equal(catalogue_add(c, "tales", "tales", false, &err), 0);
    o = catalogue_describe(c);
    experts = json_object_get(o, "experts");
    assert_int_equal(json_array_size(experts), 3);
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(experts, 2), "name")),
        "tales");
    assert_int_equal(
        json_integer_value(json_object_get(json_array_get(experts, 2), "rank")), 4);
    assert_string_equal(json_string_value(json_object_get(o, "selector")), "last");
    assert_true(json_is_array(json_object_get(o, "stages")));
    assert_true(json_is_null(json_object_get(o, "evaluation")));
    text = json_dumps(o, 0);
    assert_null(strstr(text, s.folder));
    assert_null(strstr(text, "/golden/"));
    free(text);
    json_decref(o);
    catalogue_close(c);
}

static void a_run_shows_its_curves_and_its_table(void **state)
{
    struct catalogue *c;
    const json_t *stage;
    json_t *o;

    (void)state;
    served_run(s.folder, "mkdir -p train/expert-law && printf "
                         "'{\"step\":1,\"loss\":2.5}\\n{\"step\":2,\"loss\":1.5}\\n' > "
                         "train/expert-law/log.jsonl");
    served_run(
        s.folder,
        "echo '{\"methods\":[{\"name\":\"moa\",\"path\":\"/x/moa\"}]}' > results.json");
    c = opened(NULL);
    o = catalogue_describe(c);
    stage = json_array_get(json_object_get(o, "stages"), 0);
    assert_string_equal(json_string_value(json_object_get(stage, "name")),
                        "expert-law");
    assert_int_equal(json_array_size(json_object_get(stage, "loss")), 2);
    assert_near(json_number_value(json_array_get(
                    json_array_get(json_object_get(stage, "loss"), 1), 1)),
                1.5, 0);
    assert_string_equal(
        json_string_value(json_object_get(
            json_array_get(json_object_get(json_object_get(o, "evaluation"), "methods"),
                           0),
            "path")),
        "moa");
    json_decref(o);
    catalogue_close(c);
    served_run(s.folder, "rm -r train results.json");
}

static void refuse(struct catalogue *c, const char *name, const char *path, int rc,
                   const char *code)
{
    struct artel_error err;

    assert_error(catalogue_add(c, name, path, false, &err), rc, err, code);
    assert_null(strstr(err.reason, s.folder));
}

static void experts_come_from_the_allowed_folder_alone(void **state)
{
    struct catalogue *c = opened(NULL);
    struct artel_error err;
    char path[200];

    (void)state;
    refuse(c, "tales", "tales", ARTEL_EUSAGE, "SRV30");
    catalogue_close(c);
    served_run(s.folder, "ln -s \"$PWD/moa/experts/law\" adapters/link");
    served_run(s.folder, "cp -r adapters adapters-too && cp -r adapters adapterz");
    c = opened(s.adapters);
    refuse(c, "x", "../moa/experts/law", ARTEL_EUSAGE, "SRV31");
    refuse(c, "x", "../../../../etc", ARTEL_EUSAGE, "SRV31");
    refuse(c, "x", "/nowhere/at/all", ARTEL_EUSAGE, "SRV31");
    refuse(c, "x", "../adapterz/tales", ARTEL_EUSAGE, "SRV31");
    refuse(c, "x", "link", ARTEL_EUSAGE, "SRV31");
    refuse(c, "x", ".", ARTEL_EUSAGE, "SRV31");
    refuse(c, "x", "missing", ARTEL_EIO, "IO01");
    snprintf(path, sizeof(path), "%s-too/tales", s.adapters);
    assert_error(catalogue_add(c, "x", path, false, &err), ARTEL_EUSAGE, err, "SRV31");
    refuse(c, "auto", "tales", ARTEL_ECONFLICT, "SRV32");
    refuse(c, "moa", "tales", ARTEL_ECONFLICT, "SRV32");
    refuse(c, "law", "tales", ARTEL_ECONFLICT, "SRV32");
    refuse(c, "a/b", "tales", ARTEL_EUSAGE, "SRV32");
    refuse(c, "", "tales", ARTEL_EUSAGE, "SRV32");
    snprintf(path, sizeof(path), "%s/tales", s.adapters);
    assert_int_equal(catalogue_add(c, "tales", path, false, &err), 0);
    refuse(c, "tales", "sums", ARTEL_ECONFLICT, "SRV32");
    assert_int_equal(catalogue_add(c, "tales", "sums", true, &err), 0);
    assert_error(catalogue_remove(c, "law", &err), ARTEL_EUSAGE, err, "SRV33");
    assert_int_equal(catalogue_remove(c, "tales", &err), 0);
    assert_error(catalogue_remove(c, "tales", &err), ARTEL_EUSAGE, err, "SRV33");
    catalogue_close(c);
    served_run(s.folder, "rm -r adapters/link adapters-too adapterz");
}

static void what_is_replaced_stays_for_who_holds_it(void **state)
{
    struct catalogue *const c = opened(s.adapters);
    struct loaded *old, *now;
    struct artel_error err;
    int expert;

    (void)state;
    assert_int_equal(catalogue_add(c, "tales", "tales", false, &err), 0);
    assert_int_equal(catalogue_find(c, &old, &expert, "tales", &err), 0);
    assert_int_equal(expert, 0);
    assert_int_equal(catalogue_add(c, "tales", "sums", true, &err), 0);
    assert_int_equal(catalogue_find(c, &now, &expert, "tales", &err), 0);
    assert_ptr_not_equal(old, now);
    assert_ptr_equal(old->mixture->model, now->mixture->model);
    assert_int_equal(old->mixture->mixture->experts[0].lora[0].rank, 4);
    assert_int_equal(now->mixture->mixture->experts[0].lora[0].rank, 8);
    loaded_let_go(now);
    assert_int_equal(catalogue_remove(c, "tales", &err), 0);
    assert_int_equal(old->holders, 1);
    assert_true(old->mixture->mixture->experts[0].n_params > 0);
    loaded_let_go(old);
    catalogue_close(c);
}

static void a_reload_that_fails_changes_nothing(void **state)
{
    static const char *const three[] = {"law", "math", "tales"};
    struct catalogue *const c = opened(s.adapters);
    struct loaded *const before = catalogue_current(c);
    struct artel_error err;
    struct loaded *after;

    (void)state;
    served_run(s.folder, "cp moa/mixture.json kept.json");
    served_run(s.folder, "echo '{\"format_version\": 1' > moa/mixture.json");
    assert_true(catalogue_reload(c, &err) < 0);
    after = catalogue_current(c);
    assert_ptr_equal(before, after);
    loaded_let_go(after);
    served_run(s.folder, "rm -r moa");
    assert_int_equal(catalogue_reload(c, &err), ARTEL_EIO);

    /* A new expert takes no name that is in use. */
    assert_int_equal(catalogue_add(c, "tales", "tales", false, &err), 0);
    served_write(s.mixture, three, 3, 5);
    assert_error(catalogue_reload(c, &err), ARTEL_ECONFLICT, err, "SRV32");
    after = catalogue_current(c);
    assert_ptr_equal(before, after);
    loaded_let_go(after);
    assert_int_equal(catalogue_remove(c, "tales", &err), 0);
    assert_int_equal(catalogue_reload(c, &err), 0);
    assert_int_equal(number_of(c, "tales"), 2);
    loaded_let_go(before);
    catalogue_close(c);
    served_run(s.folder, "rm -r moa kept.json");
    served_write(s.mixture, three, 2, 1);
}

/* Answers under one mixture, again and again, while others come and go. */
struct speaker {
    struct loaded *who;
    atomic_bool stop;
    size_t n;
    bool differs;
};

static void *speak(void *user)
{
    struct speaker *const k = user;
    struct artel_generate_options o;
    char first[256] = "";

    artel_generate_options_default(&o, k->who->mixture);
    o.max_tokens = 24;
    o.temperature = 1;
    do {
        struct artel_prompt prompt = {
            .text = (char *)(size_t) "abc def", .n = 7, .raw = 1};
        struct artel_session *session;
        struct artel_answer a;

        if (artel_session_open(&session, k->who->mixture, 64, NULL) < 0)
            break;
        if (artel_generate(session, &a, k->who->mixture, &prompt, &o, NULL) == 0) {
            if (k->n++ == 0)
                snprintf(first, sizeof(first), "%s", a.text);
            k->differs |= strncmp(first, a.text, sizeof(first) - 1) != 0;
            artel_answer_release(&a);
        }
        artel_session_close(session);
    } while (!atomic_load(&k->stop));
    return NULL;
}

static void answers_go_on_through_reloads(void **state)
{
    struct catalogue *const c = opened(s.adapters);
    struct speaker k = {.who = catalogue_current(c)};
    const void *const weights = catalogue_model(c)->arena.base;
    struct artel_error err;
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, speak, &k), 0);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(catalogue_reload(c, &err), 0);
        assert_int_equal(catalogue_add(c, "tales", "tales", true, &err), 0);
    }
    assert_int_equal(catalogue_remove(c, "tales", &err), 0);
    atomic_store(&k.stop, true);
    pthread_join(thread, NULL);
    assert_true(k.n > 0);
    assert_false(k.differs);
    assert_ptr_equal(catalogue_model(c)->arena.base, weights); /* not laid out anew */
    loaded_let_go(k.who);
    catalogue_close(c);
}

static void a_bare_base_is_auto_too(void **state)
{
    const struct artel_open_options o = {.precision = "fp32"};
    struct catalogue *c;
    struct artel_error err;

    (void)state;
    assert_int_equal(catalogue_open(&c, TOY, NULL, &o, &err), 0);
    assert_int_equal(number_of(c, "auto"), EXPERT_BASE);
    assert_int_equal(number_of(c, "toy-tied.gguf"), EXPERT_BASE);
    assert_int_equal(catalogue_reload(c, &err), 0);
    catalogue_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_stand_for_experts),
        cmocka_unit_test(h22_hostile_names_are_escaped),
        cmocka_unit_test(the_list_has_auto_experts_and_base),
        cmocka_unit_test(the_description_names_no_folders),
        cmocka_unit_test(a_run_shows_its_curves_and_its_table),
        cmocka_unit_test(experts_come_from_the_allowed_folder_alone),
        cmocka_unit_test(what_is_replaced_stays_for_who_holds_it),
        cmocka_unit_test(a_reload_that_fails_changes_nothing),
        cmocka_unit_test(answers_go_on_through_reloads),
        cmocka_unit_test(a_bare_base_is_auto_too),
    };
    int rc;

    served_make(&s);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    served_remove(&s);
    return rc;
}
