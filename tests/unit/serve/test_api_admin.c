/* SPDX-License-Identifier: Apache-2.0 */
#include "api_case.h"

#include <stdio.h>
#include <time.h>

static void models_are_listed_and_found(void **state)
{
    (void)state;
    assert_int_equal(api_ask(&c, "GET", "/v1/models", NULL, ""), 200);
    assert_string_equal(text_of(c.json, "object"), "list");
    assert_int_equal(json_array_size(at(c.json, "data")), 4);
    assert_int_equal(number_of(c.json, "data.0.max_model_len"), 256);
    assert_int_equal(api_ask(&c, "GET", "/v1/models/law", NULL, ""), 200);
    assert_string_equal(text_of(c.json, "id"), "law");
    assert_int_equal(api_ask(&c, "GET", "/v1/models/nobody", NULL, ""), 404);
    assert_int_equal(api_ask(&c, "GET", "/artel/mixture", NULL, ""), 200);
    assert_int_equal(json_array_size(at(c.json, "experts")), 2);
}

#define LAW   "{\"model\":\"law\"," USER("a") ",\"max_tokens\":1}"
#define TALES "{\"model\":\"tales\"," USER("a") ",\"max_tokens\":1}"

static void experts_come_and_go(void **state)
{
    const char *const add = "{\"name\":\"tales\",\"path\":\"tales\"}";

    (void)state;
    assert_true(api_post(&c, "/v1/experts", add) >= 401);
    assert_int_equal(api_ask(&c, "POST", "/v1/experts", "root-key", add), 201);
    assert_int_equal(api_ask(&c, "POST", "/v1/experts", "root-key", add), 409);
    assert_int_equal(api_post(&c, "/v1/chat/completions", TALES), 200);
    assert_string_equal(text_of(c.json, "artel.expert"), "tales");
    assert_int_equal(api_ask(&c, "POST", "/v1/reload", "root-key", "{}"), 200);
    assert_int_equal(api_post(&c, "/v1/chat/completions", LAW), 200);
    assert_int_equal(api_ask(&c, "DELETE", "/v1/experts/tales", "root-key", ""), 200);
    assert_int_equal(api_ask(&c, "DELETE", "/v1/experts/tales", "root-key", ""), 404);
    assert_int_equal(api_post(&c, "/v1/chat/completions", TALES), 404);
    assert_int_equal(api_ask(&c, "POST", "/v1/experts", "root-key",
                             "{\"name\":\"x\",\"path\":\"../moa\"}"),
                     403);
    assert_int_equal(api_ask(&c, "POST", "/v1/experts", "root-key",
                             "{\"name\":\"x\",\"path\":\"missing\"}"),
                     404);
    assert_int_equal(api_ask(&c, "POST", "/v1/load_lora_adapter", "root-key",
                             "{\"lora_name\":\"t2\",\"lora_path\":\"tales\"}"),
                     200);
    assert_string_equal(c.raw.body, "Success: LoRA adapter 't2' added successfully.");
    assert_int_equal(api_ask(&c, "POST", "/v1/load_lora_adapter", "root-key",
                             "{\"lora_name\":\"t2\",\"lora_path\":\"tales\"}"),
                     400);
    assert_string_equal(text_of(c.json, "error.type"), "InvalidUserInput");
    assert_int_equal(number_of(c.json, "error.code"), 400);
    assert_int_equal(api_ask(&c, "POST", "/v1/unload_lora_adapter", "root-key",
                             "{\"lora_name\":\"t2\"}"),
                     200);
    assert_int_equal(api_ask(&c, "POST", "/v1/unload_lora_adapter", "root-key",
                             "{\"lora_name\":\"t2\"}"),
                     404);
}

/* Answers that are under way, and those in the queue, keep what they began with. */
static void answers_outlive_what_gives_them(void **state)
{
    const char *const add = "{\"name\":\"tales\",\"path\":\"tales\"}";
    const char *const body = "{\"model\":\"tales\"," USER(
        "abc") ",\"max_tokens\":200,"
               "\"temperature\":0,\"n\":5,\"logit_bias\":{\"2\":-100,"
               "\"0\":-100}}";
    struct raw *const waiting = malloc(sizeof(*waiting));
    char want[4096];
    json_t *got;

    (void)state;
    assert_int_equal(api_ask(&c, "POST", "/v1/experts", "root-key", add), 201);
    assert_int_equal(api_post(&c, "/v1/chat/completions", body), 200);
    snprintf(want, sizeof(want), "%s", text_of(c.json, "choices.4.message.content"));
    for (size_t i = 0; i < 3; i++) {
        api_send(&c, "POST", "/v1/chat/completions", NULL, body);
        *waiting = c.raw;
        assert_int_equal(api_ask(&c, "DELETE", "/v1/experts/tales", "root-key", ""),
                         200);
        assert_int_equal(api_ask(&c, "POST", "/v1/reload", "root-key", "{}"), 200);
        assert_int_equal(api_ask(&c, "POST", "/v1/experts", "root-key", add), 201);
        if (raw_reply(waiting, 60) == 404) { /* it came after the removal */
            raw_close(waiting);
            continue;
        }
        got = json_loads(waiting->body, JSON_ALLOW_NUL, NULL);
        assert_string_equal(text_of(got, "choices.4.message.content"), want);
        assert_string_equal(text_of(got, "artel.expert"), "tales");
        json_decref(got);
        raw_close(waiting);
    }
    assert_int_equal(api_ask(&c, "DELETE", "/v1/experts/tales", "root-key", ""), 200);
    free(waiting);
}

