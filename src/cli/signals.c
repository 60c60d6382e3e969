/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers do only what is allowed in them: set a flag, write(), _exit().
 */
#include "cli/signals.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define NAME_ROOM 512

volatile sig_atomic_t stop_signal;

static char mapped_name[NAME_ROOM];
static size_t mapped_length;

static void on_bus(int number)
{
    static const char before[] = "error: ";
    static const char after[] = ": the file was cut short while it "
                                "was in use [IO03]\n";
    ssize_t n;

    (void)number;
    n = write(STDERR_FILENO, before, sizeof(before) - 1);
    n = write(STDERR_FILENO, mapped_name, mapped_length);
    n = write(STDERR_FILENO, after, sizeof(after) - 1);
    (void)n;
    _exit(4);
}

static void on_stop(int number)
{
    if (stop_signal) {
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
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

void signals_init(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_WRONLY : O_RDONLY) != fd)
            _exit(4);
    signals_name_file("an input");
    handle(SIGBUS, on_bus);
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

void signals_ignore_pipe(void)
{
    handle(SIGPIPE, SIG_IGN);
}

void signals_name_file(const char *path)
{
    size_t n = strlen(path);

    if (n > NAME_ROOM)
        n = NAME_ROOM;
    for (size_t i = 0; i < n; i++)
        mapped_name[i] = (unsigned char)path[i] < 0x20 ? '?' : path[i];
    mapped_length = n;
}

void signals_forget(void)
{
    stop_signal = 0;
}

int signals_exit_code(void)
{
    return stop_signal ? 128 + (int)stop_signal : 0;
}
