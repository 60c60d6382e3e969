/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event files read back, byte by byte, as TensorBoard does: frames, checksums, messages,
 * and the rule that a START drops what has its step or a later one.
 */
#include "run_fixture.h"

#include "files/tfrecord.h"
#include "files/write.h"
#include "plan/events.h"

#define CURVES_MAX 512

/* What a reader of TensorBoard's keeps of a folder. */
struct curves {
    struct point {
        char tag[64];
        uint64_t step;
        float value;
        double time;
    } at[CURVES_MAX];
    size_t n;
    size_t n_files, n_starts;
};

static uint64_t little(const unsigned char *p, size_t n)
{
    uint64_t value = 0;

    for (size_t i = 0; i < n; i++)
        value |= (uint64_t)p[i] << 8 * i;
    return value;
}

static uint64_t varint(const unsigned char **p, const unsigned char *end)
{
    uint64_t value = 0;

    for (unsigned shift = 0; *p < end; shift += 7) {
        const unsigned char byte = *(*p)++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return value;
    }
    fail_msg("a varint without end");
    return 0;
}

/* One field of a message: its number, and its content in one of the two. */
struct field {
    unsigned number;
    uint64_t bits;
    const unsigned char *bytes;
    size_t n;
};

static bool next_field(struct field *f, const unsigned char **p,
                       const unsigned char *end)
{
    uint64_t key;

    if (*p == end)
        return false;
    key = varint(p, end);
    *f = (struct field){.number = (unsigned)(key >> 3)};
    switch (key & 7) {
    case 0:
        f->bits = varint(p, end);
        return true;
    case 1:
    case 5:
        f->n = (key & 7) == 1 ? 8 : 4;
        assert_true((size_t)(end - *p) >= f->n);
        f->bits = little(*p, f->n);
        *p += f->n;
        return true;
    case 2:
        f->n = varint(p, end);
        assert_true((size_t)(end - *p) >= f->n);
        f->bytes = *p;
        *p += f->n;
        return true;
    default:
        fail_msg("wire type %d", (int)(key & 7));
        return false;
    }
}

static void read_value(struct point *out, const struct field *summary)
{
    const unsigned char *p = summary->bytes, *end = p + summary->n;
    struct field value, f;

    assert_true(next_field(&value, &p, end));
    assert_int_equal(value.number, 1);
    assert_ptr_equal(p, end);
    p = value.bytes;
    while (next_field(&f, &p, value.bytes + value.n)) {
        if (f.number == 1)
            snprintf(out->tag, sizeof(out->tag), "%.*s", (int)f.n,
                     (const char *)f.bytes);
        if (f.number == 2) {
            const uint32_t bits = (uint32_t)f.bits;

            memcpy(&out->value, &bits, sizeof(bits));
        }
    }
}

static void drop_from(struct curves *c, uint64_t step)
{
    size_t n = 0;

    for (size_t i = 0; i < c->n; i++)
        if (c->at[i].step < step)
            c->at[n++] = c->at[i];
    c->n = n;
}

static void read_event(struct curves *c, const unsigned char *p, size_t n, bool first)
{
    const unsigned char *end = p + n;
    struct point point = {.tag = ""};
    bool versioned = false, starts = false;
    struct field f;

    while (next_field(&f, &p, end)) {
        if (f.number == 1)
            memcpy(&point.time, &f.bits, sizeof(point.time));
        if (f.number == 2)
            point.step = f.bits;
        if (f.number == 3)
            versioned = f.n == 13 && !memcmp(f.bytes, "brain.Event:2", 13);
        if (f.number == 5)
            read_value(&point, &f);
        if (f.number == 7)
            starts = f.n == 2 && !memcmp(f.bytes, "\x08\x01", 2);
    }
    assert_int_equal(versioned, first);
    assert_true(point.time > 1.7e9);
    if (starts) {
        c->n_starts++;
        drop_from(c, point.step);
    }
    if (point.tag[0]) {
        assert_true(c->n < CURVES_MAX);
        c->at[c->n++] = point;
    }
}

