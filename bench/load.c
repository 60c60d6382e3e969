/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load URL [options]: many clients at once ask a server that speaks OpenAI's API, some of
 * them badly behaved, and the answers are counted and timed.
 *
 *     build/bench/load http://127.0.0.1:8080 --clients 64 --requests 10000 --tokens 16 \
 *         --models auto,alpha,beta,base --hang-up 50 --slow 4 --garbage 4 --pid 1234
 *
 *     --hang-up P   per cent of the requests whose client leaves at a random moment
 *     --slow N      clients more that send a byte now and then, and never finish
 *     --garbage N   clients more that send random bytes, broken heads and endless bodies
 *     --pid PID     the server's, for its memory and descriptors before, in between, after
 *     --key KEY     sent as Bearer; --stream asks for streams; --timeout S of a request
 *
 * Standard output gets one JSON object. Exit 1 where an answer was 5xx, broken or missing.
 */
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"

#define MODELS_MAX  64
#define CLIENTS_MAX 1024
#define REPLY_ROOM  (1 << 16)

struct load {
    char host[256], port[16];
    const char *key, *models[MODELS_MAX];
    size_t n_models, n_clients, n_requests, n_tokens, hang_up, n_slow, n_garbage;
    int pid, timeout;
    bool stream;
    struct addrinfo *address;
    atomic_size_t next, done;
    atomic_bool over;
    atomic_size_t status[6], left, broken, refused, no_connection;
    float *total, *first; /* (n_requests) seconds, below 0: not measured */
};

struct memory {
    long kib, descriptors;
};

static struct load load;

static void pause_ms(unsigned ms)
{
    const struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

    nanosleep(&t, NULL);
}

static void leave(const char *why, const char *what)
{
    fprintf(stderr, "load: %s: %s\n", why, what);
    exit(2);
}

