/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers do only what is allowed in them: set a flag, read(), write(), _exit().
 * Which file was cut is found in /proc/self/maps: it names every mapping.
 */
#include "cli/signals.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define LINE_ROOM 600

volatile sig_atomic_t stop_signal;

static volatile sig_atomic_t n_stops, n_taken = 1, n_reopens;

/* Lines of a descriptor, one at a time; what is too long for LINE_ROOM is left out. */
struct lines {
    char block[512], line[LINE_ROOM];
    size_t at, end, length;
    int fd;
};

static bool next_line(struct lines *l)
{
    l->length = 0;
    for (;;) {
        char c;

        if (l->at == l->end) {
            const ssize_t n = read(l->fd, l->block, sizeof(l->block));

            if (n <= 0)
                return false;
            l->at = 0;
            l->end = (size_t)n;
        }
        c = l->block[l->at++];
        if (c == '\n')
            return true;
        if (l->length < LINE_ROOM)
            l->line[l->length++] = c;
    }
}

static uintptr_t hex(const struct lines *l, size_t *at)
{
    uintptr_t value = 0;

    for (; *at < l->length; ++*at) {
        const char c = l->line[*at];

        if (c >= '0' && c <= '9')
            value = value << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uintptr_t)(c - 'a' + 10);
        else
            break;
    }
    return value;
}

/* Where the name of the file starts in a line of what is mapped as inputs are, read-only
 * and private, and holds ADDRESS; otherwise 0. "7f00-7f10 r--p 0000 fe:00 1234   /name" */
static size_t input_at(const struct lines *l, uintptr_t address)
{
    static const char kind[] = " r--p ";
    size_t at = 0;
    const uintptr_t from = hex(l, &at);
    const uintptr_t to = (at++, hex(l, &at));

    if (address < from || address >= to || l->length < at + sizeof(kind) ||
        memcmp(l->line + at, kind, sizeof(kind) - 1) != 0)
        return 0;
    for (; at < l->length; at++)
        if (l->line[at] == '/')
            return at;
    return 0;
}

/* An access behind the end of a mapped input is told; any other SIGBUS is a fault of the
 * program or its libraries, and ends it as if there were no handler. */
static void on_bus(int number, siginfo_t *info, void *context)
{
    static const char before[] = "error: ";
    static const char after[] = ": the file was cut short while it "
                                "was in use [IO03]\n";
    struct lines l;
    size_t name = 0;

    (void)context;
    l.at = l.end = l.length = 0;
    l.fd = info->si_code == BUS_ADRERR ? open("/proc/self/maps", O_RDONLY | O_CLOEXEC)
                                       : -1;
    while (l.fd >= 0 && !name && next_line(&l))
        name = input_at(&l, (uintptr_t)info->si_addr);
    if (name) {
        ssize_t n = write(STDERR_FILENO, before, sizeof(before) - 1);

        n = write(STDERR_FILENO, l.line + name, l.length - name);
        n = write(STDERR_FILENO, after, sizeof(after) - 1);
        (void)n;
        _exit(4);
    }
    signal(number, SIG_DFL);
    raise(number);
}

static void on_stop(int number)
{
    if (n_stops >= n_taken) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    n_stops++;
    stop_signal = number;
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

static void handle_bus(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_bus;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

void signals_init(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_WRONLY : O_RDONLY) != fd)
            _exit(4);
    handle_bus();
    handle(SIGXFSZ, SIG_IGN);
}

void signals_stop_in_order(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1};

    /* USR1 is how batch systems warn of the end of a job's time. */
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct sigaction old;

        /* nohup and "&" in scripts turn some off; they stay off. */
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            handle(numbers[i], on_stop);
    }
}

const volatile sig_atomic_t *signals_counted(void)
{
    n_taken = 2;
    return &n_stops;
}

static void on_reopen(int number)
{
    (void)number;
    n_reopens = n_reopens < 1000000 ? n_reopens + 1 : 0;
}

const volatile sig_atomic_t *signals_reopen(void)
{
    handle(SIGUSR1, on_reopen);
    return &n_reopens;
}

void signals_ignore_pipe(void)
{
    handle(SIGPIPE, SIG_IGN);
}

void signals_forget(void)
{
    stop_signal = 0;
    n_stops = 0;
}

int signals_exit_code(void)
{
    return stop_signal ? 128 + (int)stop_signal : 0;
}