/* Up to half a record at the end, which a kill may leave. */
static void read_file(struct curves *c, const char *path)
{
    static unsigned char bytes[1 << 20];
    FILE *f = fopen(path, "rb");
    size_t n, at = 0;
    bool first = true;

    assert_non_null(f);
    n = fread(bytes, 1, sizeof(bytes), f);
    assert_true(n < sizeof(bytes));
    fclose(f);
    while (at + 12 <= n) {
        const size_t length = little(bytes + at, 8);

        assert_int_equal(little(bytes + at + 8, 4), crc32c_masked(bytes + at, 8));
        if (at + 16 + length > n)
            break;
        assert_int_equal(little(bytes + at + 12 + length, 4),
                         crc32c_masked(bytes + at + 12, length));
        read_event(c, bytes + at + 12, length, first);
        first = false;
        at += 16 + length;
    }
    c->n_files++;
}

static int is_event_file(const struct dirent *d)
{
    return strstr(d->d_name, "tfevents") != NULL;
}

/* All files of a folder, in the order of their names. */
static void read_curves(struct curves *c, const char *folder)
{
    struct dirent **names = NULL;
    const int n = scandir(folder, &names, is_event_file, alphasort);

    *c = (struct curves){.n = 0};
    for (int i = 0; i < n; i++) {
        char path[512];

        snprintf(path, sizeof(path), "%s/%s", folder, names[i]->d_name);
        read_file(c, path);
        free(names[i]);
    }
    free(names);
}

static void put_line(struct events *e, const char *text)
{
    json_t *line = json_loads(text, 0, NULL);

    assert_non_null(line);
    assert_int_equal(events_line(e, line), 0);
    json_decref(line);
}

static void temporary(char folder[32])
{
    snprintf(folder, 32, "/tmp/artel-events-XXXXXX");
    assert_non_null(mkdtemp(folder));
}

static void numbers_of_a_line_become_points(void **state)
{
    struct curves c;
    struct events e;
    char folder[32];

    (void)state;
    temporary(folder);
    assert_int_equal(events_open(&e, folder, 0), 0);
    put_line(&e, "{\"step\": 1, \"loss\": 2.5, \"tokens\": 640, \"note\": \"x\"}");
    put_line(&e, "{\"step\": 300, \"epoch\": 2, \"eval_loss\": 1.25}");
    events_close(&e);
    read_curves(&c, folder);
    assert_int_equal(c.n_files, 1);
    assert_int_equal(c.n, 3);
    assert_string_equal(c.at[0].tag, "train/loss");
    assert_int_equal(c.at[0].step, 1);
    assert_true(c.at[0].value == 2.5f);
    assert_string_equal(c.at[1].tag, "train/tokens");
    assert_true(c.at[1].value == 640.0f);
    assert_string_equal(c.at[2].tag, "eval/loss");
    assert_int_equal(c.at[2].step, 300);
    assert_int_equal(remove_tree(folder, NULL), 0);
}

static void what_a_killed_run_wrote_too_much_is_dropped(void **state)
{
    struct curves c;
    struct events e;
    char folder[32], path[512];
    struct stat st;

    (void)state;
    temporary(folder);
    assert_int_equal(events_open(&e, folder, 0), 0);
    for (int step = 1; step <= 5; step++) {
        char text[64];

        snprintf(text, sizeof(text), "{\"step\": %d, \"loss\": 1}", step);
        put_line(&e, text);
    }
    snprintf(path, sizeof(path), "%s", e.path);
    events_close(&e);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 7), 0);
    assert_int_equal(events_open(&e, folder, 3), 0);
    put_line(&e, "{\"step\": 4, \"loss\": 2}");
    events_close(&e);
    read_curves(&c, folder);
    assert_int_equal(c.n_files, 2);
    assert_int_equal(c.n_starts, 2);
    assert_int_equal(c.n, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(c.at[i].step, i + 1);
    assert_true(c.at[3].value == 2.0f);

    /* From the first step again: nothing of it counts. */
    assert_int_equal(events_open(&e, folder, 0), 0);
    put_line(&e, "{\"step\": 1, \"loss\": 3}");
    events_close(&e);
    read_curves(&c, folder);
    assert_int_equal(c.n_files, 1);
    assert_int_equal(c.n, 1);
    assert_int_equal(remove_tree(folder, NULL), 0);
}