static int dial(void)
{
    const struct timeval patience = {load.timeout, 0};
    const int fd = socket(load.address->ai_family, SOCK_STREAM, 0);

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (connect(fd, load.address->ai_addr, load.address->ai_addrlen) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool send_all(int fd, const char *bytes, size_t n)
{
    while (n) {
        const ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);

        if (sent <= 0)
            return false;
        bytes += sent;
        n -= (size_t)sent;
    }
    return true;
}

/* A request that asks MODEL; returns its length. */
static size_t write_request(char *out, size_t room, size_t i, struct rng *rng)
{
    const char *const model = load.models[i % load.n_models];
    char body[512];
    const int n =
        snprintf(body, sizeof(body),
                 "{\"model\": \"%s\", \"max_tokens\": %zu, \"temperature\": 0,%s "
                 "\"messages\": [{\"role\": \"user\", \"content\": "
                 "\"%s %u\"}]}",
                 model, load.n_tokens, load.stream ? " \"stream\": true," : "",
                 i % 2 ? "alpha" : "beta", rng_below(rng, 1000));

    return (size_t)snprintf(out, room,
                            "POST /v1/chat/completions HTTP/1.1\r\nHost: %s:%s\r\n"
                            "Content-Type: application/json\r\n%s%s%s"
                            "Content-Length: %d\r\n\r\n%s",
                            load.host, load.port,
                            load.key ? "Authorization: Bearer " : "",
                            load.key ? load.key : "", load.key ? "\r\n" : "", n, body);
}

struct reply {
    int status;
    bool whole, keeps;
    double first; /* when its first byte of content was there */
};

/* Is TEXT (N bytes, ended) a whole reply? Sizes are told by a length or by chunks. */
static bool whole_reply(const char *text, size_t n, struct reply *r)
{
    const char *const end = strstr(text, "\r\n\r\n");
    const char *length;

    if (!end)
        return false;
    r->keeps = !strstr(text, "onnection: close");
    length = strstr(text, "Content-Length: ");
    if (length && length < end)
        return n - (size_t)(end + 4 - text) >= strtoul(length + 16, NULL, 10);
    return n >= 5 && !memcmp(text + n - 5, "0\r\n\r\n", 5);
}

static void read_reply(int fd, struct reply *r, char *text)
{
    size_t n = 0;

    *r = (struct reply){0};
    while (n < REPLY_ROOM - 1) {
        const ssize_t got = recv(fd, text + n, REPLY_ROOM - 1 - n, 0);

        if (got <= 0)
            return;
        n += (size_t)got;
        text[n] = '\0';
        if (!r->status && n > 12)
            r->status = atoi(text + 9);
        if (!r->first && strstr(text, "\r\n\r\n"))
            r->first = clock_seconds();
        if (whole_reply(text, n, r)) {
            r->whole = true;
            return;
        }
    }
}

/* What became of request I; true: the connection can take another. */
static bool count_reply(size_t i, const struct reply *r, double start)
{
    const int kind = r->status / 100;

    if (!r->whole || kind < 1 || kind > 5) {
        atomic_fetch_add(&load.broken, 1);
        return false;
    }
    atomic_fetch_add(&load.status[kind], 1);
    if (r->status == 429 || r->status == 503)
        atomic_fetch_add(&load.refused, 1);
    if (kind == 2) {
        load.total[i] = (float)(clock_seconds() - start);
        load.first[i] = (float)(r->first - start);
    }
    return r->keeps;
}

static void *client(void *number)
{
    struct rng rng;
    char request[2048], *const text = malloc(REPLY_ROOM);
    int fd = -1;
    size_t i;

    rng_init(&rng, 1, (uint64_t)(size_t)number);
    while (text && (i = atomic_fetch_add(&load.next, 1)) < load.n_requests) {
        const size_t n = write_request(request, sizeof(request), i, &rng);
        struct reply r;
        double start;

        if (fd < 0)
            fd = dial();
        if (fd < 0) {
            atomic_fetch_add(&load.no_connection, 1);
            pause_ms(50);
            continue;
        }
        start = clock_seconds();
        if (rng_below(&rng, 100) < load.hang_up) {
            send_all(fd, request,
                     rng_below(&rng, 4) ? n : rng_below(&rng, (uint32_t)n));
            pause_ms(rng_below(&rng, 40));
            close(fd);
            fd = -1;
            atomic_fetch_add(&load.left, 1);
        } else {
            r = (struct reply){0};
            if (send_all(fd, request, n))
                read_reply(fd, &r, text);
            if (!count_reply(i, &r, start)) {
                close(fd);
                fd = -1;
            }
        }
        atomic_fetch_add(&load.done, 1);
    }
    if (fd >= 0)
        close(fd);
    free(text);
    return NULL;
}

/* A byte every 200 ms, of a request that never ends. */
static void *slow_client(void *number)
{
    static const char text[] =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\nContent-Length: 100000\r\n"
        "\r\n{\"model\": \"auto\", \"messages\": [";

    (void)number;
    while (!atomic_load(&load.over)) {
        const int fd = dial();

        for (size_t i = 0; fd >= 0 && !atomic_load(&load.over); i++) {
            if (!send_all(fd, i < sizeof(text) - 1 ? text + i : " ", 1))
                break;
            pause_ms(200);
        }
        if (fd >= 0)
            close(fd);
        pause_ms(100);
    }
    return NULL;
}

/* Random bytes, heads without sense, bodies that are too large. */
static void *garbage_client(void *number)
{
    static const char *const starts[] = {
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nContent-Length: 99999999\r\n\r\n",
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        "application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"};
    struct rng rng;
    char bytes[4096];

    rng_init(&rng, 2, (uint64_t)(size_t)number);
    while (!atomic_load(&load.over)) {
        const int fd = dial();
        const char *const start = starts[rng_below(&rng, 5)];

        if (fd >= 0 && rng_below(&rng, 2))
            send_all(fd, start, strlen(start));
        for (unsigned k = rng_below(&rng, 40); fd >= 0 && k; k--) {
            for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (char)rng_u32(&rng);
            if (!send_all(fd, bytes, sizeof(bytes)))
                break;
        }
        if (fd >= 0)
            close(fd);
        pause_ms(20);
    }
    return NULL;
}

/* Memory that is the process's own, swapped or not, and its open descriptors. */
static struct memory memory_now(void)
{
    char path[64], line[256];
    struct memory m = {0, 0};
    FILE *f;

    if (!load.pid)
        return m;
    snprintf(path, sizeof(path), "/proc/%d/status", load.pid);
    f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f)) {
        long kib;

        if (sscanf(line, "RssAnon: %ld", &kib) == 1 ||
            sscanf(line, "VmSwap: %ld", &kib) == 1)
            m.kib += kib;
        if (sscanf(line, "FDSize: %ld", &kib) == 1)
            m.descriptors = kib;
    }
    if (f)
        fclose(f);
    return m;
}

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static void print_times(const char *name, float *seconds)
{
    static const double at[] = {0.5, 0.9, 0.99, 0.999, 1};
    static const char *const called[] = {"p50", "p90", "p99", "p99.9", "max"};
    size_t n = 0;

    for (size_t i = 0; i < load.n_requests; i++)
        if (seconds[i] >= 0)
            seconds[n++] = seconds[i];
    qsort(seconds, n, sizeof(*seconds), ascending);
    printf(",\n  \"%s_ms\": {", name);
    for (size_t k = 0; n && k < sizeof(at) / sizeof(*at); k++) {
        size_t i = (size_t)(at[k] * (double)n);

        i = i < n ? i : n - 1;
        printf("%s\"%s\": %.2f", k ? ", " : "", called[k], 1e3 * (double)seconds[i]);
    }
    printf("}");
}

static void split_url(const char *url)
{
    if (sscanf(url, "http://%255[^:/]:%15[0-9]", load.host, load.port) != 2)
        leave("not http://HOST:PORT", url);
}

static void split_models(char *list)
{
    for (char *name = strtok(list, ","); name && load.n_models < MODELS_MAX;
         name = strtok(NULL, ","))
        load.models[load.n_models++] = name;
}