static void health_and_metrics(void **state)
{
    char *line, *save = NULL, name[128], last[128] = "";
    double value;
    int used;

    (void)state;
    assert_int_equal(api_ask(&c, "GET", "/health", NULL, ""), 200);
    assert_string_equal(text_of(c.json, "status"), "ok");
    c.api.draining = true;
    assert_int_equal(api_ask(&c, "GET", "/health", NULL, ""), 503);
    assert_int_equal(api_post(&c, "/v1/chat/completions", LAW), 503);
    c.api.draining = false;
    assert_int_equal(api_ask(&c, "GET", "/metrics", NULL, ""), 200);
    assert_non_null(strstr(raw_header(&c.raw, "content-type"), "version=0.0.4"));
    assert_int_equal(c.raw.body[c.raw.n_body - 1], '\n');
    for (line = strtok_r(c.raw.body, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        if (sscanf(line, "# HELP %127s %n", name, &used) == 1) {
            snprintf(last, sizeof(last), "%s", name);
            continue;
        }
        if (sscanf(line, "# TYPE %127s %n", name, &used) == 1) {
            assert_string_equal(name, last);
            assert_true(!strcmp(line + used, "counter") ||
                        !strcmp(line + used, "gauge") ||
                        !strcmp(line + used, "histogram"));
            assert_true(strcmp(line + used, "counter") ||
                        strstr(name, "_total") == name + strlen(name) - 6);
            continue;
        }
        /* A sample of the metric that was told last. */
        assert_memory_equal(line, last, strlen(last));
        used = 0;
        sscanf(line, "%*[a-z_]%n", &used);
        if (line[used] == '{') {
            const char *const close = strchr(line, '}');

            assert_non_null(close);
            used = (int)(close + 1 - line);
        }
        assert_int_equal(line[used], ' ');
        assert_int_equal(sscanf(line + used, " %lf%n", &value, &used), 1);
    }
}

static void settle(void)
{
    const struct timespec t = {.tv_nsec = 20000000};
    struct engine_stats s;

    for (size_t i = 0; i < 500; i++) {
        engine_stats(c.api.engine, &s);
        if (!s.running && !s.waiting)
            return;
        nanosleep(&t, NULL);
    }
    fail_msg("somebody still answers");
}

static void h16_who_leaves_frees_the_place(void **state)
{
    struct engine_stats before, after;

    (void)state;
    settle();
    engine_stats(c.api.engine, &before);
    for (size_t i = 0; i < 6; i++) {
        api_send(&c, "POST", "/v1/chat/completions", NULL,
                 i % 2
                     ? "{\"model\":\"law\"," USER("abc") ",\"n\":2,\"logit_bias\":"
                                                         "{\"2\":-100},\"stream\":true}"
                     : "{\"model\":\"auto\"," USER("abc") ",\"logit_bias\":{\"2\":"
                                                          "-100}}");
        raw_close(&c.raw);
    }
    /* Requests of those who have left may still come in. */
    for (size_t i = 0; i < 50; i++) {
        settle();
        if (api_post(&c, "/v1/chat/completions", LAW) == 200)
            break;
    }
    assert_int_equal(c.raw.status, 200);
    settle();
    engine_stats(c.api.engine, &after);
    assert_int_equal(after.jobs - before.jobs, after.jobs_done + after.jobs_cancelled -
                                                   before.jobs_done -
                                                   before.jobs_cancelled);
}

static void a_full_queue_is_a_429(void **state)
{
    struct raw waiting[12];
    struct raw *const kept = malloc(sizeof(waiting));
    int refused = 0;

    (void)state;
    for (size_t i = 0; i < 12; i++) {
        api_send(&c, "POST", "/v1/chat/completions", NULL,
                 "{\"model\":\"law\"," USER("abc") ",\"logit_bias\":{\"2\":-100,"
                                                   "\"0\":-100},\"max_tokens\":200}");
        kept[i] = c.raw;
    }
    for (size_t i = 0; i < 12; i++) {
        const int status = raw_reply(&kept[i], 60);

        assert_true(status == 200 || status == 429);
        if (status == 429) {
            assert_non_null(raw_header(&kept[i], "retry-after"));
            refused++;
        }
        raw_close(&kept[i]);
    }
    assert_true(refused > 0);
    free(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_are_listed_and_found),
        cmocka_unit_test(experts_come_and_go),
        cmocka_unit_test(answers_outlive_what_gives_them),
        cmocka_unit_test(health_and_metrics),
        cmocka_unit_test(h16_who_leaves_frees_the_place),
        cmocka_unit_test(a_full_queue_is_a_429),
    };

    return cmocka_run_group_tests(tests, open_case, close_case);
}