static void a_file_that_is_gone_is_followed_by_another(void **state)
{
    struct curves c;
    struct events e;
    char folder[32];

    (void)state;
    temporary(folder);
    assert_int_equal(events_open(&e, folder, 0), 0);
    put_line(&e, "{\"step\": 1, \"loss\": 3}");
    assert_int_equal(unlink(e.path), 0);
    assert_int_equal(events_sync(&e), 0);
    put_line(&e, "{\"step\": 2, \"loss\": 3}");
    events_close(&e);
    read_curves(&c, folder);
    assert_int_equal(c.n_files, 1);
    assert_int_equal(c.n, 1);
    assert_int_equal(c.at[0].step, 2);
    assert_int_equal(remove_tree(folder, NULL), 0);
    assert_int_equal(events_open(&e, "/nowhere/at/all", 0), -1);
    put_line(&e, "{\"step\": 1, \"loss\": 3}");
    assert_int_equal(events_sync(&e), -1);
    events_close(&e);
}

/* log.jsonl of the stage, line by line, is what the curves hold. */
static void same_as_the_log(const struct fixture *f, const char *stage,
                            const struct curves *c)
{
    char name[256], *text;
    size_t n = 0;

    snprintf(name, sizeof(name), "%s/log.jsonl", stage);
    text = slurp(f, name);
    assert_non_null(text);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *o = json_loads(line, 0, NULL), *value;
        const bool eval = strstr(line, "\"eval_") != NULL;
        const char *key;

        json_object_foreach(o, key, value)
        {
            char tag[64];

            if (!json_is_number(value) || !strcmp(key, "step") ||
                (eval && !strcmp(key, "epoch")))
                continue;
            assert_true(n < c->n);
            snprintf(tag, sizeof(tag), "%s/%s", eval ? "eval" : "train",
                     eval ? key + 5 : key);
            assert_string_equal(c->at[n].tag, tag);
            assert_int_equal(c->at[n].step,
                             json_integer_value(json_object_get(o, "step")));
            assert_near(c->at[n].value, json_number_value(value),
                        1e-6 * fabs(json_number_value(value)));
            n++;
        }
        json_decref(o);
    }
    free(text);
    assert_true(n > 0);
    assert_int_equal(n, c->n);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            assert_false(c->at[i].step == c->at[k].step &&
                         !strcmp(c->at[i].tag, c->at[k].tag));
}

static void a_stopped_and_resumed_run_has_every_step_once(void **state)
{
    static const char *const set[] = {"train.eval_steps=3", "train.epochs=2"};
    static const char stage[] = "out/train/expert-one";
    struct child c = {.recipe = "r.yaml",
                      .set = set,
                      .n_set = 2,
                      .stop_stage = "expert-one",
                      .stop_step = 5};
    struct fixture f;
    struct curves curves;
    char folder[256], gone[300];

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    path_in(folder, sizeof(folder), &f, stage);
    assert_int_equal(run(&f, &c), -ARTEL_ESTOPPED);
    /* As if it had been killed at step 5: the checkpoint of 4 is the newest. */
    snprintf(gone, sizeof(gone), "%s/checkpoint-5", folder);
    assert_int_equal(remove_tree(gone, NULL), 0);
    c.stop_stage = NULL;
    assert_int_equal(run(&f, &c), 0);
    read_curves(&curves, folder);
    assert_int_equal(curves.n_files, 2);
    same_as_the_log(&f, stage, &curves);
    fixture_close(&f);
}

static void without_tensorboard_there_are_no_events(void **state)
{
    static const char *const set[] = {"train.tensorboard=false"};
    const struct child c = {.recipe = "r.yaml", .set = set, .n_set = 1};
    struct fixture f;
    struct curves curves;
    char folder[256];

    (void)state;
    fixture_open(&f);
    write_text(&f, "r.yaml", RECIPE("out"));
    assert_int_equal(run(&f, &c), 0);
    path_in(folder, sizeof(folder), &f, "out/train/expert-one");
    read_curves(&curves, folder);
    assert_int_equal(curves.n_files, 0);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_a_line_become_points),
        cmocka_unit_test(what_a_killed_run_wrote_too_much_is_dropped),
        cmocka_unit_test(a_file_that_is_gone_is_followed_by_another),
        cmocka_unit_test(a_stopped_and_resumed_run_has_every_step_once),
        cmocka_unit_test(without_tensorboard_there_are_no_events),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