static void read_words(int argc, char **argv)
{
    const struct {
        const char *name;
        size_t *out;
    } numbers[] = {{"--clients", &load.n_clients}, {"--requests", &load.n_requests},
                   {"--tokens", &load.n_tokens},   {"--hang-up", &load.hang_up},
                   {"--slow", &load.n_slow},       {"--garbage", &load.n_garbage}};
    static char automatic[] = "auto";

    if (argc < 2)
        leave("usage", "load URL [--clients N] [--requests N] [--tokens N] ...");
    split_url(argv[1]);
    for (int i = 2; i < argc; i++) {
        const char *const word = argv[i];
        bool known = false;

        if (!strcmp(word, "--stream")) {
            load.stream = true;
            continue;
        }
        if (i + 1 == argc)
            leave("needs a value", word);
        i++;
        for (size_t k = 0; k < sizeof(numbers) / sizeof(*numbers); k++)
            if (!strcmp(word, numbers[k].name)) {
                *numbers[k].out = strtoul(argv[i], NULL, 10);
                known = true;
            }
        if (!strcmp(word, "--pid"))
            load.pid = atoi(argv[i]);
        else if (!strcmp(word, "--timeout"))
            load.timeout = atoi(argv[i]);
        else if (!strcmp(word, "--key"))
            load.key = argv[i];
        else if (!strcmp(word, "--models"))
            split_models(argv[i]);
        else if (!known)
            leave("unknown", word);
    }
    if (!load.n_models)
        split_models(automatic);
    if (!load.n_clients || !load.n_requests ||
        load.n_clients + load.n_slow + load.n_garbage > CLIENTS_MAX)
        leave("out of range", "--clients, --requests, --slow, --garbage");
}

static size_t start_all(pthread_t *threads)
{
    size_t n = 0;

    for (size_t i = 0; i < load.n_clients + load.n_slow + load.n_garbage; i++) {
        void *(*const run)(void *) = i < load.n_clients ? client
                                     : i < load.n_clients + load.n_slow
                                         ? slow_client
                                         : garbage_client;

        if (pthread_create(&threads[n], NULL, run, (void *)(i + 1)) == 0)
            n++;
    }
    return n;
}

static void print_result(double seconds, const struct memory *m)
{
    const size_t good = load.status[2];

    printf(
        "{\n  \"requests\": %zu, \"seconds\": %.3f, \"answers_per_second\": %.1f,\n"
        "  \"status\": {\"2xx\": %zu, \"4xx\": %zu, \"5xx\": %zu}, \"refused\": %zu, "
        "\"left\": %zu, \"broken\": %zu, \"no_connection\": %zu",
        (size_t)load.done, seconds, (double)good / seconds, good,
        (size_t)load.status[4], (size_t)load.status[5], (size_t)load.refused,
        (size_t)load.left, (size_t)load.broken, (size_t)load.no_connection);
    print_times("total", load.total);
    print_times("first", load.first);
    if (load.pid)
        printf(",\n  \"memory_kib\": {\"start\": %ld, \"fifth\": %ld, \"end\": %ld}",
               m[0].kib, m[1].kib, m[2].kib);
    printf("\n}\n");
}

int main(int argc, char **argv)
{
    static pthread_t threads[CLIENTS_MAX];
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct memory m[3];
    size_t n;
    double start;

    load.n_clients = 8;
    load.n_requests = 100;
    load.n_tokens = 16;
    load.timeout = 120;
    read_words(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if (getaddrinfo(load.host, load.port, &hints, &load.address))
        leave("no such host", load.host);
    load.total = malloc(load.n_requests * sizeof(*load.total));
    load.first = malloc(load.n_requests * sizeof(*load.first));
    if (!load.total || !load.first)
        leave("no memory", "fewer --requests");
    for (size_t i = 0; i < load.n_requests; i++)
        load.total[i] = load.first[i] = -1;
    m[0] = m[1] = memory_now();
    start = clock_seconds();
    n = start_all(threads);
    if (n < load.n_clients + load.n_slow + load.n_garbage)
        leave("cannot start threads", strerror(errno));
    for (bool fifth = false;
         atomic_load(&load.done) < load.n_requests &&
         atomic_load(&load.next) < load.n_requests + load.n_clients;) {
        if (!fifth && atomic_load(&load.done) >= load.n_requests / 5) {
            fifth = true;
            m[1] = memory_now();
        }
        pause_ms(5);
    }
    for (size_t i = 0; i < load.n_clients; i++)
        pthread_join(threads[i], NULL);
    m[2] = memory_now();
    const double seconds = clock_seconds() - start;

    atomic_store(&load.over, true);
    for (size_t i = load.n_clients; i < n; i++)
        pthread_join(threads[i], NULL);
    print_result(seconds, m);
    freeaddrinfo(load.address);
    free(load.total);
    free(load.first);
    return load.status[5] || load.broken || load.no_connection;
}
