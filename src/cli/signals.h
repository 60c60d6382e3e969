/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stopping in order, and what the surroundings may do to a program.
 */
#ifndef ARTEL_CLI_SIGNALS_H
#define ARTEL_CLI_SIGNALS_H

#include <signal.h>
#include <stdbool.h>

/* 0, or the signal that asked to stop. The second one ends the program at once. */
extern volatile sig_atomic_t stop_signal;

/* Descriptors 0 to 2 are open, SIGBUS (a mapped file was cut) is told, SIGXFSZ becomes
 * a write error. */
void signals_init(void);
/* SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGUSR1 set stop_signal from now on. */
void signals_stop_in_order(void);
/* How many have come, for who ends in order at the first and at once at the second; only
 * the third ends the program by itself from now on. */
const volatile sig_atomic_t *signals_counted(void);
/* How many SIGUSR1 have come, none of which stops anything from now on: it asks for the
 * log to be opened anew. */
const volatile sig_atomic_t *signals_reopen(void);
/* A closed reader of standard output does not end the program. */
void signals_ignore_pipe(void);
/* Answered: the next signal counts as the first again. */
void signals_forget(void);
/* 128 + the signal, or 0. */
int signals_exit_code(void);

#endif
