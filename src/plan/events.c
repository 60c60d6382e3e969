/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three messages of TensorFlow's event.proto that curves need, field by field:
 *
 *     Event      wall_time 1 (double), step 2 (int64), file_version 3 (string),
 *                summary 5 (Summary), session_log 7 (SessionLog)
 *     Summary    value 1 (Value, repeated);  Value: tag 1 (string), simple_value 2 (float)
 *     SessionLog status 1 (enum): 1 is START, which drops what has this step or a later one
 */
#include "plan/events.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "files/tfrecord.h"
#include "files/write.h"

#define PREFIX      "events.out.tfevents."
#define MESSAGE_MAX 256
#define TAG_MAX     128

/* ---- protobuf ---- */

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* Sizes are bounded by TAG_MAX, so nothing here can overflow. */
struct message {
    unsigned char at[MESSAGE_MAX];
    size_t n;
};

static void put_varint(struct message *m, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        m->at[m->n++] = (unsigned char)(value | 0x80);
    m->at[m->n++] = (unsigned char)value;
}

static void put_key(struct message *m, unsigned field, enum wire wire)
{
    put_varint(m, field << 3 | (unsigned)wire);
}

static void put_fixed(struct message *m, unsigned field, enum wire wire, uint64_t bits)
{
    const size_t n = wire == WIRE_64 ? 8 : 4;

    put_key(m, field, wire);
    for (size_t i = 0; i < n; i++)
        m->at[m->n++] = (unsigned char)(bits >> 8 * i);
}

static void put_double(struct message *m, unsigned field, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    put_fixed(m, field, WIRE_64, bits);
}

static void put_float(struct message *m, unsigned field, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof(bits));
    put_fixed(m, field, WIRE_32, bits);
}

static void put_bytes(struct message *m, unsigned field, const void *data, size_t n)
{
    put_key(m, field, WIRE_BYTES);
    put_varint(m, n);
    memcpy(m->at + m->n, data, n);
    m->n += n;
}

static double wall_time(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void begin_event(struct message *m, double time, uint64_t step)
{
    m->n = 0;
    put_double(m, 1, time);
    put_key(m, 2, WIRE_VARINT);
    put_varint(m, step);
}

static int put_event(struct events *e, const struct message *m)
{
    return tfrecord_put(e->f, m->at, m->n);
}

static int put_version(struct events *e)
{
    static const char version[] = "brain.Event:2";
    struct message m;

    begin_event(&m, wall_time(), 0);
    put_bytes(&m, 3, version, sizeof(version) - 1);
    return put_event(e, &m);
}

static int put_start(struct events *e, uint64_t step)
{
    struct message m, session = {.n = 0};

    put_key(&session, 1, WIRE_VARINT);
    put_varint(&session, 1);
    begin_event(&m, wall_time(), step);
    put_bytes(&m, 7, session.at, session.n);
    return put_event(e, &m);
}

static int put_scalar(struct events *e, double time, uint64_t step, const char *tag,
                      double number)
{
    struct message value = {.n = 0}, summary = {.n = 0}, m;

    put_bytes(&value, 1, tag, strlen(tag));
    put_float(&value, 2, (float)number);
    put_bytes(&summary, 1, value.at, value.n);
    begin_event(&m, time, step);
    put_bytes(&m, 5, summary.at, summary.n);
    return put_event(e, &m);
}

/* ---- the file ---- */

/* TensorBoard reads the files of a folder in the order of their names, which begin with a
 * time: a new one must come last, also where the clock was set back. */
static long long next_time(const char *folder, bool drop)
{
    long long time_s = (long long)time(NULL);
    DIR *dir = opendir(folder);
    const struct dirent *d;

    while (dir && (d = readdir(dir))) {
        long long other;

        if (strncmp(d->d_name, PREFIX, strlen(PREFIX)) != 0)
            continue;
        if (drop) {
            unlinkat(dirfd(dir), d->d_name, 0);
            continue;
        }
        other = strtoll(d->d_name + strlen(PREFIX), NULL, 10);
        if (other >= time_s && other < 9999999999)
            time_s = other + 1;
    }
    if (dir)
        closedir(dir);
    return time_s;
}

static char *new_path(const char *folder, bool drop)
{
    char host[64] = "", name[128];

    if (gethostname(host, sizeof(host) - 1) != 0 || !host[0])
        snprintf(host, sizeof(host), "localhost");
    for (char *c = host; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '.')
            *c = '_';
    snprintf(name, sizeof(name), PREFIX "%010lld.%s.%ld.0", next_time(folder, drop),
             host, (long)getpid());
    return path_join(folder, name);
}

/* What is left of a file that cannot be gone on with. */
static int shut(struct events *e)
{
    const int why = errno;

    if (e->f)
        fclose(e->f);
    free(e->path);
    e->f = NULL;
    e->path = NULL;
    errno = why;
    return -1;
}

static int begin_file(struct events *e)
{
    /* From the start: whatever lies there tells of a run that is no more. */
    e->path = new_path(e->folder, e->last_step == 0);
    if (!e->path) {
        errno = ENOMEM;
        return -1;
    }
    e->f = fopen(e->path, "wbxe");
    if (e->f && put_version(e) == 0 && put_start(e, e->last_step + 1) == 0 &&
        fflush(e->f) == 0)
        return 0;
    return shut(e);
}

int events_open(struct events *e, const char *folder, uint64_t last_step)
{
    *e = (struct events){.folder = strdup(folder), .last_step = last_step};
    return e->folder ? begin_file(e) : -1;
}

static bool is_evaluated(const char *key)
{
    return !strncmp(key, "eval_", 5);
}

/* An evaluation's line repeats the epoch of its step, which would be there twice. */
static bool is_evaluation(json_t *line)
{
    const char *key;
    json_t *value;

    json_object_foreach(line, key, value)
    {
        if (is_evaluated(key))
            return true;
    }
    return false;
}

int events_line(struct events *e, const json_t *line)
{
    const json_int_t step = json_integer_value(json_object_get(line, "step"));
    const double time = wall_time();
    json_t *value, *entries = (json_t *)(uintptr_t)line; /* the macro wants it so */
    const bool evaluation = is_evaluation(entries);
    const char *key;
    int rc = 0;

    if (!e->folder || step < 0)
        return 0;
    e->last_step = (uint64_t)step;
    if (!e->f)
        return 0;
    json_object_foreach(entries, key, value)
    {
        char tag[TAG_MAX];

        if (rc == 0 && json_is_number(value) && strcmp(key, "step") != 0 &&
            is_evaluated(key) == evaluation &&
            snprintf(tag, sizeof(tag), "%s/%s", evaluation ? "eval" : "train",
                     evaluation ? key + 5 : key) < (int)sizeof(tag))
            rc = put_scalar(e, time, e->last_step, tag, json_number_value(value));
    }
    return rc == 0 && fflush(e->f) == 0 ? 0 : shut(e);
}

int events_sync(struct events *e)
{
    if (!e->folder)
        return 0;
    if (e->f && access(e->path, F_OK) != 0)
        shut(e);
    if (!e->f)
        return begin_file(e);
    return fdatasync(fileno(e->f));
}

void events_close(struct events *e)
{
    shut(e);
    free(e->folder);
    *e = (struct events){0};
}
