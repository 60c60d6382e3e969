/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time that only goes forward, for measuring how long something takes.
 */
#ifndef ARTEL_BASE_CLOCK_H
#define ARTEL_BASE_CLOCK_H

/* Seconds since some moment, the same for all threads. */
double clock_seconds(void);

#endif
